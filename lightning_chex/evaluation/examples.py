"""The example images of a report: the best, the median and the worst, chosen by rank alone."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from lightning_chex.evaluation.assembly import Row
from lightning_chex.evaluation.measures import MEASURES
from lightning_chex.evaluation.run import Evaluated
from lightning_chex.maps import Cases, Key, grey_pictures
from lightning_chex.report import ExampleRow

Rank = Literal["best", "median", "worst"]


@dataclass(frozen=True)
class _Ranking:
    """Values that examples are chosen by.

    Attributes:
        measure: key of the measure.
        names: methods and controls; examples are chosen by the first.
        values: (image, target, method) -> value, None or NaN where it is unknown.
    """

    measure: str
    names: Sequence[str]
    values: Mapping[tuple[str, str, str], float | None]


def examples(evaluated: Evaluated) -> list[ExampleRow]:
    """Choose three cases by the first method's values, and show all maps of them.

    Args:
        evaluated: with at least one method.

    Returns:
        Best, median and worst; fewer where there are fewer cases with a value, none where there is none.
    """
    names = list(dict.fromkeys(row["method"] for row in evaluated.rows))
    measure = _ranking_measure(row for row in evaluated.rows if row["method"] == names[0])
    if measure is None:
        return []
    values = {(row["image"], row["target"], row["method"]): row[measure] for row in evaluated.rows}
    ranking = _Ranking(measure, names, values)
    rows = []
    for key, rank in _chosen(evaluated, ranking).items():
        cases = _find(evaluated, key)
        if cases is not None:
            rows.append(_row(evaluated, cases, rank, ranking))
    return rows


def _ranking_measure(rows: Iterable[Row]) -> str | None:
    """Key of the first measure that may rank examples and has a value in these rows."""
    rows = list(rows)
    for key, measure in MEASURES.items():
        if measure.ranks_examples and any(_is_known(row[key]) for row in rows):
            return key
    return None


def _chosen(evaluated: Evaluated, ranking: _Ranking) -> dict[Key, Rank]:
    """The cases to show; with fewer than three, each takes the first rank it has."""
    scores: list[tuple[float, int]] = []
    for i, case in enumerate(evaluated.cases):
        score = ranking.values[*case.key, ranking.names[0]]
        if score is not None and not math.isnan(score):
            scores.append((-score, i))  # the best first, and equal ones in their order
    ordered = [i for _, i in sorted(scores)]
    positions: dict[Rank, int] = {"best": 0, "median": (len(ordered) - 1) // 2, "worst": len(ordered) - 1}
    chosen: dict[Key, Rank] = {}
    for rank, position in positions.items():
        chosen.setdefault(evaluated.cases[ordered[position]].key, rank)
    return chosen


def _find(evaluated: Evaluated, key: Key) -> Cases | None:
    """Read the image of a case again; None if it cannot be read any more."""
    images = evaluated.images
    for index in range(images.count):
        sample = images.dataset[index]
        if sample is None or sample["image_id"] != key[0]:
            continue
        batch = images.subject.move(images.data.collate([sample]))
        cases = evaluated.evaluator.cases(batch)
        if key in cases.keys:
            return cases.select([cases.keys.index(key)])
    return None


def _row(evaluated: Evaluated, cases: Cases, rank: Rank, ranking: _Ranking) -> ExampleRow:
    """Pictures, maps and values of one case."""
    key = cases.keys[0]
    boxes = cases.boxes[0] if len(cases.boxes[0]) else None
    region = None
    # an outline of boxes or zones is drawn from these, not from the pixels of the region
    if boxes is None and cases.zones is None and cases.regions[0].any():
        region = cases.regions[0].cpu()
    zones = None
    scores = None
    if cases.zones is not None and cases.zone_scores is not None and cases.zones[0].any():
        zones = cases.zones[0].cpu()
        scores = cases.zone_scores[0].tolist()
    maps: dict[str, Tensor] = {}
    for name in ranking.names:
        maps[name] = evaluated.evaluator.saliency(name, cases)[0].float().cpu()
    return ExampleRow(
        rank=rank,
        ranked_by=ranking.names[0],
        image=grey_pictures(cases.images[cases.rows])[0],
        target_name=key[1],
        prediction=float(cases.prediction[0]),
        truth=float(cases.truth[0]),
        maps=maps,
        iou={name: ranking.values[*key, name] for name in ranking.names},
        boxes=boxes,
        region=region,
        zones=zones,
        scores=scores,
        measure=MEASURES[ranking.measure].title,
    )


def _is_known(value: float | None) -> bool:
    return value is not None and not math.isnan(value)
