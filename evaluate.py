"""Compare mask CSVs with the truth (paper's sections III and VI, Tables 2 and 3, figures 8-13).

    python evaluate.py --data data/demo --folds runs/cls/folds.csv --out runs/eval \\
        maps=runs/masks/masks.csv unet=runs/seg/oof_masks.csv
    python evaluate.py --data clouds --folds runs/cls/folds.csv --output-size 350 525 \\
        --threshold search --least-component search --hull --out runs/eval \\
        unet=runs/seg/oof_masks.csv
    python evaluate.py --images clouds/test_images --output-size 350 525 --hull \\
        --threshold 0.8,0.75,0.8,0.55 --least-component 10000 \\
        --sample clouds/sample_submission.csv --out runs/submission unet=runs/seg/new_masks.csv

The script prints each score under its name, because it is open which "Dice" the paper means
(DEV-9). Beside them stand two baselines: nothing predicted, and the whole image for each class that
is there. It writes metrics.json and one contact sheet for each class. A mask made by make_masks.py,
or by train_seg.py --keep-maps, is shown with the map it comes from.

--threshold, --least-component and --hull process the masks: they are drawn anew from the
probabilities of train_seg.py --keep-maps, small components are left out, and the others become
their convex hulls. The processed masks are scored beside the given ones and written to
processed_1.csv (of the first NAME=CSV), processed_2.csv and so on. With --output-size all of this
is done at that size. Without labels the masks are written and not scored. classes.png shows images,
given and processed masks in the colours of the classes.
"""

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C in the imports: no traceback

import sys
from functools import partial
from pathlib import Path

from cam2seg.data.errors import DataError
from cam2seg.report import html_report, mask_sheets, score_tables
from cam2seg.report.panels import Content
from cam2seg.report.score_tables import EMPTY, WHOLE
from cam2seg.runs import endings, flags, folder, inputs, next_commands, processes
from cam2seg.runs.exits import run
from cam2seg.runs.progress import Console, over
from cam2seg.training import evaluation_work, kept_maps, mask_processing, mask_scores


def get_args(argv=None):
    p = flags.parser(__doc__)
    p.add_argument("masks", nargs="*", metavar="NAME=CSV", help="mask CSVs to score, DEV-9")
    flags.add_data(p, "a CSV of true masks")
    p.add_argument("--folds", type=Path, help="folds.csv, for scores by fold")
    p.add_argument("--out", type=Path, default="runs/eval", help="folder for the results")
    p.add_argument("--over", choices=("defect", "all"), default="defect",
                   help="images with a defect, or all, [P] III")
    p.add_argument("--missing", choices=("error", "skip", "empty"), default="error",
                   help="images that a CSV does not name: stop, leave out, or count as empty")
    p.add_argument("--threshold", type=numbers_or_search(flags.fraction),
                   metavar="P|P,P,...|search",
                   help="draw the masks anew from the probabilities of train_seg.py --keep-maps, at "
                   "this threshold, or at this one for each class; search: as for "
                   "--least-component, [K-4]")
    p.add_argument("--least-component", type=numbers_or_search(flags.natural),
                   metavar="N|N,N,...|search",
                   help="leave out components of fewer pixels than this, or than this for each "
                   "class; search: true masks choose it for each class on the other folds, [K-4]")
    p.add_argument("--hull", action="store_true",
                   help="draw the convex hull of each component, [K-1], [K-2]")
    p.add_argument("--output-size", type=flags.positive, nargs=2, metavar=("H", "W"),
                   help="process and score all masks, true ones too, at this size, DEV-65 (default: "
                   "that of each image)")
    p.add_argument("--sample", type=Path, metavar="CSV",
                   help="a mask file, as sample_submission.csv, whose header and rows "
                   "processed_1.csv shall have")
    p.add_argument("--class-sets", type=flags.natural, default=0, metavar="K",
                   help="print which classes occur together, in sets of up to K, [K-3]")
    p.add_argument("--figures", type=flags.natural, default=6,
                   help="rows of each contact sheet, 0 for none")
    p.add_argument("--report", action="store_true",
                   help="write report.html: tables, curves, images and all flags in one page")
    p.add_argument("--overwrite", action="store_true", help="replace the results in --out")
    p.add_argument("--resume", action="store_true", help="make the results of the same flags again")
    return p.parse_args(argv)


def numbers_or_search(of):
    """Flag type: "search", or values of the flag type `of` with commas between them."""
    return lambda text: text if text == "search" else [of(n) for n in text.split(",")]


def main(args):
    if processes.torchrun_world()[0]:
        return None  # one process scores all, however many torchrun has started
    inputs.image_dir(args)
    folder.check_flags(args)
    if not args.masks:
        raise DataError("no masks given: one NAME=CSV or more, as maps=runs/masks/masks.csv"
                        + (", before --classes" if args.classes else ""))
    report = Console(args.quiet)
    work = evaluation_work.load(args, (EMPTY, WHOLE), report)
    order = mask_processing.check(args, work)
    probabilities = mask_processing.open_probabilities(args, work)
    labelled = inputs.label_path(args) is not None
    maps = {title: evaluation_work.open_maps(path, work.truth.classes)
            for title, path in work.paths.items() if (args.figures or args.report) and labelled}
    near = [p for path in work.paths.values() for p in kept_maps.files(path)]
    read_maps = args.figures or args.report or args.threshold
    folder.start_run(args, [inputs.label_path(args), args.folds, *work.paths.values(),
                            args.sample, *(near if read_maps else [])],
                     work.truth.classes, work.truth.names, work.digests)

    work, searched = mask_processing.process(args, work, order, probabilities, report)
    shown = Content(work.truth.names, work.truth.classes, work.sizes, inputs.image_dir(args),
                    work.truth.rles if labelled else None,
                    {title: found.rles for title, found in work.given.items()}, maps,
                    (work.labelled, work.y) if labelled else None)
    if args.figures and mask_processing.asked(args):
        mask_sheets.write_class_colours(args.out, shown, args.figures, processes.stoppable)
    if not labelled:
        folder.write_json(args.out / "metrics.json", {"classes": work.truth.classes, "images":
                                                      len(work.truth.names), **searched})
        write_report(args, shown, work.paths, report)
        return endings.Ending(endings.wrote(args.out, f"{len(work.truth.names)} images"),
                              (f"look at: {args.out}/classes.png",) * (args.figures > 0))
    counts, result = scored(args, work, searched, report)
    folder.write_json(args.out / "metrics.json", result)
    score_tables.print_class_sets(work.y, args.class_sets, result)
    score_tables.print_searched(result)
    score_tables.print_scores(result)
    if args.figures:
        for c in range(len(work.truth.classes)):
            mask_sheets.write_best_to_worst(args.out, shown, counts[next(iter(work.given))], c,
                                            args.figures, processes.stoppable)
    write_report(args, shown, work.paths, report)
    dice = {t: result["masks"][t]["scores"]["dice_present"][1] for t in work.given}
    return next_commands.after_evaluate(args, get_args([]), dice)


def scored(args, work, searched, report):
    """The pixel counts {title: int (3, N, C)} of each mask file and of two baselines, and what
    metrics.json says of them. searched: what mask_processing.process has searched."""
    truth, sets = work.truth, {title: found.rles for title, found in work.given.items()}
    sets = {EMPTY: {}, WHOLE: mask_scores.whole_images(truth.rles, work.sizes), **sets}
    counts = {title: mask_scores.count_pixels(title, work, rles, report)
              for title, rles in sets.items()}
    return {title: n[:, :, 1:] for title, n in counts.items()}, {
        "classes": truth.classes, "images": len(truth.names), "over": args.over,
        "missing": args.missing, "size": args.output_size, **searched,
        "class_sets": mask_scores.class_rules(work.y, truth.classes, args.class_sets),
        "left_out": work.left_out,
        "masks": {title: mask_scores.of_counts(n, work.fold) for title, n in counts.items()}}


def write_report(args, shown, paths, report):
    """Write report.html where --report asks for it. shown: its Content; paths: {title: CSV}."""
    if args.report:
        html_report.write(args.out, shown, paths, partial(over, report=report), folder.digests)


if __name__ == "__main__":
    sys.exit(run(main, get_args))
