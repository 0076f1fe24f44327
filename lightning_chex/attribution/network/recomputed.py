"""Weights that a module computes anew at every call: pruned, normalised or parametrised ones."""

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

POWER_ITERATIONS = 15
"""Steps that find the largest singular value anew after a spectrally normalised weight was replaced."""


@contextmanager
def plain_weights(network: nn.Module) -> Iterator[None]:
    """Replace recomputed weights by plain parameters of the same values, for the length of the context.

    Assigning another value to a recomputed weight has no effect: the forward pre-hook or the parametrization overwrites
    it at the next call. Covers ``torch.nn.utils.prune``, ``weight_norm`` and ``spectral_norm`` (hooks) and
    ``torch.nn.utils.parametrize``. On exit hooks, classes, parameters and submodules are restored in their order, also
    after an exception.

    Args:
        network: in evaluation mode, so that spectral normalisation does not update its vectors.
    """
    with ExitStack() as stack:
        for module in list(network.modules()):
            if not isinstance(module, torch.jit.ScriptModule) and is_recomputed(module):
                _make_plain(module, stack)
        yield


def is_recomputed(module: nn.Module) -> bool:
    """Return whether a weight of the module itself is recomputed at every call."""
    return bool(_hooks_of(module)) or parametrize.is_parametrized(module)


def current_weight(module: nn.Module, name: str = "weight") -> Tensor | None:
    """Return a copy of the weight that the next call in evaluation mode will use; None if there is no such weight."""
    with _evaluated(module), ExitStack() as stack:
        if is_recomputed(module):
            _make_plain(module, stack)
        value = getattr(module, name, None)
        return value.detach().clone() if isinstance(value, Tensor) else None


def set_weight(module: nn.Module, name: str, value: Tensor) -> None:
    """Write a weight to the tensors that it is computed from, in place.

    What the method imposes stays: a pruned entry remains zero, a spectral norm remains 1.

    Args:
        module: whose weight.
        name: of the weight.
        value: of the weight's shape.

    Raises:
        ValueError: a parametrization has no inverse.
    """
    with torch.no_grad():
        if parametrize.is_parametrized(module, name):
            _invert(module, name, value)
            return
        hooks = [hook for hook, own in _hooks_of(module).values() if own == name]
        if not hooks:
            getattr(module, name).copy_(value)
        for hook in hooks:
            if isinstance(hook, WeightNorm):
                getattr(module, f"{name}_v").copy_(value)
                getattr(module, f"{name}_g").copy_(torch.norm_except_dim(value, 2, hook.dim))
            else:
                getattr(module, f"{name}_orig").copy_(value)
            if isinstance(hook, SpectralNorm):
                for _ in range(POWER_ITERATIONS):
                    hook.compute_weight(module, do_power_iteration=True)


def reset_parameters(module: nn.Module) -> None:
    """Call ``module.reset_parameters()`` so that it has its effect on recomputed weights too."""
    if not is_recomputed(module):
        module.reset_parameters()  # type: ignore[operator]
        return
    with _evaluated(module), ExitStack() as stack:
        names = _make_plain(module, stack)
        module.reset_parameters()  # type: ignore[operator]
        drawn = {name: getattr(module, name).detach().clone() for name in names}
    for name, value in drawn.items():
        set_weight(module, name, value)


def deep_copy(network: nn.Module) -> nn.Module:
    """Copy a network as ``copy.deepcopy`` does, also where a hook has left a weight that is part of a graph."""
    with ExitStack() as stack:
        for module in network.modules():
            for _, name in _hooks_of(module).values():
                value = module.__dict__.get(name)
                if isinstance(value, Tensor):
                    stack.callback(module.__dict__.__setitem__, name, value)
                    module.__dict__[name] = value.detach()
        return copy.deepcopy(network)


def _hooks_of(module: nn.Module) -> dict[int, tuple[Any, str]]:
    """The forward pre-hooks that set a weight, by their key, each with the weight's name."""
    found: dict[int, tuple[Any, str]] = {}
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook, BasePruningMethod):
            found[key] = (hook, hook._tensor_name)
        elif isinstance(hook, WeightNorm | SpectralNorm):
            found[key] = (hook, hook.name)
    return found


def _make_plain(module: nn.Module, stack: ExitStack) -> list[str]:
    """Make the recomputed weights of one module plain parameters until ``stack`` is closed; return their names."""
    names: list[str] = []
    with torch.no_grad():
        if parametrize.is_parametrized(module):
            names += _without_parametrizations(module, stack)
        hooks = _hooks_of(module)
        held = {name: module.__dict__.get(name) for _, name in hooks.values()}
        stack.callback(_restore_attributes, module, held)
        for key, (hook, _) in hooks.items():
            hook(module, ())
            # replaced where it stands, which keeps the order of the hooks
            stack.callback(module._forward_pre_hooks.__setitem__, key, hook)
            module._forward_pre_hooks[key] = _no_change
        for name in held:
            _put_parameter(module, name, module.__dict__.pop(name), stack)
    return [*names, *held]


def _without_parametrizations(module: nn.Module, stack: ExitStack) -> list[str]:
    children = module._modules
    order = list(children)
    parametrizations: Any = children["parametrizations"]
    parametrized = type(module)
    values = {name: getattr(module, name).detach().clone() for name in parametrizations}

    def restore() -> None:
        module.__class__ = parametrized
        current = {**children, "parametrizations": parametrizations}
        children.clear()
        children.update({name: current.pop(name) for name in order if name in current} | current)

    stack.callback(restore)
    module.__class__ = parametrized.__bases__[0]  # the class before register_parametrization
    del children["parametrizations"]
    for name, value in values.items():
        _put_parameter(module, name, value, stack)
    return list(values)


def _put_parameter(module: nn.Module, name: str, value: Tensor, stack: ExitStack) -> None:
    module._parameters[name] = nn.Parameter(value.detach(), requires_grad=False)
    stack.callback(module._parameters.pop, name)


def _restore_attributes(module: nn.Module, held: dict[str, Any]) -> None:
    for name, value in held.items():
        if value is None:
            module.__dict__.pop(name, None)
        else:
            module.__dict__[name] = value


def _no_change(*_: Any) -> None:
    """Stand in for a hook whose weight is a plain parameter meanwhile."""


@contextmanager
def _evaluated(module: nn.Module) -> Iterator[None]:
    modes = [(own, own.training) for own in module.modules()]
    try:
        for own, _ in modes:
            own.training = False
        yield
    finally:
        for own, mode in modes:
            own.training = mode


def _invert(module: nn.Module, name: str, value: Tensor) -> None:
    holder: Any = module.parametrizations
    parametrizations = holder[name]
    wanted: Any = value
    for own in reversed(parametrizations):
        if not hasattr(own, "right_inverse"):
            raise ValueError(
                f"the {name} of a {type(module).__name__} cannot be set: its parametrization {type(own).__name__} has "
                "no right_inverse; add one, or remove it with parametrize.remove_parametrizations"
            )
        wanted = own.right_inverse(wanted)
    parts = [wanted] if isinstance(wanted, Tensor) else list(wanted)
    originals = [own for key, own in parametrizations.named_parameters(recurse=False) if key.startswith("original")]
    for original, part in zip(originals, parts, strict=True):
        original.copy_(part)  # not by assignment, which would exchange the memory behind it
    for own in parametrizations:
        if getattr(own, "n_power_iterations", 0):
            mode = own.training
            own.train()
            for _ in range(POWER_ITERATIONS):
                own(originals[0])
            own.train(mode)
