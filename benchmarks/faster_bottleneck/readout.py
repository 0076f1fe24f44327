"""A readout network: alpha of a converged bottleneck, from the features and from gradients taken on the way.

After the readout bottleneck of Schulz et al. 2020 (section 3.3), which predicts the mask from features in one pass.
Two parts: a small network for all neurons alike, which sees of each neuron what a step of `ClosedForm` sees, and one
that mixes channels and neighbours, as theirs does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.faster_bottleneck.cases import Setting
from lightning_chex.attribution.blur import Blur
from lightning_chex.attribution.bottleneck.mask import Bottleneck, capacity
from lightning_chex.attribution.bottleneck.optimization import Problem


@dataclass(frozen=True)
class Evidence:
    """What is known of N bottlenecks before a readout.

    Attributes:
        inputs: (N, h, w, C, k), scaled to about 1.
        guess: alpha as far as known, (N, h, w, C); the readout corrects it.
        normalized: (F - mu) / sigma, (N, h, w, C).
        active: bool (1, h, w, C).
    """

    inputs: Tensor
    guess: Tensor
    normalized: Tensor
    active: Tensor


def last(values: Tensor) -> Tensor:
    """(N, C, h, w) as (N, h, w, C), which is its order in memory."""
    return values.permute(0, 2, 3, 1)


def evidence(
    setting: Setting, problem: Problem, bottleneck: Bottleneck, prior: Tensor, worth: Tensor | None
) -> Evidence:
    """What the readout sees.

    Args:
        setting: the network.
        problem: N targets.
        bottleneck: theirs; its alpha is the guess.
        prior: mean alpha of other images of the same class, (N, C, h, w).
        worth: q of `ClosedForm` after its steps so far, (N, C, h, w); None before the first.
    """
    square = bottleneck.normalized.square().mul_(bottleneck.active)
    lambda_ = bottleneck.blur(torch.sigmoid(bottleneck.alpha))
    # about the information of the guess, by cell and in all
    cell = (lambda_ * (lambda_ * (square + 1))).sum(1, keepdim=True)
    loss = setting.iba.objective(problem.reference, problem.target, problem.reference).view(-1, 1, 1, 1)
    seen = [
        bottleneck.alpha / 4,
        prior / 8,
        torch.log1p(square) / 2,
        torch.log1p(bottleneck.blur.adjoint(square)) / 2,
        torch.log1p(cell) / 4 - 0.7,
        torch.log1p(cell.mean((2, 3), keepdim=True)) / 4 - 0.7,
        loss / 3,
    ]
    if worth is not None:
        seen.append(torch.asinh(worth) / 3)
    inputs = torch.stack([last(own.expand_as(square)) for own in seen], -1)
    return Evidence(inputs, last(bottleneck.alpha), last(bottleneck.normalized), last(bottleneck.active).bool())


class Readout(nn.Module):
    """alpha, (N, h, w, C), of `Evidence`.

    Args:
        inputs: k of the evidence.
        channels: C; None for no mixing of channels.
        width: hidden units a neuron.
    """

    def __init__(self, inputs: int, channels: int | None, width: int = 16) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.neuron = nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, 1))
        self.mixing = None
        if channels is not None:
            self.mixing = nn.Sequential(
                nn.Conv2d(channels, 24, 1),
                nn.SiLU(),
                nn.Conv2d(24, 24, 3, padding=1),
                nn.SiLU(),
                nn.Conv2d(24, channels, 1),
            )
        for part in filter(None, (self.neuron, self.mixing)):  # at the start it is the guess
            nn.init.zeros_(part[-1].weight)
            nn.init.zeros_(part[-1].bias)

    def forward(self, seen: Evidence) -> Tensor:
        """Correct the guess."""
        found = self.scale * seen.guess + 4 * self.neuron(seen.inputs)[..., 0]
        if self.mixing is not None:
            features = (seen.normalized * seen.active).clamp(-5, 5).permute(0, 3, 1, 2)
            found = found + last(self.mixing(features))
        return found


def nats(blur: Blur, alpha: Tensor, seen: Evidence) -> Tensor:
    """Capacity (N, h, w, C) at alpha (N, h, w, C), for gradients by alpha."""

    def blurred(mask: Tensor) -> Tensor:
        return (blur.rows @ (blur.columns @ mask).flatten(2)).view_as(mask)

    return capacity(seen.normalized, blurred(torch.sigmoid(alpha)), blurred(torch.sigmoid(-alpha))) * seen.active


def learn(
    setting: Setting,
    problems: Sequence[Problem],
    seen: Sequence[Evidence],
    alphas: Sequence[Tensor],
    epochs: int,
    mixing: bool,
) -> Readout:
    """Learn a readout from the alphas that the default optimisation found for the same problems.

    The loss compares nats, not alphas: of a neuron (square roots), of a cell and of the image (logarithms).

    Args:
        setting: the network.
        problems: chunks of targets.
        seen: of each chunk.
        alphas: those found, (N, C, h, w) a chunk.
        epochs: passes over the chunks.
        mixing: with a part that mixes channels.
    """
    torch.manual_seed(0)
    channels = alphas[0].shape[1]
    readout = Readout(seen[0].inputs.shape[-1], channels if mixing else None)
    blur = setting.bottleneck(problems[0], 0.0).blur
    with torch.no_grad():
        wanted = [nats(blur, last(a), own).clone() for a, own in zip(alphas, seen, strict=True)]
    adam = torch.optim.Adam(readout.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, 1e-2, total_steps=epochs * len(seen))
    for _ in range(epochs):
        for chunk in torch.randperm(len(seen)).tolist():
            found = nats(blur, readout(seen[chunk]), seen[chunk])
            true = wanted[chunk]
            cell = torch.log1p(found.sum(-1)) - torch.log1p(true.sum(-1))
            neuron = ((found + 1e-8).sqrt() - (true + 1e-8).sqrt()).square().mean()
            loss = neuron + cell.square().mean() + cell.mean((1, 2)).square().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            schedule.step()
    return readout.requires_grad_(False).eval()
