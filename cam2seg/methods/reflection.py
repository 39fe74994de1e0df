"""How far the thresholds of a class are off, counted on the side where no defect is expected.

Otsu's threshold splits the values of an image in two, whatever they are: it lies too low where few
pixels stand out of a rough ground. The formula [C-33] is this project's own; see AUDIT.md 2.6. The
idea is that of target and decoy (Elias and Gygi 2007).
"""

import numpy as np

RATIOS = np.geomspace(1, 4, 33)  # [C-33] the multiples of a threshold that are tried


def reach(v: np.ndarray, t: float) -> np.ndarray:
    """How many pixels of v exceed rho t, for each rho of RATIOS: int64 (33,).    [C-33]"""
    return v.size - np.searchsorted(np.sort(v, axis=None), RATIOS * t, side="right")


def correction(reached: np.ndarray, mirrored: np.ndarray) -> float:
    """The factor rho >= 1 by which the thresholds of a class are too low.    [C-33]

    rho = the lowest of RATIOS with mirrored <= reached / 2 and reached > 0, and 1 where none is

    Both (33,) are sums of `reach` over images of the class, of v for the class's sign and of v for
    the opposite sign. The ground lies on both sides of its median alike, and a defect on one. So
    the pixels above a threshold on the wrong side are all ground, and about as many on the right
    side are ground too: at rho they are at most half of those on the right side. A threshold is
    never lowered: the blurred rim of a strong defect is no ground either, and Otsu's threshold cuts
    it at half its height.
    """
    fits = np.flatnonzero((reached > 0) & (2 * mirrored <= reached))
    return float(RATIOS[fits[0]]) if fits.size else 1.0
