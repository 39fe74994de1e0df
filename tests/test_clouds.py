"""Clouds: generated fields, components and hulls chosen by true masks, and submissions in the order
and the size that a contest asks for."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import call
from PIL import Image

from cam2seg import masks, metrics
from cam2seg.data.csv_files import write_csv
from cam2seg.data.dataset import resize_mask
from cam2seg.data.labels import read_masks
from cam2seg.demo import clouds
from cam2seg.methods import hulls
from cam2seg.runs.progress import silent
from cam2seg.training import finished_masks

SIZE = 32, 48


def ragged(rng, mask):
    """A mask with holes and specks, as a network draws it."""
    mask = mask & (rng.random(mask.shape) < 0.8)
    for _ in range(3):
        i, j = rng.integers(0, mask.shape[0] - 3), rng.integers(0, mask.shape[1] - 3)
        mask[i:i + 2, j:j + 3] = True
    return mask


def drawn_into(out):
    """Write twelve clouds and four test images into a folder, and folds of the clouds. Yields
    "train" and "test", each with {image name: true masks, bool (4, H, W)}."""
    clouds.main([str(out), "--images", "12", "--size", *map(str, SIZE)])
    write_csv(out / "folds.csv", ("ImageId", "fold"),
              [(f"train{i:05d}.jpg", i % 3) for i in range(12)])
    for kind, count, part in (("train", 12, 0), ("test", 4, 1)):
        yield kind, {f"{kind}{i:05d}.jpg": clouds.draw(np.random.default_rng((0, part, i)), SIZE)[1]
                     for i in range(count)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve clouds with ragged masks of the training and of the test images, and folds."""
    out, rng = tmp_path_factory.mktemp("clouds") / "data", np.random.default_rng(0)
    for kind, truth in drawn_into(out):
        write_csv(out / f"{kind}_masks.csv", ("ImageId", "ClassId", "EncodedPixels"),
                  [(name, k, masks.rle_encode(ragged(rng, mask))) for name, true in truth.items()
                   for k, mask in zip(clouds.PATTERNS, true, strict=True)])
    return out


# The generated clouds


def test_clouds_are_written_in_the_layout_of_the_contest(folder):
    assert len(list((folder / "test_images").iterdir())) == 4
    found = read_masks(folder / "train.csv", folder / "train_images")
    assert found.classes == list(clouds.PATTERNS) and len(found.names) == 12
    assert found.y.any(axis=1).all() and found.y.any(axis=0).all()
    with open(folder / "train.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["Image_Label", "EncodedPixels"] and len(rows) == 1 + 12 * 4
    assert [label for label, _ in rows[1:5]] == [f"train00000.jpg_{k}" for k in clouds.PATTERNS]
    assert any(not rle for _, rle in rows[1:])
    with open(folder / "sample_submission.csv", newline="") as file:
        assert [rle for _, rle in csv.reader(file)][1:] == ["1 1"] * 16


def test_clouds_follow_from_their_seed_and_masks_show_in_the_picture():
    overlaps = 0
    for seed in range(12):
        image, true = clouds.draw(np.random.default_rng((seed,)), (64, 96))
        again = clouds.draw(np.random.default_rng((seed,)), (64, 96))
        assert (image == again[0]).all() and (true == again[1]).all()
        grey, inside = image.mean(axis=2), true.any(axis=0)
        if inside.any() and not inside.all():
            assert grey[inside].mean() > grey[~inside].mean() + 15
        assert not (true & (image.max(axis=2) == 0)).any()  # nothing in the black wedge
        overlaps += (true.sum(axis=0) > 1).any()
    assert overlaps >= 3


def test_clouds_refuse_a_folder_that_is_not_empty(folder, capsys):
    with pytest.raises(SystemExit) as left:
        clouds.main([str(folder)])
    assert left.value.code == 2 and "is not empty" in capsys.readouterr().err


# Least sizes


def work_of(folder):
    truth = read_masks(folder / "train.csv", folder / "train_images")
    given = read_masks(folder / "train_masks.csv", folder / "train_images")
    fold = np.arange(12) % 3
    return SimpleNamespace(truth=truth, sizes=dict.fromkeys(truth.names, SIZE), fold=fold), given


def search(work, rles, hull):
    """{fold: C least sizes} and the C sizes of all images, of masks without a threshold."""
    grid = finished_masks.size_grid(work.sizes)
    by_fold, on_all = finished_masks.search(work, finished_masks.Drawn(rles), [
        ([None], grid)] * len(work.truth.classes), hull, silent)
    return {k: [n for _, n in pairs] for k, pairs in by_fold.items()}, [n for _, n in on_all]


@pytest.mark.parametrize("hull", [False, True])
def test_the_least_size_is_the_best_of_all_on_the_other_folds(folder, hull):
    """Every size is tried by processing the masks and scoring them, one at a time."""
    work, given = work_of(folder)
    grid = finished_masks.size_grid(work.sizes)
    by_fold, on_all = search(work, given.rles, hull)
    assert grid == [0, 2, 3, 8, 15, 31, 77, 154, 307]

    def best(rows, c):
        scores = []
        for n in grid:
            dice = []
            for i in rows:
                key = work.truth.names[i], c
                true, made = (masks.rle_decode(r.get(key, ""), SIZE)
                              for r in (work.truth.rles, given.rles))
                dice.append(metrics.dice(true, hulls.clean(made, n, hull)))
            scores.append(np.mean(dice))
        return grid[int(np.argmax(np.round(scores, 12)))]

    for c in range(4):
        assert on_all[c] == best(range(12), c)
        for k in range(3):
            assert by_fold[k][c] == best([i for i in range(12) if i % 3 != k], c)
    assert any(on_all)


def drawn(*boxes):
    """A mask of 20 x 20 pixels with these boxes (rows, columns) in it."""
    mask = np.zeros((20, 20), bool)
    for rows, cols in boxes:
        mask[slice(*rows), slice(*cols)] = True
    return mask


def by_hand(true, made):
    """Work and run lengths of one class, for {image name: mask}; the n-th image is in fold n."""
    rles = [{(n, 0): masks.rle_encode(m) for n, m in found.items()} for found in (true, made)]
    truth = SimpleNamespace(names=list(true), classes=["1"], rles=rles[0])
    return SimpleNamespace(truth=truth, sizes=dict.fromkeys(true, (20, 20)),
                           fold=np.arange(len(true))), rles[1]


SQUARE, SPECK = ((12, 18), (12, 18)), ((0, 2), (0, 3))  # 36 and 6 pixels


def test_each_fold_has_the_least_size_that_the_others_choose():
    """The speck is true in b alone, so that a, whose size b chooses, keeps it, and b loses it."""
    both = drawn(SQUARE, SPECK)
    work, rles = by_hand({"a": drawn(SQUARE), "b": both}, {"a": both, "b": both})
    by_fold, _ = search(work, rles, False)
    assert by_fold == {0: [0], 1: [8]}
    pairs = {k: [(None, n) for n in sizes] for k, sizes in by_fold.items()}
    found = finished_masks.finish(work, finished_masks.Drawn(rles), pairs, False, silent)
    assert found == {("a", 0): masks.rle_encode(both), ("b", 0): masks.rle_encode(drawn(SQUARE))}


def test_the_least_size_is_chosen_by_the_hulls_that_it_leaves():
    """An angle of 19 true pixels has a hull with 36 wrong ones: only without hulls it is kept."""
    mask = drawn(SQUARE, ((0, 10), (0, 1)), ((9, 10), (0, 10)))
    work, rles = by_hand({"a": mask, "b": mask}, {"a": mask, "b": mask})
    assert [search(work, rles, hull)[1] for hull in (False, True)] == [[0], [20]]


# The script


def test_before_and_after_in_one_table(folder, tmp_path, capsys):
    """Specks go, holes close: hulls score best. The files hold what was scored."""
    flags = ["--data", folder, "--folds", folder / "folds.csv", "--class-sets", 2, "--figures", 1]
    out = tmp_path / "eval"
    assert call("evaluate", *flags, "--least-component", "search", "--hull", "--out", out,
                f"u={folder}/train_masks.csv") == 0
    said = capsys.readouterr().out
    assert "u, components" in said and "u, hulls" in said and "lift" in said
    assert "u, hulls, on all images" in said and "u, hulls, for fold 2" in said
    found = json.loads((out / "metrics.json").read_text())
    score = {t: m["scores"]["dice_pairs"][1] for t, m in found["masks"].items()}
    assert score["u"] + 0.05 < score["u, components"] < score["u, hulls"]

    assert Image.open(out / "classes.png").width == 5 * 206 + 6  # image, truth, u and two steps

    work, given = work_of(folder)
    assert found["threshold"] == {}
    least = found["least"]["u, hulls"]
    written = read_masks(out / "processed_1.csv", folder / "train_images", clouds.PATTERNS)
    for i, name in enumerate(work.truth.names):
        for c in range(4):
            made = masks.rle_decode(given.rles.get((name, c), ""), SIZE)
            mask = hulls.clean(made, least[str(i % 3)][c], True)
            assert written.rles.get((name, c), "") == masks.rle_encode(mask)

    numbers = ",".join(map(str, least["all"]))
    assert call("evaluate", *flags, "--least-component", numbers, "--hull", "--out",
                tmp_path / "fixed", f"u={folder}/train_masks.csv") == 0
    fixed = json.loads((tmp_path / "fixed/metrics.json").read_text())
    assert fixed["least"] == {} and len(fixed["masks"]) == 5
    assert fixed["class_sets"] == found["class_sets"] and len(fixed["class_sets"]) > 1


def test_a_submission_has_the_order_and_the_size_of_the_contest(folder, tmp_path):
    """Without labels: every row of the sample, in its order, empty ones too."""
    with open(folder / "sample_submission.csv", newline="") as file:
        header, *rows = csv.reader(file)
    rows = rows[::-1]
    write_csv(tmp_path / "sample.csv", header, rows)
    assert call("evaluate", "--images", folder / "test_images", "--hull", "--least-component", 5,
                "--output-size", 16, 24, "--sample", tmp_path / "sample.csv", "--out",
                tmp_path / "s", f"u={folder}/test_masks.csv") == 0
    with open(tmp_path / "s/processed_1.csv", newline="") as file:
        head, *got = csv.reader(file)
    assert head == header and [label for label, _ in got] == [label for label, _ in rows]
    given = read_masks(folder / "test_masks.csv")
    empty = 0
    for label, rle in got:
        name, pattern = label.rsplit("_", 1)
        made = masks.rle_decode(given.rles.get((name, clouds.PATTERNS.index(pattern)), ""), SIZE)
        small = hulls.clean(resize_mask(made, (16, 24), 0.5), 5, True)
        assert rle == masks.rle_encode(small)
        empty += not rle
    assert 0 < empty < 16
    assert not (tmp_path / "s/processed_2.csv").exists()
    assert Image.open(tmp_path / "s/classes.png").width == 4 * 206 + 6  # no truth


@pytest.mark.parametrize("flags, said", [
    (["--least-component", "search"], "expected labels, and --folds"),
    (["--least-component", "1,2,3"], "3 numbers, expected one or 4"),
    (["--hull", "--sample", "bad.csv"], "bad.csv, row 2: other.jpg of class Fish, expected one of"),
    (["--hull", "--sample", "twice.csv"], "row 3: test00000.jpg Fish stands in row 2 already"),
    (["--hull", "--sample", "labels.csv"], "expected a mask file"),
    (["u, hulls=more.csv", "--hull"], "'u, hulls' is the name of processed masks"),
])
def test_flags_that_do_not_fit_are_refused(folder, tmp_path, refused, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    header = "Image_Label", "EncodedPixels"
    write_csv("bad.csv", header, [("other.jpg_Fish", "")])
    write_csv("twice.csv", header, [("test00000.jpg_Fish", "")] * 2)
    write_csv("labels.csv", ("ImageId", "Fish"), [("test00000.jpg", 1)])
    (tmp_path / "more.csv").write_bytes((folder / "test_masks.csv").read_bytes())
    assert said in refused("evaluate", f"u={folder}/test_masks.csv", *flags, "--images",
                           folder / "test_images", "--out", tmp_path / "out")


def test_images_that_a_mask_file_does_not_name_are_refused(folder, tmp_path, refused):
    write_csv(tmp_path / "few.csv", ("ImageId", "ClassId", "EncodedPixels"),
              [("test00001.jpg", "Fish", "1 3")])
    said = refused("evaluate", "--images", folder / "test_images", "--hull", "--out",
                   tmp_path / "out", f"u={tmp_path}/few.csv")
    assert "no row for 3 images" in said
