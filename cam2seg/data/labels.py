"""Labels and masks as CSV files.

Every reader raises a DataError of one line, which names the file, the row and what was expected.
The header is row 1.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..masks import checked_runs
from .csv_files import FORMS, read_csv, write_csv
from .errors import DataError
from .image_folder import SUFFIXES, list_images

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
CLEAN = "clean"  # the folder name that stands for "no class" where each class has a folder


class Labels(NamedTuple):
    """What a label or mask file says of N images and C classes."""

    names: list  # N image names, sorted, relative to the image folder, "/" between folders
    classes: list  # C class names
    y: np.ndarray  # uint8 (N, C): 1 where the image has the class
    rles: dict | None  # {(name, class index): run lengths}; None where the file holds no masks
    rows: dict  # {(name, class index): row of the file that says so}

    def keep(self, mask: np.ndarray) -> "Labels":
        """Labels of those images only for which mask (N,) is true."""
        names = [n for n, kept in zip(self.names, mask, strict=True) if kept]
        return self._replace(names=names, y=self.y[np.asarray(mask, bool)])


def read_labels(path: Path | str, image_dir: Path | str | None = None,
                classes: Sequence[str] | None = None) -> Labels:
    """Read the labels of a CSV file in any of the FORMS, or of a folder with one subfolder of
    images for each class.

    With `image_dir`, every image that the file names must be in that folder. An image of the folder
    that a mask CSV does not name has no defect (Kaggle's rule, DEV-8), unless that CSV also has
    rows for empty masks. An image that any other form does not name is unlabelled and left out.
    `classes` gives the class names in their order. Without it they are those of the file: the ids
    1 to the largest one, or the names sorted. A folder named `clean` holds images without any
    class. Raises DataError.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folders(path, classes, image_dir)
    header, rows = read_csv(path)
    columns = set(header)
    with_masks = "EncodedPixels" in columns
    if {"ImageId", "ClassId"} <= columns:
        cells = [(n, r["ImageId"], r["ClassId"], r.get("EncodedPixels")) for n, r in rows]
    elif with_masks and columns & {"ImageId_ClassId", "Image_Label"}:
        joined = "ImageId_ClassId" if "ImageId_ClassId" in columns else "Image_Label"
        cells = [(n, *_split(path, n, r[joined]), r["EncodedPixels"]) for n, r in rows]
    elif header[0] == "ImageId" and len(header) > 1 and not with_masks:
        if "" in header:
            raise DataError(f"{path}, row 1: a column without a name in {','.join(header)[:200]}")
        for name in header:
            _check_class(f"{path}, row 1", name)
        classes = classes or header[1:]
        cells = [cell for n, r in rows for cell in _columns(path, n, r, header[1:])]
    else:
        raise DataError(f"{path}, row 1: columns {','.join(header)[:200]}; expected {FORMS}")
    return _table(path, cells, with_masks, list_images(image_dir) if image_dir else None, classes)


def read_masks(path: Path | str, image_dir: Path | str | None = None,
               classes: Sequence[str] | None = None) -> Labels:
    """Read a mask CSV as read_labels does. Raises DataError also where it holds no run lengths."""
    found = read_labels(path, image_dir, classes)
    if found.rles is None:
        raise DataError(f"{path}: no masks in it, expected a column EncodedPixels")
    return found


def _split(path, row, text):
    """Split 'a.jpg_crack' into 'a.jpg' and 'crack'; a class name may itself hold underscores."""
    match = re.fullmatch(rf"(.*(?:{'|'.join(map(re.escape, SUFFIXES))}))_(.+)", text, re.I)
    image, _, label = text.rpartition("_")
    image, label = match.groups() if match else (image, label)
    if not image or not label:
        raise DataError(f"{path}, row {row}: '{text[:80]}', expected image and class as a.jpg_1")
    return image, label


def _check_class(where, name):
    if CONTROL.search(name):  # a CSV file would not give the name back
        raise DataError(f"{where}: class '{name[:40]}', expected no control character in a name")


def _columns(path, row, cells, classes):
    """Yield (row, image, class, None) for each 1 in a row of 0/1 columns."""
    yield row, cells["ImageId"], "", None  # with 0 in all columns the image is labelled as clean
    for name in classes:
        if cells[name] not in ("0", "1"):
            raise DataError(f"{path}, row {row}: '{cells[name][:40]}' in {name}, expected 0 or 1")
        if cells[name] == "1":
            yield row, cells["ImageId"], name, None


def _read_folders(path, classes, image_dir):
    """Labels of a folder with one subfolder of images for each class."""
    images = [name for name in list_images(path) if "/" in name]
    missing = set(images) - set(list_images(image_dir)) if image_dir else ()
    if missing:
        raise DataError(f"{path}: image '{min(missing)}' is not in the image folder {image_dir}")
    cells = [(None, name, "" if name.split("/")[0] == CLEAN else name.split("/")[0], None)
             for name in images]
    if not images:
        raise DataError(f"{path}: no image in a subfolder, expected one subfolder per class")
    return _table(path, cells, False, images, classes)


def class_names(path: Path | str, cells: Iterable[tuple]) -> list[str]:
    """Class names in the cells (row, image, class, run lengths) of a file: the ids 1 to the largest
    one as text, or the names sorted. Raises DataError for ids that are not 1 to 999."""
    found = {}
    for row, _, name, _ in cells:
        if name and name not in found:
            _check_class(f"{path}, row {row}", name)
            found[name] = row
    if not any(re.fullmatch(r"[-+]?[0-9.]+", name) for name in found):
        return sorted(found)
    for name, row in found.items():
        if not re.fullmatch(r"[1-9][0-9]{0,2}", name):
            where = f"{path}, row {row}" if row else path  # a folder has no rows
            raise DataError(f"{where}: class '{name[:40]}', expected ids from 1 up to 999")
    return [str(c) for c in range(1, max(map(int, found)) + 1)]


def _table(path, cells, with_masks, images, classes):
    """Labels from the cells (row, image, class, run lengths) of a file, all checked.

    images: sorted names in the image folder, or None where they are not known.
    """
    classes = list(classes) if classes else class_names(path, cells)
    column = {name: c for c, name in enumerate(classes)}
    known, rles, rows, seen = set(images or ()), {}, {}, {}
    for row, image, name, rle in cells:
        if images and image not in known:
            raise DataError(f"{path}, row {row}: image '{image[:200]}' is not in the image folder"
                            + _near(image, images))
        if name and name not in column:
            where = f"{path}, row {row}" if row else path
            raise DataError(f"{where}: class '{name[:40]}', expected one of {', '.join(classes)}")
        if rle and not name:
            raise DataError(f"{path}, row {row}: run lengths without a class, expected both")
        seen.setdefault(image, row)
        key = (image, column.get(name))
        if key in rows:
            raise DataError(f"{path}, row {row}: {image} {name} stands in row {rows[key]} already")
        rows[key] = row
        if name and (rle or not with_masks):
            rles[key] = rle
    if not classes:
        raise DataError(f"{path}: no class in it, expected at least one labelled image")
    # A row without run lengths is an empty mask. A file with such rows names all of its images.
    complete = any(name and not rle for _, _, name, rle in cells)
    names = sorted(images if with_masks and images and not complete else seen)
    y = np.array([[(n, c) in rles for c in range(len(classes))] for n in names], np.uint8)
    return Labels(names, classes, y, rles if with_masks else None, rows)


def _near(name, images):
    """End of an error message that names the image which differs from `name` only in upper and
    lower case or in how accents are composed; "" where there is none."""
    def folded(text):
        return unicodedata.normalize("NFC", text).casefold()

    near = [n for n in images if folded(n) == folded(name)]
    return f", but '{near[0]}' is" if near else ""


def check_masks(path: Path | str, labels: Labels, sizes: Mapping[str, tuple[int, int]]) -> None:
    """Raise DataError for the first mask that does not fit its image.

    sizes: {name: (H, W)}; masks of images that it does not name are not checked.
    """
    for (name, c), rle in labels.rles.items():
        if name not in sizes:
            continue
        try:
            checked_runs(rle, sizes[name])
        except ValueError as error:
            raise DataError(f"{path}, row {labels.rows[name, c]}: {name}: {error}") from error


def write_masks(path: Path | str, names: Sequence[str], classes: Sequence[str],
                rles: Mapping[tuple[str, int], str]) -> None:
    """Write a mask CSV with one row for every pair of image and class.

    rles: {(name, class index): run lengths}. A pair without a mask gets a row without run lengths,
    which tells an empty mask from one that was not made.
    """
    write_csv(path, ("ImageId", "ClassId", "EncodedPixels"),
              ((n, k, rles.get((n, c), "")) for n in names for c, k in enumerate(classes)))
