"""Encoders that another run of train_seg.py has trained, as a start for a new one (--init).

The network of a fold must not start from an encoder that has seen the images which the fold holds
out, even where it has seen them without their masks.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..data import folds
from ..data.errors import DataError
from ..runs import folder, restore
from . import segmenters

CHECKPOINT = "best.pt"


def checkpoints(args: argparse.Namespace, work: Any,
                trained: Sequence[int]) -> dict[int, Path] | None:
    """The checkpoint {fold: path} of --init for each fold in `trained`, all checked; None without
    that flag.

    args: the flags of train_seg.py, and work: its Work. Raises what choose and encoder raise, and
    DataError where --weights names other weights.
    """
    if not args.init:
        return None
    if args.weights not in ("imagenet", "none"):
        raise DataError(f"--init {args.init} and --weights {args.weights} both name the encoder's "
                        "first weights: give one of them")
    chosen = choose(args.init, work.given.names, work.fold, trained)
    for path in set(chosen.values()):
        encoder(path, args.arch)
    return chosen


def choose(run: Path, names: Sequence[str], fold: np.ndarray,
           trained: Iterable[int]) -> dict[int, Path]:
    """The checkpoint {fold: path} of `run` from which each fold in `trained` starts  (DEV-49).

    Fold k starts from fold k of the run or, where that was not trained or has seen an image which
    fold k holds out, from the first fold that has not. An image is known by its name. fold: int
    (N,), the folds of the named images. Raises DataError where the run has no such fold.
    """
    folder.check_is_run("--init", run, "train_seg")
    known, paths = folds.read_folds(run / "folds.csv"), folder.fold_files(run, CHECKPOINT)
    if not paths:
        raise DataError(f"--init {run}: no fold*/{CHECKPOINT}, expected a run of train_seg.py in "
                        "which at least one fold is finished")
    chosen = {}
    for k in trained:
        held = [n for n, f in zip(names, fold.tolist(), strict=True) if f == k and n in known]
        order = sorted(paths, key=lambda j: (j != k, j))
        seen = {j: next((n for n in held if known[n] != j), None) for j in order}
        fit = [j for j in order if seen[j] is None]
        if not fit:
            raise DataError(f"{paths[order[0]]}: this network has seen {seen[order[0]]}, which "
                            f"fold {k} holds out, and no other of --init fits; expected the same "
                            "--folds for both runs, or other images")
        chosen[k] = paths[fit[0]]
    return chosen


def encoder(path: Path, arch: str) -> nn.Module:
    """The encoder of the network in a checkpoint. Raises CheckpointError for a damaged one, and
    DataError for one of another architecture."""
    network, state = restore.network(segmenters.build, path, "unet")
    if state["model_args"]["arch"] != arch:
        raise DataError(f"{path}: an encoder of {state['model_args']['arch']}, expected {arch} as "
                        "by --arch")
    return network.encoder


def load(chosen: Mapping[int, Path], arch: str, network: nn.Module, k: int) -> None:
    """Give a new network the encoder of --init for fold k. chosen: what `checkpoints` returned."""
    network.encoder.load_state_dict(encoder(chosen[k], arch).state_dict())
