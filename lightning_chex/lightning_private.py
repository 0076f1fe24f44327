"""What Lightning and jsonargparse keep to themselves or do not document, and this package needs all the same.

Nothing else in the package touches such a part. Each says why it is needed, and has a test in
``tests/test_lightning_private.py`` that names the feature it carries: the place to look after an upgrade.
"""

import traceback
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from lightning_fabric.utilities.distributed import DistributedSamplerWrapper
from pytorch_lightning.utilities import rank_zero_only
from torch.utils.data import DistributedSampler

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


def concise(message: str) -> str:
    """Reduce the parser's account of every type it has tried to what is wrong with the one given."""
    account = ("Does not validate", "Subtypes:", "Errors:", "- Expected a <class 'NoneType'>", "Given value")
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
    for settings in (getattr(logger, "_wandb_init", {}) for logger in loggers):
        if settings.get("anonymous", "") is None:
            del settings["anonymous"]


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


SAMPLERS = (DistributedSampler, DistributedSamplerWrapper)
"""What Lightning gives the loaders of a distributed run: process r reads number p * processes + r at position p."""


def batch_sampler_of(trainer: pl.Trainer, dataloader_idx: int) -> Any:
    """The batch sampler of a loader of the loop that runs, None where it has none."""
    # not of trainer.val_dataloaders, which are those of a former fit even while something else is validated
    loaders = getattr(trainer._active_loop, "_combined_loader", None)
    batches = None if loaders is None else getattr(loaders.flattened[dataloader_idx], "batch_sampler", None)
    return getattr(batches, "_batch_sampler", batches)  # to predict, Lightning wraps it
