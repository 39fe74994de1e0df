"""The flags of those ways to masks that are not the paper's."""

import argparse
from pathlib import Path

from . import flags

SEAM = {"seam_scale": 0.3, "seam_stride": 8}  # both as in the code of its authors


def add_seg(p: argparse.ArgumentParser) -> None:
    """Add the flags of make_masks.py --method seg."""
    p.add_argument("--seg", type=Path, nargs="+", default=[Path("runs/seg")], metavar="RUN",
                   help="run of train_seg.py for --method seg; of several runs the one whose "
                   "networks tell the labels best is taken, [C-27]")
    p.add_argument("--select", default="entropy", choices=("entropy", "confidence", "all"),
                   help="which pixels --method seg is sure of, [C-25], [C-26], [C-37] to [C-39]")


def add_video(p: argparse.ArgumentParser) -> None:
    """Add the flags of make_masks.py --method video."""
    p.add_argument("--first", type=Path, metavar="CSV",
                   help="masks of the first frame of each folder of frames, for --method video")
    p.add_argument("--steps", type=flags.natural, default=300,
                   help="steps of training of the features of --method video, DEV-52")
    p.add_argument("--radius", type=flags.positive, default=8,
                   help="rows and columns of cells, of 2 x 2 pixels, that --method video copies "
                   "from, DEV-53")
    p.add_argument("--memory", type=flags.natural, default=3,
                   help="last frames that --method video copies from beside the first, DEV-54")


def add_fitted(p: argparse.ArgumentParser) -> None:
    """Add the flag of make_masks.py --method contrast, pixels and auto."""
    p.add_argument("--fitted", type=Path, metavar="RUN",
                   help="run of the same --method, contrast, pixels or auto, whose choices are "
                   "used instead of new ones")


def add_depth(p: argparse.ArgumentParser) -> None:
    """Add the flags of make_masks.py --method depth."""
    p.add_argument("--depth", type=Path, metavar="FOLDER",
                   help="for --method depth: a PNG of 16 bits or a .npy for each image, DEV-45")
    p.add_argument("--depth-units", type=flags.above_zero, default=1000.0,
                   help="units of a whole number in --depth that make a metre, DEV-45")
    p.add_argument("--camera", type=float, nargs=4, metavar=("FX", "FY", "CX", "CY"),
                   help="focal lengths and principal point in pixels, [H-1]")
    p.add_argument("--height-edges", type=float, nargs="+", default=[0.5, 1.0, 1.5, 2.0],
                   metavar="M", help="edges between the bins of heights in metres, DEV-46")
    p.add_argument("--angle-edges", type=float, nargs="+", default=[36.0, 72.0, 108.0, 144.0],
                   metavar="DEG", help="edges between the bins of angles in degrees, DEV-46")
    p.add_argument("--normal-radius", type=flags.positive, nargs=2, default=[3, 10],
                   metavar=("R", "R"), help="radius in pixels of the windows for normals, of the "
                   "labels and of the search for gravity, DEV-47")
    p.add_argument("--floor-percent", type=flags.percent, default=0.0,
                   help="part of the points that may lie below the floor, DEV-48")


def add_seam(p: argparse.ArgumentParser) -> None:
    """Add the flags of train_cls.py --seam. A run without --seam has none of them in its files."""
    p.add_argument("--seam", action="store_true", default=argparse.SUPPRESS,
                   help="train SEAM, whose maps make_masks.py then takes, [S-1] to [S-10]; "
                   "--dropout is then that of channels, DEV-76")
    p.add_argument("--seam-scale", type=flags.fraction, default=argparse.SUPPRESS, metavar="S",
                   help="size of the rescaled image, as a part of that of the image, [S-1] "
                   f"(default: {SEAM['seam_scale']})")
    p.add_argument("--seam-stride", type=int, choices=(8, 16, 32), default=argparse.SUPPRESS,
                   help="pixels that a cell of the map has on each side, DEV-74 "
                   f"(default: {SEAM['seam_stride']})")


def with_seam_defaults(p: argparse.ArgumentParser, args: argparse.Namespace) -> argparse.Namespace:
    """The parsed flags of train_cls.py, with the defaults of SEAM where --seam is given.

    Ends the program where flags do not go together.
    """
    given = [name for name in SEAM if name in args]
    if given and "seam" not in args:
        p.error(f"--{given[0].replace('_', '-')} is for --seam")
    if "seam" not in args:
        return args
    if args.hidden != p.get_default("hidden"):
        p.error("--hidden is for the paper's head, which a network of --seam has not")
    return argparse.Namespace(**{**vars(args), **SEAM, **{k: getattr(args, k) for k in given}})
