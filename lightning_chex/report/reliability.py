"""Reliability diagrams: how often a class is there when a model says so with some probability."""

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

BINS = 15
"""Of equal width, those of ``val/ece``."""


def reliability(probabilities: NDArray[np.float64], labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Say how often a class is there at each level of probability.

    Args:
        probabilities: (N,), 0 to 1.
        labels: (N,) in {0, 1}; NaN is left out.

    Returns:
        (B, 3) for the bins that hold an image, in order: mean probability, share of positives, images.

    Example:
        >>> reliability(np.array([0.1, 0.1, 0.9]), np.array([0.0, 1.0, 1.0])).tolist()
        [[0.1, 0.5, 2.0], [0.9, 1.0, 1.0]]
    """
    known = ~np.isnan(labels)
    probabilities, labels = probabilities[known], labels[known]
    place = np.clip(np.ceil(probabilities * BINS) - 1, 0, BINS - 1).astype(int)  # (low, high], as torchmetrics has them
    counts = np.bincount(place, minlength=BINS).astype(float)
    some = counts > 0
    sums = [np.bincount(place, own, minlength=BINS)[some] for own in (probabilities, labels)]
    return np.stack([sums[0] / counts[some], sums[1] / counts[some], counts[some]], axis=1)


def reliability_diagram(
    probabilities: NDArray[np.float64], labels: NDArray[np.float64], class_names: Sequence[str], title: str
) -> Figure:
    """Draw a diagram for each class.

    Args:
        probabilities: (N, K), 0 to 1.
        labels: (N, K) in {0, 1}, NaN where not known.
        class_names: of the K classes.
        title: above all of it.
    """
    columns = min(4, len(class_names))
    rows = -(-len(class_names) // columns)
    made = Figure(figsize=(2.4 * columns + 0.3, 2.5 * rows + 0.5), layout="constrained")
    FigureCanvasAgg(made)
    made.suptitle(title, fontsize=9)
    axes = np.atleast_1d(made.subplots(rows, columns, squeeze=False)).ravel()
    for axis, number in zip(axes, range(len(axes)), strict=True):
        if number >= len(class_names):
            axis.set_axis_off()
            continue
        found = reliability(probabilities[:, number], labels[:, number])
        axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle="--")
        error = np.nan
        if len(found):
            share = found[:, 2] / found[:, 2].sum()
            error = float((share * abs(found[:, 0] - found[:, 1])).sum())
            axis.plot(found[:, 0], found[:, 1], color="C0", linewidth=1)
            axis.scatter(found[:, 0], found[:, 1], s=4 + 60 * share, color="C0", clip_on=False, zorder=3)
        axis.set_title(f"{class_names[number]}, ECE {error:.3f}", fontsize=8)
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1)
        axis.set_xticks([0, 0.5, 1])
        axis.set_yticks([0, 0.5, 1])
        axis.tick_params(labelsize=7)
        axis.set_aspect("equal")
    made.supxlabel("probability, mean of a bin (area of a point: share of the images)", fontsize=8)
    made.supylabel("share of positives", fontsize=8)
    return made
