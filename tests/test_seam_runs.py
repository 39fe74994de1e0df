"""train_cls.py --seam and what reads its folder: maps, resume, refusals, and cam2seg.load."""

import argparse
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import SMALL, call, contents, interrupted, raise_in, results
from PIL import Image

import cam2seg
import train_cls
from cam2seg import averaging, cam
from cam2seg.data import stored_maps
from cam2seg.data.errors import DataError
from cam2seg.methods import seam
from cam2seg.runs.checkpoints import load_checkpoint
from cam2seg.training import classifiers
from cam2seg.training import fit as fit_module

PLACE = "--workers", 0, "--device", "cpu"
LITE = "--arch", "lite0", "--folds", 2, "--epochs", 2, *SMALL, "--hflip"


@pytest.fixture(scope="module")
def some(shapes, tmp_path_factory):
    """A third of the drawn images."""
    path = tmp_path_factory.mktemp("some") / "some.csv"
    rows = (shapes / "train.csv").read_text().splitlines()
    path.write_text("\n".join([rows[0], *(r for r in rows[1:] if int(r[:3]) < 16)]) + "\n")
    folder = path.parent / "images"
    folder.mkdir()
    for n in range(16):
        (folder / f"{n:03d}.png").write_bytes((shapes / f"train_images/{n:03d}.png").read_bytes())
    return "--images", folder, "--labels", path


@pytest.fixture(scope="module")
def seam_run(some, tmp_path_factory):
    out = tmp_path_factory.mktemp("seam") / "cls"
    assert call("train_cls", *some, *LITE, "--seam", "--out", out) == 0
    return out


def test_the_folder_of_a_run_is_that_of_a_classifier(seam_run, some):
    args = json.loads((seam_run / "args.json").read_text())
    assert args["classes"] == ["1", "2"]
    assert {k: v for k, v in args["args"].items() if "seam" in k} == {
        "seam": True, "seam_scale": 0.3, "seam_stride": 8}
    for k in (0, 1):
        meta = load_checkpoint(seam_run / f"fold{k}/swa.pt", "classifier")
        assert meta["model_args"] == {"arch": "lite0", "num_classes": 2, "scale": 0.3, "stride": 8,
                                      "dropout": 0.2}
        log = [json.loads(line) for line in (seam_run / f"fold{k}/log.jsonl").open()]
        assert [row["epoch"] for row in log] == [1, 2] and log[0]["loss"] > log[0]["val_loss"]
    table = json.loads((seam_run / "metrics.json").read_text())["table1"]
    assert table[0]["model"].startswith("lite0 SEAM, ") and table[0]["images"] == 16


@pytest.fixture(scope="module")
def plain_run(some, tmp_path_factory):
    """A run without --seam, of one epoch of one fold."""
    out = tmp_path_factory.mktemp("plain") / "cls"
    assert call("train_cls", *some, *LITE, "--epochs", 1, "--fold", 0, "--out", out) == 0
    return out


def test_a_run_without_the_flag_names_it_nowhere(plain_run):
    said = json.loads((plain_run / "args.json").read_text())["args"]
    meta = load_checkpoint(plain_run / "fold0/swa.pt", "classifier")
    assert meta["model_args"] == {"arch": "lite0", "num_classes": 2, "hidden": 512, "dropout": 0.2}
    assert not any("seam" in k for k in (*said, *meta["args"]))


def network(run, k):
    state = load_checkpoint(run / f"fold{k}/swa.pt", "classifier")
    model = classifiers.build(**state["model_args"])
    model.load_state_dict(state["model"])
    return model.eval(), state["preprocess"]


def test_masks_come_from_the_refined_maps_of_the_network_that_has_not_seen_the_image(
        seam_run, some, tmp_path, capsys):
    out = tmp_path / "masks"
    assert call("make_masks", *some, "--cls", seam_run, "--out", out, "--no-aug-smooth", "--gate",
                "labels", "--search", "labels", "--review", 4, *PLACE) == 0
    said = capsys.readouterr().out
    assert "maps of SEAM: 8 x 8 cells for 64 x 64 pixels" in said and "seam, swa: masks" in said
    assert json.loads((out / "args.json").read_text())["args"]["method"] == "seam"
    assert all((out / name).exists() for name in ("masks_labels.csv", "review.png"))
    names, _, probs, maps = stored_maps.read(out)
    folds = dict(r.split(",") for r in (seam_run / "folds.csv").read_text().split()[1:])
    for k in (0, 1):
        model, pre = network(seam_run, k)
        mean, std = (torch.tensor(pre[key]).view(3, 1, 1) for key in ("mean", "std"))
        for i in [n for n, name in enumerate(names) if folds[name] == str(k)][:3]:
            grey = torch.from_numpy(np.array(Image.open(some[1] / names[i]).convert("RGB")))
            x = (grey.permute(2, 0, 1) / 255 - mean) / std
            found, logits = model.maps(x[None])
            expected = cam.normalize(found, "max")[0].detach().numpy()
            np.testing.assert_allclose(maps[i], expected, atol=2e-3)
            np.testing.assert_allclose(probs[i], logits[0].sigmoid().detach(), atol=1e-4)


def test_other_ways_to_maps_of_the_same_run(seam_run, some, tmp_path):
    """Grad-CAM is the map before the refinement. Six views are the default."""
    for name, flags in (("seam", ()), ("gradcam", ("--method", "gradcam")),
                        ("again", ("--method", "seam"))):
        assert call("make_masks", *some, "--cls", seam_run, "--out", tmp_path / name, *flags,
                    *PLACE) == 0
    maps = {name: stored_maps.read(tmp_path / name)[3] for name in ("seam", "gradcam", "again")}
    assert np.array_equal(maps["seam"], maps["again"])
    assert maps["seam"].shape == maps["gradcam"].shape == (16, 2, 8, 8)
    assert not np.allclose(maps["seam"], maps["gradcam"], atol=0.05)


def test_a_stopped_run_ends_with_the_same_bytes(seam_run, some, tmp_path, monkeypatch, capsys):
    flags = (*some, *LITE, "--seam", "--out", tmp_path, "--resume")
    for owner, name, number in [(torch.optim.Adam, "step", 1), (fit_module, "mean_loss", 1),
                                (averaging, "update_bn", 1), (torch.optim.Adam, "step", 1)]:
        with monkeypatch.context() as patch:
            raise_in(patch, owner, name, number)
            assert call("train_cls", *flags) == 143, (name, capsys.readouterr())
    assert call("train_cls", *flags) == 0
    assert results(tmp_path) == results(seam_run)


def test_stopped_maps_end_with_the_same_bytes(seam_run, some, tmp_path):
    flags = (*some, "--cls", seam_run, "--batch-size", 3, *PLACE, "--out")
    assert call("make_masks", *flags, tmp_path / "whole") == 0
    with interrupted(seam.Seam, "maps", 20):
        assert call("make_masks", *flags, tmp_path / "out") == 130
    assert call("make_masks", *flags, tmp_path / "out", "--resume") == 0
    assert results(tmp_path / "out") == results(tmp_path / "whole")


def test_a_resumed_run_stays_with_or_without_seam(seam_run, plain_run, some, refused):
    assert f"--seam is None, but {seam_run}/args.json says True" in refused(
        "train_cls", *some, *LITE, "--out", seam_run, "--resume")
    assert "--seam_scale is 0.5".replace("_", "-") in refused(
        "train_cls", *some, *LITE, "--seam", "--seam-scale", 0.5, "--out", seam_run, "--resume")
    assert "--seam is True, but" in refused(
        "train_cls", *some, *LITE, "--epochs", 1, "--seam", "--out", plain_run, "--resume")


@pytest.mark.parametrize("flags, said", [
    (("--seam-scale", 0.5), "--seam-scale is for --seam"),
    (("--seam-stride", 8), "--seam-stride is for --seam"),
    (("--seam", "--hidden", 64), "--hidden is for the paper's head"),
    (("--seam", "--seam-scale", 1.5), "expected a number from 0 to 1"),
    (("--seam", "--seam-stride", 4), "invalid choice: 4")])
def test_flags_that_do_not_go_together(flags, said, some, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        call("train_cls", *some, "--out", tmp_path / "out", *flags)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and said in error and len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_rescaled_image_that_is_too_small_or_maps_too_large(some, tmp_path, refused):
    flags = (*some, "--weights", "none", "--folds", 2, "--seam", "--out", tmp_path / "out", *PLACE)
    assert refused("train_cls", *flags, "--size", 32, 24) == (
        "--seam-scale 0.3: 9 x 7 pixels of an input of 32 x 24, expected 8 or more on each side; a "
        "larger --size or --seam-scale helps")
    assert "0 x 0 pixels" in refused("train_cls", *flags, "--seam-scale", 0)
    assert "expected 2 or more" not in refused("train_cls", *flags, "--size", 8000, 8000)


def test_a_batch_of_one_image_needs_maps_of_several_cells(some, tmp_path, refused):
    assert "batch" in refused("train_cls", *some, *LITE, "--seam", "--batch-size", 1, "--out",
                              tmp_path / "out")


def test_masks_by_a_way_that_the_run_does_not_have(seam_run, plain_run, some, tmp_path, refused):
    out = "--out", tmp_path / "out", *PLACE
    assert refused("make_masks", *some, "--cls", plain_run, "--method", "seam", *out) == (
        f"--method seam: {plain_run} is no run of train_cls.py --seam")
    assert "--method auto is for" in refused("make_masks", *some, "--cls", seam_run, "--method",
                                             "auto", *out)
    assert refused("make_masks", *some, "--cls", seam_run, "--target-layer", "features.5",
                   *out) == ("--target-layer: method 'seam' has maps of its own: expected no target "
                             "layer")
    assert refused("make_masks", *some, "--cls", seam_run, "--size", 8, 8, *out) == (
        "maps of SEAM: one cell for 8 x 8 pixels, expected a grid; a larger --size gives one")
    assert "a batch of 64 images needs more" in refused("make_masks", *some, "--cls", seam_run,
                                                        "--size", 8000, 8000, *out)


def test_the_predictor_of_a_run(seam_run, plain_run, shapes):
    predict = cam2seg.load(seam_run, "cpu")
    path = shapes / "train_images/003.png"
    found, maps = predict(path, confidence=0.0), predict.maps(path)
    assert predict.kind == "classifier" and predict.classes == ["1", "2"]
    assert maps.shape == found.masks.shape == (2, 64, 64) and found.probabilities.shape == (2,)
    assert np.array_equal(found.masks, maps >= 0.3)
    assert np.array_equal(maps, predict.maps(path, "seam"))
    assert not np.allclose(maps, predict.maps(path, "gradcam"), atol=0.05)
    with pytest.raises(cam2seg.Error, match="expected no target layer"):
        predict.maps(path, target_layer="features.5")
    with pytest.raises(cam2seg.Error, match="expected a network of train_cls.py --seam"):
        cam2seg.load(plain_run, "cpu").maps(path, "seam")


def test_its_encoder_starts_a_segmenter(seam_run, some, tmp_path):
    assert call("train_seg", *some, "--masks", some[3], "--folds", seam_run / "folds.csv", "--out",
                tmp_path, "--arch", "lite0", "--epochs", 1, "--fold", 0, *SMALL, "--weights",
                seam_run / "fold0/swa.pt") == 0


def test_a_map_that_is_not_finite_names_image_and_class(seam_run):
    model, _ = network(seam_run, 0)
    x = torch.zeros(2, 3, 64, 64)
    x[1] = float("nan")
    options = argparse.Namespace(method="seam", target_layer=None)
    with pytest.raises(cam.NonFiniteMapError) as found:
        classifiers.maps_of_view(options, model, x)
    assert (found.value.image, found.value.layer) == (1, "SEAM")


def test_validation_and_the_plain_classifier_have_the_loss_of_the_paper():
    y, target = torch.randn(4, 3), torch.rand(4, 3).round()
    assert classifiers.loss(y, target) == F.binary_cross_entropy_with_logits(y, target)
    maps = [torch.randn(4, 3, 8, 8), torch.rand(4, 4, 8, 8)]
    outputs = (y, *maps, y, *maps)
    assert classifiers.loss(outputs, target) == seam.seam_loss(outputs, target)


def test_the_memory_of_similarities_by_hand():
    """1600 cells and as many rows and columns of 4 bytes."""
    assert classifiers.similarity_bytes((250, 1600), 16) == 4 * 1600 ** 2
    assert classifiers.similarity_bytes((250, 1600), None) == 0
    with pytest.raises(DataError):
        classifiers.smallest_input(train_cls.get_args(["--seam"]), (26, 27))
    assert classifiers.smallest_input(train_cls.get_args(["--seam"]), (27, 100)) == (8, 30)
    assert classifiers.smallest_input(train_cls.get_args([]), (7, 7)) == (7, 7)


def test_damaged_networks_are_refused(seam_run, some, tmp_path, refused):
    copy = tmp_path / "cls"
    for name, what in contents(seam_run).items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(what)
    state = torch.load(copy / "fold0/swa.pt", weights_only=True)
    flags = (*some, "--cls", copy, "--out", tmp_path / "out", *PLACE)
    for key, value in (("scale", "wide"), ("stride", 0), ("widths", 3)):
        bad = {**state, "model_args": {**state["model_args"], key: value}}
        torch.save(bad, copy / "fold0/swa.pt")
        assert f"{copy}/fold0/swa.pt: " in refused("make_masks", *flags)
