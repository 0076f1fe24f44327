"""How fast are insertion, deletion, Sensitivity-N and ROAD, and do they agree with others' procedures? One run.

    OMP_NUM_THREADS=1 python -m benchmarks.perturbation_speed --output benchmarks/results/perturbation_speed.md

Compares, on one network, the same images and maps, (a) the authors' procedure (benchmarks/authors_perturbation.py),
(b) Quantus (benchmarks/quantus_perturbation.py) and (c) lightning_chex.metrics as the evaluation calls them. They take
turns over the repeats, each repeat on the map of another method; the median counts and the range is printed. With one
thread on a CPU, times are the processor's, which other work on the machine disturbs less; else those of the wall clock.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import authors_perturbation as authors
from benchmarks import origin
from benchmarks.attribution_speed import trained_network
from benchmarks.quantus_perturbation import Quantus
from benchmarks.timing import Cost, Watched
from lightning_chex.attribution import frozen
from lightning_chex.data import NIHDataModule, SyntheticDataModule
from lightning_chex.evaluation import EvaluationSettings, Perturbation, line_up
from lightning_chex.metrics import blurred, insertion_deletion, mask_sizes, masked_scores, pixel_ranks, road
from lightning_chex.metrics.road import PERCENTAGES

MAPS = ("IBA", "Gradient", "IntegratedGradients", "GradCAM", "InverseIBA", "MultiLayerIBA", "LRP")
FULL_STEP = 25  # the authors' pixels a step


def middle(values: Sequence[float], digits: int = 2, unit: str = "") -> str:
    """Median (range)."""
    return f"{statistics.median(values):.{digits}f}{unit} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def row(measure: str, label: str, costs: list[Cost], reference: list[Cost] | None, agreement: str) -> str:
    seconds = [cost.seconds for cost in costs]
    ratio = (
        "" if reference is None else middle([a.seconds / x for a, x in zip(reference, seconds, strict=True)], 2, "x")
    )
    one = costs[0]
    pace = statistics.median(1000 * cost.inside / cost.copies for cost in costs)
    outside = statistics.median(1 - cost.inside / cost.seconds for cost in costs)
    return (
        f"| {measure} | {label} | {middle(seconds)} | {ratio} | {one.copies:g} in {one.passes:g} | {pace:.1f} | "
        f"{100 * outside:.0f} % | {agreement} |"
    )


class Comparison:
    """The three procedures on the same images and maps."""

    def __init__(
        self, model: nn.Module, images: Tensor, target: Tensor, maps: dict[str, Tensor], options: argparse.Namespace
    ) -> None:
        self.images = images
        self.target = target
        self.maps = maps
        self.options = options
        self.network = Watched(model, images.device).eval()
        self.few = options.author_images
        self.baseline = blurred(images)
        self.pixels = images.shape[2] * images.shape[3]
        self.step = self.pixels // options.steps
        self.sizes = mask_sizes(self.pixels, options.sizes)
        settings = EvaluationSettings(step=self.step, sensitivity_masks=options.masks)
        self.ours = Perturbation(self.network, True, settings)
        self.quantus = Quantus(self.network, images, self.baseline, target, self.step)
        self.costs: dict[str, list[Cost]] = {}
        self.apart: dict[str, float] = {}

    def timed(self, name: str, run: Callable[[], Any], images: int | None = None) -> Any:
        cost, result = self.network.cost(run, len(self.images) if images is None else images)
        self.costs.setdefault(name, []).append(cost)
        return result

    def note(self, name: str, first: Tensor, second: Tensor) -> None:
        difference = float((first.cpu().double() - second.cpu().double()[: len(first)]).abs().max())
        self.apart[name] = max(difference, self.apart.get(name, 0.0))

    def one_by_one(self, run: Callable[..., Any], *each: Tensor, last: tuple[Any, ...]) -> list[Any]:
        return [run(self.network, *(x[i] for x in each), int(self.target[i]), *last) for i in range(self.few)]

    def exchange(self, saliency: Tensor, chunk: int | None = None, images: int | None = None) -> Any:
        given = [x[:images] for x in (self.images, saliency)]
        settings = {"target": self.target[:images], "baseline": self.baseline[:images], "step": self.step}
        return insertion_deletion(self.ours.readable, *given, chunk=chunk, **settings)

    def mask(self) -> Any:
        settings = {"target": self.target, "masks": self.options.masks}
        return masked_scores(self.ours.raw, self.images, self.sizes, **settings)

    def repeat(self, saliency: Tensor) -> None:
        """Every procedure once, on one map of each image."""
        # the same order without ties, which each would break in its own way
        order = (self.pixels - 1 - pixel_ranks(saliency)).float()
        with frozen(self.network):
            theirs = self.timed(
                "exchange a",
                lambda: self.one_by_one(
                    authors.insertion_and_deletion, self.images, self.baseline, order, last=(self.step,)
                ),
                self.few,
            )
            mine = self.timed("exchange c", lambda: self.exchange(order))
            quantus = self.timed("exchange b", lambda: self.quantus.insertion_and_deletion(order))
            for name, (inserted, deleted) in (("a", zip(*theirs, strict=True)), ("b", quantus)):
                other = replace(
                    mine,
                    insertion=torch.stack(list(inserted)).to(mine.insertion),
                    deletion=torch.stack(list(deleted)).to(mine.deletion),
                )
                for kind in ("insertion", "deletion"):
                    self.note(f"curve {name}", getattr(other, kind), getattr(mine, kind))
                    self.note(f"area {name}", getattr(other, f"{kind}_auc"), getattr(mine, f"{kind}_auc"))

            masked = self.timed("mask c", self.mask)
            once = self.timed("correlate c", lambda: masked.sensitivity(saliency))
            self.timed("correlate ten c", lambda: [masked.sensitivity(one) for one in list(self.maps.values())[:10]])
            masks = masked.masks.to(self.images)
            theirs = self.timed(
                "mask a",
                lambda: torch.stack(self.one_by_one(authors.sensitivity, self.images, saliency, last=(masks,))),
                self.few,
            )
            # one masked pixel moves the output by little more than rounding
            for index, size in enumerate(self.sizes):
                self.note(f"correlation {size}", theirs[:, index], once[:, index])
            self.note("mean correlation", theirs.mean(1), once.mean(1))
            self.timed("mask b", lambda: self.quantus.sensitivity(saliency))

            self.timed("road c", lambda: road(self.ours.readable, self.images, saliency, target=self.target))
            if not self.options.skip_quantus_road:
                shares = [round(100 * share) for share in PERCENTAGES]
                self.timed("road b", lambda: self.quantus.road(saliency, shares))
            for chunk in self.options.chunks:
                self.timed(f"chunk {chunk}", partial(self.exchange, order, chunk, self.few), self.few)

    def table(self) -> list[str]:
        costs = self.costs
        options = self.options
        sensitivity = [m + c for m, c in zip(costs["mask c"], costs["correlate c"], strict=True)]
        of_ten = [m + c for m, c in zip(costs["mask c"], costs["correlate ten c"], strict=True)]
        ten = {key: [cost.times(10) for cost in costs[key]] for key in ("exchange a", "exchange c", "mask a", "road c")}

        def joined(*parts: list[Cost]) -> list[Cost]:
            return [first + second for first, second in zip(*parts, strict=True)]

        by_size = ", ".join(f"{self.apart[f'correlation {size}']:.1g}" for size in self.sizes)
        curves = {
            name: f"curves within {self.apart[f'curve {name}']:.1g}, areas {self.apart[f'area {name}']:.1g} of (c)'s"
            for name in "ab"
        }
        mean = f"mean over sizes within {self.apart['mean correlation']:.1g} of (c)'s"
        steps = f"insertion + deletion, {options.steps} steps each"
        masks = f"Sensitivity-N, {len(self.sizes)} sizes, {options.masks} masks"
        a = costs["exchange a"]
        c = costs["exchange c"]
        lines = [
            row(steps, "(a)", a, a, curves["a"]),
            row("", "(b)", costs["exchange b"], a, curves["b"]),
            row("", "(c)", c, a, ""),
            row(masks, "(a)", costs["mask a"], costs["mask a"], mean),
            row("another Sensitivity-N, see below", "(b)", costs["mask b"], None, "another measure"),
            row(masks, "(c)", sensitivity, costs["mask a"], ""),
            row("all of these, 1 map", "(a)", joined(a, costs["mask a"]), joined(a, costs["mask a"]), ""),
            row("", "(c)", joined(c, sensitivity), joined(a, costs["mask a"]), ""),
            row("Sensitivity-N, 10 maps", "(a) x 10", ten["mask a"], ten["mask a"], ""),
            row("", "(c)", of_ten, ten["mask a"], ""),
            row(
                "all of these, 10 maps",
                "(a) x 10",
                joined(ten["exchange a"], ten["mask a"]),
                joined(ten["exchange a"], ten["mask a"]),
                "",
            ),
            row("", "(c)", joined(ten["exchange c"], of_ten), joined(ten["exchange a"], ten["mask a"]), ""),
        ]
        if "road b" in costs:
            lines.append(row("ROAD, 7 shares, one order", "(b)", costs["road b"], None, "an accuracy, see below"))
        lines.append(row("ROAD, 7 shares, both orders", "(c)", costs["road c"], None, ""))
        if "road b" in costs:
            ratios = [b.seconds / mine.seconds for b, mine in zip(costs["road b"], costs["road c"], strict=True)]
            lines += ["", f"ROAD: (b) takes {middle(ratios, 1)} times as long as (c), for half of the orders."]
        # the pixel loop takes every pixel in any number of steps, the network's part grows with the steps
        more = self.pixels / FULL_STEP / options.steps
        full = [(x.seconds - x.inside + more * x.inside) / (more * y.seconds) for x, y in zip(a, c, strict=True)]
        lines += [
            "",
            f"With the authors' {FULL_STEP} pixels a step, {more:.1f} times as many copies, (a)/(c) of insertion and "
            f"deletion would be {middle(full, 2, 'x')}: reckoned from the above, the exchange of single pixels in (a) "
            "being the same in any number of steps.",
            "",
            "Largest differences of Sensitivity-N's correlations between (a) and (c), for "
            f"{', '.join(map(str, self.sizes))} masked pixels: {by_size}.",
        ]
        if options.chunks:
            lines += [
                "",
                "Insertion and deletion of (c) by copies in a pass (`chunk`):",
                "",
                "| chunk | seconds per image | ms a copy in the network | outside |",
                "|---|---|---|---|",
            ]
            for chunk in options.chunks:
                found = costs[f"chunk {chunk}"]
                pace = middle([1000 * cost.inside / cost.copies for cost in found], 1)
                outside = statistics.median(1 - cost.inside / cost.seconds for cost in found)
                lines.append(f"| {chunk} | {middle([x.seconds for x in found])} | {pace} | {100 * outside:.1f} % |")
        return lines


def maps_of(model: nn.Module, train: list[Tensor], images: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Maps of ten kinds: of the evaluation's seven methods and three random ones."""
    methods = line_up("features.denseblock3", score=False)
    maps = {name: methods[name].fit(model, train).attribute(model, images, target) for name in MAPS}
    generator = torch.Generator().manual_seed(0)
    for index in range(3):
        maps[f"random {index}"] = torch.rand(maps["IBA"].shape, generator=generator).to(images.device)
    return maps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt_path", type=Path, help="a ClassificationTask of this project; trained here if absent")
    parser.add_argument("--nih", type=Path, help="real X-rays of this NIH ChestX-ray8 root, not the phantom")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--author_images", type=int, default=1, help="of these, how many (a) judges, one at a time")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=32, help="of insertion and of deletion; must divide the pixels")
    parser.add_argument("--sizes", type=int, default=8, help="numbers of masked pixels of Sensitivity-N")
    parser.add_argument("--masks", type=int, default=30, help="random masks per number")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--chunks", type=int, nargs="*", default=[8, 16, 32, 64])
    parser.add_argument("--skip_quantus_road", action="store_true", help="it solves its systems one by one")
    parser.add_argument("--train_steps", type=int, default=150)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, help="write the table to this file too")
    options = parser.parse_args()
    if options.size**2 % options.steps:
        parser.error(f"--steps {options.steps} does not divide {options.size} x {options.size} pixels, as Quantus asks")
    if options.author_images > options.images:
        parser.error("--author_images must not exceed --images")
    if not 1 <= options.repeats <= len(MAPS):
        parser.error(f"--repeats must lie in 1 to {len(MAPS)}, one kind of map each")

    device = torch.device(options.device)
    began = time.perf_counter()
    model = trained_network(options.ckpt_path, options.train_steps, options.size).to(device)
    model = model.to(memory_format=torch.contiguous_format)  # as the authors run it; ours lays out its copies itself
    if options.nih is None:
        data = SyntheticDataModule(size=options.size, num_train=64, num_val=4 * options.images, augment=False, seed=1)
    else:
        data = NIHDataModule(root=str(options.nih), size=options.size, augment=False)
    data.setup("fit")
    train = data.dataset("train")
    stream = [torch.stack([train[i]["image"] for i in range(k, k + 16)]).to(device) for k in range(0, 64, 16)]
    shown = data.explained_dataset("validate")
    samples = [shown[i] for i in range(options.images)]
    images = torch.stack([sample["image"] for sample in samples]).to(device)
    target = torch.tensor([int(s["box_labels"][0]) if len(s["box_labels"]) else 0 for s in samples], device=device)

    paths = {str(options.ckpt_path): "CKPT", str(options.nih): "DIR"}
    command = origin.command("benchmarks.perturbation_speed", paths)
    head = [
        f"`{command}`, commit {origin.commit()}",
        "",
        f"{origin.machine(device)}; {options.images} "
        f"{'X-rays' if options.nih else 'phantoms'} of {options.size} px, (a) and the chunks on "
        f"{options.author_images} of them, {options.repeats} repeats in turn on maps of "
        f"{', '.join(MAPS[: options.repeats])}: median (range).",
        "",
        "| measure | procedure | seconds per image | (a) / this | copies, passes | ms a copy in the network "
        "| outside the network | agreement |",
        "|---|---|---|---|---|---|---|---|",
    ]
    comparison = Comparison(model, images, target, maps_of(model, stream, images, target), options)
    with torch.no_grad():  # first calls plan their convolutions
        for count in {16, 31, 64, 80, *options.chunks}:
            model(images[:1].expand(count, -1, -1, -1).contiguous())
    for index in range(options.repeats):
        comparison.repeat(comparison.maps[MAPS[index]])
        print(f"repeat {index + 1}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    text = "\n".join([*head, *comparison.table()]) + "\n"
    print(text)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text("# Speed of the perturbation measures\n\n" + text)


if __name__ == "__main__":
    main()
