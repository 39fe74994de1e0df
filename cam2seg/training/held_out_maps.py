"""Activation maps of a set of images, each from a classifier that has not seen the image.

This is the first stage of make_masks.py; `args` are its flags. The maps are made batch by batch and
stored as they come, so that a stopped run goes on with the next batch.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .. import cam
from ..data import stored_maps
from ..data.dataset import ImageSet
from ..data.errors import DataError
from ..methods import auto
from ..runs import processes, restore
from ..runs.exits import blaming
from ..runs.folder import digests, fold_files, plain_flags, read_run
from ..runs.inputs import image_dir
from ..runs.progress import Progress
from . import classifiers as networks
from .batches import Batches, to_input
from .devices import check_memory, note_slow_bfloat16, pick_device
from .inference import prepared

# The flags on which the maps depend; the others only turn maps into masks.
MAP_FLAGS = ("cls", "method", "target_layer", "size", "checkpoint", "aug_smooth", "smooth_image",
             "new_images")


class MapOptions(NamedTuple):
    """How a map is made; the flags of make_masks.py have the same names and meanings."""

    method: str = "gradcam++"
    target_layer: str | None = None  # None: the network's own
    aug_smooth: bool = True
    smooth_image: bool = False
    amp: bool = False
    two_sizes: bool = False  # the input has twice the trained size, [C-18]


class Images(NamedTuple):
    """The images that get maps."""

    names: list  # N image names
    fold: np.ndarray  # int (N,): the fold that holds each image out; -1 outside the folds
    sizes: dict  # {name: (H, W)}
    classes: list  # C class names


class Classifiers(NamedTuple):
    """The networks that make the maps."""

    nets: dict  # {fold: network}
    preprocess: dict  # size, mean and std of their input
    device: torch.device


def networks_of(classifiers: Classifiers, fold: int) -> list:
    """A list of the network that has not seen a fold's images; of all for fold -1 (DEV-19)."""
    nets = classifiers.nets
    return list(nets.values()) if fold == -1 else [nets[fold]]


def map_options(args: argparse.Namespace) -> MapOptions:
    """The MapOptions of the flags: --method auto joins Grad-CAM++ maps at two sizes, [C-18]."""
    method, joined = ("gradcam++", True) if args.method == "auto" else (args.method, False)
    return MapOptions(method, args.target_layer, args.aug_smooth, args.smooth_image, args.amp,
                      joined)


def load_classifiers(args: argparse.Namespace, classes: Sequence[str]) -> Classifiers:
    """Classifiers of the run --cls. Raises DataError and CheckpointError where they do not fit."""
    with blaming("--device"):
        device = pick_device(args.device)
    nets, state = restore.networks(args.cls, f"{args.checkpoint}.pt", networks.build,
                                   "classifier")
    pre = state["preprocess"]
    if pre["classes"] != classes:
        said = f"checkpoints of classes {pre['classes']}, but args.json says {classes}"
        raise DataError(f"{args.cls}: {said}")
    size = args.size or pre["size"]
    check_memory(args.batch_size, size, device,
                 networks.similarity_bytes(size, state["model_args"].get("stride")))
    nets = {k: prepared(net, device, args.target_layer) for k, net in nets.items()}
    check_layer(map_options(args), next(iter(nets.values())), size, device)
    return Classifiers(nets, pre, device)


def check_layer(options: MapOptions, model: nn.Module, size: Sequence[int],
                device: torch.device) -> None:
    """Raise DataError where the layer is not there or its map is useless, before work begins.

    size: (H, W) of the network's input. A map of one cell is constant, so that it becomes 0 and
    every mask empty (DEV-35).
    """
    with blaming("--target-layer"):
        maps, _ = networks.maps_of_view(options, model, torch.zeros(1, 3, *size, device=device))
    if maps.shape[2:] == (1, 1):
        own = options.method == "seam"
        maps_of = "maps of SEAM" if own else f"--target-layer {networks.place(options, model)}"
        raise DataError(f"{maps_of}: one cell for {size[0]} x {size[1]} pixels, expected a grid; a "
                        f"larger --size{'' if own else ' or an earlier layer'} gives one")


def make_maps(args: argparse.Namespace, images: Images, classifiers: Classifiers,
              report: Callable) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Small maps float16 (N, C, h, w), each divided by its maximum, and probabilities (N, C).

    Both are also written to --out. An image outside the folds gets the mean over the folds
    (DEV-19). The batches do not depend on how often the run is stopped, nor on which process does
    them. Only the first process gets the two arrays; the others get None.
    """
    if args.resume and stored_maps.is_complete(args.out):
        if processes.is_first():
            stored_maps.remove_leftovers(args.out)
        return load_maps(args, images)
    note_slow_bfloat16(args.amp, classifiers.device, report)
    options, size = map_options(args), args.size or classifiers.preprocess["size"]
    if options.two_sizes:
        size = [2 * side for side in size]
    pixels = ImageSet(image_dir(args), images.names, size,
                      np.zeros((len(images.names), 0), np.float32))
    store = stored_maps.MapStore(args.out, len(images.names), len(images.classes)) \
        if processes.is_first() else None
    done = processes.all_gather(torch.from_numpy(store.done()) if store else None)[0].numpy()
    clock = Progress(int((~done).sum()), "maps", report)
    for k in sorted(set(images.fold.tolist())):
        members = networks_of(classifiers, k)
        for rows, batch in pending_batches(pixels, np.flatnonzero(images.fold == k), args, done):
            found = _named(options, members, batch, classifiers, (images, rows)) if rows else None
            for part, made in processes.all_gather((rows, found)):
                if store and part:
                    if store.maps is None:
                        report("note", text=_grid_line(options, members[0], made[0], size))
                    store.add(part, *made)
            clock.add(processes.all_reduce_or_stop(len(rows)))
    if store:
        store.finish(images.names, images.fold, images.sizes, images.classes)
    return (store.maps, store.probs) if store else (None, None)


def _named(options, members, batch, classifiers, where):
    """maps_of_batch, with the names of image and class in the error for a map that is not finite.

    where: the Images, and the row numbers of the batch in them.
    """
    try:
        return maps_of_batch(options, members, batch, classifiers)
    except cam.NonFiniteMapError as error:
        images, rows = where
        raise DataError(f"{images.names[rows[error.image]]}: the map of class "
                        f"{images.classes[error.class_index]} at layer {error.layer} is not "
                        "finite; the classifier's weights are damaged or overflow") from error


def _grid_line(options, model, maps, size):
    """The line that tells a person how fine the maps (B, C, h, w) are."""
    return (f"maps of {networks.place(options, model)}: {maps.shape[2]} x {maps.shape[3]} cells for "
            f"{size[0]} x {size[1]} pixels")


def pending_batches(pixels: ImageSet, rows: np.ndarray, args: argparse.Namespace,
                    done: np.ndarray) -> Iterator[tuple[list[int], Tensor | None]]:
    """Yield (row numbers, pixels) of this process's batches that hold an image without a map.

    Where another process has one batch more, ([], None) comes last. The images are cut into batches
    before any is left out, because the last bit of a map depends on the images beside it.
    """
    cut = [rows[a:a + args.batch_size] for a in range(0, len(rows), args.batch_size)]
    cut = [part for part in cut if not done[part].all()]
    if not cut:
        return
    batches = Batches(pixels, np.concatenate(cut), args.batch_size, args.workers)
    mine = [b.tolist() for b in cut[processes.rank()::processes.world_size()]]
    loader = batches(None)
    for n in range(-(-len(cut) // processes.world_size())):
        yield (mine[n], next(loader)[0]) if n < len(mine) else ([], None)


def maps_of_batch(options: MapOptions, members: Sequence[nn.Module], batch: Tensor,
                  classifiers: Classifiers) -> tuple[Tensor, Tensor]:
    """Mean maps (B, C, h, w) of some networks, divided by their maxima, and mean probabilities.

    options: MapOptions; members: the networks; batch: pixels uint8 (B, H, W, 3); classifiers: says
    how the input is prepared, and on which device. The map of each network is divided by its
    maximum before the mean is taken, so that each network has the same weight (DEV-19).
    """
    pre, device = classifiers.preprocess, classifiers.device
    x = to_input(batch, device, pre["mean"], pre["std"])
    with torch.autocast(device.type, torch.bfloat16, enabled=options.amp):
        maps_of = joined_maps if options.two_sizes else smoothed_maps
        seen = [maps_of(options, model, x, pre) for model in members]
    maps = torch.stack([cam.normalize(m, "max") for m, _ in seen]).mean(dim=0)
    probs = torch.stack([y.float().sigmoid() for _, y in seen]).mean(dim=0)
    return cam.normalize(maps, "max").cpu(), probs.cpu()


def joined_maps(options: MapOptions, model: nn.Module, x: Tensor,
                preprocess: dict) -> tuple[Tensor, Tensor]:
    """Maps (B, C, h, w) of two sizes of the input joined, and the logits (B, C) of the smaller.

    x has twice the trained size. A pixel of the smaller input is the mean of four of x.  [C-18]
    """
    small, logits = smoothed_maps(options, model, nn.functional.avg_pool2d(x, 2), preprocess)
    large, _ = smoothed_maps(options, model, x, preprocess)
    small = cam.upscale(cam.normalize(small), large.shape[2:])
    return auto.join_views(torch.stack([small, cam.normalize(large)])), logits


def smoothed_maps(options: MapOptions, model: nn.Module, x: Tensor,
                  preprocess: dict) -> tuple[Tensor, Tensor]:
    """Raw maps (B, C, h, w) of a batch by the options, and the logits (B, C) of the plain image.

    The plain image alone decides at the confidence gate (DEV-15).
    """
    if not options.aug_smooth:
        return networks.maps_of_view(options, model, x)
    logits = []

    def maps_of(view):
        maps, y = networks.maps_of_view(options, model, view)
        logits.append(y)
        return maps

    mean, std = (torch.tensor(preprocess[k], device=x.device).view(3, 1, 1)
                 for k in ("mean", "std"))
    shift = mean / std if options.smooth_image else 0.0  # DEV-6
    return cam.aug_smooth(maps_of, x, shift), logits[0]


def network_files(args: argparse.Namespace) -> list[Path]:
    """Paths of folds.csv, which says which images each network has seen, and of the networks."""
    return [args.cls / "folds.csv", *fold_files(args.cls, f"{args.checkpoint}.pt").values()]


def load_maps(args: argparse.Namespace, images: Images) -> tuple[np.ndarray, np.ndarray]:
    """Read the maps and probabilities (N, C) in --out. Raises DataError unless they were made with
    these flags, networks and images."""
    run = read_run(args.out / "args.json", sha256=dict)
    made = run["args"]
    for flag in MAP_FLAGS:
        if plain_flags(args)[flag] != made.get(flag):
            raise DataError(f"{args.out}: its maps were made with --{flag.replace('_', '-')} "
                            f"{made.get(flag)}, not {plain_flags(args)[flag]}")
    stored_maps.check_index(args.out, images.names, images.fold, images.sizes)
    for path, sha in digests(network_files(args)[1:]).items():
        if run["sha256"].get(path) != sha:
            raise DataError(f"{args.out}: its maps were not made with {path} as it is now; run "
                            "without --reuse-maps")
    _, its_classes, probs, maps = stored_maps.read(args.out)
    if its_classes != images.classes:
        raise DataError(f"{args.out}/maps.csv, row 1: maps of classes {','.join(its_classes)}, "
                        f"expected {','.join(images.classes)}; run without --reuse-maps")
    return maps, probs
