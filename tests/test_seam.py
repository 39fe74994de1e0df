"""SEAM: every formula against loops over cells in float64, its encoder against the one it is made
from, and its way through the scripts."""

import math

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from cam2seg import cam, models
from cam2seg.methods import seam

E = 1e-5

pytestmark = pytest.mark.usefixtures("fixed_seed")


def randn(*shape):
    return torch.randn(*shape, dtype=torch.float64)


# Formulas on lists of numbers, one cell at a time


def resized_by_loops(m, size):
    """One map as lists: the outermost cells keep their place."""
    (h, w), (H, W) = (len(m), len(m[0])), size

    def at(i, n, N):
        p = i * (n - 1) / (N - 1) if N > 1 else 0.0
        low = min(int(p), n - 1)
        return low, min(low + 1, n - 1), p - low

    out = [[0.0] * W for _ in range(H)]
    for i in range(H):
        for j in range(W):
            a, b, u = at(i, h, H)
            c, d, v = at(j, w, W)
            out[i][j] = ((1 - u) * ((1 - v) * m[a][c] + v * m[a][d])
                         + u * ((1 - v) * m[b][c] + v * m[b][d]))
    return out


def max_norm_by_loops(m):
    cells = [max(v, 0.0) for row in m for v in row]
    low, high = min(cells), max(cells)
    return [[max(max(v, 0.0) - low - E, 0.0) / (high - low + E) for v in row] for row in m]


def background_by_loops(maps):
    h, w = len(maps[0]), len(maps[0][0])
    return [[[1 - max(m[i][j] for m in maps) for j in range(w)] for i in range(h)], *maps]


def largest_by_loops(maps):
    """The first map is the background."""
    out = [[row[:] for row in m] for m in maps]
    for i in range(len(maps[0])):
        for j in range(len(maps[0][0])):
            top = max(m[i][j] for m in maps[1:])
            for c in range(1, len(maps)):
                if maps[c][i][j] != top:
                    out[c][i][j] = 0.0
    return out


def competing_by_loops(yhat):
    scaled = []
    for m in yhat:
        top = max(max(v, 0.0) for row in m for v in row)
        scaled.append([[max(max(v, 0.0) - E, 0.0) / (top + E) for v in row] for row in m])
    return largest_by_loops(background_by_loops(scaled))


def correlate_by_loops(maps, f):
    h, w = len(maps[0]), len(maps[0][0])
    cells = [(i, j) for i in range(h) for j in range(w)]

    def norm(i):
        return math.sqrt(sum(k[i[0]][i[1]] ** 2 for k in f)) + E

    def like(i, j):
        return max(sum(k[i[0]][i[1]] * k[j[0]][j[1]] for k in f) / (norm(i) * norm(j)), 0.0)

    out = [[[0.0] * w for _ in range(h)] for _ in maps]
    for i in cells:
        total = sum(like(i, j) for j in cells) + E
        for c, m in enumerate(maps):
            out[c][i[0]][i[1]] = sum(like(i, j) * m[j[0]][j[1]] for j in cells) / total
    return out


def hardest_by_loops(target, maps):
    """Of a batch of lists of maps."""
    total, count = 0.0, 0
    for t, m in zip(target, maps, strict=True):
        errors = sorted((abs(a - b) for p, q in zip(t, m, strict=True)
                         for u, v in zip(p, q, strict=True)
                         for a, b in zip(u, v, strict=True)), reverse=True)
        k = int(len(errors) * 0.2)
        total, count = total + sum(errors[:k]), count + k
    return total / count


def min_pooling_by_loops(maps):
    total, count = 0.0, 0
    for image in maps:
        top = sorted(max(m[i][j] for m in image)
                     for i in range(len(image[0])) for j in range(len(image[0][0])))
        k = len(top) // 4
        total, count = total + sum(max(v, 0.0) for v in top[:k]), count + k
    return total / count


def each(function, maps, *more):
    """A function of one map, of every map of a batch of lists."""
    return [[function(m, *more) for m in image] for image in maps]


def times(maps, label):
    return [[[[v * y for v in row] for row in m] for m, y in zip(image, ys, strict=True)]
            for image, ys in zip(maps, label, strict=True)]


def close(found, expected):
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("size, other", [((4, 6), (2, 3)), ((5, 7), (13, 8)), ((1, 1), (3, 2)),
                                         ((3, 4), (1, 1)), ((4, 5), (4, 5))])
def test_resize_equals_the_loops(size, other):
    x = randn(2, 3, *size)
    close(seam.resize(x, other), each(resized_by_loops, x.tolist(), other))


@pytest.mark.parametrize("size, scale, small", [
    ((448, 448), 0.3, (134, 134)), ((64, 128), 0.3, (19, 38)), ((10, 100), 0.29, (2, 28)),
    ((7, 9), 1.0, (7, 9))])
def test_the_rescaled_size_is_rounded_down(size, scale, small):
    assert seam.rescaled(size, scale) == small
    x = torch.zeros(1, 1, *size)
    theirs = F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=True)
    assert theirs.shape[2:] == small


def test_max_norm_equals_the_loops():
    x = randn(2, 3, 4, 5)
    x[0, 0] = x[0, 0].abs() + 1  # its minimum counts
    x[0, 1] = -x[0, 1].abs()  # nothing above 0
    x[1, 2] = 3  # constant
    close(seam.max_norm(x), each(max_norm_by_loops, x.tolist()))
    assert seam.max_norm(x)[0, 0].max() == pytest.approx(1, abs=1e-4)


def test_max_norm_has_the_epsilon_of_its_source_on_both_sides():
    """Of the values 0 and 1: (1 - e) / (1 + e)."""
    assert seam.max_norm(torch.tensor([[0.0, 1.0]], dtype=torch.float64)).tolist() == [
        [0.0, (1 - E) / (1 + E)]]


def test_background_and_largest_equal_the_loops():
    x = randn(2, 3, 4, 5).round()  # with ties
    full = seam.with_background(x)
    assert full.tolist() == [background_by_loops(m) for m in x.tolist()]
    assert seam.largest_only(full).tolist() == [largest_by_loops(m) for m in full.tolist()]


def test_the_largest_keeps_its_value_and_nothing_is_written_in_place():
    x = torch.tensor([0.4, 0.2, 0.6, 0.6, 0.1]).view(1, 5, 1, 1)
    before = x.clone()
    assert seam.largest_only(x.detach()).flatten().tolist() == pytest.approx([0.4, 0, 0.6, 0.6, 0])
    assert torch.equal(x, before)


def test_what_pcm_spreads_equals_the_loops():
    x = randn(2, 3, 4, 5)
    x[0, 1] = -x[0, 1].abs()
    close(seam.competing(x), [competing_by_loops(m) for m in x.tolist()])


def test_pcm_equals_the_loops():
    maps, f = randn(2, 3, 3, 4).abs(), randn(2, 5, 3, 4)
    f[0, :, 1, 1] = 0  # a cell without features is like none
    found = seam.correlate(maps, f)
    close(found, [correlate_by_loops(m, k) for m, k in zip(maps.tolist(), f.tolist(), strict=True)])
    assert found[0, :, 1, 1].abs().max() == 0


def test_pcm_in_closed_form():
    """Two groups of cells, alike within and orthogonal between: each gets the mean of its own."""
    f = torch.zeros(1, 2, 2, 3, dtype=torch.float64)
    f[0, 0, :, 0], f[0, 1, :, 1:] = 2.0, 3.0
    m = torch.arange(6, dtype=torch.float64).view(1, 1, 2, 3)
    found = seam.correlate(m, f)[0, 0]
    expected = torch.tensor([[1.5, 3, 3], [1.5, 3, 3]], dtype=torch.float64)
    assert torch.allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("channels", [2, 3, 5])
def test_the_hardest_fifth_equals_the_loops(channels):
    """Its size follows from the classes there are, not from the 21 of VOC."""
    a, b = randn(2, channels, 3, 4), randn(2, channels, 3, 4)
    assert seam.hardest(a, b).item() == pytest.approx(hardest_by_loops(a.tolist(), b.tolist()))


def test_min_pooling_equals_the_loops():
    x = randn(3, 2, 3, 5)
    assert seam.min_pooling(x).item() == pytest.approx(min_pooling_by_loops(x.tolist()))
    assert seam.min_pooling(x.abs()).item() == pytest.approx(min_pooling_by_loops(
        x.abs().tolist()))
    assert seam.min_pooling(-x.abs()) == 0


def loss_by_loops(outputs, target):
    logits, yhat, y, logits2, yhat2, y2 = (o.tolist() for o in outputs)
    label = target.tolist()
    known, size = [[1.0, *row] for row in label], outputs[4].shape[-2:]

    def bce(z):
        return sum(-math.log(1 / (1 + math.exp(-v if t else v))) for zs, ts in zip(
            z, label, strict=True) for v, t in zip(zs, ts, strict=True)) / target.numel()

    def pooled(maps):
        return min_pooling_by_loops(times([m[1:] for m in maps], label))

    L_cls = (bce(logits) + bce(logits2)) / 2 + (pooled(y) + pooled(y2)) / 2
    yhat = times(each(resized_by_loops, each(max_norm_by_loops, yhat), size), label)
    y = times(each(resized_by_loops, each(max_norm_by_loops, y), size), known)
    yhat2, y2 = times(each(max_norm_by_loops, yhat2), label), times(each(max_norm_by_loops, y2),
                                                                    known)
    L_er = (torch.tensor(yhat) - torch.tensor(yhat2)).abs().sum().item() / outputs[4].numel()
    one, two = ([largest_by_loops(background_by_loops(m)) for m in maps] for maps in (yhat, yhat2))
    return L_cls + L_er + hardest_by_loops(two, y) + hardest_by_loops(one, y2)


def some_outputs():
    shapes = ((2, 3), (2, 3, 6, 8), (2, 4, 6, 8), (2, 3), (2, 3, 3, 4), (2, 4, 3, 4))
    return [randn(*s).requires_grad_() for s in shapes]


LABEL = torch.tensor([[1.0, 0, 1], [0, 0, 1]], dtype=torch.float64)


def test_the_loss_equals_the_loops():
    outputs = some_outputs()
    assert seam.seam_loss(outputs, LABEL).item() == pytest.approx(loss_by_loops(outputs, LABEL))
    clean = torch.zeros_like(LABEL)
    assert seam.seam_loss(outputs, clean).item() == pytest.approx(loss_by_loops(outputs, clean))


def test_no_gradient_passes_through_the_kept_maps():
    """The gradient on yhat is that of L_ER, and that on y of its own two terms."""
    outputs = some_outputs()
    found = torch.autograd.grad(seam.seam_loss(outputs, LABEL), outputs)
    label = LABEL[:, :, None, None]
    a, b = outputs[1], outputs[4]
    alone = (seam.resize(seam.max_norm(a), (3, 4)) * label - seam.max_norm(b) * label).abs().mean()
    for mine, theirs in zip((found[1], found[4]), torch.autograd.grad(alone, (a, b)), strict=True):
        assert torch.allclose(mine, theirs)
    assert all(found[n].abs().max() > 0 for n in (0, 2, 3, 5))
    free = [outputs[n] for n in (0, 2, 3, 5)]
    assert torch.autograd.gradcheck(lambda z, y, z2, y2: seam.seam_loss(
        (z, a.detach(), y, z2, b.detach(), y2), LABEL), free)


# The network


def strided(arch):
    """An encoder with settled BatchNorm statistics, as it is and at stride 8."""
    plain = models.encoder(arch).double()
    settle(plain)
    dense = models.encoder(arch).double()
    dense.load_state_dict(plain.state_dict())
    seam.dilate(dense, 8)
    return plain.eval(), dense.eval()


@pytest.mark.parametrize("size", [(64, 96), (65, 71)])
def test_a_dilated_encoder_computes_the_cells_of_the_plain_one_and_those_between(size):
    """lite0 has no squeeze-and-excitation, whose mean is one over other cells."""
    plain, dense = strided("lite0")
    x = randn(1, 3, *size)
    with torch.no_grad():
        few, many = plain(x), dense(x)
    assert few.shape[2:] == tuple(-(-n // 32) for n in size)
    assert many.shape[2:] == tuple(-(-n // 8) for n in size)
    assert torch.allclose(many[:, :, ::4, ::4], few, rtol=1e-9)


@pytest.mark.parametrize("arch", models.ARCHS)
def test_every_encoder_has_maps_of_the_stride_asked_for(arch):
    if arch in ("b4", "b5", "b6", "b7"):  # lest the test take long: only the strides are looked at
        features = models.encoder(arch)
        seam.dilate(features, 8)
        steps = [m.stride[0] for m in features.modules() if isinstance(m, nn.Conv2d)]
        assert math.prod(steps) == 8
        return
    for stride in (8, 16, 32):
        model = seam.Seam(arch, 2, stride=stride).eval()
        with torch.no_grad():
            maps, logits = model.maps(torch.randn(1, 3, 40, 70))
        assert maps.shape == (1, 2, -(-40 // stride), -(-70 // stride)) and logits.shape == (1, 2)


@pytest.mark.parametrize("wrong", [{"stride": 4}, {"stride": 12}, {"scale": 0}, {"scale": 1.2}])
def test_a_wrong_scale_or_stride_is_refused(wrong):
    with pytest.raises(ValueError, match="expected a number above 0, up to 1, and one of 8, 16"):
        seam.Seam("b0", 2, **wrong)


def small_model():
    model = seam.Seam("b0", 3, dropout=0.0).double()
    for m in model.modules():  # one pass is then like another
        if hasattr(m, "p") and type(m).__name__ == "StochasticDepth":
            m.p = 0.0
    settle(model)
    return model


def settle(model):
    """Give BatchNorm statistics under which the features neither vanish nor explode."""
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.momentum = 1.0
    with torch.no_grad():
        model.train()(randn(4, 3, 64, 64))


def test_the_maps_are_pcm_of_the_cam_by_two_levels_and_the_image():
    """A forward pass written out; the levels get no gradient."""
    model, x = small_model().eval(), randn(2, 3, 32, 48)
    levels, A = {}, x
    for i, stage in enumerate(model.features):
        A = levels[i] = stage(A)
    yhat = torch.einsum("ck,bkij->bcij", model.cam.weight[:, :, 0, 0], A)
    parts = [seam.resize(x, (4, 6))]
    for i, embedding in zip((3, 5), model.embeddings, strict=True):
        parts.append(torch.einsum("ck,bkij->bcij", embedding.weight[:, :, 0, 0], levels[i]).clamp(
            min=0))
    f = torch.einsum("ck,bkij->bcij", model.joined.weight[:, :, 0, 0], torch.cat(parts, dim=1))
    expected = seam.correlate(seam.competing(yhat), f)[:, 1:]
    maps, logits = model.maps(x)
    assert maps.amax(dim=(2, 3)).max() > 0.1
    assert torch.allclose(maps, expected) and torch.allclose(logits, yhat.mean(dim=(2, 3)))
    assert torch.equal(model(x), logits) and (maps >= 0).all() and (maps <= 1).all()
    maps.sum().backward()
    assert all(p.grad is None for p in (*model.features.parameters(), model.cam.weight))
    assert all(e.weight.grad.abs().max() > 0 for e in (*model.embeddings, model.joined))
    assert [e.weight.shape[0] for e in model.embeddings] == [64, 128]
    assert model.joined.weight.shape[:2] == (192, 195)


def test_training_sees_the_image_and_the_rescaled_one():
    model, x = small_model().train(), randn(2, 3, 64, 96)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.eval()
    outputs = model(x)
    small = F.interpolate(x, scale_factor=0.3, mode="bilinear", align_corners=True)
    assert [tuple(o.shape) for o in outputs] == [
        (2, 3), (2, 3, 64, 96), (2, 4, 64, 96), (2, 3), (2, 3, 19, 28), (2, 4, 19, 28)]
    for view, (logits, yhat, y) in ((x, outputs[:3]), (small, outputs[3:])):
        maps, pooled = model.maps(view)
        assert torch.allclose(logits, pooled)
        assert torch.allclose(y[:, 1:], seam.resize(maps, view.shape[2:]))
        assert torch.allclose(yhat[:, :, ::view.shape[2] - 1, ::view.shape[3] - 1],
                              model._cam(view)[0][:, :, ::maps.shape[2] - 1, ::maps.shape[3] - 1])


def test_running_statistics_are_those_of_the_image_alone():
    model, x = small_model(), randn(2, 3, 64, 96)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    model.train()(x)
    seen = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
    assert {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {1.0}
    model.load_state_dict(state)
    with torch.no_grad():
        model.features.train()(x)
    alone = model.state_dict()
    assert len(seen) == 98 and all(torch.equal(v, alone[k]) for k, v in seen.items())
    assert not all(torch.equal(v, state[k]) for k, v in seen.items())


def test_every_parameter_gets_a_gradient_from_the_loss():
    model = seam.Seam("b0", 2).train()
    target = torch.tensor([[1.0, 0], [1, 1], [0, 0]])
    seam.seam_loss(model(torch.randn(3, 3, 64, 64)), target).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_grad_cam_of_the_network_is_its_cam_before_pcm():
    """The mean over cells and a Linear without bias: Grad-CAM is ReLU(yhat) / (h w)."""
    model, x = small_model().eval(), randn(2, 3, 32, 48)
    maps, logits = cam.class_maps(model, x, model.target_layer, "gradcam")
    assert torch.allclose(maps, F.relu(model._cam(x)[0]) / 24, atol=1e-12)
    assert torch.allclose(logits, model(x))


def test_first_weights_are_those_of_the_source():
    model = seam.Seam("b0", 8)
    for p in model.parameters():
        p.requires_grad_(False)
    for conv, bound in ((model.cam, math.sqrt(6 / (1280 + 8))),
                        (model.joined, 4 * math.sqrt(6 / (195 + 192)))):
        assert conv.bias is None and conv.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert conv.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    for conv, fan_in in zip(model.embeddings, (40, 112), strict=True):
        assert conv.bias is None
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.05)
    assert isinstance(model.dropout, nn.Dropout2d)


def test_under_autocast_maps_and_loss_are_float32():
    model, x = seam.Seam("b0", 2), torch.randn(2, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model.train()(x)
        maps, _ = model.eval().maps(x)
    assert maps.dtype == outputs[1].dtype == outputs[2].dtype == torch.float32
    assert seam.seam_loss(outputs, torch.ones(2, 2)).isfinite()
