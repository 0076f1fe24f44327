"""The configuration of a command: checks, settings that follow from others, saving and logging."""

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

NO_CHECKPOINT = "no checkpoint: give the trained model with --ckpt_path FILE.ckpt"
NO_WEIGHTS = f"{NO_CHECKPOINT}, or weights of a network that was trained elsewhere with --model.weights FILE"

_PATH_SETTING = re.compile(
    r"^(?!class_path$)(weights|(.*_)?(root|dir|dirpath|path|prepared|images|masks|lungs|table|boxes|files|runs))$"
)
"""Names of settings whose text values are always folders or files."""

_MIXED_SETTINGS = ("methods", "rle")
"""Names of settings whose text values may be files."""


def refuse_addresses(config: Any) -> None:
    """Raise a MisconfigurationException if a file or folder is given as a remote address.

    Only settings of this package are checked: loggers, and data modules and models of the user, may use addresses.
    """
    package_data = str(config.get("data.class_path")).startswith("lightning_chex.")
    for key, value in config.items():  # jsonargparse yields the leaves, by dotted names
        name = key.rpartition(".")[2]
        if name == "output_dir" and value == "":
            raise MisconfigurationException("output_dir is empty: give a folder, or leave it out")
        checked = "." not in key or key == "trainer.default_root_dir" or (package_data and key.startswith("data."))
        if not checked or not (_PATH_SETTING.search(name) or name in _MIXED_SETTINGS):
            continue
        for path in _as_list(value):
            refuse_address(key.replace(".init_args", ""), path)


def _as_list(value: Any) -> list[Any]:
    """Return the values of a list or a dict, or a list of a single value."""
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list):
        return value
    return [value]


def refuse_address(name: str, value: Any) -> None:
    """Raise a MisconfigurationException if the value of a setting is an address."""
    if isinstance(value, str) and is_address(value):
        raise MisconfigurationException(
            f"{name}={value!r} is a remote path, which is not supported: download it, if you trust its source, and "
            "give the local file or folder"
        )


def read_only_weights(config: Any) -> None:
    """Set ``weights_only``, so that no checkpoint runs code, whatever an environment variable says.

    Raises:
        MisconfigurationException: ``weights_only`` is false.
    """
    if "weights_only" in config:
        if config.weights_only is False:
            raise MisconfigurationException("weights_only=False would let a checkpoint run code: leave it out")
        config.weights_only = True


def check_checkpoint(path: str | None, command: str) -> dict[str, Any] | None:
    """Read the checkpoint given as ``ckpt_path``, before any other work.

    Returns:
        Its contents; None without a checkpoint.

    Raises:
        CheckpointError: the file is not a whole checkpoint, or, for ``fit``, holds no state to resume from.
        MisconfigurationException: a keyword for which Lightning would load another file, or none.
    """
    # with these Lightning would only warn, and continue with untrained weights
    if path in ("best", "last"):
        raise MisconfigurationException(
            f"ckpt_path={path!r} is supported by fit only, which resumes the last run: give a file that a run has "
            f"written, such as runs/lightning_chex/RUN/checkpoints/{path}.ckpt"
        )
    if path == "auto":
        raise MisconfigurationException("ckpt_path='auto' is supported by fit only: give a file that a run has written")
    if path == "hpc":
        raise MisconfigurationException(
            "ckpt_path='hpc' is a file in the root of all runs, not of one run: give a file that a run has written"
        )
    if not path:
        return None
    return read_checkpoint(path, to_resume=command == "fit")


def check_checkpoints(given: Given, command: str) -> dict[str, dict[str, Any]]:
    """Read all checkpoints given as ``ckpt_path``; see `check_checkpoint` for one.

    Returns:
        Contents by path.

    Raises:
        CheckpointError: also if a file is given twice, or if two differ in model or classes.
    """
    paths = paths_of(given)
    if len(paths) > 1:
        for path in paths:
            if path in ("best", "last"):
                check_checkpoint(path, command)
        return read_checkpoints(given)
    contents = {path: check_checkpoint(path, command) for path in paths}
    return {path: content for path, content in contents.items() if content is not None}


def _check_freezing(settings: Any) -> None:
    """Raise a MisconfigurationException if randomly initialised layers are frozen."""
    frozen = settings.get("freeze")
    if frozen and not settings.get("weights") and not settings.get("pretrained"):
        raise MisconfigurationException(
            f"model.freeze={frozen!r} freezes randomly initialised layers: give --model.weights FILE, or "
            "--model.pretrained true"
        )


def fill_in_model(command: str, config: Any, checkpoint: Mapping[str, Any] | None) -> None:
    """Fill in settings of model and data that follow from the checkpoint.

    Weights that the checkpoint replaces are not loaded. A folder of images, which has no table to name the model's
    outputs, takes their names from the checkpoint.

    Raises:
        MisconfigurationException: layers are frozen that nothing has trained, or a folder of images is given to a
            command that needs labels, or without weights.
    """
    settings = getattr(config.get("model"), "init_args", None)
    package_model = bool(settings) and str(config.model.class_path).startswith("lightning_chex.")
    if package_model and command == "fit" and checkpoint is None:
        _check_freezing(settings)
    if settings and settings.get("pretrained") and command != "fit" and config.get("ckpt_path"):
        settings.pretrained = False
    if settings and package_model and checkpoint is not None:
        settings.weights = None  # the file may no longer exist
    if getattr(config.get("data"), "class_path", "").endswith(".ImageFolderDataModule"):
        _fill_in_output_names(command, config, checkpoint)


def _fill_in_output_names(command: str, config: Any, checkpoint: Mapping[str, Any] | None) -> None:
    """Name the outputs of a folder of images after those of the checkpoint.

    Raises:
        MisconfigurationException: the command needs labels, or there is no checkpoint to take the names from.
    """
    settings = getattr(config.get("model"), "init_args", None)
    if command not in ("predict", "explain"):
        raise MisconfigurationException(
            f"{command} needs labels, and ImageFolderDataModule has none: use predict or explain, or give --data the "
            "data module of a data set with a table"
        )
    if checkpoint is None and command == "explain" and settings and settings.get("weights"):
        if not any(config.data.init_args.get(name) for name in ("class_names", "score_names")):
            raise MisconfigurationException(
                f"weights={settings.weights!r} does not name its outputs: set data.class_names, in their order"
            )
        return
    if checkpoint is None:
        raise MisconfigurationException(NO_WEIGHTS if command == "explain" else NO_CHECKPOINT)
    for name in ("class_names", "score_names"):
        if not config.data.init_args.get(name):
            config.data.init_args[name] = list(checkpoint.get("hyper_parameters", {}).get(name, ())) or None


def keep_below_root(trainer: Any) -> None:
    """Create the root of the runs, have W&B write below it, and switch off what W&B would record unasked."""
    root = Path(trainer.default_root_dir or ".").expanduser()
    check_place(root, "trainer.default_root_dir")
    root.mkdir(parents=True, exist_ok=True)
    for logger in _as_list(trainer.logger):
        if getattr(logger, "class_path", "").endswith(".WandbLogger"):
            if logger.init_args.get("save_dir") in (None, "."):
                logger.init_args["save_dir"] = str(root)
            _keep_wandb_private(root)
            if logger.init_args.get("offline"):  # our summary names the folder; W&B would print it again
                os.environ.setdefault("WANDB_SILENT", "true")


def _keep_wandb_private(root: Path) -> None:
    """Set the environment variables that W&B reads at its start; values that the user has set are kept."""
    for name, value in {
        "WANDB_CACHE_DIR": str(root / "wandb" / "cache"),
        "WANDB_DATA_DIR": str(root / "wandb" / "data"),
        "WANDB_X_DISABLE_META": "true",  # else it records the command line, the program's path and the working folder
        "WANDB_CONSOLE": "off",  # the printed lines contain paths
        "WANDB_HOST": "",  # else it records the machine's name
        "WANDB_GIT_REMOTE": "",  # else it records the address of the git repository, which may contain a user name
        "WANDB_QUIET": "true",
    }.items():
        os.environ.setdefault(name, value)


class SaveConfig(SaveConfigCallback):
    """Write the whole configuration into the run's folder and send it to the run's loggers."""

    def save_config(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write ``config.yaml`` before the run begins."""
        config = self.config.clone()
        # the name of this run is an option of fit alone; other commands must be able to read the file
        config.pop("run", None)
        save(self.parser, config, run_folder(trainer), trainer.loggers)


def save(parser: LightningArgumentParser, config: Any, folder: Path, loggers: Iterable[Logger]) -> None:
    """Write a configuration to ``config.yaml`` in a folder, and send it to loggers with all paths removed."""
    text = parser.dump(config, skip_none=False)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "config.yaml", text, sync=True)
    for logger in loggers:
        logger.log_hyperparams(without_paths(yaml.safe_load(text)))


def without_paths(config: Any, name: str = "") -> Any:
    """Copy a configuration, with ``(path)`` in place of each path: a path may contain the name of a person or clinic.

    Args:
        config: a part of the configuration.
        name: name of the setting whose value it is; some settings take only paths, even if they look like words.
    """
    if isinstance(config, dict):
        # a dict of checkpoints has names as keys; its values are paths, as the value of a single checkpoint is
        inherited = name if name == "ckpt_path" else ""
        return {key: without_paths(value, inherited or str(key)) for key, value in config.items()}
    if isinstance(config, list):
        return [without_paths(value, name) for value in config]
    if isinstance(config, str) and config and (_PATH_SETTING.search(name) or _is_path(config)):
        return "(path)"
    return config


def _is_path(text: str) -> bool:
    return os.sep in text and (text.startswith(("~", "..")) or os.path.isabs(text) or os.path.exists(text))
