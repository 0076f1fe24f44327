"""What the callback explains and logs, through the real Trainer."""

import warnings

import pytest
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from tiny import CLASS_NAMES, LAYER, SpyIBA, TinyData, TinyImages, TinyTask, tiny_trainer
from torch.utils.data import DataLoader

from lightning_chex.attribution import IBA
from lightning_chex.data import collate
from lightning_chex.explanations import IBACallback
from lightning_chex.metrics import boxes_to_mask, intersection_over_union, top_fraction_mask

pytestmark = pytest.mark.filterwarnings("ignore:the feature statistics rest on")


def callback(**options) -> IBACallback:
    return IBACallback(**{"attributor": SpyIBA(), "num_images": -1, "save_pictures": False, **options})


def iou_by_hand(
    task: TinyTask, images: TinyImages, statistics_of: TinyImages, fraction: float = 0.05, without: int = 0
) -> list[float]:
    """``without`` the first images the statistics are made."""
    iba = IBA(layer=LAYER, steps=2).fit(task.model, [statistics_of.images[without:]])
    maps = iba.attribute(task.model, images.images, images.targets)
    regions = torch.stack([boxes_to_mask(images[i]["boxes"], maps.shape[1:]) for i in range(len(images))])
    return intersection_over_union(top_fraction_mask(maps, fraction), regions).tolist()


def test_validate_logs_what_direct_attribution_gives(tmp_path):
    task, data, explaining = TinyTask(), TinyData(), callback(batch_size=3, top_fraction=0.2)
    (logged,) = tiny_trainer(tmp_path, explaining).validate(task, data, verbose=False)
    values = iou_by_hand(task, data.val, data.val, 0.2)
    by_class = [sum(values[c::2]) / 5 for c in range(2)]
    assert logged["val/iba_iou"] == pytest.approx(sum(values) / 10, abs=1e-5)
    assert logged["val/iba_iou_class_mean"] == pytest.approx(sum(by_class) / 2, abs=1e-5)
    assert [logged[f"val/iba_iou/{name}"] for name in CLASS_NAMES] == pytest.approx(by_class, abs=1e-5)
    assert 0 < logged["val/iba_iou"] < 1 and by_class[0] != pytest.approx(by_class[1])


@pytest.mark.parametrize(("beta", "expected"), [(1e6, 1.0), (1e-6, 0.0)])
def test_share_of_empty_maps_is_logged_and_a_warning_names_the_remedy(tmp_path, beta, expected):
    explaining = IBACallback(IBA(layer=LAYER, steps=20, beta=beta), num_images=-1)
    task, data = TinyTask(), TinyData()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (logged,) = tiny_trainer(tmp_path, explaining).validate(task, data, verbose=False)
    sums = explaining.attributor.attribute(task.model, data.val.images, data.val.targets).sum((1, 2))
    share = float((sums < 8).float().mean())  # log2 of 16 x 16 pixels
    assert logged["val/iba_empty"] == pytest.approx(share) == expected
    told = [str(one.message) for one in caught if "empty maps" in str(one.message)]
    assert len(told) == (expected > 0) and all("100% of iba" in one and "smaller beta" in one for one in told)


def test_controls_score_what_knows_nothing(tmp_path):
    (logged,) = tiny_trainer(tmp_path, callback(top_fraction=0.2)).validate(TinyTask(), TinyData(), verbose=False)
    box = 36 / 256
    assert logged["val/iba_iou_every_pixel"] == pytest.approx(box)
    both = 0.2 * box
    assert logged["val/iba_iou_random"] == pytest.approx(both / (0.2 + box - both), abs=0.04)


def test_fit_logs_what_checkpoints_monitor(tmp_path):
    best = ModelCheckpoint(tmp_path / "best", monitor="val/iba_iou", mode="max", filename="best")
    trainer = tiny_trainer(
        tmp_path, best, callback(), max_epochs=2, enable_checkpointing=True, logger=CSVLogger(tmp_path)
    )
    trainer.fit(TinyTask(), TinyData())
    logged = trainer.callback_metrics["val/iba_iou"]
    assert torch.isfinite(logged) and best.best_model_score >= logged
    assert (tmp_path / "best" / "best.ckpt").is_file()


def test_fit_logs_what_early_stopping_monitors(tmp_path):
    stopping = EarlyStopping("val/iba_iou", mode="max", patience=1, check_on_train_epoch_end=False)
    trainer = tiny_trainer(tmp_path, stopping, callback(), max_epochs=9)
    data = TinyData()
    task = TinyTask(lr=1e-30)  # nothing is learnt
    task.model[1].momentum = 0.0  # not by batch normalisation either
    trainer.fit(task, data)
    assert trainer.current_epoch == 2 and stopping.stopped_epoch == 1


def test_sanity_check_is_skipped(tmp_path):
    explaining = callback()
    sane: list[int] = []

    class Watch(Callback):
        def on_sanity_check_end(self, trainer, pl_module) -> None:
            sane.append(len(explaining.attributor.images))
            assert explaining.attributor.num_observed == 0

    trainer = tiny_trainer(tmp_path, explaining, Watch(), num_sanity_val_steps=2)
    trainer.fit(TinyTask(), TinyData())
    assert sane == [0] and len(explaining.attributor.images) == 1


@pytest.mark.parametrize(("every", "explained"), [(1, 5), (2, 2), (3, 1), (6, 0)])
def test_every_n_epochs(tmp_path, every, explained):
    explaining = callback(every_n_epochs=every)
    tiny_trainer(tmp_path, explaining, max_epochs=5).fit(TinyTask(), TinyData())
    assert len(explaining.attributor.images) == explained


@pytest.mark.parametrize(("asked", "explained"), [(1, 1), (7, 7), (10, 10), (500, 10), (-1, 10)])
def test_as_many_images_as_asked_are_explained_the_first_offered(tmp_path, asked, explained):
    explaining, data = callback(num_images=asked, batch_size=4), TinyData()
    tiny_trainer(tmp_path, explaining).validate(TinyTask(), data, verbose=False)
    assert torch.equal(torch.cat(explaining.attributor.images), data.val.images[:explained])
    assert max(map(len, explaining.attributor.images)) <= 4


@pytest.mark.parametrize(("asked", "explained"), [(3, 3), (6, 6), (-1, 10)])
def test_without_a_data_module_the_first_batches_are_explained(tmp_path, asked, explained):
    explaining, data, task = callback(num_images=asked), TinyData(), TinyTask()
    trainer = tiny_trainer(tmp_path, explaining, max_epochs=2)
    trainer.fit(task, data.train_dataloader(), data.val_dataloader())
    seen = torch.cat(explaining.attributor.images)
    assert len(seen) == 2 * explained and torch.equal(seen[:explained], seen[explained:])
    assert torch.equal(seen[:explained], data.val.images[:explained])
    # the images explained are left out of the statistics, unless they are all there are
    values = iou_by_hand(task, data.val, data.val, without=explained if explained < 10 else 0)[:explained]
    assert trainer.callback_metrics["val/iba_iou"] == pytest.approx(sum(values) / explained, abs=1e-5)


def test_without_a_box_maps_are_drawn_and_no_iou_is_logged(tmp_path):
    explaining = callback(save_pictures=True, num_images=2)
    trainer = tiny_trainer(tmp_path, explaining, max_epochs=2)
    with pytest.warns(UserWarning, match="no image explained has an expert box or another region"):
        trainer.fit(TinyTask(), TinyData(boxes=False))
    assert not [key for key in trainer.callback_metrics if "iou" in key]
    assert explaining.last_sheet is not None and explaining.last_sheet.is_file() and trainer.current_epoch == 2


def test_a_score_is_explained_without_iou_and_without_a_warning(tmp_path, recwarn):
    explaining = callback(attributor=SpyIBA(objective="squared_error"), num_images=3)
    data = TinyData(score=True)
    trainer = tiny_trainer(tmp_path, explaining)
    trainer.fit(TinyTask(class_names=()), data)
    assert torch.equal(explaining.attributor.targets[0], data.val.labels[:3])
    assert not [key for key in trainer.callback_metrics if "iou" in key]
    assert not [w for w in recwarn if "expert box" in str(w.message)]


def test_too_few_images_for_statistics_are_a_warning_and_no_map(tmp_path):
    explaining = callback()
    with pytest.warns(UserWarning, match="the feature statistics rest on 1 image"):
        tiny_trainer(tmp_path, explaining).fit(TinyTask(), TinyData(num_val=1))
    assert not explaining.attributor.images


def test_few_images_for_statistics_are_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="rest on 10 images only; 50 or more"):
        tiny_trainer(tmp_path, callback()).validate(TinyTask(), TinyData(), verbose=False)


def test_callbacks_of_different_names_log_and_remember_apart(tmp_path):
    first = callback(attributor=SpyIBA(layer="2"))
    second = callback(attributor=SpyIBA(layer="0", beta=1.0), name="early")
    trainer = tiny_trainer(tmp_path, first, second)
    trainer.fit(TinyTask(), TinyData())
    logged = trainer.callback_metrics
    assert logged["val/iba_iou"] != logged["val/early_iou"]
    trainer.save_checkpoint(tmp_path / "both.ckpt")
    restored = [callback(attributor=SpyIBA(layer=layer), name=name) for layer, name in (("0", "early"), ("2", "iba"))]
    tiny_trainer(tmp_path, *restored).test(TinyTask(), TinyData(), ckpt_path=tmp_path / "both.ckpt", verbose=False)
    for old, new in ((first, restored[1]), (second, restored[0])):
        assert torch.equal(old.attributor.statistics.mean, new.attributor.statistics.mean)


def test_test_explains_the_test_images_by_the_checkpoints_statistics(tmp_path):
    data, task, trained = TinyData(), TinyTask(), callback()
    trainer = tiny_trainer(tmp_path, trained, max_epochs=2)
    trainer.fit(task, data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    tested = callback()
    trainer = tiny_trainer(tmp_path, tested)
    (logged,) = trainer.test(TinyTask(), data, ckpt_path=tmp_path / "last.ckpt", weights_only=True, verbose=False)
    assert torch.equal(torch.cat(tested.attributor.images), data.test.images)
    assert tested.attributor.num_observed == 10
    assert torch.equal(tested.attributor.statistics.mean, trained.attributor.statistics.mean)
    values = iou_by_hand(task, data.test, statistics_of=data.val)
    assert logged["test/iba_iou"] == pytest.approx(sum(values) / 6, abs=1e-5)


def test_test_after_fit_uses_the_last_validations_statistics(tmp_path):
    task, data, explaining = TinyTask(), TinyData(), callback()
    trainer = tiny_trainer(tmp_path, explaining)
    trainer.fit(task, data)
    statistics = explaining.attributor.statistics
    explaining.attributor.images.clear()
    trainer.test(task, data, verbose=False)
    assert explaining.attributor.statistics is statistics
    assert torch.equal(torch.cat(explaining.attributor.images), data.test.images)


def test_test_without_statistics_says_where_to_get_them(tmp_path):
    explaining = callback()
    with pytest.warns(UserWarning, match="nothing was explained.*--ckpt_path"):
        (logged,) = tiny_trainer(tmp_path, explaining).test(TinyTask(), TinyData(), verbose=False)
    assert "test/loss" in logged and not explaining.attributor.images


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_other_precisions_explain_nearly_the_same(tmp_path, precision):
    (expected,) = tiny_trainer(tmp_path, callback(top_fraction=0.2)).validate(TinyTask(), TinyData(), verbose=False)
    explaining = callback(top_fraction=0.2)
    trainer = tiny_trainer(tmp_path, explaining, precision=precision)
    (logged,) = trainer.validate(TinyTask(), TinyData(), verbose=False)
    assert logged["val/iba_iou_every_pixel"] == expected["val/iba_iou_every_pixel"]  # boxes keep their precision
    assert logged["val/iba_iou"] == pytest.approx(expected["val/iba_iou"], abs=0.05)
    assert explaining.attributor.images[0].dtype == {"bf16-true": torch.bfloat16, "64-true": torch.float64}.get(
        precision, torch.float32
    )


def test_a_resume_in_mid_epoch_explains(tmp_path):
    every_step = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    tiny_trainer(tmp_path, every_step, callback(), enable_checkpointing=True).fit(TinyTask(), TinyData())
    explaining = callback()
    trainer = tiny_trainer(tmp_path, explaining, max_epochs=2)
    task = TinyTask()
    trainer.fit(task, TinyData(), ckpt_path=tmp_path / "step=1.ckpt")
    assert task.steps == 3 and len(explaining.attributor.images) >= 1
    assert torch.isfinite(trainer.callback_metrics["val/iba_iou"])


def test_a_batch_without_images_is_refused_by_its_parts(tmp_path):
    loader = DataLoader([(torch.zeros(16), torch.zeros(2))])

    class Pairs(TinyTask):
        def validation_step(self, batch, batch_idx) -> None:
            pass

    with pytest.raises(
        Exception, match=r"a tuple \(image, label, ...\) or a dict.*not a list of Tensor \(1, 16\), Tensor \(1, 2\)"
    ):
        tiny_trainer(tmp_path, callback()).validate(Pairs(), loader, verbose=False)


def test_explained_images_keep_boxes_from_a_plain_loader(tmp_path):
    explaining = callback(num_images=5, save_pictures=True)
    loader = DataLoader(TinyImages(10, 1), 4, collate_fn=collate)
    tiny_trainer(tmp_path, explaining).validate(TinyTask(), loader, verbose=False)
    names = sorted(path.name for path in (tmp_path / "explanations" / "validate").iterdir())
    assert names == [f"{i:03d}_image-1-{i}__{CLASS_NAMES[i % 2]}.png" for i in range(5)]
