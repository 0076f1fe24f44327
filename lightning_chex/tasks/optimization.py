"""Optimiser, learning rates and their schedule, defined once for all tasks."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import torch
from timm.optim import create_optimizer_v2, param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from lightning_chex.tasks.backbone import head_name

Schedule = Literal["constant", "cosine", "one_cycle"]


@dataclass(frozen=True)
class Optimization:
    """Optimiser, learning rates and schedule.

    Args:
        optimizer: name of a timm optimiser: adamw, momentum (plain SGD with momentum, the paper's), sgd (Nesterov's
            variant of it), ...
        lr: learning rate; the peak one for ``one_cycle``.
        weight_decay: weight decay, not applied to biases and normalisation layers.
        momentum: momentum of the optimisers that have one.
        schedule: ``constant``, ``cosine`` to zero, or ``one_cycle`` (up, then down), step by step over the training.
        warmup: share of the training, below 1, in which the learning rates rise in equal steps from zero; for
            ``constant`` and ``cosine``, which then begins at its end.
        freeze: name of a module, such as ``features.transition2``: the network up to and including it is not trained,
            its batch norms and dropout work as in evaluation.
        head_lr: learning rate of the last layer; None: ``lr``.
        layer_decay: learning rates fall by this factor from layer to layer towards the input, above 0 and at most 1;
            for networks whose layers timm knows. None: all are ``lr``.

    Raises:
        ValueError: a value out of its range.
    """

    optimizer: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-2
    momentum: float = 0.9
    schedule: Schedule = "constant"
    warmup: float = 0.0
    freeze: str | None = None
    head_lr: float | None = None
    layer_decay: float | None = None

    def __post_init__(self) -> None:
        for name in ("lr", "head_lr", "weight_decay", "momentum", "warmup", "layer_decay"):
            value = getattr(self, name)
            may_lack = name in ("head_lr", "layer_decay")
            if not (value is None and may_lack) and (isinstance(value, bool) or not isinstance(value, Real)):
                raise ValueError(f"{name}={value!r} is a {type(value).__name__}: give a number")
        for name, value in (("lr", self.lr), ("head_lr", self.head_lr)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name}={value!r} must be a number greater than 0")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay={self.weight_decay!r} must be a number, 0 or more")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum={self.momentum!r} must be at least 0 and below 1")
        if self.schedule not in ("constant", "cosine", "one_cycle"):
            raise ValueError(f"schedule={self.schedule!r} is unknown; choose constant, cosine or one_cycle")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup={self.warmup!r} must be a share of the training, at least 0 and below 1")
        if self.warmup and self.schedule == "one_cycle":
            raise ValueError(f"warmup={self.warmup!r}, but one_cycle rises by itself: choose constant or cosine")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay={self.layer_decay!r} must be above 0 and at most 1")

    def build(self, network: nn.Module, lr: float) -> torch.optim.Optimizer:
        """Build the optimiser of the parameters that are not frozen; biases and normalisation layers are not decayed.

        Args:
            network: whose parameters.
            lr: learning rate, ``lr`` unless a tuner has found another.

        Raises:
            ValueError: timm knows no optimiser of that name, or not the layers of the network.
        """
        if self.layer_decay is not None and not hasattr(network, "group_matcher"):
            raise ValueError(
                f"layer_decay={self.layer_decay}, but timm does not know the layers of {type(network).__name__}: leave "
                "it out, or freeze the first layers"
            )
        plain = self.head_lr is None and self.layer_decay is None
        try:
            return create_optimizer_v2(
                network,
                opt=self.optimizer,
                lr=lr,
                weight_decay=self.weight_decay,
                momentum=self.momentum,
                param_group_fn=None if plain else lambda network: self._groups(network, lr),
            )
        except (ValueError, AssertionError, KeyError) as error:
            raise ValueError(
                f"optimizer={self.optimizer!r} could not be built ({error}); try adamw, sgd, adam or another of timm's"
            ) from error

    def schedule_of(self, optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler | None:
        """Build the schedule of a training of so many steps; None where the learning rates stay as they are."""
        if self.schedule == "one_cycle":
            peaks = [group["lr"] for group in optimizer.param_groups]
            return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=peaks, total_steps=steps)
        if self.schedule == "constant" and not self.warmup:
            return None
        # not CosineAnnealingLR, whose recursion never leaves zero when a finished training is resumed for longer
        return torch.optim.lr_scheduler.LambdaLR(optimizer, self._factor(steps))

    def _factor(self, steps: int) -> Callable[[int], float]:
        warm = round(self.warmup * steps)
        rest = max(1, steps - warm)

        def factor(step: int) -> float:
            if step < warm:
                return (step + 1) / (warm + 1)
            return 1.0 if self.schedule == "constant" else 0.5 + 0.5 * math.cos(math.pi * (step - warm) / rest)

        return factor

    def _groups(self, network: nn.Module, lr: float) -> list[dict[str, Any]]:
        """Parameters by weight decay, layer and whether they are the head's, each group with its learning rate."""
        undecayed: Iterable[str] = getattr(network, "no_weight_decay", set)()
        if self.layer_decay is None:
            groups = param_groups_weight_decay(network, self.weight_decay, no_weight_decay_list=tuple(undecayed))
        else:
            groups = param_groups_layer_decay(
                network, self.weight_decay, no_weight_decay_list=tuple(undecayed), layer_decay=self.layer_decay
            )
        head = {id(parameter) for parameter in network.get_submodule(head_name(network)).parameters()}
        parts = []
        for group in groups:
            rate = lr * group.pop("lr_scale", 1.0)
            for of_head, own_rate in ((False, rate), (True, rate if self.head_lr is None else self.head_lr)):
                own = [parameter for parameter in group["params"] if (id(parameter) in head) is of_head]
                if own:
                    parts.append({**group, "params": own, "lr": own_rate})
        return parts
