"""cam2seg.demo: the demo strips, their masks and their table."""

import csv
import hashlib
import os
import signal
import sys

import numpy as np
import pytest
from PIL import Image

from cam2seg.demo import __main__ as demo
from cam2seg.demo import strips as synthetic
from cam2seg.runs import signals
from cam2seg.runs.exits import run

SMALL = (64, 256)


def draw(index, size=SMALL, seed=0):
    return synthetic.strip(np.random.default_rng((seed, index)), size)


def forced(monkeypatch, kinds, index, size=SMALL):
    monkeypatch.setattr(synthetic, "_kinds", lambda rng: np.array(kinds, int))
    return draw(index, size)


def around(mask, reach):
    """True within reach pixels of the mask but outside it."""
    wide = np.zeros(np.add(mask.shape, 2 * reach), bool)
    for row, column in np.argwhere(mask):
        wide[row : row + 2 * reach + 1, column : column + 2 * reach + 1] = True
    return wide[reach:-reach, reach:-reach] & ~mask


def literal_mask(rle, size):
    """Pixel by pixel from the format's definition: 1-based, down the first column first."""
    mask = np.zeros(size, bool)
    numbers = [int(number) for number in rle.split()]
    for start, length in zip(numbers[::2], numbers[1::2]):
        for position in range(start - 1, start - 1 + length):
            mask[position % size[0], position // size[0]] = True
    return mask


def files(folder):
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def test_same_seed_same_bytes_and_another_seed_other_bytes(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        synthetic.write(tmp_path / name, images=6, size=SMALL, seed=seed)
    first, second, other = (files(tmp_path / name) for name in "abc")
    assert sorted(first) == ["train.csv", *(f"train_images/0000{i}.jpg" for i in range(6))]
    assert first == second
    assert not any(first[name] == other[name] for name in first if name.endswith(".jpg"))


def test_an_image_does_not_depend_on_how_many_there_are(tmp_path):
    synthetic.write(tmp_path / "few", images=3, size=SMALL)
    synthetic.write(tmp_path / "many", images=7, size=SMALL)
    few, many = files(tmp_path / "few"), files(tmp_path / "many")
    assert len(few) == 4 and len(many) == 8
    assert all(few[name] == many[name] for name in few if name.endswith(".jpg"))
    tables = [(tmp_path / name / "train.csv").read_text() for name in ("few", "many")]
    assert tables[1][: len(tables[0])] == tables[0]


def test_table_holds_the_masks_and_pictures_hold_the_strips(tmp_path):
    counts = synthetic.write(tmp_path, images=24, size=SMALL, seed=1)
    with open(tmp_path / "train.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["ImageId", "ClassId", "EncodedPixels"]
    assert rows == sorted(rows)
    table = {(name, int(kind)): rle for name, kind, rle in rows}
    seen = [0] * 5
    for index in range(24):
        name = f"{index:05d}.jpg"
        image, masks = draw(index, seed=1)
        with Image.open(tmp_path / "train_images" / name) as picture:
            assert (picture.mode, picture.size) == ("RGB", (256, 64))
            # JPEG is lossy; a picture of another strip differs by tens of grey levels.
            assert np.abs(np.asarray(picture)[..., 0] - image.astype(float)).mean() < 4
        for kind in range(4):
            rle = table.pop((name, kind + 1), "")
            assert np.array_equal(literal_mask(rle, SMALL), masks[kind])
            seen[kind] += rle != ""
        seen[4] += not masks.any()
    assert table == {} and counts == seen and min(seen) > 0


def test_shares_of_kinds_and_of_clean_strips():
    present = np.array([draw(i, (32, 128))[1].any(axis=(1, 2)) for i in range(400)])
    kinds = present.sum(axis=1)
    # Expected: 0.25 clean, 0.25 with several kinds, 0.2625 of each; within 3 deviations of 400.
    assert abs((kinds == 0).mean() - 0.25) < 0.065
    assert abs((kinds > 1).mean() - 0.25) < 0.065
    assert np.all(np.abs(present.mean(axis=0) - 0.2625) < 0.066)


@pytest.mark.parametrize("kind, low, high", [
    (0, 0.01, 0.25), (1, 0.01, 0.12), (2, 0.02, 0.3), (3, 0.05, 0.6)])
def test_defects_stand_out_from_the_steel_around_them(monkeypatch, kind, low, high):
    tones, textures, areas = [], [], []
    for index in range(30):
        image, masks = forced(monkeypatch, [kind], index)
        clean, none = forced(monkeypatch, [], index)
        assert not none.any() and [mask.any() for mask in masks] == [k == kind for k in range(4)]
        inside, near = masks[kind], around(masks[kind], 4)
        # The steel around it is taken from the strip without the defect: a pit's lip lies there.
        tones.append(image[inside].mean() / clean[near].mean() - 1)
        textures.append(image[inside].std() / clean[near].std())
        areas.append(inside.mean())
        # The same strip without the defect differs where the mask is, not far from it.
        changed = np.abs(image.astype(float) - clean)
        assert changed[inside].mean() > 5 * changed[~inside & ~near].mean()
    assert low < np.mean(areas) < high
    assert np.median(textures) > 1.5
    # Pits are dark; a crack is dark beside a weaker bright lip; the others may be either.
    assert {0: np.median(tones) < -0.15, 1: np.median(tones) < -0.05, 2: True, 3: True}[kind]


def test_cracks_and_pits_survive_halving(monkeypatch):
    for index in range(8):
        _, masks = forced(monkeypatch, [1], index, (128, 512))
        widths = masks[1].sum(axis=1)
        assert np.median(widths[widths > 0]) >= 6
        _, masks = forced(monkeypatch, [0], index, (128, 512))
        begins = masks[0] & ~np.pad(masks[0], ((0, 0), (1, 0)))[:, :-1]
        # The mean run along a row: a pit spans several pixels of a network at half size.
        assert masks[0].sum() / begins.sum() >= 12


def test_pits_have_a_bright_lip_and_black_scale_has_none():
    for index in range(8):
        rng = np.random.default_rng((2, index))
        change, mask = synthetic._pits(rng, (128, 512), 1, (0, 512))
        dark = change < 0
        # Lit from one side: most of the ring is brighter, its lit quarter by far.
        ring = change[around(dark, 3)]
        assert (ring > 0).mean() > 0.6 and np.quantile(ring, 0.75) > 0.3
        assert mask[dark].mean() > 0.9
        assert synthetic.steel._scale(rng, (128, 512), 1).max() <= 0


@pytest.mark.parametrize("kinds", [[0], [1], [2], [3], [0, 1, 2, 3]])
def test_the_background_does_not_give_the_kind_away(monkeypatch, kinds):
    for index in range(12):
        image, masks = forced(monkeypatch, kinds, index)
        clean, _ = forced(monkeypatch, [], index)
        marked = masks.any(axis=0)
        far = ~marked & ~around(marked, 8)
        # Surface, stains, rings, splashes, bands, margin and noise are equal.
        assert far.mean() > 0.1
        # A speck or two beside a torn patch is too small for its annotator.
        assert np.count_nonzero(image[far] != clean[far]) <= 4


def test_masks_keep_off_the_black_margin():
    margins = 0
    for index in range(120):
        rng = np.random.default_rng((0, index))
        image, masks = synthetic.strip(rng, SMALL)
        black = np.median(image, axis=0) < 12
        margins += black[0] or black[-1]
        for side in (slice(0, 1), slice(-1, None)):
            if black[side].all():
                assert not masks[:, :, side].any()
    assert margins > 4


def command(*flags):
    """Exit status of python -m cam2seg.demo."""
    return run(demo.draw, lambda: synthetic.get_args([str(f) for f in flags]))


def test_refuses_what_it_must_in_one_line(tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = files(tmp_path)
    for arguments, words in (
            (["full"], "is not empty"), (["file"], "file"),
            (["new", "--size", "31", "128"], "31 x 128 is below 32 x 128"),
            (["new", "--size", "32", "127"], "32 x 127 is below 32 x 128"),
            (["new", "--images", "0"], "0 images"), (["new", "--images", "x"], "invalid int"),
            (["new", "--seed", "-1"], "seed -1")):
        with pytest.raises(SystemExit) as stop:
            sys.exit(command(tmp_path / arguments[0], *arguments[1:]))
        out, error = capsys.readouterr()
        assert stop.value.code == 2 and out == ""
        assert error.startswith("error: ") and error.count("\n") == 1 and words in error
    assert files(tmp_path) == before


def test_a_failure_half_way_leaves_no_table_and_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "rle_encode", lambda mask: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        synthetic.write(tmp_path, images=8, size=SMALL)
    assert list(tmp_path.iterdir()) == []


def test_command_says_what_it_wrote(tmp_path, capsys):
    assert command(tmp_path / "de mo", "--images", "5", "--size", "32", "128") == 0
    out, error = capsys.readouterr()
    said, following = out.splitlines()
    assert error == "" and said.startswith("5 images in ") and "clean" in said
    assert following == f"next: python train_cls.py --data '{tmp_path}/de mo'"
    assert len(list((tmp_path / "de mo" / "train_images").iterdir())) == 5


def test_a_signal_ends_it_in_one_line_and_leaves_an_empty_folder(tmp_path, capsys, monkeypatch):
    real, left = synthetic.strip, [3]

    def strip(rng, size):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGINT)
        return real(rng, size)

    monkeypatch.setattr(synthetic.write, "__defaults__",
                        tuple(strip if d is real else d for d in synthetic.write.__defaults__))
    assert command(tmp_path, "--images", 9, "--size", 32, 128) == 130
    assert left == [0] and not any(tmp_path.iterdir()) and not signals.asked_to_stop()
    assert capsys.readouterr() == ("", "stopped by SIGINT\n")
