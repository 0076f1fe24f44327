import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lightning_chex.data import (
    DETECTORS,
    PATHOLOGIES,
    DataError,
    SyntheticCXR,
    SyntheticDataModule,
    collate,
    detector_label,
)
from lightning_chex.data.images.lung_masks import zone_masks
from lightning_chex.data.sets.synthetic import HEALTHY, PREVALENCE

TARGETS = ["pathologies", "severity", "detectors"]


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]
        for key, value in one.items()
    )


@pytest.mark.parametrize("target", TARGETS)
def test_samples_hold_every_key_of_the_format(target):
    sample = SyntheticCXR(num_images=5, size=64, seed=3, target=target)[4]
    assert sample["image"].shape == (3, 64, 64) and sample["image"].dtype == torch.float32
    assert sample["label"].shape == {"pathologies": (8,), "severity": (), "detectors": (3,)}[target]
    assert sample["label"].dtype == sample["zones"].dtype == sample["boxes"].dtype == torch.float32
    assert sample["zones"].shape == (6,) and sample["boxes"].shape[1:] == (4,)
    assert sample["box_labels"].dtype == torch.int64 and len(sample["box_labels"]) == len(sample["boxes"])
    assert sample["lung_mask"].shape == (2, 64, 64) and sample["lung_mask"].dtype == torch.bool
    assert sample["finding_masks"].shape == (8, 64, 64) and sample["finding_masks"].dtype == torch.bool
    assert (sample["image_id"], sample["patient_id"]) == ("phantom-s3-000004", "phantom-s3-p00001")


def test_pathology_labels_are_what_is_drawn_and_boxed():
    dataset = SyntheticCXR(num_images=40, size=64)
    seen = torch.zeros(8)
    for sample in (dataset[i] for i in range(40)):
        assert torch.equal(sample["label"] == 1, sample["finding_masks"].flatten(1).any(1))
        assert set(sample["box_labels"].tolist()) == set(sample["label"].nonzero().flatten().tolist())
        assert (sample["zones"] == 0).all()
        for box, k in zip(sample["boxes"].round().int().tolist(), sample["box_labels"].tolist(), strict=True):
            assert sample["finding_masks"][k, box[1] : box[3], box[0] : box[2]].any()
        seen += sample["label"]
    assert (seen > 0).all()


@pytest.mark.parametrize("target", ["severity", "detectors"])
def test_severity_labels_follow_from_the_zones(target):
    dataset = SyntheticCXR(num_images=8, size=48, target=target)
    for index in range(8):
        sample = dataset[index]
        zones = sample["zones"]
        expected = zones.sum() if target == "severity" else detector_label(zones)
        assert torch.equal(sample["label"], expected) and torch.equal(dataset.labels[index], expected)
        assert not sample["finding_masks"].any() and len(sample["boxes"]) == 0


def test_more_severe_lungs_are_more_opaque():
    dataset = SyntheticCXR(num_images=60, size=96, target="severity", images_per_patient=1)
    # lungs against the heart and what else lies between, so exposure cancels
    opacity = []
    for index in range(60):
        shown = dataset.radiograph(index)
        opacity.append(shown.pixels[shown.lungs.any(axis=0)].mean() / shown.pixels[shown.heart].mean())
    assert np.corrcoef(opacity, dataset.labels.numpy())[0, 1] > 0.9


@pytest.mark.parametrize("target", TARGETS)
def test_a_sample_follows_from_seed_and_index_alone(target):
    settings = {"num_images": 7, "size": 64, "seed": 5, "target": target}
    forwards = [SyntheticCXR(**settings)[i] for i in range(7)]
    dataset = SyntheticCXR(**settings)
    np.random.seed(1)
    torch.manual_seed(1)
    for index in reversed(range(7)):
        assert same(dataset[index], forwards[index])


def test_workers_give_the_same_samples():
    dataset = SyntheticCXR(num_images=6, size=48)
    alone, shared = (
        [batch for batch in DataLoader(dataset, batch_size=2, num_workers=n, collate_fn=collate)] for n in (0, 2)
    )
    for one, other in zip(alone, shared, strict=True):
        assert one["image_id"] == other["image_id"]
        for key in ("image", "label", "lung_mask", "finding_masks"):
            assert torch.equal(one[key], other[key])


def test_global_random_state_is_left_alone():
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    dataset = SyntheticCXR(num_images=4, size=48)
    [dataset[i] for i in range(4)]
    assert random.getstate() == before[0]
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    assert torch.equal(torch.get_rng_state(), before[2])


def test_images_of_other_indices_seeds_and_patients_differ():
    images = [SyntheticCXR(num_images=4, size=48)[i]["image"] for i in range(4)]
    images += [
        SyntheticCXR(num_images=1, size=48, **changed)[0]["image"] for changed in ({"seed": 1}, {"first_patient": 9})
    ]
    for i, one in enumerate(images):
        assert all((one - other).abs().mean() > 0.05 for other in images[:i])


def test_a_later_first_patient_is_a_later_stretch_of_the_same_population():
    whole, stretch = SyntheticCXR(num_images=9, size=48), SyntheticCXR(num_images=3, size=48, first_patient=2)
    for index in range(3):
        assert same(stretch[index], whole[index + 6])
    assert torch.equal(stretch.labels, whole.labels[6:])


def test_a_patient_keeps_the_anatomy_while_pose_and_exposure_change():
    none = dict.fromkeys(PATHOLOGIES, 0.0)
    dataset = SyntheticCXR(num_images=24, size=192, images_per_patient=4, prevalence=none)
    shown = [dataset.radiograph(i) for i in range(24)]
    # ratios of areas survive rotation, shift and magnification
    shapes = np.array([[s.lungs[0].sum(), s.heart.sum()] / s.lungs[1].sum() for s in shown]).reshape(6, 4, 2)
    within, between = shapes.std(axis=1).mean(axis=0), shapes.mean(axis=1).std(axis=0)
    assert (within < 0.25 * between).all(), (within, between)
    corner = np.array([np.argwhere(s.lungs[0])[0] for s in shown]).reshape(6, 4, 2)
    assert (np.ptp(corner, axis=1).max(axis=1) > 2).all()
    assert [dataset[i]["patient_id"] for i in (0, 3, 4)] == ["phantom-s0-p00000"] * 2 + ["phantom-s0-p00001"]


def four_deviations(share: float, n: int) -> float:
    return 4 * (share * (1 - share) / n) ** 0.5


def test_pathologies_are_as_frequent_as_documented():
    n = 4000
    labels = SyntheticCXR(num_images=n, size=32).labels
    for name, share in zip(PATHOLOGIES, labels.mean(dim=0).tolist(), strict=True):
        assert abs(share - PREVALENCE[name]) < four_deviations(PREVALENCE[name], n), name
    spared = np.prod([1 - share / (1 - HEALTHY) for share in PREVALENCE.values()])
    healthy = HEALTHY + (1 - HEALTHY) * spared
    assert 0.35 < healthy < 0.45
    assert abs(float((labels.sum(dim=1) == 0).float().mean()) - healthy) < four_deviations(healthy, n)
    assert (labels.sum(dim=1) > 1).float().mean() > 0.2


def test_prevalence_can_be_overridden_up_to_always_and_never():
    n = 1500
    asked = {"Mass": 1.0, "Nodule": 0.0, "Effusion": 0.5}
    shares = SyntheticCXR(num_images=n, size=32, prevalence=asked).labels.mean(dim=0)
    assert shares[PATHOLOGIES.index("Mass")] == 1 and shares[PATHOLOGIES.index("Nodule")] == 0
    assert abs(float(shares[PATHOLOGIES.index("Effusion")]) - 0.5) < four_deviations(0.5, n)
    untouched = PATHOLOGIES.index("Infiltration")
    assert abs(float(shares[untouched]) - PREVALENCE["Infiltration"]) < four_deviations(0.2, n)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("num_images", 0),
        ("size", 31),
        ("seed", -1),
        ("target", "age"),
        ("images_per_patient", 0),
        ("conspicuity", 0.0),
        ("conspicuity", 2.5),
        ("first_patient", -1),
        ("prevalence", {"Mass": 1.2}),
        ("prevalence", {"Hernia": 0.1}),
    ],
)
def test_bad_arguments_are_named_with_their_value(argument, value):
    shown = (
        str(next(iter(value)) if "Hernia" in str(value) else value["Mass"]) if isinstance(value, dict) else str(value)
    )
    with pytest.raises(ValueError, match=f"(?s){argument}.*{shown}"):
        SyntheticCXR(**{argument: value})


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_outside_is_refused(index):
    with pytest.raises(IndexError, match="3 images"):
        SyntheticCXR(num_images=3, size=32)[index]


def module(**settings) -> SyntheticDataModule:
    return SyntheticDataModule(
        **{"num_train": 30, "num_val": 12, "num_test": 12, "size": 32, "batch_size": 6, **settings}
    )


def test_no_patient_is_in_two_splits():
    data = module()
    patients = [{data.dataset(split)[i]["patient_id"] for i in range(12)} for split in ("train", "val", "test")]
    assert not (patients[0] & patients[1] or patients[0] & patients[2] or patients[1] & patients[2])


def test_validation_stays_the_same_when_training_grows():
    assert same(module().dataset("val")[3], module(num_train=90).dataset("val")[3])


@pytest.mark.parametrize(
    ("target", "classes"), [("pathologies", PATHOLOGIES), ("detectors", DETECTORS), ("severity", ())]
)
def test_batches_fit_the_class_names(target, classes):
    data = module(target=target)
    assert data.class_names == classes
    batch = next(iter(data.val_dataloader()))
    assert batch["image"].shape == (6, 3, 32, 32)
    assert batch["label"].shape == ((6, len(classes)) if classes else (6,))


def test_explained_images_take_the_classes_in_turn_and_the_healthy_last():
    data = module(num_val=80)
    explained = data.explained_dataset("validate")
    labels = torch.stack([explained[i]["label"] for i in range(80)])
    assert (labels[:8].sum(dim=0) > 0).all()
    healthy = labels.sum(dim=1) == 0
    assert healthy.any() and torch.equal(healthy, healthy.sort().values)
    assert explained[0]["image_id"] == module(num_val=80).explained_dataset("validate")[0]["image_id"]


def test_explained_severities_spread_over_their_range():
    data = module(num_test=60, target="severity")
    explained = data.explained_dataset("test")
    scores = torch.stack([explained[i]["label"] for i in range(3)])
    labels = data.dataset("test").labels
    assert scores.tolist()[:2] == [labels.min(), labels.max()]
    assert labels.min() < scores[2] < labels.max()


def test_pos_weight_is_negatives_over_positives_of_the_training_images():
    data = module(num_train=300)
    labels = torch.stack([data.dataset("train")[i]["label"] for i in range(300)])
    torch.testing.assert_close(data.pos_weight, (1 - labels).sum(dim=0) / labels.sum(dim=0))


def test_a_class_that_never_occurs_in_training_has_no_weight():
    with pytest.raises(DataError, match="Mass"):
        module(num_train=300, prevalence={"Mass": 0.0}).pos_weight  # noqa: B018


@pytest.mark.parametrize(
    ("argument", "value"), [("extent", 2.0), ("num_val", 0), ("size", 16), ("target", "age"), ("conspicuity", -1.0)]
)
def test_the_data_module_refuses_bad_arguments_at_construction(argument, value):
    with pytest.raises(ValueError, match=f"(?s){argument}.*{value}"):
        module(**{argument: value})


def test_zones_of_a_sample_can_be_cut_from_its_lung_mask():
    sample = SyntheticCXR(num_images=1, size=64, target="severity")[0]
    zones = zone_masks(sample["lung_mask"].numpy())
    np.testing.assert_array_equal(zones.any(axis=0), sample["lung_mask"].any(dim=0).numpy())


def test_images_of_default_looks_are_those_of_the_first_versions():
    """Boxes of an image as they were before findings could be bilateral: the other findings avoid a fallen lung."""
    sample = SyntheticCXR(num_images=28, size=128)[27]
    expected = {
        "Mass": [(87, 65, 103, 83)], "Nodule": [(90, 41, 97, 48), (103, 78, 109, 84)],
        "Pneumonia": [(93, 68, 112, 91)], "Pneumothorax": [(10, 13, 56, 83)],
    }  # fmt: skip
    found = {}
    for label, box in zip(sample["box_labels"].tolist(), sample["boxes"], strict=True):
        found.setdefault(PATHOLOGIES[label], []).append(box)
    assert found.keys() == expected.keys()
    for name, boxes in expected.items():
        # a pixel: libraries of other processors may round a border elsewhere
        torch.testing.assert_close(torch.stack(found[name]), torch.tensor(boxes).float(), rtol=0, atol=1.01)


@pytest.mark.parametrize("kind", ["marker", "tube", "border"])
def test_a_shortcut_is_as_often_there_as_its_strength_says_and_changes_nothing_else(kind):
    effusion = PATHOLOGIES.index("Effusion")
    without = SyntheticCXR(400, 64)
    for strength in (0.0, 0.5, 1.0):
        data = SyntheticCXR(400, 64, shortcut=strength, shortcut_kind=kind)
        assert torch.equal(data.labels, without.labels)
        shown = torch.tensor([data.foreign(i).shown for i in range(400)])
        for value, share in ((1, (1 + strength) / 2), (0, (1 - strength) / 2)):
            own = shown[data.labels[:, effusion] == value].float()
            assert abs(own.mean() - share) <= 3 * (share * (1 - share) / len(own)) ** 0.5
    all_of_them, none = (SyntheticCXR(3, 64, shortcut=1.0, shortcut_kind=kind, prevalence=p) for p in (ALL, NONE))
    for i in range(3):
        assert all_of_them.foreign(i).shown and not none.foreign(i).shown
        bare = SyntheticCXR(3, 64, prevalence=ALL).radiograph(i).pixels
        changed = all_of_them.radiograph(i).pixels != bare
        assert changed.any() or kind == "marker"  # which some images have anyhow
        assert not changed[16:40, 16:40].any() and not none.radiograph(i).lungs[:, 0].any()


ALL, NONE = dict.fromkeys(PATHOLOGIES, 1.0), dict.fromkeys(PATHOLOGIES, 0.0)


def test_markers_are_there_as_the_shortcut_says_and_not_otherwise():
    corner = (slice(8, 17), slice(6, 20))
    bright = [
        [SyntheticCXR(8, 160, shortcut=1.0, prevalence=p).radiograph(i).pixels[corner].max() > 150 for i in range(8)]
        for p in (ALL, NONE)
    ]
    assert all(bright[0]) and not any(bright[1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shortcut": 1.5}, "shortcut is 1.5: give a strength from 0 to 1"),
        ({"shortcut": 0.5, "target": "severity"}, "shortcut is 0.5, but target severity has no classes"),
        ({"shortcut_kind": "tube"}, "shortcut_kind and shortcut_class need shortcut: give its strength"),
        ({"shortcut": 0.5, "shortcut_kind": "arrow"}, "shortcut_kind is 'arrow': give one of marker, tube, border"),
        ({"shortcut": 0.5, "shortcut_class": "Mas"}, "shortcut_class is 'Mas': give one of Atelectasis"),
    ],
)
def test_an_impossible_shortcut_is_named(options, words):
    with pytest.raises(ValueError, match=words):
        SyntheticCXR(2, 64, **options)
    with pytest.raises(ValueError, match=words):
        SyntheticDataModule(**options)


def test_another_shortcut_is_another_data_set():
    modules = [SyntheticDataModule(4, 4, 4, 64, **options) for options in ({}, {"shortcut": 0.0}, {"shortcut": 0.5})]
    assert len({module.fingerprint() for module in modules}) == 3
