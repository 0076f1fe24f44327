import pytest
import torch
from tiny_models import OneCell, Regressor, Skip, Static
from torch import nn
from unchanged import unchanged

from lightning_chex.attribution import GradCAM, Gradient, IntegratedGradients

# every method that sends an output back, at a layer that all networks of this file have
METHODS = [Gradient(), IntegratedGradients((0.5,), steps=4), GradCAM("body")]
by_name = pytest.mark.parametrize("method", METHODS, ids=[type(m).__name__ for m in METHODS])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Static()


@pytest.fixture
def images():
    return torch.randn(5, 1, 16, 16, generator=torch.Generator().manual_seed(1))


def differences(model, image, output, step=1e-5):
    """Derivative of one output by every value of one image (C, H, W), by central differences."""
    slopes = torch.zeros_like(image)
    with torch.no_grad():
        for i in range(image.numel()):
            shift = torch.zeros_like(image)
            shift.view(-1)[i] = step
            slopes.view(-1)[i] = (model((image + shift)[None]) - model((image - shift)[None]))[0, output] / (2 * step)
    return slopes


def test_the_gradient_is_the_largest_absolute_difference_quotient_of_the_channels():
    torch.manual_seed(0)
    model = Skip().double().eval()  # two channels, smooth but for its ReLU
    image = torch.randn(2, 6, 6, dtype=torch.float64)
    found = Gradient().attribute(model, image[None], torch.tensor([2]))[0]
    torch.testing.assert_close(found.double(), differences(model, image, 2).abs().amax(0), rtol=1e-4, atol=1e-7)


def test_the_gradient_of_a_linear_score_is_its_weight():
    maps = Gradient().attribute(OneCell(-3.0, 2, 5), torch.randn(2, 1, 8, 8))
    expected = torch.zeros(2, 8, 8)
    expected[:, 2, 5] = 3
    assert torch.equal(maps, expected)


@pytest.mark.parametrize("baseline", [(0.3,), "blurred"])
def test_integrated_gradients_add_up_to_the_outputs_rise(model, images, baseline):
    method = IntegratedGradients(baseline, steps=200, sign="signed")
    target = torch.tensor([0, 1, 2, 1, 0])
    maps = method.attribute(model, images, target)
    with torch.no_grad():
        rise = model(images) - model(method.baseline_of(images))
    rise = rise.gather(1, target[:, None])[:, 0]
    assert rise.abs().min() > 1e-3  # there is something to add up to
    torch.testing.assert_close(maps.sum((1, 2)), rise, rtol=0.01, atol=2e-4)


def test_integrated_gradients_of_a_square_follow_the_integral():
    class Square(nn.Module):
        def forward(self, x):
            return x.square().sum((1, 2, 3))

    image = torch.tensor([[[[1.0, -2.0], [0.5, 3.0]]]])
    # the integral of 2 (b + t (x - b)) (x - b) over t is x^2 - b^2
    expected = image[:, 0].square() - 0.25
    for sign, change in (("signed", lambda m: m), ("absolute", torch.abs), ("positive", lambda m: m.clamp(min=0))):
        maps = IntegratedGradients((0.5,), steps=3, sign=sign).attribute(Square(), image)
        torch.testing.assert_close(maps, change(expected))


def test_channels_are_summed_before_the_sign_goes():
    class Opposed(nn.Module):
        def forward(self, x):
            return (x[:, 0] - 3 * x[:, 1]).sum((1, 2))

    maps = IntegratedGradients((0.0, 0.0), steps=2).attribute(Opposed(), torch.ones(1, 2, 2, 2))
    torch.testing.assert_close(maps, torch.full((1, 2, 2), 2.0))


def test_the_blurred_baseline_is_a_gaussian_of_nineteen_taps():
    images = torch.zeros(1, 1, 41, 41)
    images[0, 0, 20, 20] = 1
    blurred = IntegratedGradients("blurred").baseline_of(images)[0, 0]
    taps = torch.exp(-torch.arange(-9.0, 10).square() / 200)
    taps /= taps.sum()
    torch.testing.assert_close(blurred[11:30, 11:30], taps[:, None] * taps)
    assert blurred.sum().item() == pytest.approx(1)


@by_name
@pytest.mark.parametrize("flat", [False, True])
def test_scores_are_explained_without_a_target_and_the_true_score_is_not_used(method, flat, images):
    torch.manual_seed(0)
    model = Regressor(flat)
    maps = method.attribute(model, images)
    assert maps.shape == (5, 16, 16) and maps.sum() > 0
    rows = torch.arange(5)
    assert torch.equal(maps, method.attribute(model, images, torch.full((5,), 7.5), rows))
    assert method.explains_class is None and method.num_observed is None


@by_name
def test_targets_of_any_images_in_any_number(method, model, images):
    target = torch.tensor([[0, 1], [2, 0], [1, 1], [2, 1], [0, 2]])
    several = method.attribute(model, images, target)
    assert several.shape == (5, 2, 16, 16) and several.dtype == torch.float32 and (several >= 0).all()
    rows, values = torch.tensor([4, 0, 4, 2]), torch.tensor([2, 1, 0, 1])
    chosen = method.attribute(model, images, values, rows)
    expected = torch.stack([several[4, 1], several[0, 1], several[4, 0], several[2, 0]])
    torch.testing.assert_close(chosen, expected)
    assert method.attribute(model, images, values[:0], rows[:0]).shape == (0, 16, 16)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_batch_size_changes_no_map(model, images, size):
    target = torch.tensor([0, 1, 2, 1, 0])
    for method in METHODS:
        together = method.attribute(model, images, target)
        own, former = method.batch_size, together
        try:
            method.batch_size = size
            torch.testing.assert_close(method.attribute(model, images, target), former, rtol=1e-4, atol=1e-6)
        finally:
            method.batch_size = own


@by_name
def test_nothing_is_left_on_the_model_and_the_same_call_gives_the_same_map(method, images):
    torch.manual_seed(0)
    model = nn.ModuleDict({"net": Static()})["net"].train()
    model.stem.weight.requires_grad_(False)
    target = torch.zeros(5, dtype=torch.long)
    kept = images.clone()
    with unchanged(model):
        first = method.attribute(model, images, target)
        with torch.inference_mode():
            second = method.attribute(model, images.clone(), target)
    with unchanged(model), pytest.raises(ValueError, match="outputs 0 to 2"):
        method.attribute(model, images, target + 3)
    assert torch.equal(first, second)
    assert torch.equal(images, kept) and not images.requires_grad and not first.requires_grad


@by_name
def test_an_in_place_first_layer_does_not_meet_the_leaf(method, images):
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("first", nn.ReLU(inplace=True))
    model.add_module("body", nn.Conv2d(1, 2, 3))
    model.add_module("pool", nn.AdaptiveAvgPool2d(1))
    model.add_module("flat", nn.Flatten())
    kept = images.clone()
    assert method.attribute(model, images, torch.ones(5, dtype=torch.long)).shape == (5, 16, 16)
    assert torch.equal(images, kept)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gradient(batch_size=0), "batch_size=0"),
        (lambda: IntegratedGradients("blured"), "baseline='blured'"),
        (lambda: IntegratedGradients(steps=0), "steps=0"),
        (lambda: IntegratedGradients(sign="plus"), "sign='plus'"),
        (lambda: IntegratedGradients().check(Static(), torch.zeros(1, 1, 4, 4)), "3 values, the images have 1"),
    ],
)
def test_wrong_settings_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (None, "3 outputs: give the index"),
        (torch.ones(5), "3 outputs: give the index"),
        (torch.full((5,), -1), "between -1 and -1"),
        (torch.ones(5, dtype=torch.bool), "torch.bool"),
    ],
)
def test_a_target_that_does_not_suit_the_output_is_refused(model, images, target, message):
    with pytest.raises(ValueError, match=message):
        Gradient().attribute(model, images, target)


def test_an_index_into_a_single_score_is_refused(images):
    with pytest.raises(ValueError, match="target=None for a single score"):
        Gradient().attribute(Regressor(flat=True), images, torch.zeros(5, dtype=torch.long))


def test_an_output_that_is_no_vector_is_refused(images):
    with pytest.raises(ValueError, match=r"shape \(5, 1, 16, 16\)"):
        Gradient().attribute(nn.Identity(), images)
