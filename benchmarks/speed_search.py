"""Rows of benchmarks/speed.py: the counts at all thresholds, and the search over them."""

import os
import time
from types import SimpleNamespace

import numpy as np
from speed import in_turn, row
from speed_masks import SEVERSTAL, SIZE, blobs

from cam2seg import cam, masks, metrics
from cam2seg.runs.progress import silent
from cam2seg.training import map_masks

IMAGES, FOLDS, CLASSES = 60, 5, 4
FLAGS = SimpleNamespace(norm="minmax", norm_after=False, gate="confidence", strict_len=False,
                        objective="dice_pairs")


def drawn(rng, count):
    """The part of make_masks.py's Work that --search reads, for this many images: stored maps
    float16 (N, 4, 8, 50), labels, true masks as run lengths, probabilities (N, 4) and folds.

    IMAGES images are drawn, and the others repeat them.
    """
    maps = rng.random((IMAGES, CLASSES, 8, 50)).astype(np.float16) ** 4
    texts = [[masks.rle_encode(blobs(rng)) if rng.random() < 0.13 else "" for _ in range(CLASSES)]
             for _ in range(IMAGES)]
    names = [f"{i}.jpg" for i in range(count)]
    rles = {(name, c): text for i, name in enumerate(names)
            for c, text in enumerate(texts[i % IMAGES]) if text}
    y = np.array([[bool(t) for t in texts[i % IMAGES]] for i in range(count)], np.uint8)
    return SimpleNamespace(names=names, maps=np.resize(maps, (count, *maps.shape[1:])),
                           sizes=dict.fromkeys(names, SIZE), classes=list("1234"),
                           labels=SimpleNamespace(rles=rles, y=y), gate=rng.random(y.shape),
                           fold=np.arange(count) % FOLDS)


def plain(full, true, threshold):
    """The counts inter and pred (C,) of one image at one threshold."""
    mask = full >= np.float32(threshold)
    return (mask & true).sum(axis=(1, 2)), mask.sum(axis=(1, 2))


def rows(args):
    work = drawn(np.random.default_rng(0), SEVERSTAL)
    grid = map_masks.search_grid(FLAGS, work.sizes)
    full = [cam.numpy_maps(m, SIZE) for m in work.maps[:8]]
    true = [masks.decode_all(work.labels.rles, n, SIZE, CLASSES) for n in work.names[:8]]
    s = in_turn({
        "all": lambda: [metrics.threshold_counts(f, t, grid["threshold"])
                        for f, t in zip(full, true, strict=True)],
        "one": lambda: [plain(f, t, 0.3) for f, t in zip(full, true, strict=True)]}, args.rounds)
    few = drawn(np.random.default_rng(0), IMAGES)
    counts = map_masks.counts_at_thresholds(FLAGS, few, grid["threshold"], silent)
    counts = [np.resize(n, (SEVERSTAL, *n.shape[1:])) for n in (*counts, few.gate)]
    union = in_turn({"search": lambda: metrics.search(*counts, grid)}, 1)["search"]
    clocks = time.process_time, time.perf_counter
    before = [clock() for clock in clocks]
    map_masks.searched_parameters(FLAGS, work, silent)
    seconds, wall = (clock() - start for clock, start in zip(clocks, before, strict=True))
    whole = f"whole search on {SEVERSTAL:,} images, all and {FOLDS} folds"
    return [
        row("counts of an image, 19 thresholds x 7 areas x 10 confidences", "one plain threshold",
            s["all"] / 8 + union / SEVERSTAL, s["one"] / 8, 5),
        row(whole, "3 minutes on each of two cores", seconds, 360, 1),
        row(f"{whole} (wall time, {os.cpu_count()} cores)", "3 minutes", wall, 180, 1)]
