"""Help pages of the command line, and misspelt commands, without the parser.

Building it imports every library that the package uses. The pages are files. ``docs/write_help_pages.py`` writes them
from the parser itself, and a test compares them.
"""

import platform
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files

from lightning_chex.json_text import parse_json
from lightning_chex.messages import one_line

COMMANDS = ("fit", "validate", "test", "predict", "inspect", "prepare", "evaluate", "explain")
"""The commands that have a page of their own; the page of all is ``commands``."""

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
    folder = files("lightning_chex") / "help"
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


def installed_versions() -> dict[str, str]:
    """Versions of Python, without the last number, and of the libraries whose options or classes the pages list."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, **{name: version(name).partition("+")[0] for name in _LIBRARIES}}
