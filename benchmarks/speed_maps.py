"""Rows of benchmarks/speed.py: activation maps, and the bare forward that they need.

The peers are called once for each class. Each such call does the same work, so that one class is
timed and its seconds are multiplied by the number of classes.
"""

from contextlib import ExitStack
from functools import partial

import torch
from speed import clock_of, in_turn, package, process_of_their_own, row

from cam2seg import cam, models
from cam2seg.training.devices import fast_bfloat16
from cam2seg.training.inference import prepared

BATCH, SIZE, CLASSES, LAYER = 4, (256, 512), 4, "features.8"
LIMITS = {"pytorch-grad-cam": 1 / 20, "captum (Grad-CAM)": 1, "torch-cam": 1}
FORWARD = "bare forward of make_masks.py: channels_last, BatchNorm folded, freed memory kept"
WHAT = f"maps of {CLASSES} classes, b0, batch {BATCH}, {SIZE[0]} x {SIZE[1]}, Grad-CAM++"
SIX, AMP = "the same, six views", ", --amp"


def forward(model, x, times=1):
    def run():
        with torch.no_grad():
            for _ in range(times):
                model(x)
    return run


def with_amp(run, device):
    """The work as make_masks.py --amp does it."""
    def cast():
        with torch.autocast(device.type, torch.bfloat16):
            run()
    return cast


def classifier(device):
    """The network of all rows, with the same random weights in every process."""
    torch.manual_seed(0)
    return models.Classifier("b0", CLASSES).eval().to(device)


def image_batch(device):
    return torch.randn(BATCH, 3, *SIZE, generator=torch.Generator().manual_seed(1)).to(device)


def pytorch_grad_cam(device, smooth=False):
    """pytorch-grad-cam as its README calls it, for one class."""
    model, x = classifier(device), image_batch(device)
    library = package("pytorch_grad_cam")
    target = package("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget

    def run():
        with library.GradCAMPlusPlus(model, [model.get_submodule(LAYER)]) as method:
            method(x, [target(0)] * BATCH, aug_smooth=smooth)
    return {"aug_smooth" if smooth else "pytorch-grad-cam": run}


def captum(device):
    """captum has no Grad-CAM++, so that this is Grad-CAM of one class."""
    model, x = classifier(device), image_batch(device)
    method = package("captum.attr").LayerGradCam(model, model.get_submodule(LAYER))
    return {"captum (Grad-CAM)": lambda: method.attribute(x, 0, relu_attributions=True)}


def torch_cam(device):
    """torch-cam, for one class."""
    model, x = classifier(device), image_batch(device)

    def run():
        with package("torchcam.methods").GradCAMpp(model, LAYER) as method:
            method(0, model(x))
    return {"torch-cam": run}


def eager(device):
    """The bare forward of a program that does nothing else."""
    return {"eager": forward(classifier(device), image_batch(device))}


def maps(model, x, views):
    """Grad-CAM++ of all classes, of one view or of six."""
    def run():
        if views == 1:
            cam.class_maps(model, x, LAYER)
        else:
            cam.aug_smooth(lambda view: cam.class_maps(model, view, LAYER)[0], x)
    return run


PEERS = {pytorch_grad_cam: "pytorch_grad_cam", captum: "captum.attr", torch_cam: "torchcam.methods",
         partial(pytorch_grad_cam, smooth=True): "pytorch_grad_cam"}


def rows(args):
    device = args.device
    last = image_batch(device).to(memory_format=torch.channels_last)
    model = classifier(device).to(memory_format=torch.channels_last)
    fast = prepared(classifier(device), device)
    ours = {"ours": maps(fast, last, 1), "six": maps(fast, last, 6), "fast": forward(fast, last)}
    pairs = {"": fast, ", BatchNorm not folded": model}
    overhead = {f"{work.__name__} {views}{title}": work(net, last, views)
                for title, net in pairs.items() for views in (1, 6) for work in (maps, forward)}
    if fast_bfloat16(device):
        for works in (ours, overhead):
            works |= {name + AMP: with_amp(work, device) for name, work in works.items()
                      if "not folded" not in name}
    others = [eager] + [make for make, module in PEERS.items() if package(module)]
    with ExitStack() as stack:
        for make in others:
            ours |= stack.enter_context(process_of_their_own(make, args))
        ours["plain"] = forward(model, last)
        ours["eager, memory kept"] = forward(classifier(device), image_batch(device))
        s = in_turn(ours, args.rounds, clock_of(device))
    # These ratios are near 1, and without the long work of the peers more rounds can be taken.
    t = in_turn(overhead, 3 * args.rounds, clock_of(device))
    s.update({name: CLASSES * s[name] for name in (*LIMITS, "aug_smooth") if name in s})
    return [*rows_of_peers(s), *rows_of_overhead(t), *rows_of_forwards(s)]


def rows_of_peers(s):
    """The rows of our maps beside those of other packages, from the seconds of all works. The
    others compute in float32 as their users call them, also beside ours with --amp."""
    out = []
    for amp in ("", AMP):
        if "ours" + amp in s:
            out += [row(WHAT + amp, f"{name}, float32, {CLASSES} times the call for one class",
                        s["ours" + amp], s[name], limit)
                    for name, limit in LIMITS.items() if name in s]
            if "aug_smooth" in s:
                out.append(row(SIX + amp, f"pytorch-grad-cam, aug_smooth, float32, {CLASSES} times",
                               s["six" + amp], s["aug_smooth"], 1 / 20))
    return out


def rows_of_overhead(s):
    """The rows of our maps beside the bare forwards that they need."""
    out = []
    for kind in ("", AMP, ", BatchNorm not folded"):
        if f"maps 1{kind}" in s:
            out += [row(WHAT + kind, "its bare forward", s[f"maps 1{kind}"],
                        s[f"forward 1{kind}"], 1.1),
                    row(SIX + kind, "its six bare forwards", s[f"maps 6{kind}"],
                        s[f"forward 6{kind}"], 1.05)]
    return out


def rows_of_forwards(s):
    """The rows of the bare forward that make_masks.py runs."""
    out = []
    for amp in ("", AMP):
        if "fast" + amp in s:
            out += [row(FORWARD + amp, "eager, NCHW, float32", s["fast" + amp], s["eager"],
                        1 / 1.5),
                    row(FORWARD + amp, "eager, NCHW, float32, freed memory kept", s["fast" + amp],
                        s["eager, memory kept"])]
    return [*out, row(FORWARD, "the same with BatchNorm not folded", s["fast"], s["plain"])]
