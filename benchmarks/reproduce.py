"""The rows of the paper's Tables 1 to 3, paper and measured side by side.

    python benchmarks/reproduce.py --data severstal --out runs/severstal [--dry-run]

--data is Kaggle's folder (train.csv, train_images/): every row runs with the paper's settings. On
other data in that layout the same commands run at a size that fits two cores (--small). --dry-run
lists the commands and what each costs on this machine, from a few timed steps. A run that was
stopped goes on where it was. Every argument is kept in args.json of each folder; the tables also go
to --out, as tables.md and tables.json.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
import make_masks  # noqa: E402
import train_cls  # noqa: E402
import train_seg  # noqa: E402
from cam2seg import metrics  # noqa: E402
from cam2seg.data.images import default_size, open_image  # noqa: E402
from cam2seg.data.labels import read_labels  # noqa: E402
from cam2seg.report.tables import print_table  # noqa: E402
from cam2seg.runs.exits import run  # noqa: E402
from cam2seg.runs.folder import read_json, write_json  # noqa: E402
from cam2seg.training.devices import pick_device  # noqa: E402

SMALL = {"train_cls": "--weights none --lr-encoder 1e-3 --size 96 96 --epochs 3 --folds 2",
         "train_seg": "--weights none --lr-encoder 1e-3 --size 96 96 --epochs 2"}
TABLE1 = [("b0 + HFlip", "b0", (0.9938, 0.9917, 0.9886, 0.9974)),
          ("b3 + HFlip + VFlip", "b3_hv", (0.9970, 0.9932, 0.9932, 0.9962)),
          ("b3 + HFlip", "b3_h", (0.9970, 0.995, 0.9921, 0.9960))]
TABLE2 = [("Grad-CAM, b0", "t2_1", 0.382956), ("Grad-CAM++, b0", "t2_2", 0.440810),
          ("Grad-CAM++ + SWA + aug smooth, b0", "t2_3", 0.452208),
          ("the same, b3, HFlip + VFlip", "t2_4", 0.379971),
          ("the same, b3, HFlip", "t2_5", 0.386530),
          ("as row 3, 0.5 / 0 / 0.3", "t2_6", 0.465)]
TABLE3 = [("Grad-CAM + improvements", "maps", 0.465), ("U-Net on true masks", "unet_true", 0.621),
          ("U-Net on Grad-CAM masks", "unet", 0.418)]


def commands(folder, runs, small=False):
    """[(script, flags)] of every row, in order; AUDIT.md, section 2.4 lists the same."""
    plain = "--checkpoint best --no-aug-smooth --search"
    truth = f"--masks {folder}/train.csv"
    listed = [
        ("train_cls", f"--arch b0 --out {runs}/b0"),
        ("train_cls", f"--arch b3 --vflip --out {runs}/b3_hv"),
        ("train_cls", f"--arch b3 --out {runs}/b3_h"),
        ("make_masks", f"--cls {runs}/b0 --out {runs}/t2_1 --method gradcam {plain}"),
        ("make_masks", f"--cls {runs}/b0 --out {runs}/t2_2 --method gradcam++ {plain}"),
        ("make_masks", f"--cls {runs}/b0 --out {runs}/t2_3 --search"),
        ("make_masks", f"--cls {runs}/b3_hv --out {runs}/t2_4 --search"),
        ("make_masks", f"--cls {runs}/b3_h --out {runs}/t2_5 --search"),
        ("make_masks", f"--cls {runs}/b0 --out {runs}/t2_6 --confidence 0.5 --min-seg-len 0 "
                       "--threshold 0.3"),
        ("train_seg", f"{truth} --folds {runs}/b0/folds.csv --out {runs}/seg_true"),
        ("train_seg", f"--masks {runs}/t2_6/masks.csv --folds {runs}/b0/folds.csv "
                      f"--out {runs}/seg"),
        ("evaluate", f"--folds {runs}/b0/folds.csv --out {runs}/eval maps={runs}/t2_6/masks.csv "
                     f"unet_true={runs}/seg_true/oof_masks.csv unet={runs}/seg/oof_masks.csv")]
    return [(script, shlex.split(f"--data {folder} {flags} {SMALL.get(script, '') * small}"))
            for script, flags in listed]


def seconds_per_image(script, args, size, classes):
    """Of a forward and a backward, or of six views with a map of each class; batches of 4."""
    import torch

    from cam2seg import cam, models
    device = pick_device("auto")
    kind = models.UNet if script == "train_seg" else models.Classifier
    model = kind(args.arch, classes).to(device, memory_format=torch.channels_last)
    x = torch.randn(4, 3, *size, device=device).to(memory_format=torch.channels_last)

    def step():
        if script == "make_masks":
            cam.aug_smooth(lambda v: cam.class_maps(model, v, model.target_layer)[0], x)
        else:
            model(x).square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()

    step()
    before = time.perf_counter()
    step()
    step()
    return (time.perf_counter() - before) / 2 / len(x)


def costs(listed, count, size, classes):
    """[(image passes, seconds)] of each command."""
    parsed = [getattr({"train_cls": train_cls, "make_masks": make_masks, "train_seg": train_seg}
                      .get(script), "get_args", lambda flags: None)(flags)
              for script, flags in listed]
    of_run = {str(a.out): a for (script, _), a in zip(listed, parsed, strict=True)
              if script == "train_cls"}
    known, out = {}, []
    for (script, _), args in zip(listed, parsed, strict=True):
        if script == "evaluate":
            out.append((count, None))
            continue
        folds = of_run[str(args.folds.parent)].folds if script == "train_seg" else \
            args.folds if script == "train_cls" else 0
        trained = of_run[str(args.cls)] if script == "make_masks" else args
        views = 6 if script == "make_masks" and args.aug_smooth else 1
        passes = count * (folds - 1) * args.epochs if folds else count * views
        key = script, trained.arch
        if key not in known:
            known[key] = seconds_per_image(script, trained, trained.size or size, classes)
        out.append((passes, passes * known[key] / (6 if script == "make_masks" else 1)))
    return out


def show_costs(listed, count, size, classes):
    total = 0.0
    for (script, flags), (passes, seconds) in zip(
            listed, costs(listed, count, size, classes), strict=True):
        total += seconds or 0
        cost = f"{passes} images" + (f", {seconds / 3600:.2f} h" if seconds else "")
        print(f"python {script}.py {shlex.join(flags)}\n    # {cost}")
    print(f"\nabout {total / 3600:.1f} h on this machine, by timed steps of 4 images; reading, "
          "validation, SWA and search come on top")


def measured(runs):
    """Rows (title, paper, measured...) of the three tables, by metrics.json of each run."""
    def read(name):
        return json.loads((runs / name / "metrics.json").read_text(encoding="utf-8"))

    def row(title, paper, scores):
        return [title, paper, *(scores[s][1] for s in metrics.SCORES[:4])]

    one, two, three = [], [], []
    for title, name, paper in TABLE1:
        found = [r for r in read(name)["table1"] if "best epoch" in r["model"]][-1]
        one += [[f"{title}: paper", *paper], [f"{title}: measured", *found["roc_auc"]]]
    for title, name, paper in TABLE2:
        results = read(name)["table2"]
        for r in results:
            which = "" if r["masks"] == "masks" else f" ({r['masks']})"
            two.append(row(title + which, paper, r["scores"]))
    two.insert(0, row("nothing predicted", None, results[0]["all_empty"]))
    scores = read("eval")["masks"]
    three.append(row("nothing predicted", None, scores["nothing predicted"]["scores"]))
    three += [row(title, paper, scores[name]["scores"]) for title, name, paper in TABLE3]
    return one, two, three


def write_tables(runs, listed, small, classes):
    one, two, three = measured(runs)
    width = max(len(r) for r in one)
    one = [r + [None] * (width - len(r)) for r in one]
    dice = ["experiment", "paper", *metrics.SCORES[:4]]
    tables = [("Table 1: ROC-AUC, out-of-fold union, best epoch, images with a defect",
               ["model", *(f"class {c + 1}" for c in range(width - 1))], one),
              ("Table 2: Dice, out-of-fold union", dice, two),
              ("Table 3: Dice, out-of-fold union", dice, three)]
    notes = ["dice_pairs: [P-6] as printed, absent-and-not-predicted counts 1. dice_present: pairs "
             "that have a true mask. dice_dataset: all pixels of a class together. Which of them "
             "the paper's column is, it does not say (DEV-9).",
             "Rows 3 and 6 are the same masks: the paper does not say how they differ (DEV-25). "
             "masks: 0.5 / 0 / 0.3; masks_union: searched on the union; masks_crossfit: on the "
             "other folds (DEV-10)."]
    if small:
        notes.insert(0, "Not the paper's data or settings: the paper's column is shown for its "
                        f"place, not for comparison. Classes: {', '.join(classes)}.")
    lines = notes + [""]
    for title, header, rows in tables:
        print_table(title, header, rows)
        cells = [header, ["---"] * len(header), *([cell(v) for v in r] for r in rows)]
        lines += [f"**{title}**", "", *(f"| {' | '.join(r)} |" for r in cells), ""]
    said = [f"python {script}.py {shlex.join(flags)}" for script, flags in listed]
    (runs / "tables.md").write_text("\n".join([*lines, "```", *said, "```", ""]), encoding="utf-8")
    write_json(runs / "tables.json", {
        "small": small, "commands": said, "tables": {t: [h, *rows] for t, h, rows in tables},
        "args": {p.parent.name: read_json(p) for p in sorted(runs.glob("*/args.json"))}})
    print("\n" + "\n".join(notes) + f"\nwritten: {runs}/tables.md, {runs}/tables.json")


def cell(value):
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def get_args(argv=None):
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, help="folder with train.csv, train_images/")
    p.add_argument("--out", type=Path, default=Path("runs/severstal"), help="folder of the runs")
    p.add_argument("--small", action=argparse.BooleanOptionalAction,
                   help="settings for two cores (default: unless the data are Severstal's)")
    p.add_argument("--dry-run", action="store_true", help="list the commands and their cost")
    return p.parse_args(argv)


def main(args):
    folder = args.data / "train_images"
    labels = read_labels(args.data / "train.csv", folder)
    size = open_image(folder / labels.names[0]).shape[:2]
    severstal = size == (256, 1600) and len(labels.classes) == 4
    small = not severstal if args.small is None else args.small
    listed = commands(args.data, args.out, small)
    print(f"{len(labels.names)} images, settings {'for two cores' if small else 'of the paper'}\n",
          flush=True)
    if args.dry_run:
        show_costs(listed, len(labels.names), default_size(size), len(labels.classes))
        return 0
    for script, flags in listed:
        print(f"\npython {script}.py {shlex.join(flags)}", flush=True)
        again = "--overwrite" if script == "evaluate" else "--resume"
        done = subprocess.run([sys.executable, ROOT / f"{script}.py", *flags, again])
        if done.returncode:
            return done.returncode
    write_tables(args.out, listed, small, labels.classes)
    return 0


if __name__ == "__main__":
    status = []
    sys.exit(run(lambda args: status.append(main(args)), get_args) or status[0])
