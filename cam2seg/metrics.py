"""Scores of masks and of probabilities in NumPy. Every score is computed from counts over the whole
set of images, and is never a mean of the scores of batches.

Notation: N images, C classes. A pair is an image with a class. inter, truth and pred (N, C) count
the pixels of each pair: those in both masks, those in the true mask, those in the predicted mask.
Where both masks are empty, a ratio of counts is 0/0 and is given the value `empty`, which is 1 by
[P-6]. Where only one of them is empty, a ratio that is 0/0, such as the precision of an empty
prediction, is given the value 0.

    >>> dice(np.array([1, 1, 0]), np.array([0, 1, 1]))
    0.5
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from .masks import checked_runs, overlap, union

SCORES = ("dice_pairs", "dice_present", "dice_dataset", "iou", "precision", "recall")
Scores = dict[str, tuple[list[float | None], float | None]]  # name: values of the classes, mean
Rles, Sizes = Mapping[tuple[str, int], str], Mapping[str, tuple[int, int]]  # see mask_counts


def dice(truth: np.ndarray, pred: np.ndarray, empty: float = 1.0) -> float:
    """Dice of two masks: 2 #(T and P) / (#T + #P), or `empty` where both are empty  ([P-6]).

    Raises ValueError where the masks differ in shape.
    """
    truth, pred = np.asarray(truth, bool), np.asarray(pred, bool)
    if truth.shape != pred.shape:
        raise ValueError(f"masks differ in shape: {truth.shape} and {pred.shape}")
    return float(_dice((truth & pred).sum(), truth.sum(), pred.sum(), empty))


def _dice(inter, truth, pred, empty):
    """Dice of each element of three arrays of counts."""
    return _ratio(2 * inter, truth + pred, truth + pred == 0, empty)


def _ratio(numerator, denominator, both_empty, empty):
    """numerator / denominator of counts, `empty` where `both_empty`, and 0 at any other 0/0."""
    a, b = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    out = np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape), where=b != 0)
    return np.where(both_empty, empty, out)


def mask_counts(names: Sequence[str], truth: Rles, pred: Rles, sizes: Sizes,
                classes: int) -> np.ndarray:
    """The counts inter, truth and pred of all pairs, in pixels, as int64 (3, N, C).

    `truth` and `pred` map (image name, class index) to run lengths; a pair without an entry has an
    empty mask. `sizes` maps each of the N names to its (H, W), and `classes` is C. The counts come
    from the runs, and no mask is drawn. Raises ValueError as masks.checked_runs does.
    """
    out = np.zeros((3, len(names), classes), np.int64)
    for i, name in enumerate(names):
        for c in range(classes):
            t, p = (rles.get((name, c), "") for rles in (truth, pred))
            if t or p:
                out[:, i, c] = _counts(checked_runs(t, sizes[name]), checked_runs(p, sizes[name]))
    return out


def _counts(t, p):
    """The counts inter, truth and pred of one pair, from the runs (n, 2) of its two masks."""
    return overlap(t, p), t[:, 1].sum(), p[:, 1].sum()


def counts_with_background(names: Sequence[str], truth: Rles, pred: Rles, sizes: Sizes,
                           classes: int) -> np.ndarray:
    """The counts of mask_counts after those of the background, number 0: int64 (3, N, 1 + C).

    The background are the pixels that are in no mask of the image. Parameters and errors are as in
    mask_counts.
    """
    out, nothing = np.zeros((3, len(names), 1 + classes), np.int64), np.zeros((0, 2), np.int64)
    for i, name in enumerate(names):
        t, p = ({c: checked_runs(text, sizes[name]) for c in range(classes)
                 if (text := rles.get((name, c)))} for rles in (truth, pred))
        for c in {*t, *p}:
            out[:, i, 1 + c] = _counts(t.get(c, nothing), p.get(c, nothing))
        inter, T, P = _counts(*(union(np.concatenate([*m.values()])) if len(m) > 1 else
                                next(iter(m.values()), nothing) for m in (t, p)))
        out[:, i, 0] = sizes[name][0] * sizes[name][1] - np.array([T + P - inter, T, P])
    return out


def mask_scores(inter: np.ndarray, truth: np.ndarray, pred: np.ndarray,
                empty: float = 1.0) -> Scores:
    """The scores of the counts (N, C) as {name: (list of C values, one mean)}.

    dice_pairs    mean of Dice over all pairs                                         [P-6]
    dice_present  mean of Dice over the pairs that have a true mask                   (DEV-9)
    dice_dataset  2 sum inter / (sum truth + sum pred), sums over the images
    iou           sum inter / (sum truth + sum pred - sum inter)
    precision     sum inter / sum pred
    recall        sum inter / sum truth
    The list has a value for each class. The mean beside it is over the pairs of all classes for the
    first two scores, and over the list for the others. A mean over nothing is None.
    """
    pairs = _dice(inter, truth, pred, empty)  # (N, C)
    present = truth > 0
    I, T, P = (np.asarray(n, np.int64).sum(axis=0) for n in (inter, truth, pred))  # (C,)
    both_empty = T + P == 0
    per_class = {
        "dice_dataset": _dice(I, T, P, empty),
        "iou": _ratio(I, T + P - I, both_empty, empty),
        "precision": _ratio(I, P, both_empty, empty),
        "recall": _ratio(I, T, both_empty, empty),
    }
    shown = [_mean(pairs[:, c][present[:, c]]) for c in range(pairs.shape[1])]
    return {
        "dice_pairs": (pairs.mean(axis=0).tolist() if len(pairs) else shown, _mean(pairs)),
        "dice_present": (shown, _mean(pairs[present])),
        **{name: (v.tolist(), _mean(v)) for name, v in per_class.items()},
    }


def confusion(truth: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """The matrix n_km, int64 (1 + C, 1 + C): how many pixels are k in truth and m in prediction.

    truth, pred: bool (C, H, W), the masks of one image. Number 0 is the background, and class c has
    number c + 1. Pixels in the true masks of two classes are not counted (DEV-67). In a prediction
    the first class of a pixel counts.
    """
    single, K = truth.sum(axis=0) < 2, len(truth) + 1
    k, m = (np.where(x.any(axis=0), x.argmax(axis=0) + 1, 0)[single] for x in (truth, pred))
    return np.bincount(K * k + m, minlength=K * K).reshape(K, K)


def pixel_accuracy(n: np.ndarray) -> float | None:
    """sum_k n_kk / sum_km n_km of a matrix of `confusion`; None without a pixel.    [C-36]"""
    return float(n.trace() / n.sum()) if n.sum() else None


def class_iou(n: np.ndarray) -> list[float | None]:
    """n_kk / (sum_m n_km + sum_m n_mk - n_kk) of background and classes.    [C-36]

    None for a class that is neither in the truth nor in the prediction.
    """
    union = n.sum(axis=0) + n.sum(axis=1) - n.diagonal()
    return [float(i / u) if u else None for i, u in zip(n.diagonal(), union, strict=True)]


def iou_with_background(counts: np.ndarray) -> tuple[list[float | None], float | None]:
    """IoU of background and classes over all pixels of all images, [1 + C], and their mean, which
    is the mIoU of a data set.    [C-42]

    I_k / (T_k + P_k - I_k), each summed over the images; k = 0 is the background

    counts: (3, N, 1 + C) of counts_with_background. A class that is neither in the truth nor in
    the prediction has None, and the mean leaves it out. Where masks overlap, a pixel counts for
    each of its classes, while [C-36] gives it to one.
    """
    values = [float(I / (T + P - I)) if T + P else None for I, T, P in counts.sum(axis=1).T]
    return values, _mean(np.array([v for v in values if v is not None]))


def _mean(values):
    """The mean of an array, None where it has no element."""
    return float(values.mean()) if values.size else None


def roc_auc(y: np.ndarray, p: np.ndarray) -> float:
    """The area under the ROC curve: how likely a positive image has a higher score than a negative
    one, where a tie counts one half.

    y (N,) holds 0 or 1 for each image, and p (N,) its score. The area is undefined, and ValueError
    is raised, where y holds only one of the two values or where a score is not finite; also where
    the shapes are others.
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
    rank = (np.cumsum(size) - (size - 1) / 2)[group]  # from 1; ties share their mean rank
    return float((rank[y].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def class_aucs(y: np.ndarray, p: np.ndarray) -> list[float | None]:
    """roc_auc of each class, from labels y and scores p, (N, C) both.

    None for a class that all images have, or none.
    """
    return [roc_auc(y[:, c], p[:, c]) if 0 < y[:, c].sum() < len(y) else None
            for c in range(y.shape[1])]


def threshold_counts(maps: np.ndarray, truth: np.ndarray,
                     thresholds: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The counts inter and pred, int (C, T) each, of the masks of one image at T thresholds.

    The mask at threshold t holds the pixels with map >= t. `maps` is float (C, H, W), `truth` is
    bool (C, H, W).
    """
    # Plain comparisons are seven times as fast as one histogram of the levels that the pixels reach,
    # because one instruction serves many pixels. They compare as masks.binarize does.
    def above(values):
        return [np.count_nonzero(values >= t) for t in np.asarray(thresholds, maps.dtype)]

    inter = [above(m[t]) for m, t in zip(maps, truth, strict=True)]
    return np.array(inter), np.array([above(m) for m in maps])


def search(inter: np.ndarray, pred: np.ndarray, truth: np.ndarray, probs: np.ndarray,
           grid: Mapping[str, Sequence[float]],
           objective: str = "dice_pairs") -> tuple[dict[str, float], float]:
    """The three parameters of [P] section V that score best on the images given, and that score.

    `grid` holds the values to try under "confidence", "min_seg_len" and "threshold"; every
    combination is tried. `inter` and `pred` (N, C, T) are those of threshold_counts for each image
    at the T thresholds of the grid. `truth` (N, C) counts pixels, `probs` (N, C) are
    probabilities. `objective` is a name of SCORES, of which the mean is compared. Of combinations
    with equal scores the first one wins; the order is that of the thresholds, then that of the
    confidences, then that of the areas.
    Returns ({"confidence", "min_seg_len", "threshold"}, score). Raises ValueError where the
    objective is undefined for every combination.
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


def gated(inter: np.ndarray, pred: np.ndarray, probs: np.ndarray, confidence: float,
          min_seg_len: float) -> tuple[np.ndarray, np.ndarray]:
    """The counts inter and pred (N, C) once two kinds of masks are emptied: those of a class with a
    probability below `confidence`, and those of fewer than `min_seg_len` pixels (DEV-13)."""
    keep = (probs >= confidence) & (pred >= min_seg_len)
    return inter * keep, pred * keep


def cross_fit(inter: np.ndarray, pred: np.ndarray, truth: np.ndarray, probs: np.ndarray,
              folds: np.ndarray, grid: Mapping[str, Sequence[float]],
              objective: str = "dice_pairs") -> dict[int, dict[str, float]]:
    """For each fold the parameters that `search` finds on the images of all other folds (DEV-10).

    `folds` (N,) is the fold of each image; the other arguments are those of `search`. Returns
    {fold: {"confidence", "min_seg_len", "threshold"}}. Raises ValueError as `search` does.
    """
    chosen = {}
    for k in np.unique(folds).tolist():
        rest = folds != k
        chosen[k] = search(inter[rest], pred[rest], truth[rest], probs[rest], grid, objective)[0]
    return chosen
