"""Base of all tasks: network, initial weights, optimiser, schedule, steps and predictions."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Self

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric

from lightning_chex.data.adapter import data_of
from lightning_chex.data.contract import outputs_of
from lightning_chex.data.contract_checks import check_batch
from lightning_chex.lightning_private import trainer_of
from lightning_chex.tasks.freezing import freeze
from lightning_chex.tasks.optimization import Optimization
from lightning_chex.tasks.repeats import unrepeated_rows
from lightning_chex.tasks.weights import output_names, start_from


class ChestXrayTask(pl.LightningModule):
    """A network, its loss and its optimiser, see `Optimization`; subclasses define the loss and the metrics.

    For each of its ``metric_names`` a subclass has two metrics, such as ``val_dice`` and ``test_dice``, that `collect`
    updates. All hyper-parameters are plain values, so that checkpoints load with ``weights_only=True``.
    """

    truth_key = "label"
    metric_names: tuple[str, ...] = ("loss",)
    progress_bar_keys: tuple[str, ...] = ("loss",)
    """Logged values that the progress bar shows, without ``val/`` and ``test/``."""

    _frozen: Sequence[nn.Module] = ()

    def __init__(self, model: nn.Module, **optimization: Any) -> None:
        super().__init__()
        self.optimization = Optimization(**optimization)
        # channels_last is the layout convolutions are fastest in, on CPUs and GPUs alike; no value changes
        self.model = model.to(memory_format=torch.channels_last)
        self.lr = self.optimization.lr  # where Lightning's tuner writes
        if self.optimization.freeze is not None:
            self._frozen = freeze(self.model, self.optimization.freeze)
            self.train()
        self.val_loss = MeanMetric()
        self.test_loss = MeanMetric()
        self.configure_optimizer()  # a wrong name is an error now, not after the data has been read

    def begin(self, weights: str | None) -> None:
        """Begin with the weights of a file, if one is given, see `start_from`; at the end of a constructor."""
        self.hparams.update(asdict(self.optimization))
        # the checkpoint brings the weights; loading it must need neither a network nor the file
        self.hparams.update(pretrained=False, weights=None)
        if weights is not None:
            start_from(self.model, weights, output_names(self.hparams))

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all but the frozen modules, which stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen:
            module.training = False
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Run the network on images (B, 3, H, W)."""
        return self.model(images.contiguous(memory_format=torch.channels_last))

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Refuse batches that are not as the contract says, of loaders of one's own too; the first sample tells."""
        keys = ("image", "image_id" if self.trainer.predicting else self.truth_key)
        own = outputs_of(self)
        count = len(own.class_names) or len(own.score_names)
        label = (count,) if own.class_names or count > 1 else ()
        check_batch(batch, keys, type(self).__name__, data_of(self.trainer).size, label)
        return batch

    def truth(self, batch: dict[str, Any]) -> Tensor:
        """Take from a batch what the network should say."""
        label = batch[self.truth_key]
        return label if label.is_floating_point() or label.ndim > 2 else label.float()

    def loss(self, output: Tensor, label: Tensor) -> Tensor:
        """Mean loss of a batch, given what `truth` takes from it."""
        raise NotImplementedError

    def configure_optimizer(self) -> torch.optim.Optimizer:
        """Build the optimiser, see `Optimization`."""
        return self.optimization.build(self.model, self.lr)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimiser and schedule for Lightning; schedules move at every step and end with the training."""
        optimizer = self.configure_optimizer()
        settings = self.optimization
        steps = 0
        if settings.schedule != "constant" or settings.warmup:
            length = self.trainer.estimated_stepping_batches
            if math.isinf(length):
                raise MisconfigurationException(
                    f"schedule={settings.schedule!r} with warmup={settings.warmup} needs to know how long the training "
                    "is: give trainer.max_epochs or trainer.max_steps, or schedule: constant and warmup: 0"
                )
            steps = max(1, int(length))
        scheduler = settings.schedule_of(optimizer, steps)
        if scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note how large the images are, and whether their labels were shuffled."""
        size = data_of(trainer_of(self)).size
        if size is not None:
            checkpoint["image_size"] = size
        if data_of(trainer_of(self)).shuffle_labels:
            checkpoint["shuffled_labels"] = True

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights of other classes or scores, and let a resumed training follow a schedule of its own length.

        Images of another size than the checkpoint's are a warning.

        Raises:
            MisconfigurationException: the checkpoint's outputs stand for something else than this model's.
        """
        theirs = output_names(checkpoint.get("hyper_parameters", {}))
        ours = output_names(self.hparams)
        # as many outputs of other names, or in another order, would load and be measured without a word
        if theirs and theirs != ours:
            raise MisconfigurationException(
                f"the checkpoint is of a model of {theirs}, this one is of {ours or type(self).__name__}: give the "
                "configuration and the data options it was trained with, or another checkpoint"
            )
        then = checkpoint.get("image_size")
        now = data_of(trainer_of(self)).size
        if None not in (then, now) and then != now:
            rank_zero_warn(f"the checkpoint was trained on images of {then} px, and data.size is {now}")
        for state in checkpoint.get("lr_schedulers", []):
            for length in ("total_steps", "_schedule_phases"):
                state.pop(length, None)

    def on_train_start(self) -> None:
        """Begin at the learning rate the schedule has for this step; a checkpoint's optimiser brings its old one."""
        schedulers = self.lr_schedulers()
        for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
            if not isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler):
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # get_lr() is meant for step(), but only it knows the rate for now
                rates = scheduler.get_lr()
            for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of one training batch, logged as ``train/loss``."""
        loss = self.loss(self(batch["image"]), self.truth(batch))
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["image"]))
        return loss

    def evaluated(self, batch: dict[str, Any], batch_idx: int) -> tuple[Tensor, Tensor]:
        """Run a validation or test batch.

        Returns:
            Output and truth, without images that a distributed run repeats: (B', ...) each, and B' may be 0.
        """
        output = self(batch["image"])
        truth = self.truth(batch)
        counted = unrepeated_rows(self.trainer, batch, len(output), batch_idx)
        return (output, truth) if counted.all() else (output[counted], truth[counted])

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Update the validation metrics; ``output`` and ``truth`` of `evaluated` are for callbacks."""
        return self._measured("val", batch, batch_idx)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Update the test metrics; see `validation_step`."""
        return self._measured("test", batch, batch_idx)

    def _measured(self, stage: str, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        output, truth = self.evaluated(batch, batch_idx)
        self.collect(stage, output, truth)
        return {"output": output, "truth": truth}

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._log_metrics("test")

    def collect(self, stage: str, output: Tensor, truth: Tensor) -> None:
        """Update the metrics of a stage, ``val`` or ``test``, with what `evaluated` returns."""
        raise NotImplementedError

    def metric(self, stage: str, name: str) -> Any:
        """Return a metric of a stage."""
        return getattr(self, f"{stage}_{name}")

    def _log_metrics(self, stage: str) -> None:
        for name in self.metric_names:
            metric = self.metric(stage, name)
            found = metric.compute()
            for key, value in (found if isinstance(found, dict) else {name: found}).items():
                self.log(f"{stage}/{key}", value, prog_bar=key in self.progress_bar_keys)
            metric.reset()

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Image names and the predictions of `score` for them."""
        return {"image_id": batch["image_id"], "prediction": self.score(self(batch["image"])).float()}

    def score(self, output: Tensor) -> Tensor:
        """Turn raw outputs into what a user reads: probabilities or severities."""
        raise NotImplementedError
