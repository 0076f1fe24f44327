"""Feature statistics of a layer, from a model's own forward passes or from batches."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_chex.attribution.attributor import frozen
from lightning_chex.attribution.counting import counted
from lightning_chex.attribution.layers import check_feature_map, get_layer, hooked
from lightning_chex.attribution.layout import precision
from lightning_chex.attribution.partition import Partition, partition
from lightning_chex.attribution.statistics import FeatureStatistics, Granularity


@contextmanager
def observed_statistics(model: nn.Module, layer: str, per: Granularity) -> Iterator[FeatureStatistics]:
    """Statistics that grow with every forward pass ``model`` makes within the context, of the images that count."""
    statistics = FeatureStatistics(per)

    def collect(module: nn.Module, inputs: Any, output: Any) -> None:
        statistics.update(counted(check_feature_map(output, layer)))

    with hooked(get_layer(model, layer), collect):
        yield statistics


def fitted_statistics(
    model: nn.Module, layer: str, batches: Iterable[Tensor], per: Granularity, bfloat16: bool
) -> FeatureStatistics:
    """Statistics of a layer over batches (B, C, H, W); the model is run up to the layer only.

    Raises:
        LayerError: the layer does not exist or gives no feature map.
        ValueError: fewer than two images.
    """
    statistics = FeatureStatistics(per)
    device = device_of(model)
    with frozen(model), torch.no_grad(), precision(device, bfloat16):
        parts: Partition | None = None
        for images in batches:
            images = images.to(device)
            parts = parts or partition(model, layer, images)
            statistics.update(parts.below(images)[0])
    if statistics.count < 2:
        raise ValueError(f"the statistics need at least 2 images, the batches held {statistics.count}")
    statistics.warn_if_few()
    return statistics


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's parameters, the CPU if it has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
