"""Facts about the evaluation and its methods for the head of the page, and the protocol at its end."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_chex.report.page.views import Entries, Entry, Section, Tree
from lightning_chex.report.results import Results

_REFERENCES = {
    "boxes": "boxes drawn around the findings",
    "masks": "masks of the findings",
    "zones": "six zones of the lungs, each with its severity score",
}


_NO_REFERENCE = "none: no regions are known, so localisation is not measured"


def facts(results: Results) -> list[Entry]:
    """List data, split, model, threshold rule and feature statistics."""
    protocol = results.protocol
    data = _mapping(protocol.get("data"))
    checkpoint = _mapping(protocol.get("checkpoint"))
    fingerprint = str(data.get("fingerprint") or "")[:12]
    digest = str(checkpoint.get("sha256") or "")[:12]
    counts = [
        _count(data[key], key[:-1]) for key in ("images", "targets", "patients") if isinstance(data.get(key), int)
    ]
    tuning = data.get("tuning_images")
    entries = {
        "Data": _joined([data.get("module"), f"fingerprint {fingerprint}" if fingerprint else None]),
        "Split": _joined([protocol.get("split")]),
        "Evaluated": ", ".join(counts),
        "Reference": _REFERENCES.get(results.regions or "", _NO_REFERENCE),
        "Kept for tuning": _count(tuning, "other image") if isinstance(tuning, int) and tuning else "",
        "Model": _joined([checkpoint.get("file"), f"SHA-256 {digest}" if digest else None]),
        "Image size": _image_size(protocol),
        "Threshold rule": _joined([protocol.get("threshold_rule")]),
        "Statistics": "; ".join(_statistics(_mapping(protocol.get("statistics")))),
        "Methods": ", ".join(results.methods),
        "Controls": _controls(results) or "none",
    }
    return [Entry(term, text) for term, text in entries.items() if text]


def left_out(results: Results) -> Section | None:
    """Build the section of methods that could not be evaluated, with the reasons; None without any."""
    if not results.left_out:
        return None
    entries = [Entry(name, str(reason)) for name, reason in results.left_out.items()]
    return Section("left-out", "Left out", [Entries(entries)])


def full_protocol(results: Results) -> Section | None:
    """Build the section of the complete protocol; None without any."""
    if not results.protocol:
        return None
    return Section("protocol", "Protocol", [_tree(results.protocol)])


def glossary(results: Results) -> list[Entry]:
    """Describe the evaluated methods; those without a description are left out."""
    entries = []
    for name in results.methods:
        described = results.description(name)
        if described.description:
            entries.append(Entry(name, described.description, described.title if described.title != name else ""))
    return entries


def _controls(results: Results) -> str:
    """The controls in a line, each with its description."""
    names = []
    for name in results.controls:
        description = results.description(name).description
        names.append(f"{name} ({description})" if description else name)
    return ", ".join(names)


def _tree(value: Any, inner: bool = False) -> Tree:
    """Nested mappings and lists; the innermost ones become one line of text."""
    if isinstance(value, Mapping):
        flat = not any(isinstance(each, Mapping | list | tuple) for each in value.values())
        if inner and flat:
            return Tree(", ".join(f"{name}: {_word(each)}" for name, each in value.items()))
        return Tree(terms=[(str(name), _tree(each, True)) for name, each in value.items()])
    if isinstance(value, Sequence) and not isinstance(value, str):
        if any(isinstance(each, Mapping) for each in value):
            return Tree(items=[_tree(each, True) for each in value])
        return Tree(", ".join(map(_word, value)) or "–")
    return Tree(_word(value))


def _word(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _statistics(layers: Mapping[str, Any]) -> list[str]:
    """Say for each layer how many images its statistics rest on."""
    sentences = []
    for layer, about in layers.items():
        known = _mapping(about)
        parts = [layer]
        if isinstance(known.get("images"), int):
            parts.append(f"from {_count(known['images'], 'image')}")
        if known.get("from"):
            parts.append(f"({known['from']})")
        sentences.append(" ".join(parts))
    return sentences


def _image_size(protocol: Mapping[str, Any]) -> str:
    """The size in pixels; empty where it is that of the training."""
    size = (protocol.get("image") or [None])[-1]
    before = protocol.get("trained_size")
    return f"{size} px; the model was trained on images of {before} px" if before not in (None, size) else ""


def _count(number: int, word: str) -> str:
    plural = "" if number == 1 else "s"
    return f"{number:,} {word}{plural}"


def _joined(parts: Sequence[Any]) -> str:
    return ", ".join(str(part) for part in parts if part)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
