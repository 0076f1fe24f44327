"""Imports run one way, and the examples of the docstrings run."""

import ast
import doctest
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import lightning_chex

ROOT = Path(lightning_chex.__file__).parent

# what every part may import: leaves that know nothing of images or models
LEAVES = {
    "checkpoints",
    "class_names",
    "csv_text",
    "estimates",
    "extras",
    "files",
    "json_text",
    "messages",
    "yaml_text",
}

# what a part may import of the others; it may always import itself
ALLOWED: dict[str, set[str]] = {
    **{leaf: set() for leaf in LEAVES},
    "lightning_private": set(),
    "thresholds": set(),
    "attribution": {"thresholds"},
    "metrics": {"thresholds"},
    "data": set(),
    "tasks": {"lightning_private"},
    "runs": {"lightning_private"},
    "report": {"attribution", "metrics", "thresholds"},
    "maps": {"data", "tasks", "attribution", "metrics", "report"},
    "explanations": {"maps", "runs", "tasks", "attribution", "metrics", "report", "lightning_private"},
    "evaluation": {"maps", "data", "tasks", "attribution", "metrics", "report", "lightning_private"},
    "cli": {
        "explanations",
        "evaluation",
        "maps",
        "runs",
        "report",
        "tasks",
        "data",
        "attribution",
        "lightning_private",
    },
    "callbacks": {"explanations", "runs"},
    "__main__": {"cli"},
}

# what parts that meet the data from outside may import of them: what data and models offer, and what fills in the rest
CONTRACT = ("lightning_chex.data.contract", "lightning_chex.data.adapter")
UNDER_CONTRACT = {"tasks", "maps", "explanations", "evaluation"}

# where a library belongs to some parts only
CONFINED = {
    "pytorch_lightning": {
        "lightning_private",
        "cli",
        "runs",
        "evaluation",
        "maps",
        "explanations",
        "tasks",
        "data",
    },
    "wandb": {"explanations", "report", "cli"},
    "albumentations": {"data"},
    "pandas": {"data"},
    "pydicom": {"data"},
    "timm": {"tasks"},
    "segmentation_models_pytorch": {"tasks"},
    "matplotlib": {"report"},
    "captum": {"attribution"},
    "zennit": {"attribution"},
    "torchmetrics": {"metrics", "tasks", "explanations"},
}


def imports_of(source: str, module: str) -> Iterator[str]:
    """Dotted names a module imports, also inside functions; relative imports are resolved."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*module.split(".")[: -node.level], *([base] if base else [])])
            # "from package import part" names the part in the alias
            yield from (f"{base}.{alias.name}" for alias in node.names)


def modules() -> list[tuple[str, Path]]:
    return [
        (".".join(["lightning_chex", *path.relative_to(ROOT).with_suffix("").parts]), path)
        for path in sorted(ROOT.rglob("*.py"))
        if path.parent != ROOT or path.stem != "__init__"
    ]


def part_of(name: str) -> str:
    return name.split(".")[1]


def offences(module: str, source: str) -> list[str]:
    part = part_of(module)
    found = []
    for name in imports_of(source, module):
        library = name.split(".")[0]
        if name.startswith(CONTRACT) and part in UNDER_CONTRACT:
            continue
        if library == "lightning_chex" and name.count("."):
            if part_of(name) not in ALLOWED[part] | LEAVES | {part}:
                found.append(name)
        elif part not in CONFINED.get(library, {part}):
            found.append(name)
    return found


@pytest.mark.parametrize(("module", "path"), modules(), ids=[name for name, _ in modules()])
def test_imports_run_one_way(module, path):
    assert part_of(module) in ALLOWED, f"say in this test what {part_of(module)!r} may import"
    assert not offences(module, path.read_text())


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("lightning_chex.data.sets.nih", "from lightning_chex.tasks import RegressionTask"),
        ("lightning_chex.metrics.localization", "def f():\n    import lightning_chex.attribution.bottleneck.iba"),
        ("lightning_chex.attribution.bottleneck.iba", "import pytorch_lightning as pl"),
        ("lightning_chex.attribution.bottleneck.iba", "from wandb import Image"),
        ("lightning_chex.metrics.localization", "from captum.attr import Saliency"),
        ("lightning_chex.attribution.bottleneck.iba", "from lightning_chex import data"),
        ("lightning_chex.attribution.bottleneck.iba", "from lightning_chex.data import contract"),
        ("lightning_chex.explanations.iba_callback", "from lightning_chex.data.datamodule import ChestXrayDataModule"),
        ("lightning_chex.attribution.bottleneck.iba", "from ...data import sample"),
        ("lightning_chex.explanations.iba_callback", "from lightning_chex.cli.main import main"),
        ("lightning_chex.report.pictures", "from lightning_chex.maps import MapFolder"),
    ],
)
def test_an_import_the_wrong_way_would_be_seen(module, source):
    assert len(offences(module, source)) == 1


def test_imports_the_right_way_are_not_offences():
    source = (
        "import torch\nfrom lightning_chex.attribution import IBA\nfrom .writer import Scale\n"
        "from lightning_chex.data.contract import Samples"
    )
    assert offences("lightning_chex.explanations.iba_callback", source) == []


def graph_of(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Which modules each module imports, at run time, in a function or under TYPE_CHECKING; a package is a module."""
    graph: dict[str, set[str]] = {module: set() for module in sources}
    for module, source in sources.items():
        for name in imports_of(source, module):
            found = next((known for known in (name, name.rpartition(".")[0]) if known in sources), module)
            graph[module] |= {found} - {module}
    return graph


def circle_in(sources: Mapping[str, str]) -> list[str]:
    try:
        TopologicalSorter(graph_of(sources)).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_modules_import_each_other_in_a_circle():
    sources = {name.removesuffix(".__init__"): path.read_text() for name, path in modules()}
    assert len(sources) > 150 and sum(map(len, graph_of(sources).values())) > 400  # imports are found at all
    assert circle_in(sources) == []


@pytest.mark.parametrize(
    "back",
    [
        "from lightning_chex.data.a import A",
        "def f():\n    from lightning_chex.data.a import A",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from lightning_chex.data.a import A",
    ],
)
def test_a_circle_would_be_seen(back):
    a, b = "lightning_chex.data.a", "lightning_chex.data.b"
    assert set(circle_in({a: "from lightning_chex.data.b import B", b: back})) == {a, b}
    assert circle_in({a: "from lightning_chex.data.b import B", b: ""}) == []


def levels_of(graph: Mapping[str, set[str]]) -> dict[str, int]:
    """Number of modules on the longest chain of imports that begins at each module."""
    levels: dict[str, int] = {}
    for module in TopologicalSorter(graph).static_order():
        levels[module] = 1 + max((levels[imported] for imported in graph[module]), default=0)
    return levels


def test_attribution_has_at_most_five_levels_of_parts():
    """The folders network, gradient and bottleneck count as one part each, and so does every file beside them."""
    sources = {
        name: path.read_text()
        for name, path in modules()
        if name.startswith("lightning_chex.attribution.") and path.stem != "__init__"
    }
    parts: dict[str, set[str]] = {}
    for module, imported in graph_of(sources).items():
        part = module.split(".")[2]
        parts.setdefault(part, set()).update({name.split(".")[2] for name in imported} - {part})
    levels = levels_of(parts)
    assert {"network", "bottleneck", "gradient", "attributor"} <= levels.keys()
    assert levels["bottleneck"] == max(levels.values()) <= 5
    assert "bottleneck" not in parts["attributor"] | parts["fitted"] | parts["network"] | parts["gradient"]


def test_attribution_imports_torch_and_numpy_alone():
    code = (
        "import sys, torch, numpy; before = set(sys.modules); import lightning_chex.attribution;"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(done.stdout))
    assert loaded <= {"lightning_chex", "safetensors", "typing_extensions", "torch", "numpy"}, loaded


def doctested() -> list[str]:
    names = [found.name for found in pkgutil.walk_packages(lightning_chex.__path__, "lightning_chex.")]
    return [name for name in names if not name.endswith("__main__")]


def test_examples_of_docstrings_run():
    attempted = 0
    for name in doctested():
        result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
        assert result.failed == 0, f"an example in {name} does not run, see above"
        attempted += result.attempted
    assert attempted >= 10  # they are found at all
