"""Small data sets in their publishers' own layouts: every image says by a bright rectangle what its label says."""

from pathlib import Path

import numpy as np
from PIL import Image

from lightning_chex.data import PATHOLOGIES
from lightning_chex.data.sets.lungs import LAYOUTS
from lightning_chex.data.sets.nih_splits import in_tuning_half

NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
COHEN_HEADER = "filename,S-A,S-B,S-C,S-D,S-E,S-F,S-Global,J-A,J-B,J-C,J-D,J-E,J-F,J-Global"


def nih_box(label: int) -> tuple[int, int, int, int]:
    """Where a pathology is drawn: x, y, w, h in the 1024-pixel frame, a cell of a grid of 2 rows and 4 columns."""
    return 64 + 240 * (label % 4), 128 + 448 * (label // 4), 176, 320


def write_nih(
    root: Path,
    size: int = 64,
    per_class: int = 3,
    healthy: int = 4,
    folder: str = "images_001/images",
    suffix: str = ".png",
) -> Path:
    """Write a data set of the layout of NIH ChestX-ray8.

    Train_val: ``per_class`` patients with one image for each pathology, and ``healthy`` without. Test: for each
    pathology one boxed image of a patient in the tuning half and one in the reporting half; the first patient of the
    tuning half has a second image without a box; the first boxed image of all carries two boxes; and two healthy
    patients. By default 28 and 19 images.

    Args:
        root: where to; made if absent.
        size: side of the images in pixels, best a multiple of 64.
        per_class: training patients of each pathology, at least 2.
        healthy: training patients without findings.
        folder: of the images.
        suffix: of the image files; the tables always say ``.png``.
    """
    (root / folder).mkdir(parents=True)
    rows, boxes = [], []
    lists: dict[str, list[str]] = {"train_val": [], "test": []}

    def add(side: str, patient: int, labels: list[int], follow_up: int = 0, boxed: bool = False) -> None:
        name = f"{patient:08d}_{follow_up:03d}.png"
        findings = "|".join(PATHOLOGIES[label] for label in labels) or "No Finding"
        rows.append(f"{name},{findings},{follow_up},{patient},50,F,PA,2048,2048,0.143,0.143")
        lists[side].append(name)
        pixels = np.full((size, size), 40 + 2 * (patient % 20), dtype=np.uint8)
        for label in labels:
            x, y, w, h = (value * size // 1024 for value in nih_box(label))
            pixels[y : y + h, x : x + w] = 200
            if boxed:
                finding = PATHOLOGIES[label].replace("Infiltration", "Infiltrate")  # as the publisher's list has it
                boxes.append(f"{name},{finding}," + ",".join(f"{value}.0" for value in nih_box(label)))
        Image.fromarray(pixels).save((root / folder / name).with_suffix(suffix))

    patient = 1
    for label in [*range(len(PATHOLOGIES))] * per_class:
        add("train_val", patient, [label])
        patient += 1
    for _ in range(healthy):
        add("train_val", patient, [])
        patient += 1
    halves = {
        half: [p for p in range(patient, patient + 500) if in_tuning_half(str(p)) == half] for half in (True, False)
    }
    for half, patients in halves.items():
        for label in range(len(PATHOLOGIES)):
            second = [(label + 1) % len(PATHOLOGIES)] if half and label == 0 else []
            add("test", patients[label], [label, *second], boxed=True)
    add("test", halves[True][0], [], follow_up=1)
    for patient in range(900, 902):
        add("test", patient, [])

    (root / "Data_Entry_2017_v2020.csv").write_text("\n".join([NIH_HEADER, *rows]) + "\n")
    (root / "BBox_List_2017.csv").write_text("\n".join([BOX_HEADER, *boxes]) + "\n")
    for side, names in lists.items():
        (root / f"{side}_list.txt").write_text("\n".join(names))  # no newline at the end, like the publisher's
    return root


def write_cohen(root: Path, size: int = 64, images: int = 30, sources: bool = True) -> Path:
    """Write a data set of the layout of the public Cohen X-rays with Brixia scores.

    Image i shows patient i // 2 of those with an even i // 2, and nobody known otherwise. The junior radiologist
    scores zone A one lower than the senior where that is possible.

    Args:
        root: where to; made if absent.
        size: longest side of the images in pixels; the other one is three quarters of it, upright and lying in turn.
        images: how many.
        sources: write ``sources.csv``.
    """
    folder = root / "data" / "public-cohen-subset"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows, origins = [], []
    for i in range(images):
        name = f"case.{i}-fig1" + (".png" if i % 2 else ".jpg")
        senior = np.clip(rng.integers(0, 4, size=6) + (i % 5) - 2, 0, 3)
        junior = senior.copy()
        junior[0] = max(senior[0] - 1, 0)
        rows.append(",".join(map(str, [name, *senior, senior.sum(), *junior, junior.sum()])))
        origins.append(f"{name},CC BY,https://example.org/{i},{i // 2 if i // 2 % 2 == 0 else ''}")
        shape = (size, size * 3 // 4) if i % 2 else (size * 3 // 4, size)
        pixels = np.full(shape, 40, dtype=np.uint8)
        for zone, score in enumerate(senior):  # A B C on the left from top to bottom, D E F on the right
            top, left = (1 + 2 * (zone % 3)) * shape[0] // 8, (1 if zone < 3 else 5) * shape[1] // 8
            pixels[top : top + shape[0] // 8, left : left + shape[1] // 4] = 60 + 60 * score
        Image.fromarray(pixels).save(folder / name)
    table = "\n".join([COHEN_HEADER, *rows]) + "\n"
    (root / "data" / "public-annotations.csv").write_text(table, encoding="utf-8-sig")  # the publisher's has a BOM
    if sources:
        (root / "sources.csv").write_text("\n".join(["filename,image_license,source_url,patientid", *origins]) + "\n")
    return root


def write_lungs(
    root: Path, layout: str | None = None, images: int = 12, scale: int = 1, ink: int = 255
) -> tuple[Path, dict[str, np.ndarray]]:
    """Write images and lung masks as a layout has them; the lungs are bright in the images.

    Args:
        root: where to.
        layout: name of one of ``LAYOUTS``; None: ``images/ID.png`` and ``masks/ID_r.png``, ``masks/ID_l.png``.
        images: how many.
        scale: masks are this much finer than the images.
        ink: value of the lungs in the mask files.

    Returns:
        The root, and the true masks (2, 48, 64) by image id.
    """
    folder, masks = LAYOUTS[layout] if layout else ("images", ("masks/{id}_r.png", "masks/{id}_l.png"))
    (root / folder).mkdir(parents=True)
    truth = {}
    for i in range(images):
        name = f"CXR.{i:04d}_{i % 2}"
        lungs = np.zeros((2, 48, 64), bool)
        lungs[0, 6 + i : 36 + i // 2, 8:24] = True
        lungs[1, 8:40, 36 : 50 + i % 5] = True
        truth[name] = lungs
        Image.fromarray((40 + 160 * lungs.any(axis=0)).astype(np.uint8)).save(root / folder / f"{name}.png")
        for pattern, mask in zip(masks, lungs if len(masks) == 2 else [lungs.any(axis=0)], strict=True):
            path = root / pattern.replace("{id}", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((mask * ink).astype(np.uint8).repeat(scale, 0).repeat(scale, 1)).save(path)
    return root, truth
