"""Does the network use what a map marks, and does the map depend on the network? Figures 2 and 3b of the paper."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from xml.etree.ElementTree import Element

from lightning_chex.reporting.report.charts import Look, curve_figure, legend, scatter
from lightning_chex.reporting.report.markup import counted, curves_named, explained, figures, section
from lightning_chex.reporting.report.tables import Column, measure_table
from lightning_chex.reporting.results import Curve, Results

PARAMETERS, LABELS = "randomization", "label_randomization"

PERTURBATION = {
    "insertion_auc": ("insertion AUC", "full range, all pixels"),
    "deletion_auc": ("deletion AUC", "full range, all pixels"),
    "insertion_auc_half": ("insertion AUC", "half range, as the paper's authors"),
    "deletion_auc_half": ("deletion AUC", "half range, as the paper's authors"),
    "road": ("ROAD", "remove and debias"),
    "road_morf": ("strongest first", "remove and debias"),
    "road_lerf": ("weakest first", "remove and debias"),
}

CONVERGENCE = {"convergence": "median change", "unconverged": "share of maps not converged"}


def faithfulness(results: Results, curves: Sequence[Curve], looks: Mapping[str, Look]) -> list[Element | None]:
    """All sections about the network; None for those without data."""
    return [
        _perturbation(results, curves, looks),
        _sensitivity(results, curves, looks),
        _randomization(results, curves, looks),
        _label_randomization(results, curves, looks),
        _convergence(results),
    ]


def _perturbation(results: Results, curves: Sequence[Curve], looks: Mapping[str, Look]) -> Element | None:
    keys = results.keys(*PERTURBATION)
    output = _output(results)
    blocks: list[Element] = []
    clouds = [
        _cloud(results, looks, suffix, words)
        for suffix, words in (("", "Full range"), ("_half", "Half range"))
        if results.has(f"insertion_auc{suffix}") and results.has(f"deletion_auc{suffix}")
    ]
    if clouds:
        counts = counted(results.estimate(name, key).n for name in results.names for key in keys)
        caption = (
            f"Insertion against deletion AUC, with 95 % intervals (the paper's Figure 2), {counts}. Upper left is "
            "best; what the hollow controls reach, an order of pixels that knows nothing reaches too."
        )
        blocks.append(figures(caption, clouds, legend(results.names, looks)))
    if keys:
        columns = [
            Column(heading, key, group, marked=key not in ("road_morf", "road_lerf"))
            for key, (heading, group) in PERTURBATION.items()
            if key in keys
        ]
        blocks.append(measure_table(results, f"Perturbation: what the {output} does as pixels come and go", columns))
    for names, titles, x_label in (
        (("insertion", "deletion"), ("Insertion", "Deletion"), "share of the pixels exchanged"),
        (
            ("road_morf", "road_lerf"),
            ("Strongest removed first", "Weakest removed first"),
            "share of the pixels removed",
        ),
    ):
        found = {title: curves_named(curves, name, results) for name, title in zip(names, titles, strict=True)}
        what = " and ".join(title.lower() for title, own in found.items() if own).capitalize()
        drawn = curve_figure(found, looks, x_label, output, f"{what}: mean and 95 % band, {{n}}.")
        if drawn is not None:
            blocks.append(drawn)
    if not blocks:
        return None
    return section(
        "perturbation",
        "Insertion, deletion and removal (Figure 2)",
        "Pixels of a blurred image are replaced by the real ones (insertion) or the other way round (deletion) in "
        f"the order of the map, and the {output} is followed: a map that marks what the network uses lets it rise "
        "early and fall early. ROAD instead fills removed pixels in from their neighbours and reports by how much "
        "more the output suffers when the strongest pixels go than when the weakest go; higher is better.",
        *blocks,
        explained(results, keys),
    )


def _cloud(results: Results, looks: Mapping[str, Look], suffix: str, title: str) -> Element:
    points = {
        name: (results.estimate(name, f"deletion_auc{suffix}"), results.estimate(name, f"insertion_auc{suffix}"))
        for name in results.names
    }
    return scatter(points, looks, title, "deletion AUC (lower is better)", "insertion AUC (higher is better)")


def _sensitivity(results: Results, curves: Sequence[Curve], looks: Mapping[str, Look]) -> Element | None:
    return _one(
        results,
        curves,
        looks,
        key="sensitivity_n",
        title="Sensitivity-N (Figure 3b)",
        x_label="number of masked pixels",
        y_label="correlation",
        log_x=True,
        how="Many random sets of N pixels are masked: the curve shows how well the sum of the map over a set "
        "foretells the drop of the raw output. 1 is perfect, 0 is chance, and a random map stays at 0.",
    )


def _randomization(results: Results, curves: Sequence[Curve], looks: Mapping[str, Look]) -> Element | None:
    return _one(
        results,
        curves,
        looks,
        key="randomization",
        title="Randomised weights",
        x_label="share of the network drawn anew, from the top",
        y_label="rank correlation with the original",
        how="The network's weights are drawn anew, layer by layer from the output down, and its maps compared with the "
        "original ones; the figure is the mean over these stages. A map that explains what was learnt must change, "
        "towards 0; a control that ignores the network does not, so nothing is set bold here. A map that has become "
        f"the same everywhere is like no other: it is left out and counted.{_spread(results)}",
        beside={"randomization_blank": "blank maps, share"},
    )


def _spread(results: Results) -> str:
    """How far the outputs of the randomised networks still vary between images."""
    about = results.protocol.get(PARAMETERS) or {}
    known = [
        (part, own)
        for part, own in zip(about.get("share", ()), about.get("spread", ()), strict=True)
        if own is not None
    ]
    if not known:
        return ""
    said = ", ".join(f"{own:.2g} ({part:.0%})" for part, own in known)
    dead = ", ".join(f"{part:.0%}" for part in about.get("dead", ()))
    return (
        " Batch normalisations are calibrated and the last layer is scaled at each stage. The outputs of these "
        f"networks spread over images by so many times the trained network's spread: {said} of the layers drawn anew"
        f"{f'; less than a tenth, so that little is told, at {dead}' if dead else ''}."
    )


def _label_randomization(results: Results, curves: Sequence[Curve], looks: Mapping[str, Look]) -> Element | None:
    return _one(
        results,
        curves,
        looks,
        key=LABELS,
        title="Shuffled labels",
        how="The maps are compared with those of the same network trained on shuffled labels, which has learnt nothing "
        "of findings. A map that explains what labels say of images must differ, towards 0.",
        beside={"label_randomization_blank": "blank maps, share"},
    )


def _convergence(results: Results) -> Element | None:
    keys = results.keys(*CONVERGENCE)
    if not keys:
        return None
    columns = [Column(CONVERGENCE[key], key, marked=False) for key in keys]
    return section(
        "convergence",
        "Did the optimisation converge?",
        "The bottleneck methods find each map by an optimisation of a fixed number of steps. One that still changes "
        "over the last fifth of them would be another map with more steps: set steps higher. Methods and controls "
        "that optimise nothing have no value.",
        measure_table(results, "Change of the maps over the last fifth of the steps", columns),
        explained(results, keys),
    )


def _one(
    results: Results,
    curves: Sequence[Curve],
    looks: Mapping[str, Look],
    *,
    key: str,
    title: str,
    how: str,
    x_label: str = "",
    y_label: str = "",
    log_x: bool = False,
    beside: Mapping[str, str] = MappingProxyType({}),
) -> Element | None:
    """A section of one measure with its curve; ``beside`` names further measures of its table, with their headings."""
    found = {title.partition(" (")[0]: curves_named(curves, key, results)}
    drawn = curve_figure(found, looks, x_label, y_label, "Mean over maps and 95 % band, {n}.", log_x=log_x)
    blocks = [] if drawn is None else [drawn]
    others = [other for other in beside if results.has(other)]
    if results.has(key) or others:
        marked = key not in (PARAMETERS, LABELS)
        columns = [Column("mean over maps", key, marked=marked)]
        if results.has(key, over_classes=True):
            columns.append(Column("mean over classes", key, over_classes=True, marked=marked))
        columns += [Column(beside[other], other, marked=False) for other in others]
        blocks.append(measure_table(results, results.title(key), columns))
    return section(key, title, how, *blocks, explained(results, [key, *others])) if blocks else None


def _output(results: Results) -> str:
    return "predicted score" if results.task == "regression" else "probability of the class"
