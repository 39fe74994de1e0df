"""Masks by the network of methods/pixels.py or by contrast, as the labels decide for each class
(make_masks.py --method pixels).

The functions get the pixels of the images, their folds, and the labels y, bool (N, C), and nothing
else, so that no mask drawn by a person can reach them. A mask comes from a network that has not
been trained on its image.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..methods import auto, contrast, pixels
from ..runs.progress import Progress, silent
from . import label_only

# Pixels of each image that a network is trained on, and of all images together at the most: these
# take 320 MB.
SAMPLES, ALL_SAMPLES = 2048, 2**22
COLUMNS = ("class", "contrast tells", "by", "network tells", "choice")


class PixelModel(NamedTuple):
    """What the labels of a set of images say about its C classes."""

    contrast: label_only.ContrastModel
    networks: dict  # {fold: the network trained on the other folds}; {} where none was trained
    alone: list  # C floats: what contrast tells of the class  [C-21]
    network: list  # C floats: what the held-out networks tell  [C-21]
    choices: list  # C of "contrast" and "network"  [C-32]


def fit(log_image: Callable[[int], Tensor], y: np.ndarray, fold: np.ndarray,
        report: Callable = silent,
        visit: Callable[[int, Tensor], None] = lambda i, r: None) -> PixelModel:
    """Train a network for each fold, and choose network or contrast for each class.    [C-32]

    log_image(i) gives the logarithm [C-1] of image i, and fold int (N,) are the folds. Where fewer
    than 10 images are clean, nothing but the ground of other classes could be the negatives of a
    pixel, so that no network is trained and all classes are left to contrast. The same holds
    where all images are of one fold. visit(i, r) is called with the responses r (F, pixels) of
    contrast.responses to each image, for a caller that needs them too.
    """
    enough = (~y.any(axis=1)).sum() >= contrast.ENOUGH and len(set(fold.tolist())) > 1
    skew, d = _read(log_image, len(y), enough, report, visit)
    model = label_only.fit(log_image, y, report, skew)
    others, networks = auto.negatives(y), {}
    scores = np.zeros(y.shape)
    if d is not None:
        clock = Progress(len(set(fold.tolist())), "pixels: networks", report, "folds")
        for k in sorted(set(fold.tolist())):
            networks[k] = pixels.fit(d[fold != k], y[fold != k], seed=k)
            z = pixels.score(networks[k], torch.from_numpy(d[fold == k]).float())
            scores[fold == k] = pixels.pool(z, pixels.PARTS[0]).numpy()
            clock.add(1)
    alone, told, choices = [], [], []
    for c in range(y.shape[1]):
        P, Q = y[:, c], others[:, c]
        own = label_only.contrast_tells(model, skew, c, P, Q)
        alone.append(own)
        told.append(float(auto.tell(scores[P, c], scores[Q, c])) if networks else 0.0)
        choices.append("network" if networks and told[c] >= own else "contrast")
    return PixelModel(model, networks, alone, told, choices)


def _read(log_image, N, sample, report, visit):
    """Skewness (N, F) [C-4], and descriptors float16 (N, m, D) of m random pixels each or None."""
    rng, skew = np.random.default_rng(0), []
    size = min(SAMPLES, max(1, ALL_SAMPLES // max(N, 1)))
    # One array from the start: kept arrays between those of each image would scatter the memory.
    d = np.empty((N, size, pixels.DESCRIPTORS), np.float16) if sample else None
    clock = Progress(N, "pixels: descriptors", report)
    for i in range(N):
        x = log_image(i)
        r = contrast.responses(x)
        skew.append(contrast.skew(r).numpy())
        visit(i, r)
        if sample:
            each = pixels.describe(x).flatten(1).T
            d[i] = each[rng.integers(len(each), size=size)].half().numpy()
        clock.add(1)
    return np.stack(skew), d


def masks_of_image(x: Tensor, y: np.ndarray, fold: int,
                   model: PixelModel) -> tuple[np.ndarray, np.ndarray]:
    """Masks and the pixels that a trainer must leave out, both bool (C, H, W), of one image.

    x (H, W) is the logarithm [C-1] of the image, y bool (C,) are its labels, and fold is its own.
    Of an image whose fold has no network, the scores are the mean of those of all networks.
    [C-13], [C-31], [C-32]
    """
    by_network = y & (np.array(model.choices) == "network")
    u = label_only.ratios(x, y & ~by_network, model.contrast)
    if by_network.any():
        d = pixels.describe(x)
        chosen = [model.networks[fold]] if fold in model.networks else model.networks.values()
        z = torch.stack([pixels.score(network, d.flatten(1).T).T for network in chosen]).mean(dim=0)
        v = pixels.evidence(z.reshape(len(y), *d.shape[1:]), tuple(x.shape))
        for c in np.flatnonzero(by_network):
            u[c] = pixels.ratio(v[c])
    return label_only.share(u, y)


def choice_rows(model: PixelModel, classes: list) -> list:
    """One row for each class, of COLUMNS: what decided its method, and the method."""
    rows = []
    for c, name in enumerate(classes):
        by = label_only.say(model.contrast.filters[c], model.contrast.signs[c])
        rows.append([name, model.alone[c], by, model.network[c], model.choices[c]])
    return rows
