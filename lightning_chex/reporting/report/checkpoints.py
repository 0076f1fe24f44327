"""The page that compares checkpoints: their values, their paired differences, and how well each predicts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from lightning_chex.estimates import Estimate
from lightning_chex.reporting.checkpoint_comparison import CheckpointComparison, score_titles
from lightning_chex.reporting.comparison import MIN_PATIENTS, clear_of_zero, common_n
from lightning_chex.reporting.report.differences import COMPARED
from lightning_chex.reporting.report.markup import Child, details, element, explained, section
from lightning_chex.reporting.report.outcome import words
from lightning_chex.reporting.report.page import document, write_page
from lightning_chex.reporting.report.tables import interval, scrolling
from lightning_chex.reporting.results import IOU_RULES, number

_UNFOLDED = 3
"""So many tables of measures are open; the others are folded."""


def write_comparison(path: Path, found: CheckpointComparison) -> None:
    """Write a comparison as one HTML page without scripts and external resources; it links to each report."""
    names = list(found.results)
    title = f"Checkpoints compared: {words(names)}"
    sections = [each for each in (_prediction(found), _measures(found), _by_class(found)) if each is not None]
    links = [element("li", element("a", each.findtext("h2"), href=f"#{each.get('id')}")) for each in sections]
    links += [element("li", element("a", f"report of {name}", href=f"{name}/report.html")) for name in names]
    header = element("header", *_opening(title, found))
    write_page(path, document(title, header, element("nav", element("ul", *links)), *sections))


def _opening(title: str, found: CheckpointComparison) -> list[Child]:
    warnings = [element("li", element("b", "The cases differ. "), f"{said}.") for said in found.warnings()]
    outcome = [
        element("li", element("b", measure), *(element("p", answer) for answer in answers))
        for measure, answers in _outcome(found)
    ]
    return [
        element("h1", title),
        element(
            "p",
            "One network with different weights, measured on the same X-rays and the same targets: the labels decide "
            "what is explained, whatever a checkpoint predicts. A difference in how maps lie on findings says "
            "something of the training only where the checkpoints predict about equally well.",
            class_="lede",
        ),
        element("ul", *warnings, class_="outcome") if warnings else None,
        element("h2", "The outcome"),
        element("ul", *outcome, class_="outcome") if outcome else element("p", "Nothing was measured by both."),
        element(
            "p",
            f"“Better” means: the 95 % interval of the mean difference on the same cases, of {MIN_PATIENTS} patients "
            "or more, is clear of 0; the intervals are not corrected for their number. Where one holds 0, nothing is "
            "shown, which does not mean that two checkpoints are equal.",
            class_="note",
        ),
    ]


def _outcome(found: CheckpointComparison) -> list[tuple[str, list[str]]]:
    """For each main measure, by which methods' maps one checkpoint does better than another."""
    said = []
    for key in (key for key in (found.headline, "severity_correlation", "insertion_auc", "deletion_auc") if key):
        answers = [answer for pair in found.pairs if (answer := _answer(found, key, pair))]
        if answers:
            said.append((_title(found, key), list(dict.fromkeys(answers))))
    return said


def _answer(found: CheckpointComparison, key: str, pair: tuple[str, str]) -> str | None:
    """What a measure says of two checkpoints; None where they have no case in common."""
    differences = {name: own for name in found.methods if (own := found.difference(name, pair, key)).known}
    if not differences:
        return None
    patients = max(own.patients for own in differences.values())
    if patients < MIN_PATIENTS:
        return f"{patients} patients, fewer than {MIN_PATIENTS}, so nothing is called better or worse."
    better = found.first.better(key)
    more = [name for name, own in differences.items() if clear_of_zero(own, better)]
    less = [name for name, own in differences.items() if clear_of_zero(-own, better)]
    apart = [name for name in differences if name not in more + less]
    parts = [
        *([f"{pair[0]} does better than {pair[1]} by the maps of {words(more)}"] if more else []),
        *([f"{pair[1]} does better than {pair[0]} by the maps of {words(less)}"] if less else []),
        *([f"{pair[0]} and {pair[1]} are not told apart by the maps of {words(apart)}"] if apart else []),
    ]
    return f"{'; '.join(parts)}."


def _prediction(found: CheckpointComparison) -> Element | None:
    """How well each checkpoint predicts the images reported on."""
    titles = {key: title for scores in found.scores.values() for key, title in score_titles(scores).items()}
    head = [element("th", title, scope="col") for title in titles.values()]
    rows = []
    for name, own in found.results.items():
        facts: dict[str, Any] = dict(own.protocol.get("checkpoint") or {})
        cells = [element("td", number(found.scores[name].get(key))) for key in titles]
        cases = f"{found.common + found.alone[name]:,}"
        file = [element("td", str(facts.get("file", ""))), element("td", str(facts.get("sha256", ""))[:12])]
        head_cell = element("th", element("a", name, href=f"{name}/report.html"), scope="row", class_="name")
        rows.append(element("tr", head_cell, *cells, element("td", cases), *file))
    others = [element("th", heading, scope="col") for heading in ("cases", "file", "SHA-256")]
    table = _table([element("th", "checkpoint", scope="col", class_="name"), *head, *others], rows)
    return section(
        "prediction",
        "How well they predict",
        "Over all images reported on; means over the classes that have images with and without the finding among "
        "them. Classes that have not are left out.",
        scrolling("Each checkpoint on the images reported on", table, []),
    )


def _measures(found: CheckpointComparison) -> Element | None:
    first = [key for key in (found.headline, *COMPARED) if key in found.measured]
    keys = [*first, *(key for key in found.measured if key in found.differences and key not in first)]
    if not keys:
        return None
    tables = [_measure(found, key) for key in keys]
    folded = [
        details(_title(found, key), table) for key, table in zip(keys[_UNFOLDED:], tables[_UNFOLDED:], strict=True)
    ]
    return section(
        "measures",
        "Measures and paired differences",
        "First the mean of each checkpoint with its 95 % interval by patient, then one checkpoint less another: the "
        "mean over the cases that both have, which can be clear of 0 where the intervals of the two means overlap. "
        f"Bold: clear of 0, with {MIN_PATIENTS} patients or more. Controls know nothing of the network; where they "
        "differ, the measure itself depends on the weights.",
        *tables[:_UNFOLDED],
        *folded,
        explained(found.first, keys),
    )


def _measure(found: CheckpointComparison, key: str) -> Element:
    def row(name: str) -> tuple[str, list[Estimate], list[Estimate]]:
        values = [found.estimate(each, name, key) for each in found.results]
        return name, values, [found.difference(name, pair, key) for pair in found.pairs]

    groups = [("", [row(name) for name in found.methods]), ("Controls", [row(name) for name in found.controls])]
    return _values_table(found, _title(found, key), "method", groups, found.first.better(key))


def _by_class(found: CheckpointComparison) -> Element | None:
    """IoU class by class, a table for each method."""
    key = found.headline
    classes = found.first.class_names
    if key is None or not classes or key not in found.differences:
        return None
    tables = []
    for name in found.methods:
        rows = []
        for each in [*classes, None]:
            of: dict[str, Any] = {"class_name": each} if each else {"over_classes": True}
            values = [found.estimate(checkpoint, name, key, **of) for checkpoint in found.results]
            less = [found.difference(name, pair, key, **of) for pair in found.pairs]
            if any(own.known for own in values):
                rows.append((each or "mean over classes", values, less))
        scores = {label: [found.scores[c].get(f"auroc/{label}") for c in found.results] for label, _, _ in rows}
        scores["mean over classes"] = [found.scores[c].get("auroc") for c in found.results]
        tables.append(
            _values_table(found, f"{_title(found, key)}, by class: {name}", "class", [("", rows)], "higher", scores)
        )
    folded = [details(f"By class: {name}", own) for name, own in list(zip(found.methods, tables, strict=True))[1:]]
    return section(
        "classes",
        "IoU by class",
        "As in the paper's Table 3: whether another training moves the maps of single classes. Single classes have few "
        "patients each, and are many: an interval clear of 0 may well be chance. AUROC stands beside, on the same "
        "images.",
        *tables[:1],
        *folded,
    )


def _values_table(
    found: CheckpointComparison,
    caption: str,
    heading: str,
    groups: Sequence[tuple[str, Sequence[tuple[str, Sequence[Estimate], Sequence[Estimate]]]]],
    better: str | None,
    scores: dict[str, list[float | None]] | None = None,
) -> Element:
    """Rows of values by checkpoint, then differences by pair, then scores by checkpoint where there are some."""
    headings = [*found.results, *(f"{one} less {other}" for one, other in found.pairs)]
    rows = [[*values, *less] for _, group in groups for _, values, less in group]
    counts = [common_n(column) for column in zip(*rows, strict=True)] if rows else [0] * len(headings)
    small = [element("small", f"n = {count:,}") if count and heading != "class" else None for count in counts]
    head = [element("th", name, own, scope="col") for name, own in zip(headings, small, strict=True)]
    head += [element("th", f"AUROC of {name}", scope="col") for name in found.results] if scores else []
    head = [element("th", heading, scope="col", class_="name"), *head]
    bodies = []
    for title, group in groups:
        lines = []
        for name, values, less in group:
            numbers = zip([*values, *less], counts, strict=True)
            cells = [
                _cell(own, count if heading != "class" else 0, better if place >= len(values) else None)
                for place, (own, count) in enumerate(numbers)
            ]
            cells += [element("td", number(own)) for own in scores[name]] if scores else []
            lines.append(element("tr", element("th", name, scope="row", class_="name"), *cells))
        band = element("tr", element("th", element("span", title), colspan=str(len(head)), scope="rowgroup"))
        if lines:
            bodies.append(element("tbody", *([band] if title else []), *lines, class_="controls" if title else None))
    note = {
        "higher": "A positive difference speaks for the first of the two (higher is better).",
        "lower": "A negative difference speaks for the first of the two (lower is better).",
    }.get(better or "", "")
    table = element("table", element("thead", element("tr", *head)), *bodies)
    return scrolling(caption, table, [note, "Small print: 95 % interval, bootstrap by patient; – stands for no value."])


def _cell(own: Estimate, count: int, better: str | None) -> Element:
    """A value with its interval; with ``better`` a difference, bold where it is clear of 0."""
    if not own.known:
        return element("td", number(None), class_="none")
    small = interval(own) + (f", n = {own.n:,}" if own.n != count else "")
    clear = better is not None and (clear_of_zero(own, better) or clear_of_zero(-own, better))
    return element("td", element("b" if clear else "span", number(own.value)), element("small", small))


def _table(head: Sequence[Element], rows: Sequence[Element]) -> Element:
    return element("table", element("thead", element("tr", *head)), element("tbody", *rows))


def _title(found: CheckpointComparison, key: str) -> str:
    return f"IoU, threshold rule: {IOU_RULES[key]}" if key in IOU_RULES else found.first.title(key)
