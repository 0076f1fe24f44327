"""Splits by patient, so that no patient is in two of them."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd


def check_fractions(val_fraction: float, test_fraction: float | None = None) -> None:
    """Raise a ValueError unless every split gets a share; ``test_fraction`` None is a test split of its own."""
    if test_fraction is None:
        if not 0 < val_fraction < 1:
            raise ValueError(f"val_fraction is {val_fraction}: give a share above 0 and below 1")
    elif not (val_fraction > 0 and test_fraction > 0 and val_fraction + test_fraction < 1):
        raise ValueError(f"val_fraction {val_fraction} and test_fraction {test_fraction} leave no share for a split")


def shared_patients(patients: Mapping[str, Sequence[str] | None]) -> Iterator[str]:
    """Say which of the train, val and test splits have patients in common, a sentence a pair.

    Args:
        patients: of each image, by the name of the part; None where they are not known. Other parts may hold anyone.
    """
    known = {name: set(own) for name in ("train", "val", "test") if (own := patients.get(name)) is not None}
    for one, other in combinations(known, 2):
        if both := known[one] & known[other]:
            yield (
                f"{len(both):,} patient(s) have images in the {one} split and in the {other} split, so that figures of "
                "the second would be invalid (patient leakage): split by patient"
            )


def split_by_patient(
    patients: pd.Series, scores: pd.Series, val_fraction: float, test_fraction: float, seed: int
) -> pd.Series:
    """Split patients so that each split spans the range of scores.

    Patients are sorted by their mean score, equal ones in random order, and drawn at even steps.

    Args:
        patients: patient of each image, any index.
        scores: severity of each image, on the same index.
        val_fraction: share of the patients for validation.
        test_fraction: share of the patients for test; may be 0.
        seed: of the draw.

    Returns:
        ``train``, ``val`` or ``test``, on the same index.
    """
    rng = np.random.default_rng(seed)
    mean = scores.groupby(patients).mean()  # sorted by patient: the order of the rows does not matter
    line = mean.index.to_numpy()[np.lexsort([rng.random(len(mean)), mean.to_numpy()])]
    side = pd.Series("train", index=line)
    for name, share in [("val", val_fraction), ("test", test_fraction / (1 - val_fraction))]:
        free = side.index[side == "train"]
        # one is drawn wherever the running share passes a whole number, from a random start
        steps = np.floor(np.arange(len(free) + 1) * share + rng.random())
        side[free[np.diff(steps) > 0]] = name
    return patients.map(side)


def draw_validation(patients: pd.Series, labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Draw validation images by patient, with all classes on both sides.

    A class of one patient stays in train; one of several occurs on both sides, unless that is impossible. The draw does
    not depend on the order of the rows.

    Args:
        patients: patient of each image, (N,).
        labels: classes of each image in {0, 1}, (N, K).
        fraction: share of the images to choose; met up to the images of one patient.
        seed: of the draw.

    Returns:
        bool (N,), True for validation.
    """
    names, member = np.unique(patients.to_numpy(dtype=str), return_inverse=True)
    images = np.bincount(member, minlength=len(names))
    has = np.zeros((len(names), labels.shape[1]), dtype=bool)
    np.logical_or.at(has, member, labels > 0)
    order = np.random.default_rng(seed).permutation(len(names))
    chosen = np.zeros(len(names), dtype=bool)
    left = has.sum(axis=0)  # patients of each class still in train
    drawn = 0  # images chosen so far

    def choose(candidates: Collection[int]) -> bool:
        nonlocal drawn
        for patient in candidates:
            if (left - has[patient])[has[patient]].all():  # never the last one of a class
                chosen[patient] = True
                drawn += images[patient]
                left[:] -= has[patient]
                return True
        return False

    for k in np.argsort(left, kind="stable"):  # rare classes first: they have the least choice
        if not has[chosen, k].any():
            choose(order[has[order, k]])
    for patient in order:
        if drawn >= fraction * len(patients):
            break
        if not chosen[patient]:
            choose([patient])
    return chosen[member]
