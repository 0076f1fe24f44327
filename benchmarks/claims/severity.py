"""Claim 3: Regression IBA marks what a predicted severity rests on (section 2.2, Table 2)."""

import torch
from torch import Tensor

from benchmarks.claims.populations import Scored, raised_zone, severities
from benchmarks.claims.study import RULE, Claim, Measured, Sample, Study, Table, several
from benchmarks.pages import estimate
from lightning_chex.attribution import Attributor, Gradient, RandomMap
from lightning_chex.metrics import relevance_correlation, severity_correlation, zone_relevance

OBJECTIVES = {
    "deviation (DV)": "deviation",
    "squared error (MSE)": "squared_error",
    "maximised score (RM)": "maximize_score",
}
DEVIATION = "deviation (DV)"
SHUFFLED = f"{DEVIATION}, network trained on shuffled scores"


def claim(study: Study) -> Claim:
    """Whether bits follow the zone that is raised, and correlate with the zones' scores."""
    raised = study.sample("severity-raised", measure_raised)
    correlated = study.sample("severity", measure)
    names = list(dict.fromkeys(key.split("|")[1] for key in correlated.values if "|" in key))
    found = {name: raised.difference(f"own|{name}", f"other|{name}") for name in OBJECTIVES}
    by_seed = raised.by_seed(f"own|{DEVIATION}", f"other|{DEVIATION}")
    return Claim(
        "Regression IBA follows the severity",
        "The maps of Regression IBA mark the regions from which the severity comes; they correlate with the zones' "
        "scores (Table 2: .4766 DV, .4766 MSE, .4404 RM, .0004 random).",
        raised.decided(f"own|{DEVIATION}", f"other|{DEVIATION}"),
        f"When one zone is raised from 0 to 3 and nothing else changes, the share of the bits in that zone rises more "
        f"than that of the other zone that rises most (deviation). {RULE}",
        "Rise of the raised zone's share less that of the other zone that rises most: "
        + "; ".join(f"{name} {estimate(own, signed=True)}" for name, own in found.items())
        + f". Deviation by network: {several(by_seed, signed=True)}.",
        [
            Table(
                "One zone raised from 0 to 3: change of the zones' shares of the map",
                [
                    {
                        "method": name,
                        "the raised zone": estimate(raised.mean(f"own|{name}"), signed=True),
                        "the other that rises most": estimate(raised.mean(f"other|{name}"), signed=True),
                        "difference": estimate(raised.difference(f"own|{name}", f"other|{name}"), signed=True),
                        "the raised zone rises most": estimate(raised.mean(f"most|{name}")),
                    }
                    for name in names
                    if f"own|{name}" in raised.values
                ],
            ),
            Table(
                "Correlation with the zones' scores (the paper's Table 2: .4766 DV, .4766 MSE, .4404 RM, .0004 random)",
                [
                    {
                        "method": name,
                        "of pixels": estimate(correlated.mean(f"pixels|{name}"), signed=True),
                        "of zones": estimate(correlated.mean(f"zones|{name}"), signed=True),
                        "of zones, severity 6 or less": f"{mean_where(correlated, f'zones|{name}', 'low'):+.3f}",
                        "of zones, severity 12 or more": f"{mean_where(correlated, f'zones|{name}', 'high'):+.3f}",
                    }
                    for name in names
                ],
            ),
        ],
        [
            "Correlations of zones are NaN, and left out, where all six zones of an image have the same score.",
            "The random maps are the same for all networks: their correlation with the zones, which is 0 but for "
            "chance, shows how far a figure of so few images can lie from the truth.",
            "Why shares fall where a zone falls ill was not tested.",
        ],
    )


def measure_raised(study: Study, seed: int) -> Measured:
    """Shares of the zones before and after one is raised."""
    before, after, zone = raised_zone(study.cases)
    values = {}
    for name, method in methods(study, seed).items():
        network = network_of(study, name, seed)
        maps = [maps_of(method, network, one) for one in (before, after)]
        values |= of_raised(maps, before.zones, zone, name)
    return after.patients, values


def measure(study: Study, seed: int) -> Measured:
    """Correlations with the scores of the zones."""
    scored = severities(study.cases)
    total = scored.scores.sum(1)
    values = {"low": total <= 6, "high": total >= 12}
    for name, method in methods(study, seed).items():
        values |= of_scores(maps_of(method, network_of(study, name, seed), scored), scored, name)
    values |= of_scores(scored.zones.any(1).float(), scored, "lung field")
    return scored.patients, values


def methods(study: Study, seed: int) -> dict[str, Attributor]:
    """The three objectives, the inverse, and controls."""
    found: dict[str, Attributor] = {
        name: study.iba("severity", seed, objective=objective) for name, objective in OBJECTIVES.items()
    }
    found["Inverse, deviation"] = study.iba("severity", seed, inverse=True, objective="deviation")
    found[SHUFFLED] = study.iba("shuffled", seed, objective="deviation")
    found["gradient"] = Gradient()
    found["random map"] = RandomMap()
    return found


def network_of(study: Study, name: str, seed: int) -> torch.nn.Module:
    """The network that a method explains."""
    return study.network("shuffled" if name == SHUFFLED else "severity", seed)


def maps_of(method: Attributor, network: torch.nn.Module, scored: Scored) -> Tensor:
    """Maps of the score, (N, H, W); the true one is the target where the objective needs it."""
    return method.attribute(network, scored.images, scored.scores.sum(1) if method.needs_true_score else None)


def of_raised(maps: list[Tensor], zones: Tensor, zone: Tensor, name: str) -> dict[str, Tensor]:
    """Change of the share of the map in the raised zone, and the largest among the other five."""
    shares = []
    for own in maps:
        held = (own[:, None] * zones).flatten(2).sum(2)
        shares.append(held / own.flatten(1).sum(1, keepdim=True).clamp(min=1e-9))
    change = shares[1] - shares[0]
    own = change.gather(1, zone[:, None])[:, 0]
    other = change.scatter(1, zone[:, None], -torch.inf).amax(1)
    return {f"own|{name}": own, f"other|{name}": other, f"most|{name}": (own > other).float()}


def of_scores(maps: Tensor, scored: Scored, name: str) -> dict[str, Tensor]:
    """Correlation with the scores over pixels of the lungs, and over the six zones."""
    return {
        f"pixels|{name}": severity_correlation(maps, scored.zones, scored.scores),
        f"zones|{name}": relevance_correlation(zone_relevance(maps, scored.zones), scored.scores),
    }


def mean_where(sample: Sample, name: str, condition: str) -> float:
    """Mean over the cases for which a condition of value 1 holds."""
    return sample.where([value == 1 for value in sample.values[condition]]).mean(name).value
