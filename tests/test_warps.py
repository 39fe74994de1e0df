"""Random shifts, scales, turns and distortions of images and masks: formulas against literal loops
and inverses, and the way through the data set and the scripts."""

import cmath
import math

import numpy as np
import pytest
from conftest import SMALL, call, interrupted, results
from PIL import Image

from cam2seg import masks
from cam2seg.data import warps
from cam2seg.data.csv_files import write_csv
from cam2seg.data.dataset import ImageSet, MaskTargets
from cam2seg.data.errors import DataError
from cam2seg.training import fit

SIZE = 9, 14
BOTH = warps.Warps((0.1, 0.3, 40), (4, 0.5))


# Places


@pytest.mark.parametrize("shift, scale, degrees", [
    ((0, 0), 1, 0), ((0.25, 0), 1, 0), ((0, -0.5), 1, 0), ((0, 0), 1.5, 0), ((0, 0), 1, 30),
    ((0.1, -0.2), 0.7, -75), ((-0.3, 0.15), 1.3, 140)])
def test_shift_scale_rotate_equals_complex_numbers(shift, scale, degrees):
    """New pixel = z e^(i a) (old pixel - centre) + centre + shift, with the imaginary axis up."""
    (H, W), (rows, cols) = SIZE, warps.shift_scale_rotate(warps.places(SIZE), SIZE, shift, scale,
                                                          degrees)
    centre = complex((W - 1) / 2, -(H - 1) / 2)
    moved = complex(shift[1] * W, -shift[0] * H)
    for i in range(H):
        for j in range(W):
            old = complex(cols[i, j], -rows[i, j])
            new = scale * cmath.exp(1j * math.radians(degrees)) * (old - centre) + centre + moved
            assert abs(new - complex(j, -i)) < 1e-12


def test_an_affine_map_and_its_inverse_give_every_place_back():
    """t' = -R t / z in pixels, which takes a side of its own for each part of the shift."""
    size, shift, scale, degrees = (12, 12), (0.2, -0.1), 0.8, 25
    back = -complex(shift[1], -shift[0]) * cmath.exp(-1j * math.radians(degrees)) / scale
    there = warps.shift_scale_rotate(warps.places(size), size, shift, scale, degrees)
    again = warps.shift_scale_rotate(there, size, (-back.imag, back.real), 1 / scale, -degrees)
    assert np.allclose(again, warps.places(size), rtol=0, atol=1e-12)
    assert np.abs(np.subtract(there, warps.places(size))).max() > 2


@pytest.mark.parametrize("cells", [1, 2, 3, 5, 8])
def test_grid_distortion_equals_the_loops(cells):
    rng = np.random.default_rng(cells)
    tall, wide = rng.uniform(0.4, 1.6, (2, cells))
    found = warps.grid_distortion(warps.places(SIZE), SIZE, tall, wide)
    for axis, stretch in ((0, tall), (1, wide)):
        L = SIZE[axis]
        step, whole = (L - 1) / cells, sum(stretch)
        for p in range(L):
            old = 0.0
            for k, s in enumerate(stretch):  # the part of each cell that lies before p
                old += s / whole * (L - 1) * min(max((p - k * step) / step, 0), 1)
            assert np.allclose(np.take(found[axis], p, axis), old, rtol=0, atol=1e-12)


def test_grid_distortion_and_its_inverse_give_every_place_back():
    rng, n = np.random.default_rng(0), 4
    stretch = rng.uniform(0.4, 1.6, (2, n))
    found = warps.grid_distortion(warps.places(SIZE), SIZE, *stretch)
    for axis, s in enumerate(stretch):
        L = SIZE[axis]
        knots = np.cumsum([0, *s]) / sum(s) * (L - 1)
        back = np.interp(found[axis], knots, np.arange(n + 1) * (L - 1) / n)
        assert np.allclose(back, warps.places(SIZE)[axis], rtol=0, atol=1e-12)
        assert (np.diff(found[axis], axis=axis) > 0).all()


@pytest.mark.parametrize("length", [1, 2, 3, 8])
def test_places_outside_are_folded_as_a_ball_between_two_walls(length):
    for quarter in range(-200, 200):
        at, walk = quarter / 4, 0.0
        left, step = abs(at), 0.25 if at > 0 else -0.25
        while left > 0 and length > 1:
            if not 0 <= walk + step <= length - 1:
                step = -step
            walk, left = walk + step, left - 0.25
        assert warps.reflect(np.array(at), length) == walk


# Pixels


def test_colours_are_the_sums_over_all_pixels_with_hat_weights():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    found = rng.uniform(0, SIZE[0] - 1, (4, 5)), rng.uniform(0, SIZE[1] - 1, (4, 5))
    got = warps.bilinear(image, found)
    assert got.dtype == np.uint8 and got.shape == (4, 5, 3)
    for at in np.ndindex(4, 5):
        y, x = found[0][at], found[1][at]
        total = sum(max(0, 1 - abs(y - i)) * max(0, 1 - abs(x - j)) * image[i, j].astype(float)
                    for i in range(SIZE[0]) for j in range(SIZE[1]))
        assert (np.abs(got[at] - total) <= 0.5 + 1e-9).all()


def test_masks_take_the_nearest_pixel():
    rng = np.random.default_rng(1)
    mask = rng.choice(np.array([0, 1, 255], np.uint8), (2, *SIZE))
    found = rng.uniform(0, SIZE[0] - 1, (6, 7)), rng.uniform(0, SIZE[1] - 1, (6, 7))
    got = warps.nearest(mask, found)
    for at in np.ndindex(6, 7):
        near = min(((found[0][at] - i) ** 2 + (found[1][at] - j) ** 2, i, j)
                   for i in range(SIZE[0]) for j in range(SIZE[1]))
        assert (got[:, at[0], at[1]] == mask[:, near[1], near[2]]).all()


def test_a_ramp_is_known_in_closed_form():
    """Grey = 4 column + 7 row + 20; a shifted, scaled and turned ramp is a plane as well."""
    size = 12, 16
    rows, cols = warps.places(size)
    ramp = np.repeat((4 * cols + 7 * rows + 20).astype(np.uint8)[..., None], 3, axis=2)
    found = warps.shift_scale_rotate(warps.places(size), size, (0.05, -0.03), 1.4, 20)
    inside = (found[0] >= 0) & (found[0] <= 11) & (found[1] >= 0) & (found[1] <= 15)
    exact = 4 * found[1] + 7 * found[0] + 20
    assert inside.sum() > 100
    assert np.abs(warps.bilinear(ramp, found)[..., 0] - exact)[inside].max() <= 0.5 + 1e-9


@pytest.mark.parametrize("size", [SIZE, (1, 1), (1, 7), (64, 96)])
def test_identity_leaves_every_byte(size):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    mask = rng.choice(np.array([0, 1, 255], np.uint8), (2, *size))
    for cells in (1, 3, 5):
        found = warps.shift_scale_rotate(warps.places(size), size, (0, 0), 1, 0)
        found = warps.grid_distortion(found, size, np.ones(cells), np.ones(cells))
        assert (warps.bilinear(image, found) == image).all()
        assert (warps.nearest(mask, found) == mask).all()


def test_a_whole_turn_in_four_steps_leaves_every_byte():
    image = np.random.default_rng(0).integers(0, 256, (10, 10, 3)).astype(np.uint8)
    turned = image
    for quarter in range(4):
        turned = warps.bilinear(turned, warps.shift_scale_rotate(
            warps.places((10, 10)), (10, 10), (0, 0), 1, 90))
        assert (turned == np.rot90(image, quarter + 1)).all()


# Draws


def test_each_kind_is_drawn_in_half_of_the_cases_between_its_limits(monkeypatch):
    seen = {"ssr": [], "grid": []}
    monkeypatch.setattr(warps, "shift_scale_rotate",
                        lambda found, size, *drawn: seen["ssr"].append(drawn) or found)
    monkeypatch.setattr(warps, "grid_distortion",
                        lambda found, size, *drawn: seen["grid"].append(drawn) or found)
    none = sum(warps.draw(np.random.default_rng(n), BOTH, SIZE) is None for n in range(2000))
    assert 430 < none < 570 and 930 < len(seen["ssr"]) < 1070 and 930 < len(seen["grid"]) < 1070
    down, right = np.array([shift for shift, _, _ in seen["ssr"]]).T
    stretch = np.array(seen["grid"])
    assert stretch.shape[1:] == (2, 4)
    for values, middle, limit in (
            (down, 0, 0.1), (right, 0, 0.1), (np.array([s for _, s, _ in seen["ssr"]]), 1, 0.3),
            (np.array([a for *_, a in seen["ssr"]]), 0, 40), (stretch, 1, 0.5)):
        low, high = middle - limit, middle + limit
        assert low <= values.min() < low + 0.05 * limit
        assert high - 0.05 * limit < values.max() <= high
        assert abs(values.mean() - middle) < 0.1 * limit
    drawn = list(seen["ssr"])
    for n in range(2000):  # the grid does not change what the other kind draws
        warps.draw(np.random.default_rng(n), BOTH._replace(grid_distortion=None), SIZE)
    assert seen["ssr"][len(drawn):] == drawn


def test_the_grid_is_laid_over_the_turned_picture():
    seed = next(n for n in range(99) if np.random.default_rng(n).random(6)[[0, 5]].max() < 0.5)
    numbers = np.random.default_rng(seed).random(6 + 8) * 2 - 1
    stretch = 1 + 0.5 * numbers[6:].reshape(2, 4)
    found = warps.grid_distortion(warps.places(SIZE), SIZE, *stretch)
    found = warps.shift_scale_rotate(found, SIZE, 0.1 * numbers[1:3], 1 + 0.3 * numbers[3],
                                     40 * numbers[4])
    assert np.allclose(warps.draw(np.random.default_rng(seed), BOTH, SIZE), found)
    assert warps.draw(np.random.default_rng(seed), warps.Warps(), SIZE) is None


# The data set


@pytest.fixture
def one(tmp_path):
    """A data set whose one image is bright where its mask is, and half of it ignored."""
    disc = np.hypot(*(np.mgrid[:48, :64] - np.array([20, 40])[:, None, None])) < 14
    left = np.tile(np.arange(64) < 24, (48, 1))
    Image.fromarray((disc * 250).astype(np.uint8)).save(tmp_path / "a.png")
    targets = MaskTargets({("a.png", 0): masks.rle_encode(disc)}, {"a.png": (48, 64)}, 2,
                          ignored={("a.png", 1): masks.rle_encode(left)})

    def make(warped=BOTH, seed=0, flips=(True, True)):
        return ImageSet(tmp_path, ["a.png"] * 40, (48, 64), targets, flips, seed, warped)

    return make


def test_image_masks_and_ignored_pixels_are_warped_together(one):
    changed, plain = 0, one()[0, None]
    for i in range(40):
        pixels, target = one()[i, 1]
        assert pixels.dtype == target.dtype == np.uint8 and pixels.shape == (48, 64, 3)
        assert pixels.flags.c_contiguous and target.flags.c_contiguous
        assert set(np.unique(target[0])) <= {0, 1} and set(np.unique(target[1])) <= {0, 255}
        bright = pixels[..., 0] > 125
        assert (bright != target[0]).sum() <= 0.03 * bright.sum()
        changed += not any(np.array_equal(pixels, np.flip(plain[0], axes))
                           for axes in ((), 0, 1, (0, 1)))
    assert 22 <= changed <= 38  # three quarters of 40


def test_without_an_epoch_nothing_is_warped(one):
    for part, other in zip(one()[3, None], one(warped=None)[3, None], strict=True):
        assert (part == other).all()


def test_warps_depend_on_seed_epoch_and_index_alone(one):
    def items(seed=0, epoch=2, backwards=False):
        order = range(39, -1, -1) if backwards else range(40)
        made = {i: one(seed=seed)[i, epoch] for i in order}
        return [part.tobytes() for i in range(40) for part in made[i]]

    first = items()
    assert items(backwards=True) == first
    assert items(seed=1) != first and items(epoch=3) != first


def test_flips_are_drawn_as_without_warps(one):
    """So that a run without the new flags has the bytes that it had before."""
    off, none = one(warped=warps.Warps()), one(warped=None)
    still = one(warped=warps.Warps((0, 0, 0), (3, 0)))  # drawn, and nothing moves
    for i in range(40):
        for part, same, other in zip(off[i, 0], none[i, 0], still[i, 0], strict=True):
            assert (part == same).all() and (part == other).all()


@pytest.mark.parametrize("warped, said", [
    (warps.Warps((0.1, 1, 10)), "--shift-scale-rotate: a scale of 1, expected less than 1"),
    (warps.Warps(None, (0, 0.3)), "--grid-distortion 0 0.3: expected a whole number of cells"),
    (warps.Warps(None, (2.5, 0.3)), "--grid-distortion 2.5 0.3: expected"),
    (warps.Warps(None, (5, 1)), "--grid-distortion 5 1: expected")])
def test_warps_that_cannot_be_are_refused(one, warped, said):
    with pytest.raises(DataError, match=said):
        one(warped=warped)


# The scripts


def test_both_trainings_warp_and_a_resumed_run_has_the_same_bytes(shapes, tmp_path, refused):
    write_csv(tmp_path / "folds.csv", ("ImageId", "fold"),
              [(f"{n:03d}.png", n % 2) for n in range(48)])
    warped = "--shift-scale-rotate", 0.1, 0.2, 30, "--grid-distortion", 4, 0.3
    flags = ("--data", shapes, *SMALL, "--epochs", 2, "--fold", 0)
    seg = ("--masks", shapes / "train.csv", "--folds", tmp_path / "folds.csv")
    for script, more in (("train_cls", ("--folds", 2)), ("train_seg", seg)):
        out = {name: tmp_path / f"{script}_{name}" for name in ("plain", "whole", "part")}
        assert call(script, *flags, *more, "--out", out["plain"]) == 0
        assert call(script, *flags, *more, *warped, "--out", out["whole"]) == 0
        with interrupted(fit, "_train_and_validate", 2):
            assert call(script, *flags, *more, *warped, "--out", out["part"]) == 130
        assert call(script, *flags, *more, *warped, "--out", out["part"], "--resume") == 0
        plain, whole, part = (results(out[k]) for k in ("plain", "whole", "part"))
        assert whole == part
        assert whole["fold0/oof.csv"] != plain["fold0/oof.csv"]
        assert "--grid-distortion 4 1: expected" in refused(
            script, *flags, *more, "--grid-distortion", 4, 1, "--out", tmp_path / "none")
        assert "--shift-scale-rotate: a scale of 1.0, expected less than 1" in refused(
            script, *flags, *more, "--shift-scale-rotate", 0, 1, 0, "--out", tmp_path / "none")
