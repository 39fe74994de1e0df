"""Which images of a set are copies of each other, turned or mirrored ones included.

Many public sets are stored with such copies. A network that trains on one copy and is scored on
another is scored on what it has seen, so that copies belong into one fold (DEV-42).
"""

from collections.abc import Callable

import numpy as np
from PIL import Image

SIDE = 20  # pixels of a thumbnail's side
SAME = 0.1  # copies differ by less than this part of a thumbnail's own standard deviation
BLOCK = 32  # thumbnails compared at a time


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Means of the grey values in 20 x 20 equal boxes of an image uint8 (H, W, 3): uint8 (20, 20).
    """
    grey = Image.fromarray(image).convert("L")
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX))


def from_bytes(thumbnail: bytes) -> np.ndarray:
    """The thumbnail uint8 (20, 20) that has these bytes."""
    return np.frombuffer(thumbnail, np.uint8).reshape(SIDE, SIDE)


def find_copies(thumbnails: np.ndarray,
                after: Callable[[int], None] = lambda count: None) -> np.ndarray:
    """Give each image the number of its group of copies: int (N,), from thumbnails (N, S, S).

    Two images a, b are copies where, for one of the 8 symmetries g of the square,
        rms(a - g b) < 0.1 min(std a, std b),
    rms and std over the pixels of the thumbnail. A copy of a copy is in the same group. Groups are
    numbered from 0 by their first image. Two images without any contrast are no copies.
    after(n) is called when n more images have been compared with all others.
    """
    G = np.asarray(thumbnails, np.float32)
    N = len(G)
    flat = G.reshape(N, -1)
    mean, spread = flat.mean(axis=1), flat.std(axis=1)
    order = mean.argsort(kind="stable")  # rms >= the difference of the means: few are compared
    sorted_means, keys = mean[order], brightness_profiles(flat)
    first = np.arange(N)

    def root(i):
        while first[i] != i:
            i = first[i]
        return i

    for start in range(0, N, BLOCK):
        rows = order[start:start + BLOCK]
        reach = mean[rows[-1]] + SAME * spread[rows].max()
        others = order[start:np.searchsorted(sorted_means, reach, side="right")]
        near = rms_differences(keys[rows], keys[others]) <= 1.001 * SAME * spread[rows][:, None]
        others = others[near.any(axis=0)]  # a thousandth more, because the profiles are rounded
        limit = SAME * np.minimum(spread[rows][:, None], spread[others][None])
        same = np.zeros(limit.shape, bool)
        for view in symmetries(G[rows]):
            same |= rms_differences(view.reshape(len(rows), -1), flat[others]) < limit
        for i, j in zip(*np.nonzero(same), strict=True):
            a, b = sorted((root(rows[i]), root(others[j])))
            first[b] = a
        after(len(rows))
    return np.unique([root(i) for i in range(N)], return_inverse=True)[1]


def brightness_profiles(flat: np.ndarray) -> np.ndarray:
    """Means of the 16 equal parts of each image's pixels in the order of their brightness: (N, 16)
    from (N, D), D a multiple of 16.

    No symmetry changes a profile. The rms difference of two profiles is at most that of the images:
    to pair sorted values brings it to its minimum, and to take means of parts makes it smaller.
    """
    return np.sort(flat, axis=1).reshape(len(flat), 16, -1).mean(axis=2, dtype=np.float64)


def symmetries(images: np.ndarray) -> list[np.ndarray]:
    """The 8 views of images (N, S, S): four turns of each, and their mirror images."""
    turns = [np.rot90(images, k, axes=(1, 2)) for k in range(4)]
    return turns + [view[:, :, ::-1] for view in turns]


def rms_differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """sqrt(mean (a_i - b_j)^2) of all rows of a (n, D) and b (m, D): (n, m)."""
    centre = a.mean()  # whole thumbnails of equal brightness would cancel digits of float32
    a, b = (np.asarray(v, np.float64) - centre for v in (a, b))
    square = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None] - 2 * a @ b.T
    return np.sqrt(np.maximum(square, 0) / a.shape[1])
