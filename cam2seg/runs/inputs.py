"""The images, labels and folds that the flags of a script name, read and checked."""

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data import classes as classes_of_data
from ..data import folds as folds_of_data
from ..data import copies, image_folder, images, labels
from ..data.errors import DataError
from . import processes
from .progress import Progress, silent

LARGE = 256 * 1600  # pixels of an image of Severstal, the largest that the project is made for


class Seen(NamedTuple):
    """What one look at each image of a set has told, as {name: value}."""

    sizes: dict  # (H, W)
    thumbnails: dict  # uint8 (20, 20), see copies.thumbnail
    digests: dict  # SHA-256 of the file


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


def load_labels(args: argparse.Namespace, report: Callable = silent,
                classes: Sequence[str] | None = None,
                only: bool = False) -> tuple[labels.Labels, Seen]:
    """The labels that the flags name, and what a look at their images tells, all checked.

    classes: the class names, where another run has fixed them; `only` then leaves out what the file
    says of other classes. Else they are those of --classes, or those of the file that at least one
    image has. Several processes check the images once: the first does it for all. Raises DataError.
    """
    folder, path = image_dir(args), label_path(args)
    if path is None:
        raise DataError("no labels given: --labels CSV (or a folder with a subfolder per class)")
    chosen = classes or chosen_classes(args)
    found = labels.read_labels(path, folder, chosen, only or bool(args.classes))
    report("note", text=labels_line(path, folder, found, bool(chosen)))
    if not chosen:
        occurs = found.y.any(axis=0)
        if not occurs.any():
            raise DataError(f"{path}: class {', '.join(found.classes)} in no image, expected at "
                            "least one labelled image")
        found = found.of_classes([k for k, any_image in zip(found.classes, occurs, strict=True)
                                  if any_image])
    # In reverse, because the entry that is written last stays: that of an image's first row.
    rows_of = {name: labels.place(path, row)
               for (name, _), row in reversed(found.rows.items()) if row}
    seen = scan(folder, found.names, report, rows_of)
    if found.rles is not None:
        labels.check_masks(path, found, seen.sizes)
    return found, seen


def chosen_classes(args: argparse.Namespace) -> list[str] | None:
    """The names of --classes, checked; None without that flag."""
    return classes_of_data.checked_list("--classes", args.classes) if args.classes else None


def labels_line(path: Path | str, folder: Path | str, found: labels.Labels,
                chosen: bool = False) -> str:
    """One line on what a label file says: how many images, how many of them clean, and how many
    images each class has.

    chosen: whether the classes are named by a flag or another run, so that gaps in their numbers
    say nothing.
    """
    count = dict(zip(found.classes, found.y.sum(axis=0, dtype=int).tolist(), strict=True))
    absent = [k for k, n in count.items() if not n]
    absent += [] if chosen else classes_of_data.gaps(found.classes)
    if found.rles is None and Path(path).is_dir():
        absent += [k for k in image_folder.empty_folders(path)
                   if k not in count and k.lower() != labels.CLEAN]
    line = (f"{len(found.names)} of {found.in_folder} images in {folder} are labelled in {path}, "
            f"{int((~found.y.any(axis=1)).sum())} of them clean; images by class: "
            + ", ".join(f"{k}: {n}" for k, n in count.items() if n))
    return line + (f"; no image has class {', '.join(absent[:20])}"
                   + (" ..." if len(absent) > 20 else "") if absent else "")


def scan(folder: Path | str, names: Sequence[str], report: Callable = silent,
         rows_of: Mapping[str, str] | None = None) -> Seen:
    """Look at each image once, in the first process of the run.

    rows_of: see images.scan. Raises DataError for a bad image, and Stopped where a signal has asked
    for the end.
    """
    report("note", text=f"checking {len(names)} images in {folder}")
    clock = Progress(len(names), f"checking images in {folder}", report)
    found = processes.run_on_first(
        lambda: images.scan(folder, names, rows_of, lambda: clock.add(1),
                            lambda text: report("warning", text=text)), (DataError, OSError))
    sizes, small, digests = ({name: look[part] for name, look in found.items()}
                             for part in range(3))
    return Seen(sizes, {name: copies.from_bytes(b) for name, b in small.items()}, digests)


def input_size(args: argparse.Namespace, first: tuple[int, int],
               report: Callable = silent) -> tuple[int, int]:
    """(H, W) of the network's input: --size, or else that of the first image in multiples of 32.

    first: (H, W) of that image. lite0 gets one pixel more on each side. Where the image is large, a
    line names the size and proposes a smaller one. DEV-12
    """
    if args.size:
        return tuple(args.size)
    odd = args.arch == "lite0"
    H, W = images.default_size(first, odd)
    if math.prod(images.default_size(first)) > LARGE:
        part = (LARGE / 2 / (H * W)) ** 0.5
        h, w = images.default_size((part * H, part * W), odd)
        report("note", text=f"the network's input is {H} x {W}, which follows from the first "
               f"image; --size {h} {w} takes {h * w / (H * W):.1%} of the time and memory")
    return H, W


def find_groups(args: argparse.Namespace, names: Sequence[str],
                thumbnails: Mapping[str, np.ndarray], report: Callable) -> np.ndarray:
    """Group int (N,) of images that must share a fold, by --groups: copies, none or a CSV (DEV-42).

    Raises DataError for a CSV that does not name each image once.
    """
    if args.groups == "none":
        return np.arange(len(names))
    if args.groups != "copies":
        return folds_of_data.read_groups(args.groups, names)
    clock = Progress(len(names), "looking for copies", report)
    groups = copies.find_copies(np.stack([thumbnails[name] for name in names]), clock.add)
    count = int(groups.max()) + 1
    if count < len(names):
        report("note", text=f"{len(names)} images show {count} pictures; copies, turned or mirrored "
               "ones included, share a fold (--groups none: they do not)")
    return groups


def new_folds(args: argparse.Namespace, found: labels.Labels,
              thumbnails: Mapping[str, np.ndarray], report: Callable = silent) -> np.ndarray:
    """Fold int (N,) of labelled images: that of the run which --resume goes on with, or new ones.

    thumbnails: {name: uint8 (S, S)}, by which copies of an image are found. Where a class has too
    few images for --folds folds, there are fewer (DEV-43), and a line says so. Raises DataError
    where the folds cannot be used.
    """
    path = args.out / "folds.csv"
    if args.folds < 2:
        raise DataError(f"--folds {args.folds}: expected 2 or more")
    if args.resume and (args.out / "args.json").exists():
        fold = folds_of_data.folds_of(path, found.names)
        if fold.max() >= args.folds:
            raise DataError(f"{path}: {found.names[fold.argmax()]} in fold {fold.max()}, expected "
                            f"folds up to {args.folds - 1}")
        folds_of_data.check_folds(path, found, fold, max(2, fold.max() + 1))
    else:
        groups = find_groups(args, found.names, thumbnails, report)
        fold = folds_of_data.most_folds(
            label_path(args), found, args.folds,
            lambda k: folds_of_data.make_folds(found.y, k, args.seed, groups))
    count = int(fold.max()) + 1
    if count < args.folds:
        report("note", text=f"{count} folds and not {args.folds}: with more, a fold would have no "
                            "image with, or none without, some class")
    if args.fold is not None and not 0 <= args.fold < count:
        raise DataError(f"--fold {args.fold}: expected 0 to {count - 1}")
    return fold
