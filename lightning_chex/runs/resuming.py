"""Going on with an interrupted training: which run it is, from which state, and in the same folder and loggers."""

import json
import os
import pickle
import re
import warnings
import zipfile
from argparse import ArgumentParser
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from jsonargparse import Namespace
from pytorch_lightning.utilities import rank_zero_info
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from lightning_chex.files import hold
from lightning_chex.lightning_private import FOLDER_IN_USE, is_process_0
from lightning_chex.messages import one_line
from lightning_chex.runs import RUN_RECORD, read_record
from lightning_chex.runs.slurm import job_id
from lightning_chex.yaml_text import load_yaml

_LOGGERS = {
    "WandbLogger": ("project", "id"),
    "CSVLogger": ("name", "version"),
    "TensorBoardLogger": ("name", "version"),
}
"""The arguments that make a logger continue a run: one takes that run's name, the other its version."""


_STRUCTURE = ("backbone", "class_names", "score_names")
"""Settings of model and data without which the weights of a checkpoint do not fit, or mean something else."""


class State(NamedTuple):
    """A checkpoint file with all a training needs to go on, of an epoch, from 0, and a number of optimizer steps."""

    path: Path
    epoch: int
    step: int


def with_settings_of_run(arguments: list[str]) -> list[str]:
    """Let ``fit --ckpt_path RUN`` (a run's folder, or ``last``) without ``--config`` take that run's ``config.yaml``.

    Raises:
        MisconfigurationException: there is no such run, or it has kept no configuration.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--ckpt_path", default="")
    parser.add_argument("--trainer.default_root_dir", dest="root", default="runs")
    parser.add_argument("-c", "--config")
    given, _ = parser.parse_known_args(arguments[1:])
    if arguments[:1] != ["fit"] or given.config is not None or not names_run(given.ckpt_path):
        return arguments
    run = find_run(given.ckpt_path, given.root)
    config = run / "config.yaml"
    if not config.is_file():
        raise MisconfigurationException(f"{run} holds no config.yaml: give --config, the file it was begun with")
    return ["fit", "--config", str(config), *arguments[1:], "--ckpt_path", str(run)]


def begin_named(config: Any) -> Any:
    """Give a ``fit`` with ``run`` or ``ckpt_path=auto`` its run: a new one of that name, or the one that is there.

    Args:
        config: of the command. For a run to be resumed ``ckpt_path`` becomes its folder, see `resume`; for a new one
            loggers or root get its name.

    Returns:
        The configuration without these changes for a new run, else None.

    Raises:
        MisconfigurationException: no name, one that cannot be the name of a folder, of several runs, or of a run that
            is there without ``ckpt_path=auto``.
    """
    name, auto = config.get("run"), config.ckpt_path == "auto"
    if name is None and not auto:
        return None
    config.run = None  # config.yaml in the run's folder shall not name it: it can be given for other runs
    if name is None:
        job = job_id()
        if job is None:
            raise MisconfigurationException(
                "ckpt_path='auto' needs the name of the run: give --run NAME (in a SLURM batch job the id of the job "
                "is taken)"
            )
        name = f"slurm-{job}"
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", name):
        raise MisconfigurationException(
            f"run={one_line(name)!r} cannot be the name of a folder: give 1 to 64 letters, digits, '.', '_' or '-', "
            "the first of them no '.' or '-'"
        )
    if config.ckpt_path == "last" or (not auto and names_run(config.ckpt_path)):
        raise MisconfigurationException(
            f"run={name!r} and ckpt_path={config.ckpt_path!r} both name a run: leave --run out, or give "
            "--ckpt_path auto"
        )
    run = _named(config.trainer.default_root_dir, name)
    if run is not None and not auto:
        raise MisconfigurationException(
            f"run={name!r}: {run} exists: --ckpt_path auto resumes it, another --run begins a new run"
        )
    if run is not None and (read_record(run).get("finished") or any((run / "checkpoints").glob("*.ckpt"))):
        config.ckpt_path = str(run)
        return None
    if auto:
        config.ckpt_path = None
        rank_zero_info(f"run {name}: no checkpoint yet, training begins")
    own = config.clone()
    _name(config.trainer, name, run)
    return own


def _named(root: str | None, name: str) -> Path | None:
    """Find the folder of a run by its name; MisconfigurationException if there are several."""
    top = Path(root or ".").expanduser()
    signs = ("config.yaml", RUN_RECORD, "checkpoints")
    runs = [
        path for path in (top / name, *sorted(top.glob(f"*/{name}"))) if any((path / sign).exists() for sign in signs)
    ]
    if len(runs) > 1:
        raise MisconfigurationException(
            f"run={name!r} is the name of {len(runs)} runs ({', '.join(map(str, runs))}): give the folder of one as "
            "--ckpt_path"
        )
    return runs[0] if runs else None


def _name(trainer: Any, name: str, run: Path | None) -> None:
    """Give a new run its name, in the folder that an attempt without a checkpoint has left, if there is one."""
    root = trainer.default_root_dir or "."
    if trainer.logger is False:
        trainer.default_root_dir = str(Path(root, name))
        return
    loggers = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
    named = []
    for logger in loggers:
        if logger in (None, True):  # Lightning's choice
            kind = "TensorBoardLogger" if find_spec("tensorboard") or find_spec("tensorboardX") else "CSVLogger"
            arguments = Namespace(save_dir=root)
            logger = Namespace(class_path=f"pytorch_lightning.loggers.{kind}", init_args=arguments)
        kind = logger.class_path.rpartition(".")[2]
        if kind not in _LOGGERS:
            raise MisconfigurationException(
                f"run={name!r}: a run logged by {kind} cannot be named, only by {', '.join(_LOGGERS)}: leave --run out"
            )
        if kind == "CSVLogger" and run is not None:
            _set_aside(run / "metrics.csv")
        logger.init_args[_LOGGERS[kind][1]] = name
        named.append(logger)
    trainer.logger = named


def resume(config: Any) -> Any:
    """Change the configuration of a ``fit`` whose ``ckpt_path`` names a run so that it resumes that run.

    Returns:
        The configuration without these changes, with which a new run would begin.

    Raises:
        MisconfigurationException: there is nothing to go on from, another process trains there, or the settings are of
            another run.
        SystemExit: with code 0, when the run is finished.
    """
    run = find_run(config.ckpt_path, config.trainer.default_root_dir)
    _check_settings(run, config)
    if done := _finished(run, config.trainer.max_epochs, config.trainer.max_steps):
        print(done)
        raise SystemExit(0)
    try:
        # told now, not when a logger has begun; RunRecord holds the folder while it trains
        with hold(run) if is_process_0() else nullcontext():
            state = newest_state(run)
    except OSError as error:
        raise MisconfigurationException(f"{error.filename}: {error.strerror}") from error
    rank_zero_info(f"going on with {run} from {state.path.name}: epoch {state.epoch}, step {state.step}")
    config.ckpt_path = None
    own = config.clone()
    config.ckpt_path = str(state.path)
    _continue_in(config.trainer, run)
    warnings.filterwarnings("ignore", message=FOLDER_IN_USE)
    return own


def names_run(ckpt_path: str | None) -> bool:
    """Whether ``ckpt_path`` names a run rather than a file: ``last``, or the folder of a run."""
    folder = Path(ckpt_path or "").expanduser()
    # of os.path, which take a name that is too long for one that is not there
    is_run = os.path.isdir(folder / "checkpoints") or os.path.isfile(folder / RUN_RECORD)
    return bool(ckpt_path) and (ckpt_path == "last" or is_run)


def find_run(ckpt_path: str, root: str | None) -> Path:
    """The folder named, or for ``last`` that of the training below ``root`` that wrote last.

    Raises:
        MisconfigurationException: there is none.
    """
    if ckpt_path != "last":
        return Path(ckpt_path).expanduser()
    top = Path(root or ".").expanduser()
    # with a logger the run lies in NAME/VERSION, without one in the root itself
    signs = [level + name for level in ("", "*/", "*/*/") for name in ("checkpoints", RUN_RECORD)]
    runs = {path.parent for sign in signs for path in top.glob(sign)}
    if not runs:
        raise MisconfigurationException(
            f"ckpt_path='last': there is no run in {str(top)!r} to resume: --ckpt_path auto --run NAME "
            "begins one where there is none, or give --trainer.default_root_dir"
        )
    return max(runs, key=_written)


def newest_state(run: Path) -> State:
    """Find the whole checkpoint with the most steps, and say which newer ones are not whole.

    Raises:
        MisconfigurationException: there is none.
    """
    paths = sorted((run / "checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True)
    found = [_state(path) for path in paths]
    useless = [f"{path.name} {why}" for path, why in zip(paths, found, strict=True) if isinstance(why, str)]
    # of equals the one written last: it holds the newest states of the callbacks
    states = [state for state in found if isinstance(state, State)]
    for state in sorted(states, key=lambda state: (state.step, state.epoch), reverse=True):
        if not _is_whole(state.path):
            useless.append(f"{state.path.name} is truncated")
            continue
        if useless:
            rank_zero_info(f"{', '.join(useless)}: passed over")
        return state
    why = f" ({', '.join(useless)})" if useless else ""
    raise MisconfigurationException(
        f"{run} holds no whole checkpoint to go on from{why}: leave --ckpt_path out to begin anew, or give the "
        "folder of another run"
    )


def _finished(run: Path, max_epochs: int | None, max_steps: int) -> str:
    """Why there is nothing to resume; empty if there is."""
    done = read_record(run).get("finished")
    if done is None:
        return ""
    said = f"{run} is finished, after {done['epochs']} epochs and {done['steps']} steps: nothing to resume"
    if done["stopped_early"]:
        return f"{said}. It was stopped early; --ckpt_path {run}/checkpoints/last.ckpt begins a new run from its end"
    epochs = (1000 if max_steps == -1 else -1) if max_epochs is None else max_epochs  # as Lightning has it
    if (epochs == -1 or done["epochs"] < epochs) and (max_steps == -1 or done["steps"] < max_steps):
        return ""
    return f"{said}. A larger --trainer.max_epochs trains it further"


def _check_settings(run: Path, config: Any) -> None:
    """Raise a MisconfigurationException for a configuration of another model or other data than the run's."""
    path = run / "config.yaml"
    theirs = _read_settings(path)
    changed = []
    for part in ("model", "data"):
        before = theirs[part].get("class_path")
        now = getattr(config.get(part), "class_path", None)
        if before and now and before != now:
            raise MisconfigurationException(
                f"{run} was begun with {part} {before}, not {now}: leave --config out to resume with its own settings, "
                "or give the folder of the run you mean"
            )
        settings = theirs[part].get("init_args") or {}
        given = getattr(config.get(part), "init_args", None) or Namespace()
        for name, old in settings.items():
            new = given.get(name)
            new = new.as_dict() if isinstance(new, Namespace) else new
            if name not in given or _plain(new) == _plain(old):
                continue
            if name in _STRUCTURE:
                raise MisconfigurationException(
                    f"{run} was begun with {part}.{name}={old!r}, not {new!r}: give that, or begin a new run under "
                    "another name"
                )
            changed.append(f"{part}.{name}={new!r} instead of {old!r}")
    if changed:
        rank_zero_info(one_line(f"settings changed since {run} began: {'; '.join(changed)}", 1000))
    if any(change.startswith("model.lr=") for change in changed):
        rank_zero_info("model.lr has no effect here: the optimizer keeps the learning rate of the checkpoint")


def _read_settings(path: Path) -> dict[str, dict[str, Any]]:
    """Read what ``config.yaml`` of a run says of ``model`` and ``data``; nothing of either where there is no file.

    Raises:
        MisconfigurationException: it is no YAML, or a part of it is no mapping.
    """
    parts: dict[str, dict[str, Any]] = {"model": {}, "data": {}}
    if not path.is_file():
        return parts
    try:
        settings = load_yaml(path.read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            raise ValueError(f"it holds a {type(settings).__name__}, not a mapping of settings")
        for part in parts:
            found = settings.get(part) or {}
            arguments = found.get("init_args") if isinstance(found, dict) else None
            if not isinstance(found, dict) or not isinstance(arguments or {}, dict):
                raise ValueError(f"its {part!r} is no class with init_args")
            parts[part] = found
    except (yaml.YAMLError, ValueError) as error:  # of a wrong encoding too
        raise MisconfigurationException(f"cannot read {path}: {one_line(str(error))}; remove it or mend it") from error
    return parts


def _plain(value: Any) -> str:
    """A setting as it is written in a file, where a tuple is a list."""
    return json.dumps(value, default=str, sort_keys=True)


def _continue_in(trainer: Any, run: Path) -> None:
    """Have a trainer write into the folder and the loggers of a run; MisconfigurationException if a logger cannot."""
    known = read_record(run).get("loggers", [{"name": run.parent.name, "version": run.name}])
    loggers = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
    if trainer.logger is False or not known:
        trainer.logger, trainer.default_root_dir = False, str(run)
        return
    root = str(run.parents[len(Path(known[0]["name"]).parts)])
    trainer.default_root_dir = root
    continued = []
    for logger, own in zip(loggers[: len(known)], known, strict=True):
        if logger in (None, True):  # which stand for the one that Lightning chooses
            logger = Namespace(class_path=f"pytorch_lightning.loggers.{own.get('class')}", init_args=Namespace())
        kind = logger.class_path.rpartition(".")[2]
        if kind not in _LOGGERS:
            raise MisconfigurationException(
                f"a run logged by {kind} cannot be resumed, only one logged by {', '.join(_LOGGERS)}: give a "
                "checkpoint FILE as --ckpt_path, which begins a new run from it"
            )
        if kind == "CSVLogger":
            _set_aside(Path(root, own["name"], own["version"], "metrics.csv"))
        for argument, value in zip(_LOGGERS[kind], (own["name"], own["version"]), strict=True):
            logger.init_args[argument] = value
        logger.init_args["save_dir"] = root
        continued.append(logger)
    trainer.logger = continued


def _set_aside(table: Path) -> None:
    """Keep the metrics of the first part of a run: Lightning's logger removes a table it finds."""
    if table.exists() and is_process_0():
        number = 1 + sum(1 for _ in table.parent.glob("metrics_*.csv"))
        table.rename(table.with_name(f"metrics_{number}.csv"))


def _written(run: Path) -> float:
    files = [run / RUN_RECORD, run / "checkpoints", *(run / "checkpoints").glob("*.ckpt")]
    return max(path.stat().st_mtime for path in files if path.exists())


def _state(path: Path) -> State | str:
    """Read a checkpoint, its weights left on disk and nothing in it executed, or say why none can go on from it."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, OSError):
        return "is truncated"
    except pickle.UnpicklingError:
        return "holds more than plain values, or is truncated"
    if not isinstance(content, dict) or not {"epoch", "global_step", "loops", "optimizer_states"} <= content.keys():
        return "holds no state of a training"
    return State(path, int(content["epoch"]), int(content["global_step"]))


def _is_whole(path: Path) -> bool:
    """Compare all of a checkpoint with its checksums: torch does not."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError):
        return False
