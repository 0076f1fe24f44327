"""In which order samples are shown."""

import numpy as np
import torch


def telling_order(labels: torch.Tensor) -> list[int]:
    """Order samples so that any first k show the variety of all.

    Args:
        labels: (N, K) in {0, 1}, or scores (N,).

    Returns:
        A permutation of 0 to N - 1. With classes: one sample of each class in turn, then the next one, and those of
        no class last. With scores: the lowest, the highest, the middle, the quarters, and so on.
    """
    values = labels.numpy()
    if values.ndim == 1:
        by_score = np.argsort(values, kind="stable")
        return by_score[_halving_order(len(by_score))].tolist()
    # the n-th positive of a class has rank n there; a sample takes its place at its best rank over the classes
    ranks = np.where(values > 0, np.cumsum(values > 0, axis=0), np.inf)
    return np.lexsort([np.arange(len(values)), ranks.argmin(axis=1), ranks.min(axis=1)]).tolist()


def _halving_order(n: int) -> list[int]:
    """0, n - 1, then the middle, the quarters, the eighths ... of 0 to n - 1, each once."""
    order = dict.fromkeys([0, n - 1] if n else [])
    parts = 2
    while len(order) < n:
        order.update(dict.fromkeys(round(i * (n - 1) / parts) for i in range(1, parts, 2)))
        parts *= 2
    return list(order)
