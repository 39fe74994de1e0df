"""The images that make_masks.py masks, with their labels and folds, all checked before the work
begins. Nothing here needs torch.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data import folds, image_folder, labels
from ..data.csv_files import read_probs
from ..data.errors import DataError
from ..methods import label_choice
from ..metrics import class_aucs
from ..runs import folder, inputs

BY_GRADIENTS = ("gradcam", "gradcam++", "gradcam++normalized", "gradcam++normalized-positive",
                "guided-gradcam")  # the keys of cam.FORMULAS, which would load torch, and one more
FROM_MAPS = (*BY_GRADIENTS, "seam")


class Work(NamedTuple):
    """The images that get masks, and all that turns their maps into masks."""

    names: list  # N image names
    labels: labels.Labels | None
    sizes: dict  # {name: (H, W)}
    digests: dict  # {name: SHA-256 of the file}
    fold: np.ndarray  # int (N,): the fold that holds each image out; -1 outside the folds
    classes: list  # C class names
    maps: np.ndarray | None = None  # (N, C, h, w), each divided by its maximum
    gate: np.ndarray | None = None  # (N, C); a class is accepted where it reaches the confidence
    thumbnails: dict = {}  # {name: uint8 (S, S)}, by which copies are found; of --method seg alone


def own_method(args: argparse.Namespace) -> str:
    """The --method that suits the run --cls: the paper's, or that of train_cls.py --seam."""
    path = args.cls / "args.json"
    return "seam" if path.is_file() and "seam" in folder.read_run(path)["args"] else "gradcam++"


def with_method(args: argparse.Namespace) -> argparse.Namespace:
    """The same flags, in which args.method is the name of a method and never None.

    Where --method was not given, the method is the one that suits the run --cls. Raises DataError
    where --method was given and cannot work with that run.
    """
    own = own_method(args) if args.method in (None, "seam", "auto") else ""
    if args.method == "seam" != own:
        raise DataError(f"--method seam: {args.cls} is no run of train_cls.py --seam")
    if args.method == "auto" and own == "seam":
        raise DataError(f"--method auto is for a classifier's Grad-CAM++, and {args.cls} is a run "
                        "of train_cls.py --seam: leave out --method, or name another --cls")
    return argparse.Namespace(**{**vars(args), "method": args.method or own})


def load_images(args: argparse.Namespace, report: Callable) -> Work:
    """Work without maps: the images to be masked, their labels and folds, all checked."""
    if args.first and args.method != "video":
        raise DataError("--first is for --method video")
    if args.method == "depth":
        if args.classes:
            raise DataError("--method depth names its classes itself, expected no --classes")
        from ..methods.depth import class_names
        from . import depth_masks
        made = class_names(depth_masks.model_of(args).bins)
        names, seen, fold = depth_masks.load(args, report)
        return Work(names, None, seen.sizes, seen.digests, fold, made)
    path, found = inputs.label_path(args), None
    if args.method in ("contrast", "pixels"):
        classes, only = None, False
    else:
        classes, only = _first_classes(args) if args.method == "video" else _trained_classes(args)
    if path and (path.exists() or args.labels):
        found, seen = inputs.load_labels(args, report, classes, only)
        names = found.names
    else:
        names = image_folder.list_images(inputs.image_dir(args))
        seen = inputs.scan(inputs.image_dir(args), names, report)
    by_labels = args.method in ("contrast", "pixels")
    if (args.gate == "labels" or args.search or by_labels) and found is None:
        raise DataError("--gate labels, --search and --method contrast or pixels need --labels")
    if args.method == "seg" and found is None and len(args.seg) > 1:
        raise DataError("--seg with several runs needs --labels, which choose one of them [C-27]")
    if args.method == "auto" and found is None and not args.fitted:
        raise DataError("--method auto needs --labels, or --fitted with a run that had them")
    if args.fitted and args.method not in ("contrast", "pixels", "auto"):
        raise DataError("--fitted is for --method contrast, pixels and auto")
    if args.depth:
        raise DataError("--depth is for --method depth")
    if args.search and args.method not in FROM_MAPS:
        raise DataError(f"--method {args.method} has no parameters that --search could choose")
    if args.reuse_maps and (by_labels or args.method in ("seg", "video")):
        raise DataError(f"--method {args.method} makes no maps that --reuse-maps could take")
    if args.method in ("contrast", "pixels"):
        fold = _contrast_folds(args, found, seen.thumbnails, report)
        return Work(names, found, seen.sizes, seen.digests, fold, found.classes)
    work = Work(names, found, seen.sizes, seen.digests, np.full(len(names), -1), classes)
    if args.method in ("seg", "video"):  # each finds its folds itself
        return work._replace(thumbnails=seen.thumbnails)
    work = with_held_out_folds(args, args.cls, f"{args.checkpoint}.pt", work)
    if args.search:
        _check_search(args.search, work, path)
    return work


def _check_search(search, work, path):
    """Raise DataError where the labels at `path` cannot choose what --search asks for."""
    y = work.labels.y
    if search == "labels":
        if not label_choice.telling(y.astype(bool)).any():
            raise DataError(f"{path}: no class has images with it and images without it, expected "
                            "one that has both for --search labels")
    elif work.labels.rles is None:
        raise DataError(f"{path}: --search needs true masks (a column EncodedPixels)")
    elif len(set(work.fold[y.any(axis=1)].tolist())) < 2:
        raise DataError(f"{path}: --search needs true masks in two folds or more")


def _first_classes(args):
    """The classes of the masks by --first, and whether labels may have others, which only score."""
    if not args.first:
        raise DataError("--method video needs --first, a CSV with masks of the first frames")
    chosen = inputs.chosen_classes(args)
    return labels.read_masks(args.first, inputs.image_dir(args), chosen, bool(chosen)).classes, True


def _trained_classes(args):
    """The classes that --cls, or the runs of --seg, were trained on, and whether --classes has
    chosen them from others."""
    only, classes, chosen = False, None, inputs.chosen_classes(args)
    kind = "seg" if args.method == "seg" else "cls"
    for path in args.seg if kind == "seg" else [args.cls]:
        folder.check_is_run(f"--{kind}", path, f"train_{kind}")
        trained = folder.read_run(path / "args.json")
        only |= bool(trained["args"].get("classes"))
        if classes and trained["classes"] != classes:
            raise DataError(f"{path} was trained on {' '.join(trained['classes'])}, expected "
                            f"{' '.join(classes)}")
        classes = trained["classes"]
        if chosen and sorted(chosen) != sorted(classes):
            raise DataError(f"--classes {' '.join(chosen)}: {path} was trained on "
                            f"{' '.join(classes)}")
    return classes, only


def _contrast_folds(args, found, thumbnails, report):
    """Fold int (N,) of labelled images: those of --cls where it is a run, else five new ones.

    Those of --method contrast do not depend on the folds; train_seg.py --folds needs them.
    """
    path = args.cls / "folds.csv"
    if path.is_file():
        try:
            return folds.folds_of(path, found.names)
        except DataError as error:
            raise DataError(f"{error}; --cls names another run, or a new folder where these images "
                            "have no classifier") from error
    groups = inputs.find_groups(args, found.names, thumbnails, report)
    return folds.make_folds(found.y, 5, groups=groups)


def with_held_out_folds(args: argparse.Namespace, run: Path, checkpoint: str, work: Work) -> Work:
    """The same Work with the fold of a run that holds each image out, -1 for an image without one.

    Images of a fold that has no such checkpoint in the run yet are left out.
    """
    known = {} if args.new_images else folds.read_folds(run / "folds.csv")
    work = work._replace(fold=np.array([known.get(n, -1) for n in work.names]))
    trained = folder.fold_files(run, checkpoint)
    if not trained:
        raise DataError(f"{run}: no fold*/{checkpoint}, expected a run of train_cls.py for --cls, "
                        "or of train_seg.py for --seg")
    keep = np.isin(work.fold, [-1, *trained])
    if not keep.any():
        raise DataError(f"{run}: no image left to mask, expected some in the folds "
                        f"{', '.join(map(str, trained))}")
    if not keep.all():
        print(f"{(~keep).sum()} of {len(keep)} images are in folds that {run} has not "
              "trained: they get no mask")
    return work._replace(names=[n for n, k in zip(work.names, keep, strict=True) if k],
                         fold=work.fold[keep], labels=work.labels and work.labels.keep(keep))


def folds_for_training(args: argparse.Namespace, work: Work, run: Path,
                       report: Callable) -> np.ndarray:
    """Fold int (N,) of each image for a training on its masks: that of the run, or a new one for an
    image outside the run's folds. A copy of an image of the run shares its fold (DEV-42).
    """
    fold, new = work.fold.copy(), work.fold < 0
    if not new.any():
        return fold
    groups = inputs.find_groups(args, work.names, work.thumbnails, report)
    known = dict(zip(groups[~new].tolist(), fold[~new].tolist(), strict=True))
    fold[new] = [known.get(g, -1) for g in groups[new].tolist()]
    new = fold < 0
    y = np.zeros((len(fold), 1)) if work.labels is None else work.labels.y
    count = len(set(folds.read_folds(run / "folds.csv").values()))
    fold[new] = folds.make_folds(y[new], count, groups=groups[new])
    return fold


def read_others(args: argparse.Namespace, work: Work) -> dict[str, dict]:
    """The run lengths of the files of --compare, {path: {(name, class index): run lengths}}."""
    found = {}
    for path in args.compare:
        other = labels.read_masks(path, inputs.image_dir(args), work.classes, only=True)
        labels.check_masks(path, other, work.sizes)
        found[str(path)] = other.rles
    return found


def final_masks(args: argparse.Namespace) -> str:
    """The name, without .csv, of the mask file that reports and exports show: that of --search
    labels, else the one by the flags."""
    return "masks_labels" if args.search == "labels" else "masks"


def label_auc(path: Path | str, names: Sequence[str], y: np.ndarray,
              classes: Sequence[str]) -> list[float | None]:
    """ROC-AUC of each class by held-out scores of the images.    [C-27]

    path: oof.csv of a run; the score is the probability of the class by train_cls.py, and the
    largest probability of a pixel by train_seg.py. y: (N, C), the labels of the named images, of
    which those without a row are left out. None for a class that all images have, or none.
    """
    scores = read_probs(path, classes)
    rows = [i for i, name in enumerate(names) if name in scores]
    y, p = y[rows], np.array([scores[names[i]] for i in rows])
    return class_aucs(y, p)


def classifier_auc(args: argparse.Namespace, work: Work) -> list[float | None] | None:
    """ROC-AUC of each class by the classifier of --cls on held-out images; None without labels or
    oof.csv, and for a method that asks no classifier."""
    path = args.cls / "oof.csv"
    if args.method in ("contrast", "pixels", "seg", "video") or work.labels is None \
            or not path.is_file():
        return None
    return label_auc(path, work.names, work.labels.y, work.classes)


def pixels_of_a_cell(args: argparse.Namespace, work: Work,
                     choice: Sequence | None) -> list[float | None]:
    """How many pixels of the median image are under one cell of the maps in --out, for each class;
    None for a class whose masks do not come from maps alone.

    choice: the rows of auto_masks.choice_rows where the method is auto.
    """
    by_map = [args.method in FROM_MAPS] * len(work.classes)
    if args.method == "auto":
        by_map = [row[-1] == "map" for row in choice]
    if not any(by_map):
        return [None] * len(by_map)
    grid = np.load(args.out / "maps.npy", mmap_mode="r").shape[2:]
    pixels = np.median([h * w for h, w in map(work.sizes.get, work.names)])
    cell = float(pixels) / (grid[0] * grid[1])
    return [cell if alone else None for alone in by_map]
