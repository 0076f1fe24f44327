"""Error messages of one line, with a remedy for errors of the file system."""

import errno
import os
import re
import traceback

_WAYS_OUT = {
    errno.ENOSPC: "make room there, or give another folder",
    errno.EDQUOT: "make room there, or give another folder",
    errno.EFBIG: "give a folder on another disk",
    errno.EROFS: "give another folder",
    errno.EACCES: "get the right to it, or give another one",
    errno.EPERM: "get the right to it, or give another one",
    errno.ENAMETOOLONG: "a name takes 255 bytes at the most, a path 4,095: give a shorter one",
    errno.ELOOP: "remove the link that leads back to itself, or give another path",
    errno.ENOENT: "it was removed while this was at work, or never was there: give another one",
    errno.ENOTDIR: "a part of this path is a file: give another folder",
    errno.EISDIR: "give a file",
    errno.EEXIST: "give another folder",
    errno.ENOTEMPTY: "give another folder",
    errno.EIO: "check the disk, or give a folder on another one",
    errno.ESTALE: "stale network file handle: remount the drive",
    errno.ENXIO: "give a regular file",
    errno.EINVAL: "the file system does not take it: give another folder",
    errno.EAGAIN: "wait for the other one, or give another folder",
    errno.EBUSY: "wait until it is free, or give another folder",
    errno.EMFILE: "allow more open files (ulimit -n), or take fewer --data.num_workers",
}

_OF_THE_TARGET = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)

_SHARED_MEMORY = "out of shared memory|No space left on device|unable to (?:open|write to|allocate) (?:file|shared)"


def one_line(text: str, longest: int = 300) -> str:
    r"""Write a text so that it stays one line and moves no cursor, whatever it quotes.

    Args:
        text: a message, or a name from outside.
        longest: of words with more characters the middle is left out.

    >>> one_line("a\nb \x1b[31mc")
    'a\\nb \\x1b[31mc'
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    half = longest // 2
    return re.sub(rf"\S{{{longest + 1},}}", lambda word: f"{word[0][:half]}[...]{word[0][-half:]}", shown)


def raised_by_package(error: BaseException) -> bool:
    """Whether a line of this package raised an error, not a library or code of a user that it calls."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and str(frames[-1].f_globals.get("__name__")).partition(".")[0] == __name__.partition(".")[0]


def remedy_for(error: Exception, restoring: bool = False) -> str | None:
    """Say what went wrong outside of the program, where, and what to do about it.

    Args:
        error: any.
        restoring: it arose while a checkpoint was read, for a training to go on from or a model to be given weights.

    Returns:
        A line; None where the program may be at fault, whose traceback is then wanted.
    """
    if isinstance(error, OSError) and error.errno in _WAYS_OUT:
        # of a copy that has found no room, the second name is that of the full disk
        place = error.filename2 if error.filename2 and error.errno in _OF_THE_TARGET else error.filename
        place = os.fsdecode(place) if isinstance(place, bytes) else place
        return f"{place or 'a file'}: {error.strerror}; {_WAYS_OUT[error.errno]}. What was written before is kept"
    if isinstance(error, RuntimeError) and re.search(_SHARED_MEMORY, str(error)):
        return (
            "there is no room left in the shared memory of the workers that read images (/dev/shm): give "
            "--data.num_workers 0, or a larger one (docker run --shm-size 8g). What was written before is kept"
        )
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which not every part needs
        if raised_by_package(error):
            return str(error)
        return (
            "the device has no memory left: give a smaller --data.batch_size, --data.size or --trainer.precision "
            f"bf16-mixed, or another device. It says: {' '.join(str(error).split())[:200]}"
        )
    if restoring:
        reason = " ".join(str(error).split())[:300]
        return (
            f"the checkpoint does not fit this training or this model ({type(error).__name__}: {reason}): give the "
            "configuration it was trained with, or another checkpoint"
        )
    return None
