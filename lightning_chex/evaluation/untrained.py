"""Networks without what the trained one has learnt: with initial weights, or trained on shuffled labels."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_chex.attribution import frozen
from lightning_chex.attribution.recomputed import current_weight, deep_copy, reset_parameters, set_weight
from lightning_chex.explaining import Shuffled, Weights, load_weights, origin

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Share of the layers with weights that gets initial ones, from the output down, besides the last one alone."""

CHUNK = 16
"""Images in a forward pass of recalibration."""


def layers_from_top(network: nn.Module, images: Tensor) -> list[str]:
    """Names of the modules with weights of their own, in the order in which their last run begins, the latest first.

    Args:
        network: run once.
        images: (B, C, H, W).
    """
    began: dict[str, None] = {}

    def noting(name: str) -> Callable[[nn.Module, Any], None]:
        def note(module: nn.Module, inputs: Any) -> None:
            began.pop(name, None)
            began[name] = None

        return note

    with ExitStack() as stack, frozen(network), torch.no_grad():
        for name, module in network.named_modules():
            if next(module.parameters(recurse=False), None) is not None:
                stack.callback(module.register_forward_pre_hook(noting(name)).remove)
        network(images)
    return list(reversed(began))


def stages(count: int) -> list[int]:
    """How many layers from the top have initial weights at each stage: the last alone, then each of ``SHARES``.

    Example:
        >>> stages(121)
        [1, 30, 60, 91, 121]
        >>> stages(2)
        [1, 2]
    """
    return sorted({1, *(max(1, round(share * count)) for share in SHARES)}) if count else []


def initial_weights(network: nn.Module, build: Callable[[], nn.Module] | None, seed: int) -> tuple[Weights, str]:
    """Draw the weights with which a training of this network would begin; the global random state is not touched.

    Args:
        network: left as it is.
        build: builds the same network anew; None if that is not possible.
        seed: of the draw.

    Returns:
        The weights, and whose initialisation it is: ``the network's own``, or ``torch's`` (each layer's
        ``reset_parameters``) where the network cannot be built anew.
    """
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        try:
            fresh = None if build is None else build()
        except Exception:  # a constructor may raise anything; then the network is one that cannot be built anew
            fresh = None
        shapes = {name: value.shape for name, value in network.state_dict().items()}
        if fresh is not None and {name: value.shape for name, value in fresh.state_dict().items()} == shapes:
            return fresh.state_dict(), "the network's own"
        copy = deep_copy(network).cpu()
        for module in list(copy.modules()):
            if hasattr(module, "reset_parameters"):
                reset_parameters(module)
        return copy.state_dict(), "torch's"


@contextmanager
def with_weights(network: nn.Module, weights: Weights, layers: Sequence[str] | None = None) -> Iterator[None]:
    """Other weights and buffers for the length of the context; then bit for bit the former ones.

    Args:
        network: changed in place.
        weights: of all layers.
        layers: the modules that get them, without the modules within; None for all.
    """
    state = network.state_dict()
    kept = {name: value.clone() for name, value in state.items()}
    if layers is not None:
        names = [f"{layer}.{name}" if layer else name for layer in layers for name in _own(network, layer)]
        weights = {name: weights[name] for name in names}
    try:
        with torch.no_grad():
            for name, value in weights.items():
                state[name].copy_(value)
        yield
    finally:
        with torch.no_grad():
            for name, value in kept.items():
                state[name].copy_(value)


def _own(network: nn.Module, layer: str) -> list[str]:
    module = network.get_submodule(layer)
    own = [*module._parameters, *module._buffers]
    # the tensors that a parametrised weight is computed from lie in a submodule
    return [name for name in module.state_dict() if name in own or name.startswith("parametrizations.")]


def recalibrate(network: nn.Module, layers: Sequence[str], images: Tensor) -> None:
    """Let batch normalisations take their mean and variance from images, as they would have in a training.

    Without it random weights would be combined with the statistics of the trained network, or with none, and
    activations would vanish from layer to layer.

    Args:
        network: in place.
        layers: which of its modules; others than batch normalisations stay as they are.
        images: (N, C, H, W), at least two.
    """
    modules = [network.get_submodule(layer) for layer in layers]
    norms = [module for module in modules if isinstance(module, _BatchNorm) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    try:
        with frozen(network), torch.no_grad():
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the mean over all batches
                norm.training = True
            for chunk in _chunks(images) if norms else ():
                network(chunk)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def spread_of_outputs(network: nn.Module, images: Tensor) -> float:
    """Standard deviation of the raw outputs over images, mean over the outputs: 0 for constant outputs.

    Args:
        network: gives (N, K) or (N,).
        images: (N, C, H, W), at least two.
    """
    with frozen(network), torch.no_grad():
        outputs = torch.cat([network(chunk).float().reshape(len(chunk), -1) for chunk in _chunks(images)])
    return float(outputs.std(0).mean())


def match_spread(network: nn.Module, layer: str, images: Tensor, wanted: float) -> tuple[float, float]:
    """Scale the weights of the last layer so that the outputs spread over images as far as those of a trained network.

    An initial network of many layers has nearly the same output for all images: what its maps show is that, and not
    that a map depends on weights.

    Args:
        network: in place.
        layer: name of its last layer; one without a ``weight`` is left as it is.
        images: see `spread_of_outputs`.
        wanted: the spread to reach.

    Returns:
        The spread before and after.
    """
    before = spread_of_outputs(network, images)
    module = network.get_submodule(layer)
    weight = current_weight(module)
    if weight is None or not before > 0:
        return before, before
    set_weight(module, "weight", weight * (wanted / before))
    return before, spread_of_outputs(network, images)


def trained_on_shuffled_labels(
    model: pl.LightningModule, network: nn.Module, path: str, argument: str = "shuffled_ckpt"
) -> Shuffled:
    """Read the network of a checkpoint that was trained on shuffled labels; the model is left as it is.

    Args:
        model: of the settings the checkpoint was made with.
        network: the part of it that is explained.
        path: a ``.ckpt`` file.
        argument: that names it, for messages.

    Raises:
        CheckpointError: see `load_weights`.
        MisconfigurationException: see `load_weights`.
    """
    before = {name: value.clone() for name, value in model.state_dict().items()}
    file = Path(path).expanduser()
    try:
        checkpoint = load_weights(model, file, argument)
        weights = {name: value.clone() for name, value in network.state_dict().items()}
    finally:
        model.load_state_dict(before)
    if not checkpoint.get("shuffled_labels"):
        rank_zero_warn(f"{argument}={path!r} does not say that it was trained with data.shuffle_labels: true")
    return Shuffled(weights, origin(file, model))


def builder(model: pl.LightningModule, network: str) -> Callable[[], nn.Module] | None:
    """Offer to make a model's network anew from its hyper-parameters; None where it has saved none.

    Args:
        model: whose class and hyper-parameters.
        network: name of its attribute that is the network; empty for the model itself.
    """
    if not model.hparams:
        return None

    def build() -> nn.Module:
        fresh = type(model)(**model.hparams)
        return getattr(fresh, network) if network else fresh

    return build


def _chunks(images: Tensor) -> tuple[Tensor, ...]:
    """Parts of nearly one size, so that none is a single image, of which a batch normalisation can learn nothing."""
    return torch.tensor_split(images, -(-len(images) // CHUNK))
