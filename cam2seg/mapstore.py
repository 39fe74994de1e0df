"""The maps that make_masks.py leaves in its folder: maps.npy and maps.csv.

maps.npy: float16 (N, C, h, w), each map divided by its maximum. maps.csv: ImageId, fold (-1: mean
over the folds), H, W and one probability per class, a row for each image in the order of maps.npy.
"""

import os
from pathlib import Path

import numpy as np

from . import data, process, tables

PROBS = "probs.npy.tmp"  # while maps are made: (N, C), nan where an image is not done
COLUMNS = ("ImageId", "fold", "H", "W")


class Store:
    """The maps of a run while they are made, taken up where a stopped run left them."""

    def __init__(self, folder, images, classes):
        self.folder, self.shape = Path(folder), (images, classes)
        self.maps, self.probs = None, None
        made = [self.folder / name for name in ("maps.npy.tmp", "maps.npy")]
        made = [path for path in made if path.is_file() and not path.is_symlink()]
        if made and (self.folder / PROBS).is_file():
            try:
                maps, probs = (np.load(p, mmap_mode="r+") for p in (made[0], self.folder / PROBS))
            except (EOFError, OSError, ValueError):  # not whole: they are made anew
                return
            if maps.shape[:2] == probs.shape == self.shape:
                self.maps, self.probs = maps, probs

    def done(self):
        """Which images have their maps, bool (N,)."""
        return np.zeros(self.shape[0], bool) if self.probs is None \
            else np.isfinite(self.probs).all(axis=1)

    def add(self, rows, maps, probs):
        """maps (B, C, h, w) and probabilities (B, C) of some images."""
        if self.maps is None:
            self.maps = _create(self.folder / "maps.npy.tmp", (self.shape[0], *maps.shape[1:]))
            try:
                with process.whole_file(self.folder / PROBS, "wb") as file:
                    np.save(file, np.full(self.shape, np.nan))
            except OSError:
                (self.folder / "maps.npy.tmp").unlink()
                raise
            self.probs = np.load(self.folder / PROBS, mmap_mode="r+")
        self.maps[rows] = maps
        self.probs[rows] = probs  # after the maps: says that they are there

    def finish(self, names, fold, sizes, classes):
        """Name the filled array and write maps.csv, which says that both are whole."""
        self.maps.flush()
        if (self.folder / "maps.npy.tmp").exists():
            (self.folder / "maps.npy.tmp").replace(self.folder / "maps.npy")
        data.write_csv(self.folder / "maps.csv", (*COLUMNS, *classes),
                       ((n, k, *sizes[n], *p) for n, k, p in
                        zip(names, fold.tolist(), self.probs.tolist(), strict=True)))
        (self.folder / PROBS).unlink()


def _create(path, shape):
    """A memory-mapped float16 array (fine enough, DEV-21) whose place on the disk is taken: a full
    disk is an OSError here, and would be a dead process later."""
    path.unlink(missing_ok=True)  # a link would lead elsewhere
    try:
        array = np.lib.format.open_memmap(path, "w+", np.float16, shape)
        if hasattr(os, "posix_fallocate"):
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return array
    except OSError:
        path.unlink(missing_ok=True)
        raise


def finished(folder):
    """Whether a folder holds all maps of its run; then nothing else is left of their making."""
    done = all((Path(folder) / name).exists() for name in ("maps.csv", "maps.npy"))
    if done and process.first():
        (Path(folder) / PROBS).unlink(missing_ok=True)
    return done


def read(folder):
    """Names, classes, probabilities (N, C) and the memory-mapped maps of a folder.

    Raises DataError unless maps.npy holds numbers from 0 to 1, a map for each row and class.
    """
    header, rows = _read_index(folder)
    path, classes = Path(folder) / "maps.npy", header[4:]
    probs = tables.read_probs(Path(folder) / "maps.csv", classes)
    try:
        maps = np.load(path, mmap_mode="r")
    except (EOFError, OSError, ValueError) as error:
        raise data.DataError(f"{path}: cannot be read as maps ({error})") from error
    shape = getattr(maps, "shape", ())
    if len(shape) != 4 or shape[:2] != (len(rows), len(classes)) or maps.dtype != np.float16:
        raise data.DataError(f"{path}: {getattr(maps, 'dtype', 'no')} array of shape {shape}, "
                             f"expected float16 ({len(rows)}, {len(classes)}, h, w) by maps.csv")
    for (n, row), small in zip(rows, maps, strict=True):
        if not ((small >= 0) & (small <= 1)).all():  # false for NaN too
            raise data.DataError(f"{path}: map of maps.csv, row {n}, {row['ImageId']}: expected "
                                 "numbers from 0 to 1")
    return list(probs), classes, np.array(list(probs.values())), maps


def _read_index(folder):
    path = Path(folder) / "maps.csv"
    header, rows = data.read_csv(path, f"{','.join(COLUMNS)} and the classes")
    if tuple(header[:4]) != COLUMNS or len(header) < 5:
        raise data.DataError(f"{path}, row 1: expected {','.join(COLUMNS)} and the classes")
    return header, rows


def check_index(folder, names, fold, sizes):
    """Raise DataError unless maps.csv has these images, folds and sizes in this order."""
    _, rows = _read_index(folder)
    wanted = [(n, str(k), *map(str, sizes[n])) for n, k in zip(names, fold.tolist(), strict=True)]
    for (n, row), want in zip(rows, wanted):
        got = tuple(row[c] for c in COLUMNS)
        if got != want:
            raise data.DataError(f"{folder}/maps.csv, row {n}: {','.join(got)}, expected "
                                 f"{','.join(want)}; run without --reuse-maps")
    if len(rows) != len(wanted):
        raise data.DataError(f"{folder}/maps.csv: maps of {len(rows)} images, expected "
                             f"{len(wanted)}; run without --reuse-maps")


def full_size(small, size, how, after):
    """Maps (C, h, w) -> float32 (C, H, W) in [0, 1] at an image's own size; see cam.image_maps."""
    import torch

    from . import cam
    maps = torch.from_numpy(np.asarray(small, np.float32))[None]
    return cam.image_maps(maps, size, how, after)[0].numpy()
