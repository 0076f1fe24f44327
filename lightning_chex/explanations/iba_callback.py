"""Callback that explains images at every validation and logs the maps and their localisation."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from lightning_chex.attribution import Attributor, empty_warning, frozen
from lightning_chex.data.adapter import data_of
from lightning_chex.data.contract import Stage, outputs_of
from lightning_chex.explanations.arguments import check_arguments, check_choice, check_method_names, methods_by_name
from lightning_chex.explanations.budget import CostMeter, timed
from lightning_chex.explanations.callback_order import run_before_weight_averaging
from lightning_chex.explanations.collector import StatisticsCollector
from lightning_chex.explanations.explainer import Explainer
from lightning_chex.explanations.first_batch import first_batch
from lightning_chex.explanations.processes import gathered, gathered_rows
from lightning_chex.explanations.selection import ImageSelection
from lightning_chex.explanations.writer import ExplanationWriter, Format, PictureSettings, Scale
from lightning_chex.lightning_private import callbacks_of, state_key
from lightning_chex.maps import (
    COURSE,
    LungNetwork,
    Meaning,
    Regions,
    agreed,
    check_model,
    check_target,
    explain_exclusive,
    explain_score,
    explained_labels,
    given_meaning,
    infer_meaning,
    load_lung_network,
    named_batch,
    named_classes,
    network_of,
)
from lightning_chex.report import Explanation
from lightning_chex.tasks import unrepeated_rows

Targets = Literal["positive", "top"]


@dataclass
class _StageResult:
    """Explanations of one validation or test, on their way from the explainer to the writer.

    Attributes:
        explanations: of all processes, in order.
        scores: the logged localisation, by key.
        empty_shares: share of empty maps of each method.
    """

    explanations: list[Explanation] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    empty_shares: dict[str, float] = field(default_factory=dict)


class IBACallback(pl.Callback):
    """Explain images at the end of every validation, and measure how well the maps meet the expert boxes.

    During the validation's own forward passes the attributor collects its feature statistics, without another one, from
    the images that are not explained; where fewer than 50 are left, from up to 100 training images instead. At its end
    the chosen images are explained on the device, in batches, and the scalars are logged, early enough for
    ``ModelCheckpoint`` and ``EarlyStopping`` to monitor them: ``val/iba_iou`` (mean over maps),
    ``val/iba_iou_class_mean``, ``val/iba_iou/NAME`` per class, and beside them what a random map and a map that marks
    every pixel score, ``val/iba_iou_random`` and ``val/iba_iou_every_pixel``; and the shares of the maps that lie where
    no finding does, ``val/iba_corners`` and so on (see `PlaceShares`). ``val/iba_empty`` is the share of empty maps
    (``attribution/emptiness.py``): they enter these figures like any other map, pictures and tables name them, and a
    warning at the end of the run names the remedy if they are more than 5 %. Then pictures, film strips, curves and a
    table are written into the run's folder, ``explanations``, and shown by all its loggers. ``test`` does the same with
    the test images. What it costs is ``val/iba_seconds`` and, as a share of the wall time, ``val/iba_time_share``: all
    that the callback has done since they were logged last, or since ``fit`` began, the last pictures included.

    A compiled network is explained as it was written, and without gradient checkpointing, so validations that are
    explained run uncompiled (see ``every_n_epochs``); nothing is compiled for it, or anew after it.

    A LightningModule need not be written for it: batches may be tuples (image, label, ...), images without ids are
    numbered, and without ``class_names`` the meaning of the outputs is inferred from a validation batch (see
    ``maps/model_outputs.py``): labels (B, K) are K classes ``class_0`` and so on, integers (B,) one of K
    exclusive classes, and with one output 0 and 1 are one class, ``class_1``, and other numbers a score. A line in the
    log says so. For exclusive classes, named or not, a method with the objective ``binary_cross_entropy`` is given
    ``softmax_cross_entropy``; where no method was chosen, a score is explained with ``deviation``.

    The sanity check is skipped, the model is left bit for bit as it was, and the global random state is not touched.

    Args:
        attributor: the attribution method; `IBA` with its defaults if None.
        attributors: several methods instead, by their names in logged keys, ``val/NAME_iou``; they share images, the
            model's output, feature statistics and the table. What needs a single one, as ``explain``, takes the first.
        num_images: how many images to explain at each validation; -1 for all. A data module offers them through
            ``explained_dataset(stage)``, most telling first; without it the first of the validation batches are taken.
        every_n_epochs: explain at every n-th epoch's validation.
        batch_size: images read and explained at a time.
        top_fraction: share of a map's pixels, the strongest, that is compared with the boxes. ``evaluate`` takes the
            mean share of its tuning regions for ``iou/fixed_share`` unless it is given this one.
        network: name of the LightningModule's attribute that is the network, to which layer names refer; empty for
            the LightningModule itself. Where it has no ``model``, that stands for the only attribute that holds all
            parameters, else for the LightningModule itself.
        name: of the method and the table in logged keys; set it when several callbacks explain.
        regions: what maps are compared with: expert ``boxes`` of the class, the exact ``masks`` of the phantom, or the
            lung ``zones`` with the Brixia scores the model looks for; ``auto`` takes the zones where samples have
            scores and the model predicts these, else the boxes.
        save_pictures: write pictures, film strips, curves and table into the run's folder.
        scale: the colours of maps stand for the same values all over the ``run``, so that a map of little looks like
            little, or each ``map`` is drawn on a scale of its own.
        picture_dpi: pixels per inch of these files; 300 for print.
        picture_format: of the sheets and single pictures: ``png``, or ``pdf`` or ``svg`` for print.
        line_up_statistics: keep those of the layers of `MultiLayerIBA` too, if the network has them, for ``evaluate``
            and ``explain`` of test images alone: 14 MB in a checkpoint of DenseNet-121 at 224 px.
        time_budget: seconds after a validation's end: the batch of images at which they are spent is the last one
            explained. The images shown come first, so film strips go on, and all that is logged is of the images
            explained, whose number is ``val/iba_images``. Processes stop together. A test is explained as a whole.
        lungs: checkpoint of a `SegmentationTask` that outlines the lungs of images without masks of them, for
            ``val/iba_outside_lungs``.
        targets: of an image explain its ``positive`` labels or what is marked on it, and where there is nothing the
            likeliest class; or the likeliest class alone, ``top``.
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
        attributors: dict[str, Attributor] | None = None,
        scale: Scale = "run",
        picture_dpi: int = 80,
        picture_format: Format = "png",
        time_budget: float | None = None,
        lungs: str | None = None,
        targets: Targets = "positive",
    ) -> None:
        super().__init__()
        check_choice("targets", targets, Targets)
        check_arguments(num_images, every_n_epochs, batch_size, top_fraction, regions, time_budget)
        self.attributors = methods_by_name(name, attributor, attributors)
        self.attributor = next(iter(self.attributors.values()))
        self.every_n_epochs = every_n_epochs
        self.top_fraction = top_fraction
        self.network = network
        self.name = name
        self.regions = regions
        self.targets = targets
        self.line_up_statistics = line_up_statistics
        self.lungs = lungs
        self._is_default = attributor is None and attributors is None
        # the parts that do the work, each with its own settings and state
        pictures = PictureSettings(save_pictures, scale, picture_dpi, picture_format)
        rule = f"strongest {100 * top_fraction:.3g} % of the pixels"
        self._writer = ExplanationWriter(name, list(self.attributors), rule, pictures)
        self._collector = StatisticsCollector(self.attributors)
        self._selection = ImageSelection(num_images, batch_size)
        self.cost = CostMeter(self._collector.counting, time_budget)
        # set by setup and by the first batch
        self._class_names: list[str] | None = None
        self._meaning: Meaning | None = None
        self._lung_network: LungNetwork | None = None
        self._first_image: Tensor | None = None
        self._offered_at_test = False
        self._result = _StageResult()

    @property
    def sheets(self) -> list[Path]:
        """The last sheets of pictures written, one a method."""
        return self._writer.sheets

    @property
    def last_sheet(self) -> Path | None:
        """That of the first method; None where none was written."""
        return next(iter(self.sheets), None)

    @property
    def state_key(self) -> str:
        """Key of this callback in a checkpoint; callbacks with different names keep their statistics apart."""
        return state_key(self, name=self.name)

    def state_dict(self) -> dict[str, Any]:
        """Return the feature statistics, the selected images and the table and curves so far."""
        state = self._collector.state_dict()
        if self._selection.chosen:
            state[COURSE] = {**self._writer.state_dict(), "chosen": self._selection.chosen}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint; those of older versions hold feature statistics alone."""
        statistics = dict(state_dict)
        course = statistics.pop(COURSE, None)
        self._collector.load_state_dict(statistics)
        if course is not None:
            self._writer.load_state_dict(course)
            self._selection.chosen = list(course["chosen"])

    # checks before training begins

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check layers, objectives and offered images before anything is computed, and prepare the writer."""
        self._class_names = named_classes(pl_module, data_of(trainer))
        self._meaning = None
        self._check_methods(trainer, pl_module)
        if self.lungs is not None:
            self._lung_network = load_lung_network(self.lungs)
        first_image = self._selection.check_offered(trainer, self._class_names or [], self.regions, stage)
        self._first_image = first_image if stage == "fit" else None
        run_before_weight_averaging(trainer, self)
        callbacks = [callback for callback in callbacks_of(trainer) if isinstance(callback, IBACallback)]
        check_method_names([name for callback in callbacks for name in callback.attributors])
        if stage == "fit":
            if trainer.global_step == 0:  # the state of a checkpoint is loaded after this hook
                self._selection.chosen = []
            self._writer.start_training(trainer)
        # of several callbacks the first keeps these statistics, so that a checkpoint holds them once
        if self.line_up_statistics and callbacks[0] is self:
            self._collector.add_default_layers(self._network(pl_module))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse a layer whose output is no feature map, and outputs of unknown meaning, before an epoch is spent."""
        self.cost.restart()
        if self._first_image is not None:
            self._check_image(trainer, pl_module, self._first_image[None])
            self._first_image = None
        if self._class_names is not None:
            return
        batch = first_batch(trainer)
        if batch is not None:
            self._sample(trainer, pl_module, batch)

    # validation: collect statistics, explain, write

    @timed
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start to collect feature statistics."""
        if trainer.state.fn != "fit":
            self.cost.restart()
        self._forget_images()
        if self._is_due(trainer):
            self._collector.start_validation(self._network(pl_module))

    @timed
    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Leave out of the statistics the images that will be explained, and what a distributed sampler repeats."""
        if not self._is_due(trainer):
            return
        sample = self._sample(trainer, pl_module, batch)
        unrepeated = unrepeated_rows(trainer, sample, len(sample["image"]), batch_idx, dataloader_idx)
        self._collector.start_batch(unrepeated & self._selection.unexplained(trainer, sample, unrepeated))

    @timed
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
        self._collector.end_batch()
        # in the sanity check too, whose first batch sets the meaning of the outputs before an epoch is spent
        sample = self._sample(trainer, pl_module, batch)
        if self._selection.has_offered_images(trainer):
            return
        if trainer.sanity_checking:
            self._check_image(trainer, pl_module, sample["image"][:1])
        elif self._is_due(trainer):
            self._keep_images(trainer, sample, batch_idx, dataloader_idx)

    @timed
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Explain, and log what can be monitored."""
        if not self._is_due(trainer):
            return
        self._collector.end_validation()
        self._collector.collect_more(trainer, self._network(pl_module), pl_module.device, self._selection)
        self._explain(trainer, pl_module, "validate")
        if self._result.explanations:
            self.cost.log(trainer, pl_module, self.name)

    @timed
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write and log the pictures."""
        self._write(trainer, "validate")
        if trainer.state.fn != "fit":
            self._warn_of_empty_maps()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the files of the whole training, and warn of empty maps at its last validation."""
        self._writer.end_training(trainer)
        self._warn_of_empty_maps()

    # test: the statistics are those of the last validation or of the checkpoint

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop the images of an earlier stage."""
        self._offered_at_test = self._selection.offered(trainer, "test") is not None
        self._forget_images()

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Without a data module that offers images, keep the first ones seen."""
        if self._offered_at_test and self._meaning is not None:
            return
        sample = self._sample(trainer, pl_module, batch)
        if not self._offered_at_test:
            self._keep_images(trainer, sample, batch_idx, dataloader_idx)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Explain the test images and log their localisation."""
        self._explain(trainer, pl_module, "test")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write and log the pictures."""
        self._write(trainer, "test")
        self._warn_of_empty_maps()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Remove the hooks from the model, and drop the statistics and images of the interrupted validation."""
        self._forget_images()
        self._collector.abort(type(exception), exception, exception.__traceback__)

    # steps of the hooks

    def _is_due(self, trainer: pl.Trainer) -> bool:
        if trainer.sanity_checking:
            return False
        return trainer.state.fn != "fit" or (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _network(self, pl_module: pl.LightningModule) -> nn.Module:
        layers = [layer for attributor in self.attributors.values() for layer in attributor.layers]
        return network_of(pl_module, self.network, layers)

    def _forget_images(self) -> None:
        self._selection.forget()
        self._result.explanations = []

    def _keep_images(self, trainer: pl.Trainer, sample: dict[str, Any], batch_idx: int, dataloader_idx: int) -> None:
        unrepeated = unrepeated_rows(trainer, sample, len(sample["image"]), batch_idx, dataloader_idx)
        self._selection.keep(trainer, sample, unrepeated)

    def _check_methods(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for attributor in self.attributors.values():
            # without class names the meaning of the outputs, and so the target, is only known from a batch
            if self._class_names is None:
                attributor.check(self._network(pl_module))
            else:
                check_model(pl_module, outputs_of(pl_module, data_of(trainer)), self.network, attributor)

    def _check_image(self, trainer: pl.Trainer, pl_module: pl.LightningModule, image: Tensor) -> None:
        image = trainer.precision_plugin.convert_input(image.to(pl_module.device))
        with trainer.precision_plugin.forward_context():
            for attributor in self.attributors.values():
                attributor.check(self._network(pl_module), image)

    def _sample(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any) -> dict[str, Any]:
        """Return a batch as a dict with labels of the explained form; the first batch sets the outputs' meaning.

        The form is checked here although tasks check their batches too: a LightningModule of another project, whose
        batches may be tuples, has no such check.
        """
        sample = named_batch(batch)
        if self._meaning is not None:
            return sample | {"label": explained_labels(sample, self._meaning)}
        if self._class_names is None:
            self._meaning = self._inferred_meaning(trainer, pl_module, sample)
        else:
            self._meaning = given_meaning(self._class_names, sample["label"])
        changed = False
        if self._meaning.exclusive:
            # a list, not a generator: every method is changed, not only the first
            changed = any([explain_exclusive(attributor) for attributor in self.attributors.values()])
        sample["label"] = explained_labels(sample, self._meaning)
        self._print_meaning(pl_module, self._meaning, changed)
        return sample

    def _inferred_meaning(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, sample: Mapping[str, Any]
    ) -> Meaning:
        self._check_image(trainer, pl_module, sample["image"][:1])
        images = trainer.precision_plugin.convert_input(sample["image"][:2])
        network = self._network(pl_module)
        with frozen(network), trainer.precision_plugin.forward_context(), torch.no_grad():
            output = network(images)
        # each process sees other labels, and all must reach the same result
        meaning = agreed(gathered_rows([infer_meaning(output, sample["label"], type(pl_module).__name__)]))
        if self._is_default and not meaning.class_names:
            explain_score(self.attributor)
        for attributor in self.attributors.values():
            check_target(pl_module, attributor, bool(meaning.class_names))
        return meaning

    def _print_meaning(self, pl_module: pl.LightningModule, meaning: Meaning, objective_changed: bool) -> None:
        """Print in one line what was inferred, and the attribute that overrides it."""
        messages = []
        if meaning.inferred:
            names = meaning.class_names
            name_range = ""
            if len(names) == 1:
                name_range = f", {names[0]}"
            elif names:
                name_range = f", {names[0]} to {names[-1]}"
            messages.append(
                f"{type(pl_module).__name__} has no class_names; by its outputs and the labels it predicts "
                f"{meaning.kind}{name_range}. The attribute class_names of the module or data module overrides this "
                "([] for a score)"
            )
        if objective_changed:
            messages.append("the objective is softmax_cross_entropy, as the classes are exclusive")
        if messages:
            rank_zero_info(f"IBACallback: {'; '.join(messages)}")

    def _explain(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: Stage) -> None:
        """Explain the images of a stage and log the figures of their maps."""
        if not self._collector.has_enough_images(stage):
            return
        if self._meaning is None:
            rank_zero_warn(f"nothing was explained: there was no batch at {stage}")
            return
        explainer = self._explainer(trainer, pl_module, self._meaning)
        batches = self._explained_batches(trainer, stage, self._meaning)
        explanations = gathered(list(explainer.explain(batches)))
        self._result.explanations = explanations
        self._result.scores = {}
        if not explanations:
            rank_zero_warn(f"nothing was explained: there is no image to explain at {stage}")
            self._selection.chosen = []
            return
        if stage == "validate":
            self._fix_selection(trainer, pl_module, explanations)
        self._result.scores = explainer.log(trainer, pl_module, "val" if stage == "validate" else "test")
        self._result.empty_shares = explainer.empty_shares

    def _explainer(self, trainer: pl.Trainer, pl_module: pl.LightningModule, meaning: Meaning) -> Explainer:
        return Explainer(
            self.attributors,
            self._network(pl_module),
            meaning.class_names,
            self.top_fraction,
            pl_module.device,
            trainer.precision_plugin.forward_context,
            self.regions,
            self._lung_network,
            meaning.exclusive,
            self.targets == "top",
        )

    def _is_limited(self, stage: Stage) -> bool:
        """Whether the time budget holds; a test is explained as a whole."""
        return stage == "validate" and self.cost.budget is not None

    def _explained_batches(self, trainer: pl.Trainer, stage: Stage, meaning: Meaning) -> Iterator[dict[str, Any]]:
        batches = self._selection.batches(trainer, stage, in_order=self._is_limited(stage))
        # images kept from passing batches have labels of this form already
        if self._selection.offered(trainer, stage) is not None:
            batches = (batch | {"label": explained_labels(batch, meaning)} for batch in batches)
        if self._is_limited(stage):
            return self.cost.within_budget(trainer, batches)
        return batches

    def _fix_selection(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, explanations: list[Explanation]
    ) -> None:
        """Explain the same images at all later validations, also those the time budget has left out here."""
        hashes: Mapping[int, str] = {explanation.place: explanation.mark for explanation in explanations}
        if self._is_limited("validate"):
            planned = self._selection.planned(trainer, "validate")
            hashes = self.cost.log_explained_count(trainer, pl_module, self.name, hashes, planned)
        self._selection.fix(trainer, list(hashes.values()))

    def _warn_of_empty_maps(self) -> None:
        warning = empty_warning(self._result.empty_shares)
        if warning:
            rank_zero_warn(warning)

    def _write(self, trainer: pl.Trainer, stage: Stage) -> None:
        explanations = self._result.explanations
        # dropped before they are written, so that an error there does not keep the maps in memory
        self._forget_images()
        self._writer.write(trainer, explanations, self._result.scores, stage)
