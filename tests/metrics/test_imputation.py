import numpy as np
import pytest
import torch
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve

from lightning_chex.metrics import linear_imputation

NEIGHBOURS = {(y, x): 1 / 6 if 0 in (y, x) else 1 / 12 for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)}


def plain_imputation(image, missing):
    """The system of one channel as it is stated: a row a missing pixel, solved directly."""
    height, width = image.shape
    places = list(zip(*np.nonzero(missing), strict=True))
    number = {place: i for i, place in enumerate(places)}
    system, right = lil_matrix((len(places), len(places))), np.zeros(len(places))
    for i, (y, x) in enumerate(places):
        around = {(y + dy, x + dx): weight for (dy, dx), weight in NEIGHBOURS.items()}
        around = {(v, u): weight for (v, u), weight in around.items() if 0 <= v < height and 0 <= u < width}
        system[i, i] = 1
        for place, weight in around.items():
            weight /= sum(around.values())
            if place in number:
                system[i, number[place]] = -weight
            else:
                right[i] += weight * image[place]
    filled = image.copy()
    filled[missing] = spsolve(system.tocsc(), right)
    return filled


def some(count: int, height: int, width: int, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * width)
    return 3 + 2 * torch.randn(count, channels, height, width, generator=generator, dtype=torch.float64)


def holes(height: int, width: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    random = torch.rand(height, width, generator=generator)
    border = torch.ones(height, width, dtype=torch.bool)
    border[3:-3, 3:-3] = False
    block = torch.zeros(height, width, dtype=torch.bool)
    block[: height // 2, 2:] = True
    return {
        "none": torch.zeros(height, width, dtype=torch.bool),
        "half": random < 0.5,
        "90 %": random < 0.9,
        "border": border,
        "corner block": block,
        "all but one": random < random.max(),
    }


@pytest.mark.parametrize(("height", "width"), [(24, 24), (17, 31), (9, 40)])
def test_agrees_with_a_direct_solution_of_the_plain_system(height, width):
    missing = holes(height, width)
    images = some(len(missing), height, width)
    filled = linear_imputation(images, torch.stack(list(missing.values())), tolerance=1e-10)
    for result, image, (name, gone) in zip(filled, images, missing.items(), strict=True):
        for one, channel in zip(result, image, strict=True):
            expected = plain_imputation(channel.numpy(), gone.numpy())
            np.testing.assert_allclose(one, expected, atol=1e-8, err_msg=name)
        assert torch.equal(result[:, ~gone], image[:, ~gone])  # bit for bit


@pytest.mark.parametrize("name", ["half", "90 %", "border", "corner block", "all but one"])
def test_the_tolerance_is_kept_in_single_precision(name):
    missing = holes(64, 64)[name]
    image = some(1, 64, 64, channels=1)
    known = image[0, 0][~missing]
    expected = plain_imputation(image[0, 0].numpy(), missing.numpy())
    error = linear_imputation(image.float(), missing[None])[0, 0] - torch.from_numpy(expected)
    # "about": the estimate that decides is not the error itself
    assert error.abs().max() <= 2e-3 * (known.max() - known.min()) / 2 + 1e-6


def test_values_by_hand():
    image = torch.zeros(1, 1, 3, 3)
    image[0, 0] = torch.tensor([[12.0, 6, 0], [0, 99, 6], [0, 0, 24]])
    missing = torch.zeros(1, 3, 3, dtype=torch.bool)
    missing[0, 1, 1] = True
    # (6 + 6) / 6 + (12 + 24) / 12
    assert linear_imputation(image, missing)[0, 0, 1, 1].item() == pytest.approx(5, abs=0.01)
    missing = torch.zeros(1, 3, 3, dtype=torch.bool)
    missing[0, 0, 0] = True
    # the corner has two direct neighbours and a diagonal one: (2 * 6 + 2 * 0 + 99) / 5
    assert linear_imputation(image, missing)[0, 0, 0, 0].item() == pytest.approx(111 / 5, abs=0.05)


def test_a_ramp_is_restored_and_a_constant_exactly():
    ramp = (2.0 * torch.arange(20)[:, None] - 3.0 * torch.arange(20)).double().expand(1, 2, 20, 20).contiguous()
    missing = torch.zeros(1, 20, 20, dtype=torch.bool)
    missing[0, 2:17, 1:18] = True
    torch.testing.assert_close(linear_imputation(ramp, missing, tolerance=1e-9), ramp, atol=1e-6, rtol=0)
    constant = torch.full((1, 3, 20, 20), 0.1)
    assert torch.equal(linear_imputation(constant, ~missing), constant)


def test_what_was_there_does_not_matter_nor_do_other_images_nor_the_other_channels():
    images = some(3, 12, 13).float()
    missing = torch.stack([holes(12, 13)[name] for name in ("half", "90 %", "border")])
    filled = linear_imputation(images, missing)
    other = torch.where(missing[:, None], 1e4, images)
    assert torch.equal(linear_imputation(other, missing), filled)
    alone = [linear_imputation(images[i : i + 1], missing[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(torch.cat(alone), filled, atol=1e-5, rtol=0)
    single = [linear_imputation(images[:, c : c + 1], missing) for c in range(3)]
    torch.testing.assert_close(torch.cat(single, dim=1), filled, atol=1e-5, rtol=0)


def test_grey_images_are_filled_as_their_channels_are():
    grey = some(2, 16, 16, channels=1).float()
    missing = torch.stack([holes(16, 16)["90 %"], holes(16, 16)["border"]])
    offset, scale = torch.tensor([2.0, -1, 0]).view(3, 1, 1), torch.tensor([1.0, 0.2, 7]).view(3, 1, 1)
    filled = linear_imputation(grey * scale + offset, missing)
    torch.testing.assert_close(filled, linear_imputation(grey, missing) * scale + offset, atol=2e-4, rtol=0)


def test_filled_pixels_lie_between_the_known_ones():
    image = some(1, 40, 40).float()
    missing = holes(40, 40)["90 %"][None]
    filled, known = linear_imputation(image, missing), image[:, :, ~missing[0]]
    slack = 1e-3 * (known.amax(2) - known.amin(2)) / 2
    assert (filled.amax((2, 3)) <= known.amax(2) + slack).all() and (filled.amin((2, 3)) >= known.amin(2) - slack).all()


def test_no_image_gives_no_image():
    assert linear_imputation(torch.zeros(0, 3, 8, 8), torch.zeros(0, 8, 8, dtype=torch.bool)).shape == (0, 3, 8, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"missing": torch.zeros(2, 4, 4)}, r"missing is torch.float32 \(2, 4, 4\)"),
        ({"missing": torch.zeros(2, 4, 5, dtype=torch.bool)}, r"\(2, 4, 5\) for images \(2, 1, 4, 4\)"),
        ({"missing": torch.ones(2, 4, 4, dtype=torch.bool)}, "marks every pixel"),
        ({"images": torch.full((2, 1, 4, 4), torch.nan)}, "NaN"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    given = {"images": torch.rand(2, 1, 4, 4), "missing": torch.zeros(2, 4, 4, dtype=torch.bool)} | changes
    with pytest.raises(ValueError, match=message):
        linear_imputation(**given)


def test_a_tolerance_finer_than_the_precision_is_not_passed_over():
    missing = holes(24, 24)["border"][None]
    with pytest.raises(RuntimeError, match=r"tolerance=0.0 in 120 steps: allow a larger one for torch.float32"):
        linear_imputation(some(1, 24, 24).float(), missing, tolerance=0.0)
