"""The arguments of the command line: checks, defaults, the parser and its error messages."""

import re
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from importlib.resources import files
from inspect import signature
from itertools import pairwise
from typing import Any, NoReturn, get_args

import yaml
from jsonargparse import DefaultHelpFormatter, get_loader, set_loader
from pytorch_lightning.cli import LightningArgumentParser
from pytorch_lightning.utilities.exceptions import MisconfigurationException

import lightning_chex.attribution
import lightning_chex.data
import lightning_chex.tasks
from lightning_chex.cli.configuration import refuse_address
from lightning_chex.cli.help_pages import no_class, unrecognized
from lightning_chex.data.table.files import recognise
from lightning_chex.lightning_private import concise, declared_type, option_names, parser_at_fault
from lightning_chex.messages import one_line
from lightning_chex.yaml_text import check_size

_OFFERED = {
    "data": (lightning_chex.data,),
    "model": (lightning_chex.tasks,),
    "attributor": (lightning_chex.attribution,),
}
"""Packages whose classes an option offers by their short names."""

_PROPOSED_SETTINGS = ("--data.size=224", "--data.batch_size=32")
"""Settings of a configuration that ``inspect --write_config`` proposes; the embedded example's are for a quick look."""

_DataModule = type[lightning_chex.data.ChestXrayDataModule]


def check(arguments: list[str]) -> None:
    """Reject non-UTF-8 arguments, model options before ``--config``, and remote configuration files.

    Raises:
        MisconfigurationException: with the argument and the way out.
    """
    if arguments[:1] == ["demo"] and any(map(_is_config, arguments)):
        raise MisconfigurationException("demo always runs the embedded example: give --config to fit instead")
    for argument in arguments[: _position_of_config(arguments)]:
        # the parser would apply the option to the default model instead of the one that the configuration names
        if argument.startswith("--model."):
            raise MisconfigurationException(f"{argument} stands before --config, which names the model: move it after")
    for argument, following in pairwise([*arguments, ""]):
        # Python passes bytes that are not UTF-8 on as lone surrogates
        if re.search(r"[\ud800-\udfff]", argument):
            raise MisconfigurationException(f"the argument {ascii(argument)} is not UTF-8: rename the file or folder")
        option, equals, value = argument.partition("=")
        if option in ("-c", "--config", "--data", "--model", "--trainer", "--attributor"):
            refuse_address(option.lstrip("-"), value if equals else following)


def _is_config(argument: str) -> bool:
    return argument in ("-c", "--config") or argument.startswith("--config=")


def _position_of_config(arguments: list[str]) -> int:
    """Return the index of the first ``--config``; 0 without one."""
    for index, argument in enumerate(arguments):
        if _is_config(argument):
            return index
    return 0


def with_default_config(arguments: list[str]) -> list[str]:
    """Insert the embedded configuration after the subcommand, unless the arguments contain ``--config``."""
    if any(map(_is_config, arguments)) or not arguments or arguments[0].startswith("-"):
        return arguments
    command, *options = arguments
    if any(option.partition("=")[0] == "--write_config" for option in options):
        options = [*_PROPOSED_SETTINGS, *options]
    return [command, "--config", str(files("lightning_chex.cli") / "default.yaml"), *options]


def with_recognised_data(arguments: list[str]) -> list[str]:
    """Add ``--data`` to ``inspect`` and ``prepare`` by the files below ``--data.root``, unless a class is named.

    Raises:
        DataError: no data set is recognised there.
    """
    if arguments[:1] not in (["inspect"], ["prepare"]):
        return arguments
    if any(_is_config(argument) or argument.partition("=")[0] == "--data" for argument in arguments):
        return arguments
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--data.root", dest="root")
    root = parser.parse_known_args(arguments)[0].root
    if root is None:
        return arguments
    modules = _subclasses(lightning_chex.data.ChestXrayDataModule)
    name, file = recognise(root, {module.__name__: module.label_tables for module in modules})
    print(f"found {file}: reading it as {name}; choose another class with --data CLASS", file=sys.stderr)
    return [arguments[0], "--data", name, *arguments[1:]]


def _subclasses(module: _DataModule) -> list[_DataModule]:
    """Return all subclasses, recursively."""
    classes = []
    for child in module.__subclasses__():
        classes.append(child)
        classes.extend(_subclasses(child))
    return classes


DESCRIPTION = """Train chest X-ray models and see, at every validation, what they look at.

  python -m lightning_chex demo
      train and explain the embedded example: a few minutes on synthetic X-rays, no data needed
  python -m lightning_chex fit --config configs/nih_classification.yaml --data.root DIR
      train and explain on your copy of NIH ChestX-ray8
  python -m lightning_chex fit --config FILE --print_config
      every setting and its value; each can be given as an option, such as --trainer.max_epochs 5
  python -m lightning_chex fit --ckpt_path last
      resume the run that was interrupted, in its folder; --ckpt_path runs/lightning_chex/RUN names one
  python -m lightning_chex fit --config FILE --run NAME --ckpt_path auto
      begin the run NAME, or resume it if it exists: one command for a batch job and its restarts
  python -m lightning_chex test --config FILE --ckpt_path runs/.../checkpoints/best.ckpt
      measure and explain a trained model on the test images; predict writes a table
  python -m lightning_chex explain --config FILE --ckpt_path FILE.ckpt --data.root DIR --output_dir OUT
      a saliency map for each finding of each image; of images alone with --data ImageFolderDataModule
  python -m lightning_chex evaluate --config FILE --ckpt_path FILE.ckpt --output_dir OUT
      compare attribution methods on the model, beside controls: OUT/report.html; --limit 32 for a quick look
  python -m lightning_chex inspect --data.root DIR
      counts, sizes, missing files and sample images of your copy of a data set; the first thing to run on it
  python -m lightning_chex prepare --data NIHDataModule --data.root DIR --size 224 --output_dir COPY
      resize all images once; training then reads them many times faster with --data.prepared COPY
  python -m lightning_chex fit --data.help NIHDataModule
      the options of one class

Without --config the settings of the embedded example apply; with --config none of them does.
A configuration can name any class and so run code: only use configurations you trust.
Everything a run writes lies under --trainer.default_root_dir (default: runs), with its configuration.
The console script lightning-chex does the same as python -m lightning_chex."""


class FixedWidth(DefaultHelpFormatter):
    """The parser's formatter at 80 columns for every terminal, as in the help pages that the package ships."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs | {"width": 78})


class HelpFormatter(RawDescriptionHelpFormatter, FixedWidth):
    """The parser's formatter, without rewrapping the lines of the description."""


HELP = {"prog": "python -m lightning_chex", "description": DESCRIPTION, "formatter_class": HelpFormatter}


_load = get_loader("yaml")


def _load_in_bounds(text: str) -> Any:
    check_size(text)
    return _load(text)


# jsonargparse reads every file and every value with this loader
set_loader("yaml", _load_in_bounds, exceptions=(yaml.YAMLError,))


class Parser(LightningArgumentParser):
    """Parser of the command line and of each command, with one-line errors."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # with abbreviations a misspelt option could match the beginning of another one, and a training would start
        options: dict[str, Any] = {"formatter_class": FixedWidth, "allow_abbrev": False, **kwargs}
        super().__init__(*args, **options)

    def add_method_arguments(self, *args: Any, **kwargs: Any) -> list[str]:
        """Let an argument that takes a class, such as ``--attributor``, also take a file with its settings."""
        return super().add_method_arguments(*args, **kwargs | {"sub_configs": True})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one line and exit with 2; a nested parser, whose errors another one reports, raises them."""
        if not self.exit_on_error:
            super().error(message, ex)
        at_fault = parser_at_fault(ex) or self
        message = _no_class(message, at_fault) or _class_not_given(message, at_fault) or concise(message)
        if message.startswith("unrecognized arguments:"):
            options = [word.partition("=")[0] for word in message.split() if word.startswith("--")]
            if options:
                message = unrecognized(options, option_names(at_fault))
        command = at_fault.prog.replace(" [options]", "")
        self.exit(2, f"error: {one_line(message).removesuffix('.')}; {command} --help lists the options\n")


def _class_not_given(message: str, parser: ArgumentParser) -> str | None:
    """Return the message for an option of a class that was not chosen; None for other messages.

    Without a choice the parser uses the class that the argument is declared with, such as Attributor, and reports that
    this class lacks the option. Our message names a class that has it.
    """
    key = re.search(r'Parser key "([\w.]+)"', message)
    name = re.search(r"Option '([\w.]+)' is not accepted", message)
    class_paths = set(re.findall(r"Problem with given class_path '([\w.]+)'", message))
    if key is None or name is None or not class_paths:
        return None
    declared = declared_type(parser, key[1])
    bases = [kind for kind in (declared, *get_args(declared)) if isinstance(kind, type)]
    if not all(_loaded_object(path) in bases for path in class_paths):
        return None
    example = ""
    for kind in _offered_objects(key[1]):
        if isinstance(kind, type) and issubclass(kind, tuple(bases)) and name[1] in signature(kind).parameters:
            example = f", for example --{key[1]} {kind.__name__}"
            break
    return f"--{key[1]}.{name[1]} is an option of a class that is not given: name it with --{key[1]} CLASS{example}"


def _loaded_object(path: str) -> Any:
    """Return the object of a dotted path if its module is imported, else None."""
    module, _, name = path.rpartition(".")
    return getattr(sys.modules.get(module), name, None)


def _offered_objects(option: str) -> list[Any]:
    """Return the public objects of the packages whose classes an option offers."""
    objects: list[Any] = []
    for package in _OFFERED.get(option, ()):
        objects.extend(getattr(package, name) for name in package.__all__)
    return objects


def _no_class(message: str, parser: ArgumentParser) -> str | None:
    """Return the message for an unknown class name, with the nearest names; None for other messages."""
    option = re.search(r'Parser key "([\w.]+)"', message)
    name = re.search(r"Expected a dot import path string: (\w+)\s*$", message, re.MULTILINE)
    if option is None or name is None:
        return None
    if name[1] == parser.get_default(option[1]):
        # the user did not give this value, which is the default, but an option of a class, such as --attributor.steps
        return f"--{option[1]} is {name[1]!r}, which takes no options: name a class with --{option[1]} CLASS first"
    return no_class(f"--{option[1]}", name[1], offered_names(option[1]))


def offered_names(option: str) -> list[str]:
    """Return the names of this package's classes for an option that takes a class, such as ``data``."""
    return [name for module in _OFFERED.get(option, ()) for name in module.__all__ if name[0].isupper()]
