"""Scores of every kind are counted, each once."""

import numpy as np
import pytest

from lightning_chex.report.overview import score_bins

BRIXIA = ["score 0 to 2", "score 3 to 5", "score 6 to 8", "score 9 to 11", "score 12 to 14", "score 15 to 18"]


@pytest.mark.parametrize(
    ("scores", "names"),
    [
        ([0, 3, 3, 1], ["score 0", "score 1", "score 2", "score 3"]),
        ([-1, 1], ["score -1", "score 0", "score 1"]),
        ([0, 18, 11], BRIXIA),
        ([0, 24, 12], [f"score {4 * k} to {4 * k + 4}" for k in range(6)]),
        ([0.5, 0.75, 2], [f"score {0.25 * k:g} to {0.25 * k + 0.25:g}" for k in range(2, 8)]),
        ([0.25, 0.25], ["score 0.25 to 1.25"]),
        ([], BRIXIA),
    ],
)  # fmt: skip
def test_every_score_is_counted_once(scores, names):
    edges, found = score_bins(np.array(scores, dtype=float))
    assert found == names
    counts = np.histogram(scores, edges)[0]
    assert counts.sum() == len(scores) and len(counts) == len(names)
    if names[0] == "score 0" and len(names) == 4:
        assert counts.tolist() == [1, 1, 0, 2]
