"""Reliability diagrams: share of positives over predicted probability."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

BINS = 15
"""Number of bins of equal width; the same as for ``val/ece``."""


def reliability(probabilities: NDArray[np.float64], labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bin probabilities, and compute the share of positives in each bin.

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
    probabilities = probabilities[known]
    labels = labels[known]
    # bins (low, high], as torchmetrics has them
    bins = np.clip(np.ceil(probabilities * BINS) - 1, 0, BINS - 1).astype(int)
    counts = np.bincount(bins, minlength=BINS).astype(float)
    probability_sums = np.bincount(bins, probabilities, minlength=BINS)
    positives = np.bincount(bins, labels, minlength=BINS)
    filled = counts > 0
    counts = counts[filled]
    return np.stack([probability_sums[filled] / counts, positives[filled] / counts, counts], axis=1)


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
    page = Figure(figsize=(2.4 * columns + 0.3, 2.5 * rows + 0.5), layout="constrained")
    FigureCanvasAgg(page)
    page.suptitle(title, fontsize=9)
    for index, axis in enumerate(page.subplots(rows, columns, squeeze=False).flat):
        if index < len(class_names):
            _draw_class(axis, class_names[index], reliability(probabilities[:, index], labels[:, index]))
        else:
            axis.set_axis_off()
    page.supxlabel("probability, mean of a bin (area of a point: share of the images)", fontsize=8)
    page.supylabel("share of positives", fontsize=8)
    return page


def _draw_class(axis: Axes, name: str, bins: NDArray[np.float64]) -> None:
    """Draw the bins of one class, see `reliability`, and write its expected calibration error into the title."""
    axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle="--")
    error = np.nan
    if len(bins):
        probability, positives, images = bins.T
        share = images / images.sum()
        error = float((share * abs(probability - positives)).sum())
        axis.plot(probability, positives, color="C0", linewidth=1)
        axis.scatter(probability, positives, s=4 + 60 * share, color="C0", clip_on=False, zorder=3)
    axis.set_title(f"{name}, ECE {error:.3f}", fontsize=8)
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    axis.set_xticks([0, 0.5, 1])
    axis.set_yticks([0, 0.5, 1])
    axis.tick_params(labelsize=7)
    axis.set_aspect("equal")
