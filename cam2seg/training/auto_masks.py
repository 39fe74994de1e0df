"""Masks by contrast, by the network of pixels, by the classifier's map or by the product of map and
contrast, as the labels decide for each class (make_masks.py --method auto).

The functions get the pixels of the images, their folds, the labels y, bool (N, C), the classifier's
held-out maps, probabilities and logits, and nothing else, so that no mask drawn by a person can
reach them. The formulas [C-18] to [C-23] are those of methods/auto.py, and [C-40] and [C-41] those
of methods/erasing.py.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ..methods import auto, contrast, erasing
from ..metrics import roc_auc
from ..runs.progress import Progress, silent
from . import label_only, pixel_masks

COLUMNS = ("class", "classifier AUC", "needed", "contrast tells", "by", "product tells", "by",
           "needed of the network", "network tells", "logit lost: product, map", "choice")
MOST = 100  # [C-41] images of a class from which pixels are erased


class AutoModel(NamedTuple):
    """What the labels of a set of images say about its C classes."""

    pixels: pixel_masks.PixelModel  # contrast, the networks, and what both tell  [C-21]
    filters: list  # C pairs (entry of contrast.FILTERS, sign) whose product tells the class best
    product: list  # C floats: what the product of map and contrast tells  [C-21]
    classifier: list  # C floats: AUC of the classifier; None where all images or none are positive
    lost: list  # C of [fall of the logit without the product's masks, without the map's], [C-41];
    # None where [C-22] did not choose the product
    choices: list  # C of auto.CHOICES  [C-22], [C-41]


def fit(log_image: Callable[[int], Tensor], maps_of: Callable[[int], np.ndarray],
        lost: Callable[[int, list], np.ndarray], y: np.ndarray, probs: np.ndarray,
        fold: np.ndarray, report: Callable = silent) -> AutoModel:
    """Choose the method and the filter of each class.

    log_image(i) gives the logarithm [C-1] of image i, maps_of(i) its held-out maps (C, H, W) in
    [0, 1], and lost(i, masks) what its C logits lose without the pixels of each mask. y bool (N, C)
    are the labels, probs (N, C) the classifier's held-out probabilities, and fold int (N,) the
    folds. No image and no map is kept in memory.
    """
    others = auto.negatives(y)
    N, C = y.shape
    product = np.full((N, C, len(contrast.FILTERS), 2), np.nan, np.float32)  # [C-19]

    def visit(i, r):
        wanted = np.flatnonzero(y[i] | others[i])
        if len(wanted):
            product[i, wanted] = auto.product_skewness(r, maps_of(i)[wanted])

    model = pixel_masks.fit(log_image, y, fold, report, visit)
    filters, best, classifier, losses, choices = [], [], [], [], []
    for c in range(C):
        P, Q = y[:, c], others[:, c]
        tells = auto.tell(product[P, c], product[Q, c])  # (F, 2)
        f, k = np.unravel_index(tells.argmax(), tells.shape)
        auc = roc_auc(P[P | Q], probs[P | Q, c]) if P.any() and Q.any() else None
        filters.append((contrast.FILTERS[f], 1 - 2 * int(k)))
        best.append(float(tells.max()))
        classifier.append(auc)
        told = {"contrast": model.alone[c], "network": model.network[c], "product": best[-1]}
        choice, loss = "map" if auc is None else auto.decide(told, auc), None
        if choice == "product":
            loss = _mean_loss(c, np.flatnonzero(P), filters[-1], (log_image, maps_of, lost), report)
            choice = "product" if erasing.holds(*loss) else "map"
        losses.append(loss)
        choices.append(choice)
    return AutoModel(model, filters, best, classifier, losses, choices)


def _mean_loss(c, rows, filter, functions, report):
    """The mean falls of the logit of class c without the masks of the product, and without those of
    the map, [2 floats], over at most 100 evenly spaced images of the class.    [C-41]

    functions: (log_image, maps_of, lost) of fit.
    """
    log_image, maps_of, lost = functions
    rows = rows[::-(-len(rows) // MOST)]
    clock, found = Progress(len(rows), "auto: images without the masks of a class", report), []
    for i in rows:
        A = maps_of(i)[c]
        product = A * contrast.evidence(log_image(i), *filter)
        masks = [auto.mask_of(product, "product")[0], auto.mask_of(A, "map")[0]]
        found.append(lost(i, masks)[:, c])
        clock.add(1)
    return [float(d) for d in np.mean(found, axis=0)]


def masks_of_image(x: Tensor, A: np.ndarray, y: np.ndarray, fold: int,
                   model: AutoModel) -> tuple[np.ndarray, np.ndarray]:
    """Masks and the pixels that a trainer must leave out, both bool (C, H, W), of one image.

    x (H, W) is the logarithm [C-1] of the image, A (C, H, W) its maps, y bool (C,) its labels, and
    fold its own. The classes left to contrast and network share the image as
    pixel_masks.masks_of_image does. A mask of a map or of a product may overlap the others, as the
    masks of the paper may (DEV-29). Where a class with a label gets no mask, the whole image is
    left out for it.
    """
    by_pixels = y & np.isin(model.choices, ("contrast", "network"))
    simple = model.pixels._replace(choices=model.choices)
    masks, ignored = pixel_masks.masks_of_image(x, by_pixels, fold, simple)
    for c in np.flatnonzero(y & ~by_pixels):
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
        plain, auc, lost = model.pixels.contrast, model.classifier[c], model.lost[c]
        least, of_network = (None if auc is None else auto.need(auc, method)
                             for method in ("contrast", "network"))
        rows.append([name, auc, least, model.pixels.alone[c],
                     label_only.say(plain.filters[c], plain.signs[c]), model.product[c],
                     label_only.say(*model.filters[c]), of_network, model.pixels.network[c],
                     "-" if lost is None else f"{lost[0]:.2f}, {lost[1]:.2f}", model.choices[c]])
    return rows
