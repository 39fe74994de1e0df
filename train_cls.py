"""Train the classifier whose activation maps become masks (paper's section IV, Table 1).

    python train_cls.py --data data/demo --out runs/cls
    python train_cls.py --images photos --labels labels.csv --out runs/cls

--data is a folder with train_images/ and train.csv, as Kaggle's Severstal has them. For embedded
data: python -m cam2seg.synthetic data/demo
--labels is a CSV (ImageId,ClassId[,EncodedPixels] | ImageId and one 0/1 column per class | ...) or
a folder with one subfolder of images per class.
"""

import sys
from pathlib import Path

from cam2seg import cli, data, images, rundir, tables


def get_args(argv=None):
    p = cli.parser(__doc__)
    cli.add_data(p)
    p.add_argument("--out", type=Path, default="runs/cls", help="folder of this run")
    p.add_argument("--arch", default="b0", choices=[*(f"b{n}" for n in range(8)), "lite0"],
                   help="EfficientNet, [P] IV")
    p.add_argument("--weights", default="imagenet",
                   help="imagenet (torchvision downloads them), lite0 (those of its package), "
                   "none, or a file, [P] IV")
    p.add_argument("--hidden", type=cli.positive, default=512,
                   help="width of the head's first layer, DEV-12")
    p.add_argument("--dropout", type=cli.share, default=0.2,
                   help="both dropouts of the head, DEV-12")
    p.add_argument("--lr-encoder", type=cli.rate, default=1e-4,
                   help="Adam, [P] IV; 1e-3 from scratch")
    p.add_argument("--lr-head", type=cli.rate, default=1e-3, help="Adam, [P] IV")
    p.add_argument("--swa", type=cli.positive, default=3,
                   help="how many best epochs by validation loss are averaged, [P] V")
    p.add_argument("--swa-bn", default="update", choices=("update", "average"),
                   help="BatchNorm statistics: re-estimated, or averaged too, DEV-7")
    p.add_argument("--folds", type=cli.positive, default=5, help="[P] III")
    p.add_argument("--clean", default="keep", choices=("keep", "drop"),
                   help="images without any defect, DEV-14")
    cli.add_training(p, epochs=20, batch_size=64, batch_source="[P] IV")
    return p.parse_args(argv)


def main(args):
    rundir.check_flags(args)
    labels, sizes = cli.load_data(args)
    if args.clean == "drop":
        labels = labels.keep(labels.y.any(axis=1))
    fold = cli.new_folds(args, labels)
    size = tuple(args.size or images.default_size(sizes[labels.names[0]]))
    import numpy as np
    import torch
    import torch.nn.functional as F

    from cam2seg import engine, loading, metrics, models, process, restore
    with cli.explained("--device"):
        device = engine.pick_device(args.device)
    with cli.explained("--weights"):
        models.encoder(args.arch, args.weights)  # a wrong file stops here, before a run is begun

    mean, std = models.normalisation(args.arch)

    def prepare(pixels):
        return loading.to_input(pixels, device, mean, std)

    targets = labels.y.astype(np.float32)
    train_set = images.ImageSet(cli.image_dir(args), labels.names, size, targets,
                                hflip=args.hflip, vflip=args.vflip, seed=args.seed)
    model_args = {"arch": args.arch, "num_classes": len(labels.classes), "hidden": args.hidden,
                  "dropout": args.dropout}
    meta = {"kind": "classifier", "model_args": model_args, "args": rundir.kept(args),
            "preprocess": {"size": list(size), "mean": list(mean), "std": list(std),
                           "classes": labels.classes}}

    folds = range(args.folds) if args.fold is None else [args.fold]
    process.start()
    loading.check_batches(args.batch_size, fold, size)
    rundir.start_run(args, [cli.label_path(args), args.weights], labels.classes, labels.names,
                     fold)
    if args.resume:
        restore.check_resume(args.out, folds, "oof.csv", models.Classifier, meta,
                             args.epochs)
        gather(args, "oof_best", labels)
        gather(args, "oof", labels)
    for k in folds:
        out = args.out / f"fold{k}"
        out.mkdir(exist_ok=True)
        if args.resume and (out / "oof.csv").exists():
            continue
        engine.seed_all(args.seed, k)
        model = models.Classifier(**model_args, weights=args.weights)
        model.to(device, memory_format=torch.channels_last)
        optimizer = torch.optim.Adam([  # [P] IV
            {"params": model.features.parameters(), "lr": args.lr_encoder},
            {"params": model.head.parameters(), "lr": args.lr_head}])
        train, val = (loading.Batches(train_set, np.flatnonzero(part), args.batch_size,
                                     args.workers, args.seed) for part in (fold != k, fold == k))
        best = engine.fit(model, optimizer, F.binary_cross_entropy_with_logits, prepare,  # [P-7]
                          train, val, args.epochs, out, meta, args.swa, (args.seed, k), args.amp,
                          args.resume)

        def predicted(name):
            """Probabilities of the held-out fold by the weights now in the model, saved as name."""
            engine.save_checkpoint(out / f"{name}.pt", model, {**meta, "best": best})
            batches = engine.predict(model, val, prepare, args.amp, f"fold {k}")
            return torch.cat(process.in_turn([y.sigmoid().cpu() for y, _ in batches])).numpy()

        def inputs(epoch):
            """All training images once; where several processes run, in each of them."""
            every = loading.Batches(train_set, train.indices, args.batch_size, args.workers,
                                    args.seed, alone=True)
            for x, _ in every(epoch):
                process.agree(0)
                yield prepare(x)

        states = [engine.load_checkpoint(out / f"epoch{b['epoch']}.pt", "classifier")["model"]
                  for b in best]
        model.load_state_dict(states[0])
        rows = {"oof_best": predicted("best")}
        model.load_state_dict(engine.average_states(states))
        if args.swa_bn == "update":
            engine.seed_all(args.seed, k, args.epochs)
            engine.update_bn(model, inputs(best[0]["epoch"] - 1))
        rows["oof"] = predicted("swa")
        names = [labels.names[i] for i in val.indices]
        for name in ("oof_best", "oof"):  # oof.csv last: it says that the fold is done
            data.write_csv(out / f"{name}.csv", ("ImageId", *labels.classes),
                           ((n, *p) for n, p in zip(names, rows[name].tolist(), strict=True)))

    first = process.first()
    process.end()
    if not first:
        return
    table = []
    for name, title in (("oof_best", "best epoch"), ("oof", f"mean of {args.swa} (SWA)")):
        kept, p = gather(args, name, labels)
        data.write_csv(args.out / f"{name}.csv", ("ImageId", *labels.classes),
                       ((n, *q) for n, q in zip(kept.names, p.tolist(), strict=True)))
        table += table1(f"{args.arch}, {title}", kept.y, p, metrics.roc_auc)
    rundir.write_json(args.out / "metrics.json", {"classes": labels.classes, "table1": table})
    cli.print_table("Table 1: ROC-AUC on the out-of-fold union",
                    ["model", "images", *labels.classes, "mean"],
                    [[r["model"], r["images"], *r["roc_auc"], r["mean"]] for r in table])


def gather(args, name, labels):
    """Labels and probabilities (N, C) of the images whose fold is done."""
    import numpy as np
    probs = {}
    for path in rundir.fold_files(args.out, f"{name}.csv").values():
        probs.update(tables.read_probs(path, labels.classes))
    kept = labels.keep(np.array([n in probs for n in labels.names]))
    return kept, np.array([probs[n] for n in kept.names])


def table1(model, y, p, roc_auc):
    """Rows of Table 1: over all images, and over those with a defect where some have none."""
    rows = []
    defect = y.any(axis=1)
    for which, part in (("all images", defect | True), ("with a defect", defect)):
        if which == "all images" or not defect.all():
            y_part, p_part = y[part], p[part]
            auc = [roc_auc(y_part[:, c], p_part[:, c]) if 0 < y_part[:, c].sum() < len(y_part)
                   else None for c in range(y.shape[1])]
            rows.append({"model": f"{model}, {which}", "images": len(y_part), "roc_auc": auc,
                         "mean": None if None in auc else sum(auc) / len(auc)})
    return rows


if __name__ == "__main__":
    sys.exit(cli.run(main, get_args))
