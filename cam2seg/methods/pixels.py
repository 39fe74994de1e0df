"""Masks from image-level labels by a small network that looks at the filter responses of one pixel.

The formulas [C-28] to [C-31] are this project's own and not the paper's; see AUDIT.md 2.6.

No single filter shows a defect that is dark on one side and bright on the other, or that differs
from harmless marks by its direction alone. A network of three layers joins many descriptors of a
pixel to one score for each class. It never sees where the pixel lies. It is trained with the labels
of the images alone (multiple-instance learning): the highest scores of an image must tell its
labels. Since the clean images hold the same marks, those marks get low scores.

Notation as in contrast.py: x the logarithm of an image (H, W), G_s * x a Gaussian blur. D = 38
descriptors d, C classes, N images, m pixels of each; z (..., C) the scores, which are logits.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .contrast import blur, otsu
from .texture import NOISE

# [C-28] Scales of the bands, of the slopes with the windows of each, and band and window of the
# energies of one sign.
BANDS = (0, 1, 2, 4, 8, 16, 32)
SLOPES = ((0, (2, 6)), (1, (3, 8)), (2, (4, 12)), (4, (8, 16)))
SIDES = ((0, 3), (1, 4), (2, 8), (3, 12))
DESCRIPTORS = len(BANDS) - 1 + 3 * sum(len(S) for _, S in SLOPES) + 2 * len(SIDES)  # D = 38
FARTHEST = 8.0  # deviations, at which a descriptor is cut
LEAST_SCALE = 1e-5  # [C-29] in the place of 0, for a descriptor that is the same in all pixels

PARTS = (0.03, 0.2)  # [C-30] parts of the pixels whose mean score tells the label
WIDTH = 32  # units of both inner layers
STEPS, IMAGES, PIXELS, RATE, DECAY = 600, 24, 1024, 3e-3, 1e-2  # of the training, [C-30]


class Network(NamedTuple):
    """Weights of the network [C-29], and the deviation (D,), 1e-5 at least, that each descriptor is
    divided by."""

    scale: Tensor
    weights: list  # three of (in, out)
    biases: list  # three of (out,)


def describe(x: Tensor) -> Tensor:
    """Descriptors d, float32 (D, h, w), of every second row and column of x (H, W).    [C-28]

    b_k = G_s * x - G_l * x for the neighbours s < l of 0, 1, 2, 4, 8, 16, 32
    1/2 log(X + e), 1/2 log(Y + e), (G_S * (g_x g_y)) / (X + Y + e),  X = G_S * g_x^2, Y = G_S * g_y^2
    1/2 log(G_S * max(b_k, 0)^2 + e), 1/2 log(G_S * max(-b_k, 0)^2 + e),  e = 1e-5

    g_x and g_y are the slopes of G_s * x along rows and columns, half the difference of the two
    neighbours and 0 at the border. s, S and k run over SLOPES and SIDES. The median of each
    descriptor over the image is subtracted.
    """
    x = x - x.median()
    blurred = {s: blur(x, s) for s in BANDS}
    bands = [blurred[s] - blurred[l] for s, l in zip(BANDS, BANDS[1:])]
    d = [band[::2, ::2] for band in bands]
    for s, windows in SLOPES:
        gx, gy = _slopes(blurred[s])
        for S in windows:
            X, Y, XY = (blur(g, S, step=2) for g in (gx * gx, gy * gy, gx * gy))
            d += [_log(X), _log(Y), XY / (X + Y + NOISE)]
    for k, S in SIDES:
        d += [_log(blur(side.clamp(min=0) ** 2, S, step=2)) for side in (bands[k], -bands[k])]
    d = torch.stack(d)
    return d - d.flatten(1).median(dim=1).values[:, None, None]


def _log(energy):
    return 0.5 * torch.log(energy + NOISE)


def _slopes(z):
    gx, gy = torch.zeros_like(z), torch.zeros_like(z)
    gx[:, 1:-1] = (z[:, 2:] - z[:, :-2]) / 2
    gy[1:-1] = (z[2:] - z[:-2]) / 2
    return gx, gy


def score(network: Network, d: Tensor) -> Tensor:
    """Scores z (..., C) of descriptors d (..., D).    [C-29]

    z = W_3 max(W_2 max(W_1 n + b_1, 0) + b_2, 0) + b_3,  n = d / scale, cut at -8 and 8
    """
    a = (d / network.scale).clamp(-FARTHEST, FARTHEST)
    for W, b in zip(network.weights[:-1], network.biases[:-1], strict=True):
        a = (a @ W + b).clamp(min=0)
    return a @ network.weights[-1] + network.biases[-1]


def pool(z: Tensor, part: float) -> Tensor:
    """Score (N, C) of each image: the mean of the highest part of its scores z (N, m, C).    [C-30]

    At least one score counts.
    """
    return z.topk(max(1, int(part * z.shape[1])), dim=1).values.mean(dim=1)


def loss_of(z: Tensor, y: Tensor) -> Tensor:
    """The loss of scores z (N, m, C) under the labels y (N, C) of the images.    [C-30]

    loss = mean over both parts, 0.03 and 0.2, of BCE(pool(z, part), y)

    The small part finds the surest pixels of a defect, and the large part spreads to all of it.
    """
    return torch.stack([F.binary_cross_entropy_with_logits(pool(z, part), y)
                        for part in PARTS]).mean()


def fit(d: np.ndarray, y: np.ndarray, seed: int = 0) -> Network:
    """A network trained on the descriptors d (N, m, D) of m pixels of N images, and y bool (N, C).

    600 steps of AdamW, each on 24 images with 1024 of their pixels. The same seed gives the same
    network, and no other random number of the program is touched.  [C-30]
    """
    g = torch.Generator().manual_seed(seed)
    d, y = torch.from_numpy(d), torch.from_numpy(y.astype(np.float32))
    scale = d.float().flatten(0, 1).std(dim=0).clamp(min=LEAST_SCALE)
    sizes = (d.shape[2], WIDTH, WIDTH, y.shape[1])
    weights = [(2 * torch.rand(i, o, generator=g) - 1) / i**0.5 for i, o in zip(sizes, sizes[1:])]
    # With all scores equal at first, the first pixels that count are any, and what they have in
    # common with the label sets the direction. Random scores would count the wrong pixels for good.
    weights[-1].zero_()
    biases = [torch.zeros(o) for o in sizes[1:]]
    network = Network(scale, weights, biases)
    trained = [p.requires_grad_() for p in (*weights, *biases)]
    adam = torch.optim.AdamW(trained, lr=RATE, weight_decay=DECAY)
    rates = torch.optim.lr_scheduler.OneCycleLR(adam, RATE, total_steps=STEPS)
    for _ in range(STEPS):
        rows = torch.randperm(len(d), generator=g)[:IMAGES, None]
        columns = torch.randint(d.shape[1], (len(rows), PIXELS), generator=g)
        adam.zero_grad()
        loss_of(score(network, d[rows, columns].float()), y[rows[:, 0]]).backward()
        adam.step()
        rates.step()
    for p in trained:
        p.requires_grad_(False)
    return network


def evidence(z: Tensor, size: tuple[int, int]) -> np.ndarray:
    """The evidence v >= 0, float32 (C, H, W), from the scores z (C, h, w) of an image.    [C-31]

    v = max(G_1 * z - median(G_1 * z), 0), interpolated between the pixels of z
    """
    z = blur(z, 1)
    z = (z - z.flatten(1).median(dim=1).values[:, None, None]).clamp(min=0)
    return F.interpolate(z[None], size, mode="bilinear", align_corners=False)[0].numpy()


def ratio(v: np.ndarray) -> np.ndarray:
    """u = v / o of one class (H, W), o Otsu's threshold [C-7] of v, 0 where o is 0.    [C-31]"""
    o = otsu(v)
    return v / o if o > 0 else np.zeros_like(v)
