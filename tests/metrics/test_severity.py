import numpy as np
import pytest
import torch

from lightning_chex.metrics import (
    relevance_correlation,
    severity_correlation,
    zone_relevance,
    zone_score_map,
)


def chests(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Six zones of 4 x 5 pixels on 16 x 16, and scores of 0 to 3."""
    zones = torch.zeros(count, 6, 16, 16, dtype=torch.bool)
    for zone in range(6):
        y, x = 2 + 4 * (zone % 3), 2 + 7 * (zone // 3)
        zones[:, zone, y : y + 4, x : x + 5] = True
    scores = torch.randint(0, 4, (count, 6), generator=torch.Generator().manual_seed(0)).float()
    return zones, scores


def test_agrees_with_numpy():
    zones, scores = chests(5)
    saliency = torch.rand(5, 16, 16, generator=torch.Generator().manual_seed(1))
    saliency += 0.2 * zone_score_map(zones, scores)
    correlation, relevance = severity_correlation(saliency, zones, scores), zone_relevance(saliency, zones)
    within = relevance_correlation(relevance, scores)
    for i in range(5):
        painted = np.zeros((16, 16))
        means = []
        for zone in range(6):
            painted[zones[i, zone].numpy()] = scores[i, zone].item()
            means.append(saliency[i].numpy()[zones[i, zone].numpy()].mean())
        np.testing.assert_array_equal(zone_score_map(zones, scores)[i], painted)
        expected = np.corrcoef(saliency[i].double().numpy().ravel(), painted.ravel())[0, 1]
        assert correlation[i].item() == pytest.approx(expected, abs=1e-9)
        np.testing.assert_allclose(relevance[i], means, rtol=1e-5)
        assert within[i].item() == pytest.approx(np.corrcoef(means, scores[i])[0, 1], abs=1e-4)


def test_the_right_map_beats_a_random_one_which_is_at_chance():
    zones, scores = chests(100)
    right = zone_score_map(zones, scores) * 0.3 - 2
    random = torch.rand(100, 16, 16, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(severity_correlation(right, zones, scores), torch.ones(100).double())
    by_chance = severity_correlation(random, zones, scores)
    assert by_chance.mean().abs() < 0.02 and by_chance.abs().max() < 0.4  # deviation 1/16 an image
    assert torch.allclose(relevance_correlation(zone_relevance(right, zones), scores), torch.ones(100).double())
    assert relevance_correlation(zone_relevance(random, zones), scores).mean().abs() < 0.13  # 1 / sqrt(5) an image


def test_degenerate_cases_are_as_stated():
    zones, scores = chests(3)
    saliency = torch.rand(3, 16, 16)
    saliency[0] = 0.2
    scores[1] = 0
    correlation = severity_correlation(saliency, zones, scores)
    assert correlation[0] == 0 and correlation[1].isnan() and not correlation[2].isnan()
    within = relevance_correlation(zone_relevance(saliency, zones), scores)
    assert within[0] == 0 and within[1].isnan() and not within[2].isnan()


def test_a_missing_zone_is_left_out():
    relevance = torch.tensor([[0.1, torch.nan, 0.5, 0.2], [0.1, torch.nan, torch.nan, torch.nan]])
    scores = torch.tensor([[0.0, 3, 2, 2], [1.0, 2, 3, 0]])
    result = relevance_correlation(relevance, scores)
    assert result[0].item() == pytest.approx(np.corrcoef([0.1, 0.5, 0.2], [0, 2, 2])[0, 1], abs=1e-6)
    assert result[1].isnan()
    zones, _ = chests(1)
    zones[0, 4] = False
    assert zone_relevance(torch.ones(1, 16, 16), zones)[0].isnan().tolist() == [zone == 4 for zone in range(6)]


def test_shapes_that_do_not_match_are_named():
    zones, scores = chests(2)
    with pytest.raises(ValueError, match="zones is torch.float32"):
        severity_correlation(torch.zeros(2, 16, 16), zones.float(), scores)
    with pytest.raises(ValueError, match=r"saliency \(2, 16, 15\)"):
        zone_relevance(torch.zeros(2, 16, 15), zones)
    with pytest.raises(ValueError, match=r"scores \(2, 5\)"):
        severity_correlation(torch.zeros(2, 16, 16), zones, scores[:, :5])
    with pytest.raises(ValueError, match="do not match"):
        relevance_correlation(torch.zeros(2, 6), scores[:1])
