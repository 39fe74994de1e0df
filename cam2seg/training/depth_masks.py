"""Masks by depth (make_masks.py --method depth): height above the floor and angle to gravity, both
in bins, without any label. The formulas [H-1] to [H-6] are those of methods/depth.py."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data import depth_files, folds, image_folder
from ..data.errors import DataError
from ..masks import rle_encode
from ..methods import depth
from ..runs import inputs
from ..runs.progress import Progress, silent

FOLDS = 5


class DepthModel(NamedTuple):
    """What turns a file of depth into classes; all of it comes from flags."""

    folder: Path
    units: float  # of whole numbers, in one metre
    camera: depth.Camera
    bins: depth.Bins
    radii: tuple[int, int]
    percent: float


def model_of(args: argparse.Namespace) -> DepthModel:
    """The model by the flags. Raises DataError for flags that are missing or do not fit."""
    if not args.depth or not args.camera:
        raise DataError("--method depth needs --depth FOLDER and --camera FX FY CX CY")
    if args.labels or args.fitted or args.search or args.reuse_maps or args.gate == "labels":
        raise DataError("--method depth takes no --labels, --gate labels, --search, --fitted or "
                        "--reuse-maps: its classes come from depth alone")
    camera = depth.Camera(*args.camera)
    if not np.isfinite(camera).all() or min(camera.fx, camera.fy) <= 0:
        raise DataError(f"--camera {args.camera}: expected two focal lengths above 0 and the "
                        "principal point, in pixels")
    bins = depth.Bins(args.height_edges, args.angle_edges)
    for flag, edges in (("--height-edges", bins.heights), ("--angle-edges", bins.angles)):
        named = np.array([float(f"{edge:g}") for edge in edges])  # as in the names of the classes
        if not np.isfinite(edges).all() or (np.diff(named) <= 0).any():
            raise DataError(f"{flag} {edges}: expected rising numbers that differ in six digits")
    if not 0 < bins.angles[0] <= bins.angles[-1] < 180:
        raise DataError(f"--angle-edges {bins.angles}: expected degrees between 0 and 180")
    return DepthModel(args.depth, args.depth_units, camera, bins, tuple(args.normal_radius),
                      args.floor_percent)


def load(args: argparse.Namespace,
         report: Callable = silent) -> tuple[list, inputs.Seen, np.ndarray]:
    """The names of the images, what a look at each has told, and their folds int (N,)."""
    image_dir = inputs.image_dir(args)
    names = image_folder.list_images(image_dir)
    seen = inputs.scan(image_dir, names, report)
    groups = inputs.find_groups(args, names, seen.thumbnails, report)
    path = args.cls / "folds.csv"
    known = folds.read_folds(path) if path.is_file() else {}
    fold = share_out(np.array([known.get(n, -1) for n in names]), groups)
    return names, seen, fold


def share_out(known: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Folds int (N,): the known ones, that of its group for a copy, and for the other images as
    many folds as there are, or FOLDS.

    known: int (N,), -1 where an image has no fold yet. groups: int (N,).
    """
    fold = known.copy()
    for i in np.flatnonzero(known >= 0):
        fold[(groups == groups[i]) & (fold < 0)] = known[i]
    new = fold < 0
    if new.any():
        count = int(known.max()) + 1 or min(FOLDS, len(np.unique(groups)))
        fold[new] = folds.make_folds(np.zeros((int(new.sum()), 1)), count, groups=groups[new])
    return fold


def check(model: DepthModel, names: Sequence[str], sizes: Mapping[str, tuple[int, int]],
          report: Callable = silent) -> list[Path]:
    """The files of depth of all images, each read once. Raises DataError for the first bad one."""
    paths, median, lacking = [], [], []
    clock = Progress(len(names), f"checking depth in {model.folder}", report)
    for name in names:
        paths.append(depth_files.find(model.folder, name))
        metres = depth_files.read(paths[-1], model.units, sizes[name])
        median.append(float(np.nanmedian(metres)))
        lacking.append(float(np.isnan(metres).mean()))
        clock.add(1)
    report("note", text=f"depth: {np.median(median):.3g} m in the middle of the typical image "
           f"(--depth-units says how many units make a metre), none at {np.mean(lacking):.1%} of "
           "the pixels")
    return paths


def make_masks(model: DepthModel, names: Sequence[str], paths: Sequence[Path],
               sizes: Mapping[str, tuple[int, int]],
               report: Callable = silent) -> tuple[dict, dict, np.ndarray]:
    """The run lengths of the masks, and of the ignored pixels, of N named images, and the part of
    the pixels that each class has, (bins of heights, bins of angles).

    Both dicts are {(name, class index): run lengths}. A pixel without a class is ignored for all
    classes.
    """
    made, ignored = {}, {}
    shape = len(model.bins.heights) + 1, len(model.bins.angles) + 1
    count = np.zeros(shape[0] * shape[1], np.int64)
    clock = Progress(len(names), "masks", report)
    for name, path in zip(names, paths, strict=True):
        label = depth.labels_of(depth_files.read(path, model.units, sizes[name]), model.camera,
                                model.bins, model.radii, model.percent)
        left_out = rle_encode(label < 0)
        for c in range(len(count)):
            made[name, c] = rle_encode(label == c)
            if left_out:
                ignored[name, c] = left_out
        count += np.bincount(label[label >= 0], minlength=len(count))
        clock.add(1)
    return made, ignored, count.reshape(shape) / max(count.sum(), 1)
