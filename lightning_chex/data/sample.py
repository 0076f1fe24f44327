"""The one sample format of every data set, and how samples become a batch.

A sample is a dict. Every source gives the first four keys, the others where it has them:

==================  =========================  ==================================================================
key                 type                       meaning
==================  =========================  ==================================================================
``image``           float32 (3, H, W)          grey value repeated on three channels, ImageNet mean and deviation
``label``           float32 (K,) or ()         K classes in {0, 1}, NaN where not known, or K scores; or one severity
                                               score.
                                               Absent in a plain folder of images
``image_id``        str                        the image's name at its publisher, without folder and suffix;
                                               in a plain folder with the folders below the root, ``a/b/name``
``patient_id``      str                        the patient; never logged
``boxes``           float32 (N, 4)             x1, y1, x2, y2 in pixels of ``image``; N may be 0
``box_labels``      int64 (N,)                 class index of each box
``zones``           float32 (6,)               Brixia scores 0-3 of zones A-F, see below
``lung_mask``       bool (2, H, W)             the patient's right lung (image left), then the left lung;
                                               an empty one means not outlined, not absent
``finding_masks``   bool (8, H, W)             exact extent of each pathology (phantom only)
``subgroups``       dict of str                name of the image's group by ``sex``, ``age``, ``view``, or whatever a
                                               source knows; empty where it does not. Only figures of whole groups
                                               are logged
``source_size``     (int, int)                 height and width of the image file (when chosen for ``predict``)
==================  =========================  ==================================================================

Brixia zones: A, B, C are the patient's right lung (image left) from top to bottom; D, E, F the left lung.
"""

from collections.abc import Sequence
from typing import Any

import torch

from lightning_chex.data.contract import DataError

STACKED_KEYS = frozenset({"image", "label", "zones", "lung_mask", "finding_masks"})


def detector_label(zones: torch.Tensor) -> torch.Tensor:
    """Return the labels of the three BrixIA detectors.

    Args:
        zones: scores 0 to 3 of the six zones, shape (..., 6).

    Returns:
        float32 in {0, 1}, shape (..., 3): any zone scored 0 or 1; any scored 2; any scored 3.

    Example:
        >>> detector_label(torch.tensor([0.0, 0, 0, 3, 0, 0]))
        tensor([1., 0., 1.])
    """
    return torch.stack([(zones <= 1).any(-1), (zones == 2).any(-1), (zones == 3).any(-1)], dim=-1).float()


def severity_of(scores: torch.Tensor) -> torch.Tensor:
    """Return the severity of each image: the scores (N,) themselves, or the sum of its zone scores (N, K)."""
    return scores if scores.ndim == 1 else scores.sum(dim=1)


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join samples to a batch: tensors of one shape are stacked, boxes and names become lists.

    Args:
        samples: at least one sample; all from one data set, so with the same keys.

    Returns:
        ``image`` (B, 3, H, W), ``label`` (B, K) or (B,), ...; ``boxes``, ``box_labels``, ``image_id`` and
        ``patient_id`` as lists of length B.

    Raises:
        DataError: a sample lacks a key that another one has.
    """
    if any(sample is None for sample in samples):
        raise DataError("a sample is None, an image that could not be read: on_unreadable: skip goes on without it")
    for key in {key: None for sample in samples for key in sample}:
        lacking = next((sample for sample in samples if key not in sample), None)
        if lacking is not None:
            raise DataError(
                f"some samples have {key!r}, but image {lacking.get('image_id')!r} lacks it: give all samples of a "
                "data set the same keys, an empty value where there is nothing"
            )
    columns = {key: [sample[key] for sample in samples] for key in samples[0]}
    return {key: torch.stack(values) if key in STACKED_KEYS else values for key, values in columns.items()}
