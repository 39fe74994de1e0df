"""The maps of a set of images: whose network makes which, batch by batch (stage one of
make_masks.py; args are its flags)."""

import numpy as np
import torch

from . import cam, cli, engine, images, loading, mapstore, models, process, restore, rundir

# What the maps depend on; the other flags only turn maps into masks.
MAP_FLAGS = ("cls", "method", "target_layer", "size", "checkpoint", "aug_smooth", "smooth_image",
             "new_images")


def make_maps(args, names, fold, classes, sizes, nets, pre, device):
    """Small maps float16 (N, C, h, w), each divided by its maximum, and probabilities (N, C); both
    are also written to --out. Outside the folds both are means over the folds (DEV-19).

    Batches are the same however often the run was stopped and whatever process does them.
    """
    if args.resume and mapstore.finished(args.out):
        return load_maps(args, names, fold, sizes, classes)
    mean_std = (torch.tensor(pre[k], device=device).view(3, 1, 1) for k in ("mean", "std"))
    shift = torch.div(*mean_std) if args.smooth_image else 0.0  # DEV-6
    pixels = images.ImageSet(cli.image_dir(args), names, args.size or pre["size"],
                             np.zeros((len(names), 0), np.float32))
    store = mapstore.Store(args.out, len(names), len(classes)) if process.first() else None
    done = process.share(torch.from_numpy(store.done()) if store else None)[0].numpy()
    clock = engine.Progress(int((~done).sum()), "maps")
    for k in sorted(set(fold.tolist())):
        members = list(nets.values()) if k == -1 else [nets[k]]  # never a model that saw the image
        for part, batch in todo(pixels, np.flatnonzero(fold == k), args, done):
            made = None
            if part:
                x = loading.to_input(batch, device, pre["mean"], pre["std"])
                with torch.autocast(device.type, torch.bfloat16, enabled=args.amp):
                    seen = [batch_maps(args, model, x, shift) for model in members]
                maps = torch.stack([cam.normalize(m, "max") for m, _ in seen]).mean(dim=0)
                made = (cam.normalize(maps, "max").cpu(),
                        torch.stack([y.float().sigmoid() for _, y in seen]).mean(0).cpu())
            for rows, found in process.share((part, made)):
                if store and rows:
                    if store.maps is None:
                        print(f"maps of {args.target_layer or members[0].target_layer}: "
                              f"{maps.shape[2]} x {maps.shape[3]} cells for {x.shape[2]} x "
                              f"{x.shape[3]} pixels", flush=True)
                    store.add(rows, *found)
            clock.add(process.agree(len(part)))
    if store:
        store.finish(names, fold, sizes, classes)
    return (store.maps, store.probs) if store else (None, None)


def todo(pixels, rows, args, done):
    """(rows, pixels) of the batches for this process with an image that is not done, and ([], None)
    where another process has one more. Batches are cut before any is left out: which images are
    seen together, and so the last bit of a map, depends on nothing but --batch-size."""
    cut = [rows[a:a + args.batch_size] for a in range(0, len(rows), args.batch_size)]
    cut = [part for part in cut if not done[part].all()]
    if not cut:
        return
    batches = loading.Batches(pixels, np.concatenate(cut), args.batch_size, args.workers)
    mine, loader = [b.tolist() for b in cut[process.rank()::process.count()]], batches(None)
    for n in range(-(-len(cut) // process.count())):
        yield (mine[n], next(loader)[0]) if n < len(mine) else ([], None)


def load_classifiers(args, classes):
    """{fold: classifier} of the run --cls, how their input is prepared, and the device."""
    with cli.explained("--device"):
        device = engine.pick_device(args.device)
    nets, state = restore.networks(args.cls, f"{args.checkpoint}.pt", models.Classifier,
                                   "classifier")
    pre = state["preprocess"]
    if pre["classes"] != classes:
        raise cli.DataError(f"{args.cls}: checkpoints of classes {pre['classes']}, but args.json "
                            f"says {classes}")
    nets = {k: net.to(device, memory_format=torch.channels_last) for k, net in nets.items()}
    one = torch.zeros(1, 3, *(args.size or pre["size"]), device=device)
    one_view(args, next(iter(nets.values())), one)  # a wrong --target-layer stops here
    return nets, pre, device


def batch_maps(args, model, x, shift=0.0):
    """Raw maps (B, C, h, w) of a batch by the flags, and the logits (B, C) of the plain image,
    which alone decide at the gate (DEV-15)."""
    logits = []

    def maps_of(view):
        maps, y = one_view(args, model, view)
        logits.append(y)
        return maps

    return cam.aug_smooth(maps_of, x, shift) if args.aug_smooth else maps_of(x), logits[0]


def one_view(args, model, x):
    """Raw maps and logits of a batch as it is."""
    layer = args.target_layer or model.target_layer
    with cli.explained("--target-layer"):
        if args.method == "guided-gradcam":
            return cam.guided_grad_cam(model, x, layer)
        return cam.class_maps(model, x, layer, args.method)


def sources(args):
    """The files that say what the networks are and whom they have seen."""
    nets = rundir.fold_files(args.cls, f"{args.checkpoint}.pt").values()
    return [args.cls / "folds.csv", *nets]


def load_maps(args, names, fold, sizes, classes):
    """The maps and probabilities in --out, if they are those of these flags and images."""
    run = rundir.read_run(args.out / "args.json", sha256=dict)
    made = run["args"]
    for flag in MAP_FLAGS:
        if rundir.plain(args)[flag] != made.get(flag):
            raise cli.DataError(f"{args.out}: its maps were made with --{flag.replace('_', '-')} "
                                f"{made.get(flag)}, not {rundir.plain(args)[flag]}")
    mapstore.check_index(args.out, names, fold, sizes)
    for path, sha in rundir.digests(sources(args)[1:]).items():
        if run["sha256"].get(path) != sha:
            raise cli.DataError(f"{args.out}: its maps were not made with {path} as it is now; run "
                                "without --reuse-maps")
    _, its_classes, probs, maps = mapstore.read(args.out)
    if its_classes != classes:
        raise cli.DataError(f"{args.out}/maps.csv, row 1: maps of classes "
                            f"{','.join(its_classes)}, expected {','.join(classes)}; run without "
                            "--reuse-maps")
    return maps, probs
