"""Class activation maps: the formulas, and the hooks that capture what they need.

    maps, logits = class_maps(model, x, "features.8")       # (B, C, h, w), (B, C)
    heat = image_maps(maps, x.shape[-2:])                   # (B, C, H, W) in [0, 1]

Works on any classifier with logits (B, C) and any layer with a 4-D output. The model comes back as
it was: mode of every submodule, hooks, parameters, their .grad and requires_grad.

Tags: [P-n] Sydorskyi 2022, [GC] arXiv:1610.02391, [PP] arXiv:1710.11063, [GB] arXiv:1412.6806.
Notation: B batch, C classes (c), K feature maps (k), (h, w) their cells (i, j), (H, W) the image;
A activations, G = dy/dA, y the logits: the score before the sigmoid (DEV-2).
"""

from contextlib import contextmanager
from functools import partial

import torch
import torch.nn as nn
import torch.nn.functional as F

SMOOTH_FACTORS = (1.0, 1.1, 0.9)  # [P] section V
GUIDED_TYPES = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU,
                nn.SiLU, nn.Mish, nn.Hardswish, nn.Softplus)


def grad_cam(A, G):
    """Grad-CAM map, (B, K, h, w) x 2 -> (B, h, w), not normalised.

    alpha_k = 1/(h w) sum_ij G_kij         [P-1], [GC] Eq. 1
    L       = ReLU(sum_k alpha_k A_k)      [P-2], [GC] Eq. 2 (DEV-1: the sum over k)
    """
    alpha = G.mean(dim=(2, 3), keepdim=True)  # (B, K, 1, 1)
    return F.relu((alpha * A).sum(dim=1))


def grad_cam_pp(A, G, normalized=False):
    """Grad-CAM++ map, (B, K, h, w) x 2 -> (B, h, w), not normalised.

    alpha_kij = G_kij^2 / (2 G_kij^2 + S_k G_kij^3) = 1 / (2 + S_k G_kij),  S_k = sum_ab A_kab
                                           [PP] Eq. 19 divided by G^2 (DEV-4); 0 where G = 0
    w_k       = sum_ij alpha_kij ReLU(G_kij)     [PP] Eq. 5 without exp(y) > 0 (DEV-16)
    L         = ReLU(sum_k w_k A_k)              [PP] Eq. 6

    Eq. 19 is [PP] Eq. 10 for y piecewise linear in A >= 0; here it is used for any y and A
    (DEV-22). SiLU and its kin let S be negative; alpha is 0 at the pole 2 + S G = 0.
    `normalized`: alpha_kij / sum_ab alpha_kab, as the code published by the authors of [PP] has it
    and Eq. 19 has not (DEV-4); 0 where that sum is 0.
    """
    S = A.sum(dim=(2, 3), keepdim=True)  # (B, K, 1, 1)
    denominator = 2 + S * G
    defined = (G != 0) & (denominator != 0)
    alpha = torch.where(defined, 1 / torch.where(defined, denominator, 1), 0)
    if normalized:
        total = alpha.sum(dim=(2, 3), keepdim=True)
        alpha = torch.where(total == 0, 0, alpha / torch.where(total == 0, 1, total))
    w = (alpha * F.relu(G)).sum(dim=(2, 3), keepdim=True)  # (B, K, 1, 1)
    return F.relu((w * A).sum(dim=1))


FORMULAS = {"gradcam": grad_cam, "gradcam++": grad_cam_pp,
            "gradcam++normalized": partial(grad_cam_pp, normalized=True)}


def class_maps(model, x, target_layer, method="gradcam++", classes=None):
    """Raw maps (B, C, h, w) and logits (B, C) of a batch x (B, 3, H, W).

    One forward, with no graph below `target_layer` (a name as in model.named_modules(), or the
    module), and one backward of the part above it for each class; `classes` (indices) asks for
    some maps only, in that order. `method`: one of FORMULAS.
    Raises ValueError for an unknown method, layer or class, and for a layer that does not run
    exactly once, has no 4-D output, or does not lead to the logits.
    """
    if method not in FORMULAS:
        raise ValueError(f"method '{method}': expected one of {', '.join(FORMULAS)}")
    layer = find_layer(model, target_layer)
    captured = []

    def split(module, inputs, output):
        if not isinstance(output, torch.Tensor) or output.ndim != 4:
            raise ValueError(f"layer '{target_layer}' has no (B, K, h, w) output")
        # Two copies: torchvision's activations are inplace, one would overwrite A itself.
        captured.append(output.detach().clone().requires_grad_())
        torch.set_grad_enabled(True)  # until the no_grad below ends
        return captured[-1].clone()

    with torch.inference_mode(False), torch.enable_grad():
        with _evaluating(model, [(layer, split)]), torch.no_grad():
            logits = model(x.clone() if x.is_inference() else x)
        if len(captured) != 1:
            raise ValueError(f"layer '{target_layer}' runs {len(captured)} times in a forward")
        A = captured[0]
        wide = torch.promote_types(A.dtype, torch.float32)  # bfloat16 under autocast
        maps = [FORMULAS[method](A.detach().to(wide), G.to(wide))
                for G in _gradients(logits, A, classes, target_layer)]
    return torch.stack(maps, dim=1), logits.detach()


def _gradients(logits, inputs, classes, what):
    """d y_c / d inputs, one class after the other: of A for [P-1], of x for [P-3], whose f is read
    as y_c (DEV-18). Images of a batch do not mix: eval mode."""
    if logits.ndim != 2:
        raise ValueError(f"logits are (B, C), got {tuple(logits.shape)}")
    C = logits.shape[1]
    classes = list(range(C)) if classes is None else [int(c) for c in classes]
    if not classes or min(classes) < 0 or max(classes) >= C:
        raise ValueError(f"classes {classes}: expected indices from 0 to {C - 1}")
    if not logits.requires_grad:
        raise ValueError(f"no gradient leads from the logits to '{what}'")
    for n, c in enumerate(classes, 1):
        y = logits[:, c].sum()
        G, = torch.autograd.grad(y, inputs, retain_graph=n < len(classes), allow_unused=True)
        if G is None:
            raise ValueError(f"no gradient leads from the logits to '{what}'")
        yield G


def find_layer(model, layer):
    """The submodule of that name (a module is handed back). Raises ValueError if there is none."""
    if isinstance(layer, nn.Module):
        return layer
    modules = dict(model.named_modules())
    if not layer or layer not in modules:
        near = [name for name in modules if name.count(".") <= 1 and name]
        raise ValueError(f"no layer '{layer}'; some there are: {', '.join(near[:30])}")
    return modules[layer]


@contextmanager
def _evaluating(model, hooks):
    """Eval mode with forward hooks on the (module, hook) pairs; both undone, also on errors."""
    modes = [(m, m.training) for m in model.modules()]
    handles = []
    try:
        handles += [module.register_forward_hook(hook) for module, hook in hooks]
        model.eval()
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode


def guided_backprop(model, x, classes=None):
    """Guided gradients of the logits, (B, 3, H, W) -> (B, C, 3, H, W), signed.

    R_in = act'(z) * 1[act(z) > 0] * ReLU(R_out)      [P-4] applied at every activation as in [GB]

    For ReLU this is [GB] section 3.4. For SiLU and its kin (DEV-3) the gate is that of the
    activation's output, as [P-4] prints it, and the slope is the activation's own.
    Raises ValueError, naming the module types found, where the model has no activation module to
    hook; activations called as functions are out of reach and stay plain.
    """
    acts = [m for m in model.modules() if isinstance(m, GUIDED_TYPES)]
    if not acts:
        found = sorted({type(m).__name__ for m in model.modules() if not list(m.children())})
        raise ValueError("no activation module to guide; module types found: " + ", ".join(found))
    guided = []

    def guide(module, inputs, output):
        if output.requires_grad:  # else the input does not reach it
            gate = output > 0
            output.register_hook(lambda R: F.relu(R) * gate)
            guided.append(module)

    with torch.inference_mode(False), torch.enable_grad():
        with _evaluating(model, [(m, guide) for m in acts]):
            leaf = x.detach().clone().requires_grad_()
            logits = model(leaf)
        if not guided:
            raise ValueError("no activation module runs in the forward: nothing is guided")
        return torch.stack(list(_gradients(logits, leaf, classes, "the input")), dim=1)


def guided_grad_cam(model, x, target_layer, method="gradcam", classes=None):
    """Guided Grad-CAM (B, C, H, W) and logits (B, C).

    RG_ij    = 1/3 sum_k ReLU(R_ij^k), R guided gradients      [P-4]
    L_Guided = upscale(L_GradCam) * RG                         [P-5], [GC] section 3.2
    """
    maps, logits = class_maps(model, x, target_layer, method, classes)
    RG = F.relu(guided_backprop(model, x, classes)).mean(dim=2)  # (B, C, 3, H, W) -> (B, C, H, W)
    return upscale(maps, x.shape[-2:]) * RG, logits


def aug_smooth(maps_of, x, shift=0.0):
    """Mean of six maps: x and its mirror, each times 1.0, 1.1, 0.9  ([P] section V).

    maps_of: (B, 3, H, W) -> (B, C, h, w); the first call is x itself, the mirror is undone on the
    maps. x is the network's input, so a factor scales the normalised image. `shift`, mean / std of
    that normalisation as (3, 1, 1), makes it scale the raw image instead: f (x + shift) - shift
    (DEV-6). All products of mirror and factor are views (DEV-17); their raw maps are averaged
    (DEV-16).
    """
    def scaled(view, f):
        return view if f == 1 else f * (view + shift) - shift

    mirror = x.flip(-1)
    maps = [maps_of(scaled(x, f)) for f in SMOOTH_FACTORS]
    maps += [maps_of(scaled(mirror, f)).flip(-1) for f in SMOOTH_FACTORS]
    return torch.stack(maps).mean(dim=0)


def normalize(maps, how="minmax"):
    """Each map (..., h, w) to [0, 1]: (m - min) / (max - min), or m / max with how="max" (DEV-5).

    A map with nothing to tell its cells apart ("minmax": constant; "max": max <= 0) becomes 0.
    """
    if how not in ("minmax", "max"):
        raise ValueError(f"how '{how}': expected minmax or max")
    low = maps.amin(dim=(-2, -1), keepdim=True) if how == "minmax" else 0.0
    span = maps.amax(dim=(-2, -1), keepdim=True) - low
    flat = span <= 0  # false for nan, which stays nan
    return torch.where(flat, 0, (maps - low) / torch.where(flat, 1, span))


def upscale(maps, size):
    """Maps (B, C, h, w) to (B, C, H, W), bilinear between cell centres  ([P-5], [GC], DEV-26)."""
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def image_maps(maps, size, how="minmax", after=False):
    """Maps (B, C, h, w) -> (B, C, H, W) in [0, 1]: normalised, then upscaled; `after` swaps the two
    (DEV-5)."""
    return normalize(upscale(maps, size), how) if after else upscale(normalize(maps, how), size)
