"""Paired differences between methods, and between methods and controls: what “better” on the page is based on."""

from xml.etree.ElementTree import Element

from lightning_chex.estimates import Estimate
from lightning_chex.reporting.comparison import MIN_PATIENTS, clear_of_zero, common_n, most_patients, withheld
from lightning_chex.reporting.report.markup import details, element, section
from lightning_chex.reporting.report.tables import interval, scrolling
from lightning_chex.reporting.results import IOU_RULES, Results, number

COMPARED = (
    *("severity_correlation", "zone_correlation", "insertion_auc", "deletion_auc", "road", "sensitivity_n"),
    "randomization",
)
"""Measures that are compared on the page, after the headline; ``results.json`` holds the others too."""


def differences(results: Results) -> Element | None:
    """The section of paired differences, the first two measures unfolded; None without any."""
    keys = [key for key in (results.headline, *COMPARED) if key is not None and most_patients(results, key)]
    if not keys:
        return None
    tables = [_table(results, key) for key in keys]
    folded = [details(_title(results, key), table) for key, table in zip(keys[2:], tables[2:], strict=True)]
    return section(
        "differences",
        "Paired differences",
        "Each value is the mean, over the cases both have, of the row's value less the column's, with its 95 % "
        "interval by patient. Both see the same cases, so it can be clear of 0 where the intervals of the two means "
        "overlap. "
        f"Bold: clear of 0, with {MIN_PATIENTS} patients or more. The intervals are not corrected for their number: "
        "where nothing differs, one in twenty is clear of 0 by chance, so a table of fifty has two or three.",
        *tables[:2],
        *folded,
    )


def _title(results: Results, key: str) -> str:
    rule = f", threshold rule: {IOU_RULES[key]}" if key in IOU_RULES else ""
    return f"{'IoU' if rule else results.title(key)}{rule}"


def _table(results: Results, key: str) -> Element:
    rows = [name for name in results.methods if _measured(results, name, key)]
    columns = [name for name in [*results.controls, *rows] if any(results.difference(r, name, key).n for r in rows)]
    counts = {name: common_n(results.difference(row, name, key) for row in rows) for name in columns}
    better = results.better(key)
    head = [element("th", f"less {name}", element("small", f"n = {counts[name]:,}"), scope="col") for name in columns]
    body = []
    for row in rows:
        cells = [_cell(results.difference(row, name, key), better, counts[name]) for name in columns]
        body.append(element("tr", element("th", row, scope="row", class_="name"), *cells))
    table = element(
        "table",
        element("thead", element("tr", element("th", "method", scope="col", class_="name"), *head)),
        element("tbody", *body),
    )
    sign = "negative" if better == "lower" else "positive"
    notes = [
        f"A {sign} value speaks for the row ({better} is better). The differences rest on "
        f"{most_patients(results, key):,} patients."
    ]
    if why := withheld(results, key):
        notes.append(f"Nothing is set bold: {why}.")
    return scrolling(f"{_title(results, key)}: the row less the column", table, notes)


def _measured(results: Results, name: str, key: str) -> bool:
    return any(results.difference(name, other, key).n for other in results.names if other != name)


def _cell(difference: Estimate, better: str | None, count: int) -> Element:
    if not difference.known:
        return element("td", number(None), class_="none")
    small = interval(difference) + (f", n = {difference.n:,}" if difference.n != count else "")
    clear = clear_of_zero(difference, better) or clear_of_zero(-difference, better)
    return element("td", element("b" if clear else "span", number(difference.value)), element("small", small))
