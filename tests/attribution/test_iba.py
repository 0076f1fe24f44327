import copy
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import timm
import torch
from test_bottleneck import conv_blur
from tiny_models import Patchwork, Regressor, Skip, Static
from torch import nn
from torch.nn import functional as F

from lightning_chex.attribution import IBA, FeatureStatistics
from lightning_chex.attribution.bottleneck.mask import Bottleneck


@pytest.fixture(scope="module")
def network():
    """A small convolutional classifier in double precision, trained to tell where a bright square lies."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 4),
    ).double()  # fmt: skip
    adam = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        images, labels = squares(32)
        adam.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        adam.step()
    return model.requires_grad_(True)


def squares(count):
    """Noise with a bright square in one quarter; the label is the quarter."""
    images = torch.randn(count, 1, 16, 16, dtype=torch.float64) * 0.3
    labels = torch.randint(0, 4, (count,))
    for image, label in zip(images, labels.tolist(), strict=True):
        y, x = 8 * (label // 2), 8 * (label % 2)
        image[0, y + 2 : y + 6, x + 2 : x + 6] += 1.5
    return images, labels


def plain_iba(above, features, mean, std, target, *, beta, steps, lr, noise, constant):
    """Eq. 1-3 for one image, straight from the formulas: autograd through everything, one convolution for the blur."""
    alpha = torch.full_like(features, 2.0, requires_grad=True)
    adam = torch.optim.Adam([alpha], lr=lr, betas=(0.5, 0.9))
    falling = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1.0 if constant else 1 - step / steps)
    floored = std.clamp(min=0.01)

    def information():
        lam = conv_blur(torch.sigmoid(alpha))
        variance = (1 - lam) ** 2
        return lam, ((lam * (features - mean) / floored) ** 2 + variance - variance.log() - 1) / 2

    for epsilon in noise(steps):
        lam, nats = information()
        z = lam * features + (1 - lam) * (mean + std * epsilon)
        loss = beta * nats.mean() + F.binary_cross_entropy_with_logits(
            above(z)[:, target], torch.ones(len(z), dtype=z.dtype)
        )
        adam.zero_grad()
        loss.backward()
        adam.step()
        falling.step()
    cells = information()[1].detach().sum(1, keepdim=True) / math.log(2)
    return F.interpolate(cells * cells[0].numel() / 256, (16, 16), mode="bilinear")[:, 0]


@pytest.mark.parametrize(("samples", "schedule"), [(1, "linear"), (2, "linear"), (2, "constant"), (5, "constant")])
def test_a_whole_optimisation_equals_a_plain_loop_from_the_formulas(network, samples, schedule):
    images, target = squares(3)
    batches = squares(100)[0].split(30)
    iba = IBA(layer="3", beta=4.0, steps=10, lr=1.0, lr_schedule=schedule, noise_samples=samples, seed=7)
    iba.fit(network, batches)
    maps = iba.attribute(network, images, target)

    with torch.no_grad():
        stream = torch.cat([network[:4](batch) for batch in batches])
        features = network[:4](images)

    def noise(steps):  # documented: pairs epsilon, -epsilon, drawn from a generator of that seed
        generator = torch.Generator().manual_seed(7)
        for _ in range(steps):
            half = torch.randn((samples // 2 + samples % 2, 1, 12, 8, 8), generator=generator, dtype=torch.float64)
            yield torch.cat([half, -half[: samples // 2]])[:, 0]

    for i in range(3):
        expected = plain_iba(
            network[4:], features[i : i + 1], stream.mean(0), stream.std(0), int(target[i]),
            beta=4.0, steps=10, lr=1.0, noise=noise, constant=schedule == "constant",
        )  # fmt: skip
        # the statistics are handed over in float32
        torch.testing.assert_close(maps[i : i + 1].double(), expected, rtol=1e-3, atol=1e-6)


def test_the_masks_gradient_equals_finite_differences(network):
    features = network[:4](squares(2)[0]).detach()
    iba = IBA(layer="3", beta=3.0).fit(network, [squares(50)[0]])
    mask = Bottleneck(features, iba.statistics, blur_sigma=1.0, initial_alpha=0.0, lr=1.0)
    mask.alpha.copy_(torch.randn_like(features))
    alpha = mask.alpha.clone()
    noise = mask.draw_noise(3, torch.Generator().manual_seed(1))
    weights = torch.randn_like(features)

    def objective(alpha):
        complement = conv_blur(torch.sigmoid(-alpha))
        mixed = ((1 - complement) * mask.features + complement * noise[:, None]).flatten(0, 1)
        r, lam = mask.normalized, 1 - complement
        nats = ((lam * r) ** 2 + complement**2 - 2 * complement.log() - 1) / 2
        return (3.0 * nats.mean((1, 2, 3))).sum() + (weights.repeat(3, 1, 1, 1) * mixed.sin()).sum() / 3

    lam, complement = mask.mask()
    mixed = mask.mix(noise, complement)
    loss_gradient = mask.signal_gradient(noise, weights.repeat(3, 1, 1, 1) * mixed.cos() / 3)
    mask.step(3.0 / features[0].numel(), lam, complement, loss_gradient)
    for index in torch.randint(0, features.numel(), (25,)).tolist():
        step = torch.zeros(features.numel(), dtype=torch.float64)
        step[index] = 1e-5
        step = step.view_as(features)
        slope = (objective(alpha + step) - objective(alpha - step)) / 2e-5
        assert mask.alpha_gradient.flatten()[index].item() == pytest.approx(slope.item(), rel=1e-5, abs=1e-9)


def test_bits_lie_where_the_network_looks():
    model = Patchwork(slice(2, 6), slice(9, 13))
    maps = (
        IBA(layer="features.1", beta=2.0, blur_sigma=0.5)
        .fit(model, [torch.randn(100, 1, 16, 16)])
        .attribute(model, torch.randn(4, 1, 16, 16) + 1, torch.zeros(4, dtype=torch.long))
    )
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[2:6, 9:13] = True
    # nothing but the patch can matter: what is left outside is what 10 steps could not remove
    assert (maps[:, inside].mean(1) > 5 * maps[:, ~inside].mean(1)).all()


def test_a_class_nobody_computes_keeps_no_more_than_the_optimiser_leaves_everywhere():
    model = Patchwork(slice(2, 6), slice(9, 13))
    iba = IBA(layer="features.1", beta=2.0).fit(model, [torch.randn(100, 1, 16, 16)])
    images = torch.randn(4, 1, 16, 16)
    used, unused = (iba.attribute(model, images, torch.full((4,), c)) for c in (0, 1))
    assert (unused.sum((1, 2)) < used.sum((1, 2))).all()


def test_a_map_does_not_know_its_batch_mates(network):
    model = copy.deepcopy(network).float()
    images, target = squares(9)
    images = images.float()
    iba = IBA(layer="3", batch_size=4, noise_samples=2).fit(model, [squares(60)[0].float()])
    together = iba.attribute(model, images, target)
    alone = torch.cat([iba.attribute(model, images[i : i + 1], target[i : i + 1]) for i in range(9)])
    shuffled = torch.randperm(9)
    mixed = iba.attribute(model, images[shuffled], target[shuffled])
    for other in (alone, mixed[shuffled.argsort()]):
        assert ((together - other).flatten(1).norm(dim=1) <= 1e-5 * together.flatten(1).norm(dim=1)).all()


def test_one_seed_gives_one_map_and_leaves_the_global_random_state_alone(network):
    images, target = squares(3)
    iba = IBA(layer="3", seed=3).fit(network, [squares(40)[0]])
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = iba.attribute(network, images, target)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(12)
    assert torch.equal(iba.attribute(network, images, target), first)
    other = IBA(layer="3", seed=4)
    other.load_state_dict(iba.state_dict())
    assert not torch.equal(other.attribute(network, images, target), first)


def snapshot(model):
    return (
        {k: v.clone() for k, v in model.state_dict().items()},
        [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()],
        [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
    )


def assert_same(before, after):
    for key, value in before[0].items():
        assert torch.equal(value, after[0][key]), key
    for (needs, grad), (needs_now, grad_now) in zip(before[1], after[1], strict=True):
        assert needs == needs_now
        assert (grad is None) == (grad_now is None)
        assert grad is None or torch.equal(grad, grad_now)
    assert before[2] == after[2]


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was_found_also_after_an_exception(fails):
    model = Skip()
    model(torch.randn(4, 2, 8, 8)).sum().backward()  # gradients that a training is about to use
    model.inner.eval()  # a mixture of modes
    model.stem.weight.requires_grad_(False)
    images, target = torch.randn(3, 2, 8, 8), torch.tensor([0, 1, 2])
    before = snapshot(model)  # before fit too: what that broke, a later look would take for granted
    iba = IBA(layer="inner.1").fit(model, [torch.randn(30, 2, 8, 8)])
    assert_same(before, snapshot(model))
    if fails:

        def broken(output, target, reference):
            raise KeyboardInterrupt

        iba.settings = replace(iba.settings, objective=broken)
        with pytest.raises(KeyboardInterrupt):
            iba.attribute(model, images, target)
        with pytest.raises(ValueError, match="one size"):
            iba.fit(model, [torch.randn(4, 2, 8, 8), torch.randn(4, 2, 6, 6)])
        with pytest.raises(ZeroDivisionError), iba.observing(model):
            model(images)
            _ = 1 / 0
        assert iba.num_observed == 30
        before[0].update({k: v for k, v in model.state_dict().items() if "running" in k or "num_batches" in k})
    else:
        iba.attribute(model, images, target)
    assert_same(before, snapshot(model))


def test_weights_receive_no_gradient_while_the_model_is_explained():
    model = Skip()
    seen = []
    model.stem.register_forward_hook(
        lambda module, inputs, output: seen.append([p.requires_grad for p in model.parameters()] + [model.training])
    )
    iba = IBA(layer="inner.1").fit(model, [torch.randn(30, 2, 8, 8)])
    iba.attribute(model, torch.randn(3, 2, 8, 8), torch.tensor([0, 1, 2]))
    assert len(seen) > 1
    assert not any(any(flags) for flags in seen)


def test_threads_explaining_one_model_leave_it_as_it_was():
    model = Skip()
    images, target = torch.randn(3, 2, 8, 8), torch.tensor([0, 1, 2])
    iba = IBA(layer="inner.1").fit(model, [torch.randn(30, 2, 8, 8)])
    before, expected = snapshot(model), iba.attribute(model, images, target)
    with ThreadPoolExecutor(4) as pool:
        maps = list(pool.map(lambda _: iba.attribute(model, images, target), range(12)))
    assert_same(before, snapshot(model))
    for found in maps:
        torch.testing.assert_close(found, expected)


def test_it_works_inside_inference_mode_with_tensors_made_there(network):
    images, target = squares(3)
    iba = IBA(layer="3").fit(network, [squares(40)[0]])
    expected = iba.attribute(network, images, target)
    with torch.inference_mode():
        assert torch.equal(iba.attribute(network, images + 0, target + 0), expected)
    with torch.no_grad():
        assert torch.equal(iba.attribute(network, images, target), expected)


def test_observing_ordinary_passes_equals_fitting(network):
    batches = squares(40)[0].split(16)
    fitted = IBA(layer="3").fit(network, batches)
    watched = IBA(layer="3")
    with torch.inference_mode(), watched.observing(network):
        for batch in batches:
            network(batch)
    assert watched.num_observed == 40
    torch.testing.assert_close(watched.statistics.mean, fitted.statistics.mean)
    torch.testing.assert_close(watched.statistics.std, fitted.statistics.std)


def test_more_steps_never_give_nan_and_no_bit_is_negative(network):
    images, target = squares(2)
    model = copy.deepcopy(network).float()
    constant = {"lr_schedule": "constant", "adam_betas": (0.9, 0.999)}
    for options in ({}, constant):
        for beta in (0.0, 1000.0):  # nothing pushes towards noise; nothing else pushes
            iba = IBA(layer="3", beta=beta, steps=300, lr=3.0, **options).fit(model, [squares(60)[0].float()])
            maps = iba.attribute(model, images.float(), target)
            assert torch.isfinite(maps).all()
            assert (maps >= 0).all()
    assert maps.sum() < 0.1  # beta 1000 and an optimiser that does not forget: all noise


def statistics_of(features):
    statistics = FeatureStatistics()
    statistics.update(features)
    return statistics


@pytest.mark.parametrize("push", [1.0, -1.0])
def test_alpha_ends_where_the_mask_is_still_finite(push):
    features = torch.randn(2, 3, 4, 4)
    mask = Bottleneck(features, statistics_of(torch.randn(60, 3, 4, 4)), 1.0, 5.0, lr=100.0)
    for _ in range(4):
        lam, complement = mask.mask()
        mask.step(0.0, lam, complement, torch.full_like(features, push))
    assert (mask.alpha.sign() == -push).all()
    lam, complement = mask.mask()
    assert complement.min() > 0
    assert torch.isfinite(mask.capacity()).all()
    mask.step(1.0, lam, complement, torch.zeros_like(features))
    assert torch.isfinite(mask.alpha_gradient).all()


@pytest.mark.parametrize("alpha", [-40.0, -20.0, 20.0, 40.0])
def test_the_gradient_does_not_vanish_where_sigmoid_rounds_to_one(alpha):
    features, statistics = torch.randn(2, 3, 4, 4), statistics_of(torch.randn(60, 3, 4, 4))
    found = Bottleneck(features, statistics, 1.0, alpha, lr=1.0)
    exact = Bottleneck(features.double(), statistics, 1.0, alpha, lr=1.0)
    for mask in (found, exact):
        mask.step(0.0, *mask.mask(), torch.ones_like(mask.features))
    torch.testing.assert_close(found.alpha_gradient.double(), exact.alpha_gradient, rtol=1e-5, atol=0)
    assert (found.alpha_gradient > 0).all()


def test_a_neuron_that_was_never_active_stays_at_its_mean_whatever_the_image_does():
    seen = torch.randn(400, 2, 4, 4)
    seen[:, 0] = 0
    seen[0, 0] = 100  # in one image of 400: it has a deviation, but says nothing
    features = torch.randn(3, 2, 4, 4)
    mask = Bottleneck(features, statistics_of(seen), 1.0, 0.0, lr=1.0)
    noise = mask.draw_noise(2, torch.Generator().manual_seed(0))
    lam, complement = mask.mask()
    mixed = mask.mix(noise, complement)
    torch.testing.assert_close(mixed[:, 0], torch.full_like(mixed[:, 0], 0.25))  # 100 / 400
    # and pulls at no mask: only the other channel's information does
    mask.step(1.0, lam, complement, torch.zeros_like(features))
    assert (mask.alpha_gradient[:, 0] == 0).all()
    assert (mask.alpha_gradient[:, 1] > 0).all()


def test_a_tiny_deviation_is_taken_for_the_floor():
    seen = torch.randn(400, 2, 4, 4) * torch.tensor([1e-4, 1.0])[:, None, None]
    features = torch.full((1, 2, 4, 4), 0.5)
    statistics = statistics_of(seen)
    assert statistics.active.all()
    mask = Bottleneck(features, statistics, 1.0, 0.0, lr=1.0)
    torch.testing.assert_close(mask.normalized[0, 0], (0.5 - statistics.mean[0]).float() / 0.01)


def test_larger_beta_keeps_fewer_bits(network):
    images, target = squares(4)
    batches = [squares(60)[0]]
    totals = [
        IBA(layer="3", beta=beta, steps=20).fit(network, batches).attribute(network, images, target).sum()
        for beta in (0.1, 1.0, 10.0, 100.0)
    ]
    assert totals == sorted(totals, reverse=True)


def test_neurons_without_information_get_no_bits():
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.copy_(torch.tensor([-1.0, 2.0, 0.0]))  # dead, constant, and one that varies
        model[0].weight[2] = 1
    images = torch.randn(5, 1, 6, 6)
    iba = IBA(layer="1").fit(model, [torch.randn(50, 1, 6, 6)])
    assert iba.statistics.active.flatten(1).any(1).tolist() == [False, False, True]
    mask = Bottleneck(model[:2](images).detach(), iba.statistics, 1.0, 5.0, 1.0)
    assert (mask.capacity()[:, :2] == 0).all()
    assert torch.isfinite(iba.attribute(model, images, torch.ones(5, dtype=torch.long))).all()


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("objective", ["squared_error", "maximize_score", "deviation"])
def test_regression_objectives_run_on_both_output_shapes(flat, objective):
    model = Regressor(flat)
    iba = IBA(layer="body", objective=objective, beta=0.1).fit(model, [torch.randn(40, 1, 10, 10)])
    assert not iba.explains_class
    target = torch.tensor([1.0, 2.0]) if objective == "squared_error" else None
    maps = iba.attribute(model, torch.randn(2, 1, 10, 10), target)
    assert maps.shape == (2, 10, 10)
    assert (maps >= 0).all()
    assert maps.sum() > 0


def test_masks_stay_in_float32_under_autocast():
    torch.manual_seed(0)
    model = Static()
    batch, images, target = torch.randn(60, 1, 16, 16), torch.randn(4, 1, 16, 16), torch.tensor([0, 1, 2, 0])
    expected = IBA(layer="body").fit(model, [batch]).attribute(model, images, target)
    with torch.autocast("cpu", torch.bfloat16):
        maps = IBA(layer="body").fit(model, [batch]).attribute(model, images, target)
    assert maps.dtype == torch.float32
    # the network's own rounding stays; a mask in bfloat16 would be off by far more
    assert torch.corrcoef(torch.stack([maps.flatten(), expected.flatten()]))[0, 1] > 0.99


def test_a_model_in_bfloat16_is_explained_in_its_own_precision():
    model = timm.create_model("resnet18", num_classes=3).bfloat16()
    images = torch.randn(3, 3, 64, 64).bfloat16()
    iba = IBA(layer="layer3", steps=2).fit(model, [torch.randn(4, 3, 64, 64).bfloat16()])
    maps = iba.attribute(model, images, torch.tensor([0, 1, 2]))
    assert maps.dtype == torch.float32
    assert torch.isfinite(maps).all()


def test_wrong_use_is_named(network):
    images, target = squares(3)
    iba = IBA(layer="3")
    with pytest.raises(RuntimeError, match="call fit"):
        iba.attribute(network, images, target)
    with pytest.raises(ValueError, match="at least 2 images, the batches held 1"):
        iba.fit(network, [images[:1]])
    iba.fit(network, [squares(20)[0]])
    with pytest.raises(ValueError, match=r"target has shape \(2,\); 3 images"):
        iba.attribute(network, images, target[:2])
    with pytest.raises(ValueError, match=r"images have shape \(1, 16, 16\)"):
        iba.attribute(network, images[0], target[:1])
    with pytest.raises(ValueError, match="target holds class 4; the model has 4 outputs"):
        iba.attribute(network, images, torch.tensor([0, 4, 1]))
    with pytest.raises(ValueError, match=r"shape \(12, 10, 10\), the statistics \(12, 8, 8\)"):
        iba.attribute(network, torch.randn(1, 1, 20, 20).double(), target[:1])
    with pytest.raises(ValueError, match="NaN or infinite"):
        iba.attribute(network, images * float("nan"), target)
    for arguments, name in (
        ({"beta": -1}, "beta=-1"), ({"beta": float("inf")}, "beta=inf"), ({"lr": float("nan")}, "lr=nan"),
        ({"blur_sigma": float("inf")}, "blur_sigma=inf"), ({"steps": 0}, "steps=0"),
        ({"noise_samples": 0}, "noise_samples=0"),
        ({"lr": 0}, "lr=0"), ({"objective": "mse"}, "objective='mse'"), ({"batch_size": 0}, "batch_size=0"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=name):
            IBA(layer="3", **arguments)


def test_no_image_gives_no_map(network):
    iba = IBA(layer="3").fit(network, [squares(20)[0]])
    assert iba.attribute(network, squares(1)[0][:0], torch.zeros(0, dtype=torch.long)).shape == (0, 16, 16)
