"""Masks that a person has corrected, and training that goes on with them."""

import pytest
from conftest import HEAD, good_rows

import train_seg
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
