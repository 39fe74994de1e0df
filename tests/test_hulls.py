"""Components and convex hulls against literal oracles: half-planes, triangles, flood fill."""

import itertools

import numpy as np
import pytest

from cam2seg.methods import hulls


def half_planes(mask):
    """The hull as an intersection: of all half-planes that hold the mask, with an outline along two
    of its points, or across them at one."""
    points = [tuple(p) for p in np.argwhere(mask).tolist()]
    out = np.zeros_like(mask)
    lines = []
    for (a, b), (c, d) in itertools.permutations(points, 2):
        lines += [(d - b, a - c, a * (d - b) - b * (c - a)),  # along both points
                  (c - a, d - b, c * (c - a) + d * (d - b))]  # across them, at the second
    lines = [(n, m, v) for n, m, v in lines if all(n * p + m * q <= v for p, q in points)]
    for i, j in np.ndindex(mask.shape):
        if len(points) == 1:
            out[i, j] = (i, j) == points[0]
        elif points:
            out[i, j] = all(n * i + m * j <= v for n, m, v in lines)
    return out


def triangles(mask):
    """The hull in O(n^3) triangles, by Caratheodory: a pixel is in one whose corners are pixels of
    the mask; two or three corners may be one pixel."""
    points = np.argwhere(mask).tolist()
    out = np.zeros_like(mask)
    rows, cols = np.indices(mask.shape)

    def side(p, q):
        return (q[0] - p[0]) * (cols - p[1]) - (q[1] - p[1]) * (rows - p[0])

    for corners in itertools.combinations_with_replacement(points, 3):
        a, b, c = corners
        s = np.stack([side(a, b), side(b, c), side(c, a)])
        (top, left), (bottom, right) = np.min(corners, axis=0), np.max(corners, axis=0)
        out |= ((s >= 0).all(axis=0) | (s <= 0).all(axis=0)) & (rows >= top) & (
            rows <= bottom) & (cols >= left) & (cols <= right)
    return out


def flood(mask):
    """The components, as lists of pixels."""
    left = {tuple(p) for p in np.argwhere(mask).tolist()}
    found = []
    while left:
        todo, component = [left.pop()], []
        while todo:
            i, j = todo.pop()
            component.append((i, j))
            near = {(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & left
            left -= near
            todo += near
        found.append(component)
    return found


def sizes_by_loops(mask, hull):
    out = np.zeros(mask.shape, int)
    for component in flood(mask):
        one = np.zeros_like(mask)
        one[tuple(zip(*component, strict=True))] = True
        for x in np.argwhere(triangles(one) if hull else one).tolist():
            out[tuple(x)] = max(out[tuple(x)], len(component))
    return out


@pytest.mark.parametrize("seed", range(8))
def test_hulls_equal_half_planes_and_triangles(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((6, 7)) < rng.choice([0.05, 0.1, 0.15])
    assert (hulls.convex_hull(mask) == triangles(mask)).all()
    assert (hulls.convex_hull(mask) == half_planes(mask)).all()


@pytest.mark.parametrize("points, inside", [
    ([], []),
    ([(2, 3)], [(2, 3)]),
    ([(1, 1), (1, 5)], [(1, j) for j in range(1, 6)]),  # along a row
    ([(0, 4), (4, 4)], [(i, 4) for i in range(5)]),  # along a column
    ([(0, 0), (4, 4)], [(i, i) for i in range(5)]),  # along a diagonal
    ([(4, 0), (0, 4), (2, 2)], [(i, 4 - i) for i in range(5)]),
    ([(0, 0), (2, 4)], [(0, 0), (1, 2), (2, 4)]),  # centres on the line alone
    ([(0, 0), (2, 1)], [(0, 0), (2, 1)]),  # no centre on the line between
    ([(0, 0), (4, 6)], [(0, 0), (2, 3), (4, 6)]),
])
def test_hulls_of_points_on_a_line_and_of_one_pixel(points, inside):
    mask = np.zeros((6, 8), bool)
    for p in points:
        mask[p] = True
    assert [tuple(p) for p in np.argwhere(hulls.convex_hull(mask)).tolist()] == inside
    assert (triangles(mask) == hulls.convex_hull(mask)).all()


def test_the_outline_of_a_large_hull_is_exact():
    """Points of a thin triangle, in numbers that floats of 32 bits would round."""
    mask = np.zeros((3, 30001), bool)
    mask[0, 0] = mask[1, 15001] = mask[2, 30000] = True
    got = hulls.convex_hull(mask)
    assert np.flatnonzero(got[1]).tolist() == [15000, 15001]


@pytest.mark.parametrize("hull", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_sizes_equal_the_loops(seed, hull):
    rng = np.random.default_rng(100 + seed)
    mask = rng.random((7, 8)) < rng.choice([0.1, 0.2, 0.3])
    expected = sizes_by_loops(mask, hull)
    assert (hulls.sizes(mask, hull) == expected).all()
    for least in (0, 1, 2, 3, 5, 8):
        assert (hulls.clean(mask, least, hull) == (expected >= max(least, 1))).all()


def test_a_component_counts_its_own_pixels_and_not_those_of_its_hull():
    mask = np.zeros((9, 9), bool)
    mask[1, 1:8] = mask[1:8, 1] = True  # 13 pixels, whose hull has 28
    mask[7, 7] = True
    assert hulls.clean(mask, 13, True).sum() == 28
    assert hulls.clean(mask, 14, True).sum() == 0
    assert hulls.clean(mask, 1, True).sum() == 29


def test_a_small_component_under_a_large_hull_does_not_cut_a_hole_in_it():
    mask = np.zeros((9, 9), bool)
    mask[0], mask[8], mask[:, 0], mask[:, 8], mask[4, 3:6] = True, True, True, True, True
    assert hulls.clean(mask, 10, True).all()
    assert hulls.sizes(mask)[4, 4] == 3 and hulls.sizes(mask, True)[4, 4] == 32
