"""From activation maps to masks: the threshold, the two gates and the search (paper's section V).

`args` are the flags of make_masks.py, and `work` is its Work: names, labels, sizes and folds of the
images, their maps (N, C, h, w) and the gate (N, C), which accepts a class where it reaches the
confidence.
"""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from .. import cam, masks, metrics
from ..methods import contrast, label_choice
from ..runs.progress import Progress


def searched_parameters(args: argparse.Namespace, work: Any,
                        report: Callable) -> dict[str, dict[int, dict]]:
    """The three parameters that true masks choose: {title: {fold: parameters}}  (DEV-10).

    "masks_union": chosen on all images with a defect ([P] III). "masks_crossfit": for each fold,
    chosen on the other folds.
    """
    rows = work.labels.y.any(axis=1)
    grid = search_grid(args, work.sizes)
    counts = counts_at_thresholds(args, work, grid["threshold"], report)
    counts = [n[rows] for n in (*counts, work.gate, work.fold)]
    best, _ = metrics.search(*counts[:4], grid, args.objective)
    crossed = metrics.cross_fit(*counts, grid, args.objective)
    everywhere = set(work.fold.tolist())
    return {"masks_union": dict.fromkeys(everywhere, best),
            "masks_crossfit": {k: crossed.get(k, best) for k in everywhere}}


def label_parameters(args: argparse.Namespace, work: Any,
                     report: Callable) -> dict[str, dict[int, dict]]:
    """The three parameters that the labels choose, without any true mask: {title: {fold: ...}}.

    Threshold [C-14], confidence [C-16] and least area [C-17] are common to all classes and folds,
    as the paper's are. With --gate labels the label itself is the gate, so that no confidence is
    chosen.
    """
    y, grid = work.labels.y.astype(bool), search_grid(args, work.sizes)
    thresholds = []
    clock = Progress(2 * len(work.names), "search by labels", report)
    for i, name in enumerate(work.names):
        full = cam.numpy_maps(work.maps[i], work.sizes[name], args.norm, args.norm_after)
        thresholds += [contrast.otsu(full[c]) for c in np.flatnonzero(y[i])]
        clock.add(1)
    threshold = label_choice.choose_threshold(np.array(thresholds))
    areas = np.zeros(y.shape, np.int64)
    for i, name in enumerate(work.names):
        full = cam.numpy_maps(work.maps[i], work.sizes[name], args.norm, args.norm_after)
        areas[i] = (full >= threshold).sum(axis=(1, 2))
        clock.add(1)
    chosen = {"confidence": 0.5 if args.gate == "labels" else
              label_choice.choose_confidence(y, work.gate, grid["confidence"]),
              "min_seg_len": label_choice.choose_area(y, areas, grid["min_seg_len"]),
              "threshold": threshold}
    return {"masks_labels": dict.fromkeys(set(work.fold.tolist()), chosen)}


def search_grid(args: argparse.Namespace, sizes: Mapping[str, tuple[int, int]]) -> dict[str, list]:
    """The values that --search tries (DEV-30). Areas are parts of the median image's area."""
    area = float(np.median([h * w for h, w in sizes.values()]))
    confidence = [round(0.1 * n, 1) for n in range(10)] if args.gate == "confidence" else [0.5]
    return {"threshold": [round(0.05 * n, 2) for n in range(1, 20)], "confidence": confidence,
            "min_seg_len": [round(area * part) + args.strict_len
                            for part in (0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)]}


def counts_at_thresholds(args: argparse.Namespace, work: Any, thresholds: Sequence[float],
                         report: Callable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixel counts inter, pred (N, C, T) and truth (N, C) for all T thresholds in one pass."""
    inter, pred, truth = [], [], []

    def count(i):
        size = work.sizes[work.names[i]]
        true = masks.decode_all(work.labels.rles, work.names[i], size, len(work.classes))
        full = cam.numpy_maps(work.maps[i], size, args.norm, args.norm_after)
        return *metrics.threshold_counts(full, true, thresholds), true.sum(axis=(1, 2))

    clock = Progress(len(work.names), "search", report)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # NumPy compares without the GIL
        for both in pool.map(count, range(len(work.names))):
            for counts, found in zip((inter, pred, truth), both, strict=True):
                counts.append(found)
            clock.add(1)
    return np.array(inter), np.array(pred), np.array(truth)


def make_masks(args: argparse.Namespace, work: Any, chosen: Mapping[int, dict],
               clock: Progress) -> dict[tuple[str, int], str]:
    """Run lengths {(name, class index): text}  ([P] V).

    chosen: {fold: {"confidence", "min_seg_len", "threshold"}}. A class that the gate accepts gets
    the mask of its map. Masks of two classes may overlap (DEV-29).
    """
    rles = {}
    for i, (name, small) in enumerate(zip(work.names, work.maps, strict=True)):
        use = chosen[int(work.fold[i])]
        full = cam.numpy_maps(small, work.sizes[name], args.norm, args.norm_after)
        for c in np.flatnonzero(work.gate[i] >= use["confidence"]).tolist():
            mask = masks.binarize(full[c], use["threshold"], use["min_seg_len"])
            rles[name, c] = masks.rle_encode(mask)
        clock.add(1)
    return rles
