"""The arguments of the command line: how they are parsed, completed, complained about and logged."""

import os
import sys
import zipfile
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import DefaultHelpFormatter
from pytorch_lightning.cli import LightningArgumentParser
from pytorch_lightning.utilities.exceptions import MisconfigurationException

import lightning_chex.data
from lightning_chex.data.overview import recognise
from lightning_chex.evaluation.checkpoint_contents import Checkpoint


class HelpFormatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """The parser's own, which leaves the lines of the description as they are."""


class Parser(LightningArgumentParser):
    """Says in one line what is wrong with the arguments."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one line and exit with 2; a nested parser, whose errors another one reports, raises them."""
        if not self.exit_on_error:
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        command = parser.prog.replace(" [options]", "")
        self.exit(2, f"error: {concise(message).removesuffix('.')}; {command} --help lists the options\n")


def with_default_config(arguments: list[str]) -> list[str]:
    """Insert the embedded configuration after the subcommand unless the arguments bring one of their own."""
    brings_config = any(a in ("-c", "--config") or a.startswith("--config=") for a in arguments)
    if brings_config or not arguments or arguments[0].startswith("-"):
        return arguments
    return [arguments[0], "--config", str(files("lightning_chex") / "default.yaml"), *arguments[1:]]


def with_recognised_data(arguments: list[str]) -> list[str]:
    """Let ``inspect`` and ``prepare --data.root DIR`` find out, and say, which data set lies there, if none is named.

    Raises:
        DataError: none that is known does.
    """
    named = any(a in ("-c", "--config", "--data") or a.startswith(("--config=", "--data=")) for a in arguments)
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--data.root", dest="root")
    root = parser.parse_known_args(arguments)[0].root
    if arguments[:1] not in (["inspect"], ["prepare"]) or named or root is None:
        return arguments
    name, file = recognise(root, lightning_chex.data.ChestXrayDataModule.__subclasses__())
    print(f"{file} lies there, so this is taken for {name}; --data CLASS says otherwise", file=sys.stderr)
    return [arguments[0], "--data", name, *arguments[1:]]


def concise(message: str) -> str:
    """Reduce the parser's account of every type it has tried to one line: what is wrong with the one given."""
    account = ("Does not validate", "Subtypes:", "Errors:", "- Expected a <class 'NoneType'>", "Given value")
    lines = [line.strip() for line in message.splitlines()]
    return " ".join(line.removeprefix("- ") for line in lines if line and not line.startswith(account))


def without_folders(config: Any) -> Any:
    """Copy a configuration, every path reduced to its last part: folder names may tell more than a log should know."""
    if isinstance(config, dict):
        return {key: without_folders(value) for key, value in config.items()}
    if isinstance(config, list):
        return [without_folders(value) for value in config]
    if (
        isinstance(config, str)
        and os.sep in config
        and (config.startswith(("~", "..")) or os.path.isabs(config) or os.path.exists(config))
    ):
        return Path(config).name
    return config


def check_checkpoint(path: str | None) -> None:
    """Refuse a missing file before anything is read; addresses and SLURM's own files are Lightning's business."""
    if path in ("best", "last"):  # Lightning would warn, and go on with weights that nobody has trained
        raise MisconfigurationException(
            f"ckpt_path={path!r} is a word for fit alone, which goes on with the last run: give a file that a run has "
            f"written, such as runs/lightning_chex/RUN/checkpoints/{path}.ckpt"
        )
    if path and path != "hpc" and "://" not in path and not Path(path).exists():
        raise MisconfigurationException(f"ckpt_path={path!r} does not exist: give a .ckpt file that a run has written")
    if path and Path(path).is_file() and not zipfile.is_zipfile(path):  # what torch.save writes is a zip archive
        raise MisconfigurationException(
            f"ckpt_path={path!r} is no checkpoint: give a .ckpt file that a run has written"
        )


def name_outputs(command: str, config: Any) -> None:
    """A folder of images does not say what the model tells: the checkpoint does."""
    if command not in ("predict", "explain"):
        raise MisconfigurationException(
            f"{command} needs labels, and ImageFolderDataModule has none: use predict or explain, or give --data the "
            "data module of a data set with a table"
        )
    if not config.get("ckpt_path"):
        raise MisconfigurationException("no checkpoint is given: --ckpt_path FILE.ckpt names the trained model")
    try:
        settings = Checkpoint.read(config.ckpt_path).settings
    except ValueError as error:
        raise MisconfigurationException(str(error)) from error
    for name in ("class_names", "score_names"):
        if not config.data.init_args.get(name):
            config.data.init_args[name] = list(settings.get(name, ())) or None
