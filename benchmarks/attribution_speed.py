"""How much faster than the authors' procedure, and do the maps agree? One run, one network, the same images.

    python -m benchmarks.attribution_speed --output benchmarks/results/attribution_speed.md

Compares at each layer (a) the authors' procedure as published (benchmarks/authors_procedure.py), (b) IBA with the same
objective, beta, steps and ten independent noise draws, (o) the same with our two antithetic draws, (c) IBA with its
defaults, (d) these with bfloat16, and all layers in one call of MultiLayerIBA. The network is a
DenseNet-121 at 224 px trained on the phantom for --train_steps steps, or the one in --ckpt_path, in PyTorch's plain
memory layout. The methods take turns over the rounds, so that a machine whose speed drifts slows all alike; the median
round counts and the range is printed.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from benchmarks import origin
from benchmarks.authors_procedure import explain_one
from benchmarks.timing import peak_gib, seconds_of
from lightning_chex.attribution import IBA, MultiLayerIBA
from lightning_chex.data import NIHDataModule, SyntheticDataModule
from lightning_chex.tasks import ClassificationTask

LAYERS = ("features.denseblock3", "features.denseblock2", "features.denseblock1")


def trained_network(path: Path | None, steps: int, size: int) -> nn.Module:
    """The network of a checkpoint, or one trained on the phantom."""
    if path is not None:
        return ClassificationTask.load_from_checkpoint(path, weights_only=True, map_location="cpu").eval().model
    import pytorch_lightning as pl

    pl.seed_everything(0)
    data = SyntheticDataModule(size=size, batch_size=16, num_train=16 * steps, num_val=16, augment=False)
    task = ClassificationTask(data.class_names, lr=2e-3, schedule="one_cycle")
    trainer = pl.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, limit_val_batches=0, enable_model_summary=False
    )
    trainer.fit(task, data)
    return task.eval().model


def ours(layer: str) -> dict[str, IBA]:
    """The ways of ours that are compared with the authors', by the letter of their row."""
    published: dict[str, Any] = {
        "objective": "one_hot_binary_cross_entropy",
        "beta": 10.0,
        "steps": 10,
        "lr": 1.0,
        "lr_schedule": "constant",
        "adam_betas": (0.9, 0.999),
        "initial_alpha": 5.0,
    }
    return {
        "b": IBA(layer, noise_samples=10, antithetic=False, **published),
        "o": IBA(layer, **published),
        "c": IBA(layer),
        "d": IBA(layer, bfloat16=True),
    }


def explain_random(method: str, layer: str, size: int, count: int, device: str) -> Callable[[], object]:
    """One explanation of random images by one method, for the memory alone: it depends on shapes, not on weights."""
    model = timm.create_model("densenet121", num_classes=8).eval().to(device)
    images = torch.randn(count, 3, size, size, device=device)
    iba = (IBA(layer) if method == "a" else ours(layer)[method]).fit(model, images.repeat(2, 1, 1, 1).split(4))
    mean = iba.statistics.mean.to(device)
    std = iba.statistics.std.to(device)
    if method == "a":
        return lambda: explain_one(model, model.get_submodule(layer), images[:1], 0, mean, std, 10.0, seed=0)
    return lambda: iba.attribute(model, images, torch.zeros(count, dtype=torch.long))


def agreement(maps: Tensor, reference: Tensor) -> float:
    """Spearman correlation over pixels, mean over images."""
    pairs = zip(maps.cpu(), reference.cpu(), strict=True)
    return statistics.mean(float(spearmanr(a.flatten(), b.flatten()).statistic) for a, b in pairs)


def compare(
    model: nn.Module, layer: str, stream: list[Tensor], images: Tensor, target: Tensor, options: argparse.Namespace
) -> list[str]:
    device = images.device
    mine = ours(layer)
    fitted = mine["b"].fit(model, stream).statistics
    for attributor in mine.values():
        attributor.statistics = fitted
    # ten samples take five times as long, and images do not share anything
    shown = {name: images[: options.equal_noise_images] if name == "b" else images for name in mine}
    mean = fitted.mean.to(device)
    std = fitted.std.to(device)
    module = model.get_submodule(layer)
    few = options.author_images

    def authors(image: Tensor, index: int, seed: int) -> Tensor:
        return torch.stack(explain_one(model, module, image, index, mean, std, 10.0, seed))

    seconds: dict[str, list[float]] = {name: [] for name in ("a", *mine)}
    maps: dict[str, Tensor] = {}
    as_read: list[Tensor] = []
    for name, attributor in mine.items():  # warm up: first calls plan their convolutions
        attributor.attribute(model, shown[name], target[: len(shown[name])])
    for round_ in range(options.rounds):
        taken = 0.0
        rows = []
        for i in range(few):
            one, both = seconds_of(partial(authors, images[i : i + 1], int(target[i]), 1000 * round_ + i), device)
            taken += one
            rows.append(both)
        seconds["a"].append(taken / few)
        read, final = torch.stack(rows, 1)
        maps[f"a{round_}"] = final
        as_read.append(read)
        for name, attributor in mine.items():
            attributor.settings = replace(attributor.settings, seed=round_)
            some = shown[name]
            one, maps[name] = seconds_of(partial(attributor.attribute, model, some, target[: len(some)]), device)
            seconds[name].append(one / len(some))
    model.zero_grad()
    reference = maps["a0"]
    bits = reference.sum((1, 2))
    own = agreement(maps[f"a{options.rounds - 1}"], reference) if options.rounds > 1 else float("nan")
    lines = []
    labels = {
        "a": "(a) authors' procedure, as published",
        "b": "(b) ours, the same objective, 10 draws",
        "o": "(o) ours, the same objective, 2 draws",
        "c": "(c) ours, default",
        "d": "(d) ours, bfloat16",
    }
    for name, label in labels.items():
        ratios = [a / x for a, x in zip(seconds["a"], seconds[name], strict=True)]
        found = maps[name][:few] if name != "a" else maps[f"a{options.rounds - 1}"]
        count = len(shown.get(name, images))
        memory = peak_gib(explain_random, name, layer, options.size, count, str(device), device=device.type)
        ratio_of_bits = found.sum((1, 2)).cpu() / bits.cpu()
        lines.append(
            f"| {layer.split('.')[-1]} | {label} | {statistics.median(seconds[name]):.4f} "
            f"({min(seconds[name]):.4f}-{max(seconds[name]):.4f}) | {statistics.median(ratios):.1f}x "
            f"({min(ratios):.1f}-{max(ratios):.1f}) | {own if name == 'a' else agreement(found, reference):.4f} | "
            f"{float(found.sum() / reference.sum()):.3f} ({ratio_of_bits.min():.2f}-{ratio_of_bits.max():.2f}) | "
            f"{memory:.2f} |"
        )
        print(lines[-1], flush=True)
    early = float(as_read[0].sum() / reference.sum())
    print(f"  as the authors read it, one update earlier, (a) has {early:.3f} of its final bits", flush=True)
    lines.append(
        f"| | (a) read one update earlier, as they do | | | {agreement(as_read[0], reference):.4f} | {early:.3f} | |"
    )
    return lines


def compare_all_layers(
    model: nn.Module, stream: list[Tensor], images: Tensor, target: Tensor, options: argparse.Namespace, authors: float
) -> str:
    multi = MultiLayerIBA().fit(model, stream)
    multi.attribute(model, images, target)
    seconds = [
        seconds_of(lambda: multi.attribute(model, images, target), images.device)[0] / len(images)
        for _ in range(options.rounds)
    ]
    middle = statistics.median(seconds)
    return (
        f"| all three, one call | (c) ours, default | {middle:.4f} ({min(seconds):.4f}-{max(seconds):.4f}) | "
        f"{authors / middle:.1f}x | | | |"
    )


def compare_noise(
    model: nn.Module, layer: str, stream: list[Tensor], images: Tensor, target: Tensor, options: argparse.Namespace
) -> list[str]:
    """What the choice of two samples costs, also where the prediction weighs more than with the paper's beta."""
    lines = [
        "",
        f"Agreement with 20 noise samples at {layer.split('.')[-1]}, {len(images)} images, total bits over theirs in "
        "brackets; a smaller beta gives the noise more say:",
        "",
        "| beta | 1 sample | 2 (default) | 2, bfloat16 | 10 |",
        "|---|---|---|---|---|",
    ]
    statistics_ = IBA(layer).fit(model, stream).statistics
    for beta in options.betas:

        def explain(samples: int, seed: int, bfloat16: bool, beta: float = beta) -> Tensor:
            iba = IBA(layer, beta=beta, noise_samples=samples, seed=seed, bfloat16=bfloat16)
            iba.statistics = statistics_
            return iba.attribute(model, images, target)

        reference = explain(20, 1000, False)
        cells = []
        for samples, bfloat16 in ((1, False), (2, False), (2, True), (10, False)):
            maps = explain(samples, 0, bfloat16)
            cells.append(f"{agreement(maps, reference):.4f} ({float(maps.sum() / reference.sum()):.3f})")
        lines.append(f"| {beta:g} | " + " | ".join(cells) + " |")
    print("\n".join(lines), flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--ckpt_path", type=Path, help="a ClassificationTask of this project; trained here if not given"
    )
    parser.add_argument("--nih", type=Path, help="explain real X-rays of this NIH ChestX-ray8 root, not the phantom")
    parser.add_argument("--images", type=int, default=16, help="images explained by ours, jointly")
    parser.add_argument("--author_images", type=int, default=4, help="of these, how many (a) explains, one at a time")
    parser.add_argument("--equal_noise_images", type=int, default=4, help="of these, how many (b) explains")
    parser.add_argument("--betas", type=float, nargs="*", default=[10, 3, 1, 0.3])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--train_steps", type=int, default=150)
    parser.add_argument("--layers", nargs="+", default=list(LAYERS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, help="write the table to this file too")
    options = parser.parse_args()
    if options.author_images > options.equal_noise_images or options.equal_noise_images > options.images:
        parser.error("--author_images must not exceed --equal_noise_images, nor this --images")

    device = torch.device(options.device)
    model = trained_network(options.ckpt_path, options.train_steps, options.size).to(device)
    model = model.to(memory_format=torch.contiguous_format)  # as the authors run it; ours chooses for itself
    if options.nih is None:
        data = SyntheticDataModule(size=options.size, num_train=400, num_val=options.images * 2, augment=False, seed=1)
    else:
        data = NIHDataModule(root=str(options.nih), size=options.size, augment=False)
    data.setup("fit")
    train = data.dataset("train")
    stream = [torch.stack([train[i]["image"] for i in range(k, k + 16)]).to(device) for k in range(0, 192, 16)]
    shown = data.explained_dataset("validate")
    samples = [shown[i] for i in range(options.images)]
    images = torch.stack([sample["image"] for sample in samples]).to(device)
    target = torch.stack(
        [(sample["box_labels"] if len(sample["box_labels"]) else torch.zeros(1).long())[0] for sample in samples]
    ).to(device)

    head = [
        f"`{origin.command('benchmarks.attribution_speed')}`, commit {origin.commit()}",
        "",
        f"{origin.machine(device)}; "
        f"{options.images} images of {options.size} px jointly, (a) on {options.author_images}, (b) on "
        f"{options.equal_noise_images} of them, "
        f"{options.rounds} rounds in turn: median (range). Agreement: Spearman over pixels with (a)'s final alpha, "
        "mean over images; in the rows of (a) its own between two seeds. Peak memory: growth while explaining, in a "
        "process of its own.",
        "",
        "| layer | method | seconds per image | ratio to (a) | agreement | total bits / (a)'s (per image) | peak GiB |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(head), flush=True)
    lines: list[str] = []
    authors = 0.0

    def write() -> None:
        if options.output:
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text("\n".join(["# Attribution speed", "", *head, *lines]) + "\n")

    for layer in options.layers:
        rows = compare(model, layer, stream, images, target, options)
        authors += float(rows[0].split("|")[3].split()[0])
        lines += rows
        write()  # a long run that is stopped keeps what it has
    if list(options.layers) == list(LAYERS):
        lines.append(compare_all_layers(model, stream, images, target, options, authors))
        print(lines[-1], flush=True)
    if options.betas:
        lines += compare_noise(model, options.layers[0], stream, images[:8], target[:8], options)
    write()


if __name__ == "__main__":
    main()
