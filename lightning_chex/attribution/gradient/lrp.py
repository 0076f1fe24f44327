"""Layer-wise relevance propagation through zennit, for networks as they are written."""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lightning_chex.attribution.attributor import Attributor
from lightning_chex.attribution.gradient.gradients import Sign, check_sign, signed_map
from lightning_chex.attribution.network.unwrapping import frozen, named_layers
from lightning_chex.attribution.targets import explained_output

# z+ sums what is positive, so its denominators need no large stabiliser, which would leak relevance
STABILIZER = 1e-9

_AVERAGES = (F.avg_pool2d, F.adaptive_avg_pool2d, torch.mean, Tensor.mean)
_SUMS = (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__)


class LRP(Attributor):
    """LRP (Bach et al. 2015): flat rule in the first layer, z+ in the other convolutions, epsilon in linear layers.

    Relevance begins as the explained output and is conserved on its way to the pixels, but for what the biases of
    linear layers hold: a map with ``sign="signed"`` sums to output - bias in a network with one linear layer. Biases of
    convolutions and batch normalisations take no share. Batch normalisation is merged into the convolution before it
    where that feeds nothing else; elsewhere, as behind DenseNet's concatenations, it passes relevance on channel by
    channel. Average pools and sums share it in proportion to their inputs, also where they are plain functions.

    Args:
        sign: of the relevance summed over the channels: ``positive`` (what speaks for the class, the rest 0),
            ``absolute``, or ``signed`` (may be negative).
        epsilon: stabiliser of the linear layers.
        batch_size: targets explained at a time; changes no map.
    """

    title = "Layer-wise Relevance Propagation"
    color = "brown"
    description = "The output is distributed, layer by layer, back to the pixels."
    unit = "output"
    explains_class = None
    package = "zennit"

    def __init__(self, sign: Sign = "positive", epsilon: float = 1e-6, batch_size: int = 16) -> None:
        super().__init__(batch_size)
        if not epsilon > 0:
            raise ValueError(f"epsilon={epsilon!r} must be greater than 0")
        self.sign = check_sign(sign)
        self.epsilon = epsilon

    def check(self, model: nn.Module, images: Tensor | None = None) -> None:
        """Raise a ValueError if a module with weights has no rule, or if a hook of an unknown kind sets its weight."""
        self.check_installed()
        # here, not above: zennit imports torchvision, which takes seconds
        from zennit.types import BatchNorm, Linear

        with frozen(model) as network:
            for name, module in named_layers(network).items():
                what = f"{name or 'the model itself'}, a {type(module).__name__}"
                ruled = isinstance(module, (Linear, BatchNorm))
                if not ruled and next(module.parameters(recurse=False), None) is not None:
                    raise ValueError(
                        f"LRP has no rule for {what} with weights of its own; it has rules for convolutions, linear "
                        "layers and batch normalisation"
                    )
                if ruled and "weight" not in module._parameters:
                    raise ValueError(
                        f"LRP has to replace the weight of {what}, which is no parameter of it but set by other code, "
                        "such as a forward pre-hook: compute it with torch.nn.utils.parametrize instead"
                    )
                if isinstance(module, Linear) and not _is_linear_in_weight(module):
                    raise ValueError(
                        f"LRP has no rule for {what}: its output is not proportional to its weight, which "
                        "it normalises when it runs; use another method, such as GradCAM"
                    )

    def maps(self, model: nn.Module, images: Tensor, target: Tensor | None) -> Tensor:
        """Compute the relevance of the pixels, (N, H, W)."""
        self.check(model)
        # frozen once more, for a merged batch normalisation may bring a bias of its own
        with self._rules(model, images[:1]), frozen(model):
            images = images.requires_grad_()
            with proportional_functions():
                output = explained_output(model(images.clone()), target)
            (relevance,) = torch.autograd.grad(output, images, output.detach())
        return signed_map(relevance.float(), self.sign)

    @contextmanager
    def _rules(self, model: nn.Module, example: Tensor) -> Iterator[None]:
        """The network with zennit's hooks and in canonical form; both are taken back, also after an exception."""
        # here, not above: zennit imports torchvision, which takes seconds
        from zennit.composites import SpecialFirstLayerMapComposite
        from zennit.rules import Epsilon, Flat, Pass, ZPlus
        from zennit.types import Activation, BatchNorm, Convolution

        from lightning_chex.attribution.gradient.lrp_canonizers import MergeFollowedBatchNorm, PoolBeforePointwise

        composite = SpecialFirstLayerMapComposite(
            layer_map=[
                (Activation, Pass()),
                (BatchNorm, Pass()),
                (Convolution, ZPlus(STABILIZER, zero_params="bias")),
                (nn.Linear, Epsilon(self.epsilon)),
            ],
            first_map=[(Convolution, Flat(STABILIZER))],
            canonizers=[MergeFollowedBatchNorm(example), PoolBeforePointwise()],
        )
        try:
            composite.register(model)
            yield
        finally:
            composite.remove()


def _is_linear_in_weight(module: Any) -> bool:
    """Whether twice the weight gives twice the output, biases aside; the rules replace the weight and rely on it.

    Convolutions and linear layers of torch itself are not tried.
    """
    if type(module).forward.__module__.startswith("torch.nn."):
        return True
    if isinstance(module, nn.Linear):
        size = (1, module.in_features)
    else:
        reach = [(side - 1) * gap + 1 for side, gap in zip(module.kernel_size, module.dilation, strict=True)]
        size = (1, module.in_channels, *reach)
    weight = module.weight
    # other values everywhere, without random numbers
    example = torch.linspace(0.1, 1.0, math.prod(size), device=weight.device).sin().view(size).to(weight.dtype)

    def output(factor: float) -> Tensor:
        return torch.func.functional_call(module, {"weight": factor * weight}, (example,))

    with torch.no_grad():
        try:
            without, once, twice = (output(factor) for factor in (0.0, 1.0, 2.0))
        except (RuntimeError, TypeError, ValueError):  # it takes other inputs, and cannot be tried alone
            return True
    once = once - without
    twice = twice - without
    return bool((twice - 2 * once).norm() <= 1e-2 * once.norm())


def proportional_functions() -> AbstractContextManager[Any]:
    """Within the context, averages and sums of two features send back relevance, in proportion to their inputs.

    zennit's hooks sit on modules and do not see them. The plain gradient would share an average's relevance equally,
    also among cells that were 0 and gave nothing, and give the relevance of a sum to both its parts in full.
    """
    return _ProportionalFunctions()


class _ProportionalFunctions(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _AVERAGES and args and _carries_relevance(args[0]) and args[0].ndim == 4:
            return _Proportional.apply(lambda x: func(x, *args[1:], **kwargs), args[0])
        if func in _SUMS and len(args) == 2 and all(_carries_relevance(arg) for arg in args):
            return _Proportional.apply(lambda a, b: torch.add(a, b, **kwargs), *args)
        return func(*args, **kwargs)


def _carries_relevance(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


class _Proportional(torch.autograd.Function):
    """A linear function whose inputs receive R_i = x_i A_ij / z_j R_j, summed over j."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(*inputs)
        return function(*inputs)

    @staticmethod
    def backward(ctx: Any, *relevance: Tensor) -> tuple[Tensor | None, ...]:
        # here, not above: zennit imports torchvision, which takes seconds
        from zennit.core import stabilize

        inputs = [value.detach().requires_grad_() for value in ctx.saved_tensors]
        with torch.enable_grad():
            output = ctx.function(*inputs)
        shares = torch.autograd.grad(output, inputs, relevance[0] / stabilize(output.detach(), 1e-9))
        return None, *(value.detach() * share for value, share in zip(inputs, shares, strict=True))
