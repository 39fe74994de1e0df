"""What might better a classifier's maps, each against the same training without it.

    python benchmarks/levers.py --data tiles --out runs/levers --arch lite0 --weights lite0

Trains fold 0 once for each lever and scores two kinds of masks of its images, as Dice over present
pairs: Grad-CAM++ with the threshold that the labels choose, and --method auto. The levers:

none    as train_cls.py trains
os16    the last stride of the encoder is 1 and its later kernels are dilated, so that a map has
        1/16 of the input in each direction instead of 1/32
os8     likewise 1/8
mix     half of the training images are the mean with another image, and have the labels of both
erase   in half of the training images a rectangle of random place becomes the image's mean
lcn     each image becomes (x - G_20 * x) / (sqrt(G_20 * (x - G_20 * x)^2) + 4), x its grey value,
        times 40 plus 127.5
odd     each side of the input has one pixel more, where the strides of lite0 pad as its source does
"""

import argparse
import json
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))
import make_masks  # noqa: E402
import train_cls  # noqa: E402
from cam2seg import models
from cam2seg.data import dataset
from cam2seg.methods.contrast import blur
from cam2seg.report.tables import print_table

FIRST_STAGE = {16: 6, 8: 4}  # the stage whose stride of 2 is the first that is taken


def dilated(features, stride):
    """The same encoder with stride 16 or 8 at its end. A convolution keeps its field of view."""
    d = 1
    for conv in features[FIRST_STAGE[stride]:].modules():
        if isinstance(conv, torch.nn.Conv2d) and conv.kernel_size[0] > 1:
            conv.dilation, conv.padding = (d, d), tuple(d * p for p in conv.padding)
            if conv.stride == (2, 2):
                conv.stride, d = (1, 1), 2 * d
    return features


def even(image):
    """A Pillow image whose local mean and contrast are the same everywhere."""
    x = torch.from_numpy(np.array(image.convert("L"), np.float32))
    d = x - blur(x, 20)
    v = 127.5 + 40 * d / (blur(d * d, 20).sqrt() + 4)
    return Image.fromarray(v.clamp(0, 255).byte().numpy()).convert("RGB")


def mixed(images, item, image, target, rng):
    other, labels = GET(images, (int(rng.choice(images.shown)), item[1]))
    return ((image.astype(np.uint16) + other) // 2).astype(np.uint8), np.maximum(target, labels)


def erased(images, item, image, target, rng):
    h, w = (int(part * side) for part, side in zip(rng.uniform(0.2, 0.45, 2), images.size))
    row, column = rng.integers(0, images.size[0] - h), rng.integers(0, images.size[1] - w)
    image[row:row + h, column:column + w] = image.mean(axis=(0, 1)).astype(np.uint8)
    return image, target


GET, OPEN, ENCODER = dataset.ImageSet.__getitem__, dataset.open_rgb, models.encoder
PLAN = train_cls.training_plan


def planned(args, labels, fold, *more):
    """The plan of train_cls.py, whose data set knows the rows that `mixed` may show."""
    plan = PLAN(args, labels, fold, *more)
    plan.dataset.shown = np.flatnonzero(fold != args.fold)
    return plan


def on_half_of_the_training_images(change):
    """ImageSet.__getitem__ with change(...) for random images of an epoch."""
    def get(images, item):
        image, target = GET(images, item)
        if item[1] is None:
            return image, target
        rng = np.random.default_rng((7, item[1], item[0]))
        return change(images, item, image, target, rng) if rng.random() < 0.5 else (image, target)
    return get


LEVERS = {"none": (train_cls, "training_plan", PLAN), "odd": (train_cls, "training_plan", PLAN),
          **{f"os{n}": (models, "encoder", lambda *a, n=n, **k: dilated(ENCODER(*a, **k), n))
             for n in FIRST_STAGE},
          "lcn": (dataset, "open_rgb", lambda path: even(OPEN(path))),
          "mix": (dataset.ImageSet, "__getitem__", on_half_of_the_training_images(mixed)),
          "erase": (dataset.ImageSet, "__getitem__", on_half_of_the_training_images(erased))}


def call(script, *flags):
    script.main(script.get_args([str(f) for f in flags]))


def scores(args, name):
    """ROC-AUC (C,) of one lever, and Dice over present pairs (C,) of both kinds of masks."""
    out, size = args.out / name, [side + (name == "odd") for side in args.size]
    data = ("--data", args.data, "--overwrite", "--workers", args.workers)
    with patch.object(train_cls, "training_plan", planned), patch.object(*LEVERS[name]):
        call(train_cls, *data, "--out", out / "cls", "--arch", args.arch, "--weights", args.weights,
             "--size", *size, "--folds", 3, "--fold", 0, "--epochs", args.epochs, "--batch-size",
             16, "--vflip", "--seed", args.seed)
        for method, *more in (("gradcam++", "--gate", "labels", "--search", "labels"), ("auto",)):
            call(make_masks, *data, "--cls", out / "cls", "--out", out / method, "--method", method,
                 "--no-aug-smooth", "--batch-size", 8, *more)
    table = [json.loads((out / run / "metrics.json").read_text()) for run in
             ("cls", "gradcam++", "auto")]
    return [next(r["roc_auc"] for r in table[0]["table1"] if "SWA" in r["model"]),
            *(t["table2"][-1]["scores"]["dice_present"][0] for t in table[1:])]


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--levers", nargs="+", default=list(LEVERS), choices=LEVERS)
    p.add_argument("--arch", default="lite0")
    p.add_argument("--weights", default="lite0")
    p.add_argument("--size", type=int, nargs=2, default=(160, 160))
    p.add_argument("--epochs", type=int, default=6)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--workers", type=int, default=0)
    args = p.parse_args()
    for name in args.levers:
        auc, maps, auto = scores(args, name)
        row = {"lever": name, "roc_auc": auc, "gradcam++": maps, "auto": auto}
        with open(args.out / "levers.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({**row, "args": {k: str(v) for k, v in vars(args).items()}})
                       + "\n")
        print_table(f"{name}: fold 0, mean over classes", ["ROC-AUC", "Grad-CAM++", "auto"],
                    [[float(np.mean(v)) for v in (auc, maps, auto)]])


if __name__ == "__main__":
    main()
