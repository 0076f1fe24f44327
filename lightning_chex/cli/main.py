"""The command line: LightningCLI with this package's defaults, one-line errors, and a summary at the end.

The order of a command: `main` completes the arguments and reports errors. `ChexCLI` parses the arguments, checks the
configuration, builds model, data and trainer, checks the data, runs the trainer's method, and prints the results.
"""

import logging
import re
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
from jsonargparse import set_parsing_settings
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_warn
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException

import lightning_chex.tasks  # noqa: F401  # the parser offers short class names of imported modules only
from lightning_chex.attribution import LayerError, NotFiniteError
from lightning_chex.checkpoints import CheckpointError
from lightning_chex.cli import arguments, configuration
from lightning_chex.cli.trainer import ChexTrainer
from lightning_chex.data import ChestXrayDataModule
from lightning_chex.data.adapter import adapted
from lightning_chex.data.contract import PAGE, DataError
from lightning_chex.explanations import Alarms, IBACallback, PredictionWriter
from lightning_chex.files import write_whole
from lightning_chex.lightning_private import (
    LOADER_BY_POSITION,
    OF_NO_USE,
    SAME_STATE,
    STOP_SIGNALS,
    WeightsAlone,
    arose_in_restoring,
    callbacks_of,
    concise,
    let_start_quietly,
    parser_of_command,
    started_run,
)
from lightning_chex.maps import check_fits
from lightning_chex.messages import one_line, remedy_for
from lightning_chex.report import next_steps, summary
from lightning_chex.report.loggers.wandb import discard_run
from lightning_chex.runs import FiniteWeights, StopOnSignal, keep_newest_state, resuming, run_folder, slurm
from lightning_chex.tasks import ChestXrayTask

DATA_COMMANDS = ("inspect", "prepare")
"""Commands that read data only: no model is built and no run begins."""

TRAINING_COMMANDS = ("fit", "demo")
"""Commands that train."""

ADDED_COMMANDS = (*DATA_COMMANDS, "demo", "evaluate", "explain")
"""Commands that Lightning's Trainer does not have."""

NEEDS_WEIGHTS = {
    "explain": configuration.NO_WEIGHTS,
    "evaluate": "evaluate needs trained weights: give --ckpt_path, a .ckpt file that a run has written",
}
"""Error messages of the commands that need a trained model."""

USER_ERRORS = (DataError, LayerError, NotFiniteError, CheckpointError, MisconfigurationException)
"""Errors in the user's data, checkpoints or settings; each is reported in one line, without a traceback."""

LOGGER_PACKAGES = ("tensorboard", "mlflow")
"""Optional packages of loggers, each an extra of the same name."""


def main(args: Sequence[str] | None = None) -> None:
    """Run a command line, ``sys.argv`` by default.

    Raises:
        SystemExit: bad arguments or bad data, after one line on standard error.
    """
    command_line = list(sys.argv[1:] if args is None else args)
    # on a full disk W&B fails to write its own log; the tracebacks of that would hide our one-line error
    logging.raiseExceptions = False
    for message in OF_NO_USE:
        warnings.filterwarnings("ignore", message=message)
    # a second call of main adds nothing: a logger keeps one copy of the same filter
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(_is_of_use)
    # Lightning would read configurations from remote addresses too
    set_parsing_settings(config_read_mode_fsspec_enabled=False)
    try:
        arguments.check(command_line)
        command_line = resuming.with_settings_of_run(command_line)
        command_line = arguments.with_recognised_data(command_line)
        ChexCLI(
            args=arguments.with_default_config(command_line),
            trainer_class=ChexTrainer,
            trainer_defaults={"default_root_dir": "runs"},
            seed_everything_default=0,
            save_config_callback=configuration.SaveConfig,
            save_config_kwargs={"save_to_log_dir": False},
            parser_class=arguments.Parser,
            parser_kwargs=arguments.HELP,
            load_from_checkpoint_support=False,  # hyper-parameters stay plain; load_from_checkpoint works with those
        )
    except USER_ERRORS as error:
        # a DataLoader worker wraps the error into its traceback, which ends with the message
        message = re.split(r"\.(?:DataError|MisconfigurationException): ", str(error))[-1].strip()
        if LOADER_BY_POSITION in message:
            message = f"batch_size is given by position: write DataLoader(dataset, batch_size=...); see {PAGE}"
        _exit_with_error(message, error)
    except SIGTERMException:
        # Lightning's exit code for it is 0; a stopped `fit` prints more, see ChexCLI
        print("ended by SIGTERM", file=sys.stderr)
        raise SystemExit(143) from None
    except Exception as error:
        remedy = remedy_for(error, arose_in_restoring(error))
        if remedy is None:  # a fault of this program or of the user's own code: the traceback is needed
            raise
        _exit_with_error(remedy, error)
    except KeyboardInterrupt:  # during a training Lightning itself catches it
        print("\ninterrupted: give the same command again to resume evaluate, explain or prepare", file=sys.stderr)
        raise SystemExit(130) from None


def _is_of_use(record: logging.LogRecord) -> bool:
    return not any(re.match(message, record.getMessage()) for message in OF_NO_USE)


def _exit_with_error(message: str, error: Exception) -> NoReturn:
    print(f"error: {one_line(message)}", file=sys.stderr)
    raise SystemExit(2) from error


@contextmanager
def ignored(signals: Iterable[int]) -> Iterator[None]:
    """Ignore signals within the context."""
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in signals}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class ChexCLI(WeightsAlone, LightningCLI):
    """LightningCLI that takes class names from the data and keeps all files under one root.

    Attributes:
        _checkpoints: contents of the given checkpoints by path, until they are checked against the model.
        _root: root folder of all runs; commands without a run use it too.
        _run_settings: configuration to save for a named or resumed run, without what was filled in from its name.
        _same_run: whether a run is resumed in its own folder.
    """

    _checkpoints: dict[str, dict[str, Any]] = {}
    _root: str | None = None
    _run_settings: Any = None
    _same_run = False

    def __init__(self, **options: Any) -> None:
        try:
            # the constructor of LightningCLI runs the whole command
            super().__init__(**options)
        except SIGTERMException:
            number = self._received_signal()
            if not number:
                raise
            self._end_by_signal(number)
        except OSError as error:
            # an error while writing, such as a full disk, has no file name
            if error.errno and error.filename is None and hasattr(self, "trainer"):
                error.filename = self._settings.get("output_dir") or self._settings.trainer.default_root_dir
            raise
        except USER_ERRORS:
            self._discard_empty_runs()
            raise

    def _received_signal(self) -> int:
        """Return the number of the signal that stopped the training; 0 if none did."""
        for callback in callbacks_of(self.trainer):
            if isinstance(callback, StopOnSignal):
                return callback.signal
        return 0

    def _discard_empty_runs(self) -> None:
        """Remove the W&B runs of a command that fails before anything is logged.

        Lightning starts the runs of its loggers before callbacks and modules are set up, and the last checks of the
        settings are made during that set-up.
        """
        trainer = getattr(self, "trainer", None)
        if trainer is None or trainer.global_step or trainer.callback_metrics:
            return
        for run in filter(None, map(started_run, trainer.loggers)):
            discard_run(run)

    def _end_by_signal(self, number: int) -> NoReturn:
        """End a training whose state is saved: complete the loggers' files, have SLURM start the job anew, and exit.

        Raises:
            SystemExit: with 128 + the signal's number, as the shell has it for a program that a signal has ended.
        """
        with ignored(STOP_SIGNALS):  # SLURM repeats its signals
            message = f"stopped by {signal.Signals(number).name}"
            if self.trainer.is_global_zero:
                self._end_wandb_runs()
                job = slurm.job_id()
                if job:
                    message += f"; {slurm.requeue(job, number)}"
                print(message, file=sys.stderr)
        raise SystemExit(128 + number) from None

    # Parsing

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return Lightning's own commands and those of `ChexTrainer`, with the arguments that are not options."""
        added = {command: {"model", "datamodule"} for command in ADDED_COMMANDS}
        return {**LightningCLI.subcommands(), **added}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link the names of the data's classes and scores to the model's arguments."""
        parser.link_arguments("data", "model.init_args.class_names", self._class_names, apply_on="instantiate")
        parser.link_arguments("data", "model.init_args.score_names", score_names, apply_on="instantiate")

    def _class_names(self, data: Any) -> Any:
        """Return the names of the data's classes; none for commands that build no model."""
        return () if self.subcommand in DATA_COMMANDS else data.class_names

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments; the parent also warns that arguments given from Python differ from ``sys.argv``."""
        self.config = parser.parse_args(args)

    @property
    def _settings(self) -> Any:
        """Configuration of the command; ``self.config`` holds it under the command's name."""
        return self.config[self.subcommand]

    # Building model, data and trainer

    def before_instantiate_classes(self) -> None:
        """Reject invalid settings and fill in settings that follow from others, before anything is built."""
        command = str(self.subcommand)
        config = self._settings
        configuration.refuse_addresses(config)
        if command in DATA_COMMANDS:
            self._root = str(config.trainer.default_root_dir)
            for unused in ("model", "trainer"):
                del config[unused]
            return
        configuration.read_only_weights(config)
        if command == "fit":
            self._run_settings = resuming.begin_named(config)
            if resuming.names_run(config.ckpt_path):
                self._run_settings = resuming.resume(config)
                self._same_run = True
        self._checkpoints = configuration.check_checkpoints(config.get("ckpt_path"), command)
        configuration.fill_in_model(command, config, next(iter(self._checkpoints.values()), None))
        if command == "explain":  # writes into --output_dir and starts no run, so there is nothing to log
            config.trainer.logger = False
        else:
            configuration.keep_below_root(config.trainer)

    def instantiate_classes(self) -> None:
        """Build model, data and trainer.

        Raises:
            CheckpointError: the checkpoint belongs to another model.
            MisconfigurationException: a constructor raised a ValueError.
        """
        try:
            super().instantiate_classes()
        except ValueError as error:  # the parser turns every error of a constructor into a ValueError
            message = concise(str(error))
            for package in LOGGER_PACKAGES:
                if package in message and "pip install" in message:
                    message = (
                        f"the logger needs {package}, which is not installed: pip install 'lightning-chex[{package}]', "
                        "or choose another logger with --trainer.logger"
                    )
            raise MisconfigurationException(message) from error
        # on_load_checkpoint of a user's own module may have effects that must not happen twice
        if isinstance(self.model, ChestXrayTask):
            for path, checkpoint in self._checkpoints.items():
                check_fits(self.model, checkpoint, path)
        self._checkpoints = {}

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Build the trainer; add `FiniteWeights` for ``fit`` and `PredictionWriter` for ``predict``."""
        if self.subcommand in DATA_COMMANDS:
            return ChexTrainer(
                accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, default_root_dir=self._root
            )
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except RuntimeError as error:
            if SAME_STATE not in str(error):
                raise
            raise MisconfigurationException(
                "trainer.callbacks has several callbacks whose states have the same name in a checkpoint: give each "
                "IBACallback its own name (name: ...), or give one of them all methods (attributors: {NAME: ...})"
            ) from error
        let_start_quietly(trainer.loggers)
        self._complete_callbacks(callbacks_of(trainer))
        keep_newest_state(trainer, same_run=self._same_run)
        return trainer

    def _complete_callbacks(self, callbacks: list[pl.Callback]) -> None:
        """Add and adjust, in place, the callbacks that a command needs."""
        command = self.subcommand
        for callback in list(callbacks):
            if isinstance(callback, configuration.SaveConfig):
                if command == "explain":
                    callbacks.remove(callback)
                elif self._run_settings is not None:
                    callback.config = self._run_settings
        kinds = {type(callback) for callback in callbacks}
        if command in TRAINING_COMMANDS and not any(issubclass(kind, FiniteWeights) for kind in kinds):
            # first, so that no other callback sees or saves weights that are not finite
            callbacks.insert(0, FiniteWeights())
        if command == "predict" and not any(issubclass(kind, PredictionWriter) for kind in kinds):
            callbacks.append(PredictionWriter())

    # Checks of the data

    def check_data(self) -> None:
        """Set up the data before a logger starts its run, and check that trained weights were given."""
        command = str(self.subcommand)
        weights = self._settings.get("ckpt_path")
        if command == "explain":
            weights = weights or self._settings.get("model.init_args.weights")
        if command in NEEDS_WEIGHTS and not weights:
            raise MisconfigurationException(NEEDS_WEIGHTS[command])
        # only our own data modules guarantee that a second call of setup changes nothing
        if isinstance(self.datamodule, ChestXrayDataModule):
            self.datamodule.trainer = self.trainer  # the record of checked files lies in the trainer's root
            stage = {"demo": "fit", "explain": "predict", "evaluate": "test"}.get(command, command)
            self.datamodule.setup(stage)
            if command == "predict":
                self.datamodule.dataset("test")
        if command not in TRAINING_COMMANDS and not weights:
            rank_zero_warn(f"{command} without --ckpt_path: using untrained weights")

    def before_inspect(self) -> None:
        """Give the data module the trainer, in whose root the record of checked files lies."""
        if isinstance(self.datamodule, ChestXrayDataModule):
            self.datamodule.trainer = self.trainer

    before_fit = check_data
    before_demo = check_data
    before_validate = check_data
    before_test = check_data
    before_predict = check_data
    before_explain = check_data
    before_evaluate = check_data

    # Results

    def after_fit(self) -> None:
        """Print the metrics and the paths of pictures, checkpoint and W&B runs."""
        if not self.trainer.is_global_zero:
            return
        sheets: list[Path] = []
        alarms: list[str] = []
        for callback in callbacks_of(self.trainer):
            if isinstance(callback, IBACallback):
                sheets.extend(callback.sheets)
            elif isinstance(callback, Alarms):
                alarms.extend(map(str, callback.alarms.values()))
        best_checkpoint = ""
        if self.subcommand in TRAINING_COMMANDS:
            best_checkpoint = getattr(self.trainer.checkpoint_callback, "best_model_path", "")
        stage = "test" if self.subcommand == "test" else "val"
        metrics = {key: float(value) for key, value in self.trainer.callback_metrics.items()}
        wandb_runs = self._end_wandb_runs()
        self.list_unreadable()
        print(summary(stage, metrics, sheets, best_checkpoint, wandb_runs, alarms))

    def after_demo(self) -> None:
        """Print the results, and the commands to continue with."""
        self.after_fit()
        if self.trainer.is_global_zero:
            checkpoint = getattr(self.trainer.checkpoint_callback, "best_model_path", "")
            print(next_steps(run_folder(self.trainer), checkpoint))

    after_validate = after_fit
    after_test = after_fit

    def after_predict(self) -> None:
        """Print the path of the table of predictions."""
        for callback in callbacks_of(self.trainer):
            if isinstance(callback, PredictionWriter) and self.trainer.is_global_zero:
                print(f"predictions: {callback.path}")
        self.list_unreadable()

    def after_evaluate(self) -> None:
        """Write the configuration beside the results, and list the images that could not be read."""
        folder = Path(self._settings.output_dir).expanduser()
        configuration.save(parser_of_command(self), self._settings, folder, self.trainer.loggers)
        if isinstance(self.datamodule, ChestXrayDataModule):
            self.datamodule.teardown("test")
        self.list_unreadable()
        for run in self._end_wandb_runs():
            print(f"  W&B run     {run}")

    def _end_wandb_runs(self) -> list[Path]:
        """End the W&B runs and return their folders; W&B prints while ending, so this comes before our summary."""
        runs = [logger.experiment for logger in self.trainer.loggers if isinstance(logger, WandbLogger)]
        folders = [Path(run.dir).parent for run in runs]
        for run in runs:
            run.finish()
        return folders

    def list_unreadable(self) -> None:
        """Write the names of images that could not be read, if any, into the folder of the results or of the run."""
        names = adapted(self.datamodule).unreadable_images
        if names and self.trainer.is_global_zero:
            output_dir = self._settings.get("output_dir")
            folder = Path(output_dir).expanduser() if output_dir else run_folder(self.trainer)
            path = folder / "unreadable_images.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, "\n".join(names) + "\n")
            print(f"unreadable images, skipped: {len(names)}, listed in {path}")

    after_explain = list_unreadable


def score_names(data: object) -> tuple[str, ...]:
    """Return the names of a data module's scores; ``("severity",)`` for a data module without names."""
    return tuple(adapted(data).score_names or ()) or ("severity",)
