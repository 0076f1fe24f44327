"""Networks in a form that LRP's rules suit: the same function, temporarily written in another way."""

from collections import Counter
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from zennit.canonizers import AttributeCanonizer, MergeBatchNorm
from zennit.types import BatchNorm, ConvolutionTranspose, Linear

from lightning_chex.attribution.network.layers import hooked


class MergeFollowedBatchNorm(MergeBatchNorm):
    """Merges each batch normalisation into the convolution or linear layer whose output it alone receives.

    zennit's `SequentialMergeBatchNorm` goes by the order of the leaves: it does not see timm's `BatchNormAct2d`, which
    has children, and takes the norm of DenseNet's next layer, which reads a concatenation, for the follower of this
    layer's convolution. Here one forward pass records which module reads whose output.

    Args:
        example: one image (1, C, H, W).
    """

    def __init__(self, example: Tensor) -> None:
        super().__init__()
        self.example = example

    def apply(self, root_module: nn.Module) -> list[MergeBatchNorm]:
        """Merge, and return what `remove` undoes."""
        instances: list[MergeBatchNorm] = []
        for linear, norm in followed(root_module, self.example):
            instance = self.copy()
            instances.append(instance)
            instance.register((linear,), norm)
        return instances

    def copy(self) -> "MergeFollowedBatchNorm":
        """Return another one for the same image."""
        return type(self)(self.example)


def followed(model: nn.Module, example: Tensor) -> list[tuple[nn.Module, nn.Module]]:
    """Pairs of a linear module and the batch normalisation that alone reads its output.

    Both run once in a forward pass and share no parameter with another module.
    """
    outputs: dict[int, tuple[nn.Module, Tensor]] = {}  # the tensors are kept, so that no id is reused
    inputs: list[tuple[nn.Module, int]] = []
    runs: Counter[nn.Module] = Counter()

    def note(module: nn.Module, given: Any, output: Any) -> None:
        runs[module] += 1
        if isinstance(module, Linear):
            outputs[id(output)] = (module, output)
        else:
            inputs.append((module, id(given[0])))

    readers = _Readers()
    with ExitStack() as stack, torch.no_grad():
        for module in model.modules():
            mergeable = isinstance(module, BatchNorm) and module.affine and module.running_mean is not None
            if mergeable or (isinstance(module, Linear) and not isinstance(module, ConvolutionTranspose)):
                stack.enter_context(hooked(module, note))
        stack.enter_context(readers)
        model(example.clone())
    users = Counter(id(own) for module in model.modules() for own in module._parameters.values() if own is not None)

    def is_alone(module: nn.Module) -> bool:
        # a parameter that two modules share would change in both
        return runs[module] == 1 and all(users[id(own)] == 1 for own in module.parameters(recurse=False))

    return [
        (outputs[key][0], norm)
        for norm, key in inputs
        if key in outputs and readers.count[key] == 1 and is_alone(norm) and is_alone(outputs[key][0])
    ]


class _Readers(TorchFunctionMode):
    """Counts, for each tensor, the functions that make another tensor of it."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[int] = Counter()
        self._kept: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(value, Tensor) for value in tree_leaves(result)):
            read = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
            self._kept += read
            self.count.update({id(value) for value in read})
        return result


class PoolBeforePointwise(AttributeCanonizer):
    """Lets an average pool behind a 1 x 1 convolution run before it, where its inputs are an activation's, >= 0.

    The two commute. In DenseNet's transitions the pool reads the convolution's output, whose signs cancel in the
    average, and shares in proportion to it would have no bound.
    """

    def __init__(self) -> None:
        super().__init__(self._attributes)

    @staticmethod
    def _attributes(name: str, module: nn.Module) -> dict[str, Any] | None:
        if not isinstance(module, nn.Sequential) or type(module).forward is not nn.Sequential.forward:
            return None
        layers = list(module)
        order = list(layers)
        for i, (first, second) in enumerate(zip(layers, layers[1:], strict=False)):
            if _is_pointwise(first) and isinstance(second, nn.AvgPool2d) and second.padding in (0, (0, 0)):
                order[i], order[i + 1] = second, first
        if order == layers:
            return None

        def forward(x: Tensor) -> Tensor:
            for layer in order:
                x = layer(x)
            return x

        return {"forward": forward}


def _is_pointwise(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.stride == (1, 1)
        and module.padding in (0, (0, 0))
    )
