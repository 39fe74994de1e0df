"""report.html of made-up runs: no name can become markup, and every number is in its place."""

import re
import time

import numpy as np
import pytest
from pages import Page, check_loads_nothing, content, evaluation, figures, scores, write_run

from cam2seg import masks, metrics
from cam2seg.report import (html_report, mask_report, page, panels, paper, run_charts, run_files,
                            style, tables_of_runs)
from cam2seg.report.charts import BOTTOM, LEFT, RIGHT, TOP
from cam2seg.report.page import Html, tag
from cam2seg.runs.folder import digests


def test_a_file_that_has_changed_since_a_run_read_it_is_named(tmp_path):
    for name in ("same.csv", "other.csv"):
        (tmp_path / name).write_text("ImageId,fold\na,0\n")
    paths = [f"{tmp_path}/{name}" for name in ("same.csv", "other.csv", "gone.csv")]
    evaluation(tmp_path / "e", path=f"{tmp_path}/x/masks.csv")
    write_run(tmp_path / "x", {"method": "contrast"}, {},
              sha256={**digests(paths), paths[2]: "1", "the list of images": "2"})
    (tmp_path / "other.csv").write_text("ImageId,fold\na,1\n")
    shown = content(tmp_path / "i")
    html_report.write(tmp_path / "e", shown, {}, digests=digests)
    text = Page((tmp_path / "e/report.html").read_text(encoding="utf-8")).text
    assert re.findall(r"(\S+) has changed since (\S+) was made", text) == [
        (paths[1], f"{tmp_path}/x")]
    (tmp_path / "other.csv").write_text("a,a\n")
    html_report.write(tmp_path / "e", shown, {}, digests=digests)
    assert "other.csv has changed" in (tmp_path / "e/report.html").read_text(encoding="utf-8")


BAD = """<script>alert("1")</script>&'\u202e"""


def test_names_cannot_become_markup(tmp_path):
    """Names of images, classes, masks, folders and flags, and what a damaged file says."""
    odd = BAD.replace("/", "")  # as the name of a file
    evaluation(tmp_path / "e", BAD, f"{tmp_path}/x/masks.csv", (BAD, "2"))
    write_run(tmp_path / "x", {"method": BAD, BAD: BAD},
              {"classes": [BAD], "table2": [{"masks": BAD}]}, classes=[BAD, "2"],
              versions={BAD: BAD}, sha256={BAD: BAD})
    (tmp_path / "x/fold0").mkdir()
    (tmp_path / "x/fold0/log.jsonl").write_text(BAD)
    shown = content(tmp_path / "i", classes=(BAD, "2"), names=[f"{i}{odd}.png" for i in range(3)])
    shown = shown._replace(sets={BAD: shown.sets["a"]}, maps={BAD: None})
    html_report.write(tmp_path / "e", shown, {BAD: tmp_path / "x/masks.csv"})
    html = (tmp_path / "e/report.html").read_text(encoding="utf-8")
    check_loads_nothing(html)
    assert "<script" not in html and "\u202e" not in html
    seen = BAD.replace("\u202e", "\\u202e")
    found = Page(html)
    assert f"class {seen}" in found.text and f"Class {seen}" in found.text
    assert seen in found.tables["Versions"][-1] and f"--{seen}" in found.text
    assert any(seen.replace("/", "") in img["alt"] for img in found.all("img"))
    assert "log.jsonl is left out" in found.text


def test_text_is_escaped_unless_it_is_html():
    assert tag("p", "<b>&\"'") == "<p>&lt;b&gt;&amp;&quot;&#x27;</p>"
    assert tag("p", tag("b", "x"), class_='"><i>') == '<p class="&quot;&gt;&lt;i&gt;"><b>x</b></p>'
    assert page.text(Html("<i>")) == "<i>" and page.text(0.5) == "0.5000" and page.text(None) == "-"
    assert page.text("a\udcff\n\x1b") == "a\\udcff\\n\\x1b"


def luminance(colour):
    """Relative luminance of "#rrggbb" by WCAG 2."""
    parts = [int(colour[k:k + 2], 16) / 255 for k in (1, 3, 5)]
    r, g, b = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_text_has_the_contrast_of_wcag_aa():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    for ink, ground in style.TEXT_ON:
        assert contrast(ink, ground) >= 4.5, (ink, ground)
    inks = set(re.findall(r"[;{ ](?:color|fill):(#\w{6})", style.CSS))
    grounds = set(re.findall(r"background:(#\w{6})", style.CSS))
    assert inks == {ink for ink, _ in style.TEXT_ON}
    assert grounds == {ground for _, ground in style.TEXT_ON}
    assert contrast(style.INK, style.PAPER) >= 3 and contrast(style.RULE, style.PAPER) >= 3


def test_a_page_of_as_many_images_as_the_papers_is_small_and_quick(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 255, (256, 1600, 3), np.uint8)
    monkeypatch.setattr(panels.images, "open_at", lambda path, size: noise)
    evaluation(tmp_path / "e")
    shown = content(tmp_path / "i", 12568, files=0)
    shown = shown._replace(sizes=dict.fromkeys(shown.names, (256, 1600)))
    start = time.process_time()
    html_report.write(tmp_path / "e", shown, {})
    assert time.process_time() - start < 20
    assert (tmp_path / "e/report.html").stat().st_size < 1_000_000
    found = Page((tmp_path / "e/report.html").read_text(encoding="utf-8"))
    assert len(found.all("img")) == 2 * 3 * 4
    assert "best of 12568 by the Dice of a" in found.text and "median of 6284" in found.text


@pytest.mark.parametrize("name, said", [
    ("metrics.json", '{"table2": [{"scores": 1}], "classes": []}'), ("metrics.json", "[1"),
    ("metrics.json", '{"table1": [{"model": "m"}], "masks": [{}]}'), ("args.json", "{}"),
    ("args.json", '{"args": {"method": null, "cls": 5}, "classes": 3}'), ("args.json", "\udcff"),
    ("fold0/log.jsonl", '{"epoch": 1}\n'), ("fold0/log.jsonl", "1\n")])
def test_a_damaged_file_of_a_run_keeps_no_report_from_being_written(tmp_path, name, said):
    evaluation(tmp_path / "e", path=f"{tmp_path}/x/masks.csv")
    write_run(tmp_path / "x", {"method": "gradcam"}, {})
    (tmp_path / "x/fold0").mkdir()
    (tmp_path / "x" / name).write_bytes(said.encode(errors="surrogateescape"))
    html_report.write(tmp_path / "e", content(tmp_path / "i"), {"a": tmp_path / "x/masks.csv"})
    Page((tmp_path / "e/report.html").read_text(encoding="utf-8"))


def test_a_row_of_the_paper_is_that_of_the_same_experiment(tmp_path):
    """A U-Net on the classifier's masks, on true masks, and on masks of another way."""
    runs = []
    for name, args, sha in (
            ("maps", {"method": "gradcam++"}, {}), ("auto", {"method": "auto"}, {}),
            ("weak", {"mask_cut": 0.5, "masks": f"{tmp_path}/maps/masks.csv"}, {}),
            ("own", {"mask_cut": 0.5, "masks": [f"{tmp_path}/auto/masks.csv"]}, {}),
            ("full", {"mask_cut": 0.5, "masks": ["t.csv"]}, {"t.csv": "d"}),
            ("both", {"mask_cut": 0.5, "masks": ["t.csv", "u.csv"]}, {"t.csv": "d"})):
        write_run(tmp_path / name, args, sha256=sha)
        runs.append(run_files.read_run(tmp_path / name)[0])
    found = [tables_of_runs.papers_row(run, "d", runs) for run in runs]
    assert found == [paper.CAM, None, paper.WEAK, None, paper.FULL, None]
    assert tables_of_runs.papers_row(None, "d", runs) is None


# The tables


def tables(html):
    return Page(html).tables


def read(folder):
    run, problems = run_files.read_run(folder)
    assert problems == []
    return run


@pytest.fixture
def compared(tmp_path):
    """A run of evaluate.py on maps, a U-Net on true masks and masks of unknown origin, and the runs
    that it came from."""
    write_run(tmp_path / "m", {"method": "gradcam++", "checkpoint": "swa", "aug_smooth": True})
    write_run(tmp_path / "u", {"mask_cut": 0.5, "masks": ["d/train.csv"], "arch": "b0"},
              sha256={"d/train.csv": "1"})
    by_fold = {name: {"folds": {"0": 0.111, "1": 0.222}, "mean": 0.333, "sd": 0.444}
               for name in metrics.SCORES}
    write_run(tmp_path / "e", {
        "missing": "error", "data": "d",
        "masks": [f"a={tmp_path}/m/masks.csv", f"b={tmp_path}/u/oof_masks.csv", "x/o.csv"]}, {
        "classes": ["1", "2"], "images": 7, "masks": {
            "nothing predicted": {"scores": scores(0.0), "folds": by_fold},
            "a": {"scores": scores(0.2), "folds": by_fold},
            "b": {"scores": scores(0.6), "folds": by_fold},
            "x/o": {"scores": scores(0.8), "folds": by_fold}}}, sha256={"d/train.csv": "1"})
    return [read(tmp_path / name) for name in ("e", "m", "u")]


def test_table_3_of_made_up_scores(compared):
    (caption, (header, *rows)), = tables(tables_of_runs.table3(compared[0], compared)).items()
    assert caption == "Table 3: masks compared on the same 7 images"
    assert header == ["masks", "Dice [P-6]", "Dice, present", "Dice, data set", "IoU", "ratio",
                      "paper's Dice", "paper's experiment", "made by"]
    present = 0.6 + 0.012
    assert rows == [
        ["nothing predicted", *figures([0.002, 0.012, 0.022, 0.032, 0.012 / present]), "", "", ""],
        ["a", *figures([0.202, 0.212, 0.222, 0.232, 0.212 / present, 0.465]), paper.CAM,
         "gradcam++, swa, aug smooth"],
        ["b", *figures([0.602, 0.612, 0.622, 0.632, 1, 0.621]), paper.FULL,
         "U-Net (b0) on d/train.csv"],
        ["x/o", *figures([0.802, 0.812, 0.822, 0.832, 0.812 / present]), "", "", ""],
        ["paper (Severstal): U-Net on Grad-CAM masks", "", "", "", "", "", "0.4180", paper.WEAK,
         ""]]


def test_a_segnet_is_no_unet_and_stands_beside_no_row_of_the_paper(tmp_path):
    write_run(tmp_path / "s", {"arch": "segnet", "mask_cut": 0.5, "masks": ["t.csv"]},
              sha256={"t.csv": "1"})
    run = read(tmp_path / "s")
    assert tables_of_runs.described(run) == "SegNet on t.csv"
    assert tables_of_runs.papers_row(run, "1", [run]) is None


def test_scores_by_class_of_made_up_scores(compared):
    table, = tables(tables_of_runs.by_class(compared[0], "iou", "IoU")).values()
    assert table[0] == ["masks", "class 1", "class 2", "mean", "fold 0", "fold 1", "of folds", "sd"]
    assert table[2] == ["a", *figures([0.23, 0.231, 0.232, 0.111, 0.222, 0.333, 0.444])]


def test_table_2_of_made_up_scores(tmp_path):
    choice = {"confidence": 0.5, "min_seg_len": 20, "threshold": 0.36439}
    results = [
        {"masks": "masks", "with_defect": 5, "scores": scores(0.1), "all_empty": scores(0.7),
         "parameters": {"0": choice, "1": choice}},
        {"masks": "masks_crossfit", "with_defect": 5, "scores": scores(0.3), "all_empty":
         scores(0.7), "parameters": {"0": choice, "1": {**choice, "threshold": 0.1}}}]
    write_run(tmp_path / "m", {"method": "gradcam", "checkpoint": "best"}, {"table2": results})
    write_run(tmp_path / "c", {"method": "contrast"}, {"table2": [{"masks": "masks"}]})
    runs = [read(tmp_path / "c"), read(tmp_path / "m")]
    table, = tables(tables_of_runs.table2(runs)).values()
    made = f"{tmp_path}/m: gradcam, best"
    assert table[1:4] == [
        [f"{tmp_path}/m: nothing predicted", *figures([0.702, 0.712, 0.722]), "", "5", ""],
        [f"{made}, masks.csv", *figures([0.102, 0.112, 0.122]), "", "5", "0.5 / 20 / 0.3644"],
        [f"{made}, masks_crossfit.csv", *figures([0.302, 0.312, 0.322]), "", "5",
         "one choice per fold"]]
    assert [row[4] for row in table[4:]] == figures(dice for _, dice in paper.TABLE2)
    assert tables_of_runs.table2(runs[:1]) is None


@pytest.mark.parametrize("classes", [["1", "2"], ["1", "2", "3", "4", "5"]])
def test_table_1_has_a_column_for_each_class_and_each_defect_of_the_paper(tmp_path, classes):
    auc = [0.5 + 0.01 * n for n in range(len(classes))]
    write_run(tmp_path / "c", {"lr_head": 1}, {"classes": classes, "table1": [
        {"model": "b0", "images": 9, "roc_auc": [*auc[:-1], None], "mean": 0.7}]})
    table, = tables(tables_of_runs.table1([read(tmp_path / "c")])).values()
    wide = max(4, len(classes))
    assert {len(row) for row in table} == {wide + 3}
    assert table[1] == ["b0", "9", *figures([*auc[:-1], None]), *[""] * (wide - len(classes)),
                        "0.7000"]
    assert table[2] == ["paper (Severstal): b0 + HFlip", "", *figures(paper.TABLE1[0][1]),
                        *[""] * (wide - 4), f"{sum(paper.TABLE1[0][1]) / 4:.4f}"]
    assert tables_of_runs.table1([]) is None


def test_what_masks_look_like_without_truth(tmp_path):
    shown = content(tmp_path / "i", 6)
    areas = mask_report.measure_areas(shown.sets["a"], shown.names, 2)
    y = np.array([[1, 1]] * 6)
    facts = mask_report.summarise(areas, (areas > 0) * 2, y, np.full(6, 24 * 32))
    for fact, cell in zip(facts, (16.0, None), strict=True):
        fact |= {"agreement": {"b.csv": 0.25}, "cell_pixels": cell}
    write_run(tmp_path / "m", {"method": "contrast"}, {"classes": ["1", "2"], "masks": facts})
    (caption, rows), = tables(tables_of_runs.mask_facts(read(tmp_path / "m"))).items()
    rows = {row[0]: row[1:] for row in rows}
    assert rows["masks made"] == ["6", "3"] and rows["... without a mask"] == ["0", "3"]
    middle = [np.median(areas[areas[:, c] > 0, c]) / (24 * 32) * 100 for c in range(2)]
    assert rows["area in % of the image, 50% of the masks are below"] == figures(middle)
    assert rows["agreement with b.csv (mean Dice)"] == ["0.2500", "0.2500"]
    assert rows["pixels under a cell of the map"] == figures([16, None])


# The images and the curves


def test_the_images_are_the_best_the_median_and_the_worst(tmp_path):
    shown = content(tmp_path / "i", 9)
    found = panels.by_dice(shown)
    assert [p.c for p in found] == [0, 0, 0, 1, 1, 1]
    for c in range(2):
        dice = sorted((-metrics.dice(*(masks.rle_decode(rles[n, c], (24, 32))
                                       for rles in (shown.truth, shown.sets["a"]))), i, n)
                      for i, n in enumerate(shown.names) if (n, c) in shown.truth)
        names = [n for *_, n in dice]
        assert [p.name for p in found if p.c == c] == [
            names[0], names[(len(names) - 1) // 2], names[-1]]
        assert found[3 * c].said == f"best of {len(names)} by the Dice of a"


def test_one_image_of_a_class_is_shown_once(tmp_path):
    shown = content(tmp_path / "i", 2)
    assert [(p.c, p.said.split()[0]) for p in panels.by_dice(shown)] == [
        (0, "best"), (0, "worst"), (1, "best")]


def test_the_surest_and_the_least_sure_images_are_those_of_the_review(tmp_path):
    shown = content(tmp_path / "i", 9)
    shown = shown._replace(truth=None, ignored={(shown.names[4], 0): "1 300"})
    y = shown.labels[1].copy()
    y[0, 1] = 1  # a label without a mask
    shown = shown._replace(labels=(shown.names, y))
    areas, left = (mask_report.measure_areas(r, shown.names, 2)
                   for r in (shown.sets["a"], shown.ignored))
    doubt = mask_report.doubt(areas, y, left)
    found = panels.by_doubt(shown)
    for c in range(2):
        order = sorted((doubt[i, c], i) for i in range(9) if doubt[i, c] >= 0)
        picked = [p.name for p in found if p.c == c]
        assert picked[:2] == [shown.names[i] for _, i in order[:2]]
        assert [doubt[shown.names.index(n), c] for n in picked[2:]] == [
            d for d, _ in order[::-1][:2]]
    assert found[4 + 2].name == shown.names[0] and "doubt 3.00" in found[6].said


def test_masks_and_truth_are_drawn_with_their_dice(tmp_path):
    shown = content(tmp_path / "i", 3)
    panel = panels.Panel("why", shown.names[1], 1)
    found = Page(panels.draw(shown, [panel], lambda items, what: items))
    true, made = (masks.rle_decode(r[panel.name, 1], (24, 32))
                  for r in (shown.truth, shown.sets["a"]))
    assert f"a, Dice {metrics.dice(true, made):.3f}" in found.text
    assert [img["alt"] for img in found.all("img")] == [
        "The image 00001.png", "00001.png with its true masks in the colours of their classes",
        "True mask of 00001.png, class 2",
        f"Mask of 00001.png, class 2: a, Dice {metrics.dice(true, made):.3f}"]


def test_a_learning_curve_shows_the_losses_of_its_folds(tmp_path):
    write_run(tmp_path / "c", {"lr_head": 1})
    for k, lines in (("0", [(1, 0.5, 0.75), (2, 0.25, 0.5)]), ("1", [(1, 1.0, 0.5)])):
        (tmp_path / f"c/fold{k}").mkdir()
        (tmp_path / f"c/fold{k}/log.jsonl").write_text("".join(
            f'{{"epoch": {e}, "loss": {a}, "val_loss": {b}}}\n' for e, a, b in lines))
    run = read(tmp_path / "c")
    assert [(r["epoch"], r["val_loss"]) for r in run.logs["0"]] == [(1, 0.75), (2, 0.5)]
    shown = Page(run_charts.learning(run))
    low, high = 0.25 - 0.0375, 1 + 0.0375

    def at(epoch, loss):
        y = BOTTOM - (loss - low) / (high - low) * (BOTTOM - TOP)
        return f"{LEFT + (epoch - 1) * (RIGHT - LEFT):g} {round(2 * y) / 2:g}"

    drawn = [p["d"] for p in shown.all("path") if p.get("stroke-width") in ("1.4", "1.6")]
    assert drawn == [f"M{at(1, 0.5)} L{at(2, 0.25)}", f"M{at(1, 0.75)} L{at(2, 0.5)}",
                     f"M{at(1, 1)}", f"M{at(1, 0.5)}"]
    assert "loss of 2 folds" in shown.text


def test_dice_is_swept_over_the_images_with_a_true_mask(tmp_path, monkeypatch):
    """At the parameters of the run, with its labels as the gate of the thresholds."""
    shown = content(tmp_path / "i", 6)
    del shown.truth[shown.names[2], 0]
    shown = shown._replace(maps={"a": lambda name, c, size: np.full(size, 0.5)})
    choice = {"confidence": 0.5, "min_seg_len": 0, "threshold": 0.3}
    write_run(tmp_path / "m", {"method": "gradcam", "gate": "labels"}, {
        "classes": ["1", "2"], "table2": [{"masks": "masks", "parameters": {"0": choice}}]})
    rows = "".join(f"{n},0,24,32,0.9,0.2\n" for n in shown.names)
    (tmp_path / "m/maps.csv").write_text("ImageId,fold,H,W,p of 1,p of 2\n" + rows)
    seen = []
    monkeypatch.setattr(run_charts.charts, "line_chart",
                        lambda title, x, y, lines: seen.append((title, lines)) or Html(""))
    said = run_charts.sweeps(shown, {"a": tmp_path / "m/masks.csv"}, [read(tmp_path / "m")],
                             lambda items, what: items)
    assert "5 of 5 images with a true mask" in said and "threshold 0.3" in said
    (_, by_threshold), (title, by_confidence) = seen[2:]
    assert title == "a: Dice, present by confidence"
    whole = [np.mean([2 * t / (t + 768) for t in counts]) for counts in
             [[len(masks.rle_decode(shown.truth[n, c], (24, 32)).nonzero()[0]) for n in shown.names
               if (n, c) in shown.truth] for c in range(2)]]
    for c in range(2):
        points = dict(by_threshold[c].points.tolist())
        assert points[0.5] == pytest.approx(whole[c]) and points[0.55] == 0
    points = [dict(line.points.tolist()) for line in by_confidence]
    assert points[0][0.9] == pytest.approx(whole[0]) and points[0][0.95] == 0
    assert points[1][0.2] == pytest.approx(whole[1]) and points[1][0.25] == 0
    assert by_confidence[2].name == "all classes"


@pytest.mark.parametrize("result", [{"masks": "masks"}, {"masks": "others", "parameters": {}}])
def test_masks_that_no_threshold_has_drawn_are_not_swept(tmp_path, result):
    """Those of --method auto, and a file that a person has laid beside the maps of a run."""
    shown = content(tmp_path / "i", 6)
    shown = shown._replace(maps={"a": lambda name, c, size: np.full(size, 0.5)})
    write_run(tmp_path / "m", {"method": "auto"}, {"classes": ["1", "2"], "table2": [result]})
    assert run_charts.sweeps(shown, {"a": tmp_path / "m/masks.csv"}, [read(tmp_path / "m")],
                             lambda items, what: items) is None


def test_roc_curves_are_of_the_images_that_have_held_out_probabilities(tmp_path, monkeypatch):
    write_run(tmp_path / "c", {"lr_head": 1})
    (tmp_path / "c/oof.csv").write_text("ImageId,1,2\na,0.9,0.5\nb,0.2,0.5\nd,0.3,0.1\n")
    labels = ["a", "b", "c", "d"], np.array([[1, 1], [0, 1], [0, 0], [1, 0]])
    seen = []
    monkeypatch.setattr(run_charts.charts, "line_chart",
                        lambda title, x, y, lines: seen.append((title, lines)) or Html(""))
    said = run_charts.roc(read(tmp_path / "c"), labels, ["2", "1"])
    (title, lines), = seen
    assert title.endswith("3 held-out images")
    assert [line.name for line in lines[1:]] == ["class 2: area 0.2500", "class 1: area 0.5000"]
    assert lines[2].points.tolist() == [[0, 0], [0, 0.5], [1, 0.5], [1, 1]]
    assert "class 1: area 0.5000" in said
    (tmp_path / "c/oof.csv").write_text("ImageId,1\na,0.9\n")
    assert "are left out" in run_charts.roc(read(tmp_path / "c"), labels, ["2", "1"])


def test_the_runs_behind_a_run_are_found_by_its_flags(tmp_path):
    write_run(tmp_path / "c", {"lr_head": 1})
    write_run(tmp_path / "m", {"method": "gradcam", "cls": f"{tmp_path}/c", "seg": ["no"]})
    write_run(tmp_path / "s", {"mask_cut": 0.5, "masks": [f"{tmp_path}/m/masks.csv"],
                               "folds": f"{tmp_path}/c/folds.csv"})
    write_run(tmp_path / "r", {"method": "seg", "seg": [f"{tmp_path}/s"], "cls": "no"})
    write_run(tmp_path / "e", {"missing": "skip", "masks": [f"{tmp_path}/r/masks.csv", "b=gone/m"]})
    runs, problems = run_files.read_all(tmp_path / "e")
    assert [(run.folder.name, run.script) for run in runs] == [
        ("e", "evaluate"), ("r", "make_masks"), ("s", "train_seg"), ("m", "make_masks"),
        ("c", "train_cls")] and problems == []
    write_run(tmp_path / "p", {"method": "seam", "cls": f"{tmp_path}/c"})
    assert [run.folder.name for run in run_files.read_all(tmp_path / "p")[0]] == ["p", "c"]
