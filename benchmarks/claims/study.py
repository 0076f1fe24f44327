"""What all claims share: networks and the statistics of their layers, samples by patient, and how a claim is stated."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks.claims.populations import training_batches
from lightning_chex.attribution import IBA, Attributor, FeatureStatistics, InverseIBA, MultiLayerIBA
from lightning_chex.files import write_whole
from lightning_chex.metrics import Estimate, pixel_ranks, summarize
from lightning_chex.tasks import ClassificationTask, RegressionTask

Kind = Literal["classifier", "weighted", "severity", "detectors", "shuffled"]
Verdict = Literal["holds", "does not hold", "undecided"]
Row = Mapping[str, str | float | int]
Measured = tuple[list[str], dict[str, Tensor]]
"""The patients of N cases, and one value a case under each name, (N,)."""

LAYERS = ("features.denseblock1", "features.denseblock2", "features.denseblock3")
LAYER = LAYERS[1]
"""Of the single-layer methods: at 128 px it has the 16 x 16 cells that denseblock3 has at 256."""

SHARES = frozenset({"all", "both", "worse", "most", "iou", "IoU", "pointing", "mass", "AUPRC"})
"""First part of the names of values that lie from 0 to 1 by definition."""

FEWEST_NETWORKS = 3

NETWORKS = Path(__file__).parent / "networks"

STARTS: dict[Kind, Kind] = {"detectors": "severity"}
"""Networks that start from the weights of another."""

QUICK: dict[Kind, int] = {"classifier": 1000, "weighted": 1000, "severity": 400, "detectors": 400, "shuffled": 400}
"""Training images of a quick run: a network that recognises no finding has no maps to judge."""


class NothingRecognised(ValueError):
    """The networks recognise none of the cases a claim is about."""


@dataclass(frozen=True)
class Table:
    """Figures of one comparison.

    Attributes:
        title: what is compared.
        rows: all with the same columns.
    """

    title: str
    rows: Sequence[Row]


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, or of its successors, and what was found.

    Attributes:
        name: short.
        statement: the claim, with its place in the paper.
        verdict: by the rule that ``rule`` states.
        rule: when it holds, does not hold, or is undecided; fixed before the figures were seen.
        finding: one or two sentences with the deciding figures.
        tables: the figures.
        limits: what the comparison cannot say.
        basis: the trainings it rests on, where these are not the networks of the `Study`.
    """

    name: str
    statement: str
    verdict: Verdict
    rule: str
    finding: str
    tables: Sequence[Table] = ()
    limits: Sequence[str] = ()
    basis: str = ""


@dataclass(frozen=True)
class Study:
    """Networks of several training seeds, and how many cases each claim takes.

    Attributes:
        work: folder of the trained networks, and of what was measured of them.
        seeds: training seeds; each is another initialisation, order and training population.
        cases: cases a claim and network, at most.
        quick: train on few images, once, instead of as the configurations in ``networks/`` say: the networks learn
            little, and every claim still runs.
    """

    work: Path
    seeds: Sequence[int]
    cases: int
    quick: bool = False
    _statistics: dict[tuple[str, int, str], FeatureStatistics] = field(default_factory=dict)

    def network(self, kind: Kind, seed: int) -> nn.Module:
        """Load a network, in evaluation mode; it is trained first where it is not in ``work``."""
        return _loaded(kind, trained(self.work, kind, seed, self.quick))

    def statistics(self, kind: Kind, seed: int, layer: str = LAYER) -> FeatureStatistics:
        """Statistics of a layer on images the network was trained on."""
        key = (kind, seed, layer)
        if key not in self._statistics:
            method = MultiLayerIBA(LAYERS)
            method.fit(self.network(kind, seed), training_batches(target_of(kind), seed))
            self._statistics.update({(kind, seed, one.layer): one.statistics for one in method.members})
        return self._statistics[key]

    def iba(self, kind: Kind, seed: int, /, layer: str = LAYER, inverse: bool = False, **options: object) -> IBA:
        """A bottleneck with the statistics of its layer."""
        method = (InverseIBA if inverse else IBA)(layer, batch_size=8, **options)
        method.statistics = self.statistics(kind, seed, layer)
        return method

    def measured(self, name: str, seed: int, measure: Callable[["Study", int], Measured]) -> Measured:
        """Measure a network, or read what an earlier run has measured of it with as many cases.

        It lies in ``work/measured``: remove that after a change of how something is measured.
        """
        file = self.work / "measured" / f"{name}-{seed}-{self.cases}.json"
        if not file.exists():
            patients, values = measure(self, seed)
            if not patients:
                raise NothingRecognised(
                    f"{name}: the network of seed {seed} recognises none of the cases: train longer"
                )
            kept = {key: own.double().tolist() for key, own in values.items()}
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, json.dumps({"patients": patients, "values": kept}))
        found = json.loads(file.read_text())
        return found["patients"], {key: torch.tensor(own).double() for key, own in found["values"].items()}

    def sample(self, name: str, measure: Callable[["Study", int], Measured]) -> "Sample":
        """What ``measure`` gives of the networks of all seeds."""
        sample = Sample()
        for seed in self.seeds:
            patients, values = self.measured(name, seed, measure)
            sample.add(seed, patients, **values)
        return sample

    def fitted(self, method: Attributor, kind: Kind, seed: int) -> Attributor:
        """A method that has learnt from images the network was trained on."""
        return method.fit(self.network(kind, seed), training_batches(target_of(kind), seed))


def target_of(kind: Kind) -> Literal["pathologies", "severity"]:
    """What the phantom draws for a network of this kind; detectors see the images of the severities."""
    return "pathologies" if kind in ("classifier", "weighted") else "severity"


def trained(work: Path, kind: Kind, seed: int, quick: bool = False) -> Path:
    """The checkpoint of a network, trained through the command line if it is not there."""
    folder = work / f"{kind}-{seed}"
    checkpoint = folder / "checkpoints" / "network.ckpt"
    if not checkpoint.exists():
        command = [
            sys.executable,
            "-m",
            "lightning_chex",
            "fit",
            "--config",
            str(NETWORKS / f"{kind}.yaml"),
            f"--seed_everything={seed}",
            f"--data.seed={seed}",
            f"--trainer.default_root_dir={folder}",
        ]
        if kind in STARTS:
            command.append(f"--model.weights={trained(work, STARTS[kind], seed, quick)}")
        shorter = ["--trainer.max_epochs=1", f"--data.num_train={QUICK[kind]}"]
        subprocess.run(command + (shorter if quick else []), check=True)
    return checkpoint


@cache
def _loaded(kind: Kind, checkpoint: Path) -> nn.Module:
    task = RegressionTask if kind in ("severity", "shuffled") else ClassificationTask
    loaded = task.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True)
    return loaded.model.eval().to(memory_format=torch.channels_last)


class Sample:
    """Values case by case under several names, of several networks, with the patients they come from."""

    def __init__(self) -> None:
        self.patients: list[str] = []
        self.seeds: list[int] = []
        self.values: dict[str, list[float]] = {}

    def add(self, seed: int, patients: Sequence[str], **values: Tensor) -> None:
        """Add one value a patient under each name, (N,) each; a name that is new, or missing, is NaN elsewhere."""
        known = len(self.patients)
        self.patients += patients
        self.seeds += [seed] * len(patients)
        for name, own in values.items():
            self.values.setdefault(name, [float("nan")] * known).extend(own.double().tolist())
        for own in self.values.values():
            own.extend([float("nan")] * (len(self.patients) - len(own)))

    def where(self, kept: Sequence[bool]) -> "Sample":
        """The cases for which ``kept`` is true."""
        other = Sample()
        other.patients = [own for own, keep in zip(self.patients, kept, strict=True) if keep]
        other.seeds = [own for own, keep in zip(self.seeds, kept, strict=True) if keep]
        other.values = {
            name: [own for own, keep in zip(values, kept, strict=True) if keep] for name, values in self.values.items()
        }
        return other

    def mean(self, name: str) -> Estimate:
        """Mean of a value over all networks, with its interval by patient."""
        bounds = (0.0, 1.0) if name.partition("|")[0] in SHARES else (-math.inf, math.inf)
        return summarize(self.values[name], self.patients, bounds=bounds).mean

    def difference(self, one: str, other: str) -> Estimate:
        """Mean paired difference over all networks, with its interval by patient."""
        return summarize(self._paired(one, other), self.patients).mean

    def by_seed(self, one: str, other: str | None = None) -> list[float]:
        """The mean, or the mean difference, of each network."""
        values = torch.tensor(self.values[one] if other is None else self._paired(one, other))
        seeds = torch.tensor(self.seeds)
        return [float(values[seeds == seed].nanmean()) for seed in sorted(set(self.seeds))]

    def decided(self, one: str, other: str, least: float = 0.0) -> Verdict:
        """Whether ``one`` exceeds ``other`` by more than ``least``: see `RULE`."""
        return decide(self.difference(one, other), self.by_seed(one, other), least)

    def _paired(self, one: str, other: str) -> list[float]:
        return [a - b for a, b in zip(self.values[one], self.values[other], strict=True)]


RULE = (
    "It holds where the 95 % interval by patient of the paired difference lies above 0 and every network's mean does; "
    f"it does not hold where the interval lies below 0; else, and with fewer than {FEWEST_NETWORKS} networks, it is "
    "undecided."
)


def decide(difference: Estimate, by_seed: Sequence[float], least: float = 0.0) -> Verdict:
    """Judge a paired difference by `RULE`; ``least`` stands for its 0."""
    if len(by_seed) < FEWEST_NETWORKS:
        return "undecided"
    if difference.ci_low > least and min(by_seed) > least:
        return "holds"
    return "does not hold" if difference.ci_high < least else "undecided"


def several(values: Sequence[float], signed: bool = False) -> str:
    """One figure a network."""
    return ", ".join(f"{value:+.3f}" if signed else f"{value:.3f}" for value in values)


@torch.no_grad()
def outputs(network: nn.Module, images: Tensor) -> Tensor:
    """Run a network on images (N, 3, H, W), some at a time: raw outputs (N, K)."""
    return torch.cat([network(own.contiguous(memory_format=torch.channels_last)) for own in images.split(16)])


def marked(maps: Tensor, area: Tensor) -> Tensor:
    """Mark the strongest pixels of each map: of maps (N, H, W) as many as ``area`` (N,) says, bool (N, H, W)."""
    return pixel_ranks(maps) < area.view(-1, 1, 1)
