"""The command line: LightningCLI with this package's defaults, errors of one line, and a summary at the end.

In the order of a command: `main` completes the arguments and tells errors; `ChexCLI` parses them, looks at the
configuration, builds model, data and trainer, looks at the data, runs the trainer's method, and says what came out.
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

import lightning_chex.tasks  # noqa: F401  # so that --model goes by short names, as callbacks and --data do
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
from lightning_chex.report import summary
from lightning_chex.report.loggers.wandb import discard_run
from lightning_chex.runs import FiniteWeights, StopOnSignal, keep_newest_state, resuming, run_folder, slurm
from lightning_chex.tasks import ChestXrayTask

DATA_COMMANDS = ("inspect", "prepare")
"""The commands that look at data only: no model is built and no run begins."""

OWN_COMMANDS = (*DATA_COMMANDS, "evaluate", "explain")
"""The commands that Lightning's Trainer does not have."""

UNTRAINED = {
    "explain": configuration.NO_WEIGHTS,
    "evaluate": "evaluate needs --ckpt_path, a .ckpt file a run has written: an untrained model has nothing to explain",
}
"""What the commands say that do not take an untrained model."""

REFUSALS = (DataError, LayerError, NotFiniteError, CheckpointError, MisconfigurationException)
"""Errors of what the user gave: data, checkpoints and settings, each told in one line."""

EXTRAS = ("tensorboard", "mlflow")
"""Packages of loggers that are installed on request."""


def main(args: Sequence[str] | None = None) -> None:
    """Run a command line, ``sys.argv`` by default.

    Raises:
        SystemExit: bad arguments or bad data, after one line on standard error.
    """
    given = list(sys.argv[1:] if args is None else args)
    logging.raiseExceptions = False  # W&B's own log on a full disk: its tracebacks would bury the one line
    for message in OF_NO_USE:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(_is_of_use)  # which is never added twice
    set_parsing_settings(config_read_mode_fsspec_enabled=False)  # Lightning lets configurations come from anywhere
    try:
        arguments.check(given)
        given = arguments.with_recognised_data(resuming.with_settings_of_run(given))
        ChexCLI(
            args=arguments.with_default_config(given),
            trainer_class=ChexTrainer,
            trainer_defaults={"default_root_dir": "runs"},
            seed_everything_default=0,
            save_config_callback=configuration.SaveConfig,
            save_config_kwargs={"save_to_log_dir": False},
            parser_class=arguments.Parser,
            parser_kwargs=arguments.HELP,
            load_from_checkpoint_support=False,  # hyper-parameters stay plain; load_from_checkpoint works with those
        )
    except REFUSALS as error:
        # a DataLoader worker wraps the error into its traceback, which ends with the message
        message = re.split(r"\.(?:DataError|MisconfigurationException): ", str(error))[-1].strip()
        if LOADER_BY_POSITION in message:
            message = f"batch_size is given by position: write DataLoader(dataset, batch_size=...); see {PAGE}"
        _refuse(message, error)
    except SIGTERMException:  # its own exit code is 0; `fit` says more, see ChexCLI
        print("ended by SIGTERM", file=sys.stderr)
        raise SystemExit(143) from None
    except Exception as error:
        told = remedy_for(error, arose_in_restoring(error))
        if told is None:  # an error of this program, whose traceback is wanted
            raise
        _refuse(told, error)
    except KeyboardInterrupt:  # while training Lightning catches it itself
        print("\ninterrupted: evaluate, explain and prepare go on where they were when given again", file=sys.stderr)
        raise SystemExit(130) from None


def _is_of_use(record: logging.LogRecord) -> bool:
    return not any(re.match(message, record.getMessage()) for message in OF_NO_USE)


def _refuse(message: str, error: Exception) -> NoReturn:
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
    """LightningCLI whose model learns its classes from the data and whose files all lie under one root."""

    _checkpoints: dict[str, dict[str, Any]] = {}  # what each holds, by path, until they are checked against the model
    _root: str | None = None  # of all runs, which commands without a run use too
    _own_settings: Any = None  # of a run that has a name or is resumed, without what follows from that
    _same_run = False  # whether a run is resumed in its own folder

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)  # which does all that follows
        except SIGTERMException:
            number = next((own.signal for own in callbacks_of(self.trainer) if isinstance(own, StopOnSignal)), 0)
            if not number:
                raise
            self._end_by_signal(number)
        except OSError as error:
            if error.errno and error.filename is None and hasattr(self, "trainer"):  # a failed write knows no name
                error.filename = self._given.get("output_dir") or self._given.trainer.default_root_dir
            raise
        except REFUSALS:
            self._discard_empty_runs()
            raise

    def _discard_empty_runs(self) -> None:
        """Remove the W&B runs of a command that is refused before anything is logged.

        Lightning begins the runs of its loggers before callbacks and modules are set up, where the last checks are.
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
            name = signal.Signals(number).name
            if self.trainer.is_global_zero:
                self._end_wandb_runs()
                job = slurm.job_id()
                print(f"stopped by {name}" + (f"; {slurm.requeue(job, number)}" if job else ""), file=sys.stderr)
        raise SystemExit(128 + number) from None

    # parse

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's own commands and those of `ChexTrainer`, with the arguments that are no options."""
        return {**LightningCLI.subcommands(), **{command: {"model", "datamodule"} for command in OWN_COMMANDS}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Give the model the names of the data's classes or scores."""
        parser.link_arguments("data", "model.init_args.class_names", self._class_names, apply_on="instantiate")
        parser.link_arguments("data", "model.init_args.score_names", score_names, apply_on="instantiate")

    def _class_names(self, data: Any) -> Any:
        """Return the names of the data's classes; none for commands that build no model."""
        return () if self.subcommand in DATA_COMMANDS else data.class_names

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; unlike the parent, without a warning that arguments given from Python differ from ``sys.argv``."""
        self.config = parser.parse_args(args)

    @property
    def _given(self) -> Any:
        """The configuration of the command, which ``self.config`` holds under its name."""
        return self.config[self.subcommand]

    # build

    def before_instantiate_classes(self) -> None:
        """Refuse what cannot work, and fill in what follows from the rest, before anything is built."""
        command, config = str(self.subcommand), self._given
        configuration.refuse_addresses(config)
        if command in DATA_COMMANDS:
            self._root = str(config.trainer.default_root_dir)
            for unused in ("model", "trainer"):
                del config[unused]
            return
        configuration.read_only_weights(config)
        if command == "fit":
            self._own_settings = resuming.begin_named(config)
            if resuming.names_run(config.ckpt_path):
                self._own_settings = resuming.resume(config)
                self._same_run = True
        self._checkpoints = configuration.check_checkpoints(config.get("ckpt_path"), command)
        configuration.fill_in_model(command, config, next(iter(self._checkpoints.values()), None))
        if command == "explain":  # its files lie in a folder of their own, and it is no run to be logged
            config.trainer.logger = False
        else:
            configuration.keep_below_root(config.trainer)

    def instantiate_classes(self) -> None:
        """Build model, data and trainer.

        Raises:
            CheckpointError: the checkpoint is of another model.
            MisconfigurationException: a constructor refuses its arguments.
        """
        try:
            super().instantiate_classes()
        except ValueError as error:  # the parser's, whatever the constructor raised
            said = concise(str(error))
            missing = next((name for name in EXTRAS if name in said and "pip install" in said), None)
            if missing:
                said = (
                    f"the logger needs {missing}, which is not installed: pip install 'lightning-chex[{missing}]', or "
                    "give --trainer.logger another one"
                )
            raise MisconfigurationException(said) from error
        checkpoints, self._checkpoints = self._checkpoints, {}
        # of other modules on_load_checkpoint may do what must not be done twice
        if isinstance(self.model, ChestXrayTask):
            for path, checkpoint in checkpoints.items():
                check_fits(self.model, checkpoint, path)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Build the trainer; ``fit`` ends where the weights are lost, ``predict`` also writes its table."""
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
                "trainer.callbacks holds several of one class that a checkpoint could not tell apart: give each "
                "IBACallback a name of its own (name: ...), or one of them all methods (attributors: {NAME: ...})"
            ) from error
        let_start_quietly(trainer.loggers)
        callbacks, command = callbacks_of(trainer), self.subcommand
        for saving in [own for own in callbacks if isinstance(own, configuration.SaveConfig)]:
            if command == "explain":
                callbacks.remove(saving)
            elif self._own_settings is not None:
                saving.config = self._own_settings
        if command == "fit" and not any(isinstance(own, FiniteWeights) for own in callbacks):
            callbacks.insert(0, FiniteWeights())
        if command == "predict" and not any(isinstance(own, PredictionWriter) for own in callbacks):
            callbacks.append(PredictionWriter())
        keep_newest_state(trainer, same_run=self._same_run)
        return trainer

    # look at the data

    def look_at_data(self) -> None:
        """Set up the data before a logger begins a run of them, and see that the weights are worth the work."""
        command, checkpoint = str(self.subcommand), self._given.get("ckpt_path")
        weights = checkpoint or (command == "explain" and self._given.get("model.init_args.weights"))
        if command in UNTRAINED and not weights:
            raise MisconfigurationException(UNTRAINED[command])
        # only our own data modules promise that a second setup does nothing new
        if isinstance(self.datamodule, ChestXrayDataModule):
            self.datamodule.trainer = self.trainer  # in whose folder it finds which files are known
            self.datamodule.setup({"explain": "predict", "evaluate": "test"}.get(command, command))
            if command == "predict":
                self.datamodule.dataset("test")
        if command != "fit" and not weights:
            rank_zero_warn(f"{command} without --ckpt_path: using untrained weights")

    def before_inspect(self) -> None:
        """Let the data module find the record of checked files, which lies in the trainer's root."""
        if isinstance(self.datamodule, ChestXrayDataModule):
            self.datamodule.trainer = self.trainer

    before_fit = before_validate = before_test = before_predict = before_explain = before_evaluate = look_at_data

    # say what came out

    def after_fit(self) -> None:
        """Say how good the model is, and where pictures, checkpoint and W&B's files lie."""
        if self.trainer.is_global_zero:
            stage = "test" if self.subcommand == "test" else "val"
            metrics = {key: float(value) for key, value in self.trainer.callback_metrics.items()}
            callbacks = callbacks_of(self.trainer)
            sheets = [sheet for own in callbacks if isinstance(own, IBACallback) for sheet in own.sheets]
            alarms = [str(alarm) for own in callbacks if isinstance(own, Alarms) for alarm in own.alarms.values()]
            best = getattr(self.trainer.checkpoint_callback, "best_model_path", "") if self.subcommand == "fit" else ""
            runs = self._end_wandb_runs()
            self.list_unreadable()
            print(summary(stage, metrics, sheets, best, runs, alarms))

    after_validate = after_test = after_fit

    def after_predict(self) -> None:
        """Say where the table is."""
        for callback in callbacks_of(self.trainer):
            if isinstance(callback, PredictionWriter) and self.trainer.is_global_zero:
                print(f"predictions: {callback.path}")
        self.list_unreadable()

    def after_evaluate(self) -> None:
        """Keep the configuration beside the results, and say which images could not be read."""
        folder = Path(self._given.output_dir).expanduser()
        configuration.keep(parser_of_command(self), self._given, folder, self.trainer.loggers)
        if isinstance(self.datamodule, ChestXrayDataModule):
            self.datamodule.teardown("test")
        self.list_unreadable()
        for run in self._end_wandb_runs():
            print(f"  W&B run     {run}")

    def _end_wandb_runs(self) -> list[Path]:
        """End the W&B runs now, so that what is said of their folders, which are returned, is the last thing said."""
        runs = [logger.experiment for logger in self.trainer.loggers if isinstance(logger, WandbLogger)]
        folders = [Path(run.dir).parent for run in runs]
        for run in runs:
            run.finish()
        return folders

    def list_unreadable(self) -> None:
        """List images that could not be read, if there are some, in the folder of the results or of the run."""
        names = adapted(self.datamodule).unreadable_images
        if names and self.trainer.is_global_zero:
            results = self._given.get("output_dir")
            folder = Path(results).expanduser() if results else run_folder(self.trainer)
            path = folder / "unreadable_images.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, "\n".join(names) + "\n")
            print(f"unreadable images, skipped: {len(names)}, listed in {path}")

    after_explain = list_unreadable


def score_names(data: object) -> tuple[str, ...]:
    """Return the names of a data module's scores; one that names none has a single severity."""
    return tuple(adapted(data).score_names or ()) or ("severity",)
