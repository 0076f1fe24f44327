"""Callback that explains images at every validation and logs the maps and their localisation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from lightning_chex.attribution import Attributor, empty_warning, frozen
from lightning_chex.data.adapter import data_of
from lightning_chex.data.contract import Stage, outputs_of
from lightning_chex.explanations.arranging import (
    check_arguments,
    check_choice,
    check_names,
    lung_network,
    methods_of,
    run_before_weight_averaging,
)
from lightning_chex.explanations.budget import Cost, counted
from lightning_chex.explanations.collector import Observation
from lightning_chex.explanations.explainer import Explainer
from lightning_chex.explanations.first_batch import first_batch
from lightning_chex.explanations.processes import gathered, gathered_rows
from lightning_chex.explanations.selection import ShownImages
from lightning_chex.explanations.writer import Format, Scale, Showing
from lightning_chex.lightning_private import callbacks_of, state_key
from lightning_chex.maps import (
    COURSE,
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
    named_batch,
    named_classes,
    network_of,
)
from lightning_chex.report import Explanation
from lightning_chex.tasks import unrepeated_rows


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
        targets: Literal["positive", "top"] = "positive",
    ) -> None:
        super().__init__()
        check_choice("targets", targets, Literal["positive", "top"])
        check_arguments(num_images, every_n_epochs, batch_size, top_fraction, regions, time_budget)
        self.attributors = methods_of(name, attributor, attributors)
        self.attributor = next(iter(self.attributors.values()))
        self.every_n_epochs = every_n_epochs
        self.top_fraction = top_fraction
        self.network = network
        self.name = name
        self.regions = regions
        self.targets = targets
        self._is_default = attributor is None and attributors is None
        self._named: list[str] | None = None
        self._meaning: Meaning | None = None
        self.line_up_statistics, self.lungs = line_up_statistics, lungs
        rule = f"strongest {100 * top_fraction:.3g} % of the pixels"
        self._showing = Showing(name, list(self.attributors), rule, save_pictures, scale, picture_dpi, picture_format)
        self._observation = Observation(self.attributors)
        self.cost = Cost(self._observation.counting, time_budget)
        self._images = ShownImages(num_images, batch_size)
        self._explanations: list[Explanation] = []
        self._scores: dict[str, float] = {}
        self._empty_shares: dict[str, float] = {}
        self._first: Tensor | None = None

    @property
    def sheets(self) -> list[Path]:
        """The last sheets of pictures written, one a method."""
        return self._showing.sheets

    @property
    def last_sheet(self) -> Path | None:
        """That of the first method; None where none was written."""
        return next(iter(self.sheets), None)

    @property
    def state_key(self) -> str:
        """Two callbacks with different names keep their statistics apart in a checkpoint."""
        return state_key(self, name=self.name)

    def state_dict(self) -> dict[str, Any]:
        """Feature statistics travel with the checkpoint, and which images are shown, and what was shown so far."""
        course = {**self._showing.state_dict(), "chosen": self._images.chosen}
        return {**self._observation.state_dict(), **({COURSE: course} if self._images.chosen else {})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint, also one of an older version, which holds feature statistics alone."""
        own = dict(state_dict)
        course = own.pop(COURSE, None)
        self._observation.load_state_dict(own)
        if course is not None:
            self._showing.load_state_dict(course)
            self._images.chosen = list(course["chosen"])

    # checks before training begins

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse a wrong layer or objective, and step before a weight averaging that would swap weights too early."""
        self._named, self._meaning = named_classes(pl_module, data_of(trainer)), None
        for attributor in self.attributors.values():
            if self._named is None:
                attributor.check(self._network(pl_module))
            else:
                check_model(pl_module, outputs_of(pl_module, data_of(trainer)), self.network, attributor)
        self._lungs = None if self.lungs is None else lung_network(self.lungs)
        first = self._images.check(trainer, self._named or [], self.regions, stage)
        self._first = first if stage == "fit" else None
        run_before_weight_averaging(trainer, self)
        explaining = [own for own in callbacks_of(trainer) if isinstance(own, IBACallback)]
        check_names([name for own in explaining for name in own.attributors])
        if stage == "fit":
            if trainer.global_step == 0:  # what a checkpoint holds of the run is loaded after this
                self._images.chosen = []
            self._showing.begin(trainer)
        if self.line_up_statistics and explaining[0] is self:  # once in a checkpoint
            self._observation.add_default_layers(self._network(pl_module))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse a layer whose output is no feature map, and outputs of no known meaning, before an epoch is spent."""
        self.cost.begin()
        if self._first is not None:
            self._check_image(trainer, pl_module, self._first[None])
            self._first = None
        batch = first_batch(trainer) if self._named is None else None
        if batch is not None:
            self._sample(trainer, pl_module, batch)

    # validation: watch, explain, show

    @counted
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to collect feature statistics."""
        if trainer.state.fn != "fit":
            self.cost.begin()
        self._images.forget()
        self._explanations = []
        if self._is_due(trainer):
            self._observation.begin(self._network(pl_module))

    @counted
    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Leave out of the statistics the images that will be explained, and what a distributed sampler repeats."""
        if self._is_due(trainer):
            sample = self._sample(trainer, pl_module, batch)
            own = unrepeated_rows(trainer, sample, len(sample["image"]), batch_idx, dataloader_idx)
            self._observation.begin_batch(own & self._images.unexplained(trainer, sample, own))

    @counted
    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Without a data module that offers images, keep the first ones seen; the sanity check tries one."""
        self._observation.end_batch()
        sample = self._sample(trainer, pl_module, batch)
        if self._images.offers(trainer):
            return
        if trainer.sanity_checking:
            self._check_image(trainer, pl_module, sample["image"][:1])
        elif self._is_due(trainer):
            rows = unrepeated_rows(trainer, sample, len(sample["image"]), batch_idx, dataloader_idx)
            self._images.keep(trainer, sample, rows)

    @counted
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Explain, and log what can be monitored."""
        if not self._is_due(trainer):
            return
        self._observation.end()
        self._observation.learn_more(trainer, self._network(pl_module), pl_module.device, self._images)
        self._explain(trainer, pl_module, "validate")
        if self._explanations:
            self.cost.log(trainer, pl_module, self.name)

    @counted
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write and log the pictures."""
        self._show(trainer, "validate")
        if trainer.state.fn != "fit":
            self._warn_of_empty_maps()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log what is of the whole training, and warn of empty maps at its last validation."""
        self._showing.end(trainer)
        self._warn_of_empty_maps()

    # test: the statistics are those of the last validation or of the checkpoint

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the images of an earlier stage."""
        self._offered_at_test = self._images.offered(trainer, "test") is not None
        self._images.forget()
        self._explanations = []

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Without a data module that offers images, keep the first ones seen."""
        if not self._offered_at_test or self._meaning is None:
            sample = self._sample(trainer, pl_module, batch)
        if not self._offered_at_test:
            rows = unrepeated_rows(trainer, sample, len(sample["image"]), batch_idx, dataloader_idx)
            self._images.keep(trainer, sample, rows)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Explain the test images and log their localisation."""
        self._explain(trainer, pl_module, "test")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write and log the pictures."""
        self._show(trainer, "test")
        self._warn_of_empty_maps()

    # whatever happens, no hook stays behind

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Take the hook off the model; the statistics and images of a broken validation are dropped."""
        self._images.forget()
        self._explanations = []
        self._observation.abort(type(exception), exception, exception.__traceback__)

    def _check_image(self, trainer: pl.Trainer, pl_module: pl.LightningModule, image: Tensor) -> None:
        image = trainer.precision_plugin.convert_input(image.to(pl_module.device))
        with trainer.precision_plugin.forward_context():
            for attributor in self.attributors.values():
                attributor.check(self._network(pl_module), image)

    def _is_due(self, trainer: pl.Trainer) -> bool:
        if trainer.sanity_checking:
            return False
        return trainer.state.fn != "fit" or (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _network(self, pl_module: pl.LightningModule) -> nn.Module:
        layers = [layer for attributor in self.attributors.values() for layer in attributor.layers]
        return network_of(pl_module, self.network, layers)

    def _sample(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any) -> dict[str, Any]:
        """A batch as a dict with labels as all else takes them; the first one tells the meaning of the outputs."""
        sample = named_batch(batch)
        if self._meaning is None:
            if self._named is None:
                self._meaning = self._inferred(trainer, pl_module, sample)
            else:
                self._meaning = given_meaning(self._named, sample["label"])
            changed = self._meaning.exclusive and any([explain_exclusive(own) for own in self.attributors.values()])
            sample["label"] = explained_labels(sample, self._meaning)
            self._tell(pl_module, changed)
            return sample
        return sample | {"label": explained_labels(sample, self._meaning)}

    def _inferred(self, trainer: pl.Trainer, pl_module: pl.LightningModule, sample: Mapping[str, Any]) -> Meaning:
        self._check_image(trainer, pl_module, sample["image"][:1])
        images = trainer.precision_plugin.convert_input(sample["image"][:2])
        network = self._network(pl_module)
        with frozen(network), trainer.precision_plugin.forward_context(), torch.no_grad():
            output = network(images)
        # processes must agree, and each may see other labels
        meaning = agreed(gathered_rows([infer_meaning(output, sample["label"], type(pl_module).__name__)]))
        if self._is_default and not meaning.class_names:
            explain_score(self.attributor)
        for attributor in self.attributors.values():
            check_target(pl_module, attributor, bool(meaning.class_names))
        return meaning

    def _tell(self, pl_module: pl.LightningModule, changed: bool) -> None:
        """Say in a line what was inferred, and by which attribute to say otherwise."""
        told = []
        if self._meaning is not None and self._meaning.inferred:
            names = self._meaning.class_names
            named = f", {' to '.join(dict.fromkeys([names[0], names[-1]]))}" if names else ""
            told.append(
                f"{type(pl_module).__name__} has no class_names; by its outputs and the labels it predicts "
                f"{self._meaning.kind}{named}. The attribute class_names of the module or data module overrides this "
                "([] for a score)"
            )
        if changed:
            told.append("the objective is softmax_cross_entropy, as the classes are exclusive")
        if told:
            rank_zero_info(f"IBACallback: {'; '.join(told)}")

    def _explain(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: Stage) -> None:
        if not self._observation.suffices(stage):
            return
        if self._meaning is None:
            rank_zero_warn(f"nothing was explained: there was no batch at {stage}")
            return
        explainer = Explainer(
            self.attributors,
            self._network(pl_module),
            self._meaning.class_names,
            self.top_fraction,
            pl_module.device,
            trainer.precision_plugin.forward_context,
            self.regions,
            self._lungs,
            self._meaning.exclusive,
            self.targets == "top",
        )
        limited = stage == "validate" and self.cost.budget is not None
        batches = self._images.batches(trainer, stage, in_order=limited)
        meaning = self._meaning
        if self._images.offered(trainer, stage) is not None:  # others were brought to this form as they passed
            batches = (batch | {"label": explained_labels(batch, meaning)} for batch in batches)
        batches = self.cost.within_budget(trainer, batches) if limited else batches
        self._explanations = gathered(list(explainer.explain(batches)))
        self._scores = {}
        if not self._explanations:
            rank_zero_warn(f"nothing was explained: there is no image to explain at {stage}")
            self._images.chosen = []
            return
        if stage == "validate":
            marks: Mapping[int, str] = {e.place: e.mark for e in self._explanations}
            if limited:
                marks = self.cost.account(trainer, pl_module, self.name, marks, self._images.planned(trainer, stage))
            self._images.choose(trainer, list(marks.values()))
        self._scores = explainer.log(trainer, pl_module, "val" if stage == "validate" else "test")
        self._empty_shares = explainer.empty_shares

    def _warn_of_empty_maps(self) -> None:
        warning = empty_warning(self._empty_shares)
        if warning:
            rank_zero_warn(warning)

    def _show(self, trainer: pl.Trainer, stage: Stage) -> None:
        explanations, self._explanations = self._explanations, []
        self._images.forget()
        self._showing.show(trainer, explanations, self._scores, stage)
