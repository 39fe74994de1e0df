"""The images and targets that a network is fed from."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..masks import rle_decode
from .images import open_rgb


class MaskTargets(NamedTuple):
    """Masks as targets of a network, decoded when an image is asked for."""

    rles: dict  # {(name, class index): run lengths}; a pair that is not in it has no mask
    sizes: dict  # {name: (H, W)}, the sizes on which the run lengths count
    classes: int  # C
    area_cut: float | None = None  # None samples masks at pixel centres, see resize_mask
    ignored: dict | None = None  # {(name, class index): run lengths} of pixels to leave out


class ImageSet:
    """Map-style data set: item (index, epoch) gives pixels uint8 (H, W, 3) and a target.

    The target is targets[index] or, where `targets` is a MaskTargets, the masks uint8 (C, H, W):
    1 = defect, 0 = none, 255 = left out of the loss. With epoch None image and target are as they
    are. In an epoch they are mirrored at random, together. The draws follow from (seed, epoch,
    index) alone, so that order, workers and restarts do not change them ([P] section IV;
    DEV-32: each with probability 1/2).
    """

    def __init__(self, folder, names, size, targets, flips=(False, False), seed=0):
        """size: (H, W) of the network's input; flips: whether to mirror (rows, columns)."""
        self.folder, self.names, self.size = Path(folder), names, tuple(size)
        self.targets, self.flips, self.seed = targets, flips, seed

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
            draws = np.random.default_rng((self.seed, epoch, index)).random(2) < 0.5
            for axis, flip in enumerate(np.logical_and(draws, self.flips)):
                if flip:
                    image = np.flip(image, axis)
                    target = np.flip(target, axis + 1) if has_masks else target
        return np.array(image), np.array(target)


def masks_of(targets, name, size):
    """Masks uint8 (C, H, W) of one image at the network's size: 1, 0, or 255 for pixels left out."""
    out = np.zeros((targets.classes, *size), np.uint8)
    for c in range(targets.classes):
        if (name, c) in targets.rles:
            mask = rle_decode(targets.rles[name, c], targets.sizes[name])
            out[c] = resize_mask(mask, size, targets.area_cut)
        if targets.ignored and (name, c) in targets.ignored:
            ignored = rle_decode(targets.ignored[name, c], targets.sizes[name])
            out[c][resize_mask(ignored, size, targets.area_cut)] = 255
    return out


def resize_mask(mask, size, area_cut=None):
    """Resize a mask bool (H, W) to bool of another (H, W).

    area_cut None takes the pixel under the centre of each new pixel. A number takes a new pixel
    where at least that fraction of its area is mask (DEV-33).
    """
    if area_cut is not None:
        whole = Image.fromarray(mask.astype(np.float32))
        part = np.asarray(whole.resize(size[::-1], Image.Resampling.BOX))
        return part >= np.float32(area_cut)
    rows, cols = ((2 * np.arange(n) + 1) * full // (2 * n)
                  for n, full in zip(size, mask.shape, strict=True))
    return mask[rows][:, cols]
