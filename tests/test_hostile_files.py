"""Configurations, tables, images, prepared copies and statistics of strangers: nothing in them runs, one line each."""

import gzip
import json
import pickle
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import CONFIGS, TINY, the_error, written
from fakes import write_nih
from fakes_brixia import write_dicom
from hostile import CALLS, CANARY
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless
from safetensors.torch import save_file

from lightning_chex.attribution import FeatureStatistics
from lightning_chex.cli.main import main
from lightning_chex.data.images import dicom_header
from lightning_chex.data.table import files as tables

pytestmark = pytest.mark.filterwarnings("ignore")

SMALL = [*TINY, "--model.backbone=test_resnet", "--trainer.logger=false", "--trainer.callbacks=null"]
PHANTOM = [*SMALL, "--data.num_train=8", "--data.num_val=4", "--data.num_test=4"]
APPLY = f"!!python/object/apply:os.mkdir [{CANARY}]"

YAML = {
    "apply": APPLY,
    "apply_new": f"!!python/object/new:subprocess.Popen [[touch, {CANARY}]]",
    "name": "!!python/name:os.mkdir ''",
    "module": "!!python/module:antigravity ''",
    "callable": f"{{class_path: os.mkdir, init_args: {{path: {CANARY}}}}}",
    "popen": f"{{class_path: subprocess.Popen, init_args: {{args: [touch, {CANARY}]}}}}",
    "exec": "{class_path: builtins.exec, init_args: {source: 1}}",
    "target": f"{{_target_: os.mkdir, _args_: [{CANARY}]}}",
}
"""What a file of settings may hold where a class and its arguments are wanted."""


def unharmed(place: Path) -> None:
    assert not list(place.rglob(CANARY))


@pytest.mark.parametrize("kind", YAML)
@pytest.mark.parametrize("part", ["model", "data", "trainer.callbacks", "trainer.logger", "seed_everything"])
def test_a_configuration_builds_only_what_belongs_there(place, capsys, kind, part):
    outer, _, inner = part.partition(".")
    value = f"{{{inner}: {YAML[kind]}}}" if inner else YAML[kind]
    others = {"model": "{class_path: ClassificationTask}", "data": "{class_path: SyntheticDataModule}"} | {outer: value}
    (place / "x.yaml").write_text("".join(f"{name}: {text}\n" for name, text in others.items()))
    the_error(capsys, "fit", "--config", str(place / "x.yaml"))
    unharmed(place)


@pytest.mark.parametrize("kind", YAML)
def test_a_file_of_a_method_builds_only_a_method(place, capsys, kind):
    (place / "mine.yaml").write_text(YAML[kind])
    error = the_error(capsys, "explain", *PHANTOM, f"--attributor={place / 'mine.yaml'}", "--ckpt_path=x.ckpt")
    assert "attributor" in error
    unharmed(place)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """What a run of two steps has written."""
    root = tmp_path_factory.mktemp("trained")
    main(["fit", *PHANTOM, f"--trainer.default_root_dir={root}"])
    (path,) = root.rglob("*.ckpt")
    return path


@pytest.mark.parametrize("kind", YAML)
def test_a_method_of_evaluate_is_only_a_method(place, trained, capsys, kind):
    (place / "mine.yaml").write_text(YAML[kind])
    options = [f"--methods=[{place / 'mine.yaml'}]", f"--ckpt_path={trained}", "--limit=2"]
    assert "mine.yaml' cannot be " in the_error(capsys, "evaluate", *PHANTOM, *options)
    unharmed(place)


def header(content: dict | bytes, length: int | None = None) -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


ONE = {"dtype": "F32", "shape": [1, 2, 2], "data_offsets": [0, 16]}
SAFETENSORS = {
    "pickle": pickle.dumps(CALLS["mkdir"]),
    "endless_header": header(b"{}", 2**63),
    "long_header": header(b"{}", 2**40),
    "deep_header": header(b'{"maps":' + b"[" * 100_000),
    "beyond_the_end": header({"maps": ONE | {"shape": [1, 2**24, 2**24], "data_offsets": [0, 2**50]}}) + bytes(16),
    "too_many": header({"maps": ONE | {"shape": [2**40, 2**40, 1]}}) + bytes(16),
    "overlapping": header({"maps": ONE, "more": ONE}) + bytes(16),
    "backwards": header({"maps": ONE | {"data_offsets": [16, 0]}}) + bytes(16),
    "another_kind": header({"maps": ONE | {"dtype": "OBJECT"}}) + bytes(16),
    "nothing": b"",
}


@pytest.mark.parametrize("kind", SAFETENSORS)
def test_prior_maps_of_strangers(place, trained, capsys, kind):
    (place / "x.safetensors").write_bytes(SAFETENSORS[kind])
    text = f"class_path: PriorMap\ninit_args: {{maps: {place / 'x.safetensors'}}}\n"
    (place / "mine.yaml").write_text(text)
    options = [f"--methods=[{place / 'mine.yaml'}]", f"--ckpt_path={trained}", "--limit=2"]
    error = the_error(capsys, "evaluate", *PHANTOM, *options)
    assert "mine.yaml' cannot be built" in error
    assert "x.safetensors" in error or kind == "nothing"  # the parser takes an empty file for an empty value
    unharmed(place)


def statistics(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    whole = FeatureStatistics()
    whole.update(torch.rand(3, 2, 4, 4))
    return {**whole.state_dict(), **changes}


STATISTICS = {
    "no_mean": {"mean": None},
    "other_shape": {"mean": torch.zeros(2, 4, 5)},
    "endless": {"shape": torch.tensor([2**40, 2**40, 1])},
    "negative": {"count": torch.tensor(-3)},
    "fraction": {"count": torch.tensor(2.5)},
    "many_counts": {"count": torch.tensor([2, 3])},
    "nan": {"mean": torch.full((2, 4, 4), torch.nan)},
    "below_zero": {"sum_of_squares": torch.full((2, 4, 4), -1.0)},
    "flat": {"shape": torch.tensor([32])},
}


@pytest.mark.parametrize("kind", STATISTICS)
def test_statistics_no_images_give(tmp_path, kind):
    path = tmp_path / "x.safetensors"
    save_file({name: value for name, value in statistics(**STATISTICS[kind]).items() if value is not None}, path)
    with pytest.raises(ValueError, match=r"x.safetensors' cannot be read as feature statistics .* collect them anew"):
        FeatureStatistics.load(path)


@pytest.mark.parametrize("kind", SAFETENSORS)
def test_files_of_statistics(tmp_path, kind):
    (tmp_path / "x.safetensors").write_bytes(SAFETENSORS[kind])
    with pytest.raises(ValueError, match="x.safetensors' cannot be read as feature statistics"):
        FeatureStatistics.load(tmp_path / "x.safetensors")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """NIH in the publisher's layout, and a prepared copy of it."""
    folder = tmp_path_factory.mktemp("sources")
    write_nih(folder / "nih")
    main(
        ["prepare", "--data=NIHDataModule", f"--data.root={folder / 'nih'}", f"--output_dir={folder / 'copy'}"]
        + ["--size=64", "--workers=0"]
    )
    return folder


def rename_first(root: Path, name: str) -> None:
    path = root / "Data_Entry_2017_v2020.csv"
    lines = path.read_text().splitlines()
    lines[1] = ",".join([name, *lines[1].split(",")[1:]])
    path.write_text("\n".join(lines))


def pack(root: Path) -> None:
    path = root / "Data_Entry_2017_v2020.csv"
    text = path.read_bytes()
    path.unlink()
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(text + b"\n" * 2**22))


def link_image(root: Path) -> None:
    path = sorted(root.rglob("*.png"))[0]
    path.unlink()
    path.symlink_to("/etc/passwd")


def link_folder(root: Path) -> None:
    (folder,) = root.glob("images_*")
    folder.rename(root.parent / "elsewhere")
    folder.symlink_to(root.parent / "elsewhere")


TABLES = {
    "parent": (lambda root: rename_first(root, "../../etc/passwd"), "is not the bare file name of an image"),
    "absolute": (lambda root: rename_first(root, "/etc/passwd"), "is not the bare file name of an image"),
    "windows": (lambda root: rename_first(root, "..\\..\\x.png"), "is not the bare file name of an image"),
    "nul": (lambda root: rename_first(root, "a\0b.png"), "is not the bare file name of an image"),
    "dots": (lambda root: rename_first(root, ".."), "is not the bare file name of an image"),
    "packed": (pack, "holds more than 1 MiB, packed"),
    "link": (link_image, "leads out of the data root"),
    "folder": (link_folder, "leads out of the data root"),
    "pickle": (lambda root: (root / "BBox_List_2017.csv").write_bytes(pickle.dumps(CALLS["mkdir"])), "BBox_List_2017"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_lead_nowhere_else(place, sources, capsys, monkeypatch, kind):
    make, words = TABLES[kind]
    root = shutil.copytree(sources / "nih", place / "nih")
    monkeypatch.setattr(tables, "MOST_BYTES", 2**20)
    make(root)
    assert words in the_error(capsys, "inspect", "--data=NIHDataModule", f"--data.root={root}")
    assert not written(place / "work")
    unharmed(place)


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def write_object_array(path: Path) -> None:
    array = np.empty(1, dtype=object)
    array[0] = CALLS["mkdir"]
    np.save(path, array, allow_pickle=True)


IMAGES = {
    "pickle": lambda path: path.write_bytes(pickle.dumps(CALLS["mkdir"])),
    "objects": write_object_array,
    "expression": lambda path: path.write_bytes(
        npy(f"{{'descr': __import__('os').mkdir('{CANARY}'), 'fortran_order': False, 'shape': (1,)}}")
    ),
    "endless": lambda path: path.write_bytes(
        npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({2**60}, 64, 64)}}")
    ),
    "negative": lambda path: path.write_bytes(npy("{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 64, 64)}")),
    "archive": lambda path: np.savez(path.open("wb"), images=np.zeros((47, 64, 64), np.uint8)),
    "long_header": lambda path: path.write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + bytes(64)),
}
MANIFEST = {
    "deep": "[" * 100_000,
    "list": "[1, 2]",
    "more": '{"images": 1, "__class__": "os.system"}',
    "words": '{"images": "x", "unreadable": 0, "size": "64", "sources_sha256": 1, "index_sha256": 2}',
    "nothing": "",
}


@pytest.mark.parametrize("kind", [*IMAGES, *(f"manifest_{kind}" for kind in MANIFEST)])
def test_prepared_copies_of_strangers(place, sources, capsys, kind):
    copy = shutil.copytree(sources / "copy", place / "copy")
    if kind in IMAGES:
        (copy / "images.npy").unlink()
        IMAGES[kind](copy / "images.npy")
    else:
        (copy / "manifest.json").write_text(MANIFEST[kind.removeprefix("manifest_")])
    nih = ["--config", str(CONFIGS / "nih_classification.yaml"), *SMALL, f"--data.root={sources / 'nih'}"]
    error = the_error(capsys, "fit", *nih, f"--data.prepared={copy}")
    assert str(copy) in error and "prepare" in error
    unharmed(place)


def png_bomb(path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", 2**20, 2**20, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(bytes(2**20))) + chunk(b"IEND", b""))


def postscript(path: Path) -> None:
    path.write_text(f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n({CANARY}) (w) file closefile\n")


def deflated(path: Path) -> None:
    write_dicom(path, np.zeros((1024, 1024), np.uint16), 12, DeflatedExplicitVRLittleEndian)


def jpeg_frame(marker: int) -> bytes:
    return struct.pack(">HBBHBHHB3B", 0xFFD8, 0xFF, marker, 11, 12, 65535, 65535, 1, 1, 0x11, 0) + b"\xff\xd9"


def j2k_frame() -> bytes:
    size = struct.pack(">HH8IH3B", 41, 0, *[2**31 - 1] * 2, 0, 0, *[2**31 - 1] * 2, 0, 0, 1, 11, 1, 1)
    return b"\xff\x4f\xff\x51" + size + b"\xff\xd9"


SHAPE = {"Rows": 64, "Columns": 64, "BitsAllocated": 16}
PICTURES = {
    "png_bomb.png": (png_bomb, "images of up to 178,956,970 pixels are read"),
    "postscript.png": (postscript, "cannot identify image file"),
    "pickle.jpg": (lambda path: path.write_bytes(pickle.dumps(CALLS["mkdir"])), "cannot identify image file"),
    "deflated.dcm": (deflated, "its decompressed size exceeds the limit"),
    "j2k.dcm": (lambda p: write_dicom(p, j2k_frame(), 12, JPEG2000Lossless, **SHAPE), "they are 2147483647 rows"),
    "jpeg.dcm": (lambda p: write_dicom(p, jpeg_frame(0xC0), 8, JPEGBaseline8Bit, Rows=64, Columns=64), "65535 rows"),
    "jpeg_ls.dcm": (lambda p: write_dicom(p, jpeg_frame(0xF7), 12, JPEGLSLossless, **SHAPE), "65535 rows x 65535"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_of_strangers(place, trained, capsys, monkeypatch, name):
    make, words = PICTURES[name]
    (place / "x").mkdir()
    make(place / "x" / name)
    monkeypatch.setattr(dicom_header, "_MOST_BYTES", 2**20)
    options = ["--data=ImageFolderDataModule", f"--data.root={place / 'x'}", "--data.size=64", "--data.num_workers=0"]
    quiet = ["--trainer.accelerator=cpu", "--trainer.logger=false", "--trainer.callbacks=null"]
    error = the_error(
        capsys, "predict", "--model=ClassificationTask", "--model.backbone=test_resnet", *options, *quiet,
        f"--ckpt_path={trained}", "--trainer.enable_progress_bar=false",
    )  # fmt: skip
    assert name in error and words in error
    unharmed(place)
