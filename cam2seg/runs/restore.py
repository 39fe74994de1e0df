"""Networks from the checkpoints of a run. A script checks all of them before it writes anything."""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from ..data.classes import checked_list
from ..data.errors import DataError
from .checkpoints import CheckpointError, load_checkpoint
from .folder import fold_files

PREPROCESS = {"size": 2, "mean": 3, "std": 3}  # how many numbers each has


def network(build: Callable, path: Path | str, kind: str,
            like: dict | None = None) -> tuple[torch.nn.Module, dict]:
    """Build a network with the weights of a checkpoint; return it and the checkpoint's dict.

    build: called with the checkpoint's model_args. like: another checkpoint's dict, whose
    model_args and preprocess must be the same. Raises CheckpointError.
    """
    state = load_checkpoint(path, kind)
    for key in ("model_args", "preprocess", "model"):
        if not isinstance(state.get(key), dict):
            raise CheckpointError(f"{path}: no {key} in it, expected a whole checkpoint")
        if like and key != "model" and state[key] != like[key]:
            raise CheckpointError(f"{path}: {key} {state[key]}, expected {like[key]}")
    _check_preprocess(path, state)
    try:
        model = build(**{**state["model_args"], "weights": "none"})  # so that nothing is downloaded
        model.load_state_dict(state["model"])
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: weights that do not fit model_args {state['model_args']} "
                              f"({reason})") from error
    wrong = [name for name, value in model.state_dict().items() if not value.isfinite().all()]
    if wrong:
        raise CheckpointError(f"{path}: {wrong[0]} is not finite, expected numbers")
    return model, state


def _check_preprocess(path, state):
    """Raise CheckpointError unless size, mean, std and class names can be used."""
    pre, classes = state["preprocess"], state["preprocess"].get("classes")
    for key, count in PREPROCESS.items():
        values = pre.get(key)
        numbers = int if key == "size" else (int, float)
        if not isinstance(values, (list, tuple)) or len(values) != count or not all(
                isinstance(v, numbers) and (v > 0 or key == "mean") for v in values):
            raise CheckpointError(f"{path}: preprocess with {key} {values}, expected {count} "
                                  "numbers" + (" above 0" if key != "mean" else ""))
    if not isinstance(classes, list) or len(classes) != state["model_args"].get("num_classes"):
        raise CheckpointError(f"{path}: preprocess with classes {classes}, expected "
                              f"{state['model_args'].get('num_classes')} as in model_args")
    try:
        checked_list(path, classes)
    except DataError as error:
        raise CheckpointError(str(error)) from error


def networks(folder: Path | str, name: str, build: Callable, kind: str,
             like: dict | None = None) -> tuple[dict[int, torch.nn.Module], dict | None]:
    """Networks {fold: network} of all files fold*/`name` of a run, and the dict of the last one.

    Raises CheckpointError where one is damaged or differs in model_args or preprocess.
    """
    nets = {}
    for k, path in fold_files(folder, name).items():
        nets[k], like = network(build, path, kind, like)
    return nets, like


def check_checkpoints(folder: Path, folds: Iterable[int], done: str, build: Callable, meta: dict,
                      epochs: int) -> None:
    """Raise CheckpointError unless the folds that are begun, but not done, can be resumed.

    folds: the numbers of the folds. done: name of the file that a finished fold has. build: called
    with model_args, gives the network. meta: what each checkpoint holds besides its state. epochs:
    how many epochs the run shall have.
    """
    for k in folds:
        out = folder / f"fold{k}"
        if (out / done).exists() or not (out / "last.pt").exists():
            continue
        _, last = network(build, out / "last.pt", meta["kind"], meta)
        wrong = _wrong_in(last, epochs)
        if wrong:
            raise CheckpointError(f"{out}/last.pt: {wrong}")
        for b in last["best"]:
            network(build, out / f"epoch{b['epoch']}.pt", meta["kind"], meta)


def _wrong_in(last, epochs):
    """Say what is wrong with the state of a training in a checkpoint; None if nothing is."""
    for key, form in (("optimizer", dict), ("scheduler", dict), ("best", list),
                      ("epochs_done", int)):
        if not isinstance(last.get(key), form):
            return f"no {key} in it, expected a whole checkpoint"
    if not 0 <= last["epochs_done"] <= epochs:
        return f"{last['epochs_done']} epochs done, expected 0 to {epochs}"
    for b in last["best"]:
        if not isinstance(b, dict) or not isinstance(b.get("epoch"), int) or not isinstance(
                b.get("val_loss"), float):
            return f"{b} among the best epochs, expected epoch and val_loss"
    partial = last.get("partial_epoch")
    if not last["best"] and not partial:
        return "no best epoch, expected one or more"
    if partial is not None and not (isinstance(partial, list) and partial and all(
            isinstance(m, dict) and isinstance(m.get("sizes"), list)
            and getattr(m.get("losses"), "shape", None) == (len(m["sizes"]),)
            and getattr(m.get("rng"), "dtype", None) == torch.uint8 for m in partial)):
        return "partial_epoch without losses, sizes and rng of each process, expected all three"
    return None
