"""Statistics leave out the images that do not count, and nobody else notices."""

import pytest
import torch
from torch import nn

from lightning_chex.attribution import IBA, MultiLayerIBA, counted, counting


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()


@pytest.mark.parametrize("method", [IBA(layer="1"), IBA(layer="1", statistics_per="channel")])
def test_statistics_are_those_of_the_images_that_count(method):
    model, images = network(), torch.randn(9, 3, 8, 8)
    rows = torch.arange(9) % 3 != 1
    with torch.no_grad(), method.observing(model):
        for batch, own in zip(images.split(4), rows.split(4), strict=True):
            with counting(own):
                model(batch)
    features = model[:2](images[rows]).double()
    over = (0,) if method.statistics.per == "neuron" else (0, 2, 3)
    variance, mean = torch.var_mean(features, over, keepdim=True)
    assert method.num_observed == 6
    torch.testing.assert_close(method.statistics.mean, mean[0].float())
    torch.testing.assert_close(method.statistics.std, variance[0].sqrt().float())


def test_all_layers_leave_out_the_same_images_and_a_batch_may_be_left_out_whole():
    model, method = network(), MultiLayerIBA(layers=["0", "2"])
    with torch.no_grad(), method.observing(model):
        for count in (torch.tensor([True, False]), torch.zeros(2, dtype=torch.bool), None):
            with counting(count):
                model(torch.randn(2, 3, 8, 8))
    assert [member.num_observed for member in method.members] == [3, 3]


def test_fit_learns_from_all_it_is_given():
    with counting(torch.zeros(60, dtype=torch.bool)):
        assert IBA(layer="1").fit(network(), [torch.randn(60, 3, 8, 8)]).num_observed == 60


def test_an_image_has_to_count_in_all_contexts_which_end_with_an_exception_too():
    features = torch.arange(3.0)
    with counting(torch.tensor([True, True, False])):
        with pytest.raises(KeyError), counting(torch.tensor([False, True, True])):
            assert counted(features).tolist() == [1]
            raise KeyError
        assert counted(features).tolist() == [0, 1]
    assert counted(features) is features


def test_contexts_end_in_any_order():
    """Two callbacks begin a batch one after the other, and end it in the same order."""
    features, rows = torch.arange(2.0), torch.tensor([True, False])
    first, second = counting(rows), counting(rows.clone())
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert counted(features).tolist() == [0]
    second.__exit__(None, None, None)
    assert counted(features) is features


def test_rows_that_are_not_the_batchs_are_left_out_unless_all_count():
    crops = torch.arange(6.0)
    with counting(torch.tensor([True, True, True])):
        assert len(counted(crops)) == 6
    with counting(torch.tensor([True, False, True])):
        assert len(counted(crops)) == 0
