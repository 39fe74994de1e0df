"""Training and prediction loops, weight averaging, checkpoints. Models and losses come in as
arguments; batches are (pixels uint8 (B, H, W, 3), target) as loading.Batches gives them.

Everything random in an epoch follows from (seed, epoch) alone, so a run that is stopped and taken
up from its last checkpoint gives the same bytes on the CPU; no generator state is stored.
"""

import json
import math
import os
import re
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that is not what was expected, said in one line."""


def pick_device(name="auto"):
    """torch.device of "auto" (cuda where there is one), "cpu", "cuda" or "cuda:1".

    Raises ValueError for any other name and for a device that is not there.
    """
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if there else "cpu")
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,4})?", name):
        raise ValueError(f"'{name}': expected auto, cpu, cuda or cuda:N")
    if name != "cpu" and int(name[5:] or 0) >= there:
        raise ValueError(f"'{name}' is not there: torch finds {there} CUDA devices")
    return torch.device(name)


def seed_all(*parts):
    """Seed torch from whole numbers, such as (seed, fold, epoch)."""
    torch.manual_seed(int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1))


def train_one_epoch(model, batches, epoch, prepare, loss_fn, optimizer, amp=False):
    """One pass in training mode -> (mean loss over images, seconds spent waiting for data).

    prepare: pixels -> network input; loss_fn: logits, target -> mean over the batch.
    Raises FloatingPointError, naming the step, at the first loss that is not finite.
    """
    model.train()
    losses, sizes, waited, clock = [], [], 0.0, Progress(len(batches), f"epoch {epoch + 1}")
    device = next(model.parameters()).device
    for pixels, target in clock.timed(batches(epoch)):
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            logits = model(prepare(pixels))
        loss = loss_fn(logits.float(), target.to(device, non_blocking=True))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())  # read at the end: no wait for the device in each step
        sizes.append(len(pixels))
        clock.add(len(pixels))
    losses, sizes = torch.stack(losses).double().cpu(), torch.tensor(sizes, dtype=torch.float64)
    bad = (~losses.isfinite()).nonzero()
    if len(bad):
        raise FloatingPointError(f"loss is {losses[bad[0]].item()} at step {int(bad[0])}")
    return float((losses * sizes).sum() / sizes.sum()), clock.waited


@torch.no_grad()
def predict(model, batches, prepare, amp=False, what="predict"):
    """Yield (logits float (B, ...), target) for all batches in order, in eval mode."""
    model.eval()
    device, clock = next(model.parameters()).device, Progress(len(batches), what)
    for pixels, target in batches(None):
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            logits = model(prepare(pixels)).float()
        clock.add(len(pixels))
        yield logits, target


class Progress:
    """done/total, images per second and time left, on a terminal's error stream only."""

    def __init__(self, total, what):
        self.total, self.what, self.done, self.waited = total, what, 0, 0.0
        self.start, self.shown = time.perf_counter(), 0.0

    def timed(self, iterator):
        """The same items, adding up the seconds spent in waiting for them."""
        while True:
            before = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            self.waited += time.perf_counter() - before
            yield item

    def add(self, n):
        self.done += n
        now = time.perf_counter()
        if sys.stderr.isatty() and (now - self.shown > 0.5 or self.done == self.total):
            self.shown, rate = now, self.done / (now - self.start)
            left = (self.total - self.done) / rate
            end = "\r" if self.done < self.total else "\r\033[K"
            print(f"{self.what}: {self.done}/{self.total}  {rate:.0f} images/s  {left:.0f} s left ",
                  end=end, file=sys.stderr, flush=True)


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
    best, start, log = [], 0, out / "log.jsonl"
    if resume and (out / "last.pt").exists():
        last = load_checkpoint(out / "last.pt", meta["kind"])
        model.load_state_dict(last["model"])
        optimizer.load_state_dict(last["optimizer"])
        plateau.load_state_dict(last["plateau"])
        best, start = last["best"], last["epochs_done"]
    lines = log.read_text().splitlines()[:start] if start else []
    for epoch in range(start, epochs):
        seed_all(*seed, epoch)
        began, rates = time.perf_counter(), [g["lr"] for g in optimizer.param_groups]
        try:
            loss, waited = train_one_epoch(model, train, epoch, prepare, loss_fn, optimizer, amp)
        except FloatingPointError as error:
            raise FloatingPointError(f"{out}: epoch {epoch + 1}: {error}, lr {rates}") from error
        seconds = time.perf_counter() - began
        val_loss = mean_loss(predict(model, val, prepare, amp, "validate"), loss_fn)
        if not math.isfinite(val_loss):
            raise FloatingPointError(f"{out}: epoch {epoch + 1}: validation loss is {val_loss}")
        plateau.step(val_loss)
        best = sorted([*best, {"epoch": epoch + 1, "val_loss": val_loss}],
                      key=lambda b: (b["val_loss"], b["epoch"]))[:keep]
        if epoch + 1 in [b["epoch"] for b in best]:
            save_checkpoint(out / f"epoch{epoch + 1}.pt", model, meta)
        row = {"epoch": epoch + 1, "loss": loss, "val_loss": val_loss, "lr": rates,
               "seconds": round(seconds, 2), "images_per_second": round(len(train) / seconds, 1),
               "waited": round(waited, 2)}
        lines.append(json.dumps(row))
        write_text(log, "\n".join(lines) + "\n")
        save_checkpoint(out / "last.pt", model, {  # after the log: a resume cuts, never lacks
            **meta, "optimizer": optimizer.state_dict(), "plateau": plateau.state_dict(),
            "best": best, "epochs_done": epoch + 1})
        print(f"{out}  epoch {epoch + 1}/{epochs}  loss {loss:.4f}  val {val_loss:.4f}  "
              f"lr {rates[-1]:.1e}  {row['images_per_second']} images/s", flush=True)
    for path in out.glob("epoch*.pt"):
        if path.stem[5:] not in [str(b["epoch"]) for b in best]:
            path.unlink()
    return best


def mean_loss(predictions, loss_fn):
    """Mean of the loss over images, from (logits, target) batches."""
    total, count = 0.0, 0
    for logits, target in predictions:
        total += loss_fn(logits, target.to(logits.device)).item() * len(logits)
        count += len(logits)
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


def write_text(path, text):
    """A text file, whole or not at all."""
    tmp = Path(f"{path}.tmp")
    tmp.write_text(text, encoding="utf-8")
    os.replace(tmp, path)


def save_checkpoint(path, model, meta):
    """Write {"format", "model", **meta}, whole or not at all. meta: tensors and plain values."""
    tmp = Path(f"{path}.tmp")
    with open(tmp, "wb") as file:
        torch.save({"format": FORMAT, "model": model.state_dict(), **_interned(meta)}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(tmp, path)


def _interned(value):
    """The same value with equal strings as one object, which pickle writes once: same bytes."""
    if isinstance(value, dict):
        return {_interned(k): _interned(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_interned, value))
    return sys.intern(value) if isinstance(value, str) else value


def load_checkpoint(path, kind=None):
    """The dict of save_checkpoint on the CPU; no code in the file is run (weights_only).

    Raises CheckpointError for a file that is missing, damaged, of another format or kind.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not what it should be
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: cannot be read as a checkpoint ({reason})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path}: expected a checkpoint of format {FORMAT}")
    if kind and state.get("kind") != kind:
        raise CheckpointError(f"{path}: a {state.get('kind')}, expected a {kind}")
    return state
