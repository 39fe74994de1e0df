"""The folds of a cross-validation: how they are made, checked and read back."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from .csv_files import read_csv
from .errors import DataError
from .labels import Labels


def make_folds(y: np.ndarray, folds: int, seed: int = 0,
               groups: np.ndarray | None = None) -> np.ndarray:
    """Give each row of the labels y (N, C) a fold: int (N,), multi-label stratified.

    This is iterative stratification (Sechidis et al. 2011). The rarest class is shared out first.
    Each of its images goes to the fold that still lacks the most images of that class. Where
    several folds lack as many, it goes to the one that lacks the most images of any kind. The paper
    gives no rule (DEV-12). groups: int (N,), and images of one number share a fold (DEV-42); a
    group counts as what its images are together. None: each image is a group of its own.
    """
    y = np.asarray(y, np.int64)
    groups = np.arange(len(y)) if groups is None else np.asarray(groups)
    _, first, of = np.unique(groups, return_index=True, return_inverse=True)
    rank = first.argsort().argsort()  # groups are numbered by their first image
    of = rank[of]
    y = np.stack([np.bincount(of, column) for column in y.T], axis=1).astype(np.int64)
    return _share_out(y, np.bincount(of), folds, seed)[of]


def _share_out(y, size, folds, seed):
    """The fold of each group: int (G,), from its labels y int (G, C) and its number of images."""
    order = np.random.default_rng(seed).permutation(len(y))
    fold = np.full(len(y), -1)
    # Both numbers are multiplied by `folds`, so that what one fold should get is a whole number.
    lacks_images = np.full(folds, size.sum())
    lacks_class = np.tile(y.sum(axis=0), (folds, 1))

    def place(i, c):
        need = lacks_images if c is None else lacks_class[:, c]
        k = max(range(folds), key=lambda k: (need[k], lacks_images[k], -k))
        fold[i] = k
        lacks_images[k] -= folds * size[i]
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


def check_folds(path: Path | str, labels: Labels, fold: np.ndarray, folds: int) -> None:
    """Raise DataError, naming the label file `path`, unless every fold has images with and images
    without each class."""
    for c, name in enumerate(labels.classes):
        if not labels.y[:, c].any():
            raise DataError(f"{path}: class {name} never occurs, expected images of every class "
                            f"({', '.join(labels.classes)})")
        for k in range(folds):
            n, total = int(labels.y[fold == k, c].sum()), int((fold == k).sum())
            if n == 0 or n == total:
                raise DataError(f"{path}: fold {k} has {n} of {total} images with class {name}, "
                                "expected some with and some without")


def most_folds(path: Path | str, labels: Labels, most: int,
               make: Callable[[int], np.ndarray]) -> np.ndarray:
    """The folds make(k) with the largest k up to `most` in which every fold has images with and
    images without each class  (DEV-43).

    Raises DataError, naming the label file `path`, where even two folds cannot be made, and says
    what is missing.
    """
    N = len(labels.names)
    with_class = labels.y.sum(axis=0, dtype=int).tolist()
    for name, n in zip(labels.classes, with_class, strict=True):
        if min(n, N - n) < 2:
            lack = " and ".join(["with it"] * (n < 2) + ["without it"] * (N - n < 2))
            less = ", or leave the class out by --classes" if len(with_class) > 1 else ""
            raise DataError(f"{path}: class {name} is in {n} of {N} images, expected at least two "
                            f"with it and two without it: add images {lack}{less}")
    for k in range(min(most, *with_class, *(N - n for n in with_class)), 1, -1):
        fold = make(k)
        try:
            check_folds(path, labels, fold, k)
        except DataError:
            continue
        return fold
    raise DataError(f"{path}: {N} images cannot be shared out to two folds that both have images "
                    "with and images without each class (images of one group, such as copies, stay "
                    "together): add images")


def read_groups(path: Path | str, names: Sequence[str]) -> np.ndarray:
    """Group int (N,) of the named images in a CSV with the columns ImageId,group. A group may be
    any text; groups are numbered by their order of appearance in `names`.

    Raises DataError for an image that has no row or two, and for an empty group.
    """
    header, rows = read_csv(Path(path), "ImageId,group")
    if header != ["ImageId", "group"]:
        raise DataError(f"{path}, row 1: columns {','.join(header)[:200]}; expected ImageId,group")
    group = {}
    for n, r in rows:
        if not r["group"] or r["ImageId"] in group:
            raise DataError(f"{path}, row {n}: '{r['ImageId'][:80]}' in group '{r['group'][:40]}', "
                            "expected each image once and a name for its group")
        group[r["ImageId"]] = r["group"]
    missing = [n for n in names if n not in group]
    if missing:
        raise DataError(f"{path}: no group for {len(missing)} of {len(names)} images, the first is "
                        f"{missing[0]}")
    number = {}
    return np.array([number.setdefault(group[n], len(number)) for n in names])


def read_folds(path: Path | str) -> dict[str, int]:
    """Read {image name: fold} from a folds.csv. Raises DataError."""
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


def folds_of(path: Path | str, names: Sequence[str]) -> np.ndarray:
    """Fold int (N,) of the named images in a folds.csv. Raises DataError for an image without
    one."""
    fold = read_folds(path)
    missing = [n for n in names if n not in fold]
    if missing:
        raise DataError(f"{path}: no fold for {len(missing)} of {len(names)} images, the first is "
                        f"{missing[0]}")
    return np.array([fold[n] for n in names])
