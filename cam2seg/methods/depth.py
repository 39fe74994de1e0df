"""Classes without a label: from the depth of each pixel, how high above the floor it lies and how
its surface is inclined (HN labels).

    P = points(depth, camera)                       # (H, W, 3)
    g = gravity(normals(depth, camera, 10))         # (3,)
    label = classes_of(height(P, g), angle(normals(depth, camera, 3), g), bins)   # int (H, W)

A network that learns to tell these classes from colours alone has learned where floors, walls and
the tops of tables are, before anybody has drawn a mask. The idea is that of [HN] Lahoud and Ghanem,
"RGB-based Semantic Segmentation Using Self-Supervised Depth Pre-Training", arXiv:2002.02200; the
search for gravity is that of Gupta, Arbelaez and Malik (CVPR 2013) as Depth2HHA-python has it.

Depth d is in metres along the optical axis, float64 (H, W), and NaN where it is not known. The axes
of the camera are x to the right, y downwards and z forwards. Formulas [H-1] to [H-6] are in AUDIT
2.7.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

START = (0.0, 1.0, 0.0)  # gravity in the axes of a camera that is held upright
ROUNDS = ((45.0, 5), (15.0, 5))  # degrees, and how many rounds with them
TIE = 1e-6  # two directions explain the normals alike where they differ by less than this part


class Camera(NamedTuple):
    """The focal lengths and the principal point of a pinhole camera, in pixels of the depth image.

    The centre of the first pixel is (0, 0).
    """

    fx: float
    fy: float
    cx: float
    cy: float


class Bins(NamedTuple):
    """The inner edges of the bins, rising; n edges make n + 1 bins (DEV-46)."""

    heights: Sequence[float]  # metres above the floor
    angles: Sequence[float]  # degrees to gravity


def points(depth: np.ndarray, camera: Camera) -> np.ndarray:
    """The point cloud of a depth image, (H, W) -> (H, W, 3).

    P_ij = d_ij ((j - cx) / fx, (i - cy) / fy, 1)    [H-1]
    """
    return depth[..., None] * _rays(depth.shape, camera)


def _rays(size, camera):
    """Float64 (H, W, 3): what [H-1] multiplies by the depth."""
    y = (np.arange(size[0]) - camera.cy) / camera.fy
    x = (np.arange(size[1]) - camera.cx) / camera.fx
    return np.stack([*np.broadcast_arrays(x, y[:, None]), np.ones(size)], axis=-1)


def normals(depth: np.ndarray, camera: Camera, radius: int) -> np.ndarray:
    """Unit normals that point away from the camera, into the surface: (H, W) -> (H, W, 3).

    N = n / |n|, n = argmin sum_w (n r_w - 1 / d_w)^2    [H-2]

    r = P / d are rays. The sum is over the pixels with depth in a window of 2 `radius` + 1 pixels
    on a side. All points of a plane n P = 1 have n r = 1 / d, so that a plane is found exactly. A
    normal is NaN where the pixel has no depth, or where the window does not span a plane.
    """
    known = np.isfinite(depth)
    q = 1 / np.where(known, depth, np.inf)
    ones = known.astype(np.float64)
    s, sx, sy, sxx, sxy, syy = (_window_sum(ones, radius, *powers) for powers in
                                ((0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (2, 0)))
    right = [_window_sum(q, radius, *powers) for powers in ((0, 0), (0, 1), (1, 0))]
    # 1 / d = a + b (column - j) + c (row - i) is the same plane in steps of pixels from the middle.
    left = np.stack([s, sx, sy, sx, sxx, sxy, sy, sxy, syy], axis=-1).reshape(*depth.shape, 3, 3)
    flat = s * (sxx * syy - sxy**2) - sx * (sx * syy - sxy * sy) + sy * (sx * sxy - sxx * sy) == 0
    left[flat] = np.eye(3)  # sums of whole numbers: the determinant is 0 exactly
    a, b, c = np.linalg.solve(left, np.stack(right, axis=-1)[..., None])[..., 0].transpose(2, 0, 1)
    rows, cols = np.ogrid[:depth.shape[0], :depth.shape[1]]
    ahead = a - b * (cols - camera.cx) - c * (rows - camera.cy)
    n = np.stack([b * camera.fx, c * camera.fy, ahead], axis=-1)
    n[flat | ~known] = np.nan
    return n / np.linalg.norm(n, axis=-1, keepdims=True)


def _window_sum(a, radius, row_power, column_power):
    """sum_kl k^row_power l^column_power a_(i+k, j+l), |k|, |l| up to `radius`; 0 outside."""
    for axis, power in enumerate((row_power, column_power)):
        n = a.shape[axis]
        wide = np.pad(a, [(radius, radius) if k == axis else (0, 0) for k in (0, 1)])
        a = sum(k**power * wide.take(range(radius + k, radius + k + n), axis)
                for k in range(-radius, radius + 1))
    return a


def gravity(N: np.ndarray) -> np.ndarray:
    """The direction of gravity as the normals N (H, W, 3) of a scene tell it: unit vector (3,).

    g <- argmin_|g|=1 sum_walls (N g)^2 - sum_floors (N g)^2    [H-3]

    From START on, floors (and ceilings) are the normals within t degrees of the axis of g, and
    walls those within t degrees of the plane across it: ROUNDS gives t and the number of rounds.
    The solution is the eigenvector of sum_walls N N^T - sum_floors N N^T with the smallest
    eigenvalue, turned to the side of the g before. Where the two smallest differ by less than TIE
    of the number of normals, as before a single bare wall, g stays.
    """
    N = N[np.isfinite(N).all(axis=-1)]  # (n, 3)
    g = np.array(START)
    for degrees, rounds in ROUNDS:
        for _ in range(rounds):
            along = np.abs(N @ g)
            floors = N[along > np.cos(np.radians(degrees))]
            walls = N[along < np.sin(np.radians(degrees))]
            values, vectors = np.linalg.eigh(walls.T @ walls - floors.T @ floors)
            if values[1] - values[0] > TIE * (len(floors) + len(walls)):
                g = vectors[:, 0] * (1 if vectors[:, 0] @ g >= 0 else -1)
    return g


def angle(N: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Degrees between normals and gravity, (H, W, 3) -> (H, W): 0 floor, 90 wall, 180 ceiling.

    angle = arccos(N g)    [H-4]
    """
    return np.degrees(np.arccos(np.clip(N @ g, -1, 1)))


def height(P: np.ndarray, g: np.ndarray, percent: float = 0.0) -> np.ndarray:
    """Metres above the floor, (H, W, 3) -> (H, W).

    h = q - P g, where `percent` of the points have P g >= q    [H-5]

    With 0 the floor is the level of the lowest point (DEV-48).
    """
    along = P @ g
    return np.nanpercentile(along, 100 - percent) - along


def classes_of(h: np.ndarray, n: np.ndarray, bins: Bins) -> np.ndarray:
    """The class of each pixel from its height h and its angle n, int (H, W); -1: left out.

    class = A #{edges of heights <= h} + #{edges of angles <= n}, A bins of angles    [H-6]

    A pixel is left out where h or n is NaN.
    """
    label = (np.digitize(h, bins.heights) * (len(bins.angles) + 1) + np.digitize(n, bins.angles))
    return np.where(np.isfinite(h) & np.isfinite(n), label, -1)


def labels_of(depth: np.ndarray, camera: Camera, bins: Bins, radii: Sequence[int] = (3, 10),
              percent: float = 0.0) -> np.ndarray:
    """The classes [H-6] of a depth image, int (H, W) in the order of class_names; -1: left out.

    radii: those of the windows of [H-2], for the labels and for the search for gravity (DEV-47).
    """
    N, wide = (normals(depth, camera, radius) for radius in radii)
    g = gravity(wide)
    return classes_of(height(points(depth, camera), g, percent), angle(N, g), bins)


def class_names(bins: Bins) -> list[str]:
    """One name for each class, as 0.5-1m_72-108deg; the bins at the ends are below and above."""
    spans = []
    for edges, unit in ((bins.heights, "m"), (bins.angles, "deg")):
        text = [f"{edge:g}" for edge in edges]
        between = [f"{low}-{high}" for low, high in zip(text, text[1:])]
        spans.append([f"{span}{unit}" for span in
                      (f"below{text[0]}", *between, f"above{text[-1]}")])
    return [f"{h}_{n}" for h in spans[0] for n in spans[1]]
