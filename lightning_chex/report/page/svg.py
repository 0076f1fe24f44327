"""matplotlib's figures as SVG elements of a page, in the page's colours and font."""

import io
import re
from collections.abc import Mapping
from xml.etree.ElementTree import Element, fromstring, tostring

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

# variables of style.css; matplotlib draws each with a placeholder colour
_VARIABLES = ("paper", "ink", "soft", "line", *(f"s{k}" for k in range(9)), *(f"c{k}" for k in range(4)))
_PLACEHOLDER = re.compile("#00([0-9a-f]{2})fe")


def element(tag: str, *children: Element | str | None, **attributes: object) -> Element:
    """Build an element with its children; children and attributes of None are left out.

    Args:
        tag: its name.
        children: elements and texts in order.
        attributes: ``class_`` becomes ``class``, ``stroke_width`` becomes ``stroke-width``.

    Example:
        >>> str(to_markup(element("text", "a < b", class_="label")))
        '<text class="label">a &lt; b</text>'
    """
    made = Element(tag)
    for name, value in attributes.items():
        if value is not None:
            made.set(name.rstrip("_").replace("_", "-"), str(value))
    for child in children:
        if isinstance(child, Element):
            made.append(child)
        elif child and len(made):
            made[-1].tail = (made[-1].tail or "") + child
        elif child:
            made.text = (made.text or "") + child
    return made


def to_markup(tree: Element) -> Markup:
    """Write a drawing for a template, which does not escape it once more: its texts are escaped here."""
    return Markup(tostring(tree, encoding="unicode", method="html"))


def color(variable: str) -> str:
    """The placeholder colour that becomes a variable of ``style.css``."""
    return f"#00{_VARIABLES.index(variable):02x}fe"


def drawing(figure: Figure) -> list[Element]:
    """Return the contents of a figure's SVG, with colours of the page; without ids, as one page has many figures."""
    buffer = io.BytesIO()
    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(False)
    with rc_context({"svg.fonttype": "none", "path.simplify": False}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = fromstring(buffer.getvalue())
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2]
    shapes = {node.get("id", ""): node for node in root.iter("path")}
    return [made for node in root.findall("g") if (made := _plain(node, shapes)) is not None]


def _plain(node: Element, shapes: Mapping[str, Element]) -> Element | None:
    """Copy a node of matplotlib's SVG: shapes in place of references, classes and a title in place of ids.

    A group's id ``classes|title`` comes from its artist's gid; groups without one keep matplotlib's name as class. None
    for what draws nothing.
    """
    if node.tag == "defs" or (node.tag == "path" and "d" not in node.attrib):
        return None
    if node.tag == "use":
        shape = shapes[next(own for name, own in node.items() if name.endswith("href"))[1:]]
        style = f"{shape.get('style', '')};{node.get('style')}"
        place = f"translate({_rounded(node.get('x', '0'))} {_rounded(node.get('y', '0'))})"
        return element("path", d=_rounded(shape.get("d", "")), style=_themed(style), transform=place)
    children = [made for child in node if (made := _plain(child, shapes)) is not None]
    if node.tag == "g" and not children:
        return None
    css, _, title = node.get("id", "").partition("|")
    places = {name: _rounded(own) for name, own in node.items() if name in ("d", "x", "y", "transform")}
    return element(
        node.tag,
        element("title", title) if title else None,
        node.text if node.tag == "text" else None,
        *children,
        class_=re.sub(r"_\d+$", "", css) or None,
        style=_themed(node.get("style", "")) or None,
        **places,
    )


def _rounded(numbers: str) -> str:
    return re.sub(
        r"-?\d+\.\d+", lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), " ".join(numbers.split())
    )


def _themed(style: str) -> str:
    """Colours as CSS variables, and text in the font of the page."""
    colored = _PLACEHOLDER.sub(lambda found: f"var(--{_VARIABLES[int(found[1], 16)]})", style)
    return re.sub(r"font-family: [^;]*;?", "", colored).replace("; ", ";").strip("; ")
