"""The page of the results."""

import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks.pages import estimate
from lightning_chex.metrics import summarize

BAR_PASSES = 1.5
BAR_AGREEMENT = 0.99
BAR_BITS = 0.05


def _estimate(values: list[float], patients: list[str], digits: int) -> str:
    return estimate(summarize(values, patients).mean, digits)


def _met(passes: float, agreement: list[float], bits: list[float], patients: list[str]) -> str:
    """Which parts of the bar the means meet."""
    good = summarize(agreement, patients).mean.value >= BAR_AGREEMENT
    equal = abs(summarize(bits, patients).mean.value - 1) <= BAR_BITS
    parts = [("cost", passes <= BAR_PASSES), ("agreement", good), ("bits", equal)]
    return ", ".join(name for name, met in parts if met) or "nothing"


def _row(name: str, own: Mapping[str, Any], patients: list[str]) -> str:
    passes = own["passes"]
    middle = statistics.median(passes)
    off = [abs(bits - 1) for bits in own["bits"]]
    share = sum(value <= BAR_BITS for value in off) / len(off)
    return (
        f"| {name} | {middle:.2f} ({min(passes):.2f}-{max(passes):.2f}) | "
        f"{_estimate(own['agreement'], patients, 4)} | {min(own['agreement']):.3f} | "
        f"{_estimate(own['bits'], patients, 3)} | {share:.2f} | "
        f"{_met(middle, own['agreement'], own['bits'], patients)} |"
    )


def _verdict(kept: Mapping[str, Any]) -> list[str]:
    """Which schemes meet the bar on all networks, and how near the others come."""
    names = set.intersection(*(set(own["found"]) for own in kept.values()))
    worst: dict[str, tuple[float, float, float]] = {}
    for name in next(iter(kept.values()))["found"]:
        if name in names and not name.startswith("default"):
            found = [own["found"][name] for own in kept.values()]
            worst[name] = (
                max(statistics.median(one["passes"]) for one in found),
                min(statistics.fmean(one["agreement"]) for one in found),
                max(abs(statistics.fmean(one["bits"]) - 1) for one in found),
            )
    whole = max(statistics.median(own["found"]["default, 15 x 2"]["passes"]) for own in kept.values())
    meets = [n for n, (p, a, b) in worst.items() if p <= BAR_PASSES and a >= BAR_AGREEMENT and b <= BAR_BITS]
    cheap = {n: own for n, own in worst.items() if own[0] <= BAR_PASSES}
    close = {n: own for n, own in worst.items() if own[1] >= BAR_AGREEMENT}
    both = {n: own for n, own in close.items() if own[2] <= BAR_BITS}
    lines = [f"- Meets the bar on all networks: {'; '.join(meets) or 'nothing'}. The default takes {whole:.2f} passes."]
    for what, group, least in (
        (f"Best agreement within {BAR_PASSES} passes", cheap, lambda n: -worst[n][1]),
        (f"Cheapest at agreement {BAR_AGREEMENT}", close, lambda n: worst[n][0]),
        (f"Cheapest at agreement {BAR_AGREEMENT} and bits within {BAR_BITS:.0%}", both, lambda n: worst[n][0]),
    ):
        if group:
            best = min(group, key=least)
            passes, agreed, off = worst[best]
            lines.append(f"- {what}: {best} ({passes:.2f} passes, agreement {agreed:.4f}, bits off by {off:.1%}).")
        else:
            lines.append(f"- {what}: nothing.")
    return [*lines, "- Figures here are the worst over the networks."]


def markdown(kept: Mapping[str, Any]) -> str:
    """All networks' tables, each with its note, and which schemes meet the bar."""
    lines = [
        "# A faster bottleneck",
        "",
        f"Bar: at most {BAR_PASSES} forward passes an image, Spearman {BAR_AGREEMENT} with the default map, bits "
        f"within {BAR_BITS:.0%}.",
        "",
        *_verdict(kept),
        "",
        "Passes: time to pose the problem (one forward pass), to optimise and to make the map, over the time of the "
        "network's own forward pass of the same images, timed in between; processor time of one thread; "
        "median (range) over the chunks of images, schemes in turn. What is done once a call (cutting the model) is "
        "left out. Agreement: Spearman over pixels with the default map, mean (95 % bootstrap interval by patient), "
        "and its minimum. Bits: total bits over those of the default map, mean of the ratios (interval), and the share "
        "of maps within 5 %. `s x n`: s steps of n noise samples, antithetic in pairs. The last column says which "
        "parts of the bar the point estimates meet.",
    ]
    for name, own in kept.items():
        patients = own["patients"]
        lines += [
            "",
            f"## {name}",
            "",
            f"`{own['command']}`, commit {own['commit']}; {own['data']}; {own['machine']}; "
            f"{own['minutes']:.0f} minutes.",
            *(["", own["note"]] if own.get("note") else []),
            "",
            "| scheme | passes | agreement | least | bits | within 5 % | meets |",
            "|---|---|---|---|---|---|---|",
            *(_row(scheme, found, patients) for scheme, found in own["found"].items()),
            "",
            "Falling back to the default where the objective at the end (one pair of noise, no gradient) exceeds "
            "the loss of the untouched features by a margin chosen on other patients; passes by arithmetic from the "
            "measured ones. Bad: maps that agree less than .98, before and after.",
            "",
            "| scheme | margin | fires | passes | agreement | bits | bad before | bad after |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for scheme, back in own["fallback"].items():
            lines.append(
                f"| {scheme} | {back['margin']:.3f} | {back['often']:.2f} | {back['passes']:.2f} | "
                f"{_estimate(back['agreement'], patients, 4)} | {_estimate(back['bits'], patients, 3)} | "
                f"{back['bad']} | {back['missed']} |"
            )
        together = own["together"]
        lines += [
            "",
            f"All classes of an image at once, features computed once (closed form, 3 x 2): "
            f"{statistics.median(together):.2f} passes a map ({min(together):.2f}-{max(together):.2f}).",
        ]
    return "\n".join(lines) + "\n"
