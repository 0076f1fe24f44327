"""Figures of Khakzar et al. (MICCAI 2021): measured on other data and other weights, so not comparable with ours."""

from lightning_chex.class_names import DETECTORS, PATHOLOGIES

HEADING = "paper (other data and weights)"

IOU = {
    "GradCAM": 0.077,
    "IntegratedGradients": 0.076,
    "LRP": 0.025,
    "Gradient": 0.114,
    "IBA": 0.114,
    "InverseIBA": 0.088,
    "MultiLayerIBA": 0.189,
}
"""Table 1: mean IoU on the boxes of NIH ChestX-ray8; its threshold rule is not stated."""

EVERY_PIXEL = 0.0754
"""Not in the paper: what a map that marks every pixel scores on the same 984 boxes, their mean area."""

_TABLE_2 = (
    (0.11, 0.176, 0.0, 0.04, 0.145, 0.194, 0.171),
    (0.0, 0.13, 0.0, 0.019, 0.13, 0.245, 0.257),
    (0.011, 0.14, 0.0, 0.052, 0.222, 0.243, 0.257),
)
DETECTOR_IOU = {name: dict(zip(IOU, row, strict=True)) for name, row in zip(DETECTORS, _TABLE_2, strict=True)}
"""Table 2: mean IoU on BrixIA, by detector."""

CLASS_IOU = {
    "BCE": dict(zip(PATHOLOGIES, (0.016, 0.071, 0.004, 0.001, 0.102, 0.011, 0.0, 0.003), strict=True)),
    "weighted BCE": dict(zip(PATHOLOGIES, (0.073, 0.131, 0.032, 0.058, 0.097, 0.02, 0.066, 0.016), strict=True)),
}
"""Table 3: mean IoU of Inverse IBA by class, for two training losses."""

BOX_MEAN = {"BCE": 0.024, "weighted BCE": 0.065}
"""Table 3's column "Mean": it is the mean over boxes, not over classes."""

SEVERITY = {
    "RegressionIBA_MSE": 0.4766,
    "RegressionIBA_RM": 0.4766,
    "RegressionIBA_DV": 0.4404,
    "RandomMap": 0.0004,
}
"""Correlation of the map with the zone-score map; the paper names MSE twice, the second one is taken for DV."""
