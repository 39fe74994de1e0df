"""Masks in the forms of --export, and images with the masks painted on them."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from ..data import exports, images
from ..data.colours import class_colours
from ..data.csv_files import read_csv
from ..masks import decode_all, overlapping
from .pictures import PAPER, legend

LONGEST_JPEG = 65500  # pixels


def write(out: Path, title: str, made: exports.Made, forms: Sequence[str], over: exports.Over,
          report: Callable) -> None:
    """Write masks as out/TITLE_png/, TITLE_overlay/, TITLE_cvat/ and TITLE_coco.json, as `forms`
    say. What a person has changed there is kept under another name, and a line says so."""
    writers = {"png": exports.write_pngs, "cvat": exports.write_cvat, "coco": exports.write_coco,
               "overlay": write_overlays}
    for form in dict.fromkeys(forms):
        name = f"{title}_{form}" + (".json" if form == "coco" else "")
        kept = exports.put(out, name, partial(writers[form], made=made, over=over))
        if kept:
            report("warning", text=f"{out / name} was changed since it was written: what was there "
                                   f"is now {out / kept}")
    shared = overlapping(made.names, made.sizes, made.classes, made.rles) if "cvat" in forms else ()
    if shared:
        report("warning", text=f"{out}/{title}_cvat: masks of two classes share pixels in "
                               f"{len(shared)} images, the first is {shared[0]}; only the later "
                               "class has them there")


def reviewed(path: Path, made: exports.Made) -> exports.Made:
    """The masks of the images in a review.csv alone."""
    return made._replace(names=sorted({row["ImageId"] for _, row in read_csv(path)[1]}))


def write_overlays(folder: Path, made: exports.Made, over: exports.Over) -> None:
    """Write each image as a JPEG with its masks in colour, and the names of the colours below."""
    folder.mkdir()
    for name in over(made.names, f"writing {folder.stem}"):
        image = images.open_image(made.image_dir / name)
        drawn = decode_all(made.rles, name, made.sizes[name], len(made.classes))
        picture = with_legend(overlay(image, drawn), made.classes, drawn.mean(axis=(1, 2)))
        path = folder / made.files[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        if max(picture.size) > LONGEST_JPEG:
            picture.save(path, format="PNG")
        else:
            picture.save(path.with_suffix(".jpg"), format="JPEG", quality=90)


def overlay(image: np.ndarray, masks: np.ndarray, alpha: float = 0.3) -> np.ndarray:
    """Masks bool (C, H, W) over an image uint8 (H, W, 3), each in its colour, with an outline.

    alpha: weight of the colour inside the outline, which has the colour alone.
    """
    out = image.astype(np.float64)
    for mask, colour in zip(masks, class_colours(len(masks)), strict=True):
        out[mask] = (1 - alpha) * out[mask] + alpha * np.array(colour)
    for mask, colour in zip(masks, class_colours(len(masks)), strict=True):
        out[outline(mask, 1 + min(mask.shape) // 400)] = colour
    return out.round().astype(np.uint8)


def outline(mask: np.ndarray, width: int) -> np.ndarray:
    """The pixels of a mask that are at most `width` steps along rows and columns from a pixel
    outside it. All beyond the border of the image is outside, so that a mask of the whole image has
    an outline too."""
    inner = mask
    for _ in range(width):
        around = np.pad(inner, 1)
        inner = inner & around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return mask & ~inner


def with_legend(picture: np.ndarray, classes: Sequence[str],
                parts: Sequence[float]) -> Image.Image:
    """A picture uint8 (H, W, 3) with the colours and names of the classes that have a mask below
    it, and how large these are. parts: C areas of masks as parts of the image."""
    colours = class_colours(len(classes))
    entries = [(f"{k[:60]} {100 * part:.3g}%", c)
               for k, c, part in zip(classes, colours, parts, strict=True) if part]
    H, W = picture.shape[:2]
    strip = legend(entries or [("no mask", PAPER)], W)
    canvas = Image.new("RGB", (strip.width, H + strip.height), PAPER)
    canvas.paste(Image.fromarray(picture), (0, 0))
    canvas.paste(strip, (0, H))
    return canvas
