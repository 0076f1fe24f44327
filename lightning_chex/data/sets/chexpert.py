"""CheXpert (Irvin et al. 2019) with the masks of CheXlocalize (Saporta et al. 2022)."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pytorch_lightning.utilities import rank_zero_warn

from lightning_chex.data.contract import DataError
from lightning_chex.data.sets.public import PublicDataModule, Published
from lightning_chex.data.table.annotations import MaskSources, Names, run_masks
from lightning_chex.data.table.files import contents
from lightning_chex.data.table.joining import check_columns, first_file, only, packed_too, stacked
from lightning_chex.data.table.labels import Policy
from lightning_chex.data.table.masks import Masks
from lightning_chex.data.table.reading import read_text_table, refuse_rows
from lightning_chex.data.table.segmentations import read_segmentations

COMPETITION = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
"""The five that CheXpert's competition is about."""

OBSERVATIONS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
"""All fourteen, in the order of ``train.csv``."""

OfficialValid = Literal["val", "test"]
"""What the publisher's validation set serves as; ``test``: validation is drawn from the training patients."""

_FOLDERS = ("", "CheXpert-v1.0-small/", "CheXpert-v1.0/", "CheXpert/", "CheXlocalize/")
_TABLES: Mapping[str, tuple[str, ...]] = {
    "train": ("train.csv",),
    "val": ("valid.csv", "val_labels.csv"),
    "test": ("test_labels.csv", "test.csv"),
}
_MASKS = {"val": "gt_segmentations_val.json", "test": "gt_segmentations_test.json"}
_PATH = re.compile(r"(?:^|/)(patient\d+)/(study\d+)/(view\d+_(frontal|lateral)\w*)\.\w+$")
_OTHER_NAMES = {"Lung Opacity": "Airspace Opacity"}


def observations(classes: list[str] | Literal["competition", "all"]) -> list[str]:
    """Return the names that ``classes`` of CheXpert and MIMIC stands for; a ValueError names one there is not."""
    sets = {"competition": COMPETITION, "all": OBSERVATIONS}
    unknown = classes not in sets if isinstance(classes, str) else bool(set(classes) - set(OBSERVATIONS))
    if unknown:
        raise ValueError(f"classes is {classes!r}: give competition, all, or some of {', '.join(OBSERVATIONS)}")
    return list(sets[classes]) if isinstance(classes, str) else classes


class CheXpertDataModule(PublicDataModule):
    """Serve CheXpert from its folder, the original or the small one, or the folder above it.

    Files: ``train.csv`` and ``valid.csv``, whose ``Path`` begins with the name of a folder that may be called
    otherwise on disk; for a test split ``test_labels.csv``, which CheXlocalize ships (in ``CheXpert/``) with the images
    of the test. Patients are those of the paths. Labels are read from reports, uncertain ones (-1) and such that a
    report does not mention (empty) among them, which count as ``uncertain`` and ``missing`` say; those of ``valid.csv``
    and of the test are radiologists'.

    Masks: CheXlocalize's ``gt_segmentations_val.json`` and ``gt_segmentations_test.json``, in ``root`` or
    ``CheXlocalize/`` below it, are read where they are there; their "Airspace Opacity" is "Lung Opacity" here. There
    are no boxes.

    Terms: Stanford University's research use agreement, for CheXlocalize too; neither may be passed on.

    Args:
        root: the folder with the publisher's files.
        classes: ``competition`` for its five, ``all`` for the fourteen of the table, or some of these.
        view: ``[Frontal]``, ``[Lateral]``, or both, as file names tell.
        uncertain: what -1 counts as: ``ignore``, ``positive`` or ``negative``.
        missing: what an empty label counts as; papers on CheXpert take it for negative.
        official_valid: what ``valid.csv`` serves as: ``val``, or ``test`` for copies without the images of the test;
            validation is then drawn from the training patients.
        kwargs: see ``PublicDataModule``.

    Raises:
        ValueError: unknown classes or an unknown policy.
    """

    options = ("official_valid",)

    def __init__(
        self,
        root: str | None = None,
        classes: list[str] | Literal["competition", "all"] = "competition",
        view: list[str] | None = ["Frontal"],  # noqa: B006  # never changed
        uncertain: Policy = "ignore",
        missing: Policy = "negative",
        official_valid: OfficialValid = "val",
        **kwargs: Any,
    ) -> None:
        names = observations(classes)
        if official_valid not in ("val", "test"):
            raise ValueError(f"official_valid is {official_valid!r}: give val or test")
        super().__init__(root, classes=names, view=view, uncertain=uncertain, missing=missing, **kwargs)
        self.official_valid: OfficialValid = official_valid
        self._mask_files: list[Path] = []

    def published(self, root: Path) -> Published:
        """Read the tables of all splits."""
        parts = []
        self._mask_files = []
        for split, names in _TABLES.items():
            path = first_file(root, *packed_too(*(folder + name for name in names for folder in _FOLDERS)))
            if path is None:
                if split != "test":
                    self._lacking(f"no {' or '.join(names)} in {root}, which holds {contents(root)}")
                continue
            table = read_text_table(path)
            check_columns(table, path, ["Path", *OBSERVATIONS])
            parts.append((_with_ids(table, path).assign(split=self.official_valid if split == "val" else split), path))
            masks = first_file(root, *(folder + _MASKS[split] for folder in _FOLDERS)) if split in _MASKS else None
            self._mask_files += [] if masks is None else [masks]
        if not parts:
            raise DataError(f"no table of CheXpert in {root}, which holds {contents(root)}: correct root")
        table, path = stacked(parts)
        told: dict[str, str] = {name.lower(): name for name in ("Sex", "Age") if name in table}
        return (
            table,
            path,
            only(image="image", patient="patient", split="split", labels=list(OBSERVATIONS), view="view", **told),
            None,
        )

    def read_masks(self, names: Names, root: Path) -> MaskSources | None:
        """Read CheXlocalize's masks, if they are there."""
        if not self._mask_files:
            return None
        runs = Masks(form="coco")
        found = [
            run_masks(
                _renamed(read_segmentations(path, self.class_names, _OTHER_NAMES)),
                path,
                runs,
                len(self.class_names),
                names,
                {},
            )
            for path in self._mask_files
        ]
        return MaskSources(
            len(self.class_names),
            runs={key: text for own in found for key, text in own.runs.items()},
            form="coco",
            frames={name: frame for own in found for name, frame in own.frames.items()},
        )

    def _lacking(self, message: str) -> None:
        if not self.allow_missing:
            raise DataError(f"{message}: unpack the publisher's files there, or set allow_missing: true to go without")
        rank_zero_warn(f"{message}; it is left out, because allow_missing is true")


def _with_ids(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Add columns ``image`` (``patient/study/view``, whatever the folders above are called), ``patient``, ``view``."""
    parts = table["Path"].str.extract(_PATH)
    refuse_rows(path, "Path", table["Path"], parts[0].isna(), "is no path patient00001/study1/view1_frontal.jpg")
    image = parts[0] + "/" + parts[1] + "/" + parts[2]
    return table.assign(image=image, patient=parts[0], view=parts[3].str.capitalize())


def _renamed(rows: pd.DataFrame) -> pd.DataFrame:
    """Ids ``patient00001_study1_view1_frontal`` become those of images."""
    return rows.assign(image=rows["image"].str.replace("_", "/", n=2, regex=False))
