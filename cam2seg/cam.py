"""Class activation maps: the formulas, and the hooks that capture what they need.

    maps, logits = class_maps(model, x, "features.8")       # (B, C, h, w), (B, C)
    heat = image_maps(maps, x.shape[-2:])                   # (B, C, H, W) in [0, 1]

The functions work on any classifier that returns logits (B, C) and on any layer with a 4-D output.
They hand the model back as it was: the mode of every submodule, hooks, parameters, their .grad and
their requires_grad. The caller may have switched autograd off (no_grad, inference_mode).

Threads: while a call runs, the model carries hooks and is in eval mode. Two threads must therefore
never use the same model at once. Threads that each have a model of their own do not disturb one
another.

Precision: the formulas run in float32 at least, so that maps are float32 for a model in bfloat16
and under autocast to bfloat16. float16 is refused with a ValueError, under autocast too: it has
nothing between 0 and 6e-8, so that small gradients would become 0 and be missing from the maps.

Tags: [P-n] Sydorskyi 2022, [GC] arXiv:1610.02391, [PP] arXiv:1710.11063, [GB] arXiv:1412.6806.
Notation: B batch, C classes (c), K feature maps (k), (h, w) their cells (i, j), (H, W) the image;
A activations, G = dy/dA, y the logits: the score before the sigmoid (DEV-2).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

SMOOTH_FACTORS = (1.0, 1.1, 0.9)  # [P] section V
GUIDED_TYPES = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU,
                nn.SiLU, nn.Mish, nn.Hardswish, nn.Softplus)
Classes = Sequence[int] | Sequence[Sequence[int]] | Tensor | None  # see class_maps


class NonFiniteMapError(ValueError):
    """A map holds a NaN or an infinity. `image` is the index of the image in the batch,
    `class_index` the class and `layer` the name of the layer."""

    def __init__(self, image: int, class_index: int, layer: str):
        super().__init__(f"the map of image {image} of the batch for class {class_index} at layer "
                         f"'{layer}' is not finite")
        self.image, self.class_index, self.layer = image, class_index, layer


def grad_cam(A: Tensor, G: Tensor) -> Tensor:
    """Grad-CAM map, (B, K, h, w) x 2 -> (B, h, w), not normalised.

    alpha_k = 1/(h w) sum_ij G_kij         [P-1], [GC] Eq. 1
    L       = ReLU(sum_k alpha_k A_k)      [P-2], [GC] Eq. 2 (DEV-1: the sum over k)
    """
    alpha = G.mean(dim=(2, 3), keepdim=True)  # (B, K, 1, 1)
    return F.relu((alpha * A).sum(dim=1))


def grad_cam_pp(A: Tensor, G: Tensor, normalized: str | None = None) -> Tensor:
    """Grad-CAM++ map, (B, K, h, w) x 2 -> (B, h, w), not normalised.

    alpha_kij = G_kij^2 / (2 G_kij^2 + S_k G_kij^3) = 1 / (2 + S_k G_kij),  S_k = sum_ab A_kab
                                           [PP] Eq. 19 divided by G^2 (DEV-4); 0 where G = 0
    w_k       = sum_ij alpha_kij ReLU(G_kij)     [PP] Eq. 5 without exp(y) > 0 (DEV-16)
    L         = ReLU(sum_k w_k A_k)              [PP] Eq. 6

    Eq. 19 is the value of [PP] Eq. 10 for y piecewise linear in A >= 0. It is used here for any y
    and A (DEV-22). The outputs of SiLU can make S negative; alpha is 0 at the pole 2 + S G = 0.

    The code that the authors of [PP] published divides the alphas of a channel by their sum, which
    Eq. 19 does not (DEV-4). `normalized` chooses what is summed:
    None        nothing; this is Eq. 19
    "all"       all alphas, as in the authors' earlier code; w_k is 0 where the sum is 0
    "positive"  the alphas of the cells with G > 0, as in their present code; the alphas stay as
                they are where the sum is 0
    Raises ValueError for any other value.
    """
    if normalized not in (None, "all", "positive"):
        raise ValueError(f"normalized {normalized!r}: expected None, 'all' or 'positive'")
    S = A.sum(dim=(2, 3), keepdim=True)  # (B, K, 1, 1)
    denominator = 2 + S * G
    # At the pole 1 / 0 is infinite. Only there, because 2 + S G has no value nearer to 0 than 1e-7.
    alpha = denominator.reciprocal().nan_to_num(nan=torch.nan, posinf=0, neginf=0)
    if normalized:
        alpha = torch.where(G != 0, alpha, 0)  # for the sums; w is 0 there by ReLU(G)
        summed = alpha if normalized == "all" else torch.where(G > 0, alpha, 0)
        total = summed.sum(dim=(2, 3), keepdim=True)
        divided = alpha / torch.where(total == 0, 1, total)
        alpha = torch.where((total == 0) & (normalized == "all"), 0, divided)
    w = (alpha * F.relu(G)).sum(dim=(2, 3), keepdim=True)  # (B, K, 1, 1)
    return F.relu((w * A).sum(dim=1))


FORMULAS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradcam": grad_cam, "gradcam++": grad_cam_pp,
    "gradcam++normalized": partial(grad_cam_pp, normalized="all"),
    "gradcam++normalized-positive": partial(grad_cam_pp, normalized="positive")}


def class_maps(model: nn.Module, x: Tensor, target_layer: str | nn.Module,
               method: str = "gradcam++", classes: Classes = None) -> tuple[Tensor, Tensor]:
    """Raw maps (B, n, h, w) and the logits (B, C) of a batch x (B, 3, H, W).

    `target_layer` is a name as in model.named_modules(), or the module itself. `method` is a key
    of FORMULAS. `classes` says which maps to make:
    None                    one for each of the C classes
    n class indices         one for each of these, in that order, for every image
    B rows of n indices     one row per image, such as its top class: logits.topk(1).indices
    The model runs forward once, without a graph below the layer. The part above the layer runs
    backward n times.

    Raises ValueError for an unknown method, layer or class; for a layer that does not run exactly
    once, has no 4-D output, computes in float16 or does not lead to the logits; and, as
    NonFiniteMapError, for a map that is not finite.
    """
    if method not in FORMULAS:
        raise ValueError(f"method '{method}': expected one of {', '.join(FORMULAS)}")
    layer, name = find_layer(model, target_layer), _layer_name(model, target_layer)
    captured = []

    def split(module, inputs, output):
        if not isinstance(output, Tensor) or output.ndim != 4:
            raise ValueError(f"layer '{name}' has no (B, K, h, w) output")
        # Two copies are needed: torchvision's activations work in place, and the one that comes
        # next would write into A itself.
        captured.append(output.detach().clone().requires_grad_())
        torch.set_grad_enabled(True)  # for the part above the layer; the no_grad below ends it
        return captured[-1].clone()

    with torch.inference_mode(False), torch.enable_grad():
        with _evaluating(model, [(layer, split)]), torch.no_grad():
            logits = model(x.clone() if x.is_inference() else x)
        if len(captured) != 1:
            raise ValueError(f"layer '{name}' runs {len(captured)} times in a forward")
        A, indices = captured[0], _class_indices(classes, logits)
        fixed = A.detach().to(torch.promote_types(A.dtype, torch.float32))
        maps = torch.stack([FORMULAS[method](fixed, G)
                            for G in _gradients(logits, A, indices, f"layer '{name}'")], dim=1)
    return _finite(maps, indices, name), logits.detach()


def _class_indices(classes, logits):
    """The indices (B, n) of the classes that class_maps and guided_backprop are asked for."""
    if logits.ndim != 2:
        raise ValueError(f"logits are (B, C), got {tuple(logits.shape)}")
    B, C = logits.shape
    rows = [torch.as_tensor(row).tolist() for row in (range(C) if classes is None else classes)]
    if not any(isinstance(row, list) for row in rows):
        rows = [rows]  # the same for every image
    elif len(rows) != B or len({len(row) if isinstance(row, list) else None for row in rows}) > 1:
        raise ValueError(f"classes {rows}: expected {B} rows of the same length, one per image")
    if not rows[0] or any(not isinstance(c, int) or not 0 <= c < C for row in rows for c in row):
        raise ValueError(f"classes {rows}: expected indices from 0 to {C - 1}")
    return torch.tensor(rows, device=logits.device).expand(B, -1)


def _gradients(logits, inputs, indices, what) -> Iterator[Tensor]:
    """Yield dy_c/d inputs, in float32 at least, for each column of the class indices (B, n).

    The inputs are A for [P-1], and x for [P-3], whose f is read as y_c (DEV-18). One backward pass
    serves the whole batch: in eval mode no image has an influence on the logits of another.
    """
    if torch.float16 in (logits.dtype, inputs.dtype):
        raise ValueError(f"{what} computes in float16, where small gradients become 0: use float32 "
                         "or bfloat16")
    for n in range(indices.shape[1]):
        chosen = F.one_hot(indices[:, n], logits.shape[1]).to(logits.dtype)  # (B, C)
        G, = torch.autograd.grad(logits, inputs, chosen, retain_graph=n + 1 < indices.shape[1],
                                 allow_unused=True) if logits.requires_grad else (None,)
        if G is None:
            raise ValueError(f"no gradient leads from the logits to {what}")
        yield G.to(torch.promote_types(G.dtype, torch.float32))


def _finite(maps, indices, layer):
    """Return `maps` (B, n, h, w), or raise NonFiniteMapError for the first that is not finite."""
    bad = (~maps.flatten(2).isfinite().all(dim=2)).nonzero()
    if len(bad):
        b, n = bad[0].tolist()
        raise NonFiniteMapError(b, int(indices[b, n]), layer)
    return maps


def find_layer(model: nn.Module, layer: str | nn.Module) -> nn.Module:
    """The submodule of the model with that name; a module is returned as it is. Raises ValueError
    where the model has no submodule of that name."""
    if isinstance(layer, nn.Module):
        return layer
    modules = dict(model.named_modules())
    if not layer or layer not in modules:
        near = [name for name in modules if name.count(".") <= 1 and name]
        raise ValueError(f"no layer '{layer}'; some there are: {', '.join(near[:30])}")
    return modules[layer]


def _layer_name(model, layer):
    """The layer's name for messages. That of a module which the model does not hold is its type."""
    names = (name for name, module in model.named_modules() if module is layer)
    return layer if isinstance(layer, str) else next(names, type(layer).__name__)


@contextmanager
def _evaluating(model, hooks):
    """Put the model in eval mode and the forward hooks on the (module, hook) pairs. Both are undone
    at the end, also after an error."""
    modes = [(m, m.training) for m in model.modules()]
    handles = []
    try:
        handles += [module.register_forward_hook(hook) for module, hook in hooks]
        if any(mode for _, mode in modes):
            model.eval()
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            if module.training != mode:  # to set it costs more than to look
                module.training = mode


def guided_backprop(model: nn.Module, x: Tensor, classes: Classes = None) -> Tensor:
    """Guided gradients of the logits, (B, 3, H, W) -> (B, n, 3, H, W), of either sign.

    R_in = act'(z) * 1[act(z) > 0] * ReLU(R_out)      [P-4] applied at every activation as in [GB]

    For ReLU this is [GB] section 3.4. For SiLU and the other GUIDED_TYPES the gate looks at the
    output of the activation, as [P-4] prints it, and the slope is the activation's own (DEV-3).
    Modules of other types keep their plain gradient. Among them are the Sigmoids of
    squeeze-and-excitation, whose outputs are factors and not activations (DEV-3), and activations
    that are called as functions, which no hook reaches. `classes` is as in class_maps.

    Raises ValueError where the model has no activation module to hook, naming the types of module
    found; where none of them runs; for unknown classes; and for float16.
    """
    acts = [m for m in model.modules() if isinstance(m, GUIDED_TYPES)]
    if not acts:
        found = sorted({type(m).__name__ for m in model.modules() if not list(m.children())})
        raise ValueError("no activation module to guide; module types found: " + ", ".join(found))
    guided = []

    def guide(module, inputs, output):
        if output.requires_grad:  # False where the output does not depend on the image
            gate = output > 0
            output.register_hook(lambda R: F.relu(R) * gate)
            guided.append(module)

    with torch.inference_mode(False), torch.enable_grad():
        with _evaluating(model, [(m, guide) for m in acts]):
            leaf = x.detach().clone().requires_grad_()
            logits = model(leaf)
        if not guided:
            raise ValueError("no activation module runs in the forward: nothing is guided")
        indices = _class_indices(classes, logits)
        return torch.stack(list(_gradients(logits, leaf, indices, "the input")), dim=1)


def guided_grad_cam(model: nn.Module, x: Tensor, target_layer: str | nn.Module,
                    method: str = "gradcam", classes: Classes = None) -> tuple[Tensor, Tensor]:
    """Guided Grad-CAM (B, n, H, W) and the logits (B, C). Arguments and errors are as in class_maps
    and guided_backprop.

    RG_ij    = 1/3 sum_k ReLU(R_ij^k), R guided gradients      [P-4]
    L_Guided = upscale(L_GradCam) * RG                         [P-5], [GC] section 3.2
    """
    maps, logits = class_maps(model, x, target_layer, method, classes)
    RG = F.relu(guided_backprop(model, x, classes)).mean(dim=2)  # (B, n, 3, H, W) -> (B, n, H, W)
    guided, name = upscale(maps, x.shape[-2:]) * RG, _layer_name(model, target_layer)
    return _finite(guided, _class_indices(classes, logits), name), logits


def aug_smooth(maps_of: Callable[[Tensor], Tensor], x: Tensor,
               shift: float | Tensor = 0.0) -> Tensor:
    """The mean of six maps: x and its mirror image, each times 1.0, 1.1, 0.9  ([P] section V).

    `maps_of` turns a batch (B, 3, H, W) into maps (B, C, h, w). It is called six times, first with
    x itself. The maps of the mirror image are mirrored back. All six products of mirror and factor
    count (DEV-17), and it is their raw maps that are averaged (DEV-16).

    x is the network's input, so that a factor scales the normalised image. With `shift`, which is
    mean / std of that normalisation as (3, 1, 1), it scales the raw image instead: the view is
    f (x + shift) - shift = f x + (f - 1) shift (DEV-6).
    """
    def scaled(view, f):
        return view if f == 1 else f * view + (f - 1) * shift

    mirror = x.flip(-1)
    maps = [maps_of(scaled(x, f)) for f in SMOOTH_FACTORS]
    maps += [maps_of(scaled(mirror, f)).flip(-1) for f in SMOOTH_FACTORS]
    return torch.stack(maps).mean(dim=0)


def normalize(maps: Tensor, how: str = "minmax") -> Tensor:
    """Each map (..., h, w) stretched by its own values (DEV-5).

    "minmax" is (m - min) / (max - min), in [0, 1]. "max" is m / max, which is in [0, 1] where no
    value is below 0, as after a ReLU. A constant map has no cell that stands out: "minmax" makes it
    0 everywhere. "max" does so where no value is above 0. A map of a single cell is always
    constant, so "minmax" makes it 0, and every mask of it is empty (DEV-35). NaN stays NaN. Raises
    ValueError for another `how`.
    """
    if how not in ("minmax", "max"):
        raise ValueError(f"how '{how}': expected minmax or max")
    low = maps.amin(dim=(-2, -1), keepdim=True) if how == "minmax" else 0.0
    span = maps.amax(dim=(-2, -1), keepdim=True) - low
    flat = span <= 0  # False for NaN
    return torch.where(flat, 0, (maps - low) / torch.where(flat, 1, span))


def upscale(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (B, C, h, w) to (B, C, H, W), bilinear between cell centres  ([P-5], [GC], DEV-26)."""
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def image_maps(maps: Tensor, size: Sequence[int], how: str = "minmax",
               after: bool = False) -> Tensor:
    """Maps (B, C, h, w) -> (B, C, H, W) in [0, 1]: first normalised (`how` as in normalize), then
    upscaled. With `after` it is first upscaled, then normalised (DEV-5)."""
    return normalize(upscale(maps, size), how) if after else upscale(normalize(maps, how), size)


def numpy_maps(small: np.ndarray, size: Sequence[int], how: str = "minmax",
               after: bool = False) -> np.ndarray:
    """The image_maps of one image's maps in NumPy: (C, h, w) in any float dtype -> float32
    (C, H, W) in [0, 1]. `how` and `after` are as there."""
    maps = torch.tensor(np.asarray(small, np.float32))[None]  # a copy: small may be read-only
    return image_maps(maps, size, how, after)[0].numpy()
