"""Re-initialised and label-shuffled networks for sanity checks."""

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
from lightning_chex.attribution.network.recomputed import current_weight, deep_copy, reset_parameters, set_weight
from lightning_chex.evaluation.subject import Shuffled, Weights
from lightning_chex.maps import load_weights, origin

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Shares of the layers that are re-initialised, from the output down, after the stage of the last layer alone."""

CHUNK = 16
"""Images in a forward pass of recalibration."""


def layers_from_top(network: nn.Module, images: Tensor) -> list[str]:
    """Names of the modules with weights of their own, in the reverse order of their last call.

    Args:
        network: run once.
        images: (B, C, H, W).
    """
    called: dict[str, None] = {}

    def recording(name: str) -> Callable[[nn.Module, Any], None]:
        def record(module: nn.Module, inputs: Any) -> None:
            # a module that is called twice counts where it is called last
            called.pop(name, None)
            called[name] = None

        return record

    with ExitStack() as stack, frozen(network), torch.no_grad():
        for name, module in network.named_modules():
            if next(module.parameters(recurse=False), None) is not None:
                stack.callback(module.register_forward_pre_hook(recording(name)).remove)
        network(images)
    return list(reversed(called))


def stages(count: int) -> list[int]:
    """Number of re-initialised layers, from the top, at each stage: the last alone, then each of ``SHARES``.

    Example:
        >>> stages(121)
        [1, 30, 60, 91, 121]
        >>> stages(2)
        [1, 2]
    """
    if not count:
        return []
    # a set: in a network of few layers several shares are the same number
    return sorted({1, *(max(1, round(share * count)) for share in SHARES)})


def initial_weights(network: nn.Module, build: Callable[[], nn.Module] | None, seed: int) -> tuple[Weights, str]:
    """Draw the weights with which a training of this network would begin; the global random state is left as it is.

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
    """Replace weights and buffers within the context; after it they are bit for bit the former ones.

    Args:
        network: changed in place.
        weights: of all layers.
        layers: the modules that get them, without the modules within; None for all.
    """
    state = network.state_dict()
    # of everything: a forward pass within the context may change buffers of other layers
    kept = {name: value.clone() for name, value in state.items()}
    if layers is not None:
        names = []
        for layer in layers:
            prefix = f"{layer}." if layer else ""  # the network itself has an empty name
            names += [prefix + name for name in _direct_state(network, layer)]
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


def _direct_state(network: nn.Module, layer: str) -> list[str]:
    """Names of the tensors of a module without those of the modules within it."""
    module = network.get_submodule(layer)
    direct = [*module._parameters, *module._buffers]
    # the tensors that a parametrised weight is computed from lie in a submodule
    return [name for name in module.state_dict() if name in direct or name.startswith("parametrizations.")]


def recalibrate(network: nn.Module, layers: Sequence[str], images: Tensor) -> None:
    """Estimate mean and variance of batch normalisations from images, as a training would.

    Without it random weights would be combined with the statistics of the trained network, or with none, and
    activations would vanish from layer to layer.

    Args:
        network: changed in place.
        layers: names of modules; others than batch normalisations are left as they are.
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
            if norms:
                for chunk in _chunks(images):
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

    A deep network with initial weights has nearly the same output for all images. Its maps would change for that
    reason, which is no evidence that maps depend on weights.

    Args:
        network: changed in place.
        layer: name of its last layer; one without a ``weight`` is left as it is.
        images: see `spread_of_outputs`.
        wanted: the spread to reach.

    Returns:
        The spread before and after.
    """
    before = spread_of_outputs(network, images)
    module = network.get_submodule(layer)
    weight = current_weight(module)
    # a constant output cannot be scaled; "not >" covers NaN too
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
        argument: name of the option that gives the path, for messages.

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
        rank_zero_warn(
            f"{argument}={path!r} was not saved by a training with data.shuffle_labels: true: the check may be "
            "meaningless"
        )
    return Shuffled(weights, origin(file, model))


def builder(model: pl.LightningModule, network: str) -> Callable[[], nn.Module] | None:
    """Return a function that builds a model's network again from its hyper-parameters; None if it has saved none.

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
    """Split into parts of nearly equal size: a single image has no variance for a batch normalisation."""
    return torch.tensor_split(images, -(-len(images) // CHUNK))
