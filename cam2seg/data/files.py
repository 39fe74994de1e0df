"""Files that are whole or absent, never half written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


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
