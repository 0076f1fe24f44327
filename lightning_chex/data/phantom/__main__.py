"""Write a labelled sheet of phantom X-rays: ``python -m lightning_chex.data.phantom OUT.png``."""

import argparse
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from lightning_chex.class_names import PATHOLOGIES
from lightning_chex.data.images.lung_masks import zone_masks
from lightning_chex.data.phantom.render import LABEL, random_stream, take
from lightning_chex.data.phantom.severity import draw_scores
from lightning_chex.files import write_whole

_COLUMNS = 8
_HEADER = 18
_GAP = 2
_BOX = (255, 190, 40)
_ZONE = (90, 200, 255)
_TEXT = (235, 235, 235)

Picture = npt.NDArray[np.uint8]  # (H, W, 3)


def sheet(size: int, seed: int) -> Picture:
    """Rows of healthy patients, of each pathology with its boxes, and of rising severity with its zones."""
    return np.concatenate([_normals(size, seed), _pathologies(size, seed), _severities(size, seed)])


def _normals(size: int, seed: int) -> Picture:
    return _row([_tile(take(size, seed, patient=i, number=i).pixels, "No finding") for i in range(_COLUMNS)])


def _pathologies(size: int, seed: int) -> Picture:
    tiles = []
    for k, name in enumerate(PATHOLOGIES, 20):
        shown = take(size, seed, patient=k, number=k, present=[name])
        tile = _tile(shown.pixels, name)
        for x1, y1, x2, y2 in shown.boxes.astype(int).tolist():
            cv2.rectangle(tile, (x1, y1 + _HEADER), (x2 - 1, y2 - 1 + _HEADER), _BOX, 1)
        tiles.append(tile)
    return _row(tiles)


def _severities(size: int, seed: int) -> Picture:
    scores = np.stack([draw_scores(random_stream(seed, LABEL, number)) for number in range(200)])
    tiles = []
    for wanted in np.linspace(1, 18, _COLUMNS):
        i = int(np.abs(scores.sum(axis=1) - wanted).argmin())
        shown = take(size, seed, patient=i, number=i, scores=scores[i])
        tile = _tile(shown.pixels, f"Severity {scores[i].sum()} of 18")
        for k, zone in enumerate(zone_masks(shown.lungs)):
            x, y, width, height = cv2.boundingRect(zone.view(np.uint8))
            if k % 3 < 2:
                cv2.line(tile, (x, y + height + _HEADER), (x + width, y + height + _HEADER), _ZONE, 1)
            _write(tile, str(scores[i, k]), (x + width // 2 - 4, y + height // 2 + 5 + _HEADER), _ZONE)
        tiles.append(tile)
    return _row(tiles)


def _tile(pixels: npt.NDArray[np.uint8], title: str) -> Picture:
    tile = np.zeros((len(pixels) + _HEADER, len(pixels), 3), np.uint8)
    tile[_HEADER:] = pixels[..., None]
    _write(tile, title, (4, _HEADER - 5), _TEXT)
    return tile


def _write(tile: Picture, text: str, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
    for ink, thickness in (((0, 0, 0), 3), (colour, 1)):  # a dark rim keeps it readable on white
        cv2.putText(tile, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, ink, thickness, cv2.LINE_AA)


def _row(tiles: list[Picture]) -> Picture:
    return np.concatenate([np.pad(tile, ((0, _GAP), (0, _GAP), (0, 0))) for tile in tiles], axis=1)


def _palette() -> Image.Image:
    """40 greys and the marks' colours, also darker where their edges are antialiased: a third of the bytes."""
    greys = [(grey,) * 3 for grey in np.linspace(0, 250, 40).astype(int).tolist()]
    marks = [tuple(int(part * c) for c in colour) for colour in (_BOX, _ZONE) for part in (0.5, 0.75, 1)]
    palette = Image.new("P", (1, 1))
    palette.putpalette([channel for colour in greys + marks for channel in colour])
    return palette


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m lightning_chex.data.phantom", description=__doc__)
    parser.add_argument("out", type=Path, help="PNG file to write")
    parser.add_argument("--size", type=int, default=160, help="side of each image in pixels")
    parser.add_argument("--seed", type=int, default=0, help="of the population")
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(sheet(given.size, given.seed)).quantize(palette=_palette(), dither=Image.Dither.NONE)
    write_whole(given.out, lambda file: image.save(file, format="PNG", optimize=True))
