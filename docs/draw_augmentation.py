"""Draw docs/augmentation.png: phantom X-rays as they are, and as training sees them with data.augment: true.

Run it from the root of the repository: python docs/draw_augmentation.py
"""

from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lightning_chex.data import PATHOLOGIES, ImageTransform, SyntheticCXR
from lightning_chex.data.transforms import grey_of
from lightning_chex.reporting.overview import draw_sample

SIZE = 256
IMAGES = 3
DRAWS = 5


def drawable(sample: dict[str, Any]) -> dict[str, Any]:
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


def main() -> None:
    """Write the picture beside this file."""
    torch.manual_seed(0)
    # those with most findings, so that there are boxes to follow
    plain = SyntheticCXR(num_images=40, size=SIZE, seed=1)
    augmented = SyntheticCXR(num_images=40, size=SIZE, seed=1, transform=ImageTransform(SIZE, augment=True))
    chosen = plain.labels.sum(dim=1).argsort(descending=True, stable=True)[:IMAGES].tolist()
    figure = Figure(figsize=(2.3 * (1 + DRAWS), 2.35 * len(chosen)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(chosen), 1 + DRAWS)
    for row, index in zip(axes, chosen, strict=True):
        for k, axis in enumerate(row):
            axis.set_axis_off()
            draw_sample(axis, drawable((augmented if k else plain)[index]))
            axis.set_title("as drawn" if k == 0 else f"draw {k}", fontsize=8)
    figure.savefig(Path(__file__).with_name("augmentation.png"), dpi=80)


if __name__ == "__main__":
    main()
