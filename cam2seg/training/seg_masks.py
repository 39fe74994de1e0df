"""Masks of images by the U-Nets of a run (make_masks.py --method seg).

Each image of the run's folds is masked by the network that has not seen it, and any other image by
the mean over the folds. The functions get images and labels, and no mask drawn by a person.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..methods import relabel
from ..runs.progress import Progress, silent
from . import label_only
from .predictor import Predictor

SAMPLE = 500  # images whose probabilities set the limits of [C-25] and [C-26], at the most
STEP = 4  # every fourth row and column of them


def choose_run(scores: Sequence[Sequence]) -> int:
    """Index of the run with the highest mean ROC-AUC over the classes that have one, and the first
    of equal ones.    [C-27]

    scores: for each run what work.label_auc gives for its oof.csv.
    """
    means = [np.mean([a for a in one if a is not None] or [0.0]) for one in scores]
    return int(np.argmax(means))


def make_masks(predict: Predictor, image_dir: Path, names: Sequence[str], fold: np.ndarray,
               known: np.ndarray | None, select: str,
               report: Callable = silent) -> tuple[dict, dict]:
    """The run lengths of the masks, and of the ignored pixels, of N named images.

    predict: the Predictor of a run of train_seg.py. fold int (N,) says which network has not seen
    an image; -1 asks for the mean over the folds.
    known: the labels, bool (N, C), or None. A class without its label gets no mask, and its pixels
    are ground for sure; where a class with its label gets no mask, its whole image is ignored. With
    None any class may be in any image, as in ESL, and an image without a mask is one without the
    class. select: see relabel.limits. Both results are {(name, class index): run lengths}.
    """
    y = np.ones((len(names), len(predict.classes)), bool) if known is None else known

    def probabilities(i):
        return predict(image_dir / names[i], fold=None if fold[i] < 0 else int(fold[i])
                       ).probabilities

    limit = _limits(probabilities, y, select, predict.exclusive, report)

    def masks_of(i):
        p = probabilities(i)
        masks, left_out = np.zeros(p.shape, bool), np.zeros(p.shape, bool)
        if predict.exclusive:
            masks, unsure = relabel.masks_of_shares(relabel.shares(p, y[i]), limit, select)
            left_out[y[i]] = unsure
        for c in np.flatnonzero(y[i]):
            if not predict.exclusive:
                masks[c], left_out[c] = relabel.mask_of(p[c], limit[c], select)
            left_out[c] |= known is not None and not masks[c].any()
        return masks, left_out

    return label_only.make_masks(masks_of, names, y, report)


def _limits(probabilities, y, select, exclusive, report):
    """The limits of each class, from evenly spaced images with a label: [C-25], [C-26], or [C-39]
    for exclusive classes."""
    rows = np.flatnonzero(y.any(axis=1))
    if len(rows) > SAMPLE:
        rows = rows[np.linspace(0, len(rows) - 1, SAMPLE).round().astype(int)]
    seen, shares = [[] for _ in range(y.shape[1])], []
    clock = Progress(len(rows), "seg: limits", report)
    for i in rows if select != "all" else ():
        p = probabilities(i)[:, ::STEP, ::STEP]
        if exclusive:
            shares.append(relabel.shares(p, y[i]))
        else:
            for c in np.flatnonzero(y[i]):
                seen[c].append(p[c].copy())  # a view would keep the whole array
        clock.add(1)
    if exclusive:
        return relabel.limits_of_shares(shares or [np.zeros((1 + y.shape[1], 0))], select)
    return [relabel.limits(p, select) for p in seen]
