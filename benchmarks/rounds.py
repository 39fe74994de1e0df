"""Rounds of pseudo-labels on NEU: what entropy, confidence and no selection at all are worth.

    python benchmarks/rounds.py --data neu --out runs/rounds

Round 0 is a U-Net on masks by contrast. In round 1 the U-Nets of two folds label the images that
they have not seen (make_masks.py --method seg), and new U-Nets are trained on these labels, once
for each --select. In round 2 the U-Nets of round 1 do the same. One image of each picture is taken,
because the others are its turned or mirrored copies. True masks only score. Prints a table and
writes --out/rounds.json; folders that are there are not made again.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from cam2seg import masks as cam2seg_masks  # noqa: E402
from cam2seg import metrics  # noqa: E402
from cam2seg.data import copies, image_folder, images, labels  # noqa: E402
from cam2seg.data.csv_files import write_csv  # noqa: E402
from cam2seg.report.tables import print_table  # noqa: E402
from cam2seg.runs.folder import write_json  # noqa: E402
from cam2seg.training import work  # noqa: E402

FOLDS = 2
COLUMNS = ["round", "--select", "left out", "Dice of masks", "Dice of U-Net", "labels told"]


def one_of_each_picture(args):
    """Write labels.csv and folds.csv of one image of each picture: image n has fold n % FOLDS.

    labels.csv holds no mask. Returns the images' names and their labels (N, C).
    """
    names = image_folder.list_images(args.data / "train_images")
    seen = images.scan(args.data / "train_images", names)
    group = copies.find_copies(np.stack([copies.from_bytes(seen[n][1]) for n in names]))
    names = [names[i] for i in np.unique(group, return_index=True)[1]]
    if args.images:
        names = [names[i] for i in np.linspace(0, len(names) - 1, args.images).round().astype(int)]
    given = labels.read_masks(args.data / "train.csv", args.data / "train_images")
    y = np.array([[(n, c) in given.rles for c in range(len(given.classes))] for n in names])
    args.out.mkdir(parents=True, exist_ok=True)
    write_csv(args.out / "labels.csv", ("ImageId", *given.classes),
              ([n, *map(int, row)] for n, row in zip(names, y, strict=True)))
    write_csv(args.out / "folds.csv", ("ImageId", "fold"),
              ([n, i % FOLDS] for i, n in enumerate(names)))
    return names, y, given


def script(name, args, out, *flags):
    """Run one of the four scripts into the folder args.out / out, unless it has been run."""
    if not (args.out / out / "metrics.json").exists():
        folder = args.data / "train_images"
        command = [sys.executable, f"{name}.py", "--images", folder, "--out", args.out / out,
                   "--workers", "0", *flags]
        print("$", *command, flush=True)
        subprocess.run(list(map(str, command)), check=True, cwd=ROOT)


def u_net(args, masks, out):
    """Train the U-Nets of both folds on the masks in one folder, from labels alone."""
    script("train_seg", args, out, "--labels", args.out / "labels.csv",
           "--masks", args.out / masks / "masks.csv", "--ignore", args.out / masks / "ignore.csv",
           "--folds", args.out / "folds.csv", "--weights", "none", "--size", "128", "128",
           "--lr-encoder", "2e-3", "--lr-decoder", "2e-3", "--vflip", "--schedule", "cosine",
           "--batch-size", str(args.batch_size), "--epochs", str(args.epochs), "--resume",
           *(("--target", "multiclass") if args.target == "multiclass" else
             ("--loss", "bce+dice", "--threshold", "0.5")))


def scores(args, known, masks, net, title):
    """One row of the table: what is left out, both Dice over present pairs, mean AUC of [C-27]."""
    names, y, given = known
    sizes = {n: s for n, (s, *_) in images.scan(args.data / "train_images", names).items()}
    count = len(given.classes)

    def rles(path):
        return labels.read_masks(path, args.data / "train_images", given.classes).rles

    def dice(found):
        return metrics.mask_scores(*metrics.mask_counts(names, given.rles, found, sizes, count)
                                   )["dice_present"][1]

    ignored = rles(args.out / masks / "ignore.csv")
    pairs = [(n, c) for n, row in zip(names, y, strict=True) for c in np.flatnonzero(row)]
    left = np.mean([cam2seg_masks.rle_decode(ignored.get((n, c), ""), sizes[n]).mean()
                    for n, c in pairs])
    told = [a for a in work.label_auc(args.out / net / "oof.csv", names, y, given.classes)
            if a is not None]
    return [*title, float(left), dice(rles(args.out / masks / "masks.csv")),
            dice(rles(args.out / net / "oof_masks.csv")), float(np.mean(told))]


def main(args):
    known = one_of_each_picture(args)
    script("make_masks", args, "round0", "--labels", args.out / "labels.csv",
           "--method", "contrast")
    u_net(args, "round0", "seg0")
    rows = [scores(args, known, "round0", "seg0", (0, "contrast"))]
    for n in range(1, args.rounds + 1):
        for select in ("entropy", "confidence", "all"):
            last = "seg0" if n == 1 else f"seg{n - 1}_{select}"
            masks, net = f"round{n}_{select}", f"seg{n}_{select}"
            script("make_masks", args, masks, "--labels", args.out / "labels.csv", "--method",
                   "seg", "--seg", args.out / last, "--select", select)
            u_net(args, masks, net)
            rows.append(scores(args, known, masks, net, (n, select)))
            print_table("Dice over present pairs, mean ROC-AUC of the labels [C-27]", COLUMNS, rows)
            write_json(args.out / "rounds.json", {"images": len(known[0]), "columns": COLUMNS,
                                                  "rows": rows})


def get_args(argv=None):
    p = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True)
    p.add_argument("--out", type=Path, default=Path("runs/rounds"))
    p.add_argument("--rounds", type=int, default=2, help="default: 2")
    p.add_argument("--epochs", type=int, default=6, help="of each U-Net (default: 6)")
    p.add_argument("--batch-size", type=int, default=8, help="of each U-Net (default: 8)")
    p.add_argument("--target", default="multilabel", choices=("multilabel", "multiclass"),
                   help="a sigmoid for each class, or one softmax (default: multilabel)")
    p.add_argument("--images", type=int, help="this many pictures, evenly spaced (default: all)")
    args = p.parse_args(argv)
    args.data, args.out = args.data.resolve(), args.out.resolve()
    return args


if __name__ == "__main__":
    main(get_args())
