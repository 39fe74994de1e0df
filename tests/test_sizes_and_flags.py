"""Masks at an image's own size, and what single flags of the scripts do."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import SMALL, call
from PIL import Image

import train_seg
from cam2seg import cam, losses, masks, metrics, models
from cam2seg.cam import numpy_maps
from cam2seg.data.csv_files import read_csv
from cam2seg.data.folds import read_folds
from cam2seg.data.labels import read_labels
from cam2seg.data.stored_maps import read
from cam2seg.models import MEAN, STD
from cam2seg.runs.checkpoints import load_checkpoint
from cam2seg.training import mask_scores, network_masks
from cam2seg.training.fit import Settings


def bilinear(small, size):
    """Literal bilinear sampling between cell centres, edges repeated."""
    h, w = small.shape
    out = np.zeros(size)
    for i in range(size[0]):
        for j in range(size[1]):
            y = min(max((i + 0.5) * h / size[0] - 0.5, 0), h - 1)
            x = min(max((j + 0.5) * w / size[1] - 0.5, 0), w - 1)
            a, b = int(y), int(x)
            c, d = min(a + 1, h - 1), min(b + 1, w - 1)
            out[i, j] = ((1 - y + a) * ((1 - x + b) * small[a, b] + (x - b) * small[a, d])
                         + (y - a) * ((1 - x + b) * small[c, b] + (x - b) * small[c, d]))
    return out


@pytest.mark.parametrize("how, after", [("minmax", False), ("minmax", True),
                                        ("max", False), ("max", True)])
def test_stored_maps_at_the_size_of_their_image(how, after):
    small = np.random.default_rng(0).uniform(0.2, 1, (2, 3, 2)).astype(np.float16)
    full = numpy_maps(small, (7, 11), how, after)
    for c in range(2):
        m = small[c].astype(np.float64)
        m = bilinear(m, (7, 11)) if after else m
        low = m.min() if how == "minmax" else 0
        m = (m - low) / (m.max() - low)
        m = m if after else bilinear(m, (7, 11))
        assert np.abs(full[c] - m).max() < 1e-6


def test_unet_masks_at_the_size_of_each_image():
    """Probabilities at the network's 4 x 6 are sampled at 9 x 5 and 4 x 12, then thresholded."""
    logits = torch.randn(2, 2, 4, 6, generator=torch.Generator().manual_seed(0))

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return logits

    class Two:
        loader = SimpleNamespace(dataset=SimpleNamespace(names=["a", "b"]))

        def __len__(self):
            return 2

        def __call__(self, epoch):
            return iter([(torch.zeros(2, 4, 6, 3), torch.zeros(2))])

        def rows(self):
            return [0, 1]

    sizes = {"a": (9, 5), "b": (4, 12)}
    args = train_seg.get_args(["--threshold", "0.45", "--min-seg-len", "7"])
    settings = Settings(None, lambda p: p, 1, {})
    rles, _ = network_masks.predict(args, [Net()], Two(), sizes, settings)
    for i, name in enumerate("ab"):
        for c in range(2):
            mask = bilinear(logits[i, c].sigmoid().double().numpy(), sizes[name]) >= 0.45
            mask = mask if mask.sum() >= 7 else np.zeros_like(mask)
            assert (masks.rle_decode(rles[name, c], sizes[name]) == mask).all()


def test_scores_by_fold_are_recounted_in_each_fold():
    counts = np.array([[[2], [0], [3]], [[4], [1], [3]], [[2], [1], [5]]])  # inter, truth, pred
    fold = np.array([0, 0, 1])
    got = mask_scores.by_fold(counts, fold)["dice_pairs"]
    first, second = (4 / 6 + 0) / 2, 6 / 8
    assert list(got["folds"].values()) == pytest.approx([first, second])
    assert got["mean"] == pytest.approx((first + second) / 2)
    assert got["sd"] == pytest.approx(abs(first - second) / 2 ** 0.5)


def test_clean_images_can_be_left_out(shapes, tmp_path):
    assert call("train_cls", "--data", shapes, "--out", tmp_path, "--folds", 2, "--epochs", 1,
                "--clean", "drop", *SMALL) == 0
    with_defect = [n for n in (f"{i:03d}.png" for i in range(48)) if int(n[:3]) % 4]
    assert sorted(read_folds(tmp_path / "folds.csv")) == with_defect


def test_new_images_get_the_mean_even_if_their_names_are_in_the_folds(shapes, runs, tmp_path):
    flags = ("--data", shapes, "--cls", runs / "cls", "--no-aug-smooth", "--workers", 0,
             "--device", "cpu")
    assert call("make_masks", *flags, "--out", tmp_path / "new", "--new-images") == 0
    rows = [r for _, r in read_csv(tmp_path / "new/maps.csv")[1]]
    assert {r["fold"] for r in rows} == {"-1"}
    assert call("make_masks", *flags, "--out", tmp_path / "own") == 0
    own = [r for _, r in read_csv(tmp_path / "own/maps.csv")[1]]
    assert sum(a["p of 1"] != b["p of 1"] for a, b in zip(rows, own, strict=True)) > 24


@pytest.mark.parametrize("flags, how, after", [((), "minmax", False), (("--norm", "max"), "max",
                                               False), (("--norm-after",), "minmax", True)])
def test_normalisation_flags_reach_the_masks(shapes, runs, tmp_path, flags, how, after):
    out = tmp_path / "masks"
    shutil.copytree(runs / "masks", out)
    assert call("make_masks", "--data", shapes, "--cls", runs / "cls", "--out", out,
                "--target-layer", "features.5", "--reuse-maps", "--gate", "labels", "--threshold",
                0.4, "--workers", 0, "--device", "cpu", *flags) == 0
    made = read_labels(out / "masks.csv", shapes / "train_images")
    truth = read_labels(shapes / "train.csv", shapes / "train_images")
    names, _, _, maps = read(out)
    for i, name in enumerate(names):
        full = numpy_maps(maps[i], (64, 64), how, after)
        for c in range(2):
            mask = (full[c] >= 0.4) & bool(truth.y[i, c])
            assert made.rles.get((name, c), "") == masks.rle_encode(mask)


def test_an_area_equal_to_the_bound_is_kept_unless_strict(shapes, runs, tmp_path):
    """DEV-13, from maps to masks.csv and in what --search finds."""
    out = tmp_path / "masks"
    shutil.copytree(runs / "masks", out)

    def areas(*more):
        assert call("make_masks", "--data", shapes, "--cls", runs / "cls", "--out", out,
                    "--target-layer", "features.5", "--reuse-maps", "--workers", 0, "--device",
                    "cpu", *more) == 0
        made = read_labels(out / "masks.csv", shapes / "train_images")
        return {k: masks.rle_decode(v, (64, 64)).sum() for k, v in made.rles.items() if v}

    every = areas()
    bound = sorted(every.values())[len(every) // 2]
    assert areas("--min-seg-len", bound) == {k: v for k, v in every.items() if v >= bound}
    assert areas("--min-seg-len", bound, "--strict-len", "--search") == {
        k: v for k, v in every.items() if v > bound}
    union = json.loads((out / "metrics.json").read_text())["table2"][1]
    assert union["parameters"]["0"]["min_seg_len"] in (1, 5, 9, 21, 42, 83, 206)


def test_factors_multiply_the_raw_image_when_asked(shapes, runs, tmp_path):
    """DEV-6: maps of one image from its own model, six views of raw pixels."""
    assert call("make_masks", "--data", shapes, "--cls", runs / "cls", "--out", tmp_path,
                "--target-layer", "features.5", "--method", "gradcam", "--smooth-image",
                "--workers", 0, "--device", "cpu") == 0
    names, _, _, maps = read(tmp_path)
    fold = read_folds(runs / "cls/folds.csv")[names[3]]
    state = load_checkpoint(runs / f"cls/fold{fold}/swa.pt")
    model = models.Classifier(**state["model_args"])
    model.load_state_dict(state["model"])
    raw = np.asarray(Image.open(shapes / "train_images" / names[3]).convert("RGB")) / 255
    total = 0
    for f in (1.0, 1.1, 0.9):
        for step in (1, -1):
            x = (f * raw[:, ::step] - MEAN) / STD
            x = torch.from_numpy(x.transpose(2, 0, 1).copy()).float()[None]
            total = total + cam.class_maps(model, x, "features.5", "gradcam")[0].flip(
                [-1] if step < 0 else [])
    expected = cam.normalize(total, "max")[0]
    assert np.abs(expected.numpy() - maps[3]).max() < 2e-3
    x = torch.from_numpy((raw - MEAN) / STD).float().permute(2, 0, 1)[None]
    plain = cam.aug_smooth(lambda v: cam.class_maps(model, v, "features.5", "gradcam")[0], x)
    assert np.abs(cam.normalize(plain, "max")[0].numpy() - maps[3]).max() > 2e-2


def test_search_grid_spans_the_parameters_in_shares_of_the_image():
    import make_masks
    from cam2seg.training.map_masks import search_grid
    grid = search_grid(make_masks.get_args([]), {"a": (100, 100)})
    assert grid["threshold"][0] == 0.05 and grid["threshold"][-1] == 0.95
    assert grid["confidence"] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert grid["min_seg_len"] == [0, 10, 20, 50, 100, 200, 500]


def test_soft_dice_of_an_absent_class_is_defined_where_probabilities_round_to_zero():
    logits = torch.full((1, 1, 2, 2), -200.0, requires_grad=True)
    loss = losses.segmentation_loss(logits, torch.zeros(1, 1, 2, 2), "bce+dice")
    loss.backward()
    assert loss.item() == 0 and logits.grad.isfinite().all()


def test_all_empty_baseline_is_the_share_of_absent_pairs(runs):
    scores = json.loads((runs / "eval/metrics.json").read_text())["masks"]["nothing predicted"]
    truth = np.array([[1, 0], [0, 1], [1, 1]] * 12)  # 36 images with a defect
    zero = np.zeros_like(truth)
    assert scores["scores"]["dice_pairs"] == [
        pytest.approx(list(v)) if isinstance(v, list) else pytest.approx(v)
        for v in metrics.mask_scores(zero, truth, zero)["dice_pairs"]]


@pytest.mark.parametrize("script", ["train_cls", "train_seg"])
def test_a_fold_is_trained_on_all_other_folds(script, shapes, runs, tmp_path, monkeypatch):
    seen = []

    def record(model, optimizer, train, val, *rest):
        seen.append((train.indices.tolist(), val.indices.tolist()))
        raise KeyboardInterrupt

    monkeypatch.setattr("cam2seg.training.cross_validation.fit", record)
    more = ("--masks", shapes / "train.csv", "--folds", runs / "cls/folds.csv") \
        if script == "train_seg" else ("--folds", 2)
    assert call(script, "--data", shapes, "--out", tmp_path, "--fold", 1, *more, *SMALL) == 130
    folds = read_folds(runs / "cls/folds.csv")
    held_out = [i for i, name in enumerate(sorted(folds)) if folds[name] == 1]
    others = [i for i, name in enumerate(sorted(folds)) if folds[name] == 0]
    assert seen == [(others, held_out)]


def test_confidence_gates_by_probability_even_where_labels_are_at_hand(shapes, runs):
    truth = read_labels(shapes / "train.csv", shapes / "train_images")
    made = read_labels(runs / "masks/masks.csv", shapes / "train_images")
    names, _, probs, maps = read(runs / "masks")
    assert ((probs < 0.5) & (truth.y > 0)).any()  # else the labels would give the same masks
    for i, name in enumerate(names):
        full = numpy_maps(maps[i], (64, 64), "minmax", False)
        for c in range(2):
            mask = (full[c] >= 0.3) & bool(probs[i, c] >= 0.5)
            assert made.rles.get((name, c), "") == masks.rle_encode(mask)
