"""Masks from image-level labels alone, by the contrast within each image (make_masks.py --method
contrast).

No function here can see a true mask: they get the pixels of the images and the labels y (N, C).
The formulas [C-n] are those of methods/contrast.py.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..data.images import open_rgb
from ..masks import rle_encode
from ..methods import contrast
from ..runs.progress import Progress, silent

SAMPLES = 30  # descriptors that one image gives to the region and to its surroundings


class ContrastModel(NamedTuple):
    """What the labels of a set of images say of its C classes."""

    filters: list  # C entries of contrast.FILTERS
    signs: list  # C times +1 or -1: whether the defect raises the filter's response
    scores: np.ndarray  # T (C, F, 2) of every filter and sign  [C-5]
    otsu: list  # C arrays: Otsu's threshold of each image whose only label is the class  [C-7]
    texture: tuple | None  # mu, S of the Gaussians that name regions  [C-11]; None: not needed


def log_image(path):
    """The image at `path` as contrast.logarithm takes it: a float tensor (H, W) of its grey."""
    return contrast.logarithm(np.asarray(open_rgb(path).convert("L")))


def fit(log_image: Callable, y: np.ndarray, report: Callable = silent) -> ContrastModel:
    """Fit the contrast method to images and their labels.

    log_image: row number -> contrast.logarithm of that image; y: bool (N, C). Every image is read
    twice, once for its skewness and once for its threshold, and none is kept in memory.
    """
    clock, skew = Progress(len(y), "contrast: skewness", report), []
    for i in range(len(y)):
        skew.append(contrast.skewness(log_image(i)))
        clock.add(1)
    chosen, signs, scores = contrast.choose(np.stack(skew), y)
    filters = [contrast.FILTERS[f] for f in chosen]
    otsu, texture = _thresholds_and_texture(log_image, y, filters, signs, report)
    return ContrastModel(filters, list(map(int, signs)), scores, otsu, texture)


def _thresholds_and_texture(log_image, y, filters, signs, report):
    """Otsu's thresholds of each class, and the texture of its regions where they need names."""
    C, count = y.shape[1], y.sum(axis=1)
    needs_names = bool((count > 1).any())
    rng, otsu = np.random.default_rng(0), [[] for _ in range(C)]
    rows = np.flatnonzero(count == 1)
    clock, descriptors, names = Progress(len(rows), "contrast: thresholds", report), [], []
    for i in rows:
        c, x = int(y[i].argmax()), log_image(i)
        v = contrast.evidence(x, filters[c], signs[c])
        o = contrast.otsu(v)
        otsu[c].append(o)
        if needs_names:
            d, region = contrast.texture(x).numpy(), (v > o).ravel()
            for part in (np.flatnonzero(region), np.flatnonzero(~region)):
                descriptors.append(d[rng.choice(part, SAMPLES)])
                names.append(np.full(SAMPLES, c))
        clock.add(1)
    texture = None
    if needs_names and descriptors:
        texture = contrast.fit_texture(np.concatenate(descriptors), np.concatenate(names), C)
    return [np.array(o) for o in otsu], texture


def masks_of_image(x, y: np.ndarray, model: ContrastModel):
    """Masks bool (C, H, W), and pixels bool (H, W) that a trainer must leave out, of one image.

    x: contrast.logarithm of the image; y: bool (C,), the labels of the image.  [C-6] to [C-13]
    """
    u = np.zeros((len(y), *x.shape), np.float32)
    several = y.sum() > 1 and model.texture is not None
    q = contrast.name_regions(contrast.texture(x), *model.texture, y) if several else None
    for c in np.flatnonzero(y):
        region = q[c].reshape(x.shape) if several else None
        v = contrast.evidence(x, model.filters[c], model.signs[c], region)
        o = contrast.otsu(v)
        t = contrast.threshold(o, model.otsu[c]) if len(model.otsu[c]) else o
        u[c] = v / t if t > 0 else 0
    return contrast.masks_of(u, y)


def make_masks(log_image: Callable, names: list, y: np.ndarray, model: ContrastModel,
               report: Callable = silent):
    """Run lengths of masks and of ignored pixels, both {(name, class index): text}.

    The ignored pixels of an image belong to each of its labels.
    """
    rles, ignored = {}, {}
    clock = Progress(len(names), "contrast: masks", report)
    for i, name in enumerate(names):
        if y[i].any():
            drawn, doubtful = masks_of_image(log_image(i), y[i], model)
            for c in np.flatnonzero(y[i]).tolist():
                rles[name, c] = rle_encode(drawn[c])
                if doubtful.any():
                    ignored[name, c] = rle_encode(doubtful)
        clock.add(1)
    return rles, ignored


def choice_rows(model: ContrastModel, classes: list) -> list:
    """Rows of the table that shows what the labels chose: class, filter, sign, T, the next best."""
    rows = []
    for c, name in enumerate(classes):
        order = np.argsort(-model.scores[c], axis=None, kind="stable")[:2]
        said = []
        for at in order:
            filter_, sign = contrast.FILTERS[at // 2], "+-"[at % 2]
            said += [f"{sign} {contrast.describe(filter_)}", float(model.scores[c].flat[at])]
        rows.append([name, *said])
    return rows
