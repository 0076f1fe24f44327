"""What was evaluated, and how, and what methods, controls and terms mean: the head of the page and its end."""

from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from lightning_chex.reporting.comparison import MIN_PATIENTS
from lightning_chex.reporting.explanation import BITS_NOTE
from lightning_chex.reporting.report.markup import Child, details, element, section
from lightning_chex.reporting.results import Results

_REGRESSION = "IBA for a network that predicts a score; what is left must"

METHODS = {
    "IBA": "Information bottleneck: noise replaces the features of a layer wherever the prediction can do without. "
    "The map is the information that is left, in bits.",
    "InverseIBA": "Information bottleneck the other way round: it finds the features without which the prediction "
    "breaks down.",
    "MultiLayerIBA": "Information bottlenecks at several depths; what all of them mark is kept.",
    "RegressionIBA_MSE": f"{_REGRESSION} lead to the true score.",
    "RegressionIBA_RM": f"{_REGRESSION} lead to a high score.",
    "RegressionIBA_DV": f"{_REGRESSION} lead to the score the network gave to the whole image.",
    "RegressionInverseIBA": "Inverse IBA for a network that predicts a score.",
    "GradCAM": "The feature channels of a deep layer, weighted by how the output follows them; coarse.",
    "IntegratedGradients": "Gradients of the output by the pixels, summed on the way from an empty image to this one.",
    "Gradient": "How strongly the output follows each pixel.",
    "LRP": "Layer-wise relevance propagation: the output is shared out, layer by layer, back to the pixels.",
}

CONTROLS = {
    "EveryPixel": "marks every pixel alike",
    "RandomMap": "noise",
    "PriorMap": "the mean region of other images, whatever this one shows",
    "LungField": "marks the lungs",
}


TERMS = {
    "n": "How many maps a mean is over. It stands below the heading of a column, and in every cell that has another "
    "one; every figure says its own. Measures that cost much are taken on fewer images, so one table can hold means of "
    "very different weight, and a mean of fewer than ten maps says little.",
    "95 % interval": "Where the mean over all patients like these lies, by redrawing patients, each with all of their "
    "maps (studentised bootstrap). It stays wide with few patients, and may reach beyond what a value can be.",
    "Better": f"The 95 % interval of the mean difference on the same cases, of {MIN_PATIENTS} patients or more, is "
    "clear of 0. With fewer patients nothing is called better. Where it is not clear of 0, nothing is shown, which "
    "does not mean that two methods are equal. Intervals are not corrected for their number.",
    "Bits": BITS_NOTE,
}


def facts(results: Results) -> Element:
    """Data, split, model, threshold rule and feature statistics, as a list."""
    protocol = results.protocol
    data = _mapping(protocol.get("data"))
    checkpoint = _mapping(protocol.get("checkpoint"))
    fingerprint, digest = str(data.get("fingerprint") or "")[:12], str(checkpoint.get("sha256") or "")[:12]
    counts = [
        _count(data[key], key[:-1]) for key in ("images", "targets", "patients") if isinstance(data.get(key), int)
    ]
    tuning = data.get("tuning_images")
    rows: list[tuple[str, Child]] = [
        ("Data", _joined([data.get("module"), f"fingerprint {fingerprint}" if fingerprint else None])),
        ("Split", _joined([protocol.get("split")])),
        ("Judged", ", ".join(counts)),
        ("Against", _against(results)),
        ("Kept for tuning", _count(tuning, "other image") if isinstance(tuning, int) and tuning else ""),
        ("Model", _joined([checkpoint.get("file"), f"SHA-256 {digest}" if digest else None])),
        ("Image size", _image_size(protocol)),
        ("Threshold rule", _joined([protocol.get("threshold_rule")])),
        ("Statistics", "; ".join(_statistics(_mapping(protocol.get("statistics"))))),
        ("Methods", ", ".join(results.methods)),
        ("Controls", controls_described(results) or "none"),
    ]
    parts = [part for name, value in rows if value for part in (element("dt", name), element("dd", value))]
    return element("dl", *parts, class_="facts")


def left_out(results: Results) -> Element | None:
    """Methods that could not be evaluated, with the reasons."""
    if not results.left_out:
        return None
    parts = [part for name, why in results.left_out.items() for part in (element("dt", name), element("dd", str(why)))]
    return section(
        "left-out",
        "Left out",
        "These methods were asked for and could not be evaluated. They stand in no table, which is no judgement of "
        "them.",
        element("dl", *parts, class_="facts"),
    )


def full_protocol(results: Results) -> Element | None:
    """The complete protocol, folded; None without any."""
    if not results.protocol:
        return None
    return section(
        "protocol",
        "Protocol",
        "All settings of this evaluation, as they stand in results.json. With them and the same data it can be "
        "repeated.",
        details("The protocol in full", _tree(results.protocol)),
    )


def terms() -> Element:
    """Definitions of the terms on the page, folded."""
    parts = [part for name, meaning in TERMS.items() for part in (element("dt", name), element("dd", meaning))]
    return details("What n, intervals, “better” and bits mean here", element("dl", *parts))


def glossary(results: Results) -> Element | None:
    """Descriptions of the evaluated methods, folded; None where none is known."""
    known = [name for name in results.methods if name in METHODS]
    parts = [part for name in known for part in (element("dt", name), element("dd", METHODS[name]))]
    return details("What the methods are", element("dl", *parts)) if parts else None


def controls_described(results: Results) -> str:
    """The controls in a line, each with a description."""
    return ", ".join(f"{name} ({CONTROLS[name]})" if name in CONTROLS else name for name in results.controls)


def _tree(value: Any, inner: bool = False) -> Element:
    """Nested mappings and lists as nested lists of terms, the innermost ones in a line."""
    if isinstance(value, Mapping):
        if inner and value and not any(isinstance(v, Mapping | list | tuple) for v in value.values()):
            return element("span", ", ".join(f"{k}: {_word(v)}" for k, v in value.items()))
        parts = [part for k, v in value.items() for part in (element("dt", str(k)), element("dd", _tree(v, True)))]
        return element("dl", *parts)
    if isinstance(value, Sequence) and not isinstance(value, str):
        if any(isinstance(each, Mapping) for each in value):
            return element("ul", *(element("li", _tree(each, True)) for each in value))
        return element("span", ", ".join(map(_word, value)) or "–")
    return element("span", _word(value))


def _word(value: Any) -> str:
    return "–" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _statistics(layers: Mapping[str, Any]) -> list[str]:
    said = []
    for layer, facts_ in layers.items():
        known = _mapping(facts_)
        images, source = known.get("images"), known.get("from")
        said.append(
            " ".join(
                filter(
                    None,
                    [
                        layer,
                        f"from {_count(images, 'image')}" if isinstance(images, int) else "",
                        f"({source})" if source else "",
                    ],
                )
            )
        )
    return said


def _image_size(protocol: Mapping[str, Any]) -> str:
    """The size in pixels; empty where it is that of the training."""
    size, before = (protocol.get("image") or [None])[-1], protocol.get("trained_size")
    return f"{size} px; the model was trained on images of {before} px" if before not in (None, size) else ""


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _against(results: Results) -> str:
    return {
        "boxes": "boxes drawn around the findings",
        "masks": "masks of the findings",
        "zones": "six zones of the lungs, each with its severity score",
    }.get(results.regions or "", "nothing: no regions are known, so nothing is said of place")


def _joined(parts: Sequence[Any]) -> str:
    return ", ".join(str(part) for part in parts if part)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
