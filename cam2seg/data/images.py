"""Image files turned into arrays.

BMP, GIF, JPEG, PNG, TIFF and WebP are known by their content: grey, RGB, 16-bit, palette, alpha or
CMYK, of any size.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from . import copies
from .errors import DataError
from .files import regular

# Pillow would also read EPS, for which it starts Ghostscript.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
CHUNK = 2**20  # bytes of a file that are hashed at a time


def open_image(path: str | os.PathLike) -> np.ndarray:
    """Read pixels uint8 (H, W, 3), turned as the EXIF tag says and without alpha.

    A 16-bit value keeps its high byte. That is a fixed rule, which does not depend on the picture
    (DEV-44). Raises DataError for a file that is missing, truncated, too large or not an image.
    """
    return np.asarray(open_rgb(path))


def open_at(path: str | os.PathLike, size: tuple[int, int]) -> np.ndarray:
    """The pixels of open_image, resized where the image has another size than (H, W)."""
    image, (H, W) = open_rgb(path), size
    return np.asarray(image if image.size == (W, H) else image.resize((W, H)))


def open_rgb(path: str | os.PathLike) -> Image.Image:
    """Read an image as a decoded Pillow image of mode RGB; see open_image."""
    with _opened(path) as (_, image):
        return as_rgb(image, path)


def open_png(path: str | os.PathLike) -> Image.Image:
    """Read a PNG as a decoded Pillow image of its own mode. Raises DataError as open_image does."""
    with _opened(path) as (_, image):
        if image.format != "PNG":
            raise DataError(f"{path}: a picture in {image.format}, expected a PNG, which keeps "
                            "each pixel as it is")
        image.load()
        return image


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[tuple[BinaryIO, Image.Image]]:
    """The open file at `path` and its Pillow image, which is not decoded yet. What goes wrong with
    them in the block is raised as a DataError that names the file."""
    try:
        with open(regular(path), "rb") as file, Image.open(file, formats=FORMATS) as image:
            yield file, image
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


def scan(folder: Path | str, names: Sequence[str], rows_of: Mapping[str, str] | None = None,
         after_each: Callable[[], None] = lambda: None,
         warn: Callable[[str], None] = lambda text: None) -> dict:
    """Decode every image once, so that a bad file shows before training.

    Returns {name: ((H, W), thumbnail, SHA-256 of the file)}, with the thumbnail of copies.thumbnail
    as bytes; these are values that processes can exchange. rows_of: {name: "file, row n"}, which an
    error message puts in front. after_each() is called after every image; what it raises ends the
    scan. warn(text) is called where the 16-bit images are nearly black by the rule of open_image.
    Raises DataError for the first bad image.
    """
    folder, peaks = Path(folder), {}

    def look(name):
        try:
            with _opened(folder / name) as (file, image):
                deep = _has_16_bits(image)
                pixels = np.asarray(as_rgb(image, folder / name))
                digest = _sha256(file)
        except DataError as error:
            where = f"{rows_of[name]}: " if rows_of and name in rows_of else ""
            raise DataError(f"{where}{error}") from error
        if deep:
            peaks[name] = int(pixels.max())
        return pixels.shape[:2], copies.thumbnail(pixels).tobytes(), digest

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # Pillow decodes without the GIL
        seen = {}
        for name, found in zip(names, pool.map(look, names), strict=True):
            seen[name] = found
            after_each()
    if max(peaks.values(), default=255) < 64:  # 14 bits or fewer
        bits = 8 + max(peaks.values()).bit_length()
        warn(f"WARNING: the {len(peaks)} images of 16 bits in {folder} use {bits} of them, so that "
             f"they are read as 0 to {max(peaks.values())} of 255 and are nearly black: multiply "
             f"their values by {2 ** (16 - bits)}, or save them with 8 bits")
    return seen


def _has_16_bits(image):
    """Whether the values of a Pillow image that is not decoded yet have 16 bits.

    A coloured one has a mode of 8 bits, as Pillow keeps the high byte; its tiles tell.
    """
    return image.mode.startswith("I") or any(re.search(";16(B|L|N)", str(t)) for t in image.tile)


def _sha256(file):
    """SHA-256 of a whole open file, which need not fit into memory."""
    file.seek(0)
    found = hashlib.sha256()
    while chunk := file.read(CHUNK):
        found.update(chunk)
    return found.hexdigest()


def default_size(size: tuple[int, int], odd: bool = False) -> tuple[int, int]:
    """Round each side of an image's (H, W) to a multiple of 32, the stride of the encoder.

    odd adds one pixel to each side: at such sides lite0 pads as the network that its weights come
    from does.
    """
    return tuple(max(32, 32 * round(side / 32)) + odd for side in size)
