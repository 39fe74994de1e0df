"""What the four scripts share: flags, input files, tables and one-line errors.

Nothing here imports torch, so that arguments and input files are checked at once.
"""

import argparse
import ctypes
import os
import re
import signal
import sys
import warnings
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path

from . import data, images, process, rundir
from .data import DataError
from .tables import one_line


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows a default where there is one to show."""

    def _get_help_string(self, action):
        if action.default is None or action.default is False or "(default" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a flag in one line, as with a file."""

    def error(self, message):
        self.exit(2, f"error: {one_line(message)}; --help shows the flags\n")


def parser(doc):
    return Parser(description=doc, allow_abbrev=False, formatter_class=Help)


def add_data(p, labels="a CSV of labels or masks, or a folder with a subfolder per class"):
    p.add_argument("--data", type=Path, help="folder with train_images/ and train.csv")
    p.add_argument("--images", type=Path, help="folder of images, instead of train_images/")
    p.add_argument("--labels", type=Path, help=labels + ", instead of train.csv")


def add_training(p, epochs, batch_size, batch_source):
    p.add_argument("--size", type=positive, nargs=2, metavar=("H", "W"),
                   help="size of the network's input, DEV-12 (default: that of the first image, "
                        "in multiples of 32)")
    p.add_argument("--hflip", action=argparse.BooleanOptionalAction, default=True,
                   help="random horizontal mirror, [P] IV")
    p.add_argument("--vflip", action=argparse.BooleanOptionalAction, default=False,
                   help="random vertical mirror, [P] IV")
    p.add_argument("--epochs", type=positive, default=epochs, help="DEV-12")
    p.add_argument("--batch-size", type=positive, default=batch_size, help=batch_source)
    p.add_argument("--fold", type=natural,
                   help="train this fold only, counted from 0 (default: all)")
    add_machine(p)
    p.add_argument("--seed", type=natural, default=0, help="DEV-12")
    p.add_argument("--resume", action="store_true", help="go on with the run in --out")


def add_machine(p):
    p.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    p.add_argument("--workers", type=natural, default=max(1, min(8, (os.cpu_count() or 1) - 1)),
                   help="processes that read images")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    p.add_argument("--amp", action="store_true", help="bfloat16 autocast, on CUDA and CPU")


def natural(text, least=0):
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"{text}: expected {least} or more")
    return value


def positive(text):
    return natural(text, 1)


def share(text):
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a number from 0 to 1")
    return value


def rate(text):
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected a number from 0 up")
    return value


def image_dir(args):
    if args.images or args.data:
        return args.images or args.data / "train_images"
    if args.labels and args.labels.is_dir():
        return args.labels
    raise DataError("no images given: --data FOLDER (with train_images/ and train.csv) or --images "
                    "FOLDER; for embedded data: python -m cam2seg.synthetic data/demo, then --data "
                    "data/demo")


def label_path(args):
    """The label file, or None where neither --labels nor --data names one."""
    return args.labels or (args.data and args.data / "train.csv")


def load_data(args):
    """Labels and {name: (H, W)} of the images and labels named by the flags, all checked."""
    folder, path = image_dir(args), label_path(args)
    if path is None:
        raise DataError("no labels given: --labels CSV (or a folder with a subfolder per class)")
    labels = data.read_labels(path, folder)
    rows_of = {name: f"{path}, row {row}"  # reversed: the first row that names the image stays
               for (name, _), row in reversed(labels.rows.items()) if row}
    print(f"checking {len(labels.names)} images in {folder}", flush=True)
    sizes = images.scan(folder, labels.names, rows_of)
    if labels.rles is not None:
        data.check_masks(path, labels, sizes)
    return labels, sizes


def new_folds(args, labels):
    """Fold (N,) of the images: those of the run that goes on, or new ones, checked."""
    path = args.out / "folds.csv"
    if args.fold is not None and not 0 <= args.fold < args.folds:
        raise DataError(f"--fold {args.fold}: expected 0 to {args.folds - 1}")
    if args.folds < 2 or args.folds > len(labels.names):
        raise DataError(f"--folds {args.folds}: expected 2 to {len(labels.names)}, the images")
    if args.resume and (args.out / "args.json").exists():
        fold = folds_of(path, labels.names)
        if fold.max() >= args.folds:
            raise DataError(f"{path}: {labels.names[fold.argmax()]} in fold {fold.max()}, expected "
                            f"folds up to {args.folds - 1}")
        data.check_folds(path, labels, fold, args.folds)
        return fold
    fold = data.make_folds(labels.y, args.folds, args.seed)
    data.check_folds(label_path(args), labels, fold, args.folds)
    return fold


def folds_of(path, names):
    """Fold (N,) of the named images in a folds.csv; DataError for an image without one."""
    import numpy as np
    fold = data.read_folds(path)
    missing = [n for n in names if n not in fold]
    if missing:
        raise DataError(f"{path}: no fold for {len(missing)} of {len(names)} images, the first is "
                        f"{missing[0]}")
    return np.array([fold[n] for n in names])


def print_table(title, header, rows):
    """Columns as wide as they need; floats with 4 digits, None as a dash."""
    cells = [[str(h) for h in header]] + [[_cell(v) for v in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    print(f"\n{title}")
    for row in cells:
        print("  ".join(c.ljust(w) if i == 0 else c.rjust(w)
                        for i, (c, w) in enumerate(zip(row, widths, strict=True))))
    sys.stdout.flush()


def _cell(value):
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


@contextmanager
def explained(what):
    """Turn a ValueError of the package into the one-line error of a user's flag or file."""
    try:
        yield
    except ValueError as error:
        raise DataError(f"{what}: {error}") from error


def keep_freed_memory():
    """Let glibc keep large blocks that torch frees instead of unmapping and zeroing them anew in
    every step: faster on a CPU (make bench). Elsewhere there is nothing to set."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        for option, value in ((-1, 2**31 - 1), (-3, 2**30), (-4, 0)):  # trim, mmap from, mmaps
            libc.mallopt(option, value)
    except (OSError, AttributeError):
        return


def run(main, get_args):
    """Exit status of main(get_args()): 2 with one line on stderr for bad input, 130 and 143 for
    Ctrl-C and SIGTERM, 1 where another process of the run is gone."""
    keep_freed_memory()
    # Warnings about odd files, which are read or refused in one line.
    warnings.filterwarnings("ignore", module=r"PIL\.|torch\._weights_only")
    rank = process.given()[0]
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal cannot show is no error
            stream.reconfigure(errors="backslashreplace")
    try:
        with process.stopping(), open(os.devnull, "w") as nowhere:
            with redirect_stdout(nowhere) if rank else nullcontext():
                main(get_args())
        process.end()
    except (process.Stopped, KeyboardInterrupt) as stop:
        signum = getattr(stop, "signum", signal.SIGINT)
        if not rank:
            print(f"stopped by {signal.Signals(signum).name}; the same command with --resume goes "
                  "on from here", file=sys.stderr)
        return 128 + signum
    except process.Lost as error:
        print(f"error: {one_line(error)}; the same command with --resume goes on from the last "
              "epoch", file=sys.stderr)
        return 1
    except (RuntimeError, MemoryError) as error:
        text = one_line(error) or type(error).__name__
        if isinstance(error, RuntimeError) and not re.search("DataLoader worker|out of memory|"
                                                             "shared memory", text):
            raise
        print(f"error: {text}; fewer --workers or a smaller --batch-size may help, --resume goes "
              "on from the last epoch", file=sys.stderr)
        return 1
    except (ValueError, FloatingPointError, OSError) as error:
        if isinstance(error, ValueError) and not _is_said(error):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    finally:
        rundir.unlock()
    return 0


def _is_said(error):
    """Whether a ValueError is meant for the user."""
    if isinstance(error, DataError):
        return True
    from .checkpoints import CheckpointError
    return isinstance(error, CheckpointError)
