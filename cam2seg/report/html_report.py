"""report.html: one page that says what was run, on what, and what came of it.

It is one file, which loads nothing and has no script. Its size does not grow with the number of
images: pictures of a few stand for all, and the rest is numbers.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ..data.files import whole_file
from . import charts, page, panels, paper, run_charts, run_files, score_tables, tables_of_runs
from .page import Html, join, section, tag
from .panels import Content
from .run_files import Run
from .tables_of_runs import tolerant

OTHER_SCORES = {"dice_pairs": "Dice over all pairs of image and class, 1 where both masks are "
                "empty [P-6]", "dice_dataset": "Dice of all pixels of a class",
                "iou": "IoU of all pixels of a class",
                "precision": "Precision of all pixels of a class",
                "recall": "Recall of all pixels of a class"}


def all_at_once(items: Sequence, what: str) -> Iterable:
    """The same items; the default of write(), which says nothing of how far it is."""
    return items


def nothing_known(paths: Iterable) -> dict:
    """No digest at all; the default of write(), which then does not look for changed files."""
    return {}


def write(out: Path, content: Content, paths: Mapping[str, Path], over: Callable = all_at_once,
          digests: Callable = nothing_known) -> None:
    """Write report.html into the folder `out` of a run, whole or not at all.

    paths: {title: path of the CSV} of the masks in content.sets. over(items, what) yields the items
    of a long loop. digests(paths) is {path: SHA-256}, as in args.json, of those that are files.
    """
    runs, problems = run_files.read_all(out)
    own = runs[0]
    changed = [tag("p", said, class_="warning") for said in run_files.changed(runs, digests)]
    parts = [("tables", "Tables", _tables(own, runs)),
             ("learning", "Learning curves", _learning(runs)),
             ("roc", "ROC curves", _roc(content, runs)),
             ("sweeps", "Dice against threshold and confidence",
              run_charts.sweeps(content, paths, runs, over)),
             ("areas", "Areas of the masks", _areas(content)),
             ("panels", "Images", _panels(content, over)),
             ("runs", "Flags, versions and digests", _provenance(runs, problems))]
    sections = [(name, title, section(name, title, html)) for name, title, html in parts if html]
    text = page.document(f"cam2seg: {own.folder}", [*_opening(own, content), *changed], sections)
    with whole_file(out / "report.html", encoding="utf-8", newline="\n") as file:
        file.write(text)


def _opening(own, content):
    """What was run, on what, and what came of it: three lines."""
    images = own.flag("images") or own.flag("data") or own.flag("labels")
    few = len(content.classes) <= panels.MOST_CLASSES
    classes = f"classes {', '.join(content.classes)}" if few else f"{len(content.classes)} classes"
    if own.script == "evaluate":
        did = "processed these masks" if content.truth is None else \
            "compared these masks with the truth"
        what = f"evaluate.py {did}: {', '.join(content.sets)}."
        on = f"On {len(content.names)} images of {images}; {classes}."
        which = {"left_out": own.metrics.get("left_out"), "over": own.flag("over"),
                 "missing": own.flag("missing")}
        on = f"{on} {score_tables.left_out(which)}".rstrip()
    else:
        what = f"make_masks.py made masks by {tables_of_runs.described(own)}."
        on = f"On {len(content.names)} images of {images}; {classes}."
    return [what, on, _came(own, content)]


def _came(own, content):
    scored = own.metrics.get("masks")
    if not isinstance(scored, dict):
        made = {title: sum(bool(rles.get((n, c))) for n in content.names
                           for c in range(len(content.classes)))
                for title, rles in content.sets.items()}
        said = ", ".join(f"{title} {n}" for title, n in made.items())
        return f"Masks that are not empty: {said}." + (
            "" if content.truth is not None else
            " No true masks are known, so that nothing here is a score.")
    present = {t: r["scores"]["dice_present"][1] for t, r in scored.items()}
    said = ", ".join(f"{t} {'-' if v is None else format(v, '.4f')}" for t, v in present.items())
    return f"Dice over the pairs of image and class that have a true mask: {said}."


def _tables(own, runs):
    parts, dice = [], tables_of_runs.table2(runs)
    if dice or own.script == "evaluate":
        parts.append(tag("p", paper.ABOUT_READINGS))
    if own.script == "evaluate" and own.metrics.get("masks"):
        parts += [tolerant(tables_of_runs.table3, own, runs),
                  tolerant(tables_of_runs.by_class, own, "dice_present",
                           "Dice over the pairs that have a true mask, by class"),
                  page.details("The other scores by class", *(
                      tolerant(tables_of_runs.by_class, own, score, title)
                      for score, title in OTHER_SCORES.items()))]
    facts = [tolerant(tables_of_runs.mask_facts, run) for run in runs
             if run.script == "make_masks" and run.metrics.get("masks")]
    if own.script == "make_masks":
        parts += facts
    parts += [html for html in (dice, tables_of_runs.table1(runs)) if html]
    if own.script == "evaluate" and facts:
        parts.append(page.details("What the masks look like without the truth", *facts))
    return join(parts)


def _learning(runs):
    trained = [run for run in runs if run.logs]
    if not trained:
        return None
    return join([run_charts.learning_legend(),
                 run_charts.grid(*(tolerant(run_charts.learning, run) for run in trained))])


def _roc(content, runs):
    if content.labels is None:
        return None
    drawn = [tolerant(run_charts.roc, run, content.labels, content.classes) for run in runs
             if run.script == "train_cls" and (run.folder / "oof.csv").is_file()]
    return join(d for d in drawn if d) or None


def _areas(content):
    bars = "Bars: the masks." + ("" if content.truth is None else
                                 " Dashed outline: the true masks of the same class.")
    return join([tag("p", bars + " Masks below 0.01% are counted in the first bar.",
                     class_="note"), run_charts.areas(content)])


def _panels(content, over):
    chosen = (panels.by_doubt if content.truth is None else panels.by_dice)(content)
    if not chosen:
        return None
    said = "A click or a tap on a picture shows it larger, and a second one as before. Masks are " \
        "white. A map is dark where it is 0 and bright where it is 1." + (
        " The images are the best, the median and the worst of each class." if content.truth
        is not None else " No truth is known: the images are the surest and the least sure ones. "
        "A mask is doubtful where pixels were left out of it, where its area is far from the "
        "median of its class, and where a labelled image has none.")
    left = len(content.classes) - panels.MOST_CLASSES
    said += f" {left} further classes have no pictures here." if left > 0 else ""
    left = len(content.sets) - panels.MOST_SETS
    said += f" {left} further sets of masks have no pictures here." if left > 0 else ""
    colours = [charts.class_line(c, f"class {k}", ()) for c, k in enumerate(content.classes)]
    return join([tag("p", said, class_="note"), charts.legend(colours),
                 panels.draw(content, chosen, over)])


def _provenance(runs: Sequence[Run], problems: Sequence[str]) -> Html:
    """Every flag, version and digest of the runs, and what could not be read."""
    parts = [tag("p", said, class_="note") for said in problems]
    for n, run in enumerate(runs):
        parts.append(page.details(
            f"{run.folder}: {run.script}.py",
            page.listing("Arguments", ((_flag(run, k), _value(v)) for k, v in run.args.items())),
            page.listing("Versions", run.versions.items()),
            page.listing("SHA-256 of the inputs", run.sha256.items()), shown=n == 0))
    return join(parts)


def _flag(run, name):
    """The name of an argument as it is typed; evaluate.py has masks without a flag."""
    typed = run.script == "evaluate" and name == "masks"
    return "NAME=CSV" if typed else f"--{name.replace('_', '-')}"


def _value(value):
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
