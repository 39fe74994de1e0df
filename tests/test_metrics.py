"""cam2seg.metrics: every score against numbers worked out by hand and against literal loops."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cam2seg import masks, metrics
from cam2seg.methods import class_sets


def drawn(*rows):
    """Mask of a picture: "#" is a defect, "." is not."""
    return np.array([[cell == "#" for cell in row] for row in rows])


# Dice

@pytest.mark.parametrize("truth, pred, value", [
    (drawn("##.", "..."), drawn("##.", "..."), 1.0),
    (drawn("##.", "..."), drawn("..#", "###"), 0.0),
    (drawn("##.", "..."), drawn(".#.", "..."), 2 * 1 / (2 + 1)),
    (drawn(".#.", "..."), drawn("##.", "..."), 2 * 1 / (1 + 2)),
    (drawn("##.", "#.."), drawn(".##", ".##"), 2 * 1 / (3 + 4)),
    (drawn("###", "###"), drawn("##.", "##."), 2 * 4 / (6 + 4)),
    (drawn("##.", "..."), drawn("...", "..."), 0.0),
    (drawn("...", "..."), drawn("...", "..#"), 0.0),
    (drawn("...", "..."), drawn("...", "..."), 1.0),
])
def test_dice_of_drawn_masks(truth, pred, value):
    got = metrics.dice(truth, pred)  # [P-6]
    assert isinstance(got, float)
    assert got == pytest.approx(value, abs=1e-15)
    assert metrics.dice(truth * 255, pred.astype(np.uint8)) == got
    assert metrics.dice(truth.tolist(), pred.tolist()) == got


def test_dice_of_two_empty_masks_is_what_was_asked_for():
    empty, one = drawn("..", ".."), drawn("#.", "..")
    assert metrics.dice(empty, empty) == 1.0
    assert metrics.dice(empty, empty, empty=0.0) == 0.0
    assert metrics.dice(empty, empty, empty=0.25) == 0.25
    assert metrics.dice(empty, one, empty=0.25) == metrics.dice(one, empty, empty=0.25) == 0.0


def test_dice_refuses_masks_of_other_shapes():
    with pytest.raises(ValueError) as error:
        metrics.dice(np.ones((2, 3)), np.ones((1, 3)))  # would broadcast
    assert str(error.value) == "masks differ in shape: (2, 3) and (1, 3)"


# Scores over a set

INTER = np.array([[2, 0], [0, 0], [3, 0]])
TRUTH = np.array([[4, 0], [3, 0], [3, 0]])
PRED = np.array([[4, 0], [0, 0], [5, 1]])
# Dice of the pairs: 4/8, 1 (both empty); 0, 1; 6/8, 0. Class 2 never occurs.
BY_HAND = {
    "dice_pairs": ([1.25 / 3, 2 / 3], 3.25 / 6),
    "dice_present": ([1.25 / 3, None], 1.25 / 3),
    "dice_dataset": ([10 / 19, 0], 5 / 19),
    "iou": ([5 / 14, 0], 5 / 28),
    "precision": ([5 / 9, 0], 5 / 18),
    "recall": ([5 / 10, 0], 5 / 20),
}


def check_scores(got, expected):
    assert sorted(got) == sorted(expected)
    for name, (values, mean) in expected.items():
        assert len(got[name][0]) == len(values), name
        for a, b in zip([*got[name][0], got[name][1]], [*values, mean]):
            assert a is None if b is None else a == pytest.approx(b, abs=1e-12), name


def test_scores_of_a_set_worked_out_by_hand():
    check_scores(metrics.mask_scores(INTER, TRUTH, PRED), BY_HAND)
    assert metrics.SCORES == tuple(BY_HAND)


def test_only_the_pairs_where_both_are_empty_depend_on_empty():
    zero = {**BY_HAND, "dice_pairs": ([1.25 / 3, 0], 1.25 / 6)}
    check_scores(metrics.mask_scores(INTER, TRUTH, PRED, empty=0.0), zero)


def test_the_first_two_means_are_over_pairs_and_the_others_over_classes():
    inter = np.array([[1, 0], [1, 0], [0, 3]])
    truth = np.array([[1, 0], [2, 0], [1, 6]])
    pred = np.array([[1, 0], [1, 0], [0, 3]])
    # Pairs: 1, 1; 2/3, 1; 0, 2/3. Present: 1, 2/3, 0 of class 1 and 2/3 of class 2.
    check_scores(metrics.mask_scores(inter, truth, pred), {
        "dice_pairs": ([(1 + 2 / 3) / 3, (2 + 2 / 3) / 3], (1 + 2 / 3 + 0 + 1 + 1 + 2 / 3) / 6),
        "dice_present": ([(1 + 2 / 3) / 3, 2 / 3], (1 + 2 / 3 + 0 + 2 / 3) / 4),
        "dice_dataset": ([4 / 6, 6 / 9], 2 / 3),
        "iou": ([2 / 4, 3 / 6], 1 / 2),
        "precision": ([1, 1], 1),
        "recall": ([2 / 4, 3 / 6], 1 / 2),
    })


@pytest.mark.parametrize("empty", [1.0, 0.0])
def test_scores_where_nothing_is_true_and_nothing_is_predicted(empty):
    none = np.zeros((3, 2), int)
    scores = metrics.mask_scores(none, none, none, empty)
    assert scores["dice_present"] == ([None, None], None)
    for name in set(metrics.SCORES) - {"dice_present"}:
        assert scores[name] == ([empty, empty], empty), name


def test_scores_where_nothing_is_predicted_and_something_is_true():
    none, truth = np.zeros((2, 2), int), np.array([[3, 0], [0, 0]])
    scores = metrics.mask_scores(none, truth, none)
    assert scores["dice_pairs"] == ([0.5, 1.0], 0.75)
    assert scores["dice_present"] == ([0.0, None], 0.0)
    for name in ("dice_dataset", "iou", "precision", "recall"):
        assert scores[name] == ([0.0, 1.0], 0.5), name


def test_scores_where_something_is_predicted_and_nothing_is_true():
    none, pred = np.zeros((2, 2), int), np.array([[3, 0], [0, 0]])
    scores = metrics.mask_scores(none, none, pred)
    assert scores["dice_pairs"] == ([0.5, 1.0], 0.75)
    assert scores["dice_present"] == ([None, None], None)
    for name in ("dice_dataset", "iou", "precision", "recall"):
        assert scores[name] == ([0.0, 1.0], 0.5), name


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 2 ** 32 - 1))
def test_predicting_nothing_scores_one_minus_the_share_of_pairs_with_a_mask(n, C, seed):
    rng = np.random.default_rng(seed)
    truth = rng.integers(1, 100, (n, C)) * (rng.random((n, C)) < 0.4)
    scores = metrics.mask_scores(truth * 0, truth, truth * 0)
    pairs = np.count_nonzero(truth)
    assert scores["dice_pairs"][1] == pytest.approx(1 - pairs / (C * n), abs=1e-12)  # DEV-9
    assert scores["dice_present"][1] == (0.0 if pairs else None)


def test_counts_beyond_32_bits_and_of_small_integer_types():
    big = np.array([[2 ** 40]])
    assert metrics.mask_scores(big, 2 * big, 2 * big)["dice_dataset"][1] == 0.5
    many = np.full((3, 1), 2 ** 31 - 1, np.int32)  # their sum leaves int32
    assert metrics.mask_scores(many, many, many)["iou"] == ([1.0], 1.0)


def literal_scores(truth, pred, empty=1.0):
    """Every score of masks [image][class] (H, W), from true and false positives and negatives."""
    C = len(truth[0])
    pairs, present, tp, fp, fn = [], [], [0] * C, [0] * C, [0] * C
    for t_image, p_image in zip(truth, pred, strict=True):
        for c in range(C):
            t, p = t_image[c].ravel().tolist(), p_image[c].ravel().tolist()
            both = sum(a and b for a, b in zip(t, p))
            extra, missed = sum(p) - both, sum(t) - both
            whole = 2 * both + extra + missed
            pairs.append((c, 2 * both / whole if whole else empty))
            if sum(t):
                present.append(pairs[-1])
            tp[c], fp[c], fn[c] = tp[c] + both, fp[c] + extra, fn[c] + missed

    def ratio(a, b, c):
        return empty if tp[c] + fp[c] + fn[c] == 0 else a / b if b else 0

    def mean(values):
        return sum(values) / len(values) if values else None

    def over_pairs(found):
        classes = [mean([v for k, v in found if k == c]) for c in range(C)]
        return classes, mean([v for _, v in found])

    out = {"dice_pairs": over_pairs(pairs), "dice_present": over_pairs(present)}
    for name, value in {
        "dice_dataset": lambda c: ratio(2 * tp[c], 2 * tp[c] + fp[c] + fn[c], c),
        "iou": lambda c: ratio(tp[c], tp[c] + fp[c] + fn[c], c),
        "precision": lambda c: ratio(tp[c], tp[c] + fp[c], c),
        "recall": lambda c: ratio(tp[c], tp[c] + fn[c], c),
    }.items():
        values = [value(c) for c in range(C)]
        out[name] = values, mean(values)
    return out


def random_masks(rng, n, C, size):
    """Masks bool (n, C, H, W), about a third of them empty."""
    found = rng.random((n, C, *size)) < rng.random((n, C, 1, 1))
    return found & (rng.random((n, C, 1, 1)) < 0.7)


def counts_of(truth, pred):
    inter = np.zeros(truth.shape[:2], int)
    T, P = inter.copy(), inter.copy()
    for i, c in np.ndindex(inter.shape):
        for t, p in zip(truth[i, c].ravel(), pred[i, c].ravel(), strict=True):
            inter[i, c] += int(t and p)
            T[i, c] += int(t)
            P[i, c] += int(p)
    return inter, T, P


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 2 ** 32 - 1),
       st.sampled_from([1.0, 0.0]))
def test_scores_equal_those_of_the_pixels_one_by_one(n, C, seed, empty):
    rng = np.random.default_rng(seed)
    truth, pred = random_masks(rng, n, C, (3, 4)), random_masks(rng, n, C, (3, 4))
    check_scores(metrics.mask_scores(*counts_of(truth, pred), empty),
                 literal_scores(truth, pred, empty))


# Counts from run lengths

def test_mask_counts_of_drawn_masks():
    # a is 2 x 3, b is 4 x 1. Truth: a has class 1 in its first column and class 2 nowhere.
    truth = {("a", 0): "1 2", ("b", 0): "1 4", ("b", 1): "2 1"}
    pred = {("a", 0): "2 3", ("a", 1): "6 1", ("b", 1): "2 3", ("other", 0): "1 1"}
    sizes = {"a": (2, 3), "b": (4, 1), "other": (9, 9)}
    got = metrics.mask_counts(["a", "b"], truth, pred, sizes, 2)
    assert got.tolist() == [[[1, 0], [0, 1]], [[2, 0], [4, 1]], [[3, 1], [0, 3]]]
    assert metrics.mask_counts(["b", "a"], truth, pred, sizes, 2)[1].tolist() == [[4, 1], [2, 0]]


def encoded(found, names):
    """Run lengths by a loop over columns; empty masks are written for every other pair only."""
    out = {}
    for i, name in enumerate(names):
        for c in range(found.shape[1]):
            pixels = found[i, c].T.ravel().tolist()
            runs = [f"{n + 1} 1" for n, pixel in enumerate(pixels) if pixel]
            if runs or (i + c) % 2:
                out[name, c] = " ".join(runs)
    return out


def test_mask_counts_equal_loops_over_decoded_masks():
    rng = np.random.default_rng(3)
    names = [f"{i}.png" for i in range(7)]
    truth, pred = random_masks(rng, 7, 3, (4, 5)), random_masks(rng, 7, 3, (4, 5))
    got = metrics.mask_counts(names, encoded(truth, names), encoded(pred, names),
                              dict.fromkeys(names, (4, 5)), 3)
    assert got.shape == (3, 7, 3)
    for counts, expected in zip(got, counts_of(truth, pred), strict=True):
        assert counts.tolist() == expected.tolist()
    np.testing.assert_array_less(0, got.sum(axis=(1, 2)))


def test_iou_with_background_equals_loops_over_pixels():
    rng, C = np.random.default_rng(3), 3
    sizes = {f"{i}.png": (5 + i, 8) for i in range(6)}
    true, pred = ({n: rng.random((C, *size)) < 0.2 for n, size in sizes.items()} for _ in range(2))
    true["0.png"][:], pred["1.png"][:] = False, True
    for m in (true, pred):  # a class that is nowhere
        for image in m.values():
            image[2] = False
    found = [0] * (1 + C), [0] * (1 + C)  # pixels in both, pixels in one of them
    for n in sizes:
        for i, j in itertools.product(range(sizes[n][0]), range(sizes[n][1])):
            t, p = ([not any(m[n][:, i, j]), *m[n][:, i, j]] for m in (true, pred))
            for k in range(1 + C):
                found[0][k] += bool(t[k] and p[k])
                found[1][k] += bool(t[k] or p[k])
    wanted = [found[0][k] / found[1][k] for k in range(C)]
    rles = [{(n, c): masks.rle_encode(m[n][c]) for n in sizes for c in range(C)}
            for m in (true, pred)]
    names = list(sizes)
    counts = metrics.counts_with_background(names, *rles, sizes, C)
    assert counts[:, :, 1:].tolist() == metrics.mask_counts(names, *rles, sizes, C).tolist()
    values, mean = metrics.iou_with_background(counts)
    assert values == pytest.approx([*wanted, None]) and mean == pytest.approx(sum(wanted) / C)


def test_iou_with_background_where_all_is_covered_and_nothing_is_right():
    rles, sizes = ({("a", 0): "1 4"}, {("a", 1): "1 4"}), {"a": (2, 2)}
    counts = metrics.counts_with_background(["a"], *rles, sizes, 2)
    assert counts[:, 0].tolist() == [[0, 0, 0], [0, 4, 0], [0, 0, 4]]
    assert metrics.iou_with_background(counts) == ([None, 0, 0], 0)
    nothing = metrics.counts_with_background(["a"], *rles, sizes, 0)
    assert nothing.tolist() == [[[4]], [[4]], [[4]]]  # no class, so that all is background


@pytest.mark.parametrize("batch", [1, 2, 5, 10])
def test_any_split_into_batches_gives_the_same_scores(batch):
    rng = np.random.default_rng(5)
    names = [f"{i}.png" for i in range(10)]
    sizes = dict.fromkeys(names, (4, 5))
    truth, pred = random_masks(rng, 10, 2, (4, 5)), random_masks(rng, 10, 2, (4, 5))
    rles = encoded(truth, names), encoded(pred, names)
    parts = [metrics.mask_counts(names[k:k + batch], *rles, sizes, 2)
             for k in range(0, 10, batch)]
    scores = metrics.mask_scores(*np.concatenate(parts, axis=1))
    check_scores(scores, literal_scores(truth, pred))


# ROC-AUC

def literal_auc(y, p):
    """Share of (positive, negative) pairs in the right order, a tie counting half."""
    right = pairs = 0.0
    for a, b in itertools.product(range(len(y)), repeat=2):
        if y[a] == 1 and y[b] == 0:
            pairs += 1
            right += 1.0 if p[a] > p[b] else 0.5 if p[a] == p[b] else 0.0
    return right / pairs


@pytest.mark.parametrize("y, p, value", [
    ([0, 1], [0.1, 0.9], 1.0),
    ([1, 0], [0.1, 0.9], 0.0),
    ([0, 1], [0.4, 0.4], 0.5),
    ([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], 0.75),
    ([1, 0, 0, 1, 0], [3, 3, 1, 2, 2], (0.5 + 1 + 1 + 0 + 1 + 0.5) / 6),
    ([1, 1, 0], [0.5, 0.5, 0.5], 0.5),
    ([0, 0, 0, 1], [0, 0, 1, 0], (0.5 + 0.5 + 0) / 3),
])
def test_roc_auc_worked_out_by_hand(y, p, value):
    assert metrics.roc_auc(y, p) == pytest.approx(value, abs=1e-15)
    assert metrics.roc_auc(np.array(y, bool), np.array(p, np.float32)) == pytest.approx(value)


scored = st.lists(st.tuples(st.integers(0, 1), st.integers(-4, 4)), min_size=2, max_size=25).filter(
    lambda rows: len({y for y, _ in rows}) == 2)


@settings(max_examples=200, deadline=None)
@given(scored)
def test_roc_auc_equals_counting_pairs_and_keeps_under_rising_transforms(rows):
    y, p = np.array(rows).T
    value = literal_auc(y, p)
    assert metrics.roc_auc(y, p) == pytest.approx(value, abs=1e-12)
    for rising in (3.0 * p - 5, np.exp(p), np.arctan(p), p.astype(float) ** 3):
        assert metrics.roc_auc(y, rising) == pytest.approx(value, abs=1e-12)
    assert metrics.roc_auc(y, -p) == pytest.approx(1 - value, abs=1e-12)
    assert metrics.roc_auc(1 - y, p) == pytest.approx(1 - value, abs=1e-12)
    order = np.random.default_rng(len(rows)).permutation(len(rows))
    assert metrics.roc_auc(y[order], p[order]) == pytest.approx(value, abs=1e-12)


def test_roc_auc_sees_the_smallest_differences():
    p = np.array([1e-300, 2e-300, 1.0, np.nextafter(1.0, 2)])
    assert metrics.roc_auc([0, 1, 0, 1], p) == 0.75
    assert metrics.roc_auc([0, 0, 0, 1], p) == 1.0


@pytest.mark.parametrize("y, p, message", [
    ([1, 1], [0.1, 0.2], "2 positives and 0 negatives: both are needed"),
    ([0, 0, 0], [0.1, 0.2, 0.3], "0 positives and 3 negatives: both are needed"),
    ([], [], "0 positives and 0 negatives: both are needed"),
    ([0, 1], [0.1, math.nan], "scores must be finite"),
    ([0, 1], [0.1, math.inf], "scores must be finite"),
    ([0, 1], [0.1, 0.2, 0.3], "y and p are (N,) both, got (2,) and (3,)"),
    ([[0, 1]], [[0.1, 0.2]], "y and p are (N,) both, got (1, 2) and (1, 2)"),
])
def test_roc_auc_refuses_what_has_no_area(y, p, message):
    with pytest.raises(ValueError) as error:
        metrics.roc_auc(y, p)
    assert str(error.value) == message


# All thresholds in one pass

THRESHOLDS = [round(0.05 * n, 2) for n in range(1, 20)]


def literal_threshold_counts(maps, truth, thresholds):
    C, H, W = maps.shape
    inter, pred = np.zeros((2, C, len(thresholds)), int)
    for c, i, j in np.ndindex(C, H, W):
        for n, t in enumerate(thresholds):
            if maps[c, i, j] >= maps.dtype.type(t):
                pred[c, n] += 1
                inter[c, n] += int(truth[c, i, j])
    return inter, pred


def check_threshold_counts(maps, truth, thresholds):
    got = metrics.threshold_counts(maps, truth, thresholds)
    for counts, expected in zip(got, literal_threshold_counts(maps, truth, thresholds),
                                strict=True):
        assert counts.tolist() == expected.tolist()
    for c, t in itertools.product(range(len(maps)), range(len(thresholds))):
        mask = masks.binarize(maps[c], float(thresholds[t]))  # the mask these counts stand for
        assert got[1][c, t] == mask.sum()
        assert got[0][c, t] == (mask & truth[c]).sum()


def test_threshold_counts_of_a_drawn_map():
    maps = np.array([[[0.0, 0.2, 0.5], [0.5, 0.7, 1.0]], [[0.1] * 3, [0.9] * 3]], np.float32)
    truth = np.array([drawn("..#", "..#"), drawn("##.", "#..")])
    inter, pred = metrics.threshold_counts(maps, truth, [0.0, 0.5, 0.6, 1.0])
    assert pred.tolist() == [[6, 4, 2, 1], [6, 3, 3, 0]]
    assert inter.tolist() == [[2, 2, 1, 1], [3, 1, 1, 0]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_threshold_counts_of_values_on_and_beside_the_thresholds(dtype):
    at = np.array([*THRESHOLDS, 0.3, 0.7, 0.0, 1.0], dtype)
    values = np.concatenate([at, np.nextafter(at, dtype(-1)), np.nextafter(at, dtype(2))])
    maps = np.stack([values.reshape(3, -1), values[::-1].reshape(3, -1)])
    truth = np.random.default_rng(0).random(maps.shape) < 0.5
    for thresholds in (THRESHOLDS, np.array(THRESHOLDS), [0.3], [0.7], [0.3, 0.7]):
        check_threshold_counts(maps, truth, thresholds)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(0, 2 ** 32 - 1), st.booleans())
def test_threshold_counts_equal_literal_loops(C, seed, stored_as_float16):
    rng = np.random.default_rng(seed)
    maps = np.where(rng.random((C, 4, 6)) < 0.5, rng.choice(THRESHOLDS, (C, 4, 6)),
                    rng.random((C, 4, 6)))
    maps = maps.astype(np.float16 if stored_as_float16 else np.float32).astype(np.float32)
    truth = rng.random(maps.shape) < 0.4
    check_threshold_counts(maps, truth, sorted(rng.choice(THRESHOLDS, 5, replace=False)))


# The search for the three parameters

GRID = {"threshold": [0.2, 0.5, 0.7, 0.8], "confidence": [0.0, 0.5, 0.7],
        "min_seg_len": [0, 3, 5, 9]}


def example(seed, n=5, C=2, size=(4, 5)):
    """maps, truth, probs with values on the grid, so that every bound matters."""
    rng = np.random.default_rng(seed)
    truth = random_masks(rng, n, C, size)
    maps = rng.choice([0.1, 0.2, 0.5, 0.6, 0.7, 0.8, 0.9], truth.shape)
    maps = np.where(truth & (rng.random(truth.shape) < 0.6), 0.8, maps).astype(np.float32)
    probs = rng.choice([0.1, 0.5, 0.6, 0.7, 0.9], (n, C))
    return maps, truth, probs


def counted(maps, truth):
    both = [metrics.threshold_counts(m, t, GRID["threshold"]) for m, t in zip(maps, truth)]
    return (np.array([b[0] for b in both]), np.array([b[1] for b in both]),
            truth.sum(axis=(2, 3)))


def literal_search(maps, truth, probs, grid, objective):
    """Masks made and scored anew for every combination, in the order of the grid."""
    best, best_score = None, None
    for t in grid["threshold"]:
        for confidence in grid["confidence"]:
            for min_seg_len in grid["min_seg_len"]:
                pred = np.zeros_like(truth)
                for i, c in np.ndindex(probs.shape):
                    if probs[i, c] >= confidence:
                        pred[i, c] = masks.binarize(maps[i, c], t, min_seg_len)
                score = literal_scores(truth, pred)[objective][1]
                if score is not None and (best is None or score > best_score + 1e-12):
                    best_score = score
                    best = {"threshold": t, "confidence": confidence, "min_seg_len": min_seg_len}
    return best, best_score


@pytest.mark.parametrize("objective", metrics.SCORES)
@pytest.mark.parametrize("seed", range(4))
def test_search_finds_what_trying_every_combination_on_masks_finds(objective, seed):
    maps, truth, probs = example(seed)
    inter, pred, area = counted(maps, truth)
    expected, score = literal_search(maps, truth, probs, GRID, objective)
    got, got_score = metrics.search(inter, pred, area, probs, GRID, objective)
    assert got_score == pytest.approx(score, abs=1e-12)
    assert got == expected


def test_search_maximises_dice_over_pairs_unless_told_otherwise():
    found = {}
    for seed in range(10):
        maps, truth, probs = example(seed)
        inter, pred, area = counted(maps, truth)
        default = metrics.search(inter, pred, area, probs, GRID)
        assert default == metrics.search(inter, pred, area, probs, GRID, "dice_pairs")
        for name in metrics.SCORES[1:]:
            other = metrics.search(inter, pred, area, probs, GRID, name)
            found[name] = found.get(name, False) or other[0] != default[0]
    assert all(found.values())


def test_search_keeps_the_first_of_equals_in_the_order_of_the_grid():
    maps = np.full((2, 1, 2, 2), 0.9, np.float32)
    truth = np.ones((2, 1, 2, 2), bool)
    inter, pred, area = counted(maps, truth)
    probs = np.full((2, 1), 0.9)
    assert metrics.search(inter, pred, area, probs, GRID) == (
        {"threshold": 0.2, "confidence": 0.0, "min_seg_len": 0}, 1.0)
    turned = {"threshold": GRID["threshold"], "confidence": [0.7, 0.0], "min_seg_len": [3, 0]}
    assert metrics.search(inter, pred, area, probs, turned)[0] == {
        "threshold": 0.2, "confidence": 0.7, "min_seg_len": 3}


def test_search_takes_a_score_of_zero_where_there_is_no_better():
    inter, pred = np.zeros((1, 1, 4), int), np.full((1, 1, 4), 5)
    assert metrics.search(inter, pred, np.array([[3]]), np.array([[0.9]]), GRID) == (
        {"threshold": 0.2, "confidence": 0.0, "min_seg_len": 0}, 0.0)


def test_search_says_where_the_objective_is_undefined():
    inter, pred, area = np.zeros((2, 1, 4), int), np.ones((2, 1, 4), int), np.zeros((2, 1), int)
    with pytest.raises(ValueError) as error:
        metrics.search(inter, pred, area, np.ones((2, 1)), GRID, "dice_present")
    assert str(error.value) == "dice_present is undefined on these images: no pair has a true mask"
    assert metrics.search(inter, pred, area, np.ones((2, 1)), GRID)[1] == 1.0  # all empty


def test_both_gates_keep_their_bound():
    inter, pred = np.array([[2, 1, 3, 4]]), np.array([[4, 5, 6, 7]])
    probs = np.array([[0.5, 0.49, 0.9, 0.5]])
    got = metrics.gated(inter, pred, probs, 0.5, 5)
    assert [n.tolist() for n in got] == [[[0, 0, 3, 4]], [[0, 0, 6, 7]]]
    got = metrics.gated(inter, pred, probs, 0.5, 4)
    assert [n.tolist() for n in got] == [[[2, 0, 3, 4]], [[4, 0, 6, 7]]]


FOLDS = np.array([0, 2, 1, 0, 1, 2, 0, 5, 5, 1])


def split_example(seed):
    maps, truth, probs = example(seed, n=10)
    return maps, truth, probs, metrics.cross_fit(*counted(maps, truth), probs, FOLDS, GRID)


@pytest.mark.parametrize("seed", range(3))
def test_each_fold_gets_the_parameters_that_are_best_on_the_other_folds(seed):
    maps, truth, probs, chosen = split_example(seed)
    assert sorted(chosen) == [0, 1, 2, 5]
    for k in chosen:
        rest = FOLDS != k
        assert chosen[k] == literal_search(maps[rest], truth[rest], probs[rest], GRID,
                                           "dice_pairs")[0]


def test_folds_choose_differently_from_one_another_and_from_their_own_images():
    differ = own = 0
    for seed in range(6):
        maps, truth, probs, chosen = split_example(seed)
        differ += len({str(parameters) for parameters in chosen.values()}) > 1
        for k, parameters in chosen.items():
            mine = FOLDS == k
            own += parameters != literal_search(maps[mine], truth[mine], probs[mine], GRID,
                                                "dice_pairs")[0]
    assert differ and own  # else the test above could not tell the folds apart


def test_cross_fit_maximises_the_objective_it_is_given():
    differ = 0
    for seed in range(3):
        maps, truth, probs, plain = split_example(seed)
        chosen = metrics.cross_fit(*counted(maps, truth), probs, FOLDS, GRID, "recall")
        differ += chosen != plain
        for k in chosen:
            rest = FOLDS != k
            assert chosen[k] == literal_search(maps[rest], truth[rest], probs[rest], GRID,
                                               "recall")[0]
    assert differ


@pytest.mark.parametrize("k", [0, 1, 2, 5])
def test_the_images_of_a_fold_do_not_touch_its_own_parameters(k):
    maps, truth, probs, chosen = split_example(0)
    mine = FOLDS == k
    others_moved = 0
    for seed in range(8):
        other_maps, other_truth, other_probs = example(seed + 100, n=10)
        for a, b in ((maps, other_maps), (truth, other_truth), (probs, other_probs)):
            a[mine] = b[mine]
        moved = metrics.cross_fit(*counted(maps, truth), probs, FOLDS, GRID)
        assert moved[k] == chosen[k]
        others_moved += any(moved[j] != chosen[j] for j in chosen if j != k)
    assert others_moved


# Which classes occur together


def test_rules_equal_the_loops():
    y = (np.random.default_rng(3).random((30, 4)) < 0.5).astype(np.uint8)
    y[:, 3] &= y[:, 0]
    expected = {}
    for size in (1, 2, 3):
        for s in itertools.combinations(range(4), size):
            n = sum(all(row[c] for c in s) for row in y.tolist())
            if n:
                expected[s] = n
    assert class_sets.class_sets(y, 3) == expected
    rules = class_sets.class_rules(y, 3)
    made = {}
    for A in expected:
        for B in expected:
            union = tuple(sorted(set(A) | set(B)))
            if not set(A) & set(B) and union in expected:
                has_a, has_b = expected[A], expected[B]
                made[A, B] = (expected[union], expected[union] / 30, expected[union] / has_a,
                              expected[union] / has_a / (has_b / 30))
    assert {(A, B) for A, B, *_ in rules} == set(made) and len(rules) == len(made)
    for A, B, *row in rules:
        assert row == pytest.approx(made[A, B], rel=1e-12)
    lifts = [row[-1] for row in rules]
    assert lifts == sorted(lifts, reverse=True)


def test_independent_classes_have_a_lift_of_one():
    y = np.array(list(itertools.product((0, 1), repeat=3)))
    assert all(row[-1] == 1 for row in class_sets.class_rules(y, 3))
    assert class_sets.class_sets(np.zeros((3, 2)), 2) == {} and class_sets.class_rules(y, 1) == []
