"""Maps of every method of claim 2 on five findings of the phantom, a sheet for the page."""

from pathlib import Path

import matplotlib.pyplot as plt

from benchmarks.claims.layers import methods
from benchmarks.claims.populations import single_findings
from benchmarks.claims.study import Study

NAMES = ("Mass", "Effusion", "Pneumonia", "Nodule", "Infiltration")

TITLES = {
    "Multi-layer IBA, intersection (Eq. 5 as printed)": "Multi-layer IBA,\nintersection",
    "Multi-layer IBA, gated": "Multi-layer IBA,\ngated",
    "SharedIBA: one damping ratio for all layers": "SharedIBA",
    "InputIBA: a bottleneck at the pixels": "InputIBA",
}


def draw(study: Study, file: Path) -> None:
    """Draw the first case of each finding, its outline, and the maps, each scaled to itself."""
    seed = study.seeds[0]
    network = study.network("classifier", seed)
    cases = single_findings(len(NAMES), NAMES)
    maps = {
        name: method.attribute(network, cases.images, cases.target) for name, method in methods(study, seed).items()
    }
    figure, axes = plt.subplots(len(NAMES), len(maps) + 1, figsize=(1.7 * (len(maps) + 1), 1.75 * len(NAMES)))
    for row, (name, places) in enumerate(zip(NAMES, axes, strict=True)):
        shown = {name: cases.images[row, 0]} | {key: own[row] for key, own in maps.items()}
        for place, (title, values) in zip(places, shown.items(), strict=True):
            place.imshow(values, cmap="gray" if title == name else "magma")
            place.contour(
                cases.regions[row].any(0), [0.5], colors="yellow" if title == name else "white", linewidths=0.7
            )
            place.set_xticks([])
            place.set_yticks([])
            if row == 0 and title != name:
                place.set_title(TITLES.get(title, title.replace("IBA at ", "IBA at\n")), fontsize=9)
        places[0].set_ylabel(name, fontsize=9)
    figure.tight_layout(pad=0.4)
    figure.savefig(file, dpi=70, pil_kwargs={"quality": 80})
    plt.close(figure)
