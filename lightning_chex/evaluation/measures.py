"""All measures: their titles, which way is better, and an explanation of each."""

from lightning_chex.attribution import NOT_CONVERGED
from lightning_chex.reporting import Measure

IOU_ACCURACIES = (0.1, 0.25, 0.5, 0.75)
IOBB_ACCURACIES = (0.1, 0.25, 0.5, 0.75, 0.9)

MEASURES: dict[str, Measure] = {
    "iou/fixed_share": Measure(
        "IoU, fixed share of pixels",
        "higher",
        "localization",
        "Overlap (intersection over union) of the region with the map's strongest pixels, the same share of "
        "every image: see the rule in the protocol. val/iba_iou of a training marks 5 % by default.",
    ),
    "iou/otsu": Measure(
        "IoU, Otsu",
        "higher",
        "localization",
        "The same with the pixels above the threshold that Otsu's rule finds in the map's values.",
    ),
    "iou/tuned": Measure(
        "IoU, tuned per class",
        "higher",
        "localization",
        "The same with a threshold per class and method, chosen on the tuning half, never on the images reported on.",
    ),
    "iou/oracle": Measure(
        "IoU, oracle (upper bound)",
        "higher",
        "localization",
        "The best IoU any threshold could reach, chosen with the region in sight: an upper bound, not a result.",
    ),
    **{
        f"accuracy_iou/{t:g}": Measure(
            f"T(IoU) at {t:g}", "higher", "localization", f"Share of maps whose IoU (fixed share) is at least {t:g}."
        )
        for t in IOU_ACCURACIES
    },
    **{
        f"accuracy_iobb/{t:g}": Measure(
            f"T(IoBB) at {t:g}",
            "higher",
            "localization",
            f"Share of maps of whose marked pixels (fixed share) at least {t:.0%} lie in the region.",
        )
        for t in IOBB_ACCURACIES
    },
    "pointing_game": Measure(
        "Pointing game", "higher", "localization", "How often the strongest pixel lies in the region."
    ),
    "effective_heat_ratio": Measure(
        "Effective heat ratio",
        "higher",
        "localization",
        "Share of the map's heat inside the region, averaged over all quantile thresholds.",
    ),
    "mass_accuracy": Measure(
        "Relevance mass", "higher", "localization", "Share of the map's heat that lies in the region."
    ),
    "rank_accuracy": Measure(
        "Relevance rank",
        "higher",
        "localization",
        "Share of the K strongest pixels that lie in the region, K being the region's size.",
    ),
    "insertion_auc": Measure(
        "Insertion AUC",
        "higher",
        "perturbation",
        "Mean output while the image's pixels are put into its blurred copy, the map's strongest first.",
    ),
    "deletion_auc": Measure(
        "Deletion AUC",
        "lower",
        "perturbation",
        "Mean output while the image's pixels are blurred, the map's strongest first.",
    ),
    "insertion_auc_half": Measure(
        "Insertion AUC, half range",
        "higher",
        "perturbation",
        "Insertion over the first half of the pixels, as the paper's authors measured it.",
    ),
    "deletion_auc_half": Measure(
        "Deletion AUC, half range",
        "lower",
        "perturbation",
        "Deletion over the first half of the pixels, as the paper's authors measured it.",
    ),
    "road": Measure(
        "ROAD, least - most",
        "higher",
        "perturbation",
        "Output after the least relevant pixels are smoothly filled in, less that after the most relevant ones are.",
    ),
    "road_morf": Measure(
        "ROAD, most relevant first",
        "lower",
        "perturbation",
        "Mean output after the most relevant pixels are filled in.",
    ),
    "road_lerf": Measure(
        "ROAD, least relevant first",
        "higher",
        "perturbation",
        "Mean output after the least relevant pixels are filled in.",
    ),
    "sensitivity_n": Measure(
        "Sensitivity-N",
        "higher",
        "perturbation",
        "Correlation of the map's sum under a random mask with the drop of the raw output when the mask is taken out.",
    ),
    "severity_correlation": Measure(
        "Correlation with severity",
        "higher",
        "severity",
        "Pearson correlation of the map with the picture in which every zone carries its radiologist's score.",
    ),
    "zone_correlation": Measure(
        "Zone correlation",
        "higher",
        "severity",
        "Pearson correlation, over the six zones of an image, of mean relevance with the score.",
    ),
    "blank": Measure(
        "Blank maps",
        None,
        "sanity",
        "Share of maps that are the same everywhere: they say nothing. One of zeros marks no pixel, another one every "
        "pixel.",
    ),
    "convergence": Measure(
        "Change at the end",
        None,
        "sanity",
        "How much the map, in bits per feature cell, changed over the last fifth of the optimisation's steps, as a "
        "share of its bits (relative L1 change): near 0 where it has converged. The median over maps; methods that "
        "optimise nothing have none.",
        "median",
    ),
    "unconverged": Measure(
        "Not converged",
        None,
        "sanity",
        f"Share of maps that changed by more than {NOT_CONVERGED:.0%} over the last fifth of the steps: with more "
        "steps they would be other maps.",
    ),
    "randomization": Measure(
        "Similarity after randomisation",
        "lower",
        "sanity",
        "Rank correlation of the map with those of a network whose weights are drawn anew, from the output down: mean "
        "over the stages from the last layer alone to all of them. Nearer to 0 if the map depends on what was learnt.",
    ),
    "randomization_blank": Measure(
        "Blank after randomisation",
        None,
        "sanity",
        "Share of the maps of networks with weights drawn anew that are the same everywhere. They are like no other "
        "map, and are left out of the similarity: a method of many has not passed, it has not been tested.",
    ),
    "label_randomization": Measure(
        "Similarity after label shuffling",
        "lower",
        "sanity",
        "Rank correlation of the map with that of the same network trained on shuffled labels: near 0 if the map "
        "depends on what labels say of images.",
    ),
    "label_randomization_blank": Measure(
        "Blank after label shuffling",
        None,
        "sanity",
        "Share of the maps of the network trained on shuffled labels that are the same everywhere; they are left out "
        "of the similarity.",
    ),
}

SHARES = frozenset(
    key for key, own in MEASURES.items() if own.group == "localization" or key.endswith("blank") or key == "unconverged"
)
"""Measures that lie from 0 to 1 by definition, and their intervals with them."""
