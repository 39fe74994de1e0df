"""The ways to masks of make_masks.py other than the paper's, one function for each --method.

Each takes the flags, the Work of work.py, the report of runs/progress.py, and show(title, columns,
rows), which prints a table. It makes the folder of the run and returns what it has Made. In a
process other than the first it returns None. True masks are used for nothing but scores.
"""

import argparse
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .. import cam
from ..data import files, labels
from ..data.errors import DataError
from ..runs import folder, inputs, locks, processes
from . import (auto_masks, depth_masks, devices, erased, fitted, held_out_maps, label_only,
               pixel_masks, predictor, seg_masks, video_masks)
from .work import Work, folds_for_training, label_auc, with_held_out_folds


class Made(NamedTuple):
    """Masks of the images of `work`, and what was said on the way."""

    work: Work
    rles: dict  # {(name, class index): run lengths of the mask}
    ignored: dict  # the same of the pixels that a trainer leaves out
    choice: list | None  # rows that say what decided the masks, for metrics.json
    scores: dict = {}  # further entries of metrics.json


def load_or_make_maps(args: argparse.Namespace, work: Work,
                      report: Callable) -> tuple[np.ndarray, np.ndarray]:
    """Maps (N, C, h, w) and probabilities (N, C): those in --out with --reuse-maps, else new ones.

    Also makes the folder of the run.
    """
    images = held_out_maps.Images(work.names, work.fold, work.sizes, work.classes)
    if args.reuse_maps:
        if not any((args.out / name).exists() for name in ("maps.csv", "maps.npy")):
            raise DataError(f"--reuse-maps finds no maps: {files.contents(args.out)}; run without "
                            "--reuse-maps first, or name the --out of that run")
        folder.read_run(args.out / "args.json")
        processes.run_on_first(lambda: locks.lock(args.out), (DataError, OSError))
        found = held_out_maps.load_maps(args, images)
        folder.note_flags(args, [inputs.label_path(args), *fitted.files(args)])
        return found
    classifiers = held_out_maps.load_classifiers(args, work.classes)
    folder.start_run(args, [inputs.label_path(args), *fitted.files(args),
                            *held_out_maps.network_files(args)], work.classes, work.names,
                     work.digests)
    return held_out_maps.make_maps(args, images, classifiers, report)


def masks_from_contrast(args: argparse.Namespace, work: Work, report: Callable,
                        show: Callable) -> Made | None:
    """Masks by contrast, from images and labels alone; see methods/contrast."""
    model = _start_by_labels(args, work)
    if not processes.is_first():
        return None
    log_image, y = _log_images(args, work), work.labels.y.astype(bool)
    model = fitted.write(args.out, work.classes,
                         model or label_only.fit(log_image, y, report))
    rows = label_only.choice_rows(model, work.classes)
    show("Filter and sign that the labels choose, with T of [C-5], and the next best",
         ["class", "first", "T", "second", "T"], rows)
    for name, chosen in zip(work.classes, model.filters, strict=True):
        if chosen is None:
            report("warning", text=f"class {name}: no filter tells its images from the others, so "
                                   "--method contrast makes no mask of it")
    made = label_only.make_masks(
        lambda i: label_only.masks_of_image(log_image(i), y[i], model), work.names, y, report)
    return Made(work, *made, rows)


def masks_from_pixels(args: argparse.Namespace, work: Work, report: Callable,
                      show: Callable) -> Made | None:
    """Masks by networks on filter responses, from images and labels; see methods/pixels."""
    model = _start_by_labels(args, work)
    if not processes.is_first():
        return None
    log_image, y = _log_images(args, work), work.labels.y.astype(bool)
    # The folds of --fitted are those of other images.
    fold = work.fold if model is None else np.full(len(work.names), -1)
    model = fitted.write(args.out, work.classes,
                         model or pixel_masks.fit(log_image, y, fold, report))
    rows = pixel_masks.choice_rows(model, work.classes)
    show("What the labels choose for each class, [C-32]", pixel_masks.COLUMNS, rows)
    made = label_only.make_masks(
        lambda i: pixel_masks.masks_of_image(log_image(i), y[i], int(fold[i]), model),
        work.names, y, report)
    return Made(work, *made, rows)


def masks_from_auto(args: argparse.Namespace, work: Work, report: Callable,
                    show: Callable) -> Made | None:
    """Masks by what the labels choose for each class, of contrast, networks and maps; see
    methods/auto.

    Images without labels have the classes that reach --confidence.
    """
    model = fitted.given(args, work.classes)
    maps, probs = load_or_make_maps(args, work, report)
    if not processes.is_first():
        return None
    # The folds of --fitted are those of other images.
    fold = work.fold if model is None else np.full(len(work.names), -1)
    log_image = _log_images(args, work)
    y = probs >= args.confidence if work.labels is None else work.labels.y.astype(bool)

    def maps_of(i):
        return cam.numpy_maps(maps[i], work.sizes[work.names[i]], args.norm, args.norm_after)

    model = fitted.write(args.out, work.classes, model or auto_masks.fit(
        log_image, maps_of, _lost_logits(args, work), y, probs, fold, report))
    rows = auto_masks.choice_rows(model, work.classes)
    show("What the labels choose for each class: the first of contrast, network and product that "
         "tells as much as is needed, else the map [C-22]; 0.5 is a guess. Erasing the product "
         "must cost half of the logit that erasing the map costs [C-41]", auto_masks.COLUMNS, rows)
    made = label_only.make_masks(
        lambda i: auto_masks.masks_of_image(log_image(i), maps_of(i), y[i], int(fold[i]), model),
        work.names, y, report)
    return Made(work, *made, rows)


def masks_from_seg(args: argparse.Namespace, work: Work, report: Callable,
                   show: Callable) -> Made | None:
    """Masks by the U-Nets of a run, each of the images that it has not seen; see
    training/seg_masks. Images without labels may have any class.
    """
    run, rows = _chosen_run(args, work, show) if work.labels else (args.seg[0], None)
    work = with_held_out_folds(args, run, "best.pt", work)
    predict = predictor.load(run, args.device)
    folder.start_run(args, [inputs.label_path(args), *folder.fold_files(run, "best.pt").values()],
                     work.classes, work.names, work.digests,
                     folds_for_training(args, work, run, report))
    if not processes.is_first():
        return None
    made = seg_masks.make_masks(predict, inputs.image_dir(args), work.names, work.fold,
                                work.labels and work.labels.y.astype(bool), args.select, report)
    return Made(work, *made, rows)


def _chosen_run(args, work, show):
    """The run of --seg that tells the labels best, and a row for each run: its path, and the
    ROC-AUC of each class.    [C-27]"""
    y = work.labels.y.astype(bool)
    scores = [label_auc(run / "oof.csv", work.names, y, work.classes) for run in args.seg]
    run = args.seg[seg_masks.choose_run(scores)]
    rows = [[str(path), *auc] for path, auc in zip(args.seg, scores, strict=True)]
    show("How well the held-out U-Nets tell the labels, ROC-AUC [C-27]",
         ["run", *work.classes], rows)
    if len(args.seg) > 1:
        print(f"the masks come from {run}")
    return run, rows


def masks_from_depth(args: argparse.Namespace, work: Work, report: Callable,
                     show: Callable) -> Made | None:
    """Masks of classes of height and angle, from depth; see methods/depth."""
    model = depth_masks.model_of(args)
    paths = depth_masks.check(model, work.names, work.sizes, report)
    folder.start_run(args, paths, work.classes, work.names, work.digests, work.fold)
    if not processes.is_first():
        return None
    *made, share = depth_masks.make_masks(model, work.names, paths, work.sizes, report)
    spans = [name.split("_") for name in work.classes]
    show(f"{args.out}/masks.csv: {len(work.names)} images, part of the pixels",
         ["height", *(angle for _, angle in spans[:share.shape[1]])],
         [[height, *row] for (height, _), row in
          zip(spans[::share.shape[1]], share.tolist(), strict=True)])
    return Made(work, *made, share.tolist())


def masks_from_video(args: argparse.Namespace, work: Work, report: Callable,
                     show: Callable) -> Made | None:
    """Masks carried from the first frames of videos through the others; see methods/video.

    Masks of other frames are used for nothing but the scores.
    """
    given = labels.read_masks(args.first, inputs.image_dir(args), work.classes, True)
    labels.check_masks(args.first, given, work.sizes)
    videos = video_masks.check(args.first, given, work.names, work.sizes)
    truth = work.labels
    if truth is not None and (truth.rles is None or len(truth.names) < truth.in_folder):
        raise DataError(f"{inputs.label_path(args)}: expected masks of all frames, to score ours")
    device = devices.pick_device(args.device)
    folder.start_run(args, [args.first, inputs.label_path(args)], work.classes, work.names,
                     work.digests, video_masks.folds(videos, work.names))
    if not processes.is_first():
        return None

    def read(video, t):
        size = video_masks.working_size(video.size, args.size)
        return video_masks.read_frame(inputs.image_dir(args) / video.names[t], size)

    net = video_masks.train(videos, read, args.steps, args.out, device, report)
    made = video_masks.make_masks(net, videos, read, (args.radius, args.memory), report)
    scores = {} if truth is None else {"J and F": video_masks.scores(videos, truth, made[0])}
    return Made(work._replace(labels=None), *made, None, scores)


def _start_by_labels(args, work):
    """Make the folder of a run that needs no network, and return the model of --fitted or None."""
    model = fitted.given(args, work.classes)
    folder.start_run(args, [inputs.label_path(args), *fitted.files(args)], work.classes, work.names,
                     work.digests, work.fold)
    return model


def _lost_logits(args, work):
    """The function `lost` of auto_masks.fit; its first call loads the networks of --cls."""
    @lru_cache(maxsize=1)
    def of_networks():
        found = held_out_maps.load_classifiers(args, work.classes)
        paths = [inputs.image_dir(args) / name for name in work.names]
        return erased.lost_logits(paths, work.fold, found, args.size or found.preprocess["size"])

    return lambda i, masks: of_networks()(i, masks)


def _log_images(args, work):
    """The function from a row number of `work` to the logarithm [C-1] of its image."""
    image_dir = inputs.image_dir(args)
    return lambda i: label_only.log_image(image_dir / work.names[i])


BY_METHOD = {"contrast": masks_from_contrast, "pixels": masks_from_pixels, "auto": masks_from_auto,
             "seg": masks_from_seg, "depth": masks_from_depth, "video": masks_from_video}
