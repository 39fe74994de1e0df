"""The masks in one PNG: its values or its colours, each as run lengths."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from ..masks import rle_encode
from .colours import class_colours
from .errors import DataError
from .images import open_png

WHITE = 255
MOST_VALUES = 1000  # in one PNG; a photograph in 16 bits has more, a mask one for each class

Masks = tuple[tuple[int, int], dict[int, str]]  # (H, W) and {value: run lengths} without value 0


def has_palette(path: Path | str) -> bool:
    """Whether a PNG is one of numbers into a table of colours."""
    return open_png(path).mode == "P"


def read_values(path: Path | str, classes: int) -> Masks:
    """The masks of a PNG by value: 0 is background and 1, 2, ... are the classes.

    A grey PNG has these values in its pixels, also where it is stored in colour. White in a PNG of
    one bit is 255. In a PNG in colour the value follows from the colour of class_colours(classes).
    In a palette without these colours, or with each at its own number, the numbers are the values.
    Raises DataError.
    """
    colours = {(0, 0, 0): 0} | {k: c + 1 for c, k in enumerate(class_colours(classes))}
    image = open_png(path)
    if image.mode == "P":
        numbers = np.asarray(image)
        palette = np.zeros((256, 3), np.uint8)
        flat = image.getpalette("RGB")
        palette[:len(flat) // 3] = np.array(flat, np.uint8).reshape(-1, 3)
        if all(colours.get(tuple(palette[n].tolist())) in (None, 0, n)
               for n in np.unique(numbers).tolist()):
            return numbers.shape, _each(path, numbers)
    elif image.mode in ("1", "L") or image.mode.startswith("I"):
        return image.size[::-1], _each(path, np.asarray(image, np.int32) * (
            WHITE if image.mode == "1" else 1))
    pixels = _rgb(image)
    if image.mode != "P" and (pixels == pixels[:, :, :1]).all():
        return pixels.shape[:2], _each(path, pixels[:, :, 0])
    return pixels.shape[:2], _by_colour(path, pixels, colours)


def read_colours(path: Path | str, colours: Mapping[tuple[int, int, int], int]) -> Masks:
    """The masks of a PNG whose colours have the values `colours`. Raises DataError for another."""
    pixels = _rgb(open_png(path))
    return pixels.shape[:2], _by_colour(path, pixels, colours)


def _rgb(image: Image.Image):
    """The colours of a PNG, uint8 (H, W, 3), black where it is transparent."""
    pixels = np.asarray(image.convert("RGBA"))
    return np.where(pixels[:, :, 3:] > 0, pixels[:, :, :3], np.uint8(0))


def _by_colour(path, pixels, colours):
    code = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    known = {r << 16 | g << 8 | b: value for (r, g, b), value in colours.items()}
    strange = [k for k in np.unique(code).tolist() if k not in known]
    if strange:
        row, column = np.argwhere(code == strange[0])[0].tolist()
        said = "; ".join(",".join(map(str, colour)) for colour in list(colours)[:9])
        raise DataError(f"{path}: the colour {','.join(map(str, pixels[row, column].tolist()))} at "
                        f"row {row}, column {column}, expected one of {said}")
    return {value: rle_encode(code == k) for k, value in known.items()
            if value and (code == k).any()}


def _each(path, values):
    found = np.unique(values)
    if len(found) > MOST_VALUES:
        raise DataError(f"{path}: {len(found)} values, expected those of masks: 0, 1, 2, ...")
    return {int(v): rle_encode(values == v) for v in found if v}
