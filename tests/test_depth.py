"""Classes by depth: the formulas against literal loops, and against rooms known in closed form."""

from math import acos, cos, degrees, radians, sin

import numpy as np
import pytest

from cam2seg.demo import rooms
from cam2seg.methods import depth

CAMERA = depth.Camera(30.0, 25.0, 7.2, 5.9)
BINS = depth.Bins((0.5, 1.0, 1.5, 2.0), (36.0, 72.0, 108.0, 144.0))


def noisy_depth(seed=0, size=(12, 15), lost=0.2):
    rng = np.random.default_rng(seed)
    d = rng.uniform(0.8, 4.0, size)
    d[rng.random(size) < lost] = np.nan
    return d


def test_points_equal_the_loops():
    d = noisy_depth()
    found = depth.points(d, CAMERA)
    for i in range(12):
        for j in range(15):
            said = [d[i, j] * (j - 7.2) / 30, d[i, j] * (i - 5.9) / 25, d[i, j]]
            np.testing.assert_allclose(found[i, j], said, rtol=1e-14)


def literal_normal(d, i, j, radius):
    """[H-2] at one pixel, by least squares over the rays of its window."""
    rays, inverse = [], []
    for k in range(i - radius, i + radius + 1):
        for m in range(j - radius, j + radius + 1):
            if 0 <= k < d.shape[0] and 0 <= m < d.shape[1] and np.isfinite(d[k, m]):
                rays.append([(m - 7.2) / 30, (k - 5.9) / 25, 1.0])
                inverse.append(1 / d[k, m])
    n, _, rank, _ = np.linalg.lstsq(np.array(rays), np.array(inverse), rcond=None)
    return n / np.sqrt(sum(v * v for v in n)) if rank == 3 else np.full(3, np.nan)


@pytest.mark.parametrize("radius", [1, 3])
def test_normals_equal_least_squares_in_every_window(radius):
    d = noisy_depth()
    found = depth.normals(d, CAMERA, radius)
    assert found.dtype == np.float64
    for i in range(12):
        for j in range(15):
            said = literal_normal(d, i, j, radius) if np.isfinite(d[i, j]) else [np.nan] * 3
            np.testing.assert_allclose(found[i, j], said, atol=1e-9)


def plane(n, size=(12, 15)):
    """Depth of the plane n P = 1 in closed form."""
    rows, cols = np.indices(size)
    return 1 / (n[0] * (cols - 7.2) / 30 + n[1] * (rows - 5.9) / 25 + n[2])


def test_the_normal_of_a_plane_is_exact_and_points_away_from_the_camera():
    n = np.array([0.1, -0.2, 0.4])
    d = plane(n)
    d[3, 4] = d[7] = np.nan
    found = depth.normals(d, CAMERA, 3)
    known = np.isfinite(d)
    assert np.isnan(found[~known]).all()
    np.testing.assert_allclose(found[known], np.tile(n / np.linalg.norm(n), (known.sum(), 1)),
                               atol=1e-12)
    assert (np.sum(found * depth.points(d, CAMERA), axis=-1)[known] > 0).all()


def test_a_window_that_spans_no_plane_gives_no_normal():
    d = np.full((9, 9), np.nan)
    d[4, 2:7] = 2.0  # one row
    d[0, 0] = d[0, 1] = 1.0  # two pixels
    assert np.isnan(depth.normals(d, CAMERA, 1)).all()
    d[5, 4] = 2.0
    assert np.isfinite(depth.normals(d, CAMERA, 1)).all(axis=-1).sum() == 4


def turned(tilt, roll):
    """The rotation from a level camera's axes to those of one turned about x, then about z."""
    a, b = radians(tilt), radians(roll)
    about_x = np.array([[1, 0, 0], [0, cos(a), -sin(a)], [0, sin(a), cos(a)]])
    about_z = np.array([[cos(b), -sin(b), 0], [sin(b), cos(b), 0], [0, 0, 1]])
    return about_z @ about_x


def literal_gravity(N):
    """[H-3], one normal after the other."""
    g = np.array([0.0, 1.0, 0.0])
    for t in [45] * 5 + [15] * 5:
        A = np.zeros((3, 3))
        for n in N:
            between = degrees(acos(min(1, abs(n @ g))))
            if between < t:
                A -= np.outer(n, n)
            if between > 90 - t:
                A += np.outer(n, n)
        values, vectors = np.linalg.eig(A)
        new = vectors[:, np.argmin(values)]
        g = new if new @ g > 0 else -new
    return g


def test_gravity_equals_the_loops_over_normals():
    rng = np.random.default_rng(3)
    R = turned(20, -8)
    axes = np.array([[0, 1, 0], [0, -1, 0], [1, 0, 0], [0, 0, 1], [0.6, 0, 0.8]])[
        rng.integers(0, 5, 200)]
    N = axes @ R.T + rng.normal(0, 0.15, (200, 3))
    N /= np.linalg.norm(N, axis=1, keepdims=True)
    found = depth.gravity(np.concatenate([N, [[np.nan] * 3]]).reshape(3, 67, 3))
    np.testing.assert_allclose(found, literal_gravity(N), atol=1e-10)
    assert degrees(acos(found @ R[:, 1])) < 3


@pytest.mark.parametrize("tilt, roll", [(0, 0), (25, 0), (-30, 12), (10, -20)])
def test_gravity_of_a_floor_and_a_wall_is_exact(tilt, roll):
    """The clusters of normals as in a picture of a floor that meets a wall; 40 % of the normals lie
    on a ramp of 30 degrees, which the last rounds leave out."""
    R = turned(tilt, roll)
    ramp = (0, cos(radians(30)), sin(radians(30)))
    N = np.array([[0, 1, 0]] * 30 + [[0, 0, 1]] * 20 + [[1, 0, 0]] * 10 + [ramp] * 10) @ R.T
    np.testing.assert_allclose(depth.gravity(N[None]), R[:, 1], atol=1e-9)


def test_gravity_stays_where_the_normals_do_not_tell_it():
    assert depth.gravity(np.full((2, 2, 3), np.nan)).tolist() == [0, 1, 0]
    wall = np.tile([0.0, 0.0, 1.0], (5, 5, 1))
    assert depth.gravity(wall).tolist() == [0, 1, 0]


def test_angle_and_height_by_hand():
    g = np.array([0.0, 0.6, 0.8])
    N = np.array([[g, -g, [1, 0, 0], [np.nan] * 3]])
    np.testing.assert_allclose(depth.angle(N, g), [[0, 180, 90, np.nan]], atol=1e-6)
    P = np.array([[[0, 1, 1], [5, 0, 0], [0, 0.5, 0], [np.nan] * 3]])  # P g: 1.4, 0, 0.3
    np.testing.assert_allclose(depth.height(P, g), [[0, 1.4, 1.1, np.nan]])
    np.testing.assert_allclose(depth.height(P, g, 50), [[-1.1, 0.3, 0, np.nan]], atol=1e-12)


def test_classes_by_hand():
    """An edge belongs to the bin above it."""
    h = np.array([[-0.1, 0.0, 0.49, 0.5, 1.99, 2.0, 9.0, np.nan, 0.7]])
    n = np.array([[0.0, 36.0, 35.9, 90.0, 107.9, 144.0, 180.0, 90.0, np.nan]])
    assert depth.classes_of(h, n, BINS).tolist() == [[0, 1, 0, 7, 17, 24, 24, -1, -1]]
    assert depth.classes_of(h, n, depth.Bins((1.0,), (90.0,))).tolist() == [
        [0, 0, 0, 1, 3, 3, 3, -1, -1]]


def test_class_names_are_in_the_order_of_the_classes():
    names = depth.class_names(BINS)
    assert len(names) == 25 and len(set(names)) == 25
    assert names[:2] == ["below0.5m_below36deg", "below0.5m_36-72deg"]
    assert names[7] == "0.5-1m_72-108deg" and names[24] == "above2m_above144deg"
    assert depth.class_names(depth.Bins((1.0,), (45.5,))) == [
        "below1m_below45.5deg", "below1m_above45.5deg", "above1m_below45.5deg",
        "above1m_above45.5deg"]


# Generated rooms


SIZE = (48, 64)


def room(seed):
    return rooms.draw(np.random.default_rng((1, seed)), SIZE)


def test_the_depth_of_an_empty_room_is_its_closed_form():
    """A level camera 1.5 m above the floor, with the far wall 5 m away and the others beyond the
    picture."""
    box = rooms._box(-1, (0, -20.0, 0), (80, 40, 10))
    camera = rooms.camera_of(SIZE)
    rows, cols = np.indices(SIZE)
    rays = np.stack([(cols - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy,
                     np.ones(SIZE)], axis=-1)
    d, normal, kind, _ = rooms.see(box, [], np.array([0, -1.5, 0]), rays)
    for i in range(48):
        down = (i - 23.5) / 51.2
        floor = 1.5 / down if down > 0 else np.inf
        np.testing.assert_allclose(d[i], min(5, floor), rtol=1e-12)
        assert (normal[i] == ([0, 1, 0] if floor < 5 else [0, 0, 1])).all()
    assert (kind == -1).all()


def literal_hit(solid, at, ray):
    """The depth at which a ray enters a convex solid, or inf: every crossing of a face that lies on
    the solid is tried."""
    best = np.inf
    for a, b in zip(solid.faces, solid.limits, strict=True):
        if a @ ray < 0:
            t = (b - a @ at) / (a @ ray)
            X = at + t * ray
            if t > 0 and all(f @ X <= m + 1e-9 for f, m in zip(solid.faces, solid.limits)):
                best = min(best, t)
    return best


def test_what_is_seen_equals_trying_every_face():
    rng = np.random.default_rng(11)
    box, things = rooms._furnish(rng)
    R, at = rooms._pose(rng)
    rays = rng.uniform((-0.6, -0.5, 1), (0.6, 0.5, 1), (6, 50, 3)) @ R.T
    d, _, kind, _ = rooms.see(box, things, at, rays)
    for i in range(6):
        for j in range(50):
            hits = [literal_hit(thing, at, rays[i, j]) for thing in things]
            X = at + d[i, j] * rays[i, j]
            if min(hits) < np.inf:
                assert d[i, j] == pytest.approx(min(hits)) and \
                    kind[i, j] == things[int(np.argmin(hits))].kind
            else:
                assert kind[i, j] == -1 and max(box.faces @ X - box.limits) == pytest.approx(0)


@pytest.mark.parametrize("seed", range(4))
def test_height_and_angle_of_a_room_are_those_of_its_depth(seed):
    """Height from the point cloud and the true gravity; angles where the window shows one face."""
    r, camera = room(seed), rooms.camera_of(SIZE)
    P = depth.points(r.depth, camera)
    along = P @ r.gravity
    np.testing.assert_allclose(along + r.height, (along + r.height)[0, 0], rtol=1e-12)
    assert r.height.min() >= -1e-9 and np.linalg.norm(r.gravity) == pytest.approx(1)
    surface = surfaces(seed)
    one = np.ones(SIZE, bool)
    for k in range(-1, 2):
        for m in range(-1, 2):
            one &= np.roll(surface, (k, m), (0, 1)) == surface
    one[[0, -1]] = one[:, [0, -1]] = False
    n = depth.angle(depth.normals(r.depth, camera, 1), r.gravity)
    assert one.mean() > 0.5
    np.testing.assert_allclose(n[one], r.angle[one], atol=1e-5)


def surfaces(seed):
    """The number of the surface that each pixel of room(seed) shows: int (H, W)."""
    rng, camera = np.random.default_rng((1, seed)), rooms.camera_of(SIZE)
    (box, things), (R, at) = rooms._furnish(rng), rooms._pose(rng)
    return rooms.see(box, things, at, depth.points(np.ones(SIZE), camera) @ R.T)[3]


@pytest.mark.parametrize("seed", range(4))
def test_classes_of_a_room_are_those_of_its_closed_form(seed):
    r = room(seed)
    camera = rooms.camera_of(SIZE)
    g = depth.gravity(depth.normals(r.depth, camera, 3))
    assert degrees(acos(min(1, g @ r.gravity))) < 2
    found = depth.labels_of(r.depth, camera, BINS, (1, 3))
    low = np.maximum(r.height - r.height.min(), 0)
    said = depth.classes_of(low, r.angle, BINS)
    assert (found == said).mean() > 0.85
    assert (found // 5 == said // 5).mean() > 0.95


def test_labels_are_put_together_from_the_formulas():
    d = room(0).depth
    d[10:14, 20:30] = np.nan
    camera = rooms.camera_of(SIZE)
    g = depth.gravity(depth.normals(d, camera, 4))
    said = depth.classes_of(depth.height(depth.points(d, camera), g, 2.0),
                            depth.angle(depth.normals(d, camera, 2), g), BINS)
    found = depth.labels_of(d, camera, BINS, (2, 4), 2.0)
    assert (found == said).all() and ((found == -1) == np.isnan(d)).all()


def test_rooms_follow_from_their_seed_and_hold_every_kind(tmp_path):
    again = room(2)
    assert all((a == b).all() for a, b in zip(again, room(2), strict=True))
    seen = np.zeros(3, int)
    for seed in range(12):
        seen += room(seed).masks.any(axis=(1, 2))
    assert (seen >= 3).all()
    assert again.image.std() > 10 and again.depth.min() > 0


def test_stored_depth_is_in_millimetres_with_holes():
    r = room(5)
    kept = rooms.stored(np.random.default_rng(0), r.depth)
    assert kept.dtype == np.uint16 and 0 < (kept == 0).mean() < 0.3
    there = kept > 0
    assert abs(kept[there] / 1000 - r.depth[there]).max() <= 0.0005 + 1e-9
