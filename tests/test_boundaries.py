"""Region similarity and boundary accuracy of masks against literal loops and numbers by hand."""

import doctest
from math import ceil, hypot

import numpy as np
import pytest

from cam2seg.methods import boundaries


def literal_boundary(mask):
    """The pixels that differ from the right, lower or lower right neighbour inside the image."""
    H, W = mask.shape
    return {(i, j) for i in range(H) for j in range(W) for a, b in ((0, 1), (1, 0), (1, 1))
            if i + a < H and j + b < W and mask[i, j] != mask[i + a, j + b]}


def literal_f(truth, pred, tolerance):
    r = ceil(tolerance * hypot(*truth.shape))
    t, p = literal_boundary(truth), literal_boundary(pred)

    def part(ones, others):
        near = [any((i - a) ** 2 + (j - b) ** 2 <= r * r for a, b in others) for i, j in ones]
        return sum(near) / len(near)

    if not t or not p:
        return 1.0 if not t and not p else 0.0
    P, R = part(p, t), part(t, p)
    return 2 * P * R / (P + R) if P + R else 0.0


def blob(rng, size):
    y, x = np.mgrid[:size[0], :size[1]]
    row, column = rng.uniform(0, 1, 2) * size
    return np.hypot(y - row, x - column) + rng.normal(0, 0.8, size) < rng.uniform(2, 8)


def test_boundary_and_f_equal_the_loops():
    rng = np.random.default_rng(0)
    seen = []
    for size in ((14, 19), (21, 9), (40, 30)):
        for tolerance in (0.008, 0.05, 0.1):
            truth, pred = blob(rng, size), blob(rng, size)
            assert set(zip(*np.nonzero(boundaries.boundary(truth)))) == literal_boundary(truth)
            seen.append(boundaries.boundary_f(truth, pred, tolerance))
            assert seen[-1] == pytest.approx(literal_f(truth, pred, tolerance), abs=1e-12)
    assert len(set(seen)) > 4


def test_region_similarity_equals_the_loop():
    rng = np.random.default_rng(1)
    for _ in range(5):
        truth, pred = rng.random((2, 7, 9)) < 0.4
        both = sum(t and p for t, p in zip(truth.ravel(), pred.ravel(), strict=True))
        either = sum(t or p for t, p in zip(truth.ravel(), pred.ravel(), strict=True))
        assert boundaries.region_similarity(truth, pred) == pytest.approx(both / either)


def square(row, column, side=20, size=(50, 60)):
    mask = np.zeros(size, bool)
    mask[row:row + side, column:column + side] = True
    return mask


def test_a_square_that_is_moved_by_hand():
    """A diagonal of 78.1 pixels gives r = 1. Moved by one pixel every outline is within r; moved by
    three, J = 17 / 23, and of the 80 pixels of an outline those of the two rows that lie along the
    movement are near: in each row the predicted 21 less the 2 beyond the true end by 2 and 3."""
    here = square(10, 15)
    assert boundaries.boundary(here).sum() == 4 * 20
    assert boundaries.boundary_f(here, square(10, 16)) == 1
    moved = square(10, 18)
    assert boundaries.region_similarity(here, moved) == pytest.approx(17 / 23)
    assert boundaries.boundary_f(here, moved) == pytest.approx(literal_f(here, moved, 0.008))
    assert 2 * 19 / 80 <= boundaries.boundary_f(here, moved) <= 2 * 20 / 80


def test_masks_that_have_no_outline():
    none, full, some = square(0, 0, 0), np.ones((50, 60), bool), square(3, 3)
    for a, b, J, F in ((none, none, 1, 1), (none, some, 0, 0), (some, none, 0, 0),
                       (full, full, 1, 1), (full, none, 0, 1), (some, square(29, 39), 0, 0)):
        assert boundaries.region_similarity(a, b) == J and boundaries.boundary_f(a, b) == F


def test_masks_of_two_shapes_are_refused():
    for score in (boundaries.region_similarity, boundaries.boundary_f):
        with pytest.raises(ValueError, match=r"shape: \(2, 3\) and \(3, 2\)"):
            score(np.zeros((2, 3)), np.zeros((3, 2)))


def test_scores_of_a_sequence_leave_out_the_first_frame_and_classes_without_a_mask_in_it():
    truth = np.zeros((3, 2, 50, 60), bool)
    pred = truth.copy()
    truth[:, 0], pred[1, 0], pred[2, 0] = square(10, 15), square(10, 18), square(10, 15)
    truth[1:, 1], pred[0, 0] = square(0, 0), square(30, 30)
    J, F = boundaries.sequence_scores(truth, pred)
    assert J == pytest.approx((17 / 23 + 1) / 2)
    assert F == pytest.approx((literal_f(square(10, 15), square(10, 18), 0.008) + 1) / 2)
    for empty in (truth[:1], np.zeros_like(truth)):
        with pytest.raises(ValueError, match="expected two frames or more"):
            boundaries.sequence_scores(empty, empty)


def test_the_examples_of_the_file():
    found = doctest.testmod(boundaries)
    assert found.attempted == 4 and found.failed == 0
