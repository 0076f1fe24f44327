"""MIMIC-CXR-JPG (Johnson et al. 2019): labels of reports, read by CheXpert's labeler or NegBio."""

from pathlib import Path
from typing import Any, Literal, get_args

from lightning_chex.data.sets.chexpert import OBSERVATIONS, observations
from lightning_chex.data.sets.public import PublicDataModule, Published
from lightning_chex.data.table.joining import joined, only, published_table
from lightning_chex.data.table.labels import Policy
from lightning_chex.data.table.reading import refuse_rows, whole_numbers

Labeler = Literal["chexpert", "negbio"]
"""What read the labels out of the reports."""

_IDS = ["subject_id", "study_id", "dicom_id"]


class MIMICDataModule(PublicDataModule):
    """Serve MIMIC-CXR-JPG as PhysioNet publishes it.

    Files, plain or ``.gz``: ``mimic-cxr-2.0.0-split.csv`` (the official split by patient), ``-metadata.csv`` (the view
    of each image) and ``-chexpert.csv`` (or ``-negbio.csv``), a row a study; and the images,
    ``files/p10/p10000032/s50414267/DICOM_ID.jpg`` or in these folders elsewhere below ``root``. The three are joined by
    subject, study and image. Images of studies without labels are left out. There are no boxes and no masks.

    Terms: PhysioNet's credentialed access; the images may not be passed on.

    Args:
        root: the folder with the publisher's files.
        classes: ``competition`` for the five of CheXpert's, ``all`` for the fourteen of the table, or some of these.
        view: of the metadata's ``ViewPosition``: ``PA``, ``AP``, ``LATERAL``, ``LL`` and others; null for all.
        uncertain: what -1 counts as: ``ignore``, ``positive`` or ``negative``.
        missing: what an empty label, of a finding that the report does not mention, counts as.
        labeler: whose labels: ``chexpert`` or ``negbio``.
        kwargs: see ``PublicDataModule``.

    Raises:
        ValueError: unknown classes, labeler or policy.
    """

    label_tables = ("mimic-cxr-2.0.0-split.csv", "mimic-cxr-2.0.0-split.csv.gz")
    options = ("labeler",)

    def __init__(
        self,
        root: str | None = None,
        classes: list[str] | Literal["competition", "all"] = "competition",
        view: list[str] | None = ["PA", "AP"],  # noqa: B006  # never changed
        uncertain: Policy = "ignore",
        missing: Policy = "negative",
        labeler: Labeler = "chexpert",
        **kwargs: Any,
    ) -> None:
        names = observations(classes)
        if labeler not in get_args(Labeler):
            raise ValueError(f"labeler is {labeler!r}: give {' or '.join(get_args(Labeler))}")
        super().__init__(root, classes=names, view=view, uncertain=uncertain, missing=missing, **kwargs)
        self.labeler: Labeler = labeler

    def published(self, root: Path) -> Published:
        """Join the three tables, a row an image."""
        table, path = published_table(root, "mimic-cxr-2.0.0-split.csv", columns=[*_IDS, "split"])
        views, views_path = published_table(
            root, "mimic-cxr-2.0.0-metadata.csv", columns=["dicom_id", "study_id", "ViewPosition"]
        )
        labels, labels_path = published_table(
            root, f"mimic-cxr-2.0.0-{self.labeler}.csv", columns=[*_IDS[:2], *OBSERVATIONS]
        )
        for name in _IDS[:2]:
            table[name], labels[name] = whole_numbers(table[name]), whole_numbers(labels[name])
            odd = ~table[name].str.fullmatch(r"\d+")
            refuse_rows(path, name, table[name], odd, "is no id of MIMIC, which are numbers")
        table = joined(table, path, views, views_path, ["dicom_id"], ["ViewPosition"])
        # images of studies without labels are no rows here: else a missing label would count as negative
        studied = table["study_id"].isin(labels["study_id"])
        table = joined(table, path, labels, labels_path, _IDS[:2], list(OBSERVATIONS))[studied]
        subject = "p" + table["subject_id"]
        image = "files/" + subject.str[:3] + "/" + subject + "/s" + table["study_id"] + "/" + table["dicom_id"]
        table = table.assign(image=image)
        return (
            table,
            path,
            only(image="image", patient="subject_id", split="split", labels=list(OBSERVATIONS), view="ViewPosition"),
            None,
        )
