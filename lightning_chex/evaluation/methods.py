"""The methods an evaluation compares: the paper's line-up, or files that name others."""

import io
import re
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from lightning_chex.attribution import (
    IBA,
    LRP,
    Attributor,
    GradCAM,
    Gradient,
    IntegratedGradients,
    InverseIBA,
    MultiLayerIBA,
    frozen,
    layer_learners,
)
from lightning_chex.attribution.network.layers import feature_map_layers
from lightning_chex.attribution.network.unwrapping import named_layers
from lightning_chex.yaml_text import load_yaml

CONTROLS = ("EveryPixel", "RandomMap", "PriorMap", "LungField")
"""Names of the maps that do not depend on the model, which every evaluation has; ``LungField`` if lungs are known."""

# a name with another suffix is looked for in the line-up alone
_YAML = (".yaml", ".yml")

LAST_FEATURES = "features.norm5"
"""Last feature map of DenseNet-121, the layer of Grad-CAM."""


def line_up(layer: str, score: bool, seed: int = 0) -> dict[str, Attributor]:
    """The methods of the paper's tables, as ``configs/attributor`` has them.

    Args:
        layer: where `IBA` and `InverseIBA` have their bottleneck.
        score: the model gives a score, not classes.
        seed: of the noise of the bottlenecks.
    """
    # the same for classes and scores, since they only follow the gradient of an output
    backward: dict[str, Attributor] = {
        "GradCAM": GradCAM(LAST_FEATURES),
        "IntegratedGradients": IntegratedGradients(),
        "Gradient": Gradient(),
        "LRP": LRP(),
    }
    if score:
        return {
            "RegressionIBA_DV": IBA(layer, objective="deviation", seed=seed),
            "RegressionIBA_MSE": IBA(layer, objective="squared_error", seed=seed),
            "RegressionIBA_RM": IBA(layer, objective="maximize_score", seed=seed),
            "RegressionInverseIBA": InverseIBA(layer, objective="deviation", seed=seed),
            "MultiLayerIBA": MultiLayerIBA(objective="deviation", seed=seed),
            **backward,
        }
    return {
        "IBA": IBA(layer, seed=seed),
        "InverseIBA": InverseIBA(layer, seed=seed),
        "MultiLayerIBA": MultiLayerIBA(seed=seed),
        **backward,
    }


def bottleneck_layer(attributors: Iterable[Attributor | None]) -> str:
    """Return the layer at which callbacks explain: of a single-layer method if there is one, else the default layer."""
    single: list[str] = []
    several: list[str] = []
    for attributor in attributors:
        if not isinstance(attributor, Attributor) or not layer_learners(attributor):
            continue  # it has no bottleneck
        candidates = several if len(attributor.layers) > 1 else single
        candidates.append(attributor.layers[-1])
    return next(iter(single + several), IBA().layer)


def choose_methods(
    names: Sequence[str] | None, layer: str, network: nn.Module, images: Tensor, score: bool, seed: int
) -> tuple[dict[str, Attributor], dict[str, str]]:
    """Build the methods to compare, and check that they suit the network.

    Args:
        names: of the line-up, or YAML files with a ``class_path`` and ``init_args``, whose method gets the file's
            name; None for the whole line-up.
        layer: where IBA has its bottleneck.
        network: to explain.
        images: one image at least, (B, C, H, W), to try.
        score: the network gives a score, not classes.
        seed: of the noise of the bottlenecks.

    Returns:
        The methods by name, and why others of the line-up were left out; one that was named is never left out.

    Raises:
        ValueError: an unknown name, a file that builds no method, or a named method that does not suit the network.
    """
    built_in = line_up(layer, score, seed)
    # an empty list is more likely a mistake than the wish for controls alone
    if names is not None and not names:
        raise ValueError(f"methods={list(names)} is empty: choose from {', '.join(built_in)}, or leave it out for all")
    methods: dict[str, Attributor] = {}
    left_out: dict[str, str] = {}
    for name in built_in if names is None else names:
        if name in CONTROLS:
            continue  # every evaluation has them
        title = name if name in built_in else _title(name)
        method = built_in[name] if name in built_in else _from_file(name, built_in)
        if title in methods or title in CONTROLS:
            raise ValueError(f"methods has {title} twice, or a file with the name of a control: rename the file")
        try:
            if title == "GradCAM" and title in built_in:
                method = _grad_cam(network, images)
            method.check_target(not score)
            method.check(network, images)
        except ValueError as error:
            # a method the user named is an error; one of the default line-up is left out
            if names is not None:
                raise ValueError(f"method {title}: {error}") from error
            left_out[title] = str(error)
            continue
        methods[title] = method
    if not methods and names is None:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise ValueError(f"no method suits this network ({reasons}): give YAML files with layers of it as methods")
    return methods, left_out


def _grad_cam(network: nn.Module, images: Tensor) -> Attributor:
    """Grad-CAM at the last feature map of a network."""
    if LAST_FEATURES in named_layers(network):
        return GradCAM(LAST_FEATURES)
    # another network than DenseNet-121, whose layers have other names
    with frozen(network):
        return GradCAM(feature_map_layers(network, images)[0])


def _title(name: str) -> str:
    """Name of the method of a file, which is also that of a folder of maps and of files of records."""
    title = Path(name).stem
    if Path(name).suffix in _YAML and not re.fullmatch(r"\w[\w.+ -]*", title):
        raise ValueError(
            f"method {name!r} has a file name that is not allowed for a folder: use letters, digits and - _ . + only"
        )
    return title


def _from_file(name: str, built_in: Iterable[str]) -> Attributor:
    """Build the method of a YAML file.

    Args:
        name: path of the file.
        built_in: names of the line-up, for messages.
    """
    path = Path(name).expanduser()
    if path.suffix not in _YAML:
        raise ValueError(f"method {name!r} is unknown: choose from {', '.join(built_in)}, or give a YAML file")
    try:
        settings = load_yaml(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(
            f"method {name!r} cannot be read ({error}): give a YAML file with class_path and init_args"
        ) from error
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Attributor, "method", required=True)
    try:
        # the parser prints its usage before it raises
        with redirect_stderr(io.StringIO()):
            built = parser.instantiate_classes(parser.parse_object({"method": settings}))
    except Exception as error:  # the parser's own error, or any that the constructor raised
        raise ValueError(f"method {name!r} cannot be built: {' '.join(str(error).split())}") from error
    return built.method
