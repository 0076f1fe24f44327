"""Fitting of the methods, saved so that a resumed evaluation makes the same maps."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from lightning_chex.attribution import Attributor
from lightning_chex.evaluation.plan import Plan
from lightning_chex.evaluation.results import write_json
from lightning_chex.files import write_whole
from lightning_chex.json_text import load_json
from lightning_chex.maps import feature_statistics, training_batches


@dataclass(frozen=True)
class FittedMethods:
    """Methods after fitting.

    Attributes:
        methods: by name, fitted.
        unfitted: the same methods as they were before, for networks that they have to be fitted to again.
        left_out: why methods could not be fitted, by name.
        layers: for each layer how many images its statistics rest on, and where these came from.
    """

    methods: dict[str, Attributor]
    unfitted: dict[str, Attributor]
    left_out: dict[str, str]
    layers: dict[str, Any]


def fit_methods(
    methods: Mapping[str, Attributor], plan: Plan, example: Tensor, folder: Path, are_named: bool
) -> FittedMethods:
    """Fit methods, or load the state that was saved before an interruption.

    Args:
        methods: by name; fitted in place.
        plan: with the model, and the data that offer training images, if there are any.
        example: an image to explain, (1, C, H, W).
        folder: of the evaluation.
        are_named: the user named these methods, so none may be left out.

    Raises:
        ValueError: a named method has no images to be fitted on.
    """
    unfitted = copy.deepcopy(dict(methods))
    statistics = folder / "statistics"
    origins = statistics / "statistics.json"
    recorded = _read_layers(origins)  # before the fit, so that a damaged file is found before long work
    files = {name: statistics / f"{name}.safetensors" for name in methods}
    waiting = {}
    for name, method in methods.items():
        if files[name].exists():
            method.load_state_dict(load_file(files[name]))
        else:
            waiting[name] = method
    batches = None
    if any(_needs_fit(method) for method in waiting.values()):
        batches = training_batches(plan.data, plan.settings.statistics_images, plan.settings.seed)
    fitted = feature_statistics(plan.subject.network, waiting, plan.subject.saved, batches, image=example)
    for name, reason in fitted.unfitted.items():
        if are_named:
            raise ValueError(
                f"method {name}: {reason}: leave it out of methods, or give a data root with training images"
            )
    kept = {name: method for name, method in methods.items() if name not in fitted.unfitted}
    layers = recorded | fitted.layers
    statistics.mkdir(exist_ok=True)
    for name, method in waiting.items():
        if name in kept and method.num_observed is not None:
            state = {key: value.contiguous() for key, value in method.state_dict().items()}
            write_whole(files[name], save(state), sync=True)
    # last: the file names the origin of statistics that are all on disk
    write_json(origins, layers)
    return FittedMethods(kept, {name: unfitted[name] for name in kept}, dict(fitted.unfitted), layers)


def _needs_fit(method: Attributor) -> bool:
    # a variance needs two images
    return method.num_observed is not None and method.num_observed < 2


def _read_layers(path: Path) -> dict[str, Any]:
    """Origins of the statistics of an earlier call; empty if there is none."""
    if not path.exists():
        return {}
    try:
        return load_json(path)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): remove {path.parent} to fit the statistics again") from error
