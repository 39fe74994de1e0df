"""Seeded sequences of textured objects that move, turn, cross or leave, with their true masks.

    python -m cam2seg.demo.motion data/motion

Each object has the colours of the ground that it moves over, in another pattern, so that a colour
alone does not tell what belongs to it. Lengths are in pixels and angles in radians. Only NumPy and
Pillow.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.csv_files import write_csv
from ..masks import rle_encode
from . import command
from .steel import field

KINDS = ("moving", "turning", "crossing", "leaving")
TILE = 128  # side of a pattern, which repeats
GROUND_GRAIN, OBJECT_GRAIN = (14, 22), (5, 10)  # pitch of the patterns
NOISE = 2.0  # standard deviation of the camera's noise, in grey levels
LIGHT = 0.04  # how far the light may change within a sequence
FINE = 2  # points along each side of a pixel


def _palette(rng):
    """Three colours (3, 3) in 0..1, each clearly apart from the others."""
    hue = rng.random() + np.array([0, 0.3, 0.62]) + rng.uniform(-0.06, 0.06, 3)
    value = rng.permutation([0.4, 0.62, 0.85])
    wheel = 0.5 + 0.5 * np.cos(2 * np.pi * (hue[:, None] - np.array([0, 1 / 3, 2 / 3])))
    return value[:, None] * (0.25 + 0.75 * wheel)


def _pattern(rng, palette, pitch):
    """Patches of the palette's colours, float (TILE, TILE, 3), that repeat without a seam."""
    level = np.stack([_periodic(rng, pitch) for _ in palette])
    weight = np.exp(6 * level)
    weight /= weight.sum(axis=0)
    shade = 1 + 0.12 * _periodic(rng, 3 * pitch) + 0.05 * _periodic(rng, 2)
    return np.tensordot(weight, palette, (0, 0)) * shade[..., None]


def _periodic(rng, pitch):
    """Smooth periodic noise (TILE, TILE) of unit deviation."""
    f = np.fft.fftfreq(TILE)
    gain = np.exp(-2 * (np.pi * pitch / 4) ** 2 * (f[:, None] ** 2 + f**2))
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((TILE, TILE))) * gain).real
    return (noise - noise.mean()) / noise.std()


def _look_up(pattern, y, x):
    """Colours of a pattern at the points (y, x), between its pixels, repeated in all directions."""
    a, b = np.floor(y).astype(int), np.floor(x).astype(int)
    fy, fx = (y - a)[..., None], (x - b)[..., None]
    at = [[pattern[(a + i) % TILE, (b + j) % TILE] for j in (0, 1)] for i in (0, 1)]
    return ((1 - fy) * ((1 - fx) * at[0][0] + fx * at[0][1])
            + fy * ((1 - fx) * at[1][0] + fx * at[1][1]))


class _Thing:
    """An object: its outline, its pattern, and where it is at each time."""

    def __init__(self, rng, palette, size):
        self.radius = rng.uniform(0.15, 0.2) * min(size)
        self.waves = rng.uniform(-0.12, 0.12, (2, 3))
        self.pattern = _pattern(rng, palette, rng.uniform(*OBJECT_GRAIN))

    def points(self, y: np.ndarray, x: np.ndarray,
               place: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which points (y, x) are in the object, and their coordinates on its pattern."""
        row, column, angle = place
        near = np.hypot(y - row, x - column) < 2 * self.radius  # the waves add up to 0.72 at most
        y, x = y[near] - row, x[near] - column
        v = np.cos(angle) * y - np.sin(angle) * x
        u = np.sin(angle) * y + np.cos(angle) * x
        turn = np.arctan2(v, u)[:, None] * np.arange(2, 5)
        reach = 1 + (self.waves[0] * np.cos(turn) + self.waves[1] * np.sin(turn)).sum(axis=1)
        inside = np.hypot(v, u) < self.radius * reach
        near[near] = inside
        return near, v[inside], u[inside]


def _paths(rng, kind, frames, size, things):
    """Row, column and angle of each thing in each frame, (things, frames, 3)."""
    H, W = size
    s, out = np.linspace(0, 1, frames), np.zeros((len(things), frames, 3))
    side = rng.choice((-1, 1))
    for n, thing in enumerate(things):
        turn = rng.uniform(-0.5, 0.5)
        if kind == "turning":
            turn = rng.choice((-1, 1)) * rng.uniform(1.2, 2.0)
        angle = rng.uniform(0, 2 * np.pi) + turn * s
        row, column = (0.3 + 0.4 * n) * H + rng.uniform(-0.04, 0.04) * H, 0.3 * W
        length = rng.uniform(0.3, 0.45) * W
        if kind == "turning":
            column, length = rng.uniform(0.35, 0.5) * W, rng.uniform(0.05, 0.15) * W
        if kind == "crossing":
            row, column, length = (0.44 + 0.12 * n) * H, 0.25 * W, 0.5 * W
        if kind == "leaving" and n == 0:
            column, length = 0.55 * W, 0.5 * W + thing.radius
        along = column + length * s
        forward = side if kind != "crossing" else (1, -1)[n]
        out[n, :, 1] = along if forward > 0 else W - along
        sway = 0.02 if kind == "crossing" else 0.08
        out[n, :, 0] = row + rng.uniform(-sway, sway) * H * np.sin(np.pi * s)
        out[n, :, 2] = angle
    return out


def sequence(rng: np.random.Generator, kind: str, frames: int = 16,
             size: tuple[int, int] = (96, 128)) -> tuple[np.ndarray, np.ndarray]:
    """Draw one sequence with two objects: images uint8 (T, H, W, 3), masks bool (T, 2, H, W).

    kind: one of KINDS. The ground drifts slowly. Where two objects meet, the second lies in front.
    Raises ValueError for an unknown kind, for fewer than two frames and for a size below 48 x 48.
    """
    if kind not in KINDS or frames < 2 or min(size) < 48:
        raise ValueError(f"{kind} with {frames} frames of {size[0]} x {size[1]} pixels, expected "
                         f"one of {', '.join(KINDS)}, two frames or more, 48 x 48 pixels or more")
    palette = _palette(rng)
    ground = _pattern(rng, palette, rng.uniform(*GROUND_GRAIN))
    things = [_Thing(rng, palette, size) for _ in range(2)]
    paths = _paths(rng, kind, frames, size, things)
    drift = rng.uniform(-0.6, 0.6, 2)
    light = 1 + LIGHT * field(rng, (frames, 1), (6, 1))[:, 0]
    y, x = (np.arange(side * FINE) / FINE + (0.5 / FINE - 0.5) for side in size)
    y, x = np.meshgrid(y, x, indexing="ij")
    images, masks = [], []
    for t in range(frames):
        colour = _look_up(ground, y + drift[0] * t, x + drift[1] * t)
        owner = np.zeros(y.shape, int)
        for n, thing in enumerate(things):
            inside, v, u = thing.points(y, x, paths[n, t])
            colour[inside] = _look_up(thing.pattern, v, u)
            owner[inside] = n + 1
        grey = 255 * light[t] * _mean_of_points(colour) + NOISE * rng.standard_normal((*size, 3))
        images.append(grey.clip(0, 255).round().astype(np.uint8))
        masks.append([_mean_of_points(owner == n + 1) > 0.5 for n in range(len(things))])
    return np.stack(images), np.array(masks)


def _mean_of_points(values):
    H, W = values.shape[0] // FINE, values.shape[1] // FINE
    return values.reshape(H, FINE, W, FINE, *values.shape[2:]).mean(axis=(1, 3))


def write(out_dir: Path | str, sequences: int = 8, frames: int = 16,
          size: tuple[int, int] = (96, 128), seed: int = 0) -> list[str]:
    """Write out_dir/frames/KIND_N/*.png, first.csv with the masks of the first frames, and
    masks.csv with those of all.

    The kinds come in turn. Returns the names of the sequences. Raises FileExistsError for a folder
    that is not empty.
    """
    out = command.empty_folder(out_dir)
    names, tables = [], {"first": [], "masks": []}
    for i in range(sequences):
        kind = KINDS[i % len(KINDS)]
        images, masks = sequence(np.random.default_rng((seed, i)), kind, frames, size)
        names.append(f"{i:03d}_{kind}")
        (out / "frames" / names[-1]).mkdir(parents=True)
        for t, image in enumerate(images):
            name = f"{names[-1]}/{t:03d}.png"
            Image.fromarray(image).save(out / "frames" / name)
            rows = [(name, n + 1, rle_encode(mask)) for n, mask in enumerate(masks[t])]
            tables["masks"] += rows
            tables["first"] += rows if t == 0 else []
    for title, rows in tables.items():
        write_csv(out / f"{title}.csv", ("ImageId", "ClassId", "EncodedPixels"), rows)
    return names


def main(argv: Sequence[str] | None = None) -> None:
    """Command line; exits with status 2 and one line on stderr when it refuses."""
    parser = argparse.ArgumentParser(
        prog="python -m cam2seg.demo.motion", allow_abbrev=False,
        description="Write sequences of moving objects with their true masks.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("out", help="new or empty folder for frames/, first.csv and masks.csv")
    parser.add_argument("--sequences", type=int, default=8, help="how many, of four kinds in turn")
    parser.add_argument("--frames", type=int, default=16, help="frames of each, 2 or more")
    parser.add_argument("--size", type=int, nargs=2, default=(96, 128),
                        metavar=("HEIGHT", "WIDTH"), help="in pixels, 48 48 or more")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same pictures")
    args = parser.parse_args(argv)
    names = command.written(write, args.out, args.sequences, args.frames, tuple(args.size), args.seed)
    print(f"{len(names)} sequences of {args.frames} frames in {args.out}: {' '.join(names)}")


if __name__ == "__main__":
    main()
