"""Masks by contrast, map or product: the formulas against loops, and which method labels choose."""

import ast
import copy
import json
import re
import shutil
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import call, contents
from PIL import Image
from test_label_only import FAST, TRUTH, names_in, present_dice, write_set

import cam2seg
from cam2seg import cam
from cam2seg.data.csv_files import read_csv, write_csv
from cam2seg.data.errors import DataError
from cam2seg.data.labels import read_labels
from cam2seg.data.stored_maps import read
from cam2seg.demo import toys
from cam2seg.masks import rle_decode, rle_encode
from cam2seg.methods import auto, contrast, erasing, pixels
from cam2seg.training import auto_masks, fitted, held_out_maps, inference, label_only

# The formulas


def blurred(x, s):
    """G_s * x in float64 by loops over the rows and columns of both kernels."""
    if s == 0:
        return x.copy()
    if s == np.inf:
        return np.full(x.shape, x.mean())
    out = x
    for axis in (0, 1):
        n = x.shape[axis]
        K = np.array([[np.exp(-(i - k) ** 2 / (2 * s * s)) for k in range(n)] for i in range(n)])
        K = K / K.sum(axis=1, keepdims=True)
        out = K @ out if axis == 0 else out @ K.T
    return out


def literal_skewness(x, a, filter, sign):
    """[C-19] for one map, filter and sign, one pixel after the other."""
    kind, s, l = filter
    r = blurred(x, s) - blurred(x, l) if kind == "dog" else \
        np.sqrt(np.maximum(blurred(x * x, s) - blurred(x, s) ** 2, 0))
    r, a = (sign * r)[::2, ::2].ravel().tolist(), a[::2, ::2].ravel().tolist()
    middle = sorted(r)[(len(r) - 1) // 2]
    p = [w * max(v - middle, 0.0) for w, v in zip(a, r, strict=True)]
    mean = sum(p) / len(p)
    m2 = sum((v - mean) ** 2 for v in p) / len(p)
    m3 = sum((v - mean) ** 3 for v in p) / len(p)
    return m3 / m2**1.5


def product_skewness(x, A):
    return auto.product_skewness(contrast.responses(torch.tensor(x)), A)


def test_skewness_of_the_product_equals_literal_loops():
    rng = np.random.default_rng(0)
    x, A = rng.normal(-1, 0.3, (21, 30)), rng.random((2, 21, 30))
    found = product_skewness(x, A)
    assert found.shape == (2, len(contrast.FILTERS), 2)
    for c, (f, filter), (k, sign) in [
            (c, pair, side) for c in range(2) for pair in enumerate(contrast.FILTERS)
            for side in enumerate((1, -1))]:
        wanted = literal_skewness(x, A[c], filter, sign)
        assert found[c, f, k] == pytest.approx(wanted, rel=1e-9, abs=1e-9), (filter, sign)


def test_skewness_of_a_product_with_one_odd_pixel_in_closed_form():
    """p is 1 in one of n pixels: mean 1/n, so that skew = (n - 2) / sqrt(n - 1)."""
    x, A = np.zeros((20, 20)), np.zeros((1, 20, 20))
    x[4, 6] = x[10, 10] = 1.0
    A[0, 4, 6] = 1.0  # the map denies the second pixel
    found = product_skewness(x, A)[0, contrast.FILTERS.index(("dog", 0, np.inf))]
    assert found[0] == pytest.approx(98 / sqrt(99), rel=1e-5)
    assert found[1] == 0  # nothing is darker than the median, so that the product is constant


def test_flat_images_and_empty_maps_have_no_skewness():
    assert not product_skewness(np.full((16, 16), -0.7), np.ones((2, 16, 16))).any()
    assert not product_skewness(np.random.default_rng(0).random((16, 16)), np.zeros((2, 16, 16))).any()


def test_the_join_of_views_is_their_geometric_mean():
    maps = np.random.default_rng(0).random((3, 2, 4, 5))
    found = auto.join_views(torch.tensor(maps)).numpy()
    for at in np.ndindex(2, 4, 5):
        wanted = (maps[0][at] * maps[1][at] * maps[2][at]) ** (1 / 3)
        assert found[at] == pytest.approx(wanted, rel=1e-12)
    assert auto.join_views(torch.tensor([0.25, 1.0])) == 0.5
    assert auto.join_views(torch.tensor([0.0, 1.0])) == 0  # what one view denies


def test_tell_is_the_area_under_the_curve_less_its_standard_error():
    rng = np.random.default_rng(0)
    p, q = rng.integers(0, 6, (7, 2, 3)) / 4 + 0.5, rng.integers(0, 6, (9, 2, 3)) / 4
    found = auto.tell(p, q)
    for at in np.ndindex(2, 3):
        won = sum((a[at] > b[at]) + 0.5 * (a[at] == b[at]) for a in p for b in q)
        assert found[at] == pytest.approx(won / 63 - sqrt(17 / (12 * 63)), abs=1e-12)
    assert auto.tell(np.ones(4), np.zeros(9)) == pytest.approx(1 - sqrt(14 / 432))
    assert not auto.tell(np.ones((0, 5)), np.zeros((9, 5))).any()
    assert not auto.tell(np.ones((9, 5)), np.zeros((0, 5))).any()


def test_negatives_are_clean_images_where_ten_are():
    labels = np.array([[1, 0]] * 3 + [[1, 1]] + [[0, 1]] * 2 + [[0, 0]] * 9, bool)
    assert (auto.negatives(labels) == ~labels).all()
    labels = np.concatenate([labels, np.zeros((1, 2), bool)])
    assert (auto.negatives(labels) == (labels.sum(axis=1) == 0)[:, None]).all()


def test_a_hundred_negatives_are_drawn_the_same_for_all_classes():
    labels = np.zeros((400, 2), bool)
    labels[:120, 0] = labels[100:200, 1] = True
    found = auto.negatives(labels)
    assert (found.sum(axis=0) == 100).all() and (found[:, 0] == found[:, 1]).all()
    assert not found[:200].any() and found[200:300].any() and found[300:].any()
    found = auto.negatives(labels[:205])  # too few clean images: each class has its own negatives
    assert (found.sum(axis=0) == [85, 100]).all() and not (found & labels[:205]).any()
    assert (found == auto.negatives(labels[:205])).all()


@pytest.mark.parametrize(("alone", "network", "product", "classifier", "wanted"), [
    (0.7, 0.99, 0.99, 1.0, "contrast"), (0.6999, 0.7499, 0.7, 1.0, "product"),
    (0.6999, 0.7499, 0.6999, 1.0, "map"), (0.581, 0.7, 0.7, 0.7, "contrast"),
    (0.579, 0.64, 0.581, 0.7, "product"), (0.4, 0.49, 0.49, 0.4, "map"),
    (0.5, 0.9, 0.9, 0.3, "contrast"), (0.6999, 0.875, 0.99, 1.0, "network"),
    (0.6999, 0.8749, 0.99, 1.0, "product"), (0.4, 0.5, 0.9, 0.3, "network"),
    # The tiles, the strips and NEU, AUDIT.md 2.6
    (0.000, 0.592, 0.801, 0.923, "product"), (0.525, 0.729, 0.628, 0.908, "map"),
    (0.545, 0.663, 0.788, 0.909, "product"), (0.515, 0.705, 0.650, 0.965, "map"),
    (0.456, 0.735, 0.608, 0.953, "map"), (0.477, 0.943, 0.472, 0.965, "network"),
    (0.700, 0.000, 0.631, 0.959, "contrast"), (0.753, 0.000, 0.955, 0.999, "contrast")])
def test_the_first_method_that_knows_enough_of_what_the_classifier_knows(alone, network, product,
                                                                         classifier, wanted):
    tells = {"contrast": alone, "network": network, "product": product}
    assert auto.decide(tells, classifier) == wanted
    assert tuple(tells) == auto.CHOICES[:3] and auto.CHOICES[3] == "map"


def test_mask_and_doubt_of_a_product_and_of_a_map_by_hand():
    u = np.array([[10.0, 3.01, 3.0, 1.51, 1.5, 0.0]])  # t = 3
    mask, doubt = auto.mask_of(u, "product")
    assert mask.tolist() == [[True, True, False, False, False, False]]
    assert doubt.tolist() == [[False, False, True, True, False, False]]
    u = np.random.default_rng(0).random((9, 9)) ** 3
    t = contrast.otsu(u)
    mask, doubt = auto.mask_of(u, "map")
    for at in np.ndindex(u.shape):
        assert mask[at] == (u[at] > t) and doubt[at] == (t / 2 < u[at] <= t)
    for choice in ("product", "map"):
        assert not np.any(auto.mask_of(np.zeros((3, 3)), choice))


@pytest.mark.parametrize("module", [auto, auto_masks], ids=lambda m: m.__name__)
def test_the_code_that_chooses_does_not_name_a_true_mask(module):
    assert not TRUTH & set(names_in(ast.parse(Path(module.__file__).read_text())))


# What labels choose, on maps made by hand


SIDE = 64


def disc(rng, radius):
    """A soft disc (SIDE, SIDE) in 0..1 at a random place, as a classifier's map may look."""
    at = rng.uniform(radius, SIDE - radius, 2)
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / radius**2), at.round().astype(int)


def draw_spots(count):
    """Noise with strong dark marks in every image, and in half of them one spot within the map:
    images (count, H, W) uint8, maps (count, 1, H, W), y (count, 1), true masks (count, H, W)."""
    rng = np.random.default_rng(0)
    images, maps = np.zeros((count, SIDE, SIDE), np.uint8), np.zeros((count, 1, SIDE, SIDE))
    y, truth = np.arange(count)[:, None] % 2 == 0, np.zeros((count, SIDE, SIDE), bool)
    for i in range(count):
        maps[i, 0], (row, column) = disc(rng, 12)
        grey = rng.normal(128, 4, (SIDE, SIDE))
        for r, c in rng.integers(4, SIDE - 4, (40, 2)):
            if maps[i, 0, r, c] < 0.2:
                grey[r - 2:r + 2, c - 2:c + 2] -= 60
        if y[i]:
            truth[i, max(row - 3, 0):row + 3, max(column - 3, 0):column + 3] = True
            grey[truth[i]] -= 40
        images[i] = grey.clip(0, 255)
    return images, maps, y, truth


def draw_texture(count):
    """toys.texture with maps that show its patch, and a disc elsewhere where there is none."""
    images, maps, truth = [], np.zeros((count, 2, SIDE, SIDE)), np.zeros((count, 2, SIDE, SIDE))
    for i in range(count):
        rng = np.random.default_rng((5, i))
        image, truth[i] = toys.texture(rng)
        images.append(image)
        for c in range(2):
            maps[i, c] = disc(rng, 14)[0]
            if truth[i, c].any():
                soft = contrast.blur(torch.tensor(truth[i, c], dtype=torch.float32), 4).numpy()
                maps[i, c] = soft / soft.max()
    truth = truth.astype(bool)
    return np.array(images), maps, truth.any(axis=(2, 3)), truth


def fold_of(i):
    """The fold of image i, by which images with and without a class are in every fold."""
    return i // 2 % 3


def held(i, masks):
    """What a classifier of up to three classes loses that looks at each mask alike."""
    return np.ones((len(masks), 3))


def fitted_to(images, maps, y, lost=None):
    """The AutoModel of images whose classifier is right but for one pair of each class, and what
    masks_of_image takes of each image."""
    probs = np.where(y, 0.9, 0.1)
    probs[0] = 1 - probs[0]
    return auto_masks.fit(lambda i: contrast.logarithm(images[i]), lambda i: maps[i], lost or held,
                          y, probs, fold_of(np.arange(len(y))))


def mean_dice(images, maps, y, truth, model):
    found = []
    for i in np.flatnonzero(y.any(axis=1)):
        masks, _ = auto_masks.masks_of_image(contrast.logarithm(images[i]), maps[i], y[i],
                                             int(fold_of(i)), model)
        for c in np.flatnonzero(y[i]):
            true = truth[i] if truth.ndim == 3 else truth[i, c]
            found.append(2 * (masks[c] & true).sum() / (masks[c].sum() + true.sum()))
    return np.mean(found)


@pytest.mark.usefixtures("quick")
def test_the_map_is_chosen_where_only_the_classifier_sees_the_texture():
    drawn = draw_texture(60)
    # Without clean images there is no network that could find the texture.
    images, maps, y, truth = (part[drawn[2].any(axis=1)] for part in drawn)
    model = fitted_to(images, maps, y)
    assert model.choices == ["map", "map"] and not model.pixels.networks
    assert mean_dice(images, maps, y, truth, model) > 0.7
    alone = model._replace(choices=["contrast", "contrast"])
    assert mean_dice(images, maps, y, truth, alone) < 0.3


@pytest.mark.usefixtures("quick")
def test_the_network_is_chosen_where_it_knows_nearly_what_a_classifier_of_poor_maps_knows():
    images, maps, y, truth = draw_texture(60)
    maps = np.roll(maps, SIDE // 2, axis=(2, 3))
    probs = np.where(y, 0.9, 0.1)
    probs[:4] = 1 - probs[:4]
    model = auto_masks.fit(lambda i: contrast.logarithm(images[i]), lambda i: maps[i], held, y,
                           probs, fold_of(np.arange(60)))
    assert model.choices == ["network", "network"]
    assert mean_dice(images, maps, y, truth, model) > 0.5
    by_map = model._replace(choices=["map", "map"])
    assert mean_dice(images, maps, y, truth, by_map) < 0.3
    # Each image is masked by the network that has not seen it, and a new one by all of them.
    x, labels, networks = contrast.logarithm(images[0]), y[0], model.pixels.networks
    ours, new = (auto_masks.masks_of_image(x, maps[0], labels, k, model)[0] for k in (0, -1))
    only = model._replace(pixels=model.pixels._replace(networks={0: networks[0]}))
    assert (ours == auto_masks.masks_of_image(x, maps[0], labels, -1, only)[0]).all()
    assert (ours != new).any()


@pytest.mark.usefixtures("quick")
def test_the_product_is_chosen_where_marks_outside_the_map_hide_the_spot():
    images, maps, y, truth = draw_spots(40)
    model = fitted_to(images, maps, y)
    assert model.choices == ["product"] and model.filters[0][1] == -1
    found = {c: mean_dice(images, maps, y, truth, model._replace(choices=[c]))
             for c in auto.CHOICES}
    assert found["product"] > 0.55 > 2 * max(found["contrast"], found["map"])


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("of_product, choice", [(0.4, "map"), (0.6, "product")])
def test_a_product_that_holds_little_of_what_the_map_holds_leaves_the_class_to_it(
        monkeypatch, of_product, choice):
    images, maps, y, _ = draw_spots(40)
    seen = {}

    def lost(i, masks):
        seen[i] = masks
        return np.array([[of_product], [1.0]]) * i

    monkeypatch.setattr(auto_masks, "MOST", 9)
    model = fitted_to(images, maps, y, lost)
    assert sorted(seen) == [*range(0, 40, 6)] and y[sorted(seen), 0].all()
    assert model.lost == [pytest.approx([18 * of_product, 18])] and model.choices == [choice]
    for i, (by_product, by_map) in seen.items():
        u = maps[i, 0] * contrast.evidence(contrast.logarithm(images[i]), *model.filters[0])
        assert (by_product == auto.mask_of(u, "product")[0]).all() and by_product.any()
        assert (by_map == auto.mask_of(maps[i, 0], "map")[0]).all() and (by_map != by_product).any()
    assert auto_masks.choice_rows(model, ["a"])[0][-2] == f"{18 * of_product:.2f}, 18.00"


@pytest.mark.usefixtures("quick")
def test_each_class_has_its_own_method_and_a_label_without_a_mask_leaves_the_image_out():
    images, maps, y, _ = draw_spots(40)
    maps = np.concatenate([maps, np.zeros_like(maps), maps], axis=1)
    model = fitted_to(images, maps, np.repeat(y, 3, axis=1))
    model = model._replace(choices=["product", "map", "contrast"])
    x, labels = contrast.logarithm(images[0]), np.array([True, True, False])
    masks, ignored = auto_masks.masks_of_image(x, maps[0], labels, 0, model)
    u = maps[0, 0] * contrast.evidence(x, *model.filters[0])
    assert (masks[0] == (u > 0.3 * u.max())).all() and masks[0].any()
    assert not masks[1].any() and ignored[1].all()  # a map of zeros gives no mask
    assert not masks[2].any() and not ignored[2].any()  # no label
    assert not (masks & ignored).any()
    labels = np.array([False, False, True])
    masks, ignored = auto_masks.masks_of_image(x, maps[0], labels, 0, model)
    alone, left_out = label_only.masks_of_image(x, labels, model.pixels.contrast)
    assert (masks == alone).all() and (ignored == left_out).all() and masks[2].any()


def same(a, b):
    """Whether two models are equal, arrays and None included."""
    if isinstance(a, (tuple, list)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(map(same, a.values(), b.values()))
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    return bool(np.array_equal(a, b)) if isinstance(a, np.ndarray) else a == b


@pytest.mark.usefixtures("quick")
def test_a_model_comes_back_from_its_file_as_it_was(tmp_path):
    images, maps, y, _ = draw_texture(60)
    y[:4] = True
    model = fitted_to(images, maps, y)
    plain = model.pixels.contrast
    assert plain.texture is not None and len(model.pixels.networks) == 3
    alone = model.pixels._replace(contrast=plain._replace(filters=[None, None]), networks={},
                                  choices=["contrast", "contrast"])
    for wanted in (model, model._replace(classifier=[None, 0.5]),
                   model._replace(pixels=alone, choices=["map", "contrast"])):
        for method, part in (("auto", wanted), ("pixels", wanted.pixels),
                             ("contrast", wanted.pixels.contrast)):
            fitted.write(tmp_path, ["a", "b"], part)
            json.loads((tmp_path / "model.json").read_text(), parse_constant=pytest.fail)
            assert same(fitted.read(tmp_path, method, ["a", "b"]), part)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A model.json that holds networks."""
    images, maps, y, _ = draw_texture(30)
    folder = tmp_path_factory.mktemp("model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixels, "STEPS", 5)
        fitted.write(folder, ["a", "b"], fitted_to(images, maps, y))
    return folder / "model.json"


def damaged_network(model, **changes):
    """The first network of a model.json with other parts."""
    return next(iter(model["pixels"]["networks"].values())) | changes


@pytest.mark.parametrize("damage", [
    lambda m: [], lambda m: m | {"classes": ["a"]}, lambda m: m | {"choices": ["map", "guess"]},
    lambda m: m | {"choices": "map"}, lambda m: m | {"filters": [["G1 - G7", 1]] * 2},
    lambda m: m | {"filters": [["G1 - G6", 2]] * 2}, lambda m: m | {"product": [0.5]},
    lambda m: m | {"pixels": None}, lambda m: m | {"pixels": m["pixels"] | {"alone": [0.5]}},
    lambda m: m | {"choices": ["map", "network"]} | {"pixels": m["pixels"] | {"networks": {}}},
    lambda m: m | {"pixels": m["pixels"] | {"choices": ["map", "map"]}},
    lambda m: m | {"pixels": m["pixels"] | {"networks": {"one": damaged_network(m)}}},
    lambda m: m | {"pixels": m["pixels"] | {"networks": {"0": damaged_network(m, biases=[[0]])}}},
    lambda m: m | {"pixels": m["pixels"] | {"networks": {"0": damaged_network(m, scale=[1])}}},
    lambda m: m | {"pixels": m["pixels"] | {"networks": {
        "0": damaged_network(m, scale=[None] * 38)}}},
    lambda m: m | {"contrast": None},
    lambda m: m | {"contrast": m["contrast"] | {"scores": [[[1, 2]]]}},
    lambda m: m | {"contrast": m["contrast"] | {"signs": [1]}},
    lambda m: m | {"contrast": m["contrast"] | {"otsu": [0.5, 0.5]}},
    lambda m: m | {"contrast": m["contrast"] | {"texture": [[[0] * 9] * 2, [[[0] * 9] * 9] * 2]}}])
def test_a_damaged_model_is_refused_in_one_line(written, tmp_path, damage):
    path = tmp_path / "model.json"
    path.write_text(json.dumps(damage(json.loads(written.read_text()))))
    with pytest.raises(DataError, match="model.json: .*expected"):
        fitted.read(tmp_path, "auto", ["a", "b"])


@pytest.mark.usefixtures("quick")
def test_a_class_of_all_images_or_of_none_is_left_to_the_map():
    images, maps, y, _ = draw_spots(12)
    for labels in (np.ones_like(y), np.zeros_like(y)):
        model = fitted_to(images, maps, labels)
        assert model.choices == ["map"] and model.classifier == [None]


def test_maps_at_two_sizes_are_joined():
    """The smaller input is the mean of four pixels, and its logits are those of the result."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2, 1), torch.nn.ReLU(),
                              torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
                              torch.nn.Linear(4, 2)).eval()
    options = held_out_maps.MapOptions("gradcam++", "1", aug_smooth=False, two_sizes=True)
    x = torch.randn(2, 3, 16, 12)
    maps, logits = held_out_maps.joined_maps(options, net, x, {})
    half = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    small, wanted = cam.class_maps(net, half, "1")
    large, _ = cam.class_maps(net, x, "1")
    assert torch.allclose(logits, wanted, atol=1e-6) and maps.shape == (2, 2, 8, 6)
    joined = (cam.image_maps(small, (8, 6)) * cam.normalize(large)).sqrt()
    assert torch.allclose(maps, joined, atol=1e-5)


# Through the script


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """Images whose ground tells the label, and a classifier of one epoch; no truth on the disk."""
    folder = tmp_path_factory.mktemp("ground_auto")
    truth = write_set(folder, toys.ground, 40)
    assert call("train_cls", *flags_of(folder), "--out", folder / "cls", "--folds", 2, "--epochs",
                1, "--swa", 1, *FAST) == 0
    return folder, truth


def flags_of(folder):
    return ("--images", folder / "train_images", "--labels", folder / "labels.csv")


def make(folder, out, *more):
    """make_masks.py --method auto. --labels in `more` wins over that of the set."""
    return ("make_masks", *flags_of(folder), "--cls", folder / "cls", "--out", out, "--method",
            "auto", "--target-layer", "features.5", "--no-aug-smooth", "--batch-size", 10,
            "--workers", 0, "--device", "cpu", *more)


@pytest.fixture(scope="module")
def auto_run(ground, tmp_path_factory):
    folder, _ = ground
    out = tmp_path_factory.mktemp("auto") / "masks"
    assert call(*make(folder, out)) == 0
    return out


def test_contrast_is_chosen_where_the_ground_tells_the_label(ground, auto_run):
    folder, truth = ground
    said = json.loads((auto_run / "metrics.json").read_text())
    assert [f["cell_pixels"] for f in said["masks"]] == [None, None]  # contrast has no cells
    result = said["table2"][0]
    assert [(row[0], row[-1]) for row in result["choice"]] == [("a", "contrast"), ("b", "contrast")]
    assert len(result["choice"][0]) == len(auto_masks.COLUMNS)
    assert present_dice(folder, truth, auto_run / "masks.csv") > 0.7


def test_the_masks_are_those_of_contrast_and_the_maps_are_of_twice_the_size(ground, auto_run,
                                                                            tmp_path):
    folder, _ = ground
    assert call("make_masks", *flags_of(folder), "--out", tmp_path / "out", "--method", "contrast",
                "--cls", folder / "none") == 0
    for name in ("masks.csv", "ignore.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (auto_run / name).read_bytes()
    assert read(auto_run)[3].shape == (40, 2, 4, 4)  # 1/16 of 64, twice the trained 32


def test_scores_are_all_that_a_true_mask_changes(ground, auto_run, tmp_path):
    """The same bytes of masks, ignored pixels, maps and choice, whatever the true masks are."""
    folder, truth = ground
    rng, scores = np.random.default_rng(0), []
    for name in ("true", "wrong"):
        rows = [(n, "ab"[c], rle if name == "true" else rle_encode(rng.random((64, 64)) > 0.5))
                for (n, c), rle in sorted(truth.items())]
        write_csv(tmp_path / f"{name}.csv", ("ImageId", "ClassId", "EncodedPixels"), rows)
        out = tmp_path / name
        assert call(*make(folder, out, "--labels", tmp_path / f"{name}.csv")) == 0
        for file in ("masks.csv", "ignore.csv", "maps.npy"):
            assert (out / file).read_bytes() == (auto_run / file).read_bytes()
        scores.append(json.loads((out / "metrics.json").read_text())["table2"][0])
    assert scores[0]["choice"] == scores[1]["choice"] and scores[0] != scores[1]


def test_a_resumed_run_and_reused_maps_give_the_same_bytes(ground, auto_run, tmp_path):
    folder, _ = ground
    before = contents(auto_run)
    (auto_run / "masks.csv").unlink()  # as if the run had been stopped after the maps
    assert call(*make(folder, auto_run, "--resume")) == 0
    assert call(*make(folder, auto_run, "--reuse-maps")) == 0
    after = contents(auto_run)
    assert before.keys() == after.keys()
    for name in before.keys() - {"args.json", "metrics.json"}:
        assert before[name] == after[name], name


def in_float64(net):
    """The network in float64. It takes float32 images."""
    wide = copy.deepcopy(net).double()
    wide.register_forward_pre_hook(lambda module, x: (x[0].double(),))
    return wide


def test_the_script_erases_a_product_by_the_network_that_has_not_seen_the_image(
        ground, auto_run, tmp_path, monkeypatch, capsys):
    folder, _ = ground
    monkeypatch.setattr(auto, "decide", lambda tells, classifier: "product")
    # The classifier of one epoch has logits of 66, where float32 is off by 0.05.
    monkeypatch.setattr(held_out_maps, "prepared",
                        lambda net, device, layer: in_float64(inference.prepared(
                            net.double(), device, layer)))
    shutil.copytree(auto_run, tmp_path / "run")
    assert call(*make(folder, tmp_path / "run", "--reuse-maps")) == 0
    model = json.loads((tmp_path / "run/model.json").read_text())
    fold = {r["ImageId"]: int(r["fold"]) for _, r in read_csv(folder / "cls/folds.csv")[1]}
    labels = read_labels(folder / "labels.csv", folder / "train_images")
    net = cam2seg.load(folder / "cls", "cpu")
    for c in range(2):
        filter = next(f for f in contrast.FILTERS
                      if contrast.describe(f) == model["filters"][c][0])
        lost = []
        for name, row, small in zip(labels.names, labels.y, read(tmp_path / "run")[3], strict=True):
            if not row[c]:
                continue
            I = np.asarray(Image.open(folder / "train_images" / name).convert("RGB"))
            A = cam.numpy_maps(small, I.shape[:2])[c]
            x = contrast.logarithm(np.asarray(Image.fromarray(I).convert("L")))
            u = A * contrast.evidence(x, filter, model["filters"][c][1])
            masks = auto.mask_of(u, "product")[0], auto.mask_of(A, "map")[0]
            J = np.stack([np.asarray(Image.fromarray(K).resize((32, 32), Image.Resampling.BILINEAR))
                          for K in (I, *(erasing.without(I, mask) for mask in masks))])
            mean, std = (255 * torch.tensor(net.preprocess[key]) for key in ("mean", "std"))
            J = (torch.tensor(J).float() - mean) / std
            with torch.no_grad():
                z = in_float64(net.nets[fold[name]])(J.permute(0, 3, 1, 2))[:, c].numpy()
            lost.append(z[0] - z[1:])
        assert model["lost"][c] == pytest.approx(np.mean(lost, axis=0).tolist(), rel=1e-9)
        assert model["choices"][c] == ("product" if erasing.holds(*model["lost"][c]) else "map")
    facts = json.loads((tmp_path / "run/metrics.json").read_text())["masks"]
    assert [f["cell_pixels"] for f in facts] == [  # maps of 4 x 4 cells
        64 * 64 / 16 if choice == "map" else None for choice in model["choices"]]
    assert ("pixels under a cell of the map" in capsys.readouterr().out) == (
        "map" in model["choices"])


def new(folder, out, fitted_run):
    """make_masks.py --method auto on the same images as if they were new and had no labels."""
    flags = ("make_masks", "--images", folder / "train_images", *make(folder, out)[5:])
    return (*flags, "--fitted", fitted_run) if fitted_run else flags


def test_images_without_labels_have_the_classes_that_reach_the_confidence(ground, auto_run,
                                                                          tmp_path):
    folder, _ = ground
    assert call(*new(folder, tmp_path / "new", auto_run), "--confidence", 0.5) == 0
    probs = read(tmp_path / "new")[2]
    left_out, made = (read_labels(tmp_path / "new" / f"{n}.csv") for n in ("ignore", "masks"))
    for i, name in enumerate(made.names):
        for c in range(2):
            full = rle_decode(left_out.rles.get((name, c), ""), (64, 64)).all()
            drawn = bool(made.rles.get((name, c)))
            assert (drawn or full) == (probs[i, c] >= 0.5)


def test_what_other_labels_chose_is_not_chosen_again(ground, auto_run, tmp_path, refused):
    """By --fitted, wrong labels change which classes an image has, and not how they are masked."""
    folder, _ = ground
    labels = read_labels(folder / "labels.csv", folder / "train_images")
    write_csv(tmp_path / "wrong.csv", ("ImageId", "a", "b"),
              [(n, int(i % 3 > 0), 1) for i, n in enumerate(labels.names)])
    out, wrong = tmp_path / "out", ("--labels", tmp_path / "wrong.csv")
    assert call(*make(folder, out, "--fitted", auto_run, *wrong)) == 0
    made, own = (read_labels(f / "masks.csv").rles for f in (out, auto_run))
    single = [(n, int(y.argmax())) for n, y in zip(labels.names, labels.y, strict=True)
              if y.sum() == 1]
    model = fitted.read(auto_run, "auto", labels.classes)
    assert model.pixels.contrast.texture is None  # else other labels would change the names of regions
    rows = {n: i for i, n in enumerate(labels.names)}
    same = [key for key in single if key[1] == 1 and rows[key[0]] % 3 == 0]
    assert len(same) > 3 and all(made[key] == own[key] for key in same)
    choice = [json.loads((f / "metrics.json").read_text())["table2"][0]["choice"]
              for f in (out, auto_run)]
    models = [(f / "model.json").read_bytes() for f in (out, auto_run)]
    assert choice[0] == choice[1] and models[0] == models[1]
    assert "--fitted with a run" in refused(*new(folder, tmp_path / "none", None))
    said = refused(*make(folder, tmp_path / "none", "--fitted", auto_run, "--method", "contrast"))
    assert re.search(r"model.json: a model of --method auto .* expected --method contrast", said)
    assert "--fitted is for" in refused(*make(folder, tmp_path / "none", "--fitted", auto_run,
                                              "--method", "gradcam"))


def test_auto_has_no_parameters_to_search(ground, refused, tmp_path):
    folder, _ = ground
    assert re.search("no parameters", refused(*make(folder, tmp_path / "out", "--search",
                                                    "labels")))
