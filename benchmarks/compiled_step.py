"""Does torch.compile pay for the network above the layer? One optimisation step's passes, eager and compiled.

    python -m benchmarks.compiled_step --threads 1

Forward and gradient of DenseNet-121 above a layer for 16 rows of features at 224 px, as attribute() runs them.
"""

import argparse
import time
from collections.abc import Callable

import timm
import torch
from torch import Tensor

from lightning_chex.attribution.network.execution import affine_batch_norm
from lightning_chex.attribution.network.partition import partition


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layer", default="features.denseblock3")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    model = timm.create_model("densenet121", num_classes=8).eval().requires_grad_(False)
    image = torch.randn(1, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    parts = partition(model, options.layer, image)
    with torch.no_grad():
        features, carried = parts.below(image)
    features = features.repeat(options.rows, 1, 1, 1).contiguous(memory_format=torch.channels_last)

    def eager(leaf: Tensor) -> Tensor:
        with affine_batch_norm(leaf.device):
            return parts.above(leaf, carried)

    def step(above: Callable[[Tensor], Tensor]) -> float:
        start = time.perf_counter()
        leaf = features.clone().requires_grad_(True)
        torch.autograd.grad(above(leaf)[:, 0].sum(), leaf)
        return time.perf_counter() - start

    compiled = torch.compile(lambda leaf: parts.above(leaf, carried))
    print(f"{options.layer}, {options.rows} rows, {options.threads} thread(s), torch {torch.__version__}")
    for name, above in (("eager", eager), ("compiled", compiled)):
        first = step(above)
        rows = sorted(1000 * step(above) / options.rows for _ in range(options.repeats))
        print(
            f"{name}: first call {first:.1f} s, then {rows[len(rows) // 2]:.2f} ms a row ({rows[0]:.2f}-{rows[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
