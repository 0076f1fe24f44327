"""Tables as hospitals have them: what is recognised, what is read, and what is refused."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from fakes_brixia import write_dicom
from PIL import Image
from pydicom import dcmread

from lightning_chex.data import DataError, TableDataModule
from lightning_chex.data.table.boxes import BoxColumns
from lightning_chex.data.table.columns import Columns
from lightning_chex.data.table.masks import Masks, decode_runs
from lightning_chex.report.rle import encode_mask

pytestmark = pytest.mark.filterwarnings("ignore")

CLASSES = ("Edema", "Mass")


def pictures(root: Path, names, shape=(20, 30)) -> Path:
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full(shape, 10 * i % 250, dtype=np.uint8)).save(path)
    return root


def rows(n: int = 24) -> pd.DataFrame:
    """n images of n / 2 patients; Edema on every second patient, Mass on every third."""
    patient = np.arange(n) // 2
    return pd.DataFrame(
        {
            "file": [f"x{i}.png" for i in range(n)],
            "PatientID": [f"p{i}" for i in patient],
            "Edema": (patient % 2 == 0).astype(int),
            "Mass": (patient % 3 == 0).astype(int),
        }
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("table") / "data", [f"images/x{i}.png" for i in range(24)])


def module(root: Path, table: pd.DataFrame | str | bytes, name: str = "T.csv", **options) -> TableDataModule:
    path = root.parent / name
    if isinstance(table, bytes):
        path.write_bytes(table)
    else:
        path.write_text(table if isinstance(table, str) else table.to_csv(index=False))
    return TableDataModule(str(root), str(path), size=24, **options)


def all_labels(data: TableDataModule) -> dict[str, list[float]]:
    data.look()
    return {
        name: row
        for part in data.parts().values()
        for name, row in zip(part.image_ids, part.labels.tolist(), strict=True)
    }


EXPECTED = {f"x{i}": [float(i // 2 % 2 == 0), float(i // 2 % 3 == 0)] for i in range(24)}


def in_text(mark: str) -> pd.DataFrame:
    table = rows()
    words = [mark.join(name for name in CLASSES if row[name]) or "No Finding" for _, row in table.iterrows()]
    return table[["file", "PatientID"]].assign(**{"Finding Labels": words})


WAYS = {
    "comma": (rows().to_csv(index=False), {}),
    "semicolons, BOM, CRLF": (b"\xef\xbb\xbf" + rows().to_csv(index=False, sep=";").replace("\n", "\r\n").encode(), {}),
    "tabs, with an index column": (rows().to_csv(sep="\t"), {}),
    "UTF-16": (rows().to_csv(index=False, sep="\t").encode("utf-16"), {}),
    "Windows-1252": (rows().assign(Größe="ä").to_csv(index=False).encode("cp1252"), {}),
    "packed": (gzip.compress(rows().to_csv(index=False).encode()), {}),
    "blanks and empty lines": (rows().to_csv(index=False).replace(",", " , ") + "\n\n", {}),
    "decimals": (rows().astype({"Edema": float, "Mass": float}).to_csv(index=False), {}),
    "words": (rows().replace({"Edema": {0: "no", 1: "Yes"}, "Mass": {0: "FALSE", 1: "true"}}).to_csv(index=False), {}),
    "stems": (rows().assign(file=lambda t: t["file"].str[:-4]).to_csv(index=False), {}),
    "text, bars": (in_text("|").to_csv(index=False), {"classes": list(CLASSES)}),
    "text, semicolons": (in_text("; ").to_csv(index=False), {"classes": list(CLASSES)}),
    "named columns": (
        rows().rename(columns={"file": "a", "Edema": "b c", "Mass": "Müll"}).to_csv(index=False),
        {"columns": Columns(image="a", labels=["b c", "Müll"])},
    ),
    "a column of no finding": (rows().assign(**{"No Finding": 0}).to_csv(index=False), {}),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_every_form_of_a_table_gives_the_same_labels(root, way):
    table, options = WAYS[way]
    data = module(root, table, **options)
    assert all_labels(data) == EXPECTED and len(data.class_names) == 2
    patients = {name: set(part.patient_ids) for name, part in data.parts().items()}
    assert all(patients.values()) and sum(map(len, patients.values())) == len(set().union(*patients.values())) == 12


def test_paths_are_found_from_above_and_below_the_root(tmp_path):
    names = [f"train/p{i}/view.png" for i in range(12)]
    root = pictures(tmp_path / "SET", names)
    for prefix in ("", "SET/", "download/SET/", f"{root}/", "train\\..\\"):
        table = rows(12).assign(file=[prefix + name for name in names])
        if ".." in prefix:
            with pytest.raises(DataError, match=r"row 2, column 'file': .* leads out of the data root"):
                module(root, table).look()
            continue
        data = module(root, table)
        data.look()
        assert {path for part in data.parts().values() for path in part.paths} == {str(root / name) for name in names}
    with pytest.raises(DataError, match="'view' could be .*p0/view.png or .*: give the path below the root"):
        module(root, rows(12).assign(file=["view.png", *names[1:]])).look()


def test_the_layout_of_chexpert_needs_no_column_of_patients(tmp_path):
    """Paths from above the root, uncertain and empty labels, two columns of views, "No Finding" and sizes of files."""
    names = [f"train/patient{i // 3:05d}/study{i % 3}/view1_frontal.jpg" for i in range(36)]
    root = pictures(tmp_path / "CheXpert-v1.0-small", names)
    cell = ["1.0", "0.0", "-1.0", ""]
    table = pd.DataFrame(
        {
            "Path": [f"CheXpert-v1.0-small/{name}" for name in names],
            "Sex": ["Female", "Male"] * 18,
            "Age": range(36),
            "Frontal/Lateral": "Frontal",
            "AP/PA": ["AP", "PA"] * 18,
            "No Finding": ["1.0" if i % 9 == 0 else "" for i in range(36)],
            "Edema": [cell[i % 4] for i in range(36)],
            "Support Devices": [cell[i // 3 % 4] for i in range(36)],
        }
    )
    data = module(root, table, uncertain="positive")
    labels = all_labels(data)
    assert data.class_names == ("Edema", "Support Devices") and len(labels) == 36 - 3  # three have neither
    assert labels["CheXpert-v1.0-small/train/patient00002/study0/view1_frontal"] == [1.0, 1.0]
    patients = {name: set(part.patient_ids) for name, part in data.parts().items()}
    assert set().union(*patients.values()) == {f"patient{i:05d}" for i in range(12)}
    assert sum(map(len, patients.values())) == 12 and all(patients.values())
    assert data.proposal()[1].count("patient_pattern: patient[-_]?\\d+") == 1
    with pytest.raises(DataError, match=r"row 2, column 'Path': .* has no patient like 'p\[0-9\]\{8\}'"):
        module(root, table, patient_pattern="p[0-9]{8}").look()
    with pytest.raises(ValueError, match="patient_pattern is '\\(', no regular expression"):
        module(root, table, patient_pattern="(")


def test_ids_that_a_spreadsheet_made_decimals(tmp_path):
    root = pictures(tmp_path / "data", [f"{100 + i}.png" for i in range(12)])
    table = rows(12).assign(file=[f"{100 + i}.0" for i in range(12)], PatientID=[f"{i // 2}.0" for i in range(12)])
    data = module(root, table)
    assert set(all_labels(data)) == {str(100 + i) for i in range(12)}
    assert {name for part in data.parts().values() for name in part.patient_ids} == {str(i) for i in range(6)}


POLICIES = [("ignore", np.nan), ("positive", 1.0), ("negative", 0.0)]


@pytest.mark.parametrize(("uncertain", "first"), POLICIES)
@pytest.mark.parametrize(("missing", "second"), POLICIES)
def test_uncertain_and_missing_labels_count_as_they_are_told_to(root, uncertain, first, missing, second):
    table = rows().astype(object)
    for row, cell in enumerate(("-1", "u", "-1.0", "", "nan", "N/A")):
        table.loc[row, "Edema"] = cell
    labels = all_labels(module(root, table, uncertain=uncertain, missing=missing))
    found = [labels[f"x{i}"][0] for i in range(6)]
    assert np.array_equal(found, [first] * 3 + [second] * 3, equal_nan=True)
    assert all(labels[f"x{i}"][1] == EXPECTED[f"x{i}"][1] for i in range(24))


def test_weights_and_batches_pass_over_what_is_not_known(root):
    table = rows().astype(object)
    table.loc[::3, "Edema"] = ""
    data = module(root, table, batch_size=4)
    data.setup("fit")
    labels = data.dataset("train").labels
    known = [value for value in labels[:, 0].tolist() if value == value]
    assert 0 < len(known) < len(labels)
    assert data.pos_weight[0] == (len(known) - sum(known)) / sum(known)
    assert any(batch["label"].isnan().any() for batch in data.train_dataloader())
    assert all(sample["label"].isfinite().all() for sample in [data.explained_dataset("validate")[0]])


def test_an_image_without_any_known_label_is_left_out(root):
    table = rows().astype(object)
    table.loc[3, ["Edema", "Mass"]] = ""
    with pytest.warns(UserWarning, match="1 of the 24 images have no known label and are left out"):
        labels = all_labels(module(root, table))
    assert set(labels) == set(EXPECTED) - {"x3"}


def test_a_score_spans_all_splits_and_empty_ones_are_left_out(root):
    table = rows()[["file", "PatientID"]].assign(severity=[f"{i / 2:g}".replace(".", ",") for i in range(24)])
    table.loc[5, "severity"] = ""
    data = module(root, table.to_csv(index=False, sep=";"))
    data.setup("fit")
    assert data.class_names == () and data.score_names == ("severity",)
    scores = all_labels(data)
    assert scores == {f"x{i}": i / 2 for i in range(24) if i != 5}
    assert data.dataset("train").labels.max() - data.dataset("train").labels.min() > 6
    several = module(root, rows(), columns=Columns(score=["Edema", "Mass"]))
    assert several.score_names == CLASSES and several.class_names == ()
    assert all_labels(several) == EXPECTED


def test_a_column_tells_the_split_and_validation_is_drawn_where_it_has_none(root):
    split = np.where(np.arange(24) < 16, "Train", np.where(np.arange(24) < 20, "valid", "TEST"))
    data = module(root, rows().assign(set=split))
    data.look()
    found = {name: set(part.image_ids) for name, part in data.parts().items()}
    assert found == {
        "train": {f"x{i}" for i in range(16)},
        "val": {f"x{i}" for i in range(16, 20)},
        "test": {f"x{i}" for i in range(20, 24)},
    }
    data = module(root, rows().assign(set=np.where(np.arange(24) < 16, "train", "test")))
    with pytest.warns(UserWarning, match="has no validation split"):
        data.look()
    parts = {name: set(part.image_ids) for name, part in data.parts().items()}
    assert parts["test"] == {f"x{i}" for i in range(16, 24)} and parts["val"] and not parts["val"] & parts["train"]


def test_splits_depend_neither_on_order_nor_on_filters_nor_on_missing_files(root):
    table = rows().assign(view=["PA", "lateral"] * 12)

    def splits(data):
        data.look()
        return {name: part for part, own in data.parts().items() for name in own.image_ids}

    everything = splits(module(root, table))
    assert splits(module(root, table.sample(frac=1, random_state=1))) == everything
    seen = splits(module(root, table, view=["pa"]))
    assert set(seen) == {f"x{i}" for i in range(0, 24, 2)} and seen.items() <= everything.items()
    more = pd.concat([table, table.iloc[:2].assign(file=["y0.png", "y1.png"])])
    some = splits(module(root, more, allow_missing=True))
    assert set(some) == set(everything)


BOX = (6.0, 4.0, 12.0, 8.0)  # x, y, w, h in the 30 x 20 pixels of the images
FORMS = {
    "xywh": ("x,y,width,height", BOX),
    "xyxy": ("x_min,y_min,x_max,y_max", (6.0, 4.0, 18.0, 12.0)),
    "share, centre": ("x_center,y_center,width,height", (0.4, 0.4, 0.4, 0.4)),
    "one cell": ('"bbox_xywh"', ('"[6, 4, 12.0, 8]"',)),
    "of a larger original": ("x1,y1,x2,y2,image_width,image_height", (60, 40, 180, 120, 300, 200)),
}


@pytest.mark.parametrize("form", FORMS)
def test_boxes_of_every_form_are_the_same(root, form):
    header, values = FORMS[form]
    inside = rows().assign(split=["train"] * 12 + ["val"] * 6 + ["test"] * 6)
    lines = [f"image,class,{header}", *(f"images/x{i}.png,mass,{','.join(map(str, values))}" for i in (0, 12, 18))]
    (root.parent / "boxes.csv").write_text("\n".join([*lines, f"x12,Edema,{','.join(map(str, values))}"]))
    data = module(root, inside, boxes=str(root.parent / "boxes.csv"))
    data.setup("fit")
    explained = data.explained_dataset("validate")
    assert len(explained) == 1
    # 30 x 20 pixels become 24 x 16 below a border of 4
    expected = torch.tensor([[6 * 0.8, 4 * 0.8 + 4, 18 * 0.8, 12 * 0.8 + 4]]).expand(2, 4)
    assert torch.allclose(explained[0]["boxes"], expected) and explained[0]["box_labels"].tolist() == [1, 0]
    assert data.dataset("val").all_box_labels.tolist() == [1, 0]
    assert data.dataset("val")[1]["boxes"].shape == (0, 4)


def test_a_table_of_one_row_a_box_joins_the_labels_of_an_image(root):
    table = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n" + "".join(
        f"x{i},{name},{k},R{k},{box}\n"
        for i in range(24)
        for name, k, box in (
            [("No finding", 14, ",,,")]
            if i % 3 == 0
            else [("Nodule/Mass", 0, "1,2,9,8"), ("Edema", 3, "3,3,30,20")][: i % 3]
        )
    )
    data = module(root, table)
    labels = all_labels(data)
    assert data.class_names == ("Nodule/Mass", "Edema")
    assert labels == {f"x{i}": [float(i % 3 > 0), float(i % 3 > 1)] for i in range(24)}
    boxes = torch.cat([part.all_box_labels for part in data.parts().values()])
    assert boxes.bincount().tolist() == [16, 8]


def test_masks_are_drawn_from_files_and_from_run_lengths(tmp_path):
    root = pictures(tmp_path / "data", [f"images/x{i}.png" for i in range(24)])
    mask = np.zeros((20, 30), bool)
    mask[5:12, 8:20] = True
    for name in ("x1", "x14"):
        for scale, folder in ((1, "Mass"), (2, "Edema")):
            path = root / "masks" / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((mask.repeat(scale, 0).repeat(scale, 1) * 255).astype(np.uint8)).save(path)
    table = rows().assign(
        file=[f"images/x{i}.png" for i in range(24)], split=["train"] * 12 + ["val"] * 6 + ["test"] * 6
    )
    data = module(root, table, masks=Masks(files="masks/{class}/{id}.png"))
    data.setup("validate")
    (sample,) = [data.explained_dataset("validate")[0]]
    resized = torch.tensor(np.asarray(Image.fromarray(mask).resize((24, 16), Image.Resampling.BOX)))
    for k in (0, 1):
        assert (sample["finding_masks"][k, 4:20] != resized).float().mean() < 0.05
    assert sample["image_id"] == "images/x14"

    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat.astype(int), [0]])))
    starts, ends = edges[::2], edges[1::2]
    siim = [int(n) for a, b, before in zip(starts, ends, [0, *ends[:-1]], strict=True) for n in (a - before, b - a)]
    texts = {
        "siim": " ".join(map(str, siim)),
        "pixels": " ".join(f"{a + 1} {b - a}" for a, b in zip(starts, ends, strict=True)),
        "coco": encode_mask(mask)["counts"],
    }
    for form, text in texts.items():
        assert np.array_equal(decode_runs(text, 20, 30, form), mask)
        (root.parent / "runs.csv").write_text(f"ImageId,label,EncodedPixels\nx14,Mass,{text}\nx15,Mass,-1\n")
        runs = Masks(runs=str(root.parent / "runs.csv"), label="label", form=form)
        own = module(root, table, masks=runs)
        own.setup("validate")
        drawn = own.explained_dataset("validate")[0]["finding_masks"]
        assert torch.equal(drawn[1], sample["finding_masks"][1]) and not drawn[0].any()
    (root.parent / "runs.csv").write_text("ImageId,label,EncodedPixels\nx14,Mass,599 7\n")
    with pytest.raises(DataError, match=r"runs.csv, row 2: the run lengths of 'images/x14' are no mask .* 30 x 20"):
        module(root, table, masks=Masks(runs=str(root.parent / "runs.csv"), label="label")).look()


def edited(**cells):
    def change(table):
        table = table.astype(object)
        for name, (row, value) in cells.items():
            if name not in table:
                table[name] = ""
            table.loc[row, name] = value
        return table

    return change


BOTH = {"columns": Columns(labels=["Edema", "Mass"])}

BAD = {
    "unknown column": (
        lambda t: t, {"columns": Columns(image="nix")},
        "no column 'nix', which data.columns.image names"),
    "two images": (
        lambda t: t.assign(path=t["file"].to_numpy()[::-1]), {},
        "'file' and 'path' could all be the image: set --data.columns.image 'file' or 'path'"),
    "no image": (lambda t: t.drop(columns="file"), {}, "no column that looks like the image's file"),
    "no labels": (lambda t: t[["file", "PatientID"]], {}, "no column that looks like labels"),
    "two labels": (lambda t: t.assign(findings="Mass"), {}, "several columns that could be the labels"),
    "no label": (
        edited(Mass=(4, "large")), {"columns": Columns(labels=["Mass"])},
        "row 6, column 'Mass': 'large' is no label"),
    "no score": (
        edited(score=(3, "much")), {"columns": Columns(score="score")},
        "row 5, column 'score': 'much' is no number"),
    "id twice": (edited(file=(7, "x2.png")), {}, "row 9, column 'file': image 'x2' is in row 4 too"),
    "file twice": (edited(file=(7, "images/x2.png")), {}, "row 9, column 'file': .*x2.png is the image of row 4 too"),
    "no name": (edited(file=(7, "")), {}, "row 9, column 'file': the cell is empty"),
    "out": (
        edited(file=(7, "../../etc/x.png")), {},
        "row 9, column 'file': '../../etc/x.png' leads out of the data root"),
    "absolute": (edited(file=(7, "/etc/x.png")), {}, "row 9, column 'file': '/etc/x.png' leads out of the data root"),
    "missing": (edited(file=(7, "zz.png")), {}, "1 of the 24 images in the table are not in .*zz; get them"),
    "patient": (
        lambda t: t.assign(split=["train"] * 11 + ["val"] * 7 + ["test"] * 6), {},
        "row 13, column 'split': patient 'p5' is in val and, in row 12, in train",
    ),
    "split": (
        lambda t: t.assign(part=["train"] * 23 + ["x"]), {"columns": Columns(split="part")},
        "row 25, column 'part': 'x' is no split: give train, val or test",
    ),
    "view": (
        lambda t: t.assign(view="PA"), {"view": ["AP"]},
        "column 'view': no image has the view 'AP'; there are PA"),
    "no view": (lambda t: t, {"view": ["AP"]}, "has no column of views: --data.columns.view names it"),
    "age": (edited(age=(3, "old")), {"columns": Columns(age="age")}, "row 5, column 'age': 'old' is no age"),
    "class": (
        lambda t: t, {"classes": ["Oedema"]},
        "classes names 'Oedema', which .* does not know: it has Edema, Mass"),
    "box outside": (
        lambda t: t.assign(x=1, y=1, w=["5"] * 23 + ["50"], h=5, label="Mass"), BOTH,
        "row 25: the box 1, 1, 51, 6 .* of 'x23' lies outside of its 30 x 20 image",
    ),
    "one cell of a class": (
        lambda t: t.assign(Mass=["banana", *t["Mass"].astype(str)[1:]]), {},
        "row 2, column 'Mass': 'banana' is no label, though others here are 0 and 1",
    ),
    "one number of a class": (
        lambda t: t.assign(Mass=[*t["Mass"].astype(str)[:-1], "2"]), {},
        "row 25, column 'Mass': '2' is no label",
    ),
    "box empty": (
        lambda t: t.assign(x=1, y=1, w=["5"] * 23 + ["0"], h=5, label="Mass"), BOTH,
        "row 25, column 'box': '1, 1, 0, 5' has no extent, read as xywh",
    ),
    "box class": (
        lambda t: t.assign(x=1, y=1, w=5, h=5, label="Lump"), BOTH,
        "column 'label': no box is of a class: 'Lump' are none of Edema, Mass",
    ),
    "box number": (
        lambda t: t.assign(x="a", y=1, w=5, h=5, label="Mass"), BOTH,
        "row 2, column 'x': 'a' is no number",
    ),
    "too few": (lambda t: t[:2], {}, "too few patients for a val split|holds no image"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_tables_are_one_error_that_names_the_place(root, case):
    change, options, message = BAD[case]
    data = module(root, change(rows()), **options)
    with pytest.raises(DataError, match=message) as caught:
        data.setup("fit")
    assert "T.csv" in str(caught.value) or case in ("too few",)


FILES = {
    "longer row": (b"file,Mass\nx0,1\nx1,1,2\n", "row 3 has more cells than the 2 of the header"),
    "twice": (b"file,Mass,Mass\nx0,1,1\n", "has the column 'Mass' more than once"),
    "no rows": (b"file,Mass\n", "has a header but no rows"),
    "nothing": (b"", "is empty"),
    "archive": (b"PK\x03\x04abc", "it is an archive, maybe an Excel file"),
    "zeros": (b"\x00" * 64, "contains NUL bytes"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_no_tables(root, case):
    content, message = FILES[case]
    with pytest.raises(DataError, match=message):
        module(root, content).look()


@pytest.mark.parametrize(("name", "engine"), [("T.xlsx", "openpyxl"), ("T.parquet", "pyarrow")])
def test_excel_and_parquet_are_read_or_the_package_for_it_is_named(root, name, engine):
    path = root.parent / name
    try:
        if name.endswith("xlsx"):
            rows().to_excel(path, index=False)
        else:
            rows().to_parquet(path, index=False)
    except ImportError:
        path.write_bytes(b"PK")
        with pytest.raises(DataError, match=f"needs the package {engine}: pip install {engine}, or save"):
            TableDataModule(str(root), str(path)).look()
        return
    assert all_labels(TableDataModule(str(root), str(path), size=24)) == EXPECTED


def test_a_column_that_may_be_the_patients_has_to_be_named(root):
    table = (
        rows()
        .rename(columns={"PatientID": "Fall"})
        .assign(site=["A", "B"] * 12, note="", uid=range(24), Alter=[20 + 3 * (i % 20) for i in range(24)])
    )
    data = module(root, table)
    question = r"the 12 values of 'Fall' in 24 rows may be patients .*: set --data.columns.patient 'Fall' or 'none'"
    with pytest.raises(DataError, match=question):
        data.look()
    config = data.proposal()[1]
    assert "# UNDECIDED 1: the 12 values of 'Fall'" in config
    assert "patient" not in yaml.safe_load(config)["data"]["init_args"]["columns"]
    for columns in (Columns(patient="none"), Columns(patient="Fall")):
        chosen = module(root, table, columns=columns)
        chosen.look()
        assert not chosen.reading.open and "UNDECIDED" not in chosen.proposal()[1]
    plain = module(root, table.drop(columns="Fall"))
    with pytest.warns(UserWarning, match="no patient column found; each image is treated as its own patient"):
        plain.look()


def test_of_several_sheets_the_one_that_names_images_is_read(root):
    path = root.parent / "T.xlsx"
    with pd.ExcelWriter(path) as book:
        pd.DataFrame({"about": ["a study"]}).to_excel(book, sheet_name="README", index=False)
        rows().to_excel(book, sheet_name="images", index=False)
    with pytest.warns(UserWarning, match=r"T.xlsx has 2 sheets; 'images' is read \(24 of its values match files\)"):
        data = TableDataModule(str(root), str(path), size=24)
        assert all_labels(data) == EXPECTED
    assert "README" not in data.reading.table
    with pytest.raises(DataError, match="has no sheet 'pictures', which data.sheet names; it has README, images"):
        TableDataModule(str(root), str(path), sheet="pictures").look()
    path.write_bytes(b"PK no archive")
    with pytest.raises(DataError, match="cannot read .*T.xlsx: BadZipFile; download the file again"):
        TableDataModule(str(root), str(path)).look()


def test_dicom_files_are_found_by_the_uid_in_their_header(tmp_path):
    root, uids = tmp_path / "data", []
    root.mkdir()
    for i in range(12):
        write_dicom(root / f"IM{i:03d}.dcm", np.full((20, 30), i, dtype=np.uint16))
        header = dcmread(root / f"IM{i:03d}.dcm")
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.{i}"
        header.save_as(root / f"IM{i:03d}.dcm")
        uids.append(f"1.2.826.0.1.{i}")
    data = module(root, rows(12).assign(file=uids).rename(columns={"file": "SOPInstanceUID"}))
    data.look()
    found = {
        name: path for part in data.parts().values() for name, path in zip(part.image_ids, part.paths, strict=True)
    }
    assert found == {uid: str(root / f"IM{i:03d}.dcm") for i, uid in enumerate(uids)}


def test_a_prepared_copy_gives_the_same_boxes(root, tmp_path):
    table = rows().assign(x=3, y=2, w=10, h=9, label="Mass", split=["train"] * 12 + ["val"] * 6 + ["test"] * 6)
    columns = Columns(labels=list(CLASSES))
    plain = module(root, table, columns=columns, box_columns=BoxColumns(form="xywh"))
    plain.prepare(tmp_path / "copy", workers=0)
    quick = module(root, table, columns=columns, prepared=str(tmp_path / "copy"))
    for data in (plain, quick):
        data.setup("validate")
    one, other = plain.dataset("val")[2], quick.dataset("val")[2]
    assert torch.equal(one["image"], other["image"]) and torch.equal(one["boxes"], other["boxes"])
    assert plain.fingerprint() == quick.fingerprint()
