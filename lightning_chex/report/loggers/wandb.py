"""Weights & Biases: X-rays with boxes and masks to be switched on and off, tables, summaries, artifacts.

Each X-ray is sent once per run. The pictures of every step refer to its file and add masks of their own. A panel of a
key has a slider over the steps.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_chex.report.logger_adapter import Box, Picture

PICTURE_LIMIT = 108
"""Number of pictures of a key that W&B shows at a step."""

STEP = "trainer/global_step"
"""The scalar that Lightning sends with all others."""


class Adapter:
    """Adapter of a ``WandbLogger``, online or offline; where W&B is disabled it logs nothing.

    Args:
        logger: the ``WandbLogger``.
        best: which value of a scalar the table of runs shows, by key.
    """

    def __init__(self, logger: Any, best: Mapping[str, str]) -> None:
        self._wandb_logger = logger
        # file of each picture that the run has, by a hash of its pixels
        self._files: dict[str, str] = {}
        run = logger.experiment
        if not run.disabled:
            for key, value in best.items():
                run.define_metric(key, summary=value, step_metric=STEP)

    def pictures(self, key: str, pictures: Sequence[Picture], step: int) -> None:
        """Log the first 108 pictures, each with its boxes and masks.

        The row of the history has the form in which W&B itself writes a list of ``wandb.Image``. It is written here,
        since ``wandb.Image`` would send every X-ray again at every step.
        """
        run = self._wandb_logger.experiment
        shown = pictures[:PICTURE_LIMIT]
        if run.disabled or not shown:
            return
        height, width = shown[0].image.shape[:2]
        row: dict[str, Any] = {
            "_type": "images/separated",
            "width": width,
            "height": height,
            "format": "png",
            "count": len(shown),
            "filenames": [self._file_of(run, picture) for picture in shown],
            "captions": [picture.caption for picture in shown],
        }
        if any(picture.boxes for picture in shown):
            # W&B keeps one list of names for all pictures of a key: the last one given
            names = {}
            for picture in shown:
                for box in picture.boxes:
                    names[box.class_index] = box.name
            row["all_boxes"] = [_boxes(run, key, picture.boxes, names) for picture in shown]
        if any(picture.layers for picture in shown):
            row["all_masks"] = [_masks(run, key, picture) for picture in shown]
        self._wandb_logger.log_metrics({key: row}, step=step)

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int | None = None) -> None:
        """Log a table as a file of its run, without the artifact that ``WandbLogger.log_table`` makes of it.

        An artifact leaves two copies of the table among W&B's staged files, which an offline run never removes, a
        temporary folder until the program ends, and the last hundred tables in memory. The row of the history points to
        the file in the run's folder either way, and ``wandb sync`` sends it from there, even if the folder was moved.
        """
        import wandb  # here, since it is slow to import and most programs do not use it

        run = self._wandb_logger.experiment
        if run.disabled:
            return
        table = wandb.Table(columns=list(columns), data=[list(row) for row in rows])
        # a table that is bound to its run before it is logged does not become an artifact
        table.bind_to_run(run, key, run.step)
        self._wandb_logger.log_metrics({key: table}, step=step)

    def file(self, key: str, path: Path, step: int) -> None:
        """Log a PNG as a picture; keep another file as an artifact of a run that is online."""
        import wandb

        run = self._wandb_logger.experiment
        if run.disabled:
            return
        if path.suffix == ".png":
            self._wandb_logger.log_metrics({key: wandb.Image(str(path))}, step=step)
        elif not run.offline:
            # an offline run would never remove the copies that an artifact leaves among W&B's staged files
            artifact = wandb.Artifact(f"{key.replace('/', '-')}-{run.id}", type="explanations")
            artifact.add_file(str(path), name=path.name)
            run.log_artifact(artifact)

    def _file_of(self, run: Any, picture: Picture) -> str:
        """Path of a picture in the run's folder; a picture that the run does not have yet is written there."""
        import wandb

        digest = hashlib.sha256(repr(picture.image.shape).encode() + picture.image.tobytes()).hexdigest()
        if digest not in self._files:
            image = wandb.Image(picture.image)
            image.bind_to_run(run, "images", run.step, len(self._files))
            self._files[digest] = str(image.to_json(run)["path"])
        return self._files[digest]


def _boxes(run: Any, key: str, boxes: Sequence[Box], names: Mapping[int, str]) -> dict[str, Any]:
    from wandb.data_types import BoundingBoxes2D

    data = []
    for box in boxes:
        data.append(
            {
                "position": dict(zip(("minX", "minY", "maxX", "maxY"), box.corners, strict=True)),
                "domain": "pixel",
                "class_id": box.class_index,
                "box_caption": box.name,
            }
        )
    logged = BoundingBoxes2D({"box_data": data, "class_labels": dict(names)}, "expert")
    logged.bind_to_run(run, key, run.step)
    return {"expert": logged.to_json(run)}


def _masks(run: Any, key: str, picture: Picture) -> dict[str, Any]:
    from wandb.data_types import ImageMask

    masks = {}
    for name, layer in picture.layers.items():
        logged = ImageMask({"mask_data": layer.mask, "class_labels": dict(layer.names)}, name)
        logged.bind_to_run(run, key, run.step)
        masks[name] = logged.to_json(run)
    return masks


def discard_run(run: Any) -> None:
    """End an offline run in which nothing was logged, and remove its folder and the links that led to it.

    A run that goes to a server is ended and stays, with the exit code of a failure.

    Args:
        run: the W&B run.
    """
    folder = Path(run.dir).parent
    offline = run.offline
    run.finish(exit_code=2)
    if not offline or not folder.name.startswith("offline-run-"):
        return
    shutil.rmtree(folder, ignore_errors=True)
    # W&B links latest-run and the logs of the latest run to the folder that is gone
    for link in folder.parent.iterdir():
        if link.is_symlink() and not link.exists():
            link.unlink()
