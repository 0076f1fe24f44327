"""Redraw the pictures of the documentation from the phantom.

Run from the root of the repository::

    python docs/draw_pictures.py                          # augmentation.png and phantom.png
    python docs/draw_pictures.py --demo RUN/explanations  # also those of a run that `make demo` has left

The pictures of the run are demo_maps.jpg, from the last sheet of maps, film.jpg and curves.png.
report.jpg is a screenshot of a page that ``evaluate`` writes, and is not drawn here: it needs a browser.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from lightning_chex.data import PATHOLOGIES, ImageTransform, SyntheticCXR
from lightning_chex.data.transforms import grey_of
from lightning_chex.report import draw_sample

IMAGES_FOLDER = Path(__file__).parent / "images"

SIZE = 224
"""Pixels of an image side, as in the demo."""

IMAGES = 3
DRAWS = 4

SHEET_ROWS = 3
"""Rows of the demo's sheet that are shown."""

DEMO_WIDTH = 1248
"""Pixels."""


def drawable(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a sample of the phantom into what ``draw_sample`` takes."""
    return {
        "image": grey_of(sample["image"]).numpy(),
        "boxes": sample["boxes"].tolist(),
        "box_names": [PATHOLOGIES[k] for k in sample["box_labels"].tolist()],
        "lungs": sample["lung_mask"].numpy(),
        "zones": None,
        "label": "",
        "image_id": "",
    }


def draw_augmentation(path: Path) -> None:
    """Draw X-rays as they are, and as training sees them with ``data.augment: true``."""
    torch.manual_seed(0)
    plain = SyntheticCXR(num_images=40, size=SIZE, seed=1)
    augmented = SyntheticCXR(num_images=40, size=SIZE, seed=1, transform=ImageTransform(SIZE, augment=True))
    # those with most findings, so that there are boxes to follow
    chosen = plain.labels.sum(dim=1).argsort(descending=True, stable=True)[:IMAGES].tolist()
    figure = Figure(figsize=(2.3 * (1 + DRAWS), 2.35 * len(chosen)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(chosen), 1 + DRAWS)
    for row, index in zip(axes, chosen, strict=True):
        for k, axis in enumerate(row):
            axis.set_axis_off()
            draw_sample(axis, drawable((augmented if k else plain)[index]))
            axis.set_title("as drawn" if k == 0 else f"draw {k}", fontsize=10)
    save_small(figure, path)


def draw_phantom(path: Path) -> None:
    """Draw one X-ray without findings, and the first one of each class with its boxes."""
    images = SyntheticCXR(num_images=400, size=SIZE, seed=0)
    few_first = images.labels.sum(dim=1).argsort(stable=True).tolist()
    shown = [("No finding", few_first[0])]
    for k, name in enumerate(PATHOLOGIES):
        # the image with the fewest other findings
        shown.append((name, next(i for i in few_first if images.labels[i, k] == 1)))
    columns = 5
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(2.3 * columns, 2.5 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (name, index) in zip(axes.flat, shown, strict=False):
        sample = drawable(images[index])
        kept = [at for at, other in enumerate(sample["box_names"]) if other == name]
        sample["boxes"] = [sample["boxes"][at] for at in kept]
        sample["box_names"] = [name for _ in kept]
        draw_sample(axis, sample)
        for text in list(axis.texts):  # the title has the name already, and a label would cover the finding
            text.remove()
        axis.set_title(name, fontsize=10)
    save_small(figure, path)


def draw_demo_maps(sheet: Path, path: Path) -> None:
    """Cut the first rows out of a sheet of maps, with the colour bar below them."""
    with Image.open(sheet) as opened:
        page = opened.convert("RGB")
    ink = (np.asarray(page) < 250).any(axis=(1, 2))
    starts = np.flatnonzero(ink[1:] & ~ink[:-1]) + 1
    ends = np.flatnonzero(ink[:-1] & ~ink[1:]) + 1
    # a row of the sheet is a row of titles and a row of pictures; pictures are the tall bands
    tall = [end for start, end in zip(starts, ends, strict=False) if end - start > 100]
    if len(tall) <= SHEET_ROWS:
        raise SystemExit(f"{sheet} has {len(tall)} rows of pictures, at least {SHEET_ROWS + 1} are needed")
    below = int(starts[starts > tall[-1]][0]) - 12
    parts = [page.crop((0, 0, page.width, int(tall[SHEET_ROWS - 1]) + 1))]
    parts.append(page.crop((0, below, page.width, page.height)))
    joined = Image.new("RGB", (page.width, sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        joined.paste(part, (0, top))
        top += part.height
    scale = min(1.0, DEMO_WIDTH / joined.width)
    joined.resize((round(joined.width * scale), round(joined.height * scale))).save(path, quality=82, optimize=True)


def draw_film(film: Path, path: Path) -> None:
    """Cut the upper part out of a film strip."""
    with Image.open(film) as opened:
        page = opened.convert("RGB")
    page = page.crop((0, 0, page.width, page.height // 2))
    scale = min(1.0, DEMO_WIDTH / page.width)
    page.resize((round(page.width * scale), round(page.height * scale))).save(path, quality=82, optimize=True)


def save_small(figure: Figure, path: Path) -> None:
    """Write a PNG of at most 128 colours, which is a third as large."""
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(80)
    canvas.draw()
    page = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    page.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Write the pictures of the documentation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", type=Path, help="folder of the explanations that a run of the demo has written")
    arguments = parser.parse_args()
    draw_augmentation(IMAGES_FOLDER / "augmentation.png")
    draw_phantom(IMAGES_FOLDER / "phantom.png")
    if arguments.demo is not None:
        sheet = sorted(arguments.demo.glob("epoch_*.png"))[-1]
        draw_demo_maps(sheet, IMAGES_FOLDER / "demo_maps.jpg")
        draw_film(arguments.demo / "film.png", IMAGES_FOLDER / "film.jpg")
        with Image.open(arguments.demo / "curves.png") as curves:
            curves.convert("RGB").save(IMAGES_FOLDER / "curves.png", optimize=True)


if __name__ == "__main__":
    main()
