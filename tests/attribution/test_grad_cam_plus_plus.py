import pytest
import torch
from tiny_models import Static
from torch import nn
from torch.nn import functional as F
from unchanged import unchanged

from lightning_chex.attribution import GradCAM, GradCAMPlusPlus, LayerError


class Piecewise(nn.Module):
    """Piecewise linear behind its feature map, with gradients of both signs and a dead unit or two."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU())
        self.hidden = nn.Linear(3 * 4 * 4, 6)
        self.head = nn.Linear(6, 2)

    def above(self, features):
        return self.head(torch.relu(self.hidden(features.flatten(1))))

    def forward(self, x):
        return self.above(F.max_pool2d(self.body(x), 1))


def by_derivatives(model, image, target):
    """Grad-CAM++ by its definition (Eq. 2, 10), from the first three derivatives of Y = exp(S), place by place."""
    features = model.body(image[None]).detach()
    channels, height, width = features.shape[1:]
    weights, scale = [], model.above(features)[0, target].exp()
    for k in range(channels):
        total = features[0, k].sum()
        weight = 0.0
        for i in range(height):
            for j in range(width):
                value = features[0, k, i, j].clone().requires_grad_()
                places = features.clone()
                places[0, k, i, j] = value
                y = model.above(places)[0, target].exp()
                (first,) = torch.autograd.grad(y, value, create_graph=True)
                (second,) = torch.autograd.grad(first, value, create_graph=True)
                (third,) = torch.autograd.grad(second, value)
                denominator = 2 * second + total * third
                alpha = second / denominator if denominator != 0 else 0.0
                weight += float((alpha * first.clamp(min=0)).detach())
        weights.append(weight)
    cam = sum(weight * features[0, k] for k, weight in enumerate(weights)).clamp(min=0)
    return cam / scale  # the constant of a map that is left out


def test_it_is_its_definition_by_the_first_three_derivatives():
    torch.manual_seed(0)
    model = Piecewise().double()
    images, target = torch.randn(3, 1, 4, 4, dtype=torch.float64), torch.tensor([0, 1, 1])
    found = GradCAMPlusPlus("body").attribute(model, images, target)
    for one, image, k in zip(found, images, target, strict=True):
        torch.testing.assert_close(one.double(), by_derivatives(model, image, k), rtol=1e-5, atol=1e-7)
    assert (found.amax((1, 2)) > 0).all() and (found == 0).any()


def test_it_counts_small_places_that_grad_cam_averages_away():
    """Two channels, one with a single cell that matters; Grad-CAM weighs it by 1 / 16, Grad-CAM++ does not."""

    class TwoPlaces(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.ReLU()

        def forward(self, x):
            features = self.body(x)
            return (features[:, 0, 0, 0] + features[:, 1].sum((1, 2)))[:, None]

    image = torch.zeros(1, 2, 4, 4)
    image[0, 0, 0, 0] = 1
    image[0, 1, 3, :] = 1
    target = torch.tensor([0])
    plain = GradCAM("body").attribute(TwoPlaces(), image, target)[0]
    counted = GradCAMPlusPlus("body").attribute(TwoPlaces(), image, target)[0]
    assert plain[0, 0] / plain[3, 0] == pytest.approx(1 / 16)
    # alpha of the small channel is 1 / (2 + 1), of 16 places of the large one 1 / (2 + 4) each
    assert counted[0, 0] == pytest.approx(1 / 3) and counted[3, 0] == pytest.approx(16 / 6)


def test_no_map_depends_on_its_batch_and_the_model_stays_as_it_was():
    torch.manual_seed(0)
    model, images = Static().train(), torch.randn(5, 1, 16, 16)
    target = torch.tensor([0, 1, 2, 1, 0])
    with unchanged(model):
        together = GradCAMPlusPlus("body").attribute(model, images, target)
    alone = torch.cat(
        [GradCAMPlusPlus("body").attribute(model, images[i : i + 1], target[i : i + 1]) for i in range(5)]
    )
    torch.testing.assert_close(together, alone)


def test_a_layer_without_a_feature_map_is_named():
    with pytest.raises(LayerError, match="head"):
        GradCAMPlusPlus("head").attribute(Static(), torch.randn(1, 1, 16, 16), torch.tensor([0]))
