"""Mask and label scores in NumPy, every one from counts over the whole set.

Notation: N images, C classes; inter, truth, pred (N, C) are pixel counts of the common, the true
and the predicted mask of each (image, class) pair. Where a ratio is 0/0 because truth and
prediction are both empty it is `empty` (1 by [P-6]); a 0/0 with something missed is 0.

    >>> dice(np.array([1, 1, 0]), np.array([0, 1, 1]))
    0.5
"""

import itertools

import numpy as np

from .masks import decode_all

SCORES = ("dice_pairs", "dice_present", "dice_dataset", "iou", "precision", "recall")


def dice(truth, pred, empty=1.0):
    """2 |T and P| / (|T| + |P|) of two masks of one shape; `empty` where both are empty.  [P-6]"""
    truth, pred = np.asarray(truth, bool), np.asarray(pred, bool)
    if truth.shape != pred.shape:
        raise ValueError(f"masks differ in shape: {truth.shape} and {pred.shape}")
    return float(_dice((truth & pred).sum(), truth.sum(), pred.sum(), empty))


def _dice(inter, truth, pred, empty):
    return _ratio(2 * inter, truth + pred, truth + pred == 0, empty)


def _ratio(a, b, is_empty, empty):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    out = np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape), where=b != 0)
    return np.where(is_empty, empty, out)


def mask_counts(names, truth, pred, sizes, classes):
    """inter, truth, pred in pixels, int (3, N, C), of two sets {(name, class index): run lengths}.

    sizes {name: (H, W)}; classes: C.
    """
    out = np.zeros((3, len(names), classes), np.int64)
    for i, name in enumerate(names):
        t, p = (decode_all(rles, name, sizes[name], classes) for rles in (truth, pred))
        out[:, i] = [m.sum(axis=(1, 2)) for m in (t & p, t, p)]
    return out


def mask_scores(inter, truth, pred, empty=1.0):
    """Scores of counts (N, C): {name: (list of C values, mean)} for the names in SCORES.

    dice_pairs    mean over all (image, class) pairs, empty-empty = `empty`           [P-6]
    dice_present  mean over the pairs that have a true mask (None where there is none) DEV-9
    dice_dataset  2 sum inter / (sum truth + sum pred) of a class
    iou           sum inter / (sum truth + sum pred - sum inter) of a class
    precision     sum inter / sum pred of a class
    recall        sum inter / sum truth of a class
    The mean of the first two is over pairs, of the others over classes.
    """
    pairs = _dice(inter, truth, pred, empty)  # (N, C)
    present = truth > 0
    I, T, P = (np.asarray(n, np.int64).sum(axis=0) for n in (inter, truth, pred))  # (C,)
    nothing = T + P == 0
    per_class = {
        "dice_dataset": _dice(I, T, P, empty),
        "iou": _ratio(I, T + P - I, nothing, empty),
        "precision": _ratio(I, P, nothing, empty),
        "recall": _ratio(I, T, nothing, empty),
    }
    shown = [_mean(pairs[:, c][present[:, c]]) for c in range(pairs.shape[1])]
    return {
        "dice_pairs": (pairs.mean(axis=0).tolist() if len(pairs) else shown, _mean(pairs)),
        "dice_present": (shown, _mean(pairs[present])),
        **{name: (v.tolist(), _mean(v)) for name, v in per_class.items()},
    }


def _mean(values):
    return float(values.mean()) if values.size else None


def roc_auc(y, p):
    """Chance that a positive's score is above a negative's, ties counting half.

    y (N,) of 0/1, p (N,) finite scores. Raises ValueError where y holds one value only or p is
    not finite: the area is undefined there.
    """
    y, p = np.asarray(y).astype(bool), np.asarray(p, np.float64)
    if y.shape != p.shape or y.ndim != 1:
        raise ValueError(f"y and p are (N,) both, got {y.shape} and {p.shape}")
    if not np.isfinite(p).all():
        raise ValueError("scores must be finite")
    positives, negatives = int(y.sum()), int((~y).sum())
    if not positives or not negatives:
        raise ValueError(f"{positives} positives and {negatives} negatives: both are needed")
    _, group, size = np.unique(p, return_inverse=True, return_counts=True)
    rank = (np.cumsum(size) - (size - 1) / 2)[group]  # ties share their mean rank, from 1
    return float((rank[y].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def threshold_counts(maps, truth, thresholds):
    """Pixels of maps >= t and those of them in truth, for every t at once.

    maps (C, H, W), truth bool (C, H, W), thresholds (T,) ascending -> inter, pred int (C, T).
    """
    C, T = len(maps), len(thresholds)
    thresholds = np.asarray(thresholds, maps.dtype)  # as `map >= threshold` compares them
    # Pixel value v passes thresholds[0..level-1]; counting from the top down gives map >= t.
    level = np.searchsorted(thresholds, maps.reshape(C, -1), side="right")  # (C, H * W)
    level += np.arange(C)[:, None] * (T + 1)
    inside = truth.reshape(C, -1)

    def above(levels):
        n = np.bincount(levels, minlength=C * (T + 1)).reshape(C, T + 1)
        return n[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]

    return above(level[inside]), above(level.ravel())


def search(inter, pred, truth, probs, grid, objective="dice_pairs"):
    """The paper's three parameters (section V) that score best on the images given.

    inter, pred (N, C, T) from threshold_counts at grid["threshold"]; truth, probs (N, C); grid
    also holds the lists "confidence" and "min_seg_len". The first best in grid order wins.
    Returns ({"confidence", "min_seg_len", "threshold"}, score).
    """
    best, best_score = None, -1.0
    for t, confidence, min_seg_len in itertools.product(
            range(len(grid["threshold"])), grid["confidence"], grid["min_seg_len"]):
        I, P = gated(inter[:, :, t], pred[:, :, t], probs, confidence, min_seg_len)
        score = mask_scores(I, truth, P)[objective][1]
        if score is not None and score > best_score:
            best_score = score
            best = {"confidence": confidence, "min_seg_len": min_seg_len,
                    "threshold": grid["threshold"][t]}
    if best is None:
        raise ValueError(f"{objective} is undefined on these images: no pair has a true mask")
    return best, best_score


def gated(inter, pred, probs, confidence, min_seg_len):
    """Counts (N, C) after both gates: class accepted, and mask not too small (DEV-13)."""
    keep = (probs >= confidence) & (pred >= min_seg_len)
    return inter * keep, pred * keep


def cross_fit(inter, pred, truth, probs, folds, grid, objective="dice_pairs"):
    """Parameters for each fold, chosen on the other folds only (DEV-10): {fold: parameters}."""
    chosen = {}
    for k in np.unique(folds).tolist():
        rest = folds != k
        chosen[k] = search(inter[rest], pred[rest], truth[rest], probs[rest], grid, objective)[0]
    return chosen
