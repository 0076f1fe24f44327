import pytest
import torch
from tiny_models import Static
from torch import nn
from unchanged import unchanged

from lightning_chex.attribution import EveryPixel, PriorMap, RandomMap


class Untouchable(nn.Module):
    def forward(self, x):
        raise AssertionError("a control ran the model")


@pytest.fixture
def images():
    return torch.randn(4, 1, 12, 10, generator=torch.Generator().manual_seed(1))


CONTROLS = [EveryPixel(), RandomMap(), PriorMap(torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(0)))]


@pytest.mark.parametrize("control", CONTROLS, ids=[type(c).__name__ for c in CONTROLS])
def test_controls_take_targets_as_every_method_does_and_never_run_the_model(control, images):
    target = torch.tensor([[0, 1], [2, 0], [1, 1], [2, 2]])
    with unchanged(Static()):
        several = control.attribute(Untouchable(), images, target)
    assert several.shape == (4, 2, 12, 10) and several.dtype == torch.float32 and (several >= 0).all()
    rows, values = torch.tensor([3, 0, 3]), torch.tensor([2, 1, 2])
    chosen = control.attribute(Untouchable(), images, values, rows)
    assert torch.equal(chosen, torch.stack([several[3, 0], several[0, 1], several[3, 0]]))
    assert control.attribute(Untouchable(), images, values[:0], rows[:0]).shape == (0, 12, 10)
    assert control.explains_class is None


def test_every_pixel_is_one_everywhere(images):
    assert torch.equal(EveryPixel().attribute(Untouchable(), images), torch.ones(4, 12, 10))


def test_a_random_map_depends_on_seed_image_and_class_alone(images):
    def maps(seed, images, target):
        return RandomMap(seed).attribute(Untouchable(), images, target)

    target = torch.tensor([0, 1, 2, 0])
    together = maps(0, images, target)
    torch.rand(7)  # the global stream moves on
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(maps(0, images[order], target[order]), together[order])
    assert torch.equal(maps(0, images[1:2], target[1:2]), together[1:2])
    assert torch.equal(maps(0, images.double(), target), together)
    for other in (
        maps(1, images, target),
        maps(0, images, (target + 1) % 3),
        maps(0, images + 1e-3, target),
    ):
        assert (other != together).flatten(1).any(1).all()
    score = RandomMap().attribute(Untouchable(), images)
    assert torch.equal(score, maps(0, images, torch.full((4,), 6.5)))


def test_random_maps_are_uniform_and_unrelated():
    images = torch.randn(30, 1, 20, 20, generator=torch.Generator().manual_seed(1))
    maps = RandomMap().attribute(Untouchable(), images).flatten(1)
    counts = torch.histc(maps, 10, 0, 1) / maps.numel()
    assert (counts - 0.1).abs().max() < 0.015  # 5 standard deviations of 12,000 draws
    correlation = torch.corrcoef(maps).fill_diagonal_(0)
    assert correlation.abs().max() < 0.25  # 5 of 1 / sqrt(400)


def test_a_prior_map_is_the_mean_of_the_classs_regions_and_comes_back_from_its_file(images, tmp_path):
    regions = torch.rand(6, 12, 10, generator=torch.Generator().manual_seed(2)) > 0.5
    prior = PriorMap.from_regions(regions, torch.tensor([0, 2, 0, 0, 2, 2]), num_classes=3)
    maps = prior.attribute(Untouchable(), images, torch.tensor([0, 2, 1, 0]))
    values = regions.double()
    expected = torch.stack([values[[0, 2, 3]].mean(0), values[[1, 4, 5]].mean(0), values.mean(0), maps[0].double()])
    torch.testing.assert_close(maps.double(), expected, rtol=0, atol=1e-6)
    prior.save(tmp_path / "prior.safetensors")
    assert torch.equal(PriorMap(tmp_path / "prior.safetensors").class_maps, prior.class_maps)
    assert torch.equal(PriorMap(str(tmp_path / "prior.safetensors")).class_maps, prior.class_maps)


def test_a_prior_map_is_resized_to_the_images():
    prior = PriorMap(torch.tensor([[[0.0, 4.0]]]))
    found = prior.attribute(Untouchable(), torch.zeros(1, 1, 2, 4))
    torch.testing.assert_close(found, torch.tensor([0.0, 1, 3, 4]).expand(1, 2, 4))


@pytest.mark.parametrize(
    "maps", [torch.zeros(4, 4), torch.full((1, 2, 2), -1.0), torch.full((1, 2, 2), torch.nan), torch.zeros(0, 2, 2)]
)
def test_maps_that_are_none_are_refused(maps):
    with pytest.raises(ValueError, match="maps must be finite"):
        PriorMap(maps)


def test_a_file_that_is_none_is_refused_by_name(tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no such thing")
    for path in (broken, tmp_path / "missing.safetensors"):
        with pytest.raises(ValueError, match=f"{path.name}.*cannot be read.*from_regions"):
            PriorMap(path)


def test_a_prior_map_of_classes_needs_one_of_them(images):
    with pytest.raises(ValueError, match="3 classes: give a class index"):
        CONTROLS[2].attribute(Untouchable(), images)
    with pytest.raises(ValueError, match=r"\[0, 1, 2, 3\].*classes 0 to 2"):
        CONTROLS[2].attribute(Untouchable(), images, torch.arange(4))
    with pytest.raises(ValueError, match="regions is empty"):
        PriorMap.from_regions(torch.zeros(0, 4, 4, dtype=torch.bool), torch.zeros(0, dtype=torch.long), 3)
