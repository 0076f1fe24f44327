"""What changes an evaluation changes the fingerprint of the data."""

import csv

import numpy as np
from fakes import write_cohen, write_nih
from PIL import Image

from lightning_chex.data import CohenDataModule, NIHDataModule


def test_a_moved_box_of_nih(tmp_path):
    root = write_nih(tmp_path)
    before = NIHDataModule(str(root)).fingerprint()
    assert before == NIHDataModule(str(root), batch_size=3).fingerprint()
    table = root / "BBox_List_2017.csv"
    table.write_text(table.read_text().replace(",320.0", ",321.0", 1))
    assert NIHDataModule(str(root)).fingerprint() != before


def test_a_score_in_another_zone_and_a_lung_mask_of_cohen(tmp_path):
    root = write_cohen(tmp_path)
    found = [CohenDataModule(str(root)).fingerprint()]
    table = root / "data" / "public-annotations.csv"
    with table.open(encoding="utf-8-sig", newline="") as file:
        head, *rows = csv.reader(file)
    row = next(row for row in rows if row[2] != row[3])
    row[2], row[3] = row[3], row[2]  # the sum, which is the label, stays
    table.write_text("\n".join(map(",".join, [head, *rows])) + "\n", encoding="utf-8-sig")
    found.append(CohenDataModule(str(root)).fingerprint())
    (root / "lung_masks").mkdir()
    name, image = rows[0][0], Image.open(root / "data" / "public-cohen-subset" / rows[0][0])
    mask = np.zeros((image.height, image.width), np.uint8)
    mask[5:30, 5:15] = mask[5:30, 30:40] = 255
    Image.fromarray(mask).save((root / "lung_masks" / name).with_suffix(".png"))
    found.append(CohenDataModule(str(root)).fingerprint())
    assert len(set(found)) == 3
