"""Masks that a segmentation network draws of images whose class labels are known.

A U-Net that has been trained on pseudo-masks labels the images of the fold that it has not seen.
Its errors are not those of the masks it has learnt from, so that a second U-Net may learn more from
them. Only sure pixels are taken. The rule of ESL (Saporta et al. 2020) says which are sure. The
network there gives one probability for each class by a softmax, as a run of train_seg.py --target
multiclass does; shares and the functions after it serve such a run. Our other runs have a sigmoid
for each class, so that every class has two sides: defect and ground. E then falls as max(p, 1 - p)
rises, so that entropy and confidence differ by their fixed limits alone.

Notation: p (C, H, W) are the probabilities of an image, y bool (C,) its labels, q (1 + C, H, W) the
shares of background and classes, whose sum is 1.
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


def shares(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Shares q (1 + C, H, W) of background and classes, from p (C, H, W) of a softmax.    [C-37]

    q_0 = (1 - sum p) / s, q_c = p_c / s for the classes that the image has and 0 for the others;
    s is what makes their sum 1. Where s would be 0, q_0 is 1. Rounding can take 1 - sum p out of
    0 to 1, and it is then set to the nearer of the two.
    """
    p = np.asarray(p, np.float64)
    ground = np.clip(1 - p.sum(axis=0), 0, 1)
    q = np.concatenate([ground[None], np.where(y[:, None, None], p, 0)])
    q[0, q.sum(axis=0) == 0] = 1
    return q / q.sum(axis=0)


def entropy_of_shares(q: np.ndarray) -> np.ndarray:
    """E = -1 / log K sum_k q_k log q_k, from 0 (sure) to 1 (all shares alike).    [C-38]

    q (K, ...) are K shares along the first axis, whose sum is 1. The result has the other axes.
    """
    terms = np.where(q > 0, q * np.log(np.where(q > 0, q, 1)), 0)
    return -terms.sum(axis=0) / np.log(len(q))


def limits_of_shares(q: list, select: str) -> list[float]:
    """Limits nu of background and C classes, from shares q (1 + C, ...) of several images.   [C-39]

    Over the pixels whose largest share is that of k:
    select "entropy":    nu_k = max(median E, 0.1)
           "confidence": nu_k = min(median of the largest share, 0.9)
           "all":        nu_k lets every pixel through
    A k that is nowhere the largest has 0.1 for entropy and 0.9 for confidence. For "all" each
    entry is 1.0, which masks_of_shares does not read.
    """
    if select not in ("entropy", "confidence", "all"):
        raise ValueError(f"select '{select}', expected entropy, confidence or all")
    if select == "all":
        return [1.0] * len(q[0])
    largest = np.concatenate([np.ravel(a.argmax(axis=0)) for a in q])
    value = np.concatenate([np.ravel(entropy_of_shares(a) if select == "entropy"
                                     else a.max(axis=0)) for a in q])
    found = [value[largest == k] for k in range(len(q[0]))]
    if select == "entropy":
        return [max(float(np.median(v)), LEAST_ENTROPY) if len(v) else LEAST_ENTROPY
                for v in found]
    return [min(float(np.median(v)), MOST_CONFIDENCE) if len(v) else MOST_CONFIDENCE
            for v in found]


def masks_of_shares(q: np.ndarray, limit: list, select: str) -> tuple[np.ndarray, np.ndarray]:
    """Masks bool (C, H, W), and the pixels that are not sure, bool (H, W), of one image.    [C-39]

    A pixel belongs to the class of its largest share k, the first of equal ones, where it is sure:
    E <= nu_k, or the largest share >= nu_k for "confidence".
    """
    k = q.argmax(axis=0)
    nu = np.array(limit)[k]
    sure = {"all": lambda: np.ones(k.shape, bool), "entropy": lambda: entropy_of_shares(q) <= nu,
            "confidence": lambda: q.max(axis=0) >= nu}[select]()
    return (k == np.arange(1, len(q))[:, None, None]) & sure, ~sure
