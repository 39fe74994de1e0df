"""Components and convex hulls: what makes a ragged mask whole. NumPy alone; sizes are (H, W).

The true masks of the contest "Understanding Clouds" are large and smooth. Its users therefore leave
out small components of a predicted mask, and draw the convex hull of each of the others.

    >>> mask = np.array([[1, 1, 1, 0, 0],
    ...                  [1, 0, 0, 0, 0],
    ...                  [1, 0, 0, 0, 1]], bool)
    >>> print(clean(mask, least=2, hull=True).astype(int))
    [[1 1 1 0 0]
     [1 1 0 0 0]
     [1 0 0 0 0]]
"""

import numpy as np

from ..masks import label_components


def convex_hull(mask: np.ndarray) -> np.ndarray:
    """The convex hull of a mask, bool (H, W), drawn as a mask  [K-1].

    A pixel is in it where its centre is in the convex hull of the centres of the mask's pixels, or
    on its outline. All is computed in whole numbers, so that no rounding moves an outline.
    """
    mask = np.asarray(mask, bool)
    out = np.zeros_like(mask)
    rows = np.flatnonzero(mask.any(axis=1))
    if len(rows):
        used, columns = mask[rows], np.arange(mask.shape[1])
        left, right = used.argmax(axis=1), columns[-1] - used[:, ::-1].argmax(axis=1)
        first, last = _lowest(rows, left), -_lowest(rows, -right)
        out[rows[0]:rows[-1] + 1] = (columns >= first[:, None]) & (columns <= last[:, None])
    return out


def _lowest(x, y):
    """The least whole number on or above the lower convex hull of points (x, y), at each whole
    number from x[0] to x[-1]; x ascends."""
    corners = []
    for p in zip(x.tolist(), y.tolist(), strict=True):
        while len(corners) > 1 and _turn(*corners[-2:], p) <= 0:
            corners.pop()
        corners.append(p)
    a = np.array(corners)
    at = np.arange(x[0], x[-1] + 1)
    k = np.searchsorted(a[:, 0], at, side="right") - 1
    (x0, y0), (x1, y1) = a[k].T, a[np.minimum(k + 1, len(a) - 1)].T
    # The last corner has no next one. There at == x0, so that any width does.
    return y0 - (y0 - y1) * (at - x0) // np.maximum(x1 - x0, 1)


def _turn(o, a, b):
    """Above 0 where the way from o over a to b turns towards larger y."""
    return (a[0] - o[0]) * (b[1] - o[1]) - (a[1] - o[1]) * (b[0] - o[0])


def sizes(mask: np.ndarray, hull: bool = False) -> np.ndarray:
    """The size of the component of each pixel of a mask, bool (H, W), as int64 (H, W)  [K-2].

    The size is a number of pixels of the mask. It is 0 outside the components, which are
    8-connected. With `hull` a pixel is in a component where it is in the convex hull of it, and has
    the size of the largest component that it is in. The size is that before the hull (DEV-63).
    """
    mask = np.asarray(mask, bool)
    number, count = label_components(mask)
    area = np.bincount(number.ravel(), minlength=count + 1)
    area[0] = 0
    if not hull:
        return area[number]
    rows, cols = np.nonzero(mask)
    of = number[rows, cols]
    low, high = np.tile([[mask.shape[0]], [mask.shape[1]]], count + 1), np.zeros((2, count + 1), int)
    for axis, where in enumerate((rows, cols)):
        np.minimum.at(low[axis], of, where)
        np.maximum.at(high[axis], of, where + 1)
    out = np.where(area < 3, area, 0)[number]  # one pixel or two are their own hull
    for k in area.argsort(kind="stable").tolist():  # the largest last, so that it stays on top
        if area[k] > 2:
            box = slice(low[0, k], high[0, k]), slice(low[1, k], high[1, k])
            out[box][convex_hull(number[box] == k)] = area[k]
    return out


def clean(mask: np.ndarray, least: int = 0, hull: bool = False) -> np.ndarray:
    """A mask, bool (H, W), without its components of fewer than `least` pixels, and with the convex
    hulls of the others where `hull` is set  [K-2]."""
    return sizes(mask, hull) >= max(least, 1)
