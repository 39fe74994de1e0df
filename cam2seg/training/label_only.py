"""Masks from image-level labels alone, by the contrast within each image (make_masks.py --method
contrast).

The functions get the pixels of the images and the labels y, bool (N, C), and nothing else, so that
no mask drawn by a person can reach them. The formulas [C-1] to [C-13] are those of
methods/contrast.py and methods/texture.py.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ..data.images import open_rgb
from ..masks import rle_encode
from ..methods import auto, contrast, reflection, texture
from ..runs.progress import Progress, silent

# One image gives this number of descriptors from its mask, and as many from the rest of it.
SAMPLES = 30
PER_CLASS = 200  # [C-33] images of a class that correct its threshold, at the most


class ContrastModel(NamedTuple):
    """What the labels of a set of images say about its C classes."""

    filters: list  # C entries of contrast.FILTERS; None for a class that no filter tells  [C-5]
    signs: list  # C times +1 or -1: whether a defect raises or lowers the filter's response
    scores: np.ndarray  # T (C, F, 2) of every filter and sign  [C-5]
    otsu: list  # C arrays: Otsu's threshold of each image whose only label is the class, [C-7],
    #             times the correction of the class  [C-33]
    texture: tuple | None  # mu and S of [C-11]; None where no image has several labels


def log_image(path: str | Path) -> Tensor:
    """The logarithm [C-1] of the grey values of the image at `path`, float32 (H, W)."""
    return contrast.logarithm(np.asarray(open_rgb(path).convert("L")))


def fit(log_image: Callable[[int], Tensor], y: np.ndarray, report: Callable = silent,
        skew: np.ndarray | None = None) -> ContrastModel:
    """Learn from images and their labels what make_masks needs.

    log_image(i) gives the logarithm [C-1] of image i, and y bool (N, C) are the labels. Each image
    is read once for its skewness, those with one label once more for their thresholds, and up to
    200 of these for each class a third time for the correction [C-33]. No image is kept in memory.
    skew (N, F) is the skewness [C-4] of the images, where it is known already.
    """
    if skew is None:
        clock, each = Progress(len(y), "contrast: skewness", report), []
        for i in range(len(y)):
            each.append(contrast.skewness(log_image(i)))
            clock.add(1)
        skew = np.stack(each)
    chosen, signs, scores = contrast.choose(skew, y)
    filters = [contrast.FILTERS[f] if f >= 0 else None for f in chosen]
    otsu, gaussians = _thresholds_and_texture(log_image, y, filters, signs, report)
    otsu = [o if filters[c] is None else o * _correction(log_image, y, c, (filters[c], signs[c], o))
            for c, o in enumerate(otsu)]
    return ContrastModel(filters, list(map(int, signs)), scores, otsu, gaussians)


def _thresholds_and_texture(log_image, y, filters, signs, report):
    """Otsu's thresholds of each class, and the Gaussians of its texture or None.

    Both come from the images with one label. The texture is needed only where some image has
    several labels.
    """
    C, count = y.shape[1], y.sum(axis=1)
    needs_names = bool((count > 1).any())
    rng, otsu = np.random.default_rng(0), [[] for _ in range(C)]
    rows = np.flatnonzero(count == 1)
    clock, descriptors, names = Progress(len(rows), "contrast: thresholds", report), [], []
    for i in rows:
        c, x = int(y[i].argmax()), log_image(i)
        region = np.zeros(x.numel(), bool)
        if filters[c] is not None:
            v = contrast.evidence(x, filters[c], signs[c])
            otsu[c].append(contrast.otsu(v))
            region = v.ravel() > otsu[c][-1]
        if needs_names:
            d = _sample(texture.describe_pixels(x).numpy(), region, rng)
            descriptors.append(d)
            names.append(np.full(len(d), c))
        clock.add(1)
    gaussians = None
    if descriptors:
        gaussians = texture.fit_texture(np.concatenate(descriptors), np.concatenate(names), C)
    return [np.array(o) for o in otsu], gaussians


def contrast_tells(model: ContrastModel, skew: np.ndarray, c: int, P: np.ndarray,
                   Q: np.ndarray) -> float:
    """What the skewness (N, F) of contrast tells of class c, 0 where it has no filter.    [C-21]

    P, Q: bool (N,), the images with the class and its negatives.
    """
    filter, sign = model.filters[c], model.signs[c]
    if filter is None:
        return 0.0
    own = sign * skew[:, contrast.FILTERS.index(filter)]
    return float(auto.tell(own[P], own[Q]))


def _correction(log_image, y, c, chosen):
    """The factor [C-33] of class c, from evenly spaced images with this label alone.

    chosen: the filter and the sign of the class, and Otsu's thresholds of these images.
    """
    filter, sign, otsu = chosen
    rows = np.flatnonzero(y[:, c] & (y.sum(axis=1) == 1))
    if not len(rows):
        return 1.0
    at = np.unique(np.linspace(0, len(rows) - 1, PER_CLASS).round().astype(int))
    sums = np.zeros((2, len(reflection.RATIOS)), np.int64)
    for k in at:
        x, t = log_image(rows[k]), contrast.threshold(otsu[k], otsu)
        if t < np.inf:
            sums += [reflection.reach(contrast.evidence(x, filter, s), t) for s in (sign, -sign)]
    return reflection.correction(*sums)


def _sample(d, region, rng):
    """Descriptors (n, D) of random pixels, from d (H W, D): SAMPLES inside `region`, bool (H W,),
    and SAMPLES outside it. A part without pixels gives none."""
    parts = [np.flatnonzero(part) for part in (region, ~region)]
    return np.concatenate([d[rng.choice(part, SAMPLES)] for part in parts if len(part)])


def masks_of_image(x: Tensor, y: np.ndarray,
                   model: ContrastModel) -> tuple[np.ndarray, np.ndarray]:
    """Masks and the pixels that a trainer must leave out, both bool (C, H, W), of one image.

    x (H, W) is the logarithm [C-1] of the image, and y bool (C,) are its labels. A class without a
    label has an empty mask, and so has a class that no filter tells. The labels of an image share
    its pixels in doubt. Where a class with a label gets no mask, the whole image is left out for
    it.  [C-6] to [C-13]
    """
    return share(ratios(x, y, model), y)


def ratios(x: Tensor, y: np.ndarray, model: ContrastModel) -> np.ndarray:
    """u = v / t, float32 (C, H, W), of one image; x and y are those of masks_of_image.

    It is 0 for a class without a label or without a filter.  [C-6], [C-8]
    """
    u = np.zeros((len(y), *x.shape), np.float32)
    several = y.sum() > 1 and model.texture is not None
    q = texture.name_regions(texture.describe_pixels(x), *model.texture, y) if several else None
    for c in np.flatnonzero(y):
        if model.filters[c] is None:
            continue
        region = q[c].reshape(x.shape) if several else None
        v = contrast.evidence(x, model.filters[c], model.signs[c], region)
        u[c] = v / contrast.threshold(contrast.otsu(v), model.otsu[c])
    return u


def share(u: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What masks_of_image returns, from the u (C, H, W) and the labels y of an image.    [C-13]"""
    masks, doubt = contrast.masks_of(u, y)
    missing = y & ~masks.any(axis=(1, 2))
    return masks, (y[:, None, None] & doubt) | missing[:, None, None]


def make_masks(masks_of: Callable[[int], tuple[np.ndarray, np.ndarray]], names: list, y: np.ndarray,
               report: Callable = silent) -> tuple[dict, dict]:
    """The run lengths of the masks, and of the ignored pixels, of N named images.

    masks_of(i) gives both of image i, bool (C, H, W), and y bool (N, C) are the labels. Both
    results are {(name, class index): run lengths}. The masks have an entry for every label, and the
    ignored pixels where there are any.
    """
    made, ignored = {}, {}
    clock = Progress(len(names), "masks", report)
    for i, name in enumerate(names):
        if y[i].any():
            masks, left_out = masks_of(i)
            for c in np.flatnonzero(y[i]).tolist():
                made[name, c] = rle_encode(masks[c])
                if left_out[c].any():
                    ignored[name, c] = rle_encode(left_out[c])
        clock.add(1)
    return made, ignored


def choice_rows(model: ContrastModel, classes: list) -> list:
    """One row for each class: its name, then sign, filter and T of the best choice and of the next.

    Where no filter tells the class, the filter is "none" and T is None.
    """
    rows = []
    for c, name in enumerate(classes):
        said = []
        for at in np.argsort(-model.scores[c], axis=None, kind="stable")[:2]:
            T = float(model.scores[c].flat[at])
            filter = say(contrast.FILTERS[at // 2], 1 - 2 * (int(at) % 2))
            said += [filter, T] if np.isfinite(T) else ["none", None]
        rows.append([name, *said])
    return rows


def say(filter: tuple | None, sign: int) -> str:
    """A filter and its sign for people, as "+ G0 - G12"; "none" where there is no filter."""
    return "none" if filter is None else f"{'+' if sign > 0 else '-'} {contrast.describe(filter)}"
