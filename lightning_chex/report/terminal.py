"""Text printed at the end of a training run and of an evaluation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_chex.attribution.emptiness import empty_warning
from lightning_chex.report.checkpoint_comparison import CheckpointComparison, score_titles
from lightning_chex.report.comparison import MIN_PATIENTS, beaten, common_n, judged, withheld
from lightning_chex.report.results import Results, number


def summary(
    stage: str,
    metrics: Mapping[str, float],
    sheets: Sequence[Path],
    checkpoint: str,
    wandb_folders: Sequence[Path],
    alarms: Sequence[str] = (),
) -> str:
    """Sum up a training or test run: metrics, and what to open next.

    Args:
        stage: ``val`` or ``test``, the prefix of the metrics to show.
        metrics: everything logged.
        sheets: the last sheet of pictures of each explaining callback.
        checkpoint: path of the best checkpoint, empty if there is none.
        wandb_folders: folders of the W&B runs.
        alarms: that were raised, one line each.

    Returns:
        One line per thing worth knowing.
    """
    lines = [""]
    for key, meaning in (
        ("auroc", "AUROC, mean over classes"),
        ("ap", "average precision, mean over classes"),
        ("dice", "Dice, mean of both lungs"),
        ("mae", "mean absolute error, in points"),
        ("pearson", "Pearson correlation with the true score"),
    ):
        if f"{stage}/{key}" in metrics:
            lines.append(f"  {meaning:<42} {metrics[f'{stage}/{key}']:.3f}")
    for key in sorted(metrics):
        name, found, _ = key.removeprefix(f"{stage}/").partition("_iou_every_pixel")
        if key.startswith(f"{stage}/") and found:
            lines += [
                f"  {f'{name} IoU with the marked regions':<42} {metrics[f'{stage}/{name}_iou']:.3f}",
                f"  {'  a random map':<42} {metrics[f'{stage}/{name}_iou_random']:.3f}",
                f"  {'  a map that marks every pixel':<42} {metrics[f'{stage}/{name}_iou_every_pixel']:.3f}",
            ]
    for key in sorted(metrics):
        if key.startswith(f"{stage}/") and key.endswith("_empty") and metrics[key] > 0:
            name = key.removeprefix(f"{stage}/").removesuffix("_empty")
            lines.append(f"  {f'{name} empty maps, share':<42} {metrics[key]:.3f}")
    lines += [f"  alarm       {alarm}" for alarm in alarms]
    lines += [f"  pictures    {sheet}" for sheet in sheets]
    if checkpoint:
        lines.append(f"  checkpoint  {checkpoint}")
    lines += [f"  W&B run     {folder}" for folder in wandb_folders]
    return "\n".join(lines)


def results_text(results: Results) -> str:
    """Write the main measures of every method and control, one a line.

    Returns:
        A table, with the n of every column below its heading, and of a cell with another n beside its value. A star
        marks a method that does better than every control, see ``comparison.py``.
    """
    keys = results.keys_with("terminal")
    if not keys:
        return "Nothing was measured."
    counts = [common_n(results.estimate(name, key) for name in results.names) for key in keys]
    rows = [("method", [_heading(results, key) for key in keys]), ("n", [f"{count:,} " for count in counts])]
    for name in results.names:
        if name == next(iter(results.controls), None):
            rows.append(("control", [""] * len(keys)))
        rows.append((name, [_value(results, name, key, count) for key, count in zip(keys, counts, strict=True)]))
    lines = _aligned(rows)
    rule = f"IoU by the rule: {results.threshold_rules[results.headline]}; " if results.headline else ""
    lines.append(f"{rule}(-) lower is better; n: maps behind a column's means, beside a value: behind that one")
    reasons = [withheld(results, key) for key in keys if results.controls and _starred(results, key)]
    if any("*" in line for line in lines):
        lines.append(
            "* better than every control: 95 % interval of the paired difference clear of 0, "
            f"{MIN_PATIENTS} patients or more"
        )
    if any(reasons):
        lines.append(f"not marked: {'; '.join(dict.fromkeys(filter(None, reasons)))}")
    if shares := [
        f"{name} {share.value:.0%}"
        for name in results.methods
        if (share := results.estimate(name, "unconverged")).known and share.value > 0
    ]:
        lines.append(f"maps whose optimisation has not converged: {', '.join(shares)}")
    empty = {name: results.estimate(name, "empty") for name in results.methods}
    if found := [
        f"{name} {round(share.value * share.n):,} of {share.n:,} ({share.value:.0%})"
        for name, share in empty.items()
        if share.known and share.value > 0
    ]:
        lines.append(f"empty maps, which enter the means above: {', '.join(found)}")
    warning = empty_warning({name: share.value for name, share in empty.items() if share.known})
    if warning:
        lines.append(f"warning: {warning}")
    lines += [f"left out: {name}: {why}" for name, why in results.left_out.items()]
    return "\n".join(lines)


def comparison_text(found: CheckpointComparison) -> str:
    """Write how well each checkpoint predicts, and its main measures with their paired differences.

    Returns:
        A block a measure: a method a line, the value of each checkpoint, then one less another with its 95 % interval.
    """
    names = list(found.results)
    titles = {key: title for scores in found.scores.values() for key, title in score_titles(scores).items()}
    blocks = [
        [("on the images reported on", names)]
        + [(title, [_plain(found.scores[name].get(key)) for name in names]) for key, title in titles.items()]
    ]
    for key in (key for key in found.first.keys_with("terminal") if key in found.differences):
        rows = [(_heading(found.first, key), [*names, *(f"{one} less {other}" for one, other in found.pairs)])]
        for name in (*found.methods, *found.controls):
            less = [found.difference(name, pair, key) for pair in found.pairs]
            values = [_plain(found.estimate(checkpoint, name, key).value) for checkpoint in names]
            rows.append(
                (name, values + [f"{_plain(d.value)} ({_plain(d.ci_low)} to {_plain(d.ci_high)})" for d in less])
            )
        blocks.append(rows)
    lines = ["\n".join(_aligned(rows)) for rows in blocks]
    return "\n\n".join([*lines, *(f"the cases differ: {said}" for said in found.warnings())])


def _starred(results: Results, key: str) -> bool:
    """Say whether methods that do better than every control are marked."""
    return results.measure(key).comparable and results.better(key) is not None


def _plain(value: float | None) -> str:
    # ASCII: a terminal may show nothing else
    return number(value).replace("−", "-").replace("–", "-")


def _heading(results: Results, key: str) -> str:
    return f"{results.measure(key).terminal}{' (-)' if results.better(key) == 'lower' else ''}"


def _value(results: Results, name: str, key: str, count: int) -> str:
    controls = judged(results, key)
    marked = name in results.methods and _starred(results, key) and controls
    above = marked and beaten(results, name, key, controls) == controls
    mean = results.estimate(name, key)
    value = _plain(mean.value)
    own = f" ({mean.n:,})" if mean.known and mean.n != count else ""
    return f"{value}{own}{'*' if above else ' '}"


def _aligned(rows: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    first = max(len(name) for name, _ in rows)
    wide = max(13, *(len(cell) + 1 for _, cells in rows for cell in cells))
    return [f"{name:<{first}}{''.join(f'{cell:>{wide}}' for cell in cells)}".rstrip() for name, cells in rows]
