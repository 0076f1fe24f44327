import numpy as np
import pytest
import torch
from torch import nn

from lightning_chex.metrics import area_under_curve, blurred, insertion_deletion, pixel_ranks, road, sensitivity_n
from lightning_chex.metrics.forward import chunk_for


def network(outputs: int | None = None) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 6 * 5, outputs or 1)]
    return nn.Sequential(*layers, *([] if outputs else [nn.Flatten(0)])).eval()


def some(count: int, height: int = 6, width: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, height, width, generator=generator)
    return images, torch.rand(count, height, width, generator=generator)


def plain_curves(predict, image, start, saliency, step, fraction):
    """One image at a time, one pixel at a time, as the paper describes it; the map has no ties."""
    height, width = saliency.shape
    order = sorted(np.ndindex(height, width), key=lambda at: -float(saliency[at]))
    order = order[: round(fraction * height * width)]
    inserted, deleted = start.copy(), image.copy()
    curves = [[predict(inserted)], [predict(deleted)]]
    for first in range(0, len(order), step):
        for y, x in order[first : first + step]:
            inserted[:, y, x] = image[:, y, x]
            deleted[:, y, x] = start[:, y, x]
        curves[0].append(predict(inserted))
        curves[1].append(predict(deleted))
    return np.array(curves)


@pytest.mark.parametrize(("step", "fraction", "chunk"), [(1, 1.0, 7), (4, 1.0, 64), (4, 0.5, 1), (7, 0.5, 1000)])
def test_curves_agree_with_a_plain_loop(step, fraction, chunk):
    predict = network()
    images, saliency = some(3)
    start = torch.zeros_like(images) + torch.tensor([1.0, -1, 0.5])[:, None, None]
    curves = insertion_deletion(predict, images, saliency, baseline=start, step=step, fraction=fraction, chunk=chunk)
    with torch.no_grad():
        for i in range(3):
            expected = plain_curves(
                lambda image: predict(torch.from_numpy(image)[None]).item(),
                images[i].numpy(), start[i].numpy(), saliency[i].numpy(), step, fraction,
            )  # fmt: skip
            np.testing.assert_allclose(curves.insertion[i], expected[0], atol=1e-5)
            np.testing.assert_allclose(curves.deletion[i], expected[1], atol=1e-5)
    assert curves.share[0] == 0 and curves.share[-1] == pytest.approx(fraction)


def test_curves_and_areas_by_hand():
    # the score is the sum of a 1 x 4 image, whose map calls 8 the strongest, then 4, 2, 1; the baseline is black
    image = torch.tensor([1.0, 8, 2, 4]).view(1, 1, 1, 4)
    saliency = torch.tensor([[[0.1, 0.9, 0.2, 0.5]]])
    curves = insertion_deletion(lambda x: x.sum((1, 2, 3)), image, saliency, baseline=torch.zeros(()), step=1)
    assert curves.insertion.tolist() == [[0, 8, 12, 14, 15]]
    assert curves.deletion.tolist() == [[15, 7, 3, 1, 0]]
    assert curves.share.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert curves.insertion_auc.tolist() == [pytest.approx((8 + 12 + 14 + 7.5) / 4)]
    assert curves.deletion_auc.tolist() == [pytest.approx((7.5 + 7 + 3 + 1) / 4)]
    half = insertion_deletion(
        lambda x: x.sum((1, 2, 3)), image, saliency, baseline=torch.zeros(()), step=1, fraction=0.5
    )
    assert half.insertion_auc.tolist() == [pytest.approx((4 + 10) / 2)]  # the half range is scaled to 0..1 as well


def test_the_half_range_is_read_off_the_full_one():
    predict = network()
    images, saliency = some(3)
    settings = {"baseline": torch.zeros(()), "step": 5}
    full = insertion_deletion(predict, images, saliency, **settings)
    half = insertion_deletion(predict, images, saliency, fraction=0.5, **settings)
    cut = full.up_to(0.5)
    assert torch.equal(cut.share, half.share) and cut.share[-1] == 0.5
    for name in ("insertion", "deletion", "insertion_auc", "deletion_auc"):
        torch.testing.assert_close(getattr(cut, name), getattr(half, name))
    assert (cut.insertion_auc != full.insertion_auc).all()
    assert torch.equal(full.up_to(1.0).deletion, full.deletion)
    for share in (0.0, 0.4, 1.1):
        with pytest.raises(ValueError, match=f"share={share} is no point of these curves"):
            full.up_to(share)


def test_a_last_step_of_fewer_pixels_is_as_wide_as_it_is():
    curves = insertion_deletion(
        lambda x: x.sum((1, 2, 3)), torch.ones(1, 1, 1, 5), torch.rand(1, 1, 5), baseline=torch.zeros(()), step=3
    )
    assert curves.insertion.tolist() == [[0, 3, 5]]
    assert curves.share.tolist() == pytest.approx([0, 0.6, 1])
    assert curves.insertion_auc.item() == pytest.approx(2.5)  # a straight line, however its steps are spaced


def test_curves_start_and_end_where_they_should_and_every_step_differs():
    torch.manual_seed(2)
    predict = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 22 * 22, 1), nn.Flatten(0))
    images, saliency = some(3, 24, 24)
    curves = insertion_deletion(predict, images, saliency, step=25)
    with torch.no_grad():
        of_image, of_baseline = predict(images), predict(blurred(images))
    for curve, first, end in (
        (curves.insertion, of_baseline, of_image),
        (curves.deletion, of_image, of_baseline),
    ):
        assert curve.shape == (3, 25)  # 576 pixels, the 24th step has one
        torch.testing.assert_close(curve[:, 0], first)
        torch.testing.assert_close(curve[:, -1], end)
        assert (curve.diff(dim=1) != 0).all()


def test_each_image_is_judged_by_its_own_target_and_depends_on_no_other():
    predict = network(outputs=3)
    images, saliency = some(4)
    target = torch.tensor([2, 0, 1, 2])
    settings = {"baseline": torch.zeros(()), "step": 3}
    together = insertion_deletion(predict, images, saliency, target=target, chunk=5, **settings)
    for i in range(4):
        alone = insertion_deletion(
            lambda x, i=i: predict(x)[:, target[i]], images[i : i + 1], saliency[i : i + 1], **settings
        )
        torch.testing.assert_close(together.insertion[i], alone.insertion[0])
        torch.testing.assert_close(together.deletion[i], alone.deletion[0])


def test_no_pass_holds_more_copies_than_the_chunk_and_none_is_wasted():
    seen = []

    def predict(images):
        seen.append(len(images))
        return images.sum((1, 2, 3))

    images, saliency = some(3)
    insertion_deletion(predict, images, saliency, baseline=torch.zeros(()), step=10, chunk=7)
    # 4 states one way and 2 the other, whose ends are those of the first; chunks run across images
    assert max(seen) == 7 and sum(seen) == 3 * (4 + 2) and len(seen) == 3
    seen.clear()
    insertion_deletion(predict, images, saliency, baseline=torch.zeros(()), step=5, fraction=0.5, chunk=7)
    assert sum(seen) == 3 * (4 + 4)  # no common ends


@pytest.mark.parametrize("measure", [insertion_deletion, road, sensitivity_n])
def test_unless_told_otherwise_a_pass_on_a_cpu_holds_few_copies(measure):
    seen = []

    def predict(images):
        seen.append(len(images))
        return images.sum((1, 2, 3))

    images, saliency = some(3, 20, 20)
    measure(predict, images, saliency, *([[5]] if measure is sensitivity_n else []))
    assert max(seen) == 16 == chunk_for(images.device) < chunk_for(torch.device("cuda"))


def test_no_gradient_is_recorded():
    predict = network()
    images, saliency = some(1)
    curves = insertion_deletion(predict, images.requires_grad_(), saliency, baseline=torch.zeros(()))
    assert not curves.insertion.requires_grad and not curves.deletion.requires_grad


def test_ranks_follow_the_map_and_ties_follow_one_random_order():
    generator = np.random.default_rng(0)
    saliency = torch.from_numpy(generator.integers(0, 4, (3, 8, 9))).float()
    ranks = pixel_ranks(saliency, seed=5)
    flat = pixel_ranks(torch.zeros(1, 8, 9), seed=5)[0]
    for one, rank in zip(saliency, ranks, strict=True):
        # strongest first, equal pixels as in the constant map
        expected = sorted(np.ndindex(8, 9), key=lambda at: (-float(one[at]), int(flat[at])))
        assert [int(rank[at]) for at in expected] == list(range(72))
    assert not torch.equal(flat, pixel_ranks(torch.zeros(1, 8, 9), seed=6)[0])
    top = flat < 36  # an order in reading direction would have all of these in the upper half
    assert 9 <= top[:4].sum() <= 27


def test_the_blur_agrees_with_numpy():
    images, _ = some(1, 24, 21)
    taps = np.exp(-(np.arange(-9, 10) ** 2) / (2 * 10.0**2))
    taps /= taps.sum()
    expected = images[0].double().numpy()
    for axis in (1, 2):
        widths = [(9, 9) if a == axis else (0, 0) for a in range(3)]
        expected = np.apply_along_axis(np.convolve, axis, np.pad(expected, widths, mode="reflect"), taps, "valid")
    np.testing.assert_allclose(blurred(images)[0], expected, atol=1e-5)


def planted(count: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and regions such that a model which reads the region's pixels only is right."""
    generator = torch.Generator().manual_seed(4)
    images = torch.rand(count, 3, 24, 24, generator=generator) + 0.5
    regions = torch.zeros(count, 24, 24)
    for i, (y, x) in enumerate(torch.randint(0, 16, (count, 2), generator=generator).tolist()):
        regions[i, y : y + 8, x : x + 8] = 1
    return images, regions


def test_the_right_map_beats_a_random_map_which_is_at_chance():
    images, regions = planted()
    # the i-th output is the mean over the i-th region, and sees nothing else
    readers = regions / regions.sum((1, 2), keepdim=True)

    def predict(inputs):
        return torch.einsum("rchw,nhw->rn", inputs, readers) / 3

    settings = {"target": torch.arange(12), "baseline": torch.zeros(()), "step": 16}
    whole = predict(images).diagonal()
    right = insertion_deletion(predict, images, regions, **settings)
    random = torch.rand(12, 24, 24, generator=torch.Generator().manual_seed(9))
    chance = insertion_deletion(predict, images, random, **settings)
    wrong = insertion_deletion(predict, images, -regions, **settings)
    # a random order brings the score in evenly: half the way on average
    assert (chance.insertion_auc / whole).mean().item() == pytest.approx(0.5, abs=0.03)
    assert (chance.deletion_auc / whole).mean().item() == pytest.approx(0.5, abs=0.03)
    # the right map brings all of it within the region's ninth of the pixels
    assert (right.insertion_auc / whole > 0.93).all() and (right.deletion_auc / whole < 0.07).all()
    assert (right.insertion_auc > chance.insertion_auc).all() and (right.deletion_auc < chance.deletion_auc).all()
    assert (wrong.insertion_auc < chance.insertion_auc).all() and (wrong.deletion_auc > chance.deletion_auc).all()


def test_no_image_gives_no_curve():
    curves = insertion_deletion(lambda x: x.sum((1, 2, 3)), torch.zeros(0, 3, 24, 24), torch.zeros(0, 24, 24))
    assert curves.insertion.shape == (0, 25)
    assert curves.insertion_auc.shape == (0,)


def test_area_is_a_mean_score():
    share = torch.tensor([0.0, 0.1, 0.4, 0.5])
    assert area_under_curve(torch.full((2, 4), 0.3), share).tolist() == pytest.approx([0.3, 0.3])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": 0}, "step=0"),
        ({"fraction": 0.0}, "fraction=0.0"),
        ({"fraction": 1.2}, "fraction=1.2"),
        ({"chunk": 0}, "chunk=0"),
        ({"saliency": torch.zeros(2, 5, 6)}, r"saliency \(2, 5, 6\)"),
        ({"saliency": torch.full((2, 6, 5), torch.nan)}, "NaN"),
        ({"target": torch.zeros(3, dtype=torch.long)}, r"target is torch.int64 \(3,\)"),
        ({"target": torch.zeros(2)}, "target is torch.float32"),
        ({"baseline": torch.zeros(4, 3, 6, 5)}, r"baseline \(4, 3, 6, 5\)"),
        ({"baseline": None}, "kernel=19 does not suit images of 6 x 5"),
    ],
)
def test_what_does_not_fit_is_named_before_any_forward_pass(changes, message):
    def predict(_):
        raise AssertionError("a forward pass was made")

    images, saliency = some(2)
    settings = {"saliency": saliency, "baseline": torch.zeros(())} | changes
    with pytest.raises(ValueError, match=message):
        insertion_deletion(predict, images, settings.pop("saliency"), **settings)


def test_an_output_of_another_shape_is_named():
    images, saliency = some(2)
    with pytest.raises(ValueError, match=r"predict returned shape \(4, 3\) for R=4"):
        insertion_deletion(network(outputs=3), images, saliency, baseline=torch.zeros(()), chunk=4)
    with pytest.raises(ValueError, match=r"\(R, K\), as a target was given"):
        insertion_deletion(
            network(), images, saliency, baseline=torch.zeros(()), target=torch.zeros(2, dtype=torch.long)
        )
