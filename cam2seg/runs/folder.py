"""The folder of a run: args.json, what a resumed run must find unchanged, and its folds' files."""

import argparse
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ..data import exports
from ..data.classes import checked_list
from ..data.csv_files import read_csv, write_csv
from ..data.errors import DataError
from ..data.files import contents, digest, regular, whole_file
from . import inputs, processes
from .locks import lock

# Flags that may differ between a run and its --resume, because they do not change its results.
FLAGS_FREE_TO_CHANGE = ("resume", "overwrite", "device", "workers", "fold", "out", "predict",
                        "reuse_maps", "quiet", "report", "export")
# What the scripts leave in --out, and what --overwrite deletes.
OUTPUT_FILES = (
    "folds.csv", "metrics.json", "oof.csv", "oof_best.csv", "oof_masks.csv", "new_masks.csv",
    "maps.csv", "maps.npy", "probs.npy", "masks.csv", "masks_union.csv", "masks_crossfit.csv",
    "masks_labels.csv", "ignore.csv", "model.json", "features.pt", "review.csv", "review.png",
    "report.html", "class_[0-9]*.png", "classes.png", "processed_[0-9]*.csv", "fold[0-9]*/*.pt",
    "fold[0-9]*/oof*.csv", "fold[0-9]*/log.jsonl",
    *(f"{of}/{name}" for of in ("fold[0-9]*", "new") for name in ("maps.csv", "maps.npy",
                                                                  "probs.npy")))


def start_run(args: argparse.Namespace, sources: Iterable[Path | str | None],
              classes: Sequence[str], names: Sequence[str], digests_of_images: Mapping[str, str],
              fold: np.ndarray | None = None) -> None:
    """Make the folder args.out for a new run, or check it for a resumed one.

    sources: files and folders that a resumed run must find unchanged, like the named images, of
    which digests_of_images holds {name: SHA-256}. fold (N,): the folds of the images, written to
    folds.csv. A folder that holds a run needs --resume (same flags and sources) or --overwrite, and
    no other process may be at work in it. The first process does this for all. Raises DataError and
    OSError.
    """
    folds = None if fold is None else list(zip(names, fold.tolist(), strict=True))
    sources = [s for s in sources if s and Path(s).resolve() != inputs.image_dir(args).resolve()]

    def prepare():
        now = {"args": plain_flags(args), "classes": classes, "sha256": digests(sources),
               "versions": {p: version(p) for p in ("torch", "torchvision", "numpy", "pillow")}}
        now["sha256"]["the list of images"] = _sha256("\n".join(names).encode())
        content = "\n".join(digests_of_images[name] for name in names)
        now["sha256"]["the content of the images"] = _sha256(content.encode())
        _prepare(args, now, folds)

    processes.stop_if_asked()
    processes.run_on_first(prepare, (DataError, OSError))
    processes.part()


def digests(paths: Iterable[Path | str | None]) -> dict[str, str]:
    """SHA-256 {path: digest} of those paths that are files or folders.

    Of a CSV file it is that of its rows, whatever their order, their line ends and quotes.
    """
    return {str(path): _sha256(_rows(path)) if Path(path).suffix == ".csv" else digest(path)
            for path in paths if path and Path(path).exists()}


def _rows(path):
    """What a CSV file says, as bytes that are the same for all ways to write it."""
    _, rows = read_csv(path)
    return "\n".join(sorted(json.dumps(row, sort_keys=True) for _, row in rows)).encode()


def _sha256(content):
    return hashlib.sha256(content).hexdigest()


def _prepare(args, now, folds):
    """Do the work of start_run: check the folder, lock it, clear it and write args.json.

    now: what args.json shall hold; folds: rows of folds.csv, or None.
    """
    path, begun = args.out / "args.json", args.out / "args.json.tmp"
    trains = folds is not None and "method" not in args  # make_masks.py trains no network of a fold
    if not trains and fold_files(args.out, "*.pt"):
        raise DataError(f"{args.out} holds networks: name another --out")
    if path.exists() and not (args.overwrite or args.resume):
        raise DataError(f"{args.out} holds a run: add --overwrite to replace it or --resume to go "
                        "on with it, or name another --out")
    links = [p for p in (*args.out.glob("fold[0-9]*"), args.out / "new") if p.is_symlink()]
    if links:
        raise DataError(f"{links[0]} is a link, expected a folder: all is written inside --out")
    args.out.mkdir(parents=True, exist_ok=True)
    lock(args.out)
    if path.exists() and args.resume:
        check_same_run(path, now)
        return
    old = _old_outputs(args, path.exists() or begun.exists(), now["sha256"])
    if path.exists():
        path.replace(begun)
    if begun.is_symlink():
        begun.unlink()  # it could lead out of the folder
    begun.touch()  # this file says that a run has begun, until args.json takes its place
    for file in old:
        file.unlink()
    for name in exports.clear(args.out):
        print(f"{args.out / name}: kept, because it was changed since it was written", flush=True)
    if folds is not None:
        write_csv(args.out / "folds.csv", ("ImageId", "fold"), folds)
    write_json(path, now)


def _old_outputs(args, is_run, sources):
    """Files of an earlier run that a new one deletes. Raises DataError where it must not."""
    old = [p for name in OUTPUT_FILES for n in (name, f"{name}.tmp") for p in args.out.glob(n)]
    read = {Path(s).resolve() for s in sources}
    for file in (*old, *(args.out / name for name in exports.recorded(args.out))):
        if file.resolve() in read:
            raise DataError(f"{args.out} holds {file.name}, which this run reads: name another "
                            "--out")
    if old and not (is_run or args.overwrite):
        raise DataError(f"{args.out} holds {old[0].name}, but no args.json of a run: add "
                        "--overwrite to replace it, or name another --out")
    return old


def check_flags(args: argparse.Namespace) -> None:
    """Raise DataError where --resume comes with --overwrite, or with other flags than those of the
    run it resumes; say so where there is none.

    Raises DataError also for an --out inside a folder of images.
    """
    path = args.out / "args.json"
    if args.resume and args.overwrite:
        raise DataError("--resume goes on with a run and --overwrite replaces it: give one of them")
    for images in (inputs.image_dir(args), getattr(args, "predict", None)):
        if images and args.out.resolve().is_relative_to(images.resolve()):
            raise DataError(f"--out {args.out} lies in {images}, where its pictures would be taken "
                            "for images: name a folder outside")
    if args.resume and path.exists():
        check_same_run(path, {"args": plain_flags(args), "sha256": {}})
    elif args.resume and processes.is_first():
        print(f"{args.out} holds no run to go on with: a new one begins", flush=True)


def check_same_run(path: Path | str, now: dict) -> None:
    """Raise DataError unless the args.json at `path` has the flags and digests of `now`."""
    then = read_run(path, sha256=dict)
    for key in {**now["args"], **then["args"]}:  # --seam is in neither unless it is given
        value, old = now["args"].get(key), then["args"].get(key)
        # A flag that takes several values now may have taken one when the run began.
        if key not in FLAGS_FREE_TO_CHANGE and old != value and [old] != value:
            raise DataError(f"--{key.replace('_', '-')} is {value}, but {path} says {old}: a "
                            "resumed run keeps its flags")
    if then["classes"] != now.get("classes", then["classes"]):
        raise DataError(f"classes {', '.join(now['classes'])}, but {path} says "
                        f"{', '.join(then['classes'])}: a resumed run keeps its classes")
    changed = [what for what, sha in now["sha256"].items() if then["sha256"].get(what) != sha]
    if "the list of images" in changed:  # their content then changed as well
        changed = [what for what in changed if what != "the content of the images"]
    if changed:
        raise DataError(f"{', '.join(changed)} changed since {path} was written: a resumed run "
                        "keeps its labels and its images")


def note_flags(args: argparse.Namespace, sources: Iterable[Path | str | None]) -> None:
    """Write the flags and sources of a run that goes on in args.out with other ones, as
    make_masks.py --reuse-maps does, to the args.json that is there. The first process does this for
    all."""
    def note():
        path = args.out / "args.json"
        found = read_run(path, sha256=dict)
        write_json(path, {**found, "args": plain_flags(args),
                          "sha256": {**found["sha256"], **digests(sources)}})

    processes.run_on_first(note, (DataError, OSError))


def plain_flags(args: argparse.Namespace) -> dict:
    """All flags {name: value} as values that JSON and weights_only checkpoints can hold."""
    return {k: str(v) if isinstance(v, Path) else [str(x) if isinstance(x, Path) else x for x in v]
            if isinstance(v, (list, tuple)) else v for k, v in vars(args).items()}


def result_flags(args: argparse.Namespace) -> dict:
    """The flags that change the results; they are the same for a run and its --resume."""
    return {k: v for k, v in plain_flags(args).items() if k not in FLAGS_FREE_TO_CHANGE}


def read_json(path: Path | str) -> Any:
    """Read a JSON file. Raises DataError for a file that is missing or not JSON."""
    try:
        return json.loads(Path(regular(path)).read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError) as error:  # one bracket in another, thousands deep
        raise DataError(f"{path}: cannot be read ({error})") from error


def check_is_run(flag: str, path: Path, script: str) -> None:
    """Raise DataError, naming the flag, unless the folder holds a run of the training script."""
    if not all((path / name).exists() for name in ("args.json", "folds.csv")):
        raise DataError(f"{flag} {path} is no run of {script}.py, which has an args.json and a "
                        f"folds.csv: {contents(path)}")


def read_run(path: Path | str, **more: type) -> dict:
    """Read the args.json or metrics.json of a run.

    `more` names further parts that it must have, with their types. Raises DataError where a part
    is missing, and for classes that cannot have their names.
    """
    found = read_json(path)
    for key, form in {"args": dict, "classes": list, **more}.items():
        if not isinstance(found, dict) or not isinstance(found.get(key), form):
            raise DataError(f"{path}: no {key} in it, expected a file written by one of the "
                            "scripts")
    checked_list(path, found["classes"])
    return found


def fold_files(folder: Path | str, name: str) -> dict[int, Path]:
    """Files {fold: path} called fold0/`name`, fold1/`name` and so on, in that order."""
    found = {int(p.parent.name[4:]): p for p in sorted(Path(folder).glob(f"fold*/{name}"))
             if re.fullmatch(r"fold[0-9]{1,4}", p.parent.name)}
    return dict(sorted(found.items()))


def write_json(path: Path | str, value: Any) -> None:
    """Write a JSON file, whole or not at all, in the first process."""
    if processes.is_first():
        with whole_file(path, encoding="utf-8") as file:
            file.write(json.dumps(value, indent=1) + "\n")
