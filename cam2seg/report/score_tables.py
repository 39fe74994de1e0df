"""The tables that evaluate.py prints, from what it writes to metrics.json."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import metrics
from .tables import print_table

TITLES = {"dice_pairs": "Dice over all (image, class) pairs, empty-empty = 1  [P-6]",
          "dice_present": "Dice over the pairs that have a true mask",
          "dice_dataset": "Dice of all pixels of a class",
          "iou": "IoU of all pixels of a class",
          "precision": "Precision of all pixels of a class",
          "recall": "Recall of all pixels of a class"}


def print_class_sets(y: np.ndarray, largest: int, result: Mapping[str, Any]) -> None:
    """Print how many images have each set of up to `largest` classes, and the rules of them.

    y: the labels, uint8 (M, C).
    """
    if not largest:
        return
    print_table(f"Classes that occur together in {len(y)} labelled images",
                ["classes", "images", "support"],
                [(" + ".join(result["classes"][c] for c in s), n, n / len(y))
                 for s, n in metrics.class_sets(y, largest).items()])
    if result["class_sets"]:
        print_table("Where these classes are, others are too; independent classes have a lift of 1",
                    ["if", "then", "images", "support", "confidence", "lift"],
                    [(" + ".join(rule["if"]), " + ".join(rule["then"]), *list(rule.values())[2:])
                     for rule in result["class_sets"]])


def print_searched(result: Mapping[str, Any]) -> None:
    """Print the thresholds and the least sizes of a component that were searched."""
    for key, title in (("threshold", "Thresholds"),
                       ("least", "Least sizes of a component in pixels")):
        rows = [(f"{of}, " + ("on all images" if k == "all" else f"for fold {k}"), *map(str, n))
                for of, found in result[key].items() for k, n in found.items()]
        if rows:
            print_table(f"{title}, chosen by true masks of other folds",
                        ["masks", *result["classes"]], rows)


def print_scores(result: Mapping[str, Any]) -> None:
    """Print one table for each score."""
    size = f" at {result['size'][0]} x {result['size'][1]}" if result["size"] else ""
    print(f"{result['images']} images{size} ({result['over']}), {result['left_out']} left out")
    for score in metrics.SCORES:
        header, rows = [score, *result["classes"], "mean"], []
        for name, r in result["masks"].items():
            per_class, mean = r["scores"][score]
            row = [name, *per_class, mean]
            if r["folds"]:
                f = r["folds"][score]
                row += [*f["folds"].values(), f["mean"], f["sd"]]
                header = [score, *result["classes"], "mean", *(f"fold {k}" for k in f["folds"]),
                          "of folds", "sd"]
            rows.append(row)
        print_table(TITLES[score], header, rows)
