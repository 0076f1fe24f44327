"""Everything that determines an evaluation's results: to compare two of them, and to repeat one."""

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

from lightning_chex.attribution import Attributor
from lightning_chex.class_names import SCORE
from lightning_chex.data.adapter import name_of
from lightning_chex.data.contract import XrayDataModule
from lightning_chex.evaluation.assembly import Assembly
from lightning_chex.evaluation.settings import EvaluationSettings
from lightning_chex.evaluation.subject import Subject
from lightning_chex.evaluation.tuning import TuningRegions
from lightning_chex.maps import FORMAT, LungFinder, RegionKind, describe

PACKAGES = ("lightning-chex", "torch", "pytorch-lightning", "timm", "captum", "zennit", "numpy")

EXTENT_SETTINGS = ("tuning_images", "perturbation_images", "randomization_images", "chunk", "resamples")
"""Settings that decide what is recorded, not what a record holds: they may change when an evaluation is resumed."""


@dataclass(frozen=True)
class Plan:
    """Model, data and settings of an evaluation; fixed before the first map is made.

    Attributes:
        subject: the model.
        data: the data module.
        settings: of the evaluation.
        kind: regions that maps are compared with.
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
        """Everything that determines the values of a record, as plain values."""
        settings = {name: value for name, value in asdict(self.settings).items() if name not in EXTENT_SETTINGS}
        return {
            "format": FORMAT,
            "version": version("lightning-chex"),  # another version may measure differently
            "checkpoint": dict(self.subject.checkpoint),
            "data": self._fingerprint,
            "classes": list(self.subject.class_names),
            "regions": self.kind,
            "top_fraction": self.fraction,
            "image": list(self.image),
            "precision": self.subject.precision_name,
            "network": self.subject.network_name,
            "lungs": self._lung_finder_identity(),
            "settings": settings,
        }

    def protocol(
        self,
        assembly: Assembly,
        regions: TuningRegions,
        methods: Mapping[str, Attributor],
        statistics: Mapping[str, Any],
        tuning_images: int,
        limit: int | None,
    ) -> dict[str, Any]:
        """Return the value of ``protocol`` in ``results.json``.

        Args:
            assembly: the results.
            regions: of the tuning half.
            methods: by name, fitted.
            statistics: origin of the feature statistics, by layer.
            tuning_images: number of images that thresholds were tuned on.
            limit: on the number of reported images, or None.
        """
        versions = {name: version(name) for name in PACKAGES}
        return {
            "data": self._data_summary(assembly, regions, tuning_images),
            "split": "test",
            "limit": limit,
            "checkpoint": dict(self.subject.checkpoint),
            "threshold_rule": self._threshold_rule(regions),
            "top_fraction": self.fraction,
            "tuned_levels": self._tuned_levels(assembly),
            "statistics": dict(statistics),
            "methods": {name: describe(method) for name, method in methods.items()},
            "precision": self.subject.precision_name,
            "image": list(self.image),
            "trained_size": self.subject.trained_size,
            "seeds": {"seed": self.settings.seed},
            "settings": asdict(self.settings),
            "versions": {"python": platform.python_version(), **versions},
        }

    @cached_property
    def _fingerprint(self) -> str:
        # cached, since it reads the size and date of every file of the data set
        return self.data.fingerprint()

    def _lung_finder_identity(self) -> str | None:
        if self.find_lungs is None:
            return None
        # a function passed from Python has no identity
        return getattr(self.find_lungs, "identity", "given")

    def _data_summary(self, assembly: Assembly, regions: TuningRegions, tuning_images: int) -> dict[str, Any]:
        perturbed = assembly.selected["perturbation"]
        return {
            "module": name_of(self.data),
            "fingerprint": self._fingerprint,
            "images": len({case.key[0] for case in assembly.cases}),
            "targets": len(assembly.cases),
            "patients": len({case.patient for case in assembly.cases}),
            "perturbation_images": len({case.key[0] for case in assembly.cases if case.key in perturbed}),
            "tuning_images": tuning_images,
            "tuning_regions": regions.count,
            "lungs_outlined_by": self._lung_source(),
        }

    def _tuned_levels(self, assembly: Assembly) -> dict[str, dict[str, float]]:
        """Method -> class -> threshold."""
        targets = self.subject.class_names or [SCORE]
        tuned = {}
        for name, levels in assembly.levels.items():
            # levels are hundredths in float32: without rounding they would be written as 0.10000000149
            rounded = (round(level, 6) for level in levels)
            tuned[name] = dict(zip(targets, rounded, strict=True))
        return tuned

    def _threshold_rule(self, regions: TuningRegions) -> str:
        if self.settings.top_fraction is not None:
            origin = "as given"
        elif regions.share is not None:
            origin = f"the mean share of the image that the {regions.count} tuning regions cover"
        else:
            origin = "default, since there is no tuning region to take the size of"
        return f"top_fraction: the strongest {self.fraction:.1%} of a map's pixels ({origin})"

    def _lung_source(self) -> str | None:
        if self.kind != "zones":
            return None
        sources = []
        if self.has_masks:
            sources.append("the data set's masks")
        if self.find_lungs is not None:
            sources.append("a lung network")
        return ", else ".join(sources) or None
