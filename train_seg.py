"""Train a U-Net or SegNet on any mask CSV, true or pseudo (paper's section VI, Table 3).

    python train_seg.py --images data/demo/train_images --masks runs/masks/masks.csv \\
        --folds runs/cls/folds.csv --out runs/seg
    python train_seg.py --data data/demo --masks data/demo/train.csv \\
        --folds runs/cls/folds.csv --out runs/seg_true

The masks of each fold come from the network that has not seen it. With --data (or --labels: a CSV
of true masks) they are scored. The same command with --resume --predict FOLDER masks new images.
With --init RUN the encoder starts from another run of this script, as one on the masks of
make_masks.py --method depth.
"""

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C in the imports: no traceback

import sys
from functools import partial
from pathlib import Path

import numpy as np

from cam2seg.data import exports, image_folder, labels
from cam2seg.data.dataset import ImageSet, MaskTargets
from cam2seg.data.warps import Warps
from cam2seg.report import mask_report, score_tables
from cam2seg.report.exports import write as write_exports
from cam2seg.report.score_tables import EMPTY
from cam2seg.runs import flags, folder, inputs, next_commands, processes
from cam2seg.runs.exits import blaming, run
from cam2seg.runs.progress import Console, over
from cam2seg.training import mask_scores
from cam2seg.training.segmentation_work import load, named


def get_args(argv=None):
    p = flags.parser(__doc__)
    flags.add_data(p, "optional: a CSV of true masks to score against")
    p.add_argument("--masks", type=Path, nargs="+", default=[Path("runs/masks/masks.csv")],
                   metavar="PATH", help="masks to train on; those of a later path, as of corrected "
                   "images, replace those of an earlier one image by image, DEV-69")
    p.add_argument("--folds", type=Path, default="runs/cls/folds.csv",
                   help="folds.csv of the classifier's run")
    p.add_argument("--out", type=Path, default="runs/seg", help="folder of this run")
    p.add_argument("--arch", default="b0", choices=[*(f"b{n}" for n in range(8)), "lite0",
                                                      "segnet"],
                   help="EfficientNet encoder of a U-Net, [P] VI; or segnet, DEV-62")
    p.add_argument("--weights", default="imagenet",
                   help="imagenet (torchvision downloads them), lite0 (those of its package), "
                   "none, or a file, [P] VI")
    p.add_argument("--init", type=Path, metavar="RUN",
                   help="run of this script whose encoders are the start, in place of --weights, "
                   "DEV-49")
    p.add_argument("--loss", default="bce", choices=("bce", "dice", "bce+dice"), help="DEV-12")
    p.add_argument("--target", default="multilabel", choices=("multilabel", "multiclass"),
                   help="masks of classes may overlap; or each pixel has one class or none, by "
                   "softmax and cross-entropy, without --loss and --threshold, DEV-67")
    p.add_argument("--lr-encoder", type=flags.from_zero, default=1e-4,
                   help="DEV-12; 1e-3 from scratch")
    p.add_argument("--lr-decoder", type=flags.from_zero, default=1e-3, help="DEV-12")
    p.add_argument("--schedule", default="plateau", choices=("plateau", "cosine"),
                   help="learning rates halve on a plateau, or fall along a cosine, DEV-37")
    p.add_argument("--ignore", type=Path, metavar="CSV",
                   help="pixels that the loss leaves out, in the form of a mask CSV")
    p.add_argument("--mask-cut", type=flags.fraction_or_centre, default=0.5,
                   help="a pixel of a resized training mask is defect where at least this part of "
                        "its area is; or centre: where its centre is, DEV-33")
    p.add_argument("--threshold", type=flags.fraction, default=0.2,
                   help="least probability, [P] VI")
    p.add_argument("--min-seg-len", type=flags.natural, default=0,
                   help="least area of a mask in pixels, [P] VI, DEV-13")
    p.add_argument("--gate", type=Path, metavar="CSV",
                   help="oof.csv of train_cls.py: a class has a mask only where its probability "
                        "there is --confidence or more, DEV-34 (default: no gate)")
    p.add_argument("--confidence", type=flags.fraction, default=0.5, help="see --gate, DEV-34")
    p.add_argument("--keep-maps", action="store_true",
                   help="keep the probabilities of all masked images, which evaluate.py --threshold "
                   "needs: two bytes for each class and pixel of --size, DEV-73")
    p.add_argument("--predict", type=Path, metavar="FOLDER",
                   help="then also mask these images, by the mean over the folds")
    flags.add_export(p)
    flags.add_training(p, epochs=20, batch_size=16, batch_source="DEV-12")
    return p.parse_args(argv)


def main(args):
    processes.join()
    folder.check_flags(args)
    report = Console(args.quiet)
    work = load(args, report)
    exports.check(args.export, work.given.classes)
    first = work.sizes[work.given.names[0]]
    size = inputs.input_size(args, first, report)
    new_sizes = {}
    if args.predict:
        names = image_folder.list_images(args.predict)
        new_sizes = inputs.scan(args.predict, names, report).sizes

    from cam2seg.training import batches, cross_validation, initial, network_masks
    trained = sorted(set(work.fold.tolist())) if args.fold is None else [args.fold]
    encoders = initial.checkpoints(args, work, trained)
    recipe, plan = seg_recipe(args, work, size), training_plan(args, work, size, report)
    recipe = recipe._replace(start=encoders and partial(initial.load, encoders, args.arch))
    batches.check_batches(args.batch_size, work.fold, size)
    folder.start_run(args, [*args.masks, args.folds, args.ignore, args.gate, args.weights,
                            inputs.label_path(args),
                            *((args.init / n for n in ("args.json", "folds.csv")) if encoders
                              else ())],
                     work.given.classes, work.given.names, work.digests, work.fold)
    if args.resume:
        check_resumable(args, work, recipe, trained)
    cross_validation.cross_validate(recipe, plan, trained)
    processes.barrier()
    if processes.is_first():
        write_results(args, work, report)
        export(args, "oof_masks", inputs.image_dir(args), work, report)
    if args.predict:
        network_masks.mask_new_images(args, recipe, plan, new_sizes, partial(warn, report))
        if processes.is_first():
            export(args, "new_masks", args.predict, work._replace(sizes=new_sizes), report)
    if not processes.is_first():
        return None
    return next_commands.after_train_seg(args, get_args([]), work)


def training_plan(args, work, size, report):
    """The Plan of the loop: the images with the given masks as targets, and the settings by flags.

    Image and masks are flipped and warped together (DEV-40, [K-7]).
    """
    from cam2seg.training import cross_validation, devices
    with blaming("--device"):
        device = devices.pick_device(args.device)
    devices.check_memory(args.batch_size, size, device)
    targets = MaskTargets(work.given.rles, work.sizes, len(work.given.classes), args.mask_cut,
                          work.ignored)
    dataset = ImageSet(inputs.image_dir(args), work.given.names, size, targets,
                       (args.vflip, args.hflip), args.seed,
                       Warps(args.shift_scale_rotate, args.grid_distortion))
    return cross_validation.Plan(dataset, work.fold, args.out, device, args.epochs,
                                 args.batch_size, args.workers, args.seed, args.amp, args.resume,
                                 report, args.schedule)


def seg_recipe(args, work, size):
    """The Recipe of U-Net or SegNet: network, two learning rates, the loss, and held-out masks.

    Both networks are trained alike (DEV-62).
    """
    from cam2seg import losses, models
    from cam2seg.training import cross_validation, optimizers, segmenters
    weights = "none" if args.init else args.weights  # with --init nothing is downloaded
    with blaming("--weights"):
        segmenters.encoder(args.arch, weights)  # so that a wrong file stops here
    mean, std = models.normalisation(args.arch)
    model_args = {"arch": args.arch, "num_classes": len(work.given.classes),
                  **({"target": "multiclass"} if args.target == "multiclass" else {})}
    meta = {"kind": "unet", "model_args": model_args, "args": folder.result_flags(args),
            "preprocess": {"size": list(size), "mean": list(mean), "std": list(std),
                           "classes": work.given.classes}}

    def optimizer(model):
        rest = [*model.decoder.parameters(), *model.head.parameters()]
        return optimizers.make(args.optimizer, (model.encoder.parameters(), args.lr_encoder),
                               (rest, args.lr_decoder))

    def loss(logits, target):  # target: uint8, 255 = left out
        if args.target == "multiclass":
            return losses.multiclass_loss(logits, target)
        ignore = target == 255 if work.ignored else None
        return losses.segmentation_loss(logits, (target == 1).float(), args.loss, ignore)

    return cross_validation.Recipe(
        build=lambda: segmenters.build(**model_args, weights=weights), optimizer=optimizer,
        loss=loss, finish_fold=lambda trained: finish_fold(args, work, trained),
        done="oof_masks.csv", meta=meta)


def finish_fold(args, work, trained):
    """Write the network of a fold's best epoch, best.pt, and the masks of its held-out images."""
    from cam2seg.runs.checkpoints import load_checkpoint, save_checkpoint
    from cam2seg.training import network_masks
    best = trained.best[0]
    state = load_checkpoint(trained.out / f"epoch{best['epoch']}.pt", "unet")
    trained.model.load_state_dict(state["model"])
    save_checkpoint(trained.out / "best.pt", trained.model,
                    {**trained.settings.meta, "best": [best]})
    network_masks.mask_held_out(args, work, trained)


def check_resumable(args, work, recipe, trained):
    """Raise DataError or CheckpointError where a file that --resume needs is damaged."""
    from cam2seg.runs import restore
    from cam2seg.training import network_masks, segmenters
    restore.check_checkpoints(args.out, trained, recipe.done, segmenters.build, recipe.meta,
                              args.epochs)
    restore.networks(args.out, "best.pt", segmenters.build, "unet", recipe.meta)
    network_masks.finished(args, work)


def write_results(args, work, report):
    """Write oof_masks.csv, oof.csv and metrics.json of the union of all folds; print Table 3 where
    true masks are known."""
    from cam2seg.training import network_masks
    names, rles = network_masks.finished(args, work)
    given, truth = work.given, work.truth
    labels.write_masks(args.out / "oof_masks.csv", names, given.classes, rles)
    network_masks.write_peaks(args.out / "oof.csv", given.classes,
                              network_masks.finished_peaks(args, work))
    print(f"\n{args.out}/oof_masks.csv: {len(names)} of {len(given.names)} images")
    taught = given.keep(np.isin(given.names, names)).y
    warn(report, args.out / "oof_masks.csv", rles, work.sizes, names, given.classes, taught)
    result = {"classes": given.classes, "args": folder.result_flags(args), "images": len(names)}
    if truth is not None:
        rows = {EMPTY: {}, f"trained on {named(args.masks)}": given.rles,
                f"{network_name(args.arch)} on them": rles}
        result |= mask_scores.table3(names, work, rows)
        if args.target == "multiclass":
            result["table3_pixels"] = mask_scores.of_pixels(names, work, rows)
        score_tables.print_table3(result)
    folder.write_json(args.out / "metrics.json", result)


def warn(report, path, *of):
    """Say what looks wrong in the mask file at `path`; of: see mask_report.advice_on_networks."""
    for line in mask_report.advice_on_networks(*of):
        report("warning", text=f"{path}: {line}")


def export(args, title, image_dir, work, report):
    """Write the masks of {title}.csv in the forms of --export. image_dir: that of its images."""
    if args.export:
        made = exports.load(args.out / f"{title}.csv", image_dir, work.sizes, work.given.classes)
        write_exports(args.out, title, made, args.export, partial(over, report=report), report)


def network_name(arch):
    """The name of the network in a table."""
    return "SegNet" if arch == "segnet" else f"U-Net ({arch})"


if __name__ == "__main__":
    sys.exit(run(main, get_args))
