"""Small generated cloud fields with true masks, in the layout of "Understanding Clouds".

    python -m cam2seg.demo.clouds data/clouds --images 60

A picture shows the sea from above. Four patterns of clouds lie on it, named as in the contest: Fish
are long streaks, Flower are large patches, Gravel are bright grains and Sugar is fine dust. A
pattern fills one or two large regions with soft edges, and regions of several patterns overlap.
Fish, Gravel and Sugar occur together more often than any of them with Flower. In some pictures a
black wedge hides a part, as between two passes of the satellite; it belongs to no mask.

Written are train_images/, train.csv with one row `Image_Label` for each pair of image and class,
empty ones included, test_images/ and sample_submission.csv.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.csv_files import write_csv
from ..masks import rle_encode
from . import command

PATTERNS = ("Fish", "Flower", "Gravel", "Sugar")
FLOWER = 0.35  # chance of Flower where the others are, and of each other where Flower is
OTHERS = 0.55  # chance of Fish, Gravel and Sugar in a picture without Flower
WEDGE = 0.3  # chance of a black wedge
SOFT = 0.12  # width of a region's edge, as a part of its radius
# Waves across the picture's height, their spread, how much longer than wide, and the brightness.
TEXTURES = ((9, 3, 5.0, 130), (5, 1.5, 1.0, 150), (17, 4, 1.0, 170), (34, 9, 1.0, 110))


def draw(rng: np.random.Generator, size: tuple[int, int] = (128, 192)
         ) -> tuple[np.ndarray, np.ndarray]:
    """A picture uint8 (H, W, 3) and its masks bool (4, H, W) in the order of PATTERNS.

    The same generator state gives the same picture.
    """
    grey = 35 + 12 * _waves(rng, size, 2, 1, 1.0) + 4 * rng.standard_normal(size)
    masks = np.zeros((len(PATTERNS), *size), bool)
    for c in np.flatnonzero(_classes(rng)):
        inside = np.max([_region(rng, size) for _ in range(rng.integers(1, 3))], axis=0)
        waves, spread, length, bright = TEXTURES[c]
        cloud = np.clip(0.5 + 0.9 * _waves(rng, size, waves, spread, length), 0, 1)
        cover = inside * cloud * rng.uniform(0.75, 1)
        grey = np.maximum(grey, (1 - cover) * grey + cover * (60 + bright))
        masks[c] = inside >= 0.5
    grey = grey.clip(5, 255)  # black is the wedge alone
    if rng.random() < WEDGE:
        hidden = _wedge(rng, size)
        grey, masks = np.where(hidden, 0, grey), masks & ~hidden
    tint = np.array((0.92, 0.97, 1.05))  # a blue sea under white clouds
    pixels = grey[..., None] * (tint + (1 - tint) * np.clip(grey / 160, 0, 1)[..., None])
    return pixels.clip(0, 255).round().astype(np.uint8), masks


def _classes(rng):
    """Which patterns a picture has: bool (4,), one of them at least."""
    while True:
        flower = rng.random() < FLOWER
        has = rng.random(4) < (FLOWER if flower else OTHERS)
        has[1] = flower
        if has.any():
            return has


def _waves(rng, size, waves, spread, length):
    """Random waves (H, W) of mean 0 and standard deviation 1, `waves` of them across the height.

    length: how many times as long as wide they are, in one direction of the whole picture.
    """
    H, W = size
    y, x = np.meshgrid(np.fft.fftfreq(H) * H, np.fft.fftfreq(W) * H, indexing="ij")
    turn = rng.uniform(0, np.pi)
    along = (x * np.cos(turn) + y * np.sin(turn)) * length
    across = y * np.cos(turn) - x * np.sin(turn)
    keep = np.exp(-((np.hypot(along, across) - waves) / spread) ** 2 / 2)
    keep[0, 0] = 0
    out = np.fft.ifft2(np.fft.fft2(rng.standard_normal(size)) * keep).real
    return out / out.std()


def _region(rng, size):
    """How much each pixel is inside a large region: (H, W) from 0 to 1, 1/2 on its outline.

    The region lies between an ellipse and a rectangle, is convex, and may reach over the edge.
    """
    H, W = size
    rows, cols = np.mgrid[:H, :W]
    turn = rng.uniform(0, np.pi)
    i, j = rows - rng.uniform(0.15, 0.85) * H, cols - rng.uniform(0.15, 0.85) * W
    a, b = rng.uniform(0.25, 0.5, 2) * min(H, W) * (1.2, 0.9)
    u, v = j * np.cos(turn) + i * np.sin(turn), i * np.cos(turn) - j * np.sin(turn)
    radius = (np.abs(u / a) ** 3.5 + np.abs(v / b) ** 3.5) ** (1 / 3.5)
    return 1 / (1 + np.exp((radius - 1) * 4 / SOFT))


def _wedge(rng, size):
    """A wedge bool (H, W) that narrows from the upper or the lower edge to a point beyond."""
    H, W = size
    rows, cols = np.mgrid[:H, :W]
    down = rows / H if rng.random() < 0.5 else 1 - rows / H
    middle = (rng.uniform(0.2, 0.8) + rng.uniform(-0.2, 0.2) * down) * W
    return np.abs(cols - middle) < rng.uniform(0.03, 0.08) * W * (1 - down * rng.uniform(0.7, 1.2))


def write(out: Path | str, images: int = 60, size: tuple[int, int] = (128, 192), seed: int = 0,
          test_images: int | None = None) -> None:
    """Write the contest's files; a third as many test images as training images unless a number is
    given. Raises FileExistsError for a folder that is not empty."""
    out = command.empty_folder(out)
    counts = {"train": images, "test": max(1, images // 3) if test_images is None else test_images}
    rows = {"train": [], "test": []}
    for part, (kind, count) in enumerate(counts.items()):
        (out / f"{kind}_images").mkdir(parents=True)
        for index in range(count):
            picture, masks = draw(np.random.default_rng((seed, part, index)), size)
            name = f"{kind}{index:05d}.jpg"
            Image.fromarray(picture).save(out / f"{kind}_images" / name, quality=92)
            rows[kind] += [(f"{name}_{pattern}", rle_encode(mask) if kind == "train" else "1 1")
                           for pattern, mask in zip(PATTERNS, masks, strict=True)]
    header = ("Image_Label", "EncodedPixels")
    write_csv(out / "train.csv", header, rows["train"])
    write_csv(out / "sample_submission.csv", header, rows["test"])


def main(argv: Sequence[str] | None = None) -> None:
    """Command line; exits with status 2 and one line on stderr when it refuses."""
    parser = argparse.ArgumentParser(
        prog="python -m cam2seg.demo.clouds", allow_abbrev=False, description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="new or empty folder for the files of the contest")
    parser.add_argument("--images", type=int, default=60,
                        help="how many training images; a third as many are for the test "
                             "(default: 60)")
    parser.add_argument("--size", type=int, nargs=2, default=(128, 192), metavar=("HEIGHT", "WIDTH"),
                        help="in pixels (default: 128 192; the contest has 1400 2100)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same clouds (default: 0)")
    args = parser.parse_args(argv)
    command.written(write, args.out, args.images, tuple(args.size), args.seed)
    print(f"{args.images} training images with true masks in {args.out}")


if __name__ == "__main__":
    main()
