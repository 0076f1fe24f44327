"""The outcome in a few sentences, generated from the results."""

from collections.abc import Sequence

from lightning_chex.report.comparison import (
    best_name,
    controls_with_value,
    reason_not_comparable,
    significantly_better_than,
)
from lightning_chex.report.page.views import Answers, counted
from lightning_chex.report.results import Results, format_number

_MAX_MEASURES = 2
"""Largest number of measures that answer a question."""


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
    return [key for key in results.keys_shown_in("outcome") if results.measure(key).group in groups][:_MAX_MEASURES]


def _weights(results: Results) -> Answers | None:
    values = {}
    for name in results.methods:
        mean = results.estimate(name, "randomization")
        if mean.known:
            values[name] = mean.value
    if not values:
        return None
    low = best_name(values, "lower")
    high = best_name(values, "higher")
    if low == high:
        span = f"by {format_number(values[low])} for {low}"
    else:
        span = f"by {format_number(values[low])} ({low}) to {format_number(values[high])} ({high})"
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
    sentences = []
    for key in keys:
        title = results.measure(key).outcome
        sentences.append(f"{title} ({_counted(results, key)}): {_comparison(results, key)}.")
    return Answers(question, sentences)


def _counted(results: Results, key: str) -> str:
    return counted(results.estimate(name, key).n for name in results.names)


def _comparison(results: Results, key: str) -> str:
    """State which methods do better than which controls, and which other methods the best one does better than."""
    controls = controls_with_value(results, key)
    methods = [name for name in results.methods if results.estimate(name, key).known]
    if not methods:
        return "no method was measured"
    if not controls:
        return "no control was measured, so nothing says which methods are better than chance"
    reason = reason_not_comparable(results, key)
    if reason is not None:
        return f"{reason}, so nothing is called better or worse"
    # methods that do better than the same controls share a clause
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in methods:
        better_than = tuple(significantly_better_than(results, name, key, controls))
        groups.setdefault(better_than, []).append(name)
    among = _among_methods(results, methods, key)
    if set(groups) == {()}:
        return f"no method does better than any control{_best_control(results, key)}{among}"
    clauses = []
    for better_than, names in sorted(groups.items(), key=lambda item: -len(item[0])):
        verb = "does" if len(names) == 1 else "do"
        subject = f"{words(names)} {verb} better than"
        if len(better_than) == len(controls):
            all_controls = "every control" if len(controls) > 1 else f"the control {controls[0]}"
            clauses.append(f"{subject} {all_controls}{_best_control(results, key)}")
        elif better_than:
            clauses.append(f"{subject} {words(better_than)} only")
        else:
            clauses.append(f"{subject} none of them")
    return "; ".join(clauses) + among


def _among_methods(results: Results, methods: Sequence[str], key: str) -> str:
    """State which other methods the one with the best value does better than."""
    if len(methods) < 2:
        return ""
    values = {name: results.estimate(name, key).value for name in methods}
    best = best_name(values, results.better(key))
    others = [name for name in methods if name != best]
    worse = significantly_better_than(results, best, key, others)
    if not worse:
        return f". Among the methods, {best} has the best value, but does better than none of the others"
    if len(worse) == len(others):
        return f". Among the methods, {best} does better than every other"
    unclear = [name for name in others if name not in worse]
    return f". Among the methods, {best} does better than {words(worse)}, with no sure difference from {words(unclear)}"


def _best_control(results: Results, key: str) -> str:
    values = {name: results.estimate(name, key).value for name in controls_with_value(results, key)}
    best = best_name(values, results.better(key))
    if len(values) == 1:
        return f" ({format_number(values[best])})"
    return f" (the best control is {best}, {format_number(values[best])})"


def words(names: Sequence[str], joint: str = "and") -> str:
    """Join names to a list in a sentence.

    Example:
        >>> words(["IBA"]), words(["IBA", "LRP", "Gradient"])
        ('IBA', 'IBA, LRP and Gradient')
    """
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} {joint} {names[-1]}"
