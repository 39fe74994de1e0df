"""Checkpoints: plain dicts of tensors and values, whole or not there, read without running code."""

import io
import sys

import torch

from . import process

FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that is not what was expected, said in one line."""


def save_checkpoint(path, model, meta):
    """Write {"format", "model", **meta}, whole or not at all, in the first process. meta: tensors
    and plain values."""
    if not process.first():
        return
    memory = io.BytesIO()  # torch has no OSError for a full disk
    torch.save({"format": FORMAT, "model": model.state_dict(), **_interned(meta)}, memory)
    with process.whole_file(path, "wb") as file:
        file.write(memory.getbuffer())


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


def take_up(path, kind, model, optimizer, plateau):
    """Put all three back to where last.pt left them -> best epochs, number of epochs done,
    and where in the next one it was stopped (see engine.end_early)."""
    last = load_checkpoint(path, kind)
    try:
        for name, part in (("model", model), ("optimizer", optimizer), ("plateau", plateau)):
            part.load_state_dict(last[name])
        return last["best"], last["epochs_done"], last.get("midway")
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: does not fit this run ({reason})") from error
