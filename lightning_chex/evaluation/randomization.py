"""Model-parameter randomisation: does a map change when the weights it should explain are replaced by random ones?"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_chex.attribution import Attributor, frozen
from lightning_chex.attribution.layers import hooked
from lightning_chex.evaluation.cases import Cases
from lightning_chex.evaluation.evaluator import Evaluator
from lightning_chex.evaluation.feature_statistics import feature_statistics
from lightning_chex.metrics import spearman
from lightning_chex.metrics.correlation import is_constant

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Share of the layers with weights that is re-initialised, from the output down, besides the last one alone."""


def layers_from_top(network: nn.Module, images: Tensor) -> list[nn.Module]:
    """Modules that can re-initialise their weights, in the order of their last run, the latest first.

    Args:
        network: run once.
        images: (B, C, H, W).
    """
    ran: dict[nn.Module, None] = {}

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        ran.pop(module, None)
        ran[module] = None

    with ExitStack() as stack, frozen(network), torch.no_grad():
        for module in network.modules():
            if hasattr(module, "reset_parameters") and next(module.parameters(recurse=False), None) is not None:
                stack.enter_context(hooked(module, note))
        network(images)
    return list(reversed(ran))


def stages(count: int) -> list[int]:
    """How many layers from the top each stage re-initialises: the last alone, then each of ``SHARES``.

    Example:
        >>> stages(121)
        [1, 30, 60, 91, 121]
        >>> stages(2)
        [1, 2]
    """
    return sorted({1, *(max(1, round(share * count)) for share in SHARES)}) if count else []


@contextmanager
def reinitialized(modules: Sequence[nn.Module], seed: int) -> Iterator[None]:
    """Random weights, as at the start of a training, for the length of the context; then bit for bit the former ones.

    The global random state is not touched. Each module's weights depend on the seed and its place alone, so a longer
    list that begins alike gives the same weights to its beginning.
    """
    kept = [{name: value.clone() for name, value in module.state_dict().items()} for module in modules]
    devices = {value.device for state in kept for value in state.values() if value.is_cuda}
    try:
        with torch.random.fork_rng(devices=list(devices)):
            for place, module in enumerate(modules):
                torch.manual_seed(seed + place)
                module.reset_parameters()  # type: ignore[operator]  # chosen for having it
        yield
    finally:
        with torch.no_grad():
            for module, state in zip(modules, kept, strict=True):
                for name, value in module.state_dict().items():
                    value.copy_(state[name])


def randomize(
    evaluator: Evaluator,
    unfitted: Mapping[str, Attributor],
    cases: Cases,
    batches: Sequence[Tensor],
    progress: Callable[[int], None],
) -> None:
    """Record how alike each method's maps are before and after the weights were replaced, stage by stage.

    Recorded is Spearman's correlation at each stage, and the share of layers re-initialised. Methods that learn from
    data learn anew at each stage. A map that becomes the same everywhere has similarity 0; one that was, has none.

    Args:
        evaluator: with the methods.
        unfitted: the methods to try, before they learnt anything.
        cases: to explain.
        batches: images for the methods that learn, not those explained.
        progress: told of every method and stage.
    """
    network, records = evaluator.network, evaluator.records
    waiting = {
        name: [i for i, key in enumerate(cases.keys) if key not in records.of("randomization", name)]
        for name in unfitted
    }
    layers = layers_from_top(network, cases.images[:1])
    depths = stages(len(layers))
    results: dict[str, list[Tensor]] = {name: [] for name in waiting}
    for depth in depths if any(waiting.values()) else ():
        with reinitialized(layers[:depth], evaluator.settings.seed):
            anew = {name: copy.deepcopy(unfitted[name]) for name, missing in waiting.items() if missing}
            feature_statistics(network, anew, batches=lambda: batches)
            for name, method in anew.items():
                results[name].append(evaluator.explain(method, cases.select(waiting[name])))
                progress(1)
    for name, missing in waiting.items():
        if not missing:
            continue
        chosen = cases.select(missing)
        original = evaluator.saliency(name, chosen)
        similarity = torch.stack([_similarity(original, changed) for changed in results[name]], dim=1).tolist()
        share = [depth / len(layers) for depth in depths]
        rows = {
            key: {
                "values": {"randomization": own[-1]},
                "curves": {"randomization": own, "randomization_share": share},
            }
            for key, own in zip(chosen.keys, similarity, strict=True)
        }
        records.add("randomization", name, rows)


def _similarity(original: Tensor, changed: Tensor) -> Tensor:
    blank = is_constant(changed.flatten(1)) & ~is_constant(original.flatten(1))
    return spearman(original, changed).masked_fill(blank, 0.0)
