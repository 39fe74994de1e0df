"""How much of what a classifier sees of a class lies under a mask: its logit without those pixels.

The formulas [C-40] and [C-41] are this project's own and not the paper's; see AUDIT.md 2.6.

A classifier's map covers a large defect as a whole, and the product of map and contrast may pick a
few of its edges. Both tell the label. Where the pixels of the product are erased and the classifier
still sees the class, the product is not the defect.
"""

import numpy as np
import torch
import torch.nn.functional as F

from .contrast import LEAST_WEIGHT, blur

AROUND = 60  # [C-40] pixels of the shorter side for each pixel that is erased around a mask
SMOOTH = 16  # [C-40] pixels of the longer side for each pixel of the Gaussian that fills
HELD = 0.5  # [C-41] part of what the map holds that the product must hold


def without(I: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image I without the pixels of a mask, uint8 (H, W, 3) and bool (H, W) -> uint8 (H, W, 3).

    J = I outside m',  J = (G_s * w I) / (G_s * w) in m',  w = 1 outside m' and 0.001 in it   [C-40]

    m' are the pixels that lie at most r rows and r columns from one of the mask,
    r = max(1, [min(H, W) / 60]), because the edge of a mask shows what it covers.
    s = max(H, W) / 16, so that the ground around the mask continues into it. J is rounded.
    """
    H, W = mask.shape
    r = max(1, min(H, W) // AROUND)
    m = torch.from_numpy(mask.astype(np.float32))[None, None]
    near = F.max_pool2d(m, 2 * r + 1, 1, r)[0, 0] > 0
    x = torch.from_numpy(np.array(I, np.float32)).permute(2, 0, 1)
    w, s = torch.where(near, LEAST_WEIGHT, 1.0), max(H, W) / SMOOTH
    J = torch.where(near, blur(w * x, s) / blur(w, s), x)
    return J.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def holds(by_product: float, by_map: float) -> bool:
    """Whether the product's masks of a class hold what the classifier sees of it.    [C-41]

    d_u = mean over images with the class of z(I) - z(I without the mask of u), z the logit
    d_product > 0  and  d_product >= d_map / 2
    """
    return by_product > 0 and by_product >= HELD * by_map
