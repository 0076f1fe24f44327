import pytest
import torch
from tiny_models import Static
from torch import nn

from lightning_chex.attribution import IBA, GradCAM, Gradient, positive_labels, top_classes


@pytest.fixture(scope="module")
def fitted():
    torch.manual_seed(0)
    model = Static()
    return model, IBA(layer="body").fit(model, [torch.randn(60, 1, 16, 16)]), torch.randn(4, 1, 16, 16)


def test_several_classes_per_image_equal_one_call_for_each(fitted):
    model, iba, images = fitted
    target = torch.tensor([[0, 1], [2, 1], [1, 0], [2, 0]])
    maps = iba.attribute(model, images, target)
    assert maps.shape == (4, 2, 16, 16)
    for t in range(2):
        torch.testing.assert_close(maps[:, t], iba.attribute(model, images, target[:, t]), rtol=1e-5, atol=1e-9)


def test_any_targets_of_any_images_in_any_order(fitted):
    model, iba, images = fitted
    rows, classes = torch.tensor([3, 0, 3, 1]), torch.tensor([2, 1, 0, 1])
    maps = iba.attribute(model, images, classes, rows)
    for i in range(4):
        alone = iba.attribute(model, images[rows[i : i + 1]], classes[i : i + 1])
        torch.testing.assert_close(maps[i : i + 1], alone, rtol=1e-5, atol=1e-9)
    assert iba.attribute(model, images, classes[:0], rows[:0]).shape == (0, 16, 16)


def test_the_lower_part_runs_once_per_image_whatever_the_number_of_classes(fitted):
    model, iba, images = fitted
    seen = []
    handle = model.stem.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    iba.attribute(model, images, torch.tensor([[0, 1, 2]] * 4))
    handle.remove()
    assert sum(seen) == 5  # four images, and one to learn how much memory a row takes


def test_positive_labels_and_top_classes():
    rows, classes = positive_labels(torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0]]))
    assert rows.tolist() == [0, 0, 2]
    assert classes.tolist() == [0, 2, 1]
    rows, classes = top_classes(torch.tensor([[0.1, 0.9, 0.5], [3.0, 1.0, 2.0]]), k=2)
    assert rows.tolist() == [0, 0, 1, 1]
    assert classes.tolist() == [1, 2, 0, 2]
    with pytest.raises(ValueError, match="k=4"):
        top_classes(torch.randn(2, 3), k=4)


def test_wrong_rows_are_named(fitted):
    model, iba, images = fitted
    with pytest.raises(ValueError, match="between 0 and 3"):
        iba.attribute(model, images, torch.tensor([0]), torch.tensor([4]))
    with pytest.raises(ValueError, match=r"target has shape \(2,\); 1 rows"):
        iba.attribute(model, images, torch.tensor([0, 1]), torch.tensor([1]))
    with pytest.raises(ValueError, match="rows must be integers"):
        iba.attribute(model, images, torch.tensor([0]), torch.tensor([1.0]))


def test_targets_made_in_inference_mode_serve_methods_that_go_backward():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    images = torch.rand(2, 3, 8, 8)
    target = torch.tensor([1, 0])
    for method in (GradCAM(layer="0"), Gradient()):
        expected = method.attribute(model, images, target)
        with torch.inference_mode():  # as in a validation or prediction loop
            made_here = torch.tensor([1, 0])
            assert torch.equal(method.attribute(model, images.clone(), made_here), expected)
