"""CSV files are read and written here.

Every reader raises a DataError of one line, which names the file and the row.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from .errors import DataError
from .files import contents, regular, whole_file

FORMS = ("ImageId,ClassId,EncodedPixels | ImageId_ClassId,EncodedPixels | "
         "Image_Label,EncodedPixels | ImageId,ClassId | ImageId and one 0/1 column per class")
IMAGE_COLUMNS = ("imageid", "image_id", "image", "filename", "file_name", "file")  # in any case
OTHER_COLUMNS = {"classid": "ClassId", "class_id": "ClassId", "encodedpixels": "EncodedPixels"}
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_csv(path: Path | str,
             expected: str = FORMS) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Read a comma-separated file in UTF-8.

    Returns the header and a list of (row number, {column: text}); the header is row 1.
    `expected` says in an error message what the file should hold. Raises DataError.
    """
    limit = csv.field_size_limit(2**31 - 1)  # a mask's run lengths can pass csv's 128 KiB a cell
    try:
        with open(regular(path), newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, strict=True)
            header = [name.strip() for name in next(lines, [])]
            parted = [c for c in SEPARATORS if len(header) == 1 and c in header[0]]
            if parted:
                raise DataError(f"{path}, row 1: {SEPARATORS[parted[0]]} in {header[0][:200]}, "
                                "expected commas between the columns")
            rows = []
            for cells in lines:
                if len(cells) != len(header) and cells:
                    raise DataError(f"{path}, row {lines.line_num}: {len(cells)} cells, "
                                    f"expected {len(header)} ({','.join(header)[:200]})")
                if cells:
                    rows.append((lines.line_num, dict(zip(header, map(str.strip, cells)))))
    except FileNotFoundError as error:
        raise DataError(f"{path}: cannot be read as CSV in UTF-8 (no such file; "
                        f"{contents(Path(path).parent, '.csv')})") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as CSV in UTF-8 ({error})") from error
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as CSV in UTF-8 ({error}, row "
                        f"{lines.line_num})") from error
    finally:
        csv.field_size_limit(limit)
    if not rows:
        raise DataError(f"{path}: no rows, expected {expected}")
    if len(set(header)) < len(header):
        raise DataError(f"{path}, row 1: a column occurs twice in {','.join(header)[:200]}")
    return header, rows


def with_usual_names(header: Sequence[str], rows: Sequence[tuple[int, dict[str, str]]]
                     ) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """What read_csv returns, with the names of the columns that this package has: a first column
    of IMAGE_COLUMNS becomes ImageId, and the OTHER_COLUMNS get their capitals."""
    to = {name: OTHER_COLUMNS.get(name.lower(), name) for name in header}
    if header[0].lower() in IMAGE_COLUMNS:
        to[header[0]] = "ImageId"
    if to == dict(zip(header, header, strict=True)) or len(set(to.values())) < len(to):
        return list(header), list(rows)
    return list(to.values()), [(n, {to[k]: v for k, v in row.items()}) for n, row in rows]


def read_probs(path: Path | str, classes: Sequence[str]) -> dict[str, list[float]]:
    """Read {image name: list of C probabilities} from a CSV with one column for each class.

    Raises DataError for a missing column, an image that occurs twice and a value outside [0, 1].
    """
    header, rows = read_csv(path, f"ImageId,{','.join(classes)}")
    for name in ("ImageId", *classes):
        if name not in header:
            raise DataError(f"{path}, row 1: no column {name}, expected ImageId and "
                            f"{', '.join(classes)}")
    found = {}
    for n, row in rows:
        if row["ImageId"] in found:
            raise DataError(f"{path}, row {n}: {row['ImageId'][:200]} stands above already")
        found[row["ImageId"]] = [_probability(path, n, row[name]) for name in classes]
    return found


def read_all_probs(paths: Iterable[Path | str],
                   classes: Sequence[str]) -> dict[str, list[float]]:
    """What read_probs reads from several files, as those of the folds of a run, in one dict."""
    return {name: p for path in paths for name, p in read_probs(path, classes).items()}


def _probability(path, n, text):
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise DataError(f"{path}, row {n}: '{text[:40]}', expected a probability from 0 to 1")
    return value


def write_csv(path: Path | str, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Write a CSV file, whole or not at all."""
    with whole_file(path, newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
