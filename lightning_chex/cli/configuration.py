"""The configuration of a command: what is refused, what follows from something else, and how it is kept and logged."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml
from pytorch_lightning.cli import LightningArgumentParser, SaveConfigCallback
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from lightning_chex.checkpoints import Given, is_address, paths_of, read_checkpoint, read_checkpoints
from lightning_chex.files import write_whole
from lightning_chex.runs import check_place, run_folder

NO_CHECKPOINT = "no checkpoint is given: --ckpt_path FILE.ckpt names the trained model"
NO_WEIGHTS = f"{NO_CHECKPOINT}, and --model.weights FILE a network that was trained elsewhere"

_PATH_SETTING = re.compile(
    r"^(?!class_path$)(weights|(.*_)?(root|dir|dirpath|path|prepared|images|masks|lungs|table|boxes|files|runs))$"
)
"""Names of settings that are folders or files whenever they are text."""


def refuse_addresses(config: Any) -> None:
    """Raise a MisconfigurationException for the address of a file or folder: what is read has to lie on this machine.

    Data modules and tasks of others, and loggers, may go where they like.
    """
    others = not str(config.get("data.class_path")).startswith("lightning_chex.")
    for key, value in config.items():  # the leaves, by dotted names
        name = key.rpartition(".")[2]
        ours = "." not in key or key == "trainer.default_root_dir" or (key.startswith("data.") and not others)
        if name == "output_dir" and value == "":
            raise MisconfigurationException("output_dir is empty: give a folder, or leave it out")
        if ours and (_PATH_SETTING.search(name) or name in ("methods", "rle")):
            several = list(value.values()) if isinstance(value, dict) else value
            for one in several if isinstance(several, list) else [several]:
                refuse_address(key.replace(".init_args", ""), one)


def refuse_address(name: str, value: Any) -> None:
    """Raise a MisconfigurationException if the value of a setting is an address."""
    if isinstance(value, str) and is_address(value):
        raise MisconfigurationException(
            f"{name}={value!r} is a remote path, which is not supported: download it, if you trust its source, and "
            "give the file or folder"
        )


def read_only_weights(config: Any) -> None:
    """Have no checkpoint run code, whatever an environment variable says; MisconfigurationException if it was asked."""
    if "weights_only" in config:
        if config.weights_only is False:
            raise MisconfigurationException("weights_only=False would let a checkpoint run code: leave it out")
        config.weights_only = True


def check_checkpoint(path: str | None, command: str) -> dict[str, Any] | None:
    """Read what was given as ``ckpt_path`` before anything else; None where no file was given.

    Raises:
        CheckpointError: it is no whole checkpoint, or for ``fit`` none that a training can go on from.
        MisconfigurationException: a word that would have Lightning take another file, or none.
    """
    if path in ("best", "last"):  # Lightning would warn, and go on with weights that nobody has trained
        raise MisconfigurationException(
            f"ckpt_path={path!r} is a word for fit alone, which resumes the last run: give a file that a run has "
            f"written, such as runs/lightning_chex/RUN/checkpoints/{path}.ckpt"
        )
    if path in ("auto", "hpc"):
        why = "a word for fit alone" if path == "auto" else "a file in the root that all runs share, of no run"
        raise MisconfigurationException(f"ckpt_path={path!r} is {why}: give a file that a run has written")
    return None if not path else read_checkpoint(path, to_resume=command == "fit")


def check_checkpoints(given: Given, command: str) -> dict[str, dict[str, Any]]:
    """Read everything that was given as ``ckpt_path``, by path; see `check_checkpoint`, which it is for one file.

    Raises:
        CheckpointError: also where one file was given twice, or two are not of the same model and classes.
    """
    paths = paths_of(given)
    if len(paths) > 1:
        for path in paths:
            if path in ("best", "last"):
                check_checkpoint(path, command)
        return read_checkpoints(given)
    found = {path: check_checkpoint(path, command) for path in paths}
    return {path: content for path, content in found.items() if content is not None}


def _check_freezing(settings: Any) -> None:
    """Raise a MisconfigurationException if randomly initialised layers are frozen."""
    frozen = settings.get("freeze")
    if frozen and not settings.get("weights") and not settings.get("pretrained"):
        raise MisconfigurationException(
            f"model.freeze={frozen!r} freezes randomly initialised layers: give --model.weights FILE, or "
            "--model.pretrained true"
        )


def fill_in_model(command: str, config: Any, checkpoint: Mapping[str, Any] | None) -> None:
    """Take no weights that the checkpoint would replace; let it name the outputs where a folder of images cannot.

    A folder of images is a MisconfigurationException where a command needs labels, or has no checkpoint; frozen layers
    are one where nothing has trained them.
    """
    settings = getattr(config.get("model"), "init_args", None)
    ours = settings and str(config.model.class_path).startswith("lightning_chex.")
    if ours and command == "fit" and checkpoint is None:
        _check_freezing(settings)
    if command != "fit" and config.get("ckpt_path") and settings and settings.get("pretrained"):
        settings.pretrained = False
    if checkpoint is not None and settings and ours:
        settings.weights = None  # the file may be gone
    if not getattr(config.get("data"), "class_path", "").endswith(".ImageFolderDataModule"):
        return
    if command not in ("predict", "explain"):
        raise MisconfigurationException(
            f"{command} needs labels, and ImageFolderDataModule has none: use predict or explain, or give --data the "
            "data module of a data set with a table"
        )
    if checkpoint is None and command == "explain" and settings and settings.get("weights"):
        if not any(config.data.init_args.get(name) for name in ("class_names", "score_names")):
            raise MisconfigurationException(
                f"weights={settings.weights!r} does not name its outputs: give data.class_names, in its order"
            )
        return
    if checkpoint is None:
        raise MisconfigurationException(NO_WEIGHTS if command == "explain" else NO_CHECKPOINT)
    for name in ("class_names", "score_names"):
        if not config.data.init_args.get(name):
            config.data.init_args[name] = list(checkpoint.get("hyper_parameters", {}).get(name, ())) or None


def keep_below_root(trainer: Any) -> None:
    """Make the root of the runs, see `check_place`, and put W&B's files below it; what it collects unasked, nowhere."""
    root = Path(trainer.default_root_dir or ".").expanduser()
    check_place(root, "trainer.default_root_dir")
    root.mkdir(parents=True, exist_ok=True)
    for logger in trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]:
        if getattr(logger, "class_path", "").endswith(".WandbLogger"):
            if logger.init_args.get("save_dir") in (None, "."):
                logger.init_args["save_dir"] = str(root)
            _keep_wandb_private(root)
            if logger.init_args.get("offline"):  # it has nothing to say: the summary names the folder
                os.environ.setdefault("WANDB_SILENT", "true")


def _keep_wandb_private(root: Path) -> None:
    """Environment settings that W&B reads when it starts; what the user has set stands."""
    for name, value in {
        "WANDB_CACHE_DIR": str(root / "wandb" / "cache"),
        "WANDB_DATA_DIR": str(root / "wandb" / "data"),
        "WANDB_X_DISABLE_META": "true",  # else command line, program path and working folder are recorded
        "WANDB_CONSOLE": "off",  # what is printed names folders
        "WANDB_HOST": "",  # else the machine's name
        "WANDB_GIT_REMOTE": "",  # else the address the git repository came from, with the user it belongs to
        "WANDB_QUIET": "true",
    }.items():
        os.environ.setdefault(name, value)


class SaveConfig(SaveConfigCallback):
    """Writes the whole configuration into the run's folder and sends it to the run's loggers."""

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write ``config.yaml`` before the run begins."""
        config = self.config.clone()
        config.pop("run", None)  # the name of this run: other commands and runs that take the file have no such option
        keep(self.parser, config, run_folder(trainer), trainer.loggers)


def keep(parser: LightningArgumentParser, config: Any, folder: Path, loggers: Iterable[Logger]) -> None:
    """Write a configuration to ``config.yaml`` of a folder; loggers get the same without paths of this machine."""
    text = parser.dump(config, skip_none=False)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "config.yaml", text, sync=True)
    for logger in loggers:
        logger.log_hyperparams(without_folders(yaml.safe_load(text)))


def without_folders(config: Any, name: str = "") -> Any:
    """Copy a configuration for a log, ``(path)`` instead of each path: any part of one may name a person or a clinic.

    Args:
        config: a part of the configuration.
        name: of the setting it is the value of; some take nothing else than paths, which may look like words.
    """
    if isinstance(config, dict):
        # names of several checkpoints, whose values are paths as that of a single one is
        within = name if name == "ckpt_path" else ""
        return {key: without_folders(value, within or str(key)) for key, value in config.items()}
    if isinstance(config, list):
        return [without_folders(value, name) for value in config]
    if isinstance(config, str) and config and (_PATH_SETTING.search(name) or _is_path(config)):
        return "(path)"
    return config


def _is_path(text: str) -> bool:
    return os.sep in text and (text.startswith(("~", "..")) or os.path.isabs(text) or os.path.exists(text))
