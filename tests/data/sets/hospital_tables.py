"""Twelve invented tables as hospitals and companies export them, with what is in them."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

IMAGES = 48
"""Two of each patient."""


@dataclass(frozen=True)
class Case:
    """A table, how it is written, and what should be found in it.

    Attributes:
        rows: its cells.
        roles: column of each role, or columns.
        open: options of the undecided points, in order.
        answers: the values of those options.
        classes: names of the classes after the answers.
        suffix: of the file.
        separator: between cells.
        encoding: of a text file.
        box: columns and form of boxes.
        files: names of the image files.
    """

    rows: pd.DataFrame
    roles: dict[str, str | list[str]]
    classes: set[str]
    open: tuple[str, ...] = ()
    answers: dict[str, str] = field(default_factory=dict)
    suffix: str = ".csv"
    separator: str = ","
    encoding: str = "utf-8"
    box: tuple[list[str], str] | None = None
    files: tuple[str, ...] = tuple(f"images/img_{i:03d}.png" for i in range(IMAGES))

    def write(self, folder: Path) -> Path:
        """Write the images, below ``folder/xrays``, and the table."""
        for i, name in enumerate(self.files):
            path = folder / "xrays" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((100, 80), 2 * i, dtype=np.uint8)).save(path)
        path = folder / f"T{self.suffix}"
        if self.suffix == ".xlsx":
            with pd.ExcelWriter(path) as book:
                pd.DataFrame({"README": ["Export of the archive", "Contact the department"]}).to_excel(
                    book, sheet_name="README", index=False
                )
                self.rows.to_excel(book, sheet_name="Daten", index=False)
        else:
            path.write_bytes(self.rows.to_csv(index=False, sep=self.separator).encode(self.encoding))
        return path


def names() -> list[str]:
    return [Path(name).name for name in Case.files]


def stems() -> list[str]:
    return [Path(name).stem for name in Case.files]


def patients(prefix: str = "P") -> list[str]:
    return [f"{prefix}{1000 + i // 2}" for i in range(IMAGES)]


def dates() -> list[str]:
    return [f"{1 + i % 28:02d}.{1 + i % 12:02d}.2021" for i in range(IMAGES)]


def findings(one: str, other: str, none: str, mark: str = ", ") -> list[str]:
    """None on a third of the patients, one finding, or both."""
    return [(none, one, mark.join([one, other]))[i // 2 % 3] for i in range(IMAGES)]


def binary(step: int, yes: str = "1", no: str = "0") -> list[str]:
    return [yes if i // 2 % step == 0 else no for i in range(IMAGES)]


def _with_boxes(rows: pd.DataFrame, boxes: list[str], finding: str, normal: str, form: str) -> pd.DataFrame:
    """Give images with findings two rows, a box each, and others one row without a box."""
    found = []
    for i, row in enumerate(rows.to_dict("records")):
        if row[finding] == normal:
            found.append(row | dict.fromkeys(boxes, ""))
            continue
        for k in range(2):
            x, y, w, h = 2 + i % 5 + 48 * k, 5 + 55 * k, 20 + i % 3, 30 + k
            four = (x, y, w, h) if form == "xywh" else (x, y, x + w, y + h)
            found.append(row | dict(zip(boxes, map(str, four), strict=True)))
    return pd.DataFrame(found)


def _german() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "Bilddatei": names(),
            "PatNr": patients(""),
            "Aufnahme": dates(),
            "Befund": findings("Erguss", "Pneumonie", ""),
            "Dosis": [f"{i % 7},25" for i in range(IMAGES)],
        }
    )


CASES = {
    "German, semicolons, byte order mark, empty is normal": Case(
        _german(),
        {"image": "Bilddatei", "patient": "PatNr", "labels": "Befund"},
        {"Erguss", "Pneumonie"},
        ("missing",), {"missing": "negative"}, separator=";", encoding="utf-8-sig",
    ),
    "German, Windows-1252, sex and age": Case(
        pd.DataFrame({
            "Röntgenbild": names(), "Patientennummer": patients(), "Geschlecht": binary(2, "w", "m"),
            "Alter": [str(40 + i % 30) for i in range(IMAGES)],
            "Befund": findings("Ödem", "Erguss", "unauffällig", "; "),
        }),
        {"image": "Röntgenbild", "patient": "Patientennummer", "labels": "Befund", "sex": "Geschlecht", "age": "Alter"},
        {"Ödem", "Erguss"}, encoding="cp1252",
    ),
    "German, columns of yes and no": Case(
        pd.DataFrame({
            "Datei": names(), "PatID": patients(),
            "Erguss": binary(2, "ja", "nein"), "Stauung": binary(3, "ja", "nein"),
        }),
        {"image": "Datei", "patient": "PatID", "labels": ["Erguss", "Stauung"]},
        {"Erguss", "Stauung"}, separator=";",
    ),
    "French, UTF-16 with tabs": Case(
        pd.DataFrame({
            "Cliché": stems(), "Numéro patient": patients(), "Incidence": binary(2, "Face", "Profil"),
            "Résultat": findings("Épanchement", "Pneumonie", "normal", "|"),
        }),
        {"image": "Cliché", "patient": "Numéro patient", "labels": "Résultat", "view": "Incidence"},
        {"Épanchement", "Pneumonie"}, separator="\t", encoding="utf-16",
    ),
    "French, the patient is not named": Case(
        pd.DataFrame({"Fichier": names(), "Dossier": patients("D"), "Œdème": binary(2), "Masse": binary(3)}),
        {"image": "Fichier", "labels": ["Œdème", "Masse"]},
        {"Œdème", "Masse"}, ("columns.patient",), {"columns.patient": "Dossier"}, separator=";",
    ),
    "Spanish, back-slashes": Case(
        pd.DataFrame({
            "Ruta": [f"D:\\archivo\\images\\{name}"[11:] for name in names()], "Paciente": patients(),
            "Hallazgos": findings("Derrame", "Neumonía", "normal", ","),
        }),
        {"image": "Ruta", "patient": "Paciente", "labels": "Hallazgos"},
        {"Derrame", "Neumonía"}, separator=";",
    ),
    "Spanish, a score with decimal commas": Case(
        pd.DataFrame({
            "Imagen": names(), "Paciente": patients(), "Gravedad": [f"{i % 9},5" for i in range(IMAGES)],
        }),
        {"image": "Imagen", "patient": "Paciente", "score": "Gravedad"}, set(), separator=";",
    ),
    "Portuguese, boxes as further rows": Case(
        _with_boxes(
            pd.DataFrame({
                "Arquivo": names(), "Paciente": patients(),
                "Achado": [("Derrame", "Nódulo", "normal")[i // 2 % 3] for i in range(IMAGES)],
            }),
            ["esq", "topo", "dir", "base"], "Achado", "normal", "xyxy",
        ),
        {"image": "Arquivo", "patient": "Paciente", "labels": "Achado"},
        {"Derrame", "Nódulo"}, separator=";", box=(["esq", "topo", "dir", "base"], "xyxy"),
    ),
    "Portuguese, the split in a column": Case(
        pd.DataFrame({
            "Foto": names(), "Paciente": patients(), "Etapa": ["train"] * 24 + ["valid"] * 12 + ["test"] * 12,
            "Edema": binary(2, "sim", "não"), "Massa": binary(3, "sim", "não"),
        }),
        {"image": "Foto", "patient": "Paciente", "labels": ["Edema", "Massa"], "split": "Etapa"},
        {"Edema", "Massa"},
    ),
    "Chinese": Case(
        pd.DataFrame({
            "影像文件": names(), "患者编号": patients(), "性别": binary(2, "男", "女"),
            "诊断": findings("肺炎", "胸腔积液", "正常", "、"),
        }),
        {"image": "影像文件", "patient": "患者编号", "sex": "性别", "labels": "诊断"},
        {"肺炎", "胸腔积液"}, encoding="utf-8-sig",
    ),
    "English, accession numbers are the stems": Case(
        pd.DataFrame({
            "Accession": stems(), "MRN": patients(), "Study Date": dates(),
            "Ward": [("North", "South")[i % 2] for i in range(IMAGES)],
            "Reported": findings("Effusion", "Nodule", "", ", "),
        }),
        {"image": "Accession", "patient": "MRN", "labels": "Reported"},
        {"Effusion", "Nodule"}, ("missing",), {"missing": "negative"},
    ),
    "Excel, the first sheet is a read-me, several points are open": Case(
        pd.DataFrame({
            "Scan": names(), "Case": patients("C"), "Group": findings("red", "blue", "", "|"),
            "Device": [("alpha", "beta")[i % 2] for i in range(IMAGES)],
        }),
        {"image": "Scan"},
        {"red", "blue"},
        ("columns.patient", "columns.labels", "missing"),
        {"columns.patient": "Case", "columns.labels": "Group", "missing": "negative"}, suffix=".xlsx",
    ),
}  # fmt: skip
"""The tables, by what is special."""
