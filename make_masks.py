"""Turn class labels into pseudo-masks (paper's section V, Table 2).

The masks come from a classifier's activation maps, or from one of the other ways that --method
names.

    python make_masks.py --data data/demo --cls runs/cls --out runs/masks
    python make_masks.py --images new_photos --cls runs/cls --out runs/new     # no labels at all
    python make_masks.py --images photos --labels labels.csv --method contrast --out runs/masks
    python make_masks.py --images photos --labels labels.csv --method auto --out runs/masks
    python make_masks.py --images photos --method depth --depth depth \\
        --camera 525 525 319.5 239.5 --out runs/hn
    python make_masks.py --images new_photos --method auto --fitted runs/masks --out runs/new
    python make_masks.py --images photos --labels labels.csv --method seg --seg runs/seg \\
        --out runs/round2
    python make_masks.py --images frames --first first.csv --method video --out runs/video

An image of the classifier's folds gets its map from the model that has not seen it. Any other image
gets the mean over the folds. With --labels (or --data) the known labels can gate the masks. If they
hold true masks, the masks are scored, and --search finds the three parameters. --method contrast
needs labels and no classifier, and so does --method pixels, which also learns from clean images.
--method auto lets the labels choose for each class between these two, the classifier's map and the
product of map and contrast. All three also write ignore.csv for train_seg.py --ignore, and
model.json, by which --fitted masks other images as these labels have chosen. Images without labels
then have the classes that reach --confidence. --method seg lets the U-Nets of a run
label the images that they have not seen, for a second round of training. --method depth needs the
depth of each pixel in place of labels: its classes say how high above the floor a pixel lies and
how its surface is inclined, and a network that was trained on them is a start for the real one
(train_seg.py --init). --method video carries the masks of a video's first frame through its other
frames.
"""

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C in the imports: no traceback

import argparse
import sys
from functools import partial
from pathlib import Path

from cam2seg import metrics
from cam2seg.data import exports, labels, stored_maps
from cam2seg.report import html_report, mask_report, score_tables
from cam2seg.report.exports import reviewed
from cam2seg.report.exports import write as write_exports
from cam2seg.report.panels import Content
from cam2seg.report.tables import print_table
from cam2seg.runs import flags, folder, inputs, method_flags, next_commands, processes
from cam2seg.runs.exits import run
from cam2seg.runs.progress import Console, Progress, over
from cam2seg.training import mask_scores
from cam2seg.training.work import (FROM_MAPS, classifier_auc, final_masks, load_images, own_method,
                                   pixels_of_a_cell, read_others, with_method)

METHODS = (*FROM_MAPS, "contrast", "pixels", "auto", "seg", "depth", "video")


def get_args(argv=None):
    p = flags.parser(__doc__)
    flags.add_data(p, "optional: a CSV of labels or masks, or a folder with a subfolder per class")
    p.add_argument("--cls", type=Path, default="runs/cls", help="run of train_cls.py")
    method_flags.add_seg(p)
    p.add_argument("--out", type=Path, default="runs/masks", help="folder of this run")
    p.add_argument("--method", choices=METHODS,
                   help="(default: gradcam++, or seam for a --cls of train_cls.py --seam) [P] V; "
                   "seam: the network's own maps, [S-4]; "
                   "normalized: the alphas of a channel sum to 1, DEV-4; contrast: "
                   "within each image, without a classifier, [C-1] to [C-13]; pixels: contrast, or "
                   "a network on filter responses, [C-28] to [C-32]; auto: these, map, or map "
                   "times contrast, as the labels choose for each class, [C-18] to [C-23], [C-40], "
                   "[C-41]; seg: by the U-Nets of --seg, [C-24] to [C-27], [C-37] to [C-39]; "
                   "depth: height and angle of each pixel, [H-1] to [H-6]; video: from the masks "
                   "of the first frame, [V-1] to [V-6]")
    method_flags.add_video(p)
    method_flags.add_fitted(p)
    method_flags.add_depth(p)
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
    p.add_argument("--search", nargs="?", const="truth", choices=("truth", "labels"),
                   help="choose the three above: by true masks, on the union and cross-fitted, "
                   "DEV-10, or by labels alone, [C-14] to [C-17]")
    p.add_argument("--objective", choices=metrics.SCORES[:4], default="dice_pairs",
                   help="what --search maximises, DEV-9")
    flags.add_groups(p)
    p.add_argument("--new-images", action="store_true",
                   help="use the mean over the folds even for names in the folds, DEV-19")
    p.add_argument("--reuse-maps", action="store_true", help="take the maps that are in --out")
    p.add_argument("--review", type=flags.natural, default=0, metavar="N",
                   help="write review.png and review.csv: the N masks to look at first")
    p.add_argument("--report", action="store_true",
                   help="write report.html: tables, curves, images and all flags in one page")
    flags.add_export(p)
    p.add_argument("--compare", type=Path, nargs="+", default=[], metavar="CSV",
                   help="print how far the masks agree with those of other files, as of another "
                   "method; none of them counts as true")
    p.add_argument("--batch-size", type=flags.positive, default=64, help="images at a time")
    flags.add_machine(p)
    p.add_argument("--resume", action="store_true", help="go on with the run in --out")
    return with_method(p.parse_args(argv))


def main(args):
    processes.join()
    folder.check_flags(args)
    report = Console(args.quiet)
    work = load_images(args, report)
    exports.check(args.export, work.classes)
    others = read_others(args, work)
    make = masks_from_maps if args.method in FROM_MAPS else masks_by_another_way
    results, rles, ignored, work = make(args, work, report)
    if not processes.is_first():
        return None
    write_metrics(args, work, results, (rles, others), report)
    if args.review:
        mask_report.write_review(args.out, inputs.image_dir(args), work, rles, ignored, args.review)
    if "scores" in results[0]:
        title = args.method
        if args.method in (*FROM_MAPS, "auto"):
            title += f", {args.checkpoint}" + (", aug smooth" if args.aug_smooth else "")
        score_tables.print_table2(title, results)
    if args.report:
        write_report(args, work, (rles, ignored), report)
    if args.export:
        export(args, work, report)
    # With a method get_args reads no file of runs/cls, which may belong to other images.
    usual = argparse.Namespace(**{**vars(get_args(["--method", "gradcam++"])),
                                  "method": own_method(args)})
    return next_commands.after_make_masks(args, usual, work, results[-1],
                                          args.method in (*FROM_MAPS, "auto"))


def masks_from_maps(args, work, report):
    """Write masks.csv, and with --search two more files, from activation maps ([P] V).

    Returns the results of each file, two sets of run lengths, and the work that they belong to. The
    first are the run lengths of masks.csv, or of masks_labels.csv where --search labels has made
    it. The second are ignored pixels, of which there are none.
    """
    from cam2seg.training import map_masks, ways
    maps, probs = ways.load_or_make_maps(args, work, report)
    if not processes.is_first():
        return [], {}, {}, work
    # DEV-11: +1 and -1, so that a class without the label stays out at --confidence 0 too.
    gate = 2.0 * work.labels.y - 1 if args.gate == "labels" else probs
    work = work._replace(maps=maps, gate=gate)
    by_flags = {"confidence": args.confidence, "min_seg_len": args.min_seg_len + args.strict_len,
                "threshold": args.threshold}
    chosen = {"masks": dict.fromkeys(set(work.fold.tolist()), by_flags)}
    if args.search:
        search = {"truth": map_masks.searched_parameters, "labels": map_masks.label_parameters}
        chosen.update(search[args.search](args, work, report))
    results, made = [], {}
    for title, parameters in chosen.items():
        report("note", text=f"writing {args.out}/{title}.csv")
        clock = Progress(len(work.names), title, report)
        made[title] = map_masks.make_masks(args, work, parameters, clock)
        results.append({**describe(args, title, work, made[title]),
                        "parameters": {str(k): v for k, v in sorted(parameters.items())}})
    return results, made.get("masks_labels", made["masks"]), {}, work


def masks_by_another_way(args, work, report):
    """Write masks.csv and ignore.csv by a --method that is not the paper's; see training/ways.

    Returns what masks_from_maps returns. True masks are used for nothing but the scores.
    """
    from cam2seg.training import ways
    made = ways.BY_METHOD[args.method](args, work, report, print_table)
    if made is None:
        return [], {}, {}, work
    labels.write_masks(args.out / "ignore.csv", made.work.names, work.classes, made.ignored)
    result = {**describe(args, "masks", made.work, made.rles), "choice": made.choice}
    # The labels of a video are left out of made.work, and the report shows them all the same.
    shown = made.work._replace(labels=made.work.labels or work.labels)
    return [result | made.scores], made.rles, made.ignored, shown


def describe(args, title, work, rles):
    """Write {title}.csv and return what metrics.json says of it, with scores where truth is known.

    rles: {(name, class index): run lengths}.
    """
    labels.write_masks(args.out / f"{title}.csv", work.names, work.classes, rles)
    areas = mask_report.measure_areas(rles, work.names, len(work.classes))
    return mask_scores.of_made_masks(title, work, rles, areas)


def write_metrics(args, work, results, masks, report):
    """Write metrics.json, and print what a mask file holds and what looks wrong in it.

    masks: the run lengths of masks_labels.csv where --search labels has made it, else of masks.csv,
    and what read_others returns.
    """
    cells = pixels_of_a_cell(args, work, results[0].get("choice"))
    facts = mask_report.describe(work, *masks, cells, partial(over, report=report))
    folder.write_json(args.out / "metrics.json", {
        "classes": work.classes, "args": folder.result_flags(args), "table2": results,
        "masks": facts})
    if args.method == "depth":  # masks_from_depth has printed the table of its many classes
        return
    mask_report.print_summary(f"{args.out}/{final_masks(args)}.csv: {len(work.names)} images",
                              work.classes, facts)
    for line in mask_report.advice(work.classes, facts, args.method in FROM_MAPS,
                                   classifier_auc(args, work)):
        report("warning", text=line)


def write_report(args, work, masks, report):
    """Write report.html. masks: run lengths of the masks, and of the pixels in doubt."""
    title, maps = final_masks(args), {}
    if args.method in FROM_MAPS:
        maps[title] = stored_maps.map_function(args.out, args.norm, args.norm_after, work.classes)
    known = work.labels
    html_report.write(args.out, Content(
        work.names, work.classes, work.sizes, inputs.image_dir(args), known and known.rles,
        {title: masks[0]}, maps, known and (known.names, known.y), masks[1]),
        {title: args.out / f"{title}.csv"}, partial(over, report=report), folder.digests)


def export(args, work, report):
    """Write the masks in the forms of --export: all of them, and once more those of --review."""
    title = final_masks(args)
    made = exports.load(args.out / f"{title}.csv", inputs.image_dir(args), work.sizes, work.classes)
    write = partial(write_exports, forms=args.export, over=partial(over, report=report),
                    report=report)
    write(args.out, title, made)
    if args.review:
        write(args.out, "review", reviewed(args.out / "review.csv", made))


if __name__ == "__main__":
    sys.exit(run(main, get_args))
