"""Probabilities that train_seg.py --keep-maps leaves, and the threshold and the least component
that true masks choose together from them."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import SMALL, call, interrupted, results
from PIL import Image
from test_clouds import SIZE, drawn_into, ragged, work_of
from test_sizes_and_flags import bilinear

import cam2seg
from cam2seg import masks, metrics
from cam2seg.data import stored_maps
from cam2seg.data.csv_files import read_probs, write_csv
from cam2seg.data.dataset import resize_mask
from cam2seg.data.labels import read_masks
from cam2seg.demo import clouds
from cam2seg.methods import hulls
from cam2seg.runs.progress import silent
from cam2seg.training import finished_masks, kept_maps, mask_processing

HALF = 16, 24  # the size of the network's input
FULL = {}  # what `full` has returned, because its loops are slow


def field(rng, mask, least):
    """Probabilities at half the size: `least` and noise, and more in a ragged mask."""
    p = ragged(rng, mask).reshape(HALF[0], 2, HALF[1], 2).mean(axis=(1, 3))
    return np.clip(least + 0.6 * p + 0.15 * rng.standard_normal(HALF), 0, 1).astype(np.float16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve clouds with the maps of three folds, as --keep-maps leaves them, and four new ones."""
    out, rng = tmp_path_factory.mktemp("kept") / "data", np.random.default_rng(0)
    for kind, truth in drawn_into(out):
        names = list(truth)
        fields = {name: np.stack([field(rng, m, 0.05 + 0.1 * c) for c, m in enumerate(true)])
                  for name, true in truth.items()}
        for k in range(3) if kind == "train" else [-1]:
            own = names[k::3] if kind == "train" else names
            where = out / (f"fold{k}" if kind == "train" else "new")
            kept = kept_maps.KeptMaps(where, own, clouds.PATTERNS)
            for name in own:
                kept.add(name, fields[name], fields[name].max(axis=(1, 2)))
            kept.finish(k, dict.fromkeys(own, SIZE))
        write_csv(out / ("oof_masks.csv" if kind == "train" else "new_masks.csv"),
                  ("ImageId", "ClassId", "EncodedPixels"),
                  [(n, k, masks.rle_encode(full(fields[n][c], SIZE) >= np.float32(0.5)))
                   for n in names for c, k in enumerate(clouds.PATTERNS)])
        np.save(out / f"{kind}.npy", np.stack([fields[n] for n in names]))
    (out / "train_masks.csv").write_bytes((out / "oof_masks.csv").read_bytes())
    return out


def full(small, size):
    key = small.tobytes(), size
    if key not in FULL:
        FULL[key] = bilinear(small.astype(np.float64), size).astype(np.float32)
    return FULL[key]


# Reading


def test_probabilities_are_interpolated_to_the_size_asked_for(folder):
    names = [f"train{i:05d}.jpg" for i in range(12)]
    classes = ["Sugar", "Other", "Fish"]  # another order, and one without a map
    of_image = kept_maps.probabilities(folder / "oof_masks.csv", classes, names)
    new = kept_maps.probabilities(folder / "new_masks.csv", classes, ["test00003.jpg"])
    for function, name, i, kind in ((of_image, names[7], 7, "train"),
                                    (new, "test00003.jpg", 3, "test")):
        for size in (SIZE, (20, 30), (7, 50)):
            p = function(name, size)
            assert p.shape == (3, *size) and p.dtype == np.float32 and not p[1].any()
            small = np.load(folder / f"{kind}.npy")[i]
            assert np.abs(p[0] - full(small[3], size)).max() < 1e-6
            assert np.abs(p[2] - full(small[0], size)).max() < 1e-6
    assert not of_image("elsewhere.jpg", SIZE).any()


def test_what_has_no_maps_is_refused(folder, tmp_path, refused):
    (tmp_path / "oof_masks.csv").write_bytes((folder / "oof_masks.csv").read_bytes())
    flags = "--data", folder, "--folds", folder / "folds.csv", "--out", tmp_path / "out"
    assert "no probabilities beside it, expected the maps that train_seg.py --keep-maps" in refused(
        "evaluate", *flags, "--threshold", 0.3, f"u={tmp_path}/oof_masks.csv")
    assert "3 numbers, expected one or 4" in refused(
        "evaluate", *flags, "--threshold", "0.3,0.4,0.5", f"u={folder}/oof_masks.csv")
    assert "--threshold search: expected labels, and --folds" in refused(
        "evaluate", *flags[:2], *flags[4:], "--threshold", "search", f"u={folder}/oof_masks.csv")
    (tmp_path / "fold1").symlink_to(folder / "fold1")
    assert "no probabilities for 8 of its images, the first is train00000.jpg" in refused(
        "evaluate", *flags, "--threshold", 0.3, f"u={tmp_path}/oof_masks.csv")


# The joint search


@pytest.mark.parametrize("hull", [False, True])
def test_threshold_and_least_size_are_the_best_pair_on_the_other_folds(folder, hull):
    """Every pair is tried by drawing, processing and scoring all masks, one at a time."""
    work, given = work_of(folder)
    thresholds, least = (0.2, 0.35, 0.5, 0.65), (0, 8, 40, 120)
    of_image = kept_maps.probabilities(folder / "oof_masks.csv", clouds.PATTERNS, given.names)
    by_fold, on_all = finished_masks.search(work, finished_masks.Drawn(given.rles, of_image),
                                            [(thresholds, least)] * 4, hull, silent)
    small = np.load(folder / "train.npy")

    def best(rows, c):
        scores = {}
        for t in thresholds:
            for n in least:
                dice = []
                for i in rows:
                    true = masks.rle_decode(
                        work.truth.rles.get((work.truth.names[i], c), ""), SIZE)
                    made = hulls.clean(full(small[i, c], SIZE) >= np.float32(t), n, hull)
                    both = int((true & made).sum())
                    total = int(true.sum() + made.sum())
                    dice.append(2 * both / total if total else 1.0)
                scores[t, n] = round(math.fsum(dice) / len(dice), 12)
        return max(scores, key=lambda pair: (scores[pair], -pair[0], -pair[1]))

    for c in range(4):
        assert on_all[c] == best(range(12), c)
        for k in range(3):
            assert by_fold[k][c] == best([i for i in range(12) if i % 3 != k], c)
    assert len({*on_all, *(pair for pairs in by_fold.values() for pair in pairs)}) > 1


def test_each_fold_and_class_gets_its_own_pair(folder):
    work, given = work_of(folder)
    of_image = kept_maps.probabilities(folder / "oof_masks.csv", clouds.PATTERNS, given.names)
    chosen = {k: [(0.3 + 0.1 * k + 0.05 * c, 10 * k + c) for c in range(4)] for k in range(3)}
    drawn = finished_masks.Drawn(given.rles, of_image)
    got = finished_masks.finish(work, drawn, chosen, True, silent)
    small = np.load(folder / "train.npy")
    for i, name in enumerate(work.truth.names):
        for c, (t, n) in enumerate(chosen[i % 3]):
            made = hulls.clean(full(small[i, c], SIZE) >= np.float32(t), n, True)
            assert got.get((name, c), "") == masks.rle_encode(made)


# evaluate.py


def test_the_table_before_and_after_the_joint_search(folder, tmp_path, capsys):
    flags = ["--data", folder, "--folds", folder / "folds.csv", "--threshold", "search",
             "--least-component", "search", "--hull", "--figures", 1, f"u={folder}/oof_masks.csv"]
    assert call("evaluate", *flags, "--out", tmp_path / "eval") == 0
    said = capsys.readouterr().out
    found = json.loads((tmp_path / "eval/metrics.json").read_text())
    score = {t: m["scores"]["dice_pairs"][1] for t, m in found["masks"].items()}
    assert [*score][2:] == ["u", "u, threshold", "u, components", "u, hulls"]
    assert score["u"] < score["u, components"] < score["u, hulls"]
    assert set(found["threshold"]) == {"u, threshold", "u, components", "u, hulls"}
    assert set(found["least"]) == {"u, components", "u, hulls"}
    assert "Thresholds, chosen by true masks" in said and "Least sizes of a component" in said
    of_folds = found["masks"]["u, hulls"]["folds"]["dice_pairs"]
    values = list(of_folds["folds"].values())
    assert of_folds["mean"] == pytest.approx(np.mean(values))
    assert of_folds["sd"] == pytest.approx(np.std(values, ddof=1)) and "sd" in said
    small = np.load(folder / "train.npy")
    written = read_masks(tmp_path / "eval/processed_1.csv", folder / "train_images",
                         clouds.PATTERNS)
    for i in range(12):
        for c in range(4):
            t, n = (found[key]["u, hulls"][str(i % 3)][c] for key in ("threshold", "least"))
            made = hulls.clean(full(small[i, c], SIZE) >= np.float32(t), n, True)
            assert written.rles.get((f"train{i:05d}.jpg", c), "") == masks.rle_encode(made)
    assert Image.open(tmp_path / "eval/classes.png").width == 6 * 206 + 6
    assert Image.open(tmp_path / "eval/class_1.png").width == 7 * 206 + 6  # and the heat of u


def test_scores_at_another_size_are_those_of_reduced_masks(folder, tmp_path, capsys):
    """True and given masks are reduced, and the probabilities are drawn at that size."""
    flags = ["--data", folder, "--folds", folder / "folds.csv", "--output-size", *HALF,
             "--least-component", 12, f"u={folder}/oof_masks.csv"]
    assert call("evaluate", *flags, "--out", tmp_path / "a") == 0
    assert "are scored at 16 x 24 pixels" in capsys.readouterr().out
    assert call("evaluate", *flags, "--threshold", 0.4, "--figures", 0, "--out",
                tmp_path / "b") == 0
    found, drawn = (json.loads((tmp_path / f"{n}/metrics.json").read_text())["masks"]
                    for n in "ab")
    work, given = work_of(folder)
    dice = {"u": [], "u, components": [], "u, threshold": []}
    small = np.load(folder / "train.npy")
    for i, name in enumerate(work.truth.names):
        for c in range(4):
            true, made = (resize_mask(masks.rle_decode(r.get((name, c), ""), SIZE), HALF, 0.5)
                          for r in (work.truth.rles, given.rles))
            dice["u"].append(metrics.dice(true, made))
            dice["u, components"].append(metrics.dice(true, hulls.clean(made, 12)))
            dice["u, threshold"].append(metrics.dice(true, small[i, c].astype(np.float32) >= 0.4))
    for title, values in dice.items():
        where = drawn if title == "u, threshold" else found
        assert where[title]["scores"]["dice_pairs"][1] == pytest.approx(np.mean(values))
    assert Image.open(tmp_path / "a/classes.png").width == 4 * 206 + 6


def test_a_submission_from_the_probabilities_of_new_images(folder, tmp_path):
    assert call("evaluate", "--images", folder / "test_images", "--threshold", "0.3,0.4,0.5,0.6",
                "--least-component", "5,10,15,20", "--hull", "--output-size", *HALF, "--sample",
                folder / "sample_submission.csv", "--out", tmp_path / "s",
                f"u={folder}/new_masks.csv") == 0
    small, count = np.load(folder / "test.npy"), 0
    written = read_masks(tmp_path / "s/processed_1.csv", folder / "test_images", clouds.PATTERNS)
    for i in range(4):
        for c in range(4):
            t, n = (0.3, 0.4, 0.5, 0.6)[c], (5, 10, 15, 20)[c]
            made = hulls.clean(small[i, c].astype(np.float32) >= np.float32(t), n, True)
            assert written.rles.get((f"test{i:05d}.jpg", c), "") == masks.rle_encode(made)
            count += made.any()
    assert count > 4


def test_the_steps_and_their_names():
    def steps(**flags):
        given = {"threshold": None, "least_component": None, "hull": False} | flags
        return mask_processing.steps(SimpleNamespace(**given), 2)

    assert steps() == []
    assert [s.name for s in steps(threshold="search", least_component=[4], hull=True)] == [
        "threshold", "components", "hulls"]
    only, = steps(hull=True)
    assert only == ("hulls", None, [0, 0], True)
    first, last = steps(threshold=[0.5], hull=True)
    assert first == ("threshold", [0.5, 0.5], [0, 0], False)
    assert last == ("hulls", [0.5, 0.5], [0, 0], True)


# train_seg.py


def test_kept_maps_are_the_probabilities_of_the_run(shapes, tmp_path):
    """Of the network that has not seen the image, and of the mean for new images; a class that the
    gate refuses has none. A stopped run goes on to the same bytes."""
    names = [f"{n:03d}.png" for n in range(48)]
    write_csv(tmp_path / "folds.csv", ("ImageId", "fold"),
              [(n, i % 2) for i, n in enumerate(names)])
    write_csv(tmp_path / "gate.csv", ("ImageId", "1", "2"),
              [(n, 0.9, 0.9 if i > 5 else 0.1) for i, n in enumerate(names)])
    new = tmp_path / "new_images"
    new.mkdir()
    for n in names[:3]:
        Image.open(shapes / "train_images" / n).resize((90, 70)).save(new / n)
    flags = ("--data", shapes, *SMALL, "--epochs", 2, "--masks", shapes / "train.csv", "--folds",
             tmp_path / "folds.csv", "--gate", tmp_path / "gate.csv", "--keep-maps", "--predict",
             new)
    out, part = tmp_path / "whole", tmp_path / "part"
    assert call("train_seg", *flags, "--out", out) == 0
    with interrupted(stored_maps.MapStore, "add", 9):
        assert call("train_seg", *flags, "--out", part) == 130
    assert (part / "fold0/maps.npy.tmp").exists() and not (part / "fold0/oof_masks.csv").exists()
    assert call("train_seg", *flags, "--out", part, "--resume") == 0
    assert results(part) == results(out) and "fold1/maps.npy" in results(out)

    predict = cam2seg.load(out, device="cpu")
    for where, k in (("fold0", 0), ("fold1", 1), ("new", None)):
        kept, classes, peaks, maps = stored_maps.read(out / where)
        assert kept == (names[:3] if k is None else names[k::2]) and classes == ["1", "2"]
        assert maps.shape[2:] == (64, 64)
        for i in range(0, len(kept), 5):
            image = (new if k is None else shapes / "train_images") / kept[i]
            p = predict(image, fold=k).probabilities
            got = kept_maps.probabilities(
                out / ("new_masks.csv" if k is None else "oof_masks.csv"), classes, [])(
                    kept[i], p.shape[1:])
            refused_class = k is not None and kept[i] in names[:6]
            assert np.abs(got[0] - p[0]).max() < 2e-3
            assert not got[1].any() if refused_class else np.abs(got[1] - p[1]).max() < 2e-3
            assert np.abs(peaks[i] - p.max(axis=(1, 2))).max() < 1e-5
    assert read_probs(out / "fold0/maps.csv", ["p of 1", "p of 2"])["000.png"] == pytest.approx(
        read_probs(out / "fold0/oof.csv", ["1", "2"])["000.png"])
    assert call("train_seg", *flags[:-3], "--out", out, "--overwrite") == 0
    assert not (out / "fold0/maps.npy").exists() and not (out / "new/maps.csv").exists()
    assert kept_maps.folders(out / "oof_masks.csv") == []
