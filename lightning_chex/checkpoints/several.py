"""Several checkpoints of one model, by name: what ``evaluate`` compares."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_chex.checkpoints.contents import CheckpointError, read_checkpoint

Given = Sequence[str] | Mapping[str, str] | str | None
"""What ``--ckpt_path`` may be: a file, several, or several by name."""


def paths_of(given: Given) -> list[str]:
    """The files, in order; none where none was given.

    Example:
        >>> paths_of("a.ckpt"), paths_of({"plain": "a.ckpt", "weighted": "b.ckpt"}), paths_of(None)
        (['a.ckpt'], ['a.ckpt', 'b.ckpt'], [])
    """
    if not given:
        return []
    return [given] if isinstance(given, str) else list(given.values() if isinstance(given, Mapping) else given)


def named_checkpoints(given: Given) -> dict[str, Path]:
    """Give every checkpoint a name, which is that of its folder in the results too.

    Args:
        given: names of a mapping stand. Files of a list are called by their own names where these differ, else by the
            run's folder, else by both and their number.

    Raises:
        CheckpointError: the same file twice, or a name that no folder can bear.

    Example:
        >>> list(named_checkpoints(["runs/a/checkpoints/best.ckpt", "runs/b/checkpoints/best.ckpt"]))
        ['a', 'b']
    """
    paths = [Path(path).expanduser() for path in paths_of(given)]
    seen: dict[Path, Path] = {}
    for path in paths:
        if path.resolve() in seen:
            raise CheckpointError(
                f"ckpt_path names {str(path)!r} twice{_other(path, seen[path.resolve()])}: give different checkpoints"
            )
        seen[path.resolve()] = path
    names = [str(name) for name in given] if isinstance(given, Mapping) else _names(paths)
    if len(set(names)) < len(names):
        raise CheckpointError(f"ckpt_path gives two checkpoints one name: {', '.join(names)}")
    for name in names if len(names) > 1 else ():
        # only what no file of a comparison is called
        if not re.fullmatch(r"\w[\w.+= -]*", name) or Path(name).suffix in (".json", ".html", ".yaml", ".txt"):
            raise CheckpointError(
                f"ckpt_path calls a checkpoint {name!r}, and its results lie in a folder of that name: letters, digits "
                "and - _ . + = only, and no ending of a file"
            )
    return dict(zip(names, paths, strict=True))


def _other(path: Path, first: Path) -> str:
    return "" if str(path) == str(first) else f" (it is {str(first)!r} too)"


def _names(paths: Sequence[Path]) -> list[str]:
    own = [path.stem for path in paths]
    runs = [path.parents[1].name if path.parent.name == "checkpoints" else path.parent.name for path in paths]
    numbered = [f"{i}_{run}_{stem}" for i, (run, stem) in enumerate(zip(runs, own, strict=True), start=1)]
    for names in (own, runs, numbered):
        # as folders may be called; what differs may be the same then
        tidy = [re.sub(r"^\W|[^\w.+= -]", "_", name) for name in names]
        if len(set(tidy)) == len(tidy) and all(tidy):
            return tidy
    return numbered


def read_checkpoints(given: Given) -> dict[str, dict[str, Any]]:
    """Read all files, and see that they are of one model with the same classes or scores.

    Returns:
        What each holds, by its path as given.

    Raises:
        CheckpointError: see `named_checkpoints` and `read_checkpoint`; or they differ from each other.
    """
    named_checkpoints(given)
    found = {path: read_checkpoint(path) for path in paths_of(given)}
    (first, known), *others = found.items() if found else [("", {})]
    for path, content in others:
        for what, of in (("classes", "class_names"), ("scores", "score_names")):
            one, other = (list(each.get("hyper_parameters", {}).get(of) or ()) for each in (known, content))
            if one != other:
                raise CheckpointError(
                    f"ckpt_path={path!r} has the {what} {_list(other)}, and {first!r} {_list(one)}: only checkpoints "
                    f"with the same {what} can be compared"
                )
        ours, theirs = (
            {name: tuple(value.shape) for name, value in each["state_dict"].items()} for each in (known, content)
        )
        odd = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        if odd:
            raise CheckpointError(
                f"ckpt_path={path!r} is of another model than {first!r}: {len(odd)} tensors differ, such as {odd[0]} "
                f"({theirs.get(odd[0], 'missing')}, {ours.get(odd[0], 'missing')}): evaluate them one by one"
            )
    return found


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
