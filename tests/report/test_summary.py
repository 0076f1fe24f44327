from pathlib import Path

from lightning_chex.report import summary

METRICS = {
    "train/loss": 0.1,
    "val/auroc": 0.8123,
    "val/auroc/Mass": 0.9,
    "val/ap": 0.4,
    "val/iba_iou": 0.3,
    "val/iba_iou_random": 0.031,
    "val/iba_iou_every_pixel": 0.07,
    "val/early_iou": 0.2,
    "val/early_iou_random": 0.032,
    "val/early_iou_every_pixel": 0.07,
    "test/auroc": 0.5,
    "test/iba_iou": 0.111,
    "test/iba_iou_random": 0.011,
    "test/iba_iou_every_pixel": 0.012,
}


def rows(text: str) -> list[tuple[str, str]]:
    return [(line[:44].strip(), line[44:].strip()) for line in text.splitlines() if line.strip()]


def test_figures_of_one_stage_with_the_controls_beside_each_iou():
    assert rows(summary("val", METRICS, [], "", [])) == [
        ("AUROC, mean over classes", "0.812"),
        ("average precision, mean over classes", "0.400"),
        ("early IoU with the marked regions", "0.200"),
        ("a random map", "0.032"),
        ("a map that marks every pixel", "0.070"),
        ("iba IoU with the marked regions", "0.300"),
        ("a random map", "0.031"),
        ("a map that marks every pixel", "0.070"),
    ]
    assert [value for _, value in rows(summary("test", METRICS, [], "", []))] == ["0.500", "0.111", "0.011", "0.012"]


def test_a_regression_without_boxes():
    text = summary("val", {"val/mae": 2.5, "val/pearson": 0.25}, [], "", [])
    assert rows(text) == [
        ("mean absolute error, in points", "2.500"),
        ("Pearson correlation with the true score", "0.250"),
    ]


def test_what_to_open_next():
    text = summary("val", {}, [Path("a.png"), Path("b.png")], "best.ckpt", [Path("w")])
    assert [line.split() for line in text.splitlines() if line] == [
        ["pictures", "a.png"],
        ["pictures", "b.png"],
        ["checkpoint", "best.ckpt"],
        ["W&B", "run", "w"],
    ]


def test_nothing_to_say_is_nothing():
    assert summary("val", {}, [], "", []) == ""
