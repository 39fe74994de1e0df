"""Scores, run lengths and weight averages beside those of scikit-learn, torchmetrics,
segmentation-models-pytorch, pycocotools and torch itself. See test_peers_cam.py."""

import copy

import numpy as np
import pytest
import torch
from conftest import peer

from cam2seg import averaging, masks, metrics, models
from cam2seg.data import coco as coco_json

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def rng():
    torch.manual_seed(0)
    return np.random.default_rng(0)


def test_roc_auc_with_ties(rng, agree):
    score, ours, theirs = peer("sklearn.metrics").roc_auc_score, [], []
    for _ in range(500):
        n = rng.integers(2, 300)
        p = np.round(rng.random(n), rng.integers(0, 4))  # 0 digits: hardly anything but ties
        y = rng.random(n) < rng.random()
        y[:2] = True, False
        ours.append(metrics.roc_auc(y, p))
        theirs.append(score(y, p))
    agree("ROC-AUC, 500 cases with ties", "scikit-learn", ours, theirs, 1e-12)


# Scores of masks


@pytest.fixture
def pairs(rng):
    """Masks (N, C, H, W), true and predicted: either, both or none empty, one full, and a class
    that is nowhere."""
    truth, pred = (rng.random((12, 4, 9, 13)) < rng.random((12, 4, 1, 1)) for _ in range(2))
    truth[:5, 0] = pred[3:8, 0] = False
    truth[0, 1] = pred[0, 1] = pred[1, 1] = True
    truth[:, 3] = pred[:, 3] = False
    assert {(a, b) for a, b in zip(truth.any(axis=(2, 3)).flat, pred.any(axis=(2, 3)).flat,
                                   strict=True)} == {(a, b) for a in (0, 1) for b in (0, 1)}
    return truth, pred


def scores(truth, pred):
    return metrics.mask_scores(*(m.sum(axis=(2, 3)) for m in (truth & pred, truth, pred)))


def each_dice(truth, pred, empty=1.0):
    return [[metrics.dice(t, p, empty) for t, p in zip(*image, strict=True)]
            for image in zip(truth, pred, strict=True)]


def test_mask_scores_of_segmentation_models(pairs, agree):
    smp, found = peer("segmentation_models_pytorch.metrics"), scores(*pairs)
    truth, pred = (torch.from_numpy(m).long() for m in pairs)
    stats = smp.get_stats(pred, truth, mode="multilabel")
    for what, score, reduction, ours in [
            ("Dice of each mask", smp.f1_score, None, each_dice(*pairs)),
            ("dice_pairs", smp.f1_score, "macro-imagewise", found["dice_pairs"][1]),
            ("dice_dataset", smp.f1_score, "macro", found["dice_dataset"][1]),
            ("iou", smp.iou_score, "macro", found["iou"][1])]:
        theirs = score(*stats, reduction=reduction, zero_division=1.0)
        agree(what, "segmentation-models-pytorch", ours, theirs, 1e-6)  # theirs is float32


def test_mask_scores_of_torchmetrics(pairs, agree):
    package, found = peer("torchmetrics.functional.classification"), scores(*pairs)
    truth, pred = (torch.from_numpy(m).int() for m in pairs)
    for what, score in [("dice_dataset", package.multilabel_f1_score),
                        ("iou", package.multilabel_jaccard_index)]:
        theirs = score(pred, truth, num_labels=4, average="none", zero_division=1)
        agree(f"{what} of each class", "torchmetrics", found[what][0], theirs, 1e-6)


def test_dice_of_torchmetrics_which_leaves_out_what_is_empty_on_both_sides(pairs, agree):
    DiceScore = peer("torchmetrics.segmentation").DiceScore
    truth, pred = (m[:, :3] for m in pairs)
    score = DiceScore(num_classes=3, average="none", aggregation_level="samplewise")
    score.update(torch.from_numpy(pred).int(), torch.from_numpy(truth).int())
    agree("Dice of each class, empty pairs left out", "torchmetrics DiceScore",
          np.nanmean(each_dice(truth, pred, empty=np.nan), axis=0), score.compute(), 1e-6)


# Run lengths: COCO's count zeros and ones in turn, from a run of zeros, down the columns


def coco(rle, size):
    """COCO's RLE object, compressed by pycocotools, of our run lengths."""
    counts, end = [], 1
    for start, length in np.array(rle.split(), int).reshape(-1, 2).tolist():
        counts += [start - end, length]
        end = start + length
    rest = size[0] * size[1] + 1 - end
    return peer("pycocotools.mask").frPyObjects(
        {"counts": counts + [rest] * (rest > 0), "size": list(size)}, *size)


def test_the_text_of_coco_json_is_that_of_pycocotools(rng, agree):
    """Written and read, compressed and not."""
    package, ours, theirs = peer("pycocotools.mask"), [], []
    for n in range(300):
        mask = rng.random(rng.integers(1, 40, 2)) < (n % 5) / 4
        rle, size = masks.rle_encode(mask), list(mask.shape)
        counts = coco_json.to_counts(rle, mask.shape)
        ours.append(coco_json.compress(counts).encode())
        theirs.append(package.encode(np.asfortranarray(mask, np.uint8))["counts"])
        again = package.frPyObjects({"counts": counts, "size": size}, *size)["counts"]
        for text in (ours[-1], again):
            assert coco_json.from_counts(coco_json.decompress(text.decode())) == rle
    agree("compressed run lengths, 300 masks", "pycocotools", *(
        np.frombuffer(b"\n".join(rles), np.uint8) for rles in (ours, theirs)), 0)


def test_pycocotools_reads_our_coco_json(rng, agree, tmp_path):
    package, ours, theirs = peer("pycocotools.coco").COCO, [], []
    sizes = {"a.jpg": (9, 7), "x/b.jpg": (1, 8), "clean.jpg": (5, 5)}
    drawn = {(name, c): rng.random(size) < 0.4 for name, size in sizes.items() for c in range(2)
             if name != "clean.jpg"}
    rles = {key: masks.rle_encode(mask) for key, mask in drawn.items()}
    coco_json.write(tmp_path / "x.json", list(sizes), sizes, ["pit", "crack"], rles)
    found = package(str(tmp_path / "x.json"))
    assert [found.cats[i]["name"] for i in found.getCatIds()] == ["pit", "crack"]
    assert [found.imgs[i]["file_name"] for i in found.getImgIds()] == list(sizes)
    for part in found.anns.values():
        mask = drawn.pop((found.imgs[part["image_id"]]["file_name"], part["category_id"] - 1))
        box = peer("pycocotools.mask").toBbox(found.annToRLE(part))
        ours += [*mask.ravel(), *part["bbox"], part["area"]]
        theirs += [*found.annToMask(part).ravel(), *box, mask.sum()]
    assert not drawn
    agree("masks, boxes and areas of COCO JSON", "pycocotools", ours, theirs, 0)


def test_rle_encode_gives_the_bytes_of_coco(rng, agree):
    package, ours, theirs = peer("pycocotools.mask"), [], []
    for n in range(300):
        size = tuple(rng.integers(1, 40, 2).tolist())
        mask = rng.random(size) < (n % 5) / 4  # empty and full among them
        ours.append(coco(masks.rle_encode(mask), size)["counts"])
        theirs.append(package.encode(np.asfortranarray(mask, np.uint8))["counts"])
    agree("rle_encode, 300 masks", "pycocotools", *(
        np.frombuffer(b"\n".join(rles), np.uint8) for rles in (ours, theirs)), 0)


def test_rle_decode_gives_the_masks_of_coco(rng, agree):
    package, ours, theirs = peer("pycocotools.mask"), [], []
    for n in range(300):
        size = tuple(rng.integers(1, 40, 2).tolist())
        pixels = size[0] * size[1]
        cuts = np.sort(rng.choice(pixels + 1, 2 * rng.integers(0, (pixels + 1) // 2 + 1), False))
        starts, ends = cuts[::2], cuts[1::2]
        if n % 3 == 0:  # runs that touch
            starts, ends = cuts[:-1], cuts[1:]
        rle = " ".join(f"{s + 1} {e - s}" for s, e in zip(starts, ends, strict=True))
        ours.append(masks.rle_decode(rle, size).ravel())
        theirs.append(package.decode(coco(rle, size)).ravel())
    agree("rle_decode, 300 run lengths", "pycocotools",
          np.concatenate(ours), np.concatenate(theirs), 0)


# Weight averages


def shares(state, reference):
    """All its floating tensors in a row, each as a share of the reference's largest value."""
    return torch.cat([(state[k] / v.abs().max().clamp(min=1e-300)).flatten()
                      for k, v in reference.items() if v.is_floating_point()])


def test_update_bn_of_torch(rng, agree):
    """With equal batches; the same seed, so that the same dropout and stochastic depth."""
    ours = models.Classifier("b0", 3, hidden=8).double()
    theirs = copy.deepcopy(ours)
    batches = [torch.randn(4, 3, 64, 64, dtype=torch.float64) for _ in range(3)]
    torch.manual_seed(1)
    averaging.update_bn(ours, batches)
    torch.manual_seed(1)
    torch.optim.swa_utils.update_bn(batches, theirs)
    a, b = ours.state_dict(), theirs.state_dict()
    agree("update_bn, classifier b0", "torch update_bn", shares(a, b), shares(b, b), 1e-9)


def test_average_states_of_torch(rng, agree):
    nets = [models.Classifier("b0", 3, hidden=8).double() for _ in range(3)]
    for net in nets:
        averaging.update_bn(net, [torch.randn(4, 3, 64, 64, dtype=torch.float64)])
    mean = torch.optim.swa_utils.AveragedModel(nets[0], use_buffers=True)
    for net in nets:
        mean.update_parameters(net)
    theirs = mean.module.state_dict()
    ours = averaging.average_states([net.state_dict() for net in nets])
    agree("average_states, classifier b0", "torch AveragedModel", shares(ours, theirs),
          shares(theirs, theirs), 1e-12)
