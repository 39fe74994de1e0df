"""A small set of real files that a few epochs are enough for."""

import numpy as np
import pytest
from PIL import Image

from cam2seg import data, masks


def write_images(folder, count=48, side=64, seed=0):
    """Bright discs (class 1) and dark vertical bars (class 2) on noise, with their masks.

    Image i has class 1 if i % 2, class 2 if i % 4 > 1. Returns {(name, class index): run lengths}.
    """
    (folder / "train_images").mkdir(parents=True)
    rng, rles, names = np.random.default_rng(seed), {}, []
    rows, cols = np.mgrid[:side, :side]
    for i in range(count):
        name = f"{i:03d}.png"
        pixels = rng.normal(128, 12, (side, side))
        if i % 2:
            r, c = rng.integers(16, side - 16, 2)
            disc = (rows - r) ** 2 + (cols - c) ** 2 < 12 ** 2
            pixels[disc] += 90
            rles[name, 0] = masks.rle_encode(disc)
        if i % 4 > 1:
            c = rng.integers(4, side - 12)
            bar = (cols >= c) & (cols < c + 8)
            pixels[bar] -= 90
            rles[name, 1] = masks.rle_encode(bar)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "train_images" / name)
        names.append(name)
    data.write_csv(folder / "train.csv", ("ImageId", "ClassId", "EncodedPixels"),
                   [(n, c + 1, rle) for (n, c), rle in sorted(rles.items())])
    data.write_csv(folder / "labels.csv", ("ImageId", "disc", "bar"),
                   [(n, int((n, 0) in rles), int((n, 1) in rles)) for n in names])
    return rles


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    write_images(folder)
    return folder
