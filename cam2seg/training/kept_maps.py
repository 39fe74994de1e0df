"""The probabilities of pixels that train_seg.py --keep-maps leaves.

A fold's folder holds the maps of its held-out images, and new/ those of --predict, as
data/stored_maps.py has them. Here a map is not divided by its maximum: it holds the probabilities
at the size of the network's input (DEV-73).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..data import stored_maps
from ..data.errors import DataError
from ..runs import folder, processes

NEW = "new", "new_masks.csv"  # the folder of the maps of --predict, and the masks that are theirs


class KeptMaps:
    """The maps of one folder while a network masks its images (DEV-73)."""

    def __init__(self, out: Path, names: Sequence[str], classes: Sequence[str],
                 accepted: Callable | None = None):
        """accepted: (name, class index) -> whether the class may have a mask, by --gate (DEV-34).

        Of several processes only the first one writes.
        """
        self.out, self.names, self.classes, self.accepted = out, names, classes, accepted
        self.row = {name: i for i, name in enumerate(names)}
        self.store = None
        if processes.is_first():
            out.mkdir(exist_ok=True)
            self.store = stored_maps.MapStore(out, len(names), len(classes))

    def add(self, name: str, probabilities: np.ndarray, peaks: Sequence[float]) -> None:
        """Store the probabilities (C, h, w) of an image; those of a class that is not accepted as
        zeros. peaks: the C largest ones at the image's own size."""
        if self.store:
            kept = [not self.accepted or self.accepted(name, c) for c in range(len(self.classes))]
            small = probabilities.clip(0, 1) * np.reshape(kept, (-1, 1, 1))
            self.store.add([self.row[name]], small[None], np.array([peaks]))

    def finish(self, fold: int, sizes: Mapping[str, tuple[int, int]]) -> None:
        """Write maps.csv, which says that all is there. fold: -1 for the mean over folds."""
        if self.store:
            self.store.finish(self.names, np.full(len(self.names), fold), sizes, self.classes)


def folders(masks: Path) -> list[Path]:
    """The folders with the maps that the masks of this CSV were drawn from; [] without --keep-maps.
    """
    if masks.name == NEW[1]:
        found = masks.parent / NEW[0]
        return [found] if (found / "maps.csv").exists() else []
    return [path.parent for path in folder.fold_files(masks.parent, "maps.csv").values()]


def files(masks: Path) -> list[Path]:
    """The files of maps that belong to the masks of this CSV, of either script."""
    return [found / name for found in (masks.parent, *folders(masks))
            for name in ("maps.csv", "maps.npy")]


def probabilities(masks: Path, classes: Sequence[str], names: Sequence[str]) -> Callable:
    """Function (name, (H, W)) -> float32 (C, H, W), the probabilities behind the masks of a CSV.

    They are zeros for a class without a map. Raises DataError where the CSV has no maps beside it,
    or none of an image in `names`.
    """
    where, column = {}, {}
    for found in folders(masks):
        of, its_classes, _, maps = stored_maps.read(found)
        where |= {name: (maps, i) for i, name in enumerate(of)}
        column = {k: its_classes.index(name) for k, name in enumerate(classes)
                  if name in its_classes}
    if not where:
        raise DataError(f"{masks}: no probabilities beside it, expected the maps that train_seg.py "
                        "--keep-maps leaves")
    missing = [name for name in names if name not in where]
    if missing:
        raise DataError(f"{masks}: no probabilities for {len(missing)} of its images, the first is "
                        f"{missing[0]}")
    import torch
    import torch.nn.functional as F

    def of_image(name, size):
        out = np.zeros((len(classes), *size), np.float32)
        if name in where:
            maps, row = where[name]
            small = torch.from_numpy(maps[row][list(column.values())].astype(np.float32))
            out[list(column)] = F.interpolate(small[None], size=tuple(size), mode="bilinear")[0]
        return out

    return of_image
