"""Text printed at the end of a training run and of an evaluation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_chex.attribution.emptiness import empty_warning
from lightning_chex.report.checkpoint_comparison import CheckpointComparison
from lightning_chex.report.comparison import (
    MIN_PATIENTS,
    controls_with_value,
    most_frequent_n,
    reason_not_comparable,
    significantly_better_than,
)
from lightning_chex.report.results import Results, format_number

_METRICS = {
    "auroc": "AUROC, mean over classes",
    "ap": "average precision, mean over classes",
    "dice": "Dice, mean of both lungs",
    "mae": "mean absolute error, in points",
    "pearson": "Pearson correlation with the true score",
}
"""Metrics at the head of the summary of a run, with their descriptions."""


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
        One metric, alarm or path per line.
    """
    of_stage = {}
    for key, value in metrics.items():
        if key.startswith(f"{stage}/"):
            of_stage[key.removeprefix(f"{stage}/")] = value
    lines = [""]
    for key, description in _METRICS.items():
        if key in of_stage:
            lines.append(_metric_line(description, of_stage[key]))
    lines += _map_lines(of_stage)
    lines += [f"  alarm       {alarm}" for alarm in alarms]
    lines += [f"  pictures    {sheet}" for sheet in sheets]
    if checkpoint:
        lines.append(f"  checkpoint  {checkpoint}")
    lines += [f"  W&B run     {folder}" for folder in wandb_folders]
    return "\n".join(lines)


def _metric_line(description: str, value: float) -> str:
    return f"  {description:<42} {value:.3f}"


def _map_lines(metrics: Mapping[str, float]) -> list[str]:
    """Lines about the maps of each attribution method: IoU beside its controls, then the share of empty maps."""
    lines = []
    for key in sorted(metrics):
        # the control is logged for exactly those methods whose maps were compared with regions
        method, suffix, _ = key.partition("_iou_every_pixel")
        if suffix:
            lines.append(_metric_line(f"{method} IoU with the marked regions", metrics[f"{method}_iou"]))
            lines.append(_metric_line("  a random map", metrics[f"{method}_iou_random"]))
            lines.append(_metric_line("  a map that marks every pixel", metrics[f"{method}_iou_every_pixel"]))
    for key in sorted(metrics):
        if key.endswith("_empty") and metrics[key] > 0:
            method = key.removesuffix("_empty")
            lines.append(_metric_line(f"{method} empty maps, share", metrics[key]))
    return lines


def next_steps(run: Path, checkpoint: str) -> str:
    """Return the commands that someone who has just run the demo would try next.

    Args:
        run: folder of the run, which holds its configuration.
        checkpoint: path of the best checkpoint; empty if there is none.
    """
    command = "python -m lightning_chex"
    lines = ["", "next steps"]
    if checkpoint:
        model = f"--config {run / 'config.yaml'} --ckpt_path {checkpoint}"
        lines += [
            "  compare attribution methods on this model; writes evaluation/report.html, takes a few minutes",
            f"    {command} evaluate {model} --limit 16 --output_dir evaluation",
            "  a map for every test image, drawn over its X-ray, in explanations/overlays",
            f"    {command} explain {model} --overlays true --output_dir explanations",
        ]
    if checkpoint:
        images = "--data ImageFolderDataModule --data.root DIR --overlays true --output_dir maps"
        lines += [
            "  your own images, without labels, explained by this model",
            f"    {command} explain {model} {images}",
        ]
    lines += [
        "  train on your own X-rays: a folder with a table, or a copy of a public data set",
        f"    {command} inspect --data.root DIR",
    ]
    return "\n".join(lines)


def results_text(results: Results) -> str:
    """Format the main measures of every method and control, one method per line.

    Returns:
        A table with the n of every column below its heading; a cell with another n shows it beside its value. A star
        marks a method that does better than every control, see ``comparison.py``.
    """
    keys = results.keys_shown_in("terminal")
    if not keys:
        return "Nothing was measured."
    lines = _aligned(_results_rows(results, keys))
    lines += _footnotes(results, keys, any("*" in line for line in lines))
    lines += _map_quality(results)
    for name, reason in results.left_out.items():
        lines.append(f"left out: {name}: {reason}")
    return "\n".join(lines)


def _results_rows(results: Results, keys: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Rows of the table of an evaluation: headings, n, methods, controls."""
    counts = [most_frequent_n(results.estimate(name, key) for name in results.names) for key in keys]
    rows = [
        ("method", [_heading(results, key) for key in keys]),
        ("n", [f"{count:,} " for count in counts]),
    ]
    for name in results.methods:
        rows.append((name, [_value(results, name, key, count) for key, count in zip(keys, counts, strict=True)]))
    if results.controls:
        rows.append(("control", [""] * len(keys)))
    for name in results.controls:
        rows.append((name, [_value(results, name, key, count) for key, count in zip(keys, counts, strict=True)]))
    return rows


def _footnotes(results: Results, keys: Sequence[str], has_star: bool) -> list[str]:
    """Lines that explain the marks of the table."""
    rule = ""
    if results.headline is not None:
        rule = f"IoU by the rule: {results.threshold_rules[results.headline]}; "
    lines = [f"{rule}(-) lower is better; n: maps behind a column's means, beside a value: behind that one"]
    if has_star:
        lines.append(
            "* better than every control: 95 % interval of the paired difference clear of 0, "
            f"{MIN_PATIENTS} patients or more"
        )
    reasons: list[str] = []
    for key in keys:
        if results.controls and _starred(results, key):
            reason = reason_not_comparable(results, key)
            if reason is not None and reason not in reasons:
                reasons.append(reason)
    if reasons:
        lines.append(f"not marked: {'; '.join(reasons)}")
    return lines


def _map_quality(results: Results) -> list[str]:
    """Lines about maps that have not converged or are empty."""
    unconverged = []
    empty = []
    empty_shares = {}
    for name in results.methods:
        share = results.estimate(name, "unconverged")
        if share.known and share.value > 0:
            unconverged.append(f"{name} {share.value:.0%}")
        share = results.estimate(name, "empty")
        if share.known:
            empty_shares[name] = share.value
            if share.value > 0:
                empty.append(f"{name} {round(share.value * share.n):,} of {share.n:,} ({share.value:.0%})")
    lines = []
    if unconverged:
        lines.append(f"maps whose optimisation has not converged: {', '.join(unconverged)}")
    if empty:
        lines.append(f"empty maps, which enter the means above: {', '.join(empty)}")
    warning = empty_warning(empty_shares)
    if warning:
        lines.append(f"warning: {warning}")
    return lines


def comparison_text(comparison: CheckpointComparison) -> str:
    """Format how well each checkpoint predicts, and its main measures with their paired differences.

    Returns:
        A block per measure: one method per line, with the value of each checkpoint, then the difference of each pair
        of checkpoints with its 95 % interval.
    """
    blocks = [_score_rows(comparison)]
    for key in comparison.first.keys_shown_in("terminal"):
        if key in comparison.differences:
            blocks.append(_measure_rows(comparison, key))
    paragraphs = ["\n".join(_aligned(rows)) for rows in blocks]
    paragraphs += [f"the cases differ: {warning}" for warning in comparison.warnings()]
    return "\n\n".join(paragraphs)


def _score_rows(comparison: CheckpointComparison) -> list[tuple[str, list[str]]]:
    """Predictive performance, a score per row."""
    rows = [("on the images reported on", list(comparison.results))]
    for key, title in comparison.score_titles().items():
        rows.append((title, [_plain(comparison.scores[name].get(key)) for name in comparison.results]))
    return rows


def _measure_rows(comparison: CheckpointComparison, key: str) -> list[tuple[str, list[str]]]:
    """One measure: values of the checkpoints and their differences, a method or control per row."""
    pairs = [f"{first} less {second}" for first, second in comparison.pairs]
    rows = [(_heading(comparison.first, key), [*comparison.results, *pairs])]
    for name in (*comparison.methods, *comparison.controls):
        cells = [_plain(comparison.estimate(checkpoint, name, key).value) for checkpoint in comparison.results]
        for pair in comparison.pairs:
            difference = comparison.difference(name, pair, key)
            low = _plain(difference.ci_low)
            high = _plain(difference.ci_high)
            cells.append(f"{_plain(difference.value)} ({low} to {high})")
        rows.append((name, cells))
    return rows


def _starred(results: Results, key: str) -> bool:
    """Return whether methods that do better than every control are marked."""
    return results.measure(key).comparable and results.better(key) is not None


def _plain(value: float | None) -> str:
    # a terminal may show nothing but ASCII
    return format_number(value).replace("−", "-").replace("–", "-")


def _heading(results: Results, key: str) -> str:
    heading = results.measure(key).terminal
    if results.better(key) == "lower":
        return f"{heading} (-)"
    return heading


def _value(results: Results, name: str, key: str, column_n: int) -> str:
    mean = results.estimate(name, key)
    text = _plain(mean.value)
    if mean.known and mean.n != column_n:
        text += f" ({mean.n:,})"
    # a space where there is no star, so that the digits of a column stay below each other
    return text + ("*" if _is_above_controls(results, name, key) else " ")


def _is_above_controls(results: Results, name: str, key: str) -> bool:
    """Return whether a method does better than every control."""
    if name not in results.methods or not _starred(results, key):
        return False
    controls = controls_with_value(results, key)
    return bool(controls) and significantly_better_than(results, name, key, controls) == controls


def _aligned(rows: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """Pad cells to columns: names to the left, values to the right."""
    name_width = max(len(name) for name, _ in rows)
    # 13 characters: narrow tables of different measures then have the same columns
    cell_width = max(13, *(len(cell) + 1 for _, cells in rows for cell in cells))
    lines = []
    for name, cells in rows:
        padded = [f"{cell:>{cell_width}}" for cell in cells]
        lines.append(f"{name:<{name_width}}{''.join(padded)}".rstrip())
    return lines
