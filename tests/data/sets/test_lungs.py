from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import write_cohen, write_lungs
from PIL import Image

from lightning_chex.data import CohenDataModule, DataError, LungDataModule, collate
from lightning_chex.data.sets.lungs import LAYOUTS

SPLITS = ("train", "val", "test")
TWO = ["masks/{id}_r.png", "masks/{id}_l.png"]


def module(root: Path, **options) -> LungDataModule:
    named = {} if "layout" in options else {"images": "images", "masks": TWO}
    return LungDataModule(str(root), **{"size": 64, "batch_size": 4, "augment": False, **named, **options})


def ready(root: Path, **options) -> LungDataModule:
    data = module(root, **options)
    data.setup()
    return data


def samples(data) -> list[dict]:
    return [dataset[i] for dataset in map(data.dataset, SPLITS) for i in range(len(dataset))]


@pytest.fixture
def root(tmp_path):
    return write_lungs(tmp_path / "lungs")[0]


@pytest.mark.parametrize("layout", [None, *LAYOUTS])
@pytest.mark.parametrize(("scale", "ink"), [(1, 255), (2, 1)])
def test_every_layout_gives_the_masks_that_were_written(tmp_path, layout, scale, ink):
    root, truth = write_lungs(tmp_path / "lungs", layout, scale=scale, ink=ink)
    found = samples(ready(root, **({"layout": layout} if layout else {})))
    assert {sample["image_id"] for sample in found} == set(truth)
    for sample in found:
        mask = sample["lung_mask"]
        assert mask.dtype == torch.bool and mask.shape == (2, 64, 64)
        np.testing.assert_array_equal(mask[:, 8:56].numpy(), truth[sample["image_id"]])  # 48 rows of 64 on black
        bright = sample["image"][0] * 0.229 + 0.485 > 0.5
        assert bright.equal(mask.any(dim=0))  # the mask follows the pixels
        assert sample["label"].tolist() == [1, 1] and sample["boxes"].shape == (0, 4)


@pytest.mark.parametrize("shape", [(90, 270), (270, 90), (4, 300)])
def test_a_mask_fits_its_image_in_a_prepared_copy_of_any_proportions(tmp_path, shape):
    for folder in ("images", "masks"):
        (tmp_path / "wide" / folder).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(np.full(shape, 255, np.uint8)).save(tmp_path / "wide" / folder / f"{i}.png")
    options = {"masks": ["masks/{id}.png"], "size": 64}
    module(tmp_path / "wide", **options).prepare(tmp_path / "copy", workers=0)
    found = samples(ready(tmp_path / "wide", prepared=str(tmp_path / "copy"), **options))
    assert len(found) == 6 and all(sample["lung_mask"].any() for sample in found)


def test_what_macos_leaves_beside_files_is_passed_over(root):
    before = {sample["image_id"] for sample in samples(ready(root))}
    for path in [*(root / "images").iterdir(), *(root / "masks").iterdir()]:
        (path.parent / f"._{path.name}").write_bytes(b"\0\5\x16\7")
    assert {sample["image_id"] for sample in samples(ready(root))} == before


def test_augmentation_moves_the_mask_with_the_image(root):
    torch.manual_seed(0)
    data = ready(root, augment=True)
    for i in range(4):
        sample = data.dataset("train")[i]
        bright = sample["image"][0] * 0.229 + 0.485 > 0.4
        both = sample["lung_mask"].any(dim=0)
        assert (bright & both).sum() > 0.9 * (bright | both).sum()


def test_samples_make_a_batch_and_splits_share_no_patient(root):
    (root / "sources.csv").write_text(
        "filename,patientid\n" + "".join(f"CXR.{i:04d}_{i % 2}.png,{i // 3}\n" for i in range(12))
    )
    data = ready(root, val_fraction=0.3, test_fraction=0.3)
    batch = collate([data.dataset("train")[i] for i in range(2)])
    assert batch["lung_mask"].shape == (2, 2, 64, 64) and batch["label"].shape == (2, 2)
    patients = [set(data.dataset(split).patient_ids) for split in SPLITS]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 4
    drawn = [
        tuple(ready(root, val_fraction=0.3, test_fraction=0.3, split_seed=seed).dataset("val").image_ids)
        for seed in (0, 0, 1, 2, 3)
    ]
    assert drawn[0] == drawn[1] == tuple(data.dataset("val").image_ids) and len(set(drawn)) > 1


def test_masks_beside_the_images_are_no_images(tmp_path):
    root, truth = write_lungs(tmp_path / "lungs", "shenzhen")
    for path in (root / "mask").iterdir():
        path.rename(root / "CXR_png" / path.name)
    found = samples(ready(root, layout="shenzhen", masks=["CXR_png/{id}_mask.png"]))
    assert {sample["image_id"] for sample in found} == set(truth)


@pytest.mark.filterwarnings("ignore:.*allow_missing")
def test_what_has_no_counterpart_is_counted_and_left_out_if_allowed(root):
    names = sorted(path.stem for path in (root / "images").iterdir())
    (root / "masks" / f"{names[0]}_r.png").unlink()
    (root / "masks" / f"{names[0]}_l.png").unlink()
    (root / "masks" / f"{names[1]}_l.png").unlink()
    (root / "images" / f"{names[2]}.png").unlink()
    with pytest.raises(DataError) as caught:
        ready(root)
    said = str(caught.value)
    assert f"1 of the 11 images have no lung mask ({names[0]})" in said
    assert f"1 lung masks have no image ({names[2]})" in said
    assert f"1 images have a mask of one lung only ({names[1]})" in said and "allow_missing: true" in said
    with pytest.warns(UserWarning, match="1 left out; 1 left out; 1 kept with one lung"):
        data = ready(root, allow_missing=True)
    found = {sample["image_id"]: sample for sample in samples(data)}
    assert set(found) == set(names) - {names[0], names[2]}
    half = found[names[1]]
    assert half["label"].tolist() == [1, 0] and half["lung_mask"][0].any() and not half["lung_mask"][1].any()


def empty_mask(root: Path) -> None:
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(next((root / "masks").glob("*_l.png")))


def organs(root: Path) -> None:
    values = np.zeros((48, 64), np.uint8)
    values[10:40, 36:56], values[20:40, 28:34] = 2, 3  # a lung and the heart
    Image.fromarray(values).save(next((root / "masks").glob("*_l.png")))


def another_shape(root: Path) -> None:
    for path in list((root / "masks").glob("CXR.0000*")):
        Image.fromarray(np.full((48, 48), 255, np.uint8)).save(path)


def two_sizes(root: Path) -> None:
    path = next((root / "masks").glob("*_l.png"))
    Image.open(path).resize((128, 96)).save(path)


def truncated_mask(root: Path) -> None:
    path = next((root / "masks").glob("*_r.png"))
    path.write_bytes(path.read_bytes()[:40])


def truncated_image(root: Path) -> None:
    path = next((root / "images").iterdir())
    path.write_bytes(path.read_bytes()[:60])


def zero_bytes(root: Path) -> None:
    next((root / "masks").iterdir()).write_bytes(b"")


def swapped(root: Path) -> None:
    right, left = (root / "masks" / f"CXR.0003_1_{side}.png" for side in "rl")
    right.rename(root / "kept.png")
    left.rename(right)
    (root / "kept.png").rename(left)


def no_masks(root: Path) -> None:
    (root / "masks").rename(root / "segmentations")


def no_images(root: Path) -> None:
    (root / "images").rename(root / "pictures")


def link_out(root: Path) -> None:
    path = next((root / "masks").iterdir())
    path.rename(root.parent / "elsewhere.png")
    path.symlink_to(root.parent / "elsewhere.png")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (empty_mask, "1 of 12 images have no usable lung mask: .*marks no pixel: remove"),
        (organs, "1 of 12 images have no usable lung mask: .*values from 0 to 3, as a map of several organs has"),
        (another_shape, "mask is 48 x 48 pixels, its image 64 x 48: other proportions.*replace"),
        (two_sizes, "differ in size, but are masks of one image"),
        (truncated_mask, "1 of 36 images cannot be read"),
        (truncated_image, "1 of 36 images cannot be read"),
        (zero_bytes, "1 of 36 images cannot be read.*empty"),
        (swapped, "lies to the right of .*name the patient's right lung .image left. first"),
        (no_masks, "no folder masks with lung masks in .*images, segmentations"),
        (no_images, "no folder images with images in .*masks, pictures"),
        (link_out, "leads out of the data root"),
    ],
)
def test_bad_files_are_one_error_before_training(root, spoil, words):
    spoil(root)
    with pytest.raises(DataError, match=words) as caught:
        ready(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"images": "../elsewhere"}, "leads out of the data root"),
        ({"images": "/etc"}, "leads out of the data root"),
        ({"masks": ["../../{id}.png"]}, "leads out of the data root"),
        ({"masks": ["/etc/{id}.png"]}, "leads out of the data root"),
        ({"images": "masks", "masks": ["masks/{id}.png"]}, "no image in"),
        ({"masks": ["masks/{id}_other.png"], "allow_missing": True}, "none of the 12 images .* has a lung mask"),
        ({"root": None}, "no data root is given"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*allow_missing")
def test_bad_settings_that_only_the_disk_shows(root, options, words):
    data = module(root, **{name: value for name, value in options.items() if name != "root"})
    data.root = options.get("root", data.root)
    with pytest.raises(DataError, match=words):
        data.setup()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "give layout .montgomery, shenzhen, jsrt, cohen, lesions., or both images and masks"),
        ({"images": "images"}, "or both images and masks"),
        ({"layout": "montgomry"}, "layout is 'montgomry': give one of montgomery"),
        ({"images": "x", "masks": []}, "masks names 0 kinds of masks"),
        ({"images": "x", "masks": ["a/{id}", "b/{id}", "c/{id}"]}, "masks names 3 kinds"),
        ({"images": "x", "masks": ["a/mask.png"]}, "masks names 'a/mask.png': give folder"),
        ({"images": "x", "masks": ["{id}/mask.png"]}, "give folder/name.png with {id} once"),
        ({"images": "x", "masks": ["a/{id}", "a/{id}"]}, "twice"),
        ({"layout": "cohen", "val_fraction": 0.0}, "leave no share"),
    ],
)
def test_impossible_settings_are_named_at_construction(options, words):
    with pytest.raises(ValueError, match=words):
        LungDataModule("somewhere", **options)


def test_cohen_samples_carry_lungs_if_asked(tmp_path):
    root = write_cohen(tmp_path / "cohen")
    (root / "lung_masks").mkdir()
    shapes = {}
    for i, path in enumerate(sorted((root / "data" / "public-cohen-subset").iterdir())):
        width, height = Image.open(path).size
        mask = np.zeros((height, width), np.uint8)
        mask[10:30, 5:20], mask[10:30, width - 16 : width - 6] = 255, 255
        if i:  # the first one has none
            Image.fromarray(mask).save(root / "lung_masks" / f"{path.stem}.png")
        shapes[path.stem] = 0 if not i else 300
    data = CohenDataModule(str(root), size=64, augment=False, lung_masks=True)
    data.setup()
    found = samples(data)
    assert len({frozenset(sample) for sample in found}) == 1
    assert {sample["image_id"]: int(sample["lung_mask"][0].sum()) for sample in found} == shapes
    plain = CohenDataModule(str(root), size=64, augment=False)
    plain.setup()
    assert all("lung_mask" not in sample for sample in samples(plain))
    (root / "lung_masks").rename(root / "lungs")
    with pytest.raises(DataError, match="no folder lung_masks"):
        CohenDataModule(str(root), lung_masks=True).setup()


@pytest.mark.real_data
@pytest.mark.filterwarnings("ignore:.*allow_missing")
@pytest.mark.parametrize(
    ("folder", "layout", "images", "outlined"),
    [("brixia_cohen", "cohen", 90, [90, 90]), ("covid_lesions", "lesions", 69, [68, 68])],
)
def test_real_lungs_are_on_their_sides(chex_data, folder, layout, images, outlined):
    data = ready(chex_data / folder, layout=layout, allow_missing=True)
    found = samples(data)
    labels = torch.stack([sample["label"] for sample in found])
    assert len(found) == images and labels.sum(dim=0).tolist() == outlined
    for sample in found:
        assert sample["lung_mask"].flatten(1).any(dim=1).tolist() == sample["label"].bool().tolist()
        right, left = (mask.nonzero()[:, 1].float().mean() for mask in sample["lung_mask"])
        assert not right > left  # NaN where one is absent
