"""What a resumed run compares with the run it goes on with, and what is refused at the start."""

import hashlib
import json
import os
import struct
import zlib

import numpy as np
import pytest
from conftest import HEAD, call, good_rows
from PIL import Image

import make_masks
import train_cls
from cam2seg.data import images, stored_maps
from cam2seg.data.errors import DataError
from cam2seg.data.files import contents
from cam2seg.data.labels import Labels
from cam2seg.runs import folder, inputs
from cam2seg.training import cross_validation, held_out_maps

PLAIN = HEAD + "\n".join(good_rows()) + "\n"
NAMES = [f"{i:02d}.jpg" for i in range(12)]


@pytest.fixture
def training(photos, tmp_path, monkeypatch, capsys):
    """training(*flags): status and output of a run that stops as its first network is trained."""
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(cross_validation, "fit", stop)
    (tmp_path / "labels.csv").write_bytes(PLAIN.encode())

    def start(*flags):
        capsys.readouterr()
        status = call("train_cls", "--images", photos, "--labels", tmp_path / "labels.csv",
                      "--folds", 2, "--groups", "none", "--weights", "none", "--size", 32, 32,
                      "--workers", 0, "--device", "cpu", "--out", tmp_path / "out", *flags)
        said = capsys.readouterr()
        return status, said.out + said.err

    return start


SAME = {  # other ways to write the label file
    "other line ends": PLAIN.replace("\n", "\r\n"),
    "a byte order mark": "\ufeff" + PLAIN,
    "rows in another order": HEAD + "\n".join(reversed(good_rows())),
    "columns in another order": "ClassId,ImageId,EncodedPixels\n" + "".join(
        "{1},{0},{2}\n".format(*row.split(",")) for row in good_rows()),
    "quotes and blanks": PLAIN.replace(",", " , ").replace("1 3", '"1 3"').replace(' "', '"')}
OTHER = {  # files that say something else
    "a mask": PLAIN.replace("00.jpg,1,1 3", "00.jpg,1,1 4"),
    "a label": PLAIN.replace("00.jpg,1,", "00.jpg,2,"),
    "a row less": PLAIN.replace("00.jpg,1,1 3\n", "")}


@pytest.mark.parametrize("text", SAME.values(), ids=SAME)
def test_the_same_labels_written_otherwise_are_the_same(training, tmp_path, text):
    assert training()[0] == 130
    (tmp_path / "labels.csv").write_bytes(text.encode())
    assert training("--resume")[0] == 130


@pytest.mark.parametrize("text", OTHER.values(), ids=OTHER)
def test_other_labels_are_refused(training, tmp_path, text):
    assert training()[0] == 130
    (tmp_path / "labels.csv").write_bytes(text.encode())
    status, said = training("--resume")
    assert status == 2 and (f"error: {tmp_path}/labels.csv changed since {tmp_path}/out/args.json "
                            "was written: a resumed run keeps its labels and its images\n") in said


def test_columns_of_classes_in_another_order_are_refused(training, tmp_path):
    rows = [(n, i % 2, i // 2 % 2) for i, n in enumerate(NAMES)]
    (tmp_path / "labels.csv").write_text("ImageId,pit,rust\n" + "".join(
        f"{n},{a},{b}\n" for n, a, b in rows))
    assert training()[0] == 130
    (tmp_path / "labels.csv").write_text("ImageId,rust,pit\n" + "".join(
        f"{n},{b},{a}\n" for n, a, b in rows))
    status, said = training("--resume")
    assert status == 2 and "error: classes rust, pit, but " in said
    assert said.endswith("args.json says pit, rust: a resumed run keeps its classes\n")


def test_pixels_that_changed_are_noticed_and_times_are_not(training, photos):
    assert training()[0] == 130
    os.utime(photos / "03.jpg", (1, 1))
    assert training("--resume")[0] == 130
    Image.fromarray(np.full((40, 40), 200, np.uint8)).save(photos / "03.jpg")
    status, said = training("--resume")
    assert status == 2 and "error: the content of the images changed since " in said


def test_resume_without_a_run_says_that_one_begins(training, tmp_path):
    status, said = training("--resume")
    assert status == 130
    assert f"{tmp_path}/out holds no run to go on with: a new one begins\n" in said
    assert "a new one begins" not in training("--resume")[1]


@pytest.mark.parametrize("script", ["train_cls", "make_masks", "train_seg", "evaluate"])
def test_resume_and_overwrite_exclude_each_other(photos, tmp_path, refused, script):
    assert refused(script, "--images", photos, "--resume", "--overwrite", "--out",
                   tmp_path / "out") == \
        "--resume goes on with a run and --overwrite replaces it: give one of them"


@pytest.mark.parametrize("out", ["photos", "photos/runs/eval", "photos/../photos/a", "link/a"])
@pytest.mark.parametrize("script", ["train_cls", "make_masks", "train_seg", "evaluate"])
def test_an_out_among_the_images_is_refused(photos, tmp_path, refused, script, out):
    (tmp_path / "link").symlink_to(photos)
    assert refused(script, "--images", photos, "--out", tmp_path / out) == \
        f"--out {tmp_path}/{out} lies in {photos}, where its pictures would be taken for images: " \
        "name a folder outside"


def test_an_out_among_the_new_images_or_the_folders_of_classes_is_refused(photos, tmp_path,
                                                                          refused):
    (tmp_path / "new").mkdir()
    assert refused("train_seg", "--images", photos, "--predict", tmp_path / "new", "--out",
                   tmp_path / "new/seg").startswith(f"--out {tmp_path}/new/seg lies in ")
    assert refused("train_cls", "--labels", photos, "--out", photos / "cls").startswith("--out ")


def test_a_gif_is_an_image(photos, tmp_path):
    Image.fromarray(np.full((40, 40), 9, np.uint8)).save(photos / "a.GIF")
    (tmp_path / "labels.csv").write_text(PLAIN + "a.GIF,1,1 3\n")
    assert call("evaluate", "--images", photos, "--labels", tmp_path / "labels.csv",
                f"m={tmp_path}/labels.csv", "--out", tmp_path / "out") == 0
    assert json.loads((tmp_path / "out/metrics.json").read_text())["images"] == 10


# Runs that are not there


@pytest.mark.parametrize("files, said", [
    (None, "is no folder"), ([], "holds nothing"), (["b", "a.csv", ".d"], "holds a.csv, b"),
    (list("abcdefghij"), "holds a, b, c, d, e, f, g, h ...")])
def test_a_folder_that_is_no_run(photos, tmp_path, refused, files, said):
    cls = tmp_path / "clss"
    for name in files or []:
        cls.mkdir(exist_ok=True)
        (cls / name).touch()
    if files == []:
        cls.mkdir()
    assert contents(cls) == f"{cls} {said}"
    assert refused("make_masks", "--images", photos, "--cls", cls, "--out", tmp_path / "out") == \
        f"--cls {cls} is no run of train_cls.py, which has an args.json and a folds.csv: {cls} " \
        f"{said}"
    (tmp_path / "true.csv").write_text(PLAIN)
    got = refused("train_seg", "--images", photos, "--masks", tmp_path / "true.csv", "--folds",
                  cls / "folds.csv", "--out", tmp_path / "out")
    assert got == f"{cls}/folds.csv: cannot be read as CSV in UTF-8 (no such file; {cls} {said})"


@pytest.fixture
def made(photos, tmp_path):
    """The run of a classifier and that of its maps, made without a network."""
    cls, out = tmp_path / "cls", tmp_path / "masks"
    (cls / "fold0").mkdir(parents=True)
    (cls / "fold0/swa.pt").touch()
    (cls / "folds.csv").write_text("ImageId,fold\n" + "".join(f"{n},0\n" for n in NAMES))
    (cls / "args.json").write_text(json.dumps({"args": {}, "classes": ["1", "2"]}))
    flags = ("--images", photos, "--cls", cls, "--out", out)
    args = make_masks.get_args([str(f) for f in flags])
    folder.start_run(args, held_out_maps.network_files(args), ["1", "2"], NAMES,
                     inputs.scan(photos, NAMES).digests)
    store = stored_maps.MapStore(out, 12, 2)
    store.add(range(12), np.random.default_rng(0).random((12, 2, 2, 2)).astype(np.float16),
              np.ones((12, 2)))
    store.finish(NAMES, np.zeros(12, int), dict.fromkeys(NAMES, (40, 40)), ["1", "2"])
    return flags


def test_reused_maps_leave_the_flags_that_were_used(made, tmp_path):
    assert call("make_masks", *made, "--reuse-maps", "--threshold", 0.5) == 0
    found = json.loads((tmp_path / "masks/args.json").read_text())
    assert found["args"]["threshold"] == 0.5 and found["classes"] == ["1", "2"]
    half = (tmp_path / "masks/masks.csv").read_bytes()
    assert call("make_masks", *made, "--reuse-maps", "--threshold", 0.9) == 0
    assert (tmp_path / "masks/masks.csv").read_bytes() != half
    again = make_masks.get_args([str(f) for f in (*made, "--resume", "--threshold", 0.9)])
    folder.check_flags(again)  # --resume knows them too, with and without --reuse-maps


def test_one_value_of_a_flag_that_took_no_more_once_is_the_same(tmp_path):
    """As the one path of --masks, which args.json of an older run has without a list."""
    def begun(masks):
        (tmp_path / "args.json").write_text(json.dumps({"args": {"masks": masks}, "sha256": {},
                                                        "classes": ["1"]}))

    begun("m.csv")
    folder.check_same_run(tmp_path / "args.json", {"args": {"masks": ["m.csv"]}, "sha256": {}})
    for then, now in (("m.csv", ["n.csv"]), ("m.csv", ["m.csv", "n.csv"]), ("m.csv", []),
                      (["m.csv"], ["n.csv"])):
        begun(then)
        with pytest.raises(DataError, match="^--masks is .*: a resumed run keeps its flags$"):
            folder.check_same_run(tmp_path / "args.json", {"args": {"masks": now}, "sha256": {}})


def test_a_renamed_image_is_another_list(made, photos):
    """Although the images, in their order, have the same bytes."""
    (photos / "11.jpg").rename(photos / "12.jpg")
    args = make_masks.get_args([str(f) for f in (*made, "--resume")])
    sources, names = held_out_maps.network_files(args), [*NAMES[:-1], "12.jpg"]
    with pytest.raises(DataError, match="^the list of images changed since "):
        folder.start_run(args, sources, ["1", "2"], names, inputs.scan(photos, names).digests)


def test_reused_maps_of_a_run_that_is_not_there(made, tmp_path, refused):
    flags = (*made[:-1], tmp_path / "new", "--reuse-maps")
    assert refused("make_masks", *flags) == (
        f"--reuse-maps finds no maps: {tmp_path}/new is no folder; run without --reuse-maps first, "
        "or name the --out of that run")


def test_a_method_without_maps_reuses_none(photos, tmp_path, refused):
    (tmp_path / "labels.csv").write_text(PLAIN)
    assert refused("make_masks", "--images", photos, "--labels", tmp_path / "labels.csv",
                   "--method", "contrast", "--reuse-maps", "--out", tmp_path / "out") == \
        "--method contrast makes no maps that --reuse-maps could take"


# Pixels of 16 bits


@pytest.mark.parametrize("peak, others, said", [
    (4095, 4095, "the 2 images of 16 bits in {} use 12 of them, so that they are read as 0 to 15 "
     "of 255 and are nearly black: multiply their values by 16, or save them with 8 bits"),
    (255, 1023, "use 10 of them, so that they are read as 0 to 3 of 255 and are nearly black: "
     "multiply their values by 64"),
    (16383, 255, "use 14 of them"), (16384, 255, None), (65535, 4095, None)])
def test_16_bit_images_with_fewer_bits_are_said_loudly(tmp_path, peak, others, said):
    for name, high in (("a.png", peak), ("b.png", others)):
        Image.fromarray(np.array([[0, high]], np.uint16)).save(tmp_path / name)
    Image.new("L", (2, 1), 255).save(tmp_path / "c.png")  # 8 bits do not count
    warned, lines = [], []
    names = ["a.png", "b.png", "c.png"]
    images.scan(tmp_path, names, warn=warned.append)
    inputs.scan(tmp_path, names, lambda event, text="", **facts: lines.append(text))
    if said is None:
        assert not warned
    else:
        assert len(warned) == 1 and said.format(tmp_path) in warned[0] and warned[0] in lines
        assert warned[0].startswith("WARNING: ")


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_coloured_16_bit_images_with_fewer_bits_are_said_too(tmp_path, suffix):
    """Pillow reads them with 8 bits a value, and writes none."""
    pixels = np.full((4, 4, 3), 4095, np.uint16)
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(png_of(pixels) if suffix == "png" else tiff_of(pixels))
    assert images.open_image(path).max() == 15
    warned = []
    images.scan(tmp_path, [path.name], warn=warned.append)
    assert len(warned) == 1 and "use 12 of them" in warned[0]
    # A BMP whose pixels, and not their values, have 16 bits.
    (tmp_path / "b.bmp").write_bytes(
        b"BM" + struct.pack("<IIIIiiHHIIIIII", 58, 0, 54, 40, 2, 1, 1, 16, 0, 4, 0, 0, 0, 0)
        + bytes(4))
    images.scan(tmp_path, ["b.bmp"], warn=warned.append)
    assert len(warned) == 1


def png_of(pixels):
    """A PNG of uint16 (H, W, 3)."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(
            ">I", zlib.crc32(kind + data))

    H, W, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + b"".join((
        chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, 16, 2, 0, 0, 0)),
        chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")))


def tiff_of(pixels):
    """A TIFF of uint16 (H, W, 3)."""
    H, W, _ = pixels.shape
    data, behind = pixels.astype("<u2").tobytes(), 8 + 2 + 9 * 12 + 4
    tags = ((256, W), (257, H), (258, behind), (259, 1), (262, 2), (273, behind + 6), (277, 3),
            (278, H), (279, len(data)))
    entries = b"".join(struct.pack("<HHII", tag, 3 if tag == 258 else 4, 3 if tag == 258 else 1, v)
                       for tag, v in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + struct.pack(
        "<HHH", 16, 16, 16) + data


def test_dark_8_bit_images_are_no_matter(tmp_path):
    Image.new("L", (2, 1), 3).save(tmp_path / "a.png")
    warned = []
    images.scan(tmp_path, ["a.png"], warn=warned.append)
    assert not warned


# Table 1


@pytest.mark.parametrize("chunk", [100, 2**20])
def test_the_digest_of_an_image_is_that_of_its_whole_file(photos, monkeypatch, chunk):
    """It is taken in the look that decodes the image, after the part that Pillow has read."""
    monkeypatch.setattr(images, "CHUNK", chunk)
    with open(photos / "03.jpg", "ab") as file:
        file.write(b"behind the image")
    found = inputs.scan(photos, NAMES)
    assert found.digests == {n: hashlib.sha256((photos / n).read_bytes()).hexdigest()
                             for n in NAMES}
    assert found.sizes == dict.fromkeys(NAMES, (40, 40))


def test_table_1_names_as_many_epochs_as_there_are(photos, tmp_path, capsys):
    found = Labels(NAMES, ["1"], np.array([[i % 2] for i in range(12)], np.uint8), None, {})
    (tmp_path / "fold0").mkdir()
    for name in train_cls.RESULTS:
        (tmp_path / f"fold0/{name}.csv").write_text("ImageId,1\n" + "".join(
            f"{n},0.5\n" for n in NAMES))
    for epochs, said in ((2, "mean of 2 (SWA)"), (20, "mean of 3 (SWA)")):
        flags = ["--out", str(tmp_path), "--epochs", str(epochs)]
        args = train_cls.get_args(flags)
        train_cls.write_results(args, found)
        assert said in capsys.readouterr().out


def test_no_link_in_the_folder_of_a_run_leads_a_file_out_of_it(photos, refused, tmp_path):
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    (out / ".lock").symlink_to(outside)
    photos.parent.joinpath("labels.csv").write_text(
        "ImageId,a\n" + "".join(f"{i:02d}.jpg,{i % 2}\n" for i in range(12)))
    flags = ("make_masks", "--images", photos, "--labels", photos.parent / "labels.csv", "--method",
             "contrast", "--cls", tmp_path / "none", "--out", out)
    assert refused(*flags) == f"{out}/.lock is a link, expected a file"
    (out / ".lock").unlink()
    os.mkfifo(out / ".lock")
    assert refused(*flags) == f"{out}/.lock is a pipe or a device, expected a file"
    (out / ".lock").unlink()
    (out / "fold0").symlink_to(outside)
    assert refused(*flags) == (
        f"{out}/fold0 is a link, expected a folder: all is written inside --out")
    (out / "fold0").unlink()
    (out / "args.json.tmp").symlink_to(outside)
    assert call(*flags) == 0
    assert not outside.exists() and (out / "args.json").is_file()


def test_a_folder_of_masks_has_a_digest_of_its_names_and_contents(tmp_path):
    (tmp_path / "m/sub").mkdir(parents=True)
    (tmp_path / "m/sub/a.png").write_bytes(b"1")
    seen = [folder.digests([tmp_path / "m"])]
    (tmp_path / "m/sub/a.png").write_bytes(b"2")
    seen.append(folder.digests([tmp_path / "m"]))
    (tmp_path / "m/sub/a.png").rename(tmp_path / "m/sub/b.png")
    seen.append(folder.digests([tmp_path / "m"]))
    assert len({str(found) for found in seen}) == 3
