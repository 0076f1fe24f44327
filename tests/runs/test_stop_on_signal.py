"""A training that a signal stops between two batches, and what a later process makes of its state."""

import random
import signal
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import SIGTERMException
from tiny import TinyData, TinyTask, tiny_trainer
from torch.utils.data import DataLoader

from lightning_chex.data import collate
from lightning_chex.runs import LastCheckpoint, keep_newest_state

pytestmark = pytest.mark.filterwarnings("ignore")

SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)


class SignalAt(pl.Callback):
    """Sends a signal at the n-th of all moments at which this is called."""

    def __init__(self, moment: int, number: int) -> None:
        self.left = moment
        self.number = number

    def _pass(self) -> None:
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(self.number)

    def on_train_batch_start(self, *_):
        self._pass()

    def on_before_optimizer_step(self, *_):
        self._pass()

    def on_train_batch_end(self, *_):
        self._pass()

    def on_validation_batch_start(self, *_):
        self._pass()

    def on_validation_end(self, *_):
        self._pass()

    def on_train_epoch_end(self, *_):
        self._pass()


class Recording(TinyTask):
    """Notes the images of each training step that was completed, and how often all validation images were seen."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, ...]] = []
        self.validated = 0
        self.whole_validations = 0

    def training_step(self, batch, batch_idx):
        self.seen.append(tuple(batch["image_id"]))
        return super().training_step(batch, batch_idx)

    def on_validation_epoch_start(self):
        self.validated = 0

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.validated += len(batch["image_id"])

    def on_validation_epoch_end(self):
        assert self.trainer.sanity_checking or self.validated == 10
        self.whole_validations += not self.trainer.sanity_checking


class SmallBatches(TinyData):
    """Four batches of two an epoch."""

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=2, shuffle=True, collate_fn=collate)


def fit(folder: Path, epochs: int, *callbacks, resume: Path | None = None, **options) -> Recording:
    task = Recording()
    trainer = tiny_trainer(
        folder, *callbacks, max_epochs=epochs, enable_checkpointing=True, num_sanity_val_steps=0, **options
    )
    keep_newest_state(trainer)
    stopped = False
    try:
        trainer.fit(task, datamodule=SmallBatches(), ckpt_path=resume)
    except SIGTERMException:
        stopped = True
    task.stopped = stopped
    return task


@pytest.mark.parametrize("options", [{}, {"val_check_interval": 2}, {"accumulate_grad_batches": 2}])
def test_signals_at_random_moments_lose_no_batch(tmp_path, options):
    epochs = 30
    pl.seed_everything(0)
    whole = fit(tmp_path / "whole", epochs, **options)
    pl.seed_everything(0)
    draw = random.Random(1)
    last = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    seen, validations, sent = [], 0, 0
    while True:
        resume = last if last.exists() else None
        task = fit(
            tmp_path / "stopped", epochs, SignalAt(draw.randint(1, 12), draw.choice(SIGNALS)), resume=resume, **options
        )
        seen += task.seen
        validations += task.whole_validations
        if not task.stopped:
            break
        sent += 1
    assert sent >= 34  # a hundred in all three settings
    assert seen == whole.seen and validations == whole.whole_validations
    for name, value in whole.state_dict().items():
        assert torch.equal(value, task.state_dict()[name]), name


def test_handlers_only_set_a_flag_and_are_taken_back(tmp_path):
    before = [signal.getsignal(number) for number in SIGNALS]
    task = fit(tmp_path, 2, SignalAt(2, signal.SIGUSR1))  # before the optimizer step of the first batch
    assert task.stopped and task.steps == 1
    assert [signal.getsignal(number) for number in SIGNALS] == before
    state = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 1
    assert [path.name for path in tmp_path.rglob("*.ckpt")] == ["last.ckpt"]


def test_workers_keep_the_order_of_the_images(tmp_path):
    class Workers(SmallBatches):
        def train_dataloader(self):
            return DataLoader(self.train, batch_size=2, shuffle=True, collate_fn=collate, num_workers=1)

    seen = []
    pl.seed_everything(0)
    for resume in (None, tmp_path / "checkpoints" / "last.ckpt"):
        task = Recording()
        trainer = tiny_trainer(
            tmp_path, *([SignalAt(4, signal.SIGTERM)] if resume is None else []), enable_checkpointing=True
        )
        keep_newest_state(trainer)
        try:
            trainer.fit(task, datamodule=Workers(), ckpt_path=resume)
        except SIGTERMException:
            assert resume is None
        seen += task.seen
    assert len(seen) == 4 and len({image for batch in seen for image in batch}) == 8


def test_a_checkpoint_of_an_earlier_version_restores_its_random_state(tmp_path):
    fit(tmp_path, 1)
    path = tmp_path / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    (key,) = [key for key in content["callbacks"] if key.startswith(LastCheckpoint.__name__)]
    (own,) = content["callbacks"][key]["processes"]
    content["callbacks"][key] = {"random_state": own["random_state"]}
    torch.save(content, path)
    torch.manual_seed(99)
    first = fit(tmp_path / "a", 2, resume=path).seen
    torch.manual_seed(77)
    assert fit(tmp_path / "b", 2, resume=path).seen == first
