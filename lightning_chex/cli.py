"""The command line: LightningCLI with this package's defaults, errors of one line, and a summary at the end."""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
import yaml
from jsonargparse import set_parsing_settings
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException

import lightning_chex.callbacks
import lightning_chex.data
import lightning_chex.tasks  # noqa: F401  # all three imported so that --model, --data and callbacks go by short names
from lightning_chex.arguments import (
    HelpFormatter,
    Parser,
    check_checkpoint,
    check_text,
    concise,
    name_outputs,
    refuse_addresses,
    refuse_addresses_in,
    with_default_config,
    with_recognised_data,
    without_folders,
)
from lightning_chex.attribution import LayerError, NotFiniteError
from lightning_chex.callbacks import (
    FiniteWeights,
    IBACallback,
    PredictionWriter,
    check_place,
    keep_newest_state,
    run_folder,
)
from lightning_chex.data.adapter import adapted
from lightning_chex.data.errors import DataError
from lightning_chex.explaining import CheckpointError, check_fits
from lightning_chex.files import write_whole
from lightning_chex.messages import one_line, way_out
from lightning_chex.reporting import summary
from lightning_chex.resuming import go_on, names_run, with_settings_of_run
from lightning_chex.tasks import ChestXrayTask
from lightning_chex.trainer import ChexTrainer

DESCRIPTION = """Train chest X-ray models and see, at every validation, what they look at.

  python -m lightning_chex fit
      the embedded example: a few minutes of training on drawn X-rays, no data needed
  python -m lightning_chex fit --config configs/nih_classification.yaml --data.root DIR
      the same on your copy of NIH ChestX-ray8
  python -m lightning_chex fit --config FILE --print_config
      every setting and its value; each can be given as an option, such as --trainer.max_epochs 5
  python -m lightning_chex fit --ckpt_path last
      go on with the run that was interrupted, in its folder; --ckpt_path runs/lightning_chex/RUN names one
  python -m lightning_chex test --config FILE --ckpt_path runs/.../checkpoints/best.ckpt
      measure and explain a trained model on the test images; predict writes a table
  python -m lightning_chex explain --config FILE --ckpt_path FILE.ckpt --data.root DIR --output_dir OUT
      a saliency map for each finding of each image; of images alone with --data ImageFolderDataModule
  python -m lightning_chex evaluate --config FILE --ckpt_path FILE.ckpt --output_dir OUT
      compare attribution methods on the model, beside controls: OUT/report.html; --limit 32 for a quick look
  python -m lightning_chex inspect --data.root DIR
      what your copy of a data set holds: counts, sizes, missing files, sample images; the first thing to run on it
  python -m lightning_chex prepare --data NIHDataModule --data.root DIR --size 224 --output_dir COPY
      resize all images once; training then reads them many times faster with --data.prepared COPY
  python -m lightning_chex fit --data.help NIHDataModule
      the options of one class

Without --config the embedded example's settings hold; with it, nothing of them does.
A configuration can name any class and so run code: only use configurations you trust.
Everything a run writes lies under --trainer.default_root_dir (runs), its configuration too."""

DATA_COMMANDS = ("inspect", "prepare")
"""The commands that look at data only: no model is built and no run begins."""

OWN_COMMANDS = (*DATA_COMMANDS, "evaluate", "explain")
"""The commands that Lightning's Trainer does not have."""


class SaveConfig(SaveConfigCallback):
    """Writes the whole configuration into the run's folder and sends it to the run's loggers."""

    def __init__(self, parser: LightningArgumentParser, config: Any, **kwargs: Any) -> None:
        super().__init__(parser, config, **(kwargs | {"save_to_log_dir": False}))

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write ``config.yaml``; loggers get the same without paths of this machine."""
        folder = run_folder(trainer)
        folder.mkdir(parents=True, exist_ok=True)
        text = self.parser.dump(self.config, skip_none=False)
        write_whole(folder / self.config_filename, text, sync=True)
        for logger in trainer.loggers:
            logger.log_hyperparams(without_folders(yaml.safe_load(text)))


class ChexCLI(LightningCLI):
    """LightningCLI whose model learns its classes from the data and whose files all lie under one root."""

    _checkpoint: dict[str, Any] | None = None
    _own_settings: Any = None
    """Of a run that is gone on with."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's own commands and those of `ChexTrainer`, with the arguments that are no options."""
        return {**LightningCLI.subcommands(), **{command: {"model", "datamodule"} for command in OWN_COMMANDS}}

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """As the parent does, and let ``--attributor FILE.yaml`` name a file."""
        parser = self.init_parser(**kwargs)
        self._add_arguments(parser)
        skip: set[str | int] = set(self.subcommands()[subcommand])
        added = parser.add_method_arguments(klass, subcommand, skip=skip, sub_configs=True)
        self._subcommand_method_arguments[subcommand] = added
        return parser

    def _run_subcommand(self, subcommand: str) -> None:
        """Run; an error of a disk learns where this command writes: a failed write knows no name."""
        try:
            super()._run_subcommand(subcommand)
        except OSError as error:
            if error.errno and error.filename is None:
                config = self.config[subcommand]
                error.filename = config.get("output_dir") or config.trainer.default_root_dir
            raise

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Give the model the names of the data's classes or scores."""
        parser.link_arguments("data.class_names", "model.init_args.class_names", apply_on="instantiate")
        parser.link_arguments("data", "model.init_args.score_names", score_names, apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; unlike the parent, without a warning that arguments given from Python differ from ``sys.argv``."""
        self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Leave the model's settings to the configuration: a checkpoint brings weights.

        The parent would take them from the checkpoint, linked ones included, which the parser then refuses.
        """

    def before_instantiate_classes(self) -> None:
        """Keep W&B's files below the run's root, and what it collects unasked at home."""
        config = self.config[self.subcommand] if self.subcommand else self.config
        refuse_addresses(config)
        if self.subcommand in DATA_COMMANDS:
            for unused in ("model", "trainer"):
                del config[unused]
            return
        if "weights_only" in config:
            if config.weights_only is False:
                raise MisconfigurationException("weights_only=False would let a checkpoint run code: leave it out")
            config.weights_only = True  # left open, an environment variable could decide otherwise
        if self.subcommand == "fit" and names_run(config.get("ckpt_path")):
            self._own_settings = go_on(config)
        self._checkpoint = check_checkpoint(config.get("ckpt_path"), str(self.subcommand))
        settings = getattr(config.get("model"), "init_args", None)
        if self.subcommand != "fit" and config.get("ckpt_path") and settings and settings.get("pretrained"):
            settings.pretrained = False  # the checkpoint brings the weights: nothing is fetched to be overwritten
        if getattr(config.get("data"), "class_path", "").endswith(".ImageFolderDataModule"):
            name_outputs(str(self.subcommand), config, self._checkpoint)
        if self.subcommand == "explain":  # its files lie in a folder of their own, and it is no run to be logged
            config.trainer.logger = False
            return
        root = Path(config.trainer.default_root_dir or ".").expanduser()
        check_place(root, "trainer.default_root_dir")
        root.mkdir(parents=True, exist_ok=True)
        loggers = config.trainer.logger if isinstance(config.trainer.logger, list) else [config.trainer.logger]
        for logger in loggers:
            if getattr(logger, "class_path", "").endswith(".WandbLogger"):
                if logger.init_args.get("save_dir") in (None, "."):
                    logger.init_args["save_dir"] = str(root)
                _keep_wandb_private(root)

    def instantiate_classes(self) -> None:
        """Build model, data and trainer.

        Raises:
            MisconfigurationException: a constructor refuses its arguments.
        """
        try:
            super().instantiate_classes()
        except ValueError as error:  # the parser's, whatever the constructor raised
            raise MisconfigurationException(concise(str(error))) from error
        checkpoint, self._checkpoint = self._checkpoint, None
        if checkpoint is not None and isinstance(self.model, ChestXrayTask):
            try:  # of other modules on_load_checkpoint may do what must not be done twice
                check_fits(self.model, checkpoint, self.config[self.subcommand].ckpt_path)
            except CheckpointError as error:
                raise MisconfigurationException(str(error)) from error

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Build the trainer; ``fit`` ends where the weights are lost, ``predict`` also writes its table."""
        if self.subcommand in DATA_COMMANDS:
            return ChexTrainer(accelerator="cpu", devices=1, logger=False, enable_checkpointing=False)
        trainer = super().instantiate_trainer(**kwargs)
        callbacks: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
        if self.subcommand == "explain":
            callbacks[:] = [own for own in callbacks if not isinstance(own, SaveConfig)]
        if self.subcommand == "fit" and not any(isinstance(one, FiniteWeights) for one in callbacks):
            callbacks.insert(0, FiniteWeights())
        if self.subcommand == "predict" and not any(isinstance(one, PredictionWriter) for one in callbacks):
            callbacks.append(PredictionWriter())
        keep_newest_state(trainer, same_run=self._own_settings is not None)
        for own in callbacks:
            if isinstance(own, SaveConfig) and self._own_settings is not None:
                own.config = self._own_settings
        return trainer

    def before_fit(self) -> None:
        """Look at the data before a logger begins a run of it."""
        self._set_up_data("fit")

    def before_validate(self) -> None:
        """Look at the data before a logger begins a run of it."""
        self._set_up_data("validate")

    def before_test(self) -> None:
        """Look at the data before a logger begins a run of it."""
        self._set_up_data("test")

    def before_predict(self) -> None:
        """Look at the data before a logger begins a run of it."""
        self._set_up_data("predict")
        if isinstance(self.datamodule, lightning_chex.data.ChestXrayDataModule):
            self.datamodule.dataset("test")

    def before_explain(self) -> None:
        """Look at the data; weights nobody has trained are not worth explaining."""
        if not self.config["explain"].get("ckpt_path"):
            raise MisconfigurationException("no checkpoint is given: --ckpt_path FILE.ckpt names the trained model")
        self._set_up_data("predict")

    def before_evaluate(self) -> None:
        """Look at the data first, and refuse to judge a model that has learnt nothing."""
        if not self.config["evaluate"].get("ckpt_path"):
            raise MisconfigurationException(
                "evaluate needs --ckpt_path, a .ckpt file a run has written: an untrained model has nothing to explain"
            )
        if isinstance(self.datamodule, lightning_chex.data.ChestXrayDataModule):
            self.datamodule.setup("test")

    def after_evaluate(self) -> None:
        """Keep the configuration beside the results, and say which images could not be read."""
        config = self.config["evaluate"]
        text = self._parser("evaluate").dump(config, skip_none=False)
        write_whole(Path(config["output_dir"]).expanduser() / "config.yaml", text)
        for logger in self.trainer.loggers:
            logger.log_hyperparams(without_folders(yaml.safe_load(text)))
            if isinstance(logger, WandbLogger):
                folder = Path(logger.experiment.dir).parent
                logger.experiment.finish()  # now, so that this is the last thing said
                print(f"  W&B run     {folder}")
        if isinstance(self.datamodule, lightning_chex.data.ChestXrayDataModule):
            self.datamodule.teardown("test")
        self._list_unreadable(Path(config["output_dir"]).expanduser())

    def _set_up_data(self, stage: str) -> None:
        # only our own data modules promise that a second setup does nothing new
        if isinstance(self.datamodule, lightning_chex.data.ChestXrayDataModule):
            self.datamodule.setup(stage)
        if stage != "fit" and not self.config[self.subcommand].get("ckpt_path"):
            rank_zero_warn(f"{stage} without --ckpt_path: the weights are those a training would start from")

    def after_fit(self) -> None:
        """Say what came out."""
        self._conclude("val")

    def after_validate(self) -> None:
        """Say what came out."""
        self._conclude("val")

    def after_test(self) -> None:
        """Say what came out."""
        self._conclude("test")

    def after_predict(self) -> None:
        """Say where the table is."""
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, PredictionWriter) and self.trainer.is_global_zero:
                print(f"predictions: {callback.path}")
        self._list_unreadable()

    def after_explain(self) -> None:
        """List what could not be read."""
        self._list_unreadable(Path(self.config["explain"]["output_dir"]).expanduser())

    def _conclude(self, stage: str) -> None:
        if not self.trainer.is_global_zero:
            return
        metrics = {key: float(value) for key, value in self.trainer.callback_metrics.items()}
        callbacks: list[pl.Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        sheets = [c.last_sheet for c in callbacks if isinstance(c, IBACallback) and c.last_sheet]
        checkpoint = (
            getattr(self.trainer.checkpoint_callback, "best_model_path", "") if self.subcommand == "fit" else ""
        )
        offline = [Path(x.experiment.dir).parent for x in self.trainer.loggers if isinstance(x, WandbLogger)]
        for logger in self.trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.finish()  # now, so that the summary is the last thing said
        print(summary(stage, metrics, sheets, checkpoint, offline))
        self._list_unreadable()

    def _list_unreadable(self, folder: Path | None = None) -> None:
        names = adapted(self.datamodule).unreadable_images
        if names and self.trainer.is_global_zero:
            path = (folder or run_folder(self.trainer)) / "unreadable_images.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, "\n".join(names) + "\n")
            print(f"unreadable images, skipped: {len(names)}, listed in {path}")


def main(args: Sequence[str] | None = None) -> None:
    """Run a command line, ``sys.argv`` by default.

    Raises:
        SystemExit: bad arguments or bad data, after one line on standard error.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    logging.raiseExceptions = False  # W&B's own log on a full disk: its tracebacks would bury the one line
    set_parsing_settings(config_read_mode_fsspec_enabled=False)  # Lightning lets configurations come from anywhere
    try:
        check_text(arguments)
        refuse_addresses_in(arguments)
        ChexCLI(
            save_config_callback=SaveConfig,
            trainer_class=ChexTrainer,
            trainer_defaults={"default_root_dir": "runs"},
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={
                "prog": "python -m lightning_chex",
                "description": DESCRIPTION,
                "formatter_class": HelpFormatter,
            },
            load_from_checkpoint_support=False,  # hyper-parameters stay plain; load_from_checkpoint works with those
            args=with_default_config(with_recognised_data(with_settings_of_run(arguments))),
        )
    except (DataError, LayerError, NotFiniteError, MisconfigurationException) as error:
        # a DataLoader worker wraps the error into its traceback, which ends with the message
        _refuse(str(error).rpartition("errors.DataError: ")[2].strip(), error)
    except SIGTERMException:  # its own exit code is 0
        print("ended by SIGTERM", file=sys.stderr)
        raise SystemExit(143) from None
    except Exception as error:
        told = way_out(error)
        if told is None:  # an error of this program, whose traceback is wanted
            raise
        _refuse(told, error)
    except KeyboardInterrupt:  # while training Lightning catches it itself
        print("\ninterrupted: evaluate, explain and prepare go on where they were when given again", file=sys.stderr)
        raise SystemExit(130) from None


def _refuse(message: str, error: Exception) -> NoReturn:
    print(f"error: {one_line(message)}", file=sys.stderr)
    raise SystemExit(2) from error


def score_names(data: object) -> tuple[str, ...]:
    """Return the names of a data module's scores; one that names none has a single severity."""
    return tuple(adapted(data).score_names or ()) or ("severity",)


def _keep_wandb_private(root: Path) -> None:
    """Environment settings that W&B reads when it starts; what the user has set stands."""
    for name, value in {
        "WANDB_CACHE_DIR": str(root / "wandb" / "cache"),
        "WANDB_DATA_DIR": str(root / "wandb" / "data"),
        "WANDB_X_DISABLE_META": "true",  # else command line, program path and working folder are recorded
        "WANDB_CONSOLE": "off",  # what is printed names folders
        "WANDB_HOST": "",  # else the machine's name
        "WANDB_GIT_REMOTE": "",  # else the address the git repository came from, with the user it belongs to
        "WANDB_QUIET": "true",
    }.items():
        os.environ.setdefault(name, value)
