"""cam2seg.masks: run lengths against drawn arrays and literal loops, and thresholding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cam2seg import masks


def drawn(*rows):
    """Mask of a picture: "#" is a defect, "." is not."""
    return np.array([[cell == "#" for cell in row] for row in rows])


def literal_decode(rle, size):
    """The format's definition, one pixel at a time: 1-based, down the first column first."""
    H, W = size
    mask = np.zeros(size, bool)
    values = [int(v) for v in rle.split()]
    for n in range(0, len(values), 2):
        for position in range(values[n], values[n] + values[n + 1]):
            column, row = divmod(position - 1, H)
            mask[row, column] = True
    return mask


def literal_encode(mask):
    H, W = mask.shape
    runs, inside = [], False
    for column in range(W):
        for row in range(H):
            if mask[row, column] and not inside:
                runs.append([column * H + row + 1, 0])
            inside = bool(mask[row, column])
            if inside:
                runs[-1][1] += 1
    return " ".join(f"{start} {length}" for start, length in runs)


DRAWN = [
    (drawn("...", "..."), ""),
    (drawn("###", "###"), "1 6"),
    (drawn("#..", "..."), "1 1"),
    (drawn("...", "..#"), "6 1"),
    (drawn("...", "#.."), "2 1"),  # down the first column: (1, 0) is the second pixel
    (drawn(".#.", "..."), "3 1"),
    (drawn("##.", "..."), "1 1 3 1"),  # neighbours in a row are no run
    (drawn(".#.", "##."), "2 3"),  # a run goes on at the top of the next column
    (drawn("#.#", "#.#"), "1 2 5 2"),
    (drawn("#"), "1 1"),
    (drawn("#.##"), "1 1 3 2"),
    (drawn("#", ".", "#", "#"), "1 1 3 2"),
    (drawn("......",
           ".##...",
           ".##..#",
           "....##",
           "#....."), "5 1 7 2 12 2 24 1 28 2"),
]


@pytest.mark.parametrize("mask, rle", DRAWN)
def test_run_lengths_of_drawn_masks(mask, rle):
    assert masks.rle_encode(mask) == rle
    decoded = masks.rle_decode(rle, mask.shape)
    assert decoded.dtype == bool
    np.testing.assert_array_equal(decoded, mask)


def test_any_nonzero_value_and_any_memory_layout_is_encoded():
    mask = drawn(".#.", "##.")
    wide = np.zeros((4, 6), bool)
    wide[::2, ::2] = mask
    for same in (mask.astype(np.uint8), mask * 255, mask * 0.5, mask * -1, mask.tolist(),
                 np.asfortranarray(mask), wide[::2, ::2]):
        assert masks.rle_encode(same) == "2 3"


@pytest.mark.parametrize("shape", [(), (4,), (1, 2, 2)])
def test_encoding_refuses_what_is_not_a_mask(shape):
    with pytest.raises(ValueError) as error:
        masks.rle_encode(np.ones(shape, bool))
    assert str(error.value) == f"a mask is (H, W), got shape {shape}"


sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@st.composite
def drawn_masks(draw):
    H, W = draw(sizes)
    bits = draw(st.lists(st.booleans(), min_size=H * W, max_size=H * W))
    return np.array(bits).reshape(H, W)


@st.composite
def run_lengths(draw):
    """A size and valid run lengths, some of them touching one another."""
    H, W = draw(sizes)
    values, position = [], 1
    while position <= H * W:
        start = position + draw(st.integers(0, 4))
        if start > H * W or draw(st.integers(0, 5)) == 0:
            break
        length = draw(st.integers(1, H * W + 1 - start))
        values += [start, length]
        position = start + length
    return " ".join(map(str, values)), (H, W)


@settings(max_examples=200, deadline=None)
@given(drawn_masks())
def test_encoder_is_the_literal_one_and_decoding_gives_the_mask_back(mask):
    rle = masks.rle_encode(mask)
    assert rle == literal_encode(mask)
    np.testing.assert_array_equal(masks.rle_decode(rle, mask.shape), mask)


@settings(max_examples=200, deadline=None)
@given(run_lengths())
def test_decoder_is_the_literal_one_and_encoding_is_canonical(case):
    rle, size = case
    mask = masks.rle_decode(rle, size)
    np.testing.assert_array_equal(mask, literal_decode(rle, size))
    canonical = masks.rle_encode(mask)
    starts, lengths = (np.array(canonical.split()[k::2], int) for k in (0, 1))
    assert lengths.sum() == sum(map(int, rle.split()[1::2]))
    assert (starts[1:] > (starts + lengths)[:-1]).all()  # touching runs became one
    assert masks.rle_encode(masks.rle_decode(canonical, size)) == canonical


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_overlap_counts_the_pixels_that_both_masks_have(H, W, seed):
    rng = np.random.default_rng(seed)
    pair = rng.random((2, H, W)) < rng.random((2, 1, 1))
    a, b = (masks.checked_runs(masks.rle_encode(m), (H, W)) for m in pair)
    assert masks.overlap(a, b) == masks.overlap(b, a) == (pair[0] & pair[1]).sum()


def test_overlap_of_runs_that_touch_and_of_none():
    a, b = np.array([[1, 2], [3, 2]]), np.array([[2, 1], [3, 1], [9, 1]])
    assert masks.overlap(a, b) == masks.overlap(b, a) == 2
    assert masks.overlap(a, np.zeros((0, 2), int)) == 0


def test_the_union_of_runs_has_the_pixels_of_any_mask():
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 5):
        drawn_masks = rng.random((count, 6, 7)) < 0.2
        runs = [masks.checked_runs(masks.rle_encode(m), (6, 7)) for m in drawn_masks]
        whole = masks.checked_runs(masks.rle_encode(drawn_masks.any(axis=0)), (6, 7))
        np.testing.assert_array_equal(masks.union(np.concatenate(runs)), whole)
    inside = np.array([[5, 2], [1, 9], [20, 1]])  # a short run within a long one, and one apart
    assert masks.union(inside).tolist() == [[1, 9], [20, 1]]
    assert masks.union(np.zeros((0, 2), int)).shape == (0, 2)


def test_touching_runs_are_read_and_written_as_one():
    mask = masks.rle_decode("1 2 3 2 6 1", (3, 3))
    np.testing.assert_array_equal(mask, drawn("##.", "#..", "##."))
    assert masks.rle_encode(mask) == "1 4 6 1"


def test_more_runs_than_a_byte_counts_are_decoded():
    H, W = 1000, 3
    rle = " ".join(f"{start} 1" for start in range(1, H * W + 1, 2))
    mask = masks.rle_decode(rle, (H, W))
    assert mask.sum() == 1500
    np.testing.assert_array_equal(mask[:, 1], np.arange(H) % 2 == 0)
    touching = " ".join(f"{start} 1" for start in range(1, H * W + 1))
    assert masks.rle_decode(touching, (H, W)).all()


@pytest.mark.parametrize("rle, runs", [
    ("", []), ("  ", []), ("1 2 4 1", [[1, 2], [4, 1]]), (" 2\t3 \n", [[2, 3]]),
    ("01 2", [[1, 2]]), ("1 2 3 1", [[1, 2], [3, 1]]),
    ("6 1", [[6, 1]]), ("1 6", [[1, 6]]), ("5 2", [[5, 2]]),  # up to the last pixel, H * W
])
def test_checked_runs_returns_the_pairs(rle, runs):
    got = masks.checked_runs(rle, (2, 3))
    assert got.shape == (len(runs), 2)
    assert got.tolist() == runs


@pytest.mark.parametrize("rle, message", [
    ("1", "1 values, expected start/length pairs"),
    ("1 1 3", "3 values, expected start/length pairs"),
    ("1 0", "run '1 0': start and length are 1 or more"),
    ("1 1 3 0", "run '3 0': start and length are 1 or more"),
    ("0 1", "run '0 1': start and length are 1 or more"),
    ("-1 3", "run '-1 3': start and length are 1 or more"),
    ("3 -1", "run '3 -1': start and length are 1 or more"),
    ("a 1", "'a' is not a whole number"),
    ("1 nan", "'nan' is not a whole number"),
    ("1 1 x", "'x' is not a whole number"),
    ("1.0 1", "'1.0' is not a whole number"),
    ("1 1e0", "'1e0' is not a whole number"),
    ("1_0 1", "'1_0' is not a whole number"),
    ("1_000 1", "'1_000' is not a whole number"),
    ("+1 1", "'+1' is not a whole number"),
    ("1,1", "'1,1' is not a whole number"),
    ("0x1 1", "'0x1' is not a whole number"),
    ("\u0661 1", "'\u0661' is not a whole number"),  # ARABIC-INDIC DIGIT ONE
    ("\uff11 1", "'\uff11' is not a whole number"),  # FULLWIDTH DIGIT ONE
    ("\u00b2 1", "'\u00b2' is not a whole number"),  # SUPERSCRIPT TWO
    ("1 2 2 1", "run '2 1' starts before the run ahead of it ends"),
    ("1 3 3 1", "run '3 1' starts before the run ahead of it ends"),
    ("2 1 2 1", "run '2 1' starts before the run ahead of it ends"),
    ("5 1 1 1", "run '1 1' starts before the run ahead of it ends"),
    ("1 1 5 1 3 1", "run '3 1' starts before the run ahead of it ends"),
    ("7 1", "run '7 1' ends beyond the image's 2 x 3 pixels"),
    ("6 2", "run '6 2' ends beyond the image's 2 x 3 pixels"),
    ("1 7", "run '1 7' ends beyond the image's 2 x 3 pixels"),
    ("1 1 3 5", "run '3 5' ends beyond the image's 2 x 3 pixels"),
    ("999999999999999999 1",
     "run '999999999999999999 1' ends beyond the image's 2 x 3 pixels"),
    ("1 999999999999999999",
     "run '1 999999999999999999' ends beyond the image's 2 x 3 pixels"),
    ("999999999999999999 999999999999999999",
     "run '999999999999999999 999999999999999999' ends beyond the image's 2 x 3 pixels"),
    ("9223372036854775807 1", "'9223372036854775807' is not a whole number"),  # 2^63 - 1
    ("1 " + "9" * 5000, "'" + "9" * 20 + "' is not a whole number"),
])
def test_run_lengths_that_do_not_fit_are_refused(rle, message):
    for read in (masks.checked_runs, masks.rle_decode):
        with pytest.raises(ValueError) as error:
            read(rle, (2, 3))
        assert str(error.value) == message


def test_decode_all_stacks_the_classes_of_one_image():
    rles = {("a", 0): "1 1", ("a", 2): "3 2", ("b", 1): "1 4"}
    np.testing.assert_array_equal(masks.decode_all(rles, "a", (2, 2), 3), [
        drawn("#.", ".."), drawn("..", ".."), drawn(".#", ".#")])
    assert masks.decode_all(rles, "c", (2, 3), 2).tolist() == [[[False] * 3] * 2] * 2


# Thresholding

HEAT = [[0.1, 0.5, 0.9], [0.5, 0.49, 0.51]]


@pytest.mark.parametrize("threshold, mask", [
    (0.0, drawn("###", "###")),
    (0.1, drawn("###", "###")),
    (0.5, drawn(".##", "#.#")),  # a pixel at the threshold counts
    (0.51, drawn("..#", "..#")),
    (0.9, drawn("..#", "...")),
    (0.91, drawn("...", "...")),
])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pixels_at_the_threshold_or_above_are_the_mask(threshold, mask, dtype):
    got = masks.binarize(np.array(HEAT, dtype), threshold)
    assert got.dtype == bool
    np.testing.assert_array_equal(got, mask)


@pytest.mark.parametrize("min_seg_len, kept", [(0, 4), (1, 4), (3, 4), (4, 4), (5, 0), (99, 0)])
def test_a_mask_of_fewer_pixels_than_min_seg_len_is_dropped_whole(min_seg_len, kept):
    got = masks.binarize(np.array(HEAT, np.float32), 0.5, min_seg_len)
    assert got.dtype == bool and got.shape == (2, 3)
    assert got.sum() == kept


def test_the_whole_mask_is_measured_and_not_its_parts():
    heat = drawn("##..#", ".....", "#...#").astype(np.float32)  # DEV-13: parts of 2, 1, 1, 1
    np.testing.assert_array_equal(masks.binarize(heat, 0.5, 5), heat > 0)
    assert not masks.binarize(heat, 0.5, 6).any()


@pytest.mark.parametrize("number", [float, np.float64, np.float32])
@pytest.mark.parametrize("threshold", [0.05 * n for n in range(1, 20)])
def test_a_float32_map_is_compared_in_float32(number, threshold):
    at = np.float32(threshold)  # below the float64 of the same literal for 0.7, above it for 0.3
    below, above = np.nextafter(at, np.float32(0)), np.nextafter(at, np.float32(1))
    heat = np.array([[below, at, above]], np.float32)
    assert masks.binarize(heat, number(threshold)).tolist() == [[False, True, True]]
    assert masks.binarize(np.float32([[0.3, 0.7]]), np.float64(0.7)).tolist() == [[False, True]]


def test_the_map_is_left_alone():
    heat = np.array(HEAT, np.float32)
    before = heat.copy()
    masks.binarize(heat, 0.5, 99)[:] = True
    np.testing.assert_array_equal(heat, before)


# Components


def flood_fill(mask):
    """Numbers by filling from each pixel that has none yet, row by row, and their count."""
    H, W = mask.shape
    number, count = np.zeros((H, W), int), 0
    for i in range(H):
        for j in range(W):
            if mask[i, j] and not number[i, j]:
                count += 1
                number[i, j], todo = count, [(i, j)]
                while todo:
                    r, c = todo.pop()
                    for y in range(max(r - 1, 0), min(r + 2, H)):
                        for x in range(max(c - 1, 0), min(c + 2, W)):
                            if mask[y, x] and not number[y, x]:
                                number[y, x] = count
                                todo.append((y, x))
    return number, count


def same_components(mask):
    number, count = masks.label_components(mask)
    expected, how_many = flood_fill(mask)
    assert number.shape == mask.shape and count == how_many
    np.testing.assert_array_equal(number, expected)


SPIRAL = drawn("#########",
               "........#",
               "#######.#",
               "#.....#.#",
               "#.###.#.#",
               "#.#...#.#",
               "#.#####.#",
               "#.......#",
               "#########")


@pytest.mark.parametrize("mask", [
    drawn("...", "..."), drawn("###", "###"), drawn("#"), drawn("."), drawn("##.#.###"),
    drawn("##.#.###").T, drawn("#.#.#", ".#.#.", "#.#.#"), drawn("#.#", "...", "#.#"),
    drawn("#...#", ".#.#.", "..#.."), drawn("#.#.#.#", "#######"), drawn("#######", "#.#.#.#"),
    drawn("#....", "....#"), drawn("##..", "..##"), drawn("##...", "...##"),
    SPIRAL, SPIRAL.T, SPIRAL[::-1], SPIRAL[:, ::-1], ~SPIRAL, np.zeros((0, 3), bool),
    np.tile(SPIRAL, (2, 3)), np.kron(SPIRAL, np.ones((3, 2), bool))])
def test_components_of_drawn_masks(mask):
    same_components(mask)


@settings(max_examples=200, deadline=None)
@given(drawn_masks())
def test_components_equal_a_flood_fill(mask):
    same_components(mask)


@pytest.mark.parametrize("part", [0.1, 0.3, 0.4, 0.5, 0.7])
def test_components_of_larger_random_masks_equal_a_flood_fill(part):
    same_components(np.random.default_rng(0).random((40, 70)) < part)
