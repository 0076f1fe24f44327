"""Lightning's Trainer with the commands of this package; signatures and docstrings become options and help."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from lightning_chex.attribution import IBA, Attributor
from lightning_chex.checkpoints import named_checkpoints, read_checkpoint, read_checkpoints
from lightning_chex.data.adapter import adapted
from lightning_chex.data.contract import outputs_of
from lightning_chex.evaluation import Evaluated, EvaluationSettings, evaluate
from lightning_chex.evaluation.checkpoints import CheckpointResults, compare, start_comparison
from lightning_chex.evaluation.chexlocalize import explained_maps, mask_rule, write_segmentations
from lightning_chex.evaluation.examples import examples
from lightning_chex.evaluation.results import write_json
from lightning_chex.evaluation.trained_model import check_trainer, subject_of
from lightning_chex.explanations import IBACallback, MapWriter
from lightning_chex.files import write_whole
from lightning_chex.lightning_private import callbacks_of
from lightning_chex.maps import LungNetwork, read_index, saved_statistics
from lightning_chex.messages import raised_by_package
from lightning_chex.report import (
    CheckpointComparison,
    adapters_of,
    comparison_text,
    evaluation_tables,
    overview_text,
    results_text,
    write_comparison,
    write_overview,
    write_report,
)
from lightning_chex.report.checkpoint_comparison import ROW_COLUMNS
from lightning_chex.runs import check_place, undisturbed
from lightning_chex.runs.output_folder import held


class ChexTrainer(pl.Trainer):
    """A Trainer with the commands ``prepare``, ``inspect``, ``evaluate`` and ``explain``."""

    def fit(
        self,
        model: pl.LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: pl.LightningDataModule | None = None,
        ckpt_path: str | Path | None = None,
        weights_only: bool | None = None,
        run: str | None = None,
    ) -> None:
        """Train, and validate after every epoch.

        Args:
            model: the model.
            train_dataloaders: see Lightning.
            val_dataloaders: see Lightning.
            datamodule: the data.
            ckpt_path: what to resume. auto: the run that --run names if it exists, else a new run of that name; in a
                SLURM batch job the name is by default slurm-JOBID. last: the newest run. The folder of a run: that
                run. A checkpoint FILE: a new run that starts from its state.
            weights_only: leave it out; checkpoints never run code.
            run: name of the run, of its folder and of its W&B run: letters, digits, '.', '_' and '-'. An existing run
                of this name is only resumed with --ckpt_path auto.
        """
        super().fit(model, train_dataloaders, val_dataloaders, datamodule, ckpt_path, weights_only)

    def demo(self, model: pl.LightningModule, datamodule: pl.LightningDataModule) -> None:
        """Train on synthetic X-rays, explain at every validation, and print what to do next.

        This is fit with the embedded example: no data, no pretrained weights and no account are needed. It takes a few
        minutes on two cores.

        Args:
            model: the model.
            datamodule: the data.
        """
        self.fit(model, datamodule=datamodule)

    def prepare(
        self,
        model: pl.LightningModule | None,
        datamodule: pl.LightningDataModule,
        output_dir: str,
        size: int | None = None,
        workers: int | None = None,
    ) -> None:
        """Resize all images once, into a copy that training reads quickly: --data.prepared OUTPUT_DIR.

        Give the same command again to resume after an interruption.

        Args:
            model: not used.
            datamodule: the data, a ``ChestXrayDataModule``.
            output_dir: folder of the copy, new or empty.
            size: longest side of the images in pixels, the data.size of the training; by default this data.size.
            workers: processes that read and resize; by default one per core.

        Raises:
            MisconfigurationException: no data module, or one without this function.
        """
        adapted(datamodule).prepare(output_dir, size, workers)

    def inspect(
        self,
        model: pl.LightningModule | None,
        datamodule: pl.LightningDataModule,
        output_dir: str = "inspect",
        write_config: str | None = None,
    ) -> None:
        """Describe a data set: a table on the console, and a sheet of sample images in a file.

        Missing images are counted, whatever data.allow_missing says. Ambiguous or invalid columns of your own table are
        listed, and its images are shown, without labels where necessary; other invalid tables and files are errors.

        Args:
            model: not used.
            datamodule: the data, a ``ChestXrayDataModule``.
            output_dir: folder of the sheet.
            write_config: file to write a training configuration for your own table to, with every recognised column
                named; an existing file is never replaced.

        Raises:
            MisconfigurationException: no data module, or one without this function, or a folder that cannot be written.
        """
        folder = Path(output_dir).expanduser()
        data = adapted(datamodule)
        check_place(folder, "output_dir")
        proposal = None if write_config is None else data.proposal()
        if write_config is not None and Path(write_config).expanduser().exists():
            raise MisconfigurationException(f"write_config is {write_config!r}, which exists: give another name")
        with _temporary_root(Path(self.default_root_dir)):
            overview = data.overview()
        print(overview_text(overview))
        print(f"\npictures        {write_overview(overview, folder)}")
        points = overview.get("to_decide", ())
        if points:
            print("\nto decide or correct before training")
            for number, point in enumerate(points, 1):
                print(f"{number:>3}. {point}")
        if write_config is not None and proposal is not None:
            columns, config = proposal
            path = Path(write_config).expanduser()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, config)
            print("\n".join(["", "meaning of the columns", *columns]))
            print(f"\nconfiguration   {path}: correct what is wrong, then fit --config {path}")

    def evaluate(
        self,
        model: pl.LightningModule,
        datamodule: pl.LightningDataModule,
        ckpt_path: list[str] | dict[str, str] | str | None = None,
        output_dir: str = "evaluation",
        methods: list[str] | None = None,
        limit: int | None = None,
        lungs: str | None = None,
        shuffled_ckpt: str | None = None,
        network: str = "model",
        settings: EvaluationSettings = EvaluationSettings(),  # noqa: B008  # frozen; its defaults are the options'
    ) -> Evaluated | CheckpointComparison:
        """Compare attribution methods and controls on a trained model: report.html, results.json, tables and maps.

        Thresholds and the prior map come from the tuning half of the box images (or the validation images); results are
        reported on the test images. Give the same command again to resume after an interruption, also with more
        methods or another limit.

        Several checkpoints are measured on the same cases, each in its own folder in ``output_dir``, and compared in
        comparison.html and comparison.json there, with paired differences by patient.

        Args:
            model: with the weights to explain, unless ``ckpt_path`` brings them.
            datamodule: the data, a ``ChestXrayDataModule``.
            ckpt_path: the trained model; or several with the same classes, '[A.ckpt,B.ckpt]', or with the names for the
                results, '{plain: A.ckpt, weighted: B.ckpt}'.
            output_dir: folder of the results.
            methods: names of the line-up (IBA, InverseIBA, MultiLayerIBA, GradCAM, IntegratedGradients, Gradient, LRP;
                for a score RegressionIBA_DV, RegressionIBA_MSE, RegressionIBA_RM, RegressionInverseIBA and the others)
                or YAML files like those in configs/attributor; by default all that suit the model. IBA and InverseIBA
                use the layer of the configuration's IBACallback; for its other settings name a file. The controls are
                always included.
            limit: number of images, for a quick look; the expensive measures use fewer.
            lungs: checkpoint of a lung network, for Brixia scores without lung masks.
            shuffled_ckpt: the same model trained with data.shuffle_labels, for the check that maps depend on labels.
            network: name of the model's attribute that is the network; empty for the model itself.
            settings: measures and their settings, and numbers of images.

        Raises:
            MisconfigurationException: arguments that do not fit each other, the model or the data.
        """
        check_trainer(self)
        folder = Path(output_dir).expanduser()

        def evaluate_one(path: str | Path | None, folder: Path) -> Evaluated:
            subject = subject_of(self, model, adapted(datamodule), path, network, shuffled_ckpt)
            find_lungs = None if lungs is None else LungNetwork(Path(lungs).expanduser(), subject.device)
            show_progress = self.progress_bar_callback is not None
            evaluated = evaluate(subject, datamodule, folder, methods, limit, settings, find_lungs, show_progress)
            write_report(folder / "report.html", evaluated.results, evaluated.curves, examples(evaluated))
            return evaluated

        with held(folder), _as_misconfiguration():
            checkpoints = named_checkpoints(ckpt_path)
            if len(checkpoints) > 1:
                read_checkpoints(ckpt_path)
                return self._compare_checkpoints(checkpoints, folder, evaluate_one, settings)
            evaluated = evaluate_one(next(iter(checkpoints.values()), None), folder)
        self._report_evaluation(evaluated, folder, "evaluation")
        return evaluated

    def _compare_checkpoints(
        self,
        checkpoints: Mapping[str, Path],
        folder: Path,
        evaluate_one: Callable[[str | Path | None, Path], Evaluated],
        settings: EvaluationSettings,
    ) -> CheckpointComparison:
        """Evaluate several checkpoints, each in its own folder, and compare them."""
        start_comparison(folder, checkpoints)
        results = {}
        for name, path in checkpoints.items():
            print(f"\n{name}: {path}", flush=True)
            with held(folder / name):
                evaluated = evaluate_one(path, folder / name)
                results[name] = CheckpointResults.of(evaluated)
            self._report_evaluation(evaluated, folder / name, f"evaluation/{name}")
        comparison = compare(results, settings)
        write_json(folder / "comparison.json", comparison.to_json())
        write_comparison(folder / "comparison.html", comparison)
        print(f"\n{comparison_text(comparison)}\n\n  comparison  {folder / 'comparison.html'}")
        self._log_tables("evaluation", {"checkpoints": (ROW_COLUMNS, list(comparison.rows()))})
        return comparison

    def _report_evaluation(self, evaluated: Evaluated, folder: Path, prefix: str) -> None:
        """Print the results of one checkpoint, and log their tables under a prefix."""
        print(f"\n{results_text(evaluated.results)}\n\n  report      {folder / 'report.html'}")
        self._log_tables(prefix, evaluation_tables(evaluated.results))

    def _log_tables(self, prefix: str, tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Any]]]]) -> None:
        """Send tables, columns and rows by name, to all loggers that show tables."""
        for adapter in adapters_of(self.loggers):
            for name, (columns, rows) in tables.items():
                adapter.table(f"{prefix}/{name}", columns, rows)

    def explain(
        self,
        model: pl.LightningModule,
        datamodule: pl.LightningDataModule,
        ckpt_path: str | None = None,
        output_dir: str = "explanations",
        attributor: Attributor | None = None,
        targets: str | list[str] = "positive",
        split: str = "test",
        limit: int | None = None,
        threshold: float = 0.5,
        overlays: bool = False,
        npy: bool = False,
        rle: bool | str = False,
        rle_rule: Literal["otsu", "top_fraction"] = "otsu",
        rle_fraction: float = 0.05,
    ) -> None:
        """Explain a data set: a map for each target of each image, and an index of them, in one folder.

        Give the same command again to resume after an interruption. Callbacks and loggers of the training are not
        used. For images without a table: --data ImageFolderDataModule --data.root DIR.

        Args:
            model: the model.
            datamodule: the data.
            ckpt_path: the checkpoint to explain; without one the model is explained as it is.
            output_dir: folder of maps/ (float32; bottleneck maps in bits per feature cell), index.csv and
                explanation.json.
            attributor: the method, a file like those in configs/attributor or a class; by default that of the
                configuration's IBACallback, with the feature statistics the checkpoint holds, or else those of
                training images.
            targets: positive for every positive label (without labels every class predicted with the threshold, or
                the most probable one), top for the most probable class, or names of classes. A score is explained as
                it is.
            split: test, val, train, all, or another split that the data set has (tuning for NIH).
            limit: number of images; the first ones are used.
            threshold: probability from which a class counts as predicted where there are no labels.
            overlays: also draw each map over its X-ray, in overlays/.
            npy: also write each map in pixels to its own file, npy/IMAGE__TARGET.npy, 200 KB each at 224 px.
            rle: also write masks in the format of CheXlocalize, true for OUTPUT_DIR/segmentations.json or a file name.
                They are in the pixels of the image files. Its ten tasks are Enlarged Cardiomediastinum, Cardiomegaly,
                Lung Lesion, Airspace Opacity, Edema, Consolidation, Atelectasis, Pneumothorax, Pleural Effusion and
                Support Devices; a task that was not explained gets an empty mask.
            rle_rule: how a map becomes a mask: otsu, as in CheXlocalize, or the top_fraction of its pixels.
            rle_fraction: the fraction of the pixels for top_fraction.

        Raises:
            MisconfigurationException: arguments that do not fit each other, the model or the data; raised before any
                long work.
        """
        callbacks = [callback for callback in callbacks_of(self) if isinstance(callback, IBACallback)]
        network = callbacks[0].network if callbacks else "model"
        class_names = outputs_of(model, adapted(datamodule)).class_names
        if attributor is None and callbacks:
            attributor = copy.deepcopy(callbacks[0].attributor)
        elif attributor is None:
            attributor = IBA() if class_names else IBA(objective="deviation")
        with _as_misconfiguration():
            rule = mask_rule(rle, rle_rule, rle_fraction, class_names)
            path = None if ckpt_path is None else Path(ckpt_path).expanduser()
            saved = [] if ckpt_path is None else saved_statistics(read_checkpoint(ckpt_path), callbacks)
            writer = MapWriter(
                attributor, output_dir, targets, split, limit, threshold, overlays, npy, network, path, saved
            )
            with undisturbed(self, writer), held(writer.folder) if self.is_global_zero else nullcontext():
                self.predict(
                    model, datamodule=datamodule, return_predictions=False, ckpt_path=ckpt_path, weights_only=True
                )
        if not self.is_global_zero:
            return
        rows = read_index(writer.folder)
        images = len({row["image"] for row in rows})
        print(f"{len(rows)} maps for {images} images, listed in {writer.folder / 'index.csv'}")
        if rle:
            file = writer.folder / "segmentations.json" if rle is True else Path(rle).expanduser()
            count = write_segmentations(file, explained_maps(writer.folder, rows), class_names, rule)
            print(f"masks: {count} images in {file}")


@contextmanager
def _temporary_root(folder: Path) -> Iterator[None]:
    """Create a folder within the context, and remove it at the end if it is new and empty."""
    is_new = not folder.exists()
    # without the folder the record of checked files is not written, which is no reason to stop
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if is_new:
            with suppress(OSError):  # the folder is not empty, or could not be created
                folder.rmdir()


@contextmanager
def _as_misconfiguration() -> Iterator[None]:
    """Raise each ValueError of this package as Lightning's MisconfigurationException.

    A ValueError that was raised elsewhere, in the user's model or data set or in a library, keeps its traceback.
    """
    try:
        yield
    except ValueError as error:
        if not raised_by_package(error):
            raise
        raise MisconfigurationException(str(error)) from error
