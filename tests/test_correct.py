"""Masks that a person has corrected, and training that goes on with them."""

import json
import shutil

import numpy as np
import pytest
from conftest import HEAD, SMALL, call, good_rows
from PIL import Image

import train_seg
from cam2seg import masks
from cam2seg.data.csv_files import read_csv
from cam2seg.data.image_folder import list_images
from cam2seg.data.labels import read_masks
from cam2seg.runs.progress import silent
from cam2seg.training import segmentation_work

FOLDS = "ImageId,fold\n" + "".join(f"{i:02d}.jpg,{i % 3}\n" for i in range(12))


@pytest.fixture
def given(photos, tmp_path):
    """given(*paths, **flags): what train_seg.py would train on with these paths as --masks."""
    (tmp_path / "masks.csv").write_text(HEAD + "\n".join(good_rows()) + "\n")
    (tmp_path / "folds.csv").write_text(FOLDS)

    def load(*paths, more=()):
        args = train_seg.get_args(["--images", str(photos), "--folds", str(tmp_path / "folds.csv"),
                                   *more, "--masks", *map(str, paths)])
        return segmentation_work.load(args, silent)

    return load


def test_a_later_path_replaces_all_masks_of_the_images_that_it_names(given, tmp_path):
    """One gets other pixels, one loses one of two classes, one is empty, one is no longer clean."""
    (tmp_path / "a.csv").write_text(HEAD + "00.jpg,1,5 5\n03.jpg,2,9 9\n04.jpg,,\n11.jpg,1,7 1\n")
    (tmp_path / "b.csv").write_text(HEAD + "00.jpg,2,6 6\n05.jpg,2,\n")
    before = given(tmp_path / "masks.csv").given
    after = given(tmp_path / "masks.csv", tmp_path / "a.csv", tmp_path / "b.csv").given
    assert before.names == after.names and before.classes == after.classes == ["1", "2"]
    changed = {"00.jpg": {1: "6 6"}, "03.jpg": {1: "9 9"}, "04.jpg": {}, "05.jpg": {},
               "11.jpg": {0: "7 1"}}
    for i, name in enumerate(after.names):
        old = {c: before.rles[name, c] for c in (0, 1) if (name, c) in before.rles}
        new = {c: after.rles[name, c] for c in (0, 1) if (name, c) in after.rles}
        assert new == changed.get(name, old), name
        assert after.y[i].tolist() == [c in new for c in (0, 1)]


def test_pixels_in_doubt_of_a_corrected_image_are_no_longer_left_out(given, tmp_path):
    (tmp_path / "a.csv").write_text(HEAD + "00.jpg,1,5 5\n01.jpg,,\n")
    (tmp_path / "ignore.csv").write_text(HEAD + "".join(f"0{i}.jpg,1,9 2\n" for i in range(3)))
    more = ["--ignore", str(tmp_path / "ignore.csv")]
    masks_csv = tmp_path / "masks.csv"
    assert set(given(masks_csv, more=more).ignored) == {(f"0{i}.jpg", 0) for i in range(3)}
    assert given(masks_csv, tmp_path / "a.csv", more=more).ignored == {("02.jpg", 0): "9 2"}


@pytest.mark.parametrize("text, said", [
    ("02.jpg,3,1 3", ", row 2: class '3', expected one of 1, 2; --classes leaves others out"),
    ("99.jpg,1,1 3", ", row 2: image '99.jpg' is not in the image folder"),
    ("02.jpg,1,1600 3", ", row 2: 02.jpg: run '1600 3' ends beyond the image's 40 x 40 pixels")])
def test_a_wrong_correction_is_named(given, photos, tmp_path, refused, text, said):
    given(tmp_path / "masks.csv")
    (tmp_path / "a.csv").write_text(HEAD + text + "\n")
    assert refused("train_seg", "--images", photos, "--folds", tmp_path / "folds.csv", "--out",
                   tmp_path / "out", "--masks", tmp_path / "masks.csv", tmp_path / "a.csv") == \
        f"{tmp_path / 'a.csv'}{said}"


@pytest.mark.parametrize("flag", ["--masks", "--labels", "--ignore"])
@pytest.mark.parametrize("name, said", [
    ("x.json", "/x.json: cannot be read as COCO JSON (Expecting value: line 1 column 1 (char 0))"),
    ("pngs", "/pngs/00.png: masks of 7 x 40 pixels, expected 40 x 40 as of the image 00.jpg"),
    ("cvat", "/cvat/labelmap.txt: 'x', expected a line as crack:230,159,0::")])
def test_wrong_files_of_other_tools_are_refused(given, photos, tmp_path, refused, flag, name, said):
    given(tmp_path / "masks.csv")
    (tmp_path / "x.json").touch()
    for folder in ("pngs", "cvat"):
        (tmp_path / folder).mkdir()
    for name_of_mask in ("00.png", "01.png"):  # in two folds
        Image.fromarray(np.eye(7, 40, dtype=np.uint8)).save(tmp_path / "pngs" / name_of_mask)
    (tmp_path / "cvat/labelmap.txt").write_text("x")
    paths = {"--masks": tmp_path / "masks.csv", flag: tmp_path / name}
    assert refused("train_seg", "--images", photos, "--folds", tmp_path / "folds.csv",
                   *(x for pair in paths.items() for x in pair), "--out", tmp_path / "out") == \
        f"{tmp_path}{said}"


# The whole loop


@pytest.fixture(scope="module")
def auto(shapes, tmp_path_factory):
    """A run of make_masks.py that exports its masks in every form."""
    out = tmp_path_factory.mktemp("auto") / "masks"
    assert call("make_masks", "--images", shapes / "train_images", "--labels",
                shapes / "labels.csv", "--method", "contrast", "--review", 4, "--export", "png",
                "overlay", "coco", "cvat", "--workers", 0, "--device", "cpu", "--out", out) == 0
    return out


def exported(out, title):
    return [f"{title}_{form}" for form in ("png", "overlay", "cvat")] + [f"{title}_coco.json"]


def test_make_masks_exports_all_masks_and_those_of_the_review(auto, shapes):
    """Each form says what masks.csv says."""
    images = shapes / "train_images"
    made, names = read_masks(auto / "masks.csv", images), list_images(images)
    review = sorted({row["ImageId"] for _, row in read_csv(auto / "review.csv")[1]})
    assert 1 <= len(review) <= 4
    assert sorted(p.name for p in auto.glob("*_*")) == sorted(
        exported(auto, "masks") + exported(auto, "review"))
    for title, expected in (("masks", names), ("review", review)):
        for form in ("png", "coco.json", "cvat"):
            found = read_masks(auto / f"{title}_{form}", images).of_classes(made.classes)
            assert found.names == expected
            assert found.rles == {k: v for k, v in made.rles.items() if k[0] in expected and v} \
                or form == "cvat"
        assert len(list((auto / f"{title}_overlay").iterdir())) == len(expected)


def test_corrected_masks_are_what_is_trained_on(auto, shapes, tmp_path, monkeypatch, refused):
    """From masks.csv over PNGs, of which one is edited and one blackened, into the data set."""
    images, review = shapes / "train_images", auto / "review_png"
    shutil.copytree(review, tmp_path / "corrected")
    first, second = read_masks(tmp_path / "corrected", images).names[:2]
    for name, drawn in ((first, True), (second, False)):
        for file in (tmp_path / "corrected").rglob(name):
            with Image.open(file) as image:
                pixels = np.zeros(image.size[::-1], np.uint8)
                if drawn:
                    pixels[10:20, 5:9] = 1 if image.mode == "P" else 255
                edited = Image.fromarray(pixels)
                if image.mode == "P":
                    edited.putpalette(image.getpalette())
            edited.save(file)
    files, seen = list((tmp_path / "corrected").rglob(first)), {}
    real = train_seg.training_plan

    def plan(args, work, size, report):
        found = real(args, work, size, report)
        for i, name in enumerate(found.dataset.names):
            seen[name] = dict(zip(work.given.classes, found.dataset[i, None][1], strict=True))
        return found

    monkeypatch.setattr(train_seg, "training_plan", plan)
    flags = ["--images", images, "--folds", auto / "folds.csv", "--ignore", auto / "ignore.csv",
             "--out", tmp_path / "seg", *SMALL, "--epochs", 1, "--fold", 0, "--masks",
             auto / "masks.csv", tmp_path / "corrected"]
    (tmp_path / "new/sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png"):
        shutil.copy(images / first, tmp_path / "new" / name)
    assert call("train_seg", *flags, "--predict", tmp_path / "new", "--export", "png",
                "overlay") == 0
    rectangle = np.zeros((64, 64), np.uint8)
    rectangle[10:20, 5:9] = 1
    drawn = ["disc", "bar"][:len(files)]  # in a palette the first class alone
    assert all((target == rectangle * (k in drawn)).all() for k, target in seen[first].items())
    assert not any(target.any() for target in seen[second].values())
    made = read_masks(auto / "masks.csv", images)
    other = next(n for n in made.names if (n, 0) in made.rles
                 and n not in read_masks(tmp_path / "corrected", images).names)
    target = seen[other][made.classes[0]]
    assert (target[target < 255] == masks.rle_decode(made.rles[other, 0], (64, 64))[target < 255]
            ).all() and (target == 255).any()
    assert read_masks(tmp_path / "seg/oof_masks_png", images).rles == \
        read_masks(tmp_path / "seg/oof_masks.csv", images).rles
    new = [read_masks(tmp_path / "seg" / name, tmp_path / "new")
           for name in ("new_masks_png", "new_masks.csv")]
    assert new[0].names == ["a.png", "sub/b.png"]
    assert new[0].of_classes(made.classes).rles == new[1].rles
    assert (tmp_path / "seg/new_masks_overlay/sub/b.jpg").is_file()
    assert call("evaluate", "--images", images, "--labels", tmp_path / "corrected", "--over", "all",
                "--out", tmp_path / "eval", "--figures", 0, f"before={auto}/masks_coco.json",
                f"same={tmp_path}/corrected") == 0
    scores = json.loads((tmp_path / "eval/metrics.json").read_text())
    assert scores["images"] == len(read_masks(tmp_path / "corrected", images).names)
    assert scores["masks"]["same"]["scores"]["dice_dataset"][1] == 1
    assert scores["masks"]["before"]["scores"]["dice_dataset"][1] < 1
    edited.save(files[0])
    said = refused("train_seg", *flags, "--resume")
    assert said.startswith(f"{tmp_path / 'corrected'} changed since {tmp_path / 'seg/args.json'}")


def test_a_new_run_keeps_what_was_corrected_in_its_folder(auto, shapes, tmp_path, capsys):
    out = tmp_path / "masks"
    shutil.copytree(auto, out)
    image = next((out / "review_png").glob("**/*.png"))
    Image.new("L", (64, 64)).save(image)
    before = image.read_bytes()
    assert call("make_masks", "--images", shapes / "train_images", "--labels",
                shapes / "labels.csv", "--method", "contrast", "--workers", 0, "--device", "cpu",
                "--overwrite", "--out", out) == 0
    assert f"{out}/review_png_kept1: kept, because it was changed" in " ".join(
        capsys.readouterr().out.split("\n"))
    assert (out / "review_png_kept1" / image.relative_to(out / "review_png")).read_bytes() == before
    assert [p.name for p in out.glob("*_*")] == ["review_png_kept1"]


def test_a_run_does_not_delete_the_export_that_it_reads(auto, shapes, tmp_path, refused):
    out = tmp_path / "masks"
    shutil.copytree(auto, out)
    assert refused("make_masks", "--images", shapes / "train_images", "--labels",
                   out / "masks_png", "--method", "contrast", "--overwrite", "--out", out) == \
        f"{out} holds masks_png, which this run reads: name another --out"
