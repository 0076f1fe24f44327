"""The arguments of the command line: how they are parsed, completed, complained about and logged."""

import os
import re
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Mapping
from importlib.resources import files
from itertools import pairwise
from typing import Any, NoReturn

import yaml
from jsonargparse import DefaultHelpFormatter, Namespace, get_loader, set_loader
from pytorch_lightning.cli import LightningArgumentParser
from pytorch_lightning.utilities.exceptions import MisconfigurationException

import lightning_chex.data
from lightning_chex.data.overview import recognise
from lightning_chex.explaining import CheckpointError, is_address, read_checkpoint
from lightning_chex.messages import one_line
from lightning_chex.yaml_text import check_size

_PATH_SETTING = re.compile(r"^(?!class_path$)(.*_)?(root|dir|dirpath|path|prepared|images|masks|lungs)$")
"""Names of settings that are folders or files whenever they are text."""


class HelpFormatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """The parser's own, which leaves the lines of the description as they are."""


_load = get_loader("yaml")


def _load_in_bounds(text: str) -> Any:
    check_size(text)
    return _load(text)


set_loader("yaml", _load_in_bounds, exceptions=(yaml.YAMLError,))  # of every file and value the parser reads


class Parser(LightningArgumentParser):
    """Says in one line what is wrong with the arguments."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one line and exit with 2; a nested parser, whose errors another one reports, raises them."""
        if not self.exit_on_error:
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        command = parser.prog.replace(" [options]", "")
        self.exit(2, f"error: {one_line(concise(message)).removesuffix('.')}; {command} --help lists the options\n")


def check_text(arguments: list[str]) -> None:
    """Refuse arguments that cannot be written down, such as a folder whose name is of an older encoding.

    Raises:
        MisconfigurationException: one is not UTF-8.
    """
    for argument in arguments:
        if re.search(r"[\ud800-\udfff]", argument):  # how Python passes on bytes that are no text
            raise MisconfigurationException(f"the argument {ascii(argument)} is not UTF-8: rename the file or folder")


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


def without_folders(config: Any, name: str = "") -> Any:
    """Copy a configuration for a log, ``(path)`` instead of each path: any part of one may name a person or a clinic.

    Args:
        config: a part of the configuration.
        name: of the setting it is the value of; some take nothing else than paths, which may look like words.
    """
    if isinstance(config, dict):
        return {key: without_folders(value, str(key)) for key, value in config.items()}
    if isinstance(config, list):
        return [without_folders(value, name) for value in config]
    if isinstance(config, str) and config and (_PATH_SETTING.search(name) or _is_path(config)):
        return "(path)"
    return config


def _is_path(text: str) -> bool:
    return os.sep in text and (text.startswith(("~", "..")) or os.path.isabs(text) or os.path.exists(text))


def refuse_addresses_in(arguments: list[str]) -> None:
    """Refuse addresses where a file of settings is read while arguments are parsed.

    Raises:
        MisconfigurationException: there is one.
    """
    for argument, following in pairwise([*arguments, ""]):
        option, equals, value = argument.partition("=")
        if option in ("-c", "--config", "--data", "--model", "--trainer", "--attributor"):
            _refuse_address(option.lstrip("-"), value if equals else following)


def refuse_addresses(config: Namespace) -> None:
    """Refuse addresses for files and folders before anything is fetched: what is read has to lie on this machine.

    Args:
        config: of a subcommand. The data modules and tasks of others, and loggers, may go where they like.

    Raises:
        MisconfigurationException: there is one.
    """
    others = not str(config.get("data.class_path")).startswith("lightning_chex.")
    for key, value in config.items():  # the leaves, by dotted names
        name = key.rpartition(".")[2]
        ours = "." not in key or key == "trainer.default_root_dir" or (key.startswith("data.") and not others)
        if ours and (_PATH_SETTING.search(name) or name in ("methods", "rle")):
            for one in value if isinstance(value, list) else [value]:
                _refuse_address(key.replace(".init_args", ""), one)


def _refuse_address(name: str, value: Any) -> None:
    if isinstance(value, str) and is_address(value):
        raise MisconfigurationException(
            f"{name}={value!r} is an address, and nothing is fetched: download it, if you trust its source, and give "
            "the file or folder"
        )


def check_checkpoint(path: str | None, command: str) -> dict[str, Any] | None:
    """Refuse a file that is no whole checkpoint before anything else is read.

    Args:
        path: what was given as ``ckpt_path``; Lightning's own words are its own business.
        command: ``fit`` also needs what a training goes on from.

    Returns:
        What the file holds, see ``read_checkpoint``; None where no file was given.

    Raises:
        MisconfigurationException: it is none.
    """
    if path in ("best", "last"):  # Lightning would warn, and go on with weights that nobody has trained
        raise MisconfigurationException(
            f"ckpt_path={path!r} is a word for fit alone, which goes on with the last run: give a file that a run has "
            f"written, such as runs/lightning_chex/RUN/checkpoints/{path}.ckpt"
        )
    if not path or path == "hpc":
        return None
    try:
        return read_checkpoint(path, to_resume=command == "fit")
    except CheckpointError as error:
        raise MisconfigurationException(str(error)) from error


def name_outputs(command: str, config: Any, checkpoint: Mapping[str, Any] | None) -> None:
    """A folder of images does not say what the model tells: the checkpoint does."""
    if command not in ("predict", "explain"):
        raise MisconfigurationException(
            f"{command} needs labels, and ImageFolderDataModule has none: use predict or explain, or give --data the "
            "data module of a data set with a table"
        )
    if checkpoint is None:
        raise MisconfigurationException("no checkpoint is given: --ckpt_path FILE.ckpt names the trained model")
    settings = checkpoint.get("hyper_parameters", {})
    for name in ("class_names", "score_names"):
        if not config.data.init_args.get(name):
            config.data.init_args[name] = list(settings.get(name, ())) or None
