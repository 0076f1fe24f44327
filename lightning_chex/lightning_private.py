"""Access to private or undocumented parts of Lightning and jsonargparse that this package needs.

Nothing else in the package touches such a part. Each says why it is needed, and has a test in
``tests/test_lightning_private.py`` that names the feature it carries: the place to look after an upgrade.
"""

import re
import signal
import traceback
from argparse import ArgumentParser
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from lightning_fabric.plugins.environments import SLURMEnvironment
from lightning_fabric.utilities.distributed import DistributedSamplerWrapper
from pytorch_lightning.trainer.connectors.checkpoint_connector import _CheckpointConnector
from pytorch_lightning.trainer.connectors.signal_connector import _SignalConnector
from pytorch_lightning.utilities import CombinedLoader, rank_zero_only
from torch.utils.data import DataLoader, DistributedSampler

if TYPE_CHECKING:  # importing it lets every jsonargparse parser read files from anywhere
    from pytorch_lightning.cli import LightningArgumentParser, LightningCLI


class WeightsAlone:
    """Before LightningCLI among the bases of a class: a checkpoint brings weights, and leaves the settings alone.

    Lightning's would also take the model's settings from it, linked ones included, which the parser then refuses.
    """

    def _parse_ckpt_path(self) -> None:
        """Leave the configuration as it is."""


def parser_of_command(cli: "LightningCLI") -> "LightningArgumentParser":
    """The parser of the command that runs: it alone can write the configuration of that command down."""
    return cli._parser(cli.subcommand)


def parser_at_fault(error: Exception | None) -> Any:
    """The parser of the command whose arguments are wrong, None for those before it: its help lists the options."""
    return getattr(error, "subcommand_parser", None)


def declared_type(parser: ArgumentParser, option: str) -> Any:
    """Return the type that an option was declared with, such as ``Attributor | None``; None if there is none."""
    return next((getattr(own, "_typehint", None) for own in parser._actions if own.dest == option), None)


def option_names(parser: Any) -> list[str]:
    """Return the long names of all options of a parser, such as ``--trainer.max_epochs``."""
    return [name for name in parser._option_string_actions if name.startswith("--")]


def concise(message: str) -> str:
    """Reduce the parser's account of every type it has tried to what is wrong with the one given."""
    account = ("Does not validate", "Subtypes:", "Errors:", "- Expected a <class 'NoneType'>", "Given value")
    # an error of the data that arises where the parser asks them for class names
    message = re.sub(r"Call to compute_fn of link '.*?' with args \(.*?\) failed: ", "", message, flags=re.DOTALL)
    lines = [line.strip() for line in message.splitlines()]
    return " ".join(line.removeprefix("- ") for line in lines if line and not line.startswith(account))


def arose_in_restoring(error: Exception) -> bool:
    """Whether Lightning was reading a checkpoint: it lets through whatever torch raises for one that does not fit."""
    module, functions = "pytorch_lightning.trainer.connectors.checkpoint_connector", ("restore", "_restore", "resume")
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(f.f_globals.get("__name__") == module and f.f_code.co_name.startswith(functions) for f in frames)


LOADER_BY_POSITION = "where more than one `__init__` argument can be passed"
"""In Lightning's error of a DataLoader that it cannot build anew, which is how ``predict`` begins."""

FOLDER_IN_USE = "Checkpoint directory .* exists and is not empty"
"""The warning of a training that goes on in the folder of its run, where this is meant to be."""

CALLBACKS_LEFT_OUT = "Be aware that when using `ckpt_path`"
"""The warning of a checkpoint whose callbacks take no part, where they are left out on purpose."""


SAME_STATE = "Found more than one stateful callback of type"
"""In Lightning's error of two callbacks whose states a checkpoint could not tell apart."""

OF_NO_USE = (
    r".*isinstance\(treespec, LeafSpec\)",  # Lightning's own call of torch
    r"You have overridden `on_before_batch_transfer` in `LightningModule`",  # and that is meant
    r".*try installing \[litlogger\]",  # an advertisement, told as news and not as a warning
)
"""How messages begin that a user of the command line can do nothing about."""


def let_start_quietly(loggers: Iterable[Any]) -> None:
    """Have W&B not warn of a setting that a ``WandbLogger`` gives it unasked, and that has no effect any more."""
    for settings in (getattr(logger, "_wandb_init", None) for logger in loggers):
        # with fast_dev_run Lightning's loggers are dummies, which have any attribute
        if isinstance(settings, dict) and settings.get("anonymous", "") is None:
            del settings["anonymous"]


def started_run(logger: Any) -> Any:
    """Return the W&B run that a ``WandbLogger`` has begun, None before: ``logger.experiment`` would begin one."""
    run = getattr(logger, "_experiment", None)
    return run if hasattr(run, "settings") else None  # in other processes than the first it is a dummy


def callbacks_of(trainer: pl.Trainer) -> list[pl.Callback]:
    """The trainer's own list, so that changing it changes who takes part: callbacks are added, moved and taken out."""
    return trainer.callbacks  # type: ignore[attr-defined]


def set_callbacks(trainer: pl.Trainer, callbacks: list[pl.Callback]) -> None:
    """Replace the list: changed in place, while Lightning goes through it, it would skip one."""
    trainer.callbacks = callbacks  # type: ignore[attr-defined]


def is_trial(trainer: pl.Trainer) -> bool:
    """Whether this is a ``fast_dev_run``, which leaves no files."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def trainer_of(module: pl.LightningModule) -> pl.Trainer | None:
    """The trainer of a module, None where it has none yet, for which ``module.trainer`` is an error."""
    return module._trainer


def is_process_0() -> bool:
    """Whether this is the first process, before there is a trainer to ask."""
    return getattr(rank_zero_only, "rank", 0) == 0


def state_key(callback: pl.Callback, **settings: Any) -> str:
    """Lightning's name for the state of a callback in a checkpoint, with settings that tell it from others."""
    return callback._generate_state_key(**settings)


STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2", "SIGTERM") if hasattr(signal, name))
"""Signals that ask a training to save its state and stop; Windows has SIGTERM alone."""


class _FlaggedSignals(_SignalConnector):
    """Signal handlers of a ``fit`` that set a flag and do nothing else.

    Lightning's own save checkpoints, requeue the job and call other processes inside a handler, which may run in the
    middle of an optimizer step.
    """

    received: int = 0

    def register_signal_handlers(self) -> None:
        if self.trainer.state.fn != "fit":
            super().register_signal_handlers()
            return
        self.received_sigterm = False
        self.received = 0
        self._original_handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        for number in STOP_SIGNALS:
            self._register_signal(number, self._flag)

    def _flag(self, number: int, frame: Any) -> None:
        self.received = self.received or number


class _OwnCheckpoints(_CheckpointConnector):
    """Loads no checkpoint but the one that was given: Lightning's takes any ``hpc_ckpt_*.ckpt`` of the root."""

    @property
    def _hpc_resume_path(self) -> str | None:
        return None


def replace_requeue(trainer: pl.Trainer) -> None:
    """Switch off Lightning's requeue of SLURM jobs, whichever strategy and plugins the trainer has.

    Its checkpoints lie in the root that all runs share, and are loaded by every later job that has this root.
    """
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, SLURMEnvironment):
        environment.auto_requeue = False
    trainer._signal_connector = _FlaggedSignals(trainer)
    trainer._checkpoint_connector = _OwnCheckpoints(trainer)


def received_signal(trainer: pl.Trainer) -> int:
    """Number of the first signal of `STOP_SIGNALS` that this process has received in the present ``fit``, or 0."""
    return getattr(trainer._signal_connector, "received", 0)


def stop_after_batch(trainer: pl.Trainer) -> None:
    """Have Lightning raise ``SIGTERMException`` as soon as the present batch is complete; call it on all processes."""
    trainer._signal_connector.received_sigterm = True


class _ProcessLoader:
    """``Strategy.process_dataloader``, with a change of the loaders of training; an object, so that it is pickled."""

    def __init__(self, trainer: pl.Trainer, change: Callable[[DataLoader], None]) -> None:
        self._trainer = trainer
        self._process = trainer.strategy.process_dataloader
        self._change = change

    def __call__(self, dataloader: Any) -> Any:
        processed = self._process(dataloader)
        if self._trainer.training and isinstance(processed, DataLoader):
            self._change(processed)
        return processed


def change_train_loaders(trainer: pl.Trainer, change: Callable[[DataLoader], None]) -> None:
    """Call a function with each loader of training, in its final form, before its first iterator is made."""
    trainer.strategy.process_dataloader = _ProcessLoader(trainer, change)  # type: ignore[method-assign]


def train_loaders(trainer: pl.Trainer) -> list[Any]:
    """The loaders of training in use; empty before there are any."""
    loaders = trainer.fit_loop._combined_loader
    return [] if loaders is None else list(loaders.flattened)


def validation_loaders(trainer: pl.Trainer) -> list[Any]:
    """The loaders that a training will validate on, before it has made its own; empty where there are none.

    A LightningModule's or data module's ``val_dataloader`` is called for it.
    """
    source = trainer.fit_loop.epoch_loop.val_loop._data_source
    if source.instance is None or not source.is_defined():
        return []
    loaders = source.dataloader()
    return [] if loaders is None else list(CombinedLoader(loaders).flattened)


def set_batch_sampler(loader: DataLoader, batch_sampler: Any) -> None:
    """Replace the batch sampler of a loader, which torch refuses once the loader is made."""
    loader.__dict__["batch_sampler"] = batch_sampler


def position_in_epoch(checkpoint: dict[str, Any]) -> int:
    """Return the number of batches of an unfinished epoch that a checkpoint has trained on; 0 between two epochs."""
    loop = checkpoint.get("loops", {}).get("fit_loop")
    if loop is None:  # weights alone, which other commands than fit take
        return 0
    epochs = loop["epoch_progress"]["total"]
    if epochs["processed"] >= epochs["started"]:
        return 0
    return int(loop["epoch_loop.batch_progress"]["current"]["completed"])


def repeat_validation(checkpoint: dict[str, Any]) -> None:
    """Change a checkpoint that was made when a validation began so that a resumed training begins with it."""
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
    # how a loop looks that was interrupted in its first batch: Lightning goes back to such a validation
    progress["total"] |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    progress["current"] |= {"ready": 0, "started": 0, "processed": 0, "completed": 0}
    progress["is_last_batch"] = False


SAMPLERS = (DistributedSampler, DistributedSamplerWrapper)
"""What Lightning gives the loaders of a distributed run: process r reads number p * processes + r at position p."""


def batch_sampler_of(trainer: pl.Trainer, dataloader_idx: int) -> Any:
    """The batch sampler of a loader of the loop that runs, None where it has none."""
    # not of trainer.val_dataloaders, which are those of a former fit even while something else is validated
    loaders = getattr(trainer._active_loop, "_combined_loader", None)
    batches = None if loaders is None else getattr(loaders.flattened[dataloader_idx], "batch_sampler", None)
    return getattr(batches, "_batch_sampler", batches)  # to predict, Lightning wraps it
