"""Help pages of the command line, and misspelt commands, without the parser.

Building it imports every library that the package uses. The pages are files. ``docs/write_help_pages.py`` writes them
from the parser itself, and a test compares them.
"""

import platform
import re
from collections.abc import Iterable, Sequence, Set
from difflib import get_close_matches
from importlib.metadata import version
from importlib.resources import files
from itertools import pairwise

from lightning_chex.json_text import parse_json
from lightning_chex.messages import one_line

COMMANDS = ("fit", "validate", "test", "predict", "inspect", "prepare", "evaluate", "explain")
"""The commands that have a page of their own; the page of all is ``commands``."""

_DOTTED = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+"
_IMPORTS = re.compile(rf"^-c$|^--config\b|class_path|(?:^|=){_DOTTED}$|\.ya?ml$")
"""Arguments that may import modules of the user: configurations, and dotted names of classes."""

# the options and the classes that the pages list are theirs
_LIBRARIES = ("jsonargparse", "pytorch-lightning", "segmentation-models-pytorch", "timm", "torch", "torchmetrics")


def help_page(arguments: Sequence[str]) -> str | None:
    """Return the help page that a command line asks for; None where the parser has to answer.

    The parser answers everything else than ``--help`` and ``COMMAND --help``, and also these if other versions of
    Python or of a library are installed than those the pages were written with.
    """
    *command, last = [*arguments] or [""]
    if last not in ("-h", "--help") or len(command) > 1 or not set(command) <= set(COMMANDS):
        return None
    folder = files("lightning_chex.cli") / "help"
    if parse_json((folder / "versions.json").read_text()) != installed_versions():
        return None
    return (folder / f"{command[0] if command else 'commands'}.txt").read_text()


def unknown_command(arguments: Sequence[str]) -> str | None:
    """Return the error for a command line that begins with no command, in the parser's words; None if it may have one.

    Example:
        >>> unknown_command(["fit"]) is None
        True
    """
    if not arguments or arguments[0].startswith("-") or arguments[0] in COMMANDS:
        return None
    offered = ", ".join(map(repr, COMMANDS))
    said = f"argument subcommand: invalid choice: {arguments[0]!r} (choose from {offered})"
    return f"error: {one_line(said)}; python -m lightning_chex --help lists the options"


def unknown_option(arguments: Sequence[str]) -> str | None:
    """Return the error for an option that a command does not have, in the parser's words; None if all may be its own.

    Options of a class, such as ``--model.lr``, depend on the class and are left to the parser.
    """
    if not arguments or arguments[0] not in COMMANDS:
        return None
    folder = files("lightning_chex.cli") / "help"
    if parse_json((folder / "versions.json").read_text()) != installed_versions():
        return None
    page = (folder / f"{arguments[0]}.txt").read_text()
    names = set(re.findall(r"(?:\[|, |^  )(--[\w.]+)", page, re.MULTILINE))
    unknown = [name for name in map(_name, arguments[1:]) if name and not _is_known(name, names)]
    if not unknown:
        return None
    message = one_line(unrecognized(unknown, names))
    return f"error: {message}; python -m lightning_chex {arguments[0]} --help lists the options"


def unrecognized(unknown: Sequence[str], names: Iterable[str]) -> str:
    """Return the message for options that no parser has, each with the nearest names.

    Example:
        >>> unrecognized(["--limt"], ["--limit", "--lungs"])
        'unrecognized option --limt (nearest: --limit)'
    """
    known = sorted(name for name in set(names) if not name.endswith(".help"))
    told = []
    for name in unknown:
        nearest = get_close_matches(name, known, n=2)
        told.append(f"{name} (nearest: {', '.join(nearest)})" if nearest else name)
    return f"unrecognized option{'s' if len(told) > 1 else ''} {', '.join(told)}"


def unknown_class(arguments: Sequence[str]) -> str | None:
    """Return the error for a class name that nothing has, in the parser's words; None if it may be a class.

    A configuration or a dotted name imports modules of the user, whose classes go by their short names too. So only
    arguments without either are judged here.
    """
    if not arguments or arguments[0] not in COMMANDS or any(map(_IMPORTS.search, arguments[1:])):
        return None
    folder = files("lightning_chex.cli") / "help"
    if parse_json((folder / "versions.json").read_text()) != installed_versions():
        return None
    classes = parse_json((folder / "classes.json").read_text())
    for argument, following in pairwise([*arguments[1:], ""]):
        option, equals, value = argument.partition("=")
        name = value if equals else following
        known = classes.get(option.removeprefix("--"))
        if known is not None and name.isidentifier() and name not in ("null", *known["all"]):
            message = one_line(no_class(option, name, known["ours"]))
            return f"error: {message}; python -m lightning_chex {arguments[0]} --help lists the options"
    return None


def no_class(option: str, name: str, offered: Sequence[str]) -> str:
    """Return the message for a name that is no class.

    Example:
        >>> no_class("--data", "NIHDataModul", ["NIHDataModule"])
        '--data NIHDataModul: unknown class (nearest: NIHDataModule); give a class of your own as MODULE.CLASS'
    """
    nearest = get_close_matches(name, offered, n=3)
    hint = f" (nearest: {', '.join(nearest)})" if nearest else ""
    return f"{option} {name}: unknown class{hint}; give a class of your own as MODULE.CLASS"


def _name(argument: str) -> str:
    """Return the option of an argument, ``--name`` of ``--name=value`` and of ``--name+=value``; empty for a value."""
    found = re.match(r"--[\w.]+", argument)
    return found[0] if found else ""


def _is_known(name: str, names: Set[str]) -> bool:
    """Whether a name is on the page, or below one of a class, whose options the page does not list."""
    if name in names:
        return True
    own_options = [other for other in names if not other.endswith(".help")]
    parts = name.split(".")
    above = [".".join(parts[:number]) for number in range(1, len(parts))]
    return any(prefix in names and not any(other.startswith(f"{prefix}.") for other in own_options) for prefix in above)


def installed_versions() -> dict[str, str]:
    """Versions of Python, without the last number, and of the libraries whose options or classes the pages list."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, **{name: version(name).partition("+")[0] for name in _LIBRARIES}}
