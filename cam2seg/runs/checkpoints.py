"""Checkpoints: files that hold a plain dict of tensors and values.

A checkpoint is written whole or not at all, and reading it runs no code of the file.
"""

import io
import sys
from pathlib import Path

import torch
from torch.optim.lr_scheduler import LRScheduler

from .. import Error
from ..data.files import regular, whole_file
from . import processes
from .memory import ran_out

FORMAT = 1


class CheckpointError(Error):
    """A checkpoint is not what was expected; the message is one line that names the file."""


def save_checkpoint(path: Path | str, model: torch.nn.Module, meta: dict) -> None:
    """Write {"format", "model", **meta}, whole or not at all, in the first process.

    meta: a dict of tensors and plain values.
    """
    if not processes.is_first():
        return
    memory = io.BytesIO()  # torch.save raises no OSError where the disk is full
    torch.save({"format": FORMAT, "model": model.state_dict(), **_interned(meta)}, memory)
    with whole_file(path, "wb") as file:
        file.write(memory.getbuffer())


def _interned(value):
    """Copy a value so that equal strings in it are one object.

    pickle writes an object once and refers to it later, so that equal checkpoints have equal bytes
    only if equal strings are the same object in both.
    """
    if isinstance(value, dict):
        return {_interned(k): _interned(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(_interned, value))
    return sys.intern(value) if isinstance(value, str) else value


def load_checkpoint(path: Path | str, kind: str | None = None) -> dict:
    """Read the dict of save_checkpoint onto the CPU; no code in the file is run (weights_only).

    kind: "classifier", "unet" (of any run of train_seg.py, SegNet too) or "video features"; None
    for any. Raises CheckpointError for a file that is missing, damaged, of another format or of
    another kind.
    """
    try:
        state = torch.load(regular(path), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is no checkpoint
        if ran_out(error):
            raise
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: cannot be read as a checkpoint ({reason})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path}: expected a checkpoint of format {FORMAT}")
    if kind and state.get("kind") != kind:
        raise CheckpointError(f"{path}: a {state.get('kind')}, expected a {kind}")
    return state


def load_training_state(path: Path | str, kind: str, model: torch.nn.Module,
                        optimizer: torch.optim.Optimizer,
                        scheduler: LRScheduler) -> tuple[list, int, list | None]:
    """Put model, optimizer and learning-rate scheduler back to where last.pt left them.

    Returns the best epochs so far, the number of epochs done, and the state of a partial epoch (see
    training.fit.partial_epoch_state) or None. Raises CheckpointError where the file does not fit.
    """
    last = load_checkpoint(path, kind)
    fresh = scheduler.state_dict(), [_settings(group) for group in optimizer.param_groups]
    try:
        for name, part in (("model", model), ("optimizer", optimizer), ("scheduler", scheduler)):
            part.load_state_dict(last[name])
        _check_state(optimizer, scheduler, *fresh)
        return last["best"], last["epochs_done"], last.get("partial_epoch")
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if ran_out(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: does not fit this run ({reason})") from error


def _settings(group):
    """What a parameter group of an optimiser holds besides its parameters and its rate."""
    return {k: v for k, v in group.items() if k not in ("params", "lr", "initial_lr")}


def _check_state(optimizer, scheduler, plan, groups):
    """Raise ValueError unless the loaded states are of the kind that this run has made.

    plan: the state of a fresh scheduler; groups: _settings of each group of a fresh optimiser.
    """
    if [_settings(group) for group in optimizer.param_groups] != groups:
        raise ValueError("optimizer with other settings")
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            number = torch.as_tensor(value)  # an optimiser of one's own may keep plain numbers
            of_adam = name.startswith("exp_avg") and isinstance(
                optimizer, (torch.optim.Adam, torch.optim.RAdam))
            if not number.isfinite().all() or of_adam and number.shape != parameter.shape:
                raise ValueError(f"optimizer with {name} of another form than its parameter")
    for key, value in scheduler.state_dict().items():
        number = isinstance(value, (int, float))
        if key in plan and (number != isinstance(plan[key], (int, float)) or
                            not number and not isinstance(value, type(plan[key]))):
            raise ValueError(f"scheduler with {key} {value}")
