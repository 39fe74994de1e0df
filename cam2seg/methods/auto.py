"""Masks from image-level labels by contrast, by the network of pixels.py, by the classifier's map,
or by the product of map and contrast.

The formulas [C-18] to [C-23] are this project's own and not the paper's; see AUDIT.md 2.6.

The classifier says where a defect is, and contrast says what stands out. For each class the labels
decide which of them is needed. Contrast alone is taken where its skewness tells the images with the
class from the others. The network of pixels.py is taken where it knows the label nearly as well as
the classifier does, which sees far more than a pixel: then the pixels hold what the classifier
reads. The product of map and contrast is taken where only the skewness of the product tells the
class, and the map alone where nothing else does, as with large faint defects.

Notation as in contrast.py: x the logarithm of an image (H, W), s and r the sign and response of a
filter, N images, C classes, F filters, labels bool (N, C). A (C, H, W) are the maps of an image in
[0, 1], and u (H, W) is a map or a product of map and contrast. AUC is the chance that a statistic
is higher in an image with the class than in one of its negatives.
"""

import numpy as np
import torch
from torch import Tensor

from ..metrics import roc_auc
from .contrast import ENOUGH, otsu, skew

MOST = 100  # [C-20] more negatives cost time, and hardly lower the standard error of [C-21]
# [C-22] Part of what the classifier knows of a label that another method must know. The network is
# trained on the labels, so that it may know something of them even where it finds no defect.
KNOWN = {"contrast": 0.4, "network": 0.75, "product": 0.4}
PEAK = 0.3  # [C-23] threshold of a product as a part of its peak
DOUBT = 0.5  # [C-23] share of the threshold from which a pixel is not surely background
CHOICES = (*KNOWN, "map")


def join_views(maps: Tensor) -> Tensor:
    """The geometric mean of V views of a map, (V, ...) in [0, 1] -> (...).    [C-18]

    A = (A_1 A_2 ... A_V)^(1/V)

    The views are maps of one image at several sizes of the network's input, on one grid. The coarse
    one sees the class and the fine one the place. A pixel that one view denies stays low.
    """
    return maps.prod(dim=0) ** (1 / len(maps))


def product_skewness(r: Tensor, A: np.ndarray) -> np.ndarray:
    """Skewness of the product of maps A (C, H, W) with each filter's contrast, (C, F, 2).    [C-19]

    skew = m_3 / m_2^1.5 of p = A_c max(s r - median(s r), 0),  m_k = mean of (p - mean p)^k

    r (F, pixels) are the responses [C-3] at every second row and column, as those of
    contrast.responses are. The last axis is the sign s, + first. The skewness is 0 where the
    product is constant. It is large where a small part of what the map covers stands out, and near
    that of the map itself where all of it does.
    """
    A = torch.as_tensor(np.asarray(A)).to(r.dtype)[:, ::2, ::2].flatten(1)  # (C, pixels)
    above = r - r.median(dim=1, keepdim=True).values
    out = np.zeros((len(A), len(r), 2), r.numpy().dtype)
    for k, sign in enumerate((1, -1)):
        v = (sign * above).clamp(min=0)
        for c in range(len(A)):
            out[c, :, k] = skew(A[c] * v).numpy()
    return out


def negatives(labels: np.ndarray) -> np.ndarray:
    """The images that each class is told from, bool (N, C), by labels (N, C).    [C-20]

    They are the clean images. Where fewer than 10 images are clean, they are those without the
    class. Of more than 100, the first 100 in a fixed random order of all images are taken.
    """
    clean, order = ~labels.any(axis=1), np.random.default_rng(0).permutation(len(labels))
    found = clean[:, None] & ~labels if clean.sum() >= ENOUGH else ~labels
    first = np.zeros_like(found)
    first[order] = found[order].cumsum(axis=0) <= MOST
    return found & first


def tell(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """AUC of statistics less its standard error, p (n, ...) and q (m, ...) -> (...).    [C-21]

    tell = AUC(p above q) - sqrt((n + m + 1) / (12 n m)), and 0 where n or m is 0

    p are the values in the images with the class, q those in its negatives. The standard error is
    that of two groups drawn alike (Mann and Whitney 1947): few images prove little.
    """
    n, m = len(p), len(q)
    if not (n and m):
        return np.zeros(p.shape[1:])
    positive = np.arange(n + m) < n
    both = np.concatenate([p, q]).reshape(n + m, -1)
    auc = np.array([roc_auc(positive, values) for values in both.T])
    return auc.reshape(p.shape[1:]) - np.sqrt((n + m + 1) / (12 * n * m))


def need(classifier: float, method: str) -> float:
    """What a method must tell of a class, by the AUC of the classifier.    [C-22]

    need = 1/2 + part max(AUC_classifier - 1/2, 0),  part = 3/4 of the network, 2/5 of the others
    """
    return 0.5 + KNOWN[method] * max(classifier - 0.5, 0.0)


def decide(tells: dict[str, float], classifier: float) -> str:
    """The method of one class: the first that is enough.    [C-22]

    tells: the tell [C-21] of contrast, network and product, in this order. One is enough where it
    reaches its `need`. The map is taken where none is enough.
    """
    return next((m for m, told in tells.items() if told >= need(classifier, m)), "map")


def mask_of(u: np.ndarray, choice: str) -> tuple[np.ndarray, np.ndarray]:
    """Mask, and pixels in doubt, both bool (H, W), of a product or a map u (H, W).    [C-23]

    mask = [u > t],  doubt = [t/2 < u <= t],  t = 0.3 max u for a product, Otsu's [C-7] for a map

    Both are empty where u is 0 in the whole image. A trainer leaves the pixels in doubt out of its
    loss.
    """
    t = PEAK * u.max() if choice == "product" else otsu(u)
    return u > t, (u > DOUBT * t) & (u <= t)
