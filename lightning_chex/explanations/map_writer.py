"""Explaining a data set through Lightning's predict loop: one map per target, written batch by batch."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException
from torch import Tensor

from lightning_chex.attribution import Attribution, Attributor, empty_warning
from lightning_chex.data.adapter import data_of, name_of
from lightning_chex.data.contract import lacks, names_of, outputs_of
from lightning_chex.explanations.processes import on_process_0
from lightning_chex.maps import (
    FORMAT,
    ChosenTargets,
    Drawn,
    Entry,
    MapFolder,
    Saved,
    check_model,
    check_output,
    check_target,
    describe,
    digest_of_folder,
    entries_of,
    feature_statistics,
    grey_pictures,
    holds_maps,
    network_of,
    origin,
    read_saliency,
    training_batches,
    versions,
)
from lightning_chex.tasks import unrepeated_rows


class MapWriter(pl.Callback):
    """Explain every image that ``predict`` sees, and write maps, an index and a record; see ``map_folder.py``.

    An interrupted run is resumed. Each process writes its own maps; process 0 joins the indices at
    the end. The model is left bit for bit as it was.

    Args:
        attributor: the method; it is fitted here if it has something to learn.
        output_dir: the folder, new, empty, or of an unfinished run of the same settings.
        targets: see `ChosenTargets`.
        split: which images of the data module: the name of one of its ``parts()``, or ``all``.
        limit: only the first so many of them.
        threshold: see `ChosenTargets`.
        overlays: also write PNG files with the map over the X-ray, when all maps are there, on one colour scale.
        npy: also write each map as a file of its own, in pixels.
        network: name of the LightningModule's attribute that is the network; empty for the LightningModule itself.
        checkpoint: the file the weights come from, None for a model that is trained already.
        saved: attributors of the callbacks whose statistics the checkpoint holds, each with its state.

    Raises:
        MisconfigurationException: ``limit`` is less than 1.
    """

    def __init__(
        self,
        attributor: Attributor,
        output_dir: str | Path,
        targets: str | Sequence[str] = "positive",
        split: str = "test",
        limit: int | None = None,
        threshold: float = 0.5,
        overlays: bool = False,
        npy: bool = False,
        network: str = "model",
        checkpoint: Path | None = None,
        saved: Sequence[Saved] = (),
    ) -> None:
        if limit is not None and limit < 1:
            raise MisconfigurationException(f"limit={limit} must be at least 1")
        self.attributor = attributor
        self.folder = Path(output_dir).expanduser()
        self.targets = targets
        self.split = split
        self.limit = limit
        self.threshold = threshold
        self.overlays = overlays
        self.npy = npy
        self.network = network
        self.checkpoint = checkpoint
        self.saved = list(saved)
        self.image_ids: list[str] = []
        self._count: int | None = None
        self._whole: dict[str, list[Entry]] = {}
        self._seen: set[str] = set()
        self._repeated = 0
        self._writing: list[Future[None]] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Raise a MisconfigurationException for what cannot work, find finished images, and choose the others."""
        data = data_of(trainer)
        self._outputs = outputs_of(pl_module, data)
        self._names = self._outputs.class_names
        self._chosen = ChosenTargets(self.targets, self._names, self.threshold)
        check_model(pl_module, self._outputs, self.network, self.attributor)
        if type(pl_module).predict_step is pl.LightningModule.predict_step:
            raise lacks(type(pl_module).__name__, "predict_step", "explain")
        self._settings = {
            "format": FORMAT,
            "version": version("lightning-chex"),  # of another one the same settings may mean other maps
            "checkpoint": {"sha256" if self.checkpoint else "weights": origin(self.checkpoint, pl_module)["sha256"]},
            "attributor": describe(self.attributor),
            "network": self.network,
            "class_names": self._names,
            "targets": self.targets if isinstance(self.targets, str) else list(self.targets),
            "threshold": self.threshold,
            "data": {
                "module": name_of(data),
                "split": self.split,
                "size": data.size,
                # images of another folder can have the same ids; hashed, so that the record does not contain its path
                "root": digest_of_folder(data.root),
            },
            "precision": str(trainer.precision),
        }
        self._whole = on_process_0(trainer, self._open)
        self._files = MapFolder(self.folder, self.attributor.total_unit, self.overlays, self.npy, trainer.global_rank)
        finished = {image for image, rows in self._whole.items() if self._files.is_drawn(rows)}
        images = data.choose_predicted(
            self.split, limit=self.limit, only_positive=self._chosen.positive, finished=finished
        )
        if images is None:
            if self.split != "test" or self.limit is not None:
                raise lacks(name_of(data), "choose_predicted", "explain with split or limit")
            return
        self.image_ids = images.image_ids
        self._count = images.count
        check_target(pl_module, self.attributor, bool(self._names), images.labelled)
        # a data set that does not list its images loads the finished ones too, and they are skipped then
        done = sum(image in finished for image in self.image_ids or finished)
        if done:
            rank_zero_info(f"{done} of {images.count} images are explained already: going on with the others")

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Fit the attributor, with the weights in place, and complete the record.

        Raises:
            LayerError: the layer gives no feature map.
            MisconfigurationException: there are no statistics, or the model gives neither classes nor a score.
        """
        data = data_of(trainer)
        network = network_of(pl_module, self.network, self.attributor.layers)
        image = None
        size = data.size
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            if size is not None:
                image = trainer.precision_plugin.convert_input(torch.zeros(1, 3, size, size, device=pl_module.device))
                check_output(network(image), pl_module, self._outputs)
            fitted = feature_statistics(
                network,
                {"explain": self.attributor},
                self.saved,
                training_batches(data),
                prefer="checkpoint",
                image=image,
            )
        for reason in fitted.unfitted.values():
            raise MisconfigurationException(
                f"{reason}. Ways out: a data root with training images (of a folder, data.statistics_root), a "
                "checkpoint whose run had an IBACallback at this layer and size, or --attributor GradCAM or another "
                "that needs no statistics"
            )
        before = on_process_0(trainer, lambda: self._files.recorded.get("statistics"))
        if before is not None and before != fitted.layers:
            raise MisconfigurationException(
                f"{self.folder} was begun with feature statistics of {before}, now they are of {fitted.layers}: give "
                "another --output_dir"
            )
        if trainer.is_global_zero:
            self._files.record(
                self._settings,
                statistics=fitted.layers,
                checkpoint=self.checkpoint.name if self.checkpoint else None,
                images=self._count,
                versions=versions(),
            )
        # one thread, so that rows come in order, while the next batch is explained
        self._writer = ThreadPoolExecutor(max_workers=1)

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Explain one batch and submit its maps to be written; a MisconfigurationException for unsuitable outputs."""
        if not isinstance(outputs, dict) or not {"image_id", "prediction"} <= outputs.keys():
            raise MisconfigurationException(
                f"the predict_step of {type(pl_module).__name__} does not return image_id and prediction, as explain "
                "needs it to: make it return a dict with both"
            )
        self._wait(keep=1)
        predictions = outputs["prediction"].float()
        labels = batch.get("label")
        rows, values = self._chosen.of_batch(predictions, labels)
        counted = unrepeated_rows(trainer, batch, len(predictions), batch_idx, dataloader_idx).tolist()
        ids = names_of(batch["image_id"])  # as the index has them
        wanted = [own and self._is_new(name) for own, name in zip(counted, ids, strict=True)]
        kept = torch.tensor(wanted, dtype=torch.bool)[rows.cpu()].to(rows.device)
        rows = rows[kept]
        values = None if values is None else values[kept]
        found = self._explain(trainer, pl_module, batch["image"], values, rows)
        names = [self._names[k] for k in values.tolist()] if self._names and values is not None else []
        names = names or self._outputs.score_names[:1] * len(rows)
        entries = entries_of(batch, predictions, rows, names, self._names, found, self._files.unit)
        pictures = grey_pictures(batch["image"]) if self.overlays else None
        new_images = {ids[at]: at for at in rows.tolist()}

        def beside(entry: Mapping[str, str], saliency: Tensor, values: Tensor | None) -> Drawn:
            """A map with what is wanted beside it."""
            return Drawn(
                entry,
                None if values is None else values.numpy(),
                saliency.numpy() if self.npy else None,
            )

        def write() -> None:
            explained_before = {name: at for at, name in enumerate(ids) if name in self._whole}
            if pictures is not None:
                for name, at in (new_images | explained_before).items():
                    if name in new_images or not self._files.has_xray(name):
                        self._files.write_xray(name, pictures[at])
            kept = found.maps if found.cells is None else found.cells
            made = [beside(*one) for one in zip(entries, found.maps, kept, strict=True)]
            for name in explained_before if self.npy else ():
                made += [beside(own, read_saliency(self.folder, own), None) for own in self._whole[name]]
            self._files.write(made)

        self._writing.append(self._writer.submit(write))
        if trainer.received_sigterm:  # Lightning's predict loop does not ask
            raise SIGTERMException

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Wait for the last files."""
        self._wait()
        self._writer.shutdown()
        if self._repeated:
            rank_zero_warn(f"{self._repeated} images with duplicate ids are skipped")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Finish what is explained already; the exception that ended the run is raised afterwards."""
        if hasattr(self, "_writer"):
            self._writer.shutdown(wait=True)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Join the indices of all processes, and draw the overlays on one scale of all maps."""
        trainer.strategy.barrier("maps are written")
        if trainer.is_global_zero:
            self._files.consolidate(self.image_ids)
            self._report_empty_maps()
        trainer.strategy.barrier("maps are indexed")
        if self.overlays:
            self._draw(trainer)

    # parts of the above

    def _report_empty_maps(self) -> None:
        empty, count = self._files.count_empty()
        if not empty:
            return
        rank_zero_info(f"empty maps: {empty} of {count}; column empty of {self.folder / 'index.csv'}")
        warning = empty_warning({type(self.attributor).__name__: empty / count})
        if warning:
            rank_zero_warn(warning)

    def _draw(self, trainer: pl.Trainer) -> None:
        """Draw the overlays, each process a share of them."""
        limit = on_process_0(trainer, self._files.scale_limit)
        try:
            self._files.draw_overlays(limit, trainer.global_rank, trainer.world_size)
        except OSError as error:
            raise self._disk_error(error) from error
        trainer.strategy.barrier("overlays are drawn")
        if trainer.is_global_zero:
            self._files.record_scale(limit)

    def _disk_error(self, error: OSError) -> MisconfigurationException:
        return MisconfigurationException(
            f"cannot write to {self.folder} ({error.strerror or error}): make room, and give the same command again to "
            "go on"
        )

    def _open(self) -> dict[str, list[Entry]]:
        MapFolder.check(self.folder, self._settings)
        files = MapFolder(self.folder, self.attributor.total_unit, self.overlays, self.npy)
        if not holds_maps(self.folder):  # an attempt that failed before its first map may have recorded other settings
            files.record(self._settings)
        return files.consolidate()

    def _is_new(self, name: str) -> bool:
        if name in self._whole:
            return False
        self._repeated += name in self._seen
        new = name not in self._seen
        self._seen.add(name)
        return new

    def _explain(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, images: Tensor, values: Tensor | None, rows: Tensor
    ) -> Attribution:
        if not len(rows):
            return Attribution(torch.zeros(0, *images.shape[-2:]), torch.zeros(0))
        with trainer.precision_plugin.forward_context():
            network = network_of(pl_module, self.network, self.attributor.layers)
            found = self.attributor.explain(network, images, values, rows)
        cells = None if found.cells is None else found.cells.float().cpu()
        return Attribution(found.maps.float().cpu(), found.convergence.cpu(), cells)

    def _wait(self, keep: int = 0) -> None:
        """Wait until at most ``keep`` batches are still to be written; an error in writing ends the run."""
        while len(self._writing) > keep:
            try:
                self._writing.pop(0).result()
            except OSError as error:
                raise self._disk_error(error) from error
