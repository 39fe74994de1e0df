"""The tables that the scripts print, from what they write to metrics.json."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import metrics
from ..methods import class_sets
from .tables import print_table

EMPTY, WHOLE = "nothing predicted", "whole image"  # the rows of the baselines
ABOUT_BASELINES = (f"Two rows are there to compare with: '{EMPTY}' has no mask at all, and "
                   f"'{WHOLE}' has a mask of all pixels for each class of an image. Masks that "
                   "score no more than these two have not found the place of a defect.")
TITLES = {"dice_pairs": "Dice over all pairs of an image and a class, 1 where both masks are empty"
          "  [P-6]",
          "dice_present": "Dice over present pairs, those that have a true mask",
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
                 for s, n in class_sets.class_sets(y, largest).items()])
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
            print_table(f"{title}, chosen by true masks: for a fold by those of the other folds",
                        ["masks", *result["classes"]], rows)


def left_out(result: Mapping[str, Any]) -> str:
    """How many labelled images are not scored, and why; "" where all are."""
    why = ["without a defect (--over all scores them, too)"] * (result["over"] == "defect")
    why += ["without a row in a mask file (--missing skip)"] * (result["missing"] == "skip")
    if not result["left_out"] or not why:
        return ""
    return f"Left out of the labelled images: {result['left_out']} {' or '.join(why)}."


def print_scores(result: Mapping[str, Any]) -> None:
    """Print what the rows and columns are, and one table for each score."""
    which = " with a defect" if result["over"] == "defect" else ""
    size = f" at {result['size'][0]} x {result['size'][1]} pixels" if result["size"] else ""
    print(f"\n{result['images']} images{which} are scored{size}. {left_out(result)}".rstrip())
    print(ABOUT_BASELINES)
    print("The column 'mean' is over all pairs in the first two tables, and over the classes in "
          "the others." + (" 'of folds' is the mean of the folds, and 'sd' their standard deviation."
                       if any(r["folds"] for r in result["masks"].values()) else ""))
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
    rows = [[name, *(of := r["iou_with_background"])["classes"], of["background"], of["mean"]]
            for name, r in result["masks"].items()]
    print_table("IoU of all pixels with the background as one more class; the mean is the mIoU of "
                "the data set  [C-42]", ["mIoU", *result["classes"], "background", "mean"], rows)


def print_table2(title: str, results: Sequence[Mapping[str, Any]]) -> None:
    """Print Table 2: the scores of each mask file of make_masks.py, and of predicting nothing.

    title: how the masks were made; results: see training/mask_scores.of_made_masks.
    """
    first, scores = results[0], metrics.SCORES[:4]
    rows = [[EMPTY, "", *(first["all_empty"][s][1] for s in scores)]]
    for r in results:
        values = list(r.get("parameters", {"": {"by": "labels"}}).values())
        same = all(v == values[0] for v in values)
        said = "/".join(map(str, values[0].values())) if same else "per fold"
        rows.append([f"{title}: {r['masks']}", said, *(r["scores"][s][1] for s in scores)])
    folds_used = first.get("parameters", {})
    of = "by labels alone" if not folds_used else "by networks that may have seen them" \
        if "-1" in folds_used else "out-of-fold union of folds " + ", ".join(folds_used)
    print_table(f"Table 2: masks of {first['with_defect']} images with a defect, {of}",
                ["experiment", "conf/len/thr", *scores], rows)


def print_table3(result: Mapping[str, Any]) -> None:
    """Print Table 3 of train_seg.py, and with --target multiclass the scores of its pixels."""
    scores = metrics.SCORES[:4]
    print_table("Table 3: images with a defect, out-of-fold union", ["masks", *scores],
                [[t, *(s[n][1] for n in scores)] for t, s in result["table3"].items()])
    if "table3_pixels" in result:
        print_table("Table 3, one class for each pixel: all images, out-of-fold union",
                    ["masks", "pixel accuracy", "IoU background",
                     *(f"IoU {c}" for c in result["classes"])],
                    [[t, s["pixel_accuracy"], *s["iou"]]
                     for t, s in result["table3_pixels"].items()])
