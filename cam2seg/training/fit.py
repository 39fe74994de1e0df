"""Training of one network on one fold, which can be stopped at any step and resumed.

Everything random in an epoch follows from (seed, fold, epoch), so that a run which is killed and
resumed from its last checkpoint ends with the same bytes on a CPU. A checkpoint saved in the middle
of an epoch, after a signal, also holds the state of the random generator.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from functools import partial as partly
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau

from ..data.files import regular, whole_file
from ..runs import processes
from ..runs.checkpoints import load_training_state, save_checkpoint
from ..runs.progress import silent
from ..runs.signals import Stopped
from .batches import Batches
from .devices import seed_torch
from .epochs import mean_loss, predict, train_one_epoch


class Settings(NamedTuple):
    """How a network is trained on a fold."""

    loss: Callable  # (outputs, target) -> mean over the batch, a scalar tensor
    prepare: Callable  # pixels uint8 (B, H, W, 3) -> the network's input (B, 3, H, W)
    epochs: int
    meta: dict  # what every checkpoint holds besides the weights
    keep: int = 1  # how many of the best epochs are kept
    seed: tuple = (0,)  # (seed, fold); the epoch is added to it
    amp: bool = False  # bfloat16 autocast
    resume: bool = False
    report: Callable = silent
    schedule: str = "plateau"  # of the learning rates; or "cosine"
    title: str = ""  # what progress lines begin with, as "fold 0 (1 of 5), "
    later_epochs: int = 0  # epochs of the folds that are trained after this one


def fit(model: nn.Module, optimizer: torch.optim.Optimizer, train: Batches, val: Batches,
        settings: Settings, out: Path | str) -> list[dict]:
    """Train a network on the Batches `train`; return its best epochs by the loss on `val`.

    With settings.schedule "plateau" all learning rates are halved when the loss on `val` has not
    fallen for more than 3 epochs ([P] section IV; DEV-28: any fall counts). With "cosine" they fall
    to 0 along half a cosine (DEV-37). `val` chooses rates and epochs, as in the paper (DEV-27).
    `out` gets log.jsonl with a line per epoch, last.pt to resume from, and epoch{n}.pt of the best.

    Returns [{"epoch", "val_loss"}], best first, with epochs counted from 1. Raises
    FloatingPointError where a loss is not finite, signals.Stopped and CheckpointError.
    """
    out = Path(out)
    scheduler = CosineAnnealingLR(optimizer, settings.epochs) if settings.schedule == "cosine" \
        else ReduceLROnPlateau(optimizer, factor=0.5, patience=3, threshold=0.0)
    best, start, partial = [], 0, None
    if settings.resume and (out / "last.pt").exists():
        best, start, partial = load_training_state(out / "last.pt", settings.meta["kind"], model,
                                                   optimizer, scheduler)
    net = processes.distributed_model(model, next(model.parameters()).device)

    def state(epochs_done):
        return {**settings.meta, "optimizer": optimizer.state_dict(),
                "scheduler": scheduler.state_dict(), "best": best, "epochs_done": epochs_done}

    for epoch in range(start, settings.epochs):
        began = time.perf_counter()
        steps = start_epoch((*settings.seed, epoch), partial, next(model.parameters()).device)
        partial = None
        try:
            row = _train_and_validate(model, net, (train, val), optimizer, settings, epoch, steps)
        except Stopped:
            save_checkpoint(out / "last.pt", model,
                            {**state(epoch), "partial_epoch": partial_epoch_state(steps)})
            raise
        except FloatingPointError as error:
            raise FloatingPointError(f"{out}: epoch {epoch + 1}: {error}, lr "
                                     f"{[g['lr'] for g in optimizer.param_groups]}") from error
        scheduler.step(*([row["val_loss"]] if settings.schedule == "plateau" else []))
        best = sorted([*best, {"epoch": epoch + 1, "val_loss": row["val_loss"]}],
                      key=lambda b: (b["val_loss"], b["epoch"]))[:settings.keep]
        if epoch + 1 in [b["epoch"] for b in best]:
            save_checkpoint(out / f"epoch{epoch + 1}.pt", model, settings.meta)
        append_log(out / "log.jsonl", row)
        save_checkpoint(out / "last.pt", model, state(epoch + 1))  # after the log, see append_log
        delete_other_epochs(out, best)  # only now: the older last.pt named them
        _say(settings, out, row, time.perf_counter() - began)
    processes.barrier()  # the first process has then written everything
    delete_other_epochs(out, best)
    return best


def _say(settings, out, row, seconds):
    """Report an epoch, its line of log.jsonl and how long all later ones will take."""
    left = settings.epochs - row["epoch"] + settings.later_epochs
    settings.report("epoch", out=out, title=settings.title, epochs=settings.epochs,
                    left=left * seconds, **row)


def _train_and_validate(model, net, parts, optimizer, settings, epoch, steps):
    """Do one epoch on parts = (train, val); return its line of log.jsonl as a dict."""
    rates, began = [group["lr"] for group in optimizer.param_groups], time.perf_counter()
    settings = settings._replace(report=partly(settings.report, in_epoch=True))
    loss, waited = train_one_epoch(net, parts[0], optimizer, settings, epoch, steps)
    processes.broadcast_buffers(model)
    seconds = time.perf_counter() - began
    what = f"{settings.title}epoch {epoch + 1}/{settings.epochs}, validation"
    val_loss = mean_loss(predict(model, parts[1], settings.prepare, settings.amp, what,
                                 settings.report), settings.loss)
    if not math.isfinite(val_loss):
        raise FloatingPointError(f"validation loss is {val_loss}")
    return {"epoch": epoch + 1, "loss": loss, "val_loss": val_loss, "lr": rates,
            "seconds": round(seconds, 2),
            "images_per_second": round(len(parts[0]) / seconds, 1), "waited": round(waited, 2)}


def delete_other_epochs(out: Path, best: Sequence[dict]) -> None:
    """Delete the epoch{n}.pt in the folder `out` that are not among the best ones."""
    for path in out.glob("epoch*.pt"):
        if path.stem[5:] not in [str(b["epoch"]) for b in best] and processes.is_first():
            path.unlink()


def append_log(path: Path, row: dict) -> None:
    """Write the line of an epoch to log.jsonl.

    Lines of this epoch and of later ones are cut off first. A run that was killed before it wrote
    last.pt has left such a line, and does the epoch again.
    """
    if processes.is_first():
        lines = regular(path).read_text(encoding="utf-8").splitlines() if path.exists() else []
        with whole_file(path, encoding="utf-8") as file:
            file.write("\n".join([*lines[:row["epoch"] - 1], json.dumps(row)]) + "\n")


def start_epoch(seed: tuple[int, ...], partial: list[dict] | None,
                device: torch.device) -> list[tuple[Tensor, float]]:
    """Seed this process for an epoch, or go on in the middle of one.

    seed: (seed, fold, epoch). partial: what partial_epoch_state returned when the epoch was
    stopped, or None. Returns the list of (loss, number of images) of the steps already taken.
    """
    # The processes of a run drop out different units, so each has a seed of its own.
    seed_torch(*seed, *([] if processes.is_first() else [processes.rank()]))
    if partial is None:
        return []
    if len(partial) == processes.world_size():
        mine = partial[processes.rank()]
        losses, sizes = mine["losses"], mine["sizes"]
        torch.set_rng_state(mine["rng"])
        if device.type == "cuda" and mine["cuda_rng"] is not None:
            torch.cuda.set_rng_state(mine["cuda_rng"], device)
    else:  # Another number of processes was stopped. Each of ours takes over an equal part.
        n = torch.tensor([p["sizes"] for p in partial], dtype=torch.float64)
        losses = ((torch.stack([p["losses"] for p in partial]) * n).sum(0) / n.sum(0)).float()
        sizes = (n.sum(0) / processes.world_size()).tolist()
    return list(zip(losses.to(device), sizes, strict=True))


def partial_epoch_state(steps: Sequence[tuple[Tensor, float]]) -> list[dict]:
    """State of an epoch that is stopped in its middle: one dict for each process.

    steps: list of (loss, number of images). start_epoch goes on from the result.
    """
    cuda = steps and steps[0][0].is_cuda
    return processes.all_gather({
        "losses": torch.stack([loss for loss, _ in steps]).cpu() if steps else torch.zeros(0),
        "sizes": [n for _, n in steps], "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state(steps[0][0].device) if cuda else None})
