"""Binary masks in NumPy: run lengths and thresholding. True means defect; sizes are (H, W).

Run lengths are written as in Kaggle's Severstal files: pairs of start and length. Pixels are
counted from 1, down the first column, then down the second, and so on. See AUDIT.md.

    >>> rle_encode(np.array([[0, 1], [1, 1]], bool))
    '2 3'
    >>> rle_decode("2 3", (2, 2)).astype(int).tolist()
    [[0, 1], [1, 1]]
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np

# int() would also take "1_000" and the digits of other scripts, which no other reader of the format
# accepts.
WHOLE = re.compile(r"-?[0-9]{1,18}")
PLAIN = re.compile(r"[0-9][0-9 ]*")  # what NumPy reads as int() would


def rle_encode(mask: np.ndarray) -> str:
    """The run lengths of a mask (H, W). An empty mask gives "".

    Every value but 0 counts as True. Raises ValueError where the mask is not 2-D.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise ValueError(f"a mask is (H, W), got shape {mask.shape}")
    H, W = mask.shape
    mask = mask if mask.dtype == bool else mask != 0
    # True where a pixel differs from the one before it, down the columns. The rows are compared as
    # they lie in memory, because turning the whole mask round costs more than sorting its edges.
    edge = np.empty((H, W), bool)
    np.not_equal(mask[1:], mask[:-1], out=edge[1:])
    np.not_equal(mask[:1, 1:], mask[-1:, :-1], out=edge[:1, 1:])
    edge[:1, :1] = mask[:1, :1]  # the first pixel has none before it
    row, column = np.divmod(np.flatnonzero(edge), max(W, 1))
    edges = np.sort(column * H + row + 1)  # by turns a start and one past an end
    if len(edges) % 2:
        edges = np.append(edges, H * W + 1)
    edges[1::2] -= edges[::2]  # one past an end becomes a length
    return (" %d" * len(edges) % tuple(edges.tolist()))[1:]


def rle_decode(rle: str, size: tuple[int, int]) -> np.ndarray:
    """The mask, bool (H, W), that run lengths describe for an image of size (H, W).

    Raises ValueError for the faults that checked_runs lists.
    """
    H, W = size
    start, length = checked_runs(rle, size).T
    edges = np.zeros(2 * len(start) + 2, np.int64)  # 0, start, end, start, end, ..., H * W
    edges[1:-1:2] = start - 1
    edges[2:-1:2] = start - 1 + length
    edges[-1] = H * W
    inside = np.arange(len(edges) - 1) % 2 == 1
    return np.repeat(inside, np.diff(edges)).reshape(W, H).T


def checked_runs(rle: str, size: tuple[int, int]) -> np.ndarray:
    """The runs as int64 (n, 2), start and length, after a check against the image's size (H, W).

    Raises ValueError for an odd number of values, for a value that is not a whole number, for a
    start or length below 1, for runs that overlap or go backwards, and for a run that ends beyond
    H * W. The message quotes the value or the run.
    """
    H, W = size
    # What rle_encode writes is read in one step. Numbers of more than 18 digits could overflow.
    values = np.fromstring(rle, np.int64, sep=" ") if PLAIN.fullmatch(rle) else None
    if values is None or values.max() >= 10**18:
        words = rle.split()
        wrong = [word for word in words if not WHOLE.fullmatch(word)]
        if wrong:
            raise ValueError(f"'{wrong[0][:20]}' is not a whole number")
        values = np.array(words, np.int64)
    if len(values) % 2:
        raise ValueError(f"{len(values)} values, expected start/length pairs")
    runs = values.reshape(-1, 2)
    ends = runs[:, 0] + runs[:, 1]  # one past the last pixel, 1-based
    if len(runs) and values.min() < 1:
        bad = (runs < 1).any(axis=1).argmax()
        raise ValueError(f"run {_show(runs, bad)}: start and length are 1 or more")
    early = runs[1:, 0] < ends[:-1]
    if early.any():
        raise ValueError(f"run {_show(runs, early.argmax() + 1)} starts before the run ahead of it "
                         "ends")
    if len(runs) and ends[-1] > H * W + 1:
        raise ValueError(f"run {_show(runs, -1)} ends beyond the image's {H} x {W} pixels")
    return runs


def overlap(a: np.ndarray, b: np.ndarray) -> int:
    """How many pixels two masks share, from their runs int64 (n, 2) and (m, 2); see checked_runs.

    F(x) counts the pixels of b before the pixel x. A run of a from x to y shares F(y) - F(x) with
    b. No mask is drawn, so that the cost is that of the runs and not of the image.
    """
    if not (len(a) and len(b)):
        return 0
    start, length = b.T.copy()  # columns of their own are read faster
    before, end = (np.concatenate([[0], n]) for n in (length.cumsum(), start + length))

    def F(x):
        k = np.searchsorted(start, x, side="right")  # runs of b that start before x, or at it
        return before[k] - np.maximum(end[k] - x, 0)  # less what the last of them has after x

    return int((F(a[:, 0] + a[:, 1]) - F(a[:, 0])).sum())


def union(runs: np.ndarray) -> np.ndarray:
    """The runs of all pixels that at least one of the given runs has, int64 (K, 2), sorted and
    without overlap.

    runs: int64 (n, 2) of start and length in any order, as those of several masks together; see
    checked_runs.
    """
    runs = runs[runs[:, 0].argsort()]
    start, end = runs[:, 0], np.maximum.accumulate(runs.sum(axis=1))
    first = np.ones(len(runs), bool)  # a run of the result begins
    first[1:] = start[1:] > end[:-1]
    return np.stack([start[first], end[np.roll(first, -1)] - start[first]], axis=1)


def overlapping(names: Iterable[str], sizes: Mapping[str, tuple[int, int]], classes: Sequence[str],
                rles: Mapping[tuple[str, int], str]) -> list[str]:
    """The names of the images in which masks of two classes share pixels.

    sizes: {name: (H, W)}; rles: {(name, class index): run lengths}.
    """
    found = []
    for name in names:
        runs = [checked_runs(rles.get((name, c), ""), sizes[name]) for c in range(len(classes))]
        if any(overlap(*pair) for pair in combinations(runs, 2)):
            found.append(name)
    return found


def _show(runs, row):
    return f"'{runs[row, 0]} {runs[row, 1]}'"


def binarize(map: np.ndarray, threshold: float, min_seg_len: int = 0) -> np.ndarray:
    """The mask, bool (H, W), of a map (H, W): the pixels at `threshold` or above.

    A mask of fewer than `min_seg_len` pixels becomes empty as a whole ([P] section V). The paper
    does not say whether it means the mask or each of its components, nor whether a mask of exactly
    that area is kept; here it is (DEV-13).
    """
    # A pixel at the threshold itself is in (DEV-20). float() lets NumPy compare in the dtype of the
    # map, as metrics.threshold_counts does: both then agree on every pixel.
    mask = np.asarray(map) >= float(threshold)
    return mask if mask.sum() >= min_seg_len else np.zeros_like(mask)


def exclusive(probs: np.ndarray, min_seg_len: int = 0) -> np.ndarray:
    """The masks, bool (C, H, W), of classes that exclude each other, from probabilities (C, H, W).

    What is missing to 1 is the probability of the background. A pixel belongs to the most probable
    of all; of equal ones the background counts first, and then the earlier class.    [C-35]
    A mask of fewer than `min_seg_len` pixels becomes empty, as in `binarize`.
    """
    label = np.concatenate([1 - probs.sum(axis=0, keepdims=True), probs]).argmax(axis=0)
    return np.stack([binarize(label == c + 1, 0.5, min_seg_len) for c in range(len(probs))])


def decode_all(rles: Mapping[tuple[str, int], str], name: str, size: tuple[int, int],
               classes: int) -> np.ndarray:
    """The masks of all C = `classes` classes of one image, bool (C, H, W).

    `rles` maps (image name, class index) to run lengths. A class without an entry has an empty
    mask. Raises ValueError as rle_decode does.
    """
    return np.stack([rle_decode(rles.get((name, c), ""), size) for c in range(classes)])


def label_components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """The 8-connected components of a mask, bool (H, W): their numbers and how many there are.

    Two pixels are neighbours where they share a side or a corner. Returns int64 (H, W), which is 0
    in the background and 1, 2, ... inside the components, and their count. The components are
    numbered in the order of their first pixels, row by row.

        >>> mask = np.array([[1, 0, 0, 1, 1],
        ...                  [0, 1, 0, 0, 0],
        ...                  [0, 0, 0, 1, 0]], bool)
        >>> number, count = label_components(mask)
        >>> print(number, count)
        [[1 0 0 2 2]
         [0 1 0 0 0]
         [0 0 0 3 0]] 3

    The method joins each run of a row with the runs that it touches in the row above. A set of runs
    that are joined takes the lowest number among them.
    """
    H, W = mask.shape
    flat = np.zeros((H, W + 2), np.int8)
    flat[:, 1:-1] = mask
    steps = np.diff(flat, axis=1)
    (row, start), (_, end) = np.nonzero(steps == 1), np.nonzero(steps == -1)  # [start, end)
    wide = W + 2  # one key a row, so that a run finds those of the row above by bisection
    first = np.searchsorted(row * wide + end, (row - 1) * wide + start)  # end >= start: touch
    last = np.searchsorted(row * wide + start, (row - 1) * wide + end, side="right")
    many = np.maximum(last - first, 0)
    a = np.repeat(np.arange(len(row)), many)
    b = np.repeat(first - (many.cumsum() - many), many) + np.arange(many.sum())
    root = np.arange(len(row))
    while True:
        low = np.minimum(root[a], root[b])
        new = root.copy()
        np.minimum.at(new, root[a], low)
        np.minimum.at(new, root[b], low)
        new = new[new]
        if (new == root).all():
            break
        root = new
    _, number = np.unique(root, return_inverse=True)
    out = np.zeros(H * (W + 1) + 1, np.int64)
    np.add.at(out, row * (W + 1) + start, number + 1)
    np.add.at(out, row * (W + 1) + end, -(number + 1))
    count = int(number.max() + 1) if len(row) else 0
    return out.cumsum()[:-1].reshape(H, W + 1)[:, :W], count
