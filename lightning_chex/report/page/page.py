"""The report as one HTML file without scripts and external resources: templates rendered from view objects."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lightning_chex.files import write_whole
from lightning_chex.report.comparison import MIN_PATIENTS
from lightning_chex.report.explanation import BITS_NOTE
from lightning_chex.report.page.charts import assign_styles
from lightning_chex.report.page.differences import differences
from lightning_chex.report.page.examples import ExampleRow, examples
from lightning_chex.report.page.faithfulness import faithfulness
from lightning_chex.report.page.localization import localization, severity
from lightning_chex.report.page.outcome import outcome
from lightning_chex.report.page.protocol import facts, full_protocol, glossary, left_out
from lightning_chex.report.page.tables import Column, measure_table
from lightning_chex.report.page.views import Link, Section, explained
from lightning_chex.report.results import Curve, Results

TABLES = frozenset(
    {
        "iou",
        "place",
        "found",
        "severity",
        "perturbation",
        "sensitivity_n",
        "randomization",
        "label_randomization",
        "convergence",
    }
)
"""Tables of the page that a measure can be declared for; measures of no such table are in "Further measures"."""

_FOLDER = Path(__file__).parent

_TEMPLATES = Environment(
    loader=FileSystemLoader(_FOLDER / "templates"),
    # class names, image ids and paths are other people's words: they must never become HTML
    autoescape=True,
    # a misspelt name is an error, not an empty place on the page
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
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
    write_page(
        path,
        "report.html",
        title=f"Evaluation of attribution maps: {_subject(results)}",
        sections=report_sections(results, curves, examples),
        outcome=outcome(results),
        facts=facts(results),
        methods=glossary(results),
        bits=BITS_NOTE,
    )


def report_sections(results: Results, curves: Sequence[Curve], rows: Sequence[ExampleRow]) -> list[Section]:
    """Build the sections of the page; those without data are left out."""
    styles = assign_styles(results)
    sections = [
        differences(results),
        *localization(results, curves, styles),
        severity(results, curves, styles),
        *faithfulness(results, curves, styles),
        _further(results),
        examples(rows, results, styles),
        left_out(results),
        full_protocol(results),
    ]
    return [section for section in sections if section is not None]


def write_page(
    path: Path, template: str, *, title: str, sections: Sequence[Section], links: Sequence[Link] = (), **content: Any
) -> None:
    """Render a template and write the page; its folder is made.

    Args:
        path: of the page.
        template: its file below ``templates``.
        title: of the page.
        sections: in order; the navigation links to them.
        links: further links of the navigation.
        content: whatever else the template shows.
    """
    style = Markup((_FOLDER / "style.css").read_text(encoding="utf-8"))  # our own file: a style has no escapes
    page = _TEMPLATES.get_template(template).render(
        title=title, sections=sections, links=links, style=style, min_patients=MIN_PATIENTS, **content
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    # a lone surrogate, as in a file name that is not UTF-8, cannot be encoded
    write_whole(path, f"{page.strip()}\n".encode(errors="replace"))


def _further(results: Results) -> Section | None:
    """Measures that no other section shows."""
    keys = [key for key in results.keys_with_value() if results.measure(key).table not in TABLES]
    if not keys:
        return None
    table = measure_table(results, "Further measures", [Column.of_measure(results, key) for key in keys])
    return Section("further", "Further measures", [table], explanations=explained(results, keys))


def _subject(results: Results) -> str:
    if results.task == "regression":
        return "severity score"
    return "severity detectors" if results.has_detectors else f"{len(results.class_names)} classes"
