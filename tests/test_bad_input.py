"""Bad input ends with one line that names the file, the row and what was expected, exit status 2,
before anything is trained or written."""

import shutil

import pytest
from conftest import HEAD, call, edited, good_rows

LABEL_FILES = [
    ("nothing", "", "labels.csv: no rows, expected ImageId,ClassId"),
    ("a header alone", HEAD, "labels.csv: no rows, expected ImageId,ClassId"),
    ("other columns", "name,kind\na.jpg,1\n", "row 1: columns name,kind; expected ImageId,ClassId"),
    ("semicolons", HEAD.replace(",", ";") + "00.jpg;1;1 3\n",
     "row 1: semicolons in ImageId;ClassId"),
    ("no ClassId", "ImageId,EncodedPixels\n00.jpg,1 3\n", "row 1: columns ImageId,EncodedPixels"),
    ("a cell too few", edited(2, "02.jpg,1"), "row 4: 2 cells, expected 3"),
    ("an absent image", edited(4, "99.jpg,1,1 3"), "row 6: image '99.jpg' is not in the image"),
    ("a path out of the folder", edited(0, "../x.jpg,1,1 3"), "row 2: image '../x.jpg' is not in"),
    ("class 0", "ImageId,ClassId\n00.jpg,1\n01.jpg,0\n",
     "row 3: class '0', expected ids from 1 up"),
    ("class 1.5", edited(1, "01.jpg,1.5,1 3"), "row 3: class '1.5', expected ids from 0 up"),
    ("a doubled row", edited(1, "00.jpg,1,1 3"), "row 3: 00.jpg 1 stands in row 2 already"),
    ("an odd run length", edited(5, "05.jpg,1,1 3 9"), "row 7: 05.jpg: 3 values, expected start"),
    ("a run of words", edited(5, "05.jpg,1,one two"), "row 7: 05.jpg: 'one' is not a whole number"),
    ("a run from 0", edited(5, "05.jpg,1,0 3"), "row 7: 05.jpg: run '0 3': start and length are 1"),
    ("a mask larger than its image", edited(5, "05.jpg,1,1600 2"),
     "row 7: 05.jpg: run '1600 2' ends beyond the image's 40 x 40 pixels"),
    ("overlapping runs", edited(5, "05.jpg,1,1 5 3 5"), "row 7: 05.jpg: run '3 5' starts before"),
    ("a class of one image", edited(0, "00.jpg,4,1 3"), "class 4 is in 1 of 12 images, expected at "
     "least two with it and two without it: add images with it, or leave the class out by "
     "--classes"),
    ("columns of zeros", "ImageId,a,b\n" + "".join(f"{i:02d}.jpg,0,0\n" for i in range(12)),
     "class a, b in no image, expected at least one labelled image"),
    ("a 2 among the 0/1", "ImageId,a\n00.jpg,2\n", "row 2: '2' in a, expected 0 or 1"),
    ("a fold without a positive", HEAD + "00.jpg,1,1 3\n", "class 1 is in 1 of 12 images"),
    ("a class in every image", "ImageId,a\n" + "".join(f"{i:02d}.jpg,1\n" for i in range(12)),
     "class a is in 12 of 12 images, expected at least two with it and two without it: add images "
     "without it"),
]


@pytest.mark.parametrize("text, said", [c[1:] for c in LABEL_FILES],
                         ids=[c[0] for c in LABEL_FILES])
def test_label_file(photos, tmp_path, capsys, text, said):
    labels = tmp_path / "labels.csv"
    labels.write_text(text)
    assert call("train_cls", "--images", photos, "--labels", labels, "--out", tmp_path / "out",
                "--folds", 3) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and "labels.csv" in error
    assert said in error
    assert not (tmp_path / "out").exists()


def truncate(path):
    path.write_bytes(path.read_bytes()[:200])


def replace_by_text(path):
    path.write_text("no picture")


@pytest.mark.parametrize("break_it", [truncate, replace_by_text, lambda p: p.write_bytes(b"")],
                         ids=["truncated", "text", "empty"])
@pytest.mark.parametrize("script", ["train_cls", "make_masks", "train_seg", "evaluate"])
def test_image_that_cannot_be_read(photos, tmp_path, capsys, runs, script, break_it):
    labels = tmp_path / "labels.csv"
    labels.write_text(HEAD + "\n".join(good_rows()) + "\n")
    break_it(photos / "04.jpg")
    (tmp_path / "folds.csv").write_text(
        "ImageId,fold\n" + "".join(f"{i:02d}.jpg,{i % 2}\n" for i in range(12)))
    flags = {"train_cls": (), "make_masks": ("--cls", runs / "cls"),
             "train_seg": ("--masks", labels, "--folds", tmp_path / "folds.csv"),
             "evaluate": (f"m={labels}",)}[script]
    assert call(script, "--images", photos, "--labels", labels, "--out", tmp_path / "out",
                *flags) == 2
    error = capsys.readouterr().err
    assert "04.jpg: cannot be read as an image" in error and error.count("\n") == 1
    assert "labels.csv, row 6" in error or script == "train_seg"
    assert not (tmp_path / "out").exists()


def test_missing_folders_and_files(photos, tmp_path, capsys, runs, shapes):
    (tmp_path / "ids.csv").write_text("ImageId,ClassId\n001.png,1\n002.png,2\n")
    cases = [
        (("train_cls", "--data", tmp_path / "none"), "none/train.csv: cannot be read"),
        (("train_cls", "--images", tmp_path / "none", "--labels", shapes / "labels.csv"),
         "none: no such folder, expected one with images"),
        (("train_cls", "--images", photos), "no labels given: --labels CSV"),
        (("train_cls", "--data", shapes, "--folds", 1), "--folds 1: expected 2 or more"),
        (("train_cls", "--data", shapes, "--fold", 5), "--fold 5: expected 0 to 4"),
        (("make_masks", "--data", shapes, "--cls", tmp_path), "is no run of train_cls.py"),
        (("make_masks", "--images", photos, "--cls", runs / "cls", "--search"), "need --labels"),
        (("make_masks", "--images", shapes / "train_images", "--labels", shapes / "labels.csv",
          "--cls", runs / "cls"), "labels.csv, row 3: class 'disc', expected one of 1, 2"),
        (("make_masks", "--images", shapes / "train_images", "--labels", tmp_path / "ids.csv",
          "--cls", runs / "cls", "--search"), "--search needs true masks"),
        (("train_seg", "--data", shapes, "--masks", shapes / "labels.csv", "--folds",
          runs / "cls/folds.csv"), "no masks in it"),
        (("train_seg", "--data", shapes, "--masks", shapes / "train.csv", "--folds",
          tmp_path / "none.csv"), "none.csv: cannot be read"),
        (("evaluate", "--data", shapes, f"a={runs}/masks/masks.csv", f"a={runs}/masks/masks.csv"),
         "'a' is taken"),
    ]
    for flags, said in cases:
        assert call(*flags, "--out", tmp_path / "out") == 2, flags
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1, error
        assert not (tmp_path / "out").exists()


def test_weights_file_of_another_encoder(shapes, runs, tmp_path, capsys):
    flags = ("--data", shapes, "--folds", 2, "--size", 64, 64, "--device", "cpu")
    assert call("train_cls", *flags, "--arch", "b1", "--weights", runs / "cls/fold0/best.pt",
                "--out", tmp_path / "a") == 2
    error = capsys.readouterr().err
    assert "--weights" in error and "no weights of this encoder" in error and error.count("\n") == 1
    assert not (tmp_path / "a").exists()


def test_weights_that_cannot_be_downloaded(shapes, tmp_path, capsys, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", offline)
    assert call("train_cls", "--data", shapes, "--folds", 2, "--out", tmp_path / "a") == 2
    error = capsys.readouterr().err
    assert "imagenet weights cannot be downloaded (no network)" in error and error.count("\n") == 1
    assert not (tmp_path / "a").exists()


def test_unknown_target_layer_names_some(shapes, runs, tmp_path, capsys):
    assert call("make_masks", "--data", shapes, "--cls", runs / "cls", "--target-layer", "act2",
                "--workers", 0, "--out", tmp_path / "a") == 2
    error = capsys.readouterr().err
    assert "no layer 'act2'" in error and "features.8" in error and error.count("\n") == 1


def test_damaged_checkpoint_is_named(shapes, runs, tmp_path, capsys):
    shutil.copytree(runs / "cls", tmp_path / "cls")
    truncate(tmp_path / "cls/fold1/swa.pt")
    assert call("make_masks", "--data", shapes, "--cls", tmp_path / "cls", "--workers", 0,
                "--out", tmp_path / "a") == 2
    error = capsys.readouterr().err
    assert "fold1/swa.pt: cannot be read as a checkpoint" in error and error.count("\n") == 1


def test_a_run_is_not_replaced_unasked(shapes, runs, capsys):
    before = (runs / "masks/masks.csv").read_bytes()
    assert call("make_masks", "--data", shapes, "--cls", runs / "cls", "--out",
                runs / "masks") == 2
    assert "holds a run: add --overwrite" in capsys.readouterr().err
    assert (runs / "masks/masks.csv").read_bytes() == before


def test_maps_of_other_flags_are_not_reused(shapes, runs, capsys):
    assert call("make_masks", "--data", shapes, "--cls", runs / "cls", "--out", runs / "masks",
                "--target-layer", "features.5", "--method", "gradcam", "--reuse-maps") == 2
    assert "made with --method gradcam++, not gradcam" in capsys.readouterr().err


def test_images_missing_from_a_mask_file(shapes, runs, tmp_path, capsys):
    lines = (runs / "masks/masks.csv").read_text().splitlines()
    part = tmp_path / "part.csv"
    part.write_text("\n".join(lines[:21]) + "\n")
    flags = ("--data", shapes, f"part={part}", "--figures", 0)
    assert call("evaluate", *flags, "--out", tmp_path / "a") == 2
    assert "no row for 28 images, the first is 010.png" not in capsys.readouterr().out
    assert call("evaluate", *flags, "--missing", "skip", "--out", tmp_path / "b") == 0
    assert "\n7 images with a defect are scored. Left out of the labelled images: 41 " in (
        capsys.readouterr().out)
    assert call("evaluate", *flags, "--missing", "empty", "--out", tmp_path / "c") == 0
    assert "\n36 images with a defect are scored. Left out of the labelled images: 12 " in (
        capsys.readouterr().out)
