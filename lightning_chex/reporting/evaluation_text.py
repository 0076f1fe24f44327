"""An evaluation in a few lines, for the terminal."""

from collections.abc import Mapping
from typing import Any

from lightning_chex.reporting.comparison import MIN_PATIENTS, beaten, judged
from lightning_chex.reporting.results import IOU_RULES, Results, number

_COLUMNS = {
    **dict.fromkeys(IOU_RULES, "IoU"),
    "severity_correlation": "severity",
    "pointing_game": "pointing",
    "insertion_auc": "insertion",
    "deletion_auc": "deletion",
    "road": "ROAD",
    "sensitivity_n": "sens.-N",
    "randomization": "random.",
    "randomization_blank": "blank",
    "label_randomization": "shuffled",
}

_CHECKS = ("randomization", "randomization_blank", "label_randomization")


def results_text(results: Mapping[str, Any]) -> str:
    """Write the main measures of every method and control, one a line.

    Args:
        results: the dict of ``results.json``.

    Returns:
        A table. A star marks a method that does better than every control, 95 % intervals not overlapping.

    Raises:
        ValueError: a part of ``results`` is missing.
    """
    view = Results(results)
    keys = [key for key in _COLUMNS if view.has(key) and (key not in IOU_RULES or key == view.headline)]
    if not keys:
        return "Nothing was measured."
    width = max(map(len, ["control", *view.names]))
    lines = [_line("method", [_heading(view, key) for key in keys], width)]
    lines += [_line(name, [_value(view, name, key) for key in keys], width) for name in view.methods]
    if view.controls:
        lines.append(_line("control", [""] * len(keys), width))
        lines += [_line(name, [_value(view, name, key) for key in keys], width) for name in view.controls]
    counts = [view.cell(name, key).n for name in view.names for key in keys if view.cell(name, key).value is not None]
    span = f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"
    rule = f"; IoU by the rule: {IOU_RULES[view.headline]}" if view.headline else ""
    lines.append(f"n = {span}{rule}; (-) lower is better")
    if any("*" in line for line in lines):
        lines.append(f"* better than every control, 95 % intervals of {MIN_PATIENTS} patients or more not overlapping")
    lines += [f"left out: {name}: {why}" for name, why in view.left_out.items()]
    return "\n".join(lines)


def _heading(view: Results, key: str) -> str:
    return f"{_COLUMNS[key]}{' (-)' if view.better(key) == 'lower' else ''}"


def _value(view: Results, name: str, key: str) -> str:
    controls = judged(view, key)
    # a control that ignores the network is no yardstick for how much maps change with it
    above = name in view.methods and key not in _CHECKS and controls and beaten(view, name, key) == controls
    # plain letters: a terminal may know no others
    value = number(view.cell(name, key).value).replace("−", "-").replace("–", "-")
    return f"{value}{'*' if above else ' '}"


def _line(name: str, cells: list[str], width: int) -> str:
    return f"{name:<{width}}{''.join(f'{cell:>13}' for cell in cells)}".rstrip()
