"""Classes that exclude each other (--target multiclass): loss, masks and scores against loops, and
the way through the script."""

import itertools
import json
import math
import re

import numpy as np
import pytest
import torch
from conftest import SMALL, call, interrupted, results

import cam2seg
from cam2seg import losses, masks, metrics, models
from cam2seg.data.csv_files import write_csv
from cam2seg.data.labels import read_labels
from cam2seg.runs.checkpoints import load_checkpoint
from cam2seg.training import fit, segmenters


def drawn(*shape, seed=0, part=0.3):
    return np.random.default_rng(seed).random(shape) < part


@pytest.mark.parametrize("left_out", [False, True])
def test_the_loss_equals_the_loops(left_out):
    y = torch.randn(2, 4, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = torch.from_numpy(drawn(2, 3, 5, 6).astype(np.uint8))  # many pixels in two masks
    if left_out:
        target[torch.from_numpy(drawn(2, 3, 5, 6, seed=1, part=0.1))] = 255
    total, count, doubled = 0.0, 0, 0
    for b, i, j in itertools.product(range(2), range(5), range(6)):
        values = [target[b, c, i, j].item() for c in range(3)]
        doubled += values.count(1) > 1
        if 255 in values or values.count(1) > 1:
            continue
        t = values.index(1) + 1 if 1 in values else 0
        logits = y[b, :, i, j].tolist()
        total += math.log(math.fsum(math.exp(v) for v in logits)) - logits[t]
        count += 1
    assert doubled > 5 and 0 < count < 60
    assert losses.multiclass_loss(y, target).item() == pytest.approx(total / count, rel=1e-12)


def test_pixels_that_do_not_count_have_no_gradient_and_nothing_is_zero():
    y = torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    target = torch.zeros(1, 2, 2, 2, dtype=torch.uint8)
    target[0, 1, 0, 0], target[0, :, 0, 1] = 255, 1
    losses.multiclass_loss(y, target).backward()
    assert not y.grad[..., 0, :].any() and y.grad[..., 1, :].abs().min() > 0
    y.grad = None
    loss = losses.multiclass_loss(y, torch.full_like(target, 255))
    loss.backward()
    assert loss.item() == 0 and not y.grad.any()
    with pytest.raises(ValueError, match="expected .1, 3, 2, 2. for a target of 2 classes"):
        losses.multiclass_loss(y[:, :2], target)


def test_probabilities_are_the_softmax_without_the_background():
    y = torch.randn(2, 3, 2, 4, dtype=torch.float64)
    p, q = models.probabilities(y, exclusive=True), models.probabilities(y)
    assert p.shape == (2, 2, 2, 4) and q.shape == y.shape
    for b, i, j in itertools.product(range(2), range(2), range(4)):
        e = [math.exp(v) for v in y[b, :, i, j].tolist()]
        for c in range(2):
            assert p[b, c, i, j].item() == pytest.approx(e[c + 1] / sum(e), rel=1e-12)
            assert q[b, c, i, j].item() == pytest.approx(1 / (1 + 1 / e[c]), rel=1e-12)
    nets = [torch.nn.Conv2d(3, 3, 1).double() for _ in range(2)]
    x = torch.randn(1, 3, 2, 2, dtype=torch.float64)
    mean = models.MeanProbability(nets, exclusive=True)(x)
    both = [models.probabilities(net(x).float(), True) for net in nets]
    torch.testing.assert_close(mean, (both[0] + both[1]) / 2)


def test_exclusive_masks_equal_the_loops():
    e = np.random.default_rng(0).random((4, 7, 9)) ** 4
    p = (e / e.sum(axis=0))[1:]
    got = masks.exclusive(p)
    assert got.shape == (3, 7, 9) and got.dtype == bool and got.any(axis=(1, 2)).all()
    for i, j in np.ndindex(7, 9):
        values = [1 - p[:, i, j].sum(), *p[:, i, j]]
        best = max(range(4), key=lambda k: values[k])
        assert got[:, i, j].tolist() == [best == c + 1 for c in range(3)]
    areas = got.sum(axis=(1, 2))
    least = sorted(areas)[1]
    kept = masks.exclusive(p, least)
    for c in range(3):
        assert (kept[c] == (got[c] if areas[c] >= least else False)).all()


def test_exclusive_masks_of_equal_probabilities_by_hand():
    p = np.array([[[0.5, 0.25, 0.4]], [[0.0, 0.5, 0.4]]])
    assert masks.exclusive(p).tolist() == [[[False, False, True]], [[False, True, False]]]


def test_confusion_accuracy_and_iou_equal_the_loops():
    truth, pred = drawn(3, 8, 9, seed=2), masks.exclusive(
        np.random.default_rng(3).dirichlet([1] * 4, (8, 9)).transpose(2, 0, 1)[1:])
    n = metrics.confusion(truth, pred)
    expected, right, union = [[0] * 4 for _ in range(4)], 0, [0] * 4
    for i, j in np.ndindex(8, 9):
        t = [c + 1 for c in range(3) if truth[c, i, j]] or [0]
        p = [c + 1 for c in range(3) if pred[c, i, j]] or [0]
        if len(t) == 1:
            expected[t[0]][p[0]] += 1
            right += t == p
            for k in {*t, *p}:
                union[k] += 1
    assert n.tolist() == expected and 0 < n.sum() < 72
    assert metrics.pixel_accuracy(n) == pytest.approx(right / n.sum())
    assert metrics.class_iou(n) == pytest.approx([n[k, k] / union[k] for k in range(4)])


def test_scores_without_pixels_are_none():
    n = metrics.confusion(np.zeros((2, 3, 3), bool), np.zeros((2, 3, 3), bool))
    assert metrics.pixel_accuracy(n) == 1 and metrics.class_iou(n) == [1, None, None]
    assert metrics.pixel_accuracy(n * 0) is None


@pytest.mark.parametrize("arch", ["b0", "segnet"])
def test_the_network_has_a_channel_for_the_background(arch, monkeypatch):
    monkeypatch.setitem(models.torchvision.models.vgg.cfgs, "D", [4, "M"])
    assert segmenters.build(arch, 3).head.out_channels == 3
    assert segmenters.build(arch, 3, target="multiclass").head.out_channels == 4


# Through the script


@pytest.fixture
def flags(shapes, tmp_path):
    """Flags of a short run on half of the drawn images, in two folds. Discs and bars may overlap;
    the first bar is among the pixels to leave out."""
    rows = [r.split(",") for r in (shapes / "train.csv").read_text().splitlines()[1:]]
    rows = [r for r in rows if int(r[0][:3]) < 24]
    head = ("ImageId", "ClassId", "EncodedPixels")
    write_csv(tmp_path / "some.csv", head, rows)
    write_csv(tmp_path / "ignore.csv", head, [next(r for r in rows if r[1] == "2")])
    write_csv(tmp_path / "folds.csv", ("ImageId", "fold"),
              [(f"{n:03d}.png", n // 4 % 2) for n in range(24)])
    return ("--images", shapes / "train_images", "--masks", tmp_path / "some.csv", "--labels",
            tmp_path / "some.csv", "--folds", tmp_path / "folds.csv", "--ignore",
            tmp_path / "ignore.csv", "--epochs", 3, *SMALL, "--batch-size", 4,
            "--lr-encoder", 3e-3, "--lr-decoder", 3e-3, "--target", "multiclass")


def test_multiclass_goes_through_the_script(flags, shapes, tmp_path, monkeypatch, capsys):
    out, new = tmp_path / "out", tmp_path / "new"
    targets = []
    monkeypatch.setattr(losses, "multiclass_loss", lambda logits, target, real=losses
                        .multiclass_loss: targets.append(target) or real(logits, target))
    new.mkdir()
    (new / "a.png").write_bytes((shapes / "train_images/003.png").read_bytes())
    assert call("train_seg", *flags, "--out", out, "--predict", new) == 0
    assert any((t == 255).any() for t in targets)
    said = "".join(capsys.readouterr())
    assert "masks of two classes share pixels in" in said
    assert re.search("pixel accuracy +IoU background +IoU 1 +IoU 2", said)

    true, found = (read_labels(path, shapes / "train_images", ["1", "2"])
                   for path in (tmp_path / "some.csv", out / "oof_masks.csv"))
    right = count = 0
    for name in (f"{n:03d}.png" for n in range(24)):
        t, p = (masks.decode_all(x.rles, name, (64, 64), 2) for x in (true, found))
        assert p.sum(axis=0).max() <= 1
        for i, j in np.ndindex(64, 64):
            if not t[:, i, j].all():
                count += 1
                right += (t[:, i, j] == p[:, i, j]).all()
    table = json.loads((out / "metrics.json").read_text())["table3_pixels"]
    assert table["U-Net (b0) on them"]["pixel_accuracy"] == pytest.approx(right / count)

    assert load_checkpoint(out / "fold0/best.pt")["model_args"]["target"] == "multiclass"
    predict = cam2seg.load(out, device="cpu")
    p = predict(new / "a.png")
    assert p.masks.shape == p.probabilities.shape == (2, 64, 64)
    assert p.probabilities.sum(axis=0).max() <= 1 + 1e-6
    given = read_labels(out / "new_masks.csv", new, ["1", "2"])
    assert (masks.decode_all(given.rles, "a.png", (64, 64), 2) != p.masks).sum() <= 4


def test_a_stopped_multiclass_run_goes_on_to_the_same_bytes(flags, tmp_path, refused):
    whole, out, one = tmp_path / "whole", tmp_path / "out", ("--fold", 0, "--epochs", 2)
    assert call("train_seg", *flags, *one, "--out", whole) == 0
    with interrupted(fit, "train_one_epoch", 2):
        assert call("train_seg", *flags, *one, "--out", out) == 130
    assert call("train_seg", *flags, *one, "--out", out, "--resume") == 0
    assert results(out) == results(whole)
    assert "--target" in refused("train_seg", *flags, *one, "--out", out, "--resume", "--target",
                                 "multilabel")


def test_multiclass_has_no_other_loss(flags, tmp_path, refused):
    assert "--target multiclass has the cross-entropy for its loss" in refused(
        "train_seg", *flags, "--out", tmp_path / "out", "--loss", "bce+dice")
