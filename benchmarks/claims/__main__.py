"""Put the claims of the paper, and of its successors, to the proof on the phantom.

    python -m benchmarks.claims --work DIR --out benchmarks/results/claims

trains the networks that are not in DIR yet, and writes OUT.json, OUT.md, a verdict a claim,
and OUT_maps.jpg. ``--claims`` runs some;
the others are kept from OUT.json. ``make claims-quick`` runs all of them small.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks import origin
from benchmarks.claims import (
    balanced,
    beyond,
    choosing,
    detectors,
    importance,
    layers,
    page,
    pictures,
    redundancy,
    severity,
    shortcuts,
    stability,
)
from benchmarks.claims.study import Claim, NothingRecognised, Study
from lightning_chex.files import write_whole

CLAIMS: dict[str, Callable[[Study], Sequence[Claim]]] = {
    "redundancy": lambda study: [redundancy.claim(study)],
    "layers": lambda study: [layers.claim(study)],
    "severity": lambda study: [severity.claim(study)],
    "detectors": lambda study: [detectors.claim(study)],
    "balanced": lambda study: [balanced.claim(study)],
    "importance": lambda study: [importance.claim(study)],
    "beyond": beyond.claims,
    "stability": stability.claims,
    "choosing": lambda study: [choosing.claim(study)],
    "shortcuts": shortcuts.claims,
}


def main() -> None:
    """Run the claims asked for, one after the other; each is written as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the trained networks")
    parser.add_argument("--out", type=Path, required=True, help="OUT.json and OUT.md are written")
    parser.add_argument("--claims", nargs="+", choices=CLAIMS, default=list(CLAIMS))
    parser.add_argument("--seeds", type=int, nargs="+", help="training seeds; by default 0 1 2")
    parser.add_argument("--cases", type=int, help="cases a claim and network, at most; by default 24")
    parser.add_argument("--quick", action="store_true", help="one training seed, few images and four cases by default")
    parser.add_argument("--note", default="", help="what a reader must know of this run")
    options = parser.parse_args()
    seeds = options.seeds or ([0] if options.quick else [0, 1, 2])
    cases = options.cases or (4 if options.quick else 24)
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    study = Study(options.work, seeds, cases, options.quick)
    file = options.out.with_suffix(".json")
    kept = json.loads(file.read_text()) if file.exists() else {}
    for name in options.claims:
        try:
            found = CLAIMS[name](study)
        except NothingRecognised as error:
            print(f"left out: {error}", flush=True)
            continue
        kept[name] = {
            "claims": [asdict(claim) for claim in found],
            "command": f"python -m benchmarks.claims {' '.join(_shown(sys.argv[1:]))}",
            "commit": origin.commit(),
            "seeds": seeds,
            "cases": cases,
            "note": options.note,
            "machine": origin.machine(),
        }
        kept = {key: kept[key] for key in CLAIMS if key in kept}
        write_whole(file, json.dumps(kept, indent=1) + "\n")
        picture = options.out.with_name(f"{options.out.name}_maps.jpg")
        if name == "layers":
            pictures.draw(study, picture)
        write_whole(options.out.with_suffix(".md"), page.markdown(kept, picture.name if picture.exists() else None))
        for claim in found:
            print(f"{claim.name}: {claim.verdict}. {claim.finding}", flush=True)


def _shown(arguments: Sequence[str]) -> list[str]:
    """The command line without the names of folders."""
    return [
        own if at == 0 or arguments[at - 1] not in ("--work", "--out", "--note") else "..."
        for at, own in enumerate(arguments)
    ]


if __name__ == "__main__":
    main()
