"""Flags, folds.csv, checkpoints and maps that are refused before anything is written."""

import shutil

import pytest
import torch
from conftest import SCRIPTS, SMALL, call

NO_CUDA = not torch.cuda.is_available()


@pytest.mark.parametrize("name, said", [
    ("nonsense", "--device: 'nonsense': expected auto, cpu, cuda or cuda:N"),
    ("cpu:1", "--device: 'cpu:1': expected auto, cpu, cuda or cuda:N"),
    ("cuda:x", "--device: 'cuda:x': expected auto, cpu, cuda or cuda:N"),
    ("", "--device: '': expected auto, cpu, cuda or cuda:N"),
    ("cuda:99", "--device: 'cuda:99' is not there: torch finds "),
    pytest.param("cuda", "--device: 'cuda' is not there: torch finds 0 CUDA devices",
                 marks=pytest.mark.skipif(not NO_CUDA, reason="there is a CUDA device")),
])
@pytest.mark.parametrize("script", ["train_cls", "make_masks", "train_seg"])
def test_device(shapes, runs, tmp_path, refused, script, name, said):
    none = ("--weights", "none")
    flags = {"train_cls": ("--folds", 2, *none), "make_masks": ("--cls", runs / "cls"),
             "train_seg": ("--masks", shapes / "train.csv", "--folds", runs / "cls/folds.csv",
                           *none)}
    assert refused(script, "--data", shapes, *flags[script], "--device", name, "--out",
                   tmp_path / "out").startswith(said)


@pytest.mark.parametrize("script, flag, value, said", [
    ("train_cls", "--epochs", "0", "0: expected a whole number from 1 up"),
    ("train_cls", "--epochs", "ten", "ten: expected a whole number from 1 up"),
    ("train_cls", "--dropout", "nan", "nan: expected a number from 0 to 1"),
    ("train_cls", "--lr-encoder", "nan", "nan: expected a number from 0 up"),
    ("train_cls", "--lr-head", "-1", "-1: expected a number from 0 up"),
    ("train_seg", "--lr-decoder", "inf", "inf: expected a number from 0 up"),
    ("train_seg", "--batch-size", "1.5", "1.5: expected a whole number from 1 up"),
    ("make_masks", "--threshold", "30", "30: expected a number from 0 to 1"),
    ("make_masks", "--method", "cam", "invalid choice: 'cam'"),
    ("evaluate", "--figures", "-1", "-1: expected a whole number from 0 up"),
])
def test_flag(capsys, script, flag, value, said):
    with pytest.raises(SystemExit) as stop:
        SCRIPTS[script].get_args([flag, value])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1
    assert error.startswith(f"error: argument {flag}: {said}")
    assert error.endswith("; --help shows the flags\n")


def fold_rows(change=None, count=48, of=2):
    rows = {i: f"{i:03d}.png,{i // 4 % of}" for i in range(count)} | (change or {})
    return "ImageId,fold\n" + "".join(f"{row}\n" for row in rows.values() if row)


ONCE = "expected each image once and folds counted from 0"
FOLD_FILES = {  # what is wrong: text, the message after the file's name
    "nothing": ("", ": no rows, expected ImageId,fold"),
    "a header alone": ("ImageId,fold\n", ": no rows, expected ImageId,fold"),
    "other columns": ("ImageId,part\n000.png,0\n",
                      ", row 1: columns ImageId,part; expected ImageId,fold"),
    "semicolons": (fold_rows().replace(",", ";"),
                   ", row 1: semicolons in ImageId;fold, expected commas between the columns"),
    "a negative fold": (fold_rows({3: "003.png,-1"}), f", row 5: '003.png' in fold '-1', {ONCE}"),
    "a float": (fold_rows({3: "003.png,1.0"}), f", row 5: '003.png' in fold '1.0', {ONCE}"),
    "no number": (fold_rows({3: "003.png,"}), f", row 5: '003.png' in fold '', {ONCE}"),
    "a word": (fold_rows({3: "003.png,first"}), f", row 5: '003.png' in fold 'first', {ONCE}"),
    "a doubled image": (fold_rows({3: "002.png,0"}), f", row 5: '002.png' in fold '0', {ONCE}"),
    "a cell too many": (fold_rows({3: "003.png,0,1"}),
                        ", row 5: 3 cells, expected 2 (ImageId,fold)"),
}
NOT_COVERED = {  # text, the first image with a defect that has no fold, the first image
    "an image left out": (fold_rows({3: None}), "003.png", "003.png"),
    "half of the images": (fold_rows(count=24), "025.png", "024.png"),
    "names of another set": (fold_rows().replace(".png", ".jpg"), "001.png", "000.png"),
}


@pytest.mark.parametrize("text, said", FOLD_FILES.values(), ids=FOLD_FILES)
@pytest.mark.parametrize("script", ["train_seg", "evaluate", "make_masks", "train_cls"])
def test_folds(shapes, runs, tmp_path, refused, script, text, said):
    folds = cls_with(runs, tmp_path, text) / "folds.csv"
    got = refused(script, "--data", shapes, *reading(script, folds, shapes))
    assert got == f"{folds}{said}"


@pytest.mark.parametrize("text, defect, first", NOT_COVERED.values(), ids=NOT_COVERED)
@pytest.mark.parametrize("script", ["train_seg", "evaluate", "train_cls"])
def test_folds_that_do_not_cover(shapes, runs, tmp_path, refused, script, text, defect,
                                   first):
    folds = cls_with(runs, tmp_path, text) / "folds.csv"
    got = refused(script, "--data", shapes, *reading(script, folds, shapes))
    assert got.startswith(f"{folds}: no fold for ")
    assert got.endswith(f", the first is {first if script == 'train_cls' else defect}")


def test_clean_images_may_be_without_fold(shapes, runs, tmp_path, monkeypatch):
    """As train_cls.py --clean drop leaves them."""
    text = fold_rows({i: None for i in range(0, 48, 4)})
    folds = cls_with(runs, tmp_path, text) / "folds.csv"
    seen = []

    def record(*args):
        seen.append(len(args[2]) + len(args[3]))
        raise KeyboardInterrupt

    monkeypatch.setattr("cam2seg.training.cross_validation.fit", record)
    assert call("train_seg", "--data", shapes, *reading("train_seg", folds, shapes), *SMALL) == 130
    assert seen == [36]


def cls_with(runs, tmp_path, text):
    """A classifier's run, not finished, with another folds.csv."""
    cls = tmp_path / "cls"
    (cls / "fold0").mkdir(parents=True)
    shutil.copy(runs / "cls/args.json", cls)
    shutil.copy(runs / "cls/fold0/swa.pt", cls / "fold0")
    (cls / "folds.csv").write_text(text)
    return cls


def reading(script, folds, shapes):
    """The flags by which a script comes to read a folds.csv."""
    out = folds.parent.parent / "out"
    return {"train_seg": ("--masks", shapes / "train.csv", "--folds", folds, "--out", out),
            "evaluate": (f"m={shapes}/train.csv", "--folds", folds, "--out", out),
            "make_masks": ("--cls", folds.parent, "--out", out),
            "train_cls": ("--folds", 2, "--epochs", 6, *SMALL, "--resume", "--out", folds.parent),
            }[script]


@pytest.mark.parametrize("text, flags, said", [
    (fold_rows(of=1), (), "two folds or more are needed, and --fold among them; the images of "),
    (fold_rows(), ("--fold", 2), "two folds or more are needed, and --fold among them; "),
], ids=["one fold", "a fold that is not there"])
def test_folds_to_train_on(shapes, runs, tmp_path, refused, text, flags, said):
    folds = cls_with(runs, tmp_path, text) / "folds.csv"
    got = refused("train_seg", "--data", shapes, *reading("train_seg", folds, shapes), *flags)
    assert got.startswith(f"{folds}: {said}")


def test_folds_beyond_those_of_the_run(shapes, runs, tmp_path, refused):
    folds = cls_with(runs, tmp_path, fold_rows({3: "003.png,7"})) / "folds.csv"
    assert refused("train_cls", "--data", shapes, *reading("train_cls", folds, shapes)) == \
        f"{folds}: 003.png in fold 7, expected folds up to 1"
    folds.write_text(fold_rows(of=1))
    assert refused("train_cls", "--data", shapes, *reading("train_cls", folds, shapes)) == \
        f"{folds}: fold 1 has 0 of 0 images with class 1, expected some with and some without"


def test_no_image_in_a_fold_that_is_trained(shapes, runs, tmp_path, refused):
    folds = cls_with(runs, tmp_path, fold_rows().replace(",0", ",5").replace(",1", ",5"))
    assert refused("make_masks", "--data", shapes, "--cls", folds, "--out", tmp_path / "out") == \
        f"{folds}: no image left to mask, expected some in the folds 0"
