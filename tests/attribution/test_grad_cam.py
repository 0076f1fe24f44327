import pytest
import timm
import torch
from tiny_models import Regressor, Static
from torch import nn
from torch.nn import functional as F
from unchanged import unchanged

from lightning_chex.attribution import GradCAM, LayerError


def plain_grad_cam(below, above, image, output):
    """Grad-CAM of one image (1, C, H, W) in plain steps, one channel after the other."""
    features = below(image).detach().requires_grad_(True)
    above(features)[0, output].backward()
    cam = torch.zeros(features.shape[2:])
    for channel in range(features.shape[1]):
        cam += features.grad[0, channel].mean() * features[0, channel].detach()
    return F.interpolate(cam.relu()[None, None], image.shape[2:], mode="bilinear")[0, 0]


@pytest.fixture
def images():
    return torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("layer", ["stem", "body"])
def test_grad_cam_equals_the_formula_also_before_an_activation_in_place(layer, images):
    torch.manual_seed(0)
    model = Static()
    below = {"stem": model.stem, "body": lambda x: model.body(model.stem(x).relu())}[layer]
    above = {
        "stem": lambda f: model.head(model.body(f.relu()).relu().mean((2, 3))),
        "body": lambda f: model.head(f.relu().mean((2, 3))),
    }[layer]
    target = torch.tensor([0, 2, 1])
    maps = GradCAM(layer).attribute(model, images, target)
    expected = torch.stack([plain_grad_cam(below, above, images[i : i + 1], int(target[i])) for i in range(3)])
    assert (expected > 0).any() and (expected == 0).any()
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-7)


def test_grad_cam_of_a_score(images):
    torch.manual_seed(0)
    model = Regressor()
    maps = GradCAM("body").attribute(model, images)
    weights = model.head.weight[0] / 256  # behind the mean over 16 x 16 cells
    with torch.no_grad():
        expected = (weights[:, None, None] * model.body(images)).sum(1).relu()
    torch.testing.assert_close(maps, expected, rtol=1e-4, atol=1e-7)


def test_the_default_layer_is_densenets_last_where_grad_cam_is_cam():
    torch.manual_seed(0)
    model = timm.create_model("densenet121", num_classes=4)
    images, target = torch.randn(2, 3, 64, 64), torch.tensor([3, 1])
    with unchanged(model):
        maps = GradCAM().attribute(model, images, target)
    model.eval()
    with torch.no_grad():
        features = model.forward_features(images)
        cam = torch.einsum("nc,nchw->nhw", model.classifier.weight[target], features).relu() / 4  # of 2 x 2 cells
    expected = F.interpolate(cam[:, None], (64, 64), mode="bilinear")[:, 0]
    torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-6)


def test_a_layer_that_is_not_there_is_named_with_its_like(images):
    with pytest.raises(LayerError, match="layer='bod'.*body"):
        GradCAM("bod").check(Static())
    with pytest.raises(LayerError, match="layer='bod'.*body"):
        GradCAM("bod").attribute(Static(), images, torch.zeros(3, dtype=torch.long))


def test_a_layer_without_feature_map_is_refused_with_those_that_have_one(images):
    GradCAM("body").check(Static(), images)
    with pytest.raises(LayerError, match="not a feature map.*with a feature map: body, stem"):
        GradCAM("head").check(Static(), images)
    with pytest.raises(LayerError, match="not a feature map"):
        GradCAM("head").attribute(Static(), images, torch.zeros(3, dtype=torch.long))


def test_a_layer_that_runs_twice_is_refused(images):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x):
            return self.body(self.body(x)).mean((2, 3))

    model = Twice()
    for call in (GradCAM("body").check, GradCAM("body").attribute):
        with unchanged(model), pytest.raises(LayerError, match="runs 2 times"):
            call(model, images)
