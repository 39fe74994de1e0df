"""SEAM: a classifier whose maps move with the image, refined by the similarity of pixels
(train_cls.py --seam).

    model = Seam("b0", num_classes=4)
    loss = seam_loss(model.train()(x), target)     # target: 0 and 1, (B, C)
    logits = model.eval()(x)                       # (B, C)
    maps, logits = model.maps(x)                   # (B, C, h, w) in [0, 1], refined

The classifier sees each image twice: as it is, and rescaled by A. Its map, the CAM, must be the
same both times, and so must the map that the pixel correlation module (PCM) makes of it.

Tags: [S-n] Wang et al., CVPR 2020, arXiv:2004.04581, and the code that its authors have published;
the numbers are ours. Notation as in cam.py; i, j are cells, yhat is the CAM before PCM and y the
map after it. Channel 0 of 1 + C channels is the background.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from .. import models

STRIDES = (8, 16, 32)
LEVELS = (3, 5)  # features[i] that PCM compares pixels by, DEV-74
WIDTHS = (64, 128)  # channels of their embeddings, as in the authors' code
EPS = 1e-5  # of the authors' code, DEV-75
HARDEST = 0.2  # part of the elements that [S-7] counts
LOWEST = 4  # [S-9] counts one pixel in so many


class Seam(nn.Module):
    """A classifier with a CAM and its refinement, (B, 3, H, W) -> logits (B, num_classes).

    In training mode the result is what seam_loss takes: logits, yhat and y of the image, then those
    of the rescaled image, the maps at the size of the pixels. `scale` is that of the rescaled
    image. `stride` is that of the maps (8, 16 or 32); `dropout` that of whole channels before the
    CAM; `arch` and `weights` are as in models.encoder. Raises ValueError for another scale or
    stride.
    """

    target_layer = "features.8"  # Grad-CAM there is ReLU(yhat) before PCM, but for a factor

    def __init__(self, arch: str, num_classes: int, scale: float = 0.3, stride: int = 8,
                 dropout: float = 0.5, weights: str | Path = "none"):
        super().__init__()
        if not 0 < scale <= 1 or stride not in STRIDES:
            raise ValueError(f"scale {scale} and stride {stride}: expected a number above 0, up to "
                             f"1, and one of {', '.join(map(str, STRIDES))}")
        self.scale = scale
        self.features = models.encoder(arch, weights)
        dilate(self.features, stride)
        self.dropout = nn.Dropout2d(dropout)
        self.cam = nn.Conv2d(self.features[-1].out_channels, num_classes, 1, bias=False)
        self.embeddings = nn.ModuleList(
            nn.Conv2d(self.features[i][-1].out_channels, width, 1, bias=False)
            for i, width in zip(LEVELS, WIDTHS, strict=True))
        self.joined = nn.Conv2d(3 + sum(WIDTHS), sum(WIDTHS), 1, bias=False)
        nn.init.xavier_uniform_(self.cam.weight)
        for embedding in self.embeddings:
            nn.init.kaiming_normal_(embedding.weight)
        nn.init.xavier_uniform_(self.joined.weight, gain=4)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        if not self.training:
            return self._cam(x)[0].mean(dim=(2, 3))  # DEV-76
        small = resize(x, rescaled(x.shape[-2:], self.scale))
        original = self._branch(x)
        with still(self):
            return (*original, *self._branch(small))

    def maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Refined maps (B, C, h, w) of a batch (B, 3, H, W), and the logits (B, C)."""
        yhat, y = self._refined(x)
        return y[:, 1:], yhat.mean(dim=(2, 3))

    def _branch(self, x):
        """Logits (B, C), yhat (B, C, H, W) and y (B, 1 + C, H, W) of a batch (B, 3, H, W)."""
        yhat, y = self._refined(x)
        return yhat.mean(dim=(2, 3)), resize(yhat, x.shape[-2:]), resize(y, x.shape[-2:])

    def _cam(self, x):
        """yhat (B, C, h, w), float32 at least, and the features of LEVELS without a graph."""
        A, levels = x, []
        for i, stage in enumerate(self.features):
            A = stage(A)
            if i in LEVELS:
                levels.append(A.detach())
        yhat = self.cam(self.dropout(A))
        return yhat.to(torch.promote_types(yhat.dtype, torch.float32)), levels

    def _refined(self, x):
        """yhat (B, C, h, w), and y (B, 1 + C, h, w) by PCM  ([S-3], [S-4])."""
        yhat, levels = self._cam(x)
        seen = [F.relu(embedding(level))
                for embedding, level in zip(self.embeddings, levels, strict=True)]
        f = self.joined(torch.cat([resize(part, yhat.shape[-2:]) for part in (x, *seen)], dim=1))
        with torch.autocast(x.device.type, enabled=False):  # sums over all cells want float32
            return yhat, correlate(competing(yhat.detach()), f.to(yhat.dtype))


def dilate(features: nn.Module, stride: int) -> None:
    """Let an encoder end at this stride: steps beyond it become dilations of the layers after them
    (DEV-74). The weights stay as they are."""
    reached, dilation = 1, 1
    for conv in features.modules():
        if isinstance(conv, nn.Conv2d) and conv.kernel_size[0] > 1:
            step, spread = conv.stride[0], dilation
            if reached * step > stride:
                dilation, conv.stride = dilation * step, (1, 1)
            else:
                reached *= step
            conv.dilation = (spread, spread)
            conv.padding = tuple(spread * (side // 2) for side in conv.kernel_size)


@contextmanager
def still(model: nn.Module) -> Iterator[None]:
    """In the block BatchNorm normalises by the batch and leaves its running statistics as they are:
    those of the image alone, because no rescaled one is seen in eval mode (DEV-76)."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for m in norms:
        m.momentum = 0.0
    try:
        yield
    finally:
        for m, momentum in zip(norms, momenta, strict=True):
            m.momentum = momentum


def rescaled(size: Sequence[int], scale: float) -> tuple[int, int]:
    """The size of A(I) for an image I of `size`, rounded down.    [S-1]"""
    return int(size[0] * scale), int(size[1] * scale)


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """A, bilinear between the outermost cells, which keep their place.    [S-1]"""
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=True)


def max_norm(maps: Tensor) -> Tensor:
    """Each map (..., h, w) scaled to [0, 1] by itself: with m = ReLU(map),

    (m - min m - e)+ / (max m - min m + e), e = EPS    [S-5]
    """
    m = F.relu(maps)
    low, high = (bound(m, dim=(-2, -1), keepdim=True) for bound in (torch.amin, torch.amax))
    return F.relu(m - low - EPS) / (high - low + EPS)


def with_background(maps: Tensor) -> Tensor:
    """The background 1 - max_c of maps (B, C, h, w), and then the maps.    [S-2]"""
    return torch.cat([1 - maps.amax(dim=1, keepdim=True), maps], dim=1)


def largest_only(maps: Tensor) -> Tensor:
    """Maps (B, 1 + C, h, w) in which each cell keeps its largest class and its background; the
    other classes are 0 there.    [S-6]

    The result is a new tensor: that of the authors' code is the argument itself, changed.
    """
    top = maps[:, 1:].amax(dim=1, keepdim=True)
    return torch.cat([maps[:, :1], torch.where(maps[:, 1:] == top, maps[:, 1:], 0)], dim=1)


def competing(yhat: Tensor) -> Tensor:
    """What PCM spreads, (B, 1 + C, h, w), from a CAM (B, C, h, w): with m = ReLU(yhat),

    largest_only of (m - e)+ / (max m + e) and its background, e = EPS    [S-3]
    """
    m = F.relu(yhat)
    scaled = F.relu(m - EPS) / (m.amax(dim=(-2, -1), keepdim=True) + EPS)
    return largest_only(with_background(scaled))


def correlate(maps: Tensor, f: Tensor) -> Tensor:
    """PCM: maps (B, n, h, w) spread among cells of like features f (B, K, h, w).

    R_ij = ReLU(f_i f_j / ((|f_i| + e) (|f_j| + e)))
    y_i  = sum_j R_ij yhat_j / (sum_j R_ij + e), e = EPS    [S-4]
    """
    f = f.flatten(2)
    f = f / (f.norm(dim=1, keepdim=True) + EPS)
    R = F.relu(f.transpose(1, 2) @ f)  # (B, h w, h w)
    R = R / (R.sum(dim=1, keepdim=True) + EPS)
    return (maps.flatten(2) @ R).unflatten(2, maps.shape[-2:])


def hardest(target: Tensor, maps: Tensor) -> Tensor:
    """Mean |target - maps| over the fifth of the elements of each image where it is largest, of
    maps (B, 1 + C, h, w).    [S-7]

    The number of elements is that of these channels (DEV-75).
    """
    error = (target - maps).abs().flatten(1)
    return error.topk(int(error.shape[1] * HARDEST), dim=1).values.mean()


def min_pooling(maps: Tensor) -> Tensor:
    """Mean of ReLU(max_c) over the quarter of the pixels of each image where it is smallest, of
    maps (B, C, H, W).    [S-9]"""
    top = maps.amax(dim=1).flatten(1)
    return F.relu(top.topk(top.shape[1] // LOWEST, dim=1, largest=False).values).mean()


def seam_loss(outputs: Sequence[Tensor], target: Tensor) -> Tensor:
    """The loss of a batch, as one number that carries a graph.

    L     = L_cls + L_ER + L_ECR                                        [S-10]
    L_cls = 1/2 sum over both branches of BCE(logits, target) + min_pooling(y l)
    L_ER  = mean |A(N yhat) l - N yhat' l|                              [S-8]
    L_ECR = hardest(O(N yhat' l), A(N y) l) + hardest(O(A(N yhat) l), N y' l)    [S-7]

    N is max_norm, l the label of the class (1 for the background), ' the rescaled branch, and O
    largest_only with the background of its argument, through which no gradient passes. `outputs`
    are those of Seam in training mode, and `target` (B, C) holds 0 and 1.
    """
    logits, yhat, y, logits2, yhat2, y2 = outputs
    label = target[:, :, None, None]
    known = F.pad(label, (0, 0, 0, 0, 1, 0), value=1.0)  # (B, 1 + C, 1, 1)
    size = yhat2.shape[-2:]
    classified = sum(F.binary_cross_entropy_with_logits(each, target)
                     for each in (logits, logits2)) / 2
    pooled = (min_pooling(y[:, 1:] * label) + min_pooling(y2[:, 1:] * label)) / 2
    yhat, y = resize(max_norm(yhat), size) * label, resize(max_norm(y), size) * known
    yhat2, y2 = max_norm(yhat2) * label, max_norm(y2) * known
    kept, kept2 = (largest_only(with_background(each.detach())) for each in (yhat, yhat2))
    equivariant = (yhat - yhat2).abs().mean()
    crossed = hardest(kept2, y) + hardest(kept, y2)
    return classified + pooled + equivariant + crossed
