"""Parts of a network that are not trained."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from lightning_chex.tasks.backbone import nearest

SIDE = 64
"""Of the image that shows the order of the layers, where the network does not say how large its images are."""


def freeze(network: nn.Module, name: str) -> list[nn.Module]:
    """Take the gradients off the network's parameters up to and including a module, in the order of execution.

    Args:
        network: for images (B, 3, H, W).
        name: of the last module that is frozen.

    Returns:
        The modules that have run to their end by then, which shall stay in evaluation mode.

    Raises:
        ValueError: there is no such module, it does not run, or nothing is left to train.
    """
    modules = dict(network.named_modules())
    if not name or name not in modules:
        known = [own for own, module in modules.items() if own and next(module.parameters(), None) is not None]
        raise ValueError(f"freeze={name!r} is no module of {type(network).__name__}; {nearest(name, known)}")
    begun, ended = _ran_until(network, modules[name])
    if modules[name] not in ended:
        raise ValueError(f"freeze={name!r} does not run in a forward pass, so nothing comes before it")
    for module in begun:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ValueError(f"freeze={name!r} leaves nothing to train: name an earlier module")
    return ended


def _ran_until(network: nn.Module, last: nn.Module) -> tuple[list[nn.Module], list[nn.Module]]:
    """Run the network once; the modules that have begun, and those that have ended, when ``last`` ends."""
    begun: dict[nn.Module, None] = {}
    ended: dict[nn.Module, None] = {}

    def note(into: dict[nn.Module, None]) -> Callable[..., None]:
        def hook(module: nn.Module, *rest: Any) -> None:
            if last not in ended:
                into[module] = None

        return hook

    size = (getattr(network, "pretrained_cfg", None) or {}).get("input_size", (3, SIDE, SIDE))
    modes = {module: module.training for module in network.modules()}
    with ExitStack() as stack, torch.no_grad():
        for module in modes:
            stack.callback(module.register_forward_pre_hook(note(begun)).remove)
            stack.callback(module.register_forward_hook(note(ended)).remove)
        network.eval()
        network(torch.zeros(1, *size))
    for module, mode in modes.items():
        module.training = mode
    return list(begun), list(ended)
