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
LIMITS = {"pytorch-grad-cam": 1 / 20, "captum": 1, "torch-cam": 1}
FORWARD = "bare forward of make_masks.py: channels_last, BatchNorm folded, freed memory kept"
WHAT = f"maps of {CLASSES} classes, b0, batch {BATCH}, {SIZE[0]} x {SIZE[1]}, Grad-CAM++"
SIX = "the same, six views"


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
    return {"captum": lambda: method.attribute(x, 0, relu_attributions=True)}


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


PEERS = {pytorch_grad_cam: "pytorch_grad_cam", partial(pytorch_grad_cam, smooth=True): "pytorch_grad_cam",
         captum: "captum.attr", torch_cam: "torchcam.methods"}


def rows(args):
    device = args.device
    last = image_batch(device).to(memory_format=torch.channels_last)
    model = classifier(device).to(memory_format=torch.channels_last)
    fast = prepared(classifier(device), device)
    works = {"ours": maps(fast, last, 1), "six": maps(fast, last, 6), "fast": forward(fast, last),
             "plain": maps(model, last, 1), "plain six": maps(model, last, 6),
             "forward": forward(model, last),
             "eager, memory kept": forward(classifier(device), image_batch(device))}
    if fast_bfloat16(device):
        works |= {f"{name}, amp": with_amp(works[name], device) for name in ("ours", "six", "fast")}
    others = [eager] + [make for make, module in PEERS.items() if package(module)]
    with ExitStack() as stack:
        for make in others:
            works |= stack.enter_context(process_of_their_own(make, args))
        s = in_turn(works, args.rounds, clock_of(device))
    s.update({name: CLASSES * s[name] for name in (*LIMITS, "aug_smooth") if name in s})
    out = rows_of_maps(s, "", "")
    if "ours, amp" in s:
        out += rows_of_maps(s, ", amp", ", --amp")
    out += [row(f"{WHAT}, BatchNorm not folded", "its bare forward", s["plain"], s["forward"], 1.1),
            row(f"{SIX}, BatchNorm not folded", "its six bare forwards", s["plain six"],
                6 * s["forward"], 1.05)]
    return out + rows_of_forwards(s)


def rows_of_maps(s, key, flag):
    """The rows of one precision: `key` ends its names in the seconds s, `flag` its titles."""
    ours, six, fast = (s[name + key] for name in ("ours", "six", "fast"))
    out = [row(WHAT + flag, f"{name}, one call a class", ours, s[name], limit)
           for name, limit in LIMITS.items() if name in s]
    if "aug_smooth" in s:
        out.append(row(SIX + flag, "pytorch-grad-cam, aug_smooth", six, s["aug_smooth"], 1 / 20))
    return [*out, row(WHAT + flag, "its bare forward", ours, fast, 1.1),
            row(SIX + flag, "its six bare forwards", six, 6 * fast, 1.05)]


def rows_of_forwards(s):
    """The rows of the bare forward that make_masks.py runs."""
    out = []
    for name, title in (("fast", FORWARD), ("fast, amp", f"{FORWARD}, --amp")):
        if name in s:
            out += [row(title, "eager, NCHW, float32", s[name], s["eager"], 1 / 1.5),
                    row(title, "eager, NCHW, float32, freed memory kept", s[name],
                        s["eager, memory kept"])]
    return [*out, row(FORWARD, "the same with BatchNorm not folded", s["fast"], s["forward"])]
