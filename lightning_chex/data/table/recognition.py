"""Roles of the columns of a table, recognised by what their cells hold; names are only hints."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from lightning_chex.data.contract import DataError
from lightning_chex.data.images.images import IMAGE_SUFFIXES, first_few, image_id
from lightning_chex.data.table.columns import NONE, Columns, columns_of, is_binary, is_text
from lightning_chex.data.table.labels import counted_findings
from lightning_chex.data.table.locating import ends
from lightning_chex.data.table.reading import numbers, whole_numbers
from lightning_chex.data.table.words import CELLS, FINDINGS, SEXES, SPLITS, VIEWS, hints_at, is_healthy, plain

_NAMES = {
    "image": "image imageid imageindex imagename imagefile imagefilename imagepath filename file filepath path relpath "
    "relativepath dicom dicomid dicompath dicomfile sopinstanceuid img imgid imgname imgpath imgfile xray xrayid "
    "xrayfile png pngpath jpgpath jpegpath",
    "patient": "patient patientid patientnumber patientnr patientno patientcode patientname patid subject subjectid "
    "subjectno pid personid caseid mrn",
    "split": "split set subset partition fold datasplit dataset usage",
    "view": "view viewposition viewpos projection position appa frontallateral orientation",
    "sex": "sex gender patientsex patientgender",
    "age": "age patientage ageyears patientageyears ageatstudy",
}
"""Names by which a column is taken for a role without a look at its cells."""

_TEXT_LABELS = [
    "label",
    "labels",
    "finding",
    "findings",
    "findinglabel",
    "findinglabels",
    "diagnosis",
    "diagnoses",
    "pathology",
    "pathologies",
    "class",
    "classes",
    "classname",
    "target",
]
_SCORES = [
    "score",
    "severity",
    "severityscore",
    "brixia",
    "brixiascore",
    "brixiascoreglobal",
    "globalscore",
    "rale",
    "ralescore",
    "geographicextent",
    "opacityscore",
]
_NO_LABELS = [
    "followup",
    "followupnumber",
    "id",
    "index",
    "row",
    "number",
    "imageheight",
    "imagewidth",
    "height",
    "width",
    "rows",
    "columns",
    "bitsstored",
    "fold",
    "classid",
    "labelid",
    "categoryid",
    "radid",
    "reader",
    "readerid",
    "raterid",
    "x",
    "y",
    "xmin",
    "xmax",
    "ymin",
    "ymax",
    "x1",
    "x2",
    "y1",
    "y2",
    "w",
    "h",
]
_MEASURES = frozenset([*_NO_LABELS, *["date", "time", "studydate", "studytime", "year", "age", "score", "weight"]])
_DATE = r"\d{1,4}[-./]\d{1,2}[-./]\d{1,4}([ T].*)?|(19|20)\d{6}"
_SMALL = 150
"""Numbers up to this may be ages or scores, not ids."""
_NEARLY = 0.8
"""A column of which so many cells are 0 and 1 is taken for a class."""
_MOST_FINDINGS = 60
_LOOKED_AT = 2000
"""Cells of a column that are compared with the names of files to find out whether it names images."""
_COUNTED = ("split", "view", "sex")


@dataclass(frozen=True)
class OpenPoint:
    """A question about a table that only its owner can answer.

    Attributes:
        option: the argument of the data module that answers it, such as ``columns.labels``.
        question: a clause for a message.
        answers: values to choose from, as they are written in YAML.
    """

    option: str
    question: str
    answers: tuple[str, ...] = ()

    def __str__(self) -> str:
        mark = "" if self.question.endswith("?") else ":"
        answers = [f"'{answer}'" if answer.startswith("[") else answer for answer in self.answers]  # for the shell
        return f"{self.question}{mark} set --data.{self.option} {' or '.join(answers)}"


@dataclass(frozen=True)
class Recognised:
    """The columns of a table, and how they were found.

    Attributes:
        columns: all of them, ``none`` for those that are not there or are undecided.
        guessed: names of the attributes of `Columns` that were recognised, not configured.
        lacking: names of those that were looked for and not found.
        words: sentences for a reader, one a finding.
        evidence: how sure a role is and why, by the name of the attribute.
        open: what is undecided.
    """

    columns: Columns
    guessed: tuple[str, ...]
    lacking: tuple[str, ...]
    words: tuple[str, ...]
    evidence: Mapping[str, str]
    open: tuple[OpenPoint, ...] = ()


class FileIndex:
    """Image files below a root, to be looked up by path, end of a path, name or stem.

    Args:
        found: from ``find_below``.
    """

    def __init__(self, found: Mapping[str, str]) -> None:
        self._names = dict(found)
        for name, path in found.items():
            for end in ends(name):
                self._names.setdefault(end, path)

    def file_of(self, cell: str) -> str | None:
        """Return the path of the file that a cell names; None where there is none."""
        text = cell.replace("\\", "/").strip()
        folder, mark, name = text.rpartition("/")
        wanted = folder + mark + image_id(name) if name else ""
        return next((self._names[own] for own in (wanted, *ends(wanted)) if own and own in self._names), None)

    def matched(self, cells: pd.Series) -> pd.Series:
        """Return the file of each cell, None where there is none."""
        return cells.map({cell: self.file_of(cell) for cell in cells.unique()}).astype(object)

    def share_matched(self, cells: pd.Series) -> float:
        """Return the share of cells that name a file; of long columns evenly spaced cells are looked at."""
        step = -(-len(cells) // _LOOKED_AT) or 1
        return float(self.matched(cells[::step]).notna().mean()) if len(cells) else 0.0

    def most_matches(self, table: pd.DataFrame) -> int:
        """Return the number of matching cells in the column that has most."""
        cells = table.astype(str)
        shares = [self.share_matched(cells.iloc[:, k]) for k in range(cells.shape[1])]
        return int(self.matched(cells.iloc[:, int(np.argmax(shares))]).notna().sum()) if shares else 0


def recognise_columns(
    table: pd.DataFrame,
    path: Path,
    given: Columns,
    ignored: Iterable[str] = (),
    files: FileIndex | None = None,
) -> Recognised:
    """Find the columns that are not configured.

    Args:
        table: from ``read_text_table``.
        path: of the table, for messages.
        given: what is configured.
        ignored: columns that are something else, such as those of boxes.
        files: the images below the root, whose names the image column holds.

    Raises:
        DataError: a configured column is not there.
    """
    for field, names in vars(given).items():
        for name in [names] if isinstance(names, str) else names or ():
            if name not in table.columns and name != NONE:
                raise DataError(
                    f"{path} has no column {name!r}, which data.columns.{field} names; it has "
                    f"{first_few(map(repr, table.columns), 20)}"
                )
    used = {name for field in vars(given) for name in columns_of(given, field)} | set(ignored)
    search = _Search(table, used, files)
    for field in _NAMES:
        if getattr(given, field) is None:
            search.look_for(field)
    if given.labels is None and given.score is None:
        search.look_for_labels()
    else:
        search.found |= {name: NONE for name in ("labels", "score") if getattr(given, name) is None}
    found = search.found
    guessed = tuple(field for field, name in found.items() if name != NONE)
    undecided = {point.option.removeprefix("columns.") for point in search.open}
    lacking = tuple(field for field, name in found.items() if name == NONE and field not in undecided)
    columns = replace(given, **found)  # type: ignore[arg-type]
    return Recognised(columns, guessed, lacking, tuple(search.words), search.evidence, tuple(search.open))


def empty_labels(table: pd.DataFrame, columns: Columns) -> OpenPoint | None:
    """Ask for the meaning of empty cells in a column of findings where no cell says that there is none."""
    return _empty_findings(table[str(columns.labels)]) if is_text(table, columns) else None


def _empty_findings(cells: pd.Series) -> OpenPoint | None:
    empty = int((cells == "").sum())
    if not empty or any(is_healthy(cell) for cell in cells.unique()):
        return None
    return OpenPoint(
        "missing",
        f"{empty:,} of {len(cells):,} cells of {cells.name!r} are empty: normal (negative) or unknown (ignore)?",
        ("negative", "ignore"),
    )


class _Search:
    """Roles found so far, each column in one role at most."""

    def __init__(self, table: pd.DataFrame, used: set[str], files: FileIndex | None) -> None:
        self.table = table
        self.used = used
        self.files = files
        self.found: dict[str, str | list[str]] = {}
        self.words: list[str] = []
        self.evidence: dict[str, str] = {}
        self.open: list[OpenPoint] = []

    @property
    def free(self) -> list[str]:
        return [name for name in self.table.columns if name not in self.used]

    def take(self, field: str, names: str | list[str], sureness: str, why: str) -> None:
        self.found[field] = names
        self.used |= {names} if isinstance(names, str) else set(names)
        self.evidence[field] = f"{sureness}: {why}"

    def ask(self, field: str, question: str, candidates: Sequence[str] = (), option: str | None = None) -> None:
        self.found[field] = NONE
        self.open.append(OpenPoint(option or f"columns.{field}", question, tuple(map(repr, candidates)) or ("NAME",)))

    def look_for(self, field: str) -> None:
        named = [name for name in self.free if plain(name) in _NAMES[field].split()]
        if field == "image":
            self._image(named)
        elif field == "patient":
            self._patient(named)
        elif field == "age":
            named = [name for name in self.free if name in named or hints_at(name, "age")]
            self._simple(field, [name for name in named if self.table[name].str.contains(r"\d").mean() > 0.5])
        elif field == "split":
            self._simple(field, [name for name in named if self._only(name, SPLITS, 0)])
            if self.found[field] == NONE and not self.open_of(field):
                self._simple(field, [name for name in self.free if self._only(name, SPLITS, 2)])
        else:
            self._simple(field, named)
            if self.found[field] == NONE:
                words: Iterable[str] = VIEWS if field == "view" else SEXES
                self._simple(field, [name for name in self.free if self._only(name, words, 2)])

    def open_of(self, field: str) -> bool:
        return any(point.option == f"columns.{field}" for point in self.open)

    def _only(self, name: str, words: Iterable[str], distinct: int) -> bool:
        """Whether a column holds nothing but some words, and empty cells, with so many different ones at least."""
        cells = {cell.lower() for cell in self.table[name].unique()} - {""}
        return cells <= set(words) and len(cells) >= distinct

    def _simple(self, field: str, candidates: list[str]) -> None:
        self.found[field] = NONE
        if len(candidates) == 1:
            self.take(field, candidates[0], "likely", "by name and cells")
        elif candidates and field == "split":
            self.ask(field, f"{' and '.join(map(repr, candidates))} could all be the {field}", candidates)
        elif candidates:
            self.words.append(
                f"{field}: {' and '.join(map(repr, candidates))} could be it; data.columns.{field} names one"
            )
            self.used |= set(candidates)

    def _image(self, named: list[str]) -> None:
        count = len(self.table)
        files = {}
        if self.files is not None:
            possible = [name for name in self.free if name in named or self.files.share_matched(self.table[name]) > 0.4]
            files = {name: self.files.matched(self.table[name]) for name in possible}
        shares = {name: float(own.notna().mean()) for name, own in files.items()}
        best = max(shares.values(), default=0.0)
        if best >= 0.5:
            alike = [name for name in files if shares[name] == best]
            hinted = [name for name in alike if name in named or hints_at(name, "image")]
            alike = hinted or alike
            same = all(files[name].equals(files[alike[0]]) for name in alike)
            if not same:
                self._ask_image(alike)
                return
            why = f"{int(files[alike[0]].notna().sum()):,} of {count:,} values match files"
            self.take("image", alike[0], "certain" if best > 0.9 else "likely", why)
            self.used |= {name for name, own in files.items() if own.equals(files[alike[0]])}
            return
        candidates = named or [name for name in self.free if _names_files(self.table[name])]
        if len(candidates) == 1:
            matched = int(files[candidates[0]].notna().sum()) if candidates[0] in files else 0
            why = f"by name or suffix; {matched:,} of {count:,} values match files below the root"
            self.take("image", candidates[0], "likely" if self.files is None else "unsure", why)
        elif candidates:
            self._ask_image(candidates)
        else:
            columns = first_few(map(repr, self.table.columns), 20)
            self.ask("image", f"no column that looks like the image's file, none matches files; it has {columns}")

    def _ask_image(self, candidates: list[str]) -> None:
        self.used |= set(candidates)
        self.ask("image", f"{' and '.join(map(repr, candidates))} could all be the image", candidates)

    def _patient(self, named: list[str]) -> None:
        if len(named) > 1:
            self.used |= set(named)
            self.ask("patient", f"{' and '.join(map(repr, named))} could all be the patient", named)
            return
        likely = self._repeated_ids()
        hinted = named or [name for name in self.free if hints_at(name, "patient") and name in likely]
        self.found["patient"] = NONE
        if len(hinted) == 1:
            cells = self.table[hinted[0]]
            why = f"{cells.nunique():,} values in {len(cells):,} rows"
            self.take("patient", hinted[0], "certain" if hinted[0] in likely else "likely", why)
            return
        if likely:
            best = max(likely, key=lambda name: likely[name])
            self.ask(
                "patient",
                f"the {likely[best]:,} values of {best!r} in {len(self.table):,} rows may be patients (images of one "
                "patient must be in one split)",
                [*hinted, *([] if best in hinted else [best]), NONE],
            )

    def _repeated_ids(self) -> dict[str, int]:
        """Number of values of each column that looks like patient ids (repeated, with digits, without blanks)."""
        rows = len(self.table)
        fitting = {}
        for name in self.free:
            cells = self.table[name]
            if plain(name) in _MEASURES or cells.ne("").mean() <= 0.9:
                continue
            if not max(5, 0.1 * rows) <= cells.nunique() <= 0.95 * rows:
                continue
            ids = cells.str.fullmatch(r"[^\s|;,]*\d[^\s|;,]*") & ~cells.str.fullmatch(_DATE)
            values = numbers(cells)
            if ids.mean() > 0.9 and not values.max() <= _SMALL and (values.isna() | (values % 1 == 0)).all():
                fitting[name] = int(cells.nunique())
        return fitting

    def look_for_labels(self) -> None:
        """Find columns of 0 and 1, one of text, or one of a score, and ask where that is not clear."""
        self.found |= {"labels": NONE, "score": NONE}
        free = self.free
        binary = [name for name in free if plain(name) not in _NO_LABELS and is_binary(self.table[name])]
        for name in free:
            taken = name in binary or plain(name) in [*_NO_LABELS, *_TEXT_LABELS, *_SCORES]
            if not taken and (wrong := _nearly_binary(self.table[name])):
                self.open.append(
                    OpenPoint("columns.labels", f"{wrong}; correct the cell, or name the classes", ("[A,B]",))
                )
                binary.append(name)
        healthy = [name for name in binary if is_healthy(name)]
        if healthy and len(binary) > 1:
            self.words.append(
                f"{first_few(map(repr, healthy))} says that there is no finding, which is no class of its own"
            )
            binary = [name for name in binary if name not in healthy]
        other = [name for name in free if name not in [*binary, *healthy]]
        numeric = {name: numbers(self.table[name]).notna() for name in other}
        text = [name for name in other if plain(name) in _TEXT_LABELS and not numeric[name].any()]
        scores = [name for name in other if plain(name) in _SCORES and numeric[name].any()]
        findings = {name: _findings_of(self.table[name]) for name in other if name not in scores}
        possible = [name for name, counts in findings.items() if counts and not numeric[name].any()]
        if not text:
            text = [name for name in possible if hints_at(name, "labels") or _says_findings(findings[name])]
            speaking = [name for name in text if _says_findings(findings[name])]
            text = speaking or text
        if not scores:
            scores = [name for name in other if hints_at(name, "score") and numeric[name].mean() > 0.5]
        kinds = {"columns of 0 and 1": binary, "text": text, "a score": scores}
        ways = [f"{first_few(map(repr, names), 6)} ({kind})" for kind, names in kinds.items() if names]
        if not ways:
            self._ask_labels(possible, findings, [name for name in other if numeric[name].mean() > 0.5])
        elif len(ways) > 1 or len(text) > 1 or len(scores) > 1:
            answers = [f"[{', '.join(binary)}]" if binary else "", *map(repr, text)]
            self.open.append(
                OpenPoint(
                    "columns.labels",
                    f"several columns that could be the labels: {'; '.join(ways)}; or --data.columns.score A",
                    tuple(answer for answer in answers if answer) or ("A",),
                )
            )
            self._ask_empty(text)
        elif scores:
            values = numbers(self.table[scores[0]])
            why = f"numbers from {values.min():g} to {values.max():g}"
            self.take("score", scores[0], "likely", why)
        elif binary:
            self.take("labels", binary, "certain", f"{len(binary)} columns of 0 and 1, or yes and no")
        else:
            counts = _findings_of(self.table[text[0]]) or counted_findings(self.table[text[0]])
            sure = "certain" if _says_findings(counts) else "likely"
            why = f"{len(counts)} different findings, such as {first_few(counts, 4)}"
            self.take("labels", text[0], sure, why)

    def _ask_labels(self, text: list[str], findings: Mapping[str, Mapping[str, int]], numeric: list[str]) -> None:
        columns = first_few(map(repr, self.table.columns), 20)
        shown = [f"{name!r} ({first_few(findings[name], 3)})" for name in text]
        hint = f"; text of few words: {first_few(shown, 6)}" if shown else ""
        hint += f"; numbers: {first_few(map(repr, numeric), 6)} (--data.columns.score)" if numeric else ""
        self.ask("labels", f"no column that looks like labels{hint}; it has {columns}", text)
        self._ask_empty(text)

    def _ask_empty(self, candidates: Sequence[str]) -> None:
        """Ask for empty cells of the columns that may be the labels, together with the question for the labels."""
        questions = (_empty_findings(self.table[name]) for name in candidates)
        self.open += [question for question in questions if question is not None][:1]


def _names_files(cells: pd.Series) -> bool:
    return bool(cells.str.lower().str.endswith(IMAGE_SUFFIXES).mean() > 0.5)


def _nearly_binary(cells: pd.Series) -> str:
    """Name the first cell that is no label in a column of 0 and 1; empty where there is none."""
    said = cells.str.lower().map(CELLS)
    if said.isin(["positive", "negative"]).mean() < _NEARLY or not said.isna().any():
        return ""
    row = said.index[said.isna()][0]
    return f"row {row}, column {cells.name!r}: {cells[row]!r} is no label, though others here are 0 and 1"


def _findings_of(cells: pd.Series) -> dict[str, int]:
    """Findings of a column of text of few, short, repeated words; empty for other columns."""
    filled = cells[cells != ""]
    if not len(filled) or filled.str.fullmatch(_DATE).mean() > 0.5 or filled.str.len().mean() > 80:
        return {}
    counts = counted_findings(filled)
    most = max(2, min(_MOST_FINDINGS, len(filled) // 3))
    short = all(len(name) <= 40 and re.search(r"[^\W\d]", name) for name in counts)
    return counts if counts and len(counts) <= most and short else {}


def _says_findings(counts: Mapping[str, int]) -> bool:
    return any(part in name.lower() for name in counts for part in FINDINGS)


def _examples(cells: pd.Series, counted: bool) -> str:
    """Some cells, or how often each occurs."""
    if counted and cells.nunique() <= 8:
        return ", ".join(f"{cell or 'nothing'} {count:,} times" for cell, count in cells.value_counts().items())
    shown = [re.sub(r"\s+", " ", cell)[:40] for cell in cells[cells != ""].unique()[:3]]
    return f"such as {', '.join(shown)}"


def described_columns(table: pd.DataFrame, recognised: Recognised) -> list[str]:
    """Say in words what each column was taken for, and how sure that is."""
    columns = recognised.columns
    lines = []
    for field in vars(columns):
        names = columns_of(columns, field)
        if not names:
            continue
        how = "recognised" if field in recognised.guessed else "as configured"
        cells = whole_numbers(table[names[0]]) if field in ("image", "patient") else table[names[0]]  # as they are used
        example = f", {_examples(cells, counted=field in _COUNTED)}" if len(names) == 1 else ""
        why = f"; {recognised.evidence[field]}" if field in recognised.evidence else ""
        lines.append(f"{field:<8}{first_few(map(repr, names), 14)} ({how}{example}){why}")
    return [*lines, *recognised.words]
