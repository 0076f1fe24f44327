import copy

import numpy as np
import pytest
import torch

from lightning_chex.metrics import (
    LocalizationIoU,
    RegionMeasure,
    effective_heat_ratio,
    mass_accuracy,
    oracle_iou,
    pointing_game,
    rank_accuracy,
)


def maps(count: int = 9):
    generator = torch.Generator().manual_seed(0)
    saliency = torch.rand(count, 6, 7, generator=generator)
    regions = torch.rand(count, 6, 7, generator=generator) < 0.3
    regions[2] = False  # nothing to find
    return saliency, regions, torch.arange(count) % 3


@pytest.mark.parametrize("measure", [pointing_game, mass_accuracy, rank_accuracy, effective_heat_ratio, oracle_iou])
def test_means_are_those_of_the_single_maps_whatever_the_batches(measure):
    saliency, regions, classes = maps()
    metric = RegionMeasure(measure, num_classes=4)
    for part in ([0, 1, 2, 3], [4], [5, 6, 7, 8]):
        metric.update(saliency[part], regions[part], classes[part])
    found = metric.compute()
    alone = np.array([float(measure(saliency[i][None], regions[i][None])) for i in range(9)])
    per_class = [np.nanmean(alone[classes.numpy() == k]) for k in range(3)]
    assert float(found["mean"]) == pytest.approx(np.nanmean(alone), abs=1e-6)
    np.testing.assert_allclose(found["per_class"][:3], per_class, atol=1e-6)
    assert found["per_class"][3].isnan() and float(found["class_mean"]) == pytest.approx(np.mean(per_class), abs=1e-6)
    assert found["count"].tolist() == [int((~np.isnan(alone[classes.numpy() == k])).sum()) for k in range(3)] + [0]


def test_a_copy_measures_by_its_own_settings():
    """Lightning and MetricCollection copy metrics; a copy must not look at its original."""
    metric = LocalizationIoU(2, fraction=0.5)
    twin = copy.deepcopy(metric)
    metric.fraction = 1.0
    saliency, regions = (values[:2] for values in maps()[:2])
    twin.update(saliency, regions, torch.tensor([0, 1]))
    fresh = LocalizationIoU(2, fraction=0.5)
    fresh.update(saliency, regions, torch.tensor([0, 1]))
    assert torch.equal(twin.compute()["per_class"], fresh.compute()["per_class"])
