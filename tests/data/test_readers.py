"""Labels and boxes of several readers, worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lightning_chex.data import TableDataModule
from lightning_chex.data.table.columns import Columns
from lightning_chex.data.table.readers import merge_boxes, merge_labels

pytestmark = pytest.mark.filterwarnings("ignore")

# reader, corners. A and B overlap by 8 x 10 of 120: IoU 2/3; C and B by 7 x 10 of 130: 7/13 = .54; A and C by 5 x 10 of
# 150: 1/3. So A and B are one finding, and C is not joined to them, though it overlaps with B. D of the first reader
# lies on A, and is another finding of his.
BOXES = [
    ("r1", 0, 0, 10, 10),  # A
    ("r2", 2, 0, 12, 10),  # B
    ("r3", 5, 0, 15, 10),  # C
    ("r1", 0, 1, 10, 11),  # D
]


def table(boxes=BOXES, label=0):
    rows = [
        {"image_id": "x", "label": label, "reader": own, "x1": a, "y1": b, "x2": c, "y2": d, "width": 20, "height": 20}
        for own, a, b, c, d in boxes
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]])
def test_boxes_are_joined_as_by_hand(order):
    boxes = table().iloc[order]
    merged = {
        rule: sorted(map(tuple, merge_boxes(boxes, {"x": 3}, rule)[["x1", "y1", "x2", "y2"]].to_numpy().tolist()))
        for rule in ("any", "majority", "all")
    }
    assert merged["any"] == [(0, 1, 10, 11), (1, 0, 11, 10), (5, 0, 15, 10)]
    assert merged["majority"] == [(1, 0, 11, 10)] and merged["all"] == []


def test_readers_who_drew_nothing_count_and_classes_stay_apart():
    two = table(BOXES[:2])
    assert len(merge_boxes(two, {"x": 2}, "all")) == 1  # both of two
    assert len(merge_boxes(two, {"x": 3}, "all")) == 0 and len(merge_boxes(two, {"x": 3}, "majority")) == 1
    assert len(merge_boxes(two, {"x": 4}, "majority")) == 0  # half is no majority
    apart = pd.concat([table(BOXES[:1]), table(BOXES[1:2], label=1)])
    assert merge_boxes(apart, {"x": 2}, "any")["label"].tolist() == [0, 1]
    assert merge_boxes(apart, {"x": 2}, "any")[["x1", "x2"]].to_numpy().tolist() == [[0, 10], [2, 12]]
    assert merge_boxes(two, {"x": 2}, "any", same=0.7)["x1"].tolist() == [0, 2]  # IoU 2/3 is below it


def test_labels_are_joined_as_by_hand():
    nan = np.nan
    rows = {
        "seen by one of three": ([1, 0, 0], (1, 0, 0)),
        "by two of three": ([1, 1, 0], (1, 1, 0)),
        "by all": ([1, 1, 1], (1, 1, 1)),
        "by none": ([0, 0, 0], (0, 0, 0)),
        "by one of two": ([1, 0], (1, 0, 0)),
        "one is silent": ([1, 1, nan], (1, 1, 1)),
        "all are silent": ([nan, nan], (nan, nan, nan)),
    }
    for labels, expected in rows.values():
        images, readers = pd.Series(["x"] * len(labels)), pd.Series([f"r{k}" for k in range(len(labels))])
        found = [
            merge_labels(np.array(labels)[:, None], images, readers, rule).loc["x", 0]
            for rule in ("any", "majority", "all")
        ]
        assert np.array_equal(found, expected, equal_nan=True), labels
    # a reader with two rows of an image has one vote
    images, readers = pd.Series(["x"] * 3), pd.Series(["r1", "r1", "r2"])
    assert merge_labels(np.array([[1.0], [1], [0]]), images, readers, "majority").loc["x", 0] == 0


def test_a_table_of_ones_own_may_have_readers(tmp_path):
    """Columns of readers, labels and boxes in one table; a reader without a box counts too."""
    root = tmp_path / "data"
    root.mkdir()
    lines = ["file,doctor,finding,x,y,w,h"]
    for i in range(24):
        Image.fromarray(np.full((20, 20), i, dtype=np.uint8)).save(root / f"x{i}.png")
        boxes = {"Mass": i % 4, "Edema": 3 * (i % 2)}  # drawn by so many of three readers
        for k in range(3):
            drawn = [name for name, count in boxes.items() if k < count]
            lines += [f"x{i},d{k},{name},{2 + k},3,10,8" for name in drawn] or [f"x{i},d{k},No Finding,,,,"]
    (tmp_path / "T.csv").write_text("\n".join(lines))
    columns = Columns(image="file", reader="doctor", labels="finding")
    counts = {}
    for rule, least in (("any", 1), ("majority", 2), ("all", 3)):
        data = TableDataModule(
            str(root), str(tmp_path / "T.csv"), columns, classes=["Mass", "Edema"], size=20, readers=rule
        )
        data.look()
        for part in data.parts().values():
            for i, name in enumerate(part.image_ids):
                n = int(name[1:])
                mass, edema = n % 4 >= least, n % 2 == 1
                assert part.labels[i].tolist() == [mass, edema]
                sample = part[i]
                boxes = {int(k): box.tolist() for k, box in zip(sample["box_labels"], sample["boxes"], strict=True)}
                expected = {} if not mass else {0: [2 + (n % 4 - 1) / 2, 3, 12 + (n % 4 - 1) / 2, 11]}
                expected |= {1: [3, 3, 13, 11]} if edema else {}
                assert boxes.keys() == expected.keys()
                assert all(np.allclose(boxes[k], expected[k], atol=1e-4) for k in boxes)
                counts[rule] = counts.get(rule, 0) + len(boxes)
    assert counts == {"any": 18 + 12, "majority": 12 + 12, "all": 6 + 12}
    with pytest.raises(ValueError, match="readers is 'most': give any, majority, all"):
        TableDataModule(str(root), str(tmp_path / "T.csv"), readers="most")
