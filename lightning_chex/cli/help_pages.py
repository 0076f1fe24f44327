"""Help pages of the command line, and errors for misspelt commands, options and classes, without the parser.

Building the parser imports every library that the package uses, which takes seconds. The pages are therefore files that
``docs/write_help_pages.py`` writes from the parser; a test compares them.
"""

import platform
import re
from collections.abc import Iterable, Sequence, Set
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import pairwise

from lightning_chex.json_text import parse_json
from lightning_chex.messages import one_line

COMMANDS = ("fit", "validate", "test", "predict", "inspect", "prepare", "demo", "evaluate", "explain")
"""The commands; each has a page of its name, and the page ``commands`` lists them all."""

_DOTTED = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+"
_IMPORTS = re.compile(rf"^-c$|^--config\b|class_path|(?:^|=){_DOTTED}$|\.ya?ml$")
"""Arguments that may import modules of the user: configurations, and dotted names of classes."""

_LIBRARIES = ("jsonargparse", "pytorch-lightning", "segmentation-models-pytorch", "timm", "torch", "torchmetrics")
"""Libraries whose options or classes are on the pages, so that other versions of them make the pages invalid."""


def help_page(arguments: Sequence[str]) -> str | None:
    """Return the help page for a command line of ``--help`` or ``COMMAND --help``.

    Returns:
        The page; None for any other command line, and if other versions of Python or of a library are installed than
        those the pages were written with. Then the parser has to answer.
    """
    *command, last = [*arguments] or [""]
    if last not in ("-h", "--help") or len(command) > 1 or not set(command) <= set(COMMANDS):
        return None
    if not _pages_are_valid():
        return None
    name = command[0] if command else "commands"
    return (_pages() / f"{name}.txt").read_text()


def _pages() -> Traversable:
    """Return the folder of the pages."""
    return files("lightning_chex.cli") / "help"


def _pages_are_valid() -> bool:
    """Return whether the pages were written with the installed versions; optional libraries may be missing."""
    written_with = parse_json((_pages() / "versions.json").read_text())
    return installed_versions().items() <= written_with.items()


def unknown_command(arguments: Sequence[str]) -> str | None:
    """Return the parser's error for a command line that begins with an unknown command; None for any other.

    Example:
        >>> unknown_command(["fit"]) is None
        True
    """
    if not arguments or arguments[0].startswith("-") or arguments[0] in COMMANDS:
        return None
    choices = ", ".join(map(repr, COMMANDS))
    message = f"argument subcommand: invalid choice: {arguments[0]!r} (choose from {choices})"
    return f"error: {one_line(message)}; python -m lightning_chex --help lists the options"


def unknown_option(arguments: Sequence[str]) -> str | None:
    """Return the parser's error for an option that a command does not have; None if every option may be valid.

    Options of a class, such as ``--model.lr``, depend on the class and are left to the parser.
    """
    if not arguments or arguments[0] not in COMMANDS or not _pages_are_valid():
        return None
    page = (_pages() / f"{arguments[0]}.txt").read_text()
    names = set(re.findall(r"(?:\[|, |^  )(--[\w.]+)", page, re.MULTILINE))
    unknown = [name for name in map(_name, arguments[1:]) if name and not _is_known(name, names)]
    if not unknown:
        return None
    message = one_line(unrecognized(unknown, names))
    return f"error: {message}; python -m lightning_chex {arguments[0]} --help lists the options"


def unrecognized(unknown: Sequence[str], names: Iterable[str]) -> str:
    """Return the message for unknown options, each with the nearest names.

    Example:
        >>> unrecognized(["--limt"], ["--limit", "--lungs"])
        'unrecognized option --limt (nearest: --limit)'
    """
    known = sorted(name for name in set(names) if not name.endswith(".help"))
    described = []
    for name in unknown:
        nearest = get_close_matches(name, known, n=2)
        described.append(f"{name} (nearest: {', '.join(nearest)})" if nearest else name)
    noun = "option" if len(described) == 1 else "options"
    return f"unrecognized {noun} {', '.join(described)}"


def unknown_class(arguments: Sequence[str]) -> str | None:
    """Return the parser's error for an unknown class name; None if every name may be a class.

    A configuration or a dotted name imports modules of the user, whose classes can then be given by their short names
    too. A command line with either is therefore left to the parser.
    """
    if not arguments or arguments[0] not in COMMANDS or any(map(_IMPORTS.search, arguments[1:])):
        return None
    if not _pages_are_valid():
        return None
    classes = parse_json((_pages() / "classes.json").read_text())
    for argument, following in pairwise([*arguments[1:], ""]):
        option, equals, value = argument.partition("=")
        name = value if equals else following
        known = classes.get(option.removeprefix("--"))
        if known is not None and name.isidentifier() and name not in ("null", *known["all"]):
            message = one_line(no_class(option, name, known["ours"]))
            return f"error: {message}; python -m lightning_chex {arguments[0]} --help lists the options"
    return None


def no_class(option: str, name: str, offered: Sequence[str]) -> str:
    """Return the message for an unknown class name.

    Example:
        >>> no_class("--data", "NIHDataModul", ["NIHDataModule"])
        '--data NIHDataModul: unknown class (nearest: NIHDataModule); give a class of your own as MODULE.CLASS'
    """
    nearest = get_close_matches(name, offered, n=3)
    hint = f" (nearest: {', '.join(nearest)})" if nearest else ""
    return f"{option} {name}: unknown class{hint}; give a class of your own as MODULE.CLASS"


def _name(argument: str) -> str:
    """Return the option of an argument, ``--name`` of ``--name=value`` and of ``--name+=value``; empty for a value."""
    match = re.match(r"--[\w.]+", argument)
    return match[0] if match else ""


def _is_known(name: str, names: Set[str]) -> bool:
    """Return whether an option is on the page, or is an option of a class, which the page does not list."""
    if name in names:
        return True
    options = [option for option in names if not option.endswith(".help")]
    parts = name.split(".")
    for number in range(1, len(parts)):
        prefix = ".".join(parts[:number])
        listed_below = any(option.startswith(f"{prefix}.") for option in options)
        if prefix in names and not listed_below:
            return True
    return False


def installed_versions() -> dict[str, str]:
    """Return the versions of Python, without the last number, and of the installed libraries the pages depend on."""
    versions = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name).partition("+")[0]
        except PackageNotFoundError:  # of an extra that is not installed
            continue
    return versions
