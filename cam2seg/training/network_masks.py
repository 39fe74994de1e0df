"""The masks that the networks of train_seg.py draw, of held-out images and of those of --predict,
and how they are read back from the folders of the folds.

`args` are the flags of train_seg.py, and `work` is its Work.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .. import masks, models
from ..data import labels
from ..data.csv_files import read_all_probs, write_csv
from ..data.dataset import ImageSet
from ..runs import folder, inputs, processes, restore
from . import epochs, kept_maps, segmenters
from .batches import Batches, to_input
from .cross_validation import Fold, Plan, Recipe
from .fit import Settings


def predict(args: argparse.Namespace, nets: Sequence[nn.Module], batches: Batches,
            sizes: Mapping[str, tuple[int, int]], settings: Settings,
            kept: kept_maps.KeptMaps | None = None) -> tuple[dict, dict]:
    """Run lengths {(name, class index): text} of the images in `batches`, and {name: C peaks}.

    The mean probability of the networks is brought to each image's own size and thresholded there.
    A peak is the largest probability of a pixel of the class. Of the settings, prepare, amp, title
    and report are used. Each process masks its part of the images, and all of them get all masks.
    kept: where the probabilities of these images are stored, or None; with it each process masks
    all images.
    """
    if kept:
        batches = Batches(batches.loader.dataset, batches.indices, args.batch_size, args.workers,
                          undivided=True)
    exclusive = args.target == "multiclass"
    rles, peaks, mean = {}, {}, models.MeanProbability(nets, exclusive)
    names = batches.loader.dataset.names
    probs = (p for batch, _ in epochs.predict(mean, batches, settings.prepare, settings.amp,
                                              f"{settings.title}masks", settings.report)
             for p in batch)
    for i, p in zip(batches.rows(), probs, strict=True):
        full = F.interpolate(p[None], size=sizes[names[i]], mode="bilinear")[0].cpu().numpy()
        peaks[names[i]] = full.max(axis=(1, 2)).clip(0, 1).tolist()  # rounding can pass 1
        drawn = masks.exclusive(full, args.min_seg_len) if exclusive else [
            masks.binarize(heat, args.threshold, args.min_seg_len) for heat in full]
        rles.update({(names[i], c): masks.rle_encode(mask) for c, mask in enumerate(drawn)})
        if kept:
            kept.add(names[i], p.cpu().numpy(), peaks[names[i]])
    parts = processes.all_gather((rles, peaks))
    return ({key: rle for part, _ in parts for key, rle in part.items()},
            {name: peak for _, part in parts for name, peak in part.items()})


def mask_held_out(args: argparse.Namespace, work: Any, trained: Fold) -> None:
    """Write oof_masks.csv, the masks of a fold's held-out images by its network, and oof.csv, their
    peaks. Without --gate every class may have a mask."""
    names = [work.given.names[i] for i in trained.val.indices]

    def accepted(name, c):  # DEV-34
        return not work.gate or work.gate[name][c] >= args.confidence

    kept = None
    if args.keep_maps:
        kept = kept_maps.KeptMaps(trained.out, names, work.given.classes, accepted)
    rles, peaks = predict(args, [trained.model], trained.val, work.sizes, trained.settings, kept)
    rles = {key: rle for key, rle in rles.items() if accepted(*key)}
    if kept:
        kept.finish(trained.k, work.sizes)
    if processes.is_first():
        write_peaks(trained.out / "oof.csv", work.given.classes, {n: peaks[n] for n in names})
        labels.write_masks(trained.out / "oof_masks.csv", names, work.given.classes, rles)


def mask_new_images(args: argparse.Namespace, recipe: Recipe, plan: Plan,
                    sizes: Mapping[str, tuple[int, int]], warn: Callable) -> None:
    """Write new_masks.csv: masks of the images of --predict by the mean over all trained folds.

    sizes: {name: (H, W)} of these images. warn(path, run lengths, sizes, names, classes) says what
    looks wrong in the file.
    """
    nets = [restore.network(segmenters.build, path, "unet")[0]
            .to(plan.device, memory_format=torch.channels_last)
            for path in folder.fold_files(args.out, "best.pt").values()]
    pre = recipe.meta["preprocess"]
    prepare = partial(to_input, device=plan.device, mean=pre["mean"], std=pre["std"])
    new = ImageSet(args.predict, list(sizes), plan.dataset.size, np.zeros((len(sizes), 0)))
    batches = Batches(new, np.arange(len(new)), args.batch_size, args.workers)
    settings = Settings(recipe.loss, prepare, args.epochs, recipe.meta, amp=args.amp,
                        report=plan.report)
    kept = None
    if args.keep_maps:
        kept = kept_maps.KeptMaps(args.out / kept_maps.NEW[0], new.names, pre["classes"])
    rles, _ = predict(args, nets, batches, sizes, settings, kept)
    if kept:
        kept.finish(-1, sizes)
    if processes.is_first():
        labels.write_masks(args.out / "new_masks.csv", new.names, pre["classes"], rles)
        warn(args.out / "new_masks.csv", rles, sizes, new.names, pre["classes"])
    plan.report("note", text=f"{args.out}/new_masks.csv: {len(new)} images, mean of {len(nets)} "
                             "networks" + ", without --gate" * bool(args.gate))


def finished(args: argparse.Namespace, work: Any) -> tuple[list[str], dict]:
    """Sorted names and run lengths of the images whose fold is finished, from its CSV file.

    Raises DataError where such a file is damaged.
    """
    rles, names = {}, set()
    for path in folder.fold_files(args.out, "oof_masks.csv").values():
        found = labels.read_masks(path, inputs.image_dir(args), work.given.classes)
        labels.check_masks(path, found, work.sizes)
        rles.update(found.rles)
        names |= {name for name, _ in found.rows}
    return sorted(names), rles


def finished_peaks(args: argparse.Namespace, work: Any) -> dict[str, list[float]]:
    """{image name: C peaks} of the images whose fold is finished, from its CSV file."""
    return read_all_probs(folder.fold_files(args.out, "oof.csv").values(), work.given.classes)


def write_peaks(path: Path, classes: Sequence[str],
                peaks: Mapping[str, Sequence[float]]) -> None:
    """Write the largest probability of a pixel of each class, {image name: C values}, as a CSV.

    It has the form of train_cls.py's oof.csv, so that --gate reads it too.
    """
    write_csv(path, ("ImageId", *classes), ([n, *p] for n, p in peaks.items()))
