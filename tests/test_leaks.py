"""What shall stay unseen stays unseen: true masks that are given for scores alone, the held-out
images of a fold, and the networks of the other folds. All on toy networks, so that it is quick."""

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn as nn
from conftest import HEAD, SMALL, call, good_rows

import make_masks
import train_cls
import train_seg
from cam2seg import cam, masks
from cam2seg.data.csv_files import read_probs
from cam2seg.data.dataset import ImageSet
from cam2seg.data.labels import Labels, read_labels
from cam2seg.runs.checkpoints import load_checkpoint, save_checkpoint
from cam2seg.runs.progress import silent
from cam2seg.training import held_out_maps, network_masks, segmentation_work, ways
from cam2seg.training.batches import Batches
from cam2seg.training.cross_validation import Fold
from cam2seg.training.fit import Settings
from cam2seg.training.predictor import Predictor
from cam2seg.training.work import Work

NAMES = [f"{i:02d}.jpg" for i in range(12)]  # the images of the fixture `photos`, grey 20 i
FOLD = np.array([0, 1, 2] * 4)
PRE = {"size": [8, 8], "mean": [0.0] * 3, "std": [1.0] * 3, "classes": ["1", "2"]}


def pixels_over_255(pixels):
    return pixels.permute(0, 3, 1, 2).float() / 255


# True masks


@pytest.fixture
def made(tmp_path, monkeypatch):
    """made(y, rles, *flags): the results of masks_from_maps for twelve random maps 4 x 4 of two
    classes at 8 x 8; made.maps and made.probs are what the masks are made of."""
    rng = np.random.default_rng(3)
    maps = rng.uniform(0.1, 1, (12, 2, 4, 4))
    maps = (maps / maps.max(axis=(2, 3), keepdims=True)).astype(np.float16)
    probs = rng.random((12, 2))
    monkeypatch.setattr(ways, "load_or_make_maps", lambda args, work, report: (maps, probs))

    def results(y, rles, *flags):
        args = make_masks.get_args(["--out", str(tmp_path), *map(str, flags)])
        labels = Labels(NAMES, ["1", "2"], np.array(y, np.uint8), rles, {})
        sizes = dict.fromkeys(NAMES, (8, 8))
        work = Work(NAMES, labels, sizes, {}, FOLD % 2, labels.classes)
        return make_masks.masks_from_maps(args, work, silent)[0]

    results.maps, results.probs, results.out = maps, probs, tmp_path
    return results


def pairs_with_mask(path):
    return {key for key, rle in read_labels(path).rles.items() if rle}


Y = np.array([[1, 0], [0, 1], [1, 1], [0, 0]] * 3)


@pytest.mark.parametrize("confidence", [0, 0.5, 1])
def test_the_labels_gate_lets_the_labelled_classes_pass_at_any_confidence(made, confidence):
    """DEV-11: exactly the labelled pairs get a mask; the probabilities have no say."""
    made(Y, None, "--gate", "labels", "--confidence", confidence)
    assert pairs_with_mask(made.out / "masks.csv") == {
        (NAMES[i], c) for i, c in np.argwhere(Y).tolist()}


@pytest.mark.parametrize("confidence", [0, 0.4, 0.9])
def test_the_gate_of_confidence_does_not_look_at_labels(made, confidence):
    made(Y, None, "--confidence", confidence)
    assert pairs_with_mask(made.out / "masks.csv") == {
        (NAMES[i], c) for i, c in np.argwhere(made.probs >= confidence).tolist()}


def drawn(made, threshold_of):
    """{(name, class): run lengths} of the maps above threshold_of(fold), and so their own truth."""
    return {(n, c): masks.rle_encode(heat >= np.float32(threshold_of(i % 3 % 2)))
            for i, n in enumerate(NAMES)
            for c, heat in enumerate(cam.numpy_maps(made.maps[i], (8, 8), "minmax", False))}


@pytest.mark.parametrize("gate", ["confidence", "labels"])
def test_true_masks_change_no_byte_of_masks_csv(made, gate):
    """Nor of what --search labels chooses."""
    by_area = {(n, c): "1 3" if Y[i, c] else "1 1" for i, n in enumerate(NAMES) for c in range(2)}
    written, chosen, truths = [], [], (None, drawn(made, lambda k: 0.6), by_area)
    for rles, search in [(rles, ["labels"]) for rles in truths] + [(truths[1], [])]:
        results = made(Y, rles, "--gate", gate, "--search", *search)
        written.append([(made.out / f"{n}.csv").read_bytes() for n in ("masks", "masks_labels")])
        chosen += [results[1]["parameters"]] if search else []
    assert all(files == written[0] for files in written)
    assert all(parameters == chosen[0] for parameters in chosen)


def test_a_fold_is_masked_with_the_parameters_that_the_other_fold_chose(made):
    """DEV-10. The truth of fold 0 is its maps at 0.7, that of fold 1 at 0.3: each fold gets the
    masks of the other one's threshold."""
    results = made(np.ones((12, 2)), drawn(made, lambda k: 0.3 if k else 0.7), "--search",
                   "--gate", "labels")
    assert results[2]["masks"] == "masks_crossfit"
    found = read_labels(made.out / "masks_crossfit.csv").rles
    expected = drawn(made, lambda k: 0.7 if k else 0.3)
    assert {k: v for k, v in found.items() if v} == {k: v for k, v in expected.items() if v}


@pytest.mark.parametrize("loss", ["bce", "dice", "bce+dice"])
def test_what_a_unet_says_of_ignored_pixels_costs_nothing(loss):
    work = segmentation_work.Work(Labels(NAMES, ["1", "2"], None, {}, {}), None, {(NAMES[0], 0): "1 1"},
                          None, {}, {}, FOLD)
    args = train_seg.get_args(["--weights", "none", "--loss", loss])
    recipe = train_seg.seg_recipe(args, work, (8, 8))
    rng = np.random.default_rng(0)
    target = torch.from_numpy(rng.choice([0, 1, 255], (2, 2, 8, 8)).astype(np.uint8))
    logits, others = (torch.from_numpy(rng.normal(size=target.shape)) for _ in range(2))
    inside, outside = (torch.where(part, others, logits) for part in (target == 255, target < 255))
    assert recipe.loss(inside, target) == recipe.loss(logits, target)
    assert recipe.loss(outside, target) != recipe.loss(logits, target)


# Held-out images


def fold_one(photos, tmp_path, model, states, kind, epoch):
    """A Fold that holds the images 1, 4, 7 and 10 out; epoch n of `states` is saved as epoch{n}.pt
    and `epoch` is the best one."""
    meta = {"kind": kind, "preprocess": PRE, "model_args": {}}
    for n, state in states.items():
        model.load_state_dict(state)
        save_checkpoint(tmp_path / f"epoch{n}.pt", model, meta)
    items = ImageSet(photos, NAMES, (8, 8), np.zeros((12, 2), np.float32))
    train, val = (Batches(items, np.flatnonzero(part), 3) for part in (FOLD != 1, FOLD == 1))
    best = [{"epoch": epoch, "val_loss": 0.1}]
    return Fold(1, model, train, val, best, tmp_path, Settings(None, pixels_over_255, 4, meta))


class NormFirst(nn.Module):
    """BatchNorm of the pixels, and a logit of each class from the first channel's mean."""

    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.BatchNorm2d(3), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.norm(x).mean(dim=(2, 3)))


@pytest.mark.parametrize("how", ["update", "average"])
def test_the_statistics_of_the_averaged_network_are_those_of_the_training_images(photos, tmp_path,
                                                                                how):
    """DEV-7: the mean over the images that are not held out; and held-out probabilities by it."""
    net = NormFirst()
    net.norm.running_mean.fill_(0.5)
    trained = fold_one(photos, tmp_path, net, {2: net.state_dict()}, "classifier", 2)
    args = train_cls.get_args(["--workers", "0", "--batch-size", "3", "--swa-bn", how])
    labels = Labels(NAMES, ["1", "2"], np.zeros((12, 2)), None, {})
    train_cls.finish_fold(args, labels, trained)
    grey = np.array([np.mean(items[0]) for items in (trained.val.loader.dataset[i, None]
                                                     for i in range(12))]) / 255
    mean = torch.full((3,), grey[FOLD != 1].mean() if how == "update" else 0.5)
    swa = load_checkpoint(tmp_path / "swa.pt")["model"]
    torch.testing.assert_close(swa["norm.running_mean"], mean, rtol=1e-5, atol=1e-6)
    for file, state in (("oof", swa), ("oof_best", load_checkpoint(tmp_path / "best.pt")["model"])):
        net.load_state_dict(state)
        x = torch.from_numpy(grey[FOLD == 1]).float()[:, None, None, None].expand(-1, 3, 8, 8)
        with torch.no_grad():
            p = net.eval()(x).sigmoid().numpy()
        found = read_probs(tmp_path / f"{file}.csv", ["1", "2"])
        assert list(found) == [n for n, k in zip(NAMES, FOLD, strict=True) if k == 1]
        np.testing.assert_allclose(list(found.values()), p, atol=1e-5)


def test_the_batchnorm_pass_meets_each_training_image_once_as_in_the_best_epoch():
    seen = []

    class Items:
        def __getitem__(self, item):
            seen.append(item)
            return np.zeros((2, 2, 3), np.uint8), 0

    train = Batches(Items(), np.flatnonzero(FOLD != 1), 3)
    trained = SimpleNamespace(train=train, best=[{"epoch": 4}, {"epoch": 2}],
                              settings=SimpleNamespace(prepare=pixels_over_255, title="",
                                                       report=silent))
    args = train_cls.get_args(["--workers", "0", "--batch-size", "3"])
    assert sum(len(x) for x in train_cls.training_inputs(args, trained)) == 8
    assert sorted(seen) == [(i, 3) for i in np.flatnonzero(FOLD != 1)]


def constant_net(probability, channels=2):
    """A network whose pixels all have that probability."""
    net = nn.Conv2d(3, channels, 1)
    nn.init.zeros_(net.weight)
    nn.init.constant_(net.bias, float(np.log(probability / (1 - probability))))
    return net


@pytest.mark.parametrize("gated", [False, True])
def test_a_unet_masks_the_held_out_images_by_its_best_epoch_and_the_gate(photos, tmp_path, gated):
    """DEV-34: each pair of image and class by its own probability."""
    states = {2: constant_net(0.9).state_dict(), 3: constant_net(0.01).state_dict()}
    trained = fold_one(photos, tmp_path, constant_net(0.5), states, "unet", 2)
    probs = np.random.default_rng(0).random((12, 2))
    probs[4] = [0.6, 0.2]  # the bound itself passes
    work = segmentation_work.Work(Labels(NAMES, ["1", "2"], None, {}, {}), None, None,
                          dict(zip(NAMES, probs, strict=True)) if gated else None,
                          dict.fromkeys(NAMES, (40, 40)), {}, FOLD)
    train_seg.finish_fold(train_seg.get_args(["--confidence", "0.6"]), work, trained)
    found = read_labels(tmp_path / "oof_masks.csv")
    rows = np.flatnonzero(FOLD == 1)
    assert found.names == [NAMES[i] for i in rows]
    assert {k: rle for k, rle in found.rles.items() if rle} == {
        (NAMES[i], c): "1 1600" for i in rows for c in range(2)
        if not gated or probs[i, c] >= 0.6}
    assert torch.equal(load_checkpoint(tmp_path / "best.pt")["model"]["bias"], states[2]["bias"])


# Networks of other folds


def test_the_fold_of_an_image_goes_by_its_name(photos, tmp_path):
    """In both scripts, from a folds.csv in another order and with more names than there are."""
    (tmp_path / "masks.csv").write_text(HEAD + "\n".join(good_rows()) + "\n")
    (tmp_path / "folds.csv").write_text("ImageId,fold\nx.png,0\n" + "".join(
        f"{n},{k}\n" for n, k in reversed(list(zip(NAMES, FOLD, strict=True)))))
    args = train_seg.get_args(["--images", str(photos), "--masks", str(tmp_path / "masks.csv"),
                               "--folds", str(tmp_path / "folds.csv")])
    work = train_seg.load(args, silent)
    assert work.given.names == NAMES and work.fold.tolist() == FOLD.tolist()
    (tmp_path / "args.json").write_text('{"args": {}, "classes": ["1", "2"]}')
    for k in range(3):
        (tmp_path / f"fold{k}").mkdir()
        (tmp_path / f"fold{k}/swa.pt").touch()
    for more, fold in (([], FOLD), (["--new-images"], np.full(12, -1))):
        args = make_masks.get_args(["--images", str(photos), "--cls", str(tmp_path), *more])
        work = make_masks.load_images(args, silent)
        assert work.names == NAMES and work.fold.tolist() == fold.tolist()


def test_an_image_of_a_fold_meets_its_own_network_and_a_new_one_meets_all(photos, tmp_path,
                                                                         monkeypatch):
    met = {}

    def record(options, members, batch, classifiers):
        for grey in batch.float().mean(dim=(1, 2, 3)):
            met[round(grey.item() / 20)] = members
        return torch.ones(len(batch), 2, 2, 2), torch.zeros(len(batch), 2)

    monkeypatch.setattr(held_out_maps, "maps_of_batch", record)
    fold = np.where(np.arange(12) < 9, FOLD, -1)
    args = make_masks.get_args(["--images", str(photos), "--out", str(tmp_path), "--workers", "0",
                                "--batch-size", "2", "--target-layer", "last"])
    held_out_maps.make_maps(
        args, held_out_maps.Images(NAMES, fold, dict.fromkeys(NAMES, (40, 40)), ["1", "2"]),
        held_out_maps.Classifiers({k: f"net {k}" for k in range(3)}, PRE, torch.device("cpu")),
        silent)
    every = ["net 0", "net 1", "net 2"]
    assert met == {i: [every[k]] if k >= 0 else every for i, k in enumerate(fold)}


def test_each_network_has_the_same_weight_in_a_mean_of_maps(monkeypatch):
    """DEV-19 by loops: each map by its own maximum, their mean, and that by its maximum."""
    rng = torch.Generator().manual_seed(1)
    seen = [(torch.rand(2, 3, 4, 5, generator=rng) * scale, torch.randn(2, 3, generator=rng))
            for scale in (1.0, 1000.0, 1e-3)]
    seen[0][0][1, 2] = 0  # a map without any positive part stays 0
    monkeypatch.setattr(held_out_maps, "smoothed_maps", lambda o, model, x, pre: seen[model])
    maps, probs = held_out_maps.maps_of_batch(
        held_out_maps.MapOptions(), [0, 1, 2], torch.zeros(2, 4, 5, 3, dtype=torch.uint8),
        held_out_maps.Classifiers({}, PRE, torch.device("cpu")))
    for b in range(2):
        for c in range(3):
            mean = torch.zeros(4, 5, dtype=torch.float64)
            for m, _ in seen:
                largest = m[b, c].max().item()
                mean += m[b, c].double() / largest / 3 if largest > 0 else 0
            torch.testing.assert_close(maps[b, c].double(), mean / mean.max(), rtol=0, atol=1e-6)
            p = sum(1 / (1 + np.exp(-y[b, c].item())) for _, y in seen) / 3
            assert probs[b, c].item() == pytest.approx(p, abs=1e-6)


def test_new_images_are_masked_by_the_mean_over_all_folds(photos, tmp_path, monkeypatch):
    """0.1 and 0.9 in two folds: the mean is a half, which neither of the two alone gives."""
    for k in range(2):
        (tmp_path / f"fold{k}").mkdir()
        (tmp_path / f"fold{k}/best.pt").touch()
    nets = {"fold0": constant_net(0.1), "fold1": constant_net(0.9)}
    monkeypatch.setattr("cam2seg.runs.restore.network",
                        lambda build, path, kind: (nets[path.parent.name], {}))
    recipe = SimpleNamespace(loss=None, meta={"preprocess": PRE})
    warned = []
    plan = SimpleNamespace(
        device="cpu", dataset=SimpleNamespace(size=(8, 8)),
        report=lambda event, **facts: event == "warning" and warned.append(facts["text"]))
    sizes = dict.fromkeys(NAMES[:3], (40, 40))
    for threshold, mask in ((0.55, ""), (0.45, "1 1600")):
        assert not warned
        args = train_seg.get_args(["--out", str(tmp_path), "--predict", str(photos), "--workers",
                                   "0", "--threshold", str(threshold)])
        network_masks.mask_new_images(args, recipe, plan, sizes,
                                      partial(train_seg.warn, plan.report))
        found = read_labels(tmp_path / "new_masks.csv").rles
        assert {found.get((n, c), "") for n in sizes for c in range(2)} == {mask}
    assert [line.partition("; ")[0] for line in warned] == [
        f"{tmp_path}/new_masks.csv: class {', '.join(PRE['classes'])}: the typical mask covers more "
        "than half of the image, which is rarely a defect"]


@pytest.mark.parametrize("fold, said", [(None, 0.5), (0, 0.1), (1, 0.9)])
def test_a_predictor_asks_the_network_of_the_fold_alone(fold, said):
    predict = Predictor({0: constant_net(0.1), 1: constant_net(0.9)},
                        {"kind": "unet", "preprocess": PRE, "model_args": {}},
                        torch.device("cpu"))
    found = predict(np.zeros((6, 5), np.uint8), fold=fold, threshold=0.7)
    np.testing.assert_allclose(found.probabilities, np.full((2, 6, 5), said), atol=1e-6)
    assert found.masks.all() == (said > 0.7)


# The whole script; last, because it takes the longest


def test_a_unet_is_the_same_whether_the_truth_is_there_for_scores_or_not(photos, tmp_path):
    """The same weights, losses and masks; only metrics.json knows of the truth."""
    for name, rle in (("given", "1 400"), ("truth", "801 700")):
        (tmp_path / f"{name}.csv").write_text(HEAD + "\n".join(good_rows(rle)) + "\n")
    (tmp_path / "folds.csv").write_text("ImageId,fold\n" + "".join(
        f"{n},{i % 2}\n" for i, n in enumerate(NAMES)))
    found = []
    for out, more in (("without", ()), ("with", ("--labels", tmp_path / "truth.csv"))):
        out = tmp_path / out
        assert call("train_seg", "--images", photos, "--masks", tmp_path / "given.csv", "--folds",
                    tmp_path / "folds.csv", "--out", out, "--epochs", 1, "--fold", 0, *SMALL,
                    "--size", 48, 48, *more) == 0
        row = json.loads((out / "fold0/log.jsonl").read_text())
        found.append((load_checkpoint(out / "fold0/best.pt")["model"], row["loss"],
                      row["val_loss"], (out / "oof_masks.csv").read_bytes()))
        assert ("table3" in json.loads((out / "metrics.json").read_text())) == bool(more)
    (weights, *rest), (others, *other_rest) = found
    assert rest == other_rest and all(torch.equal(v, others[k]) for k, v in weights.items())
