"""Masks painted in colour, maps as heat, and contact sheets of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..data.colours import COLOURS
from ..data.files import whole_file

COLOUR_NAMES = ("orange", "sky blue", "green", "yellow", "vermilion", "purple", "blue")
HEAT = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
GAP, LABEL, BOX = 6, 16, 12
PAPER = (225, 228, 232)  # neither black nor white, so that the edge of every picture shows
EDGE = (110, 118, 126)


def paint(image: np.ndarray, masks: np.ndarray, alpha: float = 0.45) -> np.ndarray:
    """Lay each mask of bool (C, H, W) over an image uint8 (H, W, 3) in the colour of its class.

    alpha: weight of the colour, 0 to 1. Returns uint8 (H, W, 3).
    """
    out = image.astype(np.float64)
    for c, mask in enumerate(masks):
        out[mask] = (1 - alpha) * out[mask] + alpha * np.array(COLOURS[c % len(COLOURS)])
    return out.round().astype(np.uint8)


def heat(map: np.ndarray) -> np.ndarray:
    """Show a map (H, W) in [0, 1] as colours uint8 (H, W, 3) from dark to bright."""
    at = np.linspace(0, 1, len(HEAT))
    channels = [np.interp(map, at, [colour[i] for colour in HEAT]) for i in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def black_white(mask: np.ndarray) -> np.ndarray:
    """Show a mask bool (H, W) as colours uint8 (H, W, 3); white is defect."""
    return np.repeat(np.where(mask, 255, 0).astype(np.uint8)[:, :, None], 3, axis=2)


def contact_sheet(path: Path | str, title: str, columns: Sequence[str],
                  rows: Sequence[tuple[str, Sequence[np.ndarray]]], width: int = 200,
                  colours: Sequence[tuple[str, tuple[int, int, int]]] = ()) -> None:
    """Write a PNG with a title, the heads of the columns, and one line of pictures for each row.

    rows: list of (caption, pictures uint8 (H, W, 3)). A row without pictures is a heading under a
    line across the sheet. The longer side of every picture is scaled to `width` pixels. colours:
    names and colours of a legend.
    """
    font, large = ImageFont.load_default(12), ImageFont.load_default(14)
    scaled = [(caption, [_fit(p, width) for p in pictures]) for caption, pictures in rows]
    heights = [max((p.height for p in pictures), default=2 * GAP) + LABEL + GAP
               for _, pictures in scaled]
    total_width = len(columns) * (width + GAP) + GAP
    strip = legend(colours, total_width) if colours else Image.new("RGB", (total_width, 0))
    top = LABEL + GAP + strip.height
    size = max(total_width, strip.width), top + LABEL + 2 * GAP + sum(heights)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP // 2), title, "black", large)
    sheet.paste(strip, (0, LABEL + GAP))
    for i, column in enumerate(columns):
        draw.text((GAP + i * (width + GAP), top), _shorten(column, width, font), "black", font)
    y = top + LABEL + GAP
    for (caption, pictures), height in zip(scaled, heights, strict=True):
        if pictures:
            draw.text((GAP, y - 2), caption, (90, 90, 90), font)
        else:
            draw.line((GAP, y + GAP, sheet.width - GAP, y + GAP), EDGE, 2)
            draw.text((GAP, y + 2 * GAP), caption, "black", large)
        for i, picture in enumerate(pictures):
            x = GAP + i * (width + GAP)
            sheet.paste(picture, (x, y + LABEL))
            draw.rectangle((x - 1, y + LABEL - 1, x + picture.width, y + LABEL + picture.height),
                           outline=EDGE)
        y += height
    with whole_file(path, "wb") as file:
        sheet.save(file, format="PNG")


def legend(entries: Sequence[tuple[str, tuple[int, int, int]]], width: int) -> Image.Image:
    """A strip with names and their colours, as wide as `width`, or as the longest name."""
    font, places, x, y, widest = ImageFont.load_default(BOX), [], GAP, GAP, width
    for text, colour in entries:
        wide = BOX + GAP + int(font.getlength(text)) + 2 * GAP
        if x > GAP and x + wide > width:
            x, y = GAP, y + BOX + GAP
        places.append((x, y, text, colour))
        x, widest = x + wide, max(widest, x + wide)
    strip = Image.new("RGB", (widest, y + BOX + GAP), PAPER)
    draw = ImageDraw.Draw(strip)
    for x, y, text, colour in places:
        if colour != PAPER:
            draw.rectangle((x - 1, y - 1, x + BOX, y + BOX), colour, EDGE)
        draw.text((x + BOX + GAP, y - 2), text, "black", font)
    return strip


def _fit(picture, width):
    H, W = picture.shape[:2]
    scale = width / max(H, W)
    size = max(1, round(W * scale)), max(1, round(H * scale))
    return Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR)


def _shorten(text, width, font):
    while font.getlength(text) > width and len(text) > 4:
        text = text[:-4] + "..."
    return text
