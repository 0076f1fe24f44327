import numpy as np
import pytest
import torch
from test_imputation import plain_imputation
from torch import nn

from lightning_chex.metrics import RoadCurves, road


def network(outputs: int | None = None) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 9 * 8, outputs or 1)]
    return nn.Sequential(*layers, *([] if outputs else [nn.Flatten(0)])).eval()


def some(count: int, height: int = 9, width: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, height, width, generator=generator)
    return images, torch.rand(count, height, width, generator=generator)


@pytest.mark.parametrize("outputs", [None, 3])
def test_agrees_with_removing_pixel_by_pixel_and_a_direct_solution(outputs):
    predict, (images, saliency) = network(outputs), some(3)
    target = None if outputs is None else torch.tensor([2, 0, 1])
    settings = {"percentages": (0.25, 0.5, 0.9), "noise": 0.0, "chunk": 4}
    curves = road(predict, images, saliency, target=target, **settings)
    assert curves.share.tolist() == pytest.approx([18 / 72, 36 / 72, 65 / 72])
    for i in range(3):
        order = sorted(np.ndindex(9, 8), key=lambda at: -float(saliency[i][at]))
        for places, curve in ((order, curves.morf), (order[::-1], curves.lerf)):
            for p, count in enumerate((18, 36, 65)):
                missing = np.zeros((9, 8), dtype=bool)
                missing[tuple(zip(*places[:count], strict=True))] = True
                copy = np.stack([plain_imputation(channel.double().numpy(), missing) for channel in images[i]])
                with torch.no_grad():
                    score = predict(torch.from_numpy(copy).float()[None])
                expected = score if target is None else score[:, target[i]]
                assert curve[i, p].item() == pytest.approx(expected.item(), abs=3e-3)


def test_noise_lies_on_removed_pixels_alone_and_is_the_same_for_all():
    images, saliency = some(2)
    seen: list[torch.Tensor] = []

    def predict(inputs):
        seen.append(inputs.clone())
        return inputs.mean((1, 2, 3))

    def copies_of(maps, **settings):
        seen.clear()
        road(predict, images, maps, percentages=(0.25, 0.5), **settings)
        return torch.cat(seen).view(2, 4, 3, 9, 8)  # images, then 25 % and 50 % from the top, then from the bottom

    plain, noisy = copies_of(saliency, noise=0.0), copies_of(saliency, noise=0.5, seed=3)
    added = noisy - plain
    ranks = (-saliency).flatten(1).argsort(dim=1).argsort(dim=1).view(2, 9, 8)
    removed = torch.stack([ranks < 18, ranks < 36, ranks >= 54, ranks >= 36], dim=1)[:, :, None].expand_as(added)
    assert torch.equal(added != 0, removed)
    # one field: wherever a pixel was removed, whatever the image, share and map, the same was added
    other = copies_of(-saliency, noise=0.5, seed=3) - copies_of(-saliency, noise=0.0)
    everything = torch.cat([added, other]).flatten(0, 1)
    low = torch.where(everything == 0, torch.inf, everything).amin(0)
    high = torch.where(everything == 0, -torch.inf, everything).amax(0)
    torch.testing.assert_close(low, high, atol=1e-5, rtol=0)
    assert added[removed].std().item() == pytest.approx(0.5, rel=0.15)
    assert not torch.equal(copies_of(saliency, noise=0.5, seed=4), noisy)
    assert torch.equal(copies_of(saliency, noise=0.5, seed=3), noisy)


def test_each_image_is_judged_by_its_own_target_and_depends_on_no_other():
    predict, (images, saliency) = network(3), some(4)
    target = torch.tensor([2, 0, 1, 2])
    together = road(predict, images, saliency, target=target, chunk=5)
    for i in range(4):
        alone = road(lambda x, i=i: predict(x)[:, target[i]], images[i : i + 1], saliency[i : i + 1])
        torch.testing.assert_close(together.morf[i], alone.morf[0], atol=1e-4, rtol=0)
        torch.testing.assert_close(together.lerf[i], alone.lerf[0], atol=1e-4, rtol=0)


def test_means_by_hand():
    curves = RoadCurves(torch.tensor([[0.5, 0.1]]), torch.tensor([[0.9, 0.6]]), torch.tensor([0.1, 0.9]))
    assert curves.morf_mean.tolist() == pytest.approx([0.3])
    assert curves.lerf_mean.tolist() == pytest.approx([0.75])
    assert curves.difference.tolist() == pytest.approx([0.45])


def test_turning_a_map_over_swaps_the_curves_and_a_constant_map_is_an_order_like_any():
    predict, (images, saliency) = network(), some(2)
    settings = {"noise": 0.0}
    there, back = (road(predict, images, maps, **settings) for maps in (saliency, -saliency))
    assert torch.equal(there.morf, back.lerf) and torch.equal(there.lerf, back.morf)
    flat = road(predict, images, torch.zeros_like(saliency), **settings)
    assert (flat.morf != flat.lerf).all()


def test_no_image_gives_no_curve():
    curves = road(network(), torch.zeros(0, 3, 9, 8), torch.zeros(0, 9, 8))
    assert curves.morf.shape == curves.lerf.shape == (0, 7) and curves.difference.shape == (0,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"percentages": ()}, "give at least one"),
        ({"percentages": (0.5, 1.0)}, r"percentages=\[0.5, 1.0\]"),
        ({"percentages": (10, 20)}, "between 0 and 1"),
        ({"noise": -0.1}, "noise=-0.1"),
        ({"chunk": 0}, "chunk=0"),
        ({"saliency": torch.zeros(2, 8, 9)}, r"saliency \(2, 8, 9\)"),
        ({"images": torch.full((2, 3, 9, 8), torch.nan)}, "images hold NaN"),
    ],
)
def test_what_does_not_fit_is_named_before_any_forward_pass(changes, message):
    def predict(_):
        raise AssertionError("a forward pass was made")

    images, saliency = some(2)
    settings = {"images": images, "saliency": saliency} | changes
    with pytest.raises(ValueError, match=message):
        road(predict, settings.pop("images"), settings.pop("saliency"), **settings)
