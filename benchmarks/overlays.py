"""Paint masks of several files over the same images, side by side, for the pages of docs/.

    python benchmarks/overlays.py --data neu --out docs/neu.png --by unet \\
        contrast=runs/contrast/masks.csv unet=runs/seg_contrast/oof_masks.csv

Each row is one image that all files name: the image, its true masks, and the masks of each file, in
the colours of the classes. The rows lie evenly between the best and the worst image, by the mean
Dice of --by over the classes that an image has.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))
from cam2seg import masks, metrics  # noqa: E402
from cam2seg.data.labels import read_masks  # noqa: E402
from cam2seg.report import pictures  # noqa: E402


def get_args(argv=None):
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--data", type=Path, required=True, help="folder with train_images/, train.csv")
    p.add_argument("--out", type=Path, required=True, help="PNG to write")
    p.add_argument("--by", required=True, help="NAME whose Dice ranks the images")
    p.add_argument("--rows", type=int, default=6, help="images to paint")
    p.add_argument("--width", type=int, default=160, help="longer side of each picture, in pixels")
    p.add_argument("files", nargs="+", metavar="NAME=CSV")
    return p.parse_args(argv)


def spread(scores: np.ndarray, rows: int) -> np.ndarray:
    """Indices of `rows` images between the highest and the lowest score, evenly by rank."""
    order = np.argsort(-scores, kind="stable")
    ranks = (np.arange(rows) + 0.5) / rows * len(order)  # the middle of each of `rows` equal parts
    return order[ranks.astype(int)]


def main(args):
    truth = read_masks(args.data / "train.csv")
    given = {name: read_masks(path, classes=truth.classes)
             for name, path in (text.split("=", 1) for text in args.files)}
    names = [n for n in truth.names if any((n, c) in truth.rles for c in range(len(truth.classes)))
             and all(n in found.names for found in given.values())]
    images = args.data / "train_images"
    sizes = {n: Image.open(images / n).size[::-1] for n in names}
    inter, t, p = metrics.mask_counts(names, truth.rles, given[args.by].rles, sizes,
                                      len(truth.classes))
    dice = np.where(t > 0, 2 * inter / np.maximum(t + p, 1), np.nan)  # (N, C)
    scores = np.nanmean(dice, axis=1)
    rows = []
    for i in spread(scores, args.rows):
        name = names[i]
        photo = np.array(Image.open(images / name).convert("RGB"))
        painted = [pictures.paint(photo, masks.decode_all(found.rles, name, sizes[name],
                                                          len(truth.classes)))
                   for found in (truth, *given.values())]
        rows.append((f"{name}  {args.by} {scores[i]:.2f}", [photo, *painted]))
    colours = ", ".join(f"{k} {colour}" for k, colour in zip(truth.classes, pictures.COLOUR_NAMES,
                                                            strict=False))
    pictures.contact_sheet(args.out, colours, ("image", "true masks", *given), rows, args.width)


if __name__ == "__main__":
    main(get_args())
