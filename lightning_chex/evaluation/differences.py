"""Methods compared case by case: the mean of the difference on the same maps, with its interval by patient.

Two methods meet the same images, and what one finds hard the other often does too. The interval of the difference on
the same cases is therefore far narrower than the two intervals of the means suggest, and it alone says whether one does
better.
"""

import math
from typing import Any

from lightning_chex.evaluation.measures import MEASURES
from lightning_chex.evaluation.results import Assembly


def differences(assembly: Assembly) -> dict[str, list[dict[str, Any]]]:
    """Compare every method with every control, and with every other method once.

    Returns:
        For every measure with a better direction, in the form of ``results.json``: ``method`` and ``other``, the mean
        of method less other over the cases that both have a value for, its interval by patient, the numbers of cases
        and patients, and the same for the mean over classes. Pairs without a common case are left out.
    """
    found = {}
    for key, measure in MEASURES.items():
        pairs = _pairs(assembly, key) if measure.better is not None else []
        if pairs:
            found[key] = pairs
    return found


def _pairs(assembly: Assembly, key: str) -> list[dict[str, Any]]:
    made = []
    values = {name: assembly.values(name, key) for name in assembly.names}
    for place, method in enumerate(assembly.methods):
        for other in [*assembly.methods[place + 1 :], *assembly.controls]:
            less = [own - its for own, its in zip(values[method], values[other], strict=True)]
            if not all(map(math.isnan, less)):
                estimate = assembly.summary(less)
                estimate.pop("per_class", None)  # of too few patients each, and too many to judge one by one
                made.append({"method": method, "other": other, **estimate})
    return made
