"""Write the generated steel strips: python -m cam2seg.demo data/demo"""

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C in the imports: no traceback

import argparse
import sys

from ..runs import endings
from ..runs.exits import run
from ..runs.progress import Console, Progress
from . import strips


def draw(args: argparse.Namespace) -> endings.Ending:
    """Draw the images with the progress and the ending of the four scripts."""
    clock = Progress(args.images, "drawing", Console())
    said = strips.draw_all(args, lambda: clock.add(1))
    return endings.Ending(said, ("next: " + endings.command("train_cls", {"data": args.out}),))


if __name__ == "__main__":
    sys.exit(run(draw, strips.get_args))
