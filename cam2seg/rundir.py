"""The folder of a run: args.json, what may be resumed, and the files of its folds."""

import hashlib
import json
import re
from importlib.metadata import version
from pathlib import Path

try:
    import fcntl
except ImportError:
    fcntl = None

from . import data, process
from .data import DataError

# Flags that may differ between a run and its --resume: they do not change what is computed.
FREE = ("resume", "overwrite", "device", "workers", "fold", "out", "predict")

_locks = []  # open files of the folders that this process works in
# What the scripts leave in --out, and --overwrite takes away.
MADE = ("folds.csv", "metrics.json", "oof.csv", "oof_best.csv", "oof_masks.csv", "new_masks.csv",
        "maps.csv", "maps.npy", "probs.npy", "masks.csv", "masks_union.csv", "masks_crossfit.csv",
        "class_[0-9]*.png", "fold[0-9]*/*.pt", "fold[0-9]*/oof*.csv", "fold[0-9]*/log.jsonl")


def start_run(args, sources, classes, names, fold=None):
    """Make or take up the folder args.out: args.json and, given the fold (N,) of the named images,
    folds.csv. sources: files that, like the names, a resumed run must find unchanged.

    A folder that holds a run needs --resume (same flags and sources) or --overwrite, and no other
    process may be at work in it. The first process does this for all.
    """
    now = {"args": plain(args), "classes": classes, "sha256": digests(sources),
           "versions": {p: version(p) for p in ("torch", "torchvision", "numpy", "pillow")}}
    now["sha256"]["the list of images"] = hashlib.sha256("\n".join(names).encode()).hexdigest()
    folds = None if fold is None else list(zip(names, fold.tolist(), strict=True))
    process.check()
    process.first_does(lambda: _start_run(args, now, folds), (DataError, OSError))


def digests(paths):
    """{path: sha256} of those that are files."""
    out = {}
    for path in paths:
        if path and Path(path).is_file():
            out[str(path)] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return out


def _start_run(args, now, folds):
    path, half = args.out / "args.json", args.out / "args.json.tmp"
    if folds is None and fold_files(args.out, "*.pt"):
        raise DataError(f"{args.out} holds networks: name another --out")
    if path.exists() and not (args.overwrite or args.resume):
        raise DataError(f"{args.out} holds a run: add --overwrite to replace it or --resume to go "
                        "on with it, or name another --out")
    links = [p for p in args.out.glob("fold[0-9]*") if p.is_symlink()]
    if links:
        raise DataError(f"{links[0]} is a link, expected a folder: all is written inside --out")
    args.out.mkdir(parents=True, exist_ok=True)
    lock(args.out)
    if path.exists() and args.resume:
        check_resume(path, now)
        return
    made = [p for name in MADE for n in (name, f"{name}.tmp") for p in args.out.glob(n)]
    read = {Path(s).resolve() for s in now["sha256"]}
    for old in made:
        if old.resolve() in read:
            raise DataError(f"{args.out} holds {old.name}, which this run reads: name another "
                            "--out")
    if made and not (path.exists() or half.exists() or args.overwrite):
        raise DataError(f"{args.out} holds {made[0].name}, but no args.json of a run: add "
                        "--overwrite to replace it, or name another --out")
    if path.exists():
        path.replace(half)
    half.touch()  # until args.json is written: a run that is being begun
    for old in made:
        old.unlink()
    if folds is not None:
        data.write_csv(args.out / "folds.csv", ("ImageId", "fold"), folds)
    write_json(path, now)


def lock(folder):
    """Keep other processes out of a folder for as long as this one lives. Raises DataError."""
    if fcntl is None:  # not on Windows
        return
    file = open(folder / ".lock", "a+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, not passed on to workers
    except OSError as error:
        file.close()
        raise DataError(f"{folder} is in use by another process") from error
    _locks.append(file)


def unlock():
    while _locks:
        _locks.pop().close()


def check_flags(args):
    """Raise DataError where --resume comes with other flags than the run it goes on with."""
    path = args.out / "args.json"
    if args.resume and path.exists():
        check_resume(path, {"args": plain(args), "sha256": {}})


def check_resume(path, now):
    then = read_run(path, sha256=dict)
    for key, value in now["args"].items():
        if key not in FREE and then["args"].get(key) != value:
            raise DataError(f"--{key.replace('_', '-')} is {value}, but {path} says "
                            f"{then['args'].get(key)}: a resumed run keeps its flags")
    changed = [what for what, sha in now["sha256"].items() if then["sha256"].get(what) != sha]
    if changed:
        raise DataError(f"{', '.join(changed)} changed since {path} was written: a resumed run "
                        "keeps its images and labels")


def plain(args):
    """The flags as values that JSON and weights_only checkpoints can hold."""
    return {k: str(v) if isinstance(v, Path) else [str(x) if isinstance(x, Path) else x for x in v]
            if isinstance(v, (list, tuple)) else v for k, v in vars(args).items()}


def kept(args):
    """The flags that change what is computed, the same for a run and its --resume."""
    return {k: v for k, v in plain(args).items() if k not in FREE}


def read_json(path):
    """Raises DataError for a file that is missing or not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def read_run(path, **more):
    """The args.json or metrics.json of a run. Raises DataError where a part of it is missing."""
    found = read_json(path)
    for key, form in {"args": dict, "classes": list, **more}.items():
        if not isinstance(found, dict) or not isinstance(found.get(key), form):
            raise DataError(f"{path}: no {key} in it, expected a file written by one of the "
                            "scripts")
    return found


def fold_files(folder, name):
    """{fold: path} of fold0/name, fold1/name, ... in the folder of a run, in that order."""
    found = {int(p.parent.name[4:]): p for p in sorted(Path(folder).glob(f"fold*/{name}"))
             if re.fullmatch(r"fold[0-9]{1,4}", p.parent.name)}
    return dict(sorted(found.items()))


def write_json(path, value):
    """A JSON file, whole or not at all, by the first process."""
    if process.first():
        with process.whole_file(path, encoding="utf-8") as file:
            file.write(json.dumps(value, indent=1) + "\n")
