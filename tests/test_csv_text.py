import csv
import io

import pandas as pd
import pytest

from lightning_chex.csv_text import csv_lines, csv_rows, plain_cell

RISKY = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''-x", "-", "=", "-1e5x"]
PLAIN = ["a=1", "00000001_000", "-0.5", "+3", "-1e-05", "-inf", "nan", "'quoted'", "", "a,b", 'a"b', "a\nb", "Röntgen"]


@pytest.mark.parametrize("cell", RISKY)
def test_no_cell_begins_like_a_formula(cell):
    (written,) = next(csv.reader(io.StringIO(csv_lines([[cell]]), newline="")))
    assert written[0] not in "=+-@\t\r"


@pytest.mark.parametrize("cell", PLAIN)
def test_other_cells_and_numbers_stay_as_they_are(cell):
    assert list(csv.reader(io.StringIO(csv_lines([[cell, -0.5]]), newline=""))) == [[cell, "-0.5"]]


def test_what_was_written_is_read_back():
    rows = [[cell, "x"] for cell in RISKY + PLAIN]
    assert csv_rows(csv_lines(rows)) == rows
    table = pd.read_csv(io.StringIO(csv_lines([["image"], *([cell] for cell in RISKY)])), dtype=str)
    assert table["image"].map(plain_cell).tolist() == RISKY
