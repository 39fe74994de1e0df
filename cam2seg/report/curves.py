"""The numbers behind the charts of a report: ROC curves, histograms of areas, Dice against the
threshold and the confidence."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .. import masks, metrics

THRESHOLDS = [round(0.05 * n, 2) for n in range(1, 20)]  # those of make_masks.py --search, DEV-30
CONFIDENCES = [round(0.05 * n, 2) for n in range(20)]
AREA_EDGES = np.logspace(-2, 2, 21)  # in % of the image: five bins for each factor of ten


def roc_curve(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The corners of a ROC curve, float (n, 2): false and true positive rate at each threshold,
    from none found to all found.

    y (N,) holds 0 or 1 for each image, with at least one of each, and p (N,) its score. An image
    counts as found where its score is the threshold or more, so that images of equal scores make
    one step, and the area below the straight lines between the corners is metrics.roc_auc.
    """
    y, p = np.asarray(y).astype(bool), np.asarray(p, np.float64)
    order = np.argsort(-p, kind="stable")
    found = np.cumsum(y[order]), np.cumsum(~y[order])
    last = np.append(np.diff(p[order]) != 0, True)  # the last image of each score
    true, false = (np.append(0, n[last]) / n[-1] for n in found)
    return np.stack([false, true], axis=1)


def area_histogram(areas: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """How many masks have an area in each bin of AREA_EDGES: int (20,).

    areas, pixels: int (N,), the pixels of each mask and of its image. Empty masks are left out. A
    mask below the first edge counts in the first bin.
    """
    made = areas > 0
    part = 100 * areas[made] / pixels[made]
    return np.histogram(part.clip(AREA_EDGES[0], AREA_EDGES[-1]), AREA_EDGES)[0]


def spread(count: int, most: int) -> list[int]:
    """Up to `most` of the numbers from 0 to count - 1, evenly spread, with both ends."""
    if count < 1 or most < 1:
        return []
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


class Counts(NamedTuple):
    """Pixels of the masks of n images at all THRESHOLDS, and what gates them."""

    inter: np.ndarray  # int (n, C, T)
    pred: np.ndarray  # int (n, C, T)
    truth: np.ndarray  # int (n, C)
    gate: np.ndarray  # float (n, C): a class is accepted where it reaches the confidence
    probs: np.ndarray  # float (n, C)


def count_at_thresholds(names: Iterable[str], truth: Mapping[tuple[str, int], str],
                        map_of: Callable, sizes: Mapping[str, tuple[int, int]],
                        classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The counts inter and pred (n, C, T) and truth (n, C) of images at all THRESHOLDS.

    map_of(name, c, (H, W)) is the map of a class in [0, 1]. truth: {(name, class index): run
    lengths}.
    """
    inter, pred, true = [], [], []
    for name in names:
        size = sizes[name]
        maps = np.stack([map_of(name, c, size) for c in range(classes)])
        drawn = masks.decode_all(truth, name, size, classes)
        counts = metrics.threshold_counts(maps, drawn, THRESHOLDS)
        for found, n in zip((inter, pred, true), (*counts, drawn.sum(axis=(1, 2))), strict=True):
            found.append(n)
    return np.array(inter), np.array(pred), np.array(true)


def dice_by_threshold(counts: Counts, confidence: float, min_seg_len: int,
                      score: str) -> tuple[np.ndarray, np.ndarray]:
    """Dice of each class, (T, C), and its mean, (T,), at each of THRESHOLDS.

    score: a name of metrics.SCORES. nan where it is undefined.
    """
    scores = [_score(counts, t, counts.gate, confidence, min_seg_len, score)
              for t in range(len(THRESHOLDS))]
    return _stacked(scores)


def dice_by_confidence(counts: Counts, threshold: float, min_seg_len: int,
                       score: str) -> tuple[np.ndarray, np.ndarray]:
    """Dice of each class, (K, C), and its mean, (K,), at each of CONFIDENCES, by probabilities.

    The masks are those of the nearest of THRESHOLDS.
    """
    t = int(np.abs(np.array(THRESHOLDS) - threshold).argmin())
    return _stacked([_score(counts, t, counts.probs, k, min_seg_len, score) for k in CONFIDENCES])


def _score(counts, t, gate, confidence, min_seg_len, score):
    inter, pred = metrics.gated(counts.inter[:, :, t], counts.pred[:, :, t], gate, confidence,
                                min_seg_len)
    return metrics.mask_scores(inter, counts.truth, pred)[score]


def _stacked(scores: Sequence):
    return (np.array([per_class for per_class, _ in scores], np.float64),
            np.array([mean for _, mean in scores], np.float64))
