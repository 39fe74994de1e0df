"""A lock on the folder of a run, so that two processes never write into one."""

import os
import stat
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has none: folders are not locked there
    fcntl = None

from ..data.errors import DataError

_held = []  # open files of the folders that this process has locked


def lock(folder: Path) -> None:
    """Keep other processes out of a folder until unlock_all() or the end of this process.

    Raises DataError where another process is at work in it, and where its .lock is no file: a link
    could lead out of the folder.
    """
    if fcntl is None:
        return
    try:
        number = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if (folder / ".lock").is_symlink():
            raise DataError(f"{folder}/.lock is a link, expected a file") from error
        raise
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise DataError(f"{folder}/.lock is a pipe or a device, expected a file")
    file = os.fdopen(number, "r+")
    try:
        # Worker processes would inherit a lock of flock, but they do not inherit this one.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise DataError(f"{folder} is in use by another process") from error
    _held.append(file)


def unlock_all() -> None:
    """Give back all locks of this process."""
    while _held:
        _held.pop().close()
