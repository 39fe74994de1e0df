"""Masks by a network on filter responses: the formulas against loops, and what labels choose."""

import ast
from math import exp, log, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import call
from test_auto import blurred
from test_label_only import TRUTH, names_in, present_dice, write_set

from cam2seg.demo import toys
from cam2seg.methods import auto, contrast, pixels
from cam2seg.training import label_only, pixel_masks

# The formulas


def literal_descriptors(x):
    """[C-28] in float64, one slope and one pixel after the other: (38, h, w)."""
    H, W = x.shape
    x = x - sorted(x.ravel())[(x.size - 1) // 2]
    low = {s: blurred(x, s) for s in (0, 1, 2, 4, 8, 16, 32)}
    bands = [low[s] - low[l] for s, l in ((0, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 32))]
    out = list(bands)
    for s, S in ((0, 2), (0, 6), (1, 3), (1, 8), (2, 4), (2, 12), (4, 8), (4, 16)):
        gx, gy = np.zeros((H, W)), np.zeros((H, W))
        for i in range(H):
            for j in range(W):
                if 0 < j < W - 1:
                    gx[i, j] = (low[s][i, j + 1] - low[s][i, j - 1]) / 2
                if 0 < i < H - 1:
                    gy[i, j] = (low[s][i + 1, j] - low[s][i - 1, j]) / 2
        X, Y, XY = blurred(gx**2, S), blurred(gy**2, S), blurred(gx * gy, S)
        out += [np.log(X + 1e-5) / 2, np.log(Y + 1e-5) / 2, XY / (X + Y + 1e-5)]
    for k, S in ((0, 3), (1, 4), (2, 8), (3, 12)):
        for sign in (1, -1):
            out.append(np.log(blurred(np.maximum(sign * bands[k], 0) ** 2, S) + 1e-5) / 2)
    out = [d[::2, ::2] for d in out]
    return np.stack([d - sorted(d.ravel())[(d.size - 1) // 2] for d in out])


def test_descriptors_equal_the_loops():
    x = np.random.default_rng(0).normal(-1, 0.4, (17, 24))
    found, exact = (pixels.describe(torch.tensor(x, dtype=of)) for of in (torch.float32,
                                                                         torch.float64))
    assert found.shape == (38, 9, 12) and found.dtype == torch.float32
    np.testing.assert_allclose(exact.numpy(), literal_descriptors(x), atol=1e-9)
    np.testing.assert_allclose(found.numpy(), literal_descriptors(x), atol=2e-4)


def test_a_flat_image_has_descriptors_of_zero_and_no_mask():
    d = pixels.describe(torch.full((16, 20), -0.7))
    assert (d == 0).all()
    v = pixels.evidence(torch.zeros(2, 8, 10), (16, 20))
    assert not v.any() and not pixels.ratio(v[0]).any()


def random_network(rng, sizes=(5, 4, 3, 2)):
    weights = [torch.tensor(rng.normal(size=p)) for p in zip(sizes, sizes[1:])]
    biases = [torch.tensor(rng.normal(size=o)) for o in sizes[1:]]
    return pixels.Network(torch.tensor(rng.uniform(0.1, 2, sizes[0])), weights, biases)


def test_scores_equal_the_loops():
    rng = np.random.default_rng(1)
    network, d = random_network(rng), rng.normal(size=(6, 5)) * 5
    found = pixels.score(network, torch.tensor(d))
    for row, z in zip(d, found.tolist(), strict=True):
        a = [min(max(v / s, -8.0), 8.0) for v, s in zip(row, network.scale.tolist(), strict=True)]
        for layer in range(3):
            W, b = network.weights[layer].tolist(), network.biases[layer].tolist()
            a = [sum(a[i] * W[i][o] for i in range(len(a))) + b[o] for o in range(len(b))]
            a = [max(v, 0.0) for v in a] if layer < 2 else a
        assert z == pytest.approx(a, abs=1e-12)


def test_pooled_scores_and_loss_equal_the_loops():
    rng = np.random.default_rng(2)
    z, y = rng.normal(size=(3, 50, 2)), rng.integers(0, 2, (3, 2)).astype(float)
    total = 0.0
    for part, count in ((0.03, 1), (0.2, 10)):
        for n in range(3):
            for c in range(2):
                Z = sum(sorted(z[n, :, c])[-count:]) / count
                assert pixels.pool(torch.tensor(z), part)[n, c] == pytest.approx(Z)
                p = 1 / (1 + exp(-Z))
                total -= (y[n, c] * log(p) + (1 - y[n, c]) * log(1 - p)) / 6 / 2
    assert float(pixels.loss_of(torch.tensor(z), torch.tensor(y))) == pytest.approx(total)


def test_evidence_equals_the_formula_and_the_ratio_is_one_at_the_threshold():
    rng = np.random.default_rng(3)
    z = rng.normal(size=(2, 8, 10))
    v = pixels.evidence(torch.tensor(z, dtype=torch.float32), (16, 20))
    for c in range(2):
        low = blurred(z[c], 1)
        low = np.maximum(low - sorted(low.ravel())[39], 0)
        for i in range(16):
            for j in range(20):
                # Centres of the coarse pixels lie at 0.5, 2.5, ... of the fine ones.
                y, x = (min(max((i - 0.5) / 2, 0), 7), min(max((j - 0.5) / 2, 0), 9))
                a, b = int(y), int(x)
                e, f = min(a + 1, 7), min(b + 1, 9)
                said = ((1 - y + a) * ((1 - x + b) * low[a, b] + (x - b) * low[a, f])
                        + (y - a) * ((1 - x + b) * low[e, b] + (x - b) * low[e, f]))
                assert v[c, i, j] == pytest.approx(said, abs=1e-5)
    np.testing.assert_allclose(pixels.ratio(v[0]) * contrast.otsu(v[0]), v[0], rtol=1e-5)


def toy_descriptors(seed, count=60):
    """Descriptors (count, 200, 4) of which the sum of the first two is high in a tenth of the
    pixels of images with the class, and labels (count, 1)."""
    rng = np.random.default_rng(seed)
    d, y = rng.normal(size=(count, 200, 4)), np.arange(count) % 2 == 0
    d[y, :20, :2] += 2.5
    d[~y, :20, 0] += 2.5  # the mark of a clean image: the first alone
    return d.astype(np.float16), y[:, None]


def test_the_network_finds_the_pixels_that_tell_the_label(quick):
    d, y = toy_descriptors(0)
    before = torch.random.get_rng_state()
    network = pixels.fit(d, y)
    assert torch.equal(torch.random.get_rng_state(), before)
    again = pixels.fit(d, y)
    assert all(torch.equal(a, b) for a, b in zip(network.weights, again.weights, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(
        network.weights, pixels.fit(d, y, seed=1).weights, strict=True))
    new, label = toy_descriptors(1)
    z = pixels.score(network, torch.from_numpy(new).float())[..., 0].numpy()
    label = label[:, 0]
    defect, mark, ground = z[label, :20], z[~label, :20], z[:, 20:]
    # Two classes of one descriptor overlap: a deviation of 1 around means that are 2.5 apart.
    assert np.mean(defect.ravel()[:, None] > mark.ravel()[::7]) > 0.9
    assert np.mean(defect.ravel()[:, None] > ground.ravel()[::97]) > 0.95


# What the labels choose, and what the networks may see


def shuffled_images(count=36, clean=12, seed=0):
    """Random logarithms x of images, their labels of two classes, and folds."""
    rng = np.random.default_rng(seed)
    x = [torch.tensor(rng.normal(-1, 0.2, (16, 20)), dtype=torch.float32) for _ in range(count)]
    y = np.zeros((count, 2), bool)
    y[clean:, 0] = True
    y[clean + 4:, 1] = np.arange(count - clean - 4) % 2 == 0
    return x, y, np.arange(count) % 3


def test_a_network_never_sees_an_image_of_its_fold(monkeypatch):
    x, y, fold = shuffled_images()
    where = {float(d.abs().sum()): i for i, d in enumerate(map(pixels.describe, x))}
    monkeypatch.setattr(pixel_masks, "SAMPLES", 5)
    all_d = [pixels.describe(v).flatten(1).T.half().numpy() for v in x]
    seen, scored = {}, {}

    def rows_of(d):
        return [next(i for i, a in enumerate(all_d) if (a == one[0]).all(axis=1).any())
                for one in d]

    def fit(d, labels, seed):
        seen[seed] = set(rows_of(d))
        assert (labels == y[rows_of(d)]).all()
        return seed

    def score(network, d):
        scored[network] = set(rows_of(d.half().numpy()))
        return torch.zeros(*d.shape[:-1], 2)

    monkeypatch.setattr(pixels, "fit", fit)
    monkeypatch.setattr(pixels, "score", score)
    pixel_masks.fit(x.__getitem__, y, fold)
    assert len(where) == 36
    assert seen == {k: set(np.flatnonzero(fold != k).tolist()) for k in range(3)}
    assert scored == {k: set(np.flatnonzero(fold == k).tolist()) for k in range(3)}


def test_all_images_together_give_a_bounded_number_of_pixels(monkeypatch):
    x, y, fold = shuffled_images()
    monkeypatch.setattr(pixel_masks, "ALL_SAMPLES", 36 * 7 + 5)
    seen = []

    def fit(d, labels, seed):
        seen.append(d.shape)
        return random_network(np.random.default_rng(seed), (38, 3, 3, 2))

    monkeypatch.setattr(pixels, "fit", fit)
    pixel_masks.fit(x.__getitem__, y, fold)
    assert seen == [(24, 7, 38)] * 3


def test_images_of_one_fold_train_no_network():
    x, y, fold = shuffled_images()
    model = pixel_masks.fit(x.__getitem__, y, fold * 0)
    assert not model.networks and model.choices == ["contrast", "contrast"]


def test_the_method_that_tells_more_is_chosen(monkeypatch):
    x, y, fold = shuffled_images()

    def score(network, d):  # one class is told without an error, the other not at all
        told = y[fold == network, 0] if d.ndim == 3 else np.zeros(1)
        z = torch.zeros(*d.shape[:-1], 2)
        z[..., 0] += torch.tensor(told, dtype=torch.float32).reshape(-1, *[1] * (d.ndim - 2))
        return z

    monkeypatch.setattr(pixels, "fit", lambda d, labels, seed: seed)
    monkeypatch.setattr(pixels, "score", score)
    model = pixel_masks.fit(x.__getitem__, y, fold)
    n, m = y[:, 0].sum(), 12
    assert model.network[0] == pytest.approx(1 - sqrt((n + m + 1) / (12 * n * m)))
    assert model.choices[0] == "network"
    skew = np.stack([contrast.skewness(v) for v in x])
    for c in range(2):
        told = 0.0
        if model.contrast.filters[c] is not None:
            f = contrast.FILTERS.index(model.contrast.filters[c])
            own = model.contrast.signs[c] * skew[:, f]
            told = float(auto.tell(own[y[:, c]], own[:12]))
        assert model.alone[c] == pytest.approx(told)
        assert model.choices[c] == ("network" if model.network[c] >= told else "contrast")


def test_masks_of_an_image_are_those_of_the_formulas():
    rng = np.random.default_rng(5)
    x = torch.tensor(rng.normal(-1, 0.3, (16, 20)), dtype=torch.float32)
    network = pixels.Network(*(torch.ones(38), *([w.float() for w in part] for part in
                               random_network(rng, (38, 4, 4, 2))[1:])))
    plain = label_only.ContrastModel([contrast.FILTERS[3], contrast.FILTERS[7]], [1, -1], None,
                                     [np.array([]), np.array([])], None)
    model = pixel_masks.PixelModel(plain, {2: network}, [0, 0], [1, 1], ["contrast", "network"])
    masks, doubt = pixel_masks.masks_of_image(x, np.array([True, True]), 2, model)
    v = contrast.evidence(x, contrast.FILTERS[3], 1)
    d = pixels.describe(x)
    z = pixels.score(network, d.permute(1, 2, 0)).permute(2, 0, 1)
    w = pixels.evidence(z, (16, 20))[1]
    u = np.stack([v / contrast.otsu(v), w / contrast.otsu(w)])
    expected = contrast.masks_of(u, np.array([True, True]))
    assert (masks == expected[0]).all() and (doubt == expected[1]).all() and masks.any()


# Through the script


def make(folder, out, method, *flags):
    assert call("make_masks", "--images", folder / "train_images", "--labels",
                folder / "labels.csv", "--cls", folder / "none", "--out", out, "--method",
                method, *flags) == 0
    return out / "masks.csv"


def test_without_clean_images_the_masks_are_those_of_contrast(tmp_path):
    write_set(tmp_path / "set", toys.ground, 24)
    made = [make(tmp_path / "set", tmp_path / method, method).parent
            for method in ("contrast", "pixels")]
    for file in ("masks.csv", "ignore.csv", "folds.csv"):
        assert (made[0] / file).read_bytes() == (made[1] / file).read_bytes()


def test_the_network_finds_a_texture_that_contrast_misses(tmp_path, quick, capsys):
    folder = tmp_path / "set"
    truth = write_set(folder, toys.texture, 90)
    assert not any("EncodedPixels" in p.read_text() for p in folder.glob("*.csv"))
    scores = [present_dice(folder, truth, make(folder, tmp_path / m, m))
              for m in ("contrast", "pixels")]
    assert "network tells" in capsys.readouterr().out
    assert scores[1] > 0.5 and scores[1] > scores[0] + 0.2


def test_what_other_labels_taught_the_networks_is_not_learned_again(tmp_path, quick, monkeypatch):
    first, second = tmp_path / "first", tmp_path / "second"
    write_set(first, toys.texture, 60)
    truth = write_set(second, toys.texture, 30)
    make(first, tmp_path / "a", "pixels")
    monkeypatch.setattr(pixels, "fit", None)
    made = make(second, tmp_path / "b", "pixels", "--fitted", tmp_path / "a")
    assert present_dice(second, truth, made) > 0.5


@pytest.mark.parametrize("module", [pixels, pixel_masks], ids=lambda m: m.__name__)
def test_the_code_that_draws_masks_does_not_name_a_true_mask(module):
    assert not TRUTH & set(names_in(ast.parse(Path(module.__file__).read_text())))
