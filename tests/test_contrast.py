"""cam2seg.methods.contrast and texture: [C-1] to [C-13] against loops written out, or by hand."""

import itertools
import math

import numpy as np
import pytest
import torch

from cam2seg.masks import label_components
from cam2seg.methods import contrast, reflection, texture


def picture(H, W, seed=0):
    """A random logarithm of an image, float64 (H, W), uneven on purpose."""
    rng = np.random.default_rng(seed)
    return torch.tensor(rng.normal(-1, 0.3, (H, W)) + np.linspace(0, 1, W))


def loop_blur(x, s):
    """[C-2] one pixel at a time, of a nested list or an array, in float64."""
    x = np.asarray(x, float)
    if s == 0:
        return x
    H, W = x.shape
    if s == np.inf:
        return np.full((H, W), sum(x[k, l] for k in range(H) for l in range(W)) / (H * W))
    out = np.zeros((H, W))
    for i, j in itertools.product(range(H), range(W)):
        total = weights = 0.0
        for k, l in itertools.product(range(H), range(W)):
            w = math.exp(-((i - k) ** 2 + (j - l) ** 2) / (2 * s * s))
            total, weights = total + w * x[k, l], weights + w
        out[i, j] = total / weights
    return out


def loop_response(x, kind, s, l, w=None):
    """[C-3] from [C-2], in float64."""
    x = np.asarray(x, float)
    if kind == "std":
        return np.sqrt(loop_blur(x * x, s) - loop_blur(x, s) ** 2)
    if w is None:
        return loop_blur(x, s) - loop_blur(x, l)
    return loop_blur(x, s) - loop_blur(np.asarray(w, float) * x, l) / loop_blur(w, l)


def close(got, expected, tolerance=1e-9):
    np.testing.assert_allclose(np.asarray(got), expected, rtol=0, atol=tolerance)


# [C-1] to [C-4]: logarithm, blur, responses, skewness


def test_logarithm_of_every_grey_level():
    I = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = [[math.log((16 * i + j) / 255 + 0.05) for j in range(16)] for i in range(16)]
    x = contrast.logarithm(I)
    assert x.dtype == torch.float32
    close(x, expected, 1e-6)


@pytest.mark.parametrize("s", [0, 0.5, 1, 2.5, 12, 1000, np.inf])
def test_blur_equals_the_loops(s):
    x = picture(5, 8)
    close(contrast.blur(x, s), loop_blur(x, s))
    close(contrast.blur(x.float(), s), loop_blur(x, s), 1e-6)


@pytest.mark.parametrize("s", [1, 3, 12])
@pytest.mark.parametrize("shape", [(1, 700), (700, 1)])
def test_blur_of_more_pixels_than_a_block_equals_the_loops(s, shape):
    x = picture(*shape)
    expected = loop_blur(x, s)
    close(contrast.blur(x, s), expected, 1e-12)
    close(contrast.blur(x, s, step=2), expected[::2, ::2], 1e-12)
    close(contrast.blur(x.float(), s), expected, 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_blur_leaves_out_what_has_no_weight_and_nothing_else(dtype):
    """An infinite pixel reaches all that give it a weight: inf * 0 is NaN, and inf * w is inf."""
    for at in range(0, 600, 7):
        x = torch.zeros(1, 600, dtype=dtype)
        x[0, at] = torch.inf
        weights = contrast._gaussian(600, 2, dtype)[:, at]
        assert (contrast.blur(x, 2)[0].isinf() == (weights > 0)).all()
        assert 25 < (weights > 0).sum() < 160


def test_blur_at_every_second_row_and_column_is_a_part_of_the_whole():
    x = torch.randn(2, 9, 12)
    for s in (0, 2, np.inf):
        close(contrast.blur(x, s, step=2), contrast.blur(x, s)[:, ::2, ::2], 1e-6)


def test_blur_keeps_a_constant_and_blurs_each_image_of_a_stack():
    for s in (0, 1, 6, 50, np.inf):
        close(contrast.blur(torch.full((7, 4), 2.5), s), 2.5, 1e-6)  # each row of K sums to 1
    x = torch.stack([picture(5, 8, 1), picture(5, 8, 2)])
    assert torch.allclose(contrast.blur(x, 2)[1], contrast.blur(x[1], 2))
    assert torch.equal(contrast.blur(x, 0), x)


@pytest.mark.parametrize("filter", contrast.FILTERS, ids=contrast.describe)
def test_response_equals_the_loops(filter):
    x = picture(6, 7)
    close(contrast.respond(x, *filter), loop_response(x, *filter))


def test_response_within_weights_equals_the_loops_and_ignores_what_has_no_weight():
    x, w = picture(6, 7), torch.tensor(np.random.default_rng(0).random((6, 7)) + 0.01)
    for filter in (("dog", 1, 6), ("dog", 0, 2), ("dog", 1, np.inf), ("std", 2, 0)):
        close(contrast.respond(x, *filter, w), loop_response(x, *filter, w))
    other = x.clone()
    w[:, 4:], other[:, 4:] = 1e-9, 0  # with G_0 a pixel is compared with the ground of w alone
    found = (contrast.respond(a, "dog", 0, 2, w)[:, :4] for a in (x, other))
    close(*found)


def test_standard_deviation_of_two_values_in_equal_number():
    x = torch.tensor([[0.0, 4.0]]).repeat(6, 1)
    close(contrast.respond(x, "std", 1000, 0), 2.0, 1e-4)


def test_names_of_filters():
    names = [contrast.describe(f) for f in contrast.FILTERS]
    assert len(names) == len(set(names)) == 23
    assert (names[0], names[4], names[-1]) == ("G0 - G6", "G0 - mean", "std 8")


def test_skewness_equals_the_loops():
    x = picture(9, 12, 3)
    for f, filter in enumerate(contrast.FILTERS):
        r = loop_response(x, *filter)
        values = [r[i, j] for i in range(0, 9, 2) for j in range(0, 12, 2)]
        mean = sum(values) / len(values)
        m2 = sum((v - mean) ** 2 for v in values) / len(values)
        m3 = sum((v - mean) ** 3 for v in values) / len(values)
        assert contrast.skewness(x)[f] == pytest.approx(m3 / m2**1.5, abs=1e-9), filter


@pytest.mark.parametrize("height", [0.8, -0.8])
def test_skewness_of_a_two_valued_image(height):
    """A share p of the pixels is `height` above a flat ground: skew = (1 - 2 p) / sqrt(p (1 - p)),
    with the sign of the height, for the filter that takes the mean away."""
    x = torch.full((40, 40), -1.0)
    rows, cols = torch.meshgrid(torch.arange(40), torch.arange(40), indexing="ij")
    disc = (rows - 20) ** 2 + (cols - 18) ** 2 < 36
    x[disc] += height
    p = disc[::2, ::2].double().mean().item()
    found = contrast.skewness(x)[contrast.FILTERS.index(("dog", 0, np.inf))]
    assert found == pytest.approx(math.copysign((1 - 2 * p) / math.sqrt(p * (1 - p)), height), 1e-4)


def test_reach_counts_the_pixels_above_each_multiple_of_a_threshold():
    v = np.random.default_rng(0).exponential(size=(7, 9)).astype(np.float32)
    v[0, 0] = 0.5 * reflection.RATIOS[20]  # a pixel at the limit itself is not above it
    counted = [sum(float(a) > 0.5 * rho for a in v.ravel()) for rho in reflection.RATIOS]
    assert reflection.reach(v, 0.5).tolist() == counted


def test_a_threshold_is_right_where_the_wrong_side_has_half_as_many_pixels():
    ramp = np.arange(33, 0, -1)
    assert reflection.correction(4 * ramp, ramp) == 1  # never lowered
    mirrored = np.where(np.arange(33) < 20, 3 * ramp, 2 * ramp)
    assert reflection.correction(4 * ramp, mirrored) == reflection.RATIOS[20]
    assert reflection.correction(ramp, ramp) == 1  # ground alone
    assert reflection.correction(0 * ramp, 0 * ramp) == 1  # nothing at all
    empty = np.where(np.arange(33) < 32, ramp, 0)
    assert reflection.correction(empty, np.where(empty > 0, ramp, 0)) == 1


def test_the_correction_finds_the_limit_of_uniform_ground_beside_a_defect():
    """Ground: uniform on -1 .. 1, 10000 pixels; defect: 1000 pixels at 3. Above t > 0 lie
    5000 (1 - t) pixels of the ground on either side: half of all where 5000 (1 - t) = 1000, which
    is 1.6 times the threshold 0.5."""
    ground = (np.arange(10000) + 0.5) / 5000 - 1
    r = np.concatenate([ground, np.full(1000, 3.0)])
    rho = reflection.correction(*(reflection.reach(np.maximum(s * r, 0), 0.5) for s in (1, -1)))
    assert rho == reflection.RATIOS[reflection.RATIOS >= 1.6][0]


@pytest.mark.parametrize("grey", [0, 7, 130, 255])
def test_an_image_of_one_grey_has_no_skewness_and_no_threshold(grey):
    x = contrast.logarithm(np.full((50, 33), grey, np.uint8))
    assert (contrast.skewness(x) == 0).all()
    for filter, sign in itertools.product(contrast.FILTERS, (1, -1)):
        assert contrast.otsu(contrast.evidence(x, filter, sign)) == 0


# [C-5]: the choice by labels


def literal_choice(skew, labels):
    N, C = labels.shape
    T = [[[-math.inf, -math.inf] for _ in range(skew.shape[1])] for _ in range(C)]
    for c in range(C):
        P = [i for i in range(N) if labels[i, c] and labels[i].sum() == 1]
        if len(P) < 10:
            P = [i for i in range(N) if labels[i, c]]
        Q = [i for i in range(N) if not labels[i].any()]
        if len(Q) < 10:
            Q = [i for i in range(N) if not labels[i, c]]
        for f, (k, s) in itertools.product(range(skew.shape[1]), enumerate((1, -1))):
            if not P or not Q:
                continue
            mean = sum(s * skew[i, f] for i in P) / len(P)
            wins = sum((s * skew[i, f] > s * skew[j, f]) + 0.5 * (skew[i, f] == skew[j, f])
                       for i in P for j in Q)
            auc = wins / (len(P) * len(Q))
            if mean > 0 and auc > 0.5:
                T[c][f][k] = mean * (auc - 0.5)
    index, signs = [], []
    for c in range(C):
        best, at = -math.inf, (-1, 0)
        for f, k in itertools.product(range(skew.shape[1]), range(2)):
            if T[c][f][k] > best:
                best, at = T[c][f][k], (f, k)
        index.append(at[0])
        signs.append((1, -1)[at[1]])
    return index, signs, T


SETS = {"clean images": (60, [0.4, 0.25]), "no clean image": (60, [0.5, 1.0]),
        "few images with one label": (25, [0.8, 0.7, 0.7]), "few clean images": (40, [0.6, 0.6]),
        "a class without images": (40, [0.5, 0.0]), "a class everywhere": (30, [1.0, 0.3])}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("case", SETS)
def test_choice_equals_the_loops(case, seed):
    N, chance = SETS[case]
    rng = np.random.default_rng(seed)
    labels = rng.random((N, len(chance))) < chance
    skew = rng.integers(-6, 7, (N, 5)) / 4 + 0.2 * labels[:, :1]  # quarters: with ties
    index, signs, T = contrast.choose(skew, labels)
    expected = literal_choice(skew, labels)
    assert (index.tolist(), signs.tolist()) == expected[:2]
    np.testing.assert_allclose(T, expected[2], rtol=1e-12)


def test_choice_by_hand():
    """Class 0 raises filter 0, class 1 lowers filter 1. The images with both labels, which say the
    contrary, do not count, and the clean images alone are the negatives."""
    labels = np.repeat([[1, 0], [0, 1], [0, 0], [1, 1]], 10, axis=0).astype(bool)
    skew = np.repeat([[2.0, 0], [9, -3], [1, 0], [-50, 50]], 10, axis=0)
    index, signs, T = contrast.choose(skew, labels)
    assert index.tolist() == [0, 0] and signs.tolist() == [1, 1]
    assert T[0, 0, 0] == 2 * 0.5 and T[1, 0, 0] == 9 * 0.5 and T[1, 1, 1] == 3 * 0.5
    assert np.isinf(T[0, :, 1]).all() and np.isinf(T[1, 1, 0])


def test_no_filter_is_chosen_where_none_tells_the_class():
    labels = np.repeat([[1], [0]], 20, axis=0).astype(bool)
    skew = np.repeat([[1.0, -1], [2, -2]], 20, axis=0)  # clean images are the more skewed ones
    index, _, T = contrast.choose(skew, labels)
    assert index.tolist() == [-1] and np.isneginf(T).all()


# [C-6] to [C-9]: evidence, thresholds, seeds


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("filter", [("dog", 1, 6), ("dog", 0, np.inf), ("std", 2, 0)])
def test_evidence_equals_the_loops(filter, sign):
    x = picture(7, 9, 5)
    r = sign * loop_response(x, *filter)
    middle = sorted(r.ravel())[(r.size - 1) // 2]
    close(contrast.evidence(x, filter, sign), loop_blur(np.maximum(r - middle, 0), 1))


@pytest.mark.parametrize("sign", [1, -1])
def test_evidence_within_a_region_equals_the_loops(sign):
    x, q = picture(7, 9, 5), np.random.default_rng(1).random((7, 9))
    q[:, 6:] = 0  # the weight there is 0.001 for the ground and 0 for the median
    r = sign * loop_response(x, "dog", 1, 6, np.maximum(q, 0.001))
    total, middle = 0.0, None
    for value, weight in sorted(zip(r.ravel(), q.ravel(), strict=True)):
        total += weight
        if total >= q.sum() / 2:
            middle = value
            break
    assert abs(middle - np.median(r)) > 1e-3  # the weights make a difference
    got = contrast.evidence(x, ("dog", 1, 6), sign, torch.tensor(q))
    close(got, loop_blur(np.maximum(r - middle, 0), 1) * q)


@pytest.mark.parametrize("seed", range(5))
def test_otsu_equals_the_loops(seed):
    v = np.random.default_rng(seed).exponential(1, (9, 8)) ** 2
    edges = [v.min() + (v.max() - v.min()) * k / 16 for k in range(17)]
    bins = [min(int((a - v.min()) / (v.max() - v.min()) * 16), 15) for a in v.ravel()]
    centres = [(edges[k] + edges[k + 1]) / 2 for k in bins]
    best, at = -1.0, None
    for k in range(1, 16):
        low = [a for a, b in zip(centres, bins, strict=True) if b < k]
        high = [a for a, b in zip(centres, bins, strict=True) if b >= k]
        between = len(low) * len(high) * (sum(high) / len(high) - sum(low) / len(low)) ** 2
        if between > best * (1 + 1e-12):
            best, at = between, edges[k]
    assert contrast.otsu(v, 16) == pytest.approx(at)


def test_otsu_by_hand():
    """A disc of height 3 on a flat ground is cut at the edge of the first bin, and three values
    0 (4 times), 4 (4 times) and 10 (once) between 4 and 10: 8 * 1 * 8^2 = 512 against 4 * 5 *
    (26/5)^2 = 540.8 is won by the cut between 0 and 4."""
    disc = np.zeros((20, 20))
    disc[5:9, 5:9] = 3
    assert contrast.otsu(disc) == pytest.approx(3 / 256)
    values = np.array([[0, 0, 0, 0, 4, 4, 4, 4, 10.0]])
    assert 0 < contrast.otsu(values) < 4
    assert 4 < contrast.otsu(np.append(values, [[10] * 8], axis=1)) < 10
    assert contrast.otsu(np.full((3, 3), 5.0)) == 0 and contrast.otsu(np.zeros((3, 3))) == 0


def test_threshold_by_hand():
    assert contrast.threshold(2.0, np.array([1.0, 8.0, 100.0])) == 4.0  # sqrt(2 * 8)
    assert contrast.threshold(2.0, np.array([6.0, 10.0])) == 4.0  # the median of two is their mean
    assert contrast.threshold(2.0, np.array([])) == 2.0
    for o, of_class in ((0.0, [1.0]), (0.0, []), (2.0, [0.0, 0.0, 5.0])):
        assert contrast.threshold(o, np.array(of_class)) == np.inf


def literal_seeds(u, mask):
    number, count = label_components(mask)
    peaks = [max(u[number == k]) for k in range(1, count + 1)]
    keep = [k + 1 for k, p in enumerate(peaks) if p >= 2 or (max(peaks) < 2 and p == max(peaks))]
    return np.isin(number, keep)


def test_seeds_by_hand():
    u = np.array([[1.1, 1.2, 0, 2.0, 0, 1.9], [0, 0, 0, 0, 1.5, 0], [3, 0, 0, 0, 0, 0]])
    assert contrast.keep_seeded(u, u > 1).tolist() == [
        [False] * 3 + [True, False, True], [False] * 4 + [True, False], [True] + [False] * 5]
    weak = np.array([[1.1, 0, 1.3, 0, 1.2]])
    assert contrast.keep_seeded(weak, weak > 1).tolist() == [[False, False, True, False, False]]
    none = np.zeros((2, 3), bool)
    assert not contrast.keep_seeded(np.ones((2, 3)), none).any()
    assert contrast.keep_seeded(np.full((2, 3), 1.5), ~none).all()


@pytest.mark.parametrize("scale", [0.8, 1.5])
@pytest.mark.parametrize("seed", range(5))
def test_seeds_equal_the_loops(seed, scale):
    u = np.random.default_rng(seed).exponential(scale, (9, 11))
    mask = u > 1
    np.testing.assert_array_equal(contrast.keep_seeded(u, mask), literal_seeds(u, mask))


# [C-10] to [C-12]: the names of regions


def test_texture_equals_the_loops():
    x = picture(6, 9, 7)
    fine = (np.asarray(x, float) - loop_blur(x, 1)) ** 2
    coarse = (loop_blur(x, 1) - loop_blur(x, 3)) ** 2
    expected = []
    for s in (3, 8, 20):
        expected += [np.log(loop_blur(fine, s) + 1e-5) / 2, np.log(loop_blur(coarse, s) + 1e-5) / 2,
                     loop_blur(x, s)]
    got = texture.describe_pixels(x)
    assert got.shape == (54, 9)
    close(got, np.stack(expected, axis=-1).reshape(54, 9), 1e-4)


def test_texture_of_a_flat_image_is_finite():
    d = texture.describe_pixels(torch.full((20, 20), -1.0))
    close(d[:, :2], math.log(1e-5) / 2, 1e-4)
    close(d[:, 2], -1.0, 1e-5)


def literal_gaussian(rows, every):
    """Mean, and covariance with n - 1 plus 0.001 of the variance of every row, by loops."""
    n, D = len(rows), len(rows[0])
    mean = [sum(r[a] for r in rows) / n for a in range(D)]
    cov = [[sum((r[a] - mean[a]) * (r[b] - mean[b]) for r in rows) / (n - 1) for b in range(D)]
           for a in range(D)]
    for a in range(D):
        middle = sum(r[a] for r in every) / len(every)
        cov[a][a] += 0.001 * sum((r[a] - middle) ** 2 for r in every) / len(every)
    return mean, cov


def test_gaussians_equal_the_loops_and_a_class_of_few_gets_that_of_all():
    rng = np.random.default_rng(2)
    d, c = rng.normal(0, [1, 5], (90, 2)) + [[3, 0]], np.repeat([0, 1, 2], [40, 21, 29])
    d[c == 1] -= 4
    d, c = d[:81], c[:81]  # class 2 has 20 descriptors, not more than 10 for each of 2 numbers
    mu, S = texture.fit_texture(d, c, 4)
    for k, rows in enumerate((d[:40], d[40:61], d, d)):
        mean, cov = literal_gaussian(rows.tolist(), d.tolist())
        np.testing.assert_allclose(mu[k], mean, rtol=1e-10)
        np.testing.assert_allclose(S[k], cov, rtol=1e-10)


def test_a_descriptor_that_never_changes_leaves_the_covariance_regular():
    d = np.random.default_rng(0).normal(size=(50, 3))
    d[:, 1] = 2.5
    mu, S = texture.fit_texture(d, np.zeros(50, int), 2)
    assert S[0][1, 1] == 1 and np.linalg.cond(S[0]) < 1e6
    q = texture.name_regions(torch.tensor(d), mu, S, np.array([True, True]))
    close(q, 0.5, 1e-6)


def test_names_equal_the_loops_over_explicit_densities():
    rng = np.random.default_rng(3)
    mu, A = rng.normal(0, 1, (3, 2)), rng.normal(0, 1, (3, 2, 2))
    S = A @ A.transpose(0, 2, 1) + np.eye(2)
    d = rng.normal(0, 2, (12, 2))
    for y in itertools.product((False, True), repeat=3):
        if not any(y):
            continue
        q = texture.name_regions(torch.tensor(d), mu, S, np.array(y))
        assert q.dtype == torch.float32 and q.shape == (3, 12)
        for n in range(12):
            power = []
            for c in range(3):
                e = d[n] - mu[c]
                (a, b), (_, z) = S[c]
                det = a * z - b * b
                form = (z * e[0] ** 2 - 2 * b * e[0] * e[1] + a * e[1] ** 2) / det
                density = math.exp(-form / 2) / (2 * math.pi * math.sqrt(det))
                power.append(y[c] * density ** (1 / 3))
            close(q[:, n], [p / sum(power) for p in power], 1e-6)


def test_names_far_from_every_class_are_finite():
    mu, S = np.array([[0.0], [1.0]]), np.ones((2, 1, 1))
    q = texture.name_regions(torch.tensor([[1e4], [-1e4]]), mu, S, np.array([True, True]))
    close(q, [[0, 1], [1, 0]], 1e-6)


# [C-13]: masks and pixels in doubt


def test_masks_and_doubt_by_hand():
    u = np.array([[[0.5, 0.81, 1.0, 2.5, 1.2, 0.9, 3.0]],
                  [[0.9, 0.70, 0.9, 1.1, 2.1, 1.4, 3.0]],
                  [[9.0, 9.00, 9.0, 9.0, 9.0, 9.0, 9.0]]])
    masks, doubt = contrast.masks_of(np.where([[[1]], [[1]], [[0]]], u, 0), np.array([1, 1, 0]))
    assert masks[:, 0].astype(int).tolist() == [[0, 0, 0, 1, 0, 0, 1],  # the last pixel is a tie
                                                [0, 0, 0, 0, 1, 1, 1], [0] * 7]
    assert doubt[0].astype(int).tolist() == [1, 1, 1, 0, 0, 0, 0]


def test_masks_and_doubt_equal_the_loops():
    u = np.random.default_rng(4).exponential(0.9, (3, 8, 9))
    y = np.array([True, False, True])
    u[1] = 0
    masks, doubt = contrast.masks_of(u, y)
    expected = np.zeros((3, 8, 9), bool)
    for c in (0, 2):
        above = np.array([[u[c, i, j] > 1 and u[c, i, j] >= max(u[:, i, j]) for j in range(9)]
                          for i in range(8)])
        expected[c] = literal_seeds(u[c], above)
    np.testing.assert_array_equal(masks, expected)
    for i, j in itertools.product(range(8), range(9)):
        assert doubt[i, j] == (max(u[:, i, j]) > 0.8 and not expected[:, i, j].any())
    assert not masks[1].any() and (doubt & (u.max(axis=0) > 1)).any()  # a component without a seed
