"""Rows of benchmarks/speed.py: activation maps, and the bare forward that they need.

The peers are called once for each class. Each such call does the same work, so that one class is
timed and its seconds are multiplied by the number of classes.
"""

import copy

import torch
from speed import in_turn, package, row
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cam2seg import cam, models

BATCH, SIZE, CLASSES, LAYER = 4, (256, 512), 4, "features.8"
WHAT = f"maps of {CLASSES} classes, b0, batch {BATCH}, {SIZE[0]} x {SIZE[1]}, Grad-CAM++"


def folded(model):
    """A copy of a network in eval mode whose BatchNorms are part of the convolutions before them."""
    model = copy.deepcopy(model)
    for block in [m for m in model.modules() if isinstance(m, nn.Sequential)]:
        names = list(block._modules)
        for conv, norm in zip(names, names[1:], strict=False):
            if isinstance(block[int(norm)], nn.BatchNorm2d):
                block._modules[conv] = fuse_conv_bn_eval(block._modules[conv],
                                                         block._modules[norm])
                block._modules[norm] = nn.Identity()
    return model


def forward(model, x, times=1):
    def run():
        with torch.no_grad():
            for _ in range(times):
                model(x)
    return run


def grad_cam_of_peer(library, model, x, smooth=False):
    """pytorch-grad-cam as its README calls it, for one class."""
    target = package("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget

    def run():
        with library.GradCAMPlusPlus(model, [model.get_submodule(LAYER)]) as method:
            method(x, [target(0)] * BATCH, aug_smooth=smooth)
    return run


def maps_of_captum(library, model, x):
    """captum has no Grad-CAM++, so that this is Grad-CAM."""
    method = library.LayerGradCam(model, model.get_submodule(LAYER))
    return lambda: method.attribute(x, 0, relu_attributions=True)


def maps_of_torch_cam(library, model, x):
    def run():
        with library.GradCAMpp(model, LAYER) as method:
            method(0, model(x))
    return run


def rows(args):
    torch.manual_seed(0)
    model = models.Classifier("b0", CLASSES).eval().to(memory_format=torch.channels_last)
    plain = models.Classifier("b0", CLASSES).eval()
    plain.load_state_dict(model.state_dict())
    x = torch.randn(BATCH, 3, *SIZE)
    last = x.to(memory_format=torch.channels_last)
    works = {"ours": lambda: cam.class_maps(model, last, LAYER), "forward": forward(model, last),
             "six": lambda: cam.aug_smooth(lambda v: cam.class_maps(model, v, LAYER)[0], last),
             "eager": forward(plain, x),
             "inference": forward(folded(model).to(memory_format=torch.channels_last), last)}
    for name, module, make in (
            ("pytorch-grad-cam", "pytorch_grad_cam", grad_cam_of_peer),
            ("captum", "captum.attr", maps_of_captum),
            ("torch-cam", "torchcam.methods", maps_of_torch_cam)):
        if package(module):
            works[name] = make(package(module), plain, x)
    if package("pytorch_grad_cam"):
        works["aug_smooth"] = grad_cam_of_peer(package("pytorch_grad_cam"), plain, x, True)
    s = in_turn(works, args.rounds)
    peers = ("pytorch-grad-cam", "captum", "torch-cam", "aug_smooth")
    s.update({name: CLASSES * s[name] for name in peers if name in s})
    limits = {"pytorch-grad-cam": 1 / 20, "captum": 1, "torch-cam": 1}
    out = [row(WHAT, f"{name}, one call a class", s["ours"], s[name], limit)
           for name, limit in limits.items() if name in s]
    out.append(row(WHAT, "one bare forward", s["ours"], s["forward"], 1.1))
    if "aug_smooth" in s:
        out.append(row("the same, six views", "pytorch-grad-cam, aug_smooth", s["six"],
                       s["aug_smooth"], 1 / 20))
    out += [row("the same, six views", "six bare forwards", s["six"], 6 * s["forward"], 1.05),
            row("bare forward for inference: channels_last, BatchNorm folded",
                "eager, NCHW, float32", s["inference"], s["eager"], 1 / 1.5)]
    return out
