"""What explaining costs: counted, limited by a budget, and given back."""

import gc
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.callbacks import Callback
from tiny import SpyIBA, TinyData, TinyImages, TinyTask, tiny_trainer
from torch.utils.data import DataLoader

from lightning_chex.attribution import FeatureStatistics, observing
from lightning_chex.data import collate
from lightning_chex.explanations import IBACallback
from lightning_chex.explanations import budget as cost
from lightning_chex.explanations.writer import ExplanationWriter
from lightning_chex.report import TABLE_COLUMNS
from lightning_chex.report.film import read_frames

pytestmark = pytest.mark.filterwarnings("ignore:the feature statistics rest on", "ignore:.*does not have many workers")


class Clock:
    """Stands still but for what the tests let take time."""

    def __init__(self) -> None:
        self.now = 100.0

    def takes(self, monkeypatch, place, name, seconds) -> None:
        """From now on a method takes so many seconds."""
        real = getattr(place, name)

        def slow(*arguments, **named):
            self.now += seconds
            return real(*arguments, **named)

        monkeypatch.setattr(place, name, slow)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    found = Clock()
    for module in (cost, observing):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: found.now))
    return found


class Logged(Callback):
    """What was logged at each validation."""

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def on_validation_end(self, trainer, pl_module) -> None:
        if not trainer.sanity_checking:
            self.seen.append({key: float(value) for key, value in trainer.callback_metrics.items()})


def test_seconds_and_share_are_those_since_they_were_logged_last(tmp_path, monkeypatch, clock):
    clock.takes(monkeypatch, TinyTask, "training_step", 10.0)
    clock.takes(monkeypatch, TinyTask, "validation_step", 4.0)
    clock.takes(monkeypatch, SpyIBA, "compute", 5.0)
    clock.takes(monkeypatch, FeatureStatistics, "update", 0.5)
    clock.takes(monkeypatch, ExplanationWriter, "write", 3.0)
    logged, explaining = Logged(), IBACallback(SpyIBA(), num_images=4, batch_size=2, save_pictures=False)
    trainer = tiny_trainer(tmp_path, logged, explaining, max_epochs=3, num_sanity_val_steps=0)
    trainer.fit(TinyTask(), TinyData(num_val=12))
    statistics = 3 * 0.5  # of three batches, within the network's own passes
    first, second, third = logged.seen
    wall = 2 * 10 + 3 * 4
    assert first["val/iba_seconds"] == pytest.approx(statistics + 2 * 5)
    assert first["val/iba_time_share"] == pytest.approx((statistics + 10) / (wall + statistics + 10))
    # the pictures of the validation before are of this account
    for later in (second, third):
        assert later["val/iba_seconds"] == pytest.approx(3 + statistics + 10)
        assert later["val/iba_time_share"] == pytest.approx((13 + statistics) / (wall + 13 + statistics))


def test_epochs_without_explanation_lower_the_share(tmp_path, monkeypatch, clock):
    clock.takes(monkeypatch, TinyTask, "training_step", 10.0)
    clock.takes(monkeypatch, SpyIBA, "compute", 5.0)
    logged = Logged()
    explaining = IBACallback(SpyIBA(), num_images=2, save_pictures=False, every_n_epochs=2)
    tiny_trainer(tmp_path, logged, explaining, max_epochs=4, num_sanity_val_steps=0).fit(TinyTask(), TinyData())
    assert "val/iba_seconds" not in logged.seen[0]
    assert [seen["val/iba_time_share"] for seen in logged.seen[1:]] == pytest.approx([5 / 45, 5 / 45, 5 / 45])


def test_a_validation_of_its_own_is_an_account_of_its_own(tmp_path, monkeypatch, clock):
    clock.takes(monkeypatch, TinyTask, "validation_step", 4.0)
    clock.takes(monkeypatch, SpyIBA, "compute", 6.0)
    trainer = tiny_trainer(tmp_path, IBACallback(SpyIBA(), num_images=4, save_pictures=False))
    clock.now += 1000  # before it begins
    trainer.validate(TinyTask(), TinyData(), verbose=False)
    assert trainer.callback_metrics["val/iba_seconds"] == 6
    assert trainer.callback_metrics["val/iba_time_share"] == pytest.approx(6 / 18)
    trainer.test(TinyTask(), TinyData(), verbose=False)
    assert not [key for key in trainer.callback_metrics if key.startswith("test/iba_time")]


@pytest.mark.parametrize(("budget", "explained"), [(1e-9, 3), (7.0, 6), (5.0, 3), (100.0, 10)])
def test_explaining_stops_after_the_batch_at_which_the_budget_is_spent(
    tmp_path, monkeypatch, clock, budget, explained, recwarn
):
    clock.takes(monkeypatch, SpyIBA, "compute", 5.0)
    logged, drawn = Logged(), budget == 1e-9
    explaining = IBACallback(SpyIBA(), num_images=-1, batch_size=3, time_budget=budget, save_pictures=drawn)
    trainer = tiny_trainer(tmp_path, logged, explaining, max_epochs=2, num_sanity_val_steps=0)
    data = TinyData()
    trainer.fit(TinyTask(), data)
    assert sum(len(images) for images in explaining.attributor.images) == 2 * explained
    images = torch.cat(explaining.attributor.images)
    assert torch.equal(images, data.val.images[:explained].repeat(2, 1, 1, 1))  # the first of them, in order
    said = [str(warning.message) for warning in recwarn if "time_budget" in str(warning.message)]
    assert len(said) == (explained < 10) and all(f"{explained} of the 10 images chosen" in text for text in said)
    rows = [dict(zip(TABLE_COLUMNS, row, strict=True)) for row in explaining.state_dict()["course"]["rows"]]
    for epoch, seen in enumerate(logged.seen):
        own = [row["iou"] for row in rows if row["epoch"] == epoch]
        assert len(own) == explained == seen["val/iba_images"]
        assert seen["val/iba_iou"] == pytest.approx(sum(own) / explained, abs=1e-5)
    if drawn:
        frames = read_frames(tmp_path / "explanations" / "frames" / "iba")
        assert len(frames) == 2 and len({tuple(frame.keys) for frame in frames}) == 1
    monkeypatch.setattr(cost, "until_budget_spent", None)  # a test has no budget
    del explaining.attributor.images[:]
    trainer.test(TinyTask(), data, verbose=False)
    assert sum(len(images) for images in explaining.attributor.images) == 6


def test_of_a_loader_that_shuffles_all_chosen_images_stay_chosen_and_the_first_is_explained_first(tmp_path):
    images = TinyImages(12, 1)
    generator = torch.Generator().manual_seed(0)
    loader = DataLoader(images, 4, shuffle=True, generator=generator, collate_fn=collate)
    explaining = IBACallback(SpyIBA(), num_images=8, batch_size=2, time_budget=1e-9, save_pictures=False)
    trainer = tiny_trainer(tmp_path, explaining, max_epochs=4, num_sanity_val_steps=0)
    with pytest.warns(UserWarning, match="2 of the 8 images chosen were explained"):
        trainer.fit(TinyTask(), TinyData().train_dataloader(), loader)
    assert len(set(explaining.state_dict()["course"]["chosen"])) == 8
    batches = explaining.attributor.images
    assert len(batches) == 4 and all(1 <= len(batch) <= 2 for batch in batches)
    assert all(torch.equal(batch[0], batches[0][0]) for batch in batches)


@pytest.mark.parametrize("budget", [0, -1.0, float("nan")])
def test_a_budget_of_nothing_is_refused(budget):
    with pytest.raises(ValueError, match=r"time_budget=.* must be greater than 0 seconds, or null for none"):
        IBACallback(time_budget=budget)


class Tensors(Callback):
    """Sizes of the tensors there are, before the first training step of each epoch."""

    def __init__(self, attributor) -> None:
        self.attributor = attributor
        self.sizes: list[list[int]] = []

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        gc.collect()
        # of the statistics, which stay, not to be counted, and of scalars, which loggers keep
        own = {id(value) for value in vars(self.attributor.statistics).values()}
        found = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor) and id(one) not in own]
        self.sizes.append(sorted(one.numel() for one in found if one.numel() > 100))


@pytest.mark.parametrize("offered", [True, False])
def test_nothing_of_an_explanation_is_kept_when_training_goes_on(tmp_path, offered):
    found = []
    for every in (100, 1):  # never, always
        explaining = IBACallback(Plain(), num_images=6, batch_size=2, every_n_epochs=every, save_pictures=False)
        tensors, data = Tensors(explaining.attributor), TinyData()
        trainer = tiny_trainer(tmp_path, tensors, explaining, max_epochs=2, num_sanity_val_steps=0)
        if offered:
            trainer.fit(TinyTask(), data)
        else:
            trainer.fit(TinyTask(), data.train_dataloader(), data.val_dataloader())
        assert ("val/iba_iou" in trainer.callback_metrics) == (every == 1)
        found.append(tensors.sizes)
        del explaining, tensors, data, trainer
    assert len(found[0]) == 2 and found[0] == found[1]


class Plain(SpyIBA):
    """Remembers nothing."""

    def compute(self, model, images, targets):
        found = super().compute(model, images, targets)
        for seen in (self.images, self.targets, self.weights):
            seen.clear()
        return found
