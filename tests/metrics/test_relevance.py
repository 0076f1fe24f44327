import numpy as np
import pytest
import torch

from lightning_chex.metrics import effective_heat_ratio, mass_accuracy, pointing_game, rank_accuracy

MEASURES = [pointing_game, mass_accuracy, rank_accuracy, effective_heat_ratio]


def maps_and_regions(ties: bool) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    saliency = torch.randn(8, 9, 7, generator=generator)
    return saliency.mul(2).round() if ties else saliency, torch.rand(8, 9, 7, generator=generator) < 0.25


def test_by_hand():
    saliency = torch.tensor([[[4.0, 3], [2, -1]]])
    region = torch.tensor([[[True, False], [True, False]]])
    assert pointing_game(saliency, region).item() == 1
    assert mass_accuracy(saliency, region).item() == pytest.approx(6 / 9)
    assert rank_accuracy(saliency, region).item() == 0.5  # of the two strongest, 4 and 3, one
    # of the heats 0, 2, 3, 4: at the quantiles 0, 1/2 and 1, all, those from 3 on, and the greatest
    ratios = [6 / 9, 4 / 7, 1]
    assert effective_heat_ratio(saliency, region, quantiles=3).item() == pytest.approx(
        (ratios[0] / 2 + ratios[1] + ratios[2] / 2) / 2
    )


@pytest.mark.parametrize("ties", [False, True])
def test_agreement_with_plain_loops(ties):
    saliency, region = maps_and_regions(ties)
    for i, (one, box) in enumerate(zip(saliency.double().numpy(), region.numpy(), strict=True)):
        best = [at for at in np.ndindex(9, 7) if one[at] == one.max()]
        hit = np.mean([box[at] for at in best])
        assert pointing_game(saliency, region)[i].item() == pytest.approx(hit)
        heat = np.maximum(one, 0)
        assert mass_accuracy(saliency, region)[i].item() == pytest.approx(heat[box].sum() / heat.sum())
        # equal pixels in very many random orders
        generator, found = np.random.default_rng(0), []
        for _ in range(2000 if ties else 1):
            order = sorted(np.ndindex(9, 7), key=lambda at: (-one[at], generator.random()))
            found.append(np.mean([box[at] for at in order[: box.sum()]]))
        assert rank_accuracy(saliency, region)[i].item() == pytest.approx(np.mean(found), abs=0.02 if ties else 1e-6)
        ratios = []
        for q in np.linspace(0, 1, 21):
            strong = heat >= np.quantile(heat, q, method="higher")
            ratios.append(heat[strong & box].sum() / heat[strong].sum())
        expected = np.trapezoid(ratios, dx=1 / 20)
        assert effective_heat_ratio(saliency, region, 21)[i].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("measure", MEASURES)
def test_degenerate_cases_are_as_stated(measure):
    region = torch.zeros(2, 4, 5, dtype=torch.bool)
    region[0, :2, :2] = True
    assert measure(torch.full((2, 4, 5), 0.3), region)[0].item() == pytest.approx(0.2)  # chance
    assert measure(torch.rand(2, 4, 5), region)[1].isnan()  # nothing to find
    no_heat = measure(-torch.rand(2, 4, 5) - 1, region)[0].item()
    assert no_heat == 0 if measure in (mass_accuracy, effective_heat_ratio) else 0 <= no_heat <= 1


@pytest.mark.parametrize("measure", MEASURES)
def test_the_right_map_beats_a_random_one_which_is_at_chance(measure):
    generator = torch.Generator().manual_seed(5)
    region = torch.zeros(400, 16, 16, dtype=torch.bool)
    region[:, 4:12, 6:14] = True  # a quarter
    right = measure(region.float(), region)
    random = measure(torch.rand(400, 16, 16, generator=generator), region)
    assert (right == 1).all() or torch.allclose(right, torch.ones(400))
    assert random.mean().item() == pytest.approx(0.25, abs=0.06 if measure is pointing_game else 0.015)


def test_too_few_quantiles_are_named():
    with pytest.raises(ValueError, match="quantiles=1"):
        effective_heat_ratio(torch.ones(1, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool), 1)
