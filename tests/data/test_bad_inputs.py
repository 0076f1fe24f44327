"""One table of everything that can be wrong on disk: each gives one clear error before any work, and writes nothing.

A row says which data set is spoilt, how, and the words the message must hold: the thing, its value, the way out. A new
data set gets a line in ``SOURCES`` and its rows in ``BAD``.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import write_cohen, write_nih
from PIL import Image

from lightning_chex.data import CohenDataModule, DataError, NIHDataModule

SOURCES = {"nih": (write_nih, NIHDataModule), "cohen": (write_cohen, CohenDataModule)}

TABLE, BOXES, TRAIN, TEST = "Data_Entry_2017_v2020.csv", "BBox_List_2017.csv", "train_val_list.txt", "test_list.txt"
IMAGES, FIRST = "images_001/images", "images_001/images/00000001_000.png"
SCORES, SOURCE_TABLE, COHEN_IMAGES = "data/public-annotations.csv", "sources.csv", "data/public-cohen-subset"

Spoil = Callable[[Path], object]


def text(name: str, change: Callable[[str], str], encoding: str = "utf-8") -> Spoil:
    """Change a text file."""

    def spoil(root: Path) -> None:
        before = (root / name).read_text(encoding="utf-8-sig")
        after = change(before)
        assert after != before or encoding != "utf-8"
        (root / name).write_text(after, encoding=encoding)

    return spoil


def swap(name: str, old: str, new: str) -> Spoil:
    """Replace the first occurrence of some words."""
    return text(name, lambda content: content.replace(old, new, 1))


def content(name: str, change: Callable[[bytes], bytes]) -> Spoil:
    """Change the bytes of a file."""
    return lambda root: (root / name).write_bytes(change((root / name).read_bytes()))


def cell(name: str, line: int, column: int, value: str) -> Spoil:
    """Overwrite one cell of a comma-separated table; lines and columns count from 0, the header is line 0."""

    def change(before: str) -> str:
        rows = [row.split(",") for row in before.split("\n")]
        rows[line][column] = value
        return "\n".join(map(",".join, rows))

    return text(name, change)


def add_line(name: str, line: str) -> Spoil:
    return text(name, lambda content: f"{content.rstrip()}\n{line}\n")


def keep_lines(name: str, number: int) -> Spoil:
    return text(name, lambda content: "\n".join(content.split("\n")[:number]))


def linked(name: str) -> Spoil:
    """Move something out of the root and leave a symbolic link to it."""

    def spoil(root: Path) -> None:
        outside = root.parent / "outside"
        shutil.move(root / name, outside)
        (root / name).symlink_to(outside)

    return spoil


def replaced_by_folder(root: Path) -> None:
    (root / FIRST).unlink()
    (root / FIRST).mkdir()


def root_is_a_file(root: Path) -> None:
    shutil.rmtree(root)
    root.write_text("not a folder")


def no_permission(name: str) -> Spoil:
    return lambda root: (root / name).chmod(0)


BAD: dict[str, tuple[str, Spoil, tuple[str, ...]]] = {
    # the root and its folders
    "root missing": ("nih", shutil.rmtree, ("root is", "nih", "does not exist", "give the folder")),
    "root a file": ("nih", root_is_a_file, ("root is", "is a file", "give the folder")),
    "empty root": (
        "nih",
        lambda r: (shutil.rmtree(r), r.mkdir()),
        ("no Data_Entry_2017_v2020.csv", "sample_labels.csv", "nothing", "unpacked to"),
    ),
    "image folder missing": ("nih", lambda r: shutil.rmtree(r / "images_001"), ("no folder images", "unpack")),
    "image folder missing, Cohen": (
        "cohen",
        lambda r: shutil.rmtree(r / COHEN_IMAGES),
        ("public-cohen-subset", "holds"),
    ),
    "all images missing": (
        "nih",
        lambda r: [path.unlink() for path in (r / IMAGES).iterdir()],
        ("47 of the 47 images", "20 train", "8 val", "correct root"),
    ),
    "one image missing": (
        "nih",
        lambda r: (r / FIRST).unlink(),
        ("1 of the 47 images", "1 train", "00000001_000", "allow_missing: true"),
    ),
    "no list": ("nih", lambda r: (r / TEST).unlink(), ("no test_list.txt", "give as root")),
    "no box list": ("nih", lambda r: (r / BOXES).unlink(), ("no BBox_List_2017.csv", "give as root")),
    # image files
    "truncated PNG": (
        "nih",
        content(FIRST, lambda b: b[: len(b) // 2]),
        ("1 of 47 images cannot be read", FIRST, "truncated", "intact copies"),
    ),
    "zero bytes": ("nih", content(FIRST, lambda b: b""), ("1 of 47 images", f"{FIRST} (empty)", "intact copies")),
    "text called .png": ("nih", content(FIRST, lambda b: b"hello"), ("1 of 47", FIRST, "cannot identify", "intact")),
    "truncated JPEG": (
        "cohen",
        content(f"{COHEN_IMAGES}/case.4-fig1.jpg", lambda b: b[: len(b) // 2]),
        ("1 of 30 images cannot be read", "case.4-fig1.jpg", "truncated", "intact copies"),
    ),
    "folder called .png": ("nih", replaced_by_folder, ("1 of 47", FIRST, "Is a directory", "intact")),
    "image under two suffixes": (
        "nih",
        lambda r: shutil.copy(r / FIRST, r / IMAGES / "00000001_000.jpg"),
        ("two files for image '00000001_000'", "00000001_000.jpg", "remove one"),
    ),
    "cropped image with boxes": (
        "nih",
        lambda r: Image.new("L", (64, 50)).save(r / IMAGES / (r / BOXES).read_text().split("\n")[1].split(",")[0]),
        ("1 images with boxes are not square", "64 x 50", "keep all of it"),
    ),
    "image linked out of the root": ("nih", linked(FIRST), (FIRST, "leads out of the data root", "not a link")),
    "folder linked out of the root": ("nih", linked(IMAGES), (IMAGES, "leads out of the data root", "not a link")),
    "folder linked out, Cohen": ("cohen", linked(COHEN_IMAGES), (COHEN_IMAGES, "leads out of the data root")),
    # the form of tables
    "semicolons": (
        "nih",
        text(TABLE, lambda t: t.replace(",", ";").replace("[Width;Height]", "[Width,Height]")),
        (TABLE, "no column 'Image Index'", "separated by ';'", "expected is ','"),
    ),
    "tabs": (
        "cohen",
        text(SCORES, lambda t: t.replace(",", "\t")),
        (SCORES, "no column 'filename'", r"separated by '\t'", "expected is ','"),
    ),
    "missing column": (
        "nih",
        swap(TABLE, "Finding Labels", "Findings"),
        (TABLE, "no column 'Finding Labels'", "'Findings'", "correct its first line"),
    ),
    "column twice": (
        "nih",
        swap(TABLE, "Patient Age", "Patient ID"),
        (TABLE, "the column 'Patient ID' more than once", "keep one"),
    ),
    "row twice": (
        "nih",
        text(TABLE, lambda t: t + t.split("\n")[1] + "\n"),
        (TABLE, "more than one row for 1 images", "00000001_000", "keep one"),
    ),
    "row too long": ("nih", cell(TABLE, 3, 4, "50,51"), (TABLE, "line 4", "download the file again")),
    "empty cell": ("nih", cell(TABLE, 2, 3, ""), (TABLE, "1 rows without 'Patient ID'", "line 3", "fill them in")),
    "empty table": ("nih", content(TABLE, lambda b: b""), (TABLE, "is empty", "a table", "download the file again")),
    "header alone": ("nih", keep_lines(TABLE, 1), (TABLE, "a header but no rows", "download the file again")),
    "binary file": (
        "nih",
        lambda r: shutil.copy(r / FIRST, r / TABLE),
        ("cannot read", TABLE, "0x89", "UTF-8", "download the file again"),
    ),
    "UTF-16": ("nih", text(TABLE, lambda t: t, "utf-16"), ("cannot read", TABLE, "UTF-8", "download the file again")),
    "Latin-1": (
        "cohen",
        text(SCORES, lambda t: t.replace("case.3", "cas\N{LATIN SMALL LETTER E WITH ACUTE}.3"), "latin-1"),
        ("cannot read", SCORES, "0xe9", "UTF-8", "download the file again"),
    ),
    "no gzip in .gz": (
        "nih",
        lambda r: (r / TABLE).rename(r / f"{TABLE}.gz"),
        ("cannot read", f"{TABLE}.gz", "gzip", "download the file again"),
    ),
    # what tables say
    "name with ../": (
        "nih",
        swap(TABLE, "00000002_000", "../../00000002_000"),
        (TABLE, "'../../00000002_000.png'", "not the bare file name", "remove folders"),
    ),
    "absolute name": (
        "cohen",
        cell(SCORES, 4, 0, "/etc/passwd.png"),
        (SCORES, "'/etc/passwd.png'", "not the bare file name", "remove folders"),
    ),
    "absolute name in a list": (
        "nih",
        swap(TRAIN, "00000001_000.png", "/etc/passwd"),
        (TRAIN, "'/etc/passwd'", "not the bare file name", "remove folders"),
    ),
    "name with ../ in the box list": (
        "nih",
        add_line(BOXES, "../x.png,Mass,1,1,9,9"),
        (BOXES, "'../x.png'", "remove folders"),
    ),
    "unknown label": ("nih", swap(TABLE, "Atelectasis", "Atelektase"), (TABLE, "'Atelektase'", "correct them")),
    "score 4": ("cohen", cell(SCORES, 4, 2, "4"), (SCORES, "S-B of case.3-fig1 is '4'", "0, 1, 2 or 3", "correct it")),
    "score of 17 characters": (
        "cohen",
        cell(SCORES, 4, 9, "00000000000000002"),
        (SCORES, "J-B of case.3-fig1 is '00000000000000002'", "correct it"),
    ),
    "score missing": ("cohen", cell(SCORES, 4, 2, ""), (SCORES, "1 rows without 'S-B'", "line 5", "fill them in")),
    "zone sum": (
        "cohen",
        cell(SCORES, 4, 7, "99"),
        (SCORES, "zones S-A to S-F of case.3-fig1 add up to", "S-Global is 99", "correct one of them"),
    ),
    "two patients on one image": (
        "cohen",
        add_line(SOURCE_TABLE, "case.0-fig1.jpg,CC BY,https://example.org,77"),
        (SOURCE_TABLE, "1 images more than one patient", "case.0-fig1", "keep one"),
    ),
    # boxes
    "box of negative width": (
        "nih",
        swap(BOXES, "Atelectasis,64.0,128.0,176.0", "Atelectasis,64.0,128.0,-176.0"),
        (BOXES, "1 boxes without area or outside", "-176.0", "correct them"),
    ),
    "box outside the image": (
        "nih",
        swap(BOXES, "Atelectasis,64.0", "Atelectasis,900.0"),
        (BOXES, "1 boxes", "outside their 1024 x 1024 image", "900.0, 128.0", "correct them"),
    ),
    "box of NaN": (
        "nih",
        swap(BOXES, "Atelectasis,64.0", "Atelectasis,NaN"),
        (BOXES, "1 boxes", "nan, 128.0", "correct them"),
    ),
    "box of an unknown class": (
        "nih",
        swap(BOXES, "Atelectasis", "Atelektase"),
        (BOXES, "unknown classes: Atelektase", "correct them"),
    ),
    "box on a training image": (
        "nih",
        add_line(BOXES, "00000001_000.png,Mass,1,1,9,9"),
        ("1 images with expert boxes are in train_val_list.txt", "00000001_000", "nobody may train on them"),
    ),
    "box on an unknown image": (
        "nih",
        add_line(BOXES, "00099999_000.png,Mass,1,1,9,9"),
        ("the box list have no row", "00099999_000", "one version"),
    ),
    "another list of boxes": (
        "nih",
        keep_lines(BOXES, 0),
        (BOXES, "should begin with 'Image Index", "download the file again"),
    ),
    # lists and splits
    "image in both lists": (
        "nih",
        swap(TRAIN, "00000001_000", "00000900_000"),
        ("1 images are in train_val_list.txt and test_list.txt", "00000900_000", "get the publisher's lists"),
    ),
    "patient in both lists": (
        "nih",
        swap(TABLE, "No Finding,0,900", "No Finding,0,1"),
        ("1 patients are in train_val_list.txt and in test_list.txt", "1;", "test metrics would be invalid"),
    ),
    "image twice in a list": (
        "nih",
        swap(TRAIN, "00000001_000", "00000002_000"),
        (TRAIN, "1 images more than once", "00000002_000", "keep one line each"),
    ),
    "empty list": ("nih", content(TEST, lambda b: b"\n"), (TEST, "names no image", "download the file again")),
    "listed, but without labels": (
        "nih",
        swap(TRAIN, "00000001_000", "00099999_000"),
        ("1 images of train_val_list.txt", "no row in the label table", "00099999_000", "one version"),
    ),
    "binary list": (
        "nih",
        lambda r: shutil.copy(r / FIRST, r / TRAIN),
        (TRAIN, "list of image names", "download the file again"),
    ),
    "empty split": ("nih", keep_lines(TRAIN, 1), ("the val split of NIHDataModule holds no image", "more images")),
    "empty split, Cohen": ("cohen", keep_lines(SCORES, 3), ("split of CohenDataModule holds no image", "more images")),
    # permissions
    "table not readable": ("nih", no_permission(TABLE), ("no permission to read", TABLE, "chmod")),
    "list not readable": ("nih", no_permission(TEST), ("no permission to read", TEST, "chmod")),
    "image not readable": ("nih", no_permission(FIRST), ("1 of 47 images", FIRST, "Permission denied")),
    "image folder not readable": ("nih", no_permission(IMAGES), ("cannot open", IMAGES, "Permission denied", "chmod")),
    "root not readable": ("nih", no_permission("."), ("no permission to read", "nih", "chmod")),
}


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder, with the content of files."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    for name, (write, _) in SOURCES.items():
        write(folder / name)
    return folder


@pytest.mark.filterwarnings("ignore:.*are in no list:UserWarning")
@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_once_and_nothing_is_written(place, originals, name):
    source, spoil, words = BAD[name]
    protected = "not readable" in name
    if protected and os.geteuid() == 0:
        pytest.skip("root may read everything")
    root = shutil.copytree(originals / source, place / source)
    spoil(root)
    before = None if protected else snapshot(place)
    try:
        with pytest.raises(DataError) as caught:
            SOURCES[source][1](str(root), size=32, augment=False).setup()
    finally:
        for path in [root, root / IMAGES] if protected else []:
            path.chmod(0o755)  # so that the test's folder can be removed
    message = str(caught.value)
    assert [word for word in words if word not in message] == [], message
    assert "\n" not in message and len(message) < 700
    if before is not None:
        assert snapshot(place) == before


@pytest.mark.parametrize("name", ["missing column", "one image missing", "text called .png", "box outside the image"])
def test_no_image_is_decoded_and_nothing_built_before_the_error(place, originals, name, monkeypatch):
    _, spoil, _ = BAD[name]
    root = shutil.copytree(originals / "nih", place / "nih")
    spoil(root)
    data = NIHDataModule(str(root), size=32)
    monkeypatch.setattr(data, "read", lambda path: pytest.fail(f"{path} was read"))
    monkeypatch.setattr(data, "build", lambda *_: pytest.fail("a split was built"))
    with pytest.raises(DataError):
        data.setup()


@pytest.mark.parametrize(
    ("source", "tables"), [("nih", (TABLE, BOXES, TRAIN, TEST)), ("cohen", (SCORES, SOURCE_TABLE))]
)
def test_a_byte_order_mark_and_other_line_ends_are_fine(place, originals, source, tables):
    def labels(root: Path) -> list[list]:
        data = SOURCES[source][1](str(root), size=32, augment=False)
        data.setup()
        return [data.dataset(split).labels.tolist() for split in ("train", "val", "test")]

    root = shutil.copytree(originals / source, place / source)
    for name in tables:
        plain = (root / name).read_text(encoding="utf-8-sig")
        (root / name).write_bytes(plain.replace("\n", "\r\n").encode("utf-8-sig"))
    assert labels(root) == labels(originals / source)
