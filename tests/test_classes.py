"""The names of classes: which are refused, wherever they come from, and that every script finds a
class by its name."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import HEAD, call, good_rows
from PIL import Image

import make_masks
from cam2seg import models
from cam2seg.data import stored_maps
from cam2seg.data.classes import gaps, in_order
from cam2seg.data.csv_files import read_csv
from cam2seg.data.errors import DataError
from cam2seg.data.labels import read_labels, write_masks
from cam2seg.runs.checkpoints import CheckpointError, save_checkpoint
from cam2seg.runs.folder import read_run
from cam2seg.runs.progress import silent
from cam2seg.runs.restore import network
from cam2seg.training import cross_validation

NAMES = [f"{i:02d}.jpg" for i in range(12)]
ODD = {"ImageId": "which our files need", "a\x1b[2J": "no control character",
       "a\x07": "no control character", "a\ud800": "no control character"}
ONE_HOT = [[i % 2, i // 2 % 2] for i in range(12)]


def wide(path, *classes, y=ONE_HOT):
    """A label file with one 0/1 column for each class."""
    rows = [",".join([n, *map(str, row)]) for n, row in zip(NAMES, y, strict=True)]
    path.write_text("\n".join([",".join(["ImageId", *classes]), *rows]) + "\n")
    return path


@pytest.fixture
def until_training(monkeypatch, tmp_path, capsys):
    """until_training(script, *flags): args.json and printed lines of a run that is stopped as its
    first network is about to be trained."""
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(cross_validation, "fit", stop)

    def start(script, *flags):
        out = tmp_path / f"out{len(list(tmp_path.glob('out*')))}"
        capsys.readouterr()
        more = ("--groups", "none") if script == "train_cls" else ()  # the photos are all alike
        assert call(script, *flags, *more, "--weights", "none", "--size", 32, 32, "--workers", 0,
                    "--device", "cpu", "--out", out) == 130
        return json.loads((out / "args.json").read_text()), capsys.readouterr().out

    return start


@pytest.mark.parametrize("name, said", ODD.items(), ids=ascii)
def test_a_name_is_refused_wherever_it_enters(tmp_path, name, said):
    (tmp_path / "args.json").write_text(json.dumps({"args": {}, "classes": ["pit", name]}))
    with pytest.raises(DataError, match=said):
        read_run(tmp_path / "args.json")
    pre = {"size": [32, 32], "mean": [0, 0, 0], "std": [1, 1, 1], "classes": ["pit", name]}
    net = torch.nn.Linear(1, 1)
    save_checkpoint(tmp_path / "swa.pt", net, {"kind": "classifier", "preprocess": pre,
                                               "model_args": {"num_classes": 2}})
    with pytest.raises(CheckpointError, match=said):
        network(models.Classifier, tmp_path / "swa.pt", "classifier")
    if name != "a\ud800":  # no file in UTF-8 holds that one
        for text in (f"ImageId,ClassId\na.jpg,{name}\n", f"{HEAD}a.jpg,{name},1 1\n"):
            (tmp_path / "labels.csv").write_text(text)
            with pytest.raises(DataError, match=f"labels.csv, row 2: class .*{said}"):
                read_labels(tmp_path / "labels.csv")
        (tmp_path / "maps.csv").write_text(f"ImageId,fold,H,W,p of {name}\na.jpg,0,8,8,1\n")
        with pytest.raises(DataError, match=said):
            stored_maps.read(tmp_path)
    if name == "ImageId":
        (tmp_path / "labels.csv").write_text("ImageId,ImageId\na.jpg,1\n")
        with pytest.raises(DataError, match="row 1: a column occurs twice"):
            read_labels(tmp_path / "labels.csv")


@pytest.mark.parametrize("classes", ["pit", {"pit": 1}, [1, 2], ["pit", "pit"], []])
def test_classes_of_a_run_that_are_no_list_of_names(tmp_path, classes):
    (tmp_path / "args.json").write_text(json.dumps({"args": {}, "classes": classes}))
    with pytest.raises(DataError, match="args.json: "):
        read_run(tmp_path / "args.json")


def test_classes_called_like_columns_of_maps_csv(tmp_path):
    classes = ["H", "W", "fold", "p of H", "ClassId"]
    store = stored_maps.MapStore(tmp_path, 2, 5)
    probs = np.linspace(0, 1, 10).reshape(2, 5)
    store.add([0, 1], np.zeros((2, 5, 3, 4), np.float16), probs)
    store.finish(["a.jpg", "b.jpg"], np.array([0, 1]), {"a.jpg": (5, 6), "b.jpg": (7, 8)}, classes)
    names, found, got, maps = stored_maps.read(tmp_path)
    assert (names, found) == (["a.jpg", "b.jpg"], classes) and maps.shape == (2, 5, 3, 4)
    assert np.array_equal(got, probs)
    stored_maps.check_index(tmp_path, names, np.array([0, 1]), {"a.jpg": (5, 6), "b.jpg": (7, 8)})
    assert len(set(read_csv(tmp_path / "maps.csv")[0])) == 9


@pytest.mark.parametrize("names, order, missing", [
    (["10", "9"], ["9", "10"], ["1", "2", "3", "4", "5", "6", "7", "8"]),
    (["0", "1"], ["0", "1"], []), (["3", "1"], ["1", "3"], ["2"]), (["stain", "pit"],
                                                                   ["pit", "stain"], [])])
def test_order_and_gaps(names, order, missing):
    assert in_order(names) == order and gaps(names) == missing


@pytest.mark.parametrize("rows, classes", [
    ("a.jpg,stain,1 3\na.jpg,pit,\nb.jpg,stain,\nb.jpg,pit,2 3\n", ["stain", "pit"]),
    ("a.jpg,stain,1 3\na.jpg,pit,\nb.jpg,pit,\nb.jpg,stain,2 3\n", ["pit", "stain"]),
    ("a.jpg,stain,1 3\nb.jpg,pit,2 3\n", ["pit", "stain"]),
    ("a.jpg,2,1 3\na.jpg,1,\n", ["1", "2"])])
def test_names_keep_their_order_where_each_image_has_all_of_them_in_it(tmp_path, rows, classes):
    (tmp_path / "masks.csv").write_text("ImageId,ClassId,EncodedPixels\n" + rows)
    assert read_labels(tmp_path / "masks.csv").classes == classes


@pytest.mark.parametrize("column", ["-1", "1.0", "01", "1000", "pit,2"])
def test_columns_obey_the_rule_of_ids(photos, tmp_path, refused, column):
    """Else train_seg.py would refuse the masks that are made of them."""
    y = [row[:1 + column.count(",")] for row in ONE_HOT]
    path = wide(tmp_path / "labels.csv", *column.split(","), y=y)
    assert refused("train_cls", "--images", photos, "--labels", path, "--out", tmp_path / "out"
                   ).endswith("expected ids from 0 up to 999")


@pytest.mark.parametrize("classes", [["0", "1"], ["1", "3"], ["stain", "scratch"], ["H", "fold"]])
def test_masks_of_any_classes_are_taken_by_all_scripts(photos, tmp_path, until_training, classes):
    flags = ("--images", photos, "--labels", wide(tmp_path / "labels.csv", *classes))
    found, said = until_training("train_cls", *flags, "--folds", 2)
    assert found["classes"] == classes
    assert f"12 of 12 images in {photos} are labelled in {tmp_path}/labels.csv, 3 of them clean; " \
           f"images by class: {classes[0]}: 6, {classes[1]}: 6" in said
    assert ("no image has class 2" in said) == (classes == ["1", "3"])
    rles = {(n, c): "1 3" for n, row in zip(NAMES, ONE_HOT, strict=True)
            for c in range(2) if row[c]}
    write_masks(tmp_path / "masks.csv", NAMES, classes, rles)
    write_masks(tmp_path / "true.csv", NAMES, classes[::-1], {(n, 1 - c): r for (n, c), r
                                                              in rles.items()})
    (tmp_path / "folds.csv").write_text("ImageId,fold\n" + "".join(
        f"{n},{i // 4 % 2}\n" for i, n in enumerate(NAMES)))
    found, _ = until_training("train_seg", "--images", photos, "--masks", tmp_path / "masks.csv",
                              "--labels", tmp_path / "true.csv", "--folds", tmp_path / "folds.csv")
    named = not classes[0].isdigit()  # ids are sorted, and names stay as the masks have them
    assert found["classes"] == (classes if named else in_order(classes))
    for truth, made in (("true", "masks"), ("masks", "true")):
        assert call("evaluate", "--images", photos, "--labels", tmp_path / f"{truth}.csv",
                    f"m={tmp_path}/{made}.csv", "--out", tmp_path / f"eval_{made}") == 0
        result = json.loads((tmp_path / f"eval_{made}/metrics.json").read_text())
        written = classes if truth == "masks" else classes[::-1]
        assert result["classes"] == (written if named else in_order(classes))
        assert result["masks"]["m"]["scores"]["dice_present"] == [[1.0, 1.0], 1.0]


@pytest.mark.parametrize("chosen", [False, True])
def test_make_masks_finds_the_classes_of_its_classifier_by_name(photos, tmp_path, chosen):
    cls = tmp_path / "cls"
    (cls / "fold0").mkdir(parents=True)
    (cls / "fold0/swa.pt").touch()
    (cls / "folds.csv").write_text("ImageId,fold\n" + "".join(f"{n},0\n" for n in NAMES))
    said = {"args": {"classes": ["b", "a"] if chosen else None}, "classes": ["b", "a"]}
    (cls / "args.json").write_text(json.dumps(said))
    y = [[*row, i % 3 % 2] for i, row in enumerate(ONE_HOT)]
    path = wide(tmp_path / "labels.csv", "a", "b", "c", y=y)
    flags = ["--images", photos, "--labels", path, "--cls", cls, "--out", tmp_path / "out"]

    def load(*more):
        args = make_masks.get_args([str(f) for f in (*flags, *more)])
        return make_masks.load_images(args, silent)

    for more in ((), ("--classes", "a", "b")):
        if not chosen and not more:  # the file has a class that nobody left out
            with pytest.raises(DataError, match="class 'c', expected one of b, a; --classes"):
                load()
            continue
        work = load(*more)
        assert work.classes == work.labels.classes == ["b", "a"]
        assert work.labels.y[:, ::-1].tolist() == ONE_HOT
    with pytest.raises(DataError, match="--classes a: .*/cls was trained on b a"):
        load("--classes", "a")


def test_a_subset_with_ids_from_2_to_4(photos, tmp_path, until_training):
    """Classes 2 and 4 as Kaggle's CSV names them; and --classes 4 of all four."""
    (tmp_path / "few.csv").write_text(HEAD + "\n".join(good_rows()).replace(",2,", ",4,").replace(
        ",1,", ",2,") + "\n")
    found, said = until_training("train_cls", "--images", photos, "--labels", tmp_path / "few.csv")
    assert found["classes"] == ["2", "4"] and "; no image has class 1, 3\n" in said
    assert "12 of 12 images" in said and "3 of them clean; images by class: 2: 6, 4: 6" in said
    found, said = until_training("train_cls", "--images", photos, "--labels", tmp_path / "few.csv",
                                 "--classes", 4)
    assert found["classes"] == found["args"]["classes"] == ["4"] and "6 of them clean" in said


def test_a_class_folder_without_images_is_said(photos, until_training):
    """An empty folder, one with another file, but not `clean`, and none that other programs keep."""
    for i, name in enumerate(NAMES):
        (photos / "ab"[i % 2]).mkdir(exist_ok=True)
        (photos / name).rename(photos / "ab"[i % 2] / name)
    for name in ("c", "d", "Clean", ".hidden", "__MACOSX"):
        (photos / name).mkdir()
    (photos / "d/notes.txt").touch()
    found, said = until_training("train_cls", "--images", photos, "--labels", photos)
    assert found["classes"] == ["a", "b"] and "; no image has class c, d\n" in said


def test_a_class_without_images_is_left_out_and_said(photos, tmp_path, until_training):
    path = wide(tmp_path / "labels.csv", "a", "b", y=[[i % 2, 0] for i in range(12)])
    found, said = until_training("train_cls", "--images", photos, "--labels", path)
    assert found["classes"] == ["a"] and said.count("; no image has class b\n") == 1


def test_a_class_that_only_the_truth_or_only_the_masks_name(photos, tmp_path, capsys):
    truth, made = tmp_path / "true.csv", tmp_path / "made.csv"
    truth.write_text(HEAD + "\n".join(good_rows()) + "\n")
    write_masks(made, NAMES, ["2", "3"], {("00.jpg", 1): "1 9", **{(f"0{i}.jpg", 0): "1 3"
                                                                   for i in range(3, 9)}})
    assert call("evaluate", "--images", photos, "--labels", truth, f"m={made}", "--out",
                tmp_path / "out") == 0
    assert "no true mask has class 3\n" in capsys.readouterr().out
    scores = json.loads((tmp_path / "out/metrics.json").read_text())["masks"]["m"]["scores"]
    assert scores["dice_present"][0] == [0.0, 1.0, None]
    assert scores["dice_pairs"][0] == pytest.approx([3 / 9, 1.0, 8 / 9])  # 9 images with a defect
    assert call("evaluate", "--images", photos, "--labels", truth, f"m={made}", "--out",
                tmp_path / "two", "--classes", 2) == 0
    assert json.loads((tmp_path / "two/metrics.json").read_text())["classes"] == ["2"]


@pytest.mark.parametrize("flags, said", [
    (("--classes", 1, 1), "--classes: classes ['1', '1'], expected a list of distinct names"),
    (("--classes", "a\x07"), "--classes: class 'a\\x07', expected no control character in a name"),
    (("--classes", 5), "class 5 is in 0 of 12 images, expected at least two with it and two "
     "without it: add images with it")])
def test_classes_that_cannot_be_chosen(photos, tmp_path, refused, flags, said):
    (tmp_path / "labels.csv").write_text(HEAD + "\n".join(good_rows()) + "\n")
    assert refused("train_cls", "--images", photos, "--labels", tmp_path / "labels.csv", "--out",
                   tmp_path / "out", *flags).endswith(said)


def test_masks_behind_classes_are_no_masks(photos, tmp_path, refused):
    assert refused("evaluate", "--images", photos, "--labels", tmp_path / "a.csv", "--out",
                   tmp_path / "out", "--classes", "pit", "m=a.csv").endswith(", before --classes")


def test_masks_that_are_all_empty(photos, tmp_path, refused):
    write_masks(tmp_path / "masks.csv", NAMES, ["1"], {})
    (tmp_path / "folds.csv").write_text("ImageId,fold\n00.jpg,0\n01.jpg,1\n")
    assert refused("train_seg", "--images", photos, "--masks", tmp_path / "masks.csv", "--folds",
                   tmp_path / "folds.csv", "--out", tmp_path / "out") == \
        f"{tmp_path}/masks.csv: every mask is empty, expected at least one that is not"


def test_what_other_programs_leave_in_a_folder_is_no_class(tmp_path):
    for name in ("pit/a.png", "Clean/b.png", "CLEAN/c.png", ".ipynb_checkpoints/a-checkpoint.png",
                 "__MACOSX/pit/._a.png", "pit/._a.png", ".a.png", "pit/.thumbs/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        Image.new("L", (8, 8)).save(tmp_path / name)
    labels = read_labels(tmp_path)
    assert labels.names == ["CLEAN/c.png", "Clean/b.png", "pit/a.png"]
    assert labels.classes == ["pit"] and labels.y.tolist() == [[0], [0], [1]]


def test_images_that_a_label_file_does_not_name_are_counted(photos, tmp_path, until_training):
    path = tmp_path / "labels.csv"
    path.write_text("ImageId,pit\n" + "".join(f"{n},{i % 2}\n" for i, n in enumerate(NAMES[:8])))
    _, said = until_training("train_cls", "--images", photos, "--labels", path)
    assert f"8 of 12 images in {photos} are labelled in {path}, 4 of them clean; " \
           "images by class: pit: 4\n" in said


@pytest.mark.parametrize("labelled, folds", [(4, 2), (6, 3), (8, 4), (12, 5)])
def test_small_data_gets_fewer_folds_and_a_line(photos, tmp_path, until_training, labelled, folds):
    path = tmp_path / "labels.csv"
    path.write_text("ImageId,pit\n" + "".join(
        f"{n},{i % 2}\n" for i, n in enumerate(NAMES[:labelled])))
    until_training("train_cls", "--images", photos, "--labels", path)
    _, rows = read_csv(tmp_path / "out0/folds.csv")
    assert {row["fold"] for _, row in rows} == set(map(str, range(folds)))
    _, said = until_training("train_cls", "--images", photos, "--labels", path, "--folds", 9)
    fewer = min(labelled // 2, 9)
    assert f"{fewer} folds and not 9: with more, a fold would have no image with, or none " \
           "without, some class\n" in said


def test_the_label_file_of_the_readme_can_be_trained_on(photos, tmp_path, until_training):
    text = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    text = re.search(r"```\n(ImageId,.*?)```", text, re.S)[1]
    for i, name in enumerate(re.findall(r"^(\w\.jpg)", text, re.M)):
        (photos / f"{i:02d}.jpg").rename(photos / name)
    (tmp_path / "labels.csv").write_text(text)
    _, said = until_training("train_cls", "--images", photos, "--labels", tmp_path / "labels.csv")
    assert f"{len(text.splitlines()) - 1} of 12 images" in said and "2 folds and not 5" in said


@pytest.mark.parametrize("y, said", [
    ([[1]], "class a is in 1 of 1 images, expected at least two with it and two without it: add "
     "images with it and without it"),
    ([[1]] * 12, "class a is in 12 of 12 images, expected at least two with it and two without it: "
     "add images without it"),
    ([[1, 0], [0, 0], [1, 1]], "class a is in 2 of 3 images, expected at least two with it and two "
     "without it: add images without it, or leave the class out by --classes")])
def test_too_few_images_say_what_is_missing(photos, tmp_path, refused, y, said):
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(["ImageId,a,b"[:8 + 2 * len(y[0]) - 1], *(
        ",".join([n, *map(str, row)]) for n, row in zip(NAMES, y, strict=False))]) + "\n")
    assert refused("train_cls", "--images", photos, "--labels", path, "--out", tmp_path / "out"
                   ) == f"{path}: {said}"
