"""Write the help pages that the package ships: python docs/write_help_pages.py [FOLDER]."""

import io
import json
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path

import pytorch_lightning as pl

import lightning_chex
from lightning_chex.attribution import Attributor
from lightning_chex.cli.arguments import offered_names
from lightning_chex.cli.help_pages import COMMANDS, installed_versions
from lightning_chex.cli.main import main


def help_of(*command: str) -> str:
    """Return the help page of a command, or of all without one, as the parser writes it."""
    text = io.StringIO()
    with redirect_stdout(text), suppress(SystemExit):  # with which the parser ends
        main([*command, "--help"])
    return text.getvalue()


def class_names() -> dict[str, dict[str, list[str]]]:
    """Return the class names that options take: all that the parser knows by their short names, and this package's."""
    bases = {"data": pl.LightningDataModule, "model": pl.LightningModule, "attributor": Attributor}
    return {
        option: {"all": sorted({base.__name__, *names_below(base)}), "ours": offered_names(option)}
        for option, base in bases.items()
    }


def names_below(base: type) -> set[str]:
    """Return the names of all subclasses, recursively."""
    return {name for child in base.__subclasses__() for name in (child.__name__, *names_below(child))}


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(lightning_chex.__file__).parent / "cli" / "help"
    folder.mkdir(exist_ok=True)
    (folder / "versions.json").write_text(json.dumps(installed_versions(), indent=2) + "\n")
    (folder / "classes.json").write_text(json.dumps(class_names(), indent=1) + "\n")
    (folder / "commands.txt").write_text(help_of())
    for name in COMMANDS:
        (folder / f"{name}.txt").write_text(help_of(name))
