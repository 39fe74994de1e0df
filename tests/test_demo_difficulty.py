"""How hard the generated pictures are: for one filter, for a look at the ground, for contrast."""

import csv
import itertools

import numpy as np
import pytest

from cam2seg import metrics
from cam2seg.demo import strips, toys
from cam2seg.masks import rle_encode
from cam2seg.methods import contrast

FINE, COARSE, SPREAD = (0, 1, 2, 4), (6, 12, 25, 50), (2, 4, 8)


def blur(x, sigma):
    """Gaussian mean, its weights written out and cut at the border."""
    if sigma == 0:
        return x
    rows, columns = (np.subtract.outer(np.arange(side), np.arange(side)) for side in x.shape)
    down, across = (np.exp(-0.5 * (apart / sigma) ** 2) for apart in (rows, columns))
    return (down / down.sum(1, keepdims=True)) @ x @ (across / across.sum(1, keepdims=True)).T


def responses(image):
    """Differences of Gaussians and local standard deviations of both signs, median 0."""
    x = image / 255.0
    mean = {sigma: blur(x, sigma) for sigma in {*FINE, *COARSE, *SPREAD}}
    found = {("dog", s, l): mean[s] - mean[l] for s in FINE for l in COARSE}
    found |= {("std", s): np.sqrt(blur((x - mean[s]) ** 2, s)) for s in SPREAD}
    return {(*name, sign): sign * (r - np.median(r))
            for name, r in found.items() for sign in (1, -1)}


def otsu(values):
    """The level of 128 which parts the values with the largest variance between both sides."""
    levels = np.linspace(0, values.max(), 129)[1:-1]
    ordered = np.sort(values, axis=None)
    below = np.searchsorted(ordered, levels, side="right")
    share, sums = below / ordered.size, np.concatenate(([0], np.cumsum(ordered)))
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = sums[below] / below - (sums[-1] - sums[below]) / (ordered.size - below)
    return levels[np.nanargmax(share * (1 - share) * apart**2)]


def dice_of_each_filter(pictures, kind):
    """{filter and sign: mean Dice over the (image, masks) that hold the kind}."""
    table = {}
    for image, masks in pictures:
        if not masks[kind].any():
            continue
        for name, r in responses(image).items():
            r = np.maximum(r, 0)
            found = r > otsu(r)
            both = np.count_nonzero(found & masks[kind])
            table.setdefault(name, []).append(2 * both / (found.sum() + masks[kind].sum()))
    return {name: np.mean(scores) for name, scores in table.items()}


def drawn(draw, images=60, size=(64, 64), seed=0):
    return [draw(np.random.default_rng((seed, index)), size) for index in range(images)]


def skewness(values):
    return ((values - values.mean()) ** 3).mean() / values.std() ** 3


def auc(positive, negative):
    """Share of the pairs in order, a tie counting half."""
    apart = np.subtract.outer(positive, negative)
    return (apart > 0).mean() + 0.5 * (apart == 0).mean()


@pytest.mark.parametrize("kind", range(4))
def test_no_single_filter_finds_a_kind_of_defect_on_strips(monkeypatch, kind):
    monkeypatch.setattr(strips, "_kinds", lambda rng: np.array([kind]))
    pictures = drawn(strips.strip, 40, (64, 256))
    table = dice_of_each_filter(pictures, kind)
    assert len(table) == 38
    assert max(table.values()) < 0.6


def test_no_filter_of_contrast_finds_a_class_of_the_strips_of_make_demo():
    """The masks are Otsu's of the evidence of one filter, the same for all images of a class."""
    scores = {}
    for image, masks in drawn(strips.strip, 40, (128, 256)):
        x = contrast.logarithm(image)
        for filter, sign in itertools.product(contrast.FILTERS, (1, -1)):
            v = contrast.evidence(x, filter, sign)
            found = v > contrast.otsu(v)
            for c in np.flatnonzero(masks.any(axis=(1, 2))):
                scores.setdefault((c, filter, sign), []).append(metrics.dice(masks[c], found))
    means = {key: np.mean(values) for key, values in scores.items()}
    best = [max(m for (c, *_), m in means.items() if c == k) for k in range(4)]
    assert max(best) < 0.6 and min(best) > 0.2, best


def test_a_filter_finds_a_plain_blob():
    image, mask = np.full((64, 64), 128), np.zeros((1, 64, 64), bool)
    mask[0, 20:32, 30:42] = True
    image[mask[0]] = 40
    table = dice_of_each_filter([(image, mask)], 0)
    # The bank and the threshold above do work where one filter is enough.
    assert table["dog", 0, 50, -1] == 1 and table["dog", 0, 50, 1] < 0.1


@pytest.mark.parametrize("draw", [toys.texture, toys.ground])
def test_toys_depend_on_the_seed_alone_and_refuse_tiny_sizes(draw):
    first, again, other = (drawn(draw, 4, (48, 96), seed) for seed in (1, 1, 2))
    for (image, masks), (image2, masks2), (image3, _) in zip(first, again, other):
        assert image.dtype == np.uint8 and image.shape == (48, 96)
        assert masks.dtype == bool and masks.shape == (2, 48, 96)
        assert np.array_equal(image, image2) and np.array_equal(masks, masks2)
        assert not np.array_equal(image, image3)
    with pytest.raises(ValueError, match="size 31 x 64 is below 32 x 32"):
        draw(np.random.default_rng(0), (31, 64))


def test_texture_has_clean_images_and_ground_has_none():
    present = np.array([masks.any(axis=(1, 2)) for _, masks in drawn(toys.texture, 300)])
    # 0.3 clean and 0.35 of each kind, within 3 deviations of 300.
    assert abs((~present.any(axis=1)).mean() - 0.3) < 0.08
    assert np.all(np.abs(present.mean(axis=0) - 0.35) < 0.083)
    assert present.sum(axis=1).max() == 1
    present = np.array([masks.any(axis=(1, 2)) for _, masks in drawn(toys.ground, 300)])
    assert np.all(present.sum(axis=1) == 1) and abs(present[:, 0].mean() - 0.5) < 0.087


@pytest.mark.parametrize("kind", [0, 1])
def test_contrast_fails_on_texture(monkeypatch, kind):
    assert max(dice_of_each_filter(drawn(toys.texture), kind).values()) < 0.4
    # Without the marks, responses inside and outside the patch have the same distribution.
    monkeypatch.setattr(toys, "MARK_COUNT", (0, 1))
    inside, outside = {}, {}
    for image, masks in drawn(toys.texture, 150):
        if masks[kind].any():
            for name, r in responses(image).items():
                inside.setdefault(name, []).append(r[masks[kind]])
                outside.setdefault(name, []).append(r[~masks[kind]])
    for name in inside:
        # Above 12 pixels a patch holds too few grains for figures.
        if name[0] == "dog" and name[2] <= 12 and name[3] == 1:
            a, b = np.concatenate(inside[name]), np.concatenate(outside[name])
            assert abs(a.mean() - b.mean()) < 0.1 * b.std()
            assert abs(a.std() / b.std() - 1) < 0.12
            assert abs(skewness(a) - skewness(b)) < 0.15


def test_the_direction_of_the_grain_tells_the_label_on_texture():
    upright = {None: [], 0: [], 1: []}
    for image, masks in drawn(toys.texture, 200):
        y, x = np.gradient(image / 255.0)
        # The largest local share of slopes along a row: what a classifier can see anywhere.
        share = blur(x**2, 4) / (blur(x**2, 4) + blur(y**2, 4))
        slanted = np.abs(blur(x * y, 4)) / (blur(x**2, 4) + blur(y**2, 4))
        kinds = np.flatnonzero(masks.any(axis=(1, 2)))
        upright[kinds[0] if kinds.size else None].append((share.max(), slanted.max()))
    clean, first, second = (np.array(upright[kind]) for kind in (None, 0, 1))
    assert auc(first[:, 0], clean[:, 0]) > 0.95
    assert auc(second[:, 1], clean[:, 1]) > 0.95


@pytest.mark.parametrize("kind, sign", [(0, -1), (1, 1)])
def test_contrast_finds_the_blobs_on_ground_and_the_tone_tells_their_kind(kind, sign):
    pictures = drawn(toys.ground)
    table = dice_of_each_filter(pictures, kind)
    assert max(table, key=table.get)[-1] == sign and max(table.values()) > 0.7
    # Even with the blobs cut out, the ground's tone alone names the kind without an error.
    tones = [[np.mean(image[~masks.any(axis=0)]) for image, masks in pictures if masks[k].any()]
             for k in (0, 1)]
    assert auc(*tones) == 1


def test_toys_are_written_in_the_layout_of_the_strips(tmp_path):
    counts = strips.write(tmp_path, 12, (64, 64), seed=5, draw=toys.texture)
    with open(tmp_path / "train.csv", newline="") as file:
        rows = list(csv.reader(file))[1:]
    pictures = drawn(toys.texture, 12, seed=5)
    found = [(f"{index:05d}.jpg", str(kind + 1), rle_encode(masks[kind]))
             for index, (_, masks) in enumerate(pictures) for kind in (0, 1) if masks[kind].any()]
    assert [tuple(row) for row in rows] == found and len(found) == sum(counts[:2])
    assert len(list((tmp_path / "train_images").iterdir())) == 12 == sum(counts)
