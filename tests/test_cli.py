"""The four scripts as a user runs them, chained on small drawn images."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import SCRIPTS, SMALL, call

from cam2seg import masks
from cam2seg.data.csv_files import read_csv, write_csv
from cam2seg.data.folds import read_folds
from cam2seg.data.images import open_image
from cam2seg.data.labels import read_labels
from cam2seg.models import MEAN, STD
from cam2seg.runs.checkpoints import load_checkpoint, save_checkpoint
from cam2seg.training import devices
from cam2seg.training.batches import to_input

ROOT = Path(__file__).parent.parent


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_chain_scores_above_chance(runs):
    swa = metrics_of(runs / "cls")["table1"][2]
    assert swa["model"].endswith("(SWA), all images") and min(swa["roc_auc"]) > 0.75
    scores = {k: v["scores"] for k, v in metrics_of(runs / "eval")["masks"].items()}
    whole = scores["whole image"]["dice_present"][1]
    assert scores["unet"]["dice_present"][1] > whole + 0.2
    assert scores["nothing predicted"]["dice_present"][1] == 0


def test_every_number_of_the_tables_is_the_one_recounted_from_the_files(runs, shapes):
    truth = read_labels(shapes / "train.csv", shapes / "train_images")
    made = read_labels(runs / "masks/masks.csv", shapes / "train_images")
    dices, shared, either = [], np.zeros(3), np.zeros(3)
    for name, row in zip(truth.names, truth.y, strict=True):
        pair = [np.zeros((64, 64), bool), np.zeros((64, 64), bool)]
        for c in range(2) if row.any() else ():  # [P] III: images with a defect
            t, p = (masks.rle_decode(m.rles.get((name, c), ""), (64, 64)) for m in (truth, made))
            dices.append(1.0 if not t.any() and not p.any() else
                         2 * (t & p).sum() / (t.sum() + p.sum()))
            shared[c + 1] += (t & p).sum()
            either[c + 1] += (t | p).sum()
            pair = [pair[0] | t, pair[1] | p]
        if row.any():
            shared[0] += (~pair[0] & ~pair[1]).sum()
            either[0] += (~pair[0] | ~pair[1]).sum()
    for of in (metrics_of(runs / "masks")["table2"][0], metrics_of(runs / "eval")["masks"]["maps"]):
        assert of["scores"]["dice_pairs"][1] == pytest.approx(np.mean(dices), abs=1e-12)
    iou = metrics_of(runs / "eval")["masks"]["maps"]["iou_with_background"]
    assert [iou["background"], *iou["classes"]] == pytest.approx((shared / either).tolist())
    assert iou["mean"] == pytest.approx((shared / either).mean())


def test_maps_with_amp_on_a_slow_cpu_are_made_and_told(runs, shapes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(devices, "fast_bfloat16", lambda device: False)
    assert call("make_masks", "--data", shapes, "--cls", runs / "cls", "--out", tmp_path / "out",
                "--no-aug-smooth", "--workers", 0, "--device", "cpu", "--amp") == 0
    assert "--amp: this CPU has no instructions for bfloat16" in capsys.readouterr().out


def test_masks_come_from_the_model_that_has_not_seen_the_image(runs, shapes, tmp_path):
    """With fold 0's model broken, only the masks of fold 0 change."""
    import torch
    cls = tmp_path / "cls"
    shutil.copytree(runs / "cls", cls)
    state = torch.load(cls / "fold0/swa.pt", weights_only=True)
    state["model"]["head.4.weight"].neg_()
    torch.save(state, cls / "fold0/swa.pt")
    flags = ("--data", shapes, "--out", tmp_path / "out", "--target-layer", "features.5",
             "--workers", 0, "--device", "cpu")
    assert call("make_masks", "--cls", cls, *flags) == 0
    folds = read_folds(runs / "cls/folds.csv")
    before, after = (np.load(p / "maps.npy") for p in (runs / "masks", tmp_path / "out"))
    fold = np.array([folds[n] for n in sorted(folds)])
    assert (before[fold == 1] == after[fold == 1]).all()
    assert (before[fold == 0] != after[fold == 0]).any(axis=(1, 2, 3)).mean() > 0.5


def test_out_of_fold_probabilities_are_those_of_the_held_out_model(runs, shapes):
    import torch

    from cam2seg import models
    probs = {r["ImageId"]: r for _, r in read_csv(runs / "cls/oof.csv")[1]}
    folds = read_folds(runs / "cls/folds.csv")
    for k in (0, 1):
        state = load_checkpoint(runs / f"cls/fold{k}/swa.pt", "classifier")
        model = models.Classifier(**state["model_args"])
        model.load_state_dict(state["model"])
        name = next(n for n, f in sorted(folds.items()) if f == k)
        pixels = torch.from_numpy(open_image(shapes / "train_images" / name).copy())[None]
        x = to_input(pixels, "cpu", MEAN, STD)
        with torch.no_grad():
            p = model.eval()(x).sigmoid()[0]
        assert [float(probs[name][c]) for c in "12"] == pytest.approx(p.tolist(), abs=1e-5)


def test_swa_is_the_mean_of_the_three_best_epochs(runs):
    import torch
    for k in (0, 1):
        fold = runs / f"cls/fold{k}"
        rows = [json.loads(line) for line in (fold / "log.jsonl").read_text().splitlines()]
        best = sorted(rows, key=lambda r: r["val_loss"])[:3]
        states = [torch.load(fold / f"epoch{r['epoch']}.pt", weights_only=True)["model"]
                  for r in best]
        swa = torch.load(fold / "swa.pt", weights_only=True)["model"]
        mean = sum(s["head.1.weight"].double() for s in states) / 3
        assert torch.allclose(swa["head.1.weight"].double(), mean, atol=1e-7)
        first = torch.load(fold / "best.pt", weights_only=True)["model"]
        assert torch.equal(first["head.1.weight"], states[0]["head.1.weight"])
        # the pass over the data gives statistics of its own, not the mean of the three
        averaged = sum(s["features.0.1.running_mean"] for s in states) / 3
        assert not torch.allclose(swa["features.0.1.running_mean"], averaged, atol=1e-4)


def test_swa_bn_average_averages_the_statistics(shapes, tmp_path):
    import torch
    assert call("train_cls", "--data", shapes, "--out", tmp_path, "--folds", 2, "--epochs", 2,
                "--fold", 0, "--swa-bn", "average", *SMALL) == 0
    states = [torch.load(tmp_path / f"fold0/epoch{e}.pt", weights_only=True)["model"]
              for e in (1, 2)]
    swa = torch.load(tmp_path / "fold0/swa.pt", weights_only=True)["model"]
    key = "features.0.1.running_mean"
    assert torch.allclose(swa[key], (states[0][key] + states[1][key]) / 2, atol=1e-7)


def test_search_finds_what_brute_force_over_mask_files_finds(runs, shapes, tmp_path):
    found = metrics_of(runs / "masks")["table2"][1]
    use = next(iter(found["parameters"].values()))
    out = tmp_path / "masks"
    shutil.copytree(runs / "masks", out)
    flags = ("--data", shapes, "--cls", runs / "cls", "--out", out, "--target-layer", "features.5",
             "--reuse-maps", "--overwrite", "--workers", 0, "--device", "cpu")
    scores = {}
    for step in (-0.05, 0, 0.05):
        threshold = round(use["threshold"] + step, 2)
        if 0.05 <= threshold <= 0.95:  # the grid that was searched
            assert call("make_masks", *flags, "--threshold", threshold, "--confidence",
                        use["confidence"], "--min-seg-len", use["min_seg_len"]) == 0
            scores[threshold] = metrics_of(out)["table2"][0]["scores"]["dice_pairs"][1]
    best = scores[use["threshold"]]
    assert best == pytest.approx(found["scores"]["dice_pairs"][1], abs=1e-12)
    assert best >= max(scores.values()) - 1e-12


def test_labels_alone_lead_to_a_unet(shapes, tmp_path):
    """No mask anywhere on the way: a CSV of labels, pseudo-masks, a U-Net."""
    flags = ("--images", shapes / "train_images", "--labels", shapes / "labels.csv")
    assert call("train_cls", *flags, "--out", tmp_path / "cls", "--folds", 2, "--epochs", 3,
                *SMALL) == 0
    assert call("make_masks", *flags, "--cls", tmp_path / "cls", "--out", tmp_path / "masks",
                "--gate", "labels", "--no-aug-smooth", "--workers", 0, "--device", "cpu") == 0
    made = read_labels(tmp_path / "masks/masks.csv", shapes / "train_images")
    known = read_labels(shapes / "labels.csv", shapes / "train_images", made.classes)
    assert made.classes == ["disc", "bar"] and made.y.any()
    assert not (made.y > known.y).any()
    assert call("train_seg", "--images", shapes / "train_images", "--masks",
                tmp_path / "masks/masks.csv", "--folds", tmp_path / "cls/folds.csv", "--out",
                tmp_path / "seg", "--epochs", 1, *SMALL) == 0
    assert len(read_labels(tmp_path / "seg/oof_masks.csv").names) == 48


def test_new_images_without_any_csv_get_the_mean_over_the_folds(runs, shapes, tmp_path):
    import torch

    from cam2seg import cam, models
    folder = tmp_path / "new"
    folder.mkdir()
    for name in ("001.png", "002.png"):
        shutil.copy(shapes / "train_images" / name, folder / f"new_{name}")
    assert call("make_masks", "--images", folder, "--cls", runs / "cls", "--out", tmp_path / "out",
                "--no-aug-smooth", "--workers", 0, "--device", "cpu") == 0
    rows = read_csv(tmp_path / "out/maps.csv")[1]
    assert [(r["ImageId"], r["fold"]) for _, r in rows] == [("new_001.png", "-1"),
                                                           ("new_002.png", "-1")]
    pixels = torch.from_numpy(open_image(folder / "new_001.png").copy())[None]
    x, mean = to_input(pixels, "cpu", MEAN, STD), 0
    for k in (0, 1):
        state = load_checkpoint(runs / f"cls/fold{k}/swa.pt")
        model = models.Classifier(**state["model_args"])
        model.load_state_dict(state["model"])
        maps = cam.class_maps(model, x, "features.8")[0]
        mean = mean + maps / maps.amax(dim=(2, 3), keepdim=True).clamp(min=1e-30) / 2
    mean = mean / mean.amax(dim=(2, 3), keepdim=True).clamp(min=1e-30)
    stored = np.load(tmp_path / "out/maps.npy")[0].astype(np.float64)
    assert np.abs(stored - mean[0].numpy()).max() < 2e-3


def test_new_images_are_masked_by_the_mean_of_the_unets(runs, shapes, tmp_path):
    """On a copy of an image the mean of two networks, neither of which is asked alone."""
    import torch

    from cam2seg import models
    folder, seg = tmp_path / "new", tmp_path / "seg"
    folder.mkdir()
    shutil.copy(shapes / "train_images/003.png", folder / "new.png")
    shutil.copytree(runs / "seg", seg)
    flags = ("--data", shapes, "--masks", shapes / "train.csv", "--folds",
             runs / "cls/folds.csv", "--out", seg, "--epochs", 10, "--loss", "bce+dice", *SMALL,
             "--batch-size", 4, "--lr-encoder", 3e-3, "--lr-decoder", 3e-3)
    assert call("train_seg", *flags, "--resume", "--predict", folder) == 0
    got = read_labels(seg / "new_masks.csv", folder, ["1", "2"])
    pixels = torch.from_numpy(open_image(folder / "new.png").copy())[None]
    x, mean = to_input(pixels, "cpu", MEAN, STD), 0
    for k in (0, 1):
        net = models.UNet("b0", 2)
        net.load_state_dict(load_checkpoint(seg / f"fold{k}/best.pt", "unet")["model"])
        net.eval()
        with torch.no_grad():
            mean = mean + net(x).sigmoid() / 2
    for c in range(2):
        mask = masks.rle_decode(got.rles.get(("new.png", c), ""), (64, 64))
        assert (mask != (mean[0, c].numpy() >= 0.2)).sum() <= 2


def test_guided_gradcam_maps_are_as_large_as_the_input(runs, shapes, tmp_path):
    assert call("make_masks", "--data", shapes, "--cls", runs / "cls", "--out", tmp_path,
                "--method", "guided-gradcam", "--no-aug-smooth", "--workers", 0,
                "--device", "cpu") == 0
    assert np.load(tmp_path / "maps.npy", mmap_mode="r").shape == (48, 2, 64, 64)


def test_a_resumed_run_ends_with_the_same_bytes(runs, shapes, tmp_path, monkeypatch):
    """The first fold stops after two of six epochs, then the run is taken up again."""
    import torch

    flags = ("--data", shapes, "--out", tmp_path / "cls", "--folds", 2, "--epochs", 6, *SMALL)
    done = []

    def save_two(path, model, meta):
        save_checkpoint(path, model, meta)
        done.append(path)
        if sum(p.name == "last.pt" for p in done) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("cam2seg.training.fit.save_checkpoint", save_two)
        assert call("train_cls", *flags) == 130
    assert call("train_cls", *flags) == 2  # a run is there: --resume or --overwrite
    assert call("train_cls", *flags, "--resume") == 0
    for name in ("oof.csv", "oof_best.csv", "folds.csv", "metrics.json"):
        assert (tmp_path / "cls" / name).read_bytes() == (runs / "cls" / name).read_bytes(), name
    for k in (0, 1):
        one, two = (torch.load(p / f"fold{k}/swa.pt", weights_only=True)["model"]
                    for p in (runs / "cls", tmp_path / "cls"))
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_resumed_run_keeps_its_flags_and_labels(runs, shapes, capsys):
    flags = ("--data", shapes, "--out", runs / "cls", "--folds", 2, "--epochs", 6, *SMALL)
    assert call("train_cls", *flags, "--seed", 1, "--resume") == 2
    assert "--seed is 1" in capsys.readouterr().err


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_reads_and_bare_call_says_what_is_needed_at_once(script):
    path = str(ROOT / f"{script}.py")
    shown = subprocess.run([sys.executable, path, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0 and "DEV-" in shown.stdout and "[P]" in shown.stdout
    bare = subprocess.run([sys.executable, "-X", "importtime", path], capture_output=True,
                          text=True)
    lines = [line for line in bare.stderr.splitlines() if not line.startswith("import time")]
    assert bare.returncode == 2 and "Traceback" not in bare.stderr
    assert "cam2seg.demo" in "\n".join(lines)
    assert not any(line.split("|")[-1].strip() == "torch" for line in bare.stderr.splitlines())


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_shows_each_default_as_it_is_typed(script, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        SCRIPTS[script].get_args(["--help"])
    said = capsys.readouterr().out
    shown = re.findall(r"\(default: (.*?)\)$", said, re.M)
    assert "Path(" not in said and shown and not {c for c in "".join(shown) if c in "[]'\""}
    some = {"train_cls": "runs/cls", "make_masks": "0.5 1.0 1.5 2.0",
            "train_seg": "runs/masks/masks.csv", "evaluate": "runs/eval"}
    assert some[script] in shown


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_flag_is_read(script):
    """A flag that nothing reads is a lie."""
    text = (ROOT / f"{script}.py").read_text()
    shared = (path.read_text() for path in [
        ROOT / "cam2seg/runs/inputs.py", ROOT / "cam2seg/runs/folder.py",
        *(ROOT / "cam2seg/training").glob("*.py")])
    read = {n.attr for source in (text, *shared)
            for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Attribute)
            and isinstance(n.value, ast.Name) and n.value.id in ("args", "options")}
    flags = set(vars(SCRIPTS[script].get_args(["a.csv"] if script == "evaluate" else [])))
    assert flags <= read


@pytest.mark.skipif("CAM2SEG_NEU" not in os.environ,
                    reason="CAM2SEG_NEU does not name a folder of real images (Severstal layout)")
def test_real_steel(tmp_path):
    """A hundred real images go through all four scripts; run lengths fit and files are whole."""
    source, few = Path(os.environ["CAM2SEG_NEU"]), tmp_path / "neu"
    (few / "train_images").mkdir(parents=True)
    rows = [r for _, r in read_csv(source / "train.csv")[1]][::44]
    names = sorted({r["ImageId"] for r in rows})
    for name in names:
        shutil.copy(source / "train_images" / name, few / "train_images")
    labels = read_labels(source / "train.csv")
    write_csv(few / "train.csv", ("ImageId", "ClassId", "EncodedPixels"),
                   [(n, c + 1, rle) for (n, c), rle in sorted(labels.rles.items()) if n in names])
    assert call("train_cls", "--data", few, "--out", tmp_path / "cls", "--folds", 2, "--epochs", 2,
                *SMALL) == 0
    assert call("make_masks", "--data", few, "--cls", tmp_path / "cls", "--out", tmp_path / "masks",
                "--workers", 0, "--device", "cpu") == 0
    assert call("train_seg", "--data", few, "--masks", tmp_path / "masks/masks.csv", "--folds",
                tmp_path / "cls/folds.csv", "--out", tmp_path / "seg", "--epochs", 1, *SMALL) == 0
    assert call("evaluate", "--data", few, "--folds", tmp_path / "cls/folds.csv", "--out",
                tmp_path / "eval", f"a={tmp_path}/masks/masks.csv",
                f"b={tmp_path}/seg/oof_masks.csv") == 0
    scores = metrics_of(tmp_path / "eval")["masks"]
    pairs = sum((n, c) in labels.rles for n in names for c in range(3))
    assert scores["nothing predicted"]["scores"]["dice_pairs"][1] == pytest.approx(
        1 - pairs / (3 * len(names)))
    assert len(list((tmp_path / "eval").glob("class_*.png"))) == 3
