"""Files that are whole or absent, never half written; and no pipe in the place of a file."""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

CHUNK = 2**20  # bytes of a file that are hashed at a time


@contextmanager
def whole_file(path: Path | str, mode: str = "w", **how: Any) -> Iterator[IO]:
    """Open a file for writing that takes its name only when the block ends without an error.

    The text goes to `path`.tmp first, is flushed to the disk and then renamed. On an error nothing
    is left behind and an older file of that name stays as it was. mode: "w" or "wb"; `how` goes to
    open().
    """
    tmp = Path(f"{path}.tmp")
    try:
        tmp.unlink(missing_ok=True)  # an old link of that name could lead out of the folder
        with open(tmp, mode.replace("w", "x"), **how) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(tmp, path)
    except BaseException:
        tmp.unlink(missing_ok=True)
        raise


def regular(path: Path | str) -> Path | str:
    """The same path, if it is that of a file.

    Raises OSError where nothing is there, and for a pipe or a device, which could keep a reader
    waiting for ever.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # open() says what a folder is
        raise OSError("a pipe or a device, expected a file")
    return path


def digest(path: Path | str) -> str:
    """SHA-256 of a file, or of the names and contents of all files in a folder. "" for neither."""
    path = Path(path)
    if path.is_file():
        with open(regular(path), "rb") as file:
            found = hashlib.sha256()
            while chunk := file.read(CHUNK):
                found.update(chunk)
            return found.hexdigest()
    if not path.is_dir():
        return ""
    lines = [f"{file.relative_to(path).as_posix()} {digest(file)}"
             for file in sorted(path.rglob("*")) if file.is_file()]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def contents(folder: Path | str, ending: str = "") -> str:
    """What an error message says of a folder that is not what was expected: its first files, those
    with this ending before all others. Names that begin with a dot are passed over."""
    folder = Path(folder)
    if not folder.is_dir():
        return f"{folder} is no folder"
    names = sorted((path.name for path in folder.iterdir() if not path.name.startswith(".")),
                   key=lambda name: (not name.endswith(ending), name))
    return f"{folder} holds {', '.join(names[:8]) or 'nothing'}" + (" ..." if names[8:] else "")
