"""What a run says at its end."""

from collections.abc import Mapping, Sequence
from pathlib import Path


def summary(
    stage: str, metrics: Mapping[str, float], sheets: Sequence[Path], checkpoint: str, wandb_folders: Sequence[Path]
) -> str:
    """Write the few lines that end a run.

    Args:
        stage: ``val`` or ``test``, the prefix of the metrics to show.
        metrics: everything logged.
        sheets: the last sheet of pictures of each explaining callback.
        checkpoint: path of the best checkpoint, empty if there is none.
        wandb_folders: folders of the W&B runs.

    Returns:
        One line per thing worth knowing.
    """
    lines = [""]
    for key, meaning in (
        ("auroc", "AUROC, mean over classes"),
        ("ap", "average precision, mean over classes"),
        ("dice", "Dice, mean of both lungs"),
        ("mae", "mean absolute error, in points"),
        ("pearson", "Pearson correlation with the true score"),
    ):
        if f"{stage}/{key}" in metrics:
            lines.append(f"  {meaning:<42} {metrics[f'{stage}/{key}']:.3f}")
    for key in sorted(metrics):
        name, found, _ = key.removeprefix(f"{stage}/").partition("_iou_every_pixel")
        if key.startswith(f"{stage}/") and found:
            lines += [
                f"  {f'{name} IoU with the marked regions':<42} {metrics[f'{stage}/{name}_iou']:.3f}",
                f"  {'  a random map':<42} {metrics[f'{stage}/{name}_iou_random']:.3f}",
                f"  {'  a map that marks every pixel':<42} {metrics[f'{stage}/{name}_iou_every_pixel']:.3f}",
            ]
    lines += [f"  pictures    {sheet}" for sheet in sheets]
    if checkpoint:
        lines.append(f"  checkpoint  {checkpoint}")
    lines += [f"  W&B run     {folder}" for folder in wandb_folders]
    return "\n".join(lines)
