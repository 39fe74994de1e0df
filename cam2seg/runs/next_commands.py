"""What each of the four scripts says at its end: what it has written, and what to look at and type
next.

`args` are the flags of the script, and `defaults` those of a call without any: a command names the
flags that differ. `work` is the script's Work.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..data import folds
from . import endings, folder, inputs
from .endings import Ending


def after_train_cls(args: argparse.Namespace, defaults: argparse.Namespace, fold: np.ndarray,
                    size: Sequence[int], table: Sequence[dict]) -> Ending:
    """The next command of train_cls.py is another fold, or masks.

    fold: int (N,), the folds of the images; size: (H, W) of the network's input; table: the rows of
    Table 1.
    """
    own = endings.given(args, defaults) | ({"seam": True} if "seam" in args else {})
    done = folder.fold_files(args.out, "oof.csv")
    left = sorted(set(fold.tolist()) - set(done))
    auc = next(r["mean"] for r in table[::-1] if r["model"].endswith("all images"))
    said = "no mean ROC-AUC" if auc is None else f"mean ROC-AUC {auc:.4f}"
    result = endings.wrote(args.out, f"{said} on {table[0]['images']} held-out images")
    if left:
        following = {**own, "overwrite": False, "fold": left[0], "resume": True}
        return Ending(result, (f"next: {endings.command('train_cls', following)}",))
    masks = {"cls": args.out, "out": endings.unused(args.out.parent / "masks"), "gate": "labels",
             "search": "labels", "review": 20}
    if max(size) <= 32 and "seam" not in args:  # one cell makes no mask (DEV-35)
        masks["target_layer"] = "features.5"
    shared = {k: own[k] for k in (*endings.DATA, *endings.MACHINE, "batch_size") if k in own}
    then = [f"next: {endings.command('make_masks', shared | masks)}"]
    if "seam" not in args and "target_layer" not in masks:
        auto = {"cls": args.out, "out": endings.unused(args.out.parent / "auto"), "method": "auto",
                "review": 20}
        then.append("or, as the labels choose for each class: "
                    + endings.command("make_masks", shared | auto))
    return Ending(result, tuple(then))


def after_make_masks(args: argparse.Namespace, defaults: argparse.Namespace, work: Any,
                     result: Mapping[str, Any], with_maps: bool) -> Ending:
    """The next commands of make_masks.py show its masks, and train on them.

    result: that of the last mask file in metrics.json. with_maps: whether the folder holds maps
    that --reuse-maps takes. There is no command for a training that train_seg.py would refuse: on
    new images, which are in no fold, on images of one fold, and on empty masks.
    """
    own, lines = endings.given(args, defaults), []
    said = f"{sum(result['made'])} masks of {len(work.names)} images in {result['masks']}.csv"
    if "scores" in result:
        dice = result["scores"]["dice_present"][1]
        said += f", Dice over present pairs {'-' if dice is None else format(dice, '.4f')}"
    if "J and F" in result:
        said += ", region similarity J {:.4f}, boundary F {:.4f}".format(*result["J and F"]["mean"])
    lines += [f"look at: {args.out}/report.html"] * args.report
    if args.review:
        lines.append(f"look at: {args.out}/review.png")
    else:
        again = {"reuse_maps" if with_maps else "overwrite": True, "review": 20, "resume": False}
        lines.append(f"next, to see them: {endings.command('make_masks', own | again)}")
    path = args.out / "folds.csv"
    if with_maps and (work.fold >= 0).all():
        path = args.cls / "folds.csv"
    known = folds.read_folds(path) if path.is_file() else {}
    if any(result["made"]) and len({known[n] for n in work.names if n in known}) > 1:
        training = training_flags(args, work, own) | {
            "masks": args.out / f"{result['masks']}.csv", "folds": path}
        lines.append(f"next: {endings.command('train_seg', training)}")
    return Ending(endings.wrote(args.out, said), tuple(lines))


def training_flags(args: argparse.Namespace, work: Any, own: Mapping[str, Any]) -> dict[str, Any]:
    """The flags of train_seg.py that follow from those of make_masks.py, but for its masks and
    folds.

    own: those that differ from their defaults.
    """
    chosen = {k: own[k] for k in ("data", "classes", *endings.MACHINE) if k in own}
    if not args.data:
        chosen["images"] = inputs.image_dir(args)
    if args.labels and work.labels.rles is not None:
        chosen["labels"] = args.labels  # true masks to score against
    if (args.out / "ignore.csv").is_file():
        chosen["ignore"] = args.out / "ignore.csv"
    used = {**dict.fromkeys(("contrast", "pixels", "depth", "video")), "seg": args.seg[0]
            }.get(args.method, args.cls)
    return chosen | (endings.network_flags(used) if used else {}) \
        | {"out": endings.unused(args.out.parent / "seg")}


def after_train_seg(args: argparse.Namespace, defaults: argparse.Namespace, work: Any) -> Ending:
    """The next commands of train_seg.py are another fold, or scores and masks of new images."""
    own = endings.given(args, defaults)
    if "mask_cut" in own:
        own["mask_cut"] = args.mask_cut or "centre"
    done = folder.fold_files(args.out, "oof_masks.csv")
    left = sorted(set(work.fold.tolist()) - set(done))
    result = endings.wrote(args.out, f"held-out masks of {int(np.isin(work.fold, [*done]).sum())} "
                                     f"of {len(work.fold)} images")
    following, then = {**own, "overwrite": False, "resume": True}, []
    if left:
        then = [endings.command("train_seg", {**following, "fold": left[0]})]
    elif not args.predict:
        then = [endings.command("train_seg", {**following, "predict": "FOLDER_OF_NEW_IMAGES"})]
    if not left and not args.predict and work.truth is not None:
        titles = [f"{'segnet' if args.arch == 'segnet' else 'unet'}={args.out}/oof_masks.csv"]
        if len(args.masks) == 1 and args.masks[0] != inputs.label_path(args):
            titles.insert(0, f"masks={args.masks[0]}")
        shared = {k: own[k] for k in (*endings.DATA, "quiet") if k in own}
        scores = {"folds": args.folds, "out": endings.unused(args.out.parent / "eval")}
        then.insert(0, endings.command("evaluate", shared | scores, *titles))
    shown = f"look at: {args.out}/{'new' if args.predict else 'oof'}_masks_overlay"
    return Ending(result, (*[shown] * ("overlay" in args.export), *(
        f"{'or' if n else 'next'}: {line}" for n, line in enumerate(then))))


def after_evaluate(args: argparse.Namespace, defaults: argparse.Namespace,
                   dice: Mapping[str, float | None]) -> Ending:
    """The last lines of evaluate.py name its pictures, or the command that paints them.

    dice: {title: Dice over present pairs} of the scored masks.
    """
    said = ", ".join(f"{t} {'-' if d is None else format(d, '.4f')}" for t, d in dice.items())
    sheets = [f"look at: {path}" for path in (
        *args.out.glob("report.html"), *sorted((*args.out.glob("class_[0-9]*.png"),
                                                *args.out.glob("classes.png"))))]
    if not sheets:
        own = endings.given(args, defaults, ("folds", "out", "over", "missing", "hull", "sample",
                                             "output_size", "class_sets", *endings.DATA))
        own |= {k: v if v == "search" else ",".join(map(str, v))
                for k in ("threshold", "least_component") if (v := getattr(args, k))}
        again = endings.command("evaluate", own | {"overwrite": True}, *args.masks)
        sheets = [f"next, for contact sheets: {again}"]
    return Ending(endings.wrote(args.out, f"Dice over present pairs: {said}"), tuple(sheets))
