"""Image files turned into arrays.

BMP, GIF, JPEG, PNG, TIFF and WebP are known by their content: grey, RGB, 16-bit, palette, alpha or
CMYK, of any size.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import DataError
from .files import regular

# Pillow would also read EPS, for which it starts Ghostscript.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
DEEP = (".png", ".tif", ".tiff")  # files that may have 16 bits


def open_image(path: str | os.PathLike) -> np.ndarray:
    """Read pixels uint8 (H, W, 3), turned as the EXIF tag says and without alpha.

    A 16-bit value keeps its high byte. That is a fixed rule, which does not depend on the picture
    (DEV-44). Raises DataError for a file that is missing, truncated, too large or not an image.
    """
    return np.asarray(open_rgb(path))


def open_rgb(path: str | os.PathLike) -> Image.Image:
    """Read an image as a decoded Pillow image of mode RGB; see open_image."""
    try:
        with Image.open(regular(path), formats=FORMATS) as image:
            return as_rgb(image, path)
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image ({_reason(error)})") from error


def as_rgb(image: Image.Image, name: str | os.PathLike = "image") -> Image.Image:
    """Turn a Pillow image as its EXIF tag says and decode it to mode RGB, without alpha.

    A 16-bit value keeps its high byte. Raises DataError, naming `name`, for floating-point pixels.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise DataError(f"{name}: floating-point pixels, expected 8 or 16 bits")
    if image.mode.startswith("I"):
        high = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return Image.fromarray(high).convert("RGB")
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")


def _reason(error):
    """The first line of Pillow's error without the path, which our own message names."""
    if isinstance(error, UnidentifiedImageError):
        return "no known format"
    return str(error).splitlines()[0].split(": '/")[0] if str(error) else type(error).__name__


def size_of(image: np.ndarray) -> tuple[int, int]:
    """(H, W) of pixels (H, W, 3)."""
    return image.shape[:2]


def scan(folder: Path | str, names: Sequence[str], rows_of: Mapping[str, str] | None = None,
         after_each: Callable | None = None, measure: Callable = size_of,
         warn: Callable[[str], None] = lambda text: None) -> dict:
    """Decode every image once, so that a bad file shows before training: {name: (H, W)}.

    rows_of: {name: "file, row n"}, which an error message puts in front. after_each() is called
    after every image; what it raises ends the scan. measure(pixels) gives what is kept of an image
    uint8 (H, W, 3) in place of its size. warn(text) is called where the 16-bit images are nearly
    black by the rule of open_image. Raises DataError for the first bad image.
    """
    folder, peaks = Path(folder), {}

    def look(name):
        try:
            image = open_image(folder / name)
            if _has_16_bits(folder / name):
                peaks[name] = int(image.max())
            return measure(image)
        except DataError as error:
            where = f"{rows_of[name]}: " if rows_of and name in rows_of else ""
            raise DataError(f"{where}{error}") from error

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # Pillow decodes without the GIL
        seen = {}
        for name, found in zip(names, pool.map(look, names), strict=True):
            if after_each:
                after_each()
            seen[name] = found
    if max(peaks.values(), default=255) < 64:  # 14 bits or fewer
        bits = 8 + max(peaks.values()).bit_length()
        warn(f"WARNING: the {len(peaks)} images of 16 bits in {folder} use {bits} of them, so that "
             f"they are read as 0 to {max(peaks.values())} of 255 and are nearly black: multiply "
             f"their values by {2 ** (16 - bits)}, or save them with 8 bits")
    return seen


def _has_16_bits(path):
    if path.suffix.lower() not in DEEP:
        return False
    with Image.open(path, formats=FORMATS) as image:  # reads the head of the file only
        return image.mode.startswith("I")


def default_size(size: tuple[int, int], odd: bool = False) -> tuple[int, int]:
    """Round each side of an image's (H, W) to a multiple of 32, the stride of the encoder.

    odd adds one pixel to each side: at such sides lite0 pads as the network that its weights come
    from does.
    """
    return tuple(max(32, 32 * round(side / 32)) + odd for side in size)
