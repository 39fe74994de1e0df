"""Pictures and masks that are shifted, scaled, turned and distorted together. NumPy alone.

A warp says for each pixel of the new picture at which place (row, column) of the old one it lies.
The picture takes its colours there between the four nearest pixels, and the masks take the value of
the nearest pixel, so that what a loss leaves out stays left out. Centres of pixels are whole
numbers. Sizes are (H, W).

    >>> turned = shift_scale_rotate(places((2, 2)), (2, 2), (0, 0), 1, 90)
    >>> nearest(np.array([[[1, 2], [3, 4]]]), turned).tolist()
    [[[2, 4], [1, 3]]]
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .errors import DataError

Places = tuple[np.ndarray, np.ndarray]  # rows and columns, float64 (H, W) each


class Warps(NamedTuple):
    """The largest warps that are drawn; None for a kind that is not drawn at all."""

    shift_scale_rotate: Sequence[float] | None = None  # parts of the side, of the scale; degrees
    grid_distortion: Sequence[float] | None = None  # cells along each side, part of a cell


def checked(warps: Warps) -> Warps:
    """The same warps. Raises DataError for a scale that reaches 0 and for a grid without cells."""
    if warps.shift_scale_rotate and warps.shift_scale_rotate[1] >= 1:
        raise DataError(f"--shift-scale-rotate: a scale of {warps.shift_scale_rotate[1]}, expected "
                        "less than 1")
    if warps.grid_distortion:
        cells, limit = warps.grid_distortion
        if cells < 1 or cells % 1 or limit >= 1:
            raise DataError(f"--grid-distortion {cells:g} {limit:g}: expected a whole number of "
                            "cells from 1 up, and a limit less than 1")
    return warps


def places(size: Sequence[int]) -> Places:
    """Each pixel at its own place: the warp that changes nothing."""
    rows, cols = np.indices(size, np.float64)
    return rows, cols


def draw(rng: np.random.Generator, warps: Warps, size: Sequence[int]) -> Places | None:
    """The places of one random warp; None where the picture stays as it is.

    Each kind is drawn with probability 1/2, and its numbers evenly between its limits (DEV-68). A
    generator gives the same shift, scale and angle whether or not a grid is drawn after them.
    """
    found = places(size)
    turned, *ssr = rng.random(5)
    turned = warps.shift_scale_rotate is not None and turned < 0.5
    if warps.grid_distortion is not None and rng.random() < 0.5:
        cells, limit = warps.grid_distortion
        stretch = 1 + limit * (2 * rng.random((2, int(cells))) - 1)
        found = grid_distortion(found, size, *stretch)
    elif not turned:
        return None
    if turned:
        shift, scale, degrees = warps.shift_scale_rotate
        down, right, larger, angle = (2 * u - 1 for u in ssr)
        found = shift_scale_rotate(found, size, (shift * down, shift * right), 1 + scale * larger,
                                   degrees * angle)
    return found


def shift_scale_rotate(found: Places, size: Sequence[int], shift: Sequence[float], scale: float,
                       degrees: float) -> Places:
    """The places of a picture that is turned, scaled about its centre c and shifted  [K-5].

    (j, i) = c + R (p - c - t) / z,  R = (cos a, -sin a; sin a, cos a),  p = (column, row)

    t: `shift`, as parts of (H, W), down and to the right. z: `scale`; above 1 enlarges. a:
    `degrees`, against the clock. found: the places of another warp, or `places(size)`; the picture
    goes through this warp first and then through the other.
    """
    (rows, cols), (H, W) = found, size
    a = np.deg2rad(degrees)
    v = (rows - (H - 1) / 2 - shift[0] * H) / scale
    u = (cols - (W - 1) / 2 - shift[1] * W) / scale
    return (u * np.sin(a) + v * np.cos(a) + (H - 1) / 2,
            u * np.cos(a) - v * np.sin(a) + (W - 1) / 2)


def grid_distortion(found: Places, size: Sequence[int], tall: np.ndarray,
                    wide: np.ndarray) -> Places:
    """The places of a picture whose rows and columns are stretched cell by cell  [K-6].

    q_k = (L - 1) (s_1 + ... + s_k) / (s_1 + ... + s_n) at p_k = (L - 1) k / n, linear between them

    tall, wide: the n factors s of the cells along H and W, each above 0. Corners stay where they
    are. found: as in shift_scale_rotate.
    """
    return tuple(np.interp(at, np.linspace(0, L - 1, len(s) + 1),
                           (L - 1) * np.concatenate([[0], np.cumsum(s) / np.sum(s)]))
                 for at, L, s in zip(found, size, (tall, wide), strict=True))


def reflect(at: np.ndarray, length: int) -> np.ndarray:
    """Places along a side of `length` pixels, folded into 0 .. length - 1  [K-7].

    What lies outside is the picture in a mirror through the outermost pixels' centres (DEV-68).
    """
    period = 2 * max(length - 1, 1)
    at = at % period
    return np.minimum(np.minimum(at, period - at), length - 1)


def bilinear(image: np.ndarray, found: Places) -> np.ndarray:
    """A picture uint8 (H, W, 3) at these places, between the four nearest pixels  [K-7]."""
    (H, W), out = image.shape[:2], 0
    rows, cols = reflect(found[0], H), reflect(found[1], W)
    i, j = np.floor(rows).astype(int), np.floor(cols).astype(int)
    down, right = (rows - i)[..., None], (cols - j)[..., None]
    below, beside = np.minimum(i + 1, H - 1), np.minimum(j + 1, W - 1)
    for r, weight in ((i, 1 - down), (below, down)):
        out = out + weight * ((1 - right) * image[r, j] + right * image[r, beside])
    return np.rint(out).astype(np.uint8)


def nearest(masks: np.ndarray, found: Places) -> np.ndarray:
    """Masks (C, H, W) at these places, each with the value of the nearest pixel  [K-7]."""
    H, W = masks.shape[1:]
    rows, cols = (np.floor(reflect(at, L) + 0.5).astype(int)
                  for at, L in zip(found, (H, W), strict=True))
    return masks[:, rows, cols]
