"""The description of an attribution method for people: title, colour in charts and explanation."""

from dataclasses import dataclass

COLORS = ("blue", "orange", "green", "purple", "ochre", "sky", "brown", "indigo", "olive")
"""Colours that methods may choose; each has a light and a dark tone and a marker of its own in charts."""


@dataclass(frozen=True)
class MethodDescription:
    """Facts about a method that reports show.

    Attributes:
        title: its name for people.
        color: one of `COLORS`; None for one that no other method of the report has chosen.
        description: one or two sentences; empty if nothing is known.
    """

    title: str
    color: str | None = None
    description: str = ""
