"""Masks from image-level labels by contrast within the image, without a network.  [C-1 .. C-13]

A defect is the odd part of its image. The labels say which filter and which sign show it, one
threshold joins the image's own Otsu with that of its class, and where an image has several
labels a model of the local texture, learned from images with one label, names its regions.

Notation: I uint8 (H, W), x its logarithm, N images, C classes, F filters, G_s * x a Gaussian blur
of s pixels. labels bool (N, C); a row without a label is a clean image.
"""

from functools import lru_cache

import numpy as np
import torch

from ..masks import label_components

SMALL, LARGE, SPREAD = (0, 1, 2, 4), (6, 12, 25, 50, np.inf), (2, 4, 8)
FILTERS = [("dog", s, l) for s in SMALL for l in LARGE] + [("std", s, 0) for s in SPREAD]
TEXTURE = (3, 8, 20)  # pixels over which the texture is described
ENOUGH = 10  # images below which a group says too little
SEED = 2.0  # peak over threshold, the ratio of Canny's two thresholds (1986)
DOUBT = 0.8  # share of the threshold from which a pixel is not surely background


def logarithm(I):
    """x = log(I / 255 + 0.05): a contrast in x is a ratio of brightness.    [C-1]"""
    return torch.log(torch.from_numpy(np.array(I, np.float32)) / 255 + 0.05)


@lru_cache(maxsize=256)
def _gaussian(n, s):
    d = torch.arange(n, dtype=torch.float32)
    K = torch.exp(-((d[:, None] - d) ** 2) / (2 * s * s))
    return K / K.sum(dim=1, keepdim=True)


def describe(filter):
    """Name of an entry of FILTERS for people: "G1 - G12" or "std 4", with lengths in pixels."""
    kind, s, l = filter
    return f"std {s}" if kind == "std" else f"G{s} - " + ("mean" if l == np.inf else f"G{l}")


def blur(x, s):
    """(G_s * x)_ij = sum_kl K_ik K_jl x_kl, K_ik ~ exp(-(i - k)^2 / 2 s^2), rows sum to 1.  [C-2]

    x (..., H, W); s = 0 is x itself, s = inf its mean. The kernel is renormalised at the border.
    """
    if s == 0:
        return x
    if s == np.inf:
        return x.mean(dim=(-2, -1), keepdim=True).expand_as(x)
    H, W = x.shape[-2:]
    return _gaussian(H, s) @ x @ _gaussian(W, s).T


def respond(x, kind, s, l, w=None):
    """Response r (H, W) of one filter, inside a region of weights w (H, W) where it is given.

    dog: r = G_s * x - (G_l * w x) / (G_l * w)             [C-3]
    std: r = sqrt(max(G_s * x^2 - (G_s * x)^2, 0))
    """
    if kind == "std":
        return (blur(x * x, s) - blur(x, s) ** 2).clamp(min=0).sqrt()
    return blur(x, s) - (blur(x, l) if w is None else blur(w * x, l) / blur(w, l))


def skewness(x):
    """m3 / m2^1.5 of each filter's response to x (H, W), on every second pixel, -> (F,).  [C-4]"""
    blurred = {s: blur(x, s) for s in {*SMALL, *LARGE, *SPREAD}}
    square = x * x
    r = [blurred[s] - blurred[l] if kind == "dog" else
         (blur(square, s) - blurred[s] ** 2).clamp(min=0).sqrt() for kind, s, l in FILTERS]
    r = torch.stack([a[::2, ::2].flatten() for a in r])  # (F, pixels)
    d = r - r.mean(dim=1, keepdim=True)
    m2, m3 = (d**2).mean(dim=1), (d**3).mean(dim=1)
    flat = m2 < 1e-12  # a constant image has no skewness; 1e-6 of log brightness is rounding
    return torch.where(flat, 0.0, m3 / torch.where(flat, 1.0, m2) ** 1.5).numpy()


def choose(skew, labels):
    """Filter and sign of each class from labels alone: (C,) indices, (C,) signs, T (C, F, 2).

    The index is -1 where no filter tells the class: contrast has nothing to say on it.

    T(c, f, s) = mean_P(s skew_f) (AUC(s skew_f; P against Q) - 1/2), -inf where a factor <= 0;
    P = images whose only label is c, else all with c; Q = clean images, else those without c; a
    group counts from 10 images on.                        [C-5]
    """
    C, F = labels.shape[1], skew.shape[1]
    T = np.full((C, F, 2), -np.inf)
    clean, one = ~labels.any(axis=1), labels.sum(axis=1) == 1
    for c in range(C):
        P, Q = labels[:, c] & one, clean
        P = P if P.sum() >= ENOUGH else labels[:, c]
        Q = Q if Q.sum() >= ENOUGH else ~labels[:, c]
        for f in range(F):
            for k, sign in enumerate((1, -1)):
                p, q = sign * skew[P, f], sign * skew[Q, f]
                mean, auc = p.mean(), _auc(p, q)
                if mean > 0 and auc > 0.5:
                    T[c, f, k] = mean * (auc - 0.5)
    best = T.reshape(C, -1).argmax(axis=1)
    found = np.isfinite(T).any(axis=(1, 2))
    return np.where(found, best // 2, -1), 1 - 2 * (best % 2), T


def _auc(p, q):
    q = np.sort(q)
    return (np.searchsorted(q, p) + np.searchsorted(q, p, side="right")).mean() / (2 * len(q))


def evidence(x, filter, sign, q=None):
    """v = q (G_1 * max(s (r - median_q r), 0)), (H, W), q (H, W) the class's region or 1.  [C-6]"""
    r = sign * respond(x, *filter, w=None if q is None else q.clamp(min=1e-3))
    if q is None:
        return blur((r - r.median()).clamp(min=0), 1).numpy()
    order = r.flatten().argsort()
    total = q.flatten()[order].cumsum(dim=0)
    middle = r.flatten()[order[torch.searchsorted(total, total[-1] / 2)]]  # weighted median
    return (blur((r - middle).clamp(min=0), 1) * q).numpy()


def otsu(v, bins=256):
    """o = argmax_t n_0 n_1 (mean_1 - mean_0)^2 over the edges of a histogram of v >= 0.  [C-7]

    0 where v is constant: nothing stands out.
    """
    if v.min() == v.max():
        return 0.0
    n, edges = np.histogram(v, bins)
    centre = (edges[1:] + edges[:-1]) / 2
    below, total = n.cumsum()[:-1].astype(float), (n * centre).cumsum()
    above = n.sum() - below
    ok = (below > 0) & (above > 0)
    below, above = np.where(ok, below, 1), np.where(ok, above, 1)
    gap = (total[-1] - total[:-1]) / above - total[:-1] / below
    return float(edges[1 + np.where(ok, below * above * gap**2, -1).argmax()])


def threshold(o, class_o):
    """t = sqrt(o median(class_o)): the image's Otsu drawn to that of its class.    [C-8]

    inf where o is 0, so that an image in which nothing stands out gets no mask.
    """
    return float(np.sqrt(o * np.median(class_o))) if o > 0 else np.inf


def keep_seeded(v, mask):
    """Components of mask whose highest v (threshold = 1) is 2 or more, else the highest.  [C-9]"""
    number, count = label_components(mask)
    if not count:
        return mask
    peak = np.zeros(count + 1)
    np.maximum.at(peak, number.ravel(), np.where(mask, v, 0).ravel())
    return (peak >= min(SEED, peak[1:].max()))[number] & mask


def texture(x):
    """Descriptors d (H W, 9) of the surroundings of each pixel, at scales S = 3, 8, 20:

    1/2 log(G_S * (x - G_1 x)^2), 1/2 log(G_S * (G_1 x - G_3 x)^2), G_S * x    [C-10]
    """
    fine, coarse = (x - blur(x, 1)) ** 2, (blur(x, 1) - blur(x, 3)) ** 2
    d = [part for s in TEXTURE for part in (
        0.5 * torch.log(blur(fine, s) + 1e-5), 0.5 * torch.log(blur(coarse, s) + 1e-5),
        blur(x, s))]  # 1e-5 is the noise of 8 bits at a middle grey
    return torch.stack(d).flatten(1).T


def fit_texture(d, c, C):
    """mu_c (C, D), S_c (C, D, D) of descriptors d (n, D) of class c (n,): Gaussians.  [C-11]"""
    d = np.asarray(d, np.float64)
    ridge = 1e-3 * np.diag(d.var(axis=0))  # a class of few pixels keeps a regular covariance
    groups = [d[c == k] if (c == k).sum() > ENOUGH * d.shape[1] else d for k in range(C)]
    return (np.stack([g.mean(axis=0) for g in groups]),
            np.stack([np.cov(g.T) + ridge for g in groups]))


def name_regions(d, mu, S, y):
    """q_c = y_c N_c^(1/3) / sum_k y_k N_k^(1/3), N_c = N(d; mu_c, S_c); d (n, D) -> (C, n).  [C-12]

    The three scales describe one texture, so their evidence counts once: the power 1/3.
    """
    log = np.full((len(mu), len(d)), -np.inf)
    for c in np.flatnonzero(y):
        L = torch.linalg.cholesky(torch.from_numpy(S[c]))
        e = torch.linalg.solve_triangular(L, (d.double() - torch.from_numpy(mu[c])).T, upper=False)
        log[c] = -0.5 * (e**2).sum(dim=0) - L.diagonal().log().sum()
    log = np.exp((log - log.max(axis=0)) / len(TEXTURE))
    return torch.from_numpy(log / log.sum(axis=0)).float()


def masks_of(u, y):
    """Masks bool (C, H, W) and ignored pixels bool (H, W) of u = v / t (C, H, W), labels y (C,).

    mask_c = keep_seeded(u_c, [u_c > 1 and u_c = max_k u_k]);
    ignore = [max_k u_k > 0.8] without the masks           [C-13]
    """
    best = u.max(axis=0)
    masks = np.zeros(u.shape, bool)
    for c in np.flatnonzero(y):
        masks[c] = keep_seeded(u[c], (u[c] > 1) & (u[c] == best))
    return masks, (best > DOUBT) & ~masks.any(axis=0)
