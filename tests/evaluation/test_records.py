"""Records survive the process that wrote them, and never mix."""

import json
import math

import pytest
import torch

from lightning_chex.attribution import bits_per_pixel
from lightning_chex.evaluation import OtherEvaluationError, Records
from lightning_chex.maps import map_name

ROW = {"values": {"a": 1.5, "b": float("nan")}, "curves": {"c": [1.0, 2.0]}}


def test_what_was_added_is_there_in_another_process(tmp_path):
    Records(tmp_path, {"checkpoint": "x"}).add("part", "IBA", {('image, with "quotes"', "Mass"): ROW})
    found = Records(tmp_path, {"checkpoint": "x"}).of("part", "IBA")
    (own,) = found.values()
    assert list(found) == [('image, with "quotes"', "Mass")]
    assert own["curves"] == ROW["curves"] and own["values"]["a"] == 1.5 and own["values"]["b"] != own["values"]["b"]
    assert Records(tmp_path, {"checkpoint": "x"}).of("part", "LRP") == {}


@pytest.mark.parametrize("end", [b'{"image": "b", "tar', b'{"image": "b"', b"\xff"])
def test_a_line_that_was_cut_off_is_dropped_and_the_next_one_is_whole(tmp_path, end):
    records = Records(tmp_path, {})
    records.add("part", "IBA", {("a", "Mass"): ROW})
    path = tmp_path / "records" / "part" / "IBA.jsonl"
    path.write_bytes(path.read_bytes() + end)
    again = Records(tmp_path, {})
    assert list(again.of("part", "IBA")) == [("a", "Mass")]
    again.add("part", "IBA", {("b", "Mass"): ROW})
    assert list(Records(tmp_path, {}).of("part", "IBA")) == [("a", "Mass"), ("b", "Mass")]


def test_other_circumstances_are_refused_by_name_and_nothing_changes(tmp_path):
    Records(tmp_path, {"checkpoint": "x", "settings": {"step": 1}, "data": "d"})
    before = (tmp_path / "evaluation.json").read_bytes()
    with pytest.raises(OtherEvaluationError, match="other checkpoint, settings: give another folder"):
        Records(tmp_path, {"checkpoint": "y", "settings": {"step": 2}, "data": "d"})
    assert (tmp_path / "evaluation.json").read_bytes() == before
    Records(tmp_path, {"checkpoint": "x", "settings": {"step": 1}, "data": "d"})


def test_a_methods_settings_are_kept_and_compared(tmp_path):
    records = Records(tmp_path, {})
    records.register_method("IBA", {"beta": 10.0, "layers": ("a", "b")})
    records.register_method("IBA", {"beta": 10.0, "layers": ["a", "b"]})  # a tuple is a list to JSON
    with pytest.raises(OtherEvaluationError, match="method IBA with other settings"):
        Records(tmp_path, {}).register_method("IBA", {"beta": 5.0, "layers": ["a", "b"]})
    assert json.loads((tmp_path / "evaluation.json").read_text())["methods"]["IBA"]["beta"] == 10.0


def test_maps_come_back_to_the_last_bit_with_their_convergence(tmp_path):
    saliency, cells = torch.randn(1, 5, 7) * 1e-9, torch.rand(2, 2, 3)
    Records(tmp_path, {}).save_maps("Gradient", [("a/b", "Mass")], saliency, torch.tensor([torch.nan]))
    Records(tmp_path, {}).save_maps("IBA", [("a/b", "Mass"), ("a_b", "Mass")], cells, torch.tensor([0.5, 0.25]))
    records = Records(tmp_path, {})
    found, convergence = records.load_map("Gradient", ("a/b", "Mass"), (5, 7))
    assert torch.equal(found, saliency[0]) and math.isnan(convergence)
    found, convergence = records.load_map("IBA", ("a_b", "Mass"), (6, 9))
    assert torch.equal(found, bits_per_pixel(cells, (6, 9))[1]) and convergence == 0.25
    assert records.load_map("IBA", ("c", "Mass"), (6, 9)) is None
    assert not list(tmp_path.rglob("*.unfinished"))


def test_no_two_names_meet_and_none_leaves_the_folder():
    names = ["a", "a/b", "a_b", "a b", "../a", "..", "", "a" * 300, "a" * 299 + "b", "é", "A:B", "a__b"]
    files = [map_name(name, "Mass") for name in names]
    assert len(set(files)) == len(names)
    assert all("/" not in file and not file.startswith(".") and len(file) < 130 for file in files)


@pytest.mark.parametrize("content", ["", "{", "[]", "nonsense"])
def test_a_damaged_file_is_named(tmp_path, content):
    records = Records(tmp_path, {})
    records.add("localization", "M", {("a", "Mass"): {"values": {}}})
    records.write_metadata("randomization", {"spread": 1})
    (tmp_path / "records" / "randomization" / "about.json").write_text(content)
    with pytest.raises(ValueError, match="about.json .*another folder"):
        Records(tmp_path, {}).read_metadata("randomization")
    (tmp_path / "records" / "localization" / "M.jsonl").write_text(f"{content}\n")
    if content:
        with pytest.raises(ValueError, match="M.jsonl .*another folder"):
            Records(tmp_path, {}).of("localization", "M")
    (tmp_path / "evaluation.json").write_text(content)
    with pytest.raises(ValueError, match="evaluation.json .*another folder"):
        Records(tmp_path, {})
