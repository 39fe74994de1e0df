"""The images, labels and folds that the flags of a script name, read and checked."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..data import folds as folds_of_data
from ..data import copies, images, labels
from ..data.errors import DataError
from . import processes
from .progress import Progress, silent


def image_dir(args: argparse.Namespace) -> Path:
    """The folder of images by --images, --data or --labels. Raises DataError without one."""
    if args.images or args.data:
        return args.images or args.data / "train_images"
    if args.labels and args.labels.is_dir():
        return args.labels
    raise DataError("no images given: --data FOLDER (with train_images/ and train.csv) or --images "
                    "FOLDER; for embedded data: python -m cam2seg.demo data/demo, then --data "
                    "data/demo")


def label_path(args: argparse.Namespace) -> Path | None:
    """The label file by --labels or --data; None where neither names one."""
    return args.labels or (args.data and args.data / "train.csv")


def load_labels(args: argparse.Namespace, report: Callable = silent) -> tuple[
        labels.Labels, dict[str, tuple[int, int]], dict[str, np.ndarray]]:
    """Labels, {name: (H, W)} and {name: thumbnail} of the images that the flags name, all checked.

    Several processes check the images once: the first does it for all. Raises DataError.
    """
    folder, path = image_dir(args), label_path(args)
    if path is None:
        raise DataError("no labels given: --labels CSV (or a folder with a subfolder per class)")
    found = labels.read_labels(path, folder)
    # In reverse, because the entry that is written last stays: that of an image's first row.
    rows_of = {name: f"{path}, row {row}"
               for (name, _), row in reversed(found.rows.items()) if row}
    seen = scan(folder, found.names, report, rows_of, copies.size_and_thumbnail)
    sizes = {name: size for name, (size, _) in seen.items()}
    if found.rles is not None:
        labels.check_masks(path, found, sizes)
    return found, sizes, {name: small for name, (_, small) in seen.items()}


def scan(folder: Path | str, names: Sequence[str], report: Callable = silent,
         rows_of: Mapping[str, str] | None = None, measure: Callable = images.size_of) -> dict:
    """Sizes {name: (H, W)} of images, each decoded once by the first process of the run.

    measure: see images.scan. Raises DataError for a bad image, and Stopped where a signal has asked for the end.
    """
    report("note", text=f"checking {len(names)} images in {folder}")
    clock = Progress(len(names), f"checking images in {folder}", report)
    return processes.run_on_first(
        lambda: images.scan(folder, names, rows_of, lambda: clock.add(1), measure),
        (DataError, OSError))


def find_groups(args: argparse.Namespace, names: Sequence[str],
                thumbnails: Mapping[str, np.ndarray], report: Callable) -> np.ndarray:
    """Group int (N,) of images that must share a fold, by --groups: copies, none or a CSV (DEV-42).

    Raises DataError for a CSV that does not name each image once.
    """
    if args.groups == "none":
        return np.arange(len(names))
    if args.groups != "copies":
        return folds_of_data.read_groups(args.groups, names)
    groups = copies.find_copies(np.stack([thumbnails[name] for name in names]))
    count = int(groups.max()) + 1
    if count < len(names):
        report("note", text=f"{len(names)} images show {count} pictures; copies, turned or mirrored "
               "ones included, share a fold (--groups none: they do not)")
    return groups


def new_folds(args: argparse.Namespace, found: labels.Labels,
              thumbnails: Mapping[str, np.ndarray], report: Callable = silent) -> np.ndarray:
    """Fold int (N,) of labelled images: that of the run which --resume goes on with, or new ones.

    thumbnails: {name: uint8 (S, S)}, by which copies of an image are found. Raises DataError where the folds cannot be used.
    """
    path = args.out / "folds.csv"
    if args.fold is not None and not 0 <= args.fold < args.folds:
        raise DataError(f"--fold {args.fold}: expected 0 to {args.folds - 1}")
    if args.folds < 2 or args.folds > len(found.names):
        raise DataError(f"--folds {args.folds}: expected 2 to {len(found.names)}, the images")
    if args.resume and (args.out / "args.json").exists():
        fold = folds_of_data.folds_of(path, found.names)
        if fold.max() >= args.folds:
            raise DataError(f"{path}: {found.names[fold.argmax()]} in fold {fold.max()}, expected "
                            f"folds up to {args.folds - 1}")
        folds_of_data.check_folds(path, found, fold, args.folds)
        return fold
    groups = find_groups(args, found.names, thumbnails, report)
    fold = folds_of_data.make_folds(found.y, args.folds, args.seed, groups)
    folds_of_data.check_folds(label_path(args), found, fold, args.folds)
    return fold
