"""Start-up imports what it needs and no more."""

import subprocess
import sys

import pytest

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
    assert "lightning_chex.attribution.lrp" in imported  # the list is one of this package
    assert imported.isdisjoint(HEAVY)


@pytest.mark.parametrize("method", ["Gradient", "GradCAM", "IntegratedGradients", "LRP", "SmoothGrad"])
def test_constructing_a_method_imports_no_library(method):
    imported = imported_by(f"from lightning_chex.attribution import {method}\n{method}()")
    assert imported.isdisjoint(HEAVY)
