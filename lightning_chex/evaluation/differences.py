"""Methods compared case by case: the mean of the difference on the same maps, with its interval by patient.

Two methods meet the same images, and what one finds hard the other often does too. The interval of the difference on
the same cases is therefore far narrower than the two intervals of the means suggest, and it alone says whether one does
better.
"""

import math
from dataclasses import replace

from lightning_chex.evaluation.measures import MEASURES
from lightning_chex.evaluation.results import Assembly
from lightning_chex.metrics import Summary


def differences(assembly: Assembly) -> dict[str, dict[tuple[str, str], Summary]]:
    """Compare every method with every control, and with every other method once.

    Returns:
        For every measure with a better direction and every pair (method, other), the mean of method less other over
        the cases that both have a value for, and over classes. Pairs without a common case are left out.
    """
    found = {key: _pairs(assembly, key) for key, measure in MEASURES.items() if measure.better is not None}
    return {key: pairs for key, pairs in found.items() if pairs}


def _pairs(assembly: Assembly, key: str) -> dict[tuple[str, str], Summary]:
    made = {}
    values = {name: assembly.values(name, key) for name in assembly.names}
    for place, method in enumerate(assembly.methods):
        for other in [*assembly.methods[place + 1 :], *assembly.controls]:
            less = [own - its for own, its in zip(values[method], values[other], strict=True)]
            if not all(map(math.isnan, less)):
                # single classes have too few patients each, and are too many to judge one by one
                made[method, other] = replace(assembly.summary(less), per_class=())
    return made
