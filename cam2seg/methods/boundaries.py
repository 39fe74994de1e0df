"""Scores of the masks of a video in NumPy: region similarity J and boundary accuracy F.

[VD] stands for DAVIS: Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video
Object Segmentation, CVPR 2016. Masks are bool (H, W). This file needs nothing but NumPy.

    >>> square = np.zeros((4, 4), bool)
    >>> square[1:3, 1:3] = True
    >>> region_similarity(square, square | square[:, [1, 2, 3, 0]])
    0.6666666666666666
    >>> boundary(square).astype(int).tolist()
    [[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]]
"""

import math

import numpy as np

TOLERANCE = 0.008  # [VD]: part of the image's diagonal within which two outlines meet


def region_similarity(truth: np.ndarray, pred: np.ndarray) -> float:
    """J = #(T and P) / #(T or P), 1 where both masks are empty.    [V-7]

    Raises ValueError where the masks differ in shape.
    """
    truth, pred = _checked(truth, pred)
    union = int((truth | pred).sum())
    return int((truth & pred).sum()) / union if union else 1.0


def boundary(mask: np.ndarray) -> np.ndarray:
    """The outline of a mask, bool (H, W): the pixels that differ from the neighbour to the right,
    below, or right below.    [V-8]

    A neighbour outside the image counts for nothing, so that the border of the image is no outline.
    """
    m, out = np.asarray(mask, bool), np.zeros(np.shape(mask), bool)
    out[:, :-1] |= m[:, :-1] ^ m[:, 1:]
    out[:-1] |= m[:-1] ^ m[1:]
    out[:-1, :-1] |= m[:-1, :-1] ^ m[1:, 1:]
    return out


def boundary_f(truth: np.ndarray, pred: np.ndarray, tolerance: float = TOLERANCE) -> float:
    """F = 2 P R / (P + R) of the outlines of two masks.    [V-8]

    P is the part of the predicted outline that lies within r pixels of the true one, and R the part
    of the true outline within r pixels of the predicted one, r = ceil(tolerance sqrt(H^2 + W^2)).
    F is 1 where neither mask has an outline, and 0 where one has none or where P + R = 0. Raises
    ValueError where the masks differ in shape.
    """
    truth, pred = _checked(truth, pred)
    radius = math.ceil(tolerance * math.hypot(*truth.shape))
    t, p = boundary(truth), boundary(pred)
    if not (t.any() and p.any()):
        return float(t.any() == p.any())
    P = (p & _within(t, radius)).sum() / p.sum()
    R = (t & _within(p, radius)).sum() / t.sum()
    return float(2 * P * R / (P + R)) if P + R else 0.0


def _within(mask, radius):
    """The pixels at most `radius` pixels away from a pixel of the mask."""
    H, W = mask.shape
    wide = np.pad(mask, radius)
    out = np.zeros((H, W), bool)
    for y in range(-radius, radius + 1):
        for x in range(-radius, radius + 1):
            if y * y + x * x <= radius * radius:
                out |= wide[radius + y:radius + y + H, radius + x:radius + x + W]
    return out


def _checked(truth, pred):
    truth, pred = np.asarray(truth, bool), np.asarray(pred, bool)
    if truth.shape != pred.shape:
        raise ValueError(f"masks differ in shape: {truth.shape} and {pred.shape}")
    return truth, pred


def sequence_scores(truth: np.ndarray, pred: np.ndarray) -> tuple[float, float]:
    """Mean J and mean F over the frames and classes of one sequence, from masks (T, C, H, W).

    The first frame is left out, because its masks are given (DEV-59). A class without a mask in the
    first frame is left out as well. Raises ValueError where no frame or no class is left.    [V-9]
    """
    given = np.flatnonzero(np.asarray(truth[0], bool).any(axis=(1, 2)))
    pairs = [(truth[t, c], pred[t, c]) for t in range(1, len(truth)) for c in given]
    if not pairs:
        raise ValueError("expected two frames or more, and a mask in the first of them")
    return (float(np.mean([region_similarity(*pair) for pair in pairs])),
            float(np.mean([boundary_f(*pair) for pair in pairs])))
