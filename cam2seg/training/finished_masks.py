"""Masks of a CSV made ready: thresholds, small components left out, hulls drawn, another order.

`work` is the Work of evaluate.py: the true masks, the sizes and the folds of the images. Nothing
here loads torch.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import masks, metrics
from ..data import labels, samples
from ..data.errors import DataError
from ..methods import hulls
from ..runs.progress import Progress

PARTS = (0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)  # of the median image's area
THRESHOLDS = tuple(round(0.05 * n, 2) for n in range(1, 20))
Pair = tuple[float | None, int]  # a threshold, or None for masks as they are; a least size


class Drawn(NamedTuple):
    """The masks of one CSV before they are processed."""

    rles: Mapping[tuple[str, int], str]  # {(name, class index): run lengths}
    probabilities: Callable | None = None  # (name, (H, W)) -> float32 (C, H, W)

    def of_image(self, work: Any, name: str) -> Callable:
        """Function (class index, threshold) -> mask, bool (H, W), of an image."""
        size, C = work.sizes[name], len(work.truth.classes)
        if self.probabilities:
            p = self.probabilities(name, size)
            return lambda c, t: masks.binarize(p[c], t)
        found = masks.decode_all(self.rles, name, size, C)
        return lambda c, t: found[c]


def size_grid(sizes: Mapping[str, tuple[int, int]]) -> list[int]:
    """The least sizes of a component that the search tries, in pixels (DEV-64)."""
    area = float(np.median([h * w for h, w in sizes.values()]))
    return [round(area * part) for part in PARTS]


def search(work: Any, drawn: Drawn, tried: Sequence[tuple[Sequence, Sequence]], hull: bool,
           report: Callable) -> tuple[dict[int, list[Pair]], list[Pair]]:
    """The threshold and the least size of a component that true masks choose together for each
    class  [K-4].

    tried: for each class the thresholds and the least sizes, of which every pair is tried. Returns
    {fold: C pairs, chosen on the images of the other folds}, and the C pairs that are chosen on all
    images, for images of no fold. The mean Dice of all pairs of image and class decides, and of
    equal ones the lower threshold, then the lower size (DEV-64).
    """
    names, counts = work.truth.names, [[] for _ in tried]
    for name in Progress(len(names), "search", report).over(names):
        true = masks.decode_all(work.truth.rles, name, work.sizes[name], len(tried))
        mask = drawn.of_image(work, name)
        for c, (thresholds, least) in enumerate(tried):
            covered = np.stack([hulls.sizes(mask(c, t), hull) for t in thresholds])  # (T, H, W)
            # The mask with a least size of n is where the size of the component reaches n.
            inter, pred = metrics.threshold_counts(
                covered, np.broadcast_to(true[c], covered.shape), [max(n, 1) for n in least])
            counts[c].append((inter.ravel(), pred.ravel(), true[c].sum()))
    by_fold, on_all = {k: [] for k in np.unique(work.fold).tolist()}, []
    for own, (thresholds, least) in zip(counts, tried, strict=True):
        own = [np.array(n)[:, None] for n in zip(*own, strict=True)]  # (N, 1, T S) twice, (N, 1)
        own.append(np.ones_like(own[2]))  # no gate
        grid = {"threshold": list(itertools.product(thresholds, least)), "confidence": [0],
                "min_seg_len": [0]}
        on_all.append(metrics.search(*own, grid)[0]["threshold"])
        for k, found in metrics.cross_fit(*own, work.fold, grid).items():
            by_fold[k].append(found["threshold"])
    return by_fold, on_all


def finish(work: Any, drawn: Drawn, chosen: Mapping[int, Sequence[Pair]], hull: bool,
           report: Callable) -> dict[tuple[str, int], str]:
    """Run lengths of the masks at their thresholds and without small components, and with hulls
    where `hull` is set.

    chosen: {fold: C pairs}  [K-2].
    """
    out, folds = {}, dict(zip(work.truth.names, work.fold.tolist(), strict=True))
    for name in Progress(len(folds), "components", report).over(folds):
        mask = drawn.of_image(work, name)
        for c, (t, n) in enumerate(chosen[folds[name]]):
            made = hulls.clean(mask(c, t), n, hull)
            if made.any():
                out[name, c] = masks.rle_encode(made)
    return out


def sample_rows(path: Path, work: Any) -> tuple[list[str], list[tuple[int, str, str]]]:
    """The header and the rows of a mask file whose order shall be kept; see samples.read_order.

    Raises DataError for a row whose image or class is not known.
    """
    header, order = samples.read_order(path)
    names, classes = set(work.truth.names), work.truth.classes
    for row, image, name in order:
        if image not in names or name not in classes:
            raise DataError(f"{path}, row {row}: {image[:200]} of class {name[:40]}, expected one "
                            f"of {len(names)} images and of the classes {', '.join(classes)}")
    return header, order


def write(path: Path, work: Any, rles: Mapping[tuple[str, int], str],
          order: tuple | None = None) -> None:
    """Write a mask CSV in the order of sample_rows, or with a row for each pair of image and class.
    """
    if order is None:
        labels.write_masks(path, work.truth.names, work.truth.classes, rles)
    else:
        samples.write_ordered(path, *order, {(n, work.truth.classes[c]): rle
                                             for (n, c), rle in rles.items()})
