"""What the files and folders of masks that a person may have drawn have in common."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

UNSAFE = re.compile(r'[<>:"/\\|?*%]|^\.|[. ]$')  # what the name of a folder cannot hold everywhere
QUOTED = re.compile("%([0-9A-F]{2})")


class Drawn(NamedTuple):
    """The masks that a file or a folder holds."""

    cells: list  # (place, image name, class name, run lengths); each image has one with "", None
    sizes: dict  # {image name: (H, W)} on which the run lengths count
    classes: list  # C class names


def mask_files(images: Sequence[str]) -> dict[str, str]:
    """{image name: the name of its PNG in a folder of masks}, for all images of a folder.

    It is the image's name with the ending .png. Where that is not the name of one mask alone, .png
    is added, as in a.jpg.png. Upper and lower case count as the same.
    """
    def short(name):
        return str(PurePosixPath(name).with_suffix(".png"))

    count = Counter(short(name).lower() for name in images)
    count.update(f"{name}.png".lower() for name in images)
    return {name: short(name) if count[short(name).lower()] == 1 else f"{name}.png"
            for name in images}


def owners(images: Sequence[str]) -> dict[str, str]:
    """{name of a PNG in small letters: the image that it belongs to}, by either name."""
    found = {f"{name}.png".lower(): name for name in images}
    return found | {file.lower(): name for name, file in mask_files(images).items()}


def folder_of(class_name: str) -> str:
    """The name of a class as a folder can have it: what UNSAFE matches becomes % and its code."""
    return UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", class_name)


def class_of(folder: str) -> str:
    """The class name that folder_of has made this of."""
    return QUOTED.sub(lambda match: chr(int(match[1], 16)), folder)
