"""The images that train_seg.py trains on, with their masks and folds and what its flags add, all
checked before the work begins. Nothing here needs torch.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import masks
from ..data import folds, labels
from ..data.csv_files import read_probs
from ..data.errors import DataError
from ..runs import inputs


class Work(NamedTuple):
    """What the network is trained and scored on."""

    given: labels.Labels  # the masks to train on; never the truth, unless --masks names it
    truth: labels.Labels | None  # true masks, which only the scores may look at
    ignored: dict | None  # {(name, class index): run lengths} of pixels the loss leaves out
    gate: dict | None  # {image name: C probabilities} of a classifier
    sizes: dict  # {name: (H, W)}
    digests: dict  # {name: SHA-256 of the file}
    fold: np.ndarray  # int (N,): the fold that holds each image out


def load(args: argparse.Namespace, report: Callable) -> Work:
    """Read and check all inputs: Work of the images that have a fold and a row in --masks."""
    image_dir, chosen = inputs.image_dir(args), inputs.chosen_classes(args)
    if args.target == "multiclass" and args.loss != "bce":
        raise DataError(f"--target multiclass has the cross-entropy for its loss: expected no "
                        f"--loss {args.loss}")
    sources = read_sources(args.masks, image_dir, chosen)
    for path, found in zip(args.masks, sources, strict=True):
        report("note", text=inputs.labels_line(path, image_dir, found, bool(chosen)))
    given, corrected = combine(sources)
    if corrected:
        report("note", text=f"{len(corrected)} images are as {named(args.masks[1:])} has them, and "
                            f"not as {args.masks[0]}")
    if not given.y.any():
        raise DataError(f"{named(args.masks)}: every mask is empty, expected at least one that is "
                        "not")
    given, fold = with_folds(args, given, report)
    sizes, _, digests = inputs.scan(image_dir, given.names, report)
    for path, found in zip(args.masks, sources, strict=True):
        labels.check_masks(path, found, sizes)
    if args.target == "multiclass":
        say_overlaps(named(args.masks), given, sizes, report)
    ignored = None
    if args.ignore:
        found = labels.read_masks(args.ignore, image_dir, given.classes, bool(chosen))
        labels.check_masks(args.ignore, found, sizes)
        # What was in doubt before a person looked is no longer in doubt (DEV-69).
        ignored = {key: rle for key, rle in found.rles.items() if key[0] not in corrected}
    gate = read_gate(args, given) if args.gate else None
    return Work(given, read_truth(args, given, sizes), ignored, gate, sizes, digests, fold)


def named(paths: Sequence[Path]) -> str:
    """The paths of one or more mask files as a message names them."""
    return " and ".join(map(str, paths))


def read_sources(paths: Sequence[Path], image_dir: Path,
                 chosen: Sequence[str] | None) -> list[labels.Labels]:
    """The masks of each path of --masks. All have the classes of the first one."""
    first = labels.read_masks(paths[0], image_dir, chosen, bool(chosen))
    return [first, *(labels.read_masks(path, image_dir, first.classes, bool(chosen))
                     for path in paths[1:])]


def combine(sources: Sequence[labels.Labels]) -> tuple[labels.Labels, set[str]]:
    """The masks of several sources, of which a later one replaces all masks of each image that it
    names, with empty ones too (DEV-69).

    Returns Labels, and the names that a later source has replaced or added.
    """
    first, rles, corrected = sources[0], dict(sources[0].rles), set()
    for more in sources[1:]:
        names = {name for name, _ in more.rows}
        rles = {key: rle for key, rle in rles.items() if key[0] not in names} | more.rles
        corrected |= names
    names = sorted({*first.names, *corrected})
    y = np.array([[(n, c) in rles for c in range(len(first.classes))] for n in names], np.uint8)
    return first._replace(names=names, y=y, rles=rles), corrected


def with_folds(args: argparse.Namespace, given: labels.Labels,
               report: Callable) -> tuple[labels.Labels, np.ndarray]:
    """The labels of the images that have a fold in --folds, and their folds, int (N,).

    Raises DataError where an image with a mask has none, and where no two folds are left.
    """
    said, known = named(args.masks), folds.read_folds(args.folds)
    has_fold = np.array([n in known for n in given.names])
    left_out = given.keep(~has_fold & given.y.any(axis=1)).names  # a clean image may be dropped
    if left_out:
        raise DataError(f"{args.folds}: no fold for {len(left_out)} images with a mask in "
                        f"{said}, the first is {left_out[0]}")
    if not has_fold.all():
        report("note", text=f"{int((~has_fold).sum())} clean images of {said} have no fold in "
                            f"{args.folds} and are left out")
    given = given.keep(has_fold)
    if not given.names:
        raise DataError(f"{args.folds}: no fold for any image of {said}")
    fold = np.array([known[n] for n in given.names])
    if args.fold is not None and args.fold not in fold or len(set(fold.tolist())) < 2:
        raise DataError(f"{args.folds}: two folds or more are needed, and --fold among them; "
                        f"the images of {said} are in folds {sorted(set(fold.tolist()))}")
    return given, fold


def read_truth(args: argparse.Namespace, given: labels.Labels,
               sizes: dict[str, tuple[int, int]]) -> labels.Labels | None:
    """The true masks by --labels or --data; None where there are none."""
    path, chosen = inputs.label_path(args), inputs.chosen_classes(args)
    if not path or not (path.exists() or args.labels):
        return None
    truth = labels.read_labels(path, inputs.image_dir(args), given.classes, bool(chosen))
    if truth.rles is None:
        return None
    labels.check_masks(path, truth, sizes)
    return truth


def say_overlaps(said: str, given: labels.Labels, sizes: dict[str, tuple[int, int]],
                 report: Callable) -> None:
    """Warn of images in which masks of two classes share pixels, which are left out (DEV-67).

    said: how a message names the masks.
    """
    found = masks.overlapping(given.names, sizes, given.classes, given.rles)
    if found:
        report("note", text=f"{said}: masks of two classes share pixels in {len(found)} images, "
                            f"the first is {found[0]}; --target multiclass leaves these pixels out")


def read_gate(args: argparse.Namespace, given: labels.Labels) -> dict[str, list[float]]:
    """Probabilities {image name: C values} of --gate for all images that get a mask."""
    gate = read_probs(args.gate, given.classes)
    missing = [n for n in given.names if n not in gate]
    if missing:
        raise DataError(f"{args.gate}: no row for {len(missing)} of {len(given.names)} images, "
                        f"the first is {missing[0]}")
    return gate
