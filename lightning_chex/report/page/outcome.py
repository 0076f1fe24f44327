"""The outcome in a few sentences, generated from the results."""

from collections.abc import Sequence

from lightning_chex.report.comparison import beaten, judged, withheld
from lightning_chex.report.page.views import Answers, counted
from lightning_chex.report.results import Results, number

_MOST = 2
"""Number of measures that answer a question at most."""


def outcome(results: Results) -> list[Answers]:
    """Answer up to three questions: place, use by the network, dependence on the weights.

    A question whose measures were not taken is left out.
    """
    place = _main_measures(results, "localization", "severity")
    if results.task == "regression":
        place.reverse()
    answered = [
        _sentences(results, "Do the maps lie on the findings?", place),
        _sentences(results, "Does the network use what the maps mark?", _main_measures(results, "perturbation")),
        _weights(results),
    ]
    return [answers for answers in answered if answers is not None]


def _main_measures(results: Results, *groups: str) -> list[str]:
    return [key for key in results.keys_with("outcome") if results.measure(key).group in groups][:_MOST]


def _weights(results: Results) -> Answers | None:
    means = {name: results.estimate(name, "randomization") for name in results.methods}
    known = {name: mean.value for name, mean in means.items() if mean.known}
    if not known:
        return None
    low = min(known, key=lambda name: known[name])
    high = max(known, key=lambda name: known[name])
    if low == high:
        span = f"by {number(known[low])} for {low}"
    else:
        span = f"by {number(known[low])} ({low}) to {number(known[high])} ({high})"
    counts = _counted(results, "randomization")
    return Answers(
        "Do the maps depend on what was learnt?",
        [
            "With weights drawn anew, from the last layer to all, the maps correlate with the originals "
            f"{span} on average ({counts})."
        ],
    )


def _sentences(results: Results, question: str, keys: Sequence[str]) -> Answers | None:
    if not keys or not results.methods:
        return None
    sentences = [
        f"{results.measure(key).outcome} ({_counted(results, key)}): {_comparison(results, key)}." for key in keys
    ]
    return Answers(question, sentences)


def _counted(results: Results, key: str) -> str:
    return counted(results.estimate(name, key).n for name in results.names)


def _comparison(results: Results, key: str) -> str:
    """Say which methods do better than which controls, and which other methods the best one beats."""
    controls = judged(results, key)
    methods = [name for name in results.methods if results.estimate(name, key).known]
    if not methods:
        return "no method was measured"
    if not controls:
        return "no control was measured, so nothing says which methods are better than chance"
    if why := withheld(results, key):
        return f"{why}, so nothing is called better or worse"
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in methods:
        groups.setdefault(tuple(beaten(results, name, key, controls)), []).append(name)
    if set(groups) == {()}:
        return f"no method does better than any control{_best_control(results, key)}{_among(results, methods, key)}"
    said = []
    for below, names in sorted(groups.items(), key=lambda item: -len(item[0])):
        verb = "does" if len(names) == 1 else "do"
        if len(below) == len(controls):
            what = "every control" if len(controls) > 1 else f"the control {controls[0]}"
            said.append(f"{words(names)} {verb} better than {what}{_best_control(results, key)}")
        elif below:
            said.append(f"{words(names)} {verb} better than {words(below)} only")
        else:
            said.append(f"{words(names)} {verb} better than none of them")
    return "; ".join(said) + _among(results, methods, key)


def _among(results: Results, methods: Sequence[str], key: str) -> str:
    """Say which other methods the one with the best value does better than."""
    if len(methods) < 2:
        return ""
    sign = -1.0 if results.better(key) == "lower" else 1.0
    best = max(methods, key=lambda name: sign * results.estimate(name, key).value)
    others = [name for name in methods if name != best]
    below = beaten(results, best, key, others)
    if not below:
        return f". Among the methods, {best} has the best value, but does better than none of the others"
    if len(below) == len(others):
        return f". Among the methods, {best} does better than every other"
    apart = [name for name in others if name not in below]
    return f". Among the methods, {best} does better than {words(below)}, with no sure difference from {words(apart)}"


def _best_control(results: Results, key: str) -> str:
    sign = -1.0 if results.better(key) == "lower" else 1.0
    known = {name: results.estimate(name, key).value for name in judged(results, key)}
    best = max(known, key=lambda name: sign * known[name])
    return f" (the best control is {best}, {number(known[best])})" if len(known) > 1 else f" ({number(known[best])})"


def words(names: Sequence[str], joint: str = "and") -> str:
    """Names as a list in a sentence.

    Example:
        >>> words(["IBA"]), words(["IBA", "LRP", "GradCAM"])
        ('IBA', 'IBA, LRP and GradCAM')
    """
    return f" {joint} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
