"""What the folders of runs say: their args.json, metrics.json, log.jsonl and oof.csv.

A report shows what is there. A file that is missing or cannot be read is named in the report and is
no error, because the masks have been made and scored already.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..data.errors import DataError
from ..data.files import regular

# A flag that one script alone has.
SCRIPT_OF = {"lr_head": "train_cls", "mask_cut": "train_seg", "method": "make_masks",
             "missing": "evaluate"}
FROM_CLASSIFIER = ("gradcam", "guided-gradcam", "seam", "auto")  # how their names begin


class Run(NamedTuple):
    """What the folder of one run says."""

    folder: Path
    script: str  # its name without .py
    args: dict
    classes: list
    sha256: dict  # {path: digest} of its inputs
    versions: dict
    metrics: dict  # {} where there is none yet
    logs: dict  # {fold: list of lines of log.jsonl}

    def flag(self, name: str, default: Any = None) -> Any:
        """The value of a flag, `default` where an older run did not have it."""
        return self.args.get(name, default)


def read_run(folder: Path) -> tuple[Run | None, list[str]]:
    """The run in a folder, None where there is none, and what could not be read, in sentences."""
    said: list[str] = []
    found = _read(folder / "args.json", said)
    if not isinstance(found, dict) or not isinstance(found.get("args"), dict):
        return None, said
    script = next((s for flag, s in SCRIPT_OF.items() if flag in found["args"]), "a script")
    numbers = _read(folder / "metrics.json", said)
    logs = {}
    for path in sorted(folder.glob("fold[0-9]*/log.jsonl"), key=lambda p: (len(str(p)), str(p))):
        lines = _read(path, said, lines=True)
        if lines:
            logs[path.parent.name.removeprefix("fold")] = lines
    parts = [found.get(name) if isinstance(found.get(name), form) else form()
             for name, form in (("classes", list), ("sha256", dict), ("versions", dict))]
    return Run(folder, script, found["args"], *parts,
               numbers if isinstance(numbers, dict) else {}, logs), said


def _read(path, said, lines=False):
    """What a file of JSON holds, or of one JSON object in each line; None where it is missing."""
    try:
        text = Path(regular(path)).read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
    except FileNotFoundError:
        return None
    except (OSError, RecursionError, ValueError) as error:
        said.append(f"{path} is left out: it cannot be read ({error}).")
        return None


def read_all(folder: Path) -> tuple[list[Run], list[str]]:
    """The run in a folder, which comes first, and all runs that it was made from; and what could
    not be read, in sentences.

    A run names the others by its flags. Their paths are relative to the folder that the script was
    started in, which is taken to be the present one.
    """
    waiting, runs, said, seen = [Path(folder)], [], [], set()
    while waiting:
        folder = waiting.pop(0)
        if folder.resolve() in seen:
            continue
        seen.add(folder.resolve())
        run, problems = read_run(folder)
        said += problems
        if run:
            runs.append(run)
            waiting += sources(run)
    return runs, said


def mask_paths(run: Run) -> list[str]:
    """The files of --masks of a run of train_seg.py, of which there can be several."""
    given = run.flag("masks") or []
    return [str(path) for path in (given if isinstance(given, list) else [given])]


def sources(run: Run) -> list[Path]:
    """The folders of the runs that a run was made from, by its flags."""
    found, method = [], str(run.flag("method", ""))
    if run.script == "evaluate":
        found += [Path(str(text).rpartition("=")[2]).parent for text in run.flag("masks") or []]
    if run.script == "make_masks" and method.startswith(FROM_CLASSIFIER):
        found.append(run.flag("cls"))
    if run.script == "make_masks" and method == "seg":
        found += run.flag("seg") or []
    if run.script == "train_seg":
        found += [Path(path).parent for path in [*mask_paths(run), run.flag("folds")] if path]
    return [Path(str(path)) for path in found if path]


def changed(runs: Sequence[Run], digests: Callable) -> list[str]:
    """One sentence for each file that is another one now than when a run read it.

    digests(paths) is {path: SHA-256} of those that are files.
    """
    said, now = [], {}
    for run in runs:
        for path, then in run.sha256.items():
            if path not in now:
                try:
                    now[path] = digests([path]).get(path)
                except (DataError, OSError, ValueError):
                    now[path] = "unreadable"
            if now[path] not in (None, then):
                said.append(f"{path} has changed since {run.folder} was made with it.")
    return said
