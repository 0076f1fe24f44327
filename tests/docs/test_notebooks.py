import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

PACKAGE = Path(__file__).parents[2]
NOTEBOOKS = sorted((PACKAGE / "notebooks").glob("*.ipynb"))
NOTEBOOK = PACKAGE / "notebooks" / "explain_your_model.ipynb"
OTHERS = [path for path in NOTEBOOKS if path != NOTEBOOK]
METHODS = ("IBA", "InverseIBA", "MultiLayerIBA, gated", "MultiLayerIBA, intersection")


def outputs_of(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def printed_by(notebook: nbformat.NotebookNode) -> str:
    return "".join(output.text for output in outputs_of(notebook) if output.output_type == "stream")


def pictures_in(notebook: nbformat.NotebookNode) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs_of(notebook))


def number(pattern: str, text: str) -> float:
    found = re.search(pattern + r"\s*([\d.]+)", text)
    assert found, f"the notebook does not print {pattern!r}:\n{text}"
    return float(found[1])


def run(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Run a notebook anew with a shorter training."""
    notebook = nbformat.read(path, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHEX_NOTEBOOK_STEPS", "150")
        patch.setenv("CHEX_NOTEBOOK_IMAGES", "32")
        patch.setenv("CHEX_NOTEBOOK_CASES", "16")
        patch.setenv("CHEX_NOTEBOOK_EPOCHS", "1")
        patch.setenv("OMP_NUM_THREADS", "1")  # on busy cores, two threads wait for each other twenty times as long
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.setenv("MPLCONFIGDIR", str(folder / "matplotlib"))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(PACKAGE), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))
        resources = {"metadata": {"path": str(folder)}}
        NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    return notebook


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    return run(NOTEBOOK, tmp_path_factory.mktemp("notebook"))


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    notebook = run(path, tmp_path)
    assert pictures_in(notebook) >= 1
    assert not [output for output in outputs_of(notebook) if output.get("name") == "stderr"]


def test_network_has_learnt(executed: nbformat.NotebookNode) -> None:
    assert number("AUROC on unseen patients:", printed_by(executed)) > 0.75
    assert number("mean error on unseen patients:", printed_by(executed)) < 4  # always saying 9 is off by about 5


def test_maps_put_their_bits_into_the_finding(executed: nbformat.NotebookNode) -> None:
    printed = printed_by(executed)
    head, rest = printed.split("mean error")
    uniform = number("the same everywhere:", head)
    for method in METHODS:
        assert number(rf"(?m:^){method}:", head) > 1.5 * uniform, method
    assert number("findings:", rest) > 3 * number("the same everywhere:", rest)


def test_all_pictures_are_drawn_without_a_warning(executed: nbformat.NotebookNode) -> None:
    assert pictures_in(executed) == 4
    assert not [output for output in outputs_of(executed) if output.get("name") == "stderr"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs_are_clean(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 1_500_000
    assert pictures_in(notebook) >= 1
    assert not [o for o in outputs_of(notebook) if o.output_type == "error" or o.get("name") == "stderr"]
    assert not re.search(r"/(home|work|tmp|root|Users)/", printed_by(notebook) + str(notebook.metadata))
