"""The rows of a sample submission, whose order a written mask CSV can keep."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .csv_files import read_csv, write_csv
from .errors import DataError
from .labels import JOINED, key_of


def read_order(path: Path | str) -> tuple[list[str], list[tuple[int, str, str]]]:
    """The header of a mask CSV, such as a sample_submission.csv, and (row, image, class) of its
    rows in their order. Raises DataError."""
    path = Path(path)
    header, rows = read_csv(path)
    if set(header) not in ({"ImageId", "ClassId", "EncodedPixels"},
                           *({name, "EncodedPixels"} for name in JOINED)):
        raise DataError(f"{path}, row 1: columns {','.join(header)[:200]}; expected a mask file")
    order = [(n, *key_of(path, n, r)) for n, r in rows]
    seen = {}
    for n, *key in order:
        if seen.setdefault(tuple(key), n) != n:
            raise DataError(f"{path}, row {n}: {' '.join(key)[:200]} stands in row "
                            f"{seen[tuple(key)]} already")
    return header, order


def write_ordered(path: Path | str, header: Sequence[str], order: Iterable[tuple[int, str, str]],
                  rles: Mapping[tuple[str, str], str]) -> None:
    """Write a mask CSV with the header and the rows of read_order.

    rles: {(image, class name): run lengths}; a row without an entry is an empty mask.
    """
    def cells(image, name):
        joined = f"{image}_{name}"
        row = {"ImageId": image, "ClassId": name, "ImageId_ClassId": joined, "Image_Label": joined,
               "EncodedPixels": rles.get((image, name), "")}
        return [row[column] for column in header]

    write_csv(path, header, (cells(image, name) for _, image, name in order))
