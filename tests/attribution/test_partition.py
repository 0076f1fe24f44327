import linecache
import warnings

import pytest
import timm
import torch
import torchvision
from tiny_models import Dynamic, Skip, Static, Unrepeatable
from torch import nn

from lightning_chex.attribution import IBA, LayerError, frozen
from lightning_chex.attribution.network.partition import partition, select_carried
from lightning_chex.attribution.network.replay import ReplayPartition

BACKBONES = {
    "densenet121": "features.denseblock3",
    "resnet18": "layer3",
    "efficientnet_lite0": "blocks.4",
    "convnext_atto": "stages.2",
    "seresnext26d_32x4d": "layer3.0",
    "resnet50": "layer3",
    "convnext_tiny": "stages.2",
    "vit_tiny_patch16_224": "patch_embed.proj",
}


def assert_cut_is_seamless(model, layer, images):
    with warnings.catch_warnings(), frozen(model), torch.no_grad():
        warnings.simplefilter("error")  # falling back to whole passes warns
        parts = partition(model, layer, images)
        features, carried = parts.below(images)
        # bigger than the batch the lower part saw, as with several noise samples
        output = parts.above(
            features.repeat(3, 1, 1, 1), select_carried(carried, len(images), torch.arange(len(images)).repeat(3))
        )
        torch.testing.assert_close(output, model(images).repeat(3, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BACKBONES)
def test_timm_models_are_cut_and_joined_without_a_seam(name):
    side = 224 if name.endswith("224") else 64
    assert_cut_is_seamless(timm.create_model(name, num_classes=3), BACKBONES[name], torch.randn(2, 3, side, side))


@pytest.mark.parametrize(("name", "layer"), [("densenet121", "features.denseblock2"), ("resnet18", "layer2.0.conv1")])
def test_torchvision_models_are_cut_too(name, layer):
    assert_cut_is_seamless(torchvision.models.get_model(name, num_classes=3), layer, torch.randn(2, 3, 64, 64))


def test_a_cut_leaves_no_source_code_in_memory():
    model, images = timm.create_model("resnet18", num_classes=3).eval(), torch.randn(1, 3, 64, 64)
    before = set(linecache.cache)
    partition(model, "layer2.0.conv1", images)
    assert set(linecache.cache) == before  # torch.fx files there what it generates


class OneChannelDenseNet(nn.Module):
    """In the style of torchxrayvision: it looks at the shape and values of its input, which fx cannot trace."""

    def __init__(self):
        super().__init__()
        body = torchvision.models.densenet121(num_classes=5)
        self.features, self.classifier = body.features, body.classifier
        self.features.conv0 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)

    def forward(self, x):
        if x.shape[1] != 1 or x.min() < -1024:
            raise ValueError("one channel in [-1024, 1024] is expected")
        return self.classifier(torch.nn.functional.relu(self.features(x), inplace=True).mean((2, 3)))


def test_what_cannot_be_traced_is_replayed_without_running_the_lower_part_again():
    model, images = OneChannelDenseNet(), torch.randn(2, 1, 64, 64)
    runs = []
    model.features.denseblock1.denselayer1.register_forward_hook(lambda *_: runs.append(1))
    with frozen(model), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        parts = partition(model, "features.denseblock3", images)
        assert isinstance(parts, ReplayPartition)
        features, carried = parts.below(images)
        runs.clear()
        index = torch.arange(2).repeat(3)
        output = parts.above(features[index], select_carried(carried, 2, index))
        assert not runs
        torch.testing.assert_close(output, model(images)[index], rtol=1e-4, atol=1e-5)
    assert all("forward" not in module.__dict__ for module in model.modules())


def test_a_replay_gives_back_values_that_are_used_beside_the_layer():
    class Branching(Skip):
        def forward(self, x):
            if x.sum() > -1e9:
                return super().forward(x)
            return x

    model, images = Branching(), torch.randn(3, 2, 8, 8)
    with frozen(model), torch.no_grad():
        parts = partition(model, "inner.1", images)
        assert isinstance(parts, ReplayPartition)
        features, carried = parts.below(images)
        torch.testing.assert_close(parts.above(features, carried), model(images))


def test_values_that_pass_beside_the_layer_are_carried_along():
    assert_cut_is_seamless(Skip(), "inner.1", torch.randn(3, 2, 8, 8))


@pytest.mark.parametrize("network", [Dynamic, Unrepeatable])
def test_cut_replayed_or_run_whole_the_maps_are_the_same(network):
    static, other = Static(), network()
    other.load_state_dict(static.state_dict())
    batch, images, target = torch.randn(60, 1, 16, 16), torch.randn(3, 1, 16, 16), torch.tensor([0, 2, 1])
    cut = IBA(layer="body", steps=4).fit(static, [batch]).attribute(static, images, target)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = IBA(layer="body", steps=4).fit(other, [batch]).attribute(other, images, target)
    torch.testing.assert_close(found, cut, rtol=1e-4, atol=1e-7)
    said = {str(w.message) for w in caught if "cannot be cut at 'body'" in str(w.message)}
    assert len(said) == (network is Unrepeatable)  # it says so, once and only where it is slow


@pytest.mark.filterwarnings("ignore:.*cannot be cut.*")
@pytest.mark.parametrize("network", [Static, Dynamic, Unrepeatable])
def test_an_in_place_activation_behind_the_layer_leaves_the_features_alone(network):
    model = network()
    images = torch.randn(2, 1, 16, 16)
    expected = model.body(torch.relu(model.stem(images)))
    assert (expected < 0).any()
    with torch.no_grad():
        features, _ = partition(model, "body", images).below(images)
    torch.testing.assert_close(features, expected)


@pytest.mark.filterwarnings("ignore:.*cannot be cut.*")
@pytest.mark.parametrize("where", ["", "inner"])
def test_hooks_of_the_model_and_of_what_holds_the_layer_take_part(where):
    model, images = Skip(), torch.randn(3, 2, 8, 8)
    hooked = model.get_submodule(where)
    hooked.register_forward_pre_hook(lambda module, inputs: (3 * inputs[0],))
    hooked.register_forward_hook(lambda module, inputs, output: output - 1)
    with frozen(model), torch.no_grad():
        parts = partition(model, "inner.1", images)
        torch.testing.assert_close(parts.above(*parts.below(images)), model(images))


def test_an_unknown_layer_names_its_neighbours():
    model = timm.create_model("resnet18", num_classes=2)
    with pytest.raises(LayerError, match=r"layer='layer33'.*layer3"):
        IBA(layer="layer33").check(model)
    with pytest.raises(LayerError, match=r"layer='backbone\.layer3'.*\blayer3"):
        IBA(layer="backbone.layer3").check(model)
    with pytest.raises(LayerError, match="layer=''"):
        IBA(layer="").check(model)


def test_a_layer_without_a_feature_map_is_refused():
    model = timm.create_model("resnet18", num_classes=2)
    with pytest.raises(LayerError, match=r"layer='fc' gives shape \(1, 2\).*layers with a feature map: layer\d"):
        IBA(layer="fc").check(model, torch.randn(1, 3, 64, 64))


def test_tokens_of_a_vision_transformer_are_refused_for_its_feature_map():
    # beside the tokens the class token would carry information past the bottleneck
    model = timm.create_model("vit_tiny_patch16_224", num_classes=2)
    with pytest.raises(LayerError, match=r"layer='blocks\.3' gives shape \(1, 197, 192\).*patch_embed\.proj"):
        IBA(layer="blocks.3").check(model, torch.randn(1, 3, 224, 224))


@pytest.mark.filterwarnings("ignore:.*cannot be cut.*")
class ChannelsLast(nn.Module):
    """Works on (B, h, w, C), as Swin transformers do."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 4, 4)
        self.blocks = nn.Sequential(nn.Linear(5, 5), nn.GELU())
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x).permute(0, 2, 3, 1)).mean((1, 2)))


def test_a_map_with_its_channels_last_is_refused_with_the_layers_that_do():
    model, images = ChannelsLast(), torch.randn(2, 3, 32, 32)
    with pytest.raises(LayerError, match=r"'blocks' gives shape \(2, 8, 8, 5\).*channels last.*feature map: stem"):
        IBA(layer="blocks").check(model, images)
    with pytest.raises(LayerError, match="channels last"):
        IBA(layer="blocks").fit(model, [images])
    IBA(layer="stem").check(model, images)


def test_a_layer_that_runs_twice_is_refused():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x):
            return self.conv(self.conv(x)).mean((2, 3))

    with pytest.raises(LayerError, match="runs 2 times"):
        IBA(layer="conv").fit(Twice(), [torch.randn(4, 1, 8, 8)])
