"""benchmarks/readings.py starts from what make_masks.py makes, and each of its rows is a number."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import call

from cam2seg.data.folds import folds_of
from cam2seg.data.labels import read_labels
from cam2seg.runs.inputs import scan

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import readings  # noqa: E402


@pytest.fixture(scope="module")
def table(shapes, runs):
    folder = shapes / "train_images"
    labels = read_labels(shapes / "train.csv", folder)
    labels = labels.keep(labels.y.any(axis=1))
    args = type("Args", (), {"data": shapes, "cls": runs / "cls", "target_layer": "features.8"})
    rows, negative = readings.map_rows(args, labels, scan(folder, labels.names).sizes,
                                       folds_of(runs / "cls/folds.csv", labels.names))
    assert 0 <= negative <= 1
    return {(dev, what): scores for dev, what, *scores in rows}


@pytest.mark.parametrize("row, flags", [
    (("", "defaults"), ()),
    (("DEV-4", "alphas of a channel sum to 1"), ("--method", "gradcam++normalized")),
    (("DEV-5", "divided by the maximum"), ("--norm", "max")),
    (("DEV-6", "raw image multiplied"), ("--smooth-image",)),
    (("DEV-11", "gate: known labels"), ("--gate", "labels")),
    (("DEV-13", "least area 400, strict"), ("--min-seg-len", 400, "--strict-len")),
    (("DEV-17", "one view, Grad-CAM"), ("--method", "gradcam", "--no-aug-smooth")),
    (("DEV-25", "threshold 0.75"), ("--threshold", 0.75))])
def test_rows_with_a_flag_are_what_the_flag_gives(table, shapes, runs, tmp_path, row, flags):
    assert call("make_masks", "--data", shapes, "--cls", runs / "cls", "--out", tmp_path,
                "--workers", 0, "--device", "cpu", *flags) == 0
    scores = json.loads((tmp_path / "metrics.json").read_text())["table2"][0]["scores"]
    assert table[row] == pytest.approx([scores[s][1] for s in ("dice_pairs", "dice_present")],
                                       abs=2e-3)  # float noise moves pixels at the threshold


@pytest.mark.parametrize("which, row", [("masks_union", "union"), ("masks_crossfit",
                                                                   "cross-fitted")])
def test_searches_are_those_of_make_masks(table, shapes, runs, tmp_path, which, row):
    assert call("make_masks", "--data", shapes, "--cls", runs / "cls", "--out", tmp_path,
                "--workers", 0, "--device", "cpu", "--search") == 0
    found = json.loads((tmp_path / "metrics.json").read_text())["table2"]
    scores = next(r["scores"] for r in found if r["masks"] == which)
    assert table["DEV-10", f"search, steps of 0.05, {row}"] == pytest.approx(
        [scores[s][1] for s in ("dice_pairs", "dice_present")], abs=2e-3)


def test_every_reading_gives_scores(table):
    assert len(table) == len(readings.ROWS) + 4
    assert np.isfinite(list(table.values())).all()
    assert len({tuple(v) for v in table.values()}) > len(table) / 2  # most change something
