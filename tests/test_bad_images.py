"""Image files and names of image files that are refused."""

import os
import struct
import zlib

import numpy as np
import pytest
from conftest import HEAD, good_rows
from PIL import Image

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
    flags = ("--labels", labels) if script == "train_cls" else ("--method", "contrast")
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


def written(content):
    return lambda path: path.write_bytes(content)


def saved_as(form, mode="RGB", cut_to=None, **options):
    def save(path):
        noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        image = Image.fromarray(noise).convert(mode)
        image.save(path, form, **options)
        path.write_bytes(path.read_bytes()[:cut_to])
    return save


def chunk(kind, content):
    return (struct.pack(">I", len(content)) + kind + content
            + struct.pack(">I", zlib.crc32(kind + content)))


def png(width, height, bits=1, content=b""):
    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(content))
            + chunk(b"IEND", b""))


def bmp(width, height):
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 62, 0, 0, 62, 40, width, height, 1, 1, 0, 0, 1,
                               1, 2, 2) + bytes(8)


BOMB = ("Image size (900000000 pixels) exceeds limit of 178956970 pixels, could be decompression "
        "bomb DOS attack.")
FILES = {  # what is wrong: how 04.jpg is spoilt, the reason
    "0 bytes": (written(b""), "no known format"),
    "text": (written(b"no picture"), "no known format"),
    "a web page": (written(b"<!DOCTYPE html><title>404</title>"), "no known format"),
    "a CSV file": (written(HEAD.encode()), "no known format"),
    "PostScript": (saved_as("EPS"), "no known format"),
    "PDF": (saved_as("PDF"), "no known format"),
    "the head of a JPEG": (saved_as("JPEG", cut_to=100), ""),
    "half a JPEG": (saved_as("JPEG", cut_to=1500), "image file is truncated"),
    "half a PNG": (saved_as("PNG", cut_to=2000), "image file is truncated"),
    "half a palette PNG": (saved_as("PNG", "P", cut_to=1500), "image file is truncated"),
    "half a BMP": (saved_as("BMP", cut_to=2000), "image file is truncated"),
    "half a CMYK JPEG": (saved_as("JPEG", "CMYK", cut_to=1500), "image file is truncated"),
    "half a TIFF": (saved_as("TIFF", cut_to=2000), ""),
    "half a WebP": (saved_as("WEBP", lossless=True, cut_to=2000), ""),
    "no pixels in a PNG": (written(png(40, 40)), "image file is truncated"),
    "a PNG without width": (written(png(0, 40)), ""),
    "a PNG of 5 bits": (written(png(40, 40, 5)), ""),
    "a PNG of 30000 x 30000": (written(png(30000, 30000)), BOMB),
    "a BMP of 30000 x 30000": (written(bmp(30000, 30000)), BOMB),
    "a TIFF of floats": (saved_as("TIFF", "F"), None),
}


@pytest.mark.parametrize("spoil, reason", FILES.values(), ids=FILES)
def test_file(photos, labels, tmp_path, refused, recwarn, spoil, reason):
    """The bombs hold no pixels: decoded, they would be called truncated."""
    spoil(photos / "04.jpg")
    said = refused("train_cls", "--images", photos, "--labels", labels, "--out", tmp_path / "out",
                   "--folds", 3)
    where = f"{labels}, row 6: {photos}/04.jpg: "
    if reason is None:
        assert said == f"{where}floating-point pixels, expected 8 or 16 bits"
    else:
        assert said.startswith(f"{where}cannot be read as an image ({reason}")
        assert said.endswith(")") and "()" not in said
    assert not len(recwarn)  # Pillow's warnings would be more lines on stderr


def test_a_folder_with_the_name_of_an_image(photos, labels, tmp_path, refused):
    (photos / "04.jpg").unlink()
    (photos / "04.jpg").mkdir()
    assert refused("train_cls", "--images", photos, "--labels", labels, "--out",
                   tmp_path / "out") == \
        f"{labels}, row 6: image '04.jpg' is not in the image folder"


def test_images_to_predict(photos, labels, tmp_path, refused):
    folds = tmp_path / "folds.csv"
    folds.write_text("ImageId,fold\n" + "".join(f"{i:02d}.jpg,{i % 2}\n" for i in range(12)))
    new = tmp_path / "new"
    flags = ("--images", photos, "--masks", labels, "--folds", folds, "--out", tmp_path / "out",
             "--predict", new)
    assert refused("train_seg", *flags) == f"{new}: no such folder, expected one with images"
    new.mkdir()
    assert refused("train_seg", *flags).startswith(f"{new}: no image in it, expected files ending")
    (new / "a.png").write_bytes(b"no picture")
    assert refused("train_seg", *flags) == \
        f"{new}/a.png: cannot be read as an image (no known format)"
