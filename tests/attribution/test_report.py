import math
from dataclasses import replace

import pytest
import torch
from tiny_models import Regressor, Static

from lightning_chex.attribution import IBA, OBJECTIVES


@pytest.fixture(scope="module")
def fitted():
    torch.manual_seed(0)
    model = Static()
    return model, [torch.randn(60, 1, 16, 16)], torch.randn(5, 1, 16, 16), torch.tensor([0, 1, 2, 0, 1])


def test_the_report_agrees_with_itself_and_with_the_map(fitted):
    model, stream, images, target = fitted
    iba = IBA(layer="body", steps=7, batch_size=2).fit(model, stream)
    report = iba.report(model, images, target)
    torch.testing.assert_close(report.saliency, iba.attribute(model, images, target))
    torch.testing.assert_close(report.saliency.sum((1, 2)), report.total_bits)
    torch.testing.assert_close(report.capacity.sum((1, 2)), report.total_bits)
    assert report.lambda_.shape == (5, 6, 8, 8)
    assert ((report.lambda_ >= 0) & (report.lambda_ <= 1)).all()
    assert report.objective.shape == report.information.shape == (5, 7)


def test_the_course_begins_where_nothing_is_masked_and_ends_at_the_map(fitted):
    model, stream, images, target = fitted
    iba = IBA(layer="body", steps=6, initial_alpha=16.0, lr_schedule="constant").fit(model, stream)
    start = iba.report(model, images, target)
    with torch.no_grad():
        output = model.eval()(images)
    expected = OBJECTIVES["binary_cross_entropy"](output, target, output)
    torch.testing.assert_close(start.objective[:, 0], expected)
    # -log(1 - lambda) = alpha for large alpha: 16 nats and a little for the signal, in each of 6 x 8 x 8 neurons
    assert (start.information[:, 0] > 6 * 64 * 15 / math.log(2)).all()
    # one more step shows, as its first entry, the information of the mask that six steps left
    longer = (
        IBA(layer="body", steps=7, initial_alpha=16.0, lr_schedule="constant")
        .fit(model, stream)
        .report(model, images, target)
    )
    torch.testing.assert_close(longer.information[:, 6], start.total_bits)


def test_the_spread_is_that_of_maps_with_these_seeds():
    model, images = Regressor(), torch.randn(3, 1, 10, 10)
    iba = IBA(layer="body", objective="deviation", seed=9).fit(model, [torch.randn(60, 1, 10, 10)])
    mean, std = iba.spread(model, images, seeds=[1, 2, 3])
    assert iba.settings.seed == 9
    maps = []
    for seed in (1, 2, 3):
        iba.settings = replace(iba.settings, seed=seed)
        maps.append(iba.attribute(model, images))
    torch.testing.assert_close(mean, sum(maps) / 3)
    torch.testing.assert_close(std, torch.stack(maps).std(0))
    assert (std > 0).any()
    with pytest.raises(ValueError, match="at least two"):
        iba.spread(model, images, seeds=[1])
