"""Pictures, tables and files through the loggers of a run: one logger a file.

A file is named as the module of the logger it serves (``pytorch_lightning.loggers.wandb``: ``wandb.py``) and has a
class ``Board`` (see ``report/board.py``), at most 150 lines; it is found by its name, so that no other file has to
know it. A logger that has the three methods of a ``Board`` itself needs no file.
"""

from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from lightning_chex.report.board import Board

_METHODS = ("pictures", "table", "file")


def boards_of(loggers: Iterable[Any], best: Mapping[str, str] | None = None) -> list[Board]:
    """Return the adapters of these loggers; a logger that accepts nothing but scalars has none.

    Args:
        loggers: of the run, which begins now.
        best: see `Board`.
    """
    found = (_board_of(logger, best or {}) for logger in loggers)
    return [board for board in found if board is not None]


def _board_of(logger: Any, best: Mapping[str, str]) -> Board | None:
    if all(callable(getattr(logger, name, None)) for name in _METHODS):
        return logger
    for kind in type(logger).__mro__:
        name = kind.__module__.rpartition(".")[2]
        if Path(__file__).with_name(f"{name}.py").is_file():
            return import_module(f"{__name__}.{name}").Board(logger, best)
    return None
