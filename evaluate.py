"""Compare mask CSVs with the truth (paper's sections III and VI, Tables 2 and 3, figures 8-13).

    python evaluate.py --data data/demo --folds runs/cls/folds.csv --out runs/eval \\
        maps=runs/masks/masks.csv unet=runs/seg/oof_masks.csv

Prints each score under its name (which "Dice" the paper means is open, DEV-9) beside two baselines:
nothing predicted, and the whole image for each class that is there. Writes metrics.json and a
contact sheet per class; beside a mask made by make_masks.py stands the map it comes from.
"""

import sys
from pathlib import Path

from cam2seg import cli, data, images, mapstore, masks, metrics, process, report, rundir

EMPTY, WHOLE = "nothing predicted", "whole image"


def get_args(argv=None):
    p = cli.parser(__doc__)
    p.add_argument("masks", nargs="*", metavar="NAME=CSV", help="mask CSVs to score, DEV-9")
    cli.add_data(p, "a CSV of true masks")
    p.add_argument("--folds", type=Path, help="folds.csv, for scores by fold")
    p.add_argument("--out", type=Path, default="runs/eval", help="folder for the results")
    p.add_argument("--over", choices=("defect", "all"), default="defect",
                   help="images with a defect, or all, [P] III")
    p.add_argument("--missing", choices=("error", "skip", "empty"), default="error",
                   help="images that a CSV does not name: stop, leave out, or count as empty")
    p.add_argument("--figures", type=cli.natural, default=6,
                   help="rows of each contact sheet, 0 for none")
    p.add_argument("--overwrite", action="store_true", help="replace the results in --out")
    p.add_argument("--resume", action="store_true", help="make the results of the same flags again")
    return p.parse_args(argv)


def main(args):
    import numpy as np
    cli.image_dir(args)
    rundir.check_flags(args)
    if not args.masks:
        raise cli.DataError("no masks given: one NAME=CSV or more, as maps=runs/masks/masks.csv")
    labels, sizes = cli.load_data(args)
    if labels.rles is None:
        raise cli.DataError(f"{cli.label_path(args)}: no masks in it, expected EncodedPixels")
    given = load_masks(args, labels, sizes)
    rows = labels.y.any(axis=1) if args.over == "defect" else np.ones(len(labels.names), bool)
    if args.missing == "skip":
        covered = set.intersection(*(set(m.names) for m in given.values()))
        rows &= np.array([n in covered for n in labels.names])
    labels = labels.keep(rows)
    if not labels.names:
        raise cli.DataError("no image left to score")
    fold = cli.folds_of(args.folds, labels.names) if args.folds else np.full(len(labels.names), -1)
    maps = {name: open_maps(Path(text.rpartition("=")[2]).parent, labels.classes)
            for name, text in zip(given, args.masks, strict=True) if args.figures}
    csvs = [Path(text.rpartition("=")[2]) for text in args.masks]
    near = [p.with_name(n) for p in csvs for n in ("maps.csv", "maps.npy") if args.figures]
    rundir.start_run(args, [cli.label_path(args), args.folds, *csvs, *near], labels.classes,
                     labels.names)

    sets = {EMPTY: {}, WHOLE: whole(labels, sizes), **{n: m.rles for n, m in given.items()}}
    result = {"classes": labels.classes, "images": len(labels.names), "over": args.over,
              "left_out": int((~rows).sum()), "masks": {}}
    counts = {name: count(name, labels, rles, sizes) for name, rles in sets.items()}
    for name, n in counts.items():
        result["masks"][name] = {"scores": metrics.mask_scores(*n), "folds": by_fold(n, fold)}
    rundir.write_json(args.out / "metrics.json", result)
    show(result)
    if args.figures:
        figures(args, labels, sizes, given, counts, maps)


def count(what, labels, rles, sizes):
    """Counts (3, N, C) of metrics.mask_counts, a hundred images at a time."""
    import numpy as np

    from cam2seg.progress import Progress
    parts, clock = [], Progress(len(labels.names), what)
    for start in range(0, len(labels.names), 100):
        names = labels.names[start:start + 100]
        parts.append(metrics.mask_counts(names, labels.rles, rles, sizes, len(labels.classes)))
        clock.add(len(names))
    return np.concatenate(parts, axis=1)


def load_masks(args, labels, sizes):
    """{name: Labels} of the mask CSVs, each with the classes of the truth."""
    given = {}
    for text in args.masks:
        name, _, path = text.rpartition("=")
        path = Path(path)
        name = name or (f"{path.parent.name}/{path.stem}")
        if name in (*given, EMPTY, WHOLE):
            raise cli.DataError(f"'{name}' is taken: give each CSV a name of its own, as a={path}")
        got = data.read_labels(path, cli.image_dir(args), labels.classes)
        if got.rles is None:
            raise cli.DataError(f"{path}: no masks in it, expected a column EncodedPixels")
        named = {n for n, _ in got.rows}
        absent = [n for n, any_class in zip(labels.names, labels.y.any(axis=1), strict=True)
                  if n not in named and (any_class or args.over == "all")]
        if absent and args.missing == "error":
            raise cli.DataError(f"{path}: no row for {len(absent)} images, the first is "
                                f"{absent[0]}; --missing empty counts them as empty, --missing "
                                "skip leaves them out")
        data.check_masks(path, got, sizes)
        given[name] = got._replace(names=sorted(named))
    return given


def whole(labels, sizes):
    """Run lengths of the full image for every class an image has."""
    return {key: f"1 {sizes[key[0]][0] * sizes[key[0]][1]}" for key in labels.rles}


def by_fold(counts, fold):
    """{score: {"folds": {fold: mean score}, "mean", "sd"}}; {} without folds. sd: n - 1."""
    import numpy as np
    ks = [k for k in sorted(set(fold.tolist())) if k >= 0]
    if not ks:
        return {}
    scores = {k: metrics.mask_scores(*counts[:, fold == k]) for k in ks}
    out = {}
    for name in metrics.SCORES:
        values = [scores[k][name][1] for k in ks]
        known = np.array([v for v in values if v is not None])
        out[name] = {"folds": dict(zip(map(str, ks), values, strict=True)),
                     "mean": float(known.mean()) if len(known) else None,
                     "sd": float(known.std(ddof=1)) if len(known) > 1 else None}
    return out


def show(result):
    print(f"{result['images']} images ({result['over']}), {result['left_out']} left out")
    for score in metrics.SCORES:
        header, rows = [score, *result["classes"], "mean"], []
        for name, r in result["masks"].items():
            per_class, mean = r["scores"][score]
            row = [name, *per_class, mean]
            if r["folds"]:
                f = r["folds"][score]
                row += [*f["folds"].values(), f["mean"], f["sd"]]
                header = [score, *result["classes"], "mean", *(f"fold {k}" for k in f["folds"]),
                          "of folds", "sd"]
            rows.append(row)
        cli.print_table({"dice_pairs": "Dice over all (image, class) pairs, empty-empty = 1  [P-6]",
                         "dice_present": "Dice over the pairs that have a true mask",
                         "dice_dataset": "Dice of all pixels of a class",
                         "iou": "IoU of all pixels of a class",
                         "precision": "Precision of all pixels of a class",
                         "recall": "Recall of all pixels of a class"}[score], header, rows)


def figures(args, labels, sizes, given, counts, maps):
    """A contact sheet per class: images spread evenly from best to worst of the first CSV."""
    import numpy as np
    columns = ["truth, all classes", "truth"]
    for name in given:
        columns += [f"map of {name}"] * (maps[name] is not None) + [name]
    inter, truth, pred = counts[next(iter(given))]
    for c, class_name in enumerate(labels.classes):
        present = np.flatnonzero(truth[:, c])
        score = 2 * inter[present, c] / (truth[present, c] + pred[present, c])
        ranked = present[np.argsort(-score, kind="stable")]
        if not len(ranked):
            continue
        rows = []
        for at in np.unique(np.linspace(0, len(ranked) - 1, args.figures).round().astype(int)):
            process.check()
            i = ranked[at]
            name = labels.names[i]
            true = masks.decode_all(labels.rles, name, sizes[name], len(labels.classes))
            pictures = [report.paint(images.open_image(cli.image_dir(args) / name), true),
                        report.black_white(true[c])]
            for key, m in given.items():
                if maps[key] is not None:
                    pictures.append(report.heat(maps[key](name, c, sizes[name])))
                pictures.append(report.black_white(masks.rle_decode(
                    m.rles.get((name, c), ""), sizes[name])))
            dice = metrics.mask_scores(*(n[i:i + 1, c:c + 1] for n in (inter, truth, pred)))
            rows.append((f"{name}  Dice {dice['dice_present'][1]:.3f}  rank {at + 1} of "
                         f"{len(ranked)}", pictures))
        path = args.out / f"class_{c + 1}.png"
        report.contact_sheet(path, f"class {class_name}: best to worst of {next(iter(given))}",
                             columns, rows)
        print(f"wrote {path}")


def open_maps(folder, classes):
    """name, class index, (H, W) -> map (H, W) in [0, 1] of a make_masks.py run; None if not one."""
    import numpy as np
    if not (folder / "maps.csv").exists():
        return None
    flags = rundir.read_run(folder / "metrics.json")["args"]
    if not {"norm", "norm_after"} <= flags.keys():
        raise cli.DataError(f"{folder}/metrics.json: no --norm in it, expected that of "
                            "make_masks.py")
    names, its_classes, _, maps = mapstore.read(folder)
    if its_classes != classes:
        raise cli.DataError(f"{folder}/maps.csv, row 1: maps of classes {','.join(its_classes)}, "
                            f"expected {','.join(classes)}")
    row = {name: i for i, name in enumerate(names)}

    def map_of(name, c, size):
        if name not in row:
            return np.zeros(size)
        return mapstore.full_size(maps[row[name]], size, flags["norm"], flags["norm_after"])[c]

    return map_of


if __name__ == "__main__":
    sys.exit(cli.run(main, get_args))
