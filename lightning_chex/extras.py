"""Packages that only some uses need: extras of the installation, and the error for one that is missing."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

EXTRAS = {
    "captum": "gradients",
    "zennit": "lrp",
    "segmentation_models_pytorch": "segmentation",
    "pylibjpeg": "dicom",
    "jpeg_ls": "dicom",
    "openpyxl": "excel",
    "pyarrow": "parquet",
    "tensorboard": "tensorboard",
    "mlflow": "mlflow",
    "torchxrayvision": "xrv",
}
"""The extra of `pyproject.toml` that installs a package, by the package's import name."""


class MissingExtraError(ValueError):
    """A package is needed that an extra of the installation brings."""


def how_to_install(package: str) -> str:
    """Return the command that installs a package of `EXTRAS`.

    Example:
        >>> how_to_install("zennit")
        "pip install 'lightning-chex[lrp]'"
    """
    return f"pip install 'lightning-chex[{EXTRAS[package]}]'"


def check_extra(package: str, use: str) -> None:
    """Raise an error before any work if a package is not installed.

    Args:
        package: import name, a key of `EXTRAS`.
        use: what needs it, for the message.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        installed = importlib.util.find_spec(package) is not None
    except (ModuleNotFoundError, ValueError):  # a package that was made unimportable, as tests do
        installed = False
    if not installed:
        raise MissingExtraError(f"{use} needs {package}, which is not installed: {how_to_install(package)}")


@contextmanager
def needing(package: str, use: str) -> Iterator[None]:
    """Turn the failure to import a package within the context into a `MissingExtraError`; see `check_extra`."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise MissingExtraError(f"{use} needs {package}, which is not installed: {how_to_install(package)}") from error
