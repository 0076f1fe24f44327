"""Insertion, deletion and Sensitivity-N as the authors' public code runs them, written plainly from its description.

One image and one map at a time. Pixels are exchanged one by one on the CPU, in the order of the map; eighty states go
through the network at once. Each state is a copy: theirs were one and the same tensor, so that all eighty scored alike.
Sensitivity-N puts the masked images of one size through the network with the whole one.
"""

import numpy as np
import torch
from torch import Tensor, nn

TOGETHER = 80


@torch.no_grad()
def exchange(model: nn.Module, start: Tensor, end: Tensor, saliency: Tensor, target: int, step: int) -> Tensor:
    """Probability of the class after every step from ``start`` to ``end``, (C, H, W) each; (S,)."""
    device = start.device
    current = start.cpu().clone()
    end = end.cpu()
    order = saliency.flatten().topk(saliency.numel()).indices.cpu().numpy()
    rows, columns = np.unravel_index(order, saliency.shape)
    scores = []
    states = []
    done = 0
    while done < len(order):
        for row, column in zip(rows[done : done + step], columns[done : done + step], strict=True):
            current[:, row, column] = end[:, row, column]
        done += step
        states.append(current.clone())
        if len(states) == TOGETHER or done >= len(order):
            scores.append(model(torch.stack(states).to(device)).sigmoid()[:, target].cpu())
            states = []
    return torch.cat(scores)


def insertion_and_deletion(
    model: nn.Module, image: Tensor, baseline: Tensor, saliency: Tensor, target: int, step: int
) -> tuple[Tensor, Tensor]:
    """Both curves, (S + 1,) each; the score they start with, which theirs leave out, is the other's last one."""
    inserted = exchange(model, baseline, image, saliency, target, step)
    deleted = exchange(model, image, baseline, saliency, target, step)
    return torch.cat([deleted[-1:], inserted]), torch.cat([inserted[-1:], deleted])


@torch.no_grad()
def sensitivity(model: nn.Module, image: Tensor, saliency: Tensor, target: int, masks: Tensor) -> Tensor:
    """Correlation for every size; image (C, H, W), map (H, W), masks (S, M, H, W) with 1 where a pixel is masked."""
    found = []
    for of_size in masks:
        masked = []
        sums = []
        for mask in of_size:
            masked.append(image * (1 - mask))
            sums.append((saliency * mask).sum())
        output = model(torch.stack([*masked, image]))[:, target]
        drops = (output[-1] - output[:-1]).cpu().numpy()
        found.append(np.corrcoef(torch.stack(sums).cpu().numpy(), drops)[0, 1])
    return torch.tensor(found)
