"""Sanity checks (Adebayo et al. 2018): change of maps when the network's weights are randomised."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn

from lightning_chex.attribution import Attributor
from lightning_chex.evaluation.evaluator import Evaluator
from lightning_chex.evaluation.records import OtherEvaluationError
from lightning_chex.evaluation.subject import Shuffled
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
from lightning_chex.maps import Cases, Key, feature_statistics
from lightning_chex.metrics import is_constant, spearman

LEAST_SPREAD = 0.1
"""A network whose outputs spread over images by less than this share of the trained one's counts as constant."""

PARAMETERS = "randomization"
"""Name of the check with initial weights, in records and results."""

LABELS = "label_randomization"
"""Name of the check with a network trained on shuffled labels, in records and results."""


class Comparison:
    """Maps of a network before and after its weights are replaced.

    Args:
        evaluator: with the methods, whose maps of the trained network are made here if they are not on record.
        check: name of the check.
        unfitted: the methods to try, not fitted yet.
        cases: to explain.
        images: (N, C, H, W), at least two and other than those explained, for the methods that are fitted.

    Attributes:
        waiting: method -> cases without a record.
    """

    def __init__(
        self, evaluator: Evaluator, check: str, unfitted: Mapping[str, Attributor], cases: Cases, images: Tensor
    ) -> None:
        self.evaluator = evaluator
        self.check = check
        self.unfitted = unfitted
        self.images = images
        self.waiting: dict[str, Cases] = {}
        for name in unfitted:
            recorded = evaluator.records.of(check, name)
            missing = [i for i, key in enumerate(cases.keys) if key not in recorded]
            if missing:
                self.waiting[name] = cases.select(missing)
        # now, while the network still has its trained weights
        self.original = {name: evaluator.saliency(name, cases) for name, cases in self.waiting.items()}
        self.similarity: dict[str, list[Tensor]] = {name: [] for name in self.waiting}
        self.blank: dict[str, list[Tensor]] = {name: [] for name in self.waiting}

    def compare(self, progress: Callable[[int], None]) -> None:
        """Explain with the weights the network has now; methods that need fitting are fitted again."""
        methods = {name: copy.deepcopy(self.unfitted[name]) for name in self.waiting}
        feature_statistics(self.evaluator.network, methods, batches=lambda: self.images.split(CHUNK))
        for name, method in methods.items():
            changed = self.evaluator.explained(method, self.waiting[name]).maps
            self.similarity[name].append(spearman(self.original[name], changed))
            self.blank[name].append(is_constant(changed.flatten(1)))
            progress(1)

    def record(self, share: Sequence[float] = ()) -> None:
        """Record the mean similarity over all comparisons, and the share of blank maps.

        A blank map has no similarity: it is left out of the mean, and counted.

        Args:
            share: share of the layers replaced in each comparison; if given, each similarity is recorded as a curve.
        """
        for name, cases in self.waiting.items():
            similarity = torch.stack(self.similarity[name], 1)  # (N, S), NaN where either map is blank
            blank = torch.stack(self.blank[name], 1).float().mean(1).tolist()
            mean = similarity.nanmean(1).tolist()
            rows: dict[Key, dict[str, Any]] = {}
            for i, key in enumerate(cases.keys):
                curves: dict[str, list[float]] = {}
                if share:
                    curves = {self.check: similarity[i].tolist(), f"{self.check}_share": list(share)}
                rows[key] = {
                    "values": {self.check: mean[i], f"{self.check}_blank": blank[i]},
                    "curves": curves,
                }
            self.evaluator.records.add(self.check, name, rows)


@dataclass
class _Spreads:
    """Spread of the outputs over images at each stage, as a share of the trained network's.

    Attributes:
        trained: spread of the trained network's outputs.
        unscaled: at each stage, before the last layer is scaled.
        scaled: at each stage, after it.
    """

    trained: float
    unscaled: list[float] = field(default_factory=list)
    scaled: list[float] = field(default_factory=list)

    def add(self, before: float, after: float) -> None:
        """Add a stage with the spread before and after scaling."""
        self.unscaled.append(_ratio(before, self.trained))
        self.scaled.append(_ratio(after, self.trained))


def randomize_parameters(
    evaluator: Evaluator,
    unfitted: Mapping[str, Attributor],
    cases: Cases,
    images: Tensor,
    build: Callable[[], nn.Module] | None,
    progress: Callable[[int], None],
) -> None:
    """Compare maps before and after the weights are replaced by initial ones, stage by stage from the output down.

    Batch normalisations are calibrated again at each stage, and the last layer is scaled, so that the outputs spread
    over images as far as the trained network's. The spread before and after is written beside the records.

    Args:
        evaluator: see `Comparison`, as for unfitted, cases and images.
        build: builds the network again; see `initial_weights`.
        progress: called with 1 after every method and stage.
    """
    network = evaluator.network
    comparison = Comparison(evaluator, PARAMETERS, unfitted, cases, images)
    layers = layers_from_top(network, cases.images[:1])
    if not comparison.waiting or not layers:
        return
    weights, initialisation = initial_weights(network, build, evaluator.settings.seed)
    spreads = _Spreads(spread_of_outputs(network, images))
    depths: list[int] = stages(len(layers))
    for depth in depths:
        with with_weights(network, weights, layers[:depth]):
            recalibrate(network, layers[:depth], images)
            spreads.add(*match_spread(network, layers[0], images, spreads.trained))
            comparison.compare(progress)
    share = [depth / len(layers) for depth in depths]
    evaluator.records.write_metadata(
        PARAMETERS,
        {
            "initialisation": initialisation,
            "share": share,
            "spread": spreads.scaled,
            "unscaled_spread": spreads.unscaled,
            "trained_spread": spreads.trained,
            "dead": _dead_stages(share, spreads.scaled),
        },
    )
    # after the metadata: records without it could not be reported
    comparison.record(share)


def _dead_stages(share: Sequence[float], spread: Sequence[float]) -> list[float]:
    """Warn of stages at which the network is nearly constant, and return their share of the layers."""
    # "not >=" includes NaN, the ratio to a trained network that is constant itself
    dead = [part for part, ratio in zip(share, spread, strict=True) if not ratio >= LEAST_SPREAD]
    if dead:
        rank_zero_warn(
            f"randomised weights: with {', '.join(f'{part:.0%}' for part in dead)} of the layers re-initialised, the "
            f"outputs spread over images by less than {LEAST_SPREAD:.0%} of the trained network's: similarities of "
            "maps are not meaningful there"
        )
    return dead


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
    refuse_other_labels(evaluator.records.read_metadata(LABELS), shuffled)
    comparison = Comparison(evaluator, LABELS, unfitted, cases, images)
    if not comparison.waiting:
        return
    trained = spread_of_outputs(evaluator.network, images)
    with with_weights(evaluator.network, shuffled.weights):
        spread = _ratio(spread_of_outputs(evaluator.network, images), trained)
        comparison.compare(progress)
    evaluator.records.write_metadata(LABELS, {"checkpoint": dict(shuffled.checkpoint), "spread": spread})
    comparison.record()


def refuse_other_labels(metadata: Mapping[str, Any], shuffled: Shuffled) -> None:
    """Raise an OtherEvaluationError if the recorded values are of another network.

    Args:
        metadata: of the check on record; empty without one.
        shuffled: the network of this call.
    """
    if metadata and metadata["checkpoint"]["sha256"] != shuffled.checkpoint["sha256"]:
        raise OtherEvaluationError(
            "output_dir holds results of another shuffled_ckpt: give another folder, or the same checkpoint"
        )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan
