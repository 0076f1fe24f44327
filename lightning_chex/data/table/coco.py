"""Images and boxes in one JSON file, as the COCO data set has them."""

from pathlib import Path

import pandas as pd

from lightning_chex.data.contract import DataError
from lightning_chex.data.table.files import intact
from lightning_chex.json_text import load_json

IMAGE_COLUMNS = ["image", "width", "height"]
BOX_COLUMNS = ["image", "category", "x", "y", "w", "h", "width", "height"]


def read_coco(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read images and boxes.

    Args:
        path: JSON with ``images`` (``id``, ``file_name``, ``width``, ``height``), ``annotations`` (``image_id``,
            ``category_id``, ``bbox``: left, top, width, height in pixels) and ``categories`` (``id``, ``name``).

    Returns:
        Two tables of text: `IMAGE_COLUMNS`, a row an image, and `BOX_COLUMNS`, a row a box. Their rows are numbered by
        the order of images and annotations, from 0.

    Raises:
        DataError: no such file, or an annotation of an image or a category that it does not list.
    """
    with intact(path, "JSON as of COCO"):
        found = load_json(path)
    try:
        sizes = {own["id"]: [str(own[key]) for key in ("file_name", "width", "height")] for own in found["images"]}
        names = {own["id"]: str(own["name"]) for own in found["categories"]}
        boxes = []
        for own in found.get("annotations", []):
            image, width, height = sizes[own["image_id"]]
            left, top, wide, high = map(str, own["bbox"])
            boxes.append([image, names[own["category_id"]], left, top, wide, high, width, height])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} does not hold images, categories and annotations of COCO's form: {error!r}") from error
    return pd.DataFrame(list(sizes.values()), columns=IMAGE_COLUMNS), pd.DataFrame(boxes, columns=BOX_COLUMNS)
