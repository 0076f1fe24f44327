"""Measures where the answer is known: findings of the phantom, and a model that can read nothing else."""

from functools import cache
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from lightning_chex.data import PATHOLOGIES, SyntheticCXR
from lightning_chex.metrics import (
    blurred,
    insertion_deletion,
    intersection_over_union,
    masked_scores,
    oracle_iou,
    otsu_mask,
    road,
    top_fraction_mask,
)

SIDE, STEP, MASKS, SIZES = 64, 128, 60, (400, 1500, 3000)
WRONG = (
    "random", "every pixel", "prior", "inverted", "another finding", "shifted", "edges", "brightness", "deviation",
)  # fmt: skip
# a quantity that is right only on average may be off by this many of its standard deviations
SIGMAS = 4


class RegionReader(nn.Module):
    """Output j says how much of finding j is there: 1 in its image, 0 in the blurred one, from its pixels alone.

    A pixel counts by how far it lies on the way from the blurred to the sharp image, and no farther.
    """

    def __init__(self, images: Tensor, baseline: Tensor, regions: Tensor) -> None:
        super().__init__()
        most = int(regions.flatten(1).sum(1).max())
        read, self.pixels = regions.flatten(1).float().topk(most, dim=1)
        self.start = baseline.mean(1).flatten(1).gather(1, self.pixels)
        self.way = (images - baseline).mean(1).flatten(1).gather(1, self.pixels) * read  # 0 fills up short regions

    @property
    def parts(self) -> Tensor:
        """Share of the score that each pixel read brings."""
        return self.way.abs() / self.way.abs().sum(1, keepdim=True)

    def forward(self, images: Tensor) -> Tensor:
        seen = images.mean(1).flatten(1)[:, self.pixels]
        done = (seen - self.start) / self.way.where(self.way != 0, 1.0)
        return (self.parts * done.clamp(0, 1)).sum(2)


class Case(NamedTuple):
    predict: RegionReader
    images: Tensor
    baseline: Tensor
    regions: Tensor  # bool (J, H, W): image j is explained for the finding that this marks
    target: Tensor
    maps: dict[str, Tensor]


@cache
def case() -> Case:
    phantom = SyntheticCXR(16, size=SIDE, seed=3, prevalence=dict.fromkeys(PATHOLOGIES, 0.4))
    images, regions, others, classes = [], [], [], []
    for sample in (phantom[i] for i in range(len(phantom))):
        masks = sample["finding_masks"]
        for k, mask in enumerate(masks):
            # small enough to be left whole when the other 90 % of the image are removed
            elsewhere = masks & ~mask
            if 0.01 < mask.float().mean() < 0.1 and elsewhere.any():
                images.append(sample["image"])
                regions.append(mask)
                others.append(elsewhere[elsewhere.flatten(1).sum(1).argmax()])
                classes.append(k)
    count = len(images)
    images, regions, classes = torch.stack(images), torch.stack(regions), torch.tensor(classes)
    found = regions.float()
    alike = (classes[:, None] == classes) & ~torch.eye(count, dtype=torch.bool)
    edges = torch.stack(torch.gradient(blurred(images[:, 0][:, None], 5, 2.0)[:, 0], dim=(1, 2)))
    generator = torch.Generator().manual_seed(0)
    baseline = blurred(images)
    maps = {
        "right": found,
        "random": torch.rand(count, SIDE, SIDE, generator=generator),
        "every pixel": torch.ones(count, SIDE, SIDE),
        "prior": torch.einsum("ij,jhw->ihw", alike.float(), found) / alike.sum(1).clamp(min=1)[:, None, None],
        "inverted": -found,
        "another finding": torch.stack(others).float(),
        "shifted": found.roll((5, 5), (1, 2)),
        "edges": edges.norm(dim=0),
        "brightness": images.mean(1),
        "deviation": (images - baseline).abs().mean(1),
    }
    predict = RegionReader(images, baseline, regions)
    return Case(predict, images, baseline, regions, torch.arange(count), maps)


@cache
def curves(name: str):
    predict, images, _, _, target, maps = case()
    return insertion_deletion(predict, images, maps[name], target=target, step=STEP)


@cache
def removal(name: str):
    predict, images, _, _, target, maps = case()
    return road(predict, images, maps[name], target=target)


@cache
def masked():
    predict, images, baseline, _, target, _ = case()
    return masked_scores(predict, images, SIZES, target=target, masks=MASKS, value=baseline)


def test_the_model_reads_its_regions_and_nothing_else():
    predict, images, baseline, regions, target, _ = case()
    assert len(images) >= 16 and set(case().maps) == {"right", *WRONG}
    torch.testing.assert_close(predict(images).diagonal(), torch.ones(len(images)), atol=1e-4, rtol=0)
    torch.testing.assert_close(predict(baseline).diagonal(), torch.zeros(len(images)), atol=1e-4, rtol=0)
    inputs = images.clone().requires_grad_()
    predict(inputs).gather(1, target[:, None]).sum().backward()
    assert not inputs.grad[~regions[:, None].expand_as(images)].any()


def test_curves_start_and_end_where_they_should_and_move_where_the_finding_does():
    predict, images, baseline, regions, target, _ = case()
    of_image, of_baseline = (predict(x).diagonal() for x in (images, baseline))
    found = regions.flatten(1).sum(1)
    for name in case().maps:
        for curve, first, end in (
            (curves(name).insertion, of_baseline, of_image),
            (curves(name).deletion, of_image, of_baseline),
        ):
            torch.testing.assert_close(curve[:, 0], first, atol=1e-5, rtol=0)
            torch.testing.assert_close(curve[:, -1], end, atol=1e-5, rtol=0)
    # the right map exchanges the finding's pixels in its first steps: those differ, and no later one does
    for curve in (curves("right").insertion, -curves("right").deletion):
        steps = curve.diff(dim=1)
        exchanging = torch.arange(steps.shape[1]) * STEP < found[:, None]
        assert (steps[exchanging] > 1e-3).all()
        assert (steps[~exchanging].abs() < 1e-5).all()


@pytest.mark.parametrize("name", WRONG)
def test_the_right_map_beats_every_other(name):
    _, _, _, regions, _, maps = case()
    right, wrong = curves("right"), curves(name)
    assert (right.insertion_auc > wrong.insertion_auc).all()
    assert (right.deletion_auc < wrong.deletion_auc).all()
    assert (right.up_to(0.5).insertion_auc > wrong.up_to(0.5).insertion_auc).all()
    assert (removal("right").lerf_mean >= removal(name).lerf_mean - 1e-5).all()
    for iou in (
        intersection_over_union(otsu_mask(maps[name]), regions),
        oracle_iou(maps[name], regions),
        intersection_over_union(top_fraction_mask(maps[name], 0.1), regions),
    ):
        assert (iou < 1).all()  # the right map's is 1
    # on average only: correlations are those of 60 masks; and of a finding removed with all that is around it, as by a
    # prior, less comes back in the imputation than of one removed alone
    correlation = (masked().sensitivity(maps["right"]) - masked().sensitivity(maps[name])).mean(1)
    for difference in (correlation, removal("right").difference - removal(name).difference):
        assert difference.mean() > 0.1


def test_the_right_map_is_as_good_as_can_be():
    _, _, _, regions, _, maps = case()
    assert (intersection_over_union(otsu_mask(maps["right"]), regions) == 1).all()
    assert (oracle_iou(maps["right"], regions) == 1).all()
    # when the least relevant 90 % are gone, the finding is left as it was
    torch.testing.assert_close(removal("right").lerf, torch.ones_like(removal("right").lerf), atol=1e-5, rtol=0)
    # all of the finding is exchanged within its share of the pixels, rounded up to steps
    within = (regions.flatten(1).float().mean(1) * SIDE**2 / STEP).ceil() * STEP / SIDE**2
    assert (curves("right").insertion_auc > 1 - within).all()
    assert (curves("right").deletion_auc < within).all()


def test_a_random_map_is_at_chance():
    predict, images, _, regions, _, maps = case()
    count, pixels = len(images), SIDE**2
    # a pixel's place is uniform, so on average its part of the score is there for half of the way; the areas' variance
    # is that of a sum of uniform places, 1/12 each, weighted by the squares of the parts
    deviation = (predict.parts.square().sum() / 12).sqrt() / count
    for area in (curves("random").insertion_auc, curves("random").deletion_auc):
        assert area.mean().item() == pytest.approx(0.5, abs=SIGMAS * deviation.item())
    assert deviation < 0.02
    # either end of a random order is the same to ROAD
    difference = removal("random").difference
    assert abs(difference.mean()) < SIGMAS * difference.std() / count**0.5
    # a correlation of M independent pairs has a variance of 1 / (M - 1)
    correlation = masked().sensitivity(maps["random"])
    assert abs(correlation.mean()) < SIGMAS / ((MASKS - 1) * correlation.numel()) ** 0.5
    # a tenth of the pixels at random hits a tenth of the region, give or take a draw without replacement
    marked = top_fraction_mask(maps["random"], 0.1)
    share, found = marked.float().mean().item(), regions.flatten(1).sum(1).double()
    expected = share * found / (share * pixels + found - share * found)
    hits = found * share * (1 - share) * (pixels - found) / (pixels - 1)
    union = share * pixels + found - share * found
    deviation = (hits.sqrt() * (1 + expected) / union).square().sum().sqrt() / count
    iou = intersection_over_union(marked, regions)
    assert iou.mean().item() == pytest.approx(expected.mean().item(), abs=SIGMAS * deviation.item())
