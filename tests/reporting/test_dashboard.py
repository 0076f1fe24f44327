import numpy as np
import torch
from test_pictures import explanation

from lightning_chex.reporting import PICTURE_LIMIT, TABLE_COLUMNS, image_arguments, levels, overlay, table_rows


def test_levels_hold_their_share_of_the_pixels():
    saliency = torch.from_numpy(np.random.default_rng(0).permutation(2000).reshape(40, 50)).float()
    mask = levels(explanation(saliency=saliency))
    assert mask.dtype == np.uint8 and mask.shape == (40, 50)
    assert [int((mask == value).sum()) for value in range(4)] == [1600, 300, 80, 20]
    flat = saliency.numpy()
    for value in (1, 2, 3):
        assert flat[mask == value].min() > flat[mask == value - 1].max()


def test_nothing_is_marked_where_the_map_is_zero():
    assert not levels(explanation(saliency=torch.zeros(8, 8))).any()
    saliency = torch.zeros(8, 8)
    saliency[0, :3] = 1
    assert (levels(explanation(saliency=saliency)) > 0).sum() == 3


def test_pictures_come_with_captions_boxes_and_masks_each_its_own():
    boxed = explanation(0, boxes=torch.tensor([[1.0, 2, 30.5, 20], [0, 0, 4, 4]]))
    plain = explanation(1, target=None, target_name="severity", boxes=torch.zeros(0, 4), iou=None)
    given = image_arguments([boxed, plain])
    assert {len(values) for values in given.values()} == {2}
    assert (given["images"][1] == overlay(plain.image, plain.saliency)).all()
    assert given["caption"] == [f"0 | {boxed.caption}", f"1 | {plain.caption}"]  # numbers, never names
    boxes = given["boxes"][0]["expert"]
    assert [box["position"] for box in boxes["box_data"]] == [
        {"minX": 1, "minY": 2, "maxX": 30.5, "maxY": 20},
        {"minX": 0, "minY": 0, "maxX": 4, "maxY": 4},
    ]
    assert all(box["domain"] == "pixel" and box["class_id"] == 4 for box in boxes["box_data"])
    # the names of all: W&B shows every picture with those that came last
    assert boxes["class_labels"] == {4: "Mass", 0: "severity"}
    assert given["boxes"][1]["expert"] == {"box_data": [], "class_labels": {4: "Mass", 0: "severity"}}
    assert (given["masks"][0]["map"]["mask_data"] == levels(boxed)).all()
    assert set(given["masks"][0]["map"]["class_labels"]) == {1, 2, 3}


def test_pictures_are_limited_and_table_rows_are_not():
    many = [explanation(i) for i in range(PICTURE_LIMIT + 5)]
    assert all(len(values) == PICTURE_LIMIT for values in image_arguments(many).values())
    rows = table_rows(many, epoch=3)
    assert len(rows) == PICTURE_LIMIT + 5
    one = dict(zip(TABLE_COLUMNS, rows[7], strict=True))
    assert one["epoch"] == 3 and one["number"] == 7 and one["target"] == "Mass" and one["iou"] == 0.5
    assert one["prediction"] == 0.75 and one["truth"] == 1 and one["bits"] == many[7].bits
