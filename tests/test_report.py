"""report.html of the four scripts: its numbers are those of their metrics.json."""

import itertools
import json
import re

import numpy as np
import pytest
from conftest import call, contents
from pages import Page, check_loads_nothing, figures, scores

from cam2seg.report import html_report, paper, score_tables


@pytest.fixture(scope="module")
def evaluated(runs, shapes, tmp_path_factory):
    """The folder and the page of evaluate.py --report on the runs of all four scripts."""
    out = tmp_path_factory.mktemp("evaluated") / "eval"
    assert call("evaluate", "--data", shapes, "--folds", runs / "cls/folds.csv", "--out", out,
                "--report", "--figures", 1, f"maps={runs}/masks/masks.csv",
                f"unet={runs}/seg/oof_masks.csv") == 0
    return out, Page((out / "report.html").read_text(encoding="utf-8"))


def test_table_3_has_the_numbers_of_metrics_json(evaluated):
    out, shown = evaluated
    said = json.loads((out / "metrics.json").read_text())
    header, *rows = shown.tables[f"Table 3: masks compared on the same {said['images']} images"]
    assert header[:5] == ["masks", "Dice [P-6]", "Dice, present", "Dice, data set", "IoU"]
    ours = {row[0]: row[1:5] for row in rows if not row[0].startswith("paper")}
    assert ours == {title: figures(r["scores"][s][1] for s in (*paper.READINGS, "iou"))
                    for title, r in said["masks"].items()}
    assert list(ours) == ["nothing predicted", "whole image", "maps", "unet"]


def test_the_papers_numbers_stand_beside_those_of_the_same_experiment(evaluated):
    out, shown = evaluated
    said = json.loads((out / "metrics.json").read_text())["masks"]
    table, = (t for caption, t in shown.tables.items() if (caption or "").startswith("Table 3"))
    row = {r[0]: r[5:8] for r in table}
    present = {t: r["scores"]["dice_present"][1] for t, r in said.items()}
    assert row["maps"] == [f"{present['maps'] / present['unet']:.4f}", "0.4650", paper.CAM]
    assert row["unet"] == ["1.0000", "0.6210", paper.FULL]
    assert row["paper (Severstal): U-Net on Grad-CAM masks"][1:] == ["0.4180", paper.WEAK]
    assert "0.749" in shown.text and "0.673" in shown.text


def test_the_scores_of_classes_and_folds_are_those_of_metrics_json(evaluated):
    out, shown = evaluated
    said = json.loads((out / "metrics.json").read_text())["masks"]
    tables = {"dice_present": "Dice over the pairs that have a true mask, by class",
              **html_report.OTHER_SCORES}
    for score, caption in tables.items():
        header, *rows = shown.tables[caption]
        assert header == ["masks", "class 1", "class 2", "mean", "fold 0", "fold 1", "of folds",
                          "sd"]
        for title, *cells in rows:
            per_class, mean = said[title]["scores"][score]
            by_fold = said[title]["folds"][score]
            assert cells == figures([*per_class, mean, *by_fold["folds"].values(),
                                     by_fold["mean"], by_fold["sd"]])


CLEAN = "without a defect (--over all scores them, too)"


@pytest.mark.parametrize("count, over, missing, said", [
    (20, "defect", "error", f"20 {CLEAN}."),
    (1, "all", "skip", "1 without a row in a mask file (--missing skip)."),
    (2, "defect", "skip", f"2 {CLEAN} or without a row in a mask file (--missing skip)."),
    (0, "all", "error", ""), (0, "defect", "empty", "")])
def test_which_images_are_not_scored_in_words(count, over, missing, said):
    assert score_tables.left_out({"left_out": count, "over": over, "missing": missing}) == (
        said and f"Left out of the labelled images: {said}")


@pytest.mark.parametrize("folds", [{}, {"0": 0.5, "1": 0.75}])
def test_the_printed_tables_begin_with_what_their_rows_and_columns_are(capsys, folds):
    made = {name: {"folds": folds, "mean": 0.625, "sd": 0.1} for name in scores(0)}
    maps = {"scores": scores(0.5), "folds": made if folds else {},
            "iou_with_background": {"background": 0.9, "classes": [0.25, None], "mean": 0.575}}
    result = {"images": 3, "left_out": 1, "over": "defect", "missing": "error", "size": [35, 52],
              "classes": ["1", "2"], "masks": {"maps": maps}}
    score_tables.print_scores(result)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "3 images with a defect are scored at 35 x 52 pixels. Left out of the " \
        f"labelled images: 1 {CLEAN}."
    assert lines[2] == score_tables.ABOUT_BASELINES
    assert ("standard deviation" in lines[3]) == ("sd" in lines[6]) == bool(folds)
    assert lines[-2].split() == ["mIoU", "1", "2", "background", "mean"]
    assert lines[-1].split() == ["maps", "0.2500", "-", "0.9000", "0.5750"]
    score_tables.print_scores(result | {"over": "all", "left_out": 0, "size": None})
    assert capsys.readouterr().out.splitlines()[1] == "3 images are scored."


def test_the_page_says_what_the_baselines_are(evaluated):
    assert score_tables.ABOUT_BASELINES in evaluated[1].text
    assert "Left out of the labelled images: 12 without a defect" in evaluated[1].text


def test_tables_1_and_2_have_the_numbers_of_their_runs(evaluated, runs):
    _, shown = evaluated
    said = json.loads((runs / "cls/metrics.json").read_text())["table1"]
    header, *rows = shown.tables[f"Table 1: ROC-AUC of {runs}/cls, on held-out images"]
    assert header == ["model", "images", "class 1", "class 2", "defect 3", "defect 4", "mean"]
    for row, own in zip(rows, said, strict=False):
        assert row == [own["model"], str(own["images"]), *figures(own["roc_auc"]), "", "",
                       f"{own['mean']:.4f}"]
    assert rows[len(said)][2:6] == figures(paper.TABLE1[0][1])
    said = json.loads((runs / "masks/metrics.json").read_text())["table2"]
    table, = (t for caption, t in shown.tables.items() if (caption or "").startswith("Table 2"))
    assert table[1][0].endswith("nothing predicted")
    assert table[1][1:4] == figures(said[0]["all_empty"][s][1] for s in paper.READINGS)
    for row, own in zip(table[2:], said, strict=False):
        assert row[0].endswith(f"{own['masks']}.csv") and row[5] == str(own["with_defect"])
        assert row[1:4] == figures(own["scores"][s][1] for s in paper.READINGS)
    assert [row[4] for row in table[2 + len(said):]] == figures(d for _, d in paper.TABLE2)


def test_the_roc_areas_are_those_of_table_1(evaluated, runs):
    _, shown = evaluated
    row = json.loads((runs / "cls/metrics.json").read_text())["table1"][-2]
    assert "SWA" in row["model"] and "all images" in row["model"]
    for k, auc in zip(("1", "2"), row["roc_auc"], strict=True):
        assert f"class {k}: area {auc:.4f}" in shown.text


def test_every_run_behind_the_masks_shows_its_flags_and_digests(evaluated, runs):
    out, shown = evaluated
    for folder, script in ((out, "evaluate"), (runs / "masks", "make_masks"),
                           (runs / "seg", "train_seg"), (runs / "cls", "train_cls")):
        assert f"{folder}: {script}.py" in shown.text
        said = json.loads((folder / "args.json").read_text())
        for digest in (*said["sha256"].values(), *said["versions"].values()):
            assert digest in shown.text
        for flag in {*said["args"]} - {"masks"}:
            assert f"--{flag.replace('_', '-')}" in shown.text


def test_a_page_is_in_order(evaluated):
    """Headings go down by one, each picture and chart is described, each link leads somewhere."""
    _, shown = evaluated
    assert shown.all("html") == [{"lang": "en"}] and len(shown.all("title")) == 1
    levels = [int(name[1]) for name, _ in shown.elements if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    assert len(shown.all("img")) > 12
    assert all(len(img["alt"]) > 5 and img["width"] and img["height"] for img in shown.all("img"))
    charts = [svg for svg in shown.all("svg") if "aria-hidden" not in svg]
    assert len(charts) > 8 and all(svg["role"] == "img" and svg["aria-label"] for svg in charts)
    ids = [attributes["id"] for _, attributes in shown.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {a["href"] for a in shown.all("a")} == {f"#{name}" for name in ids}
    boxes = [div for div in shown.all("div") if div.get("class") == "scroll"]
    assert boxes and all(div["tabindex"] == "0" and div["aria-label"] for div in boxes)


def test_a_page_loads_nothing(evaluated):
    html = (evaluated[0] / "report.html").read_text(encoding="utf-8")
    check_loads_nothing(html)
    assert not re.search("https?://", html)


def test_the_same_masks_give_the_same_bytes_and_the_report_can_come_later(evaluated, runs, shapes,
                                                                          tmp_path):
    out, _ = evaluated
    flags = ["--data", shapes, "--folds", runs / "cls/folds.csv", "--out", out, "--figures", 1,
             f"maps={runs}/masks/masks.csv", f"unet={runs}/seg/oof_masks.csv"]
    before = contents(out)
    assert call("evaluate", *flags, "--resume", "--report") == 0
    assert contents(out) == before
    assert call("evaluate", *flags, "--overwrite") == 0
    assert not (out / "report.html").exists()
    assert call("evaluate", *flags, "--resume", "--report") == 0
    again = (out / "report.html").read_bytes()
    assert again.replace(b"<td>True</td>", b"<td>False</td>") == \
        before["report.html"].replace(b"<td>True</td>", b"<td>False</td>")


def test_labels_alone_give_a_report_of_the_surest_and_least_sure_masks(runs, shapes, tmp_path,
                                                                       capsys):
    assert call("make_masks", "--images", shapes / "train_images", "--labels",
                shapes / "labels.csv", "--classes", "disc", "bar", "--method", "contrast", "--cls",
                tmp_path, "--out", tmp_path / "m", "--report") == 0
    assert f"look at: {tmp_path}/m/report.html" in capsys.readouterr().out
    html = (tmp_path / "m/report.html").read_text(encoding="utf-8")
    shown = Page(html)
    check_loads_nothing(html)
    facts = json.loads((tmp_path / "m/metrics.json").read_text())["masks"]
    rows = {row[0]: row[1:] for row in shown.tables[f"The masks of {tmp_path}/m"]}
    assert rows["masks made"] == [str(f["made"]) for f in facts]
    assert rows["components in a mask, mean"] == figures(f["components_per_mask"] for f in facts)
    for word in ("surest of", "least sure of", "Class disc", "Class bar"):
        assert word in shown.text
    assert "best of" not in shown.text and "Table 3" not in shown.text


def test_masks_of_new_images_without_labels_give_a_report(runs, shapes, tmp_path):
    assert call("make_masks", "--images", shapes / "train_images", "--cls", runs / "cls", "--out",
                tmp_path / "m", "--new-images", "--workers", 0, "--device", "cpu", "--report") == 0
    shown = Page((tmp_path / "m/report.html").read_text(encoding="utf-8"))
    assert "map of masks" in shown.text and "ROC curves" not in shown.text
    rows = {row[0]: row[1:] for row in shown.tables[f"The masks of {tmp_path}/m"]}
    h, w = np.load(tmp_path / "m/maps.npy").shape[2:]
    assert rows["pixels under a cell of the map"] == figures([64 * 64 / (h * w)] * 2)


def test_masks_that_are_processed_without_labels_give_a_report(shapes, tmp_path):
    assert call("evaluate", "--images", shapes / "train_images", "--hull", "--out", tmp_path / "e",
                "--report", "--missing", "empty", f"a={shapes}/train.csv") == 0
    shown = Page((tmp_path / "e/report.html").read_text(encoding="utf-8"))
    assert "processed these masks: a, a, hulls." in shown.text
    assert "No true masks are known" in shown.text and "image and a, hulls" in shown.text
