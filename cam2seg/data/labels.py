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
from . import mask_folders
from .classes import ID, check_classes, in_order
from .csv_files import FORMS, read_csv, with_usual_names, write_csv
from .errors import DataError
from .image_folder import SUFFIXES, list_images

JOINED = ("ImageId_ClassId", "Image_Label")  # columns with image and class in one
CLEAN = "clean"  # the folder name, in any case, that stands for "no class" beside class folders


class Labels(NamedTuple):
    """What a label or mask file says of N images and C classes."""

    names: list  # N image names, sorted, relative to the image folder, "/" between folders
    classes: list  # C class names
    y: np.ndarray  # uint8 (N, C): 1 where the image has the class
    rles: dict | None  # {(name, class index): run lengths}; None where the file holds no masks
    rows: dict  # {(name, class index): row of the file that says so, or the name of a place}
    in_folder: int | None = None  # how many images the image folder holds, where it is known
    drawn: dict | None = None  # {name: (H, W)} that the masks have themselves, where it is known

    def keep(self, mask: np.ndarray) -> "Labels":
        """Labels of those images only for which mask (N,) is true."""
        names = [n for n, kept in zip(self.names, mask, strict=True) if kept]
        return self._replace(names=names, y=self.y[np.asarray(mask, bool)])

    def of_classes(self, classes: Sequence[str]) -> "Labels":
        """The same images with these classes in this order. A class that the labels do not have
        gets a column of zeros, and a class that is not among `classes` is left out."""
        to = {self.classes.index(name): c for c, name in enumerate(classes) if name in self.classes}
        y = np.zeros((len(self.names), len(classes)), np.uint8)
        y[:, list(to.values())] = self.y[:, list(to)]
        rles, rows = ({(n, None if c is None else to[c]): v for (n, c), v in found.items()
                       if c is None or c in to} for found in (self.rles or {}, self.rows))
        return self._replace(classes=list(classes), y=y, rows=rows,
                             rles=None if self.rles is None else rles)


def read_labels(path: Path | str, image_dir: Path | str | None = None,
                classes: Sequence[str] | None = None, only: bool = False) -> Labels:
    """Read the labels of a CSV file in any of the FORMS, of a folder with one subfolder of images
    for each class, or of masks as mask_folders.read finds them.

    With `image_dir`, every image that the file names must be in that folder. An image of the folder
    that a mask CSV does not name has no defect (Kaggle's rule, DEV-8), unless that CSV also has
    rows for empty masks. An image that any other form does not name is unlabelled and left out.
    `classes` gives the class names in their order; `only` leaves out what the file says of others,
    which is an error otherwise (an empty mask says nothing). Without `classes` they are those of
    the file: its columns, or the names in it as class_names sorts them. A class id that does not
    occur is no class. A folder named `clean` holds images without any class. Raises DataError.
    """
    return _read(Path(path), image_dir, classes, only, False)


def _read(path, image_dir, classes, only, only_masks):
    found = mask_folders.read(path, image_dir, classes, only_masks)
    if found:
        images = list_images(image_dir) if image_dir else None
        table = _table(path, found.cells, True, images, classes or found.classes, only)
        return table._replace(drawn=found.sizes)
    if path.is_dir():
        return _read_folders(path, classes, image_dir, only)
    header, rows = with_usual_names(*read_csv(path))
    columns = set(header)
    with_masks = "EncodedPixels" in columns
    if {"ImageId", "ClassId"} <= columns or with_masks and columns & {*JOINED}:
        cells = [(n, *key_of(path, n, r), r.get("EncodedPixels")) for n, r in rows]
    elif header[0] == "ImageId" and len(header) > 1 and not with_masks:
        if "" in header:
            raise DataError(f"{path}, row 1: a column without a name in {','.join(header)[:200]}")
        check_classes(dict.fromkeys(header[1:], f"{path}, row 1"))
        classes = classes or header[1:]
        cells = [cell for n, r in rows for cell in _columns(path, n, r, header[1:])]
    else:
        said = "the names of the columns, " if header[0].lower().endswith(SUFFIXES) else ""
        raise DataError(f"{path}, row 1: columns {','.join(header)[:200]}; expected {said}{FORMS}")
    images = list_images(image_dir) if image_dir else None
    return _table(path, cells, with_masks, images, classes or class_names(path, cells), only)


def read_masks(path: Path | str, image_dir: Path | str | None = None,
               classes: Sequence[str] | None = None, only: bool = False) -> Labels:
    """Read masks as read_labels does, from a folder too. Raises DataError also where the file holds
    no run lengths."""
    found = _read(Path(path), image_dir, classes, only, True)
    if found.rles is None:
        raise DataError(f"{path}: no masks in it, expected a column EncodedPixels")
    return found


def key_of(path: Path | str, row: int, cells: Mapping[str, str]) -> tuple[str, str]:
    """Image and class of a row {column: cell} that has both in two columns, or joined in one."""
    if {"ImageId", "ClassId"} <= cells.keys():
        return cells["ImageId"], cells["ClassId"]
    return _split(path, row, next(cells[name] for name in JOINED if name in cells))


def _split(path, row, text):
    """Split 'a.jpg_crack' into 'a.jpg' and 'crack'; a class name may itself hold underscores."""
    match = re.fullmatch(rf"(.*(?:{'|'.join(map(re.escape, SUFFIXES))}))_(.+)", text, re.I)
    image, _, label = text.rpartition("_")
    image, label = match.groups() if match else (image, label)
    if not image or not label:
        raise DataError(f"{path}, row {row}: '{text[:80]}', expected image and class as a.jpg_1")
    return image, label


def _columns(path, row, cells, classes):
    """Yield (row, image, class, None) for each 1 in a row of 0/1 columns."""
    yield row, cells["ImageId"], "", None  # with 0 in all columns the image is labelled as clean
    for name in classes:
        if cells[name] not in ("0", "1"):
            word = len(classes) == 1 and not re.fullmatch(r"[\d.+-]*|true|false|yes|no|nan",
                                                          cells[name], re.I)
            more = "; a column of class names is called ClassId" if word else ""
            raise DataError(f"{path}, row {row}: '{cells[name][:40]}' in {name}, expected 0 or 1"
                            + more)
        if cells[name] == "1":
            yield row, cells["ImageId"], name, None


def _read_folders(path, classes, image_dir, only):
    """Labels of a folder with one subfolder of images for each class."""
    images = [name for name in list_images(path) if "/" in name]
    missing = set(images) - set(list_images(image_dir)) if image_dir else ()
    if missing:
        raise DataError(f"{path}: image '{min(missing)}' is not in the image folder {image_dir}")
    cells = [(None, name, "" if name.split("/")[0].lower() == CLEAN else name.split("/")[0], None)
             for name in images]
    if not images:
        raise DataError(f"{path}: no image in a subfolder, expected one subfolder per class")
    return _table(path, cells, False, images, classes or class_names(path, cells), only)


def class_names(path: Path | str, cells: Iterable[tuple]) -> list[str]:
    """Class names in the cells (row, image, class, run lengths) of a file, sorted.

    They are in the order of the file where each image has all of them in that order, as in the
    masks that our scripts write: a class then keeps its colour from script to script. Ids are
    sorted all the same. The id 0 is a class in a file of masks only: in a file of labels it may
    mean that there is none. Raises DataError for names that classes cannot have.
    """
    found, by_image = {}, {}
    for row, image, name, _ in cells:
        if name:
            found.setdefault(name, f"{path}, row {row}" if row else str(path))
            by_image.setdefault(image, []).append(name)
    check_classes(found, 0 if any(rle is not None for *_, rle in cells) else 1)
    named = not all(map(ID.fullmatch, found))
    as_written = all(own == list(found) for own in by_image.values())
    return list(found) if named and as_written else in_order(found)


def _table(path, cells, with_masks, images, classes, only):
    """Labels from the cells (row, image, class, run lengths) of a file, all checked.

    images: sorted names in the image folder, or None where they are not known.
    """
    classes = list(classes)
    column = {name: c for c, name in enumerate(classes)}
    known, rles, rows, seen = set(images or ()), {}, {}, {}
    for row, image, name, rle in cells:
        if images and image not in known:
            raise DataError(f"{place(path, row)}: image '{image[:200]}' is not in the image folder"
                            + _near(image, images))
        if name and name not in column and not only and (rle or not with_masks):
            raise DataError(f"{place(path, row)}: class '{name[:40]}', expected one of "
                            f"{', '.join(classes)}; --classes leaves others out")
        if rle and not name:
            raise DataError(f"{place(path, row)}: run lengths without a class, expected both")
        seen.setdefault(image, row)
        if name and name not in column:
            continue
        key = (image, column.get(name))
        if key in rows:
            raise DataError(f"{path}, row {row}: {image} {name} stands in row {rows[key]} already")
        rows[key] = row
        if name and (rle or not with_masks):
            rles[key] = rle
    if not classes:
        raise DataError(f"{path}: no class in it, expected at least one labelled image")
    # A row without run lengths is an empty mask. A file with such rows names all of its images, and
    # so does one of another form than CSV, in which a place is no row.
    complete = any(name and not rle or isinstance(row, str) for row, _, name, rle in cells)
    names = sorted(images if with_masks and images and not complete else seen)
    y = np.array([[(n, c) in rles for c in range(len(classes))] for n in names], np.uint8)
    return Labels(names, classes, y, rles if with_masks else None, rows,
                  len(images) if images is not None else None)


def place(path: Path | str, row: int | str | None) -> str:
    """The place of a cell as an error message names it: a row of a CSV file, or a name."""
    return f"{path}, row {row}" if isinstance(row, int) else str(row or path)


def _near(name, images):
    """End of an error message that names the image which differs from `name` only in upper and
    lower case, in how accents are composed, in its ending or in the folders it lies in; "" where
    there is none."""
    def folded(text):
        return unicodedata.normalize("NFC", text).casefold()

    def stem(text):
        return "/" + re.sub(rf"({'|'.join(map(re.escape, SUFFIXES))})$", "",
                            folded(text).replace("\\", "/"))

    own = stem(name)
    near = [n for n in images if folded(n) == folded(name)] or [
        n for n in images if own.endswith(stem(n)) or stem(n).endswith(own)]
    ending = "" if folded(name).endswith(SUFFIXES) else "; names in the file have their ending"
    return f", but '{near[0]}' is{ending}" if near else ""


def check_masks(path: Path | str, labels: Labels, sizes: Mapping[str, tuple[int, int]]) -> None:
    """Raise DataError for the first mask that does not fit its image.

    sizes: {name: (H, W)}; masks of images that it does not name are not checked.
    """
    for name, size in (labels.drawn or {}).items():
        if name in sizes and sizes[name] != size:
            where = next(place(path, row) for (n, _), row in labels.rows.items() if n == name)
            raise DataError(f"{where}: masks of {size[0]} x {size[1]} pixels, expected "
                            f"{sizes[name][0]} x {sizes[name][1]} as of the image {name}")
    for (name, c), rle in labels.rles.items():
        if name not in sizes:
            continue
        try:
            checked_runs(rle, sizes[name])
        except ValueError as error:
            where = place(path, labels.rows[name, c])
            raise DataError(f"{where}: {name}: {error}") from error


def write_masks(path: Path | str, names: Sequence[str], classes: Sequence[str],
                rles: Mapping[tuple[str, int], str]) -> None:
    """Write a mask CSV with one row for every pair of image and class.

    rles: {(name, class index): run lengths}. A pair without a mask gets a row without run lengths,
    which tells an empty mask from one that was not made.
    """
    write_csv(path, ("ImageId", "ClassId", "EncodedPixels"),
              ((n, k, rles.get((n, c), "")) for n in names for c, k in enumerate(classes)))
