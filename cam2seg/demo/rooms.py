"""Small generated rooms with colours, exact depth and true masks, for --method depth.

    python -m cam2seg.demo.rooms data/rooms --images 200

A room is a convex solid seen from inside, and all that stands in it is made of convex solids, so
that depth, height and angle of every pixel are known in closed form. Three kinds of things are the
classes of the real task: crates on the floor, tables and shelves on a wall. Cupboards and pictures
are of no class. Colours, textures and lamps are drawn alike for all surfaces, so that only shape
and place tell what a thing is.

Lengths are in metres. The axes of the world are X to the right, Y downwards and Z forwards, with
the floor at Y = 0 and gravity along +Y.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..data.csv_files import write_csv
from ..masks import rle_encode
from ..methods.depth import Camera
from . import command

KINDS = ("crate", "table", "shelf")
FOCAL = 0.8  # focal length as a part of the image's width
CHANCE = 0.8  # of each kind in one room, of the cupboard and of the picture
SLOPING = 0.3  # chance of a sloping ceiling
UNITS = 1000  # of the stored depth, in one metre
HOLES = (0, 3)  # discs without depth in one stored depth image
LOST = 0.01  # chance of a single pixel to have no depth
NOISE = (2.0, 8.0)  # standard deviation of a pixel's grey level


class Room(NamedTuple):
    """One room as the camera sees it, with what is known of each of its pixels."""

    image: np.ndarray  # uint8 (H, W, 3)
    masks: np.ndarray  # bool (3, H, W), in the order of KINDS
    depth: np.ndarray  # float64 (H, W), along the optical axis
    height: np.ndarray  # float64 (H, W), above the floor
    angle: np.ndarray  # float64 (H, W), degrees from gravity to the normal into the surface
    gravity: np.ndarray  # float64 (3,), in the axes of the camera


class Solid(NamedTuple):
    """A convex solid: the points X with faces X <= limits."""

    kind: int  # index of KINDS; -1: of no class
    faces: np.ndarray  # (n, 3), unit normals that point out of it
    limits: np.ndarray  # (n,)


def camera_of(size: tuple[int, int]) -> Camera:
    """The camera of all rooms of a size (H, W)."""
    H, W = size
    return Camera(FOCAL * W, FOCAL * W, (W - 1) / 2, (H - 1) / 2)


def draw(rng: np.random.Generator, size: tuple[int, int] = (96, 96)) -> Room:
    """Draw one room. The same generator state gives the same room."""
    room, things = _furnish(rng)
    R, at = _pose(rng)
    camera, (rows, cols) = camera_of(size), np.indices(size)
    rays = np.stack([(cols - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy,
                     np.ones(size)], axis=-1) @ R.T
    depth, normal, kind, surface = see(room, things, at, rays)
    X = at + depth[..., None] * rays
    image = _paint(rng, X, normal, surface)
    return Room(image, np.stack([kind == k for k in range(len(KINDS))]), depth, -X[..., 1],
                np.degrees(np.arccos(np.clip(normal[..., 1], -1, 1))), R[1])


def see(room: Solid, things: Sequence[Solid], at: np.ndarray,
        rays: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Depth (H, W), unit normal into the surface (H, W, 3), kind (H, W) and the number of the
    surface (H, W) that the camera at `at` (3,) sees along rays (H, W, 3)."""
    _, depth, _, face = _cross(room, at, rays)
    normal, kind, surface = room.faces[face], np.full(face.shape, -1), face.copy()
    for thing in things:
        near, far, face, _ = _cross(thing, at, rays)
        seen = (near < far) & (near > 0) & (near < depth)
        depth = np.where(seen, near, depth)
        normal[seen] = -thing.faces[face[seen]]
        kind[seen] = thing.kind
        surface[seen] = surface.max() + 1 + face[seen]
    return depth, normal, kind, surface


def _cross(solid, at, rays):
    """Where rays enter and leave a solid, and by which faces: four arrays (H, W)."""
    speed, room = rays @ solid.faces.T, solid.limits - solid.faces @ at  # (H, W, n), (n,)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = room / speed
    enter = np.where(speed < 0, t, np.where((speed == 0) & (room < 0), np.inf, -np.inf))
    leave = np.where(speed > 0, t, np.inf)
    return enter.max(axis=-1), leave.min(axis=-1), enter.argmax(axis=-1), leave.argmin(axis=-1)


def _box(kind, centre, sides, turn=0.0):
    """A box around `centre` with sides along X, Y and Z, turned about the vertical."""
    c, s = np.cos(turn), np.sin(turn)
    axes = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    faces = np.concatenate([axes, -axes])
    return Solid(kind, faces, faces @ centre + np.tile(sides, 2) / 2)


def _furnish(rng):
    """The room and the list of solids in it, seen from Z = 0."""
    wide, high, deep = sides = rng.uniform((3, 2.4, 4), (6, 3, 7))
    room = _box(-1, (0, -high / 2, deep / 2 - 0.5), sides + (0, 0, 1))
    if rng.random() < SLOPING:
        tilt = np.radians(rng.uniform(25, 55))
        face = np.array([rng.choice((-1, 1)) * np.sin(tilt), -np.cos(tilt), 0])
        limit = face @ (np.sign(face[0]) * wide / 2, -rng.uniform(1.2, 1.8), 0)
        room = Solid(-1, np.vstack([room.faces, face]), np.append(room.limits, limit))

    def place(sides):
        """The middle of a thing on the floor, in sight of the camera."""
        z = rng.uniform(1.4, deep - 0.3)
        x = rng.uniform(-1, 1) * min(0.55 * z, wide / 2 - 0.3)
        return np.array([x, -sides[1] / 2, z])

    things = []
    for kind, make in enumerate((_crate, _table, _shelf)):
        if rng.random() < CHANCE:
            things += [part for _ in range(rng.integers(1, 3))
                       for part in make(rng, kind, place, (wide, deep))]
    if rng.random() < CHANCE:
        cupboard = rng.uniform((0.5, 1.4, 0.4), (1.1, 2.0, 0.6))
        things.append(_box(-1, place(cupboard), cupboard, rng.uniform(0, np.pi)))
    if rng.random() < CHANCE:
        things.append(_on_wall(rng, -1, sides[::2], rng.uniform((0.4, 0.3, 0.02), (1, 0.8, 0.03))))
    return room, things


def _crate(rng, kind, place, floor):
    sides = rng.uniform((0.4, 0.3, 0.4), (1.0, 0.6, 1.0))
    return [_box(kind, place(sides), sides, rng.uniform(0, np.pi))]


def _table(rng, kind, place, floor):
    sides, turn = rng.uniform((0.8, 0.65, 0.6), (1.6, 0.9, 1.0)), rng.uniform(0, np.pi)
    middle, c, s = place(sides), np.cos(turn), np.sin(turn)
    parts = [_box(kind, middle - (0, sides[1] / 2, 0), (sides[0], 0.06, sides[2]), turn)]
    for x in (-0.45, 0.45):
        for z in (-0.45, 0.45):
            x_, z_ = x * sides[0], z * sides[2]
            leg = middle + (c * x_ + s * z_, 0, c * z_ - s * x_)
            parts.append(_box(kind, leg, (0.07, sides[1], 0.07), turn))
    return parts


def _shelf(rng, kind, place, floor):
    return [_on_wall(rng, kind, floor, rng.uniform((0.6, 0.15, 0.25), (1.3, 0.45, 0.4)))]


def _on_wall(rng, kind, floor, sides):
    """A box that hangs on the far wall or on one beside the camera."""
    (wide, deep), up = floor, rng.uniform(1.2, 1.8)
    side = rng.integers(-1, 2)
    if side == 0:
        x = rng.uniform(-1, 1) * min(0.5 * deep, wide / 2 - 0.5)
        return _box(kind, (x, -up, deep - sides[2] / 2), sides)
    z = rng.uniform(min(1.6, deep - 1), deep - 0.7)
    return _box(kind, (side * (wide - sides[2]) / 2, -up, z), sides[::-1])


def _pose(rng):
    """Rotation (3, 3) from the axes of the camera to those of the world, and its place (3,)."""
    turn, down, roll = np.radians(rng.uniform((-20, 0, -5), (20, 25, 5)))
    about_y = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0],
                        [-np.sin(turn), 0, np.cos(turn)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(down), np.sin(down)],
                        [0, -np.sin(down), np.cos(down)]])
    about_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0],
                        [0, 0, 1]])
    return about_y @ about_x @ about_z, np.array([0, -rng.uniform(1.2, 1.7), 0])


def _paint(rng, X, normal, surface):
    """The picture uint8 (H, W, 3) of points X with their normals under a lamp."""
    across = np.cross(normal, (0.0, 1.0, 0.0))
    flat = np.linalg.norm(across, axis=-1, keepdims=True)
    across = np.where(flat > 0, across / np.where(flat > 0, flat, 1), (1.0, 0.0, 0.0))
    u, v = (X * across).sum(axis=-1), (X * np.cross(across, normal)).sum(axis=-1)
    colour = np.zeros(X.shape)
    for k in np.unique(surface):
        first, second = rng.uniform(0.15, 0.95, (2, 3))
        a, b, waves = rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi), rng.uniform(4, 30)
        wave = np.sin(waves * (u * np.cos(a) + v * np.sin(a)) + b)
        pattern = (wave, np.sign(wave), np.sin(waves * u) * np.sin(waves * v), 0 * wave)
        part = 0.5 + rng.uniform(0, 0.5) * pattern[rng.integers(4)]
        inside = surface == k
        colour[inside] = (part[..., None] * first + (1 - part[..., None]) * second)[inside]
    lamp = rng.uniform((-1.5, -2.3, 0.5), (1.5, -1.9, 3.5)) - X
    away = np.linalg.norm(lamp, axis=-1)
    facing = np.maximum(-(lamp * normal).sum(axis=-1) / away, 0)
    light = rng.uniform(0.25, 0.5) + rng.uniform(0.5, 1.0) * facing / (1 + 0.2 * away**2)
    grey = 255 * rng.uniform(0.7, 1.2) * light[..., None] * colour
    grey += rng.uniform(*NOISE) * rng.standard_normal(X.shape)
    return grey.clip(0, 255).round().astype(np.uint8)


def stored(rng: np.random.Generator, depth: np.ndarray) -> np.ndarray:
    """Depth (H, W) in metres as a sensor stores it: uint16 in UNITS, 0 where it has found none."""
    H, W = depth.shape
    rows, cols = np.ogrid[:H, :W]
    lost = rng.random((H, W)) < LOST
    for _ in range(rng.integers(*HOLES)):
        i, j, radius = rng.uniform(0, H), rng.uniform(0, W), rng.uniform(0.03, 0.1) * min(H, W)
        lost |= (rows - i) ** 2 + (cols - j) ** 2 < radius**2
    return np.where(lost, 0, (UNITS * depth).round()).astype(np.uint16)


def write(out: Path | str, images: int = 200, size: tuple[int, int] = (96, 96), seed: int = 0,
          prefix: str = "") -> None:
    """Write train_images/, depth/ and train.csv, whose classes are KINDS. Raises FileExistsError
    for a folder that is not empty."""
    out = command.empty_folder(out)
    for folder in ("train_images", "depth"):
        (out / folder).mkdir(parents=True)
    rows = []
    for index in range(images):
        rng = np.random.default_rng((seed, index))
        room, name = draw(rng, size), f"{prefix}{index:05d}.png"
        Image.fromarray(room.image).save(out / "train_images" / name)
        Image.fromarray(stored(rng, room.depth)).save(out / "depth" / name)
        rows += [(name, kind, rle_encode(mask))
                 for kind, mask in zip(KINDS, room.masks, strict=True)]
    write_csv(out / "train.csv", ("ImageId", "ClassId", "EncodedPixels"), rows)


def main(argv: Sequence[str] | None = None) -> None:
    """Command line; exits with status 2 and one line on stderr when it refuses."""
    parser = argparse.ArgumentParser(
        prog="python -m cam2seg.demo.rooms", allow_abbrev=False, description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="new or empty folder for train_images/, depth/ and train.csv")
    parser.add_argument("--images", type=int, default=200, help="how many rooms (default: 200)")
    parser.add_argument("--size", type=int, nargs=2, default=(96, 96), metavar=("HEIGHT", "WIDTH"),
                        help="in pixels (default: 96 96)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same rooms (default: 0)")
    args = parser.parse_args(argv)
    command.written(write, args.out, args.images, tuple(args.size), args.seed)
    print(f"{args.images} rooms in {args.out}; for make_masks.py --method depth: --depth "
          f"{args.out}/depth --camera " + " ".join(f"{v:g}" for v in camera_of(args.size)))


if __name__ == "__main__":
    main()
