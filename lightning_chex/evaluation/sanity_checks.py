"""The sanity checks of an evaluation: their images, their methods, and the networks to calibrate."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from lightning_chex.attribution import Attributor
from lightning_chex.evaluation.preparation import EvaluationImages, PreparedEvaluation
from lightning_chex.evaluation.randomization import randomize_labels, randomize_parameters
from lightning_chex.evaluation.subject import Images
from lightning_chex.evaluation.untrained import stages
from lightning_chex.maps import Cases, Key, training_batches

CALIBRATION_IMAGES = 64
"""Images that a network of random weights is calibrated on, and its bottlenecks are fitted on."""


@dataclass(frozen=True)
class _Calibration:
    """Images for networks of random weights.

    Attributes:
        images: (N, C, H, W), N >= 2.
        can_fit: they are not the images explained, so that methods may be fitted on them.
    """

    images: Tensor
    can_fit: bool


def run_sanity_checks(prepared: PreparedEvaluation) -> set[Key]:
    """Measure how maps change with the network's weights, on the first images.

    Methods that have to be fitted are left out if there are no images to fit them on.

    Returns:
        The cases of these images; empty if there is none, or too few images to calibrate the networks on.
    """
    subject = prepared.plan.subject
    cases = _first_cases(prepared)
    if cases is None:
        return set()
    calibration = _calibration(prepared.images, subject.device, prepared.plan.settings.seed)
    if calibration is None:
        rank_zero_warn("there are fewer than two images to calibrate a network of random weights on: no sanity check")
        return set()
    methods = _methods_to_check(prepared.fitted.unfitted, calibration)
    images = calibration.images
    # as many stages as a deep network has; the bar need not be exact for a small one
    with prepared.request.bar("randomised weights", len(stages(100)) * len(methods)) as progress:
        randomize_parameters(prepared.evaluator, methods, cases, images, subject.build, progress.update)
    if subject.shuffled is not None:
        with prepared.request.bar("shuffled labels", len(methods)) as progress:
            randomize_labels(prepared.evaluator, methods, cases, images, subject.shuffled, progress.update)
    return set(cases.keys)


def _first_cases(prepared: PreparedEvaluation) -> Cases | None:
    """Cases of the first images, within the budget; None if no image can be read."""
    budget = prepared.request.settings.randomized(prepared.request.limit)
    tested = prepared.images.tested
    images = Images(tested.data, tested.dataset, tested.subject, int(min(budget.images, tested.count)))
    # one batch, so that every stage of the network is set up once
    batch = next(images.batches(max(1, images.count)), None)
    if batch is None:
        return None
    cases = prepared.evaluator.cases(batch)
    rows = cases.rows.tolist()
    within = budget.take(rows)
    return cases.select([i for i, row in enumerate(rows) if row in within])


def _calibration(images: EvaluationImages, device: torch.device, seed: int) -> _Calibration | None:
    """Images for calibration: of the training, else of the tuning half, else those to report on; None below two."""
    offer = training_batches(images.data, CALIBRATION_IMAGES, seed)
    batches: Iterable[Tensor] = ()
    if offer is not None:
        batches = offer()
    elif images.tuning is not None:
        batches = _images_of(images.tuning)
    others = _first_images(batches, device)
    if len(others) >= 2:
        return _Calibration(others, can_fit=True)
    # for the calibration and the spread of the outputs, the images to report on are good enough
    tested = images.tested
    reported = _first_images(_images_of(Images(tested.data, tested.dataset, tested.subject)), device)
    return _Calibration(reported, can_fit=False) if len(reported) >= 2 else None


def _methods_to_check(unfitted: Mapping[str, Attributor], calibration: _Calibration) -> dict[str, Attributor]:
    if calibration.can_fit:
        return dict(unfitted)
    return {name: method for name, method in unfitted.items() if method.num_observed is None}


def _images_of(images: Images) -> Iterator[Tensor]:
    return (batch["image"] for batch in images.batches())


def _first_images(batches: Iterable[Tensor], device: torch.device) -> Tensor:
    """The first images, (N, C, H, W); an empty tensor if there is none."""
    taken: list[Tensor] = []
    for batch in batches:
        taken.append(batch.to(device))
        if sum(map(len, taken)) >= CALIBRATION_IMAGES:
            break
    return torch.cat(taken)[:CALIBRATION_IMAGES] if taken else torch.zeros(0)
