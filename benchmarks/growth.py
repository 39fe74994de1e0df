"""Time and peak memory of every stage for growing numbers of images of 256 x 1600.

    python benchmarks/growth.py --counts 500 1000 2000 4000
    python benchmarks/growth.py --methods --counts 250 500 1000 2000

Each stage is a process of its own, which is forked after the imports. Its time is CPU time, and its
memory the peak that the system has seen. Time should be linear in the number of images and memory
flat: images, masks and maps are read and written one batch at a time. Prints a table and writes
--out.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
import evaluate  # noqa: E402
import make_masks  # noqa: E402
import train_cls  # noqa: E402
import train_seg  # noqa: E402
from cam2seg import masks  # noqa: E402
from cam2seg.data.csv_files import write_csv  # noqa: E402
from cam2seg.runs import inputs  # noqa: E402
from cam2seg.runs.exits import run  # noqa: E402
from cam2seg.training import predictor  # noqa: E402, F401  (torch, before any fork)

SIDES, CLASSES = (256, 1600), 4
RESULTS = ROOT / "benchmarks/results"


def stage(work):
    """CPU seconds and MiB of work(), which returns 0 or nothing where it succeeds."""
    there, here = multiprocessing.Pipe()

    def measured():
        with contextlib.redirect_stdout(io.StringIO()):
            failed = work()
        seen = resource.getrusage(resource.RUSAGE_SELF)
        here.send((failed, seen.ru_utime + seen.ru_stime, seen.ru_maxrss / 1024))

    process = multiprocessing.get_context("fork").Process(target=measured)
    process.start()
    here.close()
    try:
        failed, seconds, mebibytes = there.recv()
    except EOFError:
        failed = True
    process.join()
    if failed:
        sys.exit("a stage failed, see above")
    return seconds, mebibytes


def script(module, *flags):
    return stage(lambda: run(module.main, lambda: module.get_args([str(f) for f in flags])))


def write_images(folder, count):
    """Noise with a bright bar in half of the images, and its masks; names of the images."""
    (folder / "train_images").mkdir(parents=True)
    rows, names = [], [f"{i:06d}.jpg" for i in range(count)]
    for i, name in enumerate(names):
        rng = np.random.default_rng(i)
        pixels = np.kron(rng.integers(60, 160, (16, 100), np.uint8), np.ones((16, 16), np.uint8))
        if i % 2:
            c = i // 2 % CLASSES
            mask = np.zeros(SIDES, bool)
            top, left = rng.integers(0, 200), rng.integers(0, 1400)
            mask[top:top + 12 * (c + 1), left:left + 150] = True
            pixels[mask] = 200 + 10 * c
            rows.append((name, c + 1, masks.rle_encode(mask)))
        Image.fromarray(pixels).save(folder / "train_images" / name, quality=90)
    write_csv(folder / "train.csv", ("ImageId", "ClassId", "EncodedPixels"), rows)
    return names


def commands(folder, count, size):
    """The folders of images and runs, the names of the images, the flags that all commands share,
    and those of a training."""
    data, runs = folder / f"data{count}", folder / f"runs{count}"
    names = write_images(data, count)
    machine = "--workers 0 --device cpu --batch-size 16".split()
    small = ["--weights", "none", "--size", *size, "--epochs", 1, "--fold", 0, *machine]
    return data, runs, names, machine, small


def train_classifier(data, runs, small):
    return script(train_cls, "--data", data, "--out", runs / "cls", "--folds", 2, *small)


def train_u_net(data, runs, small):
    return script(train_seg, "--data", data, "--masks", data / "train.csv", "--folds",
                  runs / "cls/folds.csv", "--out", runs / "seg", *small)


def measure(folder, count, size):
    """CPU seconds and MiB {stage: (s, MiB)} of the paper's stages for this many images."""
    data, runs, names, machine, small = commands(folder, count, size)
    maps = ("--data", data, "--cls", runs / "cls", "--out", runs / "masks", "--gate", "labels",
            "--no-aug-smooth", *machine)
    return {
        "checking the images": stage(lambda: inputs.scan(data / "train_images", names) and 0),
        "train_cls, 1 epoch of 1 fold": train_classifier(data, runs, small),
        "make_masks": script(make_masks, *maps),
        "make_masks --reuse-maps --search labels": script(make_masks, *maps, "--reuse-maps",
                                                          "--search", "labels"),
        "train_seg, 1 epoch of 1 fold": train_u_net(data, runs, small),
        "evaluate": script(evaluate, "--data", data, "--out", runs / "eval", "--missing", "skip",
                           f"masks={runs}/masks/masks.csv")}


def measure_methods(folder, count, size):
    """The same of the ways to masks that need no true mask. auto and seg use networks of one fold,
    so that they make masks for half of the images."""
    data, runs, _, machine, small = commands(folder, count, size)
    train_classifier(data, runs, small)
    train_u_net(data, runs, small)
    flags = {"contrast": (), "pixels": (), "auto": ("--cls", runs / "cls", "--no-aug-smooth"),
             "seg": ("--seg", runs / "seg")}
    return {f"make_masks --method {name}": script(
        make_masks, "--data", data, "--out", runs / f"by_{name}", "--method", name, *more, *machine)
        for name, more in flags.items()}


def markdown(found):
    """The table of docs/cost.md: seconds at each count, the ratio of the last two, and MiB."""
    counts = list(found)
    head = ["stage", *(f"{n} (s)" for n in counts), "last / one before",
            *(f"{n} (MiB)" for n in counts)]
    lines = [head, ["---"] * len(head)]
    for name in found[counts[0]]:
        seconds, mebibytes = zip(*(found[n][name] for n in counts), strict=True)
        lines.append([name, *(f"{s:.1f}" for s in seconds), f"{seconds[-1] / seconds[-2]:.2f}",
                      *(f"{m:.0f}" for m in mebibytes)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def get_args(argv=None):
    p = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--counts", type=int, nargs="+", default=[500, 1000, 2000, 4000])
    p.add_argument("--size", nargs=2, default=["32", "192"], help="of the input (default: 32 192)")
    p.add_argument("--methods", action="store_true",
                   help="measure the ways to masks from labels, in place of the paper's stages")
    p.add_argument("--out", type=Path, help="default: benchmarks/results/growth.json, or "
                   "growth_methods.json with --methods")
    return p.parse_args(argv)


def main(args):
    name = "growth_methods.json" if args.methods else "growth.json"
    out, work = args.out or RESULTS / name, measure_methods if args.methods else measure
    found = {}
    with tempfile.TemporaryDirectory() as tmp:
        for count in args.counts:
            found[str(count)] = work(Path(tmp), count, args.size)
            print(count, json.dumps(found[str(count)]), flush=True)
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("\n" + markdown(found))


if __name__ == "__main__":
    main(get_args())
