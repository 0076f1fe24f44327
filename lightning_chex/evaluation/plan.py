"""Everything that determines an evaluation's results: to compare two of them, and to repeat one."""

import platform
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

from lightning_chex.attribution import Attributor
from lightning_chex.class_names import SCORE
from lightning_chex.data.adapter import name_of
from lightning_chex.data.contract import XrayDataModule
from lightning_chex.evaluation.assembly import Explained
from lightning_chex.evaluation.settings import EvaluationSettings
from lightning_chex.evaluation.tuning import TuningRegions
from lightning_chex.explaining import FORMAT, Key, LungFinder, RegionKind, Subject, describe

PACKAGES = ("lightning-chex", "torch", "pytorch-lightning", "timm", "captum", "zennit", "numpy")

HOW_MUCH = ("tuning_images", "perturbation_images", "randomization_images", "chunk", "resamples")
"""Settings that decide what is recorded, not what a record holds: they may change when an evaluation is resumed."""


@dataclass(frozen=True)
class Plan:
    """What is evaluated and how; fixed before the first map is made.

    Attributes:
        subject: the model.
        data: the data module.
        settings: of the evaluation.
        kind: what maps are judged by.
        fraction: share of a map's pixels the rule ``top_fraction`` marks.
        image: shape (C, H, W) of the network's images.
        find_lungs: outlines lungs of images without masks, or None.
        has_masks: whether the data set outlines lungs.
    """

    subject: Subject
    data: XrayDataModule
    settings: EvaluationSettings
    kind: RegionKind
    fraction: float
    image: tuple[int, ...]
    find_lungs: LungFinder | None
    has_masks: bool

    def identity(self) -> dict[str, Any]:
        """Everything that decides the numbers of a record, in plain values."""
        return {
            "format": FORMAT,
            "version": version("lightning-chex"),  # another one may measure otherwise
            "checkpoint": dict(self.subject.checkpoint),
            "data": self._fingerprint,
            "classes": list(self.subject.class_names),
            "regions": self.kind,
            "top_fraction": self.fraction,
            "image": list(self.image),
            "precision": self.subject.precision_name,
            "network": self.subject.network_name,
            "lungs": None if self.find_lungs is None else getattr(self.find_lungs, "identity", "given"),
            "settings": {name: value for name, value in asdict(self.settings).items() if name not in HOW_MUCH},
        }

    def account(
        self,
        cases: Sequence[Explained],
        perturbed: Set[Key],
        statistics: Mapping[str, Any],
        methods: Mapping[str, Attributor],
        levels: Mapping[str, Sequence[float]],
        regions: TuningRegions,
        tuning_images: int,
        limit: int | None,
    ) -> dict[str, Any]:
        """What ``results.json`` says under ``protocol``."""
        return {
            "data": {
                "module": name_of(self.data),
                "fingerprint": self._fingerprint,
                "images": len({case.key[0] for case in cases}),
                "targets": len(cases),
                "patients": len({case.patient for case in cases}),
                "perturbation_images": len({case.key[0] for case in cases if case.key in perturbed}),
                "tuning_images": tuning_images,
                "tuning_regions": regions.count,
                "lungs_outlined_by": self._outliner(),
            },
            "split": "test",
            "limit": limit,
            "checkpoint": dict(self.subject.checkpoint),
            "threshold_rule": self._rule(regions),
            "top_fraction": self.fraction,
            "tuned_levels": {
                name: dict(zip(self.subject.class_names or [SCORE], (round(x, 6) for x in own), strict=True))
                for name, own in levels.items()
            },
            "statistics": dict(statistics),
            "methods": {name: describe(method) for name, method in methods.items()},
            "precision": self.subject.precision_name,
            "image": list(self.image),
            "trained_size": self.subject.trained_size,
            "seeds": {"seed": self.settings.seed},
            "settings": asdict(self.settings),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        }

    @cached_property
    def _fingerprint(self) -> str:
        # once: it looks at every file of the data set
        return self.data.fingerprint()

    def _rule(self, regions: TuningRegions) -> str:
        origin = "no tuning region says how large regions are"
        if self.settings.top_fraction is not None:
            origin = "as given"
        elif regions.share is not None:
            origin = f"the mean share of the image that the {regions.count} tuning regions cover"
        return f"top_fraction: the strongest {self.fraction:.1%} of a map's pixels ({origin})"

    def _outliner(self) -> str | None:
        sources = ["the data set's masks"] * self.has_masks + ["a lung network"] * (self.find_lungs is not None)
        return ", else ".join(sources) or None if self.kind == "zones" else None
