"""The masks that a U-Net is trained on: how they are resized, and which pixels are left out."""

import numpy as np
import pytest
from conftest import HEAD, SMALL, call, results

import train_seg
from cam2seg import masks
from cam2seg.data.dataset import MaskTargets, masks_of, resize_mask
from cam2seg.data.labels import read_labels


def literal_part(mask, size):
    """The part of each new pixel's area that is mask, summed over all old pixels in float64."""
    (H, W), (h, w) = mask.shape, size
    part = np.zeros(size)
    for i in range(h):
        for j in range(w):
            top, bottom, left, right = i * H / h, (i + 1) * H / h, j * W / w, (j + 1) * W / w
            for r in range(H):
                for c in range(W):
                    tall = max(0.0, min(bottom, r + 1) - max(top, r))
                    wide = max(0.0, min(right, c + 1) - max(left, c))
                    part[i, j] += mask[r, c] * tall * wide
            part[i, j] /= (bottom - top) * (right - left)
    return part


RESIZED = [((10, 14), (20, 28)), ((10, 14), (5, 7)), ((10, 16), (14, 22)), ((14, 22), (10, 16)),
           ((9, 7), (4, 11))]  # ratios 2, 1/2, about 1.37 both ways, and one of each


@pytest.mark.parametrize("full, size", RESIZED)
@pytest.mark.parametrize("cut", [0.13, 0.37, 0.61, 0.97])
def test_area_sampling_against_a_loop_over_pixel_areas(full, size, cut):
    mask = np.random.default_rng(sum(full)).random(full) < 0.5
    part = literal_part(mask, size)
    assert np.abs(part - cut).min() > 1e-9  # no new pixel is in doubt
    got = resize_mask(mask, size, cut)
    assert got.dtype == bool and got.shape == size
    np.testing.assert_array_equal(got, part >= cut)


@pytest.mark.parametrize("full, size", RESIZED)
def test_area_sampling_of_a_mask_that_is_known_in_part(full, size):
    """Only the counted area counts, in both parts of the fraction."""
    rng = np.random.default_rng(7)
    mask, counted = rng.random(full) < 0.5, rng.random(full) < 0.6
    inside, whole = literal_part(mask & counted, size), literal_part(counted, size)
    got = resize_mask(mask, size, 0.43, counted)
    np.testing.assert_array_equal(got[whole > 0], (inside / whole.clip(1e-9) >= 0.43)[whole > 0])
    np.testing.assert_array_equal(got, resize_mask(mask | ~counted, size, 0.43, counted))


def test_exact_halves_are_mask_at_a_cut_of_a_half():
    mask = np.zeros((4, 6), bool)
    mask[:, 1] = True
    np.testing.assert_array_equal(resize_mask(mask, (2, 3), 0.5), [[1, 0, 0]] * 2)
    np.testing.assert_array_equal(resize_mask(mask, (2, 3), 0.500001), [[0, 0, 0]] * 2)
    mask = np.zeros((3, 3), bool)
    mask[1, 1] = True  # a quarter of it in each new pixel: 1/4 of 9/4 old pixels
    assert resize_mask(mask, (2, 2), 1 / 9).all() and not resize_mask(mask, (2, 2), 0.112).any()


@pytest.mark.parametrize("cut", [None, 0.0, 0.25, 0.5, 1.0])
def test_a_mask_of_the_same_size_stays_as_it_is(cut):
    mask = np.random.default_rng(1).random((5, 8)) < 0.5
    np.testing.assert_array_equal(resize_mask(mask, (5, 8), cut), mask)
    assert not resize_mask(mask & False, (3, 3), cut).any()  # at a cut of 0 as well


def test_a_line_of_one_pixel_at_half_size():
    """Centre sampling loses the lines in rows that no centre lies in; a cut up to 1/2 keeps all."""
    for row in range(10):
        mask = np.zeros((10, 14), bool)
        mask[row] = True
        assert resize_mask(mask, (5, 7)).any() == (row % 2 == 1)
        for cut in (0.1, 0.25, 0.5):
            np.testing.assert_array_equal(resize_mask(mask, (5, 7), cut),
                                          np.arange(5)[:, None] == np.full((5, 7), row // 2))
        assert not resize_mask(mask, (5, 7), 0.51).any()


@pytest.mark.parametrize("cut", [None, 0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("size", [(12, 18), (6, 9), (5, 13), (16, 25)])
def test_targets_say_255_where_pixels_are_ignored_and_nothing_of_what_is_below(cut, size):
    rng = np.random.default_rng(3)
    mask, ignored = rng.random((12, 18)) < 0.4, rng.random((12, 18)) < 0.3

    def target(m):
        rles = {("a", 0): masks.rle_encode(m), ("a", 1): masks.rle_encode(m)}
        return masks_of(MaskTargets(rles, {"a": (12, 18)}, 3, cut,
                                    {("a", 0): masks.rle_encode(ignored)}), "a", size)

    got = target(mask)
    np.testing.assert_array_equal(got[0] == 255, resize_mask(ignored, size, cut))
    assert (got[1] == resize_mask(mask, size, cut)).all() and not got[2].any()
    for other in (mask | ignored, mask & ~ignored, mask ^ ignored):
        np.testing.assert_array_equal(target(other)[0], got[0])
    if size == (12, 18):
        np.testing.assert_array_equal(got[0][~ignored], mask[~ignored])


def test_the_cut_is_a_half_unless_a_flag_says_otherwise():
    assert train_seg.get_args([]).mask_cut == 0.5
    assert train_seg.get_args(["--mask-cut", "0.25"]).mask_cut == 0.25
    assert train_seg.get_args(["--mask-cut", "centre"]).mask_cut is None


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    """A folds.csv of two folds for the images of `shapes`."""
    path = tmp_path_factory.mktemp("folds") / "folds.csv"
    path.write_text("ImageId,fold\n" + "".join(f"{i:03d}.png,{i // 4 % 2}\n" for i in range(48)))
    return path


def trained(shapes, folds, out, *flags):
    """The files of a U-Net trained for an epoch at 48 x 48 on the masks that `flags` name."""
    assert call("train_seg", "--images", shapes / "train_images", "--folds", folds, "--out", out,
                "--epochs", 1, *SMALL, "--size", 48, 48, "--loss", "bce+dice", "--overwrite",
                *flags) == 0
    return results(out)


def mask_rows(rles):
    return HEAD + "".join(f"{n},{c + 1},{rle}\n" for (n, c), rle in sorted(rles.items()))


def test_ignored_pixels_have_no_influence_on_a_run(shapes, folds, tmp_path):
    """Masks that differ only inside of them give the same bytes; outside of them, others."""
    truth = read_labels(shapes / "train.csv", shapes / "train_images").rles
    given, ignore = tmp_path / "given.csv", tmp_path / "ignore.csv"
    block = np.zeros((64, 64), bool)
    block[9:43, 20:51] = True
    ignore.write_text(mask_rows(dict.fromkeys(truth, masks.rle_encode(block))))

    def run(change, *flags):
        given.write_text(mask_rows({key: masks.rle_encode(change(masks.rle_decode(rle, (64, 64))))
                                    for key, rle in truth.items()}))
        return trained(shapes, folds, tmp_path / "out", "--masks", given, "--fold", 0, *flags)

    inside = [run(change, "--ignore", ignore)
              for change in (lambda m: m, lambda m: m ^ block)]
    assert inside[0] == inside[1] and "fold0/best.pt" in inside[0]
    outside = run(lambda m: m ^ np.roll(block, 10, axis=1), "--ignore", ignore)
    assert outside["fold0/best.pt"] != inside[0]["fold0/best.pt"]
    assert run(lambda m: m)["fold0/best.pt"] != inside[0]["fold0/best.pt"]


def test_the_gate_of_a_classifier_empties_masks_of_classes_below_the_confidence(shapes, folds,
                                                                               tmp_path):
    """DEV-34: oof.csv says 1 for half of the images and 0.3 for the rest, the other way for 2."""
    names = [f"{i:03d}.png" for i in range(48)]
    oof = tmp_path / "oof.csv"
    oof.write_text("ImageId,1,2\n" + "".join(
        f"{n},{[1, 0.3][i % 3 > 0]},{[0.3, 1][i % 3 > 0]}\n" for i, n in enumerate(names)))
    flags = ("--masks", shapes / "train.csv", "--threshold", 0)  # every pixel is a mask
    plain = trained(shapes, folds, tmp_path / "plain", *flags)
    for confidence, kept in ((0.31, [1, 0]), (0.3, [1, 1]), (1, [1, 0])):
        out = tmp_path / f"gated{confidence}"
        gated = trained(shapes, folds, out, *flags, "--gate", oof, "--confidence", confidence)
        made = read_labels(out / "oof_masks.csv", shapes / "train_images", ["1", "2"])
        assert made.names == names
        expected = np.array([[kept[i % 3 > 0], kept[i % 3 == 0]] for i in range(48)])
        np.testing.assert_array_equal(made.y, expected)
        if kept == [1, 1]:
            assert gated["oof_masks.csv"] == plain["oof_masks.csv"]


def test_a_gate_without_a_row_for_every_image_is_refused(shapes, folds, refused, tmp_path):
    (tmp_path / "oof.csv").write_text("ImageId,1,2\n000.png,0.5,0.5\n")
    line = refused("train_seg", "--data", shapes, "--masks", shapes / "train.csv", "--folds",
                   folds, "--gate", tmp_path / "oof.csv", "--out",
                   tmp_path / "out", *SMALL)
    assert line == f"{tmp_path}/oof.csv: no row for 47 of 48 images, the first is 001.png"


@pytest.mark.parametrize("flag", ["--masks", "--ignore"])
def test_a_table_of_labels_is_refused_where_masks_are_needed(shapes, folds, refused, tmp_path,
                                                             flag):
    (tmp_path / "labels.csv").write_text("ImageId,ClassId\n001.png,1\n002.png,2\n")
    given = {"--masks": shapes / "train.csv", flag: tmp_path / "labels.csv"}
    line = refused("train_seg", "--images", shapes / "train_images", "--folds",
                   folds, "--out", tmp_path / "out", *SMALL,
                   *(x for pair in given.items() for x in pair))
    assert line.startswith(f"{tmp_path}/labels.csv: no masks in it")
