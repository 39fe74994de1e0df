"""What the commands that write generated images have in common."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def empty_folder(path: Path | str) -> Path:
    """The path of a new or empty folder. Raises FileExistsError for any other."""
    path = Path(path)
    if path.exists() and any(path.iterdir()):
        raise FileExistsError(f"{path} is not empty")
    return path


def written(write: Callable, *given: Any) -> Any:
    """What write(*given) returns; where it refuses, one line on stderr and the exit status 2."""
    try:
        return write(*given)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
