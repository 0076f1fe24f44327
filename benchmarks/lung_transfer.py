"""Dice of a lung network on images of another source than it was trained on.

Trained on the lung masks of the public Cohen X-rays, measured on the manual masks of the COVID-19 lesion set, without
the images that are in both. Beside it stands a control that looks at no image: the pixels that are lung in half of the
training images or more.

Run: CHEX_DATA=DIR python -m benchmarks.lung_transfer
"""

import argparse
import csv
import os
import time
import warnings
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor
from torchmetrics.functional.segmentation import dice_score

from lightning_chex.data import LungDataModule
from lightning_chex.data.images.images import image_id
from lightning_chex.tasks import SegmentationTask

SPLITS = ("train", "val", "test")


def samples_of(data: LungDataModule, wanted: set[str]) -> list[dict]:
    """The plain samples of some images, whatever split they are in; call with ``augment=False``."""
    sets = [data.dataset(split) for split in SPLITS]
    return [each[i] for each in sets for i, name in enumerate(each.image_ids) if name in wanted]


def dice_of(predicted: Tensor, truth: Tensor) -> np.ndarray:
    """Dice per image and lung, (N, 2), NaN where nobody outlined the lung."""
    dice = dice_score(predicted.long(), truth.long(), num_classes=2, average="none")
    return dice.where(truth.flatten(2).any(dim=2), torch.nan).numpy()


def interval(values: np.ndarray, draws: int = 10_000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean, images drawn with replacement."""
    rng = np.random.default_rng(0)
    means = np.nanmean(values[rng.integers(len(values), size=(draws, len(values)))], axis=1)
    low, high = np.nanquantile(means, [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=Path, help="folder for pictures of the predictions; for your eyes only")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    root = Path(os.environ["CHEX_DATA"])
    pl.seed_everything(given.seed)
    source = LungDataModule(
        str(root / "brixia_cohen"), "cohen", size=given.size, batch_size=8, test_fraction=0.01, allow_missing=True
    )
    other = LungDataModule(str(root / "covid_lesions"), "lesions", size=given.size, augment=False, allow_missing=True)
    with (root / "covid_lesions" / "index.csv").open() as file:
        apart = {image_id(row["filename"]) for row in csv.DictReader(file) if row["in_brixia"] == "False"}
    source.setup()
    unseen = samples_of(other, apart)
    assert not {sample["image_id"] for sample in unseen} & {x for s in SPLITS for x in source.dataset(s).image_ids}

    task = SegmentationTask(lr=2e-3, schedule="one_cycle")
    trainer = pl.Trainer(
        max_epochs=given.epochs,
        accelerator="auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        check_val_every_n_epoch=given.epochs,
    )
    start = time.perf_counter()
    trainer.fit(task, datamodule=source)
    seconds = time.perf_counter() - start
    validation = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/dice")}

    task.eval().cpu()
    truth = torch.stack([sample["lung_mask"] for sample in unseen])
    with torch.no_grad():
        predicted = torch.cat([task.score(task(sample["image"][None])) for sample in unseen]) >= 0.5
    train = source.dataset("train")
    plain = source.build("train", source._plain)
    prior = torch.stack([plain[i]["lung_mask"] for i in range(len(plain))]).float().mean(dim=0) >= 0.5
    if given.pictures:
        draw(given.pictures, unseen, predicted)

    print(f"{len(train)} training and {len(source.dataset('val'))} validation images of one source, ", end="")
    print(f"{len(unseen)} images of the other; {given.size} px, {given.epochs} epochs in {seconds:.0f} s\n")
    print("Validation images of the training source: ", end="")
    print(", ".join(f"{key} {value:.3f}" for key, value in validation.items()) + "\n")
    print("| other source | right lung | left lung | both lungs | 95 % interval | worst image |")
    print("|---|---|---|---|---|---|")
    for name, masks in [("network", predicted), ("control: mean lung field", prior.expand_as(truth))]:
        dice = dice_of(masks, truth)
        right, left = np.nanmean(dice, axis=0)
        both = np.nanmean(dice, axis=1)
        low, high = interval(both)
        print(f"| {name} | {right:.3f} | {left:.3f} | {both.mean():.3f} | {low:.3f} to {high:.3f} | {both.min():.3f} |")


def draw(folder: Path, samples: list[dict], predicted: Tensor) -> None:
    """Right lung in red, left lung in green, over each X-ray."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (sample, (right, left)) in enumerate(zip(samples, predicted, strict=True)):
        grey = (sample["image"][0] * 0.229 + 0.485).clamp(0, 1)
        colour = torch.stack([grey.maximum(right * 0.8), grey.maximum(left * 0.8), grey], dim=-1)
        Image.fromarray((colour * 255).byte().numpy()).save(folder / f"{number:03d}.png")


if __name__ == "__main__":
    main()
