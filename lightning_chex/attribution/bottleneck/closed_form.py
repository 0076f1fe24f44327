"""Closed-form mask update under a linearised objective.

Of w sum_i C_i(lambda_i) + J(lambda) the curvature of the information C is known exactly, while J is only seen through
noise. So J alone is linearised: each step solves the optimality condition for its gradient. With s = sigmoid(alpha),
lambda = G s and C'(lambda) = lambda (r^2 + 1 + 1 / (1 - lambda)) (`capacity_gradient`) it is

    G^T C'(G s) = q,    q = -G^T dJ/dlambda / w.

Near the present s the left side is close to c(s) = s (G^T r^2 + G^T 1 + G^T 1 / (1 - s)), in which no neuron depends
on another. So c(s') = q + c(s) - G^T C'(G s) is solved instead, a quadratic equation a neuron, whose fixed point is
that of the exact condition. There is no learning rate; benchmarks/faster_bottleneck measures it.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_chex.attribution.bottleneck.mask import ALPHA_LIMIT, Bottleneck, capacity_gradient

LEAST_SHARE = 1 / (1 + math.exp(ALPHA_LIMIT))
"""sigmoid(alpha) is kept this far from 0 and 1."""

NEW_SHARE = 0.7
"""Weight of the latest gradient of the objective in the running mean that is used: less noise, as they all differ."""


def refuse_closed_form(method: object, arguments: Mapping[str, Any]) -> None:
    """Refuse ``update="closed_form"`` among the arguments of a method that optimises a mask of another kind by Adam.

    Raises:
        ValueError: it is among them.
    """
    if arguments.get("update", "adam") != "adam":
        raise ValueError(f"update={arguments['update']!r} is not offered by {type(method).__name__}; choose adam")


class ClosedForm:
    """Moves the alpha of a bottleneck; to be used in place of `Bottleneck.step`.

    Args:
        bottleneck: whose alpha is moved in place.
        new_share: weight of the latest gradient in the running mean, in (0, 1].

    Attributes:
        worth: q, (N, C, h, w), the running mean; None before the first step.
    """

    def __init__(self, bottleneck: Bottleneck, new_share: float = NEW_SHARE) -> None:
        self._bottleneck = bottleneck
        self._new_share = new_share
        self._blur = bottleneck.blur
        # where no neuron around is active nothing is worth anything: any positive price then gives alpha's lower limit
        self._count = self._blur.adjoint(bottleneck.active).clamp(min=1e-6)
        square = bottleneck.normalized.square().mul_(bottleneck.active)
        self._leading = self._blur.adjoint(square).add_(self._count)
        self.worth: Tensor | None = None

    def step(self, information_weight: float, lambda_: Tensor, complement: Tensor, loss_gradient: Tensor) -> None:
        """Move alpha to where it is optimal for the running mean of the gradients; arguments as `Bottleneck.step`."""
        bottleneck = self._bottleneck
        worth = self._blur.adjoint(loss_gradient).div_(-information_weight)
        self.worth = worth if self.worth is None else self.worth.lerp_(worth, self._new_share)
        price = capacity_gradient(bottleneck.normalized, lambda_, complement).mul_(bottleneck.active)
        near = torch.sigmoid(bottleneck.alpha).mul_(self._leading + self._count / torch.sigmoid(-bottleneck.alpha))
        worth = near.sub_(self._blur.adjoint(price)).add_(self.worth).clamp_(min=0)
        # leading s^2 - (leading + count + q) s + q = 0: the smaller root, written without a difference of its terms
        middle = self._leading + self._count + worth
        root = (middle.square() - 4 * self._leading * worth).clamp_(min=0).sqrt_()
        share = worth.mul_(2).div_(middle.add_(root))
        # without eps, the logarithm of the many zeros takes a CPU forty times as long
        bottleneck.alpha.copy_(torch.logit(share, eps=LEAST_SHARE))
