"""Sanity checks (Adebayo et al. 2018): does a map change when what the network has learnt is taken from it?"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_chex.attribution import Attributor
from lightning_chex.evaluation.evaluator import Evaluator
from lightning_chex.evaluation.records import OtherEvaluationError
from lightning_chex.evaluation.untrained import (
    CHUNK,
    initial_weights,
    layers_from_top,
    match_spread,
    recalibrate,
    spread_of_outputs,
    stages,
    with_weights,
)
from lightning_chex.explaining import Cases, Shuffled, feature_statistics
from lightning_chex.metrics import is_constant, spearman

LEAST_SPREAD = 0.1
"""A network whose outputs spread over images by less than this share of the trained one's counts as constant."""

PARAMETERS, LABELS = "randomization", "label_randomization"
"""Names of the two checks in records and results."""


class Comparison:
    """Maps of a network before and after its weights are replaced.

    Args:
        evaluator: with the methods, whose maps of the trained network are made here where they are not on record.
        check: name of the check.
        unfitted: the methods to try, before they learnt anything.
        cases: to explain.
        images: (N, C, H, W), at least two and not those explained, for the methods that learn.
    """

    def __init__(
        self, evaluator: Evaluator, check: str, unfitted: Mapping[str, Attributor], cases: Cases, images: Tensor
    ) -> None:
        self.evaluator = evaluator
        self.check = check
        self.unfitted = unfitted
        self.images = images
        known = {name: evaluator.records.of(check, name) for name in unfitted}
        missing = {name: [i for i, key in enumerate(cases.keys) if key not in known[name]] for name in unfitted}
        self.waiting = {name: cases.select(own) for name, own in missing.items() if own}
        self.original = {name: evaluator.saliency(name, own) for name, own in self.waiting.items()}
        self.similarity: dict[str, list[Tensor]] = {name: [] for name in self.waiting}
        self.blank: dict[str, list[Tensor]] = {name: [] for name in self.waiting}

    def compare(self, progress: Callable[[int], None]) -> None:
        """Explain with the weights the network has now; methods that learn from data learn anew."""
        anew = {name: copy.deepcopy(self.unfitted[name]) for name in self.waiting}
        feature_statistics(self.evaluator.network, anew, batches=lambda: self.images.split(CHUNK))
        for name, method in anew.items():
            changed = self.evaluator.explained(method, self.waiting[name]).maps
            self.similarity[name].append(spearman(self.original[name], changed))
            self.blank[name].append(is_constant(changed.flatten(1)))
            progress(1)

    def record(self, share: Sequence[float] = ()) -> None:
        """Keep the mean similarity over all comparisons, and with ``share`` for an axis each single one.

        A blank map has no similarity: it is left out of the mean, and counted.
        """
        for name, cases in self.waiting.items():
            similarity = torch.stack(self.similarity[name], 1)  # (N, S), NaN where either map is blank
            blank = torch.stack(self.blank[name], 1).float().mean(1).tolist()
            mean = similarity.nanmean(1).tolist()
            curves = (
                {self.check: similarity.tolist(), f"{self.check}_share": [list(share)] * len(mean)} if share else {}
            )
            rows = {
                key: {
                    "values": {self.check: mean[i], f"{self.check}_blank": blank[i]},
                    "curves": {curve: own[i] for curve, own in curves.items()},
                }
                for i, key in enumerate(cases.keys)
            }
            self.evaluator.records.add(self.check, name, rows)


def randomize_parameters(
    evaluator: Evaluator,
    unfitted: Mapping[str, Attributor],
    cases: Cases,
    images: Tensor,
    build: Callable[[], nn.Module] | None,
    progress: Callable[[int], None],
) -> None:
    """Compare maps before and after the weights are replaced by initial ones, stage by stage from the output down.

    Batch normalisations are calibrated anew at each stage, and the last layer is scaled, so that the outputs spread
    over images as far as the trained network's. How far they do before and after is noted beside the records.

    Args:
        evaluator: see `Comparison`, as for unfitted, cases and images.
        build: makes the network anew; see `initial_weights`.
        progress: called with 1 after every method and stage.
    """
    network, seed = evaluator.network, evaluator.settings.seed
    comparison = Comparison(evaluator, PARAMETERS, unfitted, cases, images)
    layers = layers_from_top(network, cases.images[:1])
    if not comparison.waiting or not layers:
        return
    weights, whose = initial_weights(network, build, seed)
    trained = spread_of_outputs(network, images)
    depths: list[int] = stages(len(layers))
    unscaled: list[float] = []
    spread: list[float] = []
    for depth in depths:
        with with_weights(network, weights, layers[:depth]):
            recalibrate(network, layers[:depth], images)
            before, after = match_spread(network, layers[0], images, trained)
            unscaled.append(_share(before, trained))
            spread.append(_share(after, trained))
            comparison.compare(progress)
    share = [depth / len(layers) for depth in depths]
    dead = [part for part, own in zip(share, spread, strict=True) if not own >= LEAST_SPREAD]
    if dead:
        rank_zero_warn(
            f"randomised weights: with {', '.join(f'{part:.0%}' for part in dead)} of the layers drawn anew the "
            f"outputs spread over images by less than {LEAST_SPREAD:.0%} of the trained one's: maps say little there"
        )
    evaluator.records.note(
        PARAMETERS,
        {
            "initialisation": whose,
            "share": share,
            "spread": spread,
            "unscaled_spread": unscaled,
            "trained_spread": trained,
            "dead": dead,
        },
    )
    comparison.record(share)


def randomize_labels(
    evaluator: Evaluator,
    unfitted: Mapping[str, Attributor],
    cases: Cases,
    images: Tensor,
    shuffled: Shuffled,
    progress: Callable[[int], None],
) -> None:
    """Compare maps of the trained network with those of one trained on permuted labels.

    Args:
        evaluator: see `Comparison`, as for unfitted, cases and images.
        shuffled: the other network.
        progress: called with 1 after every method.

    Raises:
        OtherEvaluationError: there are records of another such network.
    """
    refuse_other_labels(evaluator.records.noted(LABELS), shuffled)
    comparison = Comparison(evaluator, LABELS, unfitted, cases, images)
    if not comparison.waiting:
        return
    trained = spread_of_outputs(evaluator.network, images)
    with with_weights(evaluator.network, shuffled.weights):
        spread = _share(spread_of_outputs(evaluator.network, images), trained)
        comparison.compare(progress)
    evaluator.records.note(LABELS, {"checkpoint": dict(shuffled.checkpoint), "spread": spread})
    comparison.record()


def refuse_other_labels(noted: Mapping[str, Any], shuffled: Shuffled) -> None:
    """Raise an OtherEvaluationError if figures on record are of another network than this."""
    if noted and noted["checkpoint"]["sha256"] != shuffled.checkpoint["sha256"]:
        raise OtherEvaluationError(
            "output_dir holds figures of another shuffled_ckpt: give another folder, or the same checkpoint"
        )


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan
