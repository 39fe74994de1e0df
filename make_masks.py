"""Turn the classifiers' activation maps into pseudo-masks (paper's section V, Table 2).

    python make_masks.py --data data/demo --cls runs/cls --out runs/masks
    python make_masks.py --images new_photos --cls runs/cls --out runs/new     # no labels at all

An image of the classifier's folds gets its map from the model that has not seen it. Any other image
gets the mean over the folds. With --labels (or --data) the known labels can gate the masks. If they
hold true masks, the masks are scored, and --search finds the three parameters.
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cam2seg import masks, metrics
from cam2seg.data import folds, image_folder, labels
from cam2seg.data.errors import DataError
from cam2seg.report.tables import print_table
from cam2seg.runs import flags, folder, inputs, locks, processes
from cam2seg.runs.exits import run
from cam2seg.runs.progress import Console, Progress

METHODS = ("gradcam", "gradcam++", "gradcam++normalized", "gradcam++normalized-positive",
           "guided-gradcam")


def get_args(argv=None):
    p = flags.parser(__doc__)
    flags.add_data(p, "optional: a CSV of labels or masks, or a folder with a subfolder per class")
    p.add_argument("--cls", type=Path, default="runs/cls", help="run of train_cls.py")
    p.add_argument("--out", type=Path, default="runs/masks", help="folder of this run")
    p.add_argument("--method", choices=METHODS, default="gradcam++",
                   help="[P] V; normalized: the alphas of a channel sum to 1, DEV-4")
    p.add_argument("--target-layer", help="name of the layer whose output is mapped, [P] V "
                   "(default: the last activation before pooling)")
    p.add_argument("--size", type=flags.positive, nargs=2, metavar=("H", "W"),
                   help="size of the network's input, DEV-12 (default: as trained)")
    p.add_argument("--checkpoint", choices=("swa", "best"), default="swa",
                   help="mean of the best epochs, or the best one, [P] V")
    p.add_argument("--aug-smooth", action=argparse.BooleanOptionalAction, default=True,
                   help="mean over image and mirror, times 1.0, 1.1, 0.9, [P] V")
    p.add_argument("--smooth-image", action="store_true",
                   help="these factors multiply the raw image, not the normalised one, DEV-6")
    p.add_argument("--norm", choices=("minmax", "max"), default="minmax",
                   help="how a map becomes [0, 1], DEV-5")
    p.add_argument("--norm-after", action="store_true",
                   help="normalise the upscaled map, not the small one, DEV-5")
    p.add_argument("--gate", choices=("confidence", "labels"), default="confidence",
                   help="a class is accepted by its probability, or by the known label, DEV-11")
    p.add_argument("--confidence", type=flags.fraction, default=0.5,
                   help="least probability, [P] Table 2")
    p.add_argument("--min-seg-len", type=flags.natural, default=0,
                   help="least area of a mask in pixels, [P] Table 2, DEV-13")
    p.add_argument("--strict-len", action="store_true",
                   help="an area equal to --min-seg-len is dropped too, DEV-13")
    p.add_argument("--threshold", type=flags.fraction, default=0.3,
                   help="least map value, [P] Table 2, DEV-25")
    p.add_argument("--search", action="store_true",
                   help="search the three above, on the union and cross-fitted, DEV-10")
    p.add_argument("--objective", choices=metrics.SCORES[:4], default="dice_pairs",
                   help="what --search maximises, DEV-9")
    p.add_argument("--new-images", action="store_true",
                   help="use the mean over the folds even for names in the folds, DEV-19")
    p.add_argument("--reuse-maps", action="store_true", help="take the maps that are in --out")
    p.add_argument("--batch-size", type=flags.positive, default=64, help="images at a time")
    flags.add_machine(p)
    p.add_argument("--resume", action="store_true", help="go on with the run in --out")
    return p.parse_args(argv)


class Work(NamedTuple):
    """Everything that turns maps into masks needs."""

    names: list  # N image names
    labels: labels.Labels | None
    sizes: dict  # {name: (H, W)}
    fold: np.ndarray  # int (N,): the fold that holds each image out; -1 outside the folds
    classes: list  # C class names
    maps: np.ndarray | None = None  # (N, C, h, w), each divided by its maximum
    gate: np.ndarray | None = None  # (N, C); a class is accepted where it reaches the confidence


def main(args):
    processes.join()
    folder.check_flags(args)
    report = Console()
    work = load_images(args, report)
    maps, probs = load_or_make_maps(args, work, report)
    is_first = processes.is_first()
    processes.leave()
    if not is_first:
        return
    # DEV-11: +1 and -1, so that a class without the label stays out at --confidence 0 too.
    gate = 2.0 * work.labels.y - 1 if args.gate == "labels" else probs
    work = work._replace(maps=maps, gate=gate)
    by_flags = {"confidence": args.confidence, "min_seg_len": args.min_seg_len + args.strict_len,
                "threshold": args.threshold}
    everywhere = dict.fromkeys(set(work.fold.tolist()), by_flags)
    results = [make_and_score(args, "masks", work, everywhere, report)]
    if args.search:
        for title, chosen in searched_parameters(args, work, report).items():
            results.append(make_and_score(args, title, work, chosen, report))
    folder.write_json(args.out / "metrics.json", {
        "classes": work.classes, "args": folder.result_flags(args), "table2": results})
    print_counts(args, work.classes, results[0])
    if "scores" in results[0]:
        print_table2(args, results)


def load_images(args, report):
    """Work without maps: the images to be masked, their labels and folds, all checked."""
    path, found = inputs.label_path(args), None
    if path and (path.exists() or args.labels):
        found, sizes = inputs.load_labels(args, report)
        names = found.names
    else:
        names = image_folder.list_images(inputs.image_dir(args))
        sizes = inputs.scan(inputs.image_dir(args), names, report)
    if (args.gate == "labels" or args.search) and found is None:
        raise DataError("--gate labels and --search need --labels")
    if args.search and found.rles is None:
        raise DataError(f"{path}: --search needs true masks (a column EncodedPixels)")
    classes = folder.read_run(args.cls / "args.json")["classes"]
    if found and found.classes != classes:
        raise DataError(f"{path}: classes {found.classes}, but {args.cls} was trained on {classes}")
    known = {} if args.new_images else folds.read_folds(args.cls / "folds.csv")
    fold = np.array([known.get(n, -1) for n in names])
    work = keep_trained_folds(args, Work(names, found, sizes, fold, classes))
    if args.search and len(set(work.fold[work.labels.y.any(axis=1)].tolist())) < 2:
        raise DataError(f"{path}: --search needs true masks in two folds or more")
    return work


def keep_trained_folds(args, work):
    """The same Work without the images of folds that --cls has not trained yet."""
    trained = folder.fold_files(args.cls, f"{args.checkpoint}.pt")
    if not trained:
        raise DataError(f"{args.cls}: no fold*/{args.checkpoint}.pt, expected a run of "
                        "train_cls.py")
    keep = np.isin(work.fold, [-1, *trained])
    if not keep.any():
        raise DataError(f"{args.cls}: no image left to mask, expected some in the folds "
                        f"{', '.join(map(str, trained))}")
    if not keep.all():
        print(f"{(~keep).sum()} of {len(keep)} images are in folds that {args.cls} has not "
              "trained: they get no mask")
    return work._replace(names=[n for n, k in zip(work.names, keep, strict=True) if k],
                         fold=work.fold[keep], labels=work.labels and work.labels.keep(keep))


def load_or_make_maps(args, work, report):
    """Maps (N, C, h, w) and probabilities (N, C): those in --out with --reuse-maps, else new ones.

    Also makes the folder of the run.
    """
    from cam2seg.training import held_out_maps
    images = held_out_maps.Images(work.names, work.fold, work.sizes, work.classes)
    if args.reuse_maps:
        folder.read_run(args.out / "args.json")
        processes.run_on_first(lambda: locks.lock(args.out), (DataError, OSError))
        return held_out_maps.load_maps(args, images)
    classifiers = held_out_maps.load_classifiers(args, work.classes)
    folder.start_run(args, [inputs.label_path(args), *held_out_maps.network_files(args)],
                     work.classes, work.names)
    return held_out_maps.make_maps(args, images, classifiers, report)


def searched_parameters(args, work, report):
    """The three parameters that true masks choose: {title: {fold: parameters}}  (DEV-10).

    "masks_union": chosen on all images with a defect ([P] III). "masks_crossfit": for each fold,
    chosen on the other folds.
    """
    rows = work.labels.y.any(axis=1)
    grid = search_grid(args, work.sizes)
    counts = counts_at_thresholds(args, work, grid["threshold"], report)
    counts = [n[rows] for n in (*counts, work.gate, work.fold)]
    best, _ = metrics.search(*counts[:4], grid, args.objective)
    crossed = metrics.cross_fit(*counts, grid, args.objective)
    everywhere = set(work.fold.tolist())
    return {"masks_union": dict.fromkeys(everywhere, best),
            "masks_crossfit": {k: crossed.get(k, best) for k in everywhere}}


def search_grid(args, sizes):
    """The values that --search tries (DEV-30). Areas are parts of the median image's area."""
    area = float(np.median([h * w for h, w in sizes.values()]))
    confidence = [round(0.1 * n, 1) for n in range(10)] if args.gate == "confidence" else [0.5]
    return {"threshold": [round(0.05 * n, 2) for n in range(1, 20)], "confidence": confidence,
            "min_seg_len": [round(area * part) + args.strict_len
                            for part in (0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)]}


def counts_at_thresholds(args, work, thresholds, report):
    """Pixel counts inter, pred (N, C, T) and truth (N, C) for all T thresholds in one pass."""
    from cam2seg import cam
    inter, pred, truth = [], [], []
    clock = Progress(len(work.names), "search", report)
    for name, small in zip(work.names, work.maps, strict=True):
        true = masks.decode_all(work.labels.rles, name, work.sizes[name], len(work.classes))
        full = cam.numpy_maps(small, work.sizes[name], args.norm, args.norm_after)
        both = metrics.threshold_counts(full, true, thresholds)
        inter.append(both[0])
        pred.append(both[1])
        truth.append(true.sum(axis=(1, 2)))
        clock.add(1)
    return np.array(inter), np.array(pred), np.array(truth)


def make_and_score(args, title, work, chosen, report):
    """Write {title}.csv and return what metrics.json says of it.

    chosen: {fold: {"confidence", "min_seg_len", "threshold"}}.
    """
    report("note", text=f"writing {args.out}/{title}.csv")
    rles, areas = make_masks(args, work, chosen, Progress(len(work.names), title, report))
    labels.write_masks(args.out / f"{title}.csv", work.names, work.classes, rles)
    pixels = sum(h * w for h, w in map(work.sizes.get, work.names))
    result = {"masks": title, "parameters": {str(k): v for k, v in sorted(chosen.items())},
              "images": len(work.names), "made": (areas > 0).sum(axis=0).tolist(),
              "area_fraction": (areas.sum(axis=0) / pixels).tolist()}
    known = work.labels
    if known is not None:
        result["labelled"] = known.y.sum(axis=0, dtype=int).tolist()
        result["labelled_but_empty"] = ((known.y > 0) & (areas == 0)).sum(axis=0).tolist()
    if known is not None and known.rles is not None:
        shown = [n for n, defect in zip(work.names, known.y.any(axis=1), strict=True) if defect]
        counts = metrics.mask_counts(shown, known.rles, rles, work.sizes, len(work.classes))
        result["with_defect"] = len(shown)  # [P] III
        result["scores"] = metrics.mask_scores(*counts)
        result["all_empty"] = metrics.mask_scores(counts[0] * 0, counts[1], counts[2] * 0)
    return result


def make_masks(args, work, chosen, clock):
    """Run lengths {(name, class index): text} and areas int (N, C) in pixels  ([P] V).

    A class that the gate accepts gets the mask of its map. Masks of two classes may overlap
    (DEV-29).
    """
    from cam2seg import cam
    rles, areas = {}, np.zeros((len(work.names), len(work.classes)), np.int64)
    for i, (name, small) in enumerate(zip(work.names, work.maps, strict=True)):
        use = chosen[int(work.fold[i])]
        full = cam.numpy_maps(small, work.sizes[name], args.norm, args.norm_after)
        for c in np.flatnonzero(work.gate[i] >= use["confidence"]).tolist():
            mask = masks.binarize(full[c], use["threshold"], use["min_seg_len"])
            rles[name, c], areas[i, c] = masks.rle_encode(mask), mask.sum()
        clock.add(1)
    return rles, areas


def print_counts(args, classes, result):
    """Print how many masks masks.csv holds, and how many labelled images have none."""
    rows = [["masks made", *result["made"]], ["share of all pixels", *result["area_fraction"]]]
    if "labelled" in result:
        rows += [["images with the label", *result["labelled"]],
                 ["... and an empty mask", *result["labelled_but_empty"]]]
    print_table(f"{args.out}/masks.csv: {result['images']} images", ["class", *classes], rows)


def print_table2(args, results):
    """Print Table 2: the scores of each mask file, and of predicting nothing."""
    first, scores = results[0], metrics.SCORES[:4]
    title = f"{args.method}, {args.checkpoint}" + (", aug smooth" if args.aug_smooth else "")
    rows = [["nothing predicted", "", *(first["all_empty"][s][1] for s in scores)]]
    for r in results:
        values = list(r["parameters"].values())
        same = all(v == values[0] for v in values)
        said = "/".join(map(str, values[0].values())) if same else "per fold"
        rows.append([f"{title}: {r['masks']}", said, *(r["scores"][s][1] for s in scores)])
    of = ("out-of-fold union of folds " + ", ".join(first["parameters"])
          if "-1" not in first["parameters"] else "by networks that may have seen them")
    print_table(f"Table 2: masks of {first['with_defect']} images with a defect, {of}",
                ["experiment", "conf/len/thr", *scores], rows)


if __name__ == "__main__":
    sys.exit(run(main, get_args))
