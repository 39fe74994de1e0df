"""The paper's three parameters (section V), chosen by class labels alone.

The paper finds threshold, confidence and least area "experimentally", which needs true masks. Here
the labels y (N, C) choose them: Otsu's rule splits each map in two, and the two gates are set where
what they let through tells the labels best.
"""

import numpy as np


def choose_threshold(otsu: np.ndarray) -> float:
    """Median of Otsu's thresholds over the maps of the classes that their images have.  [C-14]

    otsu: (M,), one value in [0, 1] for each pair of image and class with the label.
    """
    return float(np.median(otsu))


def telling(y: np.ndarray) -> np.ndarray:
    """Which classes some images have and some have not, bool (C,), from labels y, bool (N, C)."""
    return y.any(axis=0) & ~y.all(axis=0)


def youden(y: np.ndarray, accepted: np.ndarray) -> float:
    """Youden's J, the mean over classes of sensitivity + specificity - 1.  [C-15]

    J_c = #(accepted and y) / #y - #(accepted and not y) / #(not y)

    y, accepted: bool (N, C). A class that all images have, or none, is left out of the mean.
    Raises ValueError where that leaves no class.
    """
    y, accepted = np.asarray(y, bool), np.asarray(accepted, bool)
    known = telling(y)
    if not known.any():
        raise ValueError("no class has images with it and images without it")
    y, accepted = y[:, known], accepted[:, known]
    hits = (accepted & y).sum(axis=0) / y.sum(axis=0)
    alarms = (accepted & ~y).sum(axis=0) / (~y).sum(axis=0)
    return float((hits - alarms).mean())


def choose_confidence(y: np.ndarray, probs: np.ndarray, grid: list) -> float:
    """The first confidence in `grid` whose gate p >= confidence has the largest J.  [C-16]

    y: bool (N, C); probs: out-of-fold probabilities (N, C).
    """
    return max(grid, key=lambda value: (youden(y, probs >= value), -grid.index(value)))


def choose_area(y: np.ndarray, areas: np.ndarray, grid: list) -> int:
    """The first least area in `grid` whose gate area >= least has the largest J.  [C-17]

    y: bool (N, C); areas: pixels of the masks of all classes before any gate, int (N, C). An empty
    mask passes no gate.
    """
    def score(least):
        return youden(y, (areas >= least) & (areas > 0))

    return max(grid, key=lambda least: (score(least), -grid.index(least)))
