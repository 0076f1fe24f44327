"""Regression of a severity score, or of the scores it is the sum of."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanAbsoluteError, Metric
from torchmetrics.functional.regression import pearson_corrcoef
from torchmetrics.utilities import dim_zero_cat

from lightning_chex.class_names import SCORE
from lightning_chex.data.adapter import data_of
from lightning_chex.tasks.backbone import create_backbone, head_name
from lightning_chex.tasks.task import ChestXrayTask
from lightning_chex.tasks.weights import check_one_start


class PearsonCorrelation(Metric):
    """Pearson's correlation of scores, NaN for fewer than two or where one side does not vary.

    torchmetrics' own is NaN where no process has more than one score.
    """

    full_state_update = False
    predicted: list[Tensor]
    true: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("predicted", [], dist_reduce_fx="cat")
        self.add_state("true", [], dist_reduce_fx="cat")

    def update(self, predicted: Tensor, true: Tensor) -> None:
        """Add predicted and true scores (B,)."""
        self.predicted.append(predicted.detach().float())
        self.true.append(true.detach().float())

    def compute(self) -> Tensor:
        """The correlation; on the CPU, as not every device has float64."""
        predicted, true = (dim_zero_cat(state).cpu().double() for state in (self.predicted, self.true))
        return pearson_corrcoef(predicted, true).float() if len(true) > 1 else torch.tensor(torch.nan)


class RegressionTask(ChestXrayTask):
    """Regression of one severity score per image, or of its parts, with the mean squared error (Eq. 7).

    Logs ``val/loss``, ``val/mae`` (in points of the score) and ``val/pearson``, the same under ``test/``. With several
    scores, such as those of the six Brixia zones, these two are of their sum, so that they compare with those of a
    model of the sum itself, and ``val/part_mae`` is the mean over the single ones.

    Args:
        score_range: lowest and highest score, or sum of the scores, (0, 18) for Brixia; training starts from its
            middle.
        backbone: name of a timm model. DenseNet-121 is the paper's.
        pretrained: start from timm's ImageNet weights; needs a network the first time.
        score_names: names of the scores the network gives; the command line takes them from the data.
        rectified: end in a ReLU, as the paper's network does, so that no score is negative.
        weights: file to start from: a checkpoint of any task, a state dict (``.pt``, ``.safetensors``) of this
            backbone, or of torchxrayvision's DenseNet. A head of other outputs begins anew.
        optimization: the arguments of `Optimization`.
    """

    progress_bar_keys = ("mae", "pearson", "part_mae")

    def __init__(
        self,
        score_range: tuple[float, float] = (0.0, 18.0),
        backbone: str = "densenet121",
        pretrained: bool = False,
        score_names: Sequence[str] = (SCORE,),
        rectified: bool = False,
        weights: str | None = None,
        **optimization: Any,
    ) -> None:
        check_one_start(weights, pretrained)
        low, high = score_range
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"score_range={tuple(score_range)!r} must rise, and be finite")
        if not score_names:
            raise ValueError("score_names is empty: a regression needs a score; for classes use ClassificationTask")
        network: Any = create_backbone(backbone, len(score_names), pretrained)
        head: nn.Module = network.get_classifier()
        if rectified:
            network.set_submodule(head_name(network), nn.Sequential(head, nn.ReLU()))
        super().__init__(network, **optimization)
        self.save_hyperparameters(logger=False)  # the command line logs the whole configuration, once
        self.class_names: list[str] = []
        self.score_names = list(score_names)
        self.metric_names = ("loss", "mae", "pearson", *(["part_mae"] if self._has_parts else []))
        if isinstance(head, nn.Linear) and head.bias is not None:
            # else the first hundred steps only learn the mean
            nn.init.constant_(head.bias, (low + high) / 2 / len(score_names))
        self.val_mae = MeanAbsoluteError()
        self.test_mae = MeanAbsoluteError()
        self.val_part_mae = MeanAbsoluteError()
        self.test_part_mae = MeanAbsoluteError()
        self.val_pearson = PearsonCorrelation()
        self.test_pearson = PearsonCorrelation()
        self.begin(weights)

    @property
    def _has_parts(self) -> bool:
        return len(self.score_names) > 1

    def setup(self, stage: str) -> None:
        """Refuse data whose labels are classes, or other scores."""
        data = data_of(self.trainer)
        names = data.class_names
        if names:
            raise MisconfigurationException(
                f"the data's labels are the classes {list(names)}, not a score: set data.target: severity"
            )
        scores = list(data.score_names or self.score_names)
        if scores != self.score_names:
            raise MisconfigurationException(
                f"the model's scores {self.score_names} are not the data's {scores}: give both the same, or let the "
                "command line link them"
            )

    def loss(self, output: Tensor, label: Tensor) -> Tensor:
        """Mean squared error."""
        return F.mse_loss(self.score(output.float()), label)

    def score(self, output: Tensor) -> Tensor:
        """Severities (B,), or (B, S) for S scores."""
        return output if self._has_parts else output.squeeze(-1)

    def collect(self, stage: str, output: Tensor, truth: Tensor) -> None:
        """Update the metrics with raw outputs and true scores."""
        if not len(output):
            return
        score = self.score(output).float()
        self.metric(stage, "loss").update(self.loss(output, truth), weight=len(score))
        if self._has_parts:
            self.metric(stage, "part_mae").update(score, truth)
            score = score.sum(1)
            truth = truth.sum(1)
        self.metric(stage, "mae").update(score, truth)
        self.metric(stage, "pearson").update(score, truth)
