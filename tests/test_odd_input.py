"""Input that is odd but right goes through the scripts, with the numbers of plain input."""

import json

import numpy as np
import pytest
from conftest import HEAD, SMALL, call, good_rows
from PIL import Image

from cam2seg import masks
from cam2seg.data.dataset import ImageSet, MaskTargets
from cam2seg.data.images import scan
from cam2seg.data.labels import check_masks, read_labels, write_masks

PLAIN = HEAD + "\n".join(good_rows()) + "\n"
CSV_FORMS = {
    "byte order mark": "\ufeff" + PLAIN,
    "CRLF": PLAIN.replace("\n", "\r\n"),
    "byte order mark and CRLF": "\ufeff" + PLAIN.replace("\n", "\r\n"),
    "CR": PLAIN.replace("\n", "\r"),
    "quotes": '"' + PLAIN.strip().replace(",", '","').replace("\n", '"\n"') + '"\n',
    "blanks around cells": PLAIN.replace(",", " , "),
    "blank lines": PLAIN.replace("\n", "\n\n"),
    "no last line end": PLAIN.strip(),
    "rows in another order": HEAD + "\n".join(reversed(good_rows())),
    "more columns": "id," + PLAIN.strip().replace("\n", "\n7,"),
    "image and class joined": "ImageId_ClassId,EncodedPixels\n" + "\n".join(
        r.replace(",", "_", 1) for r in good_rows()),
    "a class name": "Image_Label,EncodedPixels\n" + "\n".join(
        r.replace(",", "_", 1) for r in good_rows()),
    "touching runs": PLAIN.replace("1 3", "1 2 3 1"),
    "leading zeros": PLAIN.replace("1 3", "01 003"),
    "1e6 letters in a column that is not read": "note," + HEAD + "\n".join(
        ("x" * 10 ** 6 if not i else "") + "," + r for i, r in enumerate(good_rows())),
}


def scores(tmp_path, photos, text, made=PLAIN):
    (tmp_path / "labels.csv").write_bytes(text.encode())
    (tmp_path / "made.csv").write_bytes(made.encode())
    assert call("evaluate", "--images", photos, "--labels", tmp_path / "labels.csv",
                f"m={tmp_path}/made.csv", "--figures", 1, "--overwrite", "--out",
                tmp_path / "out") == 0
    return json.loads((tmp_path / "out/metrics.json").read_text())


@pytest.mark.parametrize("text", CSV_FORMS.values(), ids=CSV_FORMS)
def test_csv_form(photos, tmp_path, text):
    """As the truth and as the masks; half of each made mask is right: Dice 2 * 3 / (3 + 6)."""
    half = PLAIN.replace("1 3", "1 6")
    plain = scores(tmp_path, photos, PLAIN, half)
    assert plain["masks"]["m"]["scores"]["dice_present"][1] == pytest.approx(2 / 3)
    assert scores(tmp_path, photos, text, half) == plain
    swapped = scores(tmp_path, photos, half, PLAIN)
    assert scores(tmp_path, photos, half, text) == swapped


NOISE = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)


def saved(image, form="PNG", **options):
    return lambda path: image.save(path, form, **options)


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


RGB = Image.fromarray(NOISE)
IMAGE_FORMS = {  # how 04.jpg is written; the name's ending is not looked at
    "grey": saved(RGB.convert("L")),
    "one bit": saved(RGB.convert("1")),
    "16 bits": saved(Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257)),
    "32 bits": saved(Image.fromarray(NOISE[..., 0].astype(np.int32) * 257), "TIFF"),
    "palette": saved(RGB.convert("P")),
    "palette with a clear colour": saved(RGB.convert("P"), transparency=bytes(range(256))),
    "alpha": saved(RGB.convert("RGBA")),
    "grey and alpha": saved(RGB.convert("LA")),
    "CMYK": saved(RGB.convert("CMYK"), "JPEG"),
    "a progressive JPEG": saved(RGB, "JPEG", progressive=True),
    "BMP": saved(RGB, "BMP"),
    "TIFF with LZW": saved(RGB, "TIFF", compression="tiff_lzw"),
    "two pages": saved(RGB, "TIFF", save_all=True, append_images=[RGB]),
    "WebP": saved(RGB, "WEBP"),
    "GIF": saved(RGB, "GIF"),
    "a quarter turn": saved(RGB, "JPEG", exif=turned(6)),
    "no such turn": saved(RGB, "JPEG", exif=turned(9)),
}


@pytest.mark.parametrize("save", IMAGE_FORMS.values(), ids=IMAGE_FORMS)
def test_image_form(photos, tmp_path, capsys, recwarn, save):
    plain = scores(tmp_path, photos, PLAIN)
    save(photos / "04.jpg")
    assert scores(tmp_path, photos, PLAIN) == plain
    assert capsys.readouterr().err == "" and not len(recwarn)


NAMES = ["a b.jpg", "r\xf6hre 2.jpg", "\u0448\u043e\u0432.jpg", "a,b.jpg", 'a"b.jpg', "A.jpg",
         "a.jpg", "a_1.jpg", "x y/\xe4.jpg", "#%&'.jpg", "\U0001f527.jpg", "-.jpg"]


def test_names_and_sizes(tmp_path):
    """Names with blanks, accents, commas, quotes, and two that differ in case; 1 x 1 to 70 x 3."""
    folder, sizes = tmp_path / "photos", {}
    for i, name in enumerate(NAMES):
        sizes[name] = ([1, 2, 70][i % 3], [1, 40, 3, 7][i % 4])
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full(sizes[name], 20 * i, np.uint8)).save(folder / name, "PNG")
    write_masks(tmp_path / "labels.csv", NAMES, ["1", "2"],
                     {(n, i % 2): f"1 {sizes[n][0] * sizes[n][1]}" for i, n in enumerate(NAMES)})
    flags = ("--images", folder, "--labels", tmp_path / "labels.csv")
    assert call("evaluate", *flags, f"m={tmp_path}/labels.csv", "--out", tmp_path / "eval") == 0
    found = json.loads((tmp_path / "eval/metrics.json").read_text())
    assert found["images"] == 12 and found["masks"]["m"]["scores"]["iou"] == [[1.0, 1.0], 1.0]
    small = ("--size", 32, 32, *SMALL[:2], *SMALL[5:])
    assert call("train_cls", *flags, "--folds", 2, "--epochs", 1, "--swa", 1, *small, "--out",
                tmp_path / "cls") == 0
    assert call("make_masks", *flags, "--cls", tmp_path / "cls", "--gate", "labels", "--workers", 0,
                "--target-layer", "features.5", "--device", "cpu", "--out", tmp_path / "masks") == 0
    assert call("train_seg", *flags, "--masks", tmp_path / "masks/masks.csv", "--folds",
                tmp_path / "cls/folds.csv", "--epochs", 1, *small, "--out", tmp_path / "seg") == 0
    for path in ("masks/masks.csv", "seg/oof_masks.csv"):
        got = read_labels(tmp_path / path, folder, ["1", "2"])
        assert got.names == sorted(NAMES)
        check_masks(path, got, sizes)


def test_run_lengths_count_on_the_image_as_its_exif_tag_turns_it(tmp_path):
    stored = np.zeros((20, 40), np.uint8)
    stored[2:9, 30:36] = 255
    Image.fromarray(stored).save(tmp_path / "a.png", exif=turned(6))
    shown = np.rot90(stored, -1)  # a quarter turn clockwise
    sizes = {name: seen[0] for name, seen in scan(tmp_path, ["a.png"]).items()}
    assert sizes == {"a.png": (40, 20)}
    rles = {("a.png", 0): masks.rle_encode(shown > 0)}
    pixels, target = ImageSet(tmp_path, ["a.png"], (40, 20), MaskTargets(rles, sizes, 1))[0, None]
    assert (target[0] == (pixels[..., 0] > 0)).all() and target.sum() == 42


def test_a_link_within_the_folder_is_an_image(photos, tmp_path):
    (photos / "02.jpg").unlink()
    (photos / "02.jpg").symlink_to("01.jpg")
    assert scores(tmp_path, photos, PLAIN)["images"] == 9


def test_a_linked_image_folder_is_one(photos, tmp_path):
    (tmp_path / "link").symlink_to(photos)
    assert scores(tmp_path, tmp_path / "link", PLAIN)["images"] == 9
