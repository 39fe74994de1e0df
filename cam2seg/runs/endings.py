"""The last lines of a script: what it has written, and the command to type next."""

import argparse
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..data import exports
from .folder import OUTPUT_FILES, read_run

SCRIPTS = ("train_cls", "make_masks", "train_seg", "evaluate")
DATA = ("data", "images", "labels", "classes")
MACHINE = ("device", "workers", "amp", "quiet")
# The flags of a run that a network which learns from its masks needs as well, with the defaults
# that both training scripts have.
NETWORK = {"arch": "b0", "weights": "imagenet", "size": None, "lr_encoder": 1e-4, "classes": None}
SCRATCH_LR = 1e-3  # --lr-encoder from random weights


class Ending(NamedTuple):
    """What a script says at its end."""

    result: str  # what it has written, in one line
    then: tuple = ()  # lines: what to look at, and commands


def wrote(out: Path, more: str = "") -> str:
    """One line that names the files which a run has left in its folder; `more` follows them."""
    names = [p.name for name in OUTPUT_FILES if "/" not in name for p in sorted(out.glob(name))]
    folds = sorted(p.name for p in out.glob("fold[0-9]*") if p.is_dir())
    names += [*exports.recorded(out), *folds]
    return f"wrote {out}: {', '.join(names)}" + (f"; {more}" if more else "")


def unused(folder: Path) -> Path:
    """The same folder where it holds no run, else the first of folder2, folder3, ... that has none.

    A command that names it runs as it stands.
    """
    number, found = 2, folder
    while (found / "args.json").exists():
        number, found = number + 1, folder.with_name(f"{folder.name}{number}")
    return found


def given(args: argparse.Namespace, defaults: argparse.Namespace,
          names: Iterable[str] | None = None) -> dict:
    """The flags {name: value} that differ from their defaults; of all, or of those `names`.

    A flag that is on by default and switched off becomes no_{name}.
    """
    found = {}
    for name in names or vars(args):
        value, default = getattr(args, name, None), getattr(defaults, name, None)
        if value is False and default is True:
            found[f"no_{name}"] = True
        elif value != default:
            found[name] = value
    return found


def network_flags(run: Path) -> dict:
    """The flags of NETWORK that a training run was given; {} for a folder that holds none.

    From random weights the default of --lr-encoder is too small: the next network gets SCRATCH_LR,
    unless the run was given another one.
    """
    if not (run / "args.json").is_file():
        return {}
    then = read_run(run / "args.json")["args"]
    found = {k: then[k] for k, default in NETWORK.items() if then.get(k, default) != default}
    return {"lr_encoder": SCRATCH_LR, **found} if found.get("weights") == "none" else found


def command(script: str, flags: Mapping[str, Any], *first: str) -> str:
    """A line for the shell that starts a script; `first` stand before the flags.

    The script is named as the present one was, so that the line works where that one did.
    """
    own, name = Path(sys.argv[0]), f"{script}.py"
    words = ["python", str(own.with_name(name)) if own.stem in SCRIPTS else name, *first]
    for name, value in flags.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif isinstance(value, (list, tuple)):
            words += [flag, *map(str, value)]
        elif value is not None and value is not False:
            text = str(value)
            words += [f"{flag}={text}"] if text.startswith("-") else [flag, text]
    return shlex.join(words)
