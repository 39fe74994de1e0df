"""The segmentation loss against loops over single pixels."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from cam2seg.losses import KINDS, segmentation_loss

pytestmark = pytest.mark.usefixtures("fixed_seed")


def example():
    """Logits and target (3, 4, 4, 5); class 2 has no true pixel, class 3 has one."""
    y = 2 * torch.randn(3, 4, 4, 5, dtype=torch.float64)
    target = (torch.rand(3, 4, 4, 5) < 0.3).double()
    target[:, 2:] = 0
    target[1, 3, 0, 2] = 1
    return y, target


def literal_bce(y, target, ignore):
    total, n = 0.0, 0
    for index in itertools.product(*map(range, y.shape)):
        if ignore is not None and ignore[index]:
            continue
        t, p = target[index].item(), 1 / (1 + math.exp(-y[index].item()))
        total -= t * math.log(p) + (1 - t) * math.log(1 - p)
        n += 1
    return total / n if n else 0.0


def literal_dice(y, target, ignore):
    """Mean of 1 - D_c over the classes that have a true pixel."""
    B, C, H, W = y.shape
    losses = []
    for c in range(C):
        both = ours = true = 0.0
        for b, i, j in itertools.product(range(B), range(H), range(W)):
            if ignore is not None and ignore[b, c, i, j]:
                continue
            t, p = target[b, c, i, j].item(), 1 / (1 + math.exp(-y[b, c, i, j].item()))
            both, ours, true = both + t * p, ours + p, true + t
        if true > 0:
            losses.append(1 - 2 * both / (ours + true))
    return sum(losses) / len(losses) if losses else 0.0


LITERAL = {"bce": literal_bce, "dice": literal_dice,
           "bce+dice": lambda *given: literal_bce(*given) + literal_dice(*given)}


@pytest.mark.parametrize("width", [None, 1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_loss_equals_the_loops(kind, width):
    y, target = example()
    ignore = None if width is None else torch.rand(3, width, 4, 5) < 0.4
    loss = segmentation_loss(y, target, kind, ignore)
    each = None if ignore is None else ignore.expand(y.shape)
    assert loss.shape == () and loss.dtype == torch.float64
    assert loss.item() == pytest.approx(LITERAL[kind](y, target, each), rel=1e-12)
    if ignore is not None:
        assert loss.item() != pytest.approx(LITERAL[kind](y, target, None), rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_that_of_central_differences(kind):
    y, target = example()
    ignore = torch.rand(3, 1, 4, 5) < 0.4
    leaf = y.clone().requires_grad_()
    G, = torch.autograd.grad(segmentation_loss(leaf, target, kind, ignore), leaf)
    e = 1e-6
    for index in itertools.product((0, 2), range(4), (0, 3), (1, 4)):
        ends = []
        for sign in (1, -1):
            moved = y.clone()
            moved[index] += sign * e
            ends.append(segmentation_loss(moved, target, kind, ignore).item())
        assert G[index].item() == pytest.approx((ends[0] - ends[1]) / (2 * e), rel=1e-5, abs=1e-9)
    assert (G[ignore.expand(y.shape)] == 0).all() and G.abs().max() > 0


def test_bce_of_all_pixels_is_the_mean_of_torch_to_the_last_bit():
    y, target = (t.float() for t in example())
    leaves = [y.clone().requires_grad_() for _ in range(2)]
    ours = segmentation_loss(leaves[0], target)
    theirs = F.binary_cross_entropy_with_logits(leaves[1], target)
    grads = [torch.autograd.grad(loss, leaf)[0]
             for loss, leaf in zip((ours, theirs), leaves, strict=True)]
    assert torch.equal(ours, theirs) and torch.equal(*grads)


def test_numbers_worked_out_by_hand():
    """p = 1/2 everywhere. Class 0 has 1 of 4 pixels: D = 2 (1/2) / (2 + 1) = 1/3. Class 1 has 2 of
    4: D = 2 * 1 / (2 + 2) = 1/2. Class 2 has none. Mean of 2/3 and 1/2."""
    y = torch.zeros(1, 3, 2, 2, dtype=torch.float64)
    target = torch.tensor([[[[1, 0], [0, 0]], [[1, 0], [0, 1]], [[0, 0], [0, 0]]]])
    assert segmentation_loss(y, target, "dice").item() == pytest.approx(7 / 12, rel=1e-12)
    assert segmentation_loss(y, target, "bce").item() == pytest.approx(math.log(2), rel=1e-12)
    # The left column is ignored: class 0 has nothing left, class 1 keeps 1 of 2 pixels.
    ignore = torch.tensor([[[[True, False], [True, False]]]])
    assert segmentation_loss(y, target, "dice", ignore).item() == pytest.approx(1 / 2, rel=1e-12)


@pytest.mark.parametrize("level", [-200.0, -50.0, 0.0, 3.0])
def test_a_class_without_a_true_pixel_plays_no_part_in_soft_dice(level):
    y, target = example()
    y[:, 2] = level
    leaf = y.clone().requires_grad_()
    loss = segmentation_loss(leaf, target, "dice")
    kept = [0, 1, 3]
    assert loss.item() == pytest.approx(
        segmentation_loss(y[:, kept], target[:, kept], "dice").item(), rel=1e-12)
    G, = torch.autograd.grad(loss, leaf)
    assert (G[:, 2] == 0).all() and (G[:, kept] != 0).any()
    bce, = torch.autograd.grad(segmentation_loss(leaf, target, "bce+dice"), leaf)
    assert level == -200 or (bce[:, 2] > 0).all()  # BCE teaches the class that it is absent


def test_soft_dice_of_no_class_at_all_is_zero_with_a_graph():
    leaf = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = segmentation_loss(leaf, torch.zeros(2, 3, 4, 4), "dice")
    loss.backward()
    assert loss.item() == 0 and torch.equal(leaf.grad, torch.zeros_like(leaf))


@pytest.mark.parametrize("kind", KINDS)
def test_loss_of_no_pixel_at_all_is_zero_with_a_graph(kind):
    leaf = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = segmentation_loss(leaf, torch.ones(2, 3, 4, 4), kind,
                             torch.ones(2, 1, 4, 4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0 and torch.equal(leaf.grad, torch.zeros_like(leaf))


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_in_an_ignored_pixel_does_not_matter(kind):
    y, target = example()
    ignore = torch.rand(3, 4, 4, 5) < 0.4
    expected = segmentation_loss(y, target, kind, ignore).item()
    target[ignore] = 255
    assert segmentation_loss(y, target, kind, ignore).item() == expected
    y[ignore] = float("nan")
    leaf = y.clone().requires_grad_()
    loss = segmentation_loss(leaf, target, kind, ignore)
    loss.backward()
    assert loss.item() == expected and leaf.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_ignored_is_the_same_as_no_ignore(kind):
    y, target = example()
    nothing = torch.zeros(3, 1, 4, 5, dtype=torch.bool)
    assert segmentation_loss(y, target, kind, nothing).item() == pytest.approx(
        segmentation_loss(y, target, kind).item(), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_dtypes_of_the_target_and_half_precision_logits(kind):
    y, target = (t.float() for t in example())
    expected = segmentation_loss(y, target, kind)
    for dtype in (torch.bool, torch.uint8, torch.int64, torch.float64):
        assert torch.equal(segmentation_loss(y, target.to(dtype), kind), expected)
    for dtype in (torch.float16, torch.bfloat16):
        low = segmentation_loss(y.to(dtype), target, kind)
        assert low.dtype == torch.float32
        assert torch.equal(low, segmentation_loss(y.to(dtype).float(), target, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_logits_have_a_finite_loss_and_gradient(kind):
    leaf = torch.tensor([-500.0, 500.0, -500.0, 500.0]).view(1, 1, 2, 2).requires_grad_()
    loss = segmentation_loss(leaf, torch.tensor([[[[0, 1], [1, 0]]]]), kind)
    loss.backward()
    assert loss.isfinite() and leaf.grad.isfinite().all()


def test_bad_arguments_are_refused():
    y = torch.zeros(2, 3, 4, 4)
    for kind in ("", "BCE", "dice+bce", "focal"):
        with pytest.raises(ValueError, match="expected one of bce, dice, bce"):
            segmentation_loss(y, y, kind)
    for logits, target in ((y, y[:1]), (y, y[:, :1]), (y[0], y[0]), (y, y[..., :1])):
        with pytest.raises(ValueError, match=r"\(B, C, H, W\) both"):
            segmentation_loss(logits, target, "dice")
    for ignore in (y, torch.zeros(2, 4, 4, dtype=torch.bool), y[:1, :1].bool(),
                   y[:, :2].bool(), y[..., :1].bool()):
        with pytest.raises(ValueError, match=r"ignore: .*expected bool \(2, 1 or 3, 4, 4\)"):
            segmentation_loss(y, y, "bce", ignore)
