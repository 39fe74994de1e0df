"""The command line of the four scripts: shared flags, their types, and one-line errors.

Nothing here imports torch, so that --help and a wrong flag are answered at once.
"""

import argparse
import os
from pathlib import Path
from typing import NoReturn

from ..data.exports import FORMS
from . import processes
from .exits import one_line


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the default of a flag that has one, as it would be typed."""

    def _get_help_string(self, action):
        default = action.default
        if default is None or default is False or default == [] or "(default" in (action.help or ""):
            return action.help
        if isinstance(default, list):
            return f"{action.help} (default: {' '.join(map(str, default))})"
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with a flag, and exits with status 2."""

    def error(self, message: str) -> NoReturn:
        said = f"error: {one_line(message)}; --help shows the flags\n"
        self.exit(2, said if processes.speaks() else None)


def parser(doc: str) -> Parser:
    """Parser with --quiet, whose help begins with the docstring of the script."""
    p = Parser(description=doc, allow_abbrev=False, formatter_class=Help)
    p.add_argument("--quiet", action="store_true",
                   help="print errors, warnings and the line on what was written, and nothing else")
    return p


def add_data(p: argparse.ArgumentParser,
             labels: str = "a CSV of labels or masks, or a folder with a subfolder per class"
             ) -> None:
    """Add the flags that name images and labels; `labels` is the help of --labels."""
    p.add_argument("--data", type=Path, help="folder with train_images/ and train.csv")
    p.add_argument("--images", type=Path, help="folder of images, instead of train_images/")
    p.add_argument("--labels", type=Path, help=labels + ", instead of train.csv")
    p.add_argument("--classes", nargs="+", metavar="NAME",
                   help="use these classes only, in this order (default: all that occur)")


def add_training(p: argparse.ArgumentParser, epochs: int, batch_size: int,
                 batch_source: str) -> None:
    """Add the flags of both training scripts with their defaults; batch_source is a help text."""
    p.add_argument("--size", type=positive, nargs=2, metavar=("H", "W"),
                   help="size of the network's input, DEV-12 (default: that of the first image, "
                        "in multiples of 32, and one pixel more for lite0)")
    p.add_argument("--hflip", action=argparse.BooleanOptionalAction, default=True,
                   help="random horizontal mirror, [P] IV")
    p.add_argument("--vflip", action=argparse.BooleanOptionalAction, default=False,
                   help="random vertical mirror, [P] IV")
    p.add_argument("--shift-scale-rotate", type=from_zero, nargs=3,
                   metavar=("SHIFT", "SCALE", "DEGREES"),
                   help="random shift by up to this part of each side, scale by up to 1 +- SCALE "
                        "and turn, [K-5], DEV-68 (default: none)")
    p.add_argument("--grid-distortion", type=from_zero, nargs=2, metavar=("CELLS", "LIMIT"),
                   help="random stretch of each of so many cells along a side by up to 1 +- LIMIT, "
                        "[K-6], DEV-68 (default: none)")
    p.add_argument("--optimizer", choices=("adam", "radam"), default="adam",
                   help="Adam, [P] IV; or RAdam, [K-8], DEV-70")
    p.add_argument("--epochs", type=positive, default=epochs, help="DEV-12")
    p.add_argument("--batch-size", type=positive, default=batch_size, help=batch_source)
    p.add_argument("--fold", type=natural,
                   help="train this fold only, counted from 0 (default: all)")
    add_machine(p)
    p.add_argument("--seed", type=natural, default=0, help="DEV-12")
    p.add_argument("--resume", action="store_true", help="go on with the run in --out")


def add_groups(p: argparse.ArgumentParser) -> None:
    """Add the flag that says which images share a fold."""
    p.add_argument("--groups", default="copies", metavar="copies|none|CSV",
                   help="images that share a fold: copies of a picture, turned or mirrored ones "
                   "included; none; or a CSV with the columns ImageId,group, DEV-42")


def add_export(p: argparse.ArgumentParser) -> None:
    """Add the flag that writes masks in the forms of other tools."""
    p.add_argument("--export", nargs="+", choices=FORMS, default=[],
                   help="also write the masks in these forms: png, coco and cvat are read back by "
                   "--masks and --labels, and an overlay is the image with its masks in colour")


def add_machine(p: argparse.ArgumentParser) -> None:
    """Add the flags that say what the script runs on."""
    p.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    p.add_argument("--workers", type=natural, default=max(1, min(8, (os.cpu_count() or 1) - 1)),
                   help="processes that read images")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    p.add_argument("--amp", action="store_true", help="bfloat16 autocast: for GPUs from Ampere on, "
                   "and for maps on CPUs with AVX512-BF16")


def natural(text: str, least: int = 0) -> int:
    """Flag type: a whole number from `least` up."""
    return _number(int, text, lambda value: value >= least, f"a whole number from {least} up")


def positive(text: str) -> int:
    """Flag type: a whole number from 1 up."""
    return natural(text, 1)


def fraction(text: str, largest: float = 1) -> float:
    """Flag type: a number from 0 to `largest`."""
    return _number(float, text, lambda value: 0 <= value <= largest,
                   f"a number from 0 to {largest}")


def percent(text: str) -> float:
    """Flag type: a number from 0 to 100."""
    return fraction(text, 100)


def above_zero(text: str) -> float:
    """Flag type: a finite number above 0."""
    return _number(float, text, lambda value: 0 < value < float("inf"), "a number above 0")


def fraction_or_centre(text: str) -> float | None:
    """Flag type: a number from 0 to 1, or the word centre, which gives None."""
    return None if text == "centre" else \
        _number(float, text, lambda value: 0 <= value <= 1, "a number from 0 to 1, or centre")


def from_zero(text: str) -> float:
    """Flag type: a finite number from 0 up."""
    return _number(float, text, lambda value: 0 <= value < float("inf"), "a number from 0 up")


def _number(kind, text, fits, expected):
    """The number that a text names. Raises ArgumentTypeError, which says what was expected."""
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not fits(value):
        raise argparse.ArgumentTypeError(f"{text}: expected {expected}")
    return value
