"""The maps that make_masks.py leaves in its folder: maps.npy and maps.csv.

maps.npy: float16 (N, C, h, w), each map divided by its maximum. maps.csv: ImageId, fold (-1: mean
over the folds), H, W and one probability per class, a row for each image in the order of maps.npy.
"""

from pathlib import Path

import numpy as np

from . import data

COLUMNS = ("ImageId", "fold", "H", "W")


def create(folder, shape):
    """A memory-mapped array to fill; finish() gives it its name. shape: (N, C, h, w).

    DEV-21: float16 is fine enough.
    """
    return np.lib.format.open_memmap(Path(folder) / "maps.npy.tmp", "w+", np.float16, shape)


def finish(folder, maps, names, fold, sizes, classes, probs):
    """Name the filled array and write maps.csv, which says that both are whole."""
    maps.flush()
    (Path(folder) / "maps.npy.tmp").replace(Path(folder) / "maps.npy")
    data.write_csv(Path(folder) / "maps.csv", (*COLUMNS, *classes),
                   ((n, k, *sizes[n], *p)
                    for n, k, p in zip(names, fold.tolist(), probs.tolist(), strict=True)))


def read(folder):
    """Names, classes, probabilities (N, C) and the memory-mapped maps of a folder."""
    path = Path(folder) / "maps.csv"
    header, rows = data.read_csv(path, f"{','.join(COLUMNS)} and the classes")
    if tuple(header[:4]) != COLUMNS:
        raise data.DataError(f"{path}, row 1: expected {','.join(COLUMNS)} and the classes")
    maps = np.load(Path(folder) / "maps.npy", mmap_mode="r")
    if len(maps) != len(rows):
        raise data.DataError(f"{path}: {len(rows)} rows for {len(maps)} maps in maps.npy")
    probs = np.array([[float(r[k]) for k in header[4:]] for _, r in rows])
    return [r["ImageId"] for _, r in rows], header[4:], probs, maps


def full_size(small, size, how, after):
    """Maps (C, h, w) -> float32 (C, H, W) in [0, 1] at an image's own size; see cam.image_maps."""
    import torch

    from . import cam
    maps = torch.from_numpy(np.asarray(small, np.float32))[None]
    return cam.image_maps(maps, size, how, after)[0].numpy()
