"""Which targets are explained, and by which pixels their maps are judged."""

import pytest
import torch

from lightning_chex.data import PATHOLOGIES, SyntheticCXR, collate, lung_zones
from lightning_chex.maps import cases_of, region_kind


def batch(target="pathologies", count=8) -> dict:
    data = SyntheticCXR(num_images=count, size=64, target=target, seed=3)
    return collate([data[i] for i in range(count)])


def test_every_boxed_class_of_every_image_is_explained_by_the_union_of_its_boxes():
    samples = batch()
    cases = cases_of(samples, torch.zeros(8, 8), PATHOLOGIES, "boxes")
    expected = [
        (samples["image_id"][i], PATHOLOGIES[k])
        for i in range(8)
        for k in sorted({int(label) for label in samples["box_labels"][i]})
    ]
    assert cases.keys == expected and len(cases) > 3
    for i, (image, name) in enumerate(cases.keys):
        row = samples["image_id"].index(image)
        union = torch.zeros(64, 64, dtype=torch.bool)
        for box, label in zip(samples["boxes"][row], samples["box_labels"][row], strict=True):
            if PATHOLOGIES[int(label)] == name:
                for y in range(64):
                    for x in range(64):
                        union[y, x] |= bool(box[0] <= x + 0.5 < box[2] and box[1] <= y + 0.5 < box[3])
        assert torch.equal(cases.regions[i], union)
        assert cases.rows[i] == row and cases.truth[i] == 1 and cases.prediction[i] == 0.5


def test_without_boxes_the_positive_labels_are_explained_and_nothing_judges_them():
    samples = batch()
    del samples["boxes"], samples["box_labels"]
    cases = cases_of(samples, torch.zeros(8, 8), PATHOLOGIES, "boxes")
    assert len(cases) == int(samples["label"].sum()) and not cases.regions.any()


def test_masks_are_taken_as_they_are():
    samples = batch()
    cases = cases_of(samples, torch.zeros(8, 8), PATHOLOGIES, "masks")
    for i in range(len(cases)):
        assert torch.equal(cases.regions[i], samples["finding_masks"][cases.rows[i], cases.target[i]])


def test_a_detectors_region_is_the_zones_of_its_scores():
    names = ("severity_0_1", "severity_2", "severity_3")
    samples = batch("detectors")
    cases = cases_of(samples, torch.zeros(8, 3), names, "zones")
    assert len(cases) == int(samples["label"].sum())
    for i, (_, name) in enumerate(cases.keys):
        row = int(cases.rows[i])
        zones, scores = lung_zones(samples["lung_mask"][row]), samples["zones"][row].tolist()
        wanted = {"severity_0_1": (0, 1), "severity_2": (2,), "severity_3": (3,)}[name]
        union = torch.zeros(64, 64, dtype=torch.bool)
        for zone, score in zip(zones, scores, strict=True):
            if score in wanted:
                union |= zone
        assert torch.equal(cases.regions[i], union)


def test_a_severity_is_explained_once_per_image_and_keeps_its_true_score():
    samples = batch("severity")
    cases = cases_of(samples, torch.arange(8.0)[:, None], (), "zones")
    assert cases.column is None and cases.prediction.tolist() == list(range(8))
    assert torch.equal(cases.target, samples["label"]) and torch.equal(cases.truth, samples["label"])
    assert torch.equal(cases.zone_scores, samples["zones"])


def test_unknown_lungs_have_empty_zones_unless_a_network_finds_them():
    samples = batch("severity", 4)
    true = samples.pop("lung_mask")
    cases = cases_of(samples, torch.zeros(4, 1), (), "zones")
    assert not cases.zones.any() and not cases.regions.any()
    found = cases_of(samples, torch.zeros(4, 1), (), "zones", lambda images: true[: len(images)])
    assert torch.equal(found.zones[2], lung_zones(true[2]))
    # lungs somebody has outlined are not asked for again
    samples["lung_mask"] = true.clone()
    samples["lung_mask"][1] = False
    asked = []
    cases_of(samples, torch.zeros(4, 1), (), "zones", lambda images: asked.append(len(images)) or true[:1])
    assert asked == [1]


def test_select_keeps_what_belongs_together():
    cases = cases_of(batch(), torch.randn(8, 8), PATHOLOGIES, "boxes")
    chosen = cases.select([2, 0])
    assert chosen.keys == [cases.keys[2], cases.keys[0]]
    assert torch.equal(chosen.regions, cases.regions[[2, 0]]) and torch.equal(chosen.images, cases.images)
    assert torch.equal(chosen.prediction, cases.prediction[[2, 0]])


@pytest.mark.parametrize(
    ("keys", "names", "kind"),
    [
        (("boxes",), PATHOLOGIES, "boxes"),
        (("boxes", "zones", "finding_masks"), PATHOLOGIES, "boxes"),
        (("zones",), ("severity_0_1", "severity_2", "severity_3"), "zones"),
        (("zones",), (), "zones"),
        (("boxes",), (), "boxes"),
    ],
)
def test_what_judges_follows_from_the_data(keys, names, kind):
    assert region_kind(dict.fromkeys(keys), names) == kind
