"""The parts of benchmarks/claims that decide: samples, the rule, areas, interpolation, and the pairs of images."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.claims import detectors, layers, page, populations, redundancy, stability
from benchmarks.claims.study import Sample, decide, marked
from benchmarks.pages import estimate
from lightning_chex.metrics import Estimate


@pytest.mark.parametrize(
    ("low", "high", "by_seed", "verdict"),
    [
        (0.01, 0.2, [0.1, 0.02, 0.1], "holds"),
        (0.01, 0.2, [0.1, -0.02, 0.2], "undecided"),  # one network speaks against it
        (-0.1, 0.2, [0.1, 0.1, 0.1], "undecided"),
        (-0.2, -0.1, [-0.1, 0.1, -0.3], "does not hold"),
        (0.01, 0.2, [0.1, 0.1], "undecided"),  # two networks are too few
        (math.nan, math.nan, [0.1, 0.1, 0.1], "undecided"),
    ],
)
def test_a_claim_holds_only_with_its_interval_and_every_network(low, high, by_seed, verdict):
    assert decide(Estimate(0.1, low, high, 9, 9), by_seed) == verdict


def test_a_sample_pairs_by_case_and_leaves_out_what_is_missing():
    sample = Sample()
    sample.add(0, ["a", "b"], one=torch.tensor([1.0, 2.0]), other=torch.tensor([0.0, 4.0]))
    sample.add(1, ["a", "c"], one=torch.tensor([5.0, 7.0]))
    sample.add(2, ["d"], other=torch.tensor([3.0]), late=torch.tensor([1.0]))
    difference = sample.difference("one", "other")
    assert difference.value == pytest.approx((1 - 2) / 2) and (difference.n, difference.patients) == (2, 2)
    assert sample.by_seed("one")[:2] == [1.5, 6.0] and math.isnan(sample.by_seed("one")[2])
    assert sample.mean("one").patients == 3 and sample.mean("late").n == 1
    assert sample.where([True, False, False, True, False]).mean("one").value == 4.0


def test_as_many_pixels_are_marked_as_asked_for_even_of_a_map_that_marks_less():
    maps = torch.zeros(2, 4, 4)
    maps[0, 1, 2], maps[1] = 5.0, torch.arange(16.0).view(4, 4)
    found = marked(maps, torch.tensor([3, 2]))
    assert found.sum((1, 2)).tolist() == [3, 2] and found[0, 1, 2]
    assert found[1].flatten().nonzero().flatten().tolist() == [14, 15]


def test_values_at_equal_bits_are_interpolated_and_unknown_outside():
    places = torch.tensor([[3.0, 1.0], [1.0, 0.0], [2.0, 0.5]])
    values = torch.tensor([[0.3, 1.0], [0.1, 0.0], [0.7, 0.5]])
    found = redundancy.interpolated(places, values, 1.5).tolist()
    assert found[0] == pytest.approx(0.4) and math.isnan(found[1])
    assert redundancy.interpolated(places, values, 0.75)[1] == pytest.approx(0.75)


def test_the_distance_of_outlines():
    one, other = np.zeros((12, 12), bool), np.zeros((12, 12), bool)
    one[2:5, 2:5], other[2:5, 2:5] = True, True
    assert layers.distance(one, other) == 0
    other = np.roll(other, 6, 1)
    expected = [
        min(math.hypot(y - b, x - a) for b in range(2, 5) for a in range(2, 5) if (b, a) != (3, 3))
        for y in range(2, 5)
        for x in range(8, 11)
        if (y, x) != (3, 9)
    ]
    assert layers.distance(one, other) == pytest.approx(np.mean(expected))
    assert math.isnan(layers.distance(one, np.zeros_like(one)))


def test_length_over_width_of_a_rectangle_however_it_lies():
    regions = torch.zeros(3, 40, 40, dtype=torch.bool)
    regions[0, 5:15, 5:15], regions[1, 3:33, 8:18], regions[2, 8:18, 3:33] = True, True, True
    assert layers.elongation(regions).tolist() == pytest.approx([1, 3, 3])


def test_the_zone_found_least_decides():
    zones = torch.zeros(1, 6, 6, 6, dtype=torch.bool)
    for k in range(6):
        zones[0, k, k] = True
    where = torch.zeros(1, 6, 6, dtype=torch.bool)
    where[0, 0], where[0, 1, :3], where[0, 2, :1] = True, True, True
    chosen = torch.tensor([[True, True, False, False, False, False]])
    assert detectors.recalls(where, zones, chosen).tolist() == [0.5]
    assert (
        detectors.recalls(where, zones, ~chosen).tolist() == [0]
        and detectors.recalls(where, zones, chosen & False).isinf().all()
    )


def test_spread_of_the_marked_pixels_on_and_beside_the_finding():
    maps = torch.zeros(2, 1, 2, 2, dtype=torch.double)
    maps[:, 0, 0, 0], maps[:, 0, 0, 1], maps[:, 0, 1, 1] = torch.tensor([3.0, 5.0]), torch.tensor([9.0, 9.0]), 0.1
    truth = torch.tensor([[[False, True], [True, False]]])
    found = stability.spread(maps, truth, torch.tensor([2]))
    assert found[stability.RIGHT].tolist() == [0]
    assert found[stability.WRONG].tolist() == pytest.approx([2**0.5 / 4])  # standard deviation over mean of 3 and 5
    assert stability.spread(maps, truth, torch.tensor([1]))[stability.WRONG].isnan().all()


def test_perturbations_grow_with_their_strength():
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1)).expand(2, 3, 32, 32)
    for kind in stability.PERTURBATIONS:
        moved = [(stability.perturbed(images, kind, own) - images).abs().mean() for own in (0.25, 0.5, 1.0)]
        assert 0 < moved[0] < moved[1] < moved[2]


def test_each_cue_lies_in_its_half_and_only_the_finding_tells_the_two_images_apart():
    cases = populations.two_cues(6, seed=populations.TUNING)
    assert len(set(cases.patients)) == 6 and sorted(cases.target.tolist()) == [0, 2, 3, 4, 5, 6]
    middle = populations.SIZE // 2
    assert not cases.regions[:, 0, :, middle:].any() and not cases.regions[:, 1, :, :middle].any()
    assert cases.regions.flatten(2).any(2).all()
    changed = (cases.images != cases.healthy).any(1)
    assert changed.flatten(1).any(1).all() and not (changed & ~cases.regions.any(1)).any()


def test_patients_with_several_zones_of_a_score():
    scored = populations.several_zones(3, 3, seed=populations.TUNING)
    assert len(set(scored.patients)) == 3 and all(2 <= n <= 4 for n in (scored.scores == 3).sum(1).tolist())
    assert scored.images.shape[0] == scored.zones.shape[0] == 3


def test_a_raised_zone_changes_its_own_score_and_its_surroundings_alone():
    before, after, zone = populations.raised_zone(4, seed=populations.TUNING)
    changed = (after.scores - before.scores).nonzero().tolist()
    assert changed == [[i, int(k)] for i, k in enumerate(zone)] and (before.scores.gather(1, zone[:, None]) == 0).all()
    for i, k in enumerate(zone):
        difference = (after.images[i] - before.images[i]).abs().sum(0)
        inside = before.zones[i, k]
        assert difference[inside].mean() > 5 * difference[~inside].mean()


def test_only_findings_are_taken_that_the_network_sees_in_either_half_and_not_without():
    class Halves(nn.Module):
        """Says class 1 where either half is bright."""

        def forward(self, images):
            halves = torch.stack([images[..., :4].amax((1, 2, 3)), images[..., 4:].amax((1, 2, 3))]).amax(0)
            return torch.stack([torch.zeros_like(halves), 20 * (halves - 0.5)], 1)

    healthy = torch.zeros(3, 3, 8, 8)
    images, regions = healthy.clone(), torch.zeros(3, 2, 8, 8, dtype=torch.bool)
    regions[:, 0, 2, 2], regions[:, 1, 2, 6] = True, True
    images[:, :, 2, 2] = images[:, :, 2, 6] = 1.0
    images[1, :, 2, 6] = 0.1  # the second cue does not suffice
    healthy[2, :, 7, 7] = images[2, :, 7, 7] = 1.0  # seen without any cue
    cases = populations.Cases(images, healthy, regions, torch.ones(3, dtype=torch.long), ["a", "b", "c"])
    kept = redundancy.recognised(Halves(), cases)
    assert kept.patients == ["a"]
    one_cue, both = regions[:1, 0], regions[:1].any(1)
    judged = [redundancy.judged(Halves(), kept, where, "it") for where in (one_cue, both)]
    assert [float(own["both|it"]) for own in judged] == [0, 1]
    assert float(judged[0]["fall|it"]) == pytest.approx(0) and float(judged[1]["fall|it"]) > 0.9


def test_the_page_links_every_verdict_to_its_part():
    claim = {
        "name": "Finer maps, at last", "statement": "S.", "verdict": "undecided", "rule": "R.", "finding": "F.",
        "tables": [{"title": "T", "rows": [{"a": 1, "b": 2.5}]}], "limits": ["L."],
    }  # fmt: skip
    part = {"claims": [claim], "command": "c", "commit": "d", "seeds": [0], "cases": 3, "note": "N.", "machine": "m"}
    text = page.markdown({"x": part})
    assert "[Finer maps, at last](#finer-maps-at-last) | **undecided** | F." in text
    assert "m. N." in text and "## Finer maps, at last" in text and "| 1 | 2.5 |" in text and "- L." in text


def test_an_estimate_of_too_few_patients_is_shown_without_an_interval():
    assert estimate(Estimate(0.25, math.nan, math.nan, 1, 1)) == "0.250 (no interval)"
    assert estimate(Estimate(0.25, -0.5, 1.0, 9, 9), signed=True) == "+0.250 (-0.500 to +1.000)"
