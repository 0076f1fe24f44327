"""Overview of a data root: a table for the terminal and a sheet of sample images."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lightning_chex.report.pictures import BOX_COLOR, write_figure

SCORE_BINS = (0, 3, 6, 9, 12, 15, 19)
"""Edges of the bins that Brixia scores are counted in; a bin includes its lower edge."""

MAX_VALUES = 10
"""Scores of at most so many whole values are counted value by value."""

ZONE_COLORS = ("#5a6b7b", "#b8962a", "#ee8a3a", "#d93a35")
"""Colours of the scores 0, 1, 2, 3 of a zone."""

PART_COLORS = dict(zip(("train", "val", "test", "tuning"), colormaps["tab10"].colors, strict=False))  # type: ignore[attr-defined]

COLUMNS = 4
"""Number of samples in a row of the sheet."""

MAX_TITLE = 38
"""Largest number of characters of a line over a sample: a longer one would run into the next picture."""

Overview = Mapping[str, Any]
"""Return value of ``ChestXrayDataModule.overview()``, whose docstring lists the keys."""


def overview_text(overview: Overview) -> str:
    """Format all numbers of an overview: one count per line, the parts of the data set side by side."""
    names = [part["name"] for part in overview["parts"]]
    lines = [_headline(overview), ""]
    lines += _aligned([["", *names, "all"], *_counts(overview)])
    for section in (list(_files(overview)), _raters(overview)):
        if section:
            lines += ["", *section]
    return "\n".join(line.rstrip() for line in lines)


def overview_sheet(overview: Overview) -> Figure:
    """Draw how often each class or score occurs, and sample images with their boxes or zone scores."""
    samples = overview["samples"]
    rows = max(2, -(-len(samples) // COLUMNS))
    sheet = Figure(figsize=(4.4 + 2.6 * COLUMNS, 0.9 + 2.85 * rows), layout="constrained")
    FigureCanvasAgg(sheet)
    sheet.suptitle(_headline(overview), fontsize=14)
    left, right = sheet.subfigures(1, 2, squeeze=False, width_ratios=(4.4, 2.6 * COLUMNS))[0]
    if _count_images(overview) and _shares(overview):
        _draw_shares(left.subplots(), overview)
    axes = right.subplots(rows, COLUMNS, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, sample in zip(axes.flat, samples, strict=False):
        draw_sample(axis, sample)
    return sheet


def write_overview(overview: Overview, folder: Path) -> Path:
    """Write the sheet into ``folder``.

    Returns:
        The sheet's path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{overview['name']}.png"
    write_figure(path, overview_sheet(overview), dpi=90)
    return path


def _count_images(overview: Overview) -> int:
    return sum(part["images"] for part in overview["parts"])


def _headline(overview: Overview) -> str:
    headline = f"{overview['name']}: {_count_images(overview):,} images"
    patients = overview["patients"]
    if patients is not None:
        headline += f" of {patients:,} patients"
    return headline


def _counts(overview: Overview) -> Iterator[list[str]]:
    """Rows of the table below its head: name, one cell per part, and all parts together; [] is an empty line."""
    parts = overview["parts"]
    yield ["images", *_with_sum([part["images"] for part in parts])]
    # the sum of the parts would be wrong for all: a patient may have images in several of them
    patients = [*(part["patients"] for part in parts), overview["patients"]]
    yield ["patients", *("unknown" if count is None else f"{count:,}" for count in patients)]
    yield []
    for share in _shares(overview):
        cells = []
        for count, known in zip(_and_sum(share.counts), _and_sum(share.known), strict=True):
            cells.append(f"{count:,} {_percent(count, known):>7}")
        yield [share.name, *cells]
    yield from _unknown_rows(overview)
    if _is_scored(overview):
        yield _mean_scores(parts)
    if any(part["boxes"] is not None for part in parts):
        yield []
        yield ["boxes", *_with_sum([sum(part["boxes"] or []) for part in parts])]
        no_boxes = [0] * len(overview["class_names"])
        for k, name in enumerate(overview["class_names"]):
            yield [f"  {name}", *_with_sum([(part["boxes"] or no_boxes)[k] for part in parts])]


def _unknown_rows(overview: Overview) -> Iterator[list[str]]:
    """Rows with the number of unknown labels, in all and by class; none if every label is known."""
    unknown = _unknown(overview)
    if not any(map(any, unknown)):
        return
    yield []
    yield ["not known", *_with_sum([sum(counts) for counts in unknown])]
    for k, name in enumerate(overview["class_names"]):
        of_class = [counts[k] for counts in unknown]
        if any(of_class):
            yield [f"  {name}", *_with_sum(of_class)]


def _mean_scores(parts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Row of the mean scores; NaN for a part without images."""
    row = ["mean score"]
    everything: list[float] = []
    for part in parts:
        row.append(_mean(part["scores"]))
        everything += part["scores"]
    row.append(_mean(everything))
    return row


def _mean(scores: Sequence[float]) -> str:
    # numpy warns of the mean of nothing
    return f"{np.mean(scores or [np.nan]):.2f}"


class _Share(NamedTuple):
    """Number of images with a class, or with a score in a bin.

    Attributes:
        name: of the class or bin.
        counts: images with it, for each part.
        known: images of which it is known, for each part.
    """

    name: str
    counts: list[int]
    known: list[int]


def _shares(overview: Overview) -> list[_Share]:
    """Count the images of each part with each class, or with a score in each bin."""
    parts = overview["parts"]
    if not any("positives" in part or "scores" in part for part in parts):
        return []
    images = [part["images"] for part in parts]
    if overview["class_names"]:
        return _class_shares(overview, images)
    scores: list[float] = []
    for part in parts:
        scores += part["scores"]
    edges, names = score_bins(np.array(scores))
    bins = [np.histogram(part["scores"], edges)[0].tolist() for part in parts]
    return [_Share(name, [counts[k] for counts in bins], images) for k, name in enumerate(names)]


def _class_shares(overview: Overview, images: Sequence[int]) -> list[_Share]:
    no_unknown = [0] * len(overview["class_names"])
    unknown = [counts or no_unknown for counts in _unknown(overview)]
    shares = []
    for k, name in enumerate(overview["class_names"]):
        positives = [part["positives"][k] for part in overview["parts"]]
        known = [count - of_part[k] for count, of_part in zip(images, unknown, strict=True)]
        shares.append(_Share(name, positives, known))
    return shares


def score_bins(scores: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Choose the bins that scores (N,) are counted in: their edges and names.

    Few whole values have a bin each, those of Brixia, 0 to 18, have ``SCORE_BINS``, others six of equal width.
    """
    low = 0.0
    high = 18.0
    if len(scores):
        low = float(scores.min())
        high = float(scores.max())
    whole = bool((scores == scores.round()).all())
    if whole and high - low < MAX_VALUES:
        edges = np.arange(low, high + 2)
        return edges, [f"score {value:g}" for value in edges[:-1]]
    if whole and low >= 0 and high < SCORE_BINS[-1]:
        edges = np.array(SCORE_BINS)
        return edges, [f"score {first} to {following - 1}" for first, following in pairwise(SCORE_BINS)]
    # equal scores have one bin: six of width 0 would count nothing
    edges = np.linspace(low, high, 7) if high > low else np.array([low, low + 1])
    return edges, [f"score {first:.3g} to {last:.3g}" for first, last in pairwise(edges)]


def _unknown(overview: Overview) -> list[list[int]]:
    """For each part the number of images whose label is unknown, by class; empty for scores."""
    return [part.get("unknown", []) for part in overview["parts"]]


def _is_scored(overview: Overview) -> bool:
    return any("scores" in part for part in overview["parts"])


def _files(overview: Overview) -> Iterator[str]:
    """Describe the files found on disk, and the warnings about them."""
    sizes = overview["sizes"]
    if sizes["files"]:
        common = [f"{width} x {height} ({count:,})" for (width, height), count in sizes["common"]]
        line = _first(common, 5)
        if sizes["counted"] < sizes["files"]:
            line += f"; {sizes['counted']:,} of {sizes['files']:,} files were looked at"
        yield _note("image sizes", line)
        for problem in sizes["unreadable"][:3]:
            yield _note("unreadable", problem)
        yield _note("missing files", _missing_files(overview["missing"]))
    for note in overview["notes"]:
        yield _note("note", note)


def _note(title: str, text: str) -> str:
    return f"{title:<16}{text}"


def _missing_files(missing: Mapping[str, Any]) -> str:
    names = missing["names"]
    if not names:
        return "none"
    return f"{len(names):,} of {missing['total']:,}: {_first(names, 3)}; left out"


def _raters(overview: Overview) -> list[str]:
    """Table of the agreement between raters; empty where there is one rater."""
    figures = overview["disagreement"]
    if figures is None:
        return []
    return ["how far the raters agree", *_aligned(_agreement(figures))]


def _agreement(figures: Mapping[str, float]) -> list[list[str]]:
    """Rows of a table: name of a figure, its value over all zones, and its value by zone.

    Args:
        figures: by name; ``NAME/ZONE`` is that of one zone.
    """
    names: dict[str, None] = {}
    zones: dict[str, None] = {}
    for key in figures:
        name, _, zone = key.partition("/")
        names[name] = None
        if zone:
            zones[zone] = None
    rows = [["", "all", *zones]]
    for name in names:
        cells = [_figure_text(figures.get(name))]
        cells += [_figure_text(figures.get(f"{name}/{zone}")) for zone in zones]
        rows.append([name.replace("_", " "), *cells])
    return rows


def _figure_text(value: float | None) -> str:
    if value is None:
        return ""
    if float(value).is_integer():
        return f"{value:g}"
    return f"{value:.3f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Pad cells to columns: the first one to the left, numbers to the right."""
    widths = []
    for column in range(len(rows[0])):
        widths.append(max(len(row[column]) for row in rows if row))
    lines = []
    for row in rows:
        cells = []
        for column, cell in enumerate(row):
            cells.append(cell.ljust(widths[column]) if column == 0 else cell.rjust(widths[column]))
        lines.append("   ".join(cells))
    return lines


def _and_sum(counts: Sequence[int]) -> list[int]:
    return [*counts, sum(counts)]


def _with_sum(counts: Sequence[int]) -> list[str]:
    return [f"{count:,}" for count in _and_sum(counts)]


def _percent(count: int, total: int) -> str:
    if not total:
        return "-"
    return f"{100 * count / total:.1f} %"


def _first(names: Sequence[str], limit: int) -> str:
    """The first names in a line, and the number of others."""
    line = ", ".join(names[:limit])
    if len(names) > limit:
        line += f" and {len(names) - limit:,} more"
    return line


def _draw_shares(axis: Axes, overview: Overview) -> None:
    """Draw a bar for each class or bin and each part that has images, in percent of those of which it is known."""
    shares = _shares(overview)
    parts = overview["parts"]
    shown = [index for index, part in enumerate(parts) if part["images"]]
    height = 0.8 / len(shown)
    for order, index in enumerate(shown):
        part = parts[index]
        values = [100 * share.counts[index] / max(1, share.known[index]) for share in shares]
        positions = np.arange(len(shares)) - 0.4 + height * (order + 0.5)
        label = f"{part['name']} ({part['images']:,})"
        axis.barh(positions, values, height, label=label, color=PART_COLORS.get(part["name"], "#777777"))
    axis.set_yticks(range(len(shares)), [share.name for share in shares])
    axis.invert_yaxis()
    label = "% of the images of a part"
    if any(map(any, _unknown(overview))):
        label += " whose label is known"
    axis.set_xlabel(label)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)


def draw_sample(axis: Axes, sample: Mapping[str, Any]) -> None:
    """Draw one of the ``samples`` of an overview: boxes with their names, the outline of the lungs, zone scores."""
    axis.imshow(sample["image"], cmap="gray", vmin=0, vmax=1)
    title = f"{_short(sample['label'])}\n{_short(sample['image_id'])}"
    # names may hold dollars, which would begin a formula
    axis.set_title(title, fontsize=7, parse_math=False)
    for (x1, y1, x2, y2), name in zip(sample["boxes"], sample["box_names"], strict=True):
        # a pixel's centre is at its index for imshow, at its index plus a half for boxes
        axis.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, edgecolor=BOX_COLOR))
        label = {"boxstyle": "square,pad=0.1", "facecolor": "black", "alpha": 0.5, "linewidth": 0}
        axis.text(x1, y1 + 1, name, color=BOX_COLOR, fontsize=6, va="top", bbox=label)
    if sample["lungs"] is not None:
        axis.contour(sample["lungs"].any(axis=0), levels=[0.5], colors="#8fd0ff", linewidths=0.6)
    if sample["zones"] is not None:
        _draw_zones(axis, sample["zones"], sample["image"].shape)


def _short(text: str) -> str:
    """Cut a line to `MAX_TITLE` characters."""
    if len(text) <= MAX_TITLE:
        return text
    return f"{text[: MAX_TITLE - 3]}..."


def _draw_zones(axis: Axes, zones: Sequence[float], shape: tuple[int, int]) -> None:
    """Write each zone's score where the zone lies in most images: its outline is unknown."""
    height, width = shape
    for k, (name, score) in enumerate(zip("ABCDEF", zones, strict=True)):
        # A to C in the left column of the image, from the top, D to F in the right one
        x = width * (0.22 if k < 3 else 0.78)
        y = height * (0.2 + 0.27 * (k % 3))
        ground = {"boxstyle": "round,pad=0.25", "facecolor": ZONE_COLORS[round(score)], "alpha": 0.85, "linewidth": 0}
        axis.text(x, y, f"{name} {score:g}", color="white", fontsize=7, ha="center", va="center", bbox=ground)
