"""Masks of the first frame of a video carried through its other frames, with features that are
learned from the video itself and from no label.

[VC] stands for Vondrick et al., Tracking Emerges by Colorizing Videos, ECCV 2018, [VM] for Lai, Lu
and Xie, MAST: A Memory-Augmented Self-Supervised Tracker, CVPR 2020, and [VS] for Zhu et al.,
Self-supervised Video Object Segmentation, arXiv:2006.12480, which builds on both.

A network sees two frames without one channel of their colour, and that channel of the one frame is
copied together from the other. It is right only where each cell is copied from the place that the
same thing had before, so that the network learns to find that place. What copies a colour then also
copies a label.

Notation: B pairs of frames, C classes, H W pixels, h w cells of 2 x 2 pixels. I (3, H, W) is a
frame in Lab, f (D, h, w) its features, M (C, h, w) its labels in [0, 1]. i is a cell of the query,
the frame that is asked for, and j a cell of a reference, a frame that is known.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

CELL = 2  # pixels along a side of a cell, DEV-50
FEATURES = 32  # D
TEMPERATURE = 0.07  # tau of [V-2], DEV-53
TRAIN_RADIUS = 6  # R of [V-2] in training, in cells, [VM]
TOP = 5  # K of [V-3], DEV-53
HUBER = 1 / 20  # [V-4]: where the loss goes over from a square to a line, [VM]
DOUBT = (0.25, 0.75)  # [V-6]: labels between these are left out, DEV-55
TILE = 8  # cells along a side of the squares that are computed at once; the result is the same

# [V-1] From linear sRGB to XYZ, and the white of D65 (IEC 61966-2-1).
TO_XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
WHITE = (0.9505, 1.0, 1.089)


def lab(rgb: Tensor) -> Tensor:
    """Frames (..., 3, H, W) in Lab, values about in [-1, 1], from uint8 (..., H, W, 3).    [V-1]

    u = v / 255,  l = u / 12.92 if u <= 0.04045 else ((u + 0.055) / 1.055)^2.4
    (X, Y, Z) = TO_XYZ l / WHITE,  g(t) = t^(1/3) if t > (6/29)^3 else t / (3 (6/29)^2) + 4/29
    I = (L / 50 - 1, a / 100, b / 100),  L = 116 g(Y) - 16, a = 500 (g(X) - g(Y)),
    b = 200 (g(Y) - g(Z))
    """
    u = rgb.float() / 255
    linear = torch.where(u <= 0.04045, u / 12.92, ((u + 0.055) / 1.055) ** 2.4)
    t = linear @ torch.tensor(TO_XYZ).T / torch.tensor(WHITE)
    g = torch.where(t > (6 / 29) ** 3, t ** (1 / 3), t / (3 * (6 / 29) ** 2) + 4 / 29)
    X, Y, Z = g.unbind(dim=-1)
    return torch.stack([(116 * Y - 16) / 50 - 1, 5 * (X - Y), 2 * (Y - Z)], dim=-3)


def network(seed: int = 0) -> nn.Sequential:
    """The network behind the features: (B, 3, H, W) -> (B, D, h, w). H and W are even.    DEV-50

    The same seed gives the same weights, and no other random number of the program is touched.
    """
    def conv(into, out, side, **how):
        return nn.Conv2d(into, out, side, padding_mode="replicate", **how)

    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return nn.Sequential(conv(3, 32, 6, stride=CELL, padding=2), nn.ReLU(),
                             conv(32, 32, 3, padding=1), nn.ReLU(),
                             conv(32, 32, 3, padding=1), nn.ReLU(),
                             conv(32, FEATURES, 3, padding=1))


def describe(net: nn.Module, frames: Tensor) -> Tensor:
    """Features f (B, D, h, w) of frames I (B, 3, H, W), each of length 1 in its cell."""
    return F.normalize(net(frames), dim=1)


def copy(query: Tensor, references: Sequence[Tensor], values: Sequence[Tensor], radius: int,
         temperature: float = TEMPERATURE, top: int | None = None) -> Tensor:
    """What the query (B, D, h, w) copies from references of the same shape and their values
    (B, C, h, w): (B, C, h, w).

    A_ij = exp(<f_i, f_j> / tau) / sum_j' exp(<f_i, f_j'> / tau)    [V-2], [VC], [VM]
    X_i = sum_j A_ij X_j                                            [V-3], [VC], [VM]

    j and j' run over the cells of all references at most `radius` rows and columns away from i.
    With `top`, they run over those of them only that have the `top` largest <f_i, f_j>.
    """
    q = _tiles(query, 0).transpose(2, 3)  # (B, n, TILE^2, D): n squares
    reach = _tiles(torch.ones_like(query[:1, :1]), radius) > 0  # (1, n, 1, side^2)
    reach = reach & _window(radius, query.device)
    found, known = [], []
    for reference, value in zip(references, values, strict=True):
        s = (q @ _tiles(reference, radius)).masked_fill(~reach, -torch.inf)
        x = _tiles(value, radius)[:, :, :, None].expand(-1, -1, -1, TILE * TILE, -1)
        s, x = _largest(s, x, top)  # here already, because memory is short
        found.append(s)
        known.append(x)
    s, x = _largest(torch.cat(found, dim=3), torch.cat(known, dim=4), top)
    A = (s / temperature).softmax(dim=3)
    return _from_tiles((A[:, :, None] * x).sum(dim=4), query.shape[-2:])


def _tiles(x, margin):
    """The squares of TILE x TILE cells that cover x (B, C, h, w), each with a margin around it:
    (B, n, C, side^2). Cells outside x are 0."""
    B, C, h, w = x.shape
    side = TILE + 2 * margin
    x = F.pad(x, (margin, margin + -w % TILE, margin, margin + -h % TILE))
    return F.unfold(x, side, stride=TILE).view(B, C, side * side, -1).permute(0, 3, 1, 2)


def _from_tiles(x, size):
    """The inverse of _tiles with margin 0: (B, n, C, TILE^2) -> (B, C, h, w)."""
    h, w = size
    whole = h + -h % TILE, w + -w % TILE
    x = x.permute(0, 2, 3, 1).flatten(1, 2)
    return F.fold(x, whole, TILE, stride=TILE)[..., :h, :w]


def _window(radius, device):
    """Which cells of a square with a margin of `radius` each cell of the square may look at."""
    row = torch.arange(TILE, device=device) + radius
    near = (row[:, None] - torch.arange(TILE + 2 * radius, device=device)).abs() <= radius
    return (near[:, None, :, None] & near[None, :, None, :]).reshape(TILE * TILE, -1)


def _largest(s, x, top):
    """The `top` largest of s (B, n, TILE^2, m), and what stands beside them in x (B, n, C, TILE^2,
    m); all of both where top is None."""
    if top is None:
        return s, x
    s, at = s.topk(min(top, s.shape[3]), dim=3)
    return s, x.gather(4, at[:, :, None].expand(-1, -1, x.shape[2], -1, -1))


def reconstruction_loss(net: nn.Module, query: Tensor, reference: Tensor, channel: int) -> Tensor:
    """How badly the network copies one channel of colour that it does not see.    [V-4], [VM]

    loss = mean over pairs and cells of h(X_i - I_i),  h(d) = d^2 / (2 b) if |d| < b else |d| - b/2

    b = 1/20. I_i is the mean of the channel (1: a, 2: b) over the pixels of cell i, and X its copy
    by [V-3]. query and reference (B, 3, H, W) are frames in Lab. The network sees both with that
    channel set to 0 and the other two times 3/2.
    """
    seen = 1.5 * torch.cat([query, reference])
    seen[:, channel] = 0
    f, g = describe(net, seen).chunk(2)
    I, J = (cells(frames[:, channel:channel + 1]) for frames in (query, reference))
    return F.smooth_l1_loss(copy(f, [g], [J], TRAIN_RADIUS), I, beta=HUBER)


def cells(x: Tensor) -> Tensor:
    """The mean of x (B, C, H, W) over each cell: (B, C, h, w)."""
    return F.avg_pool2d(x, CELL)


def propagate(features: Iterable[Tensor], first: Tensor, radius: int, memory: int,
              temperature: float = TEMPERATURE) -> Iterator[Tensor]:
    """Yield the labels M (C, h, w) of each frame, those of the first frame as they are given.

    M_t = copy, by the TOP most alike cells, of the labels M of the first frame and of the last
          `memory` frames before t                                              [V-5], [VM]

    features: f (D, h, w) of each frame. The labels of a frame stay numbers in [0, 1] when later
    frames copy them. DEV-53 is about radius, TOP and temperature, and DEV-54 about the memory.
    """
    start, recent = None, deque(maxlen=memory)
    for f in features:
        f, M = f[None], first[None]
        if start is None:
            start = f, M
        else:
            M = copy(f, *zip(start, *recent), radius, temperature, TOP)
            recent.append((f, M))
        yield M[0]


def masks_of(M: Tensor, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Masks and the pixels that a trainer must leave out, both bool (C, H, W).    [V-6]

    mask = [p > 1/2],  left out: [1/4 < p < 3/4],  p = M interpolated between the cells

    Each class has its own mask (DEV-29). What is left out is DEV-55.
    """
    p = F.interpolate(M[None], size, mode="bilinear", align_corners=False)[0].cpu().numpy()
    return p > 0.5, (DOUBT[0] < p) & (p < DOUBT[1])
