"""The segmentation networks of train_seg.py by the names of --arch."""

from pathlib import Path

from torch import nn

from .. import models
from ..segnet import SegNet


def encoder(arch: str, weights: str | Path = "none") -> nn.Module:
    """VGG16 for the arch "segnet", and else the EfficientNet of that name.

    `weights` is as in models.vgg16 and models.encoder, which raise ValueError.
    """
    return models.vgg16(weights) if arch == "segnet" else models.encoder(arch, weights)


def build(arch: str, num_classes: int, weights: str | Path = "none",
          target: str = "multilabel") -> nn.Module:
    """SegNet for the arch "segnet", and else the U-Net on the encoder of that name.

    Both have the parts `encoder`, `decoder` and `head`. `weights` is as in `encoder`. For the
    target "multiclass" the network has one channel more than classes, the background's, which is
    the first.
    """
    num_classes += target == "multiclass"
    if arch == "segnet":
        return SegNet(encoder(arch, weights), num_classes)
    return models.UNet(arch, num_classes, weights=weights)
