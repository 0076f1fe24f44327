"""MLflow: pictures as images with steps, tables as JSON, files as artifacts of the run.

MLflow 3 wants a server or a database as ``tracking_uri``; a folder only with ``MLFLOW_ALLOW_FILE_STORE=true``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_chex.report.logger_adapter import Picture


class Adapter:
    """Adapter of an ``MLFlowLogger``.

    Args:
        logger: the ``MLFlowLogger``.
        best: not used: MLflow's tables of runs show the last values.
    """

    def __init__(self, logger: Any, best: Mapping[str, str]) -> None:
        self._client = logger.experiment  # an MlflowClient
        self._id = logger.run_id

    def pictures(self, key: str, pictures: Sequence[Picture], step: int) -> None:
        """Log pictures with all that is on them, ``KEY/00`` and so on, and a table of their captions."""
        for number, picture in enumerate(pictures):
            self._client.log_image(self._id, picture.drawn, key=f"{key}/{number:02d}", step=step)
        rows = [[number, picture.caption] for number, picture in enumerate(pictures)]
        self.table(f"{key}/captions", ["number", "caption"], rows, step)

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int | None = None) -> None:
        """Log a table as ``KEY.json``, or of a step as ``KEY/00000094.json``."""
        data = {}
        for i, column in enumerate(columns):
            data[column] = [row[i] for row in rows]
        # one file per step: to append rows to a table, MLflow would download all earlier ones
        name = f"{key}.json"
        if step is not None:
            name = f"{key}/{step:08d}.json"
        self._client.log_table(self._id, data, artifact_file=name)

    def file(self, key: str, path: Path, step: int) -> None:
        """Keep a file as an artifact, in the folder of its key."""
        self._client.log_artifact(self._id, str(path), artifact_path=key)
