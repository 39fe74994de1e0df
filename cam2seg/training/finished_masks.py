"""Masks of a CSV made ready: small components left out, hulls drawn, another size, another order.

`work` is the Work of evaluate.py: the true masks, the sizes and the folds of the images. `rles` are
run lengths {(name, class index): text} of the masks that are made ready. Nothing here loads torch.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import masks, metrics
from ..data import labels, samples
from ..data.dataset import resize_mask
from ..data.errors import DataError
from ..methods import hulls
from ..runs.progress import Progress

PARTS = (0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)  # of the median image's area


def size_grid(sizes: Mapping[str, tuple[int, int]]) -> list[int]:
    """The least sizes of a component that the search tries, in pixels (DEV-64)."""
    area = float(np.median([h * w for h, w in sizes.values()]))
    return [round(area * part) for part in PARTS]


def search(work: Any, rles: Mapping[tuple[str, int], str], hull: bool,
           report: Callable) -> tuple[dict[int, list[int]], list[int]]:
    """The least size of a component that true masks choose for each class  [K-4].

    Returns {fold: C sizes, chosen on the images of the other folds}, and the C sizes that are
    chosen on all images, for images of no fold. The mean Dice of all pairs decides (DEV-64).
    """
    grid, names = size_grid(work.sizes), work.truth.names
    inter, pred, truth = [], [], []
    for name in Progress(len(names), "search of the least component", report).over(names):
        true, made = (masks.decode_all(found, name, work.sizes[name], len(work.truth.classes))
                      for found in (work.truth.rles, rles))
        covered = np.stack([hulls.sizes(mask, hull) for mask in made])
        # The mask with a least size of n is where the size of the component reaches n.
        counts = metrics.threshold_counts(covered, true, [max(n, 1) for n in grid])
        inter.append(counts[0])
        pred.append(counts[1])
        truth.append(true.sum(axis=(1, 2)))
    counts = np.array(inter), np.array(pred), np.array(truth)
    tried = {"threshold": grid, "confidence": [0], "min_seg_len": [0]}
    by_fold, on_all = {k: [] for k in np.unique(work.fold).tolist()}, []
    for c in range(len(work.truth.classes)):
        own = [n[:, c:c + 1] for n in counts]
        own.append(np.ones_like(own[2]))  # no gate
        on_all.append(metrics.search(*own, tried)[0]["threshold"])
        for k, found in metrics.cross_fit(*own, work.fold, tried).items():
            by_fold[k].append(found["threshold"])
    return by_fold, on_all


def finish(work: Any, rles: Mapping[tuple[str, int], str], least: Mapping[int, Sequence[int]],
           hull: bool, report: Callable) -> dict[tuple[str, int], str]:
    """Run lengths of the masks without small components, and with hulls where `hull` is set.

    least: {fold: C least sizes in pixels}  [K-2].
    """
    out, folds = {}, dict(zip(work.truth.names, work.fold.tolist(), strict=True))
    for name in Progress(len(folds), "components", report).over(folds):
        for c, n in enumerate(least[folds[name]]):
            if rles.get((name, c)):
                mask = masks.rle_decode(rles[name, c], work.sizes[name])
                out[name, c] = masks.rle_encode(hulls.clean(mask, n, hull))
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
          size: tuple[int, int] | None = None, order: tuple | None = None) -> None:
    """Write a mask CSV, with the masks at another size (H, W), in the order of sample_rows.

    A pixel of the new size is mask where at least half of its area is (DEV-33, DEV-65). Without an
    order there is a row for each pair of image and class.
    """
    if size:
        rles = {(name, c): masks.rle_encode(resize_mask(
            masks.rle_decode(rle, work.sizes[name]), size, 0.5))
            for (name, c), rle in rles.items() if rle}
    if order is None:
        labels.write_masks(path, work.truth.names, work.truth.classes, rles)
    else:
        samples.write_ordered(path, *order, {(n, work.truth.classes[c]): rle
                                             for (n, c), rle in rles.items()})
