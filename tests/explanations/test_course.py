"""The same images at every validation of a training, over its checkpoints, and the film strip made of them."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from tiny import LAYER, SpyIBA, TinyData, TinyImages, TinyTask, tiny_trainer
from torch.utils.data import DataLoader

from lightning_chex.attribution import IBA
from lightning_chex.data import collate
from lightning_chex.explanations import IBACallback
from lightning_chex.explanations.writer import ExplanationWriter, PictureSettings
from lightning_chex.report import shared_scale_limit
from lightning_chex.report.film import film_strip, read_frames

pytestmark = pytest.mark.filterwarnings("ignore")


def callback(**options) -> IBACallback:
    return IBACallback(**{"attributor": SpyIBA(), "num_images": 3, **options})


def shuffled(seed: int = 0) -> DataLoader:
    images = TinyImages(10, 1)
    images.labels = images.labels.clone()
    generator = torch.Generator().manual_seed(seed)
    return DataLoader(images, 4, shuffle=True, generator=generator, collate_fn=collate)


def fit(folder, explaining, max_epochs: int, loader: DataLoader, ckpt_path=None, *more):
    trainer = tiny_trainer(folder, explaining, *more, max_epochs=max_epochs, enable_checkpointing=bool(more))
    trainer.fit(TinyTask(), TinyData().train_dataloader(), loader, ckpt_path=ckpt_path)


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """Two epochs with a validation loader that shuffles, then two more from the checkpoint of the second."""
    folder = tmp_path_factory.mktemp("course")
    saving = ModelCheckpoint(folder, filename="state", save_top_k=-1, every_n_epochs=2)
    first, second = callback(), callback()
    fit(folder, first, 2, shuffled(), None, saving)
    fit(folder, second, 4, shuffled(7), folder / "state.ckpt")
    return folder, first, second


def test_a_loader_that_shuffles_shows_the_same_images_also_after_a_resume(resumed):
    _, first, second = resumed
    explained = first.attributor.images + second.attributor.images
    assert len(explained) >= 4
    epochs = [torch.cat(spy.images).unflatten(0, (2, 3)) for spy in (first.attributor, second.attributor)]
    seen = [{image.sum().item() for image in images} for images in torch.cat(epochs)]
    assert len(seen) == 4 and all(len(each) == 3 and each == seen[0] for each in seen)


def test_the_statistics_leave_out_the_same_images(resumed):
    _, first, second = resumed
    assert first.attributor.num_observed == second.attributor.num_observed == 7


def test_the_table_of_a_resumed_run_has_all_epochs_and_numbers_stay(resumed):
    folder, *_ = resumed
    with (folder / "explanations" / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [epoch for epoch in range(4) for _ in range(3)]
    for number in range(3):
        assert len({row["target"] for row in rows if row["number"] == str(number)}) == 1


def test_the_film_has_a_row_an_image_and_a_column_a_validation(resumed):
    folder, *_ = resumed
    frames = read_frames(folder / "explanations" / "frames" / "iba")
    assert [(frame.epoch, frame.step) for frame in frames] == [(0, 2), (1, 4), (2, 6), (3, 8)]
    assert len({tuple(frame.keys) for frame in frames}) == 1  # the same images in the same order
    assert all((frame.images == frames[0].images).all() for frame in frames)
    strip = film_strip(frames, "strip")
    page = strip.axes[0].images[0].get_array()
    assert page.shape == (3 * 112, 5 * 112, 3)
    corners = [box.get_xy() + (box.get_width(), box.get_height()) for box in strip.axes[0].patches]
    x = {"left": 1, "right": 9}[frames[-1].names[0]]  # of 16 pixels
    assert len(corners) == 3 * 5 and corners[0] == pytest.approx((x * 7, 28, 42, 5.51 * 7))
    assert corners[1] == pytest.approx((112 + x * 7, 28, 42, 5.51 * 7))
    said = [text.get_text() for text in strip.axes[0].texts]
    assert len(said) == 3 + 3 * 4 and not any("image-" in text for text in said)
    with Image.open(folder / "explanations" / "film.png") as film:
        film.load()
        assert film.width > 500


def test_the_limit_of_the_run_is_kept_in_its_checkpoint_and_ends_the_scale_of_the_film(resumed):
    folder, *_ = resumed
    frames = read_frames(folder / "explanations" / "frames" / "iba")
    strip = film_strip(frames, "strip", 3.7)
    assert strip.axes[-1].get_xlim() == pytest.approx((0, 3.7)) and "from 3.7 on" in strip.axes[-1].get_xlabel()
    strongest = max(float(frame.maps.max()) for frame in frames)
    writer = ExplanationWriter("iba", ["iba"], "", PictureSettings())
    writer.load_state_dict({"tops": {"iba": 2 * strongest + 1}, "rows": [], "scores": []})
    assert writer.state_dict()["tops"] == {"iba": 2 * strongest + 1}
    assert shared_scale_limit([torch.tensor([[strongest]])], before=writer.tops["iba"]) == 2 * strongest + 1


def test_frames_hold_numbers_and_the_names_of_targets_alone(resumed):
    folder, *_ = resumed
    for path in (folder / "explanations" / "frames").rglob("*.npz"):
        with np.load(path) as kept:  # no pickles
            text = " ".join(str(kept[name].tolist()) for name in ("keys", "names", "unit"))
        assert "image-" not in text


def test_the_state_in_a_checkpoint_names_no_image(resumed):
    folder, *_ = resumed
    states = torch.load(folder / "state.ckpt", weights_only=True)["callbacks"]
    (state,) = (value for key, value in states.items() if "IBACallback" in key)
    assert len(state["course"]["chosen"]) == 3 and "image-" not in str(state["course"])


def test_a_second_training_begins_a_course_of_its_own(tmp_path):
    explaining = callback()
    for seed in (0, 3):
        fit(tmp_path, explaining, 1, shuffled(seed))
    with (tmp_path / "explanations" / "table.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 3
    assert len(read_frames(tmp_path / "explanations" / "frames" / "iba")) == 1


def test_images_that_change_at_every_validation_are_told_of(tmp_path):
    data, turns = TinyData(), iter(range(99))
    data.explained_dataset = lambda stage: TinyImages(4, 5 + next(turns))
    with pytest.warns(UserWarning, match="not those of the earlier validations.*explained_dataset"):
        tiny_trainer(tmp_path, callback(), max_epochs=2).fit(TinyTask(), data)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"attributor": IBA(LAYER), "attributors": {"a": IBA(LAYER)}}, "either attributor.*or attributors"),
        ({"attributor": None, "attributors": {}}, "either attributor.*or attributors"),
        ({"attributor": None, "attributors": {"a/b": IBA(LAYER)}}, "'a/b' is used in keys"),
        ({"scale": "image"}, "scale='image' is unknown; choose run, map"),
        ({"picture_format": "bmp"}, "picture_format='bmp' is unknown"),
        ({"picture_dpi": 0}, "picture_dpi=0 must"),
    ],
)
def test_settings_that_do_not_fit_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        callback(**options)


def test_methods_of_two_callbacks_that_would_share_keys_are_told_of(tmp_path):
    twice = callback(attributor=None, attributors={"iba": SpyIBA()}, name="one"), callback()
    with pytest.raises(MisconfigurationException, match="two methods would log val/iba_iou.*name.*attributors"):
        tiny_trainer(tmp_path, *twice).validate(TinyTask(), TinyData(), verbose=False)
