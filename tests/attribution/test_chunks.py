import pytest
import torch
from tiny_models import Static
from torch import nn

from lightning_chex.attribution import IBA, chunks
from lightning_chex.attribution import iba as iba_module
from lightning_chex.attribution.chunks import bytes_per_row, chunk_size, in_chunks
from lightning_chex.attribution.optimization import Problem
from lightning_chex.attribution.partition import partition


def test_a_chunk_that_does_not_fit_is_halved_and_nothing_is_lost_or_done_twice():
    tried = []

    def run(start, stop):
        tried.append((start, stop))
        if stop - start > 3:
            raise torch.OutOfMemoryError("too much")
        return list(range(start, stop))

    results = list(in_chunks(8, 8, run))
    assert [x for part in results for x in part] == list(range(8))
    assert tried == [(0, 8), (0, 4), (0, 2), (2, 4), (4, 6), (6, 8)]


def test_other_errors_and_a_single_row_too_large_are_passed_on():
    def hungry(start, stop):
        raise torch.OutOfMemoryError("too much")

    def broken(start, stop):
        raise RuntimeError("a bug")

    with pytest.raises(torch.OutOfMemoryError):
        list(in_chunks(4, 4, hungry))
    with pytest.raises(RuntimeError, match="a bug"):
        list(in_chunks(4, 4, broken))


def test_running_out_of_memory_changes_no_map(monkeypatch):
    torch.manual_seed(0)
    model, images, target = Static(), torch.randn(6, 1, 16, 16), torch.tensor([0, 1, 2, 0, 1, 2])
    attributor = IBA(layer="body", batch_size=6).fit(model, [torch.randn(60, 1, 16, 16)])
    expected = attributor.attribute(model, images, target)
    real, sizes = iba_module.optimize, []

    def scarce(problem, *arguments):
        sizes.append(len(problem.features))
        if len(problem.features) > 2:
            real(problem, *arguments)
            raise torch.OutOfMemoryError("after all the work")
        return real(problem, *arguments)

    monkeypatch.setattr(iba_module, "optimize", scarce)
    torch.testing.assert_close(attributor.attribute(model, images, target), expected, rtol=1e-5, atol=1e-9)
    assert sizes == [6, 3, 1, 1, 1, 1, 1, 1]


def problem_of(model, layer, images):
    parts = partition(model, layer, images)
    with torch.no_grad():
        features, carried = parts.below(images)
        reference = parts.above(features.clone(), carried)
    return Problem(
        parts, features, carried, torch.zeros(len(images), dtype=torch.long), reference, lambda o, t, r: o[:, 0]
    )


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
    sizes = [stop - start for start, stop in in_chunks(17, 16, lambda start, stop: (start, stop))]
    assert sizes == [9, 8]


def test_more_noise_means_smaller_chunks_on_a_cpu(monkeypatch):
    monkeypatch.setattr(chunks, "CPU_BYTES", 8 * 6 * 8 * 8 * 4)
    problem = problem_of(Static().requires_grad_(False), "body", torch.randn(1, 1, 16, 16))
    assert [chunk_size(problem, noise, None) for noise in (1, 2, 4, 100)] == [8, 4, 2, 1]


def test_a_system_that_does_not_tell_its_free_memory_is_no_reason_to_stop(monkeypatch):
    def silent(name):
        raise ValueError("unrecognized configuration name")  # as macOS says of SC_AVPHYS_PAGES

    problem = problem_of(Static().requires_grad_(False), "body", torch.randn(1, 1, 16, 16))
    monkeypatch.setattr(chunks.os, "sysconf", silent)
    assert 1 <= chunk_size(problem, 2, memory=None) <= 16
