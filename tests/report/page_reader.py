"""A strict reader of the report: every tag closes in its turn, and elements can be searched."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "br", "hr", "img", "input"}


@dataclass
class Node:
    tag: str
    attributes: dict[str, str | None] = field(default_factory=dict)
    children: list["Node | str"] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self, tag: str, css: str | None = None) -> Iterator["Node"]:
        """Elements below, by tag and class, in the order of the page."""
        for child in self.children:
            if isinstance(child, Node):
                if child.tag == tag and (css is None or css in (child.attributes.get("class") or "").split()):
                    yield child
                yield from child.all(tag, css)

    def everything(self) -> Iterator["Node"]:
        for child in self.children:
            if isinstance(child, Node):
                yield child
                yield from child.everything()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Node("page")]

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        made = Node(tag, dict(attrs))
        self.open[-1].children.append(made)
        if tag not in VOID:
            self.open.append(made)

    def handle_endtag(self, tag):
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].children.append(data)


def read_page(path: Path) -> Node:
    """Parse a page, or fail where a tag does not close."""
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    (root,) = reader.open
    return root


def rows(table: Node) -> dict[str, list[str]]:
    """First cell of a row -> texts of the others."""
    made = {}
    for row in table.all("tr"):
        cells = [cell for cell in row.children if isinstance(cell, Node)]
        made[cells[0].text] = [cell.text for cell in cells[1:]]
    return made
