"""Time and memory of one attribute() call against images, size, layer and classes, one thing varied at a time.

    python -m benchmarks.attribution_scaling --output benchmarks/results/attribution_scaling.md

Weights and images are random: neither time nor memory depends on them. Memory is what the call adds at its peak to a
process of its own; seconds are the best of --repeats calls after one that warms up.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from torch import Tensor

from benchmarks import origin
from benchmarks.timing import peak_gib, seconds_of
from lightning_chex.attribution import IBA

BASE = {"images": 16, "size": 224, "layer": "features.denseblock3", "classes": 1}
VARIED: dict[str, tuple[object, ...]] = {
    "images": (1, 4, 16, 64, 256, 512),
    "size": (128, 224, 320, 512),
    "layer": ("features.denseblock3", "features.denseblock2", "features.denseblock1"),
    "classes": (1, 2, 4, 8),
}


def explaining(images: int, size: int, layer: str, classes: int, device: str) -> Callable[[], Tensor]:
    model = timm.create_model("densenet121", num_classes=8).eval().to(device)
    iba = IBA(layer).fit(model, [torch.randn(10, 3, size, size, device=device) for _ in range(5)])
    x = torch.randn(images, 3, size, size, device=device)
    target = torch.arange(classes, device=device).expand(images, -1)
    return lambda: iba.attribute(model, x, target)


def timed(repeats: int, images: int, size: int, layer: str, classes: int, device: str) -> list[float]:
    run = explaining(images, size, layer, classes, device)
    run()
    return [seconds_of(run, torch.device(device))[0] for _ in range(repeats)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--most_images", type=int, default=512)
    parser.add_argument("--vary", nargs="+", default=list(VARIED), choices=list(VARIED))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, help="write the table to this file too")
    options = parser.parse_args()

    lines = [
        "# Attribution: time and memory",
        "",
        f"`{origin.command('benchmarks.attribution_scaling')}`, commit {origin.commit()}",
        "",
        f"{origin.machine(options.device)}. "
        f"DenseNet-121, IBA with its defaults; where not varied: {BASE}. Seconds: best of {options.repeats} (worst).",
        "",
        "| varied | value | seconds per image | seconds per map | peak GiB |",
        "|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for name in options.vary:
        for value in VARIED[name]:
            setting = BASE | {name: value}
            if int(str(setting["images"])) > options.most_images:
                continue
            arguments = (*setting.values(), options.device)
            seconds = timed(options.repeats, *arguments)
            memory = peak_gib(explaining, *arguments, device=options.device)
            images = int(str(setting["images"]))
            classes = int(str(setting["classes"]))
            best = min(seconds) / images
            worst = max(seconds) / images
            lines.append(f"| {name} | {value} | {best:.4f} ({worst:.4f}) | {best / classes:.4f} | {memory:.2f} |")
            print(lines[-1], flush=True)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
