"""Multi-layer IBA: maps of several layers, combined (section 2.3, Eq. 5)."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from lightning_chex.attribution.attributor import Attribution, Attributor, frozen
from lightning_chex.attribution.chunks import in_chunks
from lightning_chex.attribution.feature_learning import device_of
from lightning_chex.attribution.iba import IBA
from lightning_chex.attribution.information import bits_per_pixel, image_size
from lightning_chex.attribution.layers import check_feature_map, get_layer, hooked
from lightning_chex.attribution.layout import in_fastest_layout, precision
from lightning_chex.attribution.memory import chunk_size
from lightning_chex.attribution.optimization import Problem
from lightning_chex.attribution.partition import partition
from lightning_chex.attribution.statistics import FeatureStatistics
from lightning_chex.attribution.targets import Targets
from lightning_chex.attribution.thresholds import ThresholdRule, binarize

Combination = Literal["gated", "intersection"]


class MultiLayerIBA(Attributor):
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

    unit = "bits per pixel"

    def __init__(
        self,
        layers: Sequence[str] = ("features.denseblock1", "features.denseblock2", "features.denseblock3"),
        beta: float | Sequence[float] | None = None,
        combine: Combination = "gated",
        rule: ThresholdRule = "rms",
        threshold: float = 0.006 * 224,
        **iba: Any,
    ) -> None:
        layers = list(layers)
        if len(layers) < 2 or len(set(layers)) < len(layers):
            raise ValueError(f"layers={layers!r} must name at least two different layers")
        betas = list(beta) if isinstance(beta, Sequence) else [beta] * len(layers)
        if len(betas) != len(layers):
            raise ValueError(f"beta={beta!r} must be one number or one for each of the {len(layers)} layers")
        if combine not in ("gated", "intersection"):
            raise ValueError(f"combine={combine!r} is unknown; choose gated or intersection")
        binarize(torch.zeros(1, 1, 1), rule, threshold)  # refuses a wrong rule or threshold now
        self.members = [IBA(layer, weight, **iba) for layer, weight in zip(layers, betas, strict=True)]
        super().__init__(self.members[0].batch_size)
        self.explains_class = self.members[0].explains_class
        if combine == "intersection":
            self.unit = "1 where all layers agree, else 0"
        self.combine = combine
        self.rule: ThresholdRule = rule
        self.threshold = threshold

    @property
    def num_observed(self) -> int:
        """How many images the feature statistics rest on."""
        return min(member.num_observed for member in self.members)

    def check(self, model: nn.Module, images: Tensor | None = None) -> None:
        """Raise a LayerError if any layer is missing or gives no feature map."""
        for member in self.members:
            member.check(model, images)

    @contextmanager
    def observing(self, model: nn.Module) -> Iterator[None]:
        """Collect the statistics of all layers from the forward passes made within the context."""
        with ExitStack() as stack:
            for member in self.members:
                stack.enter_context(member.observing(model))
            yield

    def fit(self, model: nn.Module, batches: Iterable[Tensor]) -> Self:
        """Estimate the statistics of all layers in one pass over the batches; see `IBA.fit`."""
        device = device_of(model)
        former = [member.statistics for member in self.members]
        bfloat16 = self.members[0].bfloat16
        with frozen(model) as network, torch.no_grad(), self.observing(network), precision(device, bfloat16):
            for images in batches:
                network(images.to(device))
        if self.num_observed < 2:
            count = self.num_observed
            for member, statistics in zip(self.members, former, strict=True):
                member.statistics = statistics
            raise ValueError(f"the statistics need at least 2 images, the batches held {count}")
        self.members[0].statistics.warn_if_few()
        return self

    def synchronize(self) -> None:
        """Merge the statistics of all distributed processes."""
        for member in self.members:
            member.synchronize()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the feature statistics of all layers as plain tensors."""
        return {f"{m.layer}/{key}": value for m in self.members for key, value in m.state_dict().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over feature statistics of the same layers."""
        for member in self.members:
            own = {key.split("/", 1)[1]: v for key, v in state.items() if key.split("/", 1)[0] == member.layer}
            member.statistics = FeatureStatistics.from_state_dict(own)

    def compute(self, model: nn.Module, images: Tensor, targets: Targets) -> Attribution:
        """Compute one combined map per target; convergence is that of the layer that moves most.

        Returns:
            Bits per pixel of the first layer, 0 where another layer's map stays below the threshold (``gated``); or 0
            and 1 (``intersection``).
        """
        maps, convergence = self._layer_maps(model, images, targets)
        return Attribution(self._combine(maps), convergence.amax(0))

    def layer_maps(
        self, model: nn.Module, images: Tensor, target: Tensor | None = None, rows: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute the maps that are combined, bits per pixel, by layer; shaped as in `attribute`."""
        with self._prepared(model, images, target, rows) as (network, clean, targets):
            maps, _ = self._layer_maps(network, clean, targets)
        shape = maps.shape[1:] if rows is not None or target is None else (*target.shape, *image_size(images))
        return {member.layer: own.reshape(shape) for member, own in zip(self.members, maps, strict=True)}

    def _combine(self, maps: Tensor) -> Tensor:
        marked = torch.stack([binarize(own, self.rule, self.threshold) for own in maps])
        if self.combine == "intersection":
            return marked.all(0).float()
        return maps[0] * marked[1:].all(0)

    def _layer_maps(self, model: nn.Module, images: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Maps of all layers, (L, N, H, W), and their convergence, (L, N)."""
        for member in self.members:
            member.check_fitted()
        size = image_size(images)
        if not len(targets):
            empty = images.new_zeros(len(self.members), 0, *size, dtype=torch.float32)
            return empty, empty[..., 0, 0]
        bfloat16 = self.members[0].bfloat16
        with precision(images.device, bfloat16):
            parts = [partition(model, member.layer, images) for member in self.members]

            def problems(start: int, stop: int, layout: torch.memory_format) -> list[Problem]:
                needed, index, values = targets.chunk(start, stop)
                chunk = images[needed].contiguous(memory_format=layout)
                with torch.no_grad():
                    features, reference = self._features(model, chunk)
                    carried = [part.carried(chunk) for part in parts]
                return [
                    member.pose(part, own, besides, reference, index, values)
                    for member, part, own, besides in zip(self.members, parts, features, carried, strict=True)
                ]

            first, layout = in_fastest_layout(images, lambda layout: problems(0, 1, layout), bfloat16)

            def run(start: int, stop: int) -> tuple[Tensor, Tensor]:
                maps, convergence = [], []
                for member, problem in zip(self.members, problems(start, stop, layout), strict=True):
                    solution = member.solve(problem)
                    cells = solution.cells()
                    maps.append(bits_per_pixel(cells, size).float())
                    convergence.append(solution.convergence(cells))
                return torch.stack(maps), torch.stack(convergence)

            one = self.members[0]
            rows = one.batch_size or min(chunk_size(problem, one.noise_samples, one.memory) for problem in first)
            maps, convergence = zip(*in_chunks(len(targets), rows, run), strict=True)
            return torch.cat(maps, 1), torch.cat(convergence, 1)

    def _features(self, model: nn.Module, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Features of all layers and the model's output, from one pass."""
        seen: dict[str, list[Any]] = {member.layer: [] for member in self.members}

        def keep(layer: str, module: nn.Module, inputs: Any, output: Any) -> None:
            # a copy: an in-place activation behind the layer would otherwise change what is kept
            seen[layer].append(check_feature_map(output, layer, images).clone())

        with ExitStack() as stack:
            for layer in seen:
                stack.enter_context(hooked(get_layer(model, layer), partial(keep, layer)))
            output = model(images)
        for layer, found in seen.items():
            if len(found) != 1:
                raise ValueError(f"layer {layer!r} runs {len(found)} times in one forward pass; it has to run once")
        return [found[0] for found in seen.values()], output
