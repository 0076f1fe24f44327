"""Feature statistics for a trained model: of its training images, or those its checkpoint holds."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from lightning_chex.attribution import Attributor, FeatureStatistics, LayerLearner, frozen, layer_learners
from lightning_chex.attribution.network.layers import get_layer, hooked
from lightning_chex.data.contract import Samples, XrayDataModule
from lightning_chex.data.contract_checks import Checked

Source = Literal["training split", "checkpoint", "file"]

STATISTICS_IMAGES = 500
"""So many training images are drawn for the statistics."""

Saved = tuple[Attributor, Mapping[str, Tensor]]
"""The attributor of a callback, whose settings name its layers, and the state a checkpoint holds for it."""


@dataclass
class Fitted:
    """Origin of the statistics of each method.

    Attributes:
        layers: for each layer (for a method that does not learn by layers, its name) ``images``, the number of images
            of its statistics, and ``from``, a ``Source``; ``file`` for an attributor that was fitted before.
        unfitted: why an attributor cannot be used, by name.
    """

    layers: dict[str, dict[str, Any]] = field(default_factory=dict)
    unfitted: dict[str, str] = field(default_factory=dict)


def feature_statistics(
    network: nn.Module,
    attributors: Mapping[str, Attributor],
    saved: Iterable[Saved] = (),
    batches: Callable[[], Iterable[Tensor]] | None = None,
    prefer: Literal["training split", "checkpoint"] = "training split",
    image: Tensor | None = None,
) -> Fitted:
    """Fit several attributors at once: each layer once, all layers by one pass over the images.

    An attributor that is fitted already, or has nothing to learn, stays as it is.

    Args:
        network: the network to explain; left as it was found.
        attributors: by name; they are fitted in place.
        saved: what the checkpoint holds.
        batches: makes the training images, (B, C, H, W) each, not augmented; called at most once, and only if needed.
            None if there are none.
        prefer: which is taken where both are at hand. The checkpoint costs nothing.
        image: one of the images to explain, (1, C, H, W) on the network's device. With it layers without a feature map
            are found now, and statistics of images of another size are not taken from the checkpoint.

    Returns:
        See `Fitted`; what could not be fitted is there and raises nothing.
    """
    result = Fitted()
    wanted: dict[tuple[str, str], list[LayerLearner]] = {}
    custom: dict[str, Attributor] = {}
    for name, attributor in attributors.items():
        try:
            attributor.check(network, image)
        except ValueError as error:
            result.unfitted[name] = str(error)
            continue
        for member in layer_learners(attributor):
            if member.statistics.count < 2:
                wanted.setdefault((member.layer, member.statistics.per), []).append(member)
            else:
                result.layers[_key(member)] = {"images": member.statistics.count, "from": "file"}
        if not layer_learners(attributor) and attributor.num_observed is not None and attributor.num_observed < 2:
            custom[name] = attributor
    shapes = {} if image is None else shapes_of(network, {layer for layer, _ in wanted}, image)
    saved = list(saved)
    sources: list[Source] = ["training split", "checkpoint"]
    for source in sources if prefer == "training split" else sources[::-1]:
        learners = {key: members[0] for key, members in wanted.items() if members[0].statistics.count < 2}
        unfitted = {name: own for name, own in custom.items() if (own.num_observed or 0) < 2}
        if source == "checkpoint":
            _restore(learners, unfitted, saved, shapes)
        elif batches is not None and (learners or unfitted):
            observe(network, [*learners.values(), *unfitted.values()], batches())
        for key, learner in learners.items():
            if learner.statistics.count >= 2:
                result.layers[_key(learner)] = {"images": learner.statistics.count, "from": source}
                for member in wanted[key]:
                    member.statistics = learner.statistics
        for name, own in unfitted.items():
            if (own.num_observed or 0) >= 2:
                result.layers[name] = {"images": own.num_observed, "from": source}
    for name, attributor in attributors.items():
        lacking = [m.layer for m in layer_learners(attributor) if m.statistics.count < 2] or (
            [name] if name in custom else []
        )
        if name not in result.unfitted and lacking and (attributor.num_observed or 0) < 2:
            result.unfitted[name] = (
                f"no feature statistics of {', '.join(lacking)}: the checkpoint holds none"
                f"{' for images of this size' if saved else ''}, and there are no training images to take them from"
            )
    return result


def training_batches(
    data: XrayDataModule, limit: int = STATISTICS_IMAGES, seed: int = 0
) -> Callable[[], Iterator[Tensor]] | None:
    """Offer training images for `feature_statistics`: drawn by a seed, never augmented.

    Args:
        data: a data module that has been set up.
        limit: how many images at most.
        seed: of the draw.

    Returns:
        What makes the batches (B, 3, H, W); None if there are fewer than two training images.
    """
    dataset = data.parts().get("train")
    if dataset is None or len(dataset) < 2:
        return None

    def batches() -> Iterator[Tensor]:
        chosen = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:limit].tolist()
        readable = Checked(data, data.readable(dataset, "training images of the statistics"), "training images")
        return (batch["image"] for batch in batches_of(data, readable, chosen))

    return batches


def batches_of(
    data: XrayDataModule, dataset: Samples, chosen: Sequence[int], batch_size: int | None = None
) -> Iterator[dict[str, Any]]:
    """Batches of chosen samples, in their order; the global random state is not touched.

    Args:
        data: whose loader settings apply.
        dataset: the samples.
        chosen: their indices.
        batch_size: that of the data if None.
    """
    loader = DataLoader(
        Subset(cast(Dataset, dataset), chosen),
        batch_size or data.batch_size,
        num_workers=data.num_workers,
        collate_fn=partial(_collate_read, data.collate),
        generator=torch.Generator(),  # of its own, or iterating would draw from the global one
    )
    return (batch for batch in loader if batch is not None)


def _collate_read(collate: Callable[[list[Any]], Any], samples: Sequence[Any]) -> Any:
    """Join the samples that could be read, those that are not None; None where there is none."""
    read = [sample for sample in samples if sample is not None]
    return collate(read) if read else None


def _key(member: LayerLearner) -> str:
    return member.layer if member.statistics.per == "neuron" else f"{member.layer} (per channel)"


def shapes_of(network: nn.Module, layers: Iterable[str], image: Tensor) -> dict[str, torch.Size]:
    """Shapes (C, h, w) of the layers' features for an image of this size, from one pass."""
    shapes: dict[str, torch.Size] = {}

    def keeper(layer: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            shapes[layer] = output.shape[1:]

        return keep

    with frozen(network), torch.no_grad(), ExitStack() as stack:
        for layer in layers:
            stack.enter_context(hooked(get_layer(network, layer), keeper(layer)))
        network(image)
    return shapes


def observe(network: nn.Module, learners: Iterable[LayerLearner | Attributor], batches: Iterable[Tensor]) -> None:
    """Let all learn from one pass over images (B, C, H, W); what they learnt before is replaced."""
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    with frozen(network), torch.no_grad(), ExitStack() as stack:
        for learner in learners:
            stack.enter_context(learner.observing(network))
        for images in batches:
            network(images.to(device))


def _restore(
    learners: Mapping[tuple[str, str], LayerLearner],
    unfitted: Mapping[str, Attributor],
    saved: Iterable[Saved],
    shapes: Mapping[str, torch.Size],
) -> None:
    """Give what a checkpoint holds to those it fits."""
    for attributor, state in saved:
        for layer, statistics in saved_by_layer(attributor, state).items():
            if statistics.count < 2 or statistics.shape != shapes.get(layer, statistics.shape):
                continue
            # for features of one place both granularities are the same thing
            same = ("neuron", "channel") if statistics.shape[1:] == (1, 1) else (statistics.per,)
            for per in same:
                if (layer, per) in learners:
                    learners[layer, per].statistics = statistics
        for own in unfitted.values():
            if type(own) is type(attributor) and state:
                own.load_state_dict(dict(state))


def saved_by_layer(attributor: Attributor, state: Mapping[str, Tensor]) -> dict[str, FeatureStatistics]:
    """Statistics a checkpoint holds, by layer: a state of several layers names them itself, that of one does not."""
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        return {}
    groups: dict[str, dict[str, Tensor]] = {}
    only = layer_learners(attributor)[0].layer if len(layer_learners(attributor)) == 1 else ""
    for key, value in state.items():
        layer, _, entry = key.rpartition("/")
        if layer or only:
            groups.setdefault(layer or only, {})[entry] = value
    needed = FeatureStatistics().state_dict().keys()
    return {layer: FeatureStatistics.from_state_dict(own) for layer, own in groups.items() if needed <= own.keys()}
