"""Speed as ratios of two things measured in turn in one run: one table, and speed.json.

    make bench
    python benchmarks/speed.py --parts masks maps --data neu --rounds 5
    python benchmarks/speed.py --parts maps training runs --device cuda --out speed_cuda.json

Prints for each work our seconds, those of its peer, their ratio and the ratio that is allowed. The
seconds are medians of rounds that are taken in turn, after one that warms up. They are CPU time
with --threads threads, which other programs disturb least; a row of wall time says so. With
--device cuda networks run there, and their seconds are wall time, measured after the
GPU has finished; the parts masks, search and start stay on the CPU. Only the ratios mean something
on another machine.

This process keeps the memory that it frees, as our scripts do (cam2seg/runs/memory.py). Each other
package that makes maps runs in a process of its own, which hands freed memory back to the system,
as a program of its users does.

A part writes its own rows of --out and leaves those of other parts, so that the parts can be run
one after the other. A peer that is not installed has no row; requirements-dev.txt lists them.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import platform
import re
import sys
import time
from contextlib import contextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import torch

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
from cam2seg.report.tables import print_table
from cam2seg.runs.memory import keep_freed_memory

PARTS = ("maps", "masks", "search", "runs", "training", "start")
PACKAGES = ("torch", "torchvision", "numpy", "pillow", "grad-cam", "captum", "torchcam",
            "pycocotools", "timm", "segmentation-models-pytorch")
HEADER = ("work", "peer", "ours (s)", "peer (s)", "ours/peer", "limit", "ours/limit")


class Seconds(float):
    """Seconds that another process has measured."""


def clock_of(device):
    """The clock for work on a device: CPU time, or wall time after CUDA has done all its work."""
    if device.type == "cpu":
        return time.process_time

    def now():
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return now


def in_turn(works, rounds, clock=time.process_time):
    """Median seconds {name: s} of callables {name: f}, which run in turn.

    A callable that returns Seconds has measured its own. With more than one round a further one
    comes before them, which warms up. Each round begins with another callable, because the one
    that follows a peer's long work finds the caches cold.
    """
    seconds, names = {name: [] for name in works}, list(works)
    for n in range(rounds + (rounds > 1)):
        first = n % len(names)
        for name in names[first:] + names[:first]:
            start = clock()
            own = works[name]()
            if n or rounds == 1:
                seconds[name].append(own if isinstance(own, Seconds) else clock() - start)
    return {name: median(values) for name, values in seconds.items()}


@contextmanager
def process_of_their_own(make, args):
    """Callables {name: f} like those that make(device) returns, which run in another process.

    Each f returns the Seconds that its work took there. make: a function of a module; args: has
    `device` and `threads`.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, make, args), daemon=True)
    process.start()
    there.close()

    def asked(name):
        here.send(name)
        return Seconds(here.recv())

    yield {name: partial(asked, name) for name in here.recv()}
    here.send(None)
    process.join()


def _serve(pipe, make, args):
    """Send the names of the works, then do each one that is asked for and send its seconds."""
    torch.set_num_threads(args.threads)
    works, clock = make(args.device), clock_of(args.device)
    pipe.send(list(works))
    for name in iter(pipe.recv, None):
        start = clock()
        works[name]()
        pipe.send(clock() - start)


def row(work, peer, ours, theirs, limit=None):
    """One row. `ours` and `theirs` are seconds, and `limit` is the largest ours / theirs."""
    return {"work": work, "peer": peer, "ours": ours, "theirs": theirs, "ratio": ours / theirs,
            "limit": limit, "ours_of_limit": limit and ours / theirs / limit}


def package(name):
    """A peer's module, or None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def machine(args):
    """What the seconds depend on: the processor, its cores, torch's threads, the device."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    name = re.search(r"model name\s*: (.*)", text)
    return {"cpu": name[1] if name else platform.processor(), "cores": os.cpu_count(),
            "torch_threads": args.threads, "python": platform.python_version(),
            "device": torch.cuda.get_device_name(args.device) if args.device.type == "cuda"
            else "cpu"}


def versions():
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def cells(row):
    """The cells of a row as text, the same in the printed table and in README."""
    return [row["work"], row["peer"], f"{row['ours']:.3g}", f"{row['theirs']:.3g}",
            f"{row['ratio']:.3g}", "" if row["limit"] is None else f"{row['limit']:.3g}",
            "" if row["limit"] is None else f"{row['ours_of_limit']:.2f}"]


def markdown(rows):
    """The table as README shows it."""
    lines = [HEADER, ["---"] * len(HEADER), *map(cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def get_args(argv=None):
    p = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    p.add_argument("--rounds", type=int, default=7, help="default: 7")
    p.add_argument("--threads", type=int, default=1, help="torch's threads (default: 1)")
    p.add_argument("--device", type=torch.device, default="cpu", help="where the networks of the "
                   "parts maps, training and runs work (default: cpu)")
    p.add_argument("--data", type=Path, help="folder of images and masks for the part `runs` "
                   "(default: drawn strips)")
    p.add_argument("--images", type=int, default=192, help="images of that part (default: 192)")
    p.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/speed.json")
    return p.parse_args(argv)


def main(args):
    found = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    here = machine(args)
    if found and found["machine"].get("device", "cpu") != here["device"]:
        sys.exit(f"{args.out} holds rows of {found['machine'].get('device', 'cpu')}: name another "
                 f"--out for {here['device']}")
    parts = {name: found.get("parts", {}).get(name) for name in PARTS}
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    for name in args.parts:
        parts[name] = importlib.import_module(f"speed_{name}").rows(args)
        print_table(name, HEADER, list(map(cells, parts[name])))
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({
            "machine": here, "versions": versions(),
            "parts": {k: rows for k, rows in parts.items() if rows}}, indent=1) + "\n")
    print("\n" + markdown([r for name in PARTS for r in parts[name] or []]), flush=True)


if __name__ == "__main__":
    main(get_args())
