"""Labels and masks as CSV files, and the folds.

A row is an image, a column a class: Labels(names, classes, y, rles, rows). Every reader raises
DataError, one line that names the file, the row (the header is row 1) and what was expected.
"""

import os
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .masks import checked_runs
from .tables import FORMS, DataError, read_csv, write_csv

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Control characters, bytes that are not UTF-8, blanks at the ends of a file's or folder's name.
UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]|(^|/)\s|\s(/|$)")
CLEAN = "clean"  # the folder name that stands for "no class" in a folder per class


class Labels(NamedTuple):
    names: list  # N image names, sorted, relative to the image folder, "/" between folders
    classes: list  # C class names
    y: np.ndarray  # uint8 (N, C)
    rles: dict  # {(name, class index): run lengths}; None where the source holds no masks
    rows: dict  # {(name, class index): row of the file}

    def keep(self, mask):
        """The same labels for the images where mask (N,) is true."""
        names = [n for n, kept in zip(self.names, mask, strict=True) if kept]
        return self._replace(names=names, y=self.y[np.asarray(mask, bool)])


def list_images(folder):
    """Sorted names of the images below a folder, relative to it."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder, expected one with images")
    root, names = os.path.realpath(folder), []
    for path in folder.rglob("*"):
        name, is_image = path.relative_to(folder).as_posix(), path.suffix.lower() in SUFFIXES
        if path.is_symlink() and (is_image or path.is_dir()) and \
                not Path(os.path.realpath(path)).is_relative_to(root):
            raise DataError(f"{folder}: '{name}' is a link out of the folder, expected the images "
                            "themselves")
        if is_image and path.is_file():
            names.append(name)
    if not names:
        raise DataError(f"{folder}: no image in it, expected files ending in {' '.join(SUFFIXES)}")
    for name in sorted(names):
        if UNFIT.search(name):
            raise DataError(f"{folder}: '{name}' cannot stand in a CSV file, expected names in "
                            "UTF-8 without control characters and without blanks at their ends")
    return sorted(names)


def read_labels(path, image_dir=None, classes=None):
    """Labels of a CSV file in any of the FORMS, or of a folder with one subfolder per class.

    With `image_dir` every named image must be in it, and an image that a mask CSV does not name
    has no defect (Kaggle's rule, DEV-8), unless that CSV has rows for empty masks too. An image
    that any other source does not name is unlabelled and left out. `classes` fixes the class names,
    else they are those of the file: ids 1..max, or names sorted. A folder `clean` holds images
    without any class.
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


def _split(path, row, text):
    """'a.jpg_crack' -> 'a.jpg', 'crack'; a class name may itself hold underscores."""
    match = re.fullmatch(rf"(.*(?:{'|'.join(map(re.escape, SUFFIXES))}))_(.+)", text, re.I)
    image, _, label = text.rpartition("_")
    image, label = match.groups() if match else (image, label)
    if not image or not label:
        raise DataError(f"{path}, row {row}: '{text[:80]}', expected image and class as a.jpg_1")
    return image, label


def _check_class(where, name):
    if CONTROL.search(name):  # a CSV file would not give it back
        raise DataError(f"{where}: class '{name[:40]}', expected no control character in a name")


def _columns(path, row, cells, classes):
    yield row, cells["ImageId"], "", None  # the image counts as labelled even if all are 0
    for name in classes:
        if cells[name] not in ("0", "1"):
            raise DataError(f"{path}, row {row}: '{cells[name][:40]}' in {name}, expected 0 or 1")
        if cells[name] == "1":
            yield row, cells["ImageId"], name, None


def _read_folders(path, classes, image_dir):
    images = [name for name in list_images(path) if "/" in name]
    missing = set(images) - set(list_images(image_dir)) if image_dir else ()
    if missing:
        raise DataError(f"{path}: image '{min(missing)}' is not in the image folder {image_dir}")
    cells = [(None, name, "" if name.split("/")[0] == CLEAN else name.split("/")[0], None)
             for name in images]
    if not images:
        raise DataError(f"{path}: no image in a subfolder, expected one subfolder per class")
    return _table(path, cells, False, images, classes)


def class_names(path, cells):
    """Names of the classes in cells (row, image, class, run lengths): ids 1..max or names."""
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
    complete = any(name and not rle for _, _, name, rle in cells)  # empty masks are written out
    names = sorted(images if with_masks and images and not complete else seen)
    y = np.array([[(n, c) in rles for c in range(len(classes))] for n in names], np.uint8)
    return Labels(names, classes, y, rles if with_masks else None, rows)


def _near(name, images):
    """The image that was meant, where only case or the composition of accents differ."""
    def folded(text):
        return unicodedata.normalize("NFC", text).casefold()

    near = [n for n in images if folded(n) == folded(name)]
    return f", but '{near[0]}' is" if near else ""


def check_masks(path, labels, sizes):
    """Raise DataError for the first mask that does not fit its image; sizes {name: (H, W)} of the
    images that matter."""
    for (name, c), rle in labels.rles.items():
        if name not in sizes:
            continue
        try:
            checked_runs(rle, sizes[name])
        except ValueError as error:
            raise DataError(f"{path}, row {labels.rows[name, c]}: {name}: {error}") from error


def write_masks(path, names, classes, rles):
    """Mask CSV with a row for every (image, class); no run lengths where there is no mask.

    rles {(name, class index): run lengths}. Listing all pairs tells "empty" from "not made".
    """
    write_csv(path, ("ImageId", "ClassId", "EncodedPixels"),
              ((n, k, rles.get((n, c), "")) for n in names for c, k in enumerate(classes)))


def make_folds(y, folds, seed=0):
    """Fold (N,) of each row of y (N, C): multi-label stratified, rarest class first.

    Iterative stratification (Sechidis et al. 2011): an image goes to the fold that lacks most of
    its class, then to the one that lacks most images. DEV-12: the paper gives no rule.
    """
    y = np.asarray(y, np.int64)
    order = np.random.default_rng(seed).permutation(len(y))
    fold = np.full(len(y), -1)
    lacks_images = np.full(folds, len(y))  # times `folds`, so that shares stay whole numbers
    lacks_class = np.tile(y.sum(axis=0), (folds, 1))

    def place(i, c):
        need = lacks_images if c is None else lacks_class[:, c]
        k = max(range(folds), key=lambda k: (need[k], lacks_images[k], -k))
        fold[i] = k
        lacks_images[k] -= folds
        lacks_class[k] -= folds * y[i]

    left = y.sum(axis=0)
    while left.any():
        c = min(np.flatnonzero(left), key=lambda c: (left[c], c))
        for i in order[(y[order, c] > 0) & (fold[order] < 0)]:
            place(i, c)
        left = y[fold < 0].sum(axis=0)
    for i in order[fold[order] < 0]:
        place(i, None)
    return fold


def check_folds(path, labels, fold, folds):
    """Raise DataError unless every fold has images with and without each class."""
    for c, name in enumerate(labels.classes):
        if not labels.y[:, c].any():
            raise DataError(f"{path}: class {name} never occurs, expected images of every class "
                            f"({', '.join(labels.classes)})")
        for k in range(folds):
            n, total = int(labels.y[fold == k, c].sum()), int((fold == k).sum())
            if n == 0 or n == total:
                raise DataError(f"{path}: fold {k} has {n} of {total} images with class {name}, "
                                f"expected some with and some without; use fewer --folds")


def read_folds(path):
    """{image name: fold} of a folds.csv."""
    header, rows = read_csv(Path(path), "ImageId,fold")
    if header != ["ImageId", "fold"]:
        raise DataError(f"{path}, row 1: columns {','.join(header)[:200]}; expected ImageId,fold")
    folds = {}
    for n, r in rows:
        if not re.fullmatch(r"[0-9]{1,4}", r["fold"]) or r["ImageId"] in folds:
            raise DataError(f"{path}, row {n}: '{r['ImageId'][:80]}' in fold '{r['fold'][:40]}', "
                            "expected each image once and folds counted from 0")
        folds[r["ImageId"]] = int(r["fold"])
    return folds
