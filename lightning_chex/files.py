"""Files that are written completely or not at all, and folders locked for one process at a time."""

import errno
import hashlib
import io
import os
import re
import secrets
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_UNFINISHED = ".unfinished"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}  # what file systems without locks answer


def write_whole(
    path: str | os.PathLike[str], content: bytes | str | Callable[[BinaryIO], object], sync: bool = False
) -> None:
    """Write a file so that it is there in full or not at all, whenever the process ends.

    What is written lies in the same folder under a hidden name until it is complete, then takes the file's name in
    one step. The folder must exist: one that was removed while a program runs is an error, not made anew. What a
    function writes is made in memory first: on a full disk torch and numpy raise errors of other types.

    Args:
        path: of the file; one that is there is replaced.
        content: bytes, text (as UTF-8), or a function that writes to a binary file, such as ``figure.savefig``.
        sync: wait until it is on the disk, so that it outlives a power cut too.

    Raises:
        OSError: it cannot be written. ``filename`` is the path, ``strerror`` the reason.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_whole(Path(folder, "a.txt"), "all of it")
    ...     print(Path(folder, "a.txt").read_text())
    all of it
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    unfinished = path.with_name(f".{secrets.token_hex(8)}{_UNFINISHED}")  # short: the name itself may be at the limit
    try:
        with unfinished.open("xb") as file:
            file.write(data if isinstance(data, bytes) else _made(data))
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        # a failed write knows no name, a failed open or rename the hidden one
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from error
    finally:
        _remove(unfinished)


def _made(write: Callable[[BinaryIO], object]) -> memoryview:
    content = io.BytesIO()
    write(content)
    return content.getbuffer()


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes have left of `write_whole`, at any depth; call it only while holding the folder."""
    for path in folder.rglob(f".*{_UNFINISHED}"):
        if re.fullmatch(r"\.[0-9a-f]{16}", path.stem):
            _remove(path)


class Held:
    """A folder that this process holds, see `hold`."""

    def __init__(self, folder: Path, descriptor: int) -> None:
        self._lock = folder / "lock"
        self._descriptor = descriptor
        self.folder = folder

    def check(self) -> None:
        """Make sure that it is still the same folder.

        Raises:
            FileNotFoundError: it was removed, or another one took its place.
        """
        if not _is_open(self._lock, self._descriptor):
            raise FileNotFoundError(errno.ENOENT, "it was removed while this was at work in it", str(self.folder))


@contextmanager
def hold(folder: Path) -> Iterator[Held]:
    """Keep other processes out of a folder, by a file ``lock`` in it, while the context lasts.

    The lock goes with the process, however that ends: one that is left behind by a killed process holds nothing.

    Args:
        folder: made if absent; removed again if nothing was put in.

    Raises:
        BlockingIOError: another process holds it. ``filename`` is the folder, ``strerror`` says which process.
        OSError: the folder cannot be written to.
    """
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = _locked(folder / "lock")
    try:
        yield Held(folder, descriptor)
    finally:
        if _is_open(folder / "lock", descriptor):
            _remove(folder / "lock")
        os.close(descriptor)
        if new and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _locked(path: Path) -> int:
    import fcntl  # not on every system; only who holds a folder needs it

    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            # of the kind that worker processes do not inherit: they may outlive a killed parent for seconds
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                number = os.read(descriptor, 20).decode("ascii", "replace").strip()
                os.close(descriptor)
                reason = f"another process{f' ({number})' if number.isdigit() else ''} is at work in it"
                raise BlockingIOError(errno.EAGAIN, reason, str(path.parent)) from error
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise OSError(error.errno, error.strerror, str(path.parent)) from error
            warnings.warn(
                f"file locking is not supported on {path.parent} ({error.strerror}): let no other process work there",
                stacklevel=4,
            )
            return descriptor
        if _is_open(path, descriptor):
            os.truncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
            return descriptor
        os.close(descriptor)  # its holder removed it after it was opened here: it would exclude no other process


def _is_open(path: Path, descriptor: int) -> bool:
    """Whether the descriptor is of the file that the path names now."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def safe_name(name: str) -> str:
    """A name for a file, of at most 109 characters; one that had to be changed ends with a piece of its hash."""
    plain = re.sub(r"[^A-Za-z0-9._-]+|__+", "_", name).strip("._")[:100]
    # a name that ends like a checksum could be what another one's becomes
    if plain == name and name and not re.search(r"-[0-9a-f]{8}$", name):
        return name
    return f"{plain}-{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"


def _remove(path: Path) -> None:
    """Remove a file if it is there; where that fails, what is left does no harm and must hide no other error."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
