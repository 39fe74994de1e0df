"""The maps of a run of make_masks.py at the size of its images."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..data import stored_maps
from ..data.errors import DataError


def map_function(folder: Path, norm: str, norm_after: bool, classes: Sequence[str]) -> Callable:
    """Function (name, class index, (H, W)) -> map (H, W) in [0, 1] of the maps in a folder.

    norm, norm_after: flags of the run that made them. classes: those that the index counts. The
    function gives zeros for an image or a class without a map. Raises DataError where the maps are
    of none of these classes, or cannot be read.
    """
    from .. import cam
    names, its_classes, _, maps = stored_maps.read(folder)
    if not set(its_classes) & set(classes):
        raise DataError(f"{folder}/maps.csv, row 1: maps of classes {','.join(its_classes)}, "
                        f"expected some of {','.join(classes)}")
    row = {name: i for i, name in enumerate(names)}
    column = {name: c for c, name in enumerate(its_classes)}

    def map_of(name: str, c: int, size: tuple[int, int]) -> np.ndarray:
        if name not in row or classes[c] not in column:
            return np.zeros(size)
        small = maps[row[name], [column[classes[c]]]]
        return cam.numpy_maps(small, size, norm, norm_after)[0]

    return map_of
