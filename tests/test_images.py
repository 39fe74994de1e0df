"""cam2seg.images: pixels of every kind of file against literal arrays, flips and resizing."""

import argparse
import re

import numpy as np
import pytest
from PIL import Image

from cam2seg import masks
from cam2seg.data.dataset import ImageSet, MaskTargets
from cam2seg.data.errors import DataError
from cam2seg.data.images import default_size, open_image, scan
from cam2seg.runs import inputs

GREY = np.array([[0, 10, 20], [128, 200, 255]], np.uint8)
COLOUR = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]],
                   [[1, 2, 3], [90, 80, 70], [255, 254, 253]]], np.uint8)


def saved(path, pixels, mode=None, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    assert mode in (None, image.mode)
    image.save(path, **options)
    return path


def check_pixels(path, expected):
    got = open_image(path)
    assert got.dtype == np.uint8
    expected = np.asarray(expected)
    if expected.ndim == 2:
        expected = np.stack([expected] * 3, axis=2)
    np.testing.assert_array_equal(got, expected)


# Kinds of files

@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_grey_and_colour_images_keep_their_values(tmp_path, suffix):
    check_pixels(saved(tmp_path / f"grey.{suffix}", GREY, "L"), GREY)
    check_pixels(saved(tmp_path / f"rgb.{suffix}", COLOUR, "RGB"), COLOUR)
    check_pixels(str(tmp_path / f"rgb.{suffix}"), COLOUR)


@pytest.mark.parametrize("alpha", [0, 7, 255])
def test_alpha_is_left_out_and_not_blended(tmp_path, alpha):
    full = np.full((2, 3, 1), alpha, np.uint8)
    check_pixels(saved(tmp_path / "a.png", np.concatenate([COLOUR, full], axis=2), "RGBA"), COLOUR)
    check_pixels(saved(tmp_path / "b.png", np.concatenate([GREY[..., None], full], axis=2), "LA"),
                 GREY)


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("transparency", [None, 1, bytes([0, 128, 255])])
def test_palette_images_give_the_colours_of_their_palette(tmp_path, transparency):
    image = Image.fromarray(np.array([[0, 1, 2], [2, 1, 0]], np.uint8))
    image.putpalette([255, 0, 0, 10, 20, 30, 0, 0, 255])
    options = {} if transparency is None else {"transparency": transparency}
    path = saved(tmp_path / "a.png", image, "P", **options)
    red, dark, blue = [255, 0, 0], [10, 20, 30], [0, 0, 255]
    check_pixels(path, [[red, dark, blue], [blue, dark, red]])


def test_images_of_one_bit_are_0_and_255(tmp_path):
    image = Image.fromarray(GREY > 100)
    check_pixels(saved(tmp_path / "a.png", image, "1"), [[0, 0, 0], [255, 255, 255]])


def test_cmyk_jpegs_become_rgb(tmp_path):
    image = Image.new("CMYK", (32, 16))
    image.paste((0, 255, 255, 0), (16, 0, 32, 16))  # no cyan, full magenta and yellow: red
    path = saved(tmp_path / "a.jpg", image, "CMYK", quality=95)
    got = open_image(path).astype(int)
    assert got.shape == (16, 32, 3)
    assert np.abs(got[:, :12] - 255).max() <= 3
    assert np.abs(got[:, 20:] - [255, 0, 0]).max() <= 3


HIGH_BYTES = [[0, 0, 1], [1, 18, 255]]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_images_keep_their_high_byte(tmp_path, suffix):
    words = np.array([[0, 255, 256], [511, 0x1234, 65535]], np.uint16)
    path = saved(tmp_path / f"a.{suffix}", words)
    check_pixels(path, HIGH_BYTES)
    dark = saved(tmp_path / f"b.{suffix}", words // 256)  # the same rule for a dark picture
    check_pixels(dark, np.zeros((2, 3)))


def test_16_bit_images_of_the_other_byte_order_keep_their_high_byte(tmp_path):
    words = np.array([[0, 255, 256], [511, 0x1234, 65535]], ">u2")
    check_pixels(saved(tmp_path / "a.tif", Image.fromarray(words), "I;16B"), HIGH_BYTES)


def test_32_bit_integers_are_cut_to_16(tmp_path):
    values = np.array([[-5, 255, 256], [65535, 70000, 2 ** 31 - 1]], np.int32)
    check_pixels(saved(tmp_path / "a.tif", values, "I"), [[0, 0, 1], [255, 255, 255]])


@pytest.mark.parametrize("orientation, turned", [
    (1, [[1, 2, 3], [4, 5, 6]]),
    (2, [[3, 2, 1], [6, 5, 4]]),
    (3, [[6, 5, 4], [3, 2, 1]]),
    (4, [[4, 5, 6], [1, 2, 3]]),
    (5, [[1, 4], [2, 5], [3, 6]]),
    (6, [[4, 1], [5, 2], [6, 3]]),  # a quarter turn clockwise
    (7, [[6, 3], [5, 2], [4, 1]]),
    (8, [[3, 6], [2, 5], [1, 4]]),
])
@pytest.mark.parametrize("dtype, scale", [(np.uint8, 1), (np.uint16, 256)])
def test_images_are_turned_as_their_exif_tag_says(tmp_path, orientation, turned, dtype, scale):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.array([[1, 2, 3], [4, 5, 6]], dtype) * dtype(scale)
    path = saved(tmp_path / "a.png", pixels, exif=exif)
    check_pixels(path, turned)
    assert scan(tmp_path, ["a.png"])["a.png"][0] == np.shape(turned)


# Files that cannot be read

def photo(path, size=(60, 50), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return saved(path, pixels)


@pytest.mark.parametrize("name, content, reason", [
    ("none.jpg", None, "[Errno 2] No such file or directory"),
    ("empty.jpg", b"", "no known format"),
    ("text.png", b"hello, world", "no known format"),
    ("head.png", b"\x89PNG\r\n\x1a\n", "no known format"),
])
def test_files_that_are_no_images(tmp_path, name, content, reason):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as error:
        open_image(path)
    assert str(error.value).startswith(f"{path}: cannot be read as an image ({reason}")
    assert str(error.value).endswith(")") and "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "webp"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
def test_truncated_images_are_refused_wherever_they_end(tmp_path, suffix, share):
    path = photo(tmp_path / f"a.{suffix}")
    whole = path.read_bytes()
    path.write_bytes(whole[:int(len(whole) * share)])
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: cannot be read as an ima"):
        open_image(path)


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(DataError, match=r"cannot be read as an image \(\[Errno 21\]"):
        open_image(tmp_path)


def test_floating_point_images_are_refused(tmp_path):
    path = saved(tmp_path / "a.tif", np.ones((2, 3), np.float32), "F")
    with pytest.raises(DataError) as error:
        open_image(path)
    assert str(error.value) == f"{path}: floating-point pixels, expected 8 or 16 bits"


def test_images_too_large_to_decode_are_refused(tmp_path, monkeypatch):
    path = photo(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow refuses twice as many
    with pytest.raises(DataError, match=r"cannot be read as an image \(Image size \(3000 pix"):
        open_image(path)


# Sizes

def test_scan_gives_the_height_and_width_of_every_image(tmp_path):
    (tmp_path / "x").mkdir()
    sizes = {f"x/{n:02d}.png": (n + 1, 2 * n + 3) for n in range(40)}
    for name, size in sizes.items():
        saved(tmp_path / name, np.zeros(size, np.uint8))
    found = scan(tmp_path, list(sizes))
    assert [(n, size) for n, (size, _, _) in found.items()] == list(sizes.items())
    some = ["x/07.png", "x/03.png"]
    found = scan(str(tmp_path), some)
    assert [(n, size) for n, (size, _, _) in found.items()] == [(n, sizes[n]) for n in some]
    assert scan(tmp_path, []) == {}


def test_scan_decodes_every_image_and_names_the_row_of_a_bad_one(tmp_path):
    photo(tmp_path / "a.jpg")
    bad = photo(tmp_path / "b.jpg")
    bad.write_bytes(bad.read_bytes()[:-600])  # the head still tells the size
    with Image.open(bad) as image:
        assert image.size == (50, 60)
    start = f"{bad}: cannot be read as an image (image file is truncated"
    for rows_of, prefix in ((None, ""), ({"a.jpg": "train.csv, row 2"}, ""),
                            ({"b.jpg": "train.csv, row 7"}, "train.csv, row 7: ")):
        with pytest.raises(DataError) as error:
            scan(tmp_path, ["a.jpg", "b.jpg"], rows_of)
        assert str(error.value).startswith(prefix + start)


@pytest.mark.parametrize("size, rounded", [
    ((256, 1600), (256, 1600)), ((64, 32), (64, 32)), ((200, 200), (192, 192)),
    ((209, 207), (224, 192)), ((1, 15), (32, 32)), ((47, 49), (32, 64)), ((1000, 75), (992, 64)),
])
def test_the_default_size_is_in_multiples_of_32(size, rounded):
    got = default_size(size)
    assert default_size(size, odd=True) == (got[0] + 1, got[1] + 1)
    assert got == rounded
    assert all(type(side) is int for side in got)


@pytest.mark.parametrize("first, arch, size, said", [
    ((256, 1600), "b0", (256, 1600), []),
    ((200, 200), "lite0", (193, 193), []),
    ((3000, 4000), "b0", (3008, 4000), ["the network's input is 3008 x 4000, which follows from the "
     "first image; --size 384 512 takes 1.6% of the time and memory"]),
    ((768, 1024), "lite0", (769, 1025), ["the network's input is 769 x 1025, which follows from the "
     "first image; --size 385 513 takes 25.1% of the time and memory"]),
])
def test_a_large_first_image_makes_a_line_that_proposes_a_smaller_size(first, arch, size, said):
    got = []
    args = argparse.Namespace(size=None, arch=arch)
    assert inputs.input_size(args, first, lambda kind, text: got.append(text)) == size
    assert got == said
    args.size = [96, 128]
    assert inputs.input_size(args, first, lambda kind, text: got.append(text)) == (96, 128)
    assert got == said


# The set a network is fed from

SIZE = (4, 6)
PICTURE = np.arange(72, dtype=np.uint8).reshape(*SIZE, 3)
MASK = np.zeros((3, *SIZE), bool)
MASK[0, 0, :2] = MASK[0, 1, 0] = True  # an L in a corner: no flip leaves it as it is
MASK[2, 3, 1:5] = MASK[2, 2, 4] = True  # class 1 has no mask
RLES = {("a.png", 0): "1 2 5 1", ("a.png", 2): "8 1 12 1 16 1 19 2"}
COUNT = 64


def test_the_run_lengths_used_here_are_those_of_the_drawn_mask():
    assert [masks.rle_encode(m) for m in MASK] == [RLES["a.png", 0], "", RLES["a.png", 2]]


@pytest.fixture
def one(tmp_path):
    saved(tmp_path / "a.png", PICTURE)
    return tmp_path


def image_set(folder, **options):
    options.setdefault("targets", MaskTargets(RLES, {"a.png": SIZE}, 3))
    return ImageSet(folder, ["a.png"] * COUNT, SIZE, **options)


def flips_of(pixels, target):
    """(vertical, horizontal) of an item, compared with the four literal flips of both parts."""
    for vertical in (False, True):
        for horizontal in (False, True):
            rows = slice(None, None, -1) if vertical else slice(None)
            cols = slice(None, None, -1) if horizontal else slice(None)
            if np.array_equal(pixels, PICTURE[rows, cols]):
                np.testing.assert_array_equal(target, MASK[:, rows, cols])
                return vertical, horizontal
    raise AssertionError("pixels are no flip of the picture")


def pattern(items, epoch=0):
    return [flips_of(*items[index, epoch]) for index in range(COUNT)]


def test_items_are_left_alone_without_an_epoch(one):
    items = image_set(one, flips=(True, True))
    assert len(items) == COUNT
    for index in range(8):
        pixels, target = items[index, None]
        assert pixels.dtype == target.dtype == np.uint8
        np.testing.assert_array_equal(pixels, PICTURE)
        np.testing.assert_array_equal(target, MASK)


def test_items_are_left_alone_where_no_flip_was_asked_for(one):
    assert set(pattern(image_set(one))) == {(False, False)}


def test_image_and_masks_flip_together_in_all_four_ways(one):
    found = pattern(image_set(one, flips=(True, True)))
    for flips in ((False, False), (False, True), (True, False), (True, True)):
        assert 5 <= found.count(flips) <= 30  # of 64, a quarter each


@pytest.mark.parametrize("asked, never", [((False, True), 0), ((True, False), 1)])
def test_one_flip_alone_leaves_the_other_axis(one, asked, never):
    both = pattern(image_set(one, flips=(True, True)))
    alone = pattern(image_set(one, flips=asked))
    assert not any(flips[never] for flips in alone)
    assert [flips[1 - never] for flips in alone] == [flips[1 - never] for flips in both]
    assert 20 <= sum(flips[1 - never] for flips in alone) <= 44


def test_flips_depend_on_seed_epoch_and_index_alone(one):
    items = image_set(one, flips=(True, True), seed=3)
    first = pattern(items, epoch=2)
    np.random.seed(0)
    backwards = [flips_of(*items[index, 2]) for index in reversed(range(COUNT))]
    assert backwards[::-1] == first
    assert pattern(image_set(one, flips=(True, True), seed=3), epoch=2) == first
    for seed, epoch in ((3, 3), (3, 0), (4, 2), (0, 2), (2, 3)):
        other = pattern(image_set(one, flips=(True, True), seed=seed), epoch)
        assert other != first
        assert sum(a != b for a, b in zip(first, other)) > COUNT // 3


def test_the_two_flips_are_drawn_apart(one):
    found = pattern(image_set(one, flips=(True, True)))
    assert 16 <= sum(vertical == horizontal for vertical, horizontal in found) <= 48


def test_targets_are_handed_on_as_they_are(one):
    targets = np.arange(COUNT * 2, dtype=np.float32).reshape(COUNT, 2)
    items = image_set(one, targets=targets, flips=(True, True))
    for index in (0, 5, 17, 63):
        for epoch in (None, 0, 1, 2):
            pixels, target = items[index, epoch]
            assert target.dtype == np.float32
            assert target.tolist() == [2 * index, 2 * index + 1]
    flipped = [np.array_equal(items[index, 0][0], PICTURE) for index in range(COUNT)]
    assert 0 < sum(flipped) < COUNT


def test_items_own_their_memory(one):
    targets = np.zeros((COUNT, 2), np.float32)
    for items in (image_set(one, flips=(True, True)), image_set(one, targets=targets)):
        for index in range(4):
            for array in items[index, 0]:
                assert array.flags.writeable and array.flags.c_contiguous
                array[:] = 9
    assert not targets.any()
    np.testing.assert_array_equal(image_set(one)[0, None][0], PICTURE)


@pytest.mark.parametrize("size", [(32, 64), (7, 5), (50, 60), (120, 33)])
def test_pixels_are_resized_bilinearly_to_height_and_width(tmp_path, size):
    path = photo(tmp_path / "a.png", (50, 60))
    items = ImageSet(tmp_path, ["a.png"], size, targets=[0])
    with Image.open(path) as image:
        expected = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(items[0, None][0], expected)
    assert expected.shape == (*size, 3)


def literal_nearest(mask, size):
    """Each new pixel takes the old one under its centre, the first of two at an edge."""
    (H, W), out = mask.shape, np.zeros(size, np.uint8)
    for i in range(size[0]):
        for j in range(size[1]):
            y, x = (i + 0.5) * H / size[0], (j + 0.5) * W / size[1]
            rows = [r for r in range(H) if r <= y + 1e-9 and y + 1e-9 < r + 1]
            cols = [c for c in range(W) if c <= x + 1e-9 and x + 1e-9 < c + 1]
            out[i, j] = mask[rows[0], cols[0]]
    return out


@pytest.mark.parametrize("full, size", [
    ((8, 8), (8, 8)), ((8, 12), (4, 6)), ((4, 6), (8, 12)), ((9, 15), (3, 5)), ((10, 7), (4, 5)),
    ((5, 9), (16, 13)), ((1, 30), (4, 4)), ((31, 17), (6, 11)),
])
def test_masks_are_resized_to_the_pixel_under_each_centre(tmp_path, full, size):
    rng = np.random.default_rng(sum(full))
    mask = rng.random((2, *full)) < 0.5
    saved(tmp_path / "a.png", np.zeros(full, np.uint8))
    rles = {("a.png", c): masks.rle_encode(m) for c, m in enumerate(mask)}
    items = ImageSet(tmp_path, ["a.png"], size, MaskTargets(rles, {"a.png": full}, 3))
    _, target = items[0, None]
    assert target.shape == (3, *size) and target.dtype == np.uint8
    for c in range(2):
        np.testing.assert_array_equal(target[c], literal_nearest(mask[c], size))
    assert not target[2].any()


def test_a_mask_lies_where_its_defect_lies_after_resizing(tmp_path):
    disc = np.hypot(*(np.mgrid[:60, :90] - np.array([20, 60])[:, None, None])) < 12
    saved(tmp_path / "a.png", (disc * 255).astype(np.uint8))
    for size in ((32, 32), (96, 64), (20, 45)):
        targets = MaskTargets({("a.png", 0): masks.rle_encode(disc)}, {"a.png": (60, 90)}, 1)
        items = ImageSet(tmp_path, ["a.png"], size, targets, flips=(True, True))
        for epoch in (None, 0, 1, 2, 3):
            pixels, target = items[0, epoch]
            seen = pixels[:, :, 0] > 127
            wrong = (seen != target[0].astype(bool)).sum()
            assert wrong <= 0.08 * seen.sum()


def test_each_index_has_the_image_and_masks_of_its_own_name(tmp_path):
    for n, name in enumerate("abc"):
        saved(tmp_path / f"{name}.png", np.full((2, 2 + n), 50 * n, np.uint8))
    sizes = {f"{name}.png": (2, 2 + n) for n, name in enumerate("abc")}
    rles = {("b.png", 0): "1 6", ("c.png", 1): "1 8"}
    items = ImageSet(tmp_path, ["c.png", "a.png", "b.png"], (2, 2), MaskTargets(rles, sizes, 2))
    assert len(items) == 3
    for index, (grey, filled) in enumerate([(100, [0, 1]), (0, [0, 0]), (50, [1, 0])]):
        pixels, target = items[index, None]
        assert (pixels == grey).all()
        assert target.tolist() == [[[value] * 2] * 2 for value in filled]
