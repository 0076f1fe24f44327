"""What the package may be used under, what its dependencies may be used under, and that both are written down."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COPYLEFT = {"zennit": "LGPL"}  # used as it is, never copied from
PERMISSIVE = re.compile(
    r"\b(MIT|BSD|Apache|ISC|PSF|Python Software Foundation|MPL|Mozilla|HPND|Zlib|0BSD|Unlicense)\b|NVIDIA", re.I
)


def licence(name: str) -> str:
    """Everything a distribution says about its licence: expression, field (its first line) and classifiers."""
    metadata = distribution(name).metadata
    classifiers = [c for c in metadata.get_all("Classifier", []) if c.startswith("License")]
    field = (metadata.get("License") or "").strip().splitlines()[:1]
    return " | ".join([metadata.get("License-Expression") or "", *field, *classifiers])


def closure(requirements: Iterable[str]) -> set[str]:
    """Names of all distributions that these requirements bring to this machine."""
    found: set[str] = set()
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        one, extra = waiting.pop()
        if one.marker and not one.marker.evaluate({"extra": extra}):
            continue
        name = re.sub(r"[-_.]+", "-", one.name).lower()
        for wanted in ["", *one.extras]:
            if f"{name}[{wanted}]" not in found:
                found.add(f"{name}[{wanted}]")
                waiting += [(Requirement(text), wanted) for text in distribution(one.name).requires or []]
    return {name.split("[")[0] for name in found}


def test_no_dependency_asks_for_more_than_the_licence_gives():
    extras = PROJECT["optional-dependencies"]
    optional = [text for name in ("gradients", "lrp", "segmentation", "dicom", "excel") for text in extras[name]]
    names = closure([*PROJECT["dependencies"], *optional])
    assert {"torch", "zennit", "jinja2", "numpy"} <= names and "pytest" not in names
    for name in names:
        said = licence(name)
        if name in COPYLEFT:
            assert COPYLEFT[name] in said
        elif name != "cuda-toolkit":  # says nothing about itself: an empty package that names NVIDIA's others
            assert not re.search(r"GPL|General Public|Affero", said) and PERMISSIVE.search(said), f"{name}: {said}"


def test_the_extra_under_the_gpl_is_no_dependency():
    (extra,) = PROJECT["optional-dependencies"]["dicom-jpeg"]
    assert "GPL" in licence(Requirement(extra).name)
    assert Requirement(extra).name not in closure(PROJECT["dependencies"])


def test_the_table_of_licences_names_every_dependency():
    rows = re.findall(r"^\| ([\w-]+) \| ([^|]+) \|", (ROOT / "docs" / "project" / "licences.md").read_text(), re.M)[1:]
    wanted = [
        *PROJECT["dependencies"],
        *(text for texts in PROJECT["optional-dependencies"].values() for text in texts),
        "quantus",
    ]
    assert {name for name, _ in rows} - {"name"} == {Requirement(text).name for text in wanted} - {PROJECT["name"]}
    said = dict(rows)
    assert "LGPL" in said["zennit"] and said["pylibjpeg-libjpeg"].startswith("GPL") and "GPL" in said["quantus"]


def test_a_wheel_carries_the_licence(tmp_path):
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "lightning_chex").mkdir()
    (tmp_path / "lightning_chex" / "__init__.py").touch()
    build = "import setuptools.build_meta as b; b.prepare_metadata_for_build_wheel('made')"
    (tmp_path / "made").mkdir()
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    (made,) = (tmp_path / "made").glob("*.dist-info")
    metadata = (made / "METADATA").read_text()
    assert "\nLicense-Expression: Apache-2.0\n" in metadata and "\nLicense-File: LICENSE\n" in metadata
    assert "Project-URL" not in metadata and "Home-page" not in metadata
    text = (made / "licenses" / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "9. Accepting Warranty" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_citation_says_what_the_project_says():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "type", "version", "license", "references"} <= set(cited)
    assert cited["cff-version"] == "1.2.0" and cited["license"] == PROJECT["license"] == "Apache-2.0"
    assert cited["version"] == PROJECT["version"] and cited["authors"] == [{"name": "lightning_chex developers"}]
    (paper,) = cited["references"]
    assert paper["doi"] == "10.1007/978-3-030-87199-4_37" and len(paper["authors"]) == 8 and paper["year"] == 2021
    assert paper["title"].startswith("Explaining COVID-19 and Thoracic Pathology Model Predictions")


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_the_lock_pins_every_dependency_within_its_bounds():
    pins = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in locked().items()}
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]:
        one = Requirement(text)
        if one.name != PROJECT["name"]:
            name = re.sub(r"[-_.]+", "-", one.name).lower()
            assert one.specifier.contains(pins[name], prereleases=True), f"{text}, locked at {pins[name]}"
    assert {"pip", "quantus", "triton", "pyjpegls"} <= set(pins) and "lightning-chex" not in pins


def test_the_lock_names_no_machine():
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.+!]+", line), line


def test_make_installs_what_is_locked():
    if shutil.which("make") is None:
        pytest.skip("there is no make on this machine")
    said = subprocess.run(["make", "-n", "-B", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    installs = [line for line in said.splitlines() if "pip install" in line]
    assert len(installs) == 3 and all(line.endswith("--constraint requirements.lock") for line in installs)
