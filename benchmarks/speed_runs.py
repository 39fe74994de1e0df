"""Rows of benchmarks/speed.py: make_masks.py with all its stages, beside its bare forwards."""

import contextlib
import io
import shutil
import tempfile
from pathlib import Path

import torch
from speed import clock_of, in_turn, row

import make_masks
import train_cls
from cam2seg import models
from cam2seg.data.csv_files import read_csv, write_csv
from cam2seg.demo import strips
from cam2seg.training.inference import prepared

SIDE, VIEWS, BATCH = 128, 6, 64


def call(script, *flags):
    with contextlib.redirect_stdout(io.StringIO()):
        script.main(script.get_args([str(f) for f in flags]))


def first_images(data, count, folder):
    """A folder in Severstal's layout with the first images that the masks of another name."""
    header, found = read_csv(data / "train.csv")
    names = sorted({r["ImageId"] for _, r in found})[:count]
    (folder / "train_images").mkdir(parents=True)
    for name in names:
        shutil.copy(data / "train_images" / name, folder / "train_images")
    write_csv(folder / "train.csv", header, [list(r.values()) for _, r in found
                                             if r["ImageId"] in set(names)])
    return len(names)


def rows(args):
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        data, drawn = tmp / "data", args.data is None
        if drawn:
            strips.write(tmp / "drawn", args.images, (128, 256))
        count = first_images(tmp / "drawn" if drawn else args.data, args.images, data)
        common = ("--data", data, "--workers", 0, "--device", args.device, "--overwrite")
        call(train_cls, *common, "--out", tmp / "cls", "--weights", "none", "--size", SIDE, SIDE,
             "--folds", 2, "--epochs", 1, "--batch-size", 16)
        model = prepared(models.Classifier("b0", 3), args.device)
        x = torch.randn(BATCH, 3, SIDE, SIDE).to(args.device, memory_format=torch.channels_last)

        def forwards():
            with torch.no_grad():
                for _ in range(VIEWS):
                    for start in range(0, count, BATCH):
                        model(x[:count - start])

        s = in_turn({"script": lambda: call(make_masks, *common, "--cls", tmp / "cls", "--out",
                                            tmp / "masks", "--batch-size", BATCH),
                     "forwards": forwards}, args.rounds, clock_of(args.device))
    what = "drawn strips" if drawn else args.data.name
    return [row(f"make_masks.py on {count} images of {what}, {SIDE} x {SIDE}, six views, all stages",
                "its bare forwards", s["script"], s["forwards"], 1.25)]
