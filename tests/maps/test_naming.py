"""Names of map files."""

from lightning_chex.maps import map_name


def test_file_names_are_safe_and_never_shared():
    names = [
        "a", "a/b", "a_b", "a:b", "../../etc/passwd", "..", ".hidden", "", "ü", "a__b", "x" * 300, "x" * 301, "a\nb",
        "C:\\x", "con ", " a", "a_", "_a", "nul\0",
    ]  # fmt: skip
    names += [map_name(name, "t")[:-3] for name in names]  # what others become
    files = {map_name(name, target) for name in names for target in ("b", "c__b", "Pleural Effusion", "b/c")}
    assert len(files) == 4 * len(set(names))
    for file in files:
        assert file.isascii() and file.isprintable() and len(file) < 240
        assert not file.startswith(".") and not set(file) & set('/\\:*?"<>| ')
    assert map_name("00000001_000", "Mass") == "00000001_000__Mass"
