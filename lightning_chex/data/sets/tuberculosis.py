"""The tuberculosis sets of the NLM, Montgomery County and Shenzhen (Jaeger et al. 2014)."""

import re
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pytorch_lightning.utilities import rank_zero_warn

from lightning_chex.data.contract import DataError
from lightning_chex.data.images.images import find_images, first_few
from lightning_chex.data.sets.public import PublicDataModule, Published
from lightning_chex.data.table.files import contents
from lightning_chex.data.table.joining import folder_of, only

_NAMES = {"montgomery": re.compile(r"MCUCXR_\d+_([01])"), "shenzhen": re.compile(r"CHNCXR_\d+_([01])")}
_SEX = re.compile(r"\b(male|female|sex\s*:?\s*([MF]))", re.IGNORECASE)
_AGE = re.compile(r"age\s*:?\s*0*(\d+)\s*([YMD])|(?<!\d)(\d+)\s*-?\s*(y|mo|da)", re.IGNORECASE)
_CLASS = "Tuberculosis"


class TuberculosisDataModule(PublicDataModule):
    """Serve the Shenzhen or the Montgomery X-rays with their label, tuberculosis or not.

    The images lie in ``CXR_png/``; the last digit of a name, ``CHNCXR_0001_0.png`` or ``MCUCXR_0001_1.png``, is the
    label. ``ClinicalReadings/``, a text an image, tells sex and age where it is there. One image a patient; there is no
    official split: it is drawn. There are no boxes and no masks of the findings; lung masks of both sets are served by
    ``LungDataModule``, ``--data.layout montgomery`` or ``shenzhen``.

    Terms: free for research, with the citation that the NLM asks for.

    Args:
        root: the folder of one of the two sets.
        layout: ``shenzhen`` or ``montgomery``; by default as the names of the images tell.
        kwargs: see ``PublicDataModule``.

    Raises:
        ValueError: an unknown layout or policy, or an impossible fraction.
    """

    options = ("layout",)

    def __init__(
        self, root: str | None = None, layout: Literal["shenzhen", "montgomery"] | None = None, **kwargs: Any
    ) -> None:
        if layout is not None and layout not in _NAMES:
            raise ValueError(f"layout is {layout!r}: give {' or '.join(_NAMES)}")
        super().__init__(root, classes=[_CLASS], **kwargs)
        self.layout = layout

    def published(self, root: Path) -> Published:
        """Make a table of the names of the images, and of the clinical readings."""
        folder = folder_of(root, "CXR_png")
        names = sorted(find_images(root, [folder], self.follow_links))
        forms = [_NAMES[self.layout]] if self.layout else list(_NAMES.values())
        labels = {name: found.group(1) for name in names for form in forms if (found := form.fullmatch(name))}
        strange = [name for name in names if name not in labels]
        if strange:
            message = (
                f"{folder}: {len(strange):,} of {len(names):,} images are not called CHNCXR_0001_0 or MCUCXR_0001_1, "
                f"whose last digit is the label: {first_few(strange)}"
            )
            if not self.allow_missing or not labels:
                raise DataError(f"{message}; remove them, or set allow_missing: true to leave them out")
            rank_zero_warn(f"{message}; they are left out, because allow_missing is true")
        if not labels:
            raise DataError(f"no image in {folder}, which holds {contents(folder)}: unpack the publisher's files there")
        table = pd.DataFrame({"image": [f"CXR_png/{name}" for name in labels], _CLASS: list(labels.values())})
        readings = [_reading(root / "ClinicalReadings" / f"{name}.txt") for name in labels]
        table[["sex", "age"]] = pd.DataFrame(readings, index=table.index)
        return table, folder, only(image="image", labels=[_CLASS], sex="sex", age="age"), None


def _reading(path: Path) -> tuple[str, str]:
    """Sex and age in years, as a clinical reading tells them; empty where it does not."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    sex = _SEX.search(text)
    age = _AGE.search(text)
    letter = (sex.group(2) or sex.group(1)[0]).upper() if sex else ""
    years = f"{age.group(1) or age.group(3)}{(age.group(2) or age.group(4))[0]}".upper() if age else ""
    return letter, years
