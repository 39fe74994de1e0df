"""Clean rolled steel under uneven light, and marks on it that are no defect.

Lengths are in units of one 128th of the strip's height (a pixel at the default size), contrasts
in fractions of the local brightness. Only NumPy and Pillow: the ground that strips.py draws on.
"""

import numpy as np
from PIL import Image

# The steel, and marks on it that are no defect: (chance in one image, contrast).
TONE = (0.37, 0.51)
LIGHT_FALL = (0.1, 0.4)
GRAIN = 0.03
SENSOR_NOISE = (0.02, 0.05)
MARGIN_CHANCE = 0.12
MARGIN_DEPTH = (0.03, 0.2)
STAIN = (0.35, 0.14)
RINGS = (0.25, 0.13)
SPLASH = (0.2, 0.2)
BANDS = (0.35, 0.07)


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


def _stain(rng, size, unit, row, column):
    tall, wide = rng.uniform(10, 40, 2) * unit
    apart = distance(size, row, column, tall, 1.4 * wide)
    apart = apart + 0.25 * field(rng, size, (14 * unit, 14 * unit))
    return rng.choice((-1, 1)) * np.clip(1.3 - apart, 0, 1)


def _rings(rng, size, unit, row, column):
    change = np.zeros(size)
    for _ in range(rng.integers(1, 5)):
        dy, dx = rng.normal(0, 22, 2) * unit
        tall, wide = rng.uniform(5, 14) * rng.uniform(0.8, 1.2, 2) * unit
        apart = distance(size, row + dy, column + dx, tall, wide)
        change += 0.4 * (apart < 0.9) - np.exp(-(((apart - 1) / 0.16) ** 2))
    return change


def _splash(rng, size, unit, row, column):
    change = np.zeros(size)
    for _ in range(rng.integers(3, 9)):
        dy, dx = rng.normal(0, 16, 2) * unit
        tall, wide = rng.uniform(1.5, 5, 2) * unit
        change += np.exp(-(distance(size, row + dy, column + dx, tall, wide) ** 2))
    return change


def _bands(rng, size, unit, row, column):
    pitch = rng.uniform(24, 60) * unit
    apart = (np.arange(size[0])[:, None] - row + pitch / 2) % pitch - pitch / 2
    profile = np.exp(-((apart / (rng.uniform(2, 5) * unit)) ** 2))
    fading = np.clip(1 + 0.5 * field(rng, size, (60 * unit, 60 * unit)), 0, 2)
    return rng.choice((-1, 1)) * profile * fading


def distractors(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Marks that are no defect, as a float (H, W) relative change of brightness."""
    change = np.zeros(size)
    drawers = (STAIN, _stain), (RINGS, _rings), (SPLASH, _splash), (BANDS, _bands)
    for (chance, contrast), draw in drawers:
        if rng.random() < chance:
            row, column = rng.uniform(0, 1, 2) * size
            change += contrast * draw(rng, size, size[0] / 128, row, column)
    return change


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
