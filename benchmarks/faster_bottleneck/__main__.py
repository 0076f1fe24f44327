"""How near does one come to the default IBA map, for how many forward passes of the network?

    python -m benchmarks.faster_bottleneck --ckpt_path A.ckpt B.ckpt --nih ROOT --out OUT

All schemes are measured on the same images in turn: cost, in passes of the network alone, timed in between;
Spearman correlation over pixels with the default map; total bits over its own. Readouts and mean alphas are learnt from
images of official NIH training patients, margins of the fallback chosen on further ones, and figures are those of
official test patients. The explained class is the network's strongest. OUT.json
keeps what was measured of each network: a run adds its networks to those that are there, and writes OUT.md of all.
Without --nih the phantom is explained, to try the benchmark.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks import origin
from benchmarks.faster_bottleneck import measure, page
from benchmarks.faster_bottleneck.cases import Images, Setting, drawn
from benchmarks.faster_bottleneck.schemes import (
    Learnt,
    Scheme,
    closed_form,
    default,
    from_means,
    means_of,
    pooled_first,
)
from lightning_chex.files import write_whole
from lightning_chex.tasks import ClassificationTask

JUDGED = ("closed form, 2 x 1", "closed form, 3 x 2")
"""Schemes for which the fallback is tried."""


def schemes(setting: Setting, learnt: Images, batch: int, epochs: int) -> dict[str, Scheme]:
    """All ways, by name; "s x n" are s steps of n noise samples. Means and readouts are learnt here."""
    usual = default(setting)
    # readouts learn from few images at a time: more updates for the same work
    problems = list(setting.posed(learnt.images, max(2, batch // 2)))
    alphas = [usual(problem).alpha for problem in problems]
    classes = torch.cat([problem.target for problem in problems if problem.target is not None])
    means = means_of(torch.cat(alphas), classes, problems[0].reference.shape[1])
    features = Learnt(setting, means, 0)
    gradient = Learnt(setting, means, 1)
    for readout in (features, gradient):
        readout.learn(problems, alphas, epochs)
    return {
        "default, 15 x 2": usual,
        "Adam, 10 x 2": default(setting, steps=10),
        "Adam, 4 x 1": default(setting, steps=4, noise_samples=1),
        "class mean": from_means(setting, means, 0, 1, None),
        "class mean, Adam 2 x 2": from_means(setting, means, 2, 2, 1.0),
        "closed form, 1 x 2": closed_form(setting, 1, 2),
        "closed form, 2 x 1": closed_form(setting, 2, 1),
        "closed form, 3 x 1": closed_form(setting, 3, 1),
        "closed form, 4 x 1": closed_form(setting, 4, 1),
        "closed form, 3 x 2": closed_form(setting, 3, 2),
        "closed form, 4 x 2": closed_form(setting, 4, 2),
        "readout of features": features.refined(0),
        "readout of features, closed form 2 x 1": features.refined(2),
        "gradient, readout": gradient.refined(0),
        "gradient, readout, closed form 1 x 1": gradient.refined(1),
        "pooled first: closed form, 2 x 1": closed_form(setting, 2, 1),
        "pooled first: closed form, 3 x 2": closed_form(setting, 3, 2),
    }


def measured(path: Path, layer: str, learnt: Images, chosen: Images, reported: Images, options: Any) -> dict[str, Any]:
    """All schemes on one network."""
    task = ClassificationTask.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    network = task.model.eval().to(memory_format=torch.channels_last)
    setting = Setting.of(network, layer, learnt.images)
    ways = schemes(setting, learnt, options.batch, options.epochs)
    other = pooled_first(network, setting)
    settings = {"": setting, **{name: other for name in ways if name.startswith("pooled first")}}
    first = next(iter(ways))
    few = {name: ways[name] for name in (first, *JUDGED)}
    tried = measure.compare(settings, few, chosen.images, options.batch, JUDGED, timed=False)
    found = measure.compare(settings, ways, reported.images, options.batch, JUDGED)
    chunk = reported.images[: options.batch]
    judging = measure.judging_cost(setting, chunk, ways[JUDGED[0]])
    fallback = {}
    for name in JUDGED:
        limit = measure.margin(tried[name])
        after, often = measure.fallen_back(found[name], limit)
        own = statistics.median(found[name].passes)
        whole = statistics.median(found[first].passes)
        fallback[name] = {
            "margin": limit,
            "often": often,
            "passes": own + judging + often * (whole - 1),
            "agreement": after.agreement,
            "bits": after.bits,
            "missed": sum(a < measure.BAD for a in after.agreement),
            "bad": sum(a < measure.BAD for a in found[name].agreement),
        }
    together = measure.classes_together(setting, chunk[: max(1, len(chunk) // 3)], ways["closed form, 3 x 2"], 3)
    return {
        "found": {name: asdict(own) for name, own in found.items()},
        "fallback": fallback,
        "together": together,
        "patients": reported.patients,
    }


def main() -> None:
    """Measure the networks asked for, one after the other; the page is written after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--ckpt_path", type=Path, nargs="*", default=[], help="ClassificationTasks; none: only the page"
    )
    parser.add_argument("--names", nargs="+", help="one a network, for the page; by default network 0, network 1 ...")
    parser.add_argument("--nih", type=Path, help="root of NIH ChestX-ray8")
    parser.add_argument("--layer", default="features.denseblock3")
    parser.add_argument("--size", type=int, default=128, help="pixels a side")
    parser.add_argument("--learnt", type=int, default=100, help="patients that means and readouts are learnt from")
    parser.add_argument("--chosen", type=int, default=20, help="patients that margins are chosen on")
    parser.add_argument("--reported", type=int, default=50, help="patients whose maps are reported")
    parser.add_argument("--batch", type=int, default=10, help="images optimised jointly")
    parser.add_argument("--epochs", type=int, default=4, help="of a readout's training")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of patients")
    parser.add_argument("--note", help="what a reader must know, put on the page at the networks of --names")
    parser.add_argument("--out", type=Path, required=True, help="OUT.json and OUT.md are written")
    options = parser.parse_args()
    names: Sequence[str] = options.names or [f"network {at}" for at in range(len(options.ckpt_path))]
    file = options.out.with_suffix(".json")
    kept = json.loads(file.read_text()) if file.exists() else {}
    if not options.ckpt_path:
        if not kept:
            parser.error(f"there is no {file} to make a page of: give --ckpt_path")
        for name in names:
            kept[name]["note"] = options.note
        write_whole(file, json.dumps(kept, indent=1) + "\n")
        write_whole(options.out.with_suffix(".md"), page.markdown(kept))
        return
    if len(names) != len(options.ckpt_path):
        parser.error(f"--names has {len(names)} names for {len(options.ckpt_path)} networks")
    warnings.simplefilter("ignore")
    learnt, reported = drawn(options.nih, options.size, options.learnt + options.chosen, options.reported, options.seed)
    chosen = learnt.part(options.learnt, options.learnt + options.chosen)
    learnt = learnt.part(0, options.learnt)
    shown = ("layer", "size", "learnt", "chosen", "reported", "batch", "epochs", "seed")
    for name, path in zip(names, options.ckpt_path, strict=True):
        begun = time.time()
        kept[name] = {
            **measured(path, options.layer, learnt, chosen, reported, options),
            "command": "python -m benchmarks.faster_bottleneck --ckpt_path ... --out ... "
            + ("--nih ... " if options.nih else "")
            + " ".join(f"--{own} {getattr(options, own)}" for own in shown),
            "commit": origin.commit(),
            "note": options.note,
            "data": "NIH ChestX-ray8" if options.nih else "the phantom",
            "machine": origin.machine(),
            "minutes": (time.time() - begun) / 60,
        }
        write_whole(file, json.dumps(kept, indent=1) + "\n")
        write_whole(options.out.with_suffix(".md"), page.markdown(kept))


if __name__ == "__main__":
    main()
