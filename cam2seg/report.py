"""Pictures: masks in colour, maps as heat, contact sheets. NumPy arrays in, Pillow for the rest."""

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Okabe-Ito: told apart by colour-blind readers too.
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66),
           (213, 94, 0), (204, 121, 167), (0, 114, 178))
HEAT = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
GAP, LABEL = 6, 14
PAPER = (225, 228, 232)  # neither black nor white, so that the edge of a mask shows


def paint(image, masks, alpha=0.45):
    """Image uint8 (H, W, 3) with each mask of bool (C, H, W) laid over it in its class's colour."""
    out = image.astype(np.float64)
    for c, mask in enumerate(masks):
        out[mask] = (1 - alpha) * out[mask] + alpha * np.array(COLOURS[c % len(COLOURS)])
    return out.round().astype(np.uint8)


def heat(map):
    """Map (H, W) in [0, 1] as colours uint8 (H, W, 3), dark to bright."""
    at = np.linspace(0, 1, len(HEAT))
    channels = [np.interp(map, at, [colour[i] for colour in HEAT]) for i in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def black_white(mask):
    """Mask bool (H, W) as colours uint8 (H, W, 3), white = defect."""
    return np.repeat(np.where(mask, 255, 0).astype(np.uint8)[:, :, None], 3, axis=2)


def contact_sheet(path, title, columns, rows, width=200):
    """Write a PNG: a title, column heads, and for each row (caption, pictures (H, W, 3)) a line.

    Every picture is scaled to `width`, or to less where it is higher than wide.
    """
    font = ImageFont.load_default(12)
    scaled = [(caption, [_fit(p, width) for p in pictures]) for caption, pictures in rows]
    heights = [max(p.height for p in pictures) + LABEL + GAP for _, pictures in scaled]
    total_width = len(columns) * (width + GAP) + GAP
    sheet = Image.new("RGB", (total_width, 2 * (LABEL + GAP) + sum(heights) + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, GAP // 2), title, "black", ImageFont.load_default(14))
    y = LABEL + GAP
    for i, column in enumerate(columns):
        draw.text((GAP + i * (width + GAP), y), _shorten(column, width, font), "black", font)
    y += LABEL + GAP
    for (caption, pictures), height in zip(scaled, heights, strict=True):
        draw.text((GAP, y - 2), caption, (90, 90, 90), font)
        for i, picture in enumerate(pictures):
            sheet.paste(picture, (GAP + i * (width + GAP), y + LABEL))
        y += height
    tmp = Path(f"{path}.tmp")
    sheet.save(tmp, format="PNG")
    os.replace(tmp, path)


def _fit(picture, width):
    H, W = picture.shape[:2]
    scale = width / max(H, W)
    size = max(1, round(W * scale)), max(1, round(H * scale))
    return Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR)


def _shorten(text, width, font):
    while font.getlength(text) > width and len(text) > 4:
        text = text[:-4] + "..."
    return text
