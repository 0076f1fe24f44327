"""Agreement with Quantus on random cases, where it measures the same thing.

It does not always. Its mass accuracy lets negative heat cancel positive, its rank accuracy and orders follow
``argsort`` where pixels tie, and its pointing game counts a full hit where any of several strongest pixels hits: maps
here are positive and have no ties. Perturbing, it takes every channel for features of its own, so images here have one
channel. Its ROAD is an accuracy over a data set, from the most relevant pixel on only. Its Sensitivity-N follows the
order of the map, step by step, and correlates across images: random masks do not enter it, so it is no reference.
"""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_chex.metrics import (
    insertion_deletion,
    linear_imputation,
    mass_accuracy,
    pointing_game,
    rank_accuracy,
    road,
)

quantus = pytest.importorskip("quantus", reason="installed by the Makefile, not by the extras: see there")
noisy_linear_imputation = pytest.importorskip("quantus.functions.perturb_func").noisy_linear_imputation

COUNT, SIDE, CLASSES = 12, 10, 3


class Squared(nn.Module):
    """A network that leaves the classes close together, so that removing pixels changes which one wins."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * SIDE**2, CLASSES)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)


@pytest.fixture
def given():
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(COUNT, 1, SIDE, SIDE, generator=generator)
    saliency = torch.rand(COUNT, SIDE, SIDE, generator=generator)
    regions = torch.zeros(COUNT, SIDE, SIDE, dtype=torch.bool)
    for region, (y, x) in zip(regions, torch.randint(0, 6, (COUNT, 2), generator=generator).tolist(), strict=True):
        region[y : y + 5, x : x + 4] = True
    network = Squared().eval()
    with torch.no_grad():
        target = network(images).argmax(1)
    return network, images, saliency, regions, target


def judged(metric, given, **settings):
    network, images, saliency, regions, target = given
    return metric(
        model=network,
        x_batch=images.numpy(),
        y_batch=target.numpy(),
        a_batch=saliency[:, None].numpy(),
        s_batch=regions[:, None].numpy(),
        device="cpu",
        **settings,
    )


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (pointing_game, "PointingGame"),
        (mass_accuracy, "RelevanceMassAccuracy"),
        (rank_accuracy, "RelevanceRankAccuracy"),
    ],
)
def test_localisation(given, ours, theirs):
    expected = judged(getattr(quantus, theirs)(disable_warnings=True), given)
    result = ours(given[2], given[3])
    np.testing.assert_allclose(result, np.asarray(expected, dtype=float), atol=1e-6)
    assert 0 < result.mean() < 1


@pytest.mark.parametrize("step", [1, 4])
def test_deletion_is_pixel_flipping(given, step):
    network, images, saliency, _, target = given
    metric = quantus.PixelFlipping(features_in_step=step, perturb_baseline=0.25, disable_warnings=True)
    expected = np.array(judged(metric, given, softmax=False))
    curves = insertion_deletion(network, images, saliency, target=target, baseline=torch.tensor(0.25), step=step)
    np.testing.assert_allclose(curves.deletion[:, 1:], expected, atol=1e-5)  # theirs begins after the first step


def test_linear_imputation(given):
    _, images, saliency, _, _ = given
    missing = saliency > torch.linspace(0.05, 0.9, COUNT)[:, None, None]
    filled = linear_imputation(images.double(), missing, tolerance=1e-9)
    for result, image, gone in zip(filled, images, missing, strict=True):
        indices = np.flatnonzero(gone.numpy())
        expected = noisy_linear_imputation(arr=image.double().numpy(), indices=indices, noise=0.0)
        np.testing.assert_allclose(result, expected, atol=1e-6)


def test_road(given):
    network, images, saliency, _, target = given
    percentages = [10, 30, 50, 70, 90]
    expected = judged(quantus.ROAD(percentages=percentages, noise=0.0, disable_warnings=True), given)

    def is_first(inputs):
        scores = network(inputs)
        return nn.functional.one_hot(scores.argmax(1), CLASSES).float()

    curves = road(is_first, images, saliency, target=target, percentages=[p / 100 for p in percentages], noise=0.0)
    assert curves.morf.mean(0).tolist() == pytest.approx([expected[p] for p in percentages])
    assert 0 < curves.morf.mean() < 1
