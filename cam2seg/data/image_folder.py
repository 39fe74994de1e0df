"""Which files of a folder are images, and which of their names can stand in a CSV file."""

import os
import re
from pathlib import Path

from .errors import DataError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
# Control characters, bytes that are not UTF-8, and blanks at the ends of a file's or folder's name.
UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]|(^|/)\s|\s(/|$)")


def list_images(folder: Path | str) -> list[str]:
    """Sorted names of the images below a folder, relative to it, with "/" between folders.

    A file is taken for an image by its ending (SUFFIXES). What begins with a dot, or lies in a
    folder that does, is passed over, and so is __MACOSX: other programs keep their own things
    there. Raises DataError for a folder that is missing or holds no image, for a link that leads
    out of it, and for a name that a CSV file cannot hold.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder, expected one with images")
    root, names = os.path.realpath(folder), []
    for path in folder.rglob("*"):
        name, is_image = path.relative_to(folder).as_posix(), path.suffix.lower() in SUFFIXES
        if any(part.startswith(".") or part == "__MACOSX" for part in name.split("/")):
            continue
        if path.is_symlink() and (is_image or path.is_dir()) and \
                not Path(os.path.realpath(path)).is_relative_to(root):
            raise DataError(f"{folder}: '{name}' is a link out of the folder, expected the images "
                            "themselves")
        if is_image and path.is_file():
            names.append(name)
    if not names:
        raise DataError(f"{folder}: no image in it, expected files ending in {' '.join(SUFFIXES)}")
    for name in sorted(names):
        if UNFIT.search(name):
            raise DataError(f"{folder}: '{name}' cannot stand in a CSV file, expected names in "
                            "UTF-8 without control characters and without blanks at their ends")
    return sorted(names)


def empty_folders(folder: Path | str) -> list[str]:
    """Sorted names of the subfolders of a folder in which no image lies, whose names do not begin
    with a dot."""
    names = {name.split("/")[0] for name in list_images(folder)}
    return sorted(p.name for p in Path(folder).iterdir()
                  if p.is_dir() and p.name not in names and not p.name.startswith(".")
                  and p.name != "__MACOSX")
