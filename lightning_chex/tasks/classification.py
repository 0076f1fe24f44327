"""Multi-label classification: pathologies, or the three BrixIA severity detectors."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc, binary_average_precision, binary_calibration_error
from torchmetrics.utilities import dim_zero_cat

from lightning_chex.data.adapter import data_of
from lightning_chex.data.contract import PAGE
from lightning_chex.tasks.backbone import create_backbone
from lightning_chex.tasks.task import ChestXrayTask
from lightning_chex.tasks.weights import check_one_start

CALIBRATION_BINS = 15
"""Bins of equal width of the expected calibration error."""


class MultilabelScores(Metric):
    """AUROC, average precision and calibration per class and their means over the classes that can be scored.

    A class is scored on the images of which it is known. One without a positive or without a negative image among
    them has no AUROC; it is left out and counted.

    Args:
        class_names: names of the K outputs.
    """

    full_state_update = False
    logits: list[Tensor]
    labels: list[Tensor]

    def __init__(self, class_names: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.class_names = list(class_names)
        self.add_state("logits", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Add logits (B, K) and labels (B, K) in {0, 1}, NaN where not known."""
        # flat: a process without an image brings the empty tensor to the others', which has one dimension
        self.logits.append(logits.detach().float().flatten())
        self.labels.append(labels.detach().float().flatten())

    def compute(self) -> dict[str, Tensor]:
        """``auroc``, ``ap``, ``ece`` (means, NaN if no class can be scored), the same per class, ``classes_scored``.

        ``ece`` is the expected calibration error of Guo et al. (2017): the mean distance of probability and frequency
        over `CALIBRATION_BINS` bins of equal width, weighted by their images; 0 to 1, 0 is best.
        """
        logits, labels = (
            dim_zero_cat(state).cpu().view(-1, len(self.class_names)) for state in (self.logits, self.labels)
        )
        known = ~labels.isnan()
        positive = labels > 0
        present = [c for c in range(len(self.class_names)) if 0 < positive[:, c].sum() < known[:, c].sum()]
        results = {"classes_scored": torch.tensor(float(len(present)))}
        # ranks are all that counts: the sigmoid keeps them in float64, where confident logits stay apart; on the CPU,
        # as not every device has float64
        probabilities = logits.double().sigmoid()
        calibration = partial(binary_calibration_error, n_bins=CALIBRATION_BINS)
        for key, measure in (("auroc", binary_auroc), ("ap", binary_average_precision), ("ece", calibration)):
            scores = {
                self.class_names[c]: measure(probabilities[known[:, c], c], positive[known[:, c], c].long()).float()
                for c in present
            }
            results[key] = torch.stack(list(scores.values())).mean() if scores else torch.tensor(float("nan"))
            results |= {f"{key}/{name}": value for name, value in scores.items()}
        return results


class ClassificationTask(ChestXrayTask):
    """Multi-label classification of chest X-rays with one logit per class (Eq. 6).

    Logs ``val/loss``, ``val/auroc``, ``val/ap``, ``val/ece`` (means over the classes that occur), the same per class
    (``val/auroc/Mass``) and all of it under ``test/``.

    Args:
        class_names: names of the classes; the command line takes them from the data.
        backbone: name of a timm model. DenseNet-121 is the paper's.
        pretrained: start from timm's ImageNet weights; needs a network the first time.
        loss: ``bce``, or ``weighted_bce``, which weighs each class's positives by negatives / positives of the training
            split.
        weights: file to start from: a checkpoint of any task, a state dict (``.pt``, ``.safetensors``) of this
            backbone, or of torchxrayvision's DenseNet. A head of other outputs begins anew.
        optimization: the arguments of `Optimization`.
    """

    pos_weight: Tensor
    metric_names = ("loss", "scores")
    progress_bar_keys = ("loss", "auroc")

    def __init__(
        self,
        class_names: Sequence[str],
        backbone: str = "densenet121",
        pretrained: bool = False,
        loss: Literal["bce", "weighted_bce"] = "bce",
        weights: str | None = None,
        **optimization: Any,
    ) -> None:
        check_one_start(weights, pretrained)
        if not class_names:
            raise ValueError(
                "class_names is empty: a classification needs classes; for a score use RegressionTask. The command "
                f"line takes them from the data module's class_names, see {PAGE}"
            )
        if loss not in ("bce", "weighted_bce"):
            raise ValueError(f"loss={loss!r} is unknown; choose bce or weighted_bce")
        super().__init__(create_backbone(backbone, len(class_names), pretrained), **optimization)
        self.save_hyperparameters(logger=False)  # the command line logs the whole configuration, once
        self.class_names = list(class_names)
        self.weighted = loss == "weighted_bce"
        self.register_buffer("pos_weight", torch.ones(len(class_names)))
        self.val_scores = MultilabelScores(class_names)
        self.test_scores = MultilabelScores(class_names)
        self.begin(weights)

    def setup(self, stage: str) -> None:
        """Take pos_weight from the training split, and see that data and model speak of the same classes."""
        data = data_of(self.trainer)
        names = data.class_names
        if names is not None and list(names) != self.class_names:
            raise MisconfigurationException(
                f"the model's classes {self.class_names} are not the data's {list(names)}: give both the same, "
                "or let the command line link them"
            )
        if stage == "fit" and self.weighted:
            weights = data.pos_weight
            if weights is None:
                raise MisconfigurationException(
                    "loss='weighted_bce' needs a data module with a pos_weight (C,); use loss: bce"
                )
            self.pos_weight.copy_(self._checked_weights(torch.as_tensor(weights)))

    def _checked_weights(self, weights: Tensor) -> Tensor:
        if weights.shape != self.pos_weight.shape:
            raise MisconfigurationException(
                f"the data's pos_weight has shape {tuple(weights.shape)}; {len(self.class_names)} classes need "
                f"({len(self.class_names)},)"
            )
        values = zip(self.class_names, weights.tolist(), strict=True)
        odd = {name: value for name, value in values if not 0 < value < math.inf}
        if odd:
            found = ", ".join(f"{value} for {name}" for name, value in odd.items())
            raise MisconfigurationException(
                f"the data's pos_weight is {found}; weights must be finite and greater than 0: leave out classes "
                "without positive or negative training images, or use loss: bce"
            )
        return weights

    def loss(self, output: Tensor, label: Tensor) -> Tensor:
        """Binary cross entropy, mean over images and classes; pos_weight is all ones unless weighted.

        Where the label is NaN, not known, there is neither loss nor gradient: the mean is over the others, 0 without.
        """
        known = ~label.isnan()
        share = known.float().mean()  # 1 where all are known: then nothing changes, to the last bit
        return F.binary_cross_entropy_with_logits(
            output.float(),
            label.where(known, 0),
            weight=known / share.where(share > 0, 1),
            pos_weight=self.pos_weight,
        )

    def score(self, output: Tensor) -> Tensor:
        """Probabilities (B, K)."""
        return output.sigmoid()

    def collect(self, stage: str, output: Tensor, truth: Tensor) -> None:
        """Update loss and scores with logits and labels (B, K)."""
        if len(output):
            counted = len(output) * (~truth.isnan()).float().mean()
            self.metric(stage, "loss").update(self.loss(output, truth), weight=counted)
            self.metric(stage, "scores").update(output, truth)
