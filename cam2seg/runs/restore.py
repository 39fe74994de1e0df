"""Networks from the checkpoints of a run. A script checks all of them before it writes anything."""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from ..data.classes import checked_list
from ..data.errors import DataError
from ..data.files import regular
from . import memory, schema
from .checkpoints import CheckpointError, load_checkpoint
from .folder import fold_files


def network(build: Callable, path: Path | str, kind: str,
            like: dict | None = None) -> tuple[torch.nn.Module, dict]:
    """Build a network with the weights of a checkpoint; return it and the checkpoint's dict.

    build: called with the checkpoint's model_args. like: another checkpoint's dict, whose
    model_args and preprocess must be the same. Raises CheckpointError.
    """
    state = load_checkpoint(path, kind)
    wrong = schema.fault(state, schema.NETWORK) or schema.fault(
        [n for n in state["model_args"].values() if isinstance(n, int)], schema.WIDTHS,
        "model_args with")
    if wrong:
        raise CheckpointError(f"{path}: {wrong}")
    for key in ("model_args", "preprocess"):
        if like and state[key] != like[key]:
            raise CheckpointError(f"{path}: {key} {state[key]}, expected {like[key]}")
    _check_classes(path, state)
    try:
        model = build(**{**state["model_args"], "weights": "none"})  # so that nothing is downloaded
        model.load_state_dict(state["model"])
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        if memory.ran_out(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: weights that do not fit model_args {state['model_args']} "
                              f"({reason})") from error
    for name, value in model.state_dict().items():
        if state["model"][name].is_floating_point() != value.is_floating_point():
            raise CheckpointError(f"{path}: {name} with {state['model'][name].dtype}, expected "
                                  f"{value.dtype}")
        if not value.isfinite().all():
            raise CheckpointError(f"{path}: {name} is not finite, expected numbers")
    return model, state


def _check_classes(path, state):
    """Raise CheckpointError unless there is a usable name for each class of the network."""
    classes, count = state["preprocess"]["classes"], state["model_args"]["num_classes"]
    if len(classes) != count:
        raise CheckpointError(f"{path}: preprocess with classes {classes}, expected {count} as in "
                              "model_args")
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
        try:
            if (out / "log.jsonl").exists():
                regular(out / "log.jsonl").read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{out}/log.jsonl: cannot be read ({error})") from error
        for b in last["best"]:
            network(build, out / f"epoch{b['epoch']}.pt", meta["kind"], meta)


def _wrong_in(last, epochs):
    """Say what is wrong with the state of a training in a checkpoint; None if nothing is."""
    wrong = schema.fault(last, schema.TRAINING)
    if wrong:
        return wrong
    if last["epochs_done"] > epochs:
        return f"{last['epochs_done']} epochs done, expected 0 to {epochs}"
    partial = last.get("partial_epoch")
    if not last["best"] and not partial:
        return "no best epoch, expected one or more"
    wrong = partial is not None and schema.fault(partial, schema.Several(schema.PART_OF_EPOCH, 1),
                                                 "partial_epoch")
    if wrong:
        return wrong
    for part in partial or ():
        if part["losses"].shape != (len(part["sizes"]),) or part["rng"].dtype != torch.uint8:
            return "partial_epoch with losses or rng of another form, expected those of its sizes"
    return None
