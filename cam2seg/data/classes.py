"""Which names classes may have, and in which order they stand.

The names enter through CSV files, folders, checkpoints and the args.json of a run, and they leave
as columns of CSV files and on the terminal. All of them are checked here, whatever their source.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import DataError

# Control characters, which a CSV file would not give back, and what UTF-8 cannot hold.
UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
NUMBER, ID = re.compile(r"[-+]?[0-9.]+"), re.compile(r"0|[1-9][0-9]{0,2}")
# The one column that stands beside the classes in oof.csv and in a file of 0/1 columns.
TAKEN = "ImageId"


def check_classes(where: Mapping[str, str], least: int = 0) -> None:
    """Raise DataError for the first class that cannot have its name.

    where: {name: the file, and the row if there is one}. If any name looks like a number, all must
    be ids from `least` up to 999.
    """
    for name, place in where.items():
        if UNFIT.search(name):
            raise DataError(f"{place}: class '{name[:40]}', expected no control character in a "
                            "name")
        if name == TAKEN:
            raise DataError(f"{place}: class '{name}', which our files need as the name of a "
                            "column: rename the class")
        if not name or name != name.strip():
            raise DataError(f"{place}: class '{name[:40]}', expected a name without blanks at its "
                            "ends")
    if not any(map(NUMBER.fullmatch, where)):
        return
    for name, place in where.items():
        if not ID.fullmatch(name) or int(name) < least:
            empty = "; an image without any class has an empty ClassId" if name == "0" else ""
            raise DataError(f"{place}: class '{name[:40]}', expected ids from {least} up to 999"
                            f"{empty}")


def in_order(names: Iterable[str]) -> list[str]:
    """Class names sorted: ids as numbers, others as text."""
    names = list(names)
    return sorted(names, key=int) if all(map(ID.fullmatch, names)) else sorted(names)


def checked_list(path: Any, names: Any) -> list[str]:
    """The class names that a file of a run holds. Raises DataError unless they are a list of
    distinct names that classes may have."""
    if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) for n in names) \
            or len(set(names)) < len(names) or not names:
        raise DataError(f"{path}: classes {str(names)[:200]}, expected a list of distinct names")
    check_classes(dict.fromkeys(names, str(path)))
    return list(names)


def gaps(names: Iterable[str]) -> list[str]:
    """The ids from 1 up to the largest one that are not among the names; none for other names."""
    ids = {int(n) for n in names} if all(map(ID.fullmatch, names)) else set()
    return [str(n) for n in range(1, max(ids, default=0)) if n not in ids]
