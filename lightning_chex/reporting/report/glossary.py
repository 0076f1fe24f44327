"""What the methods, the controls and the words are, in a sentence each, for a reader who knows none of them."""

from xml.etree.ElementTree import Element

from lightning_chex.reporting.comparison import MIN_PATIENTS
from lightning_chex.reporting.explanation import BITS_NOTE
from lightning_chex.reporting.report.markup import element
from lightning_chex.reporting.report.parts import details
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


def terms() -> Element:
    """The words of the page, to be unfolded."""
    parts = [part for name, meaning in TERMS.items() for part in (element("dt", name), element("dd", meaning))]
    return details("What n, intervals, “better” and bits mean here", element("dl", *parts))


def glossary(results: Results) -> Element | None:
    """Descriptions of the methods of a report, to be unfolded; None where none is known."""
    known = [name for name in results.methods if name in METHODS]
    parts = [part for name in known for part in (element("dt", name), element("dd", METHODS[name]))]
    return details("What the methods are", element("dl", *parts)) if parts else None


def controls_described(results: Results) -> str:
    """The controls in a line, each with what it does."""
    return ", ".join(f"{name} ({CONTROLS[name]})" if name in CONTROLS else name for name in results.controls)
