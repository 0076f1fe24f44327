import gc
import warnings
import weakref

import pytest
import torch
from tiny_models import Static
from torch import nn

from lightning_chex.attribution import (
    IBA,
    EveryPixel,
    FeatureStatistics,
    GradCAM,
    InputIBA,
    InverseIBA,
    MultiLayerIBA,
    SharedIBA,
)
from lightning_chex.attribution.bottleneck import layer_maps, memory
from lightning_chex.attribution.bottleneck.iba import complement_is_noise
from lightning_chex.attribution.bottleneck.memory import bytes_per_row, chunk_size
from lightning_chex.attribution.bottleneck.optimization import Problem
from lightning_chex.attribution.network.chunks import in_chunks
from lightning_chex.attribution.network.partition import partition


def test_a_chunk_that_does_not_fit_is_halved_and_nothing_is_lost_or_done_twice():
    tried = []

    def run(start, stop):
        tried.append((start, stop))
        if stop - start > 3:
            raise torch.OutOfMemoryError("too much")
        return list(range(start, stop))

    method = EveryPixel()
    with pytest.warns(UserWarning, match=r"EveryPixel: halved until 2 image\(s\) .* batch_size: 2 of the attributor"):
        results = list(in_chunks(8, 8, run, method))
    assert [x for part in results for x in part] == list(range(8))
    assert tried == [(0, 8), (0, 4), (0, 2), (2, 4), (4, 6), (6, 8)]
    tried.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(in_chunks(4, 8, run, method))
    assert tried == [(0, 2), (2, 4)]  # what fits is known, and was said


def test_other_errors_and_a_single_row_too_large_are_passed_on():
    def hungry(start, stop):
        raise torch.OutOfMemoryError("too much")

    def broken(start, stop):
        raise RuntimeError("a bug")

    with pytest.raises(torch.OutOfMemoryError, match="a single image at a time: take a deeper layer.*too much"):
        list(in_chunks(4, 4, hungry, EveryPixel()))
    with pytest.raises(RuntimeError, match="a bug"):
        list(in_chunks(4, 4, broken, EveryPixel()))


def test_running_out_of_memory_changes_no_map(monkeypatch):
    torch.manual_seed(0)
    model, images, target = Static(), torch.randn(6, 1, 16, 16), torch.tensor([0, 1, 2, 0, 1, 2])
    attributor = IBA(layer="body", batch_size=6).fit(model, [torch.randn(60, 1, 16, 16)])
    expected = attributor.attribute(model, images, target)
    real, sizes = layer_maps.optimize, []

    def scarce(problem, *arguments):
        sizes.append(len(problem.features))
        if len(problem.features) > 2:
            real(problem, *arguments)
            raise torch.OutOfMemoryError("after all the work")
        return real(problem, *arguments)

    monkeypatch.setattr(layer_maps, "optimize", scarce)
    torch.testing.assert_close(attributor.attribute(model, images, target), expected, rtol=1e-5, atol=1e-9)
    assert sizes == [6, 3, 1, 1, 1, 1, 1, 1]


class Scarce(nn.Module):
    """A layer for whose output there is room up to a number of rows."""

    def __init__(self, limit: int, error: type[Exception], words: str) -> None:
        super().__init__()
        self.limit, self.error, self.words = limit, error, words
        self.refused: list[int] = []

    def forward(self, x):
        if len(x) > self.limit:
            self.refused.append(len(x))
            raise self.error(self.words)
        return x


def scarce_model(
    limit: int, error: type[Exception] = torch.OutOfMemoryError, words: str = "CUDA out of memory"
) -> tuple:
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU()]
    scarce = Scarce(limit, error, words)
    head = [scarce, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)]
    return nn.Sequential(*convolutions, *head), scarce


ERRORS = [
    (torch.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2.00 GiB"),
    (RuntimeError, "MPS backend out of memory (MPS allocated: 8.1 GB)"),
    (RuntimeError, "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
]
METHODS = {
    "iba": lambda **o: IBA("1", steps=2, **o),
    "inverse": lambda **o: InverseIBA("1", steps=2, **o),
    "several layers": lambda **o: MultiLayerIBA(["1", "3"], steps=2, **o),
    "shared": lambda **o: SharedIBA(["1", "3"], steps=2, **o),
    "input": lambda **o: InputIBA("1", steps=2, **o),
    "grad_cam": lambda **o: GradCAM("3", **o),
}


@pytest.mark.parametrize("method", METHODS)
def test_maps_after_running_out_of_memory_are_those_of_the_smaller_chunks(method):
    # 8 targets in chunks of 4, halved to 2, of which the bottlenecks run two noise draws each
    model, scarce = scarce_model(limit=10**6)
    images, target = torch.randn(8, 1, 16, 16), torch.arange(8) % 3
    many = METHODS[method](batch_size=4).fit(model, [torch.randn(60, 1, 16, 16)])
    few = METHODS[method](batch_size=2)
    few.load_state_dict(many.state_dict())
    expected = few.attribute(model, images, target)
    scarce.limit = 2 if method == "grad_cam" else 4
    with pytest.warns(UserWarning, match=r"halved until 2 image\(s\) at a time fit"):
        found = many.attribute(model, images, target)
    assert torch.equal(found, expected) and found.abs().sum() > 0
    assert scarce.refused


@pytest.mark.parametrize(("error", "words"), ERRORS)
def test_every_backends_way_to_say_it_is_understood(error, words):
    model, scarce = scarce_model(10**6)
    attributor = IBA("1", steps=2, batch_size=8).fit(model, [torch.randn(60, 1, 16, 16)])
    scarce.limit, scarce.error, scarce.words = 8, error, words
    with pytest.warns(UserWarning, match="halved until 4"):
        maps = attributor.attribute(model, torch.randn(8, 1, 16, 16), torch.zeros(8, dtype=torch.long))
    assert maps.shape == (8, 16, 16) and scarce.refused == [16]
    scarce.limit = 0
    with pytest.raises(torch.OutOfMemoryError, match="does not suffice to explain a single image"):
        attributor.attribute(model, torch.randn(2, 1, 16, 16), torch.tensor([0, 1]))
    assert [module for module in model.modules() if module._forward_hooks] == []


def test_what_a_failed_chunk_had_made_is_gone_before_the_next_try():
    made = []

    def run(start, stop):
        assert all(reference() is None for reference in made)
        large = torch.zeros(stop - start, 1000)
        made.append(weakref.ref(large))
        if stop - start > 2:
            raise torch.OutOfMemoryError("too much")
        return int(large.sum())

    gc.disable()  # by counting references alone, as between two tries nothing else may come
    try:
        with pytest.warns(UserWarning, match="halved"):
            assert sum(in_chunks(8, 8, run, EveryPixel())) == 0
    finally:
        gc.enable()
    assert len(made) == 6


def problem_of(model, layer, images):
    parts = partition(model, layer, images)
    with torch.no_grad():
        features, carried = parts.below(images)
        reference = parts.above(features.clone(), carried)
    target = torch.zeros(len(images), dtype=torch.long)
    return Problem(parts, features, carried, target, reference, FeatureStatistics(), complement_is_noise)


def test_bytes_per_row_count_activations_but_not_weights():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 10, 1), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                          nn.Linear(10, 500_000)).requires_grad_(False)  # fmt: skip
    found = bytes_per_row(problem_of(model, "0", torch.randn(1, 1, 8, 8)), noise_samples=3)
    features, activations = 2 * 64 * 4, 10 * 64 * 4
    # what Tanh returned is kept for its backward pass; the weights of half a million outputs are not a row's
    assert 16 * features + 3 * activations <= found < 16 * features + 3 * (3 * features + 3 * activations)


def test_the_chunk_follows_the_budget():
    problem = problem_of(Static().requires_grad_(False), "body", torch.randn(1, 1, 64, 64))
    row = bytes_per_row(problem, 2)
    assert chunk_size(problem, 2, memory=5.5 * row / 2**30) == 5
    assert chunk_size(problem, 2, memory=0.1 * row / 2**30) == 1
    assert 1 <= chunk_size(problem, 2, memory=None) <= 16


def test_chunks_are_of_equal_size():
    sizes = [stop - start for start, stop in in_chunks(17, 16, lambda start, stop: (start, stop), EveryPixel())]
    assert sizes == [9, 8]


def test_more_noise_means_smaller_chunks_on_a_cpu(monkeypatch):
    monkeypatch.setattr(memory, "CPU_BYTES", 8 * 6 * 8 * 8 * 4)
    problem = problem_of(Static().requires_grad_(False), "body", torch.randn(1, 1, 16, 16))
    assert [chunk_size(problem, noise, None) for noise in (1, 2, 4, 100)] == [8, 4, 2, 1]


def test_a_system_that_does_not_tell_its_free_memory_is_no_reason_to_stop(monkeypatch):
    def silent(name):
        raise ValueError("unrecognized configuration name")  # as macOS says of SC_AVPHYS_PAGES

    problem = problem_of(Static().requires_grad_(False), "body", torch.randn(1, 1, 16, 16))
    monkeypatch.setattr(memory.os, "sysconf", silent)
    assert 1 <= chunk_size(problem, 2, memory=None) <= 16
