"""Files of depth: which one belongs to an image, and its content in metres."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .errors import DataError
from .files import regular

ENDINGS = (".png", ".npy")


def find(folder: Path | str, name: str) -> Path:
    """The file of depth of an image: that of the image's name, with the ending .png or .npy.

    Raises DataError unless there is exactly one.
    """
    paths = [(Path(folder) / name).with_suffix(ending) for ending in ENDINGS]
    found = [path for path in paths if path.is_file()]
    if len(found) != 1:
        raise DataError(f"{folder}: {'two files' if found else 'no file'} of depth for the image "
                        f"{name}, expected either {paths[0].name} or {paths[1].name}")
    return found[0]


def read(path: Path | str, units: float, size: Sequence[int]) -> np.ndarray:
    """Metres along the optical axis, float64 (H, W), NaN where there is no depth.

    Whole numbers, as those of a PNG, count `units` to a metre, and floating-point numbers are
    metres; 0 says that there is no depth (DEV-45). size: (H, W) of the image. Raises DataError for
    a file that is damaged, of another size, not of 16 bits or without any depth, and for values
    that are no lengths.
    """
    values = _read_npy(path) if Path(path).suffix == ".npy" else _read_png(path)
    if values.shape != tuple(size):
        raise DataError(f"{path}: depth of {' x '.join(map(str, values.shape))} pixels, expected "
                        f"{size[0]} x {size[1]} as of its image")
    depth = values / (units if values.dtype.kind in "iu" else 1.0)
    if not (np.isfinite(depth) & (depth >= 0)).all():
        raise DataError(f"{path}: a depth that is negative or not finite, expected lengths, and 0 "
                        "where there is none")
    if not depth.any():
        raise DataError(f"{path}: 0 everywhere, expected depth at some pixels")
    return np.where(depth > 0, depth, np.nan)


def _read_png(path):
    try:
        with Image.open(regular(path), formats=("PNG",)) as image:
            if not image.mode.startswith("I"):
                raise DataError(f"{path}: a PNG of mode {image.mode}, expected grey of 16 bits")
            return np.asarray(image).astype(np.int64)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, DataError):
            raise
        reason = str(error).splitlines()[0].split(f": '{os.sep}")[0]
        raise DataError(f"{path}: cannot be read as a PNG ({reason})") from error


def _read_npy(path):
    try:
        values = np.load(regular(path), mmap_mode="r")
    except (EOFError, OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as an array of numbers ({error})") from error
    if getattr(values, "ndim", 0) != 2 or values.dtype.kind not in "iuf":
        raise DataError(f"{path}: expected a .npy of numbers of shape (H, W)")
    return np.array(values, np.float64 if values.dtype.kind == "f" else np.int64)
