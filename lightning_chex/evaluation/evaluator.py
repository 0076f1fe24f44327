"""Maps of all methods for the images of an evaluation, measured and recorded batch by batch."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_chex.attribution import Attribution, Attributor, empty_maps, frozen
from lightning_chex.attribution.description import MethodDescription
from lightning_chex.evaluation.localization import correlate_with_severity, localize
from lightning_chex.evaluation.measures import Values
from lightning_chex.evaluation.perturbation import Perturbation, PerturbedCases
from lightning_chex.evaluation.plan import Plan
from lightning_chex.evaluation.records import Key, Records
from lightning_chex.evaluation.settings import ImageBudget
from lightning_chex.maps import Cases, cases_of

Progress = Callable[[int], None]
"""Called with the number of maps made since the last call."""

Control = Callable[[nn.Module, Cases], Tensor]
"""Function from network and N cases to maps that do not depend on the network, float32 (N, H, W)."""

Batches = Iterable[dict[str, Any]]
"""Batches of samples, see ``data/sample.py``, on the network's device."""


def control_of(method: Attributor) -> Control:
    """Use an attributor that ignores the network as a control."""
    return lambda network, cases: method.attribute(network, cases.images, cases.target, cases.rows).float()


def lung_field(network: nn.Module, cases: Cases) -> Tensor:
    """Control that marks the lungs: 1 inside, 0 elsewhere."""
    assert cases.zones is not None
    return cases.zones.any(1).float()


LUNG_FIELD = MethodDescription("Lung field", description="marks the lungs")


def new_rows(image_ids: Sequence[str], seen: set[str]) -> list[int]:
    """Rows of a batch whose image id did not occur before; later ones are duplicates.

    Args:
        image_ids: of the batch.
        seen: ids of earlier batches; those of this one are added.
    """
    rows = []
    for row, image_id in enumerate(image_ids):
        if image_id not in seen:
            seen.add(image_id)
            rows.append(row)
    return rows


class Evaluator:
    """Explains and measures with many methods; values and maps on record are not computed again.

    Args:
        plan: model, settings, and what maps are judged by.
        methods: by name, fitted.
        controls: maps that do not depend on the network, by name; made anew whenever they are needed.
        records: of the evaluation.

    Attributes:
        perturbed: the cases selected for perturbation, whether or not they were on record before.
    """

    def __init__(
        self, plan: Plan, methods: Mapping[str, Attributor], controls: Mapping[str, Control], records: Records
    ) -> None:
        self.plan = plan
        self.methods = methods
        self.controls = controls
        self.records = records
        self.network = plan.subject.network
        self.class_names = plan.subject.class_names
        self.settings = plan.settings
        self.precision = plan.subject.precision
        self.perturbation = Perturbation(self.network, bool(self.class_names), self.settings, self.precision)
        self.perturbed: set[Key] = set()

    def cases(self, batch: dict[str, Any]) -> Cases:
        """Explained targets of a batch, with the network's predictions; see ``cases_of``."""
        with frozen(self.network), self.precision(), torch.no_grad():
            output = self.network(batch["image"].contiguous(memory_format=torch.channels_last)).float()
        return cases_of(batch, output, self.class_names, self.plan.kind, self.plan.find_lungs)

    def tune(self, batches: Batches, progress: Progress) -> list[Key]:
        """Record the IoU at every level of every method's maps of the tuning images; the maps are not kept.

        Returns:
            The cases with a region.
        """
        keys: list[Key] = []
        for batch in batches:
            cases = self.cases(batch)
            # a threshold can only be tuned where there is a region to meet
            cases = cases.select(cases.regions.flatten(1).any(1).nonzero()[:, 0].tolist())
            keys += cases.keys
            for name in (*self.methods, *self.controls):
                missing = self._missing("tuning", name, cases)
                if missing:
                    chosen = cases.select(missing)
                    # never a map on record: a test image may have the same id
                    _, curves = localize(self._new_maps(name, chosen), chosen, self.plan.fraction)
                    self._record("tuning", name, chosen, {}, curves)
                progress(len(batch["image"]))
        return keys

    def measure(self, batches: Batches, perturbed: ImageBudget, progress: Progress) -> Iterator[Cases]:
        """Record every measure of every method and control.

        Args:
            batches: of images to report on.
            perturbed: the images that perturbation is measured on; used up by this.
            progress: see ``Progress``.

        Yields:
            The cases of each batch, once they are on record.
        """
        duplicates = 0
        seen: set[str] = set()
        for batch in batches:
            cases = self.cases(batch)
            # records are found by image id: the map of an earlier image would be taken for that of this one
            new = set(new_rows(batch["image_id"], seen))
            duplicates += len(batch["image_id"]) - len(new)
            cases = cases.select([i for i, row in enumerate(cases.rows.tolist()) if row in new])
            altered = PerturbedCases(self.perturbation, self._perturbed_among(cases, perturbed))
            self.perturbed |= set(altered.cases.keys)
            for name in (*self.methods, *self.controls):
                self._localize(name, cases)
                self._perturb(name, altered)
                progress(len(batch["image"]))
            yield cases
        if duplicates:
            rank_zero_warn(f"{duplicates} images with duplicate ids are skipped")

    def _perturbed_among(self, cases: Cases, budget: ImageBudget) -> Cases:
        """Cases of the first images whose prediction is likely enough to measure its fall."""
        rows = cases.rows.tolist()
        within = budget.take(rows)
        chosen = []
        for i, (row, prediction) in enumerate(zip(rows, cases.prediction.tolist(), strict=True)):
            # a score has no probability, so all of its cases are measured
            is_likely = not self.class_names or prediction >= self.settings.min_probability
            if row in within and is_likely:
                chosen.append(i)
        return cases.select(chosen)

    def saliency(self, name: str, cases: Cases) -> Tensor:
        """Maps of one method or control, float32 (N, H, W): those on record, the others made."""
        return self._maps(name, cases)[0]

    def _maps(self, name: str, cases: Cases) -> tuple[Tensor, Tensor]:
        """Maps as `saliency` gives them, and the change at the end of their optimisation, (N,): NaN for controls."""
        if name not in self.methods:
            return self.controls[name](self.network, cases), torch.full((len(cases),), torch.nan)
        size = (cases.images.shape[-2], cases.images.shape[-1])
        maps = [self.records.load_map(name, key, size) for key in cases.keys]
        missing = [i for i, recorded in enumerate(maps) if recorded is None]
        if missing:
            chosen = cases.select(missing)
            explained = self.explained(self.methods[name], chosen)
            # cells are a small part of the pixels, and pixels are computed from them without loss
            values = explained.maps if explained.cells is None else explained.cells
            self.records.save_maps(name, chosen.keys, values, explained.convergence)
            for i, saliency, change in zip(missing, explained.maps, explained.convergence.tolist(), strict=True):
                maps[i] = (saliency, change)
        complete = [pair for pair in maps if pair is not None]
        convergence = torch.tensor([change for _, change in complete])
        if not complete:
            return cases.images.new_zeros(0, *size), convergence
        return torch.stack([saliency.to(cases.images.device) for saliency, _ in complete]), convergence

    def _new_maps(self, name: str, cases: Cases) -> Tensor:
        """Maps of one method or control that are neither read from the records nor added to them."""
        if name in self.methods:
            return self.explained(self.methods[name], cases).maps
        return self.controls[name](self.network, cases)

    def explained(self, method: Attributor, cases: Cases) -> Attribution:
        """Explain cases with one method.

        Returns:
            Maps, float32 (N, H, W), in which NaN and infinity are replaced by 0, and their convergence on the CPU.

        Raises:
            ValueError: maps of another shape.
        """
        with self.precision():
            attribution = method.explain(self.network, cases.images, cases.target, cases.rows)
        maps = attribution.maps
        if maps.shape != cases.regions.shape:
            raise ValueError(
                f"{type(method).__name__} gives maps {tuple(maps.shape)} for {len(cases)} targets of images of "
                f"{cases.images.shape[-2]} x {cases.images.shape[-1]} pixels: attribute must return (N, H, W)"
            )
        if maps.isfinite().all():
            return Attribution(maps.float(), attribution.convergence.cpu(), attribution.cells)
        broken = int((~maps.isfinite().flatten(1).all(1)).sum())
        warnings.warn(
            f"{broken} of {len(maps)} maps of {type(method).__name__} hold NaN or infinity, which count as 0",
            stacklevel=2,
        )
        # without cells: pixels computed from them would not be finite either
        return Attribution(maps.float().nan_to_num(0.0, 0.0, 0.0), attribution.convergence.cpu())

    def _localize(self, name: str, cases: Cases) -> None:
        """Record how the maps of one method or control meet the regions and follow the zone scores."""
        missing = self._missing("localization", name, cases)
        if not missing:
            return
        chosen = cases.select(missing)
        saliency, convergence = self._maps(name, chosen)
        values, curves = localize(saliency, chosen, self.plan.fraction)
        severity_values, severity_curves = correlate_with_severity(saliency, chosen)
        values = values | severity_values
        # not for controls, which are flat on purpose
        if name in self.methods:
            values["empty"] = empty_maps(saliency, self.methods[name].unit).float()
        # methods that optimise nothing have no convergence
        if not convergence.isnan().all():
            values["convergence"] = convergence
        self._record("localization", name, chosen, values, curves | severity_curves)

    def _perturb(self, name: str, perturbed: PerturbedCases) -> None:
        """Record the perturbation measures of one method or control."""
        missing = self._missing("perturbation", name, perturbed.cases)
        if not missing:
            return
        chosen = perturbed.cases.select(missing)
        masked = perturbed.masked.select(torch.tensor(missing, device=chosen.rows.device))
        values, curves = self.perturbation.measure(self.saliency(name, chosen), chosen, masked)
        self._record("perturbation", name, chosen, values, curves)

    def _missing(self, part: str, name: str, cases: Cases) -> list[int]:
        """Indices of the cases without a record."""
        recorded = self.records.of(part, name)
        return [i for i, key in enumerate(cases.keys) if key not in recorded]

    def _record(self, part: str, name: str, cases: Cases, values: Values, curves: Values) -> None:
        columns = {key: value.tolist() for key, value in values.items()}
        lines = {key: curve.tolist() for key, curve in curves.items()}
        if "iou_at_level" in lines:
            # five digits are enough, and take a third of the file
            lines["iou_at_level"] = [[round(iou, 5) for iou in levels] for levels in lines["iou_at_level"]]
        rows = {}
        for i, key in enumerate(cases.keys):
            rows[key] = {
                "values": {measure: column[i] for measure, column in columns.items()},
                "curves": {curve: line[i] for curve, line in lines.items()},
            }
        self.records.add(part, name, rows)
