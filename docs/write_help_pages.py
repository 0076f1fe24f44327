"""Write the help pages that the package ships: python docs/write_help_pages.py [FOLDER]."""

import io
import json
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path

import lightning_chex
from lightning_chex.cli import main
from lightning_chex.help_pages import COMMANDS, installed_versions


def help_of(*command: str) -> str:
    """Return the help page of a command, or of all without one, as the parser writes it."""
    text = io.StringIO()
    with redirect_stdout(text), suppress(SystemExit):  # with which the parser ends
        main([*command, "--help"])
    return text.getvalue()


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(lightning_chex.__file__).parent / "help"
    folder.mkdir(exist_ok=True)
    (folder / "versions.json").write_text(json.dumps(installed_versions(), indent=2) + "\n")
    (folder / "commands.txt").write_text(help_of())
    for name in COMMANDS:
        (folder / f"{name}.txt").write_text(help_of(name))
