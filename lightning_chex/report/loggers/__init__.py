"""Adapters that send pictures, tables and files to the loggers of a run, one logger per file.

A file has the name of the module of its logger (``pytorch_lightning.loggers.wandb``: ``wandb.py``) and a class
``Adapter`` with the methods of `LoggerAdapter`. It is found by its name, so no other file has to be changed for a new
logger. A logger that has the three methods of `LoggerAdapter` itself needs no file.
"""

from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from lightning_chex.report.logger_adapter import LoggerAdapter

_METHODS = ("pictures", "table", "file")


def adapters_of(loggers: Iterable[Any], best: Mapping[str, str] | None = None) -> list[LoggerAdapter]:
    """Return the adapters of these loggers; a logger that accepts nothing but scalars has none.

    Args:
        loggers: of the run that begins now.
        best: see `LoggerAdapter`.
    """
    adapters = []
    for logger in loggers:
        adapter = _adapter_of(logger, best or {})
        if adapter is not None:
            adapters.append(adapter)
    return adapters


def _adapter_of(logger: Any, best: Mapping[str, str]) -> LoggerAdapter | None:
    if all(callable(getattr(logger, name, None)) for name in _METHODS):
        return logger
    # base classes too: a subclass of WandbLogger in a user's own module is served by wandb.py
    for class_ in type(logger).__mro__:
        name = class_.__module__.rpartition(".")[2]
        if Path(__file__).with_name(f"{name}.py").is_file():
            return import_module(f"{__name__}.{name}").Adapter(logger, best)
    return None
