"""What explaining costs an epoch: without it, with `IBACallback` at its defaults, and with Grad-CAM by plain hooks.

    python -m benchmarks.callback_overhead --out benchmarks/results/callback_overhead.md

The configuration of configs/nih_classification.yaml (DenseNet-121, AdamW, batches of 32, IBA at denseblock3, W&B
offline in all three), scaled down: phantoms of ``--size`` px, drawn before the clock runs, so that a training image
costs as little as it can; as NIH's split has it, nine times as many for training as for validation, unless ``--train``
says otherwise for a slow machine. In each round the three take turns, each for one epoch with its validation. What that
means for the whole of NIH ChestX-ray8 is computed from the seconds of a training image, a validation image and an
explained image, and said to be computed.

With one thread on a processor the clock counts the seconds of this process (W&B's own is another one), so that what
else the machine does hardly matters; else it is the wall's.
"""

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from benchmarks import origin
from benchmarks.pages import spread
from lightning_chex.attribution import IBA
from lightning_chex.data import SyntheticDataModule, collate
from lightning_chex.explanations import IBACallback
from lightning_chex.tasks import ClassificationTask

NIH_IMAGES = 86_524
VALIDATION_SHARE = 0.1
EXPLAINED = 32
"""Images of the official train_val list; the share of them for validation and the images explained, of the config."""

ARMS = ("without", "IBACallback", "Grad-CAM by hooks")


class Drawn(Dataset[dict[str, Any]]):
    """Samples in memory."""

    def __init__(self, samples: Sequence[dict[str, Any]]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.samples[index]


class Images(pl.LightningDataModule):
    """Phantoms drawn once; those explained are others than those of the validation, as in NIH's configuration."""

    def __init__(self, train: int, val: int, explained: int, size: int, batch_size: int) -> None:
        super().__init__()
        drawn = SyntheticDataModule(train, val, explained, size=size)
        drawn.setup()
        splits = (("train", train), ("val", val), ("test", explained))
        self.parts = {split: Drawn([drawn.dataset(split)[i] for i in range(count)]) for split, count in splits}
        self.class_names = drawn.class_names
        self.batch_size = batch_size
        self.collate = collate

    def explained_dataset(self, stage: str) -> Drawn:
        return self.parts["test"]

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.parts["train"], self.batch_size, shuffle=True, drop_last=True, collate_fn=collate)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.parts["val"], self.batch_size, collate_fn=collate)


class HookGradCAM(pl.Callback):
    """Grad-CAM of the likeliest class as people write it: a hook, a backward pass, a PNG for each image."""

    def __init__(self, images: Drawn, folder: Path, batch_size: int = 16) -> None:
        self.images = images
        self.folder = folder
        self.batch_size = batch_size

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self.folder.mkdir(exist_ok=True)
        kept: list[Tensor] = []
        handle = pl_module.model.features.norm5.register_forward_hook(lambda _, inputs, output: kept.append(output))
        try:
            for start in range(0, len(self.images), self.batch_size):
                samples = self.images.samples[start : start + self.batch_size]
                with torch.inference_mode(False), torch.enable_grad():
                    batch = torch.stack([sample["image"] for sample in samples]).to(pl_module.device)
                    output = pl_module.model(batch).amax(1)
                    (gradient,) = torch.autograd.grad(output.sum(), kept[-1])
                cam = (gradient.mean((2, 3), keepdim=True) * kept.pop().detach()).sum(1, keepdim=True).clamp(min=0)
                cam = F.interpolate(cam, size=batch.shape[-2:], mode="bilinear")[:, 0]
                cam = cam / cam.amax((1, 2), keepdim=True).clamp(min=1e-9)
                grey = batch[:, 0] - batch[:, 0].amin()
                pictures = torch.stack([torch.maximum(grey / grey.amax(), cam), grey / grey.amax()], 1).cpu()
                for i, (red, rest) in enumerate(pictures):
                    pixels = (255 * torch.stack([red, rest, rest], -1)).numpy().astype(np.uint8)
                    Image.fromarray(pixels).save(self.folder / f"{trainer.global_step}_{start + i}.png")
        finally:
            handle.remove()


class Stopwatch(pl.Callback):
    """Seconds of the training steps, of the validation's batches, and of all that comes after them."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.stamps: dict[str, float] = {}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stamps["start"] = self.clock()
        self.began = time.perf_counter()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stamps["validation"] = self.clock()

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stamps["after"] = self.clock()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.stamps["end"] = self.clock()
        self.wall = time.perf_counter() - self.began


class Epoch(NamedTuple):
    """Seconds of one epoch: its parts and the whole by the clock, the whole by the wall."""

    train: float
    val: float
    after: float
    total: float
    wall: float


def epoch_of(arm: str, images: Images, folder: Path, clock: Callable[[], float], explained: int) -> Epoch:
    """Train one epoch of a new network with its validation, from the same weights and order in all arms."""
    pl.seed_everything(0, verbose=False)
    task = ClassificationTask(images.class_names, backbone="densenet121", optimizer="adamw", lr=5e-4, schedule="cosine")
    watch = Stopwatch(clock)
    callbacks: list[pl.Callback] = [watch]
    if arm == "IBACallback":
        callbacks.append(IBACallback(IBA(layer="features.denseblock3"), num_images=explained))
    elif arm == "Grad-CAM by hooks":
        callbacks.append(HookGradCAM(images.parts["test"], folder / "grad_cam"))
    trainer = pl.Trainer(
        max_epochs=1,
        callbacks=callbacks,
        logger=WandbLogger(project="overhead", offline=True, save_dir=folder),
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        devices=1,
    )
    trainer.fit(task, images)
    trainer.loggers[0].experiment.finish()
    start, validation, after, end = (watch.stamps[name] for name in ("start", "validation", "after", "end"))
    return Epoch(validation - start, after - validation, end - after, end - start, watch.wall)


def clock_of_machine() -> tuple[Callable[[], float], str]:
    """What counts the seconds, and its name."""
    if torch.cuda.is_available():

        def synchronized() -> float:
            torch.cuda.synchronize()
            return time.perf_counter()

        return synchronized, "wall-clock seconds"
    if torch.get_num_threads() == 1:
        return time.process_time, "processor seconds of this process"
    return time.perf_counter, "wall-clock seconds"


def page(rounds: Sequence[dict[str, Epoch]], options: argparse.Namespace, clock: str) -> str:
    """The results as Markdown."""
    train = options.train
    val = options.val
    explained = options.explained
    lines = [
        "# What explaining costs an epoch",
        "",
        f"`python -m benchmarks.callback_overhead {options.line}` at commit {origin.commit()}, on {origin.machine()}; "
        f"{len(rounds)} rounds, the three in turn within each; median (least to "
        f"most); {clock}.",
        "",
        f"DenseNet-121 at {options.size} px, batches of {options.batch_size}, {train} training and {val} validation "
        f"images, {explained} explained at the validation, W&B offline in all.",
        "",
        "## Measured",
        "",
        "| an epoch | seconds | training | validation | after its last batch | time, without = 1 | by the wall |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm in ARMS:
        own = [one[arm] for one in rounds]
        ratios = spread([one[arm].total / one["without"].total for one in rounds], ".3f")
        walls = spread([one[arm].wall / one["without"].wall for one in rounds], ".2f")
        cells = [spread([getattr(epoch, part) for epoch in own], ".1f") for part in ("total", "train", "val", "after")]
        lines.append(f"| {arm} | {' | '.join(cells)} | {ratios} | {walls} |")
    nih_val = round(NIH_IMAGES * VALIDATION_SHARE)
    nih_train = NIH_IMAGES - nih_val
    lines += [
        "",
        "## Computed for NIH ChestX-ray8",
        "",
        f"{nih_train:,} training, {nih_val:,} validation and {EXPLAINED} explained images an epoch, from what an image "
        f"costs in the rounds above at {options.size} px; reading files, which is the same in all, is not counted:",
        "",
        "| | a training image | a validation image | more a validation image | an explained image, with its pictures "
        "| more time an epoch |",
        "|---|---|---|---|---|---|",
    ]
    for arm in ARMS[1:]:
        trained = [one["without"].train / train for one in rounds]
        validated = [one["without"].val / val for one in rounds]
        observed = [(one[arm].val - one["without"].val) / val for one in rounds]
        shown = [(one[arm].after - one["without"].after) / explained for one in rounds]
        share = [
            (nih_val * o + EXPLAINED * e) / (nih_train * t + nih_val * v)
            for t, v, o, e in zip(trained, validated, observed, shown, strict=True)
        ]
        cells = [spread([1000 * x for x in values], ".1f") + " ms" for values in (trained, validated, observed, shown)]
        lines.append(f"| {arm} | {' | '.join(cells)} | {spread(share, '.2%')} |")
    lines += [
        "",
        "What this says and does not say:",
        "",
        "- The share at NIH's size is computed, not measured: no run over the whole data set was made.",
        "- At the scaled-down size the share is large, because as many images are explained after a hundredth of the "
        "training: for small data sets set num_images, every_n_epochs or time_budget.",
        "- `more a validation image` is what the statistics take within the validation's own passes, the difference of "
        "two measured times: its spread is that of the machine.",
        "- Grad-CAM by hooks draws a PNG an image and measures nothing; IBACallback measures against boxes and "
        "controls, and draws sheet, single maps, film strip, curves and table. A film strip grows with the epochs.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--val", type=int, default=56, help="validation images, 50 or more")
    parser.add_argument("--train", type=int, help="a multiple of batch_size; else nine times val")
    parser.add_argument("--explained", type=int, default=16)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.train is None:
        whole = round(options.val * (1 - VALIDATION_SHARE) / VALIDATION_SHARE) // options.batch_size
        options.train = whole * options.batch_size
    options.line = " ".join(
        f"--{name} {getattr(options, name)}" for name in ("size", "train", "val", "explained", "batch_size", "rounds")
    )
    warnings.filterwarnings("ignore")
    os.environ["WANDB_SILENT"] = "true"
    clock, name = clock_of_machine()
    images = Images(options.train, options.val, options.explained, options.size, options.batch_size)
    few = Images(options.batch_size, options.val, 2, options.size, options.batch_size)
    rounds = []
    with tempfile.TemporaryDirectory() as scratch:
        for arm in ARMS:  # what happens once a process, such as imports, is no cost of an epoch
            epoch_of(arm, few, Path(scratch), clock, 2)
        for number in range(options.rounds):
            order = ARMS[number % len(ARMS) :] + ARMS[: number % len(ARMS)]
            rounds.append({arm: epoch_of(arm, images, Path(scratch), clock, options.explained) for arm in order})
            text = page(rounds, options, name)
            if options.out is not None:  # after each round: an interrupted run has measured something too
                options.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
