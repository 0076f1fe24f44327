"""The weights a training starts from, out of a file: whose they are, how they are named, and what of them fits."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from lightning_chex.checkpoints import CheckpointError, WeightsFile, read_weights
from lightning_chex.tasks.backbone import head_name
from lightning_chex.tasks.grey_input import CONVOLUTION, GREY_RANGE, MEAN, VARIANCE, from_grey, from_normalised
from lightning_chex.tasks.renamed import in_order

XRV_OUTPUTS = 18
"""Classes of torchxrayvision's networks."""

_OF_THE_LOSS = ("pos_weight", "op_threshs")
"""Last part of the name of a tensor that is no weight of the network: of a loss, or of outputs that are calibrated."""

_HEADS = ("fc", "classifier")
"""Last layers of classifiers whose other layers are an encoder."""

_OLD_NAMES = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(?=\d\.)")
"""Before 2018 torchvision's layers were ``norm.1`` and ``conv.2``."""

Shapes = dict[str, tuple[int, ...]]

Outputs = Mapping[str, Sequence[str]]
"""The names of a model's outputs as ``class_names`` or ``score_names``."""


@dataclass(frozen=True)
class _Head:
    """Last layer after loading: the tensors taken from the file, and the message about them."""

    tensors: dict[str, Tensor]
    said: str


def start_from(network: nn.Module, path: str, ours: Outputs) -> None:
    """Give a network the weights of a file, and say in one line what was adapted or begins anew.

    The names may have any prefix (``model.``, ``module.densenet121.``). Only these may differ from the network's:
    the head, whose size or classes may be others; the number of batches that batch norms have seen; the input layer of
    torchxrayvision's DenseNets, see `from_grey`. The encoder of a U-Net++ may start from a classifier of its family.
    A file with none of the network's names is taken for another implementation of it if all fits, see `in_order`; its
    images are then taken to be normalised as timm says of the network, and the input layer is adapted to ours.

    Args:
        network: in place; of timm, or a U-Net++.
        path: a checkpoint of a run, a state dict or a ``.safetensors`` file; nothing in it is executed.
        ours: what the network's outputs stand for.

    Raises:
        CheckpointError: the file cannot be used, or does not fit; it names the first tensors that do not.
    """
    file = read_weights(path)
    theirs = {_OLD_NAMES.sub(r"\1", name.replace("_orig_mod.", "")): value for name, value in file.tensors.items()}
    theirs = {name: value for name, value in theirs.items() if name.rpartition(".")[2] not in _OF_THE_LOSS}
    place = _located(network, theirs)
    adapted = ""
    if place is None:
        adapted = f"; its names, such as {_some(theirs)}, are others, but all fit in order by kind and shape"
        theirs = _renamed(network, path, theirs)
        place = (network, "")
        adapted += _adapt_range(network, theirs)
    part, prefix = place
    own = {name.removeprefix(prefix): value for name, value in theirs.items() if name.startswith(prefix)}
    others = [name for name in theirs if not name.startswith(prefix)]
    name = head_name(network) if part is network else next((name for name in _HEADS if f"{name}.weight" in own), "")
    head = {key: own.pop(key) for key in list(own) if name and key.startswith(f"{name}.")}
    state = part.state_dict()
    if _is_grey(own, state):
        _check_grey(path, file.tensors, head)
        own = from_grey(own, part.get_submodule(VARIANCE.rpartition(".")[0]).eps)  # type: ignore[arg-type]
        adapted += (
            f"; the input layer is adapted exactly from one channel of -{GREY_RANGE:.0f} to {GREY_RANGE:.0f} to ours"
        )
    wanted = {key: value for key, value in state.items() if not (name and key.startswith(f"{name}."))}
    _check_fits(path, type(part).__name__, own, wanted, others)
    if part is network:
        decided = _head(head, network.get_submodule(name), name, _names(file.rest.get("hyper_parameters")), ours)
        own |= decided.tensors
        said = decided.said
    else:
        said = "the encoder starts from it, the decoder anew"
    part.load_state_dict(state | own)
    rank_zero_info(f"weights={path!r} ({_origin(file)}): {said}{adapted}")
    if file.rest.get("shuffled_labels"):
        rank_zero_warn(f"weights={path!r} were trained with data.shuffle_labels: they know nothing of findings")


def check_one_start(weights: str | None, pretrained: bool) -> None:
    """Raise a ValueError if a network shall begin with the weights of a file and with fetched ones."""
    if weights is not None and pretrained:
        raise ValueError(f"weights={weights!r} and pretrained=True: a network begins with one of them, leave one out")


def _located(network: nn.Module, theirs: Mapping[str, Tensor]) -> tuple[nn.Module, str] | None:
    """Find the part of the network that a file is of, all of it or the encoder, and what stands before its names."""
    parts = [network, *(own for own in [getattr(network, "encoder", None)] if isinstance(own, nn.Module))]
    for part in parts:
        prefix = _prefix(theirs, part.state_dict())
        if prefix is not None:
            return part, prefix
    return None


def _renamed(network: nn.Module, path: str, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = in_order(theirs, network.state_dict(), head_name(network))
    if found.tensors is None:
        raise CheckpointError(
            f"weights={path!r} has none of the names of {type(network).__name__}, such as "
            f"{_some(network.state_dict())}; in the file: {_some(theirs)}. Nor does it fit in order: {found.misfit}. "
            "Give weights of the same backbone"
        )
    return found.tensors


def _adapt_range(network: nn.Module, theirs: dict[str, Tensor]) -> str:
    """Adapt the input layer, in place, to our images if timm says of this backbone that it sees others; say so."""
    known = getattr(network, "pretrained_cfg", None) or {}
    mean, std, layer = (known.get(key) for key in ("mean", "std", "first_conv"))
    if mean is None or std is None or (mean, std) == (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD):
        return ""
    kernel = theirs.get(f"{layer}.weight")
    if kernel is None or kernel.ndim != 4 or kernel.shape[1] != 3:
        return f"; timm says that its images have mean {mean} and deviation {std}, ours have ImageNet's"
    theirs[f"{layer}.weight"] = from_normalised(kernel, mean, std)
    return f"; the input layer is adapted exactly from images of mean {mean} and deviation {std}, timm's, to ours"


def _prefix(theirs: Iterable[str], ours: Mapping[str, Any]) -> str | None:
    """Return the prefix of the network's names in a file; of several candidates the one with most names."""
    found: Counter[str] = Counter()
    for name in theirs:
        parts = name.split(".")
        for i in range(len(parts)):
            if ".".join(parts[i:]) in ours:
                found["".join(f"{part}." for part in parts[:i])] += 1
    return max(found, key=lambda prefix: (found[prefix], -len(prefix)), default=None)


def _origin(file: WeightsFile) -> str:
    known = [(key, file.rest[key]) for key in ("epoch", "image_size") if isinstance(file.rest.get(key), int)]
    return ", ".join([f"{len(file.tensors)} tensors", *(f"{key.replace('_', ' ')} {value}" for key, value in known)])


def _head(theirs: dict[str, Tensor], layer: nn.Module, name: str, their_outputs: Outputs, ours: Outputs) -> _Head:
    """Decide on the head: kept if it is of the same size and, where both are known, of the same outputs."""
    wanted = {f"{name}.{key}": tuple(value.shape) for key, value in layer.state_dict().items()}
    # either may be a Linear in a Sequential, in front of a sigmoid or ReLU
    inner, wanted_inner = ({_without_sequence(key, name): key for key in keys} for keys in (theirs, wanted))
    tensors = theirs
    if inner.keys() == wanted_inner.keys():
        tensors = {wanted_inner[key]: theirs[inner[key]] for key in inner}
    outputs = ", ".join(next(iter(ours.values()), ()))
    if not tensors:
        return _Head({}, "it has no head, so a new one begins")
    if {key: tuple(value.shape) for key, value in tensors.items()} != wanted:
        there, here = _sizes(_shapes(tensors), wanted)
        sizes = f"{there} in the file, {here} here"
        return _Head({}, f"the head of another size ({sizes}) is replaced by a new one")
    if not their_outputs:
        unsure = f"; the file does not say what its outputs are, here: {outputs}" if outputs else ""
        return _Head(tensors, f"the head is kept{unsure}")
    if their_outputs == ours:
        return _Head(tensors, f"the head is kept, of the same outputs: {outputs}")
    said = ", ".join(next(iter(their_outputs.values())))
    return _Head({}, f"the head of other outputs ({said}; here: {outputs}) is replaced by a new one")


def _without_sequence(key: str, name: str) -> str:
    return f"{name}.{key.removeprefix(f'{name}.0.')}" if key.startswith(f"{name}.0.") else key


def _names(settings: Any) -> dict[str, list[str]]:
    known = settings if isinstance(settings, Mapping) else {}
    return output_names({key: value for key, value in known.items() if isinstance(value, list | tuple)})


def output_names(settings: Mapping[str, Any]) -> dict[str, list[str]]:
    """The names of classes or scores among the hyper-parameters of a task."""
    return {key: list(settings[key]) for key in ("class_names", "score_names") if settings.get(key)}


def _is_grey(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> bool:
    """Whether the input layer is a DenseNet's of one channel where the network's has three."""
    there = _shapes(theirs)
    here = _shapes(ours)
    kernel = here.get(CONVOLUTION, ())
    wanted = {CONVOLUTION: (*kernel[:1], 1, *kernel[2:]), MEAN: here.get(MEAN), VARIANCE: here.get(VARIANCE)}
    return kernel[1:2] == (3,) and all(there.get(name) == shape for name, shape in wanted.items())


def _check_grey(path: str, theirs: Mapping[str, Tensor], head: Mapping[str, Tensor]) -> None:
    thresholds = any(name.endswith("op_threshs") for name in theirs)
    if not thresholds and not any(len(value) == XRV_OUTPUTS for value in head.values() if value.ndim):
        raise CheckpointError(
            f"weights={path!r} is a DenseNet of one input channel, but not known to be one of torchxrayvision (by "
            f"op_threshs or {XRV_OUTPUTS} outputs), so the range of its images is unknown: convert its first layer to "
            "three channels of ImageNet's mean and deviation"
        )


def _check_fits(
    path: str, name: str, theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor], others: Sequence[str]
) -> None:
    """Raise a CheckpointError unless the tensors have the same names and shapes and there are no others."""
    there = _shapes(theirs)
    here = _shapes(ours)
    # how many batches a batch norm has seen was not kept before 2018
    missing = [key for key in here if key not in there and not key.endswith("num_batches_tracked")]
    unexpected = [*(key for key in there if key not in here), *others]
    differing = [f"{key} {there[key]}, here {here[key]}" for key in here if there.get(key, here[key]) != here[key]]
    groups = {"missing": missing, "unexpected": unexpected, "of another shape": differing}
    odd = [f"{len(keys)} {what}: {_some(keys)}" for what, keys in groups.items() if keys]
    if odd:
        raise CheckpointError(
            f"weights={path!r} does not fit this {name}: {'; '.join(odd)}. Give weights of the same backbone"
        )


def _shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(value.shape) for name, value in tensors.items()}


def _sizes(one: Shapes, other: Shapes) -> list[str]:
    """The sizes of the weights of two layers; of the biases too where the weights are alike."""
    weights = [max(shapes.values(), key=len) for shapes in (one, other)]
    if weights[0] != weights[1]:
        return [str(list(weight)) for weight in weights]
    return [" and ".join(str(list(shape)) for shape in shapes.values()) for shapes in (one, other)]


def _some(names: Iterable[str]) -> str:
    first = list(names)
    return ", ".join(first[:3]) + (", ..." if len(first) > 3 else "")
