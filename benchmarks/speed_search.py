"""Rows of benchmarks/speed.py: the counts at all thresholds, and the search over them."""

import time
from types import SimpleNamespace

import numpy as np
from speed import in_turn, row
from speed_masks import SIZE, blobs

from cam2seg import cam, masks, metrics
from cam2seg.training import map_masks

IMAGES, SEVERSTAL, FOLDS = 60, 12568, 5
GRID = {"threshold": [round(0.05 * n, 2) for n in range(1, 20)],
        "confidence": [round(0.1 * n, 1) for n in range(10)],
        "min_seg_len": [0, 409, 819, 2048, 4096, 8192, 20480]}


def drawn(rng):
    """Stored maps float16 (N, 4, 8, 50), true masks as run lengths, and probabilities (N, 4)."""
    maps = rng.random((IMAGES, 4, 8, 50)).astype(np.float16) ** 4
    rles = {(f"{i}.jpg", c): masks.rle_encode(blobs(rng))
            for i in range(IMAGES) for c in range(4) if rng.random() < 0.13}
    return maps, rles, rng.random((IMAGES, 4))


def plain(full, true, threshold):
    """The counts inter and pred (C,) of one image at one threshold."""
    mask = full >= np.float32(threshold)
    return (mask & true).sum(axis=(1, 2)), mask.sum(axis=(1, 2))


def rows(args):
    rng = np.random.default_rng(0)
    maps, rles, probs = drawn(rng)
    names = [f"{i}.jpg" for i in range(IMAGES)]
    full = [cam.numpy_maps(m, SIZE) for m in maps[:8]]
    true = [masks.decode_all(rles, n, SIZE, 4) for n in names[:8]]
    work = SimpleNamespace(names=names, maps=maps, sizes=dict.fromkeys(names, SIZE),
                           classes=list("1234"), labels=SimpleNamespace(rles=rles))
    flags = SimpleNamespace(norm="minmax", norm_after=False)
    s = in_turn({
        "all": lambda: [metrics.threshold_counts(f, t, GRID["threshold"])
                        for f, t in zip(full, true, strict=True)],
        "one": lambda: [plain(f, t, 0.3) for f, t in zip(full, true, strict=True)],
        "stage": lambda: map_masks.counts_at_thresholds(flags, work, GRID["threshold"],
                                                        lambda *a, **k: None)}, args.rounds)
    counts = map_masks.counts_at_thresholds(flags, work, GRID["threshold"], lambda *a, **k: None)
    many = [np.resize(n, (SEVERSTAL, *n.shape[1:])) for n in (*counts, probs)]
    start = time.process_time()
    metrics.search(*(n[:, :, :1] for n in many[:2]), *many[2:], {**GRID, "threshold": [0.05]})
    # Each of the 19 thresholds costs the same, and each fold is chosen on 4/5 of the images.
    union = (time.process_time() - start) * len(GRID["threshold"])
    search = union * (1 + FOLDS * (FOLDS - 1) / FOLDS)
    a = SEVERSTAL / IMAGES
    return [
        row("counts of an image, 19 thresholds x 7 areas x 10 confidences", "one plain threshold",
            s["all"] / 8 + union / SEVERSTAL, s["one"] / 8, 5),
        row(f"whole search on 12,568 images, union and 5 folds (counts times {a:.0f})",
            "3 minutes on each of two cores", s["stage"] * a + search, 360, 1)]
