"""Masks by contrast, by the classifier's map or by their product, as the labels decide for each
class (make_masks.py --method auto).

The functions get the pixels of the images, the labels y, bool (N, C), the classifier's held-out
maps and probabilities, and nothing else, so that no mask drawn by a person can reach them. The
formulas [C-18] to [C-23] are those of methods/auto.py.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ..methods import auto, contrast
from ..metrics import roc_auc
from ..runs.progress import Progress, silent
from . import label_only

COLUMNS = ("class", "classifier AUC", "needed", "contrast tells", "by", "product tells", "by",
           "choice")


class AutoModel(NamedTuple):
    """What the labels of a set of images say about its C classes."""

    contrast: label_only.ContrastModel
    filters: list  # C pairs (entry of contrast.FILTERS, sign) whose product tells the class best
    alone: list  # C floats: what contrast tells of the class  [C-21]
    product: list  # C floats: what the product of map and contrast tells  [C-21]
    classifier: list  # C floats: AUC of the classifier; None where all images or none are positive
    choices: list  # C of auto.CHOICES  [C-22]


def fit(log_image: Callable[[int], Tensor], maps_of: Callable[[int], np.ndarray], y: np.ndarray,
        probs: np.ndarray, report: Callable = silent) -> AutoModel:
    """Choose the method and the filter of each class.

    log_image(i) gives the logarithm [C-1] of image i, and maps_of(i) its held-out maps (C, H, W) in
    [0, 1]. y bool (N, C) are the labels, probs (N, C) the classifier's held-out probabilities. No
    image and no map is kept in memory.
    """
    others = auto.negatives(y)
    skew, product = _skewness(log_image, maps_of, y | others, report)
    model = label_only.fit(log_image, y, report, skew)
    filters, alone, best, classifier, choices = [], [], [], [], []
    for c in range(y.shape[1]):
        P, Q = y[:, c], others[:, c]
        told = contrast_tells(model, skew, c, P, Q)
        tells = auto.tell(product[P, c], product[Q, c])  # (F, 2)
        f, k = np.unravel_index(tells.argmax(), tells.shape)
        auc = roc_auc(P[P | Q], probs[P | Q, c]) if P.any() and Q.any() else None
        filters.append((contrast.FILTERS[f], 1 - 2 * int(k)))
        alone.append(told)
        best.append(float(tells.max()))
        classifier.append(auc)
        choices.append("map" if auc is None else auto.decide(told, best[-1], auc))
    return AutoModel(model, filters, alone, best, classifier, choices)


def contrast_tells(model: label_only.ContrastModel, skew: np.ndarray, c: int, P: np.ndarray,
                   Q: np.ndarray) -> float:
    """What the skewness (N, F) of contrast tells of class c, 0 where it has no filter.    [C-21]

    P, Q: bool (N,), the images with the class and its negatives.
    """
    filter, sign = model.filters[c], model.signs[c]
    if filter is None:
        return 0.0
    own = sign * skew[:, contrast.FILTERS.index(filter)]
    return float(auto.tell(own[P], own[Q]))


def _skewness(log_image, maps_of, wanted, report):
    """Skewness (N, F) of contrast and (N, C, F, 2) of its product with the maps.  [C-4], [C-19]

    The product is computed for the pairs in `wanted`, bool (N, C), and is NaN for the others.
    """
    N, C = wanted.shape
    skew = np.zeros((N, len(contrast.FILTERS)), np.float32)
    product = np.full((N, C, len(contrast.FILTERS), 2), np.nan, np.float32)
    clock = Progress(N, "auto: skewness", report)
    for i in range(N):
        r, classes = contrast.responses(log_image(i)), np.flatnonzero(wanted[i])
        skew[i] = contrast.skew(r)
        if len(classes):
            product[i, classes] = auto.product_skewness(r, maps_of(i)[classes])
        clock.add(1)
    return skew, product


def masks_of_image(x: Tensor, A: np.ndarray, y: np.ndarray,
                   model: AutoModel) -> tuple[np.ndarray, np.ndarray]:
    """Masks and the pixels that a trainer must leave out, both bool (C, H, W), of one image.

    x (H, W) is the logarithm [C-1] of the image, A (C, H, W) its maps, and y bool (C,) its labels.
    The classes left to contrast share the image as label_only.masks_of_image does. A mask of a map
    or of a product may overlap the others, as the masks of the paper may (DEV-29). Where a class
    with a label gets no mask, the whole image is left out for it.
    """
    by_contrast = y & (np.array(model.choices) == "contrast")
    masks, ignored = label_only.masks_of_image(x, by_contrast, model.contrast)
    for c in np.flatnonzero(y & ~by_contrast):
        u = A[c]
        if model.choices[c] == "product":
            u = u * contrast.evidence(x, *model.filters[c])
        masks[c], ignored[c] = auto.mask_of(u, model.choices[c])
        ignored[c] |= not masks[c].any()
    return masks, ignored


def choice_rows(model: AutoModel, classes: list) -> list:
    """One row for each class, of COLUMNS: what decided its method, and the method."""
    rows = []
    for c, name in enumerate(classes):
        alone, sign = model.contrast.filters[c], model.contrast.signs[c]
        auc = model.classifier[c]
        rows.append([name, auc, None if auc is None else auto.need(auc), model.alone[c],
                     label_only.say(alone, sign), model.product[c],
                     label_only.say(*model.filters[c]), model.choices[c]])
    return rows
