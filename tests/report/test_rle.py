"""COCO's compressed run lengths: strings worked out by hand, and a decoder written plainly."""

import numpy as np
import pytest

from lightning_chex.report import encode_mask


def decode(encoded):
    """Read the text number by number, undo the differences, and paint the columns."""
    numbers, value, shift = [], 0, 0
    for character in encoded["counts"]:
        bits = ord(character) - 48
        assert 0 <= bits < 64
        value |= (bits & 0b11111) << shift
        shift += 5
        if not bits & 0b100000:
            numbers.append(value - (1 << shift) if bits & 0b10000 else value)
            value, shift = 0, 0
    assert shift == 0
    runs = []
    for number in numbers:
        runs.append(number + runs[len(runs) - 2] if len(runs) > 2 else number)
    height, width = encoded["size"]
    pixels = []
    for i, run in enumerate(runs):
        assert run > 0 or i == 0
        pixels += [i % 2 == 1] * run
    assert len(pixels) == height * width
    return np.array([[pixels[x * height + y] for x in range(width)] for y in range(height)], dtype=bool)


@pytest.mark.parametrize(
    ("rows", "counts"),
    [
        # runs 4: binary 00100
        (["..", ".."], "4"),
        # begins marked: an empty run of background, then 4
        (["##", "##"], "04"),
        # column by column: . . # # -> 2, 2
        ([".#", ".#"], "22"),
        # . # . # -> 1, 1, 1, then the fourth less the second: 1 - 1 = 0
        (["..", "##"], "1110"),
        # 16 does not fit five bits with a sign: low group 10000 with the mark (48 + 16 + 32 = 96), then 0
        (["." * 16], "`0"),
        # 15 does: 48 + 15 = '?'
        (["." * 15], "?"),
        # 9, 1, 2, then 1 - 1 = 0, then 1 - 2 = -1: 11111 -> 48 + 31 = 'O'
        (["." * 9 + "#" + ".." + "#" + "."], "9120O"),
        # 1, 40 (low group 01000 with the mark: 48 + 8 + 32 = 'X', then 1), 1, then 2 - 40 = -38:
        # ...11011010, low group 11010 with the mark (48 + 26 + 32 = 'j'), then 11110 = 48 + 30 = 'N'
        (["." + "#" * 40 + "." + "#" * 2], "1X11jN"),
    ],
)
def test_strings_worked_out_by_hand(rows, counts):
    mask = np.array([[cell == "#" for cell in row] for row in rows])
    assert encode_mask(mask) == {"size": list(mask.shape), "counts": counts}
    assert np.array_equal(decode({"size": list(mask.shape), "counts": counts}), mask)


@pytest.mark.parametrize(("shape", "share"), [((1, 1), 0.5), ((7, 3), 0.5), ((3, 50), 0.1), ((64, 48), 0.97)])
def test_any_mask_comes_back(shape, share):
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = rng.random(shape) < share
        assert np.array_equal(decode(encode_mask(mask)), mask)


def test_long_runs_come_back():
    mask = np.zeros((300, 400), bool)
    mask[40:250, 60:220] = mask[100:110, 300:399] = True
    encoded = encode_mask(mask)
    assert np.array_equal(decode(encoded), mask) and encoded["size"] == [300, 400]
    assert (
        decode(encode_mask(np.ones((90, 70), bool))).all() and not decode(encode_mask(np.zeros((90, 70), bool))).any()
    )


@pytest.mark.parametrize("mask", [np.zeros((2, 2)), np.zeros((1, 2, 2), bool), np.zeros((0, 3), bool)])
def test_what_is_no_mask_is_refused(mask):
    with pytest.raises(ValueError, match="give bool"):
        encode_mask(mask)
