"""Threshold, confidence and least area by labels alone, against literal loops and by hand."""

import csv
import json

import numpy as np
import pytest
from conftest import call

from cam2seg.data.csv_files import write_csv
from cam2seg.data.labels import read_labels
from cam2seg.methods.label_choice import choose_area, choose_confidence, choose_threshold, youden


def youden_by_loops(y, accepted):
    values = []
    for c in range(y.shape[1]):
        counts = {(a, b): 0 for a in (0, 1) for b in (0, 1)}
        for i in range(len(y)):
            counts[int(y[i, c]), int(accepted[i, c])] += 1
        positives, negatives = counts[1, 0] + counts[1, 1], counts[0, 0] + counts[0, 1]
        if positives and negatives:
            values.append(counts[1, 1] / positives - counts[0, 1] / negatives)
    return sum(values) / len(values)


def test_youden_equals_the_loops():
    rng = np.random.default_rng(0)
    for _ in range(50):
        y, accepted = rng.random((2, 9, 3)) < rng.random()
        y[:2, 0] = True, False
        assert youden(y, accepted) == pytest.approx(youden_by_loops(y, accepted), abs=1e-12)


def test_youden_by_hand_and_without_a_class():
    y = np.array([[1, 1], [1, 1], [0, 1], [0, 1]], bool)  # every image has the second class
    assert youden(y, y) == 1 and youden(y, ~y) == -1
    assert youden(y, np.array([[1, 0], [0, 0], [1, 0], [0, 0]], bool)) == 0
    with pytest.raises(ValueError, match="no class"):
        youden(y[:, 1:], y[:, 1:])


def test_the_threshold_is_the_median_and_the_gates_the_first_best():
    assert choose_threshold(np.array([0.1, 0.9, 0.4])) == 0.4
    y = np.array([[1], [1], [0], [0]], bool)
    probs = np.array([[0.9], [0.35], [0.3], [0.1]])
    assert choose_confidence(y, probs, [0.0, 0.31, 0.33, 0.5]) == 0.31
    areas = np.array([[50], [20], [10], [0]])
    assert choose_area(y, areas, [0, 5, 15, 20, 40]) == 15
    assert choose_area(y, areas * 0, [0, 5]) == 0
    empty = np.array([[50], [20], [0], [0]])  # an empty mask does not pass the gate at 0
    assert choose_area(y, empty, [0, 30]) == 0


def test_search_by_labels_gives_the_same_file_whatever_the_true_masks_are(runs, shapes, tmp_path):
    truth = read_labels(shapes / "train.csv")
    wrong = [(n, c + 1, "1 9") for (n, c) in sorted(truth.rles)]
    write_csv(tmp_path / "wrong.csv", ("ImageId", "ClassId", "EncodedPixels"), wrong)
    flags = ("--images", shapes / "train_images", "--cls", runs / "cls", "--target-layer",
             "features.5", "--no-aug-smooth", "--search", "labels", "--workers", 0, "--device",
             "cpu")
    parameters = []
    for name, labels in (("a", shapes / "train.csv"), ("b", tmp_path / "wrong.csv")):
        assert call("make_masks", *flags, "--labels", labels, "--out", tmp_path / name,
                    "--review", 10**6) == 0
        table = json.loads((tmp_path / name / "metrics.json").read_text())["table2"]
        assert [r["masks"] for r in table] == ["masks", "masks_labels"]
        parameters.append(table[1]["parameters"])
    assert parameters[0] == parameters[1]
    files = [(tmp_path / n / "masks_labels.csv").read_bytes() for n in "ab"]
    assert files[0] == files[1] != (tmp_path / "a/masks.csv").read_bytes()
    chosen = read_labels(tmp_path / "a/masks_labels.csv").rles
    areas = {k: sum(map(int, rle.split()[1::2])) for k, rle in chosen.items()}
    with open(tmp_path / "a/review.csv", newline="") as file:
        shown = {(r["ImageId"], int(r["ClassId"]) - 1): int(r["area"])
                 for r in csv.DictReader(file)}
    assert {k: area for k, area in shown.items() if area} == areas  # and not those of masks.csv
