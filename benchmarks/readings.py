"""Measured effect of the readings in AUDIT.md, section 3: one run, the same classifiers and images.

    python benchmarks/readings.py --data neu --cls runs/cls [--out readings.json]

Each row changes one thing of the defaults of make_masks.py (Grad-CAM++, SWA, six views, min-max,
confidence 0.5, threshold 0.3) and gives [P-6] and Dice over the pairs that have a mask, taken over
the out-of-fold union. Readings that make_masks.py has no flag for are written out here and in
reading_maps.py. "One view": no aug smooth. "(fold 0)": only the images of fold 0, one view.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent.parent))
from reading_maps import ROWS, accepted_by, maps_of_batch, masks_of, stored  # noqa: E402

import make_masks  # noqa: E402
from cam2seg import cam, masks, metrics, models
from cam2seg.averaging import average_states
from cam2seg.data.dataset import ImageSet
from cam2seg.data.folds import folds_of
from cam2seg.data.labels import read_labels
from cam2seg.report.tables import print_table
from cam2seg.runs.checkpoints import load_checkpoint
from cam2seg.runs.folder import write_json
from cam2seg.runs.inputs import scan
from cam2seg.training.batches import Batches, to_input
from cam2seg.training.map_masks import search_grid


def both_scores(counts):
    found = metrics.mask_scores(*np.moveaxis(np.array(counts), 1, 0))
    return found["dice_pairs"][1], found["dice_present"][1]


def load(path):
    state = load_checkpoint(path, "classifier")
    model = models.Classifier(**state["model_args"])
    model.load_state_dict(state["model"])
    return model.eval(), state["preprocess"]


def batches(args, pre, names, rows):
    pixels = ImageSet(args.data / "train_images", names, pre["size"],
                             np.zeros((len(names), 0), np.float32))
    batch = Batches(pixels, rows, 64, 1)
    for n, (x, _) in enumerate(batch(None)):
        yield rows[64 * n:64 * n + len(x)], to_input(x, "cpu", pre["mean"], pre["std"])


def counts_of(truth, mask):
    return [(truth & mask).sum((1, 2)), truth.sum((1, 2)), mask.sum((1, 2))]


def map_rows(args, labels, sizes, fold):
    """Scores of ROWS over the union, those of the searches, and the share of alphas below 0."""
    counts, negative = {row[:2]: [] for row in ROWS}, []
    grid = {**search_grid(make_masks.get_args([]), sizes),
            "threshold": np.round(np.arange(1, 100) / 100, 2).tolist()}
    found = {"inter": [], "pred": [], "truth": [], "p": [], "fold": []}
    for k in sorted(set(fold.tolist())):
        model, pre = load(args.cls / f"fold{k}/swa.pt")
        shift = (torch.tensor(pre["mean"]) / torch.tensor(pre["std"])).view(3, 1, 1)
        for rows, x in batches(args, pre, labels.names, np.flatnonzero(fold == k)):
            maps, probs, below = maps_of_batch(model, x, shift, args.target_layer)
            negative.append(below * len(x))
            for i, row in enumerate(rows):
                name = labels.names[row]
                truth = masks.decode_all(labels.rles, name, sizes[name], len(labels.classes))
                label = torch.from_numpy(labels.y[row])
                for dev, what, which, change in ROWS:
                    change = dict(change)
                    accepted = accepted_by(change.pop("gate", "p"), probs, label, i,
                                           change.get("strict", False))
                    mask = masks_of(maps[which][i], sizes[name], accepted, **change).numpy()
                    counts[dev, what].append(counts_of(truth, mask))
                full = cam.image_maps(maps["gradcam++"][i:i + 1], sizes[name])[0].numpy()
                inter, pred = metrics.threshold_counts(full, truth, grid["threshold"])
                for key, value in (("inter", inter), ("pred", pred), ("p", probs["p"][i].numpy()),
                                   ("truth", truth.sum((1, 2))), ("fold", k)):
                    found[key].append(value)
        print(f"fold {k}: maps done", file=sys.stderr, flush=True)
    table = [(dev, what, *both_scores(counts[dev, what])) for dev, what, *_ in ROWS]
    table += searches({key: np.array(v) for key, v in found.items()}, grid)
    return table, sum(negative) / len(labels.names)


def searches(n, grid):
    """DEV-10 and DEV-30: chosen on the union or on the other folds; steps of 0.05 or 0.01."""
    table = []
    for what, step in (("steps of 0.05", 5), ("steps of 0.01", 1)):
        part = slice(step - 1, 95 if step == 5 else None, step)
        inter, pred = n["inter"][:, :, part], n["pred"][:, :, part]
        steps = {**grid, "threshold": grid["threshold"][part]}
        best, _ = metrics.search(inter, pred, n["truth"], n["p"], steps)
        crossed = metrics.cross_fit(inter, pred, n["truth"], n["p"], n["fold"], steps)
        for how, chosen in (("union", dict.fromkeys(crossed, best)), ("cross-fitted", crossed)):
            counts = []
            for i, k in enumerate(n["fold"].tolist()):
                t = steps["threshold"].index(chosen[k]["threshold"])
                I, P = metrics.gated(inter[i, :, t], pred[i, :, t], n["p"][i],
                                     chosen[k]["confidence"], chosen[k]["min_seg_len"])
                counts.append([I, n["truth"][i], P])
            table.append(("DEV-10" if step == 5 else "DEV-30", f"search, {what}, {how}",
                          *both_scores(counts)))
    return table


def one_view(args, model, pre, labels, sizes, rows, maps_of):
    """Scores and mean ROC-AUC of the plain images; maps_of: model, x -> maps, probabilities."""
    counts, p = [], []
    for part, x in batches(args, pre, labels.names, rows):
        maps, probs = maps_of(model, x)
        p.append(probs.numpy())
        for i, row in enumerate(part):
            name = labels.names[row]
            truth = masks.decode_all(labels.rles, name, sizes[name], len(labels.classes))
            counts.append(counts_of(truth, masks_of(maps[i], sizes[name], probs[i] >= 0.5).numpy()))
    p, y = np.concatenate(p), labels.y[rows]
    return counts, p, y


def grad_cam_pp_of(model, x):
    maps, y = cam.class_maps(model, x, "features.8")
    return stored(maps), y.sigmoid()


def networks(args, fold):
    """DEV-7, DEV-24, DEV-27: (dev, name, function of the fold that gives the network)."""
    def averaged(k):
        model, pre = load(args.cls / f"fold{k}/best.pt")
        best = load_checkpoint(args.cls / f"fold{k}/best.pt")["best"]
        model.load_state_dict(average_states(
            [load_checkpoint(args.cls / f"fold{k}/epoch{b['epoch']}.pt")["model"]
             for b in best]))
        return model, pre

    def epsilon(k):
        model, pre = load(args.cls / f"fold{k}/swa.pt")
        for m in model.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                m.eps = 1e-3
        return model, pre

    def saved(name):
        return lambda k: load(args.cls / f"fold{k}/{name}.pt")

    return [("DEV-7", "one view, BatchNorm re-estimated", saved("swa")),
            ("DEV-7", "one view, BatchNorm averaged", averaged),
            ("DEV-24", "one view, BatchNorm eps 0.001 when used", epsilon),
            ("DEV-27", "one view, best epoch", saved("best")),
            ("DEV-27", "one view, last epoch", saved("last"))]


def network_rows(args, labels, sizes, fold):
    table = []
    for dev, what, of_fold in networks(args, fold):
        counts, p, y = [], [], []
        for k in sorted(set(fold.tolist())):
            model, pre = of_fold(k)
            for total, new in zip((counts, p, y), one_view(
                    args, model, pre, labels, sizes, np.flatnonzero(fold == k), grad_cam_pp_of),
                    strict=True):
                total.extend(new)
        auc = [metrics.roc_auc(np.array(y)[:, c], np.array(p)[:, c]) for c in range(len(y[0]))]
        table.append((dev, f"{what}; ROC-AUC {sum(auc) / len(auc):.4f}", *both_scores(counts)))
    return table


def fold_rows(args, labels, sizes, fold):
    """DEV-3: gradients guided or plain. DEV-19: means over folds that have seen the image."""
    rows = np.flatnonzero(fold == 0)
    nets = [load(args.cls / f"fold{k}/swa.pt") for k in sorted(set(fold.tolist()))]

    def guided(how):
        def maps_of(model, x):
            maps, y = cam.class_maps(model, x, "features.8", "gradcam")
            if how == "guided":
                R = cam.guided_backprop(model, x)
            else:
                leaf = x.clone().requires_grad_()
                logits = model(leaf)
                R = torch.stack([torch.autograd.grad(logits[:, c].sum(), leaf, retain_graph=True)[0]
                                 for c in range(logits.shape[1])], dim=1)
            return stored(cam.upscale(maps, x.shape[-2:]) * F.relu(R).mean(dim=2)), y.sigmoid()
        return maps_of

    def mean_of(normalised):
        def maps_of(model, x):
            seen = [cam.class_maps(net, x, "features.8") for net, _ in nets[1:]]
            maps = sum(cam.normalize(m, "max") if normalised else m for m, _ in seen)
            return stored(maps), sum(y.sigmoid() for _, y in seen) / len(seen)
        return maps_of

    table = []
    for dev, what, maps_of in [
            ("", "defaults, one view (fold 0)", grad_cam_pp_of),
            ("DEV-3", "Guided Grad-CAM, every activation guided (fold 0)", guided("guided")),
            ("DEV-3", "Guided Grad-CAM, plain gradient (fold 0)", guided("plain")),
            ("DEV-19", "mean of the other folds, each map over its maximum (fold 0)",
             mean_of(True)),
            ("DEV-19", "mean of the other folds, raw maps (fold 0)", mean_of(False))]:
        counts, _, _ = one_view(args, *nets[0], labels, sizes, rows, maps_of)
        table.append((dev, what, *both_scores(counts)))
        print(f"{dev}: {what}", file=sys.stderr, flush=True)
    return table


def plateau(args):
    """DEV-28: epochs whose gain is too small for torch's default, by log.jsonl."""
    small = total = 0
    for path in sorted(args.cls.glob("fold*/log.jsonl")):
        best = float("inf")
        for line in path.read_text().splitlines():
            loss = json.loads(line)["val_loss"]
            small += best * (1 - 1e-4) <= loss < best
            best, total = min(best, loss), total + 1
    return small, total


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="folder with true masks in train.csv")
    p.add_argument("--cls", type=Path, required=True, help="run of train_cls.py on it, all folds")
    p.add_argument("--target-layer", default="features.8")
    p.add_argument("--only-maps", action="store_true", help="leave out the rows of other networks")
    p.add_argument("--out", type=Path, help="also write the table here, as JSON")
    args = p.parse_args()
    labels = read_labels(args.data / "train.csv", args.data / "train_images")
    sizes = scan(args.data / "train_images", labels.names).sizes
    defect = labels.y.any(axis=1)  # [P] III
    labels = labels.keep(defect)
    fold = folds_of(args.cls / "folds.csv", labels.names)
    table, negative = map_rows(args, labels, sizes, fold)
    if not args.only_maps:
        table += network_rows(args, labels, sizes, fold) + fold_rows(args, labels, sizes, fold)
    print_table(f"{len(labels.names)} images with a defect, {args.target_layer}",
                    ["reading", "[P-6]", "present"],
                    [[f"{dev:7} {what}", *found] for dev, what, *found in table])
    small, total = plateau(args)
    print(f"\nDEV-22: {negative:.4f} of the alphas of the first class are below 0")
    print(f"DEV-28: {small} of {total} epochs gain less than 1e-4 of the loss")
    if args.out:
        write_json(args.out, {"table": table, "alpha_below_0": negative, "small": small})


if __name__ == "__main__":
    main()
