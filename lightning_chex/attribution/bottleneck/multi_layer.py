"""Multi-layer IBA: maps of several layers, combined (section 2.3, Eq. 5)."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_chex.attribution.attributor import Attribution, Rows, Target
from lightning_chex.attribution.bottleneck.iba import IBA
from lightning_chex.attribution.bottleneck.layer_maps import layer_maps
from lightning_chex.attribution.bottleneck.layered import LayeredAttributor
from lightning_chex.attribution.targets import Targets
from lightning_chex.thresholds import otsu_mask, root_mean_square_mask, top_fraction_mask

Combination = Literal["gated", "intersection"]
ThresholdRule = Literal["rms", "top_fraction", "otsu"]


class MultiLayerIBA(LayeredAttributor):
    """IBA at several layers, combined: the earliest layer's map where the later ones mark too (Eq. 5).

    One forward pass gives the features of all layers; above each of them only the rest of the network is run.

    Args:
        layers: dotted names, the finest layer first.
        beta: weight of the information term, one for all layers or one each.
        combine: ``gated`` keeps the first layer's bits per pixel wherever all other layers' maps pass the threshold, as
            the authors' code does; ``intersection`` binarises all maps and intersects them, as Eq. 5 is printed.
        rule: how a map is binarised: ``rms`` marks values of at least ``threshold`` times the map's root mean square,
            ``top_fraction`` the strongest share ``threshold`` of the pixels, ``otsu`` splits the map's histogram.
        threshold: see ``rule``. The default for ``rms`` is the authors' setting: map / ||map|| >= 0.006 at 224 x 224.
        iba: further arguments of each layer's `IBA`: steps, objective, noise_samples, ...
    """

    title = "Multi-layer IBA"
    color = "green"
    description = "Information bottlenecks at several depths; what all of them mark is kept."
    members: Sequence[IBA] = ()
    """One for each layer, the finest first."""

    def __init__(
        self,
        layers: Sequence[str] = ("features.denseblock1", "features.denseblock2", "features.denseblock3"),
        beta: float | Sequence[float] | None = None,
        combine: Combination = "gated",
        rule: ThresholdRule = "rms",
        threshold: float = 0.006 * 224,
        **iba: Any,
    ) -> None:
        if combine not in ("gated", "intersection"):
            raise ValueError(f"combine={combine!r} is unknown; choose gated or intersection")
        binarize(torch.zeros(1, 1, 1), rule, threshold)  # raises for an invalid rule or threshold now
        self.members = one_for_each(layers, beta, **iba)
        super().__init__(self.members[0].batch_size)
        self.explains_class = self.members[0].explains_class
        if combine == "intersection":
            self.unit = "1 where all layers agree, else 0"
        self.combine = combine
        self.rule: ThresholdRule = rule
        self.threshold = threshold

    def compute(self, model: nn.Module, images: Tensor, targets: Targets) -> Attribution:
        """Compute one combined map per target; convergence is that of the layer that moves most.

        Returns:
            Bits per pixel of the first layer, 0 where another layer's map stays below the threshold (``gated``); or 0
            and 1 (``intersection``).
        """
        by_layer = layer_maps(self.members, model, images, targets)
        convergence = torch.stack([layer.convergence for layer in by_layer]).amax(0)
        return Attribution(self._combine(torch.stack([layer.maps for layer in by_layer])), convergence)

    def layer_maps(
        self, model: nn.Module, images: Tensor, target: Target = None, rows: Rows = None
    ) -> dict[str, Tensor]:
        """Compute the maps that are combined, bits per pixel, by layer; shaped as in `attribute`."""
        with self._prepared(model, images, target, rows) as (network, clean, targets):
            by_layer = layer_maps(self.members, network, clean, targets)
        shape = (*targets.shape, *images.shape[-2:])
        names = [member.layer for member in self.members]
        return {name: layer.maps.reshape(shape) for name, layer in zip(names, by_layer, strict=True)}

    def _combine(self, maps: Tensor) -> Tensor:
        marked = torch.stack([binarize(layer_map, self.rule, self.threshold) for layer_map in maps])
        if self.combine == "intersection":
            return marked.all(0).float()
        return maps[0] * marked[1:].all(0)


def one_for_each(layers: Sequence[str], beta: float | Sequence[float] | None, **iba: Any) -> list[IBA]:
    """Create the bottleneck of each layer; ``beta`` is one weight for all or one each, None: as for `IBA`.

    Raises:
        ValueError: fewer than two different layers, or another number of weights.
    """
    if len(layers) < 2 or len(set(layers)) < len(layers):
        raise ValueError(f"layers={list(layers)!r} must name at least two different layers")
    betas = list(beta) if isinstance(beta, Sequence) else [beta] * len(layers)
    if len(betas) != len(layers):
        raise ValueError(f"beta={beta!r} must be one number or one for each of the {len(layers)} layers")
    return [IBA(layer, weight, **iba) for layer, weight in zip(layers, betas, strict=True)]


def binarize(maps: Tensor, rule: ThresholdRule, threshold: float) -> Tensor:
    """Mark the strong pixels of each map.

    Args:
        maps: >= 0, (N, H, W).
        rule: ``rms``: values of at least ``threshold`` times the map's root mean square; ``top_fraction``: the
            strongest share ``threshold`` of the pixels; ``otsu``: the upper of the two groups of values that differ
            most, ``threshold`` not being used. See ``lightning_chex.thresholds``.
        threshold: > 0; at most 1 for ``top_fraction``.

    Returns:
        bool (N, H, W); a map of zeros marks nothing.

    Raises:
        ValueError: the rule is unknown or the threshold outside its range.
    """
    if rule not in ("rms", "top_fraction", "otsu"):
        raise ValueError(f"rule={rule!r} is unknown; choose rms, top_fraction or otsu")
    if not threshold > 0 or (rule == "top_fraction" and threshold > 1):
        raise ValueError(f"threshold={threshold!r} does not suit rule={rule!r}: > 0, and at most 1 for top_fraction")
    if rule == "rms":
        return root_mean_square_mask(maps, threshold)
    if rule == "top_fraction":
        return top_fraction_mask(maps, threshold)
    return otsu_mask(maps)
