"""Seeded pictures of steel strip with true defect masks, in Kaggle's Severstal layout.

Lengths are in units of one 128th of the strip's height (a pixel at the default size), contrasts
in fractions of the local brightness.
"""

import argparse
import csv
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from ..data.errors import DataError
from ..masks import rle_encode
from . import command, steel

# Chance of 0, 1, 2 and 3 kinds of defect in one image.
KINDS_PER_IMAGE = (0.25, 0.5, 0.2, 0.05)

# How much a defect darkens or brightens the steel: the dials for difficulty.
PIT_DEPTH = (0.4, 0.65)
PIT_LIP = 0.8
CRACK_DEPTH = (0.5, 0.8)
CRACK_LIP = (0.3, 0.9)
STREAK_CONTRAST = (0.45, 0.75)
STREAK_BRIGHT = 0.5
PATCH_RELIEF = (0.2, 0.36)
PATCH_TONE = (0.3, 0.5)

# How large it is.
PIT_CLUSTERS = (2, 4)
PIT_COUNT = (12, 22)
PIT_RADIUS = (4.2, 7.5)
CRACK_COUNT = (2, 4)
CRACK_HALF_WIDTH = (2.6, 4.4)
STREAK_COUNT = (8, 18)
STREAK_REACH = (20, 60)
STREAK_HALF_WIDTH = (0.8, 2.6)
PATCH_RADII = ((26, 44), (40, 80))

# How far annotators draw outside the pixels that differ.
PIT_GROWTH = 2.0
LINE_GROWTH = 2.3
PATCH_GROWTH = 2.5


def _line(size, path, rows, half_width):
    """Soft vertical line from row to row along columns path (H, 1), as float (H, W) in 0..1."""
    y, x = np.ogrid[: size[0], : size[1]]
    along = np.clip((y - rows[0]) / (rows[1] - rows[0]), 0, 1)
    # The square root keeps the line near its full width until close to its tips.
    reach = half_width * np.sqrt(np.sin(np.pi * along))
    return np.clip(reach + 0.5 - np.abs(x - path), 0, 1) * np.minimum(reach, 1)


def _grow(mask, reach):
    """Widen a bool mask by about reach pixels with round corners, thin lines included."""
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(reach))) > 30


def _pits(rng, size, unit, span):
    """Small dark pits with a bright lip, wider on its lit side, in loose clusters."""
    dark, lip, body = np.zeros(size), np.zeros(size), np.zeros(size, bool)
    wobble = 0.2 * steel.field(rng, size, (3 * unit, 2.5 * unit))
    low, high = (4 * unit, span[0] + 6 * unit), (size[0] - 4 * unit, span[1] - 6 * unit)
    for _ in range(rng.integers(*PIT_CLUSTERS)):
        middle = rng.uniform(0.2, 0.8) * size[0], rng.uniform(*span)
        for _ in range(rng.integers(*PIT_COUNT)):
            row, column = np.clip(rng.normal(middle, (14 * unit, 18 * unit)), low, high)
            # Squared, so that most pits are small and a few large.
            radius = (PIT_RADIUS[0] + np.ptp(PIT_RADIUS) * rng.random() ** 2) * unit
            tall, wide = radius * rng.uniform(0.9, 1.6), radius * rng.uniform(0.8, 1.2)
            # Only a window around the pit is computed: tens of pits on the whole strip are slow.
            first = np.maximum(0, (int(row - 3 * tall), int(column - 3 * wide)))
            box = np.s_[first[0] : int(row + 3 * tall), first[1] : int(column + 3 * wide)]
            shape, (row, column) = dark[box].shape, (row, column) - first
            apart = steel.distance(shape, row, column, tall, wide) + wobble[box]
            lit = wobble[box] + steel.distance(shape, row + 0.3 * tall, column + 0.3 * wide,
                                               tall, wide)
            depth = rng.uniform(*PIT_DEPTH) * np.clip(1.6 - 1.2 * apart, 0, 1)
            dark[box] = np.maximum(dark[box], depth)
            lip[box] = np.maximum(lip[box], PIT_LIP * np.clip(1.9 - lit, 0, 1))
            body[box] |= apart < 1
    return np.where(dark > 0, -dark, lip), _grow(body, PIT_GROWTH * unit)


def _cracks(rng, size, unit, span):
    """A few wavy cracks down the strip, each a dark gap beside a bright lip, often near its end."""
    height, width = size
    change, body = np.zeros(size), np.zeros(size, bool)
    for _ in range(rng.integers(*CRACK_COUNT)):
        column = rng.uniform(span[0] + 10 * unit, span[1] - 10 * unit)
        if rng.random() < 0.6:
            offset = rng.uniform(10 * unit, 0.15 * width)
            column = span[0] + offset if rng.random() < 0.5 else span[1] - offset
        length = rng.uniform(0.45, 1.1) * height
        top = rng.uniform(-0.05 * height, 1.05 * height - length)
        wander = (3.5 * steel.field(rng, (height, 1), (22 * unit, 1))
                  + 0.9 * steel.field(rng, (height, 1), (4 * unit, 1)))
        path = column + wander * unit
        swell = np.clip(1 + 0.3 * steel.field(rng, (height, 1), (9 * unit, 1)), 0.5, 1.5)
        half_width = rng.uniform(*CRACK_HALF_WIDTH) * unit * swell
        core = _line(size, path, (top, top + length), half_width)
        # The side that faces the light is bright, about as wide as the gap itself.
        beside = path + rng.choice((-1, 1)) * 1.7 * half_width
        lip = _line(size, beside, (top, top + length), 0.8 * half_width)
        depth = rng.uniform(*CRACK_DEPTH)
        change += depth * (rng.uniform(*CRACK_LIP) * lip * (1 - core) - core)
        body |= np.maximum(core, lip) > 0.1
    return np.maximum(change, -0.9), _grow(body, LINE_GROWTH * unit)


def _streaks(rng, size, unit, span):
    """A group of straight scratches, dark or bright, of varying length."""
    height = size[0]
    change, body = np.zeros(size), np.zeros(size, bool)
    reach = min(rng.uniform(*STREAK_REACH) * unit, (span[1] - span[0]) / 3)
    middle = rng.uniform(span[0] + reach, span[1] - reach)
    slant = rng.uniform(-0.04, 0.04) * (np.arange(height)[:, None] - height / 2)
    for _ in range(rng.integers(*STREAK_COUNT)):
        length = rng.uniform(0.25, 1.0) * height
        top = rng.uniform(-0.1 * height, 1.1 * height - length)
        path = middle + rng.uniform(-reach, reach) + slant
        half_width = rng.uniform(*STREAK_HALF_WIDTH) * unit
        line = _line(size, path, (top, top + length), half_width)
        sign = 1 if rng.random() < STREAK_BRIGHT else -1
        change += sign * rng.uniform(*STREAK_CONTRAST) * line
        body |= line > 0.1
    # A scratch fades and skips along its length where the steel lies lower.
    skips = np.clip(0.9 + 0.4 * steel.field(rng, size, (7 * unit, 3 * unit)), 0.15, 1.4)
    return np.clip(change * skips, -0.8, 1.2), _grow(body, LINE_GROWTH * unit)


def _patch(rng, size, unit, span):
    """A large torn patch: ragged outline, lit and shadowed edges, flaky inside."""
    tall, wide = (rng.uniform(*limits) * unit for limits in PATCH_RADII)
    wide = min(wide, (span[1] - span[0]) / 3)
    row = rng.uniform(0.2, 0.8) * size[0]
    column = rng.uniform(span[0] + 0.5 * wide, span[1] - 0.5 * wide)
    level = (1 - steel.distance(size, row, column, tall, wide)
             + 0.32 * steel.field(rng, size, (24 * unit, 14 * unit))
             + 0.13 * steel.field(rng, size, (9 * unit, 3 * unit)))
    inside = np.clip(level / 0.25, 0, 1)
    flakes = (0.7 * steel.field(rng, size, (18 * unit, 6 * unit))
              + 0.4 * steel.field(rng, size, (5 * unit, 2 * unit)))
    relief = inside * (1 + flakes)
    # Lit from the upper left: a slope facing it is bright and its far side lies in shadow.
    step = max(1, round(2 * unit))
    uphill = relief - np.pad(relief, ((step, 0), (step, 0)), mode="edge")[: size[0], : size[1]]
    tone = rng.choice((-1, 1)) * rng.uniform(*PATCH_TONE)
    change = rng.uniform(*PATCH_RELIEF) * uphill + inside * (tone + 0.12 * flakes)
    return np.clip(change, -0.85, 1.2), _grow(level > 0, PATCH_GROWTH * unit)


_DEFECTS = (_pits, _cracks, _streaks, _patch)


def _kinds(rng):
    """The kinds of defect in one image, as a sorted array of numbers from 0."""
    count = rng.choice(len(KINDS_PER_IMAGE), p=KINDS_PER_IMAGE)
    return np.sort(rng.choice(len(_DEFECTS), count, replace=False))


def strip(rng: np.random.Generator,
          size: tuple[int, int] = (128, 512)) -> tuple[np.ndarray, np.ndarray]:
    """Draw one strip with a numpy Generator: (image uint8 (H, W), masks bool (4, H, W)).

    The masks follow Severstal's ClassId 1 to 4: pits, cracks, streaks, patches; the mask of an
    absent kind is empty. Raises ValueError for a size below 32 x 128.
    """
    if size[0] < 32 or size[1] < 128:
        raise ValueError(f"size {size[0]} x {size[1]} is below 32 x 128")
    # All that is no defect is drawn first, so that no kind of defect can influence it.
    brightness = steel.surface(rng, size) * (1 + steel.distractors(rng, size))
    cover, span = steel.margin(rng, size)
    noise = rng.uniform(*steel.SENSOR_NOISE) * rng.standard_normal(size)
    masks = np.zeros((len(_DEFECTS), *size), bool)
    for kind in _kinds(rng):
        change, mask = _DEFECTS[kind](rng, size, size[0] / 128, span)
        brightness = brightness * (1 + change)
        masks[kind] = mask & (cover > 0.5)
    brightness = cover * brightness
    # Sensor noise grows with the light, but stays where there is none.
    brightness = brightness + noise * (0.08 + brightness)
    return (255 * np.clip(brightness, 0, 1)).round().astype(np.uint8), masks


def write(out_dir: Path | str, images: int = 480, size: tuple[int, int] = (128, 512), seed: int = 0,
          draw: Callable = strip, after_each: Callable = lambda: None) -> list[int]:
    """Write out_dir/train_images/*.jpg and out_dir/train.csv with true masks.

    draw(rng, size) makes one picture as strip() does. Image i depends on draw, seed, size and i
    alone. The table has a row for every kind present in an image and none for a clean image, as
    Kaggle's has, and is written last. Returns a list of ints: the images with each kind, and the
    clean ones. after_each() is called after every image; what it raises ends the work and leaves
    an empty folder. Raises FileExistsError for a
    folder that is not empty and ValueError for a number of images or a size out of range.
    """
    if not 1 <= images <= 100_000:
        raise ValueError(f"{images} images are not between 1 and 100000")
    if seed < 0:
        raise ValueError(f"seed {seed} is negative")
    out = command.empty_folder(out_dir)
    building = out / ".building"
    (building / "train_images").mkdir(parents=True)
    try:
        rows, present = [("ImageId", "ClassId", "EncodedPixels")], []
        for index in range(images):
            image, masks = draw(np.random.default_rng((seed, index)), size)
            name = f"{index:05d}.jpg"
            picture = Image.fromarray(image).convert("RGB")
            picture.save(building / "train_images" / name, quality=92)
            present.append(masks.any(axis=(1, 2)))
            rows += [(name, kind + 1, rle_encode(masks[kind]))
                     for kind in np.flatnonzero(present[-1])]
            after_each()
        with open(building / "train.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        os.replace(building / "train_images", out / "train_images")
        os.replace(building / "train.csv", out / "train.csv")
    finally:
        shutil.rmtree(building)
    return [*np.sum(present, axis=0).tolist(), sum(not kinds.any() for kinds in present)]


def get_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags of the command line; exits with status 2 and one line on stderr for a wrong one."""
    parser = argparse.ArgumentParser(
        prog="python -m cam2seg.demo", allow_abbrev=False,
        description="Write demo pictures of steel strip with true defect masks, "
                    "in the layout of Kaggle's Severstal: Steel Defect Detection.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.error = lambda message: parser.exit(2, f"error: {message}; --help shows the flags\n")
    parser.add_argument("out", help="new or empty folder for train_images/ and train.csv")
    parser.add_argument("--images", type=int, default=480, help="how many pictures to draw")
    parser.add_argument("--size", type=int, nargs=2, default=(128, 512),
                        metavar=("HEIGHT", "WIDTH"), help="in pixels, 32 128 or more")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same pictures")
    return parser.parse_args(argv)


def draw_all(args: argparse.Namespace, after_each: Callable = lambda: None) -> str:
    """Draw what the flags ask for, and say in one line what was drawn. See write.

    Raises DataError for a number out of range and OSError for what cannot be written.
    """
    try:
        counts = write(args.out, args.images, tuple(args.size), args.seed, after_each=after_each)
    except ValueError as error:
        raise DataError(str(error)) from error
    pits, cracks, streaks, patches, clean = counts
    return (f"{args.images} images in {args.out}: {pits} with pits, {cracks} with cracks, "
            f"{streaks} with streaks, {patches} with patches, {clean} clean")
