"""The data set that gives a network its images and targets."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..masks import rle_decode
from . import warps
from .images import open_rgb


class MaskTargets(NamedTuple):
    """Masks as targets of a network, decoded when an image is asked for."""

    rles: dict  # {(name, class index): run lengths}; a pair that is not in it has no mask
    sizes: dict  # {name: (H, W)}, the sizes on which the run lengths count
    classes: int  # C
    area_cut: float | None = None  # None samples masks at pixel centres: resize_mask
    ignored: dict | None = None  # {(name, class index): run lengths} of pixels to leave out


class ImageSet:
    """Map-style data set: item (index, epoch) gives pixels uint8 (H, W, 3) and a target.

    The target is targets[index] or, where `targets` is a MaskTargets, the masks uint8 (C, H, W):
    1 = defect, 0 = none, 255 = left out of the loss. With epoch None neither is changed. In an
    epoch both are mirrored together at random ([P] section IV), along each axis with probability
    1/2 (DEV-32), and then warped together. The draws follow from (seed, epoch, index) alone, so
    that the order of the images, the workers and a restart do not change them.
    """

    def __init__(self, folder: Path | str, names: Sequence[str], size: Sequence[int],
                 targets: np.ndarray | MaskTargets, flips: tuple[bool, bool] = (False, False),
                 seed: int = 0, warped: warps.Warps | None = None):
        """size: (H, W) of the network's input; flips: whether to mirror (rows, columns)."""
        self.folder, self.names, self.size = Path(folder), names, tuple(size)
        self.targets, self.flips, self.seed = targets, flips, seed
        self.warped = warps.checked(warped or warps.Warps())

    def __len__(self):
        return len(self.names)

    def __getitem__(self, item):
        index, epoch = item
        name, has_masks = self.names[index], isinstance(self.targets, MaskTargets)
        H, W = self.size
        image = open_rgb(self.folder / name).resize((W, H), Image.Resampling.BILINEAR)
        image = np.asarray(image)
        target = masks_of(self.targets, name, self.size) if has_masks else self.targets[index]
        if epoch is not None:
            rng = np.random.default_rng((self.seed, epoch, index))
            for axis, flip in enumerate(np.logical_and(rng.random(2) < 0.5, self.flips)):
                if flip:
                    image = np.flip(image, axis)
                    target = np.flip(target, axis + 1) if has_masks else target
            found = warps.draw(rng, self.warped, self.size)
            if found:
                image = warps.bilinear(image, found)
                target = warps.nearest(target, found) if has_masks else target
        return np.array(image, order="C"), np.array(target, order="C")


def masks_of(targets: MaskTargets, name: str, size: tuple[int, int]) -> np.ndarray:
    """Masks uint8 (C, H, W) of one image at the network's size: 1, 0, or 255 where left out."""
    out = np.zeros((targets.classes, *size), np.uint8)
    for c in range(targets.classes):
        mask, ignored = (rle_decode(rles[name, c], targets.sizes[name]) if (name, c) in rles
                         else None for rles in (targets.rles, targets.ignored or {}))
        if mask is not None:
            counted = None if ignored is None else ~ignored
            out[c] = resize_mask(mask, size, targets.area_cut, counted)
        if ignored is not None:
            out[c][resize_mask(ignored, size, targets.area_cut)] = 255
    return out


def resize_mask(mask: np.ndarray, size: tuple[int, int], area_cut: float | None = None,
                counted: np.ndarray | None = None) -> np.ndarray:
    """Resize a mask bool (H, W) to bool of another (H, W)  (DEV-33).

    With area_cut None, a new pixel is mask where the old pixel under its centre is. With a number
    from 0 to 1, it is mask where at least that fraction of its area is mask, and more than nothing.
    counted: bool (H, W) or None. Old pixels where it is False count neither as mask nor as area.
    """
    if area_cut is None:
        rows, cols = ((2 * np.arange(n) + 1) * full // (2 * n)
                      for n, full in zip(size, mask.shape, strict=True))
        return mask[rows][:, cols]
    inside = _area_in_each_pixel(mask if counted is None else mask & counted, size)
    whole = mask.size if counted is None else _area_in_each_pixel(counted, size)
    return (inside > 0) & (inside >= area_cut * whole)


def _area_in_each_pixel(mask, size):
    """Area of a mask bool (H, W) in each pixel of a grid of h x w over the same image: int (h, w).

    The unit is 1 / (h w) of an old pixel, in which all areas are whole numbers: a new pixel holds
    H W of them. (Pillow's BOX filter counts whole old pixels, which is another thing where the
    sizes are no multiples of each other.)
    """
    area = mask.astype(np.int64)
    for n in reversed(size):  # columns first; each turn of the array brings the other axis forward
        area = area.T
        before = np.concatenate([np.zeros((1, area.shape[1]), np.int64), area.cumsum(axis=0)])
        edge, rest = np.divmod(np.arange(n + 1) * len(area), n)
        after = np.concatenate([area, np.zeros((1, area.shape[1]), np.int64)])
        area = np.diff(n * before[edge] + rest[:, None] * after[edge], axis=0)
    return area
