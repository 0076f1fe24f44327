"""HTML and SVG as trees: text is escaped on the way out, whatever it holds, and tags always close."""

from xml.etree.ElementTree import Element, tostring

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
