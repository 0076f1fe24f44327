"""Overview of a data root: a table for the terminal and a sheet of sample images."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lightning_chex.report.pictures import BOX_COLOR, write_figure

SCORE_BINS = (0, 3, 6, 9, 12, 15, 19)
"""Edges of the bins Brixia scores are counted in; a score belongs to the bin that begins at or below it."""

MOST_VALUES = 10
"""Scores of so many whole values are counted value by value."""

ZONE_COLORS = ("#5a6b7b", "#b8962a", "#ee8a3a", "#d93a35")
"""Of the scores 0, 1, 2, 3 of a zone."""

PART_COLORS = dict(zip(("train", "val", "test", "tuning"), colormaps["tab10"].colors, strict=False))  # type: ignore[attr-defined]

COLUMNS = 4
"""Of the sheet of samples."""

Overview = Mapping[str, Any]
"""What ``ChestXrayDataModule.overview()`` returns; its docstring lists the keys."""


def overview_text(overview: Overview) -> str:
    """Write all numbers of an overview, one thing a line, its parts side by side."""
    parts = overview["parts"]
    lines = [_headline(overview), ""]
    lines += _aligned([["", *(part["name"] for part in parts), "all"], *_counts(overview)])
    lines += [line for section in (list(_files(overview)), _raters(overview)) if section for line in ("", *section)]
    return "\n".join(line.rstrip() for line in lines)


def overview_sheet(overview: Overview) -> Figure:
    """Draw how often each class or score occurs, and sample images with their boxes or zone scores."""
    samples = overview["samples"]
    rows = max(2, -(-len(samples) // COLUMNS))
    made = Figure(figsize=(4.4 + 2.6 * COLUMNS, 0.9 + 2.85 * rows), layout="constrained")
    FigureCanvasAgg(made)
    total = sum(part["images"] for part in overview["parts"])
    made.suptitle(_headline(overview), fontsize=14)
    left, right = made.subfigures(1, 2, squeeze=False, width_ratios=(4.4, 2.6 * COLUMNS))[0]
    if total and _shares(overview):
        _draw_shares(left.subplots(), overview)
    axes = right.subplots(rows, COLUMNS, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, sample in zip(axes.flat, samples, strict=False):
        draw_sample(axis, sample)
    return made


def write_overview(overview: Overview, folder: Path) -> Path:
    """Write the sheet into ``folder``.

    Returns:
        The sheet's path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{overview['name']}.png"
    write_figure(path, overview_sheet(overview), dpi=90)
    return path


def _headline(overview: Overview) -> str:
    total, patients = sum(part["images"] for part in overview["parts"]), overview["patients"]
    return f"{overview['name']}: {total:,} images" + ("" if patients is None else f" of {patients:,} patients")


def _counts(overview: Overview) -> Iterator[list[str]]:
    """The rows of the table below its head: name, one cell a part, and all parts together."""
    parts = overview["parts"]
    images = [part["images"] for part in parts]
    yield ["images", *_with_sum(images)]
    patients = [*(part["patients"] for part in parts), overview["patients"]]
    yield ["patients", *("unknown" if number is None else f"{number:,}" for number in patients)]
    yield []
    for name, counts, known in _shares(overview):
        pairs = zip([*counts, sum(counts)], [*known, sum(known)], strict=True)
        yield [name, *(f"{count:,} {_percent(count, of):>7}" for count, of in pairs)]
    unknown = _unknown(overview)
    if any(map(any, unknown)):
        yield []
        yield ["not known", *_with_sum([sum(counts) for counts in unknown])]
        for k, name in enumerate(overview["class_names"]):
            if any(counts[k] for counts in unknown):
                yield [f"  {name}", *_with_sum([counts[k] for counts in unknown])]
    if _is_scored(overview):
        means = [np.mean(part["scores"]) if part["scores"] else np.nan for part in parts]
        everything = [score for part in parts for score in part["scores"]]
        yield ["mean score", *(f"{mean:.2f}" for mean in [*means, np.mean(everything or [np.nan])])]
    if any(part["boxes"] is not None for part in parts):
        yield []
        yield ["boxes", *_with_sum([sum(part["boxes"] or []) for part in parts])]
        for k, name in enumerate(overview["class_names"]):
            yield [f"  {name}", *_with_sum([part["boxes"][k] if part["boxes"] else 0 for part in parts])]


def _shares(overview: Overview) -> list[tuple[str, list[int], list[int]]]:
    """Count the images of each part with each class, or with a score in each bin, and those where it is known."""
    parts = overview["parts"]
    if not any("positives" in part or "scores" in part for part in parts):
        return []
    images = [part["images"] for part in parts]
    if overview["class_names"]:
        unknown = [own or [0] * len(overview["class_names"]) for own in _unknown(overview)]
        return [
            (name, [part["positives"][k] for part in parts], [n - u[k] for n, u in zip(images, unknown, strict=True)])
            for k, name in enumerate(overview["class_names"])
        ]
    edges, names = score_bins(np.array([score for part in parts for score in part["scores"]]))
    bins = [np.histogram(part["scores"], edges)[0].tolist() for part in parts]
    return [(name, [counts[k] for counts in bins], images) for k, name in enumerate(names)]


def score_bins(scores: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Choose the bins that scores (N,) are counted in: their edges and names.

    Few whole values have a bin each, those of Brixia, 0 to 18, have ``SCORE_BINS``, others six of equal width.
    """
    low, high = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 18.0)
    whole = bool((scores == scores.round()).all())
    if whole and high - low < MOST_VALUES:
        values = np.arange(low, high + 2)
        return values, [f"score {value:g}" for value in values[:-1]]
    if whole and low >= 0 and high < SCORE_BINS[-1]:
        ends = zip(SCORE_BINS[:-1], SCORE_BINS[1:], strict=True)
        return np.array(SCORE_BINS), [f"score {first} to {last - 1}" for first, last in ends]
    edges = np.linspace(low, high, 7) if high > low else np.array([low, low + 1])
    return edges, [f"score {first:.3g} to {last:.3g}" for first, last in zip(edges[:-1], edges[1:], strict=True)]


def _unknown(overview: Overview) -> list[list[int]]:
    """Of how many images of each part each class is not known; nothing where the labels are of scores."""
    return [part.get("unknown", []) for part in overview["parts"]]


def _is_scored(overview: Overview) -> bool:
    return any("scores" in part for part in overview["parts"])


def _files(overview: Overview) -> Iterator[str]:
    """Describe the files found on disk, and the warnings about them."""
    sizes, missing = overview["sizes"], overview["missing"]
    if sizes["files"]:
        common = [f"{width} x {height} ({count:,})" for (width, height), count in sizes["common"]]
        some = ""
        if sizes["counted"] < sizes["files"]:
            some = f"; {sizes['counted']:,} of {sizes['files']:,} files were looked at"
        yield f"{'image sizes':<16}{_first(common, 5)}{some}"
        for problem in sizes["unreadable"][:3]:
            yield f"{'unreadable':<16}{problem}"
        left = f"{len(missing['names']):,} of {missing['total']:,}: {_first(missing['names'], 3)}; left out"
        yield f"{'missing files':<16}{left if missing['names'] else 'none'}"
    for note in overview["notes"]:
        yield f"{'note':<16}{note}"


def _raters(overview: Overview) -> list[str]:
    figures = overview["disagreement"]
    return [] if figures is None else ["how far the raters agree", *_aligned(_agreement(figures))]


def _agreement(figures: Mapping[str, float]) -> list[list[str]]:
    """Rows of a table: a figure's name, its value on the whole, and by zone where its name ends in one."""

    def cell(name: str) -> str:
        value = figures.get(name)
        return "" if value is None else f"{value:g}" if float(value).is_integer() else f"{value:.3f}"

    names = dict.fromkeys(name.partition("/")[0] for name in figures)
    zones = dict.fromkeys(name.partition("/")[2] for name in figures if "/" in name)
    rows = [[name.replace("_", " "), cell(name), *(cell(f"{name}/{zone}") for zone in zones)] for name in names]
    return [["", "all", *zones], *rows]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Pad cells to columns: the first one to the left, numbers to the right."""
    width = [max(len(row[k]) for row in rows if row) for k in range(len(rows[0]))]
    return [
        "   ".join(cell.ljust(width[k]) if k == 0 else cell.rjust(width[k]) for k, cell in enumerate(row))
        for row in rows
    ]


def _with_sum(counts: Sequence[int]) -> list[str]:
    return [f"{count:,}" for count in [*counts, sum(counts)]]


def _percent(count: int, of: int) -> str:
    return f"{100 * count / of:.1f} %" if of else "-"


def _first(names: Sequence[str], limit: int) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit:,} more" if len(names) > limit else "")


def _draw_shares(axis: Axes, overview: Overview) -> None:
    """Draw a bar for each class or bin and each part that has images, in percent of those of which it is known."""
    shares = _shares(overview)
    shown = [k for k, part in enumerate(overview["parts"]) if part["images"]]
    height = 0.8 / len(shown)
    for place, k in enumerate(shown):
        part = overview["parts"][k]
        values = [100 * counts[k] / max(1, known[k]) for _, counts, known in shares]
        positions = np.arange(len(shares)) - 0.4 + height * (place + 0.5)
        label = f"{part['name']} ({part['images']:,})"
        axis.barh(positions, values, height, label=label, color=PART_COLORS.get(part["name"], "#777777"))
    axis.set_yticks(range(len(shares)), [name for name, *_ in shares])
    axis.invert_yaxis()
    axis.set_xlabel(
        "% of the images of a part" + (" whose label is known" if any(map(any, _unknown(overview))) else "")
    )
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)


def draw_sample(axis: Axes, sample: Mapping[str, Any]) -> None:
    """Draw one of the ``samples`` of an overview: boxes with their names, the outline of the lungs, zone scores."""
    axis.imshow(sample["image"], cmap="gray", vmin=0, vmax=1)
    axis.set_title(
        f"{_short(sample['label'])}\n{_short(sample['image_id'])}", fontsize=7, parse_math=False
    )  # names may hold dollars
    for (x1, y1, x2, y2), name in zip(sample["boxes"], sample["box_names"], strict=True):
        # a pixel's centre is at its index for imshow, at its index plus a half for boxes
        axis.add_patch(Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, edgecolor=BOX_COLOR))
        label = {"boxstyle": "square,pad=0.1", "facecolor": "black", "alpha": 0.5, "linewidth": 0}
        axis.text(x1, y1 + 1, name, color=BOX_COLOR, fontsize=6, va="top", bbox=label)
    if sample["lungs"] is not None:
        axis.contour(sample["lungs"].any(axis=0), levels=[0.5], colors="#8fd0ff", linewidths=0.6)
    if sample["zones"] is not None:
        _draw_zones(axis, sample["zones"], sample["image"].shape)


def _short(words: str, limit: int = 38) -> str:
    """Cut what would run into the next picture."""
    return words if len(words) <= limit else f"{words[: limit - 3]}..."


def _draw_zones(axis: Axes, zones: Sequence[float], shape: tuple[int, int]) -> None:
    """Write each zone's score where the zone lies in most images; nobody has said where exactly it lies."""
    height, width = shape
    for k, (name, score) in enumerate(zip("ABCDEF", zones, strict=True)):
        x, y = (0.22 if k < 3 else 0.78) * width, (0.2 + 0.27 * (k % 3)) * height
        chip = {"boxstyle": "round,pad=0.25", "facecolor": ZONE_COLORS[round(score)], "alpha": 0.85, "linewidth": 0}
        axis.text(x, y, f"{name} {score:g}", color="white", fontsize=7, ha="center", va="center", bbox=chip)
