"""Rows of benchmarks/speed.py: how long a script takes to show its help, and the package to load.

The CPU seconds of processes of their own.
"""

import resource
import subprocess
import sys

from speed import ROOT, in_turn, row


def used():
    """CPU seconds of all child processes that have ended."""
    seen = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seen.ru_utime + seen.ru_stime


def call(*words):
    return lambda: subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True,
                                  check=True)


def rows(args):
    s = in_turn({"help": call("make_masks.py", "--help"), "nothing": call("-c", "pass"),
                 "package": call("-c", "import cam2seg"), "torch": call("-c", "import torch")},
                args.rounds, used)
    return [row("make_masks.py --help, without torch", "0.3 seconds", s["help"], 0.3, 1),
            row("make_masks.py --help, without torch", "python -c pass", s["help"], s["nothing"]),
            row("import cam2seg", "import torch", s["package"], s["torch"], 1)]
