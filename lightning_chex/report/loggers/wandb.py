"""Weights & Biases: X-rays with boxes and masks to be switched on and off, tables, summaries, artifacts.

Each X-ray is sent once a run; the pictures of every step name its file, and bring masks of their own. A panel of a key
has a slider over the steps.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_chex.report.board import Box, Picture

PICTURE_LIMIT = 108
"""W&B shows no more pictures of a key at a step."""

STEP = "trainer/global_step"
"""The scalar that Lightning sends with all others."""


class Board:
    """Shows a run through a ``WandbLogger``, offline or not; where W&B is disabled it writes nothing.

    Args:
        logger: the ``WandbLogger``.
        best: which value of a scalar the table of runs shows, by key.
    """

    def __init__(self, logger: Any, best: Mapping[str, str]) -> None:
        self._through = logger
        self._sent: dict[str, str] = {}  # files of the pictures the run holds, by a hash of their pixels
        run = logger.experiment
        if not run.disabled:
            for key, value in best.items():
                run.define_metric(key, summary=value, step_metric=STEP)

    def pictures(self, key: str, pictures: Sequence[Picture], step: int) -> None:
        """Log the first 108 pictures, each with its boxes and masks; files that the run holds already are named again.

        A row of the history has the form that a list of ``wandb.Image`` gives it.
        """
        run, shown = self._through.experiment, pictures[:PICTURE_LIMIT]
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
            names = {box.class_index: box.name for picture in shown for box in picture.boxes}
            row["all_boxes"] = [_boxes(run, key, picture.boxes, names) for picture in shown]
        if any(picture.layers for picture in shown):
            row["all_masks"] = [_masks(run, key, picture) for picture in shown]
        self._through.log_metrics({key: row}, step=step)

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int | None = None) -> None:
        """Log a table as a file of its run and nothing else, where ``WandbLogger.log_table`` makes an artifact of it.

        An artifact leaves two copies of the table among W&B's staged files, which an offline run never removes (one is
        named by nothing, the other by its absolute path), a temporary folder until the program ends, and the last
        hundred tables in memory. The row of the history points to the file in the run's folder either way, and ``wandb
        sync`` sends it from there, wherever the folder has been moved.
        """
        import wandb  # here, since it is slow to load and most programs have no such logger

        run = self._through.experiment
        if run.disabled:
            return
        table = wandb.Table(columns=list(columns), data=[list(row) for row in rows])
        table.bind_to_run(run, key, run.step)  # what is bound already is not made an artifact when it is logged
        self._through.log_metrics({key: table}, step=step)

    def file(self, key: str, path: Path, step: int) -> None:
        """Log a PNG as a picture; keep another file as an artifact of a run that is online."""
        import wandb

        run = self._through.experiment
        if run.disabled:
            return
        if path.suffix == ".png":
            self._through.log_metrics({key: wandb.Image(str(path))}, step=step)
        elif not run.offline:  # else its copies would lie among W&B's files for good, named by their absolute path
            artifact = wandb.Artifact(f"{key.replace('/', '-')}-{run.id}", type="explanations")
            artifact.add_file(str(path), name=path.name)
            run.log_artifact(artifact)

    def _file_of(self, run: Any, picture: Picture) -> str:
        """The file of a picture in the run's folder, put there when the picture is new."""
        import wandb

        digest = hashlib.sha256(repr(picture.image.shape).encode() + picture.image.tobytes()).hexdigest()
        if digest not in self._sent:
            image = wandb.Image(picture.image)
            image.bind_to_run(run, "images", run.step, len(self._sent))
            self._sent[digest] = str(image.to_json(run)["path"])
        return self._sent[digest]


def _boxes(run: Any, key: str, boxes: Sequence[Box], names: Mapping[int, str]) -> dict[str, Any]:
    from wandb.data_types import BoundingBoxes2D

    data = [
        {
            "position": dict(zip(("minX", "minY", "maxX", "maxY"), box.corners, strict=True)),
            "domain": "pixel",
            "class_id": box.class_index,
            "box_caption": box.name,
        }
        for box in boxes
    ]
    made = BoundingBoxes2D({"box_data": data, "class_labels": dict(names)}, "expert")
    made.bind_to_run(run, key, run.step)
    return {"expert": made.to_json(run)}


def _masks(run: Any, key: str, picture: Picture) -> dict[str, Any]:
    from wandb.data_types import ImageMask

    found = {}
    for name, layer in picture.layers.items():
        made = ImageMask({"mask_data": layer.mask, "class_labels": dict(layer.names)}, name)
        made.bind_to_run(run, key, run.step)
        found[name] = made.to_json(run)
    return found


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
    for link in folder.parent.iterdir():  # latest-run and the logs of the latest run
        if link.is_symlink() and not link.exists():
            link.unlink()
