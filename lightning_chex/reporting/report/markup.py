"""HTML as trees of elements, whose text is escaped when written, and the blocks every section is built from."""

from collections.abc import Iterable, Sequence
from xml.etree.ElementTree import Element, tostring

from lightning_chex.reporting.results import Curve, Results

Child = Element | str | None


def element(tag: str, *children: Child, **attributes: object) -> Element:
    """One element with its children; attributes of None are left out.

    Args:
        tag: its name.
        children: elements and texts in order; None is left out.
        attributes: ``class_`` becomes ``class``, ``stroke_width`` becomes ``stroke-width``.

    Example:
        >>> to_html(element("p", "a < b", element("b", "!"), class_="note"))
        '<p class="note">a &lt; b<b>!</b></p>'
    """
    made = Element(tag)
    for name, value in attributes.items():
        if value is not None:
            made.set(name.rstrip("_").replace("_", "-"), f"{value:.6g}" if isinstance(value, float) else str(value))
    for child in children:
        if isinstance(child, Element):
            made.append(child)
        elif child and len(made):
            made[-1].tail = (made[-1].tail or "") + child
        elif child:
            made.text = (made.text or "") + child
    return made


def to_html(tree: Element) -> str:
    """Write a tree as HTML."""
    return tostring(tree, encoding="unicode", method="html")


def section(anchor: str, title: str, how_to_read: str, *content: Child) -> Element:
    """A section with its heading and instructions for reading it."""
    return element(
        "section",
        element("h2", title),
        element("p", element("b", "How to read this. "), how_to_read, class_="how"),
        *content,
        id=anchor,
    )


def figures(caption: str, charts: Sequence[Element], legend: Element) -> Element:
    """Charts side by side where there is room, with a caption and a legend, beside a single chart or below several."""
    beside = [legend] if len(charts) == 1 else []
    return element(
        "figure",
        element("div", *charts, *beside, class_="charts"),
        None if beside else legend,
        element("figcaption", caption),
    )


def details(title: str, *content: Child) -> Element:
    """Content that is folded on screen and printed in full."""
    return element("details", element("summary", title), *content)


def explained(results: Results, keys: Sequence[str]) -> Element | None:
    """The explanations of measures, folded; None without any."""
    items = [
        part
        for key in keys
        if key in results.measures and (explanation := results.measures[key].explanation)
        for part in (element("dt", results.title(key), _direction(results.better(key))), element("dd", explanation))
    ]
    return details("What these measures are", element("dl", *items)) if items else None


def curves_named(curves: Sequence[Curve], name: str, results: Results) -> list[Curve]:
    """The curves of one kind with a value, methods first, in the order of the tables."""
    found = {curve.method: curve for curve in curves if curve.name == name and any(mean.known for mean in curve.means)}
    return [found[method] for method in results.names if method in found]


def counted(numbers: Iterable[int]) -> str:
    """How many values means rest on; means of nothing are left out.

    Example:
        >>> counted([29, 29, 0]), counted([2, 29]), counted([])
        ('n = 29', 'n = 2 to 29', 'n = 0')
    """
    known = [number for number in numbers if number] or [0]
    low, high = min(known), max(known)
    return f"n = {low:,}" if low == high else f"n = {low:,} to {high:,}"


def _direction(better: str | None) -> Element | None:
    return element("i", f" ({better} is better)") if better else None
