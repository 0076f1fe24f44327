"""The page that says what the recipes reached."""

from dataclasses import dataclass

from benchmarks.recipes.scores import Scores


@dataclass(frozen=True)
class Row:
    name: str
    scores: Scores
    told: str
    seconds: float


def line(row):
    return f"{row.name}: {row.scores.interval(0)} {row.scores.interval(1)}; {row.told}; {row.seconds:.0f} s"


def markdown(*a):
    return repr(a)
