"""What a set of images costs in hours, from measured parts (docs/cost.md has the formula).

    python benchmarks/cost.py --plan severstal
    python benchmarks/cost.py --images 1000000 --devices 8 --train 900 --forward 3000

--train and --forward are images per second of one device at the size of the input. Without them
they are what benchmarks/results/speed.json has measured on one core, scaled by the pixels.
"""

import argparse
import json
import math
from pathlib import Path
from typing import NamedTuple

RESULTS = Path(__file__).parent / "results"
B3 = 2.5  # multiplications of a forward of b3 over those of b0, at one size of the input
OVERHEAD = 1.25  # make_masks.py over its bare forwards, at most


class Rates(NamedTuple):
    """Images per second of one device, and of one core for what runs on the CPU alone."""

    train_cls: float  # a step of the classifier b0
    train_seg: float  # a step of the U-Net b0
    forward: float  # a bare forward of the classifier b0
    search: float  # --search, all of it, on one core
    check: float  # the check of the images before a run, on one core


class Plan(NamedTuple):
    """How often each stage runs, in units of b0."""

    classifiers: float = 1  # cross-validated trainings
    views: float = 6  # forwards an image that make maps
    searches: float = 1
    unets: float = 1  # cross-validated trainings
    runs: float = 3  # scripts that check the images


# The commands of benchmarks/reproduce.py: three classifiers, two of them b3; maps of b0 by one view
# twice and by six views twice, and of b3 by six views twice; five searches; two U-Nets.
PLANS = {"one": Plan(), "severstal": Plan(1 + 2 * B3, 2 * 1 + 2 * 6 + 2 * 6 * B3, 5, 2, 11)}


def measured(folder, size):
    """The Rates in speed.json and growth.json, for an input of this (H, W). The work of a network
    grows with the pixels of its input."""
    rows = [r for part in json.loads((folder / "speed.json").read_text())["parts"].values()
            for r in part]

    def seconds(start, peer):
        return next((r["ours"] for r in rows if r["work"].startswith(start) and peer in r["peer"]),
                    math.nan)  # not measured yet: a flag must give the rate

    pixels = size[0] * size[1]
    growth = json.loads((folder / "growth.json").read_text())
    most = max(growth, key=int)
    return Rates(128 * 128 / pixels / seconds("training step, classifier", "timm"),
                 128 * 128 / pixels / seconds("training step, U-Net", "segmentation"),
                 4 * 256 * 512 / pixels / seconds("bare forward of make_masks.py", "eager"),
                 12568 / seconds("whole search", ""),
                 int(most) / growth[most]["checking the images"][0])


def hours(rates, plan, images, folds, epochs, devices):
    """Hours of each stage; see docs/cost.md.

    A training sees images x (folds - 1) x epochs in its steps, and images x epochs in the check
    after each epoch. A step of the U-Net is to its forward as one of the classifier is.
    """
    n, forward_seg = images / devices / 3600, rates.forward * rates.train_seg / rates.train_cls
    return {
        "checking the images": plan.runs * images / rates.check / 3600,
        "train_cls": plan.classifiers * n * epochs * ((folds - 1) / rates.train_cls
                                                      + 1 / rates.forward),
        "make_masks": plan.views * n * OVERHEAD / rates.forward,
        "--search": plan.searches * images / rates.search / 3600,
        "train_seg": plan.unets * n * epochs * ((folds - 1) / rates.train_seg + 1 / forward_seg)}


def get_args(argv=None):
    p = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--plan", choices=PLANS, default="one",
                   help="one pass of the three scripts with b0, or all rows of the paper's tables")
    p.add_argument("--images", type=int, default=12568)
    p.add_argument("--size", type=int, nargs=2, default=(256, 1600), metavar=("H", "W"))
    p.add_argument("--folds", type=int, default=5)
    p.add_argument("--epochs", type=int, default=20)
    p.add_argument("--devices", type=int, default=1, help="GPUs, or CPU cores")
    p.add_argument("--train", type=float, help="images/s of a device that trains the classifier")
    p.add_argument("--train-seg", type=float,
                   help="and the U-Net (default: slower by the measured factor)")
    p.add_argument("--forward", type=float, help="images/s of a bare forward of the classifier")
    p.add_argument("--results", type=Path, default=RESULTS, help="folder of the two JSON files")
    return p.parse_args(argv)


def main(args):
    rates = measured(args.results, args.size)
    given = args.train or rates.train_cls
    rates = rates._replace(
        train_cls=given, forward=args.forward or rates.forward,
        train_seg=args.train_seg or given * rates.train_seg / rates.train_cls)
    if math.isnan(sum(rates)):
        raise SystemExit("no rate of training is measured: give --train and --train-seg")
    found = hours(rates, PLANS[args.plan], args.images, args.folds, args.epochs, args.devices)
    print("| stage | hours |\n| --- | --- |")
    for stage, h in [*found.items(), ("in all", sum(found.values()))]:
        print(f"| {stage} | {h:,.0f} |" if h >= 100 else f"| {stage} | {h:.3g} |")


if __name__ == "__main__":
    main(get_args())
