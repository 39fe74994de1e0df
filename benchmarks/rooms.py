"""What pre-training on HN labels gives where few images have masks, on generated rooms.

    python benchmarks/rooms.py --out runs/rooms

Once: draw rooms without masks (colours and depth), make their HN labels (make_masks.py --method
depth) and train a U-Net on them. A run that is in --out already is taken. For each seed: draw a few
rooms with masks and some to test on, train on the few masks with that encoder (--init) and from
random weights, alike in all else, and mask the test rooms. With --imagenet a third network starts
from a file of weights (--weights), as the lite0 package has them for --arch lite0. The scores are
over the test rooms that show something, by true masks that nothing else looks at. The labelled
rooms are in two parts: one is trained on, and the other chooses the epoch.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
import make_masks  # noqa: E402
import train_seg  # noqa: E402
from cam2seg import metrics
from cam2seg.data import labels
from cam2seg.data.csv_files import write_csv
from cam2seg.demo import rooms
from cam2seg.report.tables import print_table


def call(script, *flags):
    script.main(script.get_args([str(f) for f in flags]))


def flags_of(args, seed):
    """The flags that all networks are trained with."""
    return ("--arch", args.arch, "--size", *args.size, "--batch-size", args.batch_size,
            "--lr-encoder", args.lr, "--lr-decoder", args.lr, "--loss", "bce+dice", "--schedule",
            "cosine", "--workers", 0, "--device", "cpu", "--seed", seed)


def pretrain(args):
    """Draw rooms, make their HN labels and train on them; return the folder of that run."""
    rooms.write(args.out / "unlabelled", args.unlabelled, args.size, 0, "u")
    images, hn, run = args.out / "unlabelled/train_images", args.out / "hn", args.out / "pretrained"
    call(make_masks, "--images", images, "--method", "depth", "--depth",
         args.out / "unlabelled/depth", "--camera", *rooms.camera_of(args.size), "--normal-radius",
         *args.normal_radius, "--out", hn, "--cls", args.out / "none")
    call(train_seg, "--images", images, "--masks", hn / "masks.csv", "--ignore", hn / "ignore.csv",
         "--folds", hn / "folds.csv", "--fold", 0, "--out", run, "--weights", "none",
         "--epochs", args.pretrain_epochs, *flags_of(args, 0))


def scores(folder, found, size):
    """Dice over present pairs of each kind and of all pairs, and over the data set, on the test."""
    test = folder / "test"
    truth = labels.read_masks(test / "train.csv", test / "train_images")
    masks = labels.read_masks(found, test / "train_images", truth.classes)
    shown = [n for n, y in zip(truth.names, truth.y.any(axis=1), strict=True) if y]
    counts = metrics.mask_counts(shown, truth.rles, masks.rles, dict.fromkeys(
        truth.names, tuple(size)), len(truth.classes))
    said = metrics.mask_scores(*counts)
    return {"classes": truth.classes, "rooms": len(shown),
            "dice_present": said["dice_present"], "dice_dataset": said["dice_dataset"]}


def one_seed(args, seed):
    """{arm: scores} of one seed."""
    folder = args.out / f"seed{seed}"
    arms = {"random weights": ("--weights", "none"),
            "HN labels": ("--init", args.out / "pretrained")}
    if args.imagenet:
        arms["ImageNet"] = ("--weights", args.imagenet)
    rooms.write(folder / "labelled", args.labelled + args.choosing, args.size, 2 * seed + 1, "l")
    rooms.write(folder / "test", args.test, args.size, 2 * seed + 2, "t")
    images = sorted(p.name for p in (folder / "labelled/train_images").iterdir())
    write_csv(folder / "folds.csv", ("ImageId", "fold"),
              [(n, int(i < args.labelled)) for i, n in enumerate(images)])
    result = {}
    for arm, start in arms.items():
        run = folder / arm.replace(" ", "_")
        call(train_seg, "--images", folder / "labelled/train_images", "--masks",
             folder / "labelled/train.csv", "--folds", folder / "folds.csv", "--fold", 0, "--out",
             run, *start, "--epochs", args.epochs, "--threshold", 0.5, "--predict",
             folder / "test/train_images", *flags_of(args, seed))
        result[arm] = scores(folder, run / "new_masks.csv", args.size)
    if not args.keep:
        shutil.rmtree(folder)
    return result


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    p.add_argument("--unlabelled", type=int, default=200)
    p.add_argument("--labelled", type=int, default=16)
    p.add_argument("--choosing", type=int, default=8, help="rooms that choose the epoch")
    p.add_argument("--test", type=int, default=60)
    p.add_argument("--size", type=int, nargs=2, default=(64, 64))
    p.add_argument("--normal-radius", type=int, nargs=2, default=(1, 5))
    p.add_argument("--pretrain-epochs", type=int, default=16)
    p.add_argument("--epochs", type=int, default=40)
    p.add_argument("--batch-size", type=int, default=8)
    p.add_argument("--lr", type=float, default=3e-3)
    p.add_argument("--arch", default="b0")
    p.add_argument("--imagenet", help="file of weights for a third network")
    p.add_argument("--keep", action="store_true", help="keep the images and the networks")
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if not (args.out / "pretrained/oof_masks.csv").exists():
        pretrain(args)
    rows = []
    for seed in args.seeds:
        result = one_seed(args, seed)
        rows.append(result)
        with open(args.out / "rooms.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"seed": seed, "scores": result, "args": {
                k: str(v) for k, v in vars(args).items()}}) + "\n")
        print_table(f"rooms, seed {seed}", ["start", "Dice present", "Dice data set"],
                    [[arm, r["dice_present"][1], r["dice_dataset"][1]]
                     for arm, r in result.items()])
    table = []
    for arm in rows[0]:
        both = np.array([[r[arm][key][1] for key in ("dice_present", "dice_dataset")]
                         for r in rows])
        table.append([arm, *np.stack([both.mean(axis=0), both.std(axis=0)], axis=1).ravel()])
    print_table("rooms, mean and deviation over seeds",
                ["start", "Dice present", "+-", "Dice data set", "+-"], table)


if __name__ == "__main__":
    main()
