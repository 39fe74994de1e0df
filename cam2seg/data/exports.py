"""Masks written as PNGs and for CVAT; and what is written into the folder of a run for people.

A person may correct such files where they lie. So exports.json in the folder of the run holds a
digest of each, and one that has changed since is never deleted, but keeps its content under another
name.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from .. import masks
from . import coco
from .colours import class_colours
from .drawn import folder_of, mask_files
from .errors import DataError
from .files import digest, whole_file
from .image_folder import list_images
from .labels import read_masks
from .mask_folders import CLASSES, LABELMAP, LISTS, MOST, OBJECTS, PNGS

RECORD = "exports.json"
FORMS = ("png", "overlay", "coco", "cvat")

Over = Callable[[Sequence[str], str], Iterable[str]]  # gives the names, and shows how far it is


class Made(NamedTuple):
    """The masks of N images and C classes that are to be written."""

    image_dir: Path
    names: list  # N image names
    sizes: dict  # {name: (H, W)}
    classes: list  # C class names
    rles: dict  # {(name, class index): run lengths}
    files: dict  # {name: the name of its PNG}, see drawn.mask_files


def load(path: Path, image_dir: Path, sizes: dict[str, tuple[int, int]],
         classes: list[str]) -> Made:
    """The masks of a mask CSV that a script has written, with a row for each image."""
    found = read_masks(path, image_dir, classes)
    return Made(image_dir, sorted({name for name, _ in found.rows}), sizes, classes, found.rles,
                mask_files(list_images(image_dir)))


def check(forms: Sequence[str], classes: Sequence[str]) -> None:
    """Raise DataError for a class that a form cannot name."""
    for name in classes if "cvat" in forms else ():
        if ":" in name or name.startswith("#") or name.lower() == "background":
            raise DataError(f"--export cvat: class '{name[:40]}', expected a name without colons "
                            "that does not begin with # and is not background")


def write_pngs(folder: Path, made: Made, over: Over) -> None:
    """Write the masks as read by mask_folders: a PNG with a palette for each image, or, where any
    masks share pixels, one black and white PNG for each image and class."""
    folder.mkdir()
    (folder / CLASSES).write_text("".join(f"{name}\n" for name in made.classes), encoding="utf-8")
    colours = class_colours(len(made.classes))
    exclusive = len(colours) <= MOST and not masks.overlapping(*_all(made))
    for name in over(made.names, f"writing {folder.stem}"):
        drawn = masks.decode_all(made.rles, name, made.sizes[name], len(colours))
        if exclusive:
            image = Image.fromarray(_numbers(drawn).astype(np.uint8))
            image.putpalette([0, 0, 0, *np.array(colours).ravel().tolist()])
            _save(image, folder / made.files[name])
        else:
            for class_name, mask in zip(made.classes, drawn, strict=True):
                _save(Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)),
                      folder / folder_of(class_name) / made.files[name])


def write_cvat(folder: Path, made: Made, over: Over) -> None:
    """Write CVAT's "Segmentation mask 1.1". A pixel has one class there: of several the last one
    (DEV-72)."""
    colours = [(0, 0, 0), *class_colours(len(made.classes))]
    lines = [f"{name}:{','.join(map(str, colour))}::\n"
             for name, colour in zip(["background", *made.classes], colours, strict=True)]
    (folder / LISTS).mkdir(parents=True)
    (folder / LABELMAP).write_text("# label:color_rgb:parts:actions\n" + "".join(lines),
                                   encoding="utf-8")
    stems = [made.files[name].removesuffix(".png") for name in made.names]
    (folder / LISTS / "default.txt").write_text(
        "".join(f'"{stem}"\n' if " " in stem else f"{stem}\n" for stem in stems), encoding="utf-8")
    for name in over(made.names, f"writing {folder.stem}"):
        drawn = masks.decode_all(made.rles, name, made.sizes[name], len(made.classes))
        image = Image.fromarray(np.array(colours, np.uint8)[_numbers(drawn)])
        for part in (PNGS, OBJECTS):
            _save(image, folder / part / made.files[name])


def write_coco(path: Path, made: Made, over: Over) -> None:
    """Write COCO JSON; see coco.write."""
    names = list(over(made.names, f"writing {path.stem}"))
    coco.write(path, names, *_all(made)[1:])


def put(out: Path, name: str, write: Callable[[Path], None]) -> str | None:
    """Write the file or folder `name` in the folder of a run, whole or not at all.

    write(path) writes it. Returns the name under which one that a person has changed is kept.
    """
    tmp = out / f"{name}.tmp"
    _remove(tmp)
    try:
        write(tmp)
        kept = _set_aside(out, name)
        os.replace(tmp, out / name)
    finally:
        _remove(tmp)
    _note(out, {**recorded(out), name: digest(out / name)})
    return kept


def clear(out: Path) -> list[str]:
    """Delete what put() has written there. Returns the names under which changed ones are kept."""
    kept = [_set_aside(out, name) for name in recorded(out)]
    (out / RECORD).unlink(missing_ok=True)
    for form in FORMS:
        for path in out.glob(f"*_{form}*.tmp"):
            _remove(path)
    return [name for name in kept if name]


def recorded(out: Path) -> dict[str, str]:
    """{name: digest} of what put() has written into the folder of a run."""
    try:
        found = json.loads((out / RECORD).read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError):
        return {}
    return {name: sha for name, sha in found.items() if Path(name).name == name} \
        if isinstance(found, dict) else {}


def _note(out, names):
    with whole_file(out / RECORD, encoding="utf-8") as file:
        json.dump(names, file)


def _set_aside(out, name):
    path, number = out / name, 1
    if path.is_symlink() or recorded(out).get(name) == digest(path):
        _remove(path)
    if not path.exists():
        return None
    while (kept := path.with_name(f"{path.stem}_kept{number}{path.suffix}")).exists():
        number += 1
    path.rename(kept)
    return kept.name


def _remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _all(made):
    return made.names, made.sizes, made.classes, made.rles


def _numbers(drawn):
    """int (H, W) of masks bool (C, H, W): 0, or the number of the last class there, from 1."""
    number = np.zeros(drawn.shape[1:], np.int64)
    for c, mask in enumerate(drawn):
        number[mask] = c + 1
    return number


def _save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, format="PNG")
