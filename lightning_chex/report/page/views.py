"""View objects of the page: plain values that the templates show, without any HTML but the charts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from markupsafe import Markup

from lightning_chex.estimates import Estimate
from lightning_chex.report.results import Curve, Results, format_number


@dataclass(frozen=True)
class Heading:
    """The heading of one or several columns.

    Attributes:
        text: of the heading.
        small: below it in small print.
        css: class of its cell.
        span: number of columns it stands above.
    """

    text: str
    small: str = ""
    css: str = ""
    span: int = 1


@dataclass(frozen=True)
class Cell:
    """One value of a table.

    Attributes:
        value: as text.
        small: below it in small print.
        bold: whether it is set bold.
        sign: directly after it.
        css: class of the cell.
    """

    value: str
    small: str = ""
    bold: bool = False
    sign: str = ""
    css: str = ""


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        name: in its first column.
        cells: in the others.
        link: address of a page about it; empty for none.
    """

    name: str
    cells: Sequence[Cell]
    link: str = ""


@dataclass(frozen=True)
class RowGroup:
    """Rows below a common heading.

    Attributes:
        rows: in order.
        title: the heading; empty for none.
        css: class of the group.
    """

    rows: Sequence[Row]
    title: str = ""
    css: str = ""


@dataclass(frozen=True)
class Table:
    """A table that scrolls by itself, with a caption above it and notes below.

    Attributes:
        caption: above the table.
        headings: of its columns, without the first one, which holds names.
        groups: its rows.
        notes: sentences below it.
        heading_groups: a row of headings above ``headings``, which span neighbouring columns; may be empty.
        name_heading: of the first column.
        summary: text to click on where the table is folded; empty for the caption.
    """

    kind: ClassVar[str] = "table"

    caption: str
    headings: Sequence[Heading]
    groups: Sequence[RowGroup]
    notes: Sequence[str] = ()
    heading_groups: Sequence[Heading] = ()
    name_heading: str = "method"
    summary: str = ""


@dataclass(frozen=True)
class LegendItem:
    """One method in a legend.

    Attributes:
        name: of the method or control.
        sample: SVG of its line and marker.
        control: whether it is a control.
    """

    name: str
    sample: Markup
    control: bool


@dataclass(frozen=True)
class Figure:
    """Charts side by side where there is room, with a caption and one legend.

    Attributes:
        caption: below the charts.
        charts: as SVG.
        legend: the methods in them.
    """

    kind: ClassVar[str] = "figure"

    caption: str
    charts: Sequence[Markup]
    legend: Sequence[LegendItem]


@dataclass(frozen=True)
class Entry:
    """A term with its meaning.

    Attributes:
        term: that is explained.
        text: its meaning.
        note: in brackets after the term; empty for none.
    """

    term: str
    text: str
    note: str = ""


@dataclass(frozen=True)
class Entries:
    """Terms with their meanings as a block of a section."""

    kind: ClassVar[str] = "entries"

    entries: Sequence[Entry]


@dataclass(frozen=True)
class Outline:
    """A region drawn over a picture as lines; ``path`` is SVG's path data in pixels, ``css`` the class."""

    path: str
    css: str


@dataclass(frozen=True)
class Box:
    """A box drawn over a picture; in pixels, as text."""

    x: str
    y: str
    width: str
    height: str


@dataclass(frozen=True)
class Score:
    """A number written over a picture; its place and size in pixels, as text."""

    text: str
    x: str
    y: str
    size: str


@dataclass(frozen=True)
class Picture:
    """An X-ray or a map over it.

    Attributes:
        name: below the picture.
        value: below the name; empty for none.
        css: class of the figure: ``xray``, ``method`` or ``control``.
        source: the picture as a data address.
        width: in pixels of the image.
        height: in pixels of the image.
        label: description for screen readers.
        outlines: regions drawn over it.
        boxes: boxes drawn over it.
        scores: numbers written over it.
    """

    name: str
    value: str
    css: str
    source: str
    width: int
    height: int
    label: str
    outlines: Sequence[Outline]
    boxes: Sequence[Box]
    scores: Sequence[Score]


@dataclass(frozen=True)
class Example:
    """One explained image with the maps of every method."""

    kind: ClassVar[str] = "example"

    title: str
    facts: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Tree:
    """Nested settings: a text, a list, or terms with their values, of which one kind is filled.

    Attributes:
        text: of a leaf.
        items: of a list.
        terms: of a mapping, in order.
    """

    kind: ClassVar[str] = "tree"

    text: str = ""
    items: Sequence["Tree"] = ()
    terms: Sequence[tuple[str, "Tree"]] = ()


Block = Table | Figure | Entries | Example | Tree
"""A part of a section; templates tell them apart by ``kind``."""


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        anchor: its id, for links; the template ``how_to_read/<anchor>.html`` says how to read it.
        title: its heading.
        blocks: its content.
        folded: tables below the content, each folded on screen and printed in full.
        explanations: of its measures, folded.
        words: words that the template of its instructions needs.
        template: name of that template where it is not that of the anchor.
    """

    anchor: str
    title: str
    blocks: Sequence[Block]
    folded: Sequence[Table] = ()
    explanations: Sequence[Entry] = ()
    words: Mapping[str, str] = field(default_factory=dict)
    template: str = ""

    @property
    def how_to_read(self) -> str:
        """File of the template with the instructions."""
        return f"how_to_read/{self.template or self.anchor}.html"


@dataclass(frozen=True)
class Answers:
    """A question, or a measure, with the answers of the results."""

    question: str
    answers: Sequence[str]


@dataclass(frozen=True)
class Link:
    """A link of the page's navigation."""

    text: str
    address: str


def explained(results: Results, keys: Iterable[str]) -> list[Entry]:
    """The explanations of measures; those without one are left out."""
    entries = []
    for key in keys:
        measure = results.measure(key)
        if measure.explanation:
            direction = f"{measure.better} is better" if measure.better else ""
            entries.append(Entry(results.title(key), measure.explanation, direction))
    return entries


def curves_named(curves: Sequence[Curve], name: str, results: Results) -> list[Curve]:
    """The curves of one kind with a value, methods first, in the order of the tables."""
    by_method = {
        curve.method: curve for curve in curves if curve.name == name and any(mean.known for mean in curve.means)
    }
    return [by_method[method] for method in results.names if method in by_method]


def counted(numbers: Iterable[int]) -> str:
    """Write how many values means rest on; means of nothing are left out.

    Example:
        >>> counted([29, 29, 0]), counted([2, 29]), counted([])
        ('n = 29', 'n = 2 to 29', 'n = 0')
    """
    known = [count for count in numbers if count] or [0]
    low = min(known)
    high = max(known)
    return f"n = {low:,}" if low == high else f"n = {low:,} to {high:,}"


def interval(mean: Estimate) -> str:
    """Write both ends of the interval."""
    if not mean.has_interval:
        return "no interval"
    # a dash beside a minus is hard to read
    joint = "–" if mean.ci_low >= 0 else " to "
    return f"{format_number(mean.ci_low)}{joint}{format_number(mean.ci_high)}"


def estimate_cell(mean: Estimate, column_n: int, *, bold: bool = False, sign: str = "") -> Cell:
    """Build the cell of a mean with its interval.

    Args:
        mean: to show.
        column_n: the n that the heading of the column names; the cell names its own where it differs.
        bold: set it bold.
        sign: directly after it.
    """
    if not mean.known:
        return Cell(format_number(None), css="none")
    small = interval(mean)
    if mean.n != column_n:
        small += f", n = {mean.n:,}"
    return Cell(format_number(mean.value), small, bold, sign)
