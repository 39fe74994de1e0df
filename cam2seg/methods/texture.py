"""Names of the regions of an image that has several labels, by the texture around each pixel.

The formulas [C-10] to [C-12] are this project's own and not the paper's; see AUDIT.md 2.6.

Contrast shows what is odd in an image, and not which of its classes it is where two of them share a
sign. Each class is found on a ground of its own, which the images with one label show: a Gaussian
for each class is fitted to descriptors of the surroundings of their pixels. D = 9 is the number of
descriptors, C that of classes. x float32 (H, W) is the logarithm [C-1] of an image.
"""

import numpy as np
import torch
from torch import Tensor

from .contrast import ROUNDING, blur

TEXTURE = (3, 8, 20)  # [C-10] standard deviations of the surroundings whose texture is described

# [C-10] A variance of x that the rounding to 8 bits alone gives, here at a grey of 0.3 of white:
# (1 / 255)^2 / 12 / (0.3 + 0.05)^2. It keeps the logarithm of a flat ground finite.
NOISE = 1e-5

ENOUGH = 10  # [C-11] a class with fewer descriptors for each of the D numbers says too little
RIDGE = 1e-3  # [C-11] share of a descriptor's variance that keeps the covariance of a class regular


def describe_pixels(x: Tensor) -> Tensor:
    """Descriptors d, float32 (H W, 9), of the surroundings of each pixel of x (H, W).    [C-10]

    For each S of 3, 8, 20: 1/2 log(G_S * (x - G_1 * x)^2 + 1e-5),
                            1/2 log(G_S * (G_1 * x - G_3 * x)^2 + 1e-5),  G_S * x

    The first two are logarithms of the strength of fine and of coarse texture, the third is the
    brightness.
    """
    fine, coarse = (x - blur(x, 1)) ** 2, (blur(x, 1) - blur(x, 3)) ** 2
    d = [part for s in TEXTURE for part in (
        0.5 * torch.log(blur(fine, s) + NOISE), 0.5 * torch.log(blur(coarse, s) + NOISE),
        blur(x, s))]
    return torch.stack(d).flatten(1).T


def fit_texture(d: np.ndarray, c: np.ndarray, C: int) -> tuple[np.ndarray, np.ndarray]:
    """A Gaussian for each class: means mu (C, D) and covariances S (C, D, D), float64.    [C-11]

    mu_c = mean of d,  S_c = cov(d) + 0.001 diag(var of d over all classes)

    d (n, D) are descriptors and c int (n,) their classes. A class with 10 D descriptors or fewer
    gets the Gaussian of all, so that it is neither likely nor unlikely anywhere. A descriptor that
    never changes says nothing, and 1 is added to its variance, so that S_c has an inverse.
    """
    d = np.asarray(d, np.float64)
    variance = d.var(axis=0)
    ridge = np.diag(np.where(variance > ROUNDING**2, RIDGE * variance, 1.0))
    groups = [d[c == k] if (c == k).sum() > ENOUGH * d.shape[1] else d for k in range(C)]
    return (np.stack([g.mean(axis=0) for g in groups]),
            np.stack([np.cov(g.T) + ridge for g in groups]))


def name_regions(d: Tensor, mu: np.ndarray, S: np.ndarray, y: np.ndarray) -> Tensor:
    """The chance q, float32 (C, n), that descriptors d (n, D) are those of each class.    [C-12]

    q_c = y_c N_c^(1/3) / sum_k y_k N_k^(1/3),  N_c = the density of N(mu_c, S_c) at d

    y bool (C,) are the labels of the image, one at least: a class without its label has q = 0. The
    three scales of [C-10] describe one texture, so that together they count as one: the power 1/3.
    """
    log = np.full((len(mu), len(d)), -np.inf)
    for c in np.flatnonzero(y):
        L = torch.linalg.cholesky(torch.from_numpy(S[c]))
        e = torch.linalg.solve_triangular(L, (d.double() - torch.from_numpy(mu[c])).T, upper=False)
        log[c] = -0.5 * (e**2).sum(dim=0) - L.diagonal().log().sum()
    share = np.exp((log - log.max(axis=0)) / len(TEXTURE))
    return torch.from_numpy(share / share.sum(axis=0)).float()
