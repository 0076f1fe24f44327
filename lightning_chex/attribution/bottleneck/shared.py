"""Shared IBA: one information bottleneck over several layers with a common damping ratio."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_chex.attribution.attributor import Attribution, Attributor
from lightning_chex.attribution.bottleneck.closed_form import refuse_closed_form
from lightning_chex.attribution.bottleneck.iba import IBA
from lightning_chex.attribution.bottleneck.multi_layer import one_for_each
from lightning_chex.attribution.bottleneck.optimization import Problem, at_least_float32
from lightning_chex.attribution.bottleneck.shared_mask import DampedLayer, optimize_shared
from lightning_chex.attribution.bottleneck.solution import bits_per_pixel
from lightning_chex.attribution.bottleneck.solving import posed_in_chunks
from lightning_chex.attribution.network.execution import affine_batch_norm
from lightning_chex.attribution.network.layers import LayerError, get_layer, hooked
from lightning_chex.attribution.network.partition import select_carried
from lightning_chex.attribution.targets import Targets


class SharedIBA(Attributor):
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
    unit = "bits per pixel"

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

    @property
    def needs_true_score(self) -> bool:
        """Whether the objective is squared_error."""
        return self.members[0].needs_true_score

    def compute(self, model: nn.Module, images: Tensor, targets: Targets) -> Attribution:
        """Compute one map per target, bits per pixel, summed over the layers.

        Raises:
            LayerError: a later layer does not run behind the first.
            RuntimeError: there are no statistics yet.
            ValueError: the images have another size than those of the statistics.
        """
        found = posed_in_chunks(self.members, model, images, targets, partial(self._solve, model))
        if not found:
            empty = images.new_zeros(0, *images.shape[-2:], dtype=torch.float32)
            return Attribution(empty, empty[:, 0, 0])
        cells, convergence = (torch.cat(parts) for parts in zip(*found, strict=True))
        return Attribution(bits_per_pixel(cells, images.shape[-2:]).float(), convergence, cells)

    def _solve(self, model: nn.Module, problems: Sequence[Problem]) -> tuple[Tensor, Tensor]:
        first, settings = problems[0], self.members[0]
        layers = [
            DampedLayer(problem.features, member.statistics)
            for problem, member in zip(problems, self.members, strict=True)
        ]
        later = [(member.layer, get_layer(model, member.layer)) for member in self.members[1:]]
        rows, samples = len(first.features), settings.noise_samples
        again = torch.arange(rows, device=first.features.device).repeat(samples)
        carried = select_carried(first.carried, rows, again)
        target = None if first.target is None else first.target[again]
        affine = affine_batch_norm(first.features.device)

        def run(damped: list[Callable[[Tensor], Tensor]]) -> Tensor:
            calls = dict.fromkeys((name for name, _ in later), 0)

            def hook(name: str, damp: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, Any, Any], Tensor]:
                def replace(module: nn.Module, inputs: Any, output: Any) -> Tensor:
                    calls[name] += 1
                    return damp(output)

                return replace

            with affine, ExitStack() as stack:
                for (name, module), damp in zip(later, damped[1:], strict=True):
                    stack.enter_context(hooked(module, hook(name, damp)))
                output = first.parts.above(damped[0](first.features[again]), carried)
            for name, count in calls.items():
                if count != 1:
                    raise LayerError(
                        f"layer={name!r} runs {count} times behind {settings.layer!r}: name layers that run once, in "
                        "the order of the forward pass, none of them inside another"
                    )
            return first.objective(at_least_float32(output), target, first.reference[again])

        height, width = (max(layer.size[side] for layer in layers) for side in (0, 1))
        alpha = layers[0].signal.new_full((rows, 1, height, width), settings.initial_alpha)
        return optimize_shared(layers, run, alpha, settings, [member.beta for member in self.members])
