"""The images a report shows: the best, the median and the worst by rank, whatever they look like."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor

from lightning_chex.evaluation.measures import MEASURES
from lightning_chex.evaluation.run import Evaluated
from lightning_chex.explaining import Cases, Key, grey_pictures
from lightning_chex.reporting import ExampleRow

Rank = Literal["best", "median", "worst"]


def examples(evaluated: Evaluated) -> list[ExampleRow]:
    """Choose three cases by the first method's values, and show all maps of them.

    Args:
        evaluated: with at least one method.

    Returns:
        Best, median and worst; fewer where there are fewer cases with a value, none where there is none.
    """
    rows = evaluated.rows
    names = list(dict.fromkeys(row["method"] for row in rows))
    first = [row for row in rows if row["method"] == names[0]]
    ranking = [key for key, declared in MEASURES.items() if declared.ranks_examples]
    measure = next((key for key in ranking if any(_known(row[key]) for row in first)), None)
    if measure is None:
        return []
    values = {(row["image"], row["target"], row["method"]): row[measure] for row in rows}
    scores = [values[*case.key, names[0]] for case in evaluated.cases]
    ordered = sorted((i for i, score in enumerate(scores) if _known(score)), key=lambda i: (-scores[i], i))
    places: dict[Rank, int] = {"best": 0, "median": (len(ordered) - 1) // 2, "worst": len(ordered) - 1}
    shown: dict[int, Rank] = {}
    for rank, place in places.items():
        shown.setdefault(ordered[place], rank)
    found = []
    for index, rank in shown.items():
        key = evaluated.cases[index].key
        cases = _find(evaluated, key)
        if cases is not None:
            own = {name: values[*key, name] for name in names}
            found.append(_row(evaluated, cases, rank, names, measure, own))
    return found


def _find(evaluated: Evaluated, key: Key) -> Cases | None:
    """Read the image of a case once more."""
    for place in range(evaluated.images.count):
        sample = evaluated.images.dataset[place]
        if sample is None or sample["image_id"] != key[0]:
            continue
        batch = evaluated.images.subject.move(evaluated.images.data.collate([sample]))
        cases = evaluated.evaluator.cases(batch)
        if key in cases.keys:
            return cases.select([cases.keys.index(key)])
    return None


def _row(
    evaluated: Evaluated,
    cases: Cases,
    rank: Rank,
    names: Sequence[str],
    measure: str,
    values: Mapping[str, float | None],
) -> ExampleRow:
    boxes = cases.boxes[0] if len(cases.boxes[0]) else None
    region = cases.regions[0].cpu() if cases.regions[0].any() and boxes is None and cases.zones is None else None
    zones, scores = None, None
    if cases.zones is not None and cases.zone_scores is not None and cases.zones[0].any():
        zones, scores = cases.zones[0].cpu(), cases.zone_scores[0].tolist()
    maps: dict[str, Tensor] = {name: evaluated.evaluator.saliency(name, cases)[0].float().cpu() for name in names}
    return ExampleRow(
        rank=rank,
        ranked_by=names[0],
        image=grey_pictures(cases.images[cases.rows])[0],
        target_name=cases.keys[0][1],
        prediction=float(cases.prediction[0]),
        truth=float(cases.truth[0]),
        maps=maps,
        iou=values,
        boxes=boxes,
        region=region,
        zones=zones,
        scores=scores,
        measure=MEASURES[measure].title,
    )


def _known(value: float | None) -> bool:
    return value is not None and not math.isnan(value)
