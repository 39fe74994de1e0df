"""The route from class labels to masks that never meets a true mask, through the scripts."""

import csv
import json
import re

import numpy as np
import pytest
from conftest import call, contents
from PIL import Image

from cam2seg.data.csv_files import write_csv
from cam2seg.data.labels import read_labels
from cam2seg.demo import toys
from cam2seg.masks import rle_decode, rle_encode
from cam2seg.metrics import mask_counts, mask_scores
from cam2seg.report import mask_report

FAST = ("--workers", 0, "--device", "cpu", "--weights", "none", "--size", 32, 32, "--batch-size", 8)


def write_set(folder, draw, count, seed=0):
    """Write images of a toy set and labels.csv, which holds labels alone; return the true masks
    {(name, class index): run lengths}."""
    (folder / "train_images").mkdir(parents=True)
    truth, rows = {}, []
    for i in range(count):
        image, true = draw(np.random.default_rng((seed, i)))
        name = f"{i:03d}.png"
        Image.fromarray(image).save(folder / "train_images" / name)
        rows.append((name, *(int(m.any()) for m in true)))
        truth.update({(name, c): rle_encode(m) for c, m in enumerate(true) if m.any()})
    write_csv(folder / "labels.csv", ("ImageId", *"ab"[:len(true)]), rows)
    return truth


@pytest.fixture(scope="session")
def ground(tmp_path_factory):
    """Sixty images whose ground tells the label, with odd blobs; no truth on the disk."""
    folder = tmp_path_factory.mktemp("ground")
    return folder, write_set(folder, toys.ground, 60)


@pytest.fixture(scope="session")
def contrast_run(ground, tmp_path_factory):
    out = tmp_path_factory.mktemp("contrast") / "masks"
    folder, _ = ground
    assert call("make_masks", "--images", folder / "train_images", "--labels",
                folder / "labels.csv", "--cls", folder / "none", "--out", out, "--method",
                "contrast", "--review", 5) == 0
    return out


def present_dice(folder, truth, path):
    """Dice over the pairs that have a true mask."""
    found = read_labels(path, folder / "train_images")
    sizes = {n: Image.open(folder / "train_images" / n).size[::-1] for n in found.names}
    counts = mask_counts(found.names, truth, found.rles, sizes, len(found.classes))
    return mask_scores(*counts)["dice_present"][1]


def test_contrast_finds_the_place_where_the_ground_tells_the_label(ground, contrast_run):
    folder, truth = ground
    assert present_dice(folder, truth, contrast_run / "masks.csv") > 0.75


def test_the_masks_obey_the_labels_and_ignore_no_mask(ground, contrast_run):
    folder, _ = ground
    labels = read_labels(folder / "labels.csv")
    made, left_out = (read_labels(contrast_run / f"{n}.csv") for n in ("masks", "ignore"))
    present = {(n, c) for i, n in enumerate(labels.names) for c in np.flatnonzero(labels.y[i])}
    assert {k for k, rle in made.rles.items() if rle} <= present
    for key, rle in left_out.rles.items():
        assert key in present
        mask = rle_decode(made.rles.get(key, ""), (64, 64))
        assert not (mask & rle_decode(rle, (64, 64))).any()


def test_the_whole_route_runs_where_no_true_mask_exists(ground, contrast_run, tmp_path):
    folder, truth = ground
    assert not any("EncodedPixels" in p.read_text() for p in folder.glob("*.csv"))
    assert call("train_seg", "--images", folder / "train_images", "--masks",
                contrast_run / "masks.csv", "--ignore", contrast_run / "ignore.csv", "--folds",
                contrast_run / "folds.csv", "--out", tmp_path / "seg", "--epochs", 4, "--fold", 0,
                "--lr-encoder", 3e-3, "--lr-decoder", 3e-3, "--loss", "bce+dice", *FAST) == 0
    result = json.loads((tmp_path / "seg/metrics.json").read_text())
    assert "table3" not in result and result["images"] == 12


def test_scores_are_all_that_a_true_mask_changes(ground, contrast_run, tmp_path):
    """The same bytes of masks, ignored pixels, folds and choice, whatever the true masks are."""
    folder, truth = ground
    rng = np.random.default_rng(0)
    for name, of in (("true", lambda rle: rle),
                     ("wrong", lambda rle: rle_encode(rng.random((64, 64)) > 0.5))):
        rows = [(n, "ab"[c], of(rle)) for (n, c), rle in sorted(truth.items())]
        write_csv(tmp_path / f"{name}.csv", ("ImageId", "ClassId", "EncodedPixels"), rows)
        assert call("make_masks", "--images", folder / "train_images", "--labels",
                    tmp_path / f"{name}.csv", "--cls", folder / "none", "--out", tmp_path / name,
                    "--method", "contrast") == 0
        for file in ("masks.csv", "ignore.csv", "folds.csv"):
            assert (tmp_path / name / file).read_bytes() == (contrast_run / file).read_bytes()
    scores = [json.loads((tmp_path / n / "metrics.json").read_text())["table2"][0]
              for n in ("true", "wrong")]
    assert scores[0]["choice"] == scores[1]["choice"] and scores[0] != scores[1]


def test_the_run_says_what_it_chose_and_which_masks_to_look_at(ground, contrast_run):
    table = json.loads((contrast_run / "metrics.json").read_text())
    assert [row[0] for row in table["table2"][0]["choice"]] == table["classes"]
    assert all(fact["made"] <= fact["labelled"] for fact in table["masks"])
    with open(contrast_run / "review.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    doubts = [float(r["doubt"]) for r in rows]
    assert len(rows) == 5 and doubts == sorted(doubts, reverse=True)
    assert Image.open(contrast_run / "review.png").size[0] > 500


def test_contrast_without_labels_is_refused(ground, refused, tmp_path):
    folder, _ = ground
    said = refused("make_masks", "--images", folder / "train_images", "--method", "contrast",
                   "--cls", folder / "none", "--out", tmp_path / "out")
    assert re.search("need --labels", said)


def test_a_run_is_refused_twice_and_replaced_with_the_same_bytes(ground, contrast_run, refused):
    folder, _ = ground
    flags = ("--images", folder / "train_images", "--labels", folder / "labels.csv", "--cls",
             folder / "none", "--out", contrast_run, "--method", "contrast", "--review", 5)
    assert "add --overwrite" in refused("make_masks", *flags)
    before = contents(contrast_run)
    assert call("make_masks", *flags, "--resume") == 0
    after = contents(contrast_run)
    assert before.keys() == after.keys()
    for name in before.keys() - {"args.json"}:
        assert before[name] == after[name], name


# The mask report, by hand


def test_areas_and_components_of_drawn_masks():
    a = np.array([[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]], bool)  # two components, diagonal joins
    rles, sizes = {("x", 0): rle_encode(a), ("y", 1): ""}, {"x": a.shape, "y": a.shape}
    assert mask_report.measure_areas(rles, ["x", "y"], 2).tolist() == [[4, 0], [0, 0]]
    assert mask_report.count_components(rles, ["x", "y"], sizes, 2).tolist() == [[2, 0], [0, 0]]


def test_facts_and_advice_by_hand():
    areas, parts = np.array([[10, 0], [30, 60], [0, 80]]), np.array([[1, 0], [3, 1], [0, 2]])
    y, pixels = np.array([[1, 0], [1, 1], [0, 1]]), np.full(3, 100)
    facts = mask_report.summarise(areas, parts, y, pixels)
    assert [f["made"] for f in facts] == [2, 2]
    assert facts[0]["area_quantiles"] == pytest.approx([0.12, 0.2, 0.28])
    assert facts[0]["components_per_mask"] == 2 and facts[0]["component_pixels"] == 10
    assert facts[1]["labelled_without_mask"] == 0
    said = mask_report.advice(["p", "q"], facts, cell=16, auc=[0.9, 0.55])
    assert [line.split(":")[0] for line in said] == ["class p", "class q", "class q"]
    assert "10 pixels, less than the 16" in said[0] and "more than half of the image" in said[1]
    assert "ROC-AUC is 0.55" in said[2]


def test_doubt_puts_a_missing_mask_first_and_an_odd_area_before_a_typical_one():
    areas, y = np.array([[100], [100], [1000], [0], [0]]), np.array([[1], [1], [1], [1], [0]])
    score = mask_report.doubt(areas, y, np.array([0, 100, 0, 0, 0]))
    assert score[:, 0].tolist() == pytest.approx([0, 0.5, 1, 3, -1])
