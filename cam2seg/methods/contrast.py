"""Masks from image-level labels by the contrast within each image, without a network.

The formulas [C-1] to [C-9] and [C-13] are this project's own and not the paper's; see AUDIT.md 2.6.

A defect is the odd part of its image. A small bank of filters describes each image, and the labels
say which filter of the bank, and which sign of its response, shows the defects of a class. The mask
is what lies above a threshold, which joins Otsu's threshold of the image with those of the other
images of its class. Where an image has several labels, a model of the texture around each pixel
says which class a region belongs to; see methods/texture.py.

Notation: I an image, uint8 (H, W); x its logarithm, float32 (H, W), or float64 for results in it;
G_s * x a Gaussian blur with a standard deviation of s pixels; r the response of a filter, v the
evidence for a class, t its threshold. N images, C classes, F filters. `labels` is bool (N, C), and
a row without a label is a clean image. All lengths are in pixels.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..masks import label_components

# [C-1] Keeps log 0 finite. In units of white: it is small beside a grey, and so large that the
# noise of black pixels does not become a contrast.
LOG_OFFSET = 0.05

# [C-3] Standard deviations s and l of the Gaussians of G_s * x - G_l * x (s = 0 is x itself, and
# l = inf its mean), and s of the local standard deviation. A filter is (kind, s, l).
SMALL, LARGE, SPREAD = (0, 1, 2, 4), (6, 12, 25, 50, np.inf), (2, 4, 8)
FILTERS = [("dog", s, l) for s in SMALL for l in LARGE] + [("std", s, 0) for s in SPREAD]

# Smaller differences of x or of a response are rounding of float32. A grey level is 0.004 or more.
ROUNDING = 1e-6

BLOCK = 128  # rows of K in one product where an image is large; a multiple of every step
ENOUGH = 10  # [C-5] a group of fewer images says too little
LEAST_WEIGHT = 1e-3  # [C-6] a local mean exists even where the whole region of a class is far away
SEED = 2.0  # [C-9] peak over threshold: the ratio of the two thresholds of Canny (1986)
DOUBT = 0.8  # [C-13] share of the threshold from which a pixel is not surely background


def logarithm(I: np.ndarray) -> Tensor:
    """x = log(I / 255 + 0.05), float32 (H, W), of a grey image I, uint8 (H, W).    [C-1]

    A difference in x is a ratio of brightness, so that uneven light becomes a sum.
    """
    return torch.log(torch.from_numpy(np.array(I, np.float32)) / 255 + LOG_OFFSET)


@lru_cache(maxsize=32)  # an image needs up to 20, and those of a long side are large
def _gaussian(n, s, dtype):
    """The matrix K (n, n) that blurs a line of n pixels. Each row sums to 1."""
    apart = torch.arange(1 - n, n, dtype=dtype)  # i - k, (2 n - 1,)
    g = torch.exp(-(apart**2) / (2 * s * s))
    K = g.unfold(0, n, 1).flip(0)
    return K / K.sum(dim=1, keepdim=True)


def describe(filter: tuple[str, float, float]) -> str:
    """The name of an entry of FILTERS for people: "G1 - G12", "G0 - mean" or "std 4"."""
    kind, s, l = filter
    return f"std {s}" if kind == "std" else f"G{s} - " + ("mean" if l == np.inf else f"G{l}")


def blur(x: Tensor, s: float, step: int = 1) -> Tensor:
    """G_s * x: x (..., H, W) blurred by a Gaussian of s pixels.    [C-2]

    (G_s * x)_ij = sum_kl K_ik K_jl x_kl,  K_ik = exp(-(i - k)^2 / 2 s^2) / sum_k' exp(...)

    Each row of K sums to 1, so that the border is a mean over the pixels that exist. s = 0 gives x
    itself, and s = inf its mean in every pixel. Only every `step`-th row and column is computed.
    """
    kept = x[..., ::step, ::step]
    if s == 0:
        return kept
    if s == np.inf:
        return x.mean(dim=(-2, -1), keepdim=True).expand_as(kept)
    H, W = x.shape[-2:]
    limits = torch.finfo(x.dtype)  # exp of less than log(tiny eps / 2) is 0
    reach = int(np.ceil(s * np.sqrt(2 * (np.log(2 / limits.tiny) - np.log(limits.eps)))))
    if max(H, W) <= 2 * (BLOCK + reach):
        return _gaussian(H, s, x.dtype)[::step] @ x @ _gaussian(W, s, x.dtype)[::step].T
    return _blur_lines(_blur_lines(x.mT, s, step, reach).mT, s, step, reach)


def _blur_lines(x, s, step, reach):
    """x (..., n) blurred along its last axis by products of BLOCK rows of K each, without the
    columns that are farther away than `reach`, where K is 0."""
    K, parts = _gaussian(x.shape[-1], s, x.dtype), []
    for start in range(0, len(K), BLOCK):
        near = slice(max(0, start - reach), start + BLOCK + reach)
        parts.append(x[..., near] @ K[start:start + BLOCK:step, near].T)
    return torch.cat(parts, dim=-1)


def respond(x: Tensor, kind: str, s: float, l: float, w: Tensor | None = None) -> Tensor:
    """The response r (H, W) of one filter to x (H, W).    [C-3]

    dog: r = G_s * x - G_l * x, or G_s * x - (G_l * w x) / (G_l * w) with weights w (H, W) > 0,
         which let only the pixels of a region be the ground that a pixel is compared with
    std: r = sqrt(G_s * x^2 - (G_s * x)^2), the local standard deviation, in which w plays no part
    """
    x = x - x.mean()  # r stays the same, and float32 keeps its digits
    if kind == "std":
        return (blur(x * x, s) - blur(x, s) ** 2).clamp(min=0).sqrt()  # rounding can be below 0
    return blur(x, s) - (blur(x, l) if w is None else blur(w * x, l) / blur(w, l))


def responses(x: Tensor) -> Tensor:
    """The responses [C-3] of all filters to every second row and column of x (H, W): (F, pixels)."""
    x = x - x.mean()
    blurred = {s: blur(x, s, step=2) for s in {*SMALL, *LARGE, *SPREAD}}  # each once
    square = x * x
    r = [blurred[s] - blurred[l] if kind == "dog" else
         (blur(square, s, step=2) - blurred[s] ** 2).clamp(min=0).sqrt() for kind, s, l in FILTERS]
    return torch.stack([a.flatten() for a in r])


def skew(v: Tensor) -> Tensor:
    """The skewness m_3 / m_2^1.5 along the last axis of v, where m_k = mean of (v - mean v)^k.

    It is 0 where v is constant.
    """
    d = v - v.mean(dim=-1, keepdim=True)
    square = d * d
    m2, m3 = square.mean(dim=-1), (square * d).mean(dim=-1)  # torch's power takes far longer
    flat = m2 < ROUNDING**2
    return torch.where(flat, 0.0, m3 / torch.where(flat, 1.0, m2) ** 1.5)


def skewness(x: Tensor) -> np.ndarray:
    """The skewness of each filter's response to x (H, W), float32 (F,).    [C-4]

    skew = m_3 / m_2^1.5,  m_k = mean over pixels of (r - mean r)^k

    Every second row and column is enough. It is 0 where the response is constant.
    """
    return skew(responses(x)).numpy()


def choose(skew: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The filter and the sign of each class, from skewness (N, F) and labels bool (N, C).    [C-5]

    T(c, f, s) = mean_P(s skew_f) (AUC(s skew_f; P against Q) - 1/2), -inf where a factor is <= 0

    P are the images whose only label is c, and Q the clean images. Where P has fewer than 10
    images, all images with c take its place; where Q has, all images without c. The sign s is +1 or
    -1, and the filter and sign with the highest T are chosen, the first of equals.

    Returns the index of the filter int (C,), the sign int (C,), and T (C, F, 2), the sign + first.
    The index is -1 where every T is -inf: then contrast has nothing to say on the class.
    """
    C, F = labels.shape[1], skew.shape[1]
    T = np.full((C, F, 2), -np.inf)
    clean, one = ~labels.any(axis=1), labels.sum(axis=1) == 1
    for c in range(C):
        P, Q = labels[:, c] & one, clean
        P = P if P.sum() >= ENOUGH else labels[:, c]
        Q = Q if Q.sum() >= ENOUGH else ~labels[:, c]
        if not (P.any() and Q.any()):
            continue
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
    """The chance that one of p is above one of q, where a tie counts one half."""
    q = np.sort(q)
    return (np.searchsorted(q, p) + np.searchsorted(q, p, side="right")).mean() / (2 * len(q))


def evidence(x: Tensor, filter: tuple[str, float, float], sign: int,
             q: Tensor | None = None) -> np.ndarray:
    """The evidence v >= 0, float32 (H, W), that a pixel belongs to a class.    [C-6]

    v = q (G_1 * max(s r - median_q(s r), 0)),  with r of [C-3] inside the weights max(q, 0.001)

    s is the sign of the class. q (H, W) is the chance that the surroundings are those of the class;
    None stands for 1 everywhere. The weighted median is the lowest value of s r at which the
    weights of the values up to it sum to half of all weights.
    """
    r = sign * respond(x, *filter, w=None if q is None else q.clamp(min=LEAST_WEIGHT))
    if q is None:
        return blur((r - r.median()).clamp(min=0), 1).numpy()
    order = r.flatten().argsort()
    total = q.flatten()[order].cumsum(dim=0)
    middle = r.flatten()[order[torch.searchsorted(total, total[-1] / 2)]]
    return (blur((r - middle).clamp(min=0), 1) * q).numpy()


def otsu(v: np.ndarray, bins: int = 256) -> float:
    """Otsu's threshold o of the values v >= 0 of one image (Otsu 1979).    [C-7]

    o = argmax_t n_0 n_1 (mean_1 - mean_0)^2

    t runs over the inner edges of a histogram of `bins` equal bins, n_0 and mean_0 are the number
    and the mean of the values below t, and n_1 and mean_1 those of the values above. A value counts
    as the centre of its bin. The lowest of equal edges is taken. o is 0 where v is constant, since
    then nothing stands out.
    """
    if v.max() - v.min() < ROUNDING:
        return 0.0
    n, edges = np.histogram(v, bins)
    centre = (edges[1:] + edges[:-1]) / 2
    below, total = n.cumsum()[:-1].astype(float), (n * centre).cumsum()
    above = n.sum() - below  # neither is 0: the lowest and the highest bin hold a value
    gap = (total[-1] - total[:-1]) / above - total[:-1] / below
    return float(edges[1 + (below * above * gap**2).argmax()])


def threshold(o: float, class_o: np.ndarray) -> float:
    """The threshold t of an image: its own Otsu o, drawn half-way to that of its class.    [C-8]

    t = sqrt(o median(class_o)),  and t = o where class_o is empty

    class_o holds the o of the images whose only label is the class. t is inf, and so the mask
    empty, where nothing stands out in the image (o = 0) or in half of those images.
    """
    t = float(np.sqrt(o * np.median(class_o))) if len(class_o) else o
    return t if t > 0 else np.inf


def keep_seeded(u: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The components of a mask, bool (H, W), that hold a strong pixel.    [C-9]

    u (H, W) is v / t, so that the mask lies above 1. A component stays where its highest u is 2 or
    more. If none reaches 2, those with the highest u of all stay. Components are 8-connected.
    """
    number, count = label_components(mask)
    if not count:
        return mask
    peak = np.zeros(count + 1)
    np.maximum.at(peak, number.ravel(), np.where(mask, u, 0).ravel())
    return (peak >= min(SEED, peak[1:].max()))[number] & mask


def masks_of(u: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Masks bool (C, H, W), and pixels bool (H, W) in doubt, of u = v / t (C, H, W).    [C-13]

    mask_c = keep_seeded(u_c, [u_c > 1 and u_c = max_k u_k]) for the labels y_c of the image
    doubt  = [max_k u_k > 0.8] outside the masks

    u is 0 for a class without its label. A pixel belongs to one class, unless two have the same u.
    A trainer leaves the pixels in doubt out of its loss.
    """
    best = u.max(axis=0)
    masks = np.zeros(u.shape, bool)
    for c in np.flatnonzero(y):
        masks[c] = keep_seeded(u[c], (u[c] > 1) & (u[c] == best))
    return masks, (best > DOUBT) & ~masks.any(axis=0)
