import numpy as np
import torch
from test_pictures import explanation

from lightning_chex.report import TABLE_COLUMNS, amounts, levels, overlay, pictures_of, table_rows


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
    first, second = pictures_of([boxed, plain], top=2.0)
    assert first.caption == f"0 | {boxed.caption}" and second.caption == f"1 | {plain.caption}"  # numbers, never names
    assert (second.image == np.round(255 * plain.image.numpy())).all()
    assert [box.corners for box in first.boxes] == [(1, 2, 30.5, 20), (0, 0, 4, 4)] and not second.boxes
    assert {(box.class_index, box.name) for box in first.boxes} == {(4, "Mass")}
    assert (first.layers["map"].mask == levels(boxed)).all() and set(first.layers["map"].names) == {1, 2, 3}
    assert (first.layers["bits"].mask == amounts(boxed.saliency)).all()
    assert "bits" not in pictures_of([explanation(unit="arbitrary units")])[0].layers


def test_what_is_drawn_shows_xray_and_map_with_the_boxes_on_both():
    plain = explanation(1, boxes=torch.zeros(0, 4))
    (drawn,) = (picture.drawn for picture in pictures_of([plain], top=2.0))
    assert drawn[:-32].any() and drawn.shape[1] == 84  # the label
    drawn = drawn[-32:]
    assert (drawn[:, 44:] == overlay(plain.image, plain.saliency, 2.0)).all()
    (boxed,) = (picture.drawn for picture in pictures_of([explanation(1)], top=2.0))
    changed = (boxed[-32:] != drawn).any(axis=2)
    outline = np.zeros((32, 40), bool)
    outline[5:15, 10:20] = True
    outline[6:14, 11:19] = False
    assert (changed[:, :40] <= outline).all() and (changed[:, 44:] <= outline).all()
    assert changed[:, :40].sum() > 30 and changed[:, 44:].sum() > 30


def test_amounts_are_the_same_bits_per_pixel_for_every_map():
    saliency = torch.tensor([[0.0, 0.49, 0.5], [1.0, 2.6, 4.0], [8.0, 99.0, 0.9]])
    assert amounts(saliency).tolist() == [[0, 0, 1], [2, 3, 4], [5, 5, 1]]


def test_table_rows_hold_every_map_and_rank_those_with_regions():
    many = [explanation(i, iou=iou, pointing=0.0) for i, iou in enumerate([0.2, None, 0.7, 0.2])]
    rows = [dict(zip(TABLE_COLUMNS, row, strict=True)) for row in table_rows(many, 3, 94, "strongest 5 %")]
    one = rows[2]
    assert one["epoch"] == 3 and one["number"] == 2 and one["target"] == "Mass" and one["iou"] == 0.7
    assert one["prediction"] == 0.75 and one["truth"] == 1 and one["bits"] == many[2].bits and one["pointing"] == 0
    assert (one["method"], one["step"], one["rule"]) == ("iba", 94, "strongest 5 %")
    assert [row["rank"] for row in rows] == [2, None, 1, 3]
