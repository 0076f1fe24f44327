"""The folder that ``evaluate`` or ``explain`` writes to, by one process at a time."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pytorch_lightning.utilities.exceptions import MisconfigurationException

from lightning_chex.files import Held, hold


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold an output folder, and turn what goes wrong with files into one line; what is done is on record.

    Raises:
        MisconfigurationException: another process is at work there, it cannot be written to, or it was removed.
    """
    with ExitStack() as stack:
        try:
            own = stack.enter_context(hold(folder))
        except BlockingIOError as error:
            raise MisconfigurationException(
                f"output_dir={str(folder)!r}: {error.strerror}: wait for it, or give another folder"
            ) from error
        except OSError as error:
            raise MisconfigurationException(
                f"output_dir={str(folder)!r} cannot be written to ({error.strerror}): give another folder"
            ) from error
        try:
            yield
            own.check()
        except OSError as error:
            _check_is_there(own)
            raise MisconfigurationException(
                f"{error.filename or folder}: {error.strerror or error}; when that is mended (more room, other "
                "rights), the same command goes on"
            ) from error


def _check_is_there(own: Held) -> None:
    try:
        own.check()
    except FileNotFoundError as error:
        raise MisconfigurationException(
            f"{error.filename}: {error.strerror}: what it held is lost; give the same command again to begin anew"
        ) from error
