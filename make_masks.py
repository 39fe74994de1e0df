"""Turn the classifiers' activation maps into pseudo-masks (paper's section V, Table 2).

    python make_masks.py --data data/demo --cls runs/cls --out runs/masks
    python make_masks.py --images new_photos --cls runs/cls --out runs/new     # no labels at all

An image of the classifier's folds gets its map from the model that has not seen it, any other image
the mean over the folds. With --labels (or --data) the known labels can gate the masks, and if they
hold true masks, the masks are scored and --search finds the parameters.
"""

import argparse
import sys
from pathlib import Path

from cam2seg import cli, data, images, mapstore, masks, metrics, process, rundir

METHODS = ("gradcam", "gradcam++", "gradcam++normalized", "guided-gradcam")


def get_args(argv=None):
    p = cli.parser(__doc__)
    cli.add_data(p, "optional: a CSV of labels or masks, or a folder with a subfolder per class")
    p.add_argument("--cls", type=Path, default="runs/cls", help="run of train_cls.py")
    p.add_argument("--out", type=Path, default="runs/masks", help="folder of this run")
    p.add_argument("--method", choices=METHODS, default="gradcam++",
                   help="[P] V; normalized: the alphas of a channel sum to 1, DEV-4")
    p.add_argument("--target-layer", help="name of the layer whose output is mapped, [P] V "
                   "(default: the last activation before pooling)")
    p.add_argument("--size", type=cli.positive, nargs=2, metavar=("H", "W"),
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
    p.add_argument("--confidence", type=cli.share, default=0.5,
                   help="least probability, [P] Table 2")
    p.add_argument("--min-seg-len", type=cli.natural, default=0,
                   help="least area of a mask in pixels, [P] Table 2, DEV-13")
    p.add_argument("--strict-len", action="store_true",
                   help="an area equal to --min-seg-len is dropped too, DEV-13")
    p.add_argument("--threshold", type=cli.share, default=0.3,
                   help="least map value, [P] Table 2, DEV-25")
    p.add_argument("--search", action="store_true",
                   help="search the three above, on the union and cross-fitted, DEV-10")
    p.add_argument("--objective", choices=metrics.SCORES[:4], default="dice_pairs",
                   help="what --search maximises, DEV-9")
    p.add_argument("--new-images", action="store_true",
                   help="use the mean over the folds even for names in the folds, DEV-19")
    p.add_argument("--reuse-maps", action="store_true", help="take the maps that are in --out")
    p.add_argument("--batch-size", type=cli.positive, default=64, help="images at a time")
    cli.add_machine(p)
    p.add_argument("--resume", action="store_true", help="go on with the run in --out")
    return p.parse_args(argv)


def main(args):
    rundir.check_flags(args)
    names, labels, sizes, fold = load(args)
    classes = rundir.read_run(args.cls / "args.json")["classes"]
    if labels and labels.classes != classes:
        raise cli.DataError(f"{cli.label_path(args)}: classes {labels.classes}, but {args.cls} was "
                            f"trained on {classes}")
    from cam2seg import mapping
    process.start()
    if args.reuse_maps:
        rundir.read_run(args.out / "args.json")
        process.first_does(lambda: rundir.lock(args.out), (cli.DataError, OSError))
        maps, probs = mapping.load_maps(args, names, fold, sizes, classes)
    else:
        nets, pre, device = mapping.load_classifiers(args, classes)
        rundir.start_run(args, [cli.label_path(args), *mapping.sources(args)], classes, names)
        maps, probs = mapping.make_maps(args, names, fold, classes, sizes, nets, pre, device)
    first = process.first()
    process.end()
    if not first:
        return
    # DEV-11; a class without the label stays out at --confidence 0 too
    gate = 2.0 * labels.y - 1 if args.gate == "labels" else probs

    def masks_with(title, chosen):
        print(f"writing {args.out}/{title}.csv", flush=True)
        return write_masks(args, title, names, labels, sizes, classes, maps, gate, fold, chosen)

    folds = set(fold.tolist())
    flags = {"confidence": args.confidence, "min_seg_len": args.min_seg_len + args.strict_len,
             "threshold": args.threshold}
    results = [masks_with("masks", dict.fromkeys(folds, flags))]
    if args.search:
        rows = labels.y.any(axis=1)  # [P] III: images with a defect
        grid = search_grid(args, sizes)
        counts = count(args, names, labels, sizes, maps, grid["threshold"])
        counts = [n[rows] for n in (*counts, gate, fold)]
        best, _ = metrics.search(*counts[:4], grid, args.objective)
        results.append(masks_with("masks_union", dict.fromkeys(folds, best)))
        crossed = metrics.cross_fit(*counts, grid, args.objective)
        results.append(masks_with("masks_crossfit", {k: crossed.get(k, best) for k in folds}))
    report(args, classes, results)


def load(args):
    """Names, Labels or None, {name: (H, W)} and fold (N,) of the images to be masked; fold -1: an
    image outside the folds."""
    import numpy as np
    folder, path = cli.image_dir(args), cli.label_path(args)
    if path and (path.exists() or args.labels):
        labels, sizes = cli.load_data(args)
        names = labels.names
    else:
        labels, names = None, data.list_images(folder)
        sizes = images.scan(folder, names)
    if (args.gate == "labels" or args.search) and labels is None:
        raise cli.DataError("--gate labels and --search need --labels")
    if args.search and labels.rles is None:
        raise cli.DataError(f"{path}: --search needs true masks (a column EncodedPixels)")
    known = {} if args.new_images else data.read_folds(args.cls / "folds.csv")
    fold = np.array([known.get(n, -1) for n in names])
    trained = rundir.fold_files(args.cls, f"{args.checkpoint}.pt")
    if not trained:
        raise cli.DataError(f"{args.cls}: no fold*/{args.checkpoint}.pt, expected a run of "
                            "train_cls.py")
    keep = np.isin(fold, [-1, *trained])
    if not keep.all():
        print(f"{(~keep).sum()} of {len(keep)} images are in folds that {args.cls} has not "
              "trained: they get no mask")
        names, fold = [n for n, k in zip(names, keep, strict=True) if k], fold[keep]
        labels = labels and labels.keep(keep)
    if not names:
        raise cli.DataError(f"{args.cls}: no image left to mask, expected some in the folds "
                            f"{', '.join(map(str, trained))}")
    if args.search and len(set(fold[labels.y.any(axis=1)].tolist())) < 2:
        raise cli.DataError(f"{path}: --search needs true masks in two folds or more")
    return names, labels, sizes, fold


def count(args, names, labels, sizes, maps, thresholds):
    """inter, pred (N, C, T) and truth (N, C) in pixels, for all thresholds in one pass."""
    import numpy as np

    from cam2seg.progress import Progress
    inter, pred, truth, clock = [], [], [], Progress(len(names), "search")
    for name, small in zip(names, maps, strict=True):
        true = masks.decode_all(labels.rles, name, sizes[name], len(labels.classes))
        full = mapstore.full_size(small, sizes[name], args.norm, args.norm_after)
        both = metrics.threshold_counts(full, true, thresholds)
        inter.append(both[0])
        pred.append(both[1])
        truth.append(true.sum(axis=(1, 2)))
        clock.add(1)
    return np.array(inter), np.array(pred), np.array(truth)


def search_grid(args, sizes):
    """Values to search (DEV-30); areas are shares of the median image, to fit any size."""
    import numpy as np
    area = float(np.median([h * w for h, w in sizes.values()]))
    confidence = [round(0.1 * n, 1) for n in range(10)] if args.gate == "confidence" else [0.5]
    return {"threshold": [round(0.05 * n, 2) for n in range(1, 20)], "confidence": confidence,
            "min_seg_len": [round(area * s) + args.strict_len
                            for s in (0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05)]}


def write_masks(args, title, names, labels, sizes, classes, maps, gate, fold, chosen):
    """Write {title}.csv and say what is in it; chosen: {fold: the three parameters}. Masks of two
    classes may overlap (DEV-29)."""
    import numpy as np

    from cam2seg.progress import Progress
    clock, rles = Progress(len(names), f"{title}.csv"), {}
    areas = np.zeros((len(names), len(classes)), np.int64)
    for i, (name, small) in enumerate(zip(names, maps, strict=True)):
        use = chosen[int(fold[i])]
        full = mapstore.full_size(small, sizes[name], args.norm, args.norm_after)
        for c in np.flatnonzero(gate[i] >= use["confidence"]).tolist():
            mask = masks.binarize(full[c], use["threshold"], use["min_seg_len"])
            rles[name, c], areas[i, c] = masks.rle_encode(mask), mask.sum()
        clock.add(1)
    data.write_masks(args.out / f"{title}.csv", names, classes, rles)
    pixels = sum(h * w for h, w in map(sizes.get, names))
    result = {"masks": title, "parameters": {str(k): v for k, v in sorted(chosen.items())},
              "images": len(names), "made": (areas > 0).sum(axis=0).tolist(),
              "share": (areas.sum(axis=0) / pixels).tolist()}
    if labels is not None:
        result["labelled"] = labels.y.sum(axis=0, dtype=int).tolist()
        result["labelled_but_empty"] = ((labels.y > 0) & (areas == 0)).sum(axis=0).tolist()
    if labels is not None and labels.rles is not None:
        shown = [n for n, defect in zip(names, labels.y.any(axis=1), strict=True) if defect]
        counts = metrics.mask_counts(shown, labels.rles, rles, sizes, len(classes))  # [P] III
        result["with_defect"] = len(shown)
        result["scores"] = metrics.mask_scores(*counts)
        result["all_empty"] = metrics.mask_scores(counts[0] * 0, counts[1], counts[2] * 0)
    return result


def report(args, classes, results):
    rundir.write_json(args.out / "metrics.json",
                      {"classes": classes, "args": rundir.kept(args), "table2": results})
    first, scores = results[0], metrics.SCORES[:4]
    made = [["masks made", *first["made"]], ["share of all pixels", *first["share"]]]
    if "labelled" in first:
        made += [["images with the label", *first["labelled"]],
                 ["... and an empty mask", *first["labelled_but_empty"]]]
    cli.print_table(f"{args.out}/masks.csv: {first['images']} images", ["class", *classes], made)
    if "scores" not in first:
        return
    title = f"{args.method}, {args.checkpoint}" + (", aug smooth" if args.aug_smooth else "")
    rows = [["nothing predicted", "", *(first["all_empty"][s][1] for s in scores)]]
    for r in results:
        values = list(r["parameters"].values())
        same = all(v == values[0] for v in values)
        said = "/".join(map(str, values[0].values())) if same else "per fold"
        rows.append([f"{title}: {r['masks']}", said, *(r["scores"][s][1] for s in scores)])
    of = ("out-of-fold union of folds " + ", ".join(first["parameters"])
          if "-1" not in first["parameters"] else "by networks that may have seen them")
    cli.print_table(f"Table 2: masks of {first['with_defect']} images with a defect, {of}",
                    ["experiment", "conf/len/thr", *scores], rows)


if __name__ == "__main__":
    sys.exit(cli.run(main, get_args))
