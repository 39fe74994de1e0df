"""Clean rolled steel under uneven light, and marks on it that are no defect.

The marks are as strong as the defects, so that contrast alone does not tell them apart.

Lengths are in units of one 128th of the strip's height (a pixel at the default size), contrasts
in fractions of the local brightness. Only NumPy and Pillow: the ground that strips.py draws on.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

# The steel, and marks on it that are no defect: (chance in one image, contrast).
TONE = (0.37, 0.51)
LIGHT_FALL = (0.1, 0.55)
GRAIN = 0.03
SENSOR_NOISE = (0.02, 0.05)
MARGIN_CHANCE = 0.12
MARGIN_DEPTH = (0.03, 0.2)
# Chance of 1, 2 and 3 kinds of marks in one image, and the contrast of each kind.
MARKS_PER_IMAGE = (0.1, 0.35, 0.55)
STAIN = (0.15, 0.35)
RINGS = (0.5, 0.8)
DROPS = (0.7, 1.1)
BANDS = (0.6, 1.1)
SCALE = (0.6, 0.8)
CHALK = (0.7, 1.1)


def field(rng: np.random.Generator, size: tuple[int, int], step: tuple[float, float]) -> np.ndarray:
    """Smooth float (H, W) noise of about unit deviation, one random knot every step pixels."""
    cells = [max(2, round(length / pitch) + 1) for length, pitch in zip(size, step)]
    knots = Image.fromarray(rng.standard_normal(cells).astype(np.float32))
    return np.asarray(knots.resize(size[::-1], Image.Resampling.BICUBIC))


def distance(size: tuple[int, int], row: float, column: float, tall: float,
             wide: float) -> np.ndarray:
    """Float (H, W) distance from an ellipse's centre, 1 on its outline."""
    y, x = np.ogrid[: size[0], : size[1]]
    return np.hypot((y - row) / tall, (x - column) / wide)


def surface(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Clean rolled steel under uneven light: float (H, W) brightness, 1 is white."""
    unit = size[0] / 128
    lamp = rng.uniform(-0.1, 1.1)
    apart = np.abs(np.linspace(0, 1, size[1]) - lamp) ** rng.uniform(1, 2)
    light = np.maximum(1 - rng.uniform(*LIGHT_FALL) * apart, 0.35)
    texture = (0.06 * field(rng, size, (90 * unit, 30 * unit))
               + 0.035 * field(rng, size, (40 * unit, 9 * unit))
               + GRAIN * field(rng, size, (14 * unit, 1.3 * unit))
               + 0.6 * GRAIN * field(rng, size, (2.2 * unit, 2.2 * unit)))
    return rng.uniform(*TONE) * light * (1 + rng.uniform(0.6, 1.4) * texture)


def _stains(rng, size, unit):
    """One to three flat blotches, dark or bright."""
    change = np.zeros(size)
    for _ in range(rng.integers(1, 4)):
        row, column = rng.uniform(0, 1, 2) * size
        tall, wide = rng.uniform(10, 40, 2) * unit
        apart = distance(size, row, column, tall, 1.4 * wide)
        apart = apart + 0.25 * field(rng, size, (14 * unit, 14 * unit))
        change += rng.choice((-1, 1)) * np.clip(rng.uniform(1, 5) * (1.3 - apart), 0, 1)
    return change


def _rings(rng, size, unit):
    """Dried drops: dark outlines, a little bright inside."""
    change = np.zeros(size)
    middle = rng.uniform(0, 1, 2) * size
    wobble = 0.12 * field(rng, size, (6 * unit, 6 * unit))
    for _ in range(rng.integers(3, 8)):
        row, column = rng.normal(middle, (40 * unit, 80 * unit))
        tall, wide = rng.uniform(8, 20) * rng.uniform(0.8, 1.2, 2) * unit
        apart = distance(size, row, column, tall, wide) + wobble
        rim = np.exp(-(((apart - 1) / rng.uniform(0.12, 0.25)) ** 2))
        change += rng.uniform(-0.2, 0.3) * np.clip(4 * (1 - apart), 0, 1) - rim
    # A drop does not dry evenly, so its rim is broken here and there.
    broken = np.clip(1 + 0.35 * field(rng, size, (9 * unit, 9 * unit)), 0.2, 1.3)
    return np.maximum(change, -1.2) * broken


def _drops(rng, size, unit):
    """Bright drops of paint, scattered over a long piece of the strip."""
    change = np.zeros(size)
    wobble = 0.15 * field(rng, size, (5 * unit, 5 * unit))
    middle = rng.uniform(0, 1, 2) * size
    for _ in range(rng.integers(8, 20)):
        row, column = rng.normal(middle, (40 * unit, 100 * unit))
        tall, wide = rng.uniform(3, 9) * rng.uniform(0.8, 1.2, 2) * unit
        apart = distance(size, row, column, tall, wide) + wobble
        change = np.maximum(change, np.clip(2.5 * (1.2 - apart), 0, 1))
    return change


def _bands(rng, size, unit):
    """Chatter of the rolls: straight marks across the strip, dark or bright."""
    change = np.zeros(size)
    y, x = np.ogrid[: size[0], : size[1]]
    middle = rng.uniform(0, 1) * size[1]
    for _ in range(rng.integers(4, 10)):
        row, reach = rng.uniform(0, 1) * size[0], rng.uniform(30, 120) * unit
        column = rng.normal(middle, 60 * unit)
        half_width = rng.uniform(0.8, 2.6) * unit
        ends = np.clip((reach - np.abs(x - column)) / (20 * unit), 0, 1)
        change += rng.choice((-1, 1)) * ends * np.exp(-(((y - row) / half_width) ** 2))
    fading = np.clip(0.9 + 0.4 * field(rng, size, (3 * unit, 7 * unit)), 0.15, 1.4)
    return change * fading


def _scale(rng, size, unit):
    """Islands of black scale that the rolls have left, with ragged outlines."""
    row, column = rng.uniform(0, 1, 2) * size
    apart = distance(size, row, column, *(rng.uniform((20, 30), (45, 90)) * unit))
    # Most islands are wider than a pit and none has a lip: a person tells them apart by that.
    level = (0.7 * field(rng, size, (22 * unit, 18 * unit))
             + 0.15 * field(rng, size, (5 * unit, 5 * unit)))
    return -np.clip(4 * (level - apart + 0.3), 0, 1)


def _chalk(rng, size, unit):
    """Bright handwriting: curved strokes of even width."""
    picture = Image.new("L", size[::-1])
    middle = rng.uniform(0.1, 0.9, 2) * size
    width = max(1, round(rng.uniform(3, 5) * unit))
    for letter in range(rng.integers(2, 6)):
        corner = middle + (0, 26 * letter * unit)
        path = corner + 11 * unit * field(rng, (40, 2), (8, 1))
        ImageDraw.Draw(picture).line([(x, y) for y, x in path], 255, width, "curve")
    soft = np.asarray(picture.filter(ImageFilter.GaussianBlur(0.7 * unit))) / 255
    return soft * np.clip(0.8 + 0.3 * field(rng, size, (3 * unit, 3 * unit)), 0.2, 1.2)


_MARKS = ((STAIN, _stains), (RINGS, _rings), (DROPS, _drops), (BANDS, _bands),
          (SCALE, _scale), (CHALK, _chalk))


def distractors(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Marks that are no defect, as a float (H, W) relative change of brightness."""
    change = np.zeros(size)
    count = 1 + rng.choice(len(MARKS_PER_IMAGE), p=MARKS_PER_IMAGE)
    for kind in rng.choice(len(_MARKS), count, replace=False):
        contrast, draw = _MARKS[kind]
        change += rng.uniform(*contrast) * draw(rng, size, size[0] / 128)
    return np.clip(change, -0.85, 1.3)


def margin(rng: np.random.Generator,
           size: tuple[int, int]) -> tuple[np.ndarray, tuple[float, float]]:
    """(cover float (H, W), 1 on steel and 0.03 beyond its end; first and last steel column)."""
    height, width = size
    if rng.random() >= MARGIN_CHANCE:
        return np.ones(size), (0, width)
    unit = height / 128
    depth = rng.uniform(*MARGIN_DEPTH) * width
    rows = np.arange(height)[:, None] - height / 2
    ragged = field(rng, (height, 1), (24 * unit, 1)) + 0.5 * rng.standard_normal((height, 1))
    edge = depth + rng.uniform(-0.04, 0.04) * rows + ragged * unit
    cover = 0.03 + 0.97 * np.clip((np.arange(width) - edge) / (4 * unit) + 0.5, 0, 1)
    if rng.random() < 0.5:
        return cover, (depth, width)
    return cover[:, ::-1], (0, width - depth)
