"""Maps of all methods for the images of an evaluation, measured and recorded batch by batch."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_chex.attribution import Attribution, Attributor, empty_maps, frozen
from lightning_chex.evaluation.measuring import Perturbation, Values, correlate_with_severity, localize
from lightning_chex.evaluation.plan import Plan
from lightning_chex.evaluation.records import Key, Records
from lightning_chex.evaluation.settings import Share
from lightning_chex.explaining import Cases, cases_of
from lightning_chex.method_description import MethodDescription

Progress = Callable[[int], None]
"""Called with the number of maps made since the last call."""

Control = Callable[[nn.Module, Cases], Tensor]
"""Maps that do not depend on the network, float32 (N, H, W), of cases of images for it."""

Batches = Iterable[dict[str, Any]]
"""Batches of samples, see ``data/sample.py``, on the network's device."""


def control_of(method: Attributor) -> Control:
    """Use an attributor that ignores the network as a control."""
    return lambda network, cases: method.attribute(network, cases.images, cases.target, cases.rows).float()


def lung_field(network: nn.Module, cases: Cases) -> Tensor:
    """The control made of the lungs alone: 1 in them, 0 elsewhere."""
    assert cases.zones is not None
    return cases.zones.any(1).float()


LUNG_FIELD = MethodDescription("Lung field", description="marks the lungs")


class Evaluator:
    """Explains and measures with many methods; what is on record already is not computed again.

    Args:
        plan: model, settings, and what maps are judged by.
        methods: by name, fitted.
        controls: maps that do not depend on the network, by name; made anew whenever they are needed.
        records: where results go.

    Attributes:
        perturbed: the cases that perturbation was asked for, on record before or not.
    """

    def __init__(
        self, plan: Plan, methods: Mapping[str, Attributor], controls: Mapping[str, Control], records: Records
    ) -> None:
        self.plan = plan
        self.methods = methods
        self.controls = controls
        self.records = records
        self.network, self.class_names = plan.subject.network, plan.subject.class_names
        self.settings, self.precision = plan.settings, plan.subject.precision
        self.perturbation = Perturbation(self.network, bool(self.class_names), self.settings, self.precision)
        self.perturbed: set[Key] = set()

    def cases(self, batch: dict[str, Any]) -> Cases:
        """What is explained of a batch, with the network's predictions; see ``cases_of``."""
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
            cases = cases.select(cases.regions.flatten(1).any(1).nonzero()[:, 0].tolist())
            keys += cases.keys
            for name in (*self.methods, *self.controls):
                missing = self._missing("tuning", name, cases)
                if missing:
                    chosen = cases.select(missing)
                    # never a map on record: a test image may have the same id
                    _, curves = localize(self._made(name, chosen), chosen, self.plan.fraction)
                    self._keep("tuning", name, chosen, {}, curves)
                progress(len(batch["image"]))
        return keys

    def measure(self, batches: Batches, perturbed: Share, progress: Progress) -> Iterator[Cases]:
        """Record every measure of every method and control.

        Args:
            batches: of images to report on.
            perturbed: what perturbation is measured on; used up by this.
            progress: see ``Progress``.

        Yields:
            The cases of each batch, once they are on record.
        """
        repeated = 0
        seen: set[str] = set()
        for batch in batches:
            cases = self.cases(batch)
            # records are found by image id: an earlier image's map would be taken for this one's
            first = {name: i for i, name in reversed(list(enumerate(batch["image_id"])))}
            new = {i for name, i in first.items() if name not in seen}
            repeated += len(batch["image_id"]) - len(new)
            seen |= first.keys()
            cases = cases.select([i for i, row in enumerate(cases.rows.tolist()) if row in new])
            among_first = perturbed.take(cases.rows.tolist())
            likely = [not self.class_names or p >= self.settings.min_probability for p in cases.prediction.tolist()]
            altered = [i for i, row in enumerate(cases.rows.tolist()) if row in among_first and likely[i]]
            self.perturbed |= {cases.keys[i] for i in altered}
            masked = None
            for name in (*self.methods, *self.controls):
                self._localize(name, cases)
                unmeasured = set(self._missing("perturbation", name, cases))
                missing = [i for i in altered if i in unmeasured]
                if missing:
                    if masked is None:
                        masked = self.perturbation.masked(cases.select(altered))
                    chosen = cases.select(missing)
                    places = torch.tensor([altered.index(i) for i in missing], device=cases.rows.device)
                    measured = self.perturbation.measure(self.saliency(name, chosen), chosen, masked.select(places))
                    self._keep("perturbation", name, chosen, *measured)
                progress(len(batch["image"]))
            yield cases
        if repeated:
            rank_zero_warn(f"{repeated} images with duplicate ids are skipped")

    def saliency(self, name: str, cases: Cases) -> Tensor:
        """Maps of one method or control, float32 (N, H, W): those on record, the others made."""
        return self._maps(name, cases)[0]

    def _maps(self, name: str, cases: Cases) -> tuple[Tensor, Tensor]:
        """The same, put on record, and how far their optimisation had converged (N,): NaN of controls."""
        if name not in self.methods:
            return self.controls[name](self.network, cases), torch.full((len(cases),), torch.nan)
        size = (cases.images.shape[-2], cases.images.shape[-1])
        kept = [self.records.load_map(name, key, size) for key in cases.keys]
        missing = [i for i, found in enumerate(kept) if found is None]
        if missing:
            chosen = cases.select(missing)
            made = self.explained(self.methods[name], chosen)
            self.records.save_maps(name, chosen.keys, made.maps if made.cells is None else made.cells, made.convergence)
            for i, *one in zip(missing, made.maps, made.convergence.tolist(), strict=True):
                kept[i] = (one[0], one[1])
        found = [pair for pair in kept if pair is not None]
        maps = [saliency.to(cases.images.device) for saliency, _ in found]
        stacked = torch.stack(maps) if maps else cases.images.new_zeros(0, *size)
        return stacked, torch.tensor([convergence for _, convergence in found])

    def _made(self, name: str, cases: Cases) -> Tensor:
        """Maps of one method or control, made anew."""
        if name in self.methods:
            return self.explained(self.methods[name], cases).maps
        return self.controls[name](self.network, cases)

    def explained(self, method: Attributor, cases: Cases) -> Attribution:
        """Maps of one method, made anew: float32 (N, H, W), not finite values set to 0; convergence on the CPU."""
        with self.precision():
            found = method.explain(self.network, cases.images, cases.target, cases.rows)
        maps = found.maps
        if maps.shape != cases.regions.shape:
            raise ValueError(
                f"{type(method).__name__} gives maps {tuple(maps.shape)} for {len(cases)} targets of images of "
                f"{cases.images.shape[-2]} x {cases.images.shape[-1]} pixels: attribute must return (N, H, W)"
            )
        if maps.isfinite().all():
            return Attribution(maps.float(), found.convergence.cpu(), found.cells)
        broken = int((~maps.isfinite().flatten(1).all(1)).sum())
        warnings.warn(
            f"{broken} of {len(maps)} maps of {type(method).__name__} hold NaN or infinity, which count as 0",
            stacklevel=2,
        )
        return Attribution(maps.float().nan_to_num(0.0, 0.0, 0.0), found.convergence.cpu())

    def _localize(self, name: str, cases: Cases) -> None:
        missing = self._missing("localization", name, cases)
        if not missing:
            return
        chosen = cases.select(missing)
        saliency, convergence = self._maps(name, chosen)
        values, curves = localize(saliency, chosen, self.plan.fraction)
        more_values, more_curves = correlate_with_severity(saliency, chosen)
        followed = {} if convergence.isnan().all() else {"convergence": convergence}
        # of controls, which are flat on purpose, it would say nothing
        method = self.methods.get(name)
        empty = {} if method is None else {"empty": empty_maps(saliency, method.unit).float()}
        self._keep("localization", name, chosen, values | more_values | empty | followed, curves | more_curves)

    def _missing(self, part: str, name: str, cases: Cases) -> list[int]:
        known = self.records.of(part, name)
        return [i for i, key in enumerate(cases.keys) if key not in known]

    def _keep(self, part: str, name: str, cases: Cases, values: Values, curves: Values) -> None:
        columns = {key: value.tolist() for key, value in values.items()}
        lines = {key: curve.tolist() for key, curve in curves.items()}
        if "iou_at_level" in lines:  # enough digits, and a third of the file
            lines["iou_at_level"] = [[round(x, 5) for x in row] for row in lines["iou_at_level"]]
        rows = {
            key: {
                "values": {name: column[i] for name, column in columns.items()},
                "curves": {name: line[i] for name, line in lines.items()},
            }
            for i, key in enumerate(cases.keys)
        }
        self.records.add(part, name, rows)
