"""Image files and names of image files that are refused."""

import os

import pytest
from PIL import Image
from conftest import HEAD, good_rows

PLAIN = "expected names in UTF-8 without control characters and without blanks at their ends"


@pytest.fixture
def labels(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(HEAD + "\n".join(good_rows()) + "\n")
    return path


def link_out(photos):
    (photos.parent / "elsewhere").mkdir()
    (photos / "04.jpg").rename(photos.parent / "elsewhere/04.jpg")
    (photos / "04.jpg").symlink_to(photos.parent / "elsewhere/04.jpg")


def link_by_a_relative_way(photos):
    Image.new("L", (40, 40)).save(photos.parent / "other.png")
    (photos / "x").mkdir()
    (photos / "x/12.png").symlink_to("../../other.png")


def link_of_a_folder(photos):
    (photos.parent / "more").mkdir()
    (photos / "more").symlink_to(photos.parent / "more")


def link_to_nothing(photos):
    (photos / "12.jpg").symlink_to("/nowhere/at/all.jpg")


def renamed(name):
    def rename(photos):
        path = os.path.join(os.fsencode(photos), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.rename(photos / "11.jpg", path)
    return rename


NAMES = {  # what is wrong: how it is done, the message after the folder's name
    "a link out of the folder": (link_out, "'04.jpg' is a link out of the folder, expected the "
                                 "images themselves"),
    "a relative link out of the folder": (
        link_by_a_relative_way, "'x/12.png' is a link out of the folder, expected the images "
        "themselves"),
    "a linked folder": (link_of_a_folder, "'more' is a link out of the folder, expected the images "
                        "themselves"),
    "a link to nothing": (link_to_nothing, "'12.jpg' is a link out of the folder, expected the "
                          "images themselves"),
    "Latin-1": (renamed(b"r\xf6hre.jpg"), rf"'r\udcf6hre.jpg' cannot stand in a CSV file, {PLAIN}"),
    "a line break": (renamed(b"1\n1.jpg"), rf"'1\n1.jpg' cannot stand in a CSV file, {PLAIN}"),
    "a carriage return": (renamed(b"1\r.jpg"), rf"'1\r.jpg' cannot stand in a CSV file, {PLAIN}"),
    "a blank ahead": (renamed(b" 11.jpg"), f"' 11.jpg' cannot stand in a CSV file, {PLAIN}"),
    "a blank after a folder": (renamed(b"pit /11.jpg"),
                               f"'pit /11.jpg' cannot stand in a CSV file, {PLAIN}"),
}


@pytest.mark.parametrize("spoil, said", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("script", ["train_cls", "make_masks"])
def test_name(photos, labels, tmp_path, refused, script, spoil, said):
    spoil(photos)
    flags = ("--labels", labels) if script == "train_cls" else ()
    assert refused(script, "--images", photos, *flags, "--out", tmp_path / "out") == \
        f"{photos}: {said}"


def test_a_class_folder_that_is_a_link(tmp_path, refused):
    for name in ("pit", "crack"):
        (tmp_path / "kinds" / name).mkdir(parents=True)
        Image.new("L", (40, 40)).save(tmp_path / "kinds" / name / "a.png")
    (tmp_path / "kinds/crack").rename(tmp_path / "crack")
    (tmp_path / "kinds/crack").symlink_to(tmp_path / "crack")
    assert refused("train_cls", "--labels", tmp_path / "kinds", "--out", tmp_path / "out") == \
        f"{tmp_path}/kinds: 'crack' is a link out of the folder, expected the images themselves"
