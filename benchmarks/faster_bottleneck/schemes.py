"""The ways to a map that are compared; each takes a posed problem and returns a bottleneck with its alpha."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks.faster_bottleneck.cases import Setting, class_means
from benchmarks.faster_bottleneck.readout import Readout, evidence, learn
from lightning_chex.attribution import IBA
from lightning_chex.attribution.bottleneck.closed_form import ClosedForm
from lightning_chex.attribution.bottleneck.layer_maps import generator_of
from lightning_chex.attribution.bottleneck.mask import Bottleneck
from lightning_chex.attribution.bottleneck.optimization import Problem, move_alpha, optimize
from lightning_chex.attribution.bottleneck.solution import bits_per_cell
from lightning_chex.attribution.network.partition import partition

Scheme = Callable[[Problem], Bottleneck]


def cells(bottleneck: Bottleneck) -> Tensor:
    """Bits per feature cell, (N, h, w)."""
    return bits_per_cell(bottleneck.capacity())


def default(setting: Setting, **changes: object) -> Scheme:
    """The package's IBA with its defaults, but for ``changes`` of its arguments."""
    iba = IBA(setting.iba.layer, **changes)  # type: ignore[arg-type]
    iba.statistics = setting.statistics

    def run(problem: Problem) -> Bottleneck:
        return optimize(problem, iba.settings, generator_of(iba.settings, problem.features.device)).bottleneck

    return run


def moved(
    setting: Setting,
    problem: Problem,
    bottleneck: Bottleneck,
    steps: int,
    samples: int,
    lr: float | None = None,
    watch: Callable[[], None] = lambda: None,
) -> Tensor | None:
    """Some steps of the closed form or, with a rate that falls to zero, of Adam; returns the former's worth."""
    settings = replace(setting.iba.settings, steps=steps, noise_samples=samples, lr=lr or setting.iba.settings.lr)

    def on_step(step: int, objective: Tensor) -> None:
        watch()
        bottleneck.set_learning_rate(settings.learning_rate(step))

    update = bottleneck if lr is not None else ClosedForm(bottleneck)
    generator = generator_of(settings, problem.features.device)
    move_alpha(problem, bottleneck, update, settings, generator, on_step)
    return update.worth if isinstance(update, ClosedForm) else None


def closed_form(setting: Setting, steps: int, samples: int) -> Scheme:
    """Steps of `ClosedForm` from alpha 0, where signal and noise have equal shares."""

    def run(problem: Problem) -> Bottleneck:
        bottleneck = setting.bottleneck(problem, 0.0)
        moved(setting, problem, bottleneck, steps, samples)
        return bottleneck

    return run


def from_means(setting: Setting, means: Tensor, steps: int, samples: int, lr: float | None) -> Scheme:
    """Start from the mean alpha of other images of the class, (K, C, h, w), and take some steps."""

    def run(problem: Problem) -> Bottleneck:
        bottleneck = setting.bottleneck(problem, means[problem.target])
        if steps:
            moved(setting, problem, bottleneck, steps, samples, lr)
        return bottleneck

    return run


class Learnt:
    """A readout after ``gradients`` steps of the closed form, learnt from the alphas of other images.

    Args:
        setting: the network.
        means: mean alpha of each class, (K, C, h, w).
        gradients: steps before, of one noise sample each; with 0 the class's mean is the guess.
    """

    def __init__(self, setting: Setting, means: Tensor, gradients: int) -> None:
        self._setting = setting
        self._means = means
        self._gradients = gradients
        self.readout: Readout | None = None

    def _begun(self, problem: Problem) -> tuple[Bottleneck, Tensor, Tensor | None]:
        prior = self._means[problem.target]
        bottleneck = self._setting.bottleneck(problem, 0.0 if self._gradients else prior)
        worth = moved(self._setting, problem, bottleneck, self._gradients, 1) if self._gradients else None
        return bottleneck, prior, worth

    def learn(self, problems: Sequence[Problem], alphas: Sequence[Tensor], epochs: int) -> None:
        """Learn from problems and the alphas found for them; only a readout of features alone mixes channels."""
        seen = [evidence(self._setting, problem, *self._begun(problem)) for problem in problems]
        self.readout = learn(self._setting, problems, seen, alphas, epochs, mixing=not self._gradients)

    @torch.no_grad()
    def _read(self, problem: Problem) -> Bottleneck:
        assert self.readout is not None
        with torch.enable_grad():
            bottleneck, prior, worth = self._begun(problem)
        found = self.readout(evidence(self._setting, problem, bottleneck, prior, worth)).permute(0, 3, 1, 2)
        bottleneck.alpha.copy_(found.clamp(-16, 16))
        return bottleneck

    def refined(self, steps: int, samples: int = 1) -> Scheme:
        """Read, then take some steps of the closed form."""

        def run(problem: Problem) -> Bottleneck:
            bottleneck = self._read(problem)
            if steps:
                moved(self._setting, problem, bottleneck, steps, samples)
            return bottleneck

        return run


def pooled_first(network: nn.Module, setting: Setting) -> Setting:
    """The same network with its transitions pooling before their 1 x 1 convolution, which is the same to rounding.

    Both are linear over different axes, so they commute, and the convolution sees a quarter of the places.
    """
    other = copy.deepcopy(network)
    for name, module in list(other.named_modules()):
        parts = list(module.children())
        if not isinstance(module, nn.Sequential) or len(parts) < 2:
            continue
        convolution, pool = parts[-2:]
        if isinstance(convolution, nn.Conv2d) and convolution.kernel_size == (1, 1) and isinstance(pool, nn.AvgPool2d):
            above, _, own = name.rpartition(".")
            setattr(other.get_submodule(above), own, nn.Sequential(*parts[:-2], pool, convolution))
    example = torch.zeros(1, *setting.example, device=next(other.parameters()).device)
    return replace(setting, part=partition(other, setting.iba.layer, example))


def objective_after(setting: Setting, problem: Problem, bottleneck: Bottleneck) -> Tensor:
    """What is minimised, beyond the loss of the untouched features, (N,); one pair of noise, no gradient."""
    generator = torch.Generator(problem.features.device).manual_seed(setting.iba.settings.seed + 1)
    noise = bottleneck.draw_noise(2, generator)
    with torch.no_grad():
        mixed = bottleneck.mix(noise, bottleneck.mask()[1])
        again = torch.arange(len(problem.features)).repeat(2)
        assert problem.target is not None
        target = problem.target[again]
        reference = problem.reference[again]
        losses = setting.iba.objective(problem.parts.above(mixed, problem.carried), target, reference)
        clean = setting.iba.objective(problem.reference, problem.target, problem.reference)
    return losses.view(2, -1).mean(0) - clean + setting.weight * bottleneck.capacity().sum((1, 2, 3))


def means_of(alphas: Tensor, classes: Tensor, number: int) -> Tensor:
    """Mean alpha of each class, (K, C, h, w), channels last as the features are."""
    return class_means(alphas, classes, number).contiguous(memory_format=torch.channels_last)
