"""Curves of the methods' scores over a run, each beside its controls."""

from collections.abc import Mapping, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

CONTROLS = {"random": ("a random map", ":"), "every_pixel": ("every pixel", "--")}


def iou_curves(history: Sequence[Mapping[str, float]], methods: Sequence[str], rule: str) -> Figure:
    """Draw the mean IoU of every method over the steps, and the controls, which are the same for all.

    Args:
        history: of each validation ``step``, and ``NAME_iou``, ``NAME_iou_random`` and ``NAME_iou_every_pixel`` of
            methods whose maps were compared with regions.
        methods: their names.
        rule: which pixels count as marked.
    """
    made = Figure(figsize=(6.4, 3.8), layout="constrained")
    FigureCanvasAgg(made)
    axis = made.subplots()

    def draw(key: str, **looks: object) -> None:
        known = [(row["step"], row[key]) for row in history if key in row]
        if known:
            axis.plot(*zip(*known, strict=True), marker=".", **looks)  # type: ignore[arg-type]

    for number, method in enumerate(methods):
        draw(f"{method}_iou", color=f"C{number % 10}", label=method)
    for control, (meaning, style) in CONTROLS.items():
        draw(f"{methods[0]}_iou_{control}", color="0.45", linestyle=style, linewidth=1, label=meaning)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("step")
    axis.set_ylabel("IoU, mean over maps")
    axis.set_title(f"marked: {rule}", fontsize=9, loc="left")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axis.lines:
        axis.legend(frameon=False, fontsize=8)
    return made
