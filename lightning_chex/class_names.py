"""Names of what models predict: the classes of the two label sets, in the order of the outputs, and the score."""

PATHOLOGIES = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
)
"""The eight classes of NIH ChestX-ray8 in the publisher's order."""

DETECTED_SCORES: dict[str, tuple[int, ...]] = {"severity_0_1": (0, 1), "severity_2": (2,), "severity_3": (3,)}
"""BrixIA detector -> the zone scores it looks for."""

SCORE = "severity"
"""The target of a model that predicts a single score."""

DETECTORS = tuple(DETECTED_SCORES)
"""The three BrixIA detectors: does any zone score 0 or 1, any 2, any 3?"""
