"""Training and prediction loops and weight averaging. Models and losses come in as arguments;
batches are (pixels uint8 (B, H, W, 3), target) as loading.Batches gives them.

Everything random in an epoch follows from (seed, fold, epoch), so a run that is killed and taken up
from its last checkpoint gives the same bytes on the CPU. Only a checkpoint saved in the middle of
an epoch, when a signal asks for the end, holds the state of the generator.
"""

import json
import math
import os
import re
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from . import process
from .checkpoints import CheckpointError, load_checkpoint, save_checkpoint, take_up  # noqa: F401
from .progress import Progress


def pick_device(name="auto"):
    """torch.device of "auto" (cuda where there is one), "cpu", "cuda" or "cuda:1". Of the processes
    that torchrun starts on a machine, "auto" and "cuda" give each its own.

    Raises ValueError for any other name and for a device that is not there.
    """
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if there else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,4})?", name):
        raise ValueError(f"'{name}': expected auto, cpu, cuda or cuda:N")
    if name != "cpu" and int(name[5:] or 0) >= there:
        raise ValueError(f"'{name}' is not there: torch finds {there} CUDA devices")
    return torch.device(name)


def seed_all(*parts):
    """Seed torch from whole numbers, such as (seed, fold, epoch)."""
    torch.manual_seed(int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1))


def train_one_epoch(model, batches, epoch, prepare, loss_fn, optimizer, amp=False, steps=None):
    """One pass in training mode -> (mean loss over images, seconds spent waiting for data).

    prepare: pixels -> network input; loss_fn: logits, target -> mean over the batch. steps: the
    (loss, images) of the steps taken, a list that grows; those in it at first are passed over.
    Several processes each take their part of a batch, and their gradients weigh by its size.
    Raises FloatingPointError, naming the step, at the first loss that is not finite, and
    process.Stopped after the step in which a signal came.
    """
    model.train()
    steps, clock = [] if steps is None else steps, Progress(len(batches), f"epoch {epoch + 1}")
    device = next(model.parameters()).device
    seen = round(sum(process.share(sum(n for _, n in steps))))
    for pixels, target in clock.timed(batches(epoch, seen) if seen else batches(epoch)):
        images = process.agree(len(pixels))
        with process.together():
            with torch.autocast(device.type, torch.bfloat16, enabled=amp):
                logits = model(prepare(pixels))
            loss = loss_fn(logits.float(), target.to(device, non_blocking=True))
            optimizer.zero_grad(set_to_none=True)
            (loss * (len(pixels) * process.count() / images)).backward()
        optimizer.step()
        # the loss is read at the end: no wait for the device in each step
        steps.append((loss.detach(), len(pixels)))
        clock.add(images)
    losses = torch.stack([loss for loss, _ in steps]).double().cpu()
    sizes = torch.tensor([n for _, n in steps], dtype=torch.float64)
    bad = (~losses.isfinite()).nonzero()
    wrong = f"loss is {losses[bad[0]].item()} at step {int(bad[0])}" if len(bad) else ""
    parts = process.share([float((losses * sizes).sum()), float(sizes.sum()), wrong])
    for *_, wrong in parts:
        if wrong:
            raise FloatingPointError(wrong)
    return sum(p[0] for p in parts) / sum(p[1] for p in parts), clock.waited


@torch.no_grad()
def predict(model, batches, prepare, amp=False, what="predict"):
    """Yield (logits float (B, ...), target) for all batches in order, in eval mode."""
    model.eval()
    device, clock = next(model.parameters()).device, Progress(len(batches), what)
    for pixels, target in batches(None):
        process.agree(0)
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            logits = model(prepare(pixels)).float()
        clock.add(len(pixels))
        yield logits, target
    for _ in range(batches.spare() if process.count() > 1 else 0):
        process.agree(0)  # all are asked as often


def fit(model, optimizer, loss_fn, prepare, train, val, epochs, out, meta,
        keep=1, seed=(0,), amp=False, resume=False):
    """Train for `epochs`; return the `keep` best ones by validation loss, best first.

    train, val: Batches. Halves every learning rate when the validation loss has not fallen for
    more than 3 epochs ([P] section IV; any fall counts: DEV-28). The held-out part chooses rate and
    epochs, as in the paper (DEV-27). Writes to the folder `out`: log.jsonl (a line an epoch),
    last.pt (to resume from) and epoch{n}.pt of the best epochs so far. meta: what each checkpoint
    holds besides its weights. Returns [{"epoch", "val_loss"}], epochs counted from 1.
    """
    out = Path(out)
    plateau = ReduceLROnPlateau(optimizer, factor=0.5, patience=3, threshold=0.0)
    best, start, midway = [], 0, None
    device = next(model.parameters()).device
    if resume and (out / "last.pt").exists():
        best, start, midway = take_up(out / "last.pt", meta["kind"], model, optimizer, plateau)
    net = process.wrapped(model, device)

    def state_of(epochs_done):
        return {**meta, "optimizer": optimizer.state_dict(), "plateau": plateau.state_dict(),
                "best": best, "epochs_done": epochs_done}

    for epoch in range(start, epochs):
        steps = start_epoch((*seed, epoch), midway, device)
        began, rates = time.perf_counter(), [g["lr"] for g in optimizer.param_groups]
        try:
            loss, waited = train_one_epoch(net, train, epoch, prepare, loss_fn, optimizer, amp,
                                           steps)
            process.same(model)
            seconds = time.perf_counter() - began
            val_loss = mean_loss(predict(model, val, prepare, amp, "validate"), loss_fn)
            if not math.isfinite(val_loss):
                raise FloatingPointError(f"validation loss is {val_loss}")
        except process.Stopped:
            save_checkpoint(out / "last.pt", model, {**state_of(epoch), "midway": end_early(steps)})
            raise
        except FloatingPointError as error:
            raise FloatingPointError(f"{out}: epoch {epoch + 1}: {error}, lr {rates}") from error
        plateau.step(val_loss)
        best = sorted([*best, {"epoch": epoch + 1, "val_loss": val_loss}],
                      key=lambda b: (b["val_loss"], b["epoch"]))[:keep]
        if epoch + 1 in [b["epoch"] for b in best]:
            save_checkpoint(out / f"epoch{epoch + 1}.pt", model, meta)
        speed = round(len(train) / seconds, 1)
        log(out / "log.jsonl", {"epoch": epoch + 1, "loss": loss, "val_loss": val_loss, "lr": rates,
                                "seconds": round(seconds, 2), "images_per_second": speed,
                                "waited": round(waited, 2)})
        save_checkpoint(out / "last.pt", model, state_of(epoch + 1))  # after the log: a resume cuts
        midway = None
        print(f"{out}  epoch {epoch + 1}/{epochs}  loss {loss:.4f}  val {val_loss:.4f}  "
              f"lr {rates[-1]:.1e}  {speed} images/s", flush=True)
    process.barrier()  # the first has written all of it
    drop_others(out, best)
    return best


def drop_others(out, best):
    """Delete the epochs that are not among the best."""
    for path in out.glob("epoch*.pt"):
        if path.stem[5:] not in [str(b["epoch"]) for b in best] and process.first():
            path.unlink()


def log(path, row):
    """Add the line of an epoch; what a killed run wrote from that epoch on is cut."""
    if process.first():
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        with process.whole_file(path, encoding="utf-8") as file:
            file.write("\n".join([*lines[:row["epoch"] - 1], json.dumps(row)]) + "\n")


def start_epoch(seed, midway, device):
    """Seed this process for an epoch, or take it up in its middle -> steps taken so far."""
    seed_all(*seed, *([] if process.first() else [process.rank()]))  # each drops out others
    if midway is None:
        return []
    if len(midway) == process.count():
        mine = midway[process.rank()]
        losses, sizes = mine["losses"], mine["sizes"]
        torch.set_rng_state(mine["rng"])
        if device.type == "cuda" and mine["cuda_rng"] is not None:
            torch.cuda.set_rng_state(mine["cuda_rng"], device)
    else:  # of another number of processes: each now has an equal share of what was seen
        n = torch.tensor([m["sizes"] for m in midway], dtype=torch.float64)
        losses = ((torch.stack([m["losses"] for m in midway]) * n).sum(0) / n.sum(0)).float()
        sizes = (n.sum(0) / process.count()).tolist()
    return list(zip(losses.to(device), sizes, strict=True))


def end_early(steps):
    """What start_epoch takes an epoch up from: a dict for each process."""
    cuda = steps and steps[0][0].is_cuda
    return process.share({
        "losses": torch.stack([loss for loss, _ in steps]).cpu() if steps else torch.zeros(0),
        "sizes": [n for _, n in steps], "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state(steps[0][0].device) if cuda else None})


def mean_loss(predictions, loss_fn):
    """Mean of the loss over images, from (logits, target) batches, those of all processes."""
    total, count = 0.0, 0
    for loss, n in process.in_turn([(loss_fn(logits, target.to(logits.device)).item(), len(logits))
                                    for logits, target in predictions]):
        total += loss * n
        count += n
    return total / count


def average_states(states):
    """Mean of state dicts, BatchNorm's running statistics included ([P] section V, [SWA]).

    Whole numbers (BatchNorm's batch counters) are taken from the first. Means are formed in
    float64. Raises ValueError where the keys differ.
    """
    if not states or any(s.keys() != states[0].keys() for s in states):
        raise ValueError("states to average must be one or more and have the same keys")
    return {k: torch.stack([s[k].double() for s in states]).mean(dim=0).to(v.dtype)
            if v.is_floating_point() else v.clone() for k, v in states[0].items()}


@torch.no_grad()
def update_bn(model, batches):
    """Re-estimate BatchNorm's running statistics by one pass in training mode  ([SWA], DEV-7).

    batches: network inputs (B, 3, H, W). Each batch weighs by its size: momentum b/(n + b).
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta, modes, n = [m.momentum for m in norms], [m.training for m in model.modules()], 0
    for m in norms:
        m.reset_running_stats()
    try:
        model.train()
        for x in batches:
            n += len(x)
            for m in norms:
                m.momentum = len(x) / n
            model(x)
    finally:
        for m, momentum in zip(norms, momenta, strict=True):
            m.momentum = momentum
        for m, mode in zip(model.modules(), modes, strict=True):
            m.training = mode
