"""What every section of the page is built from."""

from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element

from lightning_chex.reporting.evaluation import Curve
from lightning_chex.reporting.report.markup import Child, element
from lightning_chex.reporting.results import Results


def section(anchor: str, title: str, how_to_read: str, *content: Child) -> Element:
    """A heading, two sentences on how to read what follows, and what follows."""
    return element(
        "section",
        element("h2", title),
        element("p", element("b", "How to read this. "), how_to_read, class_="how"),
        *content,
        id=anchor,
    )


def figures(caption: str, charts: Sequence[Element], legend: Element) -> Element:
    """Charts side by side where there is room, with one caption and one legend: beside one chart, below several."""
    beside = [legend] if len(charts) == 1 else []
    return element(
        "figure",
        element("div", *charts, *beside, class_="charts"),
        None if beside else legend,
        element("figcaption", caption),
    )


def details(title: str, *content: Child) -> Element:
    """Something to be unfolded; printed in full."""
    return element("details", element("summary", title), *content)


def explained(results: Results, keys: Sequence[str]) -> Element | None:
    """What the measures are, in the words that came with them."""
    known = [(key, results.measures.get(key, {})) for key in keys]
    items = [
        part
        for key, measure in known
        if measure.get("explanation")
        for part in (
            element("dt", results.title(key), _direction(measure.get("better"))),
            element("dd", str(measure["explanation"])),
        )
    ]
    return details("What these measures are", element("dl", *items)) if items else None


def curves_named(curves: Sequence[Curve], name: str, results: Results) -> list[Curve]:
    """The curves of one kind with a value, methods first, in the order of the tables."""
    found = {c.method: c for c in curves if c.name == name and any(v is not None and v == v for v in c.value)}
    return [found[method] for method in results.names if method in found]


def counted(numbers: Iterable[int]) -> str:
    """How many values means rest on, in a few letters; those of nothing are left out.

    Example:
        >>> counted([29, 29, 0]), counted([2, 29]), counted([])
        ('n = 29', 'n = 2 to 29', 'n = 0')
    """
    known = [number for number in numbers if number] or [0]
    low, high = min(known), max(known)
    return f"n = {low:,}" if low == high else f"n = {low:,} to {high:,}"


def counted_of(curves: Iterable[Curve]) -> str:
    """The same for curves."""
    return counted(number for curve in curves for number in curve.n)


def _direction(better: object) -> Element | None:
    return element("i", f" ({better} is better)") if better in ("higher", "lower") else None
