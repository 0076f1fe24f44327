"""The results as Markdown: means over cases, 95 % intervals by bootstrap over cases, differences paired by case."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.beta.measures import FRACTION, REACH, RECALL_FRACTION, STEP
from benchmarks.pages import estimate
from lightning_chex.metrics import summarize

Row = dict[str, Any]
OBJECTIVE_NAMES = {
    "binary_cross_entropy": "class",
    "one_hot_binary_cross_entropy": "one-hot mean",
    "deviation": "deviation",
    "squared_error": "squared error",
    "maximize_score": "maximise",
}
LIMITS = {
    "map_change": (0.01, 0.02, 0.05, 0.1),
    "bits_change": (0.05, 0.1, 0.2, 0.5),
    "objective_change": (0.02, 0.05, 0.1, 0.2),
}
"""Limits that are tried for each convergence figure."""


def markdown(results: dict[str, list[Row]]) -> str:
    """All tables of the parts that were run."""
    parts = {
        "classes": ("The explained class", class_tables),
        "cues": ("Two redundant cues", cue_tables),
        "layers": ("Several layers", layer_tables),
        "scores": ("Severity scores", score_tables),
        "steps": ("Steps", step_tables),
    }
    text: list[str] = []
    for name, (title, tables) in parts.items():
        if results.get(name):
            text += [f"## {title}", "", *tables(results[name]), ""]
    return "\n".join(text)


def class_tables(rows: Sequence[Row]) -> list[str]:
    text = [
        f"IoU: with the true mask, the strongest {FRACTION:.0%} of the pixels marked. Insertion and deletion: mean "
        f"probability while the strongest {REACH:.0%} of the pixels are exchanged with a blurred image, in steps of "
        f"{STEP:.0%}. Agreement: Spearman over pixels with the authors' setting of the same method, and with the other "
        "method at the same beta.",
        "",
    ]
    for network, own in by_network(rows):
        text += [
            f"Network {network}, {cases_of(own)}:",
            "",
            "| method | objective | optimiser | steps | beta | bits | loss | map change | insertion | deletion | "
            "IoU | pointing | with authors' | with other |",
            "|---" * 14 + "|",
        ]
        for row in sorted(own, key=setting):
            cells = [mean(row, name) for name in ("bits", "loss", "map_change", "insertion", "deletion")] + [
                with_interval(row, "iou")
            ]
            cells += [mean(row, name) for name in ("pointing", "to_authors", "to_other")]
            text.append(f"| {named(row)} | {' | '.join(cells)} |")
        text.append("")
    return text


def cue_tables(rows: Sequence[Row]) -> list[str]:
    text = [
        f"Recall: share of a cue's pixels among the strongest {RECALL_FRACTION:.0%} of the image's pixels; of the two "
        "cues the one found worse. 'At the cues' share': as many pixels marked as the cues have.",
        "",
    ]
    for network, own in by_network(rows):
        text += [
            f"Network {network}, {cases_of(own)}:",
            "",
            "| method | objective | optimiser | steps | beta | bits | loss | worse cue | both | "
            "worse cue, at the cues' share | with authors' | with other |",
            "|---" * 12 + "|",
        ]
        for row in sorted(own, key=setting):
            cells = [mean(row, "bits"), mean(row, "loss"), with_interval(row, "worse"), mean(row, "both")]
            cells += [with_interval(row, "worse_exact"), mean(row, "to_authors"), mean(row, "to_other")]
            text.append(f"| {named(row)} | {' | '.join(cells)} |")
        text += ["", *pair_table(own), ""]
    return text


def pair_table(rows: Sequence[Row]) -> list[str]:
    """Inverse minus IBA for all pairs of betas, at each learning rate and number of steps."""
    text = ["Recall of the worse cue, Inverse minus IBA, paired by case:", ""]
    ours = [row for row in rows if row["objective"] == "binary_cross_entropy"]
    for optimizer, steps in dict.fromkeys((row["optimizer"], row["steps"]) for row in ours):
        same = [row for row in ours if (row["optimizer"], row["steps"]) == (optimizer, steps)]
        first, second = ({row["beta"]: row for row in same if row["method"] == name} for name in ("IBA", "Inverse"))
        heads = " | ".join(f"Inverse, beta {beta:g}" for beta in sorted(second))
        text += [f"| optimiser {optimizer}, {steps} steps: IBA's beta | {heads} |", "|---" * (len(second) + 1) + "|"]
        for beta in sorted(first):
            cells = [difference(second[other], first[beta], "worse") for other in sorted(second)]
            text.append(f"| {beta:g} | {' | '.join(cells)} |")
        text.append("")
    authors = {row["method"]: row for row in rows if row["objective"] != "binary_cross_entropy"}
    return [*text, f"In the authors' setting: {difference(authors['Inverse'], authors['IBA'], 'worse')}."]


def layer_tables(rows: Sequence[Row]) -> list[str]:
    text = []
    for network, own in by_network(rows):
        text += [
            f"Network {network}, {cases_of(own)}:",
            "",
            "| layer | beta | bits | IoU | pointing |",
            "|---" * 5 + "|",
        ]
        for row in own:
            if row["layer"] != "combined":
                cells = [mean(row, name) for name in ("bits", "loss", "map_change")]
                cells += [with_interval(row, "iou"), mean(row, "pointing")]
                head = f"{row['optimizer']} | {row['steps']} | {row['layer']} | {row['beta']:g}"
                text.append(f"| {head} | {' | '.join(cells)} |")
        text += [
            "",
            "Combined, gated by `rms` at the authors' threshold: denseblock1 at one beta, kept where denseblock2 and 3 "
            "at another pass. 'Kept': share of the pixels that pass.",
            "",
            "| optimiser | steps | beta of denseblock1 | beta of denseblock2 and 3 | kept | IoU | pointing |",
            "|---" * 7 + "|",
        ]
        for row in own:
            if row["layer"] == "combined":
                cells = [mean(row, "kept"), with_interval(row, "iou"), mean(row, "pointing")]
                head = f"{row['optimizer']} | {row['steps']} | {row['beta']:g} | {row['gate']:g}"
                text.append(f"| {head} | {' | '.join(cells)} |")
        text.append("")
    return text


def score_tables(rows: Sequence[Row]) -> list[str]:
    text = [
        "Scores of 0 to 18 points. Pearson, within each image, of the map with the map of the zones' scores (pixels), "
        "and of the zones' mean relevance with their scores (zones). Insertion and deletion: mean predicted score.",
        "",
    ]
    for network, own in by_network(rows):
        text += [
            f"Network {network}, {cases_of(own)}:",
            "",
            "| method | objective | optimiser | steps | beta | bits | loss | pixels | zones | insertion | deletion |",
            "|---" * 11 + "|",
        ]
        for row in sorted(own, key=setting):
            cells = [mean(row, "bits"), mean(row, "loss"), with_interval(row, "pixels"), with_interval(row, "zones")]
            cells += [mean(row, "insertion"), mean(row, "deletion")]
            text.append(f"| {named(row)} | {' | '.join(cells)} |")
        text.append("")
    return text


def step_tables(rows: Sequence[Row]) -> list[str]:
    text = [
        "Spearman over pixels with the maps of the most steps (in their own row: of another seed of the noise). Map "
        "change: sum |cells after T - cells after 0.8 T| / sum of cells after T, the `convergence` of `IBA`. Objective "
        "change: the relative change of the whole of what is minimised. Medians over maps.",
        "",
        "| network | method | objective | optimiser | steps | beta | bits | loss | whole | "
        "Spearman | tenth percentile | >= .99 | >= .95 | IoU | map change | bits change | objective change |",
        "|---" * 17 + "|",
    ]
    for row in rows:
        agreement = column(row, "to_long")
        agreement = agreement[~np.isnan(agreement)]
        cells = [f"{np.median(column(row, name)):.3g}" for name in ("bits", "loss", "whole")]
        cells.append(f"{np.median(agreement):.4f}")
        cells += [
            f"{np.quantile(agreement, 0.1):.4f}",
            *(f"{(agreement >= bound).mean():.2f}" for bound in (0.99, 0.95)),
        ]
        cells += [mean(row, "iou"), *(f"{np.median(column(row, name)):.3f}" for name in LIMITS)]
        text.append(f"| {row['network']} | {named(row)} | {' | '.join(cells)} |")
    most = max(row["steps"] for row in rows)
    return [*text, "", *figure_tables([row for row in rows if row["steps"] < most])]


def figure_tables(rows: Sequence[Row]) -> list[str]:
    """How well each figure tells which maps agree with the converged ones."""
    agreement = np.concatenate([column(row, "to_long") for row in rows])
    text = [
        f"How well a figure of the run itself tells, over {len(agreement)} maps of all other rows:",
        "",
        "| figure | rank correlation with Spearman | limit | maps below | of these >= .99 | of these >= .95 | "
        "of those above >= .99 |",
        "|---" * 7 + "|",
    ]
    for name, limits in LIMITS.items():
        figure = np.concatenate([column(row, name) for row in rows])
        correlation = np.corrcoef(ranks(figure), ranks(agreement))[0, 1]
        for limit in limits:
            below = agreement[figure < limit]
            above = agreement[figure >= limit]
            shares = [share(below, 0.99), share(below, 0.95), share(above, 0.99)]
            text.append(f"| {name} | {correlation:.3f} | {limit:g} | {len(below)} | {' | '.join(shares)} |")
    return text


def share(values: np.ndarray, bound: float) -> str:
    return f"{(values >= bound).mean():.2f}" if len(values) else "-"


def ranks(values: np.ndarray) -> np.ndarray:
    return values.argsort().argsort().astype(float)


def setting(row: Row) -> tuple[Any, ...]:
    return row["method"], OBJECTIVE_NAMES[row["objective"]], row["optimizer"], row["steps"], row["beta"]


def named(row: Row) -> str:
    objective = OBJECTIVE_NAMES[row["objective"]]
    return f"{row['method']} | {objective} | {row['optimizer']} | {row['steps']} | {row['beta']:g}"


def by_network(rows: Sequence[Row]) -> Iterable[tuple[str, list[Row]]]:
    for network in dict.fromkeys(row["network"] for row in rows):
        yield network, [row for row in rows if row["network"] == network]


def cases_of(rows: Sequence[Row]) -> str:
    first = rows[0]
    return f"{len(first['patients'])} cases of {len(set(first['patients']))} patients"


def column(row: Row, name: str) -> np.ndarray:
    return np.array(row["values"].get(name, [np.nan] * len(row["patients"])), dtype=np.float64)


def mean(row: Row, name: str) -> str:
    """The mean; the median of what spreads over powers of ten."""
    values = column(row, name)
    centre = np.nanmedian if name in ("bits", "map_change") else np.nanmean
    return "" if np.isnan(values).all() else f"{centre(values):.3g}"


def with_interval(row: Row, name: str) -> str:
    return estimate(summarize(column(row, name), row["patients"]).mean)


def difference(first: Row, second: Row, name: str) -> str:
    paired = column(first, name) - column(second, name)
    return estimate(summarize(paired, first["patients"]).mean, signed=True)
