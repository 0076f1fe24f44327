"""Curves of the methods' scores over a run, each beside its controls."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

CONTROLS = {"random": ("a random map", ":"), "every_pixel": ("every pixel", "--")}
"""Control -> its label and line style."""


def iou_curves(history: Sequence[Mapping[str, float]], methods: Sequence[str], rule: str) -> Figure:
    """Draw the mean IoU of every method over the steps, and the controls, which are the same for all.

    Args:
        history: for each validation ``step``, and ``NAME_iou``, ``NAME_iou_random`` and ``NAME_iou_every_pixel`` of
            methods whose maps were compared with regions.
        methods: their names.
        rule: the pixels that count as marked.
    """
    page = Figure(figsize=(6.4, 3.8), layout="constrained")
    FigureCanvasAgg(page)
    axis = page.subplots()
    for number, method in enumerate(methods):
        # matplotlib has ten colours C0 to C9
        _draw(axis, history, f"{method}_iou", color=f"C{number % 10}", label=method)
    for control, (label, style) in CONTROLS.items():
        key = f"{methods[0]}_iou_{control}"
        _draw(axis, history, key, color="0.45", linestyle=style, linewidth=1, label=label)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("step")
    axis.set_ylabel("IoU, mean over maps")
    axis.set_title(f"marked: {rule}", fontsize=9, loc="left")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axis.lines:
        axis.legend(frameon=False, fontsize=8)
    return page


def _draw(axis: Axes, history: Sequence[Mapping[str, float]], key: str, **style: Any) -> None:
    """Draw the values of a key over the steps; validations without it are left out."""
    steps = [row["step"] for row in history if key in row]
    values = [row[key] for row in history if key in row]
    if steps:
        axis.plot(steps, values, marker=".", **style)
