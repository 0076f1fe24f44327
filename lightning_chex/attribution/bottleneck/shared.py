"""Shared IBA: one information bottleneck over several layers with a common damping ratio."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_chex.attribution.attributor import Attribution
from lightning_chex.attribution.bottleneck.closed_form import refuse_closed_form
from lightning_chex.attribution.bottleneck.iba import IBA
from lightning_chex.attribution.bottleneck.layer_maps import solve_in_chunks
from lightning_chex.attribution.bottleneck.layered import LayeredAttributor
from lightning_chex.attribution.bottleneck.multi_layer import one_for_each
from lightning_chex.attribution.bottleneck.optimization import Problem, at_least_float32
from lightning_chex.attribution.bottleneck.shared_mask import Damp, DampedLayer, optimize_shared
from lightning_chex.attribution.bottleneck.solution import bits_per_pixel
from lightning_chex.attribution.network.execution import affine_batch_norm
from lightning_chex.attribution.network.layers import LayerError, get_layer, hooked
from lightning_chex.attribution.network.partition import select_carried
from lightning_chex.attribution.targets import Targets


class SharedIBA(LayeredAttributor):
    """One bottleneck over several layers: the layers share lambda, and all damp the same forward pass.

    After CoIBA (Hong et al., CVPR 2025), whose damping ratio is shared by the layers of a vision transformer and whose
    information is bounded layer by layer: where `MultiLayerIBA` optimises every layer alone and combines the maps (Eq.
    5 of Khakzar et al.), here a place counts as needed only if letting noise in there, at all layers at once, costs the
    output. Differs in that lambda has one value per place of the finest layer, for all channels, of which a coarser
    layer takes the mean over its cells; in that the information is Eq. 2 of Khakzar et al. at each layer, computed from
    its undamped features; and in Adam's settings, which are those of `IBA`. The map is the sum of the layers' bits: an
    upper bound of what reaches the output, as every layer passes on no more than it gets.

    Args:
        layers: dotted names in the order of the forward pass, at least two; one may not contain another.
        beta: weight of the information term: what a mean information of one nat per neuron of every layer costs; or one
            weight for each layer. None: as for `IBA`.
        iba: further arguments, see `IBA`: steps, objective, noise_samples, blur_sigma (in cells of the finest layer)...
    """

    title = "Shared IBA"
    description = "One information bottleneck over several layers, with a mask that they share."
    members: Sequence[IBA] = ()
    """One for each layer, in order; they hold statistics and settings."""

    def __init__(
        self,
        layers: Sequence[str] = ("features.denseblock1", "features.denseblock2", "features.denseblock3"),
        beta: float | Sequence[float] | None = None,
        **iba: Any,
    ) -> None:
        refuse_closed_form(self, iba)
        self.members = one_for_each(layers, beta, **iba)
        super().__init__(self.members[0].batch_size)
        self.explains_class = self.members[0].explains_class

    def compute(self, model: nn.Module, images: Tensor, targets: Targets) -> Attribution:
        """Compute one map per target, bits per pixel, summed over the layers.

        Raises:
            LayerError: a later layer does not run behind the first.
            RuntimeError: there are no statistics yet.
            ValueError: the images have another size than those of the statistics.
        """
        chunks = solve_in_chunks(self.members, model, images, targets, partial(self._solve, model))
        if not chunks:
            empty = images.new_zeros(0, *images.shape[-2:], dtype=torch.float32)
            return Attribution(empty, empty[:, 0, 0])
        cells = torch.cat([chunk_cells for chunk_cells, _ in chunks])
        convergence = torch.cat([chunk_convergence for _, chunk_convergence in chunks])
        return Attribution(bits_per_pixel(cells, images.shape[-2:]).float(), convergence, cells)

    def _solve(self, model: nn.Module, problems: Sequence[Problem]) -> tuple[Tensor, Tensor]:
        """Optimise the mask of a chunk of targets.

        Returns:
            Bits per cell, (N, h, w), and convergence, (N,).
        """
        first = problems[0]
        settings = self.members[0].settings
        layers = [DampedLayer(problem.features, problem.statistics) for problem in problems]
        rows = len(first.features)
        again = torch.arange(rows, device=first.features.device).repeat(settings.noise_samples)
        carried = select_carried(first.carried, rows, again)
        target = None if first.target is None else first.target[again]
        reference = first.reference[again]
        later = [member.layer for member in self.members[1:]]
        affine = affine_batch_norm(first.features.device)

        def run(damped: list[Damp]) -> Tensor:
            with affine, self._damped_layers(model, dict(zip(later, damped[1:], strict=True))):
                output = first.parts.above(damped[0](first.features[again]), carried)
            return settings.loss(at_least_float32(output), target, reference)

        height = max(layer.size[0] for layer in layers)
        width = max(layer.size[1] for layer in layers)
        alpha = layers[0].signal.new_full((rows, 1, height, width), settings.initial_alpha)
        return optimize_shared(layers, run, alpha, settings, [member.beta for member in self.members])

    @contextmanager
    def _damped_layers(self, model: nn.Module, damps: Mapping[str, Damp]) -> Iterator[None]:
        """Within the context, damp the outputs of layers.

        Raises:
            LayerError: at its end, if one of them did not run exactly once.
        """
        calls = dict.fromkeys(damps, 0)

        def hook_of(name: str, damp: Damp) -> Callable[[nn.Module, Any, Any], Tensor]:
            def hook(module: nn.Module, inputs: Any, output: Any) -> Tensor:
                calls[name] += 1
                return damp(output)

            return hook

        with ExitStack() as stack:
            for name, damp in damps.items():
                stack.enter_context(hooked(get_layer(model, name), hook_of(name, damp)))
            yield
        for name, count in calls.items():
            if count != 1:
                raise LayerError(
                    f"layer={name!r} runs {count} times behind {self.layers[0]!r}: name layers that run once, in the "
                    "order of the forward pass, none of them inside another"
                )
