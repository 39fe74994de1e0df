"""The tables of a report: the paper's Tables 1 to 3 with the numbers of one's own runs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import paper
from .page import Html, join, table, tag
from .run_files import Run, mask_paths
from .score_tables import ABOUT_BASELINES

FROM_MAPS = ("gradcam", "guided-gradcam")


def tolerant(build: Callable, run: Run, *more: Any) -> Html:
    """build(run, ...), or a sentence where the files of the run are not as the scripts write them.
    """
    try:
        return build(run, *more)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        return tag("p", f"{run.folder} is left out here: its metrics.json is not as the scripts "
                   f"write it ({type(error).__name__}: {error}).", class_="note")


def table1(runs: Sequence[Run]) -> Html | None:
    """Table 1: ROC-AUC of each class by the classifiers; None where no run is one."""
    trained = [run for run in runs if run.metrics.get("table1")]
    return join(tolerant(_table1, run) for run in trained) if trained else None


def _table1(run):
    classes, rows = run.metrics["classes"], []
    for row in run.metrics["table1"]:
        rows.append([row["model"], row["images"], *row["roc_auc"], row["mean"]])
    notes = range(len(rows), len(rows) + len(paper.TABLE1))
    width = max(len(classes), 4)
    rows = [[*row[:2], *row[2:-1], *[Html("")] * (width - len(classes)), row[-1]] for row in rows]
    for model, values in paper.TABLE1:
        rows.append([f"{paper.SOURCE}: {model}", Html(""), *values, *[Html("")] * (width - 4),
                     sum(values) / 4])
    heads = [f"class {k}" for k in classes] + [f"defect {n}" for n in range(len(classes) + 1, 5)]
    return table(f"Table 1: ROC-AUC of {run.folder}, on held-out images",
                 ["model", "images", *heads, "mean"], rows, notes)


def table2(runs: Sequence[Run]) -> Html | None:
    """Table 2: Dice of the masks that were made from labels; None where no run has scores."""
    rows, columns = [], list(paper.READINGS)
    said = []
    for run in runs:
        if run.script == "make_masks":
            said.append(tolerant(_rows2, run, rows, columns))
    if not rows:
        return None
    first = len(rows)
    rows += [[f"{paper.SOURCE}: {name}", *[Html("")] * len(columns), dice, Html(""), Html("")]
             for name, dice in paper.TABLE2]
    made = table("Table 2: masks from labels, scored by each run on its images with a defect",
                 ["experiment", *paper.READINGS.values(), "paper's Dice", "images",
                  "confidence / area / threshold"], rows, range(first, len(rows)))
    return join([made, *said])


def _rows2(run, rows, columns):
    found = []
    for result in run.metrics.get("table2", []):
        if "scores" not in result:
            continue
        if not found:
            found.append([f"{run.folder}: nothing predicted",
                          *(result["all_empty"][s][1] for s in columns), Html(""),
                          result["with_defect"], Html("")])
        found.append([f"{run.folder}: {described(run)}, {result['masks']}.csv",
                      *(result["scores"][s][1] for s in columns), Html(""),
                      result["with_defect"], parameters(result)])
    rows += found
    return Html("")


def parameters(result: Mapping[str, Any]) -> str:
    """The three parameters of a result of Table 2, in words where they differ from fold to fold."""
    values = list(result.get("parameters", {}).values())
    if not values:
        return "by labels"
    if any(v != values[0] for v in values):
        return "one choice per fold"
    v = values[0]
    return f"{v['confidence']:.4g} / {v['min_seg_len']} / {v['threshold']:.4g}"


def described(run: Run) -> str:
    """What made the masks of a run, in a few words."""
    flag = run.flag
    if run.script == "make_masks":
        method = str(flag("method"))
        if method.startswith(FROM_MAPS):
            method += f", {flag('checkpoint')}" + (", aug smooth" if flag("aug_smooth") else "")
        return method
    if run.script == "train_seg":
        network = "SegNet" if flag("arch") == "segnet" else f"U-Net ({flag('arch')})"
        return f"{network} on {', '.join(mask_paths(run))}"
    return run.script


def papers_row(run: Run | None, truth: str | None, runs: Sequence[Run]) -> str | None:
    """The row of the paper's Table 3 that the masks of a run stand beside, None for none.

    truth: the digest of the CSV of true masks, by which a U-Net that was trained on them is known.
    """
    if run is None:
        return None
    if run.script == "make_masks":
        return paper.CAM if str(run.flag("method")).startswith(FROM_MAPS) else None
    paths = mask_paths(run)
    if run.script != "train_seg" or len(paths) != 1 or run.flag("arch") == "segnet":
        return None
    if truth and run.sha256.get(paths[0]) == truth:
        return paper.FULL
    source = next((r for r in runs if r.folder.resolve() == Path(paths[0]).parent.resolve()), None)
    return paper.WEAK if papers_row(source, None, runs) == paper.CAM else None


def table3(run: Run, runs: Sequence[Run]) -> Html:
    """Table 3: all masks that evaluate.py has compared on the same images, with the baselines.

    The ratio is that of Dice over present pairs to the Dice of a U-Net that was trained on the true
    masks, where one is among them.
    """
    made_by = {}
    for given in run.flag("masks") or []:
        title, _, path = str(given).rpartition("=")
        folder = Path(path).parent
        made_by[title or f"{folder.name}/{Path(path).stem}"] = next(
            (r for r in runs if r.folder.resolve() == folder.resolve()), None)
    labels = run.flag("labels") or f"{run.flag('data')}/train.csv"
    beside = {t: papers_row(r, run.sha256.get(str(labels)), runs) for t, r in made_by.items()}
    scored, figures = run.metrics["masks"], dict(paper.TABLE3)
    full = next((scored[t]["scores"]["dice_present"][1] for t, row in beside.items()
                 if row == paper.FULL), None)
    rows = []
    for title, result in scored.items():
        dice, source = result["scores"], made_by.get(title)
        present, row = dice["dice_present"][1], beside.get(title)
        ratio = present / full if full and present is not None else None
        rows.append([title, *(dice[s][1] for s in (*paper.READINGS, "iou")), ratio,
                     Html("") if row is None else figures[row], row or Html(""),
                     described(source) if source else Html("")])
    shown = {row for row in beside.values() if row}
    first = len(rows)
    rows += [[f"{paper.SOURCE}: {name}", *[Html("")] * 5, dice, name, Html("")]
             for name, dice in paper.TABLE3 if name not in shown]
    made = table(f"Table 3: masks compared on the same {run.metrics['images']} images",
                 ["masks", *paper.READINGS.values(), "IoU", "ratio", "paper's Dice",
                  "paper's experiment", "made by"], rows, range(first, len(rows)))
    return join([made, tag("p", f"{ABOUT_BASELINES} Ratio: Dice over present pairs, divided by "
                           "that of a U-Net on the true masks. The paper's figures have the ratios "
                           + " and ".join(f"{figures[k] / figures[paper.FULL]:.3f} ({k})"
                                          for k in (paper.CAM, paper.WEAK)) + ".", class_="note")])


def by_class(run: Run, score: str, title: str) -> Html:
    """One score of each class, with the mean over the folds where evaluate.py was given --folds."""
    rows, header = [], ["masks", *(f"class {k}" for k in run.metrics["classes"]), "mean"]
    for name, result in run.metrics["masks"].items():
        per_class, mean = result["scores"][score]
        row = [name, *per_class, mean]
        if result["folds"]:
            folds = result["folds"][score]
            row += [*folds["folds"].values(), folds["mean"], folds["sd"]]
            header = [*header[:len(per_class) + 2], *(f"fold {k}" for k in folds["folds"]),
                      "of folds", "sd"]
        rows.append(row)
    return table(title, header, rows)


def mask_facts(run: Run) -> Html:
    """What a run of make_masks.py says of its masks without any truth."""
    facts = run.metrics["masks"]
    rows = [["masks made", *(f["made"] for f in facts)],
            ["images with the label", *(f["labelled"] for f in facts)],
            ["... without a mask", *(f["labelled_without_mask"] for f in facts)]]
    for n, share in enumerate(("10%", "50%", "90%")):
        rows.append([f"area in % of the image, {share} of the masks are below",
                     *(f["area_quantiles"] and 100 * f["area_quantiles"][n] for f in facts)])
    rows += [["components in a mask, mean", *(f["components_per_mask"] for f in facts)],
             ["pixels of a component, median", *(f["component_pixels"] for f in facts)]]
    if any(f.get("cell_pixels") for f in facts):  # earlier runs have none
        rows.append(["pixels under a cell of the map", *(f["cell_pixels"] for f in facts)])
    for path in facts[0].get("agreement", {}) if facts else ():
        rows.append([f"agreement with {path} (mean Dice)", *(f["agreement"][path] for f in facts)])
    header = ["", *(f"class {k}" for k in run.metrics["classes"])]
    return table(f"The masks of {run.folder}", header, rows)
