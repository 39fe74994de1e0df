"""Train the classifier whose activation maps become masks (paper's section IV, Table 1).

    python train_cls.py --data data/demo --out runs/cls
    python train_cls.py --images photos --labels labels.csv --out runs/cls
    python train_cls.py --data data/demo --seam --out runs/seam

--data is a folder with train_images/ and train.csv, as Kaggle's Severstal has them. For embedded
data: python -m cam2seg.demo data/demo
--labels is a CSV (ImageId,ClassId[,EncodedPixels] | ImageId and one 0/1 column per class | ...) or
a folder with one subfolder of images per class. --seam trains the network of SEAM in place of the
paper's: its maps keep their place when the image is rescaled, and are refined by the similarity of
pixels (docs/seam.md).
"""

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C in the imports: no traceback

import sys
from pathlib import Path

import numpy as np

from cam2seg.data import csv_files
from cam2seg.data.dataset import ImageSet
from cam2seg.data.warps import Warps
from cam2seg.report.tables import print_table
from cam2seg.runs import flags, folder, inputs, method_flags, next_commands, processes
from cam2seg.runs.exits import blaming, run
from cam2seg.runs.progress import Console, Progress

RESULTS = {"oof_best": "best epoch", "oof": "mean of {} (SWA)"}  # file name: row of Table 1


def get_args(argv=None):
    p = flags.parser(__doc__)
    flags.add_data(p)
    p.add_argument("--out", type=Path, default="runs/cls", help="folder of this run")
    p.add_argument("--arch", default="b0", choices=[*(f"b{n}" for n in range(8)), "lite0"],
                   help="EfficientNet, [P] IV")
    p.add_argument("--weights", default="imagenet",
                   help="imagenet (torchvision downloads them), lite0 (those of its package), "
                   "none, or a file, [P] IV")
    p.add_argument("--hidden", type=flags.positive, default=512,
                   help="width of the head's first layer, DEV-12")
    p.add_argument("--dropout", type=flags.fraction, default=0.2,
                   help="both dropouts of the head, DEV-12")
    p.add_argument("--lr-encoder", type=flags.from_zero, default=1e-4,
                   help="[P] IV; 1e-3 from scratch")
    p.add_argument("--lr-head", type=flags.from_zero, default=1e-3, help="[P] IV")
    p.add_argument("--swa", type=flags.positive, default=3,
                   help="how many best epochs by validation loss are averaged, [P] V")
    p.add_argument("--swa-bn", default="update", choices=("update", "average"),
                   help="BatchNorm statistics: re-estimated, or averaged too, DEV-7")
    p.add_argument("--folds", type=flags.positive, default=5,
                   help="[P] III; fewer where a class has too few images, DEV-43")
    flags.add_groups(p)
    p.add_argument("--clean", default="keep", choices=("keep", "drop"),
                   help="images without any defect, DEV-14")
    flags.add_training(p, epochs=20, batch_size=64, batch_source="[P] IV")
    method_flags.add_seam(p)
    return method_flags.with_seam_defaults(p, p.parse_args(argv))


def main(args):
    processes.join()
    folder.check_flags(args)
    report = Console(args.quiet)
    labels, seen = inputs.load_labels(args, report)
    if args.clean == "drop":
        labels = labels.keep(labels.y.any(axis=1))
    fold = inputs.new_folds(args, labels, seen.thumbnails, report)
    first = seen.sizes[labels.names[0]]
    size = inputs.input_size(args, first, report)

    from cam2seg.training import batches, classifiers, cross_validation
    recipe, plan = classifier_recipe(args, labels, size), training_plan(args, labels, fold, size,
                                                                        report)
    batches.check_batches(args.batch_size, fold, classifiers.smallest_input(args, size))
    folder.start_run(args, [inputs.label_path(args), args.weights], labels.classes, labels.names,
                     seen.digests, fold)
    folds = range(fold.max() + 1) if args.fold is None else [args.fold]
    if args.resume:
        check_resumable(args, labels, recipe, folds)
    cross_validation.cross_validate(recipe, plan, folds)
    is_first = processes.is_first()
    processes.leave()
    if not is_first:
        return None
    defaults = get_args(["--seam"] if "seam" in args else [])
    return next_commands.after_train_cls(args, defaults, fold, size, write_results(args, labels))


def training_plan(args, labels, fold, size, report):
    """The Plan of the loop: the images with their labels as targets, and the settings by flags."""
    from cam2seg.training import classifiers, cross_validation, devices
    with blaming("--device"):
        device = devices.pick_device(args.device)
    devices.check_memory(args.batch_size, size, device,
                         classifiers.similarity_bytes(size, getattr(args, "seam_stride", None)))
    dataset = ImageSet(inputs.image_dir(args), labels.names, size, labels.y.astype(np.float32),
                       (args.vflip, args.hflip), args.seed,
                       Warps(args.shift_scale_rotate, args.grid_distortion))
    return cross_validation.Plan(dataset, fold, args.out, device, args.epochs, args.batch_size,
                                 args.workers, args.seed, args.amp, args.resume, report)


def classifier_recipe(args, labels, size):
    """The Recipe of the classifier: network, the paper's two learning rates, BCE, SWA."""
    from cam2seg import models
    from cam2seg.training import classifiers, cross_validation, optimizers
    with blaming("--weights"):
        models.encoder(args.arch, args.weights)  # so that a wrong file stops here
    mean, std = models.normalisation(args.arch)
    model_args = classifiers.model_args(args, len(labels.classes))
    meta = {"kind": "classifier", "model_args": model_args, "args": folder.result_flags(args),
            "preprocess": {"size": list(size), "mean": list(mean), "std": list(std),
                           "classes": labels.classes}}

    def optimizer(model):
        rest = [p for name, p in model.named_parameters() if not name.startswith("features.")]
        return optimizers.make(args.optimizer, (model.features.parameters(), args.lr_encoder),
                               (rest, args.lr_head))

    return cross_validation.Recipe(
        build=lambda: classifiers.build(**model_args, weights=args.weights),
        optimizer=optimizer, loss=classifiers.loss,  # [P-7], [S-10]
        finish_fold=lambda trained: finish_fold(args, labels, trained),
        done="oof.csv", meta=meta, keep=args.swa)


def finish_fold(args, labels, trained):
    """Write a fold's networks and held-out probabilities: of the best epoch, and of SWA.

    best.pt, swa.pt, oof_best.csv and oof.csv; the last one says that the fold is done.
    """
    from cam2seg import averaging
    from cam2seg.runs.checkpoints import load_checkpoint
    from cam2seg.training import devices, probabilities
    states = [load_checkpoint(trained.out / f"epoch{b['epoch']}.pt", "classifier")["model"]
              for b in trained.best]
    trained.model.load_state_dict(states[0])
    best = probabilities.of_held_out(trained, "best")
    trained.model.load_state_dict(averaging.average_states(states))  # [SWA], [P] V
    if args.swa_bn == "update":
        devices.seed_torch(args.seed, trained.k, args.epochs)
        averaging.update_bn(trained.model, training_inputs(args, trained))  # DEV-41: in float32
    swa = probabilities.of_held_out(trained, "swa")
    names = [labels.names[i] for i in trained.val.indices]
    for name, probs in (("oof_best", best), ("oof", swa)):
        if processes.is_first():
            csv_files.write_csv(trained.out / f"{name}.csv", ("ImageId", *labels.classes),
                                ((n, *p) for n, p in zip(names, probs.tolist(), strict=True)))


def training_inputs(args, trained):
    """Yield all training images of a fold once as network inputs, for the BatchNorm pass.

    They are augmented as in the best epoch. Every process goes through all of them.
    """
    from cam2seg.training.batches import Batches
    every = Batches(trained.train.loader.dataset, trained.train.indices, args.batch_size,
                    args.workers, args.seed, undivided=True)
    clock = Progress(len(every), f"{trained.settings.title}BatchNorm statistics",
                     trained.settings.report)
    for pixels, _ in every(trained.best[0]["epoch"] - 1):
        processes.all_reduce_or_stop(0)
        clock.add(len(pixels))
        yield trained.settings.prepare(pixels)


def check_resumable(args, labels, recipe, folds):
    """Raise DataError or CheckpointError where a file that --resume needs is damaged."""
    from cam2seg.runs import restore
    from cam2seg.training import classifiers, probabilities
    restore.check_checkpoints(args.out, folds, recipe.done, classifiers.build, recipe.meta,
                              args.epochs)
    for name in RESULTS:
        probabilities.finished(args, name, labels)


def write_results(args, labels):
    """Write oof.csv, oof_best.csv and metrics.json of the union of all folds; print and return
    Table 1."""
    from cam2seg.training import probabilities
    table = []
    for name, title in RESULTS.items():
        kept, probs = probabilities.finished(args, name, labels)
        csv_files.write_csv(args.out / f"{name}.csv", ("ImageId", *labels.classes),
                            ((n, *p) for n, p in zip(kept.names, probs.tolist(), strict=True)))
        model = f"{args.arch} SEAM" if "seam" in args else args.arch
        table += table1(f"{model}, {title.format(min(args.swa, args.epochs))}", kept.y, probs)
    folder.write_json(args.out / "metrics.json", {"classes": labels.classes, "table1": table})
    print_table("Table 1: ROC-AUC on the out-of-fold union",
                ["model", "images", *labels.classes, "mean"],
                [[r["model"], r["images"], *r["roc_auc"], r["mean"]] for r in table])
    return table


def table1(model, y, probs):
    """Rows of Table 1 from labels and probabilities (N, C): over all images and, where some images
    have no defect, over those with one."""
    from cam2seg.metrics import class_aucs
    rows = []
    defect = y.any(axis=1)
    for which, part in (("all images", defect | True), ("with a defect", defect)):
        if which == "all images" or not defect.all():
            auc = class_aucs(y[part], probs[part])
            rows.append({"model": f"{model}, {which}", "images": int(part.sum()), "roc_auc": auc,
                         "mean": None if None in auc else sum(auc) / len(auc)})
    return rows


if __name__ == "__main__":
    sys.exit(run(main, get_args))
