"""Masks that a segmentation network draws of images whose class labels are known.

A U-Net that has been trained on pseudo-masks labels the images of the fold that it has not seen. Its
errors are not those of the masks it has learnt from, so that a second U-Net may learn more from
them. Only sure pixels are taken. The rule of ESL (Saporta et al. 2020) says which are sure. The
network there gives one probability for each class by a softmax; ours has a sigmoid for each class,
so that every class has two sides: defect and ground.

Notation: p (C, H, W) are the probabilities of an image, y bool (C,) its labels.
"""

import numpy as np

LEAST_ENTROPY = 0.1  # [C-25] ESL's floor of the limit: so low an entropy is always sure
MOST_CONFIDENCE = 0.9  # [C-26] so high a confidence is always sure


def entropy(p: np.ndarray) -> np.ndarray:
    """Entropy of probabilities p in bits, from 0 (sure) to 1 (p = 1/2), of p's shape.    [C-24]

    E(p) = -p log2 p - (1 - p) log2 (1 - p), and 0 where p is 0 or 1
    """
    p = np.asarray(p)
    parts = [np.where(q > 0, -q * np.log2(np.where(q > 0, q, 1)), 0) for q in (p, 1 - p)]
    return parts[0] + parts[1]


def limits(p: list, select: str) -> tuple[float, float]:
    """Limits of the ground and of the defect of one class, from probabilities of its images.

    p: arrays of the class's probabilities in images with its label. Defect is where p > 1/2.
    select "entropy":    nu = max(median E(p) over the pixels of the side, 0.1)       [C-25]
           "confidence": nu = min(median max(p, 1 - p) over the pixels of the side, 0.9)   [C-26]
           "all":        nu lets every pixel through
    A side without pixels has the limit of [C-25], [C-26] itself: 0.1 or 0.9.
    """
    both = np.concatenate([np.ravel(a) for a in p]) if p else np.zeros(0)
    out = []
    for side in (both <= 0.5, both > 0.5):
        q = both[side]
        if select == "entropy":
            out.append(max(float(np.median(entropy(q))), LEAST_ENTROPY) if len(q)
                       else LEAST_ENTROPY)
        elif select == "confidence":
            out.append(min(float(np.median(np.maximum(q, 1 - q))), MOST_CONFIDENCE) if len(q)
                       else MOST_CONFIDENCE)
        else:
            out.append(1.0 if select == "all" else np.nan)
    if np.isnan(out[0]):
        raise ValueError(f"select '{select}', expected entropy, confidence or all")
    return out[0], out[1]


def mask_of(p: np.ndarray, limit: tuple[float, float], select: str) -> tuple[np.ndarray,
                                                                            np.ndarray]:
    """Mask, and pixels that are not sure, both bool (H, W), of one class p (H, W).  [C-25], [C-26]

    mask = [p > 1/2 and sure],  ignored = [not sure]
    sure = [E(p) <= nu], or [max(p, 1 - p) >= nu] for "confidence", with nu of the pixel's side
    """
    defect = p > 0.5
    nu = np.where(defect, limit[1], limit[0])
    if select == "all":
        return defect, np.zeros_like(defect)
    sure = entropy(p) <= nu if select == "entropy" else np.maximum(p, 1 - p) >= nu
    return defect & sure, ~sure
