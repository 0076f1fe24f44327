"""Start-up imports what it needs and no more."""

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import lightning_chex
from lightning_chex.cli import help_pages
from lightning_chex.cli.help_pages import (
    COMMANDS,
    help_page,
    installed_versions,
    unknown_class,
    unknown_command,
    unknown_option,
)
from lightning_chex.cli.main import main

HEAVY = (
    "albumentations", "captum", "cv2", "matplotlib", "mlflow", "pandas", "pytorch_lightning", "scipy",
    "segmentation_models_pytorch", "sympy", "timm", "torch._dynamo", "torchmetrics", "torchvision", "wandb", "zennit",
)  # fmt: skip

_LIST = "import sys; print(*sys.modules, sep='\\n')"


def imported_by(code: str) -> set[str]:
    """Return the names of the modules that a new interpreter holds after running code."""
    done = subprocess.run([sys.executable, "-c", f"{code}\n{_LIST}"], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_attribution_imports_no_library_that_single_methods_use():
    imported = imported_by("import lightning_chex.attribution")
    assert "lightning_chex.attribution.gradient.lrp" in imported  # the list is one of this package
    assert imported.isdisjoint(HEAVY)


def test_metrics_import_no_library_but_torch_and_numpy():
    imported = imported_by("import lightning_chex.metrics")
    assert "lightning_chex.metrics.perturbation" in imported  # the list is one of this package
    assert imported.isdisjoint(HEAVY)


def test_accumulators_import_torchmetrics_at_their_first_use():
    imported = imported_by("from lightning_chex.metrics import LocalizationIoU\nLocalizationIoU(num_classes=2)")
    assert {"lightning_chex.metrics.accumulators", "torchmetrics"} <= imported


def test_every_name_of_the_metrics_can_be_imported_and_others_cannot():
    from lightning_chex import metrics

    assert all(getattr(metrics, name).__name__ for name in metrics.__all__)
    assert set(metrics.__all__) <= set(dir(metrics))
    with pytest.raises(AttributeError, match="has no attribute 'ClassMeans'"):
        metrics.ClassMeans  # noqa: B018


@pytest.mark.parametrize("method", ["Gradient", "GradCAM", "IntegratedGradients", "LRP", "SmoothGrad"])
def test_constructing_a_method_imports_no_library(method):
    imported = imported_by(f"from lightning_chex.attribution import {method}\n{method}()")
    assert imported.isdisjoint(HEAVY)


PACKAGE = Path(lightning_chex.__file__).parent
PAGES = PACKAGE / "cli" / "help"


@pytest.fixture
def pages_of_installed_versions():
    shipped = json.loads((PAGES / "versions.json").read_text())
    if shipped != installed_versions():
        pytest.skip(f"the help pages were written with other versions: {shipped}")


def run_main(*arguments: str) -> subprocess.CompletedProcess:
    """Run the package as ``python -m`` does, with a list of what it imports on standard error."""
    command = [sys.executable, "-X", "importtime", "-m", "lightning_chex", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def check_imports(listed: str) -> None:
    imported = {line.rpartition("|")[2].strip() for line in listed.splitlines()}
    assert "lightning_chex.cli.help_pages" in imported  # the list is one of this package
    assert imported.isdisjoint({*HEAVY, "torch", "numpy", "jsonargparse"})


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["fit", "--help"], ["explain", "-h"]])
def test_help_imports_neither_torch_nor_lightning(arguments, pages_of_installed_versions):
    done = run_main(*arguments)
    assert done.returncode == 0 and done.stdout.startswith("usage: python -m lightning_chex")
    check_imports(done.stderr)


def test_a_misspelt_command_imports_neither_torch_nor_lightning():
    done = run_main("fitt", "--trainer.max_epochs=1")
    assert done.returncode == 2 and "invalid choice: 'fitt'" in done.stderr
    check_imports(done.stderr)


def test_help_pages_are_those_of_the_parser(tmp_path, pages_of_installed_versions):
    # in a process of its own: the pages list classes, and tests define some
    script = PACKAGE.parent / "docs" / "write_help_pages.py"
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in PAGES.iterdir()}
    for path in tmp_path.iterdir():
        assert path.read_text() == (PAGES / path.name).read_text(), "run python docs/write_help_pages.py"


def test_there_is_a_help_page_for_each_command():
    from lightning_chex.cli.main import ChexCLI

    assert set(COMMANDS) == set(ChexCLI.subcommands())


def test_a_misspelt_command_is_refused_as_the_parser_refuses_it(capsys):
    from lightning_chex.cli.main import main

    with pytest.raises(SystemExit):
        main(["fitt"])
    said = capsys.readouterr().err.strip()
    told = unknown_command(["fitt"])
    assert told is not None
    # the parser's list of commands has quotes or none, by the version of Python
    assert told.replace("'", "") == said.replace("'", "")


@pytest.mark.parametrize("arguments", [[], ["fit"], ["--config", "fitt"], ["--help"]])
def test_what_may_be_a_command_is_left_to_the_parser(arguments):
    assert unknown_command(arguments) is None


@pytest.mark.parametrize(
    "arguments", [[], ["fit"], ["fitt", "--help"], ["fit", "--data.help"], ["fit", "--config", "--help"]]
)
def test_the_parser_answers_what_is_no_plain_request_for_help(arguments):
    assert help_page(arguments) is None


def test_the_parser_answers_if_other_versions_are_installed(monkeypatch):
    monkeypatch.setattr(help_pages, "installed_versions", lambda: {"python": "3.0"})
    assert help_page(["fit", "--help"]) is None


MISSPELT = [
    ["fit", "--modl=X"],
    ["fit", "--trainer.max_epoch", "5"],  # an abbreviation, which would otherwise begin a training
    ["evaluate", "--settngs.regions", "masks"],
    ["explain", "--ckptpath", "x", "--limt=3"],
]


@pytest.mark.parametrize("arguments", MISSPELT, ids=lambda words: words[1])
def test_a_misspelt_option_is_refused_early_in_the_parsers_words(arguments, capsys, pages_of_installed_versions):
    early = unknown_option(arguments)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == early
    assert early is not None and "unrecognized option" in early and "nearest: --" in early


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "--model.lr=1", "--data.root", "x", "--trainer.max_epochs=2", "-c", "a.yaml", "--print_config"],
        ["fit", "--trainer.logger.init_args.offline", "false", "--trainer.callbacks+=TimeLimit", "--data.help=X"],
        ["explain", "--attributor", "LRP", "--attributor.epsilon=3", "--optimizer.lr=1"],
        ["evaluate", "--settings.regions=masks", "--methods=[IBA]"],
        ["fti", "--x"],
        [],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_options_that_the_parser_may_know_are_left_to_it(arguments):
    assert unknown_option(arguments) is None


def test_a_misspelt_option_imports_no_library():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "lightning_chex", "fit", "--modl=X"], capture_output=True, text=True
    )
    *imports, last = done.stderr.splitlines()
    assert done.returncode == 2 and last.startswith("error: unrecognized option --modl")
    imported = {line.rpartition("|")[2].strip() for line in imports}
    assert "lightning_chex.cli.help_pages" in imported
    assert not imported & {"torch", "numpy", "pytorch_lightning", "jsonargparse"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "--data", "NIHDataModul"],
        ["fit", "--data=Qwertz", "--data.root=x"],
        ["fit", "--model", "ClassificationTsk"],
        ["explain", "--attributor", "IBAA", "--output_dir", "out"],
    ],
    ids=lambda words: words[1],
)
def test_a_misspelt_class_is_refused_early_in_the_parsers_words(arguments, capsys, pages_of_installed_versions):
    early = unknown_class(arguments)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == early
    assert early is not None and ": unknown class" in early


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "--data", "NIHDataModule", "--model=ClassificationTask"],
        ["fit", "--data", "fractures.FracturesData", "--model", "OwnTask"],  # OwnTask may be in the same module
        ["fit", "--config", "mine.yaml", "--data", "OwnData"],
        ["explain", "--attributor", "mine.yaml"],
        ["explain", "--attributor", "{class_path: mine.Own}", "--data", "OwnData"],
        ["fit", "--data", "null"],
    ],
    ids=lambda words: " ".join(words[1:3]),
)
def test_names_that_may_be_classes_are_left_to_the_parser(arguments):
    assert unknown_class(arguments) is None


def test_pages_serve_an_installation_without_extras(monkeypatch, pages_of_installed_versions):
    def without_extra(name: str) -> str:
        if name == "segmentation-models-pytorch":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(help_pages, "version", without_extra)
    assert "segmentation-models-pytorch" not in installed_versions()
    assert help_page(["fit", "--help"]) is not None
    assert unknown_option(["fit", "--modl=X"]) is not None
