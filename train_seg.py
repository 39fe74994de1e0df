"""Train a U-Net on any mask CSV, true or pseudo (paper's section VI, Table 3).

    python train_seg.py --images data/demo/train_images --masks runs/masks/masks.csv \\
        --folds runs/cls/folds.csv --out runs/seg
    python train_seg.py --data data/demo --masks data/demo/train.csv \\
        --folds runs/cls/folds.csv --out runs/seg_true

The masks of each fold come from the network that has not seen it. With --data (or --labels: a CSV
of true masks) they are scored. The same command with --resume --predict FOLDER masks new images.
"""

import sys
from pathlib import Path

from cam2seg import cli, data, images, masks, metrics, rundir


def get_args(argv=None):
    p = cli.parser(__doc__)
    cli.add_data(p, "optional: a CSV of true masks to score against")
    p.add_argument("--masks", type=Path, default="runs/masks/masks.csv", help="CSV to train on")
    p.add_argument("--folds", type=Path, default="runs/cls/folds.csv",
                   help="folds.csv of the classifier's run")
    p.add_argument("--out", type=Path, default="runs/seg", help="folder of this run")
    p.add_argument("--arch", default="b0", choices=[*(f"b{n}" for n in range(8)), "lite0"],
                   help="EfficientNet encoder, [P] VI")
    p.add_argument("--weights", default="imagenet",
                   help="imagenet (torchvision downloads them), lite0 (those of its package), "
                   "none, or a file, [P] VI")
    p.add_argument("--loss", default="bce", choices=("bce", "bce+dice"), help="DEV-12")
    p.add_argument("--lr-encoder", type=cli.rate, default=1e-4,
                   help="Adam, DEV-12; 1e-3 from scratch")
    p.add_argument("--lr-decoder", type=cli.rate, default=1e-3, help="Adam, DEV-12")
    p.add_argument("--threshold", type=cli.share, default=0.2, help="least probability, [P] VI")
    p.add_argument("--min-seg-len", type=cli.natural, default=0,
                   help="least area of a mask in pixels, [P] VI, DEV-13")
    p.add_argument("--predict", type=Path, metavar="FOLDER",
                   help="then also mask these images, by the mean over the folds")
    cli.add_training(p, epochs=20, batch_size=16, batch_source="DEV-12")
    return p.parse_args(argv)


def main(args):
    rundir.check_flags(args)
    given, truth, sizes, fold = load(args)
    size = tuple(args.size or images.default_size(sizes[given.names[0]]))
    new_sizes = images.scan(args.predict, data.list_images(args.predict)) if args.predict else {}

    import numpy as np
    import torch

    from cam2seg import engine, loading, models, process, restore
    with cli.explained("--device"):
        device = engine.pick_device(args.device)
    with cli.explained("--weights"):
        models.encoder(args.arch, args.weights)  # a wrong file stops here, before a run is begun

    mean, std = models.normalisation(args.arch)

    def prepare(pixels):
        return loading.to_input(pixels, device, mean, std)

    def loss_fn(logits, target):
        return seg_loss(logits, target.float(), args.loss)

    pixels = images.ImageSet(cli.image_dir(args), given.names, size,
                             masks=(given.rles, sizes, len(given.classes)),
                             hflip=args.hflip, vflip=args.vflip, seed=args.seed)
    model_args = {"arch": args.arch, "num_classes": len(given.classes)}
    meta = {"kind": "unet", "model_args": model_args, "args": rundir.kept(args),
            "preprocess": {"size": list(size), "mean": list(mean), "std": list(std),
                           "classes": given.classes}}

    folds = sorted(set(fold.tolist())) if args.fold is None else [args.fold]
    process.start()
    loading.check_batches(args.batch_size, fold, size)
    rundir.start_run(args, [args.masks, args.folds, args.weights, cli.label_path(args)],
                     given.classes, given.names, fold)
    if args.resume:
        restore.check_resume(args.out, folds, "oof_masks.csv", models.UNet, meta,
                             args.epochs)
        restore.networks(args.out, "best.pt", models.UNet, "unet", meta)
        read_done(args, given, sizes)
    for k in folds:
        out = args.out / f"fold{k}"
        out.mkdir(exist_ok=True)
        if args.resume and (out / "oof_masks.csv").exists():
            continue
        engine.seed_all(args.seed, k)
        model = models.UNet(**model_args, weights=args.weights)
        model.to(device, memory_format=torch.channels_last)
        optimizer = torch.optim.Adam([
            {"params": model.encoder.parameters(), "lr": args.lr_encoder},
            {"params": [*model.decoder.parameters(), *model.head.parameters()],
             "lr": args.lr_decoder}])
        train, val = (loading.Batches(pixels, np.flatnonzero(part), args.batch_size, args.workers,
                                     args.seed) for part in (fold != k, fold == k))
        best, = engine.fit(model, optimizer, loss_fn, prepare, train, val, args.epochs, out, meta,
                           1, (args.seed, k), args.amp, args.resume)
        model.load_state_dict(
            engine.load_checkpoint(out / f"epoch{best['epoch']}.pt", "unet")["model"])
        engine.save_checkpoint(out / "best.pt", model, {**meta, "best": [best]})
        rles = predict(args, [model], val, given.names, sizes, prepare)
        data.write_masks(out / "oof_masks.csv", [given.names[i] for i in val.indices],
                         given.classes, rles)

    process.barrier()
    if process.first():
        report(args, gather(args, given, sizes), given, truth, sizes)
    if args.predict:
        nets = [load_unet(path).to(device)
                for path in rundir.fold_files(args.out, "best.pt").values()]
        new = images.ImageSet(args.predict, list(new_sizes), size, np.zeros((len(new_sizes), 0)))
        batches = loading.Batches(new, np.arange(len(new)), args.batch_size, args.workers)
        rles = predict(args, nets, batches, new.names, new_sizes, prepare)
        data.write_masks(args.out / "new_masks.csv", new.names, given.classes, rles)
        print(f"wrote {args.out}/new_masks.csv: {len(new)} images, mean of {len(nets)} networks")


def load(args):
    """Labels to train on, true Labels or None, {name: (H, W)}, and fold (N,) of the images that
    have both a fold and a row in --masks."""
    import numpy as np
    folder, path = cli.image_dir(args), cli.label_path(args)
    given = data.read_labels(args.masks, folder)
    if given.rles is None:
        raise cli.DataError(f"{args.masks}: no masks in it, expected a column EncodedPixels")
    known = data.read_folds(args.folds)
    has_fold = np.array([n in known for n in given.names])
    left_out = given.keep(~has_fold & given.y.any(axis=1)).names  # a clean image may be dropped
    if left_out:
        raise cli.DataError(f"{args.folds}: no fold for {len(left_out)} images with a mask in "
                            f"{args.masks}, the first is {left_out[0]}")
    given = given.keep(has_fold)
    if not given.names:
        raise cli.DataError(f"{args.folds}: no fold for any image of {args.masks}")
    fold = np.array([known[n] for n in given.names])
    if args.fold is not None and args.fold not in fold or len(set(fold.tolist())) < 2:
        raise cli.DataError(f"{args.folds}: two folds or more are needed, and --fold among them; "
                            f"the images of {args.masks} are in folds {sorted(set(fold.tolist()))}")
    sizes = images.scan(folder, given.names)
    data.check_masks(args.masks, given, sizes)
    truth = None
    if path and (path.exists() or args.labels):
        truth = data.read_labels(path, folder, given.classes)
        if truth.rles is not None:
            data.check_masks(path, truth, sizes)
    return given, truth if truth and truth.rles is not None else None, sizes, fold


def load_unet(path):
    """The network of a fold's best.pt."""
    import torch

    from cam2seg import models, restore
    return restore.network(models.UNet, path, "unet")[0].to(memory_format=torch.channels_last)


def predict(args, nets, batches, names, sizes, prepare):
    """{(name, class index): run lengths} of the mean probability of the nets, thresholded at each
    image's own size. names: of the data set behind the batches. Each process does its part."""
    import torch.nn.functional as F

    from cam2seg import engine, models, process
    rles, mean = {}, models.MeanProbability(nets)
    probs = (p for batch, _ in engine.predict(mean, batches, prepare, args.amp, "masks")
             for p in batch)
    for name, p in zip((names[i] for i in batches.rows()), probs, strict=True):
        full = F.interpolate(p[None], size=sizes[name], mode="bilinear")[0].cpu().numpy()
        for c, heat in enumerate(full):
            mask = masks.binarize(heat, args.threshold, args.min_seg_len)
            rles[name, c] = masks.rle_encode(mask)
    return {key: rle for part in process.share(rles) for key, rle in part.items()}


def seg_loss(logits, target, kind):
    """Mean BCE [P-7] over pixels and classes; "bce+dice" adds 1 - soft Dice of each class over
    the batch (DEV-12); soft Dice is 1 where target and rounded probabilities are all 0."""
    import torch
    import torch.nn.functional as F
    loss = F.binary_cross_entropy_with_logits(logits, target)
    if kind == "bce":
        return loss
    p, over = logits.sigmoid(), (0, 2, 3)  # (B, C, H, W) -> (C,)
    inter, total = (p * target).sum(over), p.sum(over) + target.sum(over)
    dice = torch.where(total > 0, 2 * inter / torch.where(total > 0, total, 1), 1)
    return loss + (1 - dice).mean()


def read_done(args, given, sizes):
    """Names and run lengths of all folds that are done."""
    rles, names = {}, set()
    for path in rundir.fold_files(args.out, "oof_masks.csv").values():
        got = data.read_labels(path, cli.image_dir(args), given.classes)
        if got.rles is None:
            raise cli.DataError(f"{path}: no masks in it, expected a column EncodedPixels")
        data.check_masks(path, got, sizes)
        rles.update(got.rles)
        names |= {name for name, _ in got.rows}
    return sorted(names), rles


def gather(args, given, sizes):
    """The same, also written to oof_masks.csv."""
    names, rles = read_done(args, given, sizes)
    data.write_masks(args.out / "oof_masks.csv", names, given.classes, rles)
    return names, rles


def report(args, predicted, given, truth, sizes):
    names, rles = predicted
    print(f"\n{args.out}/oof_masks.csv: {len(names)} of {len(given.names)} images")
    result = {"classes": given.classes, "args": rundir.kept(args), "images": len(names)}
    if truth is not None:
        defect = [n for n in names if any((n, c) in truth.rles for c in range(len(given.classes)))]
        result["images_with_defect"] = len(defect)
        rows = {"nothing predicted": {}, f"trained on {args.masks}": given.rles,
                f"U-Net ({args.arch}) on them": rles}
        result["table3"] = {t: metrics.mask_scores(*metrics.mask_counts(
            defect, truth.rles, r, sizes, len(given.classes)))
            for t, r in rows.items()}
        cli.print_table("Table 3: images with a defect, out-of-fold union",
                        ["masks", *metrics.SCORES[:4]],
                        [[t, *(s[n][1] for n in metrics.SCORES[:4])]
                         for t, s in result["table3"].items()])
    rundir.write_json(args.out / "metrics.json", result)


if __name__ == "__main__":
    sys.exit(cli.run(main, get_args))
