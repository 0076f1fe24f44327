"""A figure of the validation and one of the report bear the same name only where they are the same."""

import re

import pytest
import torch

from lightning_chex.evaluation import MEASURES, localize
from lightning_chex.maps import Cases
from lightning_chex.metrics import LocalizationIoU


def cases(regions: torch.Tensor) -> Cases:
    n = len(regions)
    rows, ones = torch.arange(n), torch.ones(n)
    return Cases(
        images=torch.zeros(n, 3, *regions.shape[1:]), rows=rows, target=rows % 3, keys=[(str(i), "") for i in range(n)],
        patients=[str(i) for i in range(n)], prediction=ones, truth=ones, regions=regions,
        boxes=[torch.zeros(0, 4)] * n, zones=None, zone_scores=None,
    )  # fmt: skip


@pytest.mark.parametrize("fraction", [0.05, 0.2])
def test_with_one_share_of_pixels_training_and_report_give_one_figure(fraction):
    torch.manual_seed(0)
    maps, regions = torch.rand(12, 40, 40), torch.rand(12, 40, 40) > 0.8
    logged = LocalizationIoU(3, fraction)
    logged.update(maps, regions, torch.arange(12) % 3)

    reported, _ = localize(maps, cases(regions), fraction)

    assert float(logged.compute()["mean"]) == pytest.approx(reported["iou/fixed_share"].mean().item(), abs=1e-6)
    other, _ = localize(maps, cases(regions), fraction / 2)
    assert not torch.allclose(other["iou/fixed_share"], reported["iou/fixed_share"])  # the share does matter


def test_the_report_has_no_measure_by_the_name_of_a_logged_one():
    """``val/iba_iou`` marks 5 %, the report the mean share of the tuning regions: an ``iou`` there would be another."""
    logged = {"iou", "iou_class_mean", "iou_random", "iou_every_pixel"}
    assert not logged & set(MEASURES)
    assert all(re.fullmatch(r"IoU, .+", MEASURES[key].title) for key in MEASURES if key.startswith("iou/"))
