"""Masks by depth through make_masks.py, and training that starts from another run's encoder."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, call, contents, interrupted, results
from PIL import Image

import make_masks
from cam2seg import masks, models
from cam2seg.data import depth_files
from cam2seg.data.csv_files import read_csv, write_csv
from cam2seg.data.errors import DataError
from cam2seg.data.folds import read_folds
from cam2seg.data.labels import read_masks
from cam2seg.demo import rooms
from cam2seg.methods import depth
from cam2seg.training import cross_validation, depth_masks, fit, initial

SIZE = (40, 48)
BINS = depth.Bins((0.5, 1.0, 1.5, 2.0), (36.0, 72.0, 108.0, 144.0))
CAMERA = [f"{v:g}" for v in rooms.camera_of(SIZE)]


@pytest.fixture
def made(tmp_path):
    """Six rooms as the command writes them."""
    rooms.main([str(tmp_path / "rooms"), "--images", "6", "--size", *map(str, SIZE)])
    return tmp_path / "rooms"


def flags(made, out, *more):
    return ("--images", made / "train_images", "--method", "depth", "--depth", made / "depth",
            "--camera", *CAMERA, "--normal-radius", 1, 4, "--out", out, "--cls", out / "none",
            *more)


def labels_in(out, name):
    """int (H, W) of an image's masks, -1 where ignore.csv names a pixel."""
    names = depth.class_names(BINS)
    found = [read_masks(out / f"{kind}.csv", classes=names) for kind in ("masks", "ignore")]
    label = np.full(SIZE, -9)
    for c in range(25):
        mask = masks.rle_decode(found[0].rles.get((name, c), ""), SIZE)
        left_out = masks.rle_decode(found[1].rles.get((name, c), ""), SIZE)
        assert (label[mask] == -9).all() and not (mask & left_out).any()
        label[mask] = c
        assert c == 0 or (left_out == (label == -1)).all()  # the same for all classes
        label[left_out] = -1
    return label


def test_masks_are_the_classes_of_the_stored_depth(made, tmp_path, capsys):
    out = tmp_path / "out"
    assert call("make_masks", *flags(made, out, "--review", 2)) == 0
    said = capsys.readouterr().out
    assert "below36deg  36-72deg" in said and "components" not in said
    count = np.zeros(25)
    for path in sorted((made / "depth").iterdir()):
        metres = np.asarray(Image.open(path)) / 1000
        metres[metres == 0] = np.nan
        label = depth.labels_of(metres, rooms.camera_of(SIZE), BINS, (1, 4))
        assert (labels_in(out, path.name) == label).all()
        count += [(label == c).sum() for c in range(25)]
    found = json.loads((out / "metrics.json").read_text())
    share = np.array(found["table2"][0]["choice"])
    np.testing.assert_allclose(share.ravel(), count / count.sum())
    assert found["classes"] == depth.class_names(BINS) and (out / "review.png").exists()
    fold = read_folds(out / "folds.csv")
    assert sorted(fold) == sorted(p.name for p in (made / "depth").iterdir())
    assert set(fold.values()) == {0, 1, 2, 3, 4}


def test_arrays_of_metres_give_what_the_flags_ask_for(made, tmp_path):
    """Floats are metres; whole numbers count --depth-units, in a .npy as in a PNG."""
    out = tmp_path / "out"
    for i, path in enumerate(sorted((made / "depth").iterdir())):
        units = np.asarray(Image.open(path))
        np.save(path.with_suffix(".npy"), units / 4000 if i % 2 else units)
        path.unlink()
    more = ("--depth-units", 4000, "--height-edges", 0.2, "--angle-edges", 30, 100,
            "--floor-percent", 5)
    assert call("make_masks", *flags(made, out, *more)) == 0
    bins = depth.Bins((0.2,), (30.0, 100.0))
    found = read_masks(out / "masks.csv", classes=depth.class_names(bins))
    for i, path in enumerate(sorted((made / "depth").iterdir())):
        metres = np.load(path) / (1 if i % 2 else 4000)
        metres[metres == 0] = np.nan
        label = depth.labels_of(metres, rooms.camera_of(SIZE), bins, (1, 4), 5.0)
        for c in range(6):
            rle = found.rles.get((f"{path.stem}.png", c), "")
            assert (masks.rle_decode(rle, SIZE) == (label == c)).all()


def test_a_stopped_run_goes_on_and_a_changed_depth_is_refused(made, tmp_path, refused):
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert call("make_masks", *flags(made, whole)) == 0
    with interrupted(depth, "labels_of", 4):
        assert call("make_masks", *flags(made, out)) == 130
    assert not (out / "masks.csv").exists()
    assert call("make_masks", *flags(made, out, "--resume")) == 0
    unlike = {"metrics.json"}  # it holds --cls, which is below --out here
    assert {k: v for k, v in results(out).items() if k not in unlike} == {
        k: v for k, v in results(whole).items() if k not in unlike}
    assert "a resumed run keeps its flags" in refused(
        "make_masks", *flags(made, out, "--resume", "--depth-units", 999))
    path = made / "depth/00003.png"
    Image.fromarray(np.asarray(Image.open(path)) + np.uint16(1)).save(path)
    assert "depth/00003.png changed" in refused("make_masks", *flags(made, out, "--resume"))


def spoil(folder, kind):
    """Replace the depth of the third room, and say what the error must name."""
    path = folder / "depth/00002.png"
    good = np.asarray(Image.open(path)).copy()
    metres = good / 1000
    path.unlink()
    if kind == "missing":
        return "no file of depth for the image 00002.png, expected either 00002.png or 00002.npy"
    if kind == "two files":
        Image.fromarray(good).save(path)
        np.save(path.with_suffix(".npy"), good)
        return "two files of depth for the image 00002.png"
    if kind == "not finite" or kind == "negative":
        metres[3, 4] = np.nan if kind == "not finite" else -1
        np.save(path.with_suffix(".npy"), metres)
        return "00002.npy: a depth that is negative or not finite, expected lengths"
    if kind in ("three axes", "words"):
        np.save(path.with_suffix(".npy"), good[None] if kind == "three axes" else good.astype(str))
        return "00002.npy: expected a .npy of numbers of shape (H, W)"
    if kind == "pickled":
        np.save(path.with_suffix(".npy"), np.array([{}]), allow_pickle=True)
        return "00002.npy: cannot be read as an array of numbers"
    if kind == "cut off":
        path.write_bytes((folder / "depth/00001.png").read_bytes()[:200])
        return "00002.png: cannot be read as a PNG"
    if kind == "no picture":
        path.write_bytes(b"depth")
        return "00002.png: cannot be read as a PNG"
    image = {"8 bits": (good >> 8).astype(np.uint8), "zeros": 0 * good, "size": good[:-1],
             "colours": np.zeros((*SIZE, 3), np.uint8)}[kind]
    Image.fromarray(image).save(path)
    return {"8 bits": "00002.png: a PNG of mode L, expected grey of 16 bits",
            "colours": "00002.png: a PNG of mode RGB, expected grey of 16 bits",
            "zeros": "00002.png: 0 everywhere, expected depth at some pixels",
            "size": "00002.png: depth of 39 x 48 pixels, expected 40 x 48 as of its image"}[kind]


@pytest.mark.parametrize("kind", [
    "missing", "two files", "not finite", "negative", "three axes", "words", "pickled", "cut off",
    "no picture", "8 bits", "zeros", "size", "colours"])
def test_bad_depth_is_refused_in_one_line(made, tmp_path, refused, kind):
    said = spoil(made, kind)
    assert said in refused("make_masks", *flags(made, tmp_path / "out"))


@pytest.mark.parametrize("more, said", [
    (["--height-edges", 1, 1], "--height-edges [1.0, 1.0]: expected rising numbers"),
    (["--height-edges", "nan"], "--height-edges [nan]: expected rising numbers"),
    (["--height-edges", 1, 1.0000001], "expected rising numbers that differ in six"),
    (["--angle-edges", 0, 90], "--angle-edges [0.0, 90.0]: expected degrees between 0 and 180"),
    (["--camera", 0, 9, 9, 9], "expected two focal lengths above 0"),
    (["--camera", 9, 9, "inf", 9], "expected two focal lengths above 0"),
    (["--labels", "labels.csv"], "--method depth takes no --labels"),
    (["--gate", "labels"], "--method depth takes no --labels"),
    (["--reuse-maps"], "--method depth takes no --labels")])
def test_flags_that_do_not_fit_are_refused(made, tmp_path, refused, more, said):
    assert said in refused("make_masks", *flags(made, tmp_path / "out", *more))


def test_depth_needs_its_flags_and_belongs_to_its_method(made, tmp_path, refused):
    images, out = made / "train_images", tmp_path / "out"
    for given in (["--depth", made / "depth"], ["--camera", *CAMERA]):
        assert "needs --depth FOLDER and --camera FX FY CX CY" in refused(
            "make_masks", "--images", images, "--method", "depth", *given, "--out", out)
    assert refused("make_masks", *flags(made, out), "--classes", "2") == \
        "--method depth names its classes itself, expected no --classes"
    assert "--depth is for --method depth" in refused(
        "make_masks", "--images", images, "--labels", made / "train.csv", "--method", "contrast",
        "--depth", made / "depth", "--out", out)


@pytest.mark.parametrize("flag, value, said", [
    ("--depth-units", "0", "expected a number above 0"),
    ("--depth-units", "inf", "expected a number above 0"),
    ("--floor-percent", "101", "101: expected a number from 0 to 100"),
    ("--normal-radius", "0", "0: expected a whole number from 1 up")])
def test_values_that_no_flag_takes(flag, value, said, capsys):
    with pytest.raises(SystemExit) as stop:
        make_masks.get_args([flag, *([value] * (2 if flag == "--normal-radius" else 1))])
    assert stop.value.code == 2 and said in capsys.readouterr().err


def test_whole_numbers_count_units_and_zero_is_no_depth(tmp_path):
    values = np.array([[0, 1500], [40000, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    found = depth_files.read(tmp_path / "a.png", 500, (2, 2))
    np.testing.assert_array_equal(found, [[np.nan, 3], [80, 131.07]])
    with pytest.raises(DataError, match="no file"):
        depth_files.find(tmp_path, "b.jpg")
    (tmp_path / "sub").mkdir()
    np.save(tmp_path / "sub/a.npy", values)
    assert depth_files.find(tmp_path, "sub/a.jpg") == tmp_path / "sub/a.npy"


def test_folds_of_another_run_are_kept_and_copies_follow_them(made, tmp_path):
    known = np.array([2, -1, -1, 0, -1, -1, -1])
    groups = np.array([0, 1, 0, 2, 3, 4, 2])
    fold = depth_masks.share_out(known, groups)
    assert fold[[0, 2, 3, 6]].tolist() == [2, 2, 0, 0] and set(fold) <= {0, 1, 2}
    none = depth_masks.share_out(np.full(7, -1), np.arange(7))
    assert sorted(np.bincount(none)) == [1, 1, 1, 2, 2]
    assert set(depth_masks.share_out(np.full(3, -1), np.arange(3))) == {0, 1, 2}
    cls, out = tmp_path / "cls", tmp_path / "out"
    cls.mkdir()
    write_csv(cls / "folds.csv", ("ImageId", "fold"), [("00001.png", 1), ("other.png", 0)])
    assert call("make_masks", *flags(made, out)[:-1], cls) == 0
    fold = read_folds(out / "folds.csv")
    assert fold["00001.png"] == 1 and set(fold.values()) == {0, 1} and len(fold) == 6


# Training on them, and from them


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """Eight rooms in two folds, their masks by depth, and a U-Net of fold 1 trained on them."""
    base = tmp_path_factory.mktemp("pretrained")
    rooms.write(base / "rooms", 8, SIZE, prefix="u")
    write_csv(base / "folds.csv", ("ImageId", "fold"), [(f"u{i:05d}.png", i % 2) for i in range(8)])
    assert call("make_masks", *flags(base / "rooms", base / "hn")) == 0
    assert call("train_seg", *seg(base / "rooms"), "--masks", base / "hn/masks.csv", "--ignore",
                base / "hn/ignore.csv", "--folds", base / "folds.csv", "--fold", 1, "--out",
                base / "run", "--weights", "none") == 0
    return base


def seg(folder):
    small = [f for f in SMALL if f not in ("--weights", "none")]
    return ("--images", folder / "train_images", *small, "--size", 32, 32, "--epochs", 1,
            "--batch-size", 4)


def real(base, out, *more):
    """Training on the true masks of the same rooms."""
    return (*seg(base / "rooms"), "--masks", base / "rooms/train.csv", "--folds",
            base / "folds.csv", "--out", out, *more)


def test_a_network_starts_from_the_encoder_of_the_run(pretrained, tmp_path, monkeypatch):
    """Encoder and its statistics are those of the run; the rest is what --weights none draws."""
    seen = []

    def stop(model, *_):
        seen.append({k: v.clone() for k, v in model.state_dict().items()})
        raise KeyboardInterrupt

    monkeypatch.setattr(cross_validation, "fit", stop)
    monkeypatch.setattr(models.torchvision.models, "efficientnet_b0", no_download)
    for more in (("--init", pretrained / "run"), ("--weights", "none")):
        assert call("train_seg", *real(pretrained, tmp_path / more[0], "--fold", 1, *more)) == 130
    ours, plain = seen
    kept = torch.load(pretrained / "run/fold1/best.pt", weights_only=True)["model"]
    assert len(kept) > len(ours) - 3
    for name, value in ours.items():
        own = kept if name.startswith("encoder.") else plain
        assert torch.equal(value, own[name]), name
    assert kept["head.weight"].shape[0] == 25 and ours["head.weight"].shape[0] == 3
    assert any(not torch.equal(ours[n], plain[n]) for n in ours if n.startswith("encoder."))


def no_download(weights=None):
    assert weights is None
    return REAL_B0(weights=None)


REAL_B0 = models.torchvision.models.efficientnet_b0


def test_a_stopped_run_with_init_goes_on_to_the_same_bytes(pretrained, tmp_path, refused):
    whole, out = tmp_path / "whole", tmp_path / "out"
    init = ("--init", pretrained / "run", "--fold", 1, "--epochs", 2)
    assert call("train_seg", *real(pretrained, whole, *init)) == 0
    with interrupted(fit, "train_one_epoch", 2):
        assert call("train_seg", *real(pretrained, out, *init)) == 130
    assert call("train_seg", *real(pretrained, out, *init, "--resume")) == 0
    assert results(out) == results(whole)
    (tmp_path / "other").mkdir()
    for name, content in contents(pretrained / "run").items():
        path = tmp_path / "other" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    assert "--init is" in refused("train_seg", *real(
        pretrained, whole, *init, "--init", tmp_path / "other", "--resume"))


def test_an_encoder_that_has_seen_a_held_out_image_is_refused(pretrained, tmp_path, refused):
    """The run has fold 1 only, whose network has seen the images of fold 0."""
    out, run = tmp_path / "out", pretrained / "run"
    said = refused("train_seg", *real(pretrained, out, "--init", run))
    assert "fold1/best.pt: this network has seen u00000.png, which fold 0 holds out" in said
    names = [f"u{i:05d}.png" for i in range(8)]
    best = run / "fold1/best.pt"
    fold = np.arange(8) % 2
    assert initial.choose(run, names, fold, [1]) == {1: best}
    other = [f"x{i}.png" for i in range(8)]  # images that the run does not know
    assert initial.choose(run, other, fold, [0, 1]) == {0: best, 1: best}
    with pytest.raises(DataError, match="u00000.png, which fold 1 holds out"):
        initial.choose(run, names, 1 - fold, [1])
    with pytest.raises(DataError, match="u00000.png, which fold 0 holds out"):
        initial.choose(run, names, np.arange(8) // 4, [0])


def test_each_fold_starts_from_its_own_fold(pretrained, tmp_path):
    run = tmp_path / "run"
    for k in range(2):
        (run / f"fold{k}").mkdir(parents=True)
        (run / f"fold{k}/best.pt").touch()
    (run / "args.json").touch()
    (run / "folds.csv").write_text((pretrained / "folds.csv").read_text())
    names, fold = [f"u{i:05d}.png" for i in range(8)], np.arange(8) % 2
    best = [run / "fold0/best.pt", run / "fold1/best.pt"]
    assert initial.choose(run, names, fold, [0, 1]) == {0: best[0], 1: best[1]}
    assert initial.choose(run, names, 1 - fold, [0, 1]) == {0: best[1], 1: best[0]}
    assert initial.choose(run, ["new"] * 8, fold, [0, 1]) == {0: best[0], 1: best[1]}


def test_what_is_no_start_is_refused_in_one_line(pretrained, tmp_path, refused):
    out, run = tmp_path / "out", pretrained / "run"
    assert "an encoder of b0, expected b1 as by --arch" in refused("train_seg", *real(
        pretrained, out, "--init", run, "--fold", 1, "--arch", "b1"))
    assert "both name the encoder's first weights" in refused("train_seg", *real(
        pretrained, out, "--init", run, "--fold", 1, "--weights", "a.pth"))
    assert "is no run of train_seg.py" in refused("train_seg", *real(
        pretrained, out, "--init", tmp_path / "none"))
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "args.json").write_text("{}")
    (empty / "folds.csv").write_text((pretrained / "folds.csv").read_text())
    assert "no fold*/best.pt" in refused("train_seg", *real(pretrained, out, "--init", empty))
    (empty / "fold1").mkdir()
    state = torch.load(run / "fold1/best.pt", weights_only=True)
    for change, said in (({"kind": "classifier"}, "a classifier, expected a unet"),
                         ({"format": 9}, "expected a checkpoint of format 1")):
        torch.save({**state, **change}, empty / "fold1/best.pt")
        assert said in refused("train_seg", *real(pretrained, out, "--init", empty, "--fold", 1))


# The rooms as a command


def test_the_command_writes_rooms_and_refuses_a_full_folder(tmp_path):
    root = Path(__file__).parent.parent
    line = [sys.executable, "-m", "cam2seg.demo.rooms", str(tmp_path / "a"), "--images", "2",
            "--size", "32", "40"]
    done = subprocess.run(line, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0 and "--camera 32 32 19.5 15.5" in done.stdout
    assert len(read_csv(tmp_path / "a/train.csv")[1]) == 6
    again = subprocess.run(line, cwd=root, capture_output=True, text=True)
    assert again.returncode == 2 and again.stderr.strip().endswith("is not empty")


def test_the_benchmark_trains_both_networks_alike_and_scores_the_test_rooms(tmp_path, monkeypatch):
    """With the true masks, and with none, in the place of what the two networks would draw."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
    import rooms as benchmark
    calls, out = [], tmp_path / "out"

    def no_training(script, *given):
        args = script.get_args([str(f) for f in given])
        calls.append(vars(args))
        args.out.mkdir(parents=True)
        if getattr(args, "predict", None):
            header, rows = read_csv(args.predict.parent / "train.csv")
            write_csv(args.out / "new_masks.csv", header, (
                [*list(r.values())[:2], r["EncodedPixels"] if args.init else ""] for _, r in rows))

    monkeypatch.setattr(benchmark, "call", no_training)
    monkeypatch.setattr(sys, "argv", [str(v) for v in (
        "rooms.py", "--out", out, "--seeds", 4, "--unlabelled", 3, "--labelled", 2, "--choosing", 1,
        "--test", 4, "--size", 32, 32, "--keep")])
    benchmark.main()
    hn, first, plain, ours = calls
    assert hn["depth"] == out / "unlabelled/depth" and hn["camera"][0] == 0.8 * 32
    assert first["masks"] == [hn["out"] / "masks.csv"] and first["init"] is None
    assert {k for k in plain if plain[k] != ours[k]} == {"out", "weights", "init"}
    assert plain["seed"] == 4 and plain["weights"] == "none" and ours["init"] == first["out"]
    assert sorted(read_folds(plain["folds"]).values()) == [0, 1, 1] and plain["fold"] == 0
    row = json.loads((out / "rooms.jsonl").read_text())["scores"]
    assert {arm: [r["dice_present"][1], r["dice_dataset"][1]] for arm, r in row.items()} == {
        "random weights": [0, 0], "HN labels": [1, 1]}
