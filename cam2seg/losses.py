"""The loss of the segmentation network: binary cross-entropy, soft Dice, or their sum; and for
classes that exclude each other the cross-entropy.

    loss = segmentation_loss(logits, target)                               # both (B, C, H, W)
    loss = segmentation_loss(logits, target, "bce+dice", ignore=unsure)    # True = left out

[P-7]: Sydorskyi 2022, see AUDIT.md. Notation: B batch, C classes (c), H W image, p probability.
"""

import torch
import torch.nn.functional as F

KINDS = ("bce", "dice", "bce+dice")


def segmentation_loss(logits: torch.Tensor, target: torch.Tensor, kind: str = "bce",
                      ignore: torch.Tensor | None = None) -> torch.Tensor:
    """The loss of a batch as one number that carries a graph.

    bce       mean over all pixels of all classes of -(t log p + (1 - t) log(1 - p))    [P-7]
    dice      mean over the classes that have a true pixel of 1 - D_c  (DEV-36), where
              D_c = 2 sum p t / (sum p + sum t), and the sums run over the pixels of class c in
              the whole batch
    bce+dice  the sum of the two (DEV-12)

    `logits` and `target` are (B, C, H, W). The target holds 0 and 1 (or values between them) in
    any dtype, and p = sigmoid(logits). `ignore` is bool (B, 1, H, W) or (B, C, H, W). Where it is
    True, the pixel is left out of the mean and of all sums; what its target says plays no part and
    its logit gets no gradient.

    A class without a true pixel in the batch is left out of the mean of soft Dice: its D_c would
    be 0 however small p is, and so a constant that teaches nothing. Such a class is taught by BCE
    alone, and `dice` alone does not teach it at all. A mean over nothing is 0: soft Dice where no
    class has a true pixel, and BCE where every pixel is ignored. The gradient is 0 there as well.

    The loss is float32, or float64 for logits in float64. Raises ValueError for an unknown kind and
    for tensors of other shapes or an `ignore` that is not bool.
    """
    if kind not in KINDS:
        raise ValueError(f"kind '{kind}': expected one of {', '.join(KINDS)}")
    if logits.ndim != 4 or logits.shape != target.shape:
        raise ValueError(f"logits and target are (B, C, H, W) both, got {tuple(logits.shape)} and "
                         f"{tuple(target.shape)}")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    target = target.to(logits.dtype)
    counted = None if ignore is None else ~_checked(ignore, logits.shape)
    if ignore is not None:  # so that not even a NaN in an ignored pixel reaches sum or gradient
        logits, target = torch.where(counted, logits, 0), torch.where(counted, target, 0)
    terms = []
    if "bce" in kind:
        terms.append(_mean_bce(logits, target, counted))
    if "dice" in kind:
        terms.append(_soft_dice_loss(logits, target, counted))
    return sum(terms[1:], start=terms[0])


def multiclass_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The cross-entropy of classes that exclude each other, as one number that carries a graph.

    logits: (B, 1 + C, H, W), of which the first channel is the background. target: (B, C, H, W),
    for each class 1 = in its mask, 0 = not in it, 255 = left out. With t_i the class of pixel i,
    and 0 for a pixel in no mask, it is the mean over the pixels that count of
    log sum_k exp(y_ki) - y_(t_i)i.    [C-34]
    A pixel that is left out for any class does not count, nor does one in the masks of two classes
    (DEV-67). The mean over nothing is 0. Raises ValueError for tensors of other shapes.
    """
    B, C, H, W = target.shape
    if tuple(logits.shape) != (B, C + 1, H, W):
        raise ValueError(f"logits {tuple(logits.shape)}: expected {(B, C + 1, H, W)} for a target "
                         f"of {C} classes")
    inside = target == 1
    label = torch.where(inside.any(dim=1), inside.int().argmax(dim=1) + 1, 0)  # (B, H, W)
    label[(target == 255).any(dim=1) | (inside.sum(dim=1) > 1)] = -1
    total = F.cross_entropy(logits, label, ignore_index=-1, reduction="sum")
    return total / (label >= 0).sum().clamp(min=1)


def _checked(ignore, shape):
    """`ignore`, if it is a bool tensor (B, 1 or C, H, W) for logits of that shape."""
    B, C, H, W = shape
    if ignore.dtype != torch.bool or tuple(ignore.shape) not in ((B, 1, H, W), (B, C, H, W)):
        raise ValueError(f"ignore: {ignore.dtype} of shape {tuple(ignore.shape)}, expected bool "
                         f"({B}, 1 or {C}, {H}, {W})")
    return ignore.expand(shape)


def _mean_bce(logits, target, counted):
    """[P-7] over the pixels that count; `counted` is None where all of them do."""
    if counted is None:
        return F.binary_cross_entropy_with_logits(logits, target)
    each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return torch.where(counted, each, 0).sum() / counted.sum().clamp(min=1)


def _soft_dice_loss(logits, target, counted):
    """Mean of 1 - D_c over the classes with a true pixel that counts (DEV-36)."""
    p = logits.sigmoid()
    if counted is not None:
        p = torch.where(counted, p, 0)
    over = (0, 2, 3)  # (B, C, H, W) -> (C,)
    true = target.sum(over)
    present = true > 0
    total = torch.where(present, p.sum(over) + true, 1)
    lost = torch.where(present, 1 - 2 * (p * target).sum(over) / total, 0)
    return lost.sum() / present.sum().clamp(min=1)
