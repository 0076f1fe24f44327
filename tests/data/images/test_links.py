"""Links in a data root to somewhere else, and copies whose lists and table are not of the same rows."""

import os
import shutil

import pytest
from fakes import write_cohen, write_lungs, write_nih

from lightning_chex.data import (
    CohenDataModule,
    DataError,
    ImageFolderDataModule,
    LungDataModule,
    NIHDataModule,
    TableDataModule,
)

pytestmark = pytest.mark.filterwarnings("ignore")

TABLE = "file,patient,Mass\n" + "".join(f"CXR.{i:04d}_{i % 2}.png,p{i},{i % 2}\n" for i in range(12))


def nih(root, **options):
    return NIHDataModule(str(write_nih(root, folder="images")), **options), root / "images"


def cohen(root, **options):
    return CohenDataModule(str(write_cohen(root)), **options), root / "data" / "public-cohen-subset"


def lungs(root, **options):
    write_lungs(root)
    masks = ["masks/{id}_r.png", "masks/{id}_l.png"]
    return LungDataModule(str(root), images="images", masks=masks, **options), root / "masks"


def table(root, **options):
    write_lungs(root)
    shutil.rmtree(root / "masks")
    (root / "T.csv").write_text(TABLE)
    return TableDataModule(str(root), "T.csv", **options), root / "images"


@pytest.mark.parametrize("make", [nih, cohen, lungs, table])
def test_a_link_to_another_disk_is_followed_where_that_is_allowed(tmp_path, make):
    counts = []
    for name in ("plain", "linked"):
        data, folder = make(tmp_path / name, size=32, follow_links=name == "linked")
        if name == "linked":
            folder.rename(tmp_path / "disk")
            folder.symlink_to(tmp_path / "disk")
        data.look()
        counts.append({part: own.image_ids for part, own in data.parts().items()})
    assert counts[0] == counts[1] and any(counts[0].values())
    data.follow_links, data._checked = False, False
    with pytest.raises(DataError, match="follow_links: true|are not in"):
        data.look()


def test_a_folder_of_images_alone_follows_links_into_each_folder_once(tmp_path):
    write_lungs(tmp_path / "disk")
    shutil.rmtree(tmp_path / "disk" / "masks")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "more").symlink_to(tmp_path / "disk")
    os.symlink(tmp_path / "disk", tmp_path / "disk" / "images" / "circle")
    data = ImageFolderDataModule(str(tmp_path / "root"), size=32, follow_links=True)
    data.setup("predict")
    assert data.choose_predicted().image_ids == [f"more/images/CXR.{i:04d}_{i % 2}" for i in range(12)]


def test_names_with_dots_never_lead_out(tmp_path):
    data, folder = lungs(tmp_path / "root", follow_links=True)
    data.images = "../root2"
    with pytest.raises(DataError, match="leads out of the data root .*: give a name inside it"):
        data.look()


def test_full_lists_serve_a_table_of_some_rows_where_that_is_allowed(tmp_path):
    root = write_nih(tmp_path / "nih")
    path = root / "Data_Entry_2017_v2020.csv"
    lines = path.read_text().splitlines(keepends=True)
    boxed = {line.split(",")[0] for line in (root / "BBox_List_2017.csv").read_text().splitlines()}
    gone = [line.split(",")[0] for line in lines[2:8]] + [next(name for name in sorted(boxed) if name.endswith(".png"))]
    path.write_text("".join(line for line in lines if line.split(",")[0] not in gone))
    with pytest.raises(DataError, match="7 images of train_val_list.txt and test_list.txt .*allow_missing: true"):
        NIHDataModule(str(root)).look()
    data = NIHDataModule(str(root), allow_missing=True, size=32)
    with pytest.warns(UserWarning, match="have no row in the label table: .* they are left out"):
        data.look()
    found = [name for part in data.parts().values() for name in part.image_ids]
    assert len(found) == 47 - 7 and not {f"{name}.png" for name in found} & set(gone)
    assert all(len(data.explained_dataset(stage)) for stage in ("validate", "test"))
