"""The readings that benchmarks/readings.py measures on the way from an image to its masks."""

import torch
import torch.nn.functional as F

from cam2seg import cam

VIEWS = [(f, mirror) for mirror in (False, True) for f in cam.SMOOTH_FACTORS]
FOUR = [0, 3, 1, 2]  # the image, its mirror, the image times 1.1 and 0.9


def split(model, x, layer):
    """A (B, K, h, w), G of each class (B, C, K, h, w) and logits (B, C)."""
    cut = int(layer.split(".")[1]) + 1
    with torch.no_grad():
        A = model.features[:cut](x)
    leaf = A.clone().requires_grad_()
    y = model.head(model.features[cut:](leaf.clone()).mean(dim=(2, 3)))
    G = [torch.autograd.grad(y[:, c].sum(), leaf, retain_graph=True)[0] for c in range(y.shape[1])]
    return A, torch.stack(G, dim=1), y.detach()


def each_class(formula, A, G):
    return torch.stack([formula(A, G[:, c]) for c in range(G.shape[1])], dim=1)


def relu_per_channel(A, G):  # DEV-1
    return F.relu(G.mean(dim=(2, 3), keepdim=True) * A).sum(dim=1)


def weighted(A, G, alpha):
    w = (alpha * F.relu(G)).sum(dim=(2, 3), keepdim=True)
    return F.relu((w * A).sum(dim=1))


def with_epsilon(A, G):  # DEV-4: an absolute 1e-6 beside G^2
    bottom = 2 * G**2 + A.sum(dim=(2, 3), keepdim=True) * G**3 + 1e-6
    return weighted(A, G, torch.where(G != 0, G**2 / bottom, 0))


def without_denominator(A, G):  # DEV-4
    return weighted(A, G, G**2)


def alpha_of(A, G):
    bottom = 2 + A.sum(dim=(2, 3), keepdim=True) * G
    return torch.where((G != 0) & (bottom != 0), 1 / bottom, 0)


def alpha_above_zero(A, G):  # DEV-22
    return weighted(A, G, alpha_of(A, G).clamp(min=0))


def sums_above_zero(A, G):  # DEV-22
    return weighted(A, G, alpha_of(F.relu(A), G))


FORMULAS = {"gradcam": cam.grad_cam, "per channel": relu_per_channel, "gradcam++": cam.grad_cam_pp,
            "normalized": cam.FORMULAS["gradcam++normalized"], "epsilon": with_epsilon,
            "no denominator": without_denominator, "alpha >= 0": alpha_above_zero,
            "A >= 0 in S": sums_above_zero}


def stored(maps):
    return cam.normalize(maps, "max").half().float()  # DEV-21


def maps_of_batch(model, x, shift, layer):
    """Small maps {reading: (B, C, h, w)} and probabilities {reading: (B, C)}, by what is changed in
    the way from image to map."""
    seen = []
    for f, mirror in VIEWS:
        view = f * (x.flip(-1) if mirror else x)
        A, G, y = split(model, view, layer)
        raw = {name: each_class(formula, A, G) for name, formula in FORMULAS.items()}
        s = y.sigmoid()
        raw["sigmoid"] = each_class(cam.grad_cam_pp, A, G * (s * (1 - s))[:, :, None, None, None])
        seen.append(({k: m.flip(-1) if mirror else m for k, m in raw.items()}, y, A, G))
    out = {k: stored(sum(raw[k] for raw, *_ in seen)) for k in seen[0][0]}
    pp, y = [raw["gradcam++"] for raw, *_ in seen], torch.stack([y for _, y, *_ in seen])
    out["float32"] = cam.normalize(sum(pp), "max")
    out["one view"], out["one view, gradcam"] = stored(pp[0]), stored(seen[0][0]["gradcam"])
    out["four views"] = stored(sum(pp[v] for v in FOUR))
    out["each view min-maxed"] = sum(map(cam.normalize, pp)) / len(pp)
    weight = (y - y.amax(dim=0)).exp()[..., None, None]  # exp(y) of a view over that of the largest
    out["exp(y)"] = stored(sum(w * m for w, m in zip(weight, pp, strict=True)))
    out["raw image"] = stored(cam.aug_smooth(
        lambda v: each_class(cam.grad_cam_pp, *split(model, v, layer)[:2]), x, shift))
    _, _, A, G = seen[0]
    negative = (alpha_of(A[:, None].flatten(0, 1), G[:, 0]) < 0).float().mean().item()
    return out, {"p": y[0].sigmoid(), "mean p": y.sigmoid().mean(dim=0)}, negative


# name of the row, small maps, and what is changed in the way from map to mask
ROWS = [
    ("", "defaults", "gradcam++", {}),
    ("DEV-1", "Grad-CAM, ReLU of the sum", "gradcam", {}),
    ("DEV-1", "Grad-CAM, ReLU of each channel", "per channel", {}),
    ("DEV-2", "y after the sigmoid", "sigmoid", {}),
    ("DEV-4", "alphas of a channel sum to 1", "normalized", {}),
    ("DEV-4", "epsilon 1e-6 in the denominator", "epsilon", {}),
    ("DEV-4", "no denominator", "no denominator", {}),
    ("DEV-5", "divided by the maximum", "gradcam++", {"how": "max"}),
    ("DEV-5", "upscaled, then min-max", "gradcam++", {"after": True}),
    ("DEV-6", "raw image multiplied", "raw image", {}),
    ("DEV-11", "gate: known labels", "gradcam++", {"gate": "labels"}),
    ("DEV-13", "least area 400 of 40000 pixels", "gradcam++", {"least": 400}),
    ("DEV-13", "least area 400, strict", "gradcam++", {"least": 401}),
    ("DEV-15", "gate: mean probability of the views", "gradcam++", {"gate": "mean p"}),
    ("DEV-16", "each view min-maxed, mean as it is", "each view min-maxed", {"how": "none"}),
    ("DEV-16", "each view min-maxed, mean too", "each view min-maxed", {}),
    ("DEV-16", "views weighed by exp(y)", "exp(y)", {}),
    ("DEV-17", "four views", "four views", {}),
    ("DEV-17", "one view (no aug smooth)", "one view", {}),
    ("DEV-17", "one view, Grad-CAM", "one view, gradcam", {}),
    ("DEV-20", "above, not at, both bounds", "gradcam++", {"strict": True}),
    ("DEV-21", "maps kept in float32", "float32", {}),
    ("DEV-22", "alpha below 0 set to 0", "alpha >= 0", {}),
    ("DEV-22", "ReLU(A) in the sum S", "A >= 0 in S", {}),
    ("DEV-25", "threshold 0.75", "gradcam++", {"threshold": 0.75}),
    ("DEV-26", "nearest", "gradcam++", {"mode": "nearest-exact"}),
    ("DEV-26", "bilinear, corners aligned", "gradcam++", {"align_corners": True}),
    ("DEV-29", "a pixel belongs to one class", "gradcam++", {"exclusive": True}),
]


def masks_of(small, size, accepted, how="minmax", after=False, mode="bilinear", align_corners=None,
             threshold=0.3, least=0, strict=False, exclusive=False):
    """Masks bool (C, H, W) of maps (C, h, w)."""
    if mode == "bilinear" and align_corners is None:
        align_corners = False
    small = small if after or how == "none" else cam.normalize(small, how)
    full = F.interpolate(small[None], size=size, mode=mode, align_corners=align_corners)[0]
    full = cam.normalize(full, how) if after else full
    out = full > threshold if strict else full >= torch.tensor(threshold)
    out = out & accepted[:, None, None]
    if exclusive:
        best = torch.where(accepted[:, None, None], full, -1).argmax(dim=0)
        out = out & (best == torch.arange(len(out))[:, None, None])
    return out & (out.sum(dim=(1, 2)) >= least)[:, None, None]


def accepted_by(gate, probs, label, i, strict=False):
    if gate == "labels":
        return label > 0
    return probs[gate][i] > 0.5 if strict else probs[gate][i] >= 0.5
