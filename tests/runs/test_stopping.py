import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from tiny import LAYER, TinyData, TinyTask, tiny_trainer

from lightning_chex.attribution import IBA
from lightning_chex.explanations import IBACallback
from lightning_chex.runs import FiniteWeights

pytestmark = pytest.mark.filterwarnings("ignore")


class Diverging(TinyTask):
    """Its loss becomes NaN at one step, counted from 1."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) * (torch.nan if self.steps == self.at else 1.0)


def fit(folder, at, *callbacks, **options):
    trainer = tiny_trainer(folder, FiniteWeights(), *callbacks, max_epochs=3, **options)
    trainer.fit(Diverging(at), datamodule=TinyData())


def test_a_diverged_training_ends_where_it_diverged_and_is_not_explained(tmp_path):
    callback = IBACallback(IBA(LAYER, steps=2))
    with pytest.raises(MisconfigurationException, match="the loss of step 2 was NaN or infinite, and now, at step 2"):
        fit(tmp_path, 2, callback)  # 2 steps an epoch
    assert callback.attributor.num_observed == 0 and not list(tmp_path.iterdir())


def test_the_last_whole_checkpoint_is_named_and_none_of_nan_is_written(tmp_path):
    saving = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    with pytest.raises(MisconfigurationException) as error:
        fit(tmp_path, 4, saving, enable_checkpointing=True)
    assert f"the last whole checkpoint is {tmp_path / 'step=3.ckpt'}." in str(error.value)
    assert "go on from the checkpoint by --ckpt_path" in str(error.value)
    assert "loss of step 4" in str(error.value) and "model.0.weight for one" in str(error.value)
    assert {path.name for path in tmp_path.glob("*.ckpt")} == {"step=1.ckpt", "step=2.ckpt", "step=3.ckpt"}
    for path in tmp_path.glob("*.ckpt"):
        assert all(value.isfinite().all() for value in torch.load(path)["state_dict"].values())


def test_a_healthy_training_goes_through(tmp_path):
    fit(tmp_path, 0, ModelCheckpoint(tmp_path, save_last=True), enable_checkpointing=True)
    assert (tmp_path / "last.ckpt").is_file()


def test_long_epochs_are_looked_into(tmp_path):
    class Long(TinyData):
        def train_dataloader(self):
            return torch.utils.data.DataLoader(self.train, batch_size=1, collate_fn=self.collate)

    module = Diverging(2)
    with pytest.raises(MisconfigurationException, match="now, at step 4"):
        tiny_trainer(tmp_path, FiniteWeights(every_n_steps=4)).fit(module, datamodule=Long())
    assert module.steps == 4


def test_statistics_of_normalisation_count_too(tmp_path):
    class Spoils(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            pl_module.model[1].running_var.fill_(torch.nan)

    with pytest.raises(MisconfigurationException, match="1 of the weights are, model.1.running_var"):
        fit(tmp_path, 0, Spoils())


def test_the_random_state_and_the_weights_are_left_alone(tmp_path):
    states = []
    for callbacks in ([FiniteWeights()], []):
        pl.seed_everything(0)
        task = TinyTask()
        tiny_trainer(tmp_path, *callbacks).fit(task, datamodule=TinyData())
        states.append([*task.state_dict().values(), torch.get_rng_state()])
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
