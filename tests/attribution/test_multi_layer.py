import numpy as np
import pytest
import timm
import torch
from skimage.filters import threshold_otsu
from tiny_models import Skip
from torch import nn

from lightning_chex.attribution import IBA, LayerError, MultiLayerIBA
from lightning_chex.attribution.bottleneck.multi_layer import binarize

LAYERS = ["0", "2"]


@pytest.fixture(scope="module")
def setting():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(6, 8, 3, stride=2, padding=1),
        nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip
    return model, [torch.randn(40, 1, 16, 16), torch.randn(30, 1, 16, 16)], torch.randn(3, 1, 16, 16)


def test_each_layers_map_is_that_of_iba_at_that_layer(setting):
    model, stream, images = setting
    target = torch.tensor([0, 2, 1])
    multi = MultiLayerIBA(LAYERS, beta=[3.0, 5.0]).fit(model, stream)
    maps = multi.layer_maps(model, images, target)
    for layer, beta in zip(LAYERS, (3.0, 5.0), strict=True):
        alone = IBA(layer=layer, beta=beta).fit(model, stream).attribute(model, images, target)
        torch.testing.assert_close(maps[layer], alone, rtol=1e-4, atol=1e-7)


def test_the_authors_variant_gates_the_first_map_by_the_others(setting):
    model, stream, images = setting
    target = torch.tensor([0, 2, 1])
    multi = MultiLayerIBA(LAYERS, combine="gated", rule="rms", threshold=1.2).fit(model, stream)
    maps = multi.layer_maps(model, images, target)
    expected = torch.zeros(3, 16, 16)
    for i in range(3):  # map1 * [map2 / ||map2||_2 >= t], with t = 1.2 / sqrt(H W)
        gate = maps["2"][i] / maps["2"][i].norm() >= 1.2 / 16
        expected[i] = maps["0"][i] * gate
    torch.testing.assert_close(multi.attribute(model, images, target), expected)
    assert 0 < (expected > 0).float().mean() < 1


def test_equation_5_intersects_the_binarised_maps(setting):
    model, stream, images = setting
    target = torch.tensor([[0, 1], [2, 0], [1, 1]])
    multi = MultiLayerIBA(LAYERS, combine="intersection", rule="top_fraction", threshold=0.4).fit(model, stream)
    found = multi.attribute(model, images, target)
    maps = multi.layer_maps(model, images, target)
    assert found.shape == (3, 2, 16, 16)
    assert set(found.unique().tolist()) == {0.0, 1.0}
    for i in range(3):
        for t in range(2):
            both = torch.ones(256, dtype=torch.bool)
            for own in maps.values():
                marked = torch.zeros(256, dtype=torch.bool)
                marked[own[i, t].flatten().argsort(descending=True)[: round(0.4 * 256)]] = True
                both &= marked
            assert torch.equal(found[i, t].flatten().bool(), both)


def test_one_pass_below_serves_all_layers(setting):
    model, stream, images = setting
    multi = MultiLayerIBA(LAYERS, batch_size=8).fit(model, stream)
    seen = []
    handle = model[0].register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    multi.attribute(model, images, torch.tensor([0, 1, 2]))
    handle.remove()
    assert seen == [1, 3]  # the first image tells how the model may be run


def test_values_beside_the_layers_are_carried(setting):
    model = Skip()
    stream, images, target = [torch.randn(60, 2, 8, 8)], torch.randn(2, 2, 8, 8), torch.tensor([3, 0])
    multi = MultiLayerIBA(["stem", "inner.1"]).fit(model, stream)
    maps = multi.layer_maps(model, images, target)
    alone = IBA(layer="inner.1").fit(model, stream).attribute(model, images, target)
    torch.testing.assert_close(maps["inner.1"], alone, rtol=1e-4, atol=1e-7)


def test_statistics_of_all_layers_travel_together(setting):
    model, stream, images = setting
    multi = MultiLayerIBA(LAYERS).fit(model, stream)
    other = MultiLayerIBA(LAYERS)
    other.load_state_dict(multi.state_dict())
    assert other.num_observed == 70
    target = torch.tensor([0, 1, 2])
    assert torch.equal(other.attribute(model, images, target), multi.attribute(model, images, target))


def test_densenet_at_its_three_blocks():
    model = timm.create_model("densenet121", num_classes=4)
    multi = MultiLayerIBA(steps=2).fit(model, [torch.randn(50, 3, 32, 32)])
    maps = multi.attribute(model, torch.randn(2, 3, 32, 32), torch.tensor([0, 3]))
    assert maps.shape == (2, 32, 32)
    assert torch.isfinite(maps).all()


def test_wrong_settings_are_named(setting):
    model, stream, images = setting
    for arguments, message in (
        ({"layers": ["0"]}, "at least two"), ({"layers": ["0", "0"]}, "two different"),
        ({"layers": LAYERS, "beta": [1.0]}, "one for each of the 2 layers"),
        ({"layers": LAYERS, "combine": "union"}, "combine='union'"),
        ({"layers": LAYERS, "rule": "mean"}, "rule='mean'"),
        ({"layers": LAYERS, "rule": "top_fraction"}, "threshold=1.344"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            MultiLayerIBA(**arguments)
    with pytest.raises(LayerError, match="layer='7'"):
        MultiLayerIBA(["0", "7"]).check(model)
    fitted = MultiLayerIBA(LAYERS).fit(model, stream)
    with pytest.raises(ValueError, match="at least 2 images, the batches held 1"):
        fitted.fit(model, [images[:1]])
    assert fitted.num_observed == 70
    with pytest.raises(RuntimeError, match="call fit"):
        MultiLayerIBA(LAYERS).attribute(model, images, torch.tensor([0, 1, 2]))


def test_otsu_agrees_with_scikit_image_where_its_histogram_is_exact():
    generator = torch.Generator().manual_seed(0)
    # 200 values a map fall into 256 bins, each into one of its own
    maps = (torch.rand(4, 20, 20, generator=generator) ** 3 * 199).round()
    maps[1, 3:9, 3:9] += 400
    maps[1] = maps[1] // 3
    for own, marked in zip(maps, binarize(maps, "otsu", 1.0), strict=True):
        values = own.numpy().astype(np.uint8)
        assert np.array_equal(marked.numpy(), values > threshold_otsu(values))


def test_otsu_separates_two_plateaus():
    maps = torch.full((1, 10, 10), 0.1)
    maps[0, 2:5, 2:5] = 0.9
    assert torch.equal(binarize(maps, "otsu", 1.0)[0], maps[0] > 0.5)


def test_rms_is_the_authors_rule_at_their_size():
    maps = torch.rand(3, 224, 224)
    norm = maps.flatten(1).norm(dim=1)[:, None, None]
    assert torch.equal(binarize(maps, "rms", 0.006 * 224), maps / norm >= 0.006)


def test_top_fraction_marks_that_share():
    maps = torch.rand(5, 40, 40)
    assert binarize(maps, "top_fraction", 0.1).flatten(1).sum(1).tolist() == [160] * 5
