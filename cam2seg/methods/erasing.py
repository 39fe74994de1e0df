"""How much of what a classifier sees of a class lies under a mask: its logit without those pixels.

The formulas [C-40] and [C-41] are this project's own and not the paper's; see AUDIT.md 2.6.

A classifier's map covers a large defect as a whole, and the product of map and contrast may pick a
few of its edges. Both tell the label. Where the pixels of the product are erased and the classifier
still sees the class, the product is not the defect.
"""

import numpy as np
import torch
import torch.nn.functional as F

from .contrast import blur

AROUND = 60  # [C-40] the margin that is erased, too, is 1/60 of the shorter side
SMOOTH = 16  # [C-40] the Gaussian that fills has 1/16 of the longer side
FAR = 1e-3  # [C-40] the weight of the mean of the rest, which fills what no ground is near to
HELD = 0.5  # [C-41] the logit lost without the product must be this part of that without the map


def without(I: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image I without the pixels of a mask, uint8 (H, W, 3) and bool (H, W) -> uint8 (H, W, 3).

    J = I outside m',  J = (G_s * w I + 0.001 M) / (G_s * w + 0.001) in m'    [C-40]
    w = 1 outside m' and 0 in it,  s = max(H, W) / 16

    m' are the pixels that lie at most r rows and r columns from one of the mask,
    r = max(1, floor(min(H, W) / 60)), because the edge of a mask shows what it covers. So the
    ground around a mask continues into it. M is the mean of I outside m', which fills the middle of
    a large mask; it is the mean of I where nothing is outside. J is rounded.
    """
    H, W = mask.shape
    r = max(1, min(H, W) // AROUND)
    m = torch.from_numpy(mask.astype(np.float32))[None, None]
    near = F.max_pool2d(m, 2 * r + 1, 1, r)[0, 0] > 0
    x = torch.from_numpy(np.array(I, np.float32)).permute(2, 0, 1)
    w, s = (~near).float(), max(H, W) / SMOOTH
    M = (x[:, ~near] if w.any() else x.flatten(1)).mean(dim=1)[:, None, None]
    J = torch.where(near, (blur(w * x, s) + FAR * M) / (blur(w, s) + FAR), x)
    return J.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def holds(by_product: float, by_map: float) -> bool:
    """Whether the product's masks of a class hold what the classifier sees of it.    [C-41]

    by_product > 0  and  by_product >= by_map / 2

    by_product and by_map say how much the logit of the class falls, in the mean over images with
    the class, where the masks of the product, or those of the map, are erased [C-40].
    """
    return by_product > 0 and by_product >= HELD * by_map
