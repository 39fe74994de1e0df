"""The images that evaluate.py scores, with their true masks and the masks of the NAME=CSV
arguments, all checked before the work begins. Nothing here needs torch.
"""

import argparse
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data import folds, image_folder, labels, stored_maps
from ..data.classes import in_order
from ..data.errors import DataError
from ..runs import folder, inputs
from . import kept_maps, mask_processing


class Work(NamedTuple):
    """What is scored."""

    truth: labels.Labels  # the true masks of the images that are scored
    sizes: dict  # {name: (H, W)}
    digests: dict  # {name: SHA-256 of the file}
    given: dict  # {title: Labels of the masks}, in the order of the command line
    paths: dict  # {title: path of the CSV}
    fold: np.ndarray  # int (N,): the fold of each image; -1 where --folds is not given
    left_out: int  # how many labelled images are not scored
    y: np.ndarray  # uint8 (M, C): the labels of all labelled images, scored or not
    labelled: list  # the names of these M images


def load(args: argparse.Namespace, taken: Collection[str], report: Callable) -> Work:
    """Read and check all inputs: Work of the images that --over and --missing leave.

    taken: titles that no mask file may have.
    """
    unlabelled = inputs.label_path(args) is None and mask_processing.asked(args)
    truth, seen = (_unlabelled_images if unlabelled else inputs.load_labels)(args, report)
    if truth.rles is None:
        raise DataError(f"{inputs.label_path(args)}: no masks in it, expected EncodedPixels")
    truth, given, paths = _masks(args, taken, truth, seen.sizes, report)
    scored = truth.y.any(axis=1) if args.over == "defect" and not unlabelled else np.ones(
        len(truth.names), bool)
    if args.missing == "skip":
        covered = set.intersection(*(set(m.names) for m in given.values()))
        scored &= np.array([n in covered for n in truth.names])
    every, truth = truth, truth.keep(scored)
    if not truth.names:
        raise DataError("no image left to score")
    fold = np.full(len(truth.names), -1)
    if args.folds:
        fold = folds.folds_of(args.folds, truth.names)
    return Work(truth, seen.sizes, seen.digests, given, paths, fold, int((~scored).sum()),
                every.y, every.names)


def _unlabelled_images(args, report):
    """Labels that say nothing of the images, and what a look at these tells."""
    names = image_folder.list_images(inputs.image_dir(args))
    classes = inputs.chosen_classes(args) or []
    nothing = np.zeros((len(names), len(classes)), np.uint8)
    return (labels.Labels(names, classes, nothing, {}, {}, len(names)),
            inputs.scan(inputs.image_dir(args), names, report))


def _masks(args, taken, truth, sizes, report):
    """The truth, Labels {title: masks} and {title: path} of the NAME=CSV arguments.

    All get the same classes: those of the truth, and those that only a mask file names. Raises
    DataError for a title that is taken, and with --missing error for an image without rows.
    """
    given, paths, chosen = {}, {}, inputs.chosen_classes(args)
    for text in args.masks:
        title, _, path = text.rpartition("=")
        path = Path(path)
        title = title or (f"{path.parent.name}/{path.stem}")
        if title in (*given, *taken):
            raise DataError(f"'{title}' is taken: give each CSV a name of its own, as a={path}")
        got = labels.read_masks(path, inputs.image_dir(args), chosen, bool(chosen))
        if truth.classes and not set(got.classes) & set(truth.classes):
            raise DataError(f"{path}: classes {', '.join(got.classes)}, expected some of "
                            f"{', '.join(truth.classes)}")
        named = {n for n, _ in got.rows}
        absent = [n for n, any_class in zip(truth.names, truth.y.any(axis=1), strict=True)
                  if n not in named and (any_class or args.over == "all" or not truth.rles)]
        if absent and args.missing == "error":
            raise DataError(f"{path}: no row for {len(absent)} images, the first is {absent[0]}; "
                            "--missing empty counts them as empty, --missing skip leaves them out")
        labels.check_masks(path, got, sizes)
        given[title], paths[title] = got, path
    more = {name for got in given.values() for name in got.classes} - set(truth.classes)
    classes = in_order({*truth.classes, *more}) if more else truth.classes
    if more and truth.classes:
        report("note", text=f"no true mask has class {', '.join(in_order(more))}")
    given = {title: got.of_classes(classes)._replace(names=sorted({n for n, _ in got.rows}))
             for title, got in given.items()}
    return truth.of_classes(classes), given, paths


def open_maps(path: Path, classes: Sequence[str]) -> Callable | None:
    """Function (name, class index, (H, W)) -> map (H, W) that the masks of a CSV were drawn from;
    None for a CSV without maps.

    classes: those that the index counts. Raises DataError where the maps cannot be read.
    """
    if kept_maps.folders(path):
        of_image = kept_maps.probabilities(path, classes, [])
        return lambda name, c, size: of_image(name, size)[c]
    if not path.with_name("maps.csv").exists():
        return None
    used = folder.read_run(path.with_name("metrics.json"))["args"]
    if not {"norm", "norm_after"} <= used.keys():
        raise DataError(f"{path.parent}/metrics.json: no --norm in it, expected that of "
                        "make_masks.py")
    return stored_maps.map_function(path.parent, used["norm"], used["norm_after"], classes)
