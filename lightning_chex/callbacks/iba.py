"""Where training meets attribution: explanations at every validation, logged with their localisation."""

from pathlib import Path
from typing import Any, get_args

import pytorch_lightning as pl
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from lightning_chex.attribution import FEW_IMAGES, IBA, Attributor
from lightning_chex.callbacks.explaining import Explainer
from lightning_chex.callbacks.observation import Observation
from lightning_chex.callbacks.processes import gathered
from lightning_chex.callbacks.runs import run_folder
from lightning_chex.callbacks.shown import ShownImages
from lightning_chex.data.adapter import data_of
from lightning_chex.data.contract import Stage, outputs_of
from lightning_chex.data.contract_checks import check_sample, first_of
from lightning_chex.explaining import Regions, check_batch, check_model, network_of, region_kind
from lightning_chex.lightning_private import callbacks_of, set_callbacks, state_key
from lightning_chex.reporting import Explanation, write_pictures
from lightning_chex.reporting.dashboard import TABLE_COLUMNS, image_arguments, log_table, table_rows
from lightning_chex.tasks import unrepeated_rows


class IBACallback(pl.Callback):
    """Explain images at the end of every validation, and measure how well the maps meet the expert boxes.

    During the validation's own forward passes the attributor collects its feature statistics, at no extra cost, from
    the images that are not explained; where fewer than 50 are left, from up to 100 training images instead. At its end
    the chosen images are explained on the device, in batches, and the scalars are logged, early enough for
    ``ModelCheckpoint`` and ``EarlyStopping`` to monitor them: ``val/iba_iou`` (mean over maps),
    ``val/iba_iou_class_mean``, ``val/iba_iou/NAME`` per class, and beside them what a random map and a map that marks
    every pixel score, ``val/iba_iou_random`` and ``val/iba_iou_every_pixel``. Then the pictures are written as PNG
    files into the run's folder and, with a ``WandbLogger``, logged as images with switchable boxes. ``test`` does the
    same with the test images.

    A compiled network is explained as it was written, so validations that are explained run uncompiled (set
    ``every_n_epochs`` where that is too slow); nothing is compiled for it, or anew after it. Gradient checkpointing is
    off meanwhile.

    The sanity check is skipped, the model is left bit for bit as it was, and the global random state is not touched.

    Args:
        attributor: the attribution method; `IBA` with its defaults if None.
        num_images: how many images to explain at each validation; -1 for all. A data module offers them through
            ``explained_dataset(stage)``, most telling first; without it the first of the validation batches are taken.
        every_n_epochs: explain at every n-th epoch's validation.
        batch_size: images read and explained at a time.
        top_fraction: share of a map's pixels, the strongest, that is compared with the boxes. ``evaluate`` takes the
            mean share of its tuning regions for ``iou/fixed_share`` unless it is given this one.
        network: name of the LightningModule's attribute that is the network, to which layer names refer; empty for
            the LightningModule itself.
        name: prefix of the logged keys after ``val/``; set it when several callbacks explain with several methods.
        regions: what maps are compared with: expert ``boxes`` of the class, the exact ``masks`` of the phantom, or the
            lung ``zones`` with the Brixia scores the model looks for; ``auto`` takes the zones where samples have
            scores and the model predicts these, else the boxes.
        save_pictures: write PNG files into the run's folder.
        line_up_statistics: keep those of the layers of `MultiLayerIBA` too, if the network has them, for ``evaluate``
            and ``explain`` of test images alone: 14 MB in a checkpoint of DenseNet-121 at 224 px.
    """

    def __init__(
        self,
        attributor: Attributor | None = None,
        num_images: int = 16,
        every_n_epochs: int = 1,
        batch_size: int = 16,
        top_fraction: float = 0.05,
        network: str = "model",
        name: str = "iba",
        regions: Regions = "auto",
        save_pictures: bool = True,
        line_up_statistics: bool = True,
    ) -> None:
        super().__init__()
        if num_images < 1 and num_images != -1:
            raise ValueError(f"num_images={num_images} must be at least 1, or -1 for all")
        for argument, value in (("every_n_epochs", every_n_epochs), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{argument}={value} must be at least 1")
        if regions not in get_args(Regions):
            raise ValueError(f"regions={regions!r} is unknown; choose {', '.join(get_args(Regions))}")
        if not 0 < top_fraction <= 1:
            raise ValueError(f"top_fraction={top_fraction} must lie in (0, 1]")
        self.attributor = IBA() if attributor is None else attributor
        self.every_n_epochs = every_n_epochs
        self.top_fraction = top_fraction
        self.network = network
        self.name = name
        self.regions = regions
        self.save_pictures = save_pictures
        self.line_up_statistics = line_up_statistics
        self.last_sheet: Path | None = None
        self._observation = Observation(self.attributor)
        self._images = ShownImages(num_images, batch_size)
        self._explanations: list[Explanation] = []
        self._first: Tensor | None = None

    @property
    def state_key(self) -> str:
        """Two callbacks with different names keep their statistics apart in a checkpoint."""
        return state_key(self, name=self.name)

    def state_dict(self) -> dict[str, Any]:
        """Feature statistics travel with the checkpoint, as plain tensors."""
        return self._observation.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the checkpoint's feature statistics."""
        self._observation.load_state_dict(state_dict)

    # checks before training begins

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse a wrong layer or objective, and step before a weight averaging that would swap weights too early."""
        check_model(pl_module, outputs_of(pl_module, data_of(trainer)), self.network, self.attributor)
        self._check_data(trainer, pl_module, stage)
        self._step_before_weight_averaging(trainer)
        explaining = [own for own in callbacks_of(trainer) if isinstance(own, IBACallback)]
        if self.line_up_statistics and explaining[0] is self:  # once in a checkpoint
            self._observation.add_line_up(self._network(pl_module))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse a layer whose output is no feature map, before an epoch is spent."""
        if self._first is not None:
            self._check_image(trainer, pl_module, self._first[None])
            self._first = None

    # validation: watch, explain, show

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to collect feature statistics."""
        self._images.forget()
        self._explanations = []
        if self._is_due(trainer):
            self._observation.begin(self._network(pl_module))

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Leave out of the statistics the images that will be explained, and what a distributed sampler repeats."""
        if self._is_due(trainer) and isinstance(batch, dict) and "image" in batch:
            own = unrepeated_rows(trainer, batch, len(batch["image"]), batch_idx, dataloader_idx)
            self._observation.begin_batch(own & self._images.unexplained(trainer, batch, own))

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Without a data module that offers images, keep the first ones seen; the sanity check tries one."""
        self._observation.end_batch()
        check_batch(batch, self._class_names(trainer, pl_module))
        if self._images.offers(trainer):
            return
        if trainer.sanity_checking:
            self._check_image(trainer, pl_module, batch["image"][:1])
        elif self._is_due(trainer):
            rows = unrepeated_rows(trainer, batch, len(batch["image"]), batch_idx, dataloader_idx)
            self._images.keep(trainer, batch, rows)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Explain, and log what can be monitored."""
        if not self._is_due(trainer):
            return
        self._observation.end()
        self._observation.learn_more(trainer, self._network(pl_module), pl_module.device, self._images)
        self._explain(trainer, pl_module, "validate")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write and log the pictures."""
        self._show(trainer, "validate")

    # test: the statistics are those of the last validation or of the checkpoint

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the images of an earlier stage."""
        self._images.forget()
        self._explanations = []

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Explain the test images and log their localisation."""
        self._explain(trainer, pl_module, "test")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write and log the pictures."""
        self._show(trainer, "test")

    # whatever happens, no hook stays behind

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Take the hook off the model; the statistics of a broken validation are dropped."""
        self._observation.abort(type(exception), exception, exception.__traceback__)

    def _check_data(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse offered images that lack what is explained; the first one is kept to be tried when training starts."""
        dataset = (
            None if stage == "predict" else self._images.offered(trainer, "test" if stage == "test" else "validate")
        )
        sample = None if dataset is None else first_of(dataset)
        if sample is not None:
            check_sample(sample, ("image", "label"), type(self).__name__)
            try:
                region_kind(sample, self._class_names(trainer, pl_module), self.regions)
            except ValueError as error:
                raise MisconfigurationException(str(error)) from error
            self._first = sample["image"] if stage == "fit" else None

    def _check_image(self, trainer: pl.Trainer, pl_module: pl.LightningModule, image: Tensor) -> None:
        image = trainer.precision_plugin.convert_input(image.to(pl_module.device))
        with trainer.precision_plugin.forward_context():
            self.attributor.check(self._network(pl_module), image)

    def _is_due(self, trainer: pl.Trainer) -> bool:
        if trainer.sanity_checking:
            return False
        return trainer.state.fn != "fit" or (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _network(self, pl_module: pl.LightningModule) -> nn.Module:
        return network_of(pl_module, self.network)

    @staticmethod
    def _class_names(trainer: pl.Trainer, pl_module: pl.LightningModule) -> list[str]:
        # the model decides: one that says it has no classes predicts a score, whatever the data are
        return outputs_of(pl_module, data_of(trainer)).class_names

    def _step_before_weight_averaging(self, trainer: pl.Trainer) -> None:
        """Weight averaging swaps its weights out when validation ends: what is explained must come before that."""
        callbacks = callbacks_of(trainer)
        averaging = [i for i, callback in enumerate(callbacks) if isinstance(callback, WeightAveraging)]
        if averaging and averaging[0] < callbacks.index(self):
            rest = [callback for callback in callbacks if callback is not self]
            rest.insert(averaging[0], self)
            set_callbacks(trainer, rest)
            rank_zero_info(
                "IBACallback now runs before the weight averaging, so that the averaged weights are explained"
            )

    def _explain(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: Stage) -> None:
        seen = self.attributor.num_observed
        if seen is not None and seen < 2:
            rank_zero_warn(
                f"nothing was explained: the feature statistics rest on {seen} image(s), and need at least 2. "
                + ("Validate first, or give --ckpt_path a checkpoint that holds them" if stage == "test" else "")
            )
            return
        if seen is not None and seen < FEW_IMAGES:
            rank_zero_warn(f"the feature statistics rest on {seen} images only; {FEW_IMAGES} or more are advised")
        explainer = Explainer(
            self.attributor,
            self._network(pl_module),
            self._class_names(trainer, pl_module),
            self.top_fraction,
            pl_module.device,
            trainer.precision_plugin.forward_context,
            self.regions,
        )
        self._explanations = gathered(list(explainer.explain(self._images.batches(trainer, stage))))
        if not self._explanations:
            rank_zero_warn(f"nothing was explained: there is no image to explain at {stage}")
            return
        scores = explainer.scores()
        if not scores and self._class_names(trainer, pl_module):
            rank_zero_warn("no image explained has an expert box or another region: maps are drawn, IoU is not logged")
        prefix = "val" if stage == "validate" else "test"
        several = trainer.world_size > 1  # the values are the same everywhere; said only to Lightning, which would warn
        for key, value in scores.items():
            pl_module.log(f"{prefix}/{self.name}_{key}", value, prog_bar=key == "iou", sync_dist=several)

    def _show(self, trainer: pl.Trainer, stage: Stage) -> None:
        explanations, self._explanations = self._explanations, []
        self._images.forget()
        if not explanations or not trainer.is_global_zero:
            return
        during_fit = trainer.state.fn == "fit"
        label = f"epoch_{trainer.current_epoch:03d}" if during_fit else stage
        if self.save_pictures:
            title = f"{self.name}, {label.replace('_', ' ')}, step {trainer.global_step}"
            folder = run_folder(trainer) / "explanations" / (label if self.name == "iba" else f"{label}_{self.name}")
            self.last_sheet = write_pictures(explanations, folder, title)
        prefix = "val" if stage == "validate" else "test"
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                step = trainer.global_step
                logger.log_image(f"{prefix}/{self.name}_maps", step=step, **image_arguments(explanations))
                rows = table_rows(explanations, trainer.current_epoch)
                log_table(logger, f"{prefix}/{self.name}_table", TABLE_COLUMNS, rows, step)
