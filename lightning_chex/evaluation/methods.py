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
)
from lightning_chex.attribution.layers import feature_map_layers
from lightning_chex.attribution.unwrapping import named_layers
from lightning_chex.yaml_text import load_yaml

CONTROLS = ("EveryPixel", "RandomMap", "PriorMap", "LungField")
"""Maps that do not depend on the model; ``LungField`` where lungs are known. They are in every evaluation."""

_YAML = (".yaml", ".yml")

LAST_FEATURES = "features.norm5"
"""What DenseNet-121 pools at its end, the layer of Grad-CAM."""


def line_up(layer: str, score: bool, seed: int = 0) -> dict[str, Attributor]:
    """The methods of the paper's tables, as ``configs/attributor`` has them.

    Args:
        layer: where `IBA` and `InverseIBA` have their bottleneck.
        score: the model gives a score, not classes.
        seed: of the noise of the bottlenecks.
    """
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
    """The layer at which callbacks explain, of several that of a single-layer method first; else the default one."""
    found = [one.layers for one in attributors if isinstance(one, Attributor) and one.members]
    return min(found, key=lambda layers: len(layers) > 1)[-1] if found else IBA().layer


def choose_methods(
    names: Sequence[str] | None, layer: str, network: nn.Module, images: Tensor, score: bool, seed: int
) -> tuple[dict[str, Attributor], dict[str, str]]:
    """Build the methods to compare and see whether they suit the network.

    Args:
        names: of the line-up, or YAML files with a ``class_path`` and ``init_args``, whose method is called by the
            file's name; None for the whole line-up.
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
    known = line_up(layer, score, seed)
    if names is not None and not names:
        raise ValueError(f"methods={list(names)} names none: choose from {', '.join(known)}, or leave it out for all")
    methods, left_out = {}, {}
    for name in known if names is None else names:
        if name in CONTROLS:
            continue  # they always take part
        title, method = (name, known[name]) if name in known else (_title(name), _from_file(name, known))
        if title in methods or title in CONTROLS:
            raise ValueError(f"methods names {title} twice, or a file that is called like a control: rename the file")
        try:
            if title == "GradCAM" and title in known and not _has(network, LAST_FEATURES):
                with frozen(network):
                    method = GradCAM(feature_map_layers(network, images)[0])
            method.check_target(not score)
            method.check(network, images)
        except ValueError as error:
            if names is not None:
                raise ValueError(f"method {title}: {error}") from error
            left_out[title] = str(error)
            continue
        methods[title] = method
    if not methods and names is None:
        raise ValueError(f"no method suits this network: {left_out}; name YAML files with layers of it in methods")
    return methods, left_out


def _title(name: str) -> str:
    """What a file's method is called; maps and records lie in folders and files of that name."""
    title = Path(name).stem
    if Path(name).suffix in _YAML and not re.fullmatch(r"\w[\w.+ -]*", title):
        raise ValueError(f"method {name!r} has a file name that no folder can bear: letters, digits and - _ . + only")
    return title


def _has(network: nn.Module, layer: str) -> bool:
    return layer in named_layers(network)


def _from_file(name: str, known: dict[str, Attributor]) -> Attributor:
    path = Path(name).expanduser()
    if path.suffix not in _YAML:
        raise ValueError(f"method {name!r} is unknown: choose from {', '.join(known)}, or give a YAML file")
    try:
        settings = load_yaml(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(
            f"method {name!r} cannot be read ({error}): give a YAML file with class_path and init_args"
        ) from error
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Attributor, "method", required=True)
    try:
        with redirect_stderr(io.StringIO()):
            built = parser.instantiate_classes(parser.parse_object({"method": settings}))
    except Exception as error:  # the parser's own, or whatever the constructor raised
        raise ValueError(f"method {name!r} cannot be built: {' '.join(str(error).split())}") from error
    return built.method
