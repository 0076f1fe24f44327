"""Words that tables use: for yes and no, for splits, for a healthy image."""

import re

CELLS = {
    **dict.fromkeys(["1", "1.0", "true", "yes", "y", "t", "positive", "pos", "present"], "positive"),
    **dict.fromkeys(["0", "0.0", "false", "no", "n", "f", "negative", "neg", "absent"], "negative"),
    **dict.fromkeys(["-1", "-1.0", "u", "uncertain", "?", "unclear", "maybe", "equivocal", "possible"], "uncertain"),
    **dict.fromkeys(["", *["nan", "na", "n/a", "<na>", "null", "none", "nd", "-", "missing", "unknown"]], "missing"),
}
"""What a cell of a class column says, in small letters."""

SPLITS = {
    **dict.fromkeys(["train", "training", "trn", "tr"], "train"),
    **dict.fromkeys(["val", "valid", "validation", "validate", "dev", "tune"], "val"),
    **dict.fromkeys(["test", "testing", "tst", "holdout", "evaluation"], "test"),
}
"""The split that a cell names, in small letters."""

_HEALTHY = {"nofinding", "nofindings", "normal", "none", "healthy", "negative", "noabnormality", "nopathology"}


def plain(name: str) -> str:
    """Keep small letters and digits of a name alone, so that ``Image Index`` and ``image_index`` are one."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def is_healthy(name: str) -> bool:
    """Whether a label says that there is no finding."""
    return plain(name) in _HEALTHY
