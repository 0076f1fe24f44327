"""Maps in shards: exact, readable by numpy alone, whole at any moment."""

import numpy as np
import pytest

from lightning_chex.maps import Added, MapStore, read_entries, read_map
from lightning_chex.maps import store as map_store


def store(folder, columns=("bits",), rank=0):
    (folder / "maps").mkdir(exist_ok=True, parents=True)
    return MapStore(folder / "index.csv", folder / "maps", columns, rank)


def maps(n, shape=(4, 5), seed=0):
    return np.random.default_rng(seed).random((n, *shape), dtype=np.float32)


def added(values, start=0, image="im"):
    return [Added(v, {"image": f"{image}{start + i}", "target": "Mass", "bits": "1"}) for i, v in enumerate(values)]


def test_maps_come_back_to_the_last_bit_in_another_process_and_by_numpy_alone(tmp_path):
    values = maps(7)
    mine = store(tmp_path)
    mine.add(added(values[:3]))
    mine.add(added(values[3:], 3))
    for i in range(7):
        assert np.array_equal(store(tmp_path).get((f"im{i}", "Mass")), values[i])
    (shard,) = (tmp_path / "maps").iterdir()
    assert np.array_equal(np.load(shard, mmap_mode="r"), values)
    assert store(tmp_path).get(("im9", "Mass")) is None


def test_a_shard_that_is_full_is_followed_by_another(tmp_path, monkeypatch):
    monkeypatch.setattr(map_store, "SHARD_BYTES", 3 * 4 * 4 * 5)
    values = maps(10)
    store(tmp_path).add(added(values))
    assert [len(np.load(path)) for path in sorted((tmp_path / "maps").iterdir())] == [3, 3, 3, 1]
    more = store(tmp_path)  # an interrupted run goes on in the last one
    more.add(added(maps(2, seed=1), 10))
    assert [len(np.load(path)) for path in sorted((tmp_path / "maps").iterdir())] == [3, 3, 3, 3]
    assert np.array_equal(more.get(("im4", "Mass")), values[4])


def test_maps_of_another_shape_have_shards_of_their_own(tmp_path):
    mine = store(tmp_path)
    mine.add([*added(maps(2)), *added(maps(1, (6, 6)), 2), *added(maps(1), 3)])
    assert mine.get(("im2", "Mass")).shape == (6, 6) and mine.get(("im3", "Mass")).shape == (4, 5)


def test_whatever_the_moment_of_the_kill_what_the_index_names_is_there(tmp_path):
    """The three files as they are after any byte of a second `add`, torn lines and orphaned maps included."""
    first, second = maps(2), maps(2, seed=1)
    store(tmp_path).add(added(first))
    (shard,) = (tmp_path / "maps").iterdir()
    index = tmp_path / "index.csv"
    before = shard.read_bytes(), index.read_bytes()
    store(tmp_path).add(added(second, 2))
    after = shard.read_bytes(), index.read_bytes()
    body = before[0][:128] + after[0][128:]
    states = [(body[:length], before[1]) for length in range(len(before[0]), len(after[0]) + 1, 7)]
    states += [(after[0], after[1][:length]) for length in range(len(before[1]), len(after[1]) + 1)]
    for shard_bytes, index_bytes in states:
        shard.write_bytes(shard_bytes)
        index.write_bytes(index_bytes)
        again = store(tmp_path)
        assert set(again.entries) >= {("im0", "Mass"), ("im1", "Mass")}
        again.add(added(second, 2))
        again.consolidate()
        for values, start in ((first, 0), (second, 2)):
            for i, value in enumerate(values):
                assert np.array_equal(store(tmp_path).get((f"im{start + i}", "Mass")), value)


def test_an_index_torn_in_its_first_line_is_begun_anew(tmp_path):
    (tmp_path / "index.csv").write_text("image,tar")
    store(tmp_path).add(added(maps(2)))
    assert list(store(tmp_path).entries) == [("im0", "Mass"), ("im1", "Mass")]


def test_a_line_whose_map_is_not_there_is_dropped(tmp_path):
    store(tmp_path).add(added(maps(3)))
    (shard,) = (tmp_path / "maps").iterdir()
    shard.unlink()
    assert store(tmp_path).consolidate() == {} and read_entries(tmp_path / "index.csv") == []
    store(tmp_path).add(added(maps(3)))
    for broken in (b"no array", b"", b"PK\x03\x04"):  # a power cut leaves an empty one
        shard.write_bytes(broken)
        assert store(tmp_path).entries == {}
    store(tmp_path).add(added(maps(3)))
    assert np.array_equal(store(tmp_path).get(("im2", "Mass")), maps(3)[2])


def test_an_index_that_a_spreadsheet_has_saved_is_read_or_named(tmp_path):
    store(tmp_path).add(added(maps(2)))
    index = tmp_path / "index.csv"
    text = index.read_text()
    index.write_bytes(b"\xef\xbb\xbf" + text.encode().replace(b"\n", b"\r\n"))
    assert len(store(tmp_path).entries) == 2
    index.write_text(text.replace(",0\n", ",²\n"))
    assert len(store(tmp_path).entries) == 1
    index.write_bytes(text.encode("utf-16"))
    with pytest.raises(ValueError, match="index.csv is not UTF-8 text.*another folder"):
        store(tmp_path)


def test_processes_write_apart_and_are_joined_in_order_without_duplicates(tmp_path):
    values = maps(4)
    for rank in (1, 0):  # neither goes on with the other's shard
        store(tmp_path, rank=rank).add(added(values[rank::2][:1], rank) + added(values[2:3], 2))
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["rank1_00000.npy", "shard_00000.npy"]
    whole = store(tmp_path).consolidate(order=["im2", "im1", "im0"])
    assert list(whole) == ["im2", "im1", "im0"] and sorted(p.name for p in tmp_path.glob("*.csv")) == ["index.csv"]
    for entry in read_entries(tmp_path / "index.csv"):
        assert np.array_equal(read_map(tmp_path, entry), values[int(entry["image"][2:])])


def test_an_image_that_is_not_whole_is_made_again(tmp_path):
    mine = store(tmp_path)
    mine.add(added(maps(2)))
    assert list(mine.consolidate(lambda entries: entries[0]["image"] != "im0")) == ["im1"]
    assert store(tmp_path).get(("im0", "Mass")) is None


def test_an_index_of_another_version_is_refused_and_left(tmp_path):
    store(tmp_path).add(added(maps(1)))
    before = (tmp_path / "index.csv").read_bytes()
    with pytest.raises(ValueError, match=r"has the columns image, target, bits.*another version.*another folder"):
        store(tmp_path, columns=("sum",))
    assert (tmp_path / "index.csv").read_bytes() == before


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    values = maps(2)
    mine = store(tmp_path)
    mine.add(added(values))

    def full(self, array):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(map_store._Shard, "append", full)
    with pytest.raises(OSError, match="No space"):
        mine.add(added(maps(1), 2))
    monkeypatch.undo()
    assert all(np.array_equal(store(tmp_path).get((f"im{i}", "Mass")), values[i]) for i in range(2))


def test_a_million_cells_take_the_space_they_need(tmp_path):
    """14 x 14 cells are 784 bytes; 377,000 X-rays with 1.5 maps each come to 443 MB in 27 files."""
    values = maps(64, (14, 14))
    store(tmp_path).add(added(values))
    (shard,) = (tmp_path / "maps").iterdir()
    assert shard.stat().st_size == 128 + 64 * 784
    assert 377_000 * 1.5 * 784 / map_store.SHARD_BYTES < 28
