"""Masks of findings in one JSON file, ``{image: {class: {size, counts}}}``, as CheXlocalize publishes them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from lightning_chex.data.contract import DataError
from lightning_chex.data.images.images import first_few
from lightning_chex.data.table.files import intact
from lightning_chex.data.table.words import plain
from lightning_chex.json_text import load_json


def read_segmentations(path: Path, names: Sequence[str], other_names: Mapping[str, str]) -> pd.DataFrame:
    """Read the masks of some classes.

    Args:
        path: of the file; ``size`` is height and width, ``counts`` COCO's compressed text.
        names: of the K classes; masks of other ones are passed over.
        other_names: what the file calls a class, by its name here.

    Returns:
        Columns ``image`` (as written), ``label`` (index of the class), ``text``, ``width`` and ``height``, a row a
        mask, empty ones too; the index says which image and class it is.

    Raises:
        DataError: no such file, or none of the classes in it.
    """
    with intact(path, "JSON, {image: {class: {size, counts}}}"):
        found = load_json(path)
    index = {plain(other_names.get(name, name)): k for k, name in enumerate(names)}
    rows = []
    places = []
    strange = set()
    try:
        for image, masks in found.items():
            for name, mask in masks.items():
                if plain(name) not in index:
                    strange.add(name)
                    continue
                height, width = (int(side) for side in mask["size"])
                rows.append((str(image), index[plain(name)], str(mask["counts"]), width, height))
                places.append(f"{image}, {name}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} does not hold {{image: {{class: {{size: [height, width], counts: text}}}}}}: {error!r} after "
            f"{places[-1] if places else 'no mask'}; the file looks incomplete: download it again"
        ) from error
    if strange and not rows:
        raise DataError(f"{path} has masks of {first_few(sorted(strange), 12)} alone, none of {first_few(names, 12)}")
    return pd.DataFrame(rows, columns=["image", "label", "text", "width", "height"], index=pd.Index(places, dtype=str))
