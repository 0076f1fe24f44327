"""Methods that share what they run give the maps they give alone."""

import pytest
import torch
from tiny_models import Dynamic, Skip, Static, Unrepeatable

from lightning_chex.attribution import IBA, GradCAM, InverseIBA, MultiLayerIBA, SharedIBA, shared_features
from lightning_chex.attribution.network.sharing import _KEPT, shared

pytestmark = pytest.mark.filterwarnings("ignore")
LAYERS = ["stem", "body"]


def methods(batch_size=None) -> dict:
    options = {"steps": 4, "batch_size": batch_size}
    return {
        "iba": IBA("body", **options),
        "inverse": InverseIBA("body", **options),
        "again": IBA("body", beta=3.0, **options),
        "other layer": IBA("stem", **options),
        "layers": MultiLayerIBA(LAYERS, **options),
        "joint": SharedIBA(LAYERS, **options),
        "grad_cam": GradCAM("body"),
    }


@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.parametrize("network", [Static, Dynamic, Unrepeatable])
def test_maps_are_those_of_each_method_alone(network, batch_size):
    torch.manual_seed(0)
    model, batch = network(), torch.randn(60, 1, 16, 16)
    images, target, rows = torch.randn(3, 1, 16, 16), torch.tensor([0, 2, 1, 1, 0]), torch.tensor([0, 0, 1, 2, 2])
    fitted = methods(batch_size)
    for method in fitted.values():
        method.fit(model, [batch])
    alone = {name: method.explain(model, images, target, rows) for name, method in fitted.items()}
    with shared_features():
        together = {name: method.explain(model, images, target, rows) for name, method in fitted.items()}
        later = {name: method.explain(model, images, target, rows) for name, method in fitted.items()}
    for name, found in alone.items():
        for others in (together, later):
            assert torch.equal(found.maps, others[name].maps), name
            assert torch.equal(found.convergence.nan_to_num(9), others[name].convergence.nan_to_num(9)), name


def test_what_passes_beside_the_layer_is_shared_too():
    model, images = Skip(), torch.randn(3, 2, 8, 8)
    pair = [method("inner.1", steps=3).fit(model, [torch.randn(60, 2, 8, 8)]) for method in (IBA, InverseIBA)]
    target = torch.zeros(3, dtype=torch.long)
    alone = [method.attribute(model, images, target) for method in pair]
    with shared_features():
        for method, expected in zip(pair, alone, strict=True):
            assert torch.equal(method.attribute(model, images, target), expected)


def test_the_lower_part_runs_once():
    model, images, target = Static(), torch.randn(4, 1, 16, 16), torch.tensor([0, 2, 1, 1])
    pair = [method("body", steps=3).fit(model, [torch.randn(60, 1, 16, 16)]) for method in (IBA, InverseIBA)]
    seen: list[int] = []
    model.stem.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    pair[0].attribute(model, images, target)
    alone = list(seen)
    seen.clear()
    with shared_features():
        for method in pair:
            method.attribute(model, images, target)
    assert seen == alone and sum(alone) >= 4
    for method in pair:  # nothing is kept beyond
        method.attribute(model, images, target)
    assert len(seen) == 3 * len(alone)


def test_other_images_are_run_and_so_are_changed_ones():
    model, images, target = Static(), torch.randn(2, 1, 16, 16), torch.tensor([0, 2])
    method = IBA("body", steps=3).fit(model, [torch.randn(60, 1, 16, 16)])
    other = torch.randn(2, 1, 16, 16)
    expected = method.attribute(model, other, target)
    with shared_features():
        first = method.attribute(model, images, target)
        assert torch.equal(method.attribute(model, other, target), expected)
        assert not torch.equal(first, expected)
        images.copy_(other)
        assert torch.equal(method.attribute(model, images, target), expected)
        for _ in range(5):  # images that come and go may get the same place in memory
            method.attribute(model, torch.randn(2, 1, 16, 16), target)
        assert torch.equal(method.attribute(model, other.clone(), target), expected)


def test_an_exception_within_ends_the_sharing():
    model, images, runs = Static(), torch.randn(1, 1, 8, 8), []
    with pytest.raises(ZeroDivisionError), shared_features():
        shared(model, images, "what", lambda: runs.append(1))
        shared(model, images, "what", lambda: runs.append(1))
        raise ZeroDivisionError
    assert len(runs) == 1
    shared(model, images, "what", lambda: runs.append(1))
    assert len(runs) == 2


def test_an_autocast_around_a_call_counts():
    model, images, target = Static(), torch.randn(2, 1, 16, 16), torch.tensor([0, 2])
    method = IBA("body", steps=3).fit(model, [torch.randn(60, 1, 16, 16)])
    alone = method.attribute(model, images, target)
    with torch.autocast("cpu", torch.bfloat16):
        half = method.attribute(model, images, target)
    assert not torch.equal(alone, half)
    with shared_features():
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(method.attribute(model, images, target), half)
        assert torch.equal(method.attribute(model, images, target), alone)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(method.attribute(model, images, target), half)


def test_where_memory_does_not_suffice_nothing_stays_held():
    """A chunk of several images fails once; what was kept of it is given back before smaller ones are tried."""
    model, images, target = Static(), torch.randn(4, 1, 16, 16), torch.tensor([0, 2, 1, 1])
    method = IBA("body", steps=3, batch_size=4).fit(model, [torch.randn(60, 1, 16, 16)])
    held = []

    def scarce(module, inputs, output):
        if torch.is_grad_enabled() and len(inputs[0]) > 2 * method.settings.noise_samples:
            held.append(len(_KEPT.get()))
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = model.head.register_forward_hook(scarce)
    with pytest.warns(UserWarning, match="halved until 2"), shared_features():
        halved = method.attribute(model, images, target)
        rows = [len(found[0].features[0]) for found in _KEPT.get().values()]
    handle.remove()
    assert held and 4 not in rows and rows.count(2) == 2
    torch.testing.assert_close(halved, method.attribute(model, images, target), rtol=1e-3, atol=1e-6)
