"""The whole page: one HTML file without external resources."""

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from lightning_chex.files import write_whole
from lightning_chex.reporting.comparison import MIN_PATIENTS
from lightning_chex.reporting.report.charts import looks
from lightning_chex.reporting.report.differences import differences
from lightning_chex.reporting.report.examples import ExampleRow, examples
from lightning_chex.reporting.report.faithfulness import CONVERGENCE, LABELS, PARAMETERS, PERTURBATION, faithfulness
from lightning_chex.reporting.report.localization import ACCURACY, OTHER, SEVERITY, localization, severity
from lightning_chex.reporting.report.markup import Child, element, explained, section, to_html
from lightning_chex.reporting.report.outcome import outcome
from lightning_chex.reporting.report.protocol import facts, full_protocol, glossary, left_out, terms
from lightning_chex.reporting.report.tables import Column, measure_table
from lightning_chex.reporting.results import Curve, Results

_STYLE = Path(__file__).with_name("style.css")
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_SHOWN = (
    "iou",
    *OTHER,
    *ACCURACY,
    *PERTURBATION,
    *SEVERITY,
    "sensitivity_n",
    f"{PARAMETERS}_blank",
    PARAMETERS,
    f"{LABELS}_blank",
    LABELS,
    *CONVERGENCE,
)


def write_report(
    path: Path, results: Results, curves: Sequence[Curve] = (), examples: Sequence[ExampleRow] = ()
) -> None:
    """Write an evaluation as one self-contained HTML page, without scripts and external resources.

    Args:
        path: of the page; its folder is made.
        results: of the evaluation.
        curves: those of methods that are not in ``results`` are left out.
        examples: explained images, chosen by rank.
    """
    write_page(path, report_page(results, curves, examples))


def report_page(results: Results, curves: Sequence[Curve], rows: Sequence[ExampleRow]) -> Element:
    """The page as a tree; sections without data are left out."""
    look = looks(results.methods, results.controls)
    sections = [
        differences(results),
        *localization(results, curves, look),
        severity(results, curves, look),
        *faithfulness(results, curves, look),
        _further(results),
        examples(rows, results, look),
        left_out(results),
        full_protocol(results),
    ]
    known = [each for each in sections if each is not None]
    title = f"Evaluation of attribution maps: {_subject(results)}"
    links = [element("li", element("a", each.findtext("h2"), href=f"#{each.get('id')}")) for each in known]
    header = [element("header", *_opening(title, results)), element("nav", element("ul", *links))]
    return document(title, *header, *known)


def document(title: str, *content: Child) -> Element:
    """A whole page with its style, of which the browser fetches and runs nothing."""
    return element(
        "html",
        element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            # the browser enforces that nothing is fetched or run
            element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
            element("meta", name="color-scheme", content="light dark"),
            element("title", title),
            element("style", _STYLE.read_text(encoding="utf-8")),
        ),
        element("body", element("main", *content)),
        lang="en",
    )


def write_page(path: Path, page: Element) -> None:
    """Write a page; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # a lone surrogate, as in a file name that is not UTF-8, cannot be encoded
    write_whole(path, f"<!DOCTYPE html>\n{to_html(page)}\n".encode(errors="replace"))


def _opening(title: str, results: Results) -> list[Element]:
    said = outcome(results)
    sentences = [
        element("li", element("b", question), *(element("p", answer) for answer in answers))
        for question, answers in said
    ]
    return [
        element("h1", title),
        element(
            "p",
            "A trained network reads chest X-rays; attribution methods say which pixels its output rests on. This "
            "page measures how far these maps can be believed, beside controls: maps that know nothing of the "
            "network and any method must beat. The experiments are those of Khakzar et al., Explaining COVID-19 and "
            "Thoracic Pathology Model Predictions by Identifying Informative Input Features (MICCAI 2021); the "
            "paper's own figures stand beside ours where there are any, but were measured on other data and other "
            "weights.",
            class_="lede",
        ),
        element("h2", "The outcome"),
        element("ul", *sentences, class_="outcome")
        if said
        else element("p", "Nothing was measured that could be compared."),
        element(
            "p",
            "“Better” means: the 95 % interval of the mean difference on the same cases, of "
            f"{MIN_PATIENTS} patients or more, is clear of 0; the intervals are not corrected for their number. Where "
            "one holds 0, nothing is shown, which does not mean that two methods are equal.",
            class_="note",
        ),
        element("h2", "What was evaluated"),
        facts(results),
        *([known] if (known := glossary(results)) is not None else []),
        terms(),
    ]


def _further(results: Results) -> Element | None:
    """The measures that no other section shows."""
    shown = results.keys(*_SHOWN)
    rest = [key for key in results.keys(*results.measures) if key not in shown]
    if not rest:
        return None
    table = measure_table(results, "Further measures", [Column(results.title(key), key) for key in dict.fromkeys(rest)])
    return section(
        "further",
        "Further measures",
        "Measures beside those of the paper. What each one means, and which direction is better, stands below the "
        "table.",
        table,
        explained(results, rest),
    )


def _subject(results: Results) -> str:
    if results.task == "regression":
        return "severity score"
    return "severity detectors" if results.detectors else f"{len(results.class_names)} classes"
