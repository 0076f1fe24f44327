"""Statistics leave out the images that do not count, and nobody else notices."""

from contextlib import ExitStack

import pytest
import torch
from torch import nn

from lightning_chex.attribution import IBA, MultiLayerIBA, ObservedRows


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()


@pytest.mark.parametrize("per", ["neuron", "channel"])
def test_statistics_are_those_of_the_images_that_count(per):
    model, images = network(), torch.randn(9, 3, 8, 8)
    # two observers of the same passes, each with images of its own
    methods, countings = [IBA(layer="1", statistics_per=per) for _ in "ab"], [ObservedRows(), ObservedRows()]
    choices = [torch.arange(9) % 3 != 1, torch.arange(9) > 3]
    with torch.no_grad(), ExitStack() as observations:
        for method, counting in zip(methods, countings, strict=True):
            with counting.active():
                observations.enter_context(method.observing(model))
        for start in (0, 4, 8):
            for counting, rows in zip(countings, choices, strict=True):
                counting.rows = rows[start : start + 4]
            model(images[start : start + 4])
    for method, rows in zip(methods, choices, strict=True):
        features = model[:2](images[rows]).double()
        variance, mean = torch.var_mean(features, (0,) if per == "neuron" else (0, 2, 3), keepdim=True)
        assert method.num_observed == int(rows.sum())
        torch.testing.assert_close(method.statistics.mean, mean[0].float())
        torch.testing.assert_close(method.statistics.std, variance[0].sqrt().float())


def test_all_layers_leave_out_the_same_images_and_a_batch_may_be_left_out_whole():
    model, method, counting = network(), MultiLayerIBA(layers=["0", "2"]), ObservedRows()
    with torch.no_grad(), counting.active(), method.observing(model):
        for counting.rows in (torch.tensor([True, False]), torch.zeros(2, dtype=torch.bool), True, False):
            model(torch.randn(2, 3, 8, 8))
    assert [member.num_observed for member in method.members] == [3, 3]


@pytest.mark.parametrize("method", [IBA("1"), MultiLayerIBA(["0", "2"])], ids=["IBA", "MultiLayerIBA"])
def test_fit_learns_from_all_it_is_given(method):
    counting = ObservedRows()
    counting.rows = torch.zeros(60, dtype=torch.bool)
    with counting.active():
        assert method.fit(network(), [torch.randn(60, 3, 8, 8)]).num_observed == 60


def test_the_innermost_governs_and_ends_with_an_exception_too():
    outer, inner, features = ObservedRows(), ObservedRows(), torch.arange(2.0)
    outer.rows, inner.rows = torch.tensor([True, False]), torch.tensor([False, True])
    with outer.active():
        with pytest.raises(KeyError), inner.active():
            assert ObservedRows.current() is inner
            raise KeyError
        assert ObservedRows.current() is outer
    assert ObservedRows.current().select(features) is features


def test_rows_that_are_not_the_batchs_are_left_out_unless_all_count():
    crops, counting = torch.arange(6.0), ObservedRows()
    for rows, kept in [([True, True, True], 6), ([True, False, True], 0)]:
        counting.rows = torch.tensor(rows)
        assert len(counting.select(crops)) == kept
