"""Subgroups of patients: by sex, by age and by the view of the image, as tables tell them."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

ATTRIBUTES = ("sex", "age", "view")

AGES = (18, 40, 60, 80)
"""Where a new band of ages begins, years."""

_SEXES = {"m": "M", "male": "M", "f": "F", "female": "F"}


def age_band(years: float) -> str:
    """Name the band of an age in years, such as ``40-59``; empty where it is not known.

    Example:
        >>> age_band(58), age_band(95), age_band(3)
        ('40-59', '80-', '0-17')
    """
    if not np.isfinite(years):
        return ""
    start = max([0, *(bound for bound in AGES if bound <= years)])
    end = min((bound for bound in AGES if bound > years), default=None)
    return f"{start}-{'' if end is None else end - 1}"


def subgroups_of(images: pd.DataFrame) -> list[dict[str, str]] | None:
    """Say to which subgroups each image belongs.

    Args:
        images: a row an image; columns ``sex`` and ``view`` (text) and ``age`` (years) count, where there are some.

    Returns:
        for each image the name of its group by each of the columns, empty where it is not known; None without columns.
    """
    known = [name for name in ATTRIBUTES if name in images]
    if not known:
        return None
    named = pd.DataFrame({name: images[name].map(dict(_named(name, images[name]))) for name in known})
    return named.to_dict("records")  # type: ignore[return-value]  # of text


def _named(attribute: str, values: pd.Series) -> Iterator[tuple[object, str]]:
    for value in values.unique():
        if attribute == "age":
            yield value, age_band(float(value))
        else:
            text = "" if pd.isna(value) else str(value).strip()
            yield value, _SEXES.get(text.lower(), text) if attribute == "sex" else text.upper()
