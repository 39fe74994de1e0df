"""The maps that make_masks.py and train_seg.py --keep-maps leave in a folder: maps.npy and maps.csv.

maps.npy is float16 (N, C, h, w), each map divided by its maximum; train_seg.py leaves probabilities
as they are. maps.csv has one row for each image in the order of maps.npy. Its columns are ImageId,
fold (-1: mean over the folds), H, W, and for each class its probability under "p of " and the name
of the class: without these words a class called H would make a second column H.
"""

import os
import tokenize
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from .classes import checked_list
from .csv_files import read_csv, read_probs, write_csv
from .errors import DataError
from .files import regular, whole_file

PROBS = "probs.npy.tmp"  # probabilities (N, C) while maps are made; nan: the image is not done
COLUMNS = ("ImageId", "fold", "H", "W")
# What np.load raises for a damaged file; numpy reads an odd header as Python does.
UNREADABLE = (EOFError, OSError, SyntaxError, ValueError, tokenize.TokenError)
PROB = "p of "  # and the class: the name of a column of probabilities


class MapStore:
    """The maps of a run while they are made. It takes over what a stopped run has left."""

    def __init__(self, folder: Path | str, images: int, classes: int):
        """images: N; classes: C. Half-made files of another shape are ignored and made anew."""
        self.folder, self.shape = Path(folder), (images, classes)
        self.maps, self.probs = None, None
        found = [self.folder / name for name in ("maps.npy.tmp", "maps.npy", PROBS)]
        for path in found:
            if path.is_symlink():  # it could lead out of the folder, and these files are written to
                path.unlink()
        found = [path for path in found if path.is_file()]
        if len(found) > 1 and found[-1].name == PROBS:
            try:
                maps, probs = (np.load(p, mmap_mode="r+") for p in (found[0], found[-1]))
            except UNREADABLE:  # a file that is not whole
                return
            if maps.shape[:2] == probs.shape == self.shape:
                self.maps, self.probs = maps, probs

    def done(self) -> np.ndarray:
        """Which images have their maps: bool (N,)."""
        return np.zeros(self.shape[0], bool) if self.probs is None \
            else np.isfinite(self.probs).all(axis=1)

    def add(self, rows: Sequence[int], maps: np.ndarray, probs: np.ndarray) -> None:
        """Store maps (B, C, h, w) and probabilities (B, C) of the images with these row numbers."""
        if self.maps is None:
            self.maps = _create(self.folder / "maps.npy.tmp", (self.shape[0], *maps.shape[1:]))
            try:
                with whole_file(self.folder / PROBS, "wb") as file:
                    np.save(file, np.full(self.shape, np.nan))
            except OSError:
                (self.folder / "maps.npy.tmp").unlink()
                raise
            self.probs = np.load(self.folder / PROBS, mmap_mode="r+")
        elif self.maps.shape[1:] != maps.shape[1:]:
            raise DataError(f"{self.folder}/maps.npy.tmp: maps of {self.maps.shape[2:]} cells, "
                            f"expected {maps.shape[2:]} as of these networks; add --overwrite")
        self.maps[rows] = maps
        self.probs[rows] = probs  # after the maps, because finite values say that these are there

    def finish(self, names: Sequence[str], fold: np.ndarray, sizes: Mapping[str, tuple[int, int]],
               classes: Sequence[str]) -> None:
        """Give maps.npy its name and write maps.csv, which says that both are whole."""
        self.maps.flush()
        if (self.folder / "maps.npy.tmp").exists():
            (self.folder / "maps.npy.tmp").replace(self.folder / "maps.npy")
        write_csv(self.folder / "maps.csv", (*COLUMNS, *(PROB + k for k in classes)),
                  ((n, k, *sizes[n], *p) for n, k, p in
                   zip(names, fold.tolist(), self.probs.tolist(), strict=True)))
        (self.folder / PROBS).unlink()


def _create(path, shape):
    """Make a memory-mapped float16 array (DEV-21) whose whole space on the disk is taken.

    A full disk is then an OSError here. Later, writing to the map would kill the process.
    """
    path.unlink(missing_ok=True)  # an old link of that name could lead out of the folder
    try:
        array = np.lib.format.open_memmap(path, "w+", np.float16, shape)
        if hasattr(os, "posix_fallocate"):
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        return array
    except OSError:
        path.unlink(missing_ok=True)
        raise


def is_complete(folder: Path | str) -> bool:
    """Whether a folder holds all maps of its run."""
    return all((Path(folder) / name).exists() for name in ("maps.csv", "maps.npy"))


def remove_leftovers(folder: Path | str) -> None:
    """Delete the file of a run that was stopped between writing maps.csv and its last step."""
    (Path(folder) / PROBS).unlink(missing_ok=True)


def read(folder: Path | str) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """Read the names, the classes, the probabilities (N, C) and the memory-mapped maps of a folder.

    Raises DataError unless maps.npy holds numbers from 0 to 1, one map for each row and class.
    """
    header, rows = _read_index(folder)
    path = Path(folder) / "maps.npy"
    probs = read_probs(Path(folder) / "maps.csv", header[4:])
    classes = checked_list(f"{folder}/maps.csv, row 1", [n.removeprefix(PROB) for n in header[4:]])
    try:
        maps = np.load(regular(path), mmap_mode="r")
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as maps ({error})") from error
    shape = getattr(maps, "shape", ())
    if len(shape) != 4 or shape[:2] != (len(rows), len(classes)) or maps.dtype != np.float16:
        raise DataError(f"{path}: {getattr(maps, 'dtype', 'no')} array of shape {shape}, "
                        f"expected float16 ({len(rows)}, {len(classes)}, h, w) by maps.csv")
    for (n, row), small in zip(rows, maps, strict=True):
        if not ((small >= 0) & (small <= 1)).all():  # also false for NaN
            raise DataError(f"{path}: map of maps.csv, row {n}, {row['ImageId']}: expected "
                            "numbers from 0 to 1")
    return list(probs), classes, np.array(list(probs.values())), maps


def _read_index(folder):
    path = Path(folder) / "maps.csv"
    header, rows = read_csv(path, f"{','.join(COLUMNS)} and the classes")
    if tuple(header[:4]) != COLUMNS or len(header) < 5 or not all(
            name.startswith(PROB) for name in header[4:]):
        raise DataError(f"{path}, row 1: expected {','.join(COLUMNS)} and the classes")
    return header, rows


def map_function(folder: Path, norm: str, norm_after: bool, classes: Sequence[str]) -> Callable:
    """Function (name, class index, (H, W)) -> map (H, W) in [0, 1] of the maps in a folder.

    norm, norm_after: flags of the run that made them. classes: those that the index counts. The
    function gives zeros for an image or a class without a map. Raises DataError where the maps are
    of none of these classes, or cannot be read.
    """
    from .. import cam
    names, its_classes, _, maps = read(folder)
    if not set(its_classes) & set(classes):
        raise DataError(f"{folder}/maps.csv, row 1: maps of classes {','.join(its_classes)}, "
                        f"expected some of {','.join(classes)}")
    row = {name: i for i, name in enumerate(names)}
    column = {name: c for c, name in enumerate(its_classes)}

    def map_of(name: str, c: int, size: tuple[int, int]) -> np.ndarray:
        if name not in row or classes[c] not in column:
            return np.zeros(size)
        small = maps[row[name], [column[classes[c]]]]
        return cam.numpy_maps(small, size, norm, norm_after)[0]

    return map_of


def check_index(folder: Path | str, names: Sequence[str], fold: np.ndarray,
                sizes: Mapping[str, tuple[int, int]]) -> None:
    """Raise DataError unless maps.csv has these images, folds and sizes in this order."""
    _, rows = _read_index(folder)
    wanted = [(n, str(k), *map(str, sizes[n])) for n, k in zip(names, fold.tolist(), strict=True)]
    for (n, row), want in zip(rows, wanted):
        got = tuple(row[c] for c in COLUMNS)
        if got != want:
            raise DataError(f"{folder}/maps.csv, row {n}: {','.join(got)}, expected "
                            f"{','.join(want)}; run without --reuse-maps")
    if len(rows) != len(wanted):
        raise DataError(f"{folder}/maps.csv: maps of {len(rows)} images, expected "
                        f"{len(wanted)}; run without --reuse-maps")
