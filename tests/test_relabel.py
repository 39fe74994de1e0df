"""Masks that the U-Nets of a run draw of other images: make_masks.py --method seg."""

import json
import math
import shutil
from statistics import median

import numpy as np
import pytest
from conftest import call, write_images
from PIL import Image

from cam2seg import masks, metrics
from cam2seg.data.csv_files import read_csv
from cam2seg.data.folds import read_folds
from cam2seg.data.labels import read_masks
from cam2seg.methods import relabel
from cam2seg.training import predictor, seg_masks
from cam2seg.training.work import label_auc


def literal_entropy(p):
    return -sum(q * math.log2(q) for q in (p, 1 - p) if q > 0)


def test_entropy_is_that_of_a_coin():
    assert relabel.entropy(np.array([0.0, 1.0, 0.5])).tolist() == [0, 0, 1]
    p = np.random.default_rng(0).random(50)
    np.testing.assert_allclose(relabel.entropy(p), [literal_entropy(q) for q in p], rtol=1e-12)


@pytest.mark.parametrize("select", ["entropy", "confidence"])
@pytest.mark.parametrize("sharp", [0.3, 8])  # with and without the fixed limit
def test_masks_and_limits_are_those_of_a_loop_over_pixels(select, sharp):
    rng = np.random.default_rng(1)
    p = [1 / (1 + np.exp(-sharp * rng.normal(size=(6, 7)))) for _ in range(4)]
    pixels = [float(q) for a in p for q in a.ravel()]
    expected = []
    for side in ([q for q in pixels if q <= 0.5], [q for q in pixels if q > 0.5]):
        if select == "entropy":
            expected.append(max(median(map(literal_entropy, side)), 0.1))
        else:
            expected.append(min(median(max(q, 1 - q) for q in side), 0.9))
    limit = relabel.limits(p, select)
    np.testing.assert_allclose(limit, expected, rtol=1e-12)
    mask, ignored = relabel.mask_of(p[0], limit, select)
    for (i, j), q in np.ndenumerate(p[0]):
        nu = expected[int(q > 0.5)]
        sure = literal_entropy(q) <= nu if select == "entropy" else max(q, 1 - q) >= nu
        assert (mask[i, j], ignored[i, j]) == (sure and q > 0.5, not sure)
    assert mask.any() and ignored.any()


def test_each_side_has_its_own_limit():
    p = np.array([[0.1, 0.9]])  # an entropy of 0.469 each
    mask, ignored = relabel.mask_of(p, (0.2, 0.9), "entropy")
    assert mask.tolist() == [[False, True]] and ignored.tolist() == [[True, False]]


def test_all_takes_every_pixel_and_an_empty_side_has_the_fixed_limit():
    p = np.array([[0.1, 0.51], [0.5, 0.9]])
    mask, ignored = relabel.mask_of(p, relabel.limits([p], "all"), "all")
    assert mask.tolist() == [[False, True], [False, True]] and not ignored.any()
    assert relabel.limits([np.zeros((2, 2))], "entropy") == (0.1, 0.1)
    assert relabel.limits([], "confidence") == (0.9, 0.9)
    with pytest.raises(ValueError, match="select 'most', expected entropy, confidence or all"):
        relabel.limits([p], "most")


def test_the_run_that_tells_the_labels_best_is_chosen():
    assert seg_masks.choose_run([[0.8, 0.9], [0.9, 0.9], [None, 0.9]]) == 1
    assert seg_masks.choose_run([[0.8, None], [0.8, None]]) == 0
    assert seg_masks.choose_run([[None], [0.1]]) == 1


def literal_shares(p, y):
    """[C-37] at one pixel: p floats of C classes, y their labels."""
    parts = [max(1 - sum(p), 0)] + [a if has else 0.0 for a, has in zip(p, y)]
    return [a / sum(parts) for a in parts]


def softmax_images(rng, n):
    """p (3, 5, 6) of n images, and labels y (3,) of which at least one is True."""
    e = np.exp(2 * rng.normal(size=(n, 4, 5, 6)))
    y = rng.random((n, 3)) < 0.6
    y[:, 0] |= ~y.any(axis=1)
    return (e / e.sum(axis=1, keepdims=True))[:, 1:], y


@pytest.mark.parametrize("select", ["entropy", "confidence"])
@pytest.mark.parametrize("sharp", [1, 60])  # with and without the fixed limit
def test_shares_limits_and_masks_of_a_softmax_are_those_of_loops(select, sharp):
    p, y = softmax_images(np.random.default_rng(2), 9)
    q = [relabel.shares(a, labels) for a, labels in zip(p, y)]
    for a, labels, found in zip(p, y, q):
        for i, j in np.ndindex(5, 6):
            np.testing.assert_allclose(found[:, i, j], literal_shares(a[:, i, j], labels),
                                       rtol=1e-12)
    q = [a**sharp / (a**sharp).sum(axis=0) for a in q]

    def value(pixel):
        if select == "confidence":
            return max(pixel)
        return -sum(a * math.log(a) for a in pixel if a > 0) / math.log(4)

    pixels = [list(a[:, i, j]) for a in q for i, j in np.ndindex(5, 6)]
    expected = []
    for k in range(4):
        of_k = [value(x) for x in pixels if x.index(max(x)) == k]
        expected.append(max(median(of_k), 0.1) if select == "entropy" else min(median(of_k), 0.9))
    limit = relabel.limits_of_shares(q, select)
    np.testing.assert_allclose(limit, expected, rtol=1e-9)
    mask, unsure = relabel.masks_of_shares(q[0], limit, select)
    for i, j in np.ndindex(5, 6):
        x = list(q[0][:, i, j])
        k = x.index(max(x))
        # the median itself is a pixel: it must not depend on the last bit
        sure = (value(x) <= limit[k] if select == "entropy" else value(x) >= limit[k]) or \
            abs(value(x) - limit[k]) < 1e-12
        assert mask[:, i, j].tolist() == [sure and k == c + 1 for c in range(3)]
        assert unsure[i, j] == (not sure)
    assert mask.any() and (unsure.any() or sharp > 1)


def test_shares_by_hand():
    p = np.array([0.25, 0.5, 0.0]).reshape(3, 1, 1)
    only_first = relabel.shares(p, np.array([True, False, False]))
    assert only_first.ravel().tolist() == [0.5, 0.5, 0, 0]  # 1/4 and 1/4
    certain = np.array([0.0, 1.0, 0.0]).reshape(3, 1, 1)  # of a class that the image has not
    assert relabel.shares(certain, np.array([True, False, False])).ravel().tolist() == [1, 0, 0, 0]
    assert relabel.entropy_of_shares(np.full((4, 1), 0.25)).tolist() == [1.0]
    assert relabel.entropy_of_shares(np.array([[1.0], [0.0]])).tolist() == [0.0]
    assert relabel.limits_of_shares([np.zeros((4, 0))], "entropy") == [0.1] * 4
    assert relabel.limits_of_shares([np.zeros((4, 0))], "confidence") == [0.9] * 4
    mask, unsure = relabel.masks_of_shares(only_first + [[[0]], [[0.1]], [[0]], [[0]]],
                                           relabel.limits_of_shares([only_first], "all"), "all")
    assert mask.ravel().tolist() == [True, False, False] and not unsure.any()
    with pytest.raises(ValueError, match="select 'most', expected entropy, confidence or all"):
        relabel.limits_of_shares([only_first], "most")


@pytest.fixture
def by_number(shapes, tmp_path):
    """The labels alone, with the names that the classes of train.csv have."""
    path = tmp_path / "by_number.csv"
    path.write_text((shapes / "labels.csv").read_text().replace("disc,bar", "1,2"))
    return path


def test_a_unet_labels_the_images_that_it_has_not_seen(shapes, runs, by_number, tmp_path, capsys):
    out = tmp_path / "round2"
    assert call("make_masks", "--images", shapes / "train_images", "--labels", by_number,
                "--method", "seg", "--seg", runs / "seg", "--out", out) == 0
    assert "ROC-AUC [C-27]" in capsys.readouterr().out
    made = read_masks(out / "masks.csv", shapes / "train_images", ["1", "2"])
    ignored = read_masks(out / "ignore.csv", shapes / "train_images", ["1", "2"])
    assert (out / "folds.csv").read_text() == (runs / "seg/folds.csv").read_text()
    held_out = read_masks(runs / "seg/oof_masks.csv", shapes / "train_images", ["1", "2"])
    truth = read_masks(shapes / "train.csv", shapes / "train_images", ["1", "2"])
    agree = []
    for i, name in enumerate(truth.names):
        for c in range(2):
            get = {k: masks.rle_decode(m.rles.get((name, c), ""), (64, 64)) for k, m in
                   (("new", made), ("left", ignored), ("old", held_out), ("true", truth))}
            has = (i % 2, i % 4 > 1)[c]
            assert get["new"].any() <= bool(has) and get["left"].any() <= bool(has)
            assert not (get["new"] & get["left"]).any()
            assert (get["new"] <= get["old"]).all()  # the U-Net's own threshold is 0.2
            if has and get["new"].any():
                agree.append(metrics.dice(get["new"], get["true"]))
    assert len(agree) > 30 and np.mean(agree) > 0.6


def test_what_is_said_of_the_masks_is_of_the_images_of_the_trained_folds(shapes, runs, by_number,
                                                                        tmp_path, capsys):
    """After train_seg.py --fold 0 the other images have no mask, because none was made."""
    seg = tmp_path / "seg"
    shutil.copytree(runs / "seg", seg, ignore=shutil.ignore_patterns("fold1"))
    assert call("make_masks", "--images", shapes / "train_images", "--labels", by_number,
                "--method", "seg", "--seg", seg, "--out", tmp_path / "m", "--review", 5) == 0
    y = {row.split(",")[0]: row.strip().split(",")[1:] for row in by_number.open()}
    rows = [row.strip().split(",") for row in (seg / "folds.csv").open()]
    held_out = [name for name, fold in rows[1:] if fold == "0"]
    facts = json.loads((tmp_path / "m/metrics.json").read_text())["masks"]
    assert [f["labelled"] for f in facts] == [
        sum(y[name][c] == "1" for name in held_out) for c in range(2)]
    shown = [row.split(",")[0] for row in (tmp_path / "m/review.csv").open()][1:]
    assert shown and set(shown) <= set(held_out)
    assert f"of {len(held_out)} images" in capsys.readouterr().out


def test_of_several_runs_the_one_that_is_taken_is_named(shapes, runs, by_number, tmp_path, capsys):
    flags = ("--method", "seg", "--seg", runs / "seg", runs / "seg", "--select", "all")
    assert call("make_masks", "--images", shapes / "train_images", "--labels", by_number, *flags,
                "--out", tmp_path / "a") == 0
    assert f"the masks come from {runs}/seg" in capsys.readouterr().out
    names = sorted(p.name for p in (shapes / "train_images").iterdir())
    y = np.array([(i % 2, i % 4 > 1) for i in range(len(names))])
    auc = label_auc(runs / "seg/oof.csv", names, y, ["1", "2"])
    assert min(auc) > 0.9


@pytest.mark.parametrize("select", ["entropy", "confidence"])
def test_new_images_without_labels_are_labelled_by_all_networks_and_trained_on(
        shapes, runs, tmp_path, select, capsys):
    folder, out = tmp_path / "new/train_images", tmp_path / "m"
    rles = {(f"new{n}", c): rle for (n, c), rle in
            write_images(tmp_path / "new", 13, seed=1).items()}
    for path in list(folder.iterdir()):
        path.rename(folder / f"new{path.name}")
    turned = Image.open(shapes / "train_images/003.png").transpose(Image.Transpose.ROTATE_90)
    turned.save(folder / "turned.png")
    for name in ("003.png", "004.png"):  # images of the run, which have their folds
        shutil.copy(shapes / "train_images" / name, folder / name)
    assert call("make_masks", "--images", folder, "--method", "seg", "--seg", runs / "seg",
                "--select", select, "--out", out) == 0
    train = capsys.readouterr().out.rpartition("next: python ")[2].split()
    made, ignored = (read_masks(out / name, folder, ["1", "2"]).rles
                     for name in ("masks.csv", "ignore.csv"))
    fold, known = read_folds(out / "folds.csv"), read_folds(runs / "seg/folds.csv")
    names, predict = sorted(p.name for p in folder.iterdir()), predictor.load(runs / "seg")
    assert fold["003.png"] == fold["turned.png"] == known["003.png"] and set(fold) == set(names)
    assert set(fold.values()) == {0, 1}
    p = {n: predict(folder / n, fold=known.get(n)).probabilities for n in names}
    limit = [relabel.limits([p[n][c, ::4, ::4] for n in names], select) for c in range(2)]
    dices = []
    for n in names:
        for c in range(2):
            mask, unsure = relabel.mask_of(p[n][c], limit[c], select)
            got = [masks.rle_decode(r.get((n, c), ""), (64, 64)) for r in (made, ignored)]
            assert (got[0] == mask).all() and (got[1] == unsure).all()
            if (n, c) in rles:
                dices.append(metrics.dice(got[0], masks.rle_decode(rles[n, c], (64, 64))))
    assert np.mean(dices) > 0.5
    assert train[:1] == ["train_seg.py"]
    assert call("train_seg", *train[1:], "--out", tmp_path / "second", "--epochs", 1) == 0


def test_seg_without_labels_and_a_run_of_other_classes_are_refused(shapes, runs, by_number,
                                                                     tmp_path, refused):
    line = refused("make_masks", "--images", shapes / "train_images", "--method", "seg", "--seg",
                   runs / "seg", runs / "seg", "--out", tmp_path / "m")
    assert line == "--seg with several runs needs --labels, which choose one of them [C-27]"
    line = refused("make_masks", "--images", shapes / "train_images", "--labels",
                   shapes / "labels.csv", "--method", "seg", "--seg", runs / "seg", "--out",
                   tmp_path / "m")
    assert "labels.csv, row 3: class 'disc', expected one of 1, 2" in line
    line = refused("make_masks", "--images", shapes / "train_images", "--labels", by_number,
                   "--method", "seg", "--seg", tmp_path / "none", "--out", tmp_path / "m")
    assert str(tmp_path / "none") in line


def test_a_run_with_exclusive_classes_labels_images_by_its_softmax(shapes, runs, by_number,
                                                                   tmp_path):
    seg, out = tmp_path / "exclusive", tmp_path / "round2"
    assert call("train_seg", "--data", shapes, "--masks", shapes / "train.csv", "--folds",
                runs / "cls/folds.csv", "--target", "multiclass", "--weights", "none", "--size",
                32, 32, "--epochs", 2, "--lr-encoder", 3e-3, "--lr-decoder", 3e-3,
                "--batch-size", 8, "--workers", 0, "--out", seg) == 0
    assert call("make_masks", "--images", shapes / "train_images", "--labels", by_number,
                "--method", "seg", "--seg", seg, "--out", out, "--workers", 0) == 0
    made, ignored = (read_masks(out / name, shapes / "train_images", ["1", "2"]).rles
                     for name in ("masks.csv", "ignore.csv"))
    assert made
    predict = predictor.load(seg)
    fold = {r["ImageId"]: int(r["fold"]) for _, r in read_csv(seg / "folds.csv")[1]}
    names = sorted(fold)
    y = np.array([(i % 2, i % 4 > 1) for i in range(len(names))], bool)
    q = [relabel.shares(predict(shapes / "train_images" / n, fold=fold[n]).probabilities, has)
         for n, has in zip(names, y)]
    limit = relabel.limits_of_shares([a[:, ::4, ::4] for a, has in zip(q, y) if has.any()],
                                     "entropy")
    for name, has, a in zip(names, y, q):
        mask, unsure = relabel.masks_of_shares(a, limit, "entropy")
        for c in range(2):
            got = [masks.rle_decode(r.get((name, c), ""), (64, 64)) for r in (made, ignored)]
            assert (got[0] == mask[c]).all()
            assert (got[1] == has[c] * (unsure | (not mask[c].any()))).all()
