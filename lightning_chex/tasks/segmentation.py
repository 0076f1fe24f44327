"""Segmentation of the two lungs."""

from typing import Any

import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.functional.segmentation import dice_score

from lightning_chex.data.adapter import data_of, name_of
from lightning_chex.data.contract import Split
from lightning_chex.data.contract_checks import first_of
from lightning_chex.extras import needing
from lightning_chex.tasks.backbone import UNET_STRIDE, create_unet
from lightning_chex.tasks.task import ChestXrayTask
from lightning_chex.tasks.weights import check_one_start

LUNGS = ("right_lung", "left_lung")
"""The maps in the order of a sample's ``lung_mask``; the patient's right lung lies at the image's left."""


class LungDice(Metric):
    """Dice coefficient of each lung, the mean over the images in which it is outlined, and the mean of both lungs.

    A lung with an empty true mask counts neither way: an empty mask means that it was not outlined, and whatever is
    predicted there would score 0, or 0/0. A lung that is outlined and not found scores 0.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros(len(LUNGS)), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(len(LUNGS)), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, truth: Tensor) -> None:
        """Add predicted and true masks, bool (B, 2, H, W)."""
        outlined = truth.flatten(2).any(dim=2)
        dice = dice_score(predicted.long(), truth.long(), num_classes=len(LUNGS), average="none")
        self.total += dice.where(outlined, 0).sum(dim=0)
        self.count += outlined.sum(dim=0)

    def compute(self) -> dict[str, Tensor]:
        """``dice``, the mean over the lungs that can be scored, and ``dice/NAME``; NaN where there is nothing."""
        scores = self.total / self.count
        return {"dice": scores.nanmean()} | {f"dice/{name}": score for name, score in zip(LUNGS, scores, strict=True)}


class SegmentationTask(ChestXrayTask):
    """Segmentation of the right and the left lung with a U-Net++, the network family of BS-Net's lung stage.

    The loss is the sum of a binary cross entropy over the pixels and a soft Dice loss per image and lung. A lung
    without an outline (an empty true mask) counts in neither. Logs ``val/loss``, ``val/dice`` (mean of both lungs),
    ``val/dice/right_lung`` and ``val/dice/left_lung``, see ``LungDice``, and the same under ``test/``.

    Args:
        encoder: name of an encoder of segmentation-models-pytorch.
        pretrained: start the encoder from ImageNet weights; needs a network the first time.
        weights: file to start from: a checkpoint of such a network, or a state dict (``.pt``, ``.safetensors``) of it,
            or of a classifier whose layers are this encoder.
        optimization: the arguments of `Optimization`.
    """

    truth_key = "lung_mask"
    metric_names = ("loss", "dice")
    progress_bar_keys = ("loss", "dice")

    def __init__(
        self,
        encoder: str = "resnet18",
        pretrained: bool = False,
        weights: str | None = None,
        **optimization: Any,
    ) -> None:
        check_one_start(weights, pretrained)
        super().__init__(create_unet(encoder, len(LUNGS), pretrained), **optimization)
        self.save_hyperparameters(logger=False)  # the command line logs the whole configuration, once
        self.class_names = [f"{name}_share" for name in LUNGS]
        with needing("segmentation_models_pytorch", "a lung network"):
            import segmentation_models_pytorch as smp  # deferred: only lung networks need it, and it is slow to import

        self._soft_dice = smp.losses.DiceLoss(mode="multilabel", from_logits=True)
        self.val_dice = LungDice()
        self.test_dice = LungDice()
        self.begin(weights)

    def setup(self, stage: str) -> None:
        """Refuse data without lung masks, and images of a size the network cannot take."""
        data = data_of(self.trainer)
        size = UNET_STRIDE if data.size is None else data.size
        if size % UNET_STRIDE:
            raise MisconfigurationException(
                f"data.size={size}, but a U-Net++ takes multiples of {UNET_STRIDE}: give "
                f"{max(UNET_STRIDE, size // UNET_STRIDE * UNET_STRIDE)} or {-(-size // UNET_STRIDE) * UNET_STRIDE}"
            )
        if stage != "predict":
            # no augmented split: those draw random numbers
            split: Split = "test" if stage == "test" else "val"
            dataset = data.dataset(split)
            # where unreadable images are skipped, the first one is no reason to stop
            sample = None if dataset is None else first_of(data.readable(dataset, f"{split} split"))
            if sample is not None and "lung_mask" not in sample:
                raise MisconfigurationException(
                    f"the samples of {name_of(data)} have no lung_mask: use LungDataModule, the phantom, or "
                    "CohenDataModule with lung_masks: true"
                )

    def loss(self, output: Tensor, label: Tensor) -> Tensor:
        """Binary cross entropy over the pixels plus soft Dice loss, each the mean over the lungs that are outlined.

        Args:
            output: logits (B, 2, H, W).
            label: bool (B, 2, H, W).
        """
        outlined = label.flatten(2).any(dim=2)
        logits = output.float()[outlined]
        truth = label[outlined].float()
        if not len(truth):
            return output.float().sum() * 0  # nothing to learn from: a zero that has a gradient
        # as one image whose channels are all lungs: the library's Dice loss would pool the images of a batch
        soft_dice = self._soft_dice(logits[None], truth[None])
        return F.binary_cross_entropy_with_logits(logits, truth) + soft_dice

    def score(self, output: Tensor) -> Tensor:
        """Probabilities (B, 2, H, W)."""
        return output.sigmoid()

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Image names, the masks (B, 2, H, W) and as prediction the share of the image each lung covers (B, 2)."""
        masks = self.score(self(batch["image"])) >= 0.5
        return {"image_id": batch["image_id"], "lung_mask": masks, "prediction": masks.float().mean(dim=(2, 3))}

    def collect(self, stage: str, output: Tensor, truth: Tensor) -> None:
        """Update loss and Dice with logits and masks (B, 2, H, W)."""
        lungs = int(truth.flatten(2).any(dim=2).sum())
        if lungs:  # the loss is the mean over outlined lungs: weighted by their number, it does not depend on batches
            self.metric(stage, "loss").update(self.loss(output, truth), weight=lungs)
            self.metric(stage, "dice").update(self.score(output) >= 0.5, truth)
