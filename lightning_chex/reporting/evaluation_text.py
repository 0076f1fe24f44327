"""An evaluation in a few lines, for the terminal."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_chex.reporting.comparison import MIN_PATIENTS, beaten, judged, withheld
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
        A table, with the n of every column below its heading, and of a cell with another n beside its value. A star
        marks a method that does better than every control, see ``comparison.py``.

    Raises:
        ValueError: a part of ``results`` is missing.
    """
    view = Results(results)
    keys = [key for key in _COLUMNS if view.has(key) and (key not in IOU_RULES or key == view.headline)]
    if not keys:
        return "Nothing was measured."
    counts = [_common_count(view, key) for key in keys]
    rows = [("method", [_heading(view, key) for key in keys]), ("n", [f"{count:,} " for count in counts])]
    for name in view.names:
        if name in view.controls[:1]:
            rows.append(("control", [""] * len(keys)))
        rows.append((name, [_value(view, name, key, count) for key, count in zip(keys, counts, strict=True)]))
    lines = _aligned(rows)
    rule = f"IoU by the rule: {IOU_RULES[view.headline]}; " if view.headline else ""
    lines.append(f"{rule}(-) lower is better; n: maps behind a column's means, beside a value: behind that one")
    reasons = [withheld(view, key) for key in keys if key != "randomization" and view.controls]
    if any("*" in line for line in lines):
        lines.append(
            "* better than every control: 95 % interval of the paired difference clear of 0, "
            f"{MIN_PATIENTS} patients or more"
        )
    if any(reasons):
        lines.append(f"not marked: {'; '.join(dict.fromkeys(filter(None, reasons)))}")
    if shares := [f"{name} {share:.0%}" for name in view.methods if (share := view.cell(name, "unconverged").value)]:
        lines.append(f"maps whose optimisation has not converged: {', '.join(shares)}")
    lines += [f"left out: {name}: {why}" for name, why in view.left_out.items()]
    return "\n".join(lines)


def _heading(view: Results, key: str) -> str:
    return f"{_COLUMNS[key]}{' (-)' if view.better(key) == 'lower' else ''}"


def _common_count(view: Results, key: str) -> int:
    """The n that most values of a column have."""
    cells = [view.cell(name, key) for name in view.names]
    return Counter(cell.n for cell in cells if cell.value is not None).most_common(1)[0][0]


def _value(view: Results, name: str, key: str, count: int) -> str:
    controls = judged(view, key)
    # a control that ignores the network is no yardstick for how much maps change with it
    marked = name in view.methods and key not in _CHECKS and controls
    above = marked and beaten(view, name, key, controls) == controls
    cell = view.cell(name, key)
    # plain letters: a terminal may know no others
    value = number(cell.value).replace("−", "-").replace("–", "-")
    own = f" ({cell.n:,})" if cell.value is not None and cell.n != count else ""
    return f"{value}{own}{'*' if above else ' '}"


def _aligned(rows: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    first = max(len(name) for name, _ in rows)
    wide = max(13, *(len(cell) + 1 for _, cells in rows for cell in cells))
    return [f"{name:<{first}}{''.join(f'{cell:>{wide}}' for cell in cells)}".rstrip() for name, cells in rows]
