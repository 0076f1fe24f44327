"""The page of verdicts, in Markdown."""

from collections.abc import Mapping
from typing import Any

from benchmarks.pages import anchor, table_of_records

HEAD = """# The paper's claims, tested

Written by `python -m benchmarks.claims`; [`benchmarks/claims/`](../claims) says how each is tested. DenseNet-121,
images of 128 px, unless a part says otherwise, trained on phantom populations that differ by training seed, and
explained on patients none of them has seen. Settings are chosen on yet others. Intervals are by patient (studentised
bootstrap), of paired differences
where a difference is shown. The phantom's informative regions are known; what holds on it need not hold on X-rays of
patients. How many cases a network is explained on stands below each part.
"""

PAPER = """## Where the paper's tables and figures are

Its figures are of NIH ChestX-ray8 and BrixIA, of other networks, and of thresholds it does not name; ours are of the
phantom, with as many pixels marked as the region has. They cannot be compared value by value, only in what they say.
"""

PLACES = (
    ("Fig. 1 left, Inverse IBA finds both sides", "an example", "Sufficient or all"),
    ("Fig. 1 right, all zones of score 3", "an example", "All zones of one score"),
    ("Fig. 2, insertion and deletion", "IBA and its variants best", "What the output rests on"),
    ("Fig. 3a, zones of a regression", "an example", "Regression IBA follows the severity"),
    ("Fig. 3b, Sensitivity-N of the regression losses", "a curve a loss", "What the output rests on"),
    ("Fig. 4, finer maps", "two examples", "Finer maps from several layers"),
    ("Table 1, IoU of all methods", "Multi-layer .189, IBA and gradients .114", "What the output rests on"),
    ("Table 2, IoU of the detectors", "Inverse and Multi-layer best", "All zones of one score"),
    ("Correlation with severities", "DV, MSE .4766, RM .4404, random .0004", "Regression IBA follows the severity"),
    ("Table 3, balanced loss", "mean IoU .065 with, .024 without", "A balanced loss"),
)
"""A table or figure of the paper, what it says, and the name of the claim that stands for it."""


def markdown(results: Mapping[str, Mapping[str, Any]], picture: str | None = None) -> str:
    """The page of all claims: a table of verdicts, a picture, then each claim with its tables, command and limits."""
    every = [(claim, part) for part in results.values() for claim in part["claims"]]
    verdicts = [
        {
            "claim": f"[{claim['name']}](#{anchor(claim['name'])})",
            "verdict": f"**{claim['verdict']}**",
            "finding": claim["finding"],
        }
        for claim, _ in every
    ]
    parts = [HEAD, table_of_records(verdicts)]
    if picture is not None:
        parts.append(f"![Findings of the phantom and their maps, each scaled to itself]({picture})")
    places = [
        {"of the paper": own, "what it says": says, "here": f"[{name}](#{anchor(name)})"} for own, says, name in PLACES
    ]
    parts += [PAPER, table_of_records(places)]
    for claim, part in every:
        parts += [f"## {claim['name']}", claim["statement"], f"**{claim['verdict'].capitalize()}.** {claim['finding']}"]
        parts.append(f"Rule: {claim['rule']}")
        for own in claim["tables"]:
            parts += [f"### {own['title']}", table_of_records(own["rows"])]
        if claim["limits"]:
            parts.append("\n".join(f"- {limit}" for limit in claim["limits"]))
        seeds = f"training seeds {', '.join(map(str, part['seeds']))}, at most {part['cases']} cases a network"
        basis = claim.get("basis") or seeds
        parts.append(f"`{part['command']}`, commit {part['commit']}, {basis}, {part['machine']}. {part['note']}")
    return "\n\n".join(part.strip() for part in parts) + "\n"
