"""The cross-validated loop that trains every network of this package."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ..data.dataset import ImageSet
from ..runs import processes
from ..runs.progress import silent
from .batches import Batches, to_input
from .devices import note_slow_bfloat16, seed_torch
from .fit import Settings, fit


class Recipe(NamedTuple):
    """What one kind of network needs from the loop."""

    build: Callable  # () -> the network, with fresh weights
    optimizer: Callable  # network -> torch optimizer with its parameter groups
    loss: Callable  # (outputs, target) -> mean over the batch
    finish_fold: Callable  # Fold -> None; writes the held-out results of a trained network
    done: str  # name of the file in fold{k} that finish_fold writes last
    meta: dict  # what every checkpoint holds besides the weights
    keep: int = 1  # how many best epochs finish_fold needs
    start: Callable | None = None  # (network, fold) -> None; replaces some of the fresh weights


class Plan(NamedTuple):
    """What is trained on, and for how long; the same for all folds."""

    dataset: ImageSet
    fold: np.ndarray  # int (N,): the fold that holds each image out
    out: Path  # folder of the run
    device: torch.device
    epochs: int
    batch_size: int
    workers: int = 0
    seed: int = 0
    amp: bool = False
    resume: bool = False
    report: Callable = silent
    schedule: str = "plateau"  # of the learning rates, see fit.Settings


class Fold(NamedTuple):
    """A network that has been trained on all folds but one."""

    k: int  # the fold that is held out
    model: torch.nn.Module  # with the weights of the last epoch
    train: Batches
    val: Batches  # the held-out images
    best: list  # [{"epoch", "val_loss"}], best first; their weights lie in out/epoch{n}.pt
    out: Path
    settings: Settings


def cross_validate(recipe: Recipe, plan: Plan, folds: Iterable[int]) -> None:
    """Train one network for each fold in `folds` on all other folds.

    recipe: Recipe; plan: Plan. recipe.finish_fold gets every trained network as a Fold. A fold that
    an earlier run has finished is skipped when plan.resume is set. last.pt of a finished fold is
    deleted, because nothing can go on from there. Raises what fit raises.
    """
    note_slow_bfloat16(plan.amp, plan.device, plan.report)
    pre = recipe.meta["preprocess"]
    prepare = partial(to_input, device=plan.device, mean=pre["mean"], std=pre["std"])
    folds = list(folds)
    for n, k in enumerate(folds):
        out = plan.out / f"fold{k}"
        out.mkdir(exist_ok=True)
        if plan.resume and (out / recipe.done).exists():
            _delete_last(out, recipe)  # the run was killed just before it did so
            continue
        seed_torch(plan.seed, k)
        model = recipe.build()
        if recipe.start:
            recipe.start(model, k)
        model = model.to(plan.device, memory_format=torch.channels_last)
        optimizer = recipe.optimizer(model)
        train, val = (Batches(plan.dataset, np.flatnonzero(part), plan.batch_size, plan.workers,
                              plan.seed) for part in (plan.fold != k, plan.fold == k))
        settings = Settings(recipe.loss, prepare, plan.epochs, recipe.meta, recipe.keep,
                            (plan.seed, k), plan.amp, plan.resume, plan.report,
                            plan.schedule, f"fold {k} ({n + 1} of {len(folds)}), ",
                            (len(folds) - n - 1) * plan.epochs)
        best = fit(model, optimizer, train, val, settings, out)
        recipe.finish_fold(Fold(k, model, train, val, best, out, settings))
        _delete_last(out, recipe)


def _delete_last(out, recipe):
    """Delete the state of a training of which the fold has its results."""
    if processes.is_first() and (out / recipe.done).exists():
        (out / "last.pt").unlink(missing_ok=True)
