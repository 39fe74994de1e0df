"""Binary masks in NumPy: run lengths and thresholding. True = defect, sizes are (H, W).

Run lengths are those of Kaggle's Severstal files: 1-based start/length pairs, counted column by
column (down the first column, then the second). [P-n]: Sydorskyi 2022, see AUDIT.md.

    >>> rle_encode(np.array([[0, 1], [1, 1]], bool))
    '2 3'
    >>> rle_decode("2 3", (2, 2)).astype(int).tolist()
    [[0, 1], [1, 1]]
"""

import re

import numpy as np

# int() also takes "1_000" and other scripts' digits, which no other reader of the format does.
WHOLE = re.compile(r"-?[0-9]{1,18}")


def rle_encode(mask):
    """Run lengths of a mask (H, W), "" where it is empty. Raises ValueError unless 2-D."""
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"a mask is (H, W), got shape {mask.shape}")
    flat = np.zeros(mask.size + 2, np.int8)
    flat[1:-1] = mask.T.ravel() != 0  # column by column
    edges = np.flatnonzero(np.diff(flat)) + 1  # starts and one-past-ends in turn, 1-based
    edges[1::2] -= edges[::2]
    return " ".join(map(str, edges.tolist()))


def rle_decode(rle, size):
    """Mask bool (H, W) of run lengths; raises ValueError as checked_runs does."""
    H, W = size
    runs = checked_runs(rle, size)
    steps = np.zeros(H * W + 1, np.int8)
    steps[runs[:, 0] - 1] += 1
    steps[runs[:, 0] - 1 + runs[:, 1]] -= 1  # cancels the start of a run that touches this one
    return np.cumsum(steps[:-1], dtype=np.int8).astype(bool).reshape(W, H).T


def checked_runs(rle, size):
    """Runs (n, 2) of 1-based start and length, checked against the image's (H, W).

    Raises ValueError, saying which run, for an odd number of values, a value that is no whole
    number, a length or start below 1, runs that overlap or go backwards, and a run that ends
    beyond H * W.
    """
    H, W = size
    values = rle.split()
    wrong = [v for v in values if not WHOLE.fullmatch(v)]
    if wrong:
        raise ValueError(f"'{wrong[0][:20]}' is not a whole number")
    if len(values) % 2:
        raise ValueError(f"{len(values)} values, expected start/length pairs")
    runs = np.array(values, np.int64).reshape(-1, 2)
    ends = runs.sum(axis=1)  # one past the last pixel, 1-based
    bad = np.flatnonzero((runs < 1).any(axis=1))
    if bad.size:
        raise ValueError(f"run {_show(runs, bad[0])}: start and length are 1 or more")
    bad = np.flatnonzero(runs[1:, 0] < ends[:-1]) + 1
    if bad.size:
        raise ValueError(f"run {_show(runs, bad[0])} starts before the run ahead of it ends")
    if len(runs) and ends[-1] > H * W + 1:
        raise ValueError(f"run {_show(runs, -1)} ends beyond the image's {H} x {W} pixels")
    return runs


def _show(runs, row):
    return f"'{runs[row, 0]} {runs[row, 1]}'"


def binarize(map, threshold, min_seg_len=0):
    """Mask bool (H, W) of a map (H, W): pixels at `threshold` or above, all or nothing by area.

    A mask of fewer than `min_seg_len` pixels is dropped whole (paper's section V; DEV-13: the
    paper does not say per mask or per component, nor whether the bound itself is kept).
    """
    # DEV-20: the bound itself counts; compared in the dtype of the map, as threshold_counts does
    mask = np.asarray(map) >= float(threshold)
    return mask if mask.sum() >= min_seg_len else np.zeros_like(mask)


def decode_all(rles, name, size, classes):
    """Masks bool (C, H, W) of one image from {(name, class index): run lengths}; absent = empty."""
    return np.stack([rle_decode(rles.get((name, c), ""), size) for c in range(classes)])
