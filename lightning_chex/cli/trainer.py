"""Lightning's Trainer with the commands of this package; the methods' signatures are the command line's options."""

import copy
from collections.abc import Iterator, Mapping, Sequence
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
    """A Trainer that can do more with a model and its data than train and measure."""

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
            ckpt_path: what to go on from. auto: the run that --run names if it is there, else it is begun; in a SLURM
                batch job the name is by default slurm-JOBID. last: the newest run. The folder of a run: that run. A
                checkpoint FILE: a new run that begins with its state.
            weights_only: leave it out; checkpoints never run code.
            run: name of the run, hence of its folder and its W&B run: letters, digits, '.', '_' and '-'. A run of this
                name that is there is only continued with --ckpt_path auto.
        """
        super().fit(model, train_dataloaders, val_dataloaders, datamodule, ckpt_path, weights_only)

    def prepare(
        self,
        model: pl.LightningModule | None,
        datamodule: pl.LightningDataModule,
        output_dir: str,
        size: int | None = None,
        workers: int | None = None,
    ) -> None:
        """Resize all images once, into a copy that training reads quickly: --data.prepared OUTPUT_DIR.

        An interrupted call goes on where it was when it is given again.

        Args:
            model: not used.
            datamodule: whose images; a ``ChestXrayDataModule``.
            output_dir: where the copy shall be, a new or an empty folder.
            size: longest side of the images in pixels, the data.size of the training; by default this data.size.
            workers: processes that read and resize; by default one per core.

        Raises:
            MisconfigurationException: no data module, or one that cannot do that.
        """
        adapted(datamodule).prepare(output_dir, size, workers)

    def inspect(
        self,
        model: pl.LightningModule | None,
        datamodule: pl.LightningDataModule,
        output_dir: str = "inspect",
        write_config: str | None = None,
    ) -> None:
        """Show what a data root holds: a table here, and a sheet of sample images in a file.

        Missing images are counted, whatever data.allow_missing says. What is undecided or wrong in a table of one's own
        is listed, and its images are shown without labels if need be; other bad tables and files are errors.

        Args:
            model: not used.
            datamodule: the data to look at; a ``ChestXrayDataModule``.
            output_dir: where the sheet goes.
            write_config: a file for the configuration of a training on a table of one's own, with all that was
                recognised in it named; one that is there is never replaced.

        Raises:
            MisconfigurationException: no data module, or one that cannot do that, or a folder that cannot be written.
        """
        folder = Path(output_dir).expanduser()
        data = adapted(datamodule)
        check_place(folder, "output_dir")
        proposal = None if write_config is None else data.proposal()
        if write_config is not None and Path(write_config).expanduser().exists():
            raise MisconfigurationException(f"write_config is {write_config!r}, which exists: give another name")
        with _existing(Path(self.default_root_dir)):
            found = data.overview()
        print(overview_text(found))
        print(f"\npictures        {write_overview(found, folder)}")
        points = found.get("to_decide", ())
        if points:
            print("\nto decide or correct before training")
            print("\n".join(f"{number:>3}. {point}" for number, point in enumerate(points, 1)))
        if write_config is not None and proposal is not None:
            words, config = proposal
            path = Path(write_config).expanduser()
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, config)
            print("\n".join(["", "what the columns are", *words]))
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
        """Compare attribution methods on a trained model, beside controls: report.html, results.json, tables and maps.

        Thresholds are tuned, and the prior map is made, on the tuning half of the box images (or the validation
        images), figures are reported on the test images. An interrupted call goes on where it was when it is given
        again, also with more methods or another limit.

        Several checkpoints are measured on the same cases, each in a folder of its own in ``output_dir``, and compared
        in comparison.html and comparison.json there, with paired differences by patient.

        Args:
            model: with the weights to explain, unless ``ckpt_path`` brings them.
            datamodule: the data, a ``ChestXrayDataModule``.
            ckpt_path: the trained model; or several of the same classes, '[A.ckpt,B.ckpt]', or by the names they shall
                have in the results, '{plain: A.ckpt, weighted: B.ckpt}'.
            output_dir: where everything goes.
            methods: names of the line-up (IBA, InverseIBA, MultiLayerIBA, GradCAM, IntegratedGradients, Gradient, LRP;
                for a score RegressionIBA_DV, RegressionIBA_MSE, RegressionIBA_RM, RegressionInverseIBA and the others)
                or YAML files like those in configs/attributor; by default all that suit the model. IBA and InverseIBA
                look at the layer of the configuration's IBACallback; for its other settings name a file. The controls
                always take part.
            limit: a quick look at so many images; the expensive measures are taken on fewer.
            lungs: checkpoint of a lung network, for Brixia scores without lung masks.
            shuffled_ckpt: the same model trained with data.shuffle_labels, for the check that maps depend on labels.
            network: name of the model's attribute that is the network; empty for the model itself.
            settings: what is measured, how, and on how many images.

        Raises:
            MisconfigurationException: arguments that do not fit each other, the model or the data.
        """
        check_trainer(self)
        folder = Path(output_dir).expanduser()

        def evaluated(path: str | Path | None, folder: Path) -> Evaluated:
            subject = subject_of(self, model, adapted(datamodule), path, network, shuffled_ckpt)
            find_lungs = None if lungs is None else LungNetwork(Path(lungs).expanduser(), subject.device)
            shows = self.progress_bar_callback is not None
            found = evaluate(subject, datamodule, folder, methods, limit, settings, find_lungs, shows)
            write_report(folder / "report.html", found.results, found.curves, examples(found))
            return found

        def told(found: Evaluated, folder: Path, tables: str) -> None:
            print(f"\n{results_text(found.results)}\n\n  report      {folder / 'report.html'}")
            self._log_tables(tables, evaluation_tables(found.results))

        with held(folder), _told():
            checkpoints = named_checkpoints(ckpt_path)
            several = len(checkpoints) > 1
            if not several:
                found = evaluated(next(iter(checkpoints.values()), None), folder)
            else:
                read_checkpoints(ckpt_path)
                start_comparison(folder, checkpoints)
                measured = {}
                for name, path in checkpoints.items():
                    print(f"\n{name}: {path}", flush=True)
                    with held(folder / name):
                        found = evaluated(path, folder / name)
                        measured[name] = CheckpointResults.of(found)
                    told(found, folder / name, f"evaluation/{name}")
                comparison = compare(measured, settings)
                write_json(folder / "comparison.json", comparison.to_json())
                write_comparison(folder / "comparison.html", comparison)
        if not several:
            told(found, folder, "evaluation")
            return found
        print(f"\n{comparison_text(comparison)}\n\n  comparison  {folder / 'comparison.html'}")
        self._log_tables("evaluation", {"checkpoints": (ROW_COLUMNS, list(comparison.rows()))})
        return comparison

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

        An interrupted call goes on where it was when it is given again. Callbacks and loggers of the training take no
        part. Images alone, without a table: --data ImageFolderDataModule --data.root DIR.

        Args:
            model: the model.
            datamodule: whose images.
            ckpt_path: the checkpoint to explain; without one the model is explained as it is.
            output_dir: where to: maps/ (float32, a bottleneck's as bits per feature cell), index.csv, explanation.json.
            attributor: the method, a file like those in configs/attributor or a class; by default that of the
                configuration's IBACallback, with the feature statistics the checkpoint holds, or else those of
                training images.
            targets: positive for every positive label (without labels every class predicted with the threshold, or
                the likeliest one), top for the likeliest class, or names of classes. A score is explained as it is.
            split: which images: test, val, train, what else the data set has (tuning for NIH), or all.
            limit: only the first so many of them.
            threshold: probability from which a class counts as predicted where there are no labels.
            overlays: also draw each map over its X-ray, in overlays/.
            npy: also write each map as a file of its own in pixels, npy/IMAGE__TARGET.npy, 200 KB each at 224 px.
            rle: also write masks as CheXlocalize reads them, true for OUTPUT_DIR/segmentations.json or a file. They are
                in the pixels of the image files. Its ten tasks are Enlarged Cardiomediastinum, Cardiomegaly, Lung
                Lesion, Airspace Opacity, Edema, Consolidation, Atelectasis, Pneumothorax, Pleural Effusion and Support
                Devices; one that was not explained gets an empty mask.
            rle_rule: what makes a mask of a map: otsu, as CheXlocalize does it, or the top_fraction of its pixels.
            rle_fraction: the share of the pixels for top_fraction.

        Raises:
            MisconfigurationException: something does not fit; said before any long work.
        """
        own = [callback for callback in callbacks_of(self) if isinstance(callback, IBACallback)]
        class_names = outputs_of(model, adapted(datamodule)).class_names
        if attributor is None:
            plain = IBA() if class_names else IBA(objective="deviation")
            attributor = copy.deepcopy(own[0].attributor) if own else plain
        with _told():
            rule = mask_rule(rle, rle_rule, rle_fraction, class_names)
            path = None if ckpt_path is None else Path(ckpt_path).expanduser()
            network = own[0].network if own else "model"
            saved = [] if ckpt_path is None else saved_statistics(read_checkpoint(ckpt_path), own)
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
def _existing(folder: Path) -> Iterator[None]:
    """Make a folder for the time of the context, and remove it at the end if nothing was put into it."""
    made = not folder.exists()
    with suppress(OSError):  # without the folder nothing is recorded, which is no reason to stop
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if made:
            with suppress(OSError):  # not empty, or never made
                folder.rmdir()


@contextmanager
def _told() -> Iterator[None]:
    """Tell what this package finds unfit, the data, the method or the checkpoint, as Lightning tells it.

    One that was raised elsewhere, in a model or data set of one's own or in a library, passes with its trace.
    """
    try:
        yield
    except ValueError as error:
        if not raised_by_package(error):
            raise
        raise MisconfigurationException(str(error)) from error
