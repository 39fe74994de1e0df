"""Image files to arrays, and the set of images a network is fed from.

BMP, GIF, JPEG, PNG, TIFF and WebP by content: grey, RGB, 16-bit, palette, alpha, CMYK, any size.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from . import process
from .data import DataError
from .masks import rle_decode

# All that Pillow knows would include EPS, which it has Ghostscript run.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # those of torchvision's weights


def open_image(path):
    """Pixels uint8 (H, W, 3), turned as the EXIF tag says, alpha left out.

    16-bit values keep their high byte: a fixed rule, not one that depends on the picture.
    Raises DataError for a file that is missing, truncated, too large or not an image.
    """
    return np.asarray(_open(path))


def _open(path):
    """The same as a Pillow image of mode RGB, decoded."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode == "F":
                raise DataError(f"{path}: floating-point pixels, expected 8 or 16 bits")
            if image.mode.startswith("I"):
                high = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
                return Image.fromarray(high).convert("RGB")
            image.load()
            return image if image.mode == "RGB" else image.convert("RGB")
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image ({_plain(error)})") from error


def _plain(error):
    if isinstance(error, UnidentifiedImageError):
        return "no known format"
    return str(error).splitlines()[0].split(": '/")[0] if str(error) else type(error).__name__


def scan(folder, names, rows_of=None):
    """{name: (H, W)} after decoding every image once, so that a bad file shows before training.

    rows_of {name: "file, row n"} is put into the message of a bad image. Raises DataError.
    """
    folder = Path(folder)

    def size(name):
        try:
            return open_image(folder / name).shape[:2]
        except DataError as error:
            where = f"{rows_of[name]}: " if rows_of and name in rows_of else ""
            raise DataError(f"{where}{error}") from error

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # Pillow decodes without the GIL
        sizes = {}
        for name, found in zip(names, pool.map(size, names), strict=True):
            process.check()
            sizes[name] = found
        return sizes


def default_size(size):
    """(H, W) of an image with each side rounded to a multiple of 32, the encoder's stride."""
    return tuple(max(32, 32 * round(side / 32)) for side in size)


class ImageSet:
    """Map-style data set: item (index, epoch) -> pixels uint8 (H, W, 3), target.

    The target is targets[index], or with `masks` = (rles, sizes, C) the masks uint8 (C, H, W).
    epoch None: as it is. Else flips are drawn from (seed, epoch, index) alone, so that order,
    workers and restarts do not change them ([P] section IV: horizontal, or both).
    """

    def __init__(self, folder, names, size, targets=None, masks=None, hflip=False, vflip=False,
                 seed=0):
        self.folder, self.names, self.size = Path(folder), names, tuple(size)
        self.targets, self.masks = targets, masks
        self.flips, self.seed = (vflip, hflip), seed  # in the order of the axes (H, W)

    def __len__(self):
        return len(self.names)

    def __getitem__(self, item):
        index, epoch = item
        H, W = self.size
        image = _open(self.folder / self.names[index])
        image = np.asarray(image.resize((W, H), Image.Resampling.BILINEAR))
        target = self.targets[index] if self.masks is None else self._masks(self.names[index])
        if epoch is not None:
            draws = np.random.default_rng((self.seed, epoch, index)).random(2) < 0.5
            for axis, flip in enumerate(np.logical_and(draws, self.flips)):
                if flip:
                    image = np.flip(image, axis)
                    target = target if self.masks is None else np.flip(target, axis + 1)
        return np.array(image), np.array(target)

    def _masks(self, name):
        rles, sizes, C = self.masks
        H, W = sizes[name]
        rows, cols = ((2 * np.arange(n) + 1) * full // (2 * n)  # the pixel under each centre
                      for n, full in zip(self.size, (H, W), strict=True))
        out = np.zeros((C, *self.size), np.uint8)
        for c in range(C):
            if (name, c) in rles:
                out[c] = rle_decode(rles[name, c], (H, W))[rows][:, cols]
        return out
