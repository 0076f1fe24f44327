"""Which column of a table is what: as it is configured, or recognised by its name and its cells."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from lightning_chex.data.contract import DataError
from lightning_chex.data.files.images import IMAGE_SUFFIXES, first_few
from lightning_chex.data.tables.reading import numbers, refuse_rows, whole_numbers
from lightning_chex.data.tables.words import CELLS, SPLITS, is_healthy, plain

NONE = "none"
"""Instead of the name of a column: there is none, whatever the table has."""


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table; None is recognised by name and cells, ``none`` is not there.

    Attributes:
        image: the image's file: a path below the data root, a file name, one without suffix, or a DICOM UID.
        patient: whose image it is; without it every image counts as a patient of its own.
        split: train, val or test; without it the splits are drawn by patient.
        labels: one column a class, or the one column that names the findings as text, ``Edema|Effusion``.
        score: the severity, or several scores, instead of ``labels``.
        view: the projection, such as PA and AP.
        sex: of the patient.
        age: of the patient.
        reader: who read the image, where several have: it has a row for each of them. It is never recognised.
    """

    image: str | None = None
    patient: str | None = None
    split: str | None = None
    labels: str | list[str] | None = None
    score: str | list[str] | None = None
    view: str | None = None
    sex: str | None = None
    age: str | None = None
    reader: str | None = None


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
_TEXT_LABELS = (
    "label labels finding findings findinglabel findinglabels diagnosis diagnoses pathology pathologies class classes "
    "classname target"
)
_SCORES = (
    "score severity severityscore brixia brixiascore brixiascoreglobal globalscore rale ralescore geographicextent "
    "opacityscore"
)
_PATIENT_FOLDERS = (r"patient[-_]?\d+", r"p\d{8}", r"(?:subject|sub|pat)[-_]?\d+")
_SMALL = 150
_NEARLY = 0.8
"""A column of which so many cells are 0 and 1 is taken for a class."""
_COUNTED = ("split", "view", "sex")
_NO_LABELS = (
    "followup followupnumber id index row number imageheight imagewidth height width rows columns bitsstored fold "
    "classid labelid categoryid radid reader readerid raterid x y xmin xmax ymin ymax x1 x2 y1 y2 w h"
)

_MEASURES = frozenset(f"{_NO_LABELS} date time studydate studytime year age score weight".split())


@dataclass(frozen=True)
class Recognised:
    """The columns of a table, and how they were found.

    Attributes:
        columns: all of them, ``none`` for those that are not there.
        guessed: names of the attributes of `Columns` that were recognised, not configured.
        lacking: names of those that were looked for and not found.
        words: sentences for a reader, one a finding.
    """

    columns: Columns
    guessed: tuple[str, ...]
    lacking: tuple[str, ...]
    words: tuple[str, ...]


def recognise_columns(table: pd.DataFrame, path: Path, given: Columns, ignored: Iterable[str] = ()) -> Recognised:
    """Find the columns that are not configured.

    Args:
        table: from ``read_text_table``.
        path: of the table, for messages.
        given: what is configured.
        ignored: columns that are something else, such as those of boxes.

    Raises:
        DataError: a configured column is not there; the image or the labels are not found, or could be several columns.
    """
    for field, names in vars(given).items():
        for name in [names] if isinstance(names, str) else names or ():
            if name not in table.columns and name != NONE:
                raise DataError(
                    f"{path} has no column {name!r}, which data.columns.{field} names; it has "
                    f"{first_few(map(repr, table.columns), 20)}"
                )
    found: dict[str, str | list[str]] = {}
    words: list[str] = []
    used = {name for names in vars(given).values() for name in ([names] if isinstance(names, str) else names or ())}
    used |= set(ignored)
    for field in _NAMES:
        if getattr(given, field) is not None:
            continue
        candidates = [name for name in _candidates(table, field) if name not in used]
        if field == "image" and not candidates:
            candidates = [name for name in table.columns if name not in used and _names_files(table[name])]
        if len(candidates) > 1 and field in ("image", "patient", "split"):
            raise _several(path, field, candidates)
        if len(candidates) > 1:
            words.append(f"{field}: {' and '.join(map(repr, candidates))} could be it; data.columns.{field} names one")
        found[field] = candidates[0] if len(candidates) == 1 else NONE
        used |= set(candidates)
    if (given.image or found.get("image")) in (None, NONE):
        raise DataError(
            f"{path} has no column that looks like the image's file; it has "
            f"{first_few(map(repr, table.columns), 20)}: name it by --data.columns.image"
        )
    if given.labels is None and given.score is None:
        found |= _labels(table, path, used, words)
    else:
        found |= {name: NONE for name in ("labels", "score") if getattr(given, name) is None}
    if found.get("patient") == NONE and (own := likely_patients(table, replace(given, **found))):  # type: ignore[arg-type]
        words.append(f"patient: {own} may be patients; data.columns.patient names it")
    guessed = tuple(field for field, name in found.items() if name != NONE)
    lacking = tuple(field for field, name in found.items() if name == NONE)
    return Recognised(replace(given, **found), guessed, lacking, tuple(words))  # type: ignore[arg-type]


def column_of(columns: Columns, field: str) -> str | None:
    """Return the one column of a field; None where there is none."""
    name = getattr(columns, field)
    return None if name in (None, NONE) else name


def columns_of(columns: Columns, field: str) -> list[str]:
    """Return the columns of ``labels`` or ``score`` as a list, empty where there are none."""
    names = getattr(columns, field)
    return [] if names in (None, NONE) else [names] if isinstance(names, str) else list(names)


def likely_patients(table: pd.DataFrame, columns: Columns) -> str | None:
    """Say which column, of no other use, has values that come back as patients do; None where none has.

    They are many, a tenth of the rows or more, and nearly each row has one; what repeats least is taken. Small numbers
    may be ages or scores.
    """
    used = {name for field in vars(columns) for name in columns_of(columns, field)}
    rows, fitting = len(table), {}
    for name in table.columns:
        cells = table[name]
        other = name not in used and plain(name) not in _MEASURES and cells.ne("").mean() > 0.9
        if other and max(5, 0.1 * rows) <= cells.nunique() <= 0.95 * rows and not numbers(cells).max() <= _SMALL:
            fitting[name] = cells.nunique()
    if not fitting:
        return None
    best = max(fitting, key=lambda name: fitting[name])
    return f"the {fitting[best]:,} values of {best!r} in {rows:,} rows"


def patient_pattern(cells: pd.Series) -> str | None:
    """Find out whether the folders of image files name the patient, as CheXpert's and MIMIC's do.

    Returns:
        The regular expression of the patient in a path; None where some path has no such folder.
    """
    paths = cells.str.replace("\\", "/", regex=False)
    return next((own for own in _PATIENT_FOLDERS if paths.str.contains(rf"(?:^|/){own}/").all()), None)


def checked_pattern(pattern: str | None) -> str | None:
    """Return a pattern of patients; a ValueError if it is no regular expression."""
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise ValueError(f"patient_pattern is {pattern!r}, no regular expression: {error}") from error
    return pattern


def is_text(table: pd.DataFrame, columns: Columns) -> bool:
    """Whether the labels are one column of words, not columns of 0 and 1."""
    return isinstance(columns.labels, str) and columns.labels != NONE and not _is_binary(table[columns.labels])


def _candidates(table: pd.DataFrame, field: str) -> list[str]:
    names = [name for name in table.columns if plain(name) in _NAMES[field].split()]
    if field == "split":
        return [name for name in names if {cell.lower() for cell in table[name].unique()} <= {"", *SPLITS}]
    if field == "age":
        return [name for name in names if table[name].str.contains(r"\d").mean() > 0.5]
    return names


def _names_files(cells: pd.Series) -> bool:
    return bool(cells.str.lower().str.endswith(IMAGE_SUFFIXES).mean() > 0.5)


def _is_binary(cells: pd.Series) -> bool:
    """Whether a column holds 0 and 1, or words for them, and nothing else."""
    found = {CELLS.get(plain_cell.lower()) for plain_cell in cells.unique()}
    return None not in found and bool({"positive", "negative"} & found)


def _refuse_nearly_binary(cells: pd.Series, path: Path, name: str) -> None:
    """A class must not be lost for one wrong cell."""
    said = cells.str.lower().map(CELLS)
    known = said.isin(["positive", "negative"])
    if known.mean() >= _NEARLY:
        way_out = "correct the cell, or name the classes by --data.columns.labels '[A,B]'"
        refuse_rows(path, name, cells, said.isna(), f"is no label, though others here are 0 and 1: {way_out}")


def _labels(table: pd.DataFrame, path: Path, used: set[str], words: list[str]) -> dict[str, str | list[str]]:
    free = [name for name in table.columns if name not in used]
    named = [name for name in free if plain(name) not in _NO_LABELS.split()]
    binary = [name for name in named if _is_binary(table[name])]
    for name in named:
        if name not in binary and plain(name) not in [*_TEXT_LABELS.split(), *_SCORES.split()]:
            _refuse_nearly_binary(table[name], path, name)
    healthy = [name for name in binary if is_healthy(name)]
    if healthy and len(binary) > 1:
        words.append(f"{first_few(map(repr, healthy))} says that there is no finding, which is no class of its own")
        binary = [name for name in binary if name not in healthy]
    text = [name for name in free if plain(name) in _TEXT_LABELS.split() and name not in [*binary, *healthy]]
    text = [name for name in text if not numbers(table[name]).notna().any()]
    scores = [name for name in free if plain(name) in _SCORES.split() and name not in binary]
    scores = [name for name in scores if numbers(table[name]).notna().any()]
    kinds: dict[str, Sequence[str]] = {"columns of 0 and 1": binary, "text": text, "a score": scores}
    ways = [f"{first_few(map(repr, names), 6)} ({kind})" for kind, names in kinds.items() if names]
    if not ways:
        raise DataError(
            f"{path} has no column that looks like labels; it has {first_few(map(repr, table.columns), 20)}: name them "
            "by --data.columns.labels '[A,B]' (a column a class), --data.columns.labels A (text) or "
            "--data.columns.score A"
        )
    if len(ways) > 1 or len(text) > 1 or len(scores) > 1:
        raise DataError(
            f"{path} has several columns that could be the labels: {'; '.join(ways)}. Name those that are by "
            "--data.columns.labels '[A,B]' or --data.columns.score A"
        )
    if scores:
        return {"score": scores[0], "labels": NONE}
    return {"labels": text[0] if text else binary, "score": NONE}


def _several(path: Path, field: str, candidates: Sequence[str]) -> DataError:
    names = " and ".join(map(repr, candidates))
    return DataError(f"{path}: {names} could all be the {field}: name the right one by --data.columns.{field}")


def _examples(cells: pd.Series, counted: bool) -> str:
    """What a column holds: some cells, or how often each occurs."""
    if counted and cells.nunique() <= 8:
        return ", ".join(f"{cell or 'nothing'} {count:,} times" for cell, count in cells.value_counts().items())
    shown = [re.sub(r"\s+", " ", cell)[:40] for cell in cells[cells != ""].unique()[:3]]
    return f"such as {', '.join(shown)}"


def described_columns(table: pd.DataFrame, recognised: Recognised) -> list[str]:
    """Say in words what each column was taken for."""
    columns, lines = recognised.columns, []
    for field in vars(columns):
        names = columns_of(columns, field)
        if not names:
            continue
        how = "recognised" if field in recognised.guessed else "as configured"
        cells = whole_numbers(table[names[0]]) if field in ("image", "patient") else table[names[0]]  # as they are used
        example = f", {_examples(cells, counted=field in _COUNTED)}" if len(names) == 1 else ""
        lines.append(f"{field:<8}{first_few(map(repr, names), 14)} ({how}{example})")
    return [*lines, *recognised.words]
