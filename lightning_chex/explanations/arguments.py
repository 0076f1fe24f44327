"""Checks of the arguments of the callbacks that explain."""

import re
from collections.abc import Sequence
from typing import Any, get_args

from pytorch_lightning.utilities.exceptions import MisconfigurationException

from lightning_chex.attribution import IBA, Attributor
from lightning_chex.maps import Regions


def methods_by_name(
    name: str, attributor: Attributor | None, attributors: dict[str, Attributor] | None
) -> dict[str, Attributor]:
    """Attribution methods by name, from the two arguments of which a user sets one.

    Raises:
        ValueError: both arguments are set, ``attributors`` is empty, or a name is not usable in keys and file names.
    """
    if attributors is None:
        return {name: IBA() if attributor is None else attributor}
    if attributor is not None or not attributors:
        raise ValueError("set either attributor (a single method) or attributors (one or more methods by name)")
    for method in attributors:
        if not re.fullmatch(r"[A-Za-z0-9][\w-]*", method):
            raise ValueError(
                f"attributors: the name {method!r} is used in keys and file names: use letters, digits, _ and - only"
            )
    return dict(attributors)


def check_choice(argument: str, value: str, kind: Any) -> None:
    """Raise a ValueError unless a value is one of those of a ``Literal``."""
    choices = get_args(kind)
    if value not in choices:
        raise ValueError(f"{argument}={value!r} is unknown; choose {', '.join(choices)}")


def check_arguments(
    num_images: int,
    every_n_epochs: int,
    batch_size: int,
    top_fraction: float,
    regions: str,
    time_budget: float | None,
) -> None:
    """Raise a ValueError that names the first argument of an `IBACallback` that is out of its range."""
    if num_images < 1 and num_images != -1:
        raise ValueError(f"num_images={num_images} must be at least 1, or -1 for all")
    for argument, value in (("every_n_epochs", every_n_epochs), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{argument}={value} must be at least 1")
    check_choice("regions", regions, Regions)
    if not 0 < top_fraction <= 1:
        raise ValueError(f"top_fraction={top_fraction} must lie in (0, 1]")
    # "not >" instead of "<=", so that NaN is refused too
    if time_budget is not None and not time_budget > 0:
        raise ValueError(f"time_budget={time_budget} must be greater than 0 seconds, or null for none")


def check_method_names(names: Sequence[str]) -> None:
    """Raise a MisconfigurationException if two methods, of one or several callbacks, would log the same keys."""
    for name in names:
        if names.count(name) > 1:
            raise MisconfigurationException(
                f"two methods would log val/{name}_iou: give each IBACallback a name of its own (name: ...), or pass "
                "all methods to one of them (attributors: {NAME: ..., NAME: ...})"
            )
