"""Description of the columns recognised in a table, and the configuration that names them."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from lightning_chex.data.images.images import first_few
from lightning_chex.data.subgroups import ATTRIBUTES
from lightning_chex.data.table.boxes import BoxColumns
from lightning_chex.data.table.columns import Columns, column_of
from lightning_chex.data.table.labels import unknown_words
from lightning_chex.data.table.reading import numbers
from lightning_chex.data.table.recognition import OpenPoint, described_columns
from lightning_chex.data.table.rows import Reading

_POLICIES = {
    "ignore": "left out of loss and scores",
    "positive": "count as positive",
    "negative": "count as negative",
}

_CONFIG = """\
# {what}, as `python -m lightning_chex inspect` found it. Correct what is wrong, then:
#   python -m lightning_chex inspect --config THIS_FILE
#   python -m lightning_chex fit     --config THIS_FILE
seed_everything: 0
trainer:
  max_epochs: 10
  log_every_n_steps: 1
  default_root_dir: runs
  logger:
    class_path: pytorch_lightning.loggers.WandbLogger
    init_args: {{project: lightning_chex, offline: true}}
  callbacks:
    - class_path: lightning_chex.explanations.IBACallback
      init_args:
        attributor:
          class_path: lightning_chex.attribution.IBA
          init_args: {attributor}
        num_images: 16
    - class_path: pytorch_lightning.callbacks.ModelCheckpoint
      init_args: {monitor}
{subgroups}model:
{model}data:
{data}"""


_SUBGROUPS = "    - class_path: lightning_chex.explanations.SubgroupScores\n"


def described_reading(reading: Reading, boxes: BoxColumns | None, uncertain: str, missing: str) -> list[str]:
    """Say in words what the table's columns are, and what is done with labels that are not known, one thing a line."""
    words = described_columns(reading.table, reading.recognised)
    left = unknown_words(reading.table, reading.columns, reading.names)
    if left:
        words.append(f"findings that are not learnt: {first_few(left, 12)}")
    if reading.pattern is not None:
        words.append(f"patient of the image's path, {reading.pattern!r} (data.patient_pattern)")
    if boxes is not None:
        names = [boxes.box] if isinstance(boxes.box, str) else boxes.box or ()
        words.append(
            f"boxes   {', '.join(map(repr, names))}, read as {boxes.form}, {boxes.unit or 'unit by the numbers'}"
        )
    if reading.names:
        words.append(f"labels that say -1 or u (data.uncertain): {_POLICIES[uncertain]}")
        words.append(f"labels that are empty (data.missing): {_POLICIES[missing]}")
    return words


def proposed_config(
    data_class: str,
    settings: Mapping[str, Any],
    columns: Columns,
    score_names: Sequence[str],
    scores: Sequence[float],
    points: Sequence[OpenPoint] = (),
) -> str:
    """Write a configuration that trains and explains, like those in ``configs/``.

    Args:
        data_class: class path of the data module.
        settings: its arguments; None and empty ones are left out.
        columns: of the table.
        score_names: names of the scores, empty for classes.
        scores: the (summed) score of every image, whose range the training begins in the middle of.
        points: what is undecided, which becomes comments.
    """
    attributor: dict[str, Any] = {"layer": "features.denseblock3"}
    monitor: dict[str, Any] = {"monitor": "val/auroc", "mode": "max"}
    task: dict[str, Any] = {"backbone": "densenet121", "pretrained": False}
    if score_names:
        attributor["objective"] = "deviation"
        monitor = {"monitor": "val/mae", "mode": "min"}
        low, high = (min(scores), max(scores)) if len(scores) else (0.0, 1.0)
        task["score_range"] = [float(low), float(high) if high > low else float(low) + 1]
        model = {"class_path": "lightning_chex.tasks.RegressionTask", "init_args": task | {"lr": 3e-4}}
    else:
        model = {
            "class_path": "lightning_chex.tasks.ClassificationTask",
            "init_args": task | {"loss": "bce", "lr": 5e-4},
        }
    model["init_args"]["schedule"] = "cosine"  # type: ignore[index]
    data = {"class_path": data_class, "init_args": _without_none(settings)}
    told = [column_of(columns, name) is not None for name in ATTRIBUTES]
    return _CONFIG.format(
        what=data_class.rpartition(".")[2],
        attributor=_flow(attributor),
        monitor=_flow({**monitor, "filename": "best", "auto_insert_metric_name": False}),
        subgroups=_SUBGROUPS if any(told) else "",
        model=_block(model),
        data=_block(data) + "".join(f"    {line}\n" for line in _comments(points)),
    )


def _comments(points: Sequence[OpenPoint]) -> list[str]:
    """The undecided points, each with lines of YAML to choose from."""
    lines = []
    for number, point in enumerate(points, 1):
        parent, _, name = point.option.rpartition(".")
        place = f"{name} under {parent}" if parent else name
        lines.append(f"# UNDECIDED {number}: {point.question}".replace("\n", " "))
        lines.append(f"#   fit refuses until {place} is set, to one of:")
        lines += [f"#     {name}: {answer}" for answer in point.answers]
    return lines


def score_values(reading: Reading, columns: Sequence[str]) -> list[float]:
    """The summed scores of all rows that have them."""
    total = sum(numbers(reading.table[name]) for name in columns)
    return [] if isinstance(total, int) else total.dropna().tolist()


def _without_none(settings: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: _without_none(own) if isinstance(own, Mapping) else own for name, own in settings.items()}
    return {name: own for name, own in found.items() if own is not None and own != {}}


def _flow(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000).strip()


def _block(value: Any) -> str:
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110)
    return "".join(f"  {line}\n" for line in text.splitlines())
