"""The classification networks of train_cls.py: the paper's, and that of --seam."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import cam, models
from ..data.errors import DataError
from ..methods import seam

if TYPE_CHECKING:
    from .held_out_maps import MapOptions

LEAST_SIDE = 8  # pixels of a rescaled image


def build(arch: str, num_classes: int, weights: str | Path = "none",
          **settings: float) -> nn.Module:
    """SEAM where `settings` say its scale, and else the paper's classifier.

    Both have `features`, and a name for the layer whose output Grad-CAM maps. `weights` is as in
    models.encoder, which raises ValueError.
    """
    network = seam.Seam if "scale" in settings else models.Classifier
    return network(arch, num_classes, weights=weights, **settings)


def model_args(args: argparse.Namespace, num_classes: int) -> dict:
    """What `build` needs for the flags of train_cls.py."""
    own = {"scale": args.seam_scale, "stride": args.seam_stride} if with_seam(args) else {
        "hidden": args.hidden}
    return {"arch": args.arch, "num_classes": num_classes, **own, "dropout": args.dropout}


def with_seam(args: argparse.Namespace) -> bool:
    """Whether the flags of train_cls.py ask for SEAM: without --seam they do not name it at all."""
    return "seam" in args


def loss(outputs: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
    """[P-7] of logits, and the loss of SEAM of what its network returns in training mode.

    SEAM in eval mode returns logits, so that validation compares epochs by [P-7] (DEV-76).
    """
    if isinstance(outputs, Tensor):
        return F.binary_cross_entropy_with_logits(outputs, target)
    return seam.seam_loss(outputs, target)


def place(options: "MapOptions", model: nn.Module) -> str:
    """What the maps of a network are called: by the layer, or by SEAM, which has maps of its own.

    options: held_out_maps.MapOptions.
    """
    return "SEAM" if options.method == "seam" else options.target_layer or model.target_layer


def maps_of_view(options: "MapOptions", model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Raw maps (B, C, h, w) and logits (B, C) of a batch (B, 3, H, W) as it is, by a network in
    eval mode.

    Raises ValueError where the method or the layer does not suit the network, and as
    NonFiniteMapError for a map that is not finite.
    """
    if options.method == "seam":  # DEV-77: not the four scales of its authors
        return _own_maps(options, model, x)
    layer = options.target_layer or model.target_layer
    if options.method == "guided-gradcam":
        return cam.guided_grad_cam(model, x, layer)
    return cam.class_maps(model, x, layer, options.method)


@torch.no_grad()
def _own_maps(options, model, x):
    """What maps_of_view returns, of a network of SEAM: the refined maps."""
    if not isinstance(model, seam.Seam):
        raise ValueError("method 'seam': expected a network of train_cls.py --seam")
    if options.target_layer:
        raise ValueError("method 'seam' has maps of its own: expected no target layer")
    maps, logits = model.maps(x)
    bad = (~maps.flatten(2).isfinite().all(dim=2)).nonzero()
    if len(bad):
        raise cam.NonFiniteMapError(*bad[0].tolist(), "SEAM")
    return maps, logits


def smallest_input(args: argparse.Namespace, size: Sequence[int]) -> Sequence[int]:
    """The size (H, W) of the smallest image that the network sees in training, for an input of
    `size`. Raises DataError where --seam-scale makes it too small."""
    if not with_seam(args):
        return size
    small = seam.rescaled(size, args.seam_scale)
    if min(small) < LEAST_SIDE:
        raise DataError(f"--seam-scale {args.seam_scale}: {small[0]} x {small[1]} pixels of an "
                        f"input of {size[0]} x {size[1]}, expected {LEAST_SIDE} or more on each "
                        "side; a larger --size or --seam-scale helps")
    return small


def similarity_bytes(size: Sequence[int], stride: int | None) -> int:
    """Bytes of the similarities R of [S-4] of one image, for an input of `size` (H, W) and maps of
    this stride; 0 without a stride, which is that of a network without R."""
    if stride is None:
        return 0
    h, w = (-(-side // stride) for side in size)
    return 4 * (h * w) ** 2
