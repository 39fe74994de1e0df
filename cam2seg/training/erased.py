"""What the logits of a classifier lose where pixels of an image that it has not seen are erased."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..data.images import open_rgb
from ..methods import erasing
from .batches import to_input
from .held_out_maps import Classifiers, networks_of


def lost_logits(paths: Sequence[Path], fold: np.ndarray, classifiers: Classifiers,
                size: Sequence[int]) -> Callable[[int, Sequence[np.ndarray]], np.ndarray]:
    """The function that says what the C logits of an image lose without the pixels of K masks.

    It takes the image's row number and the masks, bool (H, W) each, and returns float64 (K, C): the
    logits of the whole image less those of the image without the mask [C-40]. paths and fold are
    those of the N images, and size is (H, W) of the network's input. The network is the one of the
    image's fold, which has not seen it. An image outside the folds, of fold -1, gets the mean over
    all networks.
    """
    pre, device = classifiers.preprocess, classifiers.device
    H, W = size

    def lost(i, masks):
        I = np.asarray(open_rgb(paths[i]))
        seen = [I, *(erasing.without(I, mask) for mask in masks)]
        batch = np.stack([Image.fromarray(J).resize((W, H), Image.Resampling.BILINEAR)
                          for J in seen])
        x = to_input(torch.from_numpy(batch), device, pre["mean"], pre["std"])
        members = networks_of(classifiers, int(fold[i]))
        with torch.inference_mode():
            z = torch.stack([net(x).double() for net in members]).mean(dim=0).cpu().numpy()
        return z[0] - z[1:]

    return lost
