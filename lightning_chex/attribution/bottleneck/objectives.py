"""Objectives: losses per image between the output of the masked model and the explained target.

Every objective is a plain function ``(output, target, reference) -> (B,)``: ``output`` is the model's output on the
masked features, (B, K), (B, 1) or (B,); ``target`` one value per image; ``reference`` the output on the untouched
features, of the same shape as ``output``. All return float32 or better, smaller meaning better kept.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Objective = Callable[[Tensor, Tensor | None, Tensor], Tensor]
ObjectiveName = Literal[
    "binary_cross_entropy",
    "one_hot_binary_cross_entropy",
    "softmax_cross_entropy",
    "squared_error",
    "maximize_score",
    "deviation",
]


def binary_cross_entropy(output: Tensor, target: Tensor | None, reference: Tensor) -> Tensor:
    """Binary cross entropy of the explained class alone, -log sigmoid(logit); the others are left free (Eq. 3)."""
    return F.softplus(-_class_logit(output, target))


def one_hot_binary_cross_entropy(output: Tensor, target: Tensor | None, reference: Tensor) -> Tensor:
    """Mean binary cross entropy over all outputs against a one-hot vector, as in the authors' code.

    It also asks the model to see none of the other classes.
    """
    index = _class_index(output, target)
    wanted = F.one_hot(index, output.shape[1]).to(output)
    return F.binary_cross_entropy_with_logits(output, wanted, reduction="none").mean(1)


def softmax_cross_entropy(output: Tensor, target: Tensor | None, reference: Tensor) -> Tensor:
    """Cross entropy of the explained class among exclusive classes."""
    return F.cross_entropy(output, _class_index(output, target), reduction="none")


def squared_error(output: Tensor, target: Tensor | None, reference: Tensor) -> Tensor:
    """Squared distance to a known score (section 2.2, L_MSE); the target is that score, a float per image."""
    if target is None:
        raise ValueError("target=None: the objective squared_error needs the score itself, one float per image")
    return (_score(output) - target.to(output)).square()


def maximize_score(output: Tensor, target: Tensor | None, reference: Tensor) -> Tensor:
    """Minus the squared score (section 2.2, L_RM with the sign that favours high scores); the target is not used."""
    return -_score(output).square()


def deviation(output: Tensor, target: Tensor | None, reference: Tensor) -> Tensor:
    """Squared distance to the model's own unrestricted prediction (section 2.2, L_DV); the target is not used."""
    return (_score(output) - _score(reference)).square()


OBJECTIVES: dict[str, Objective] = {
    "binary_cross_entropy": binary_cross_entropy,
    "one_hot_binary_cross_entropy": one_hot_binary_cross_entropy,
    "softmax_cross_entropy": softmax_cross_entropy,
    "squared_error": squared_error,
    "maximize_score": maximize_score,
    "deviation": deviation,
}

SCORE_OBJECTIVES: frozenset[Objective] = frozenset({squared_error, maximize_score, deviation})
"""The objectives of regression models."""


def get_objective(objective: str | Objective) -> Objective:
    """Return the objective of that name; a function is returned as it is.

    Raises:
        ValueError: no objective has that name.
    """
    if callable(objective):
        return objective
    if objective not in OBJECTIVES:
        raise ValueError(f"objective={objective!r} is unknown; choose one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[objective]


def _class_index(output: Tensor, target: Tensor | None) -> Tensor:
    if target is None:
        raise ValueError("target=None: this objective needs the index of the explained class, one per image")
    if output.ndim != 2:
        raise ValueError(f"the model's output has shape {tuple(output.shape)}; class objectives need (B, K) logits")
    if target.is_floating_point() or target.dtype == torch.bool:
        raise ValueError(f"target has dtype {target.dtype}; class objectives need integer class indices")
    return target


def _class_logit(output: Tensor, target: Tensor | None) -> Tensor:
    return output.gather(1, _class_index(output, target)[:, None])[:, 0]


def _score(output: Tensor) -> Tensor:
    if output.ndim == 2 and output.shape[1] == 1:
        return output[:, 0]
    if output.ndim == 1:
        return output
    raise ValueError(f"the model's output has shape {tuple(output.shape)}; regression objectives need (B, 1) or (B,)")
