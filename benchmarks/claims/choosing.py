"""Beyond the paper: is the epoch with the best IoU of the maps a better choice than the one with the best AUROC?"""

import json
import logging
import math
import tempfile
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from benchmarks.claims.shortcut_runs import BACKBONE, CONSPICUITY, LAYER, SIZE, Kept
from benchmarks.claims.study import RULE, Claim, Sample, Study, Table, decide, several
from benchmarks.pages import estimate
from lightning_chex.attribution import IBA
from lightning_chex.data import PATHOLOGIES
from lightning_chex.explanations import IBACallback
from lightning_chex.files import write_whole
from lightning_chex.tasks import ClassificationTask

EPOCHS = 6
TRAINING = 1000
HELD_OUT = 200
SEEDS = range(6)
RULES = {"IoU": "val/iba_iou", "AUROC": "val/auroc"}
"""What each choice goes by."""


def claim(study: Study) -> Claim:
    """IoU and AUROC on held-out patients of the checkpoints that either rule keeps."""
    seeds = SEEDS[:1] if study.quick else SEEDS
    sample = Sample()
    for seed in seeds:
        found = chosen(study.work, seed, 2 if study.quick else EPOCHS)
        own = {
            f"{measure}, by {rule}": torch.tensor([found[rule][measure]]) for rule in RULES for measure in found[rule]
        }
        sample.add(seed, [str(seed)], **own)
    differences = {own: sample.difference(f"{own}, by IoU", f"{own}, by AUROC") for own in ("iou", "auroc", "epoch")}
    by_seed = sample.by_seed("iou, by IoU", "iou, by AUROC")
    return Claim(
        "The epoch with the best IoU",
        "The checkpoint with the best IoU on validation images has maps that find more on other patients than the "
        "checkpoint with the best AUROC (configs/nih_best_by_iou.yaml).",
        decide(differences["iou"], by_seed),
        f"The IoU of IBA on {HELD_OUT} held-out images is higher. Intervals are over trainings. {RULE}",
        f"Difference of the IoU {estimate(differences['iou'], signed=True)}, "
        f"by training {several(by_seed, signed=True)}; "
        f"of the AUROC {estimate(differences['auroc'], signed=True)}.",
        [
            Table(
                "On held-out patients, mean over trainings",
                [
                    {
                        "kept by the best": rule,
                        "IoU": estimate(sample.mean(f"iou, by {rule}")),
                        "AUROC": estimate(sample.mean(f"auroc, by {rule}")),
                        "epoch": estimate(sample.mean(f"epoch, by {rule}")),
                        "trainings": sample.mean(f"iou, by {rule}").n,
                    }
                    for rule in RULES
                ],
            )
        ],
        [
            f"{BACKBONE}, {SIZE} px, {TRAINING} training images, {EPOCHS} epochs, conspicuity {CONSPICUITY}, IBA at "
            f"{LAYER}; all {HELD_OUT} validation images are explained at every epoch.",
            "Where both rules keep the same epoch the difference is 0; a longer training that overfits may tell more.",
        ],
        f"{len(seeds)} trainings of seeds of their own",
    )


def chosen(work: Path, seed: int, epochs: int) -> dict[str, dict[str, float]]:
    """IoU, AUROC and epoch of both choices of one training; read where it was run before."""
    file = work / "choosing" / f"{seed}-{epochs}.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(train(seed, epochs), indent=1))
    return json.loads(file.read_text())


def train(seed: int, epochs: int) -> dict[str, dict[str, float]]:
    """Train, keep the best checkpoint under each rule, and test both on patients nothing was chosen on."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    pl.seed_everything(seed, verbose=False)
    data = Kept(TRAINING, HELD_OUT, HELD_OUT, SIZE, seed=500 + seed, images_per_patient=1, conspicuity=CONSPICUITY)
    task = ClassificationTask(list(PATHOLOGIES), BACKBONE, lr=2e-3, schedule="one_cycle")
    with tempfile.TemporaryDirectory() as folder:
        keep = {rule: ModelCheckpoint(folder, f"best_{rule}", monitor=key, mode="max") for rule, key in RULES.items()}
        explain = IBACallback(IBA(LAYER), num_images=-1, save_pictures=False, line_up_statistics=False)
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[explain, *keep.values()],
        )
        trainer.fit(task, data)
        best = {rule: own.best_model_path for rule, own in keep.items()}  # a test restores what the callbacks knew then
        found = {}
        for rule, path in best.items():
            (logged,) = trainer.test(task, data, ckpt_path=path, verbose=False, weights_only=True)
            epoch = torch.load(path, weights_only=True)["epoch"]
            found[rule] = {"iou": logged["test/iba_iou"], "auroc": logged["test/auroc"], "epoch": float(epoch)}
    if any(math.isnan(value) for own in found.values() for value in own.values()):
        raise ValueError(f"training {seed} has no IoU or AUROC: {found}")
    return found
