"""The arguments of the command line: what is refused, what is filled in, and how the parser helps and complains."""

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
    "data": (lightning_chex.data,), "model": (lightning_chex.tasks,), "attributor": (lightning_chex.attribution,)
}  # fmt: skip
_PROPOSED_SIZE = ("--data.size=224", "--data.batch_size=32")
_Module = type[lightning_chex.data.ChestXrayDataModule]


def check(arguments: list[str]) -> None:
    """Raise a MisconfigurationException for what is no text, in a wrong order, or an address of a file of settings."""
    config = next((i for i, a in enumerate(arguments) if a in ("-c", "--config") or a.startswith("--config=")), 0)
    for early in arguments[:config]:
        if early.startswith("--model."):  # the parser would take it for an option of another model
            raise MisconfigurationException(
                f"{early} stands before --config, which names the model: give it after that"
            )
    for argument, following in pairwise([*arguments, ""]):
        if re.search(r"[\ud800-\udfff]", argument):  # how Python passes on bytes that are no text, of older encodings
            raise MisconfigurationException(f"the argument {ascii(argument)} is not UTF-8: rename the file or folder")
        option, equals, value = argument.partition("=")
        if option in ("-c", "--config", "--data", "--model", "--trainer", "--attributor"):
            refuse_address(option.lstrip("-"), value if equals else following)


def with_default_config(arguments: list[str]) -> list[str]:
    """Insert the embedded configuration after the subcommand unless the arguments bring one of their own."""
    brings_config = any(a in ("-c", "--config") or a.startswith("--config=") for a in arguments)
    if brings_config or not arguments or arguments[0].startswith("-"):
        return arguments
    given = arguments[1:]
    if any(a.partition("=")[0] == "--write_config" for a in given):  # what is proposed is no small example
        given = [*_PROPOSED_SIZE, *given]
    return [arguments[0], "--config", str(files("lightning_chex.cli") / "default.yaml"), *given]


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
    modules = _below(lightning_chex.data.ChestXrayDataModule)
    name, file = recognise(root, {module.__name__: module.label_tables for module in modules})
    print(f"{file} lies there, so this is taken for {name}; --data CLASS says otherwise", file=sys.stderr)
    return [arguments[0], "--data", name, *arguments[1:]]


def _below(module: _Module) -> list[_Module]:
    """All children of a class, and theirs."""
    return [found for child in module.__subclasses__() for found in (child, *_below(child))]


DESCRIPTION = """Train chest X-ray models and see, at every validation, what they look at.

  python -m lightning_chex fit
      the embedded example: a few minutes of training on drawn X-rays, no data needed
  python -m lightning_chex fit --config configs/nih_classification.yaml --data.root DIR
      the same on your copy of NIH ChestX-ray8
  python -m lightning_chex fit --config FILE --print_config
      every setting and its value; each can be given as an option, such as --trainer.max_epochs 5
  python -m lightning_chex fit --ckpt_path last
      resume the run that was interrupted, in its folder; --ckpt_path runs/lightning_chex/RUN names one
  python -m lightning_chex fit --config FILE --run NAME --ckpt_path auto
      begin the run NAME, or resume it if it is there: one command for a batch job and its restarts (docs/cluster.md)
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


class FixedWidth(DefaultHelpFormatter):
    """The parser's own, for 80 columns whatever the terminal has, as the help pages that the package ships are."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs | {"width": 78})


class HelpFormatter(RawDescriptionHelpFormatter, FixedWidth):
    """The parser's own, which leaves the lines of the description as they are."""


HELP = {"prog": "python -m lightning_chex", "description": DESCRIPTION, "formatter_class": HelpFormatter}


_load = get_loader("yaml")


def _load_in_bounds(text: str) -> Any:
    check_size(text)
    return _load(text)


set_loader("yaml", _load_in_bounds, exceptions=(yaml.YAMLError,))  # of every file and value the parser reads


class Parser(LightningArgumentParser):
    """The parser of all commands and of each: files may name classes, and what is wrong is told in one line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # an abbreviated option would be taken for the whole one, and a misspelt one would start a training
        options: dict[str, Any] = {"formatter_class": FixedWidth, "allow_abbrev": False, **kwargs}
        super().__init__(*args, **options)

    def add_method_arguments(self, *args: Any, **kwargs: Any) -> list[str]:
        """Let an argument that takes a class, such as ``--attributor``, take a file of its settings too."""
        return super().add_method_arguments(*args, **kwargs | {"sub_configs": True})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one line and exit with 2; a nested parser, whose errors another one reports, raises them."""
        if not self.exit_on_error:
            super().error(message, ex)
        at_fault = parser_at_fault(ex) or self
        message = _no_class(message, at_fault) or _class_not_given(message, at_fault) or concise(message)
        if message.startswith("unrecognized arguments:"):
            given = [word for word in message.split() if word.startswith("--")]
            if given:
                message = unrecognized([word.partition("=")[0] for word in given], option_names(at_fault))
        command = at_fault.prog.replace(" [options]", "")
        self.exit(2, f"error: {one_line(message).removesuffix('.')}; {command} --help lists the options\n")


def _class_not_given(message: str, parser: ArgumentParser) -> str | None:
    """Message for an option of a class that was not chosen, with classes that have it; None for other messages.

    Without a choice the parser takes the class that the option is declared with, such as Attributor.
    """
    key = re.search(r'Parser key "([\w.]+)"', message)
    name = re.search(r"Option '([\w.]+)' is not accepted", message)
    given = set(re.findall(r"Problem with given class_path '([\w.]+)'", message))
    if key is None or name is None or not given:
        return None
    declared = declared_type(parser, key[1])
    bases = [own for own in (declared, *get_args(declared)) if isinstance(own, type)]
    if not all(_found(path) in bases for path in given):
        return None
    offered = [getattr(module, own) for module in _OFFERED.get(key[1], ()) for own in module.__all__]
    kinds = [own for own in offered if isinstance(own, type) and issubclass(own, tuple(bases))]
    having = [own.__name__ for own in kinds if name[1] in signature(own).parameters]
    examples = f", for example --{key[1]} {having[0]}" if having else ""
    return f"--{key[1]}.{name[1]} is an option of a class that is not given: name it with --{key[1]} CLASS{examples}"


def _found(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(sys.modules.get(module), name, None)


def _no_class(message: str, parser: ArgumentParser) -> str | None:
    """Return the message for an unknown class name, with the nearest names; None for other messages."""
    option = re.search(r'Parser key "([\w.]+)"', message)
    name = re.search(r"Expected a dot import path string: (\w+)\s*$", message, re.MULTILINE)
    if option is None or name is None:
        return None
    if name[1] == parser.get_default(option[1]):  # not typed, so an option below it was
        return f"--{option[1]} is {name[1]!r}, which takes no options: name a class with --{option[1]} CLASS first"
    return no_class(f"--{option[1]}", name[1], offered_names(option[1]))


def offered_names(option: str) -> list[str]:
    """Return the names of this package's classes for an option that takes a class, such as ``data``."""
    return [name for module in _OFFERED.get(option, ()) for name in module.__all__ if name[0].isupper()]
