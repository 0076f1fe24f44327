"""Agreement with the default map, cost in forward passes, and the rule that falls back to the default."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from scipy.stats import spearmanr
from torch import Tensor

from benchmarks.faster_bottleneck.cases import Setting
from benchmarks.faster_bottleneck.schemes import Scheme, cells, objective_after
from lightning_chex.attribution.bottleneck.solution import bits_per_pixel
from lightning_chex.attribution.network.partition import select_carried

BAD = 0.98
"""The margin of the fallback is set so that no image to choose with, whose map agrees less than this, passes."""


@dataclass
class Found:
    """What a scheme gave, image by image and chunk by chunk.

    Attributes:
        agreement: Spearman over pixels with the default map.
        bits: total bits over those of the default map.
        passes: seconds of pose, scheme and map over those of the network's own forward pass, one a chunk.
        excess: `objective_after`, where it was asked for.
    """

    agreement: list[float] = field(default_factory=list)
    bits: list[float] = field(default_factory=list)
    passes: list[float] = field(default_factory=list)
    excess: list[float] = field(default_factory=list)


def agreement(maps: Tensor, wanted: Tensor, size: int) -> list[float]:
    """Spearman over the pixels of maps given in cells, (N, h, w), map by map."""
    pairs = zip(bits_per_pixel(maps, (size, size)), bits_per_pixel(wanted, (size, size)), strict=True)
    return [float(spearmanr(one.flatten(), other.flatten()).statistic) for one, other in pairs]


def clock() -> Callable[[], float]:
    """Processor time of one thread, which other programs on the machine change least; else wall-clock time."""
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def compare(
    settings: Mapping[str, Setting],
    schemes: Mapping[str, Scheme],
    images: Tensor,
    batch: int,
    judged: Sequence[str],
    timed: bool = True,
) -> dict[str, Found]:
    """Explain images by every scheme, in turn for each chunk, and measure.

    Args:
        settings: which setting poses the problem of a scheme, by the scheme's name; "" for the others.
        schemes: the first is the default, with which all are compared.
        images: (N, 3, H, W).
        batch: images a chunk.
        judged: schemes whose objective is taken at the end, which is not part of their cost.
        timed: time them, and the network alone before every third.
    """
    now = clock()
    found = {name: Found() for name in schemes}
    for chunk in images.split(batch):
        wanted = None
        forward = []
        seconds = {}
        for at, (name, scheme) in enumerate(schemes.items()):
            setting = settings.get(name, settings[""])
            own = found[name]
            if timed and at % 3 == 0:
                start = now()
                settings[""].output(chunk)
                forward.append(now() - start)
            start = now()
            problem = setting.pose(chunk)
            bottleneck = scheme(problem)
            maps = cells(bottleneck)
            seconds[name] = now() - start
            wanted = maps if wanted is None else wanted
            own.agreement += agreement(maps, wanted, images.shape[-1])
            own.bits += (maps.sum((1, 2)) / wanted.sum((1, 2))).tolist()
            if name in judged:
                own.excess += objective_after(setting, problem, bottleneck).tolist()
        for name, taken in seconds.items() if timed else ():
            found[name].passes.append(taken / statistics.median(forward))
    return found


def margin(chosen: Found) -> float:
    """The least excess of an image to choose with whose map agrees less than `BAD`; infinite if there is none."""
    bad = [e for e, a in zip(chosen.excess, chosen.agreement, strict=True) if a < BAD]
    return min(bad, default=float("inf"))


def fallen_back(found: Found, limit: float) -> tuple[Found, float]:
    """The maps with those replaced by the default whose excess is the limit or more, and how often that is."""
    fires = [excess >= limit for excess in found.excess]
    kept = [1.0 if fired else own for fired, own in zip(fires, found.agreement, strict=True)]
    bits = [1.0 if fired else own for fired, own in zip(fires, found.bits, strict=True)]
    return Found(kept, bits, found.passes, found.excess), sum(fires) / max(1, len(fires))


def judging_cost(setting: Setting, images: Tensor, scheme: Scheme) -> float:
    """Passes that `objective_after` takes, by the same clock; median of three."""
    now = clock()
    ratios = []
    problem = setting.pose(images)
    bottleneck = scheme(problem)
    for _ in range(3):
        start = now()
        setting.output(images)
        forward = now() - start
        start = now()
        objective_after(setting, problem, bottleneck)
        ratios.append((now() - start) / forward)
    return sorted(ratios)[1]


def classes_together(setting: Setting, images: Tensor, scheme: Scheme, repeats: int) -> list[float]:
    """Passes a map where all classes of an image are explained at once, of features computed once; one a repeat."""
    now = clock()
    found = []
    for _ in range(repeats):
        start = now()
        count = setting.output(images).shape[1]
        forward = now() - start
        start = now()
        problem = setting.pose(images)
        rows = torch.arange(len(images)).repeat_interleave(count)
        target = torch.arange(count).repeat(len(images))
        carried = select_carried(problem.carried, len(images), rows)
        spread = replace(
            problem, features=problem.features[rows], carried=carried, target=target, reference=problem.reference[rows]
        )
        cells(scheme(spread))
        found.append((now() - start) / forward / count)
    return found
