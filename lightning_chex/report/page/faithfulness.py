"""Sections on whether the network uses what a map marks, and whether the map depends on the network.

The paper's Figures 2 and 3b, and the sanity checks.
"""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from lightning_chex.report.page.charts import Style, curve_figure, legend, scatter
from lightning_chex.report.page.tables import Column, measure_table
from lightning_chex.report.page.views import Block, Figure, Section, counted, curves_named, explained
from lightning_chex.report.results import Curve, Results


def faithfulness(results: Results, curves: Sequence[Curve], styles: Mapping[str, Style]) -> list[Section | None]:
    """Build all sections about the network; None for those without data."""
    sensitivity = curve_figure(
        {"Sensitivity-N": curves_named(curves, "sensitivity_n", results)},
        styles,
        "number of masked pixels",
        "correlation",
        "Mean over maps and 95 % band, {n}.",
        log_x=True,
    )
    randomized = curve_figure(
        {"Randomised weights": curves_named(curves, "randomization", results)},
        styles,
        "share of the network drawn anew, from the top",
        "rank correlation with the original",
        "Mean over maps and 95 % band, {n}.",
    )
    return [
        _perturbation(results, curves, styles),
        _check(results, "sensitivity_n", "Sensitivity-N (Figure 3b)", sensitivity),
        _check(results, "randomization", "Randomised weights", randomized, _spread(results)),
        _check(results, "label_randomization", "Shuffled labels"),
        _convergence(results),
    ]


def _perturbation(results: Results, curves: Sequence[Curve], styles: Mapping[str, Style]) -> Section | None:
    keys = results.keys_with_value("perturbation")
    output = "predicted score" if results.task == "regression" else "probability of the class"
    blocks: list[Block] = []
    clouds = [
        _cloud(results, styles, suffix, title)
        for suffix, title in (("", "Full range"), ("_half", "Half range"))
        if results.has(f"insertion_auc{suffix}") and results.has(f"deletion_auc{suffix}")
    ]
    if clouds:
        counts = counted(results.estimate(name, key).n for name in results.names for key in keys)
        caption = (
            f"Insertion against deletion AUC, with 95 % intervals (the paper's Figure 2), {counts}. Upper left is "
            "best. Values that the hollow controls reach need no knowledge of the network."
        )
        blocks.append(Figure(caption, clouds, legend(results.names, styles)))
    if keys:
        columns = [Column.of_measure(results, key) for key in keys]
        caption = f"Perturbation: the {output} as pixels are inserted, deleted and removed"
        blocks.append(measure_table(results, caption, columns))
    for titles, x_label in (
        ({"insertion": "Insertion", "deletion": "Deletion"}, "share of the pixels exchanged"),
        (
            {"road_morf": "Strongest removed first", "road_lerf": "Weakest removed first"},
            "share of the pixels removed",
        ),
    ):
        drawn = {title: curves_named(curves, name, results) for name, title in titles.items()}
        shown = " and ".join(title.lower() for title, of_kind in drawn.items() if of_kind).capitalize()
        figure = curve_figure(drawn, styles, x_label, output, f"{shown}: mean and 95 % band, {{n}}.")
        if figure is not None:
            blocks.append(figure)
    if not blocks:
        return None
    return Section(
        "perturbation",
        "Insertion, deletion and removal (Figure 2)",
        blocks,
        explanations=explained(results, keys),
        words={"output": output},
    )


def _cloud(results: Results, styles: Mapping[str, Style], suffix: str, title: str) -> Markup:
    points = {
        name: (results.estimate(name, f"deletion_auc{suffix}"), results.estimate(name, f"insertion_auc{suffix}"))
        for name in results.names
    }
    return scatter(points, styles, title, "deletion AUC (lower is better)", "insertion AUC (higher is better)")


def _spread(results: Results) -> dict[str, str]:
    """Words on how far the outputs of the randomised networks still vary between images."""
    protocol = results.protocol.get("randomization") or {}
    spreads = [
        f"{spread:.2g} ({share:.0%} of the layers)"
        for share, spread in zip(protocol.get("share", ()), protocol.get("spread", ()), strict=True)
        if spread is not None
    ]
    return {"spread": ", ".join(spreads), "dead": ", ".join(f"{share:.0%}" for share in protocol.get("dead", ()))}


def _check(
    results: Results, table: str, title: str, figure: Figure | None = None, words: Mapping[str, str] | None = None
) -> Section | None:
    """Build a section of one measure with its curve, and of the measures declared for the same table."""
    blocks: list[Block] = [] if figure is None else [figure]
    keys = results.keys_with_value(table)
    columns = []
    for key in keys:
        columns.append(Column.of_measure(results, key))
        if key == table and results.has(key, over_classes=True):
            columns.append(Column("mean over classes", key, over_classes=True))
    if columns:
        blocks.append(measure_table(results, results.title(table), columns))
    if not blocks:
        return None
    return Section(table, title, blocks, explanations=explained(results, keys), words=words or {})


def _convergence(results: Results) -> Section | None:
    keys = results.keys_with_value("convergence")
    if not keys:
        return None
    columns = [Column.of_measure(results, key) for key in keys]
    table = measure_table(results, "Change of the maps over the last fifth of the steps", columns)
    return Section("convergence", "Did the optimisation converge?", [table], explanations=explained(results, keys))
