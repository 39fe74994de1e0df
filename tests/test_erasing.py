"""The methods/erasing.py and training/erased.py against loops, and networks that are known."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cam2seg.methods import erasing
from cam2seg.training import erased


def without_by_loops(I, mask):
    """[C-40] pixel by pixel, in float64 and not yet rounded."""
    H, W = mask.shape
    r, s = max(1, min(H, W) // 60), max(H, W) / 16
    near = [[any(mask[k, l] for k in range(max(i - r, 0), min(i + r + 1, H))
                 for l in range(max(j - r, 0), min(j + r + 1, W))) for j in range(W)]
            for i in range(H)]
    outside = [I[i, j] for i in range(H) for j in range(W) if not near[i][j]]
    M = np.mean(outside or I.reshape(-1, 3), axis=0)

    def kernel(i, k, n):
        return math.exp(-(i - k) ** 2 / (2 * s * s)) / sum(
            math.exp(-(i - m) ** 2 / (2 * s * s)) for m in range(n))

    J = I.astype(float)
    for i in range(H):
        for j in range(W):
            if not near[i][j]:
                continue
            above, below = np.zeros(3), 0.0
            for k in range(H):
                for l in range(W):
                    w = 0.0 if near[k][l] else kernel(i, k, H) * kernel(j, l, W)
                    above, below = above + w * I[k, l], below + w
            J[i, j] = (above + 0.001 * M) / (below + 0.001)
    return J


@pytest.mark.parametrize("size, part", [((11, 17), 0.1), ((20, 9), 0.9), ((122, 5), 0.02),
                                        ((6, 6), 1.0), ((6, 6), 0.0)])
def test_an_image_without_a_mask_is_that_of_loops(size, part):
    rng = np.random.default_rng(size)
    I, mask = rng.integers(0, 256, (*size, 3), np.uint8), rng.random(size) < part
    found = erasing.without(I, mask)
    assert found.dtype == np.uint8 and found.shape == I.shape
    assert np.abs(found - without_by_loops(I, mask)).max() < 0.501
    assert (found == I).all() or part > 0


def test_two_rows_and_columns_around_a_mask_go_at_120_pixels():
    mask = np.zeros((130, 120), bool)
    mask[60, 50] = True
    I = np.full((130, 120, 3), 7, np.uint8)
    I[56:65, 46:55] = 99
    changed = (erasing.without(I, mask) != I).any(axis=2)
    assert changed[58:63, 48:53].all() and changed.sum() == 25


def test_the_ground_of_one_grey_goes_on_where_a_mark_is_erased():
    I, mask = np.full((40, 64, 3), (10, 100, 200), np.uint8), np.zeros((40, 64), bool)
    mask[10:14, 20:30] = True
    I[mask] = 255
    found = erasing.without(I, mask)
    assert (np.abs(found.astype(int) - (10, 100, 200)) <= 1).all()


def test_a_mark_on_two_thirds_of_an_image_is_gone_to_its_middle():
    I, mask = np.full((60, 60, 3), 100, np.uint8), np.zeros((60, 60), bool)
    mask[5:55, 5:55] = True
    I[mask] = 200
    assert (erasing.without(I, mask) == 100).all()
    I[:] = 30  # nothing is left outside
    I[:30] = 50
    assert set(np.unique(erasing.without(I, np.ones((60, 60), bool)))) == {40}


@pytest.mark.parametrize("by_product, by_map, wanted", [
    (1.0, 2.0, True), (0.999, 2.0, False), (0.1, -1.0, True), (0.0, 0.0, False),
    (-0.1, -1.0, False),
    # The tiles, AUDIT.md 2.6
    (2.793, 2.492, True), (0.107, 0.337, False), (0.728, 1.070, True), (-0.150, 0.109, False),
    (0.800, 2.538, False)])
def test_a_product_must_hold_half_of_what_the_map_holds(by_product, by_map, wanted):
    assert erasing.holds(by_product, by_map) is wanted


class Mean(nn.Module):
    """Logits: the mean of each colour, times a number."""

    def __init__(self, times):
        super().__init__()
        self.times = times

    def forward(self, x):
        return self.times * x.mean(dim=(2, 3))


def test_lost_logits_are_those_of_the_network_that_has_not_seen_the_image(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    images = [rng.integers(0, 256, (24, 32, 3), np.uint8) for _ in paths]
    for path, I in zip(paths, images, strict=True):
        Image.fromarray(I).save(path)
    classifiers = SimpleNamespace(
        nets={0: Mean(1.0), 1: Mean(10.0)}, device=torch.device("cpu"),
        preprocess={"mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.4]})
    lost = erased.lost_logits(paths, np.array([1, 0, -1]), classifiers, (12, 16))
    masks = [rng.random((24, 32)) < 0.02, np.zeros((24, 32), bool)]

    def logits(I):
        small = np.asarray(Image.fromarray(I).resize((16, 12), Image.Resampling.BILINEAR))
        return (small.mean(axis=(0, 1)) / 255 - (0.5, 0.4, 0.3)) / (0.1, 0.2, 0.4)

    for i, times in enumerate((10.0, 1.0, 5.5)):
        found = lost(i, masks)
        wanted = times * (logits(images[i]) - logits(erasing.without(images[i], masks[0])))
        assert found.shape == (2, 3) and np.abs(wanted).max() > 1e-3
        assert found[0] == pytest.approx(wanted, abs=1e-4 * times) and not found[1].any()
