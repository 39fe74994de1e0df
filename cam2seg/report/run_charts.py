"""The charts of a report: learning curves, ROC curves, Dice against threshold and confidence, and
histograms of areas."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import metrics
from ..data import stored_maps
from ..data.csv_files import read_probs
from ..data.errors import DataError
from . import charts, curves, mask_report, paper
from .charts import Axis, Line
from .page import Html, details, join, tag
from .panels import Content
from .run_files import Run
from .style import INK, MUTED

SAMPLE = 100  # images whose maps are counted at all thresholds
SHARE = Axis("area in % of the image (logarithmic)", 0.01, 100, log=True)


def grid(*figures: Any) -> Html:
    """Charts beside each other where there is room."""
    return tag("div", *figures, class_="charts")


def learning(run: Run) -> Html:
    """Loss against epoch: each fold and, where there are several, the mean of the folds."""
    folds = {k: np.array([[row["epoch"], row["loss"], row["val_loss"]] for row in rows], float)
             for k, rows in run.logs.items()}
    every = np.concatenate(list(folds.values()))
    values = every[:, 1:][np.isfinite(every[:, 1:])]
    lines = []
    for k, rows in folds.items():
        lines += [Line(f"training, fold {k}", rows[:, :2], MUTED, "4 3", 1.4),
                  Line(f"held out, fold {k}", rows[:, ::2], INK, None, 1.6)]
    margin = 0.05 * float(np.ptp(values)) or 0.5
    x = Axis("epoch", 1, max(2, every[:, 0].max()), whole=True)
    y = Axis(f"loss ({run.flag('loss', 'bce')})", max(0.0, float(values.min()) - margin),
             float(values.max()) + margin)
    return charts.line_chart(f"{run.folder}: loss of {len(folds)} "
                             f"{'fold' if len(folds) == 1 else 'folds'}", x, y, lines)


def learning_legend() -> Html:
    """Which line of a learning curve is which."""
    none = np.empty((0, 2))
    return charts.legend([Line("training images, one line for each fold", none, MUTED, "4 3", 1.4),
                          Line("held-out images, one line for each fold", none, INK, None, 1.6)])


def roc(run: Run, labels: tuple, classes: Sequence[str]) -> Html | None:
    """ROC curves of a classifier's held-out probabilities with their areas; None where no curve can
    be drawn. labels: names and labels (M, C) of all labelled images."""
    path = run.folder / "oof.csv"
    if run.script != "train_cls" or not path.is_file():
        return None
    own = [k for k in classes if k in run.classes]
    try:
        scores = read_probs(path, own)
    except DataError as error:
        return tag("p", f"The ROC curves are left out: {error}.", class_="note")
    rows = [i for i, name in enumerate(labels[0]) if name in scores]
    y = labels[1][rows][:, [list(classes).index(k) for k in own]]
    p = np.array([scores[labels[0][i]] for i in rows]).reshape(len(rows), len(own))
    lines = [charts.class_line(list(classes).index(k), f"class {k}: area {auc:.4f}",
                               curves.roc_curve(y[:, i], p[:, i]))
             for i, (k, auc) in enumerate(zip(own, metrics.class_aucs(y, p), strict=True))
             if auc is not None]
    if not lines:
        return None
    chance = Line("chance: area 0.5", np.array([[0.0, 0], [1, 1]]), MUTED, "2 4", 1.2)
    chart = charts.line_chart(
        f"{run.folder}: {len(rows)} held-out images", Axis("false positive rate", 0, 1),
        Axis("true positive rate", 0, 1), [chance, *lines])
    return join([charts.legend([*lines, chance]), grid(chart)])


def areas(content: Content) -> Html:
    """Histograms of the areas of the masks of each class, those of the truth as an outline."""
    C = len(content.classes)
    pixels = np.array([h * w for h, w in map(content.sizes.get, content.names)])
    found = {title: mask_report.measure_areas(rles, content.names, C)
             for title, rles in content.sets.items()}
    true = None if content.truth is None else mask_report.measure_areas(content.truth,
                                                                        content.names, C)
    parts = []
    for n, (title, made) in enumerate(found.items()):
        drawn = []
        for c, name in enumerate(content.classes):
            counts = [curves.area_histogram(made[:, c], pixels)]
            counts += [] if true is None else [curves.area_histogram(true[:, c], pixels)]
            said = f"{title}, class {name}: {counts[0].sum()} masks"
            said += f", {counts[1].sum()} true ones" if counts[1:] else ""
            drawn.append(charts.histogram(said, SHARE, "masks", curves.AREA_EDGES, counts,
                                          charts.class_colour(c)))
        parts.append(details(f"Areas of {title}", grid(*drawn), shown=n == 0))
    return join(parts)


def sweeps(content: Content, paths: dict[str, Path], runs: Sequence[Run],
           over: Callable) -> Html | None:
    """Dice against threshold and confidence for each mask file that thresholds have drawn from
    maps, where the truth is known.

    paths: {title: path of its CSV}. Up to SAMPLE images with a true mask, evenly spread, count.
    """
    if content.truth is None:
        return None
    parts = []
    for title, map_of in content.maps.items():
        path = paths[title]
        run = next((r for r in runs if r.folder.resolve() == path.parent.resolve()), None)
        if map_of is None or run is None:
            continue
        try:
            chosen = _parameters(run, path.stem)
            if chosen:
                parts.append(_sweep(content, title, (run, chosen), over))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            parts.append(tag("p", f"Dice against the threshold of {title} is left out "
                             f"({type(error).__name__}: {error}).", class_="note"))
    return join(parts) if parts else None


def _parameters(run, stem):
    """The parameters {fold: parameters} of a mask file of make_masks.py. They are {} for masks that
    no threshold has drawn from a map, and for a file that the run has not written."""
    found = [r for r in run.metrics.get("table2", ()) if r["masks"] == stem]
    return found[0].get("parameters", {}) if found else {}


def _sweep(content, title, source, over):
    run, chosen = source
    C = len(content.classes)
    defect = [n for n in content.names if any(content.truth.get((n, c)) for c in range(C))]
    names = [defect[i] for i in curves.spread(len(defect), SAMPLE)]
    inter, pred, truth = curves.count_at_thresholds(
        over(names, f"Dice of {title} by threshold"), content.truth, content.maps[title],
        content.sizes, C)
    its_classes = run.metrics["classes"]
    known = read_probs(run.folder / "maps.csv", [stored_maps.PROB + k for k in its_classes])
    column = [its_classes.index(k) if k in its_classes else None for k in content.classes]
    probs = np.array([[0.0 if i is None or name not in known else known[name][i] for i in column]
                      for name in names])
    gate = probs
    if run.flag("gate") == "labels" and content.labels is not None:
        rows = [content.names.index(name) for name in names]
        gate = 2.0 * content.of_names()[rows] - 1
    counts = curves.Counts(inter, pred, truth, gate, probs)
    use = {k: float(np.median([v[k] for v in chosen.values()]))
           for k in ("confidence", "min_seg_len", "threshold")}
    drawn, lines = [], []
    for score in ("dice_pairs", "dice_present"):
        by_threshold = curves.dice_by_threshold(counts, use["confidence"], use["min_seg_len"],
                                                score)
        by_confidence = curves.dice_by_confidence(counts, use["threshold"], use["min_seg_len"],
                                                  score)
        for what, at, found in (("threshold (map value)", curves.THRESHOLDS, by_threshold),
                                ("confidence (probability of the class)", curves.CONFIDENCES,
                                 by_confidence)):
            lines = [charts.class_line(c, f"class {name}", _known(at, found[0][:, c]))
                     for c, name in enumerate(content.classes)]
            lines.append(Line("all classes", _known(at, found[1]), INK, None, 2.6))
            drawn.append(charts.line_chart(f"{title}: {paper.READINGS[score]} by "
                                           f"{what.partition(' ')[0]}", Axis(what, 0, 1),
                                           Axis(paper.READINGS[score], 0, 1), lines))
    said = f"{title}: {len(names)} of {len(defect)} images with a true mask, evenly spread. The " \
        f"other parameters are those of the run: confidence {use['confidence']:.4g}, least area " \
        f"{use['min_seg_len']:.0f}, threshold {use['threshold']:.4g}."
    return join([tag("p", said), charts.legend(lines), grid(*drawn)])


def _known(at, values):
    """The points (n, 2) of a line, without those that are undefined."""
    points = np.stack([np.asarray(at, float), values], axis=1)
    return points[np.isfinite(values)]
