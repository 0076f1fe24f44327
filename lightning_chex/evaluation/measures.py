"""All measures, each declared once: what it means, where it is shown, and the function that computes it.

Whatever shows measures (``results.json``, ``per_image.csv``, the report, the terminal, tables for loggers, comparisons
of checkpoints) reads `MEASURES`. A new measure needs its function and one row here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_chex.attribution import NOT_CONVERGED
from lightning_chex.maps import Cases
from lightning_chex.metrics import (
    PerturbationCurves,
    RoadCurves,
    accuracy_at,
    effective_heat_ratio,
    intersection_over_detected,
    intersection_over_union,
    is_constant,
    mass_accuracy,
    oracle_iou,
    otsu_mask,
    pointing_game,
    rank_accuracy,
    relevance_correlation,
    severity_correlation,
    top_fraction_mask,
    zone_relevance,
)
from lightning_chex.report import Measure

Values = dict[str, Tensor]
"""Measure -> one value per case, (N,); or curve -> its values along the axis, (N, X)."""

_SHARE = (0.0, 1.0)
_CORRELATION = (-1.0, 1.0)


@dataclass(frozen=True)
class LocalizedMaps:
    """Maps with the regions that they are compared with; what several measures need is computed once.

    Attributes:
        saliency: (N, H, W).
        cases: N cases.
        fraction: share of a map's pixels that the rule ``top_fraction`` marks.
    """

    saliency: Tensor
    cases: Cases
    fraction: float

    @property
    def regions(self) -> Tensor:
        """The region of each case, bool (N, H, W)."""
        return self.cases.regions

    @cached_property
    def marked(self) -> Tensor:
        """The strongest pixels of each map, bool (N, H, W)."""
        return top_fraction_mask(self.saliency, self.fraction)

    @cached_property
    def iou(self) -> Tensor:
        """Intersection over union of the strongest pixels and the regions, (N,)."""
        return intersection_over_union(self.marked, self.regions)

    @cached_property
    def iobb(self) -> Tensor:
        """Share of the strongest pixels that lie in the regions, (N,)."""
        return intersection_over_detected(self.marked, self.regions)


@dataclass(frozen=True)
class ScoredMaps:
    """Maps with the Brixia zones of their images.

    Attributes:
        saliency: (N, H, W).
        zones: bool (N, 6, H, W).
        zone_scores: 0 to 3, (N, 6).
    """

    saliency: Tensor
    zones: Tensor
    zone_scores: Tensor

    @cached_property
    def relevance(self) -> Tensor:
        """The mean of each map over each zone, (N, 6)."""
        return zone_relevance(self.saliency, self.zones)


@dataclass(frozen=True)
class PerturbedOutputs:
    """The network's outputs as pixels are exchanged in the order of the maps.

    Attributes:
        exchanged: insertion and deletion over all pixels.
        half: the same over the first half of the pixels.
        filled: removal with pixels filled in from their neighbours.
        sensitivity: correlations of Sensitivity-N by number of masked pixels, (N, S).
    """

    exchanged: PerturbationCurves
    half: PerturbationCurves
    filled: RoadCurves
    sensitivity: Tensor


Source = Literal["regions", "maps", "zones", "perturbation", "records"]
"""The input of a measure's function: `LocalizedMaps`, with (``regions``) or without (``maps``) need of a region,
`ScoredMaps`, `PerturbedOutputs`; ``records`` for measures that other parts of the evaluation write."""


@dataclass(frozen=True, kw_only=True)
class ComputedMeasure(Measure):
    """A measure with the function that computes it.

    Attributes:
        source: the input of the function.
        function: from that input to one value a case, (N,); None for the source ``records``.
    """

    source: Source
    function: Callable[[Any], Tensor] | None = None


def compute_measures(source: Source, inputs: Any) -> Values:
    """Compute every measure that has this source.

    Args:
        source: of the measures.
        inputs: of their functions, see ``Source``.

    Returns:
        Key of the measure -> values, (N,).
    """
    values = {}
    for key, measure in MEASURES.items():
        if measure.source == source and measure.function is not None:
            values[key] = measure.function(inputs)
    return values


def _accuracy_at(overlap: Callable[[LocalizedMaps], Tensor], threshold: float) -> Callable[[LocalizedMaps], Tensor]:
    """Build the function that returns 1 for each map whose overlap is at least ``threshold``, else 0."""

    def accuracy(maps: LocalizedMaps) -> Tensor:
        return accuracy_at(overlap(maps), torch.tensor([threshold]))[:, 0]

    return accuracy


MEASURES: dict[str, ComputedMeasure] = {
    "iou/fixed_share": ComputedMeasure(
        title="IoU, fixed share of pixels",
        better="higher",
        group="localization",
        range=_SHARE,
        table="iou",
        explanation=(
            "Overlap (intersection over union) of the region with the map's strongest pixels, the same share "
            "of every image: see the threshold rule in the protocol. val/iba_iou of a training marks 5 % by "
            "default."
        ),
        terminal="IoU",
        outcome="Mean IoU, threshold rule “fixed share of pixels”",
        threshold_rule="fixed share of pixels",
        headline=True,
        compared=True,
        ranks_examples=True,
        source="regions",
        function=lambda maps: maps.iou,
    ),
    "iou/otsu": ComputedMeasure(
        title="IoU, Otsu",
        better="higher",
        group="localization",
        range=_SHARE,
        table="iou",
        explanation="The same with the pixels above the threshold that Otsu's method finds in the map's values.",
        terminal="IoU",
        outcome="Mean IoU, threshold rule “Otsu”",
        threshold_rule="Otsu",
        headline=True,
        compared=True,
        source="regions",
        function=lambda maps: intersection_over_union(otsu_mask(maps.saliency), maps.regions),
    ),
    "iou/tuned": ComputedMeasure(
        title="IoU, tuned per class",
        better="higher",
        group="localization",
        range=_SHARE,
        table="iou",
        explanation=(
            "The same with a threshold per class and method, chosen on the tuning half, never on the images "
            "reported on."
        ),
        terminal="IoU",
        outcome="Mean IoU, threshold rule “tuned per class”",
        threshold_rule="tuned per class",
        headline=True,
        compared=True,
        source="records",
    ),
    "iou/oracle": ComputedMeasure(
        title="IoU, oracle (upper bound)",
        better="higher",
        group="localization",
        range=_SHARE,
        table="iou",
        explanation=(
            "The best IoU that any threshold could reach, chosen with the region known: an upper bound, not a result."
        ),
        threshold_rule="oracle (upper bound)",
        source="regions",
        function=lambda maps: oracle_iou(maps.saliency, maps.regions),
    ),
    "severity_correlation": ComputedMeasure(
        title="Correlation with severity",
        better="higher",
        group="severity",
        range=_CORRELATION,
        table="severity",
        explanation=(
            "Pearson correlation, over pixels, of the map with the image in which every zone carries its "
            "radiologist's score."
        ),
        heading="map with zone scores, over pixels",
        terminal="severity",
        outcome="Correlation with the zone scores",
        compared=True,
        ranks_examples=True,
        source="zones",
        function=lambda maps: severity_correlation(maps.saliency, maps.zones, maps.zone_scores),
    ),
    "zone_correlation": ComputedMeasure(
        title="Zone correlation",
        better="higher",
        group="severity",
        range=_CORRELATION,
        table="severity",
        explanation="Pearson correlation, over the six zones of an image, of mean relevance with the score.",
        heading="within an image, over its zones",
        compared=True,
        source="zones",
        function=lambda maps: relevance_correlation(maps.relevance, maps.zone_scores),
    ),
    **{
        f"accuracy_iou/{threshold:g}": ComputedMeasure(
            title=f"T(IoU) at {threshold:g}",
            better="higher",
            group="localization",
            explanation=f"Share of maps whose IoU (fixed share of pixels) is at least {threshold:g}.",
            range=_SHARE,
            table="found",
            heading=f"{threshold:g}",
            heading_group="T(IoU): IoU of at least",
            source="regions",
            function=_accuracy_at(lambda maps: maps.iou, threshold),
        )
        for threshold in (0.1, 0.25, 0.5, 0.75)
    },
    **{
        f"accuracy_iobb/{threshold:g}": ComputedMeasure(
            title=f"T(IoBB) at {threshold:g}",
            better="higher",
            group="localization",
            explanation=(
                f"Share of maps of whose marked pixels (fixed share of pixels) at least {threshold:.0%} lie in the "
                "region."
            ),
            range=_SHARE,
            table="found",
            heading=f"{threshold:g}",
            heading_group="T(IoBB): share inside of at least",
            source="regions",
            function=_accuracy_at(lambda maps: maps.iobb, threshold),
        )
        for threshold in (0.1, 0.25, 0.5, 0.75, 0.9)
    },
    "pointing_game": ComputedMeasure(
        title="Pointing game",
        explanation="How often the strongest pixel lies in the region.",
        terminal="pointing",
        better="higher",
        group="localization",
        range=_SHARE,
        table="place",
        source="regions",
        function=lambda maps: pointing_game(maps.saliency, maps.regions),
    ),
    "effective_heat_ratio": ComputedMeasure(
        title="Effective heat ratio",
        explanation="Share of the map's heat inside the region, averaged over all quantile thresholds.",
        better="higher",
        group="localization",
        range=_SHARE,
        table="place",
        source="regions",
        function=lambda maps: effective_heat_ratio(maps.saliency, maps.regions),
    ),
    "mass_accuracy": ComputedMeasure(
        title="Relevance mass",
        explanation="Share of the map's heat that lies in the region.",
        better="higher",
        group="localization",
        range=_SHARE,
        table="place",
        source="regions",
        function=lambda maps: mass_accuracy(maps.saliency, maps.regions),
    ),
    "rank_accuracy": ComputedMeasure(
        title="Relevance rank",
        explanation="Share of the K strongest pixels that lie in the region, where K is the region's size.",
        better="higher",
        group="localization",
        range=_SHARE,
        table="place",
        source="regions",
        function=lambda maps: rank_accuracy(maps.saliency, maps.regions),
    ),
    "insertion_auc": ComputedMeasure(
        title="Insertion AUC",
        better="higher",
        explanation="Mean output while the image's pixels are put into its blurred copy, the map's strongest first.",
        heading="insertion AUC",
        heading_group="full range, all pixels",
        terminal="insertion",
        outcome="Strongest pixels shown first (insertion AUC)",
        compared=True,
        ranks_examples=True,
        group="perturbation",
        table="perturbation",
        source="perturbation",
        function=lambda outputs: outputs.exchanged.insertion_auc,
    ),
    "deletion_auc": ComputedMeasure(
        title="Deletion AUC",
        better="lower",
        explanation="Mean output while the image's pixels are blurred, the map's strongest first.",
        heading="deletion AUC",
        heading_group="full range, all pixels",
        terminal="deletion",
        outcome="Strongest pixels removed first (deletion AUC)",
        compared=True,
        group="perturbation",
        table="perturbation",
        source="perturbation",
        function=lambda outputs: outputs.exchanged.deletion_auc,
    ),
    "insertion_auc_half": ComputedMeasure(
        title="Insertion AUC, half range",
        better="higher",
        explanation="Insertion over the first half of the pixels, as the paper's authors measured it.",
        heading="insertion AUC",
        heading_group="half range, as the paper's authors",
        group="perturbation",
        table="perturbation",
        source="perturbation",
        function=lambda outputs: outputs.half.insertion_auc,
    ),
    "deletion_auc_half": ComputedMeasure(
        title="Deletion AUC, half range",
        better="lower",
        explanation="Deletion over the first half of the pixels, as the paper's authors measured it.",
        heading="deletion AUC",
        heading_group="half range, as the paper's authors",
        group="perturbation",
        table="perturbation",
        source="perturbation",
        function=lambda outputs: outputs.half.deletion_auc,
    ),
    "road": ComputedMeasure(
        title="ROAD, least - most",
        better="higher",
        explanation=(
            "Output after the least relevant pixels are smoothly filled in, less that after the most relevant ones are."
        ),
        heading="ROAD",
        heading_group="remove and debias",
        terminal="ROAD",
        compared=True,
        group="perturbation",
        table="perturbation",
        source="perturbation",
        function=lambda outputs: outputs.filled.difference,
    ),
    "road_morf": ComputedMeasure(
        title="ROAD, most relevant first",
        better="lower",
        explanation="Mean output after the most relevant pixels are filled in.",
        heading="strongest first",
        heading_group="remove and debias",
        comparable=False,
        group="perturbation",
        table="perturbation",
        source="perturbation",
        function=lambda outputs: outputs.filled.morf_mean,
    ),
    "road_lerf": ComputedMeasure(
        title="ROAD, least relevant first",
        better="higher",
        explanation="Mean output after the least relevant pixels are filled in.",
        heading="weakest first",
        heading_group="remove and debias",
        comparable=False,
        group="perturbation",
        table="perturbation",
        source="perturbation",
        function=lambda outputs: outputs.filled.lerf_mean,
    ),
    "sensitivity_n": ComputedMeasure(
        title="Sensitivity-N",
        better="higher",
        group="perturbation",
        explanation=(
            "Correlation of the map's sum under a random mask with the drop of the raw output when the masked "
            "pixels are removed."
        ),
        range=_CORRELATION,
        table="sensitivity_n",
        heading="mean over maps",
        terminal="sens.-N",
        outcome="Sensitivity-N",
        compared=True,
        source="perturbation",
        function=lambda outputs: outputs.sensitivity.nanmean(1),
    ),
    "blank": ComputedMeasure(
        title="Blank maps",
        explanation=(
            "Share of maps that are the same everywhere: they say nothing. One of zeros marks no pixel, "
            "another one every pixel."
        ),
        better=None,
        group="further",
        range=_SHARE,
        source="maps",
        function=lambda maps: is_constant(maps.saliency.float().flatten(1)).float(),
    ),
    "empty": ComputedMeasure(
        title="Empty maps",
        explanation=(
            "Share of maps that hold too little to say anything: in bits, fewer in the whole map than log2 of its "
            "number of pixels, which it takes to name one pixel; in another unit, the same value everywhere. They "
            "enter all means of this page like any other map. A smaller beta leaves fewer of a bottleneck's maps empty."
        ),
        comparable=False,
        better=None,
        group="further",
        range=_SHARE,
        source="records",
    ),
    "convergence": ComputedMeasure(
        title="Change at the end",
        better=None,
        group="further",
        explanation=(
            "How much the map, in bits per feature cell, changed over the last fifth of the optimisation's "
            "steps, as a share of its bits (relative L1 change): near 0 where it has converged. The median "
            "over maps; methods that optimise nothing have none."
        ),
        statistic="median",
        range=(0.0, None),
        table="convergence",
        heading="median change",
        comparable=False,
        source="records",
    ),
    "unconverged": ComputedMeasure(
        title="Not converged",
        explanation=(
            f"Share of maps that changed by more than {NOT_CONVERGED:.0%} over the last fifth of the steps: "
            "with more steps they would be other maps."
        ),
        table="convergence",
        heading="share of maps not converged",
        comparable=False,
        better=None,
        group="further",
        range=_SHARE,
        source="records",
    ),
    "randomization": ComputedMeasure(
        title="Similarity after randomisation",
        better="lower",
        explanation=(
            "Rank correlation of the map with those of a network whose weights are drawn anew, from the "
            "output down: mean over the stages from the last layer alone to all of them. Nearer to 0 if the "
            "map depends on what was learnt."
        ),
        range=_CORRELATION,
        table="randomization",
        heading="mean over maps",
        terminal="random.",
        outcome="Weights drawn anew",
        compared=True,
        group="randomization",
        comparable=False,
        source="records",
    ),
    "randomization_blank": ComputedMeasure(
        title="Blank after randomisation",
        better=None,
        explanation=(
            "Share of the maps of networks with weights drawn anew that are the same everywhere. A constant "
            "map has no rank correlation and is left out of the similarity: a method with many such maps has "
            "not passed, it has not been tested."
        ),
        range=_SHARE,
        table="randomization",
        heading="blank maps, share",
        terminal="blank",
        group="randomization",
        comparable=False,
        source="records",
    ),
    "label_randomization": ComputedMeasure(
        title="Similarity after label shuffling",
        better="lower",
        explanation=(
            "Rank correlation of the map with that of the same network trained on shuffled labels: near 0 if "
            "the map depends on what labels say of images."
        ),
        range=_CORRELATION,
        table="label_randomization",
        heading="mean over maps",
        terminal="shuffled",
        group="randomization",
        comparable=False,
        source="records",
    ),
    "label_randomization_blank": ComputedMeasure(
        title="Blank after label shuffling",
        better=None,
        explanation=(
            "Share of the maps of the network trained on shuffled labels that are the same everywhere; they "
            "are left out of the similarity."
        ),
        range=_SHARE,
        table="label_randomization",
        heading="blank maps, share",
        group="randomization",
        comparable=False,
        source="records",
    ),
}
