"""The scores of mask files against true masks, as the scripts write them to metrics.json.

rles are run lengths {(name, class index): text}, and sizes are {name: (H, W)}. Nothing here loads
torch.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .. import masks, metrics
from ..methods import class_sets
from ..runs.progress import Progress


def of_made_masks(title: str, work: Any, rles: Mapping[tuple[str, int], str],
                  areas: np.ndarray) -> dict:
    """What metrics.json says of a mask file of make_masks.py, with scores where truth is known.

    title: name of the file; work: the Work of make_masks.py; areas: int (N, C), the pixels of each
    mask.
    """
    pixels = sum(h * w for h, w in map(work.sizes.get, work.names))
    result = {"masks": title, "images": len(work.names), "made": (areas > 0).sum(axis=0).tolist(),
              "area_fraction": (areas.sum(axis=0) / pixels).tolist()}
    known = work.labels
    if known is not None:
        result["labelled"] = known.y.sum(axis=0, dtype=int).tolist()
        result["labelled_but_empty"] = ((known.y > 0) & (areas == 0)).sum(axis=0).tolist()
    if known is not None and known.rles is not None:
        shown = [n for n, defect in zip(work.names, known.y.any(axis=1), strict=True) if defect]
        counts = metrics.mask_counts(shown, known.rles, rles, work.sizes, len(work.classes))
        result["with_defect"] = len(shown)  # [P] III
        result["scores"] = metrics.mask_scores(*counts)
        result["all_empty"] = metrics.mask_scores(counts[0] * 0, counts[1], counts[2] * 0)
    return result


def table3(names: Sequence[str], work: Any, rows: Mapping[str, Mapping]) -> dict:
    """The scores {title: scores} of the rows of Table 3 over the named images with a defect, and
    how many these are.

    work: the Work of train_seg.py; rows: {title: run lengths}.
    """
    true, C = work.truth.rles, len(work.given.classes)
    defect = [n for n in names if any((n, c) in true for c in range(C))]
    return {"images_with_defect": len(defect),
            "table3": {title: metrics.mask_scores(*metrics.mask_counts(
                defect, true, rles, work.sizes, C)) for title, rles in rows.items()}}


def of_pixels(names: Sequence[str], work: Any, rows: Mapping[str, Mapping]) -> dict[str, dict]:
    """The pixel accuracy and the IoU of background and classes of each row of Table 3, over all
    pixels of the named images. Parameters are as in table3."""
    found = {}
    for title, rles in rows.items():
        n = sum(metrics.confusion(*(masks.decode_all(r, name, work.sizes[name],
                                                     len(work.given.classes))
                                    for r in (work.truth.rles, rles))) for name in names)
        found[title] = {"pixel_accuracy": metrics.pixel_accuracy(n), "iou": metrics.class_iou(n)}
    return found


def whole_images(rles: Mapping[tuple[str, int], str],
                 sizes: Mapping[str, tuple[int, int]]) -> dict[tuple[str, int], str]:
    """Run lengths of the full image for every pair of image and class that has a mask."""
    return {key: f"1 {sizes[key[0]][0] * sizes[key[0]][1]}" for key in rles}


def count_pixels(title: str, work: Any, rles: Mapping[tuple[str, int], str],
                 report: Callable) -> np.ndarray:
    """Counts int (3, N, 1 + C) of metrics.counts_with_background, a hundred images at a time.

    work: the Work of evaluate.py.
    """
    truth, parts = work.truth, []
    clock = Progress(len(truth.names), f"scoring {title}", report)
    for start in range(0, len(truth.names), 100):
        names = truth.names[start:start + 100]
        parts.append(metrics.counts_with_background(names, truth.rles, rles, work.sizes,
                                                    len(truth.classes)))
        clock.add(len(names))
    return np.concatenate(parts, axis=1)


def of_counts(counts: np.ndarray, fold: np.ndarray) -> dict:
    """What metrics.json of evaluate.py says of one mask file.

    counts: int (3, N, 1 + C) of count_pixels; fold: int (N,) as in by_fold.
    """
    values, mean = metrics.iou_with_background(counts)
    classes = counts[:, :, 1:]
    return {"scores": metrics.mask_scores(*classes), "folds": by_fold(classes, fold),
            "iou_with_background": {"background": values[0], "classes": values[1:],
                                    "mean": mean}}


def by_fold(counts: np.ndarray, fold: np.ndarray) -> dict[str, dict]:
    """Scores of each fold by itself: {score: {"folds": {fold: mean}, "mean", "sd"}}.

    counts: int (3, N, C); fold: int (N,). sd is the standard deviation over folds with n - 1.
    Without folds, which are then all -1, the result is {}.
    """
    ks = [k for k in sorted(set(fold.tolist())) if k >= 0]
    if not ks:
        return {}
    scores = {k: metrics.mask_scores(*counts[:, fold == k]) for k in ks}
    out = {}
    for name in metrics.SCORES:
        values = [scores[k][name][1] for k in ks]
        known = np.array([v for v in values if v is not None])
        out[name] = {"folds": dict(zip(map(str, ks), values, strict=True)),
                     "mean": float(known.mean()) if len(known) else None,
                     "sd": float(known.std(ddof=1)) if len(known) > 1 else None}
    return out


def class_rules(y: np.ndarray, classes: Sequence[str], largest: int) -> list[dict]:
    """The rules [K-3] of sets of up to `largest` classes, with the names of the classes.

    y: the labels, uint8 (M, C).
    """
    def names(of):
        return [classes[c] for c in of]

    return [{"if": names(A), "then": names(B), "images": n, "support": support,
             "confidence": confidence, "lift": lift} for A, B, n, support, confidence, lift
            in class_sets.class_rules(y, largest)]
