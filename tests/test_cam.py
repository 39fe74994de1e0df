import copy
import math

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision
from conftest import close

from cam2seg import cam

METHODS = ("gradcam", "gradcam++", "gradcam++normalized", "gradcam++normalized-positive")
assert METHODS == tuple(cam.FORMULAS)

pytestmark = pytest.mark.usefixtures("fixed_seed")


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def close_to_max(a, b, tol):
    """Largest difference, as a share of the largest value: maps have no scale of their own."""
    assert b.abs().max() > 0
    assert ((a - b).abs().max() / b.abs().max()).item() < tol


# Formulas, as loops over the printed indices


def loops_grad_cam(A, G):
    B, K, h, w = A.shape
    L = torch.zeros(B, h, w, dtype=torch.float64)
    for b in range(B):
        for k in range(K):
            alpha, Z = 0.0, h * w
            for i in range(h):
                for j in range(w):
                    alpha += G[b, k, i, j].item() / Z  # [P-1]
            for i in range(h):
                for j in range(w):
                    L[b, i, j] += alpha * A[b, k, i, j]  # [P-2] with the sum over k of [GC] Eq. 2
        for i in range(h):
            for j in range(w):
                L[b, i, j] = max(L[b, i, j].item(), 0.0)
    return L


def loops_grad_cam_pp(A, G, normalized=None):
    B, K, h, w = A.shape
    L = torch.zeros(B, h, w, dtype=torch.float64)
    for b in range(B):
        for k in range(K):
            S = sum(A[b, k, i, j].item() for i in range(h) for j in range(w))
            weight = total = 0.0
            for i in range(h):
                for j in range(w):
                    g = G[b, k, i, j].item()
                    bottom = 2 * g**2 + S * g**3
                    alpha = g**2 / bottom if bottom != 0 else 0.0  # [PP] Eq. 19
                    weight += alpha * max(g, 0.0)  # [PP] Eq. 5
                    if normalized == "all" or g > 0:
                        total += alpha
            if normalized and total != 0:  # alphas that sum to 1
                weight /= total
            elif normalized == "all":
                weight = 0.0
            for i in range(h):
                for j in range(w):
                    L[b, i, j] += weight * A[b, k, i, j]  # [PP] Eq. 6
        for i in range(h):
            for j in range(w):
                L[b, i, j] = max(L[b, i, j].item(), 0.0)
    return L


def loops_upscale(m, H, W):
    """One map (h, w) to (H, W): bilinear between cell centres, the outer cells held at the rim."""
    h, w = m.shape
    out = torch.zeros(H, W, dtype=torch.float64)
    for row in range(H):
        for col in range(W):
            y = min(max((row + 0.5) * h / H - 0.5, 0), h - 1)
            x = min(max((col + 0.5) * w / W - 0.5, 0), w - 1)
            i, j = min(int(y), h - 1), min(int(x), w - 1)
            i1, j1 = min(i + 1, h - 1), min(j + 1, w - 1)
            v, u = y - i, x - j
            out[row, col] = ((1 - v) * (1 - u) * m[i, j] + (1 - v) * u * m[i, j1]
                         + v * (1 - u) * m[i1, j] + v * u * m[i1, j1])
    return out


LOOPS = {"gradcam": loops_grad_cam, "gradcam++": loops_grad_cam_pp,
         "gradcam++normalized": lambda A, G: loops_grad_cam_pp(A, G, "all"),
         "gradcam++normalized-positive": lambda A, G: loops_grad_cam_pp(A, G, "positive")}


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 5, 3, 4), (3, 2, 1, 6)])
@pytest.mark.parametrize("method", METHODS)
def test_formula_equals_the_loops_over_printed_indices(method, shape):
    A, G = random(*shape), random(*shape)
    if shape[1] == 1:
        A, G = A.abs() + 0.1, G.abs() + 0.1  # else the only cell may be cut by the ReLU
    out = cam.FORMULAS[method](A, G)
    assert out.max() > 0
    close(out, LOOPS[method](A, G))


@pytest.mark.parametrize("method", METHODS)
def test_formula_on_numbers_worked_out_by_hand(method):
    A = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]], dtype=torch.float64)
    G = torch.tensor([[[[1.0, 0.5]], [[-2.0, 1.0]]]], dtype=torch.float64)
    if method == "gradcam":  # alpha 0.75, -0.5: 0.75 - 1.5 < 0 and 1.5 + 0.5
        expected = [[[0.0, 2.0]]]
    else:  # S = 3, 2; weights 1/5 + 0.5/3.5 and 1/4 (the cell with G = -2 is cut by the ReLU)
        w0, w1 = 1 / 5 + 0.5 / 3.5, 1 / 4
        if method == "gradcam++normalized":  # alphas 1/5 + 1/3.5 and -1/2 + 1/4
            w0, w1 = w0 / (1 / 5 + 1 / 3.5), w1 / (-1 / 2 + 1 / 4)
        if method == "gradcam++normalized-positive":  # of the second channel, 1/4 alone
            w0, w1 = w0 / (1 / 5 + 1 / 3.5), w1 / (1 / 4)
        expected = [[[max(w0 + 3 * w1, 0), 2 * w0 - w1]]]
    close(cam.FORMULAS[method](A, G), expected)


def test_grad_cam_cuts_the_sum_and_not_each_channel():
    A = torch.tensor([[[[1.0, 1.0]], [[1.0, -3.0]]]], dtype=torch.float64)
    close(cam.grad_cam(A, torch.ones_like(A)), [[[2.0, 0.0]]])
    close(cam.grad_cam(A, -torch.ones_like(A)), [[[0.0, 2.0]]])


@pytest.mark.parametrize("dtype, tiny", [(torch.float64, 1e-11), (torch.float32, 1e-11),
                                         (torch.float32, 1e-25), (torch.float64, 1e-180)])
def test_grad_cam_pp_alpha_is_one_half_for_tiny_gradients(dtype, tiny):
    A = torch.rand(1, 3, 2, 2, dtype=dtype)
    G = tiny * torch.rand(1, 3, 2, 2, dtype=dtype)
    w = 0.5 * G.double().sum(dim=(2, 3))
    expected = torch.einsum("bk,bkij->bij", w, A.double())
    out = cam.grad_cam_pp(A, G).double()
    torch.testing.assert_close(out, expected, rtol=1e-6, atol=0.0)


def test_grad_cam_pp_alpha_is_zero_where_the_gradient_is_zero():
    A, G = random(1, 4, 3, 3).abs(), random(1, 4, 3, 3)
    G[G < 0.3] = 0
    assert (G == 0).any()
    close(cam.grad_cam_pp(A, G), loops_grad_cam_pp(A, G))
    close(cam.grad_cam_pp(A, torch.zeros_like(G)), torch.zeros(1, 3, 3))


def test_grad_cam_pp_at_the_pole():
    A = torch.tensor([[[[-3.0, 1.0]]]], dtype=torch.float64)  # S = -2
    G = torch.tensor([[[[1.0, 0.5]]]], dtype=torch.float64)  # 2 + S G = 0 and 1
    close(cam.grad_cam_pp(A, G), [[[0.0, 0.5]]])
    close(cam.grad_cam_pp(A, G), loops_grad_cam_pp(A, G))


def test_a_cell_without_gradient_has_no_part_in_the_sum_of_alphas():
    """S = 2. G = 1 and 0: alphas 1/4 and, by Eq. 19 at G = 0, 0."""
    A = torch.ones(1, 1, 1, 2, dtype=torch.float64)
    G = torch.tensor([[[[1.0, 0.0]]]], dtype=torch.float64)
    close(cam.grad_cam_pp(A, G), [[[0.25, 0.25]]])
    for summed in ("all", "positive"):
        close(cam.grad_cam_pp(A, G, summed), [[[1.0, 1.0]]])


def test_grad_cam_pp_with_alphas_that_sum_to_nothing():
    """S = -4. G = 1 and 1/3: alphas -1/2 and 3/2. G = 3/4 and 1/4: alphas -1 and 1, their sum 0."""
    A = torch.tensor([[[[-5.0, 1.0]]]], dtype=torch.float64)
    G = torch.tensor([[[[1.0, 1 / 3]]]], dtype=torch.float64)
    w = -1 / 2 + 1.5 / 3
    for summed in ("all", "positive"):
        close(cam.grad_cam_pp(A, G, summed), [[[max(-5 * w, 0), max(w, 0)]]])
    G = torch.tensor([[[[0.75, 0.25]]]], dtype=torch.float64)
    close(cam.grad_cam_pp(A, G), [[[5 * 0.5, 0.0]]])
    close(cam.grad_cam_pp(A, G, "all"), torch.zeros(1, 1, 2))
    close(cam.grad_cam_pp(A, G, "positive"), [[[5 * 0.5, 0.0]]])  # the alphas stay as they are


def as_published(A, G, y, positive):
    """The steps of the code that the authors of [PP] published, for one image: derivatives of
    exp(y), alphas, their sums over a channel, map. Earlier: all alphas are summed; at present:
    those where ReLU(G) is not 0, and a sum of 0 becomes 1."""
    first, second, third = (math.exp(y) * G.numpy()**n for n in (1, 2, 3))
    bottom = 2 * second + third * A.numpy().sum(axis=(1, 2), keepdims=True)
    alpha = second / np.where(bottom != 0, bottom, 1)
    weights = np.maximum(first, 0)
    summed = (np.where(weights, alpha, 0) if positive else alpha).sum(axis=(1, 2), keepdims=True)
    alpha = alpha / (np.where(summed != 0, summed, 1) if positive else summed)
    return np.maximum((((weights * alpha).sum(axis=(1, 2))[:, None, None]) * A.numpy()).sum(0), 0)


@pytest.mark.parametrize("method, positive", [("gradcam++normalized", False),
                                              ("gradcam++normalized-positive", True)])
def test_normalised_alphas_are_those_of_the_authors_earlier_and_present_code(method, positive):
    A, G, y = random(4, 5, 3, 4).abs(), random(4, 5, 3, 4), 0.7
    maps = cam.FORMULAS[method](A, G)
    other = cam.FORMULAS[METHODS[5 - METHODS.index(method)]](A, G)
    assert maps.max() > 0 and (maps - other).abs().max() > 0.1
    for b in range(4):  # exp(y) scales the weights and cancels in the alphas
        close(math.exp(y) * maps[b], torch.from_numpy(as_published(A[b], G[b], y, positive)))


def test_another_normalisation_is_refused():
    with pytest.raises(ValueError, match="None, 'all' or 'positive'"):
        cam.grad_cam_pp(random(1, 1, 2, 2), random(1, 1, 2, 2), True)


def test_grad_cam_pp_with_negative_sums_on_both_sides_of_the_pole():
    A, G = random(2, 6, 3, 3) - 0.5, 3 * random(2, 6, 3, 3)
    bottom = 2 + A.sum(dim=(2, 3), keepdim=True) * G
    assert ((bottom < 0) & (G > 0)).any() and ((bottom > 0) & (G > 0)).any()
    close(cam.grad_cam_pp(A, G), loops_grad_cam_pp(A, G))


def test_grad_cam_pp_equals_the_derivatives_of_the_exponential_score():
    """[PP] Eq. 10 with Y = exp(y): second and third derivatives by autograd, cell by cell."""
    K, h, w = 2, 2, 3
    head = nn.Sequential(nn.Flatten(), nn.Linear(K * h * w, 8), nn.ReLU(), nn.Linear(8, 1)).double()
    A = random(1, K, h, w).requires_grad_()
    y = head(A)[0, 0]
    G, = torch.autograd.grad(y, A, retain_graph=True)
    Y = y.exp()
    first, = torch.autograd.grad(Y, A, create_graph=True)
    weight = torch.zeros(K, dtype=torch.float64)
    for k in range(K):
        S = A[0, k].sum().item()
        for i in range(h):
            for j in range(w):
                d1 = first[0, k, i, j]
                d2 = torch.autograd.grad(d1, A, create_graph=True)[0][0, k, i, j]
                d3 = torch.autograd.grad(d2, A, retain_graph=True)[0][0, k, i, j]
                alpha = d2 / (2 * d2 + S * d3)
                weight[k] += (alpha * F.relu(d1)).item()
    L = F.relu(sum(weight[k] * A[0, k] for k in range(K))).detach() / Y.item()
    assert L.max() > 0
    close(cam.grad_cam_pp(A.detach(), G)[0], L)


# class_maps


def small_net(inplace=False, C=3, act=nn.SiLU):
    """conv, norm, act, conv, norm, act, then pooled and non-linear; running statistics set."""
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), act(inplace=inplace),
        nn.Conv2d(5, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), act(inplace=inplace),
        nn.AdaptiveAvgPool2d((2, 2)), nn.Flatten(), nn.Dropout(0.5),
        nn.Linear(24, 7), nn.ELU(inplace=inplace), nn.Linear(7, C)).double()
    for m in net:
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.3)
            m.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias, 0, 0.3)
    return net


def oracle_A_G(model, layer, x, c):
    """A and dy_c/dA by plain autograd through the whole model with no inplace activations."""
    model = model.eval()
    for m in model.modules():
        if hasattr(m, "inplace"):
            m.inplace = False
    kept = []

    def keep(module, inputs, output):
        output.retain_grad()
        kept.append(output)
        return output.clone()  # functional inplace calls behind the layer write into the copy

    handle = model.get_submodule(layer).register_forward_hook(keep)
    model(x.clone().requires_grad_())[:, c].sum().backward()
    handle.remove()
    return kept[0].detach(), kept[0].grad


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layer", ["0", "1", "2", "4", "5", "6"])
@pytest.mark.parametrize("inplace", [False, True])
def test_class_maps_equal_plain_autograd_and_loops(method, layer, inplace):
    net, x = small_net(inplace), random(4, 3, 8, 6)
    reference = copy.deepcopy(net)
    maps, logits = cam.class_maps(net, x, layer, method)
    for c in range(3):
        A, G = oracle_A_G(reference, layer, x, c)
        close(maps[:, c], LOOPS[method](A, G))
    assert maps.max() > 0
    close(logits, reference(x))


def test_class_maps_default_method_is_grad_cam_pp():
    net, x = small_net(), random(1, 3, 8, 8)
    maps = cam.class_maps(net, x, "5")[0]
    torch.testing.assert_close(maps, cam.class_maps(net, x, "5", "gradcam++")[0], rtol=0, atol=0)
    assert not torch.equal(maps, cam.class_maps(net, x, "5", "gradcam")[0])


@pytest.mark.parametrize("inplace", [False, True])
def test_closed_form_for_a_pooled_linear_head(inplace):
    """Grad-CAM weights are W_k/N (the CAM of a pooled linear head), Grad-CAM++ weights are
    ReLU(W_k) / (2 + W_k mean(A_k)): [P-1] and [PP] Eq. 19 with G_kij = W_k/N."""
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.SiLU(inplace=inplace),
                        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5),
                        nn.Linear(6, 4)).double()
    x = random(2, 3, 5, 7)
    net.eval()
    with torch.no_grad():
        A = net[:3](x).clone()
        logits = net(x)
    W, N = net[-1].weight.detach(), 35
    got, y = cam.class_maps(net, x, "2", "gradcam")
    got_pp, y_pp = cam.class_maps(net, x, "2", "gradcam++")
    for b in range(2):
        for c in range(4):
            L, L_pp = torch.zeros(5, 7).double(), torch.zeros(5, 7).double()
            for k in range(6):
                L += W[c, k] / N * A[b, k]
                L_pp += max(W[c, k].item(), 0) / (2 + W[c, k] * A[b, k].sum() / N) * A[b, k]
            close(got[b, c], L.clamp(min=0))
            close(got_pp[b, c], L_pp.clamp(min=0))
    close(y, logits)
    close(y_pp, logits)


def classifier():
    from cam2seg.models import Classifier
    model = Classifier("b0", 3, hidden=16).double()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for m in norms:  # statistics of a real batch: else a random net fades out and hides mistakes
        m.momentum = 1.0
    with torch.no_grad():
        model(random(8, 3, 64, 64))
    return model.eval()


@pytest.fixture(scope="module")
def b0():
    torch.manual_seed(0)
    return classifier()


def b0_parts(b0, x):
    """A, and dy/dv (B, C, K) of the pooled vector v by hand through Linear, ELU, Linear."""
    with torch.no_grad():
        A = b0.features(x)
        v = A.mean(dim=(2, 3))
        W1, b1, W2 = b0.head[1].weight, b0.head[1].bias, b0.head[4].weight
        z = v @ W1.T + b1
        slope = torch.where(z > 0, torch.ones_like(z), z.exp())  # ELU'
        return A, torch.stack([W2[c] * slope @ W1 for c in range(3)], dim=1)


def test_closed_form_on_the_classifier(b0):
    x = random(3, 3, 64, 64)
    A, g = b0_parts(b0, x)
    N = A.shape[2] * A.shape[3]
    for method in METHODS:
        maps, _ = cam.class_maps(b0, x, b0.target_layer, method)
        w = {"gradcam": g / N, "gradcam++": F.relu(g) / (2 + g * A.mean(dim=(2, 3))[:, None]),
             "gradcam++normalized": F.relu(g) / N,
             "gradcam++normalized-positive": F.relu(g) / N}[method]  # (B, C, K)
        expected = F.relu(torch.einsum("bck,bkij->bcij", w, A))
        close_to_max(maps, expected, 1e-12)


def test_classifier_gradient_against_central_differences(b0):
    """dy/dA through the classifier's head by (y(A + e) - y(A - e)) / 2e, then the loops."""
    x = random(1, 3, 64, 64)
    with torch.no_grad():
        A = b0.features(x)
        G, e, c = torch.zeros_like(A), 1e-4, 1
        for k in range(A.shape[1]):  # the pooled vector makes all cells of a channel alike
            for cell in [(0, 0), (1, 1)] if k < 5 else [(0, 1)]:
                ends = []
                for sign in (1, -1):
                    moved = A.clone()
                    moved[0, k][cell] += sign * e
                    ends.append(b0.head(moved.mean(dim=(2, 3)))[0, c])
                G[0, k] = (ends[0] - ends[1]) / (2 * e)
    for method in METHODS:
        maps, _ = cam.class_maps(b0, x, b0.target_layer, method, classes=[c])
        close_to_max(maps[0, 0], LOOPS[method](A, G)[0], 1e-6)


def test_gradient_of_every_cell_against_central_differences():
    net, x, c = small_net().eval(), random(1, 3, 8, 8), 2
    with torch.no_grad():
        A = net[:6](x)
        G, e = torch.zeros_like(A), 1e-6
        for index in np.ndindex(*A.shape):
            ends = []
            for sign in (1, -1):
                moved = A.clone()
                moved[index] += sign * e
                ends.append(net[6:](moved)[0, c])
            G[index] = (ends[0] - ends[1]) / (2 * e)
    for method in METHODS:
        maps, _ = cam.class_maps(net, x, "5", method, classes=[c])
        close_to_max(maps[0, 0], LOOPS[method](A, G)[0], 1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_equals_its_images_one_by_one(method):
    net, x = small_net(inplace=True), random(3, 3, 8, 8)
    maps, logits = cam.class_maps(net, x, "5", method)
    for b in range(3):
        one, y = cam.class_maps(net, x[b:b + 1], "5", method)
        close(maps[b], one[0])
        close(logits[b], y[0])


@pytest.mark.parametrize("classes", [[0], [2, 0], [1, 1, 2], torch.tensor([2, 1]), (0, 1, 2)])
def test_classes_choose_maps_in_their_order(classes):
    net, x = small_net(), random(2, 3, 8, 8)
    maps, logits = cam.class_maps(net, x, "5")
    some, y = cam.class_maps(net, x, "5", classes=classes)
    close(some, maps[:, [int(c) for c in classes]])
    close(y, logits)  # all of them, whatever the classes
    guided = cam.guided_backprop(net, x)
    close(cam.guided_backprop(net, x, classes), guided[:, [int(c) for c in classes]])
    both = cam.guided_grad_cam(net, x, "5", classes=classes)[0]
    close(both, cam.guided_grad_cam(net, x, "5")[0][:, [int(c) for c in classes]])


def test_a_layer_may_be_given_as_name_or_module():
    net, x = small_net(), random(1, 3, 8, 8)
    close(cam.class_maps(net, x, net[5])[0], cam.class_maps(net, x, "5")[0], 0, 0)
    assert cam.find_layer(net, "5") is net[5]


@pytest.mark.parametrize("factor", [1e-6, 3.0, 1e5])
def test_scaling_the_last_layer_leaves_the_normalised_grad_cam(factor):
    net, x = small_net(), random(2, 3, 8, 8)
    before = cam.normalize(cam.class_maps(net, x, "5", "gradcam")[0])
    with torch.no_grad():
        net[-1].weight *= factor
        net[-1].bias *= factor
    close(cam.normalize(cam.class_maps(net, x, "5", "gradcam")[0]), before)


# The model comes back as it was


def state(model, x):
    modules = list(model.modules())
    return {
        "hooks": [[len(getattr(m, kind)) for kind in (
            "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")]
            for m in modules],
        "training": [m.training for m in modules],
        "inplace": [getattr(m, "inplace", None) for m in modules],
        "keys": [sorted(vars(m)) for m in modules],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grad_id": [id(p.grad) for p in model.parameters()],
        "grad": [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
        "tensors": {k: v.tolist() for k, v in model.state_dict().items()},
        "x": (x.tolist(), x.requires_grad, x.grad),
        "rng": torch.get_rng_state().tolist(),
        "grad_mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


CALLS = {
    "class_maps": lambda net, x: cam.class_maps(net, x, "4"),
    "guided_backprop": cam.guided_backprop,
    "guided_grad_cam": lambda net, x: cam.guided_grad_cam(net, x, "4"),
}


class Faulty(nn.Module):
    """The identity, until `armed`."""
    armed = False

    def forward(self, x):
        if self.armed:
            raise RuntimeError("no luck")
        return x


def used_net():
    """Mixed modes, a user's own hook, frozen parameters, some gradients there already."""
    net = small_net(inplace=True)
    net.insert(9, Faulty())
    net.train()
    net[1].eval()
    net[8].eval()
    net[0].weight.requires_grad_(False)
    net[3].weight.grad = torch.full_like(net[3].weight, 0.25)
    net[4].register_forward_hook(lambda *_: None)
    net[12].register_full_backward_hook(lambda *_: None)
    return net


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("x_grad", [False, True])
def test_model_and_input_are_left_as_they_were(name, x_grad):
    net, x = used_net(), random(2, 3, 8, 8).requires_grad_(x_grad)
    before = state(net, x)
    CALLS[name](net, x)
    assert state(net, x) == before


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("grad", [False, True])
def test_model_and_grad_mode_are_left_as_they_were_after_an_exception(name, grad):
    net, x = used_net(), random(2, 3, 8, 8)
    with torch.set_grad_enabled(grad):
        before = state(net, x)
        net[9].armed = True
        with pytest.raises(RuntimeError, match="no luck"):
            CALLS[name](net, x)
        del net[9].armed
        assert state(net, x) == before


@pytest.mark.parametrize("layer, what", [("10", "output"), ("12", "output")])
def test_model_is_left_as_it_was_when_the_layer_is_refused(layer, what):
    net, x = used_net(), random(2, 3, 8, 8)
    before = state(net, x)
    with pytest.raises(ValueError, match=what):
        cam.class_maps(net, x, layer)
    assert state(net, x) == before


def test_dropout_and_batch_norm_run_in_eval_mode():
    net, x = small_net().eval(), random(3, 3, 8, 8)
    expected = cam.class_maps(net, x, "5")[0], cam.guided_backprop(net, x)
    net.train()
    close(cam.class_maps(net, x, "5")[0], expected[0], 0, 0)
    close(cam.guided_backprop(net, x), expected[1], 0, 0)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off(name, mode):
    net = small_net(inplace=True)
    x = random(2, 3, 8, 8)
    expected = CALLS[name](net, x)
    with mode():
        inside = x * 1  # an inference tensor under inference_mode
        got = CALLS[name](net, inside)
        assert not torch.is_grad_enabled()
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
    for a, b in zip(got if isinstance(got, tuple) else [got],
                    expected if isinstance(expected, tuple) else [expected], strict=True):
        close(a, b, 0, 0)


@pytest.mark.parametrize("name", ["class_maps", "guided_grad_cam"])
def test_works_under_inference_mode_where_the_head_looks_at_the_input_again(name):
    class Again(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act = nn.Conv2d(3, 3, 3, padding=1), nn.SiLU()

        def forward(self, x):
            return (self.act(self.conv(x)) * x).mean(dim=(2, 3))

    net, x = Again().double(), random(2, 3, 6, 6)
    expected = getattr(cam, name)(net, x, "act")[0]
    assert expected.max() > 0
    with torch.inference_mode():
        got = getattr(cam, name)(net, x * 1, "act")[0]
    close(got, expected)


@pytest.mark.parametrize("name", CALLS)
def test_works_with_every_parameter_frozen(name):
    net, x = small_net(inplace=True), random(2, 3, 8, 8)
    expected = CALLS[name](net, x)
    net.requires_grad_(False)
    got = CALLS[name](net, x)
    for a, b in zip(got if isinstance(got, tuple) else [got],
                    expected if isinstance(expected, tuple) else [expected], strict=True):
        close(a, b, 0, 0)


@pytest.mark.parametrize("name", CALLS)
def test_results_carry_no_graph(name):
    out = CALLS[name](small_net(), random(1, 3, 8, 8))
    assert not any(t.requires_grad for t in (out if isinstance(out, tuple) else [out]))


def test_no_graph_is_built_below_the_target_layer():
    net, x = small_net(), random(1, 3, 8, 8).requires_grad_()
    graphs, grad_on = {}, {}
    for i, m in enumerate(net):
        m.register_forward_hook(lambda m, inputs, out, i=i: graphs.update({i: out.grad_fn}))
        m.register_forward_pre_hook(
            lambda m, inputs, i=i: grad_on.update({i: torch.is_grad_enabled()}))
    cam.class_maps(net, x, "5")
    assert [graphs[i] is None for i in range(12)] == [True] * 6 + [False] * 6
    assert [grad_on[i] for i in range(12)] == [False] * 6 + [True] * 6


class Untouchable(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, R):
        raise AssertionError("backward ran below the target layer")


class Guarded(nn.Module):
    def forward(self, x):
        return Untouchable.apply(x)


def test_backward_never_goes_below_the_target_layer():
    net, x = small_net(), random(1, 3, 8, 8).requires_grad_()
    net.insert(3, Guarded())
    with pytest.raises(AssertionError):
        net(x).sum().backward()
    assert cam.class_maps(net, x, "6")[0].max() > 0


def test_one_forward_for_all_classes():
    net, runs = small_net(), []
    net[0].register_forward_hook(lambda *_: runs.append(1))
    cam.class_maps(net, random(1, 3, 8, 8), "5")
    assert len(runs) == 1


# Errors


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.unused = nn.Conv2d(3, 3, 3)
        self.aside = nn.Conv2d(3, 3, 3)
        self.pair = Pair()
        self.last = nn.Linear(3, 2)

    def forward(self, x):
        self.aside(x)
        x, _ = self.pair(self.conv(self.conv(x)))
        return self.last(x.mean(dim=(2, 3)))


class Pair(nn.Module):
    def forward(self, x):
        return x, x


@pytest.mark.parametrize("layer, message", [
    ("conv", "runs 2 times"), ("unused", "runs 0 times"), ("pair", "no .* output"),
    ("last", "no .* output"), ("aside", "no gradient leads"),
    ("nowhere", "no layer 'nowhere'.*conv.*last"), ("", "no layer ''")])
@pytest.mark.parametrize("frozen", [False, True])
def test_unfit_layers_are_refused(layer, message, frozen):
    model = Twice().requires_grad_(not frozen)
    with pytest.raises(ValueError, match=message):
        cam.class_maps(model, torch.randn(1, 3, 8, 8), layer)


def test_a_module_of_another_model_is_refused():
    with pytest.raises(ValueError, match="runs 0 times"):
        cam.class_maps(small_net(), random(1, 3, 8, 8), small_net()[5])


@pytest.mark.parametrize("classes", [[3], [-1], [0, 7], []])
@pytest.mark.parametrize("call", [
    lambda net, x, classes: cam.class_maps(net, x, "5", classes=classes),
    lambda net, x, classes: cam.guided_backprop(net, x, classes)])
def test_unknown_classes_are_refused(call, classes):
    with pytest.raises(ValueError, match="expected indices from 0 to 2"):
        call(small_net(), random(1, 3, 8, 8), classes)


def test_unknown_method_is_refused_and_the_known_ones_named():
    with pytest.raises(ValueError, match=r"'cam'.*gradcam, gradcam\+\+"):
        cam.class_maps(small_net(), random(1, 3, 8, 8), "5", "cam")


def test_logits_that_are_not_a_matrix_are_refused():
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())
    with pytest.raises(ValueError, match=r"\(B, C\)"):
        cam.class_maps(net, torch.randn(1, 3, 4, 4), "0")


# Guided backpropagation

ALPHA, LAMBDA = 1.6732632423543772, 1.0507009873554805  # those of SELU
SLOPES = {  # act, act' by hand, at z away from any kink
    nn.ReLU: (lambda z: max(z, 0.0), lambda z: float(z > 0)),
    nn.LeakyReLU: (lambda z: z if z > 0 else 0.01 * z, lambda z: 1.0 if z > 0 else 0.01),
    nn.ELU: (lambda z: z if z > 0 else math.expm1(z), lambda z: 1.0 if z > 0 else math.exp(z)),
    nn.SiLU: (lambda z: z / (1 + math.exp(-z)),
              lambda z: (1 + z / (1 + math.exp(z))) / (1 + math.exp(-z))),
    nn.Softplus: (lambda z: math.log1p(math.exp(z)), lambda z: 1 / (1 + math.exp(-z))),
    nn.Hardswish: (lambda z: z * min(max(z + 3, 0), 6) / 6,
                   lambda z: 0.0 if z < -3 else 1.0 if z > 3 else (2 * z + 3) / 6),
    nn.GELU: (lambda z: z * (1 + math.erf(z / 2**0.5)) / 2,
              lambda z: (1 + math.erf(z / 2**0.5)) / 2
              + z * math.exp(-z * z / 2) / (2 * math.pi)**0.5),
    nn.ReLU6: (lambda z: min(max(z, 0.0), 6.0), lambda z: float(0 < z < 6)),
    nn.PReLU: (lambda z: z if z > 0 else 0.25 * z, lambda z: 1.0 if z > 0 else 0.25),
    nn.CELU: (lambda z: z if z > 0 else math.expm1(z), lambda z: 1.0 if z > 0 else math.exp(z)),
    nn.SELU: (lambda z: LAMBDA * (z if z > 0 else ALPHA * math.expm1(z)),
              lambda z: LAMBDA * (1.0 if z > 0 else ALPHA * math.exp(z))),
    nn.Mish: (lambda z: z * math.tanh(math.log1p(math.exp(z))),
              lambda z: math.tanh(math.log1p(math.exp(z)))
              + z / (1 + math.exp(-z)) / math.cosh(math.log1p(math.exp(z)))**2),
}


def guided_by_hand(net, act, slope, x, c):
    """R of one image by recursion over fully connected layers, one unit at a time."""
    layers = [m for m in net if isinstance(m, nn.Linear)]
    values, zs = x.flatten().tolist(), []
    for layer in layers[:-1]:
        W, b = layer.weight.tolist(), layer.bias.tolist()
        z = [b[j] + sum(W[j][i] * v for i, v in enumerate(values)) for j in range(len(b))]
        values = [act(v) for v in z]
        zs.append(z)
    R = layers[-1].weight[c].tolist()  # dy_c / d(outputs of the last activation)
    for layer, z in zip(reversed(layers[:-1]), reversed(zs), strict=True):
        R = [slope(z[j]) * (act(z[j]) > 0) * max(R[j], 0.0) for j in range(len(z))]
        W = layer.weight.tolist()
        R = [sum(W[j][i] * R[j] for j in range(len(z))) for i in range(len(W[0]))]
    return torch.tensor(R, dtype=torch.float64).view(x.shape)


@pytest.mark.parametrize("kind, inplace", [(k, i) for k in SLOPES for i in (False, True)
                                           if not (i and k in (nn.GELU, nn.Softplus, nn.PReLU))])
def test_guided_backprop_equals_a_backward_pass_by_hand(kind, inplace):
    acts = [kind(inplace=True) if inplace else kind() for _ in range(3)]
    net = nn.Sequential(nn.Flatten(), nn.Linear(27, 12), acts[0], nn.Linear(12, 10), acts[1],
                        nn.Linear(10, 8), acts[2], nn.Linear(8, 2)).double()
    for m in net:
        if isinstance(m, nn.Linear):
            nn.init.normal_(m.weight, 0, 0.5)
    x = random(2, 3, 3, 3)
    R = cam.guided_backprop(net, x)
    assert R.shape == (2, 2, 3, 3, 3) and R.min() < 0 < R.max()
    act, slope = SLOPES[kind]
    for b in range(2):
        for c in range(2):
            close(R[b, c], guided_by_hand(net, act, slope, x[b], c))
            leaf = x.clone().requires_grad_()
            plain, = torch.autograd.grad(net(leaf)[:, c].sum(), leaf)
            assert (R[b, c] - plain[b]).abs().max() > 0.01 * plain[b].abs().max()


def test_every_type_that_is_guided_has_been_checked_by_hand():
    assert set(cam.GUIDED_TYPES) == set(SLOPES)


def test_guided_backprop_of_relu_is_the_rule_of_its_paper():
    """[GB] 3.4: 1[z > 0] 1[R > 0] R; worked out by hand on a net of single units."""
    net = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.ReLU(), nn.Flatten(),
                        nn.Linear(2, 1, bias=False)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, -2.0, 3.0], [4.0, 5.0, 6.0]]).view(2, 3, 1, 1))
        net[3].weight.copy_(torch.tensor([[2.0, -7.0]]))
    x = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64).view(1, 3, 1, 1)
    close(cam.guided_backprop(net, x).flatten(), [2.0, -4.0, 6.0])  # the second unit has R < 0
    close(cam.guided_backprop(net, -x).flatten(), [0.0, 0.0, 0.0])  # both are off
    with torch.no_grad():
        net[3].weight.copy_(torch.tensor([[2.0, 7.0]]))
    close(cam.guided_backprop(net, x).flatten(), [30.0, 31.0, 48.0])


def test_guided_backprop_gate_is_closed_where_the_output_is_zero():
    net = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.SiLU(), nn.Flatten(),
                        nn.Linear(8, 1)).double()
    x = torch.zeros(1, 3, 2, 2, dtype=torch.float64)  # SiLU(0) = 0 with slope 1/2
    close(cam.guided_backprop(net, x), torch.zeros(1, 1, 3, 2, 2))
    leaf = x.clone().requires_grad_()
    assert torch.autograd.grad(net(leaf).sum(), leaf)[0].abs().max() > 0


def test_guided_backprop_of_a_module_used_twice_and_an_output_changed_in_place():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.act = nn.Linear(3, 3), nn.Linear(3, 3), nn.SiLU(inplace=True)
            self.last = nn.Linear(3, 1)

        def forward(self, x):
            x = self.act(self.a(x.flatten(1)))
            y = self.act(self.b(x))
            y += x  # the guided output itself changes
            return self.last(y)

    def guided(R, z):
        slope, act = SLOPES[nn.SiLU][1], SLOPES[nn.SiLU][0]
        return torch.stack([slope(v) * (act(v) > 0) * F.relu(r) for r, v in zip(
            R, z.tolist(), strict=True)])

    net, x = Residual().double(), random(1, 3, 1, 1)
    with torch.no_grad():
        net.last.weight.abs_()
        net.a.bias.copy_(torch.tensor([1.5, -1.5, 1.5]))  # some units on, some off
        net.b.bias.copy_(torch.tensor([-2.0, 2.0, 2.0]))
        h = net.a(x.flatten(1))[0]
        z = net.b(F.silu(h))
        R = net.last.weight[0]
        expected = guided(R + guided(R, z) @ net.b.weight, h) @ net.a.weight
    assert expected.abs().max() > 0
    close(cam.guided_backprop(net, x).flatten(), expected)


def test_guided_backprop_called_twice_gives_the_same():
    net, x = small_net(inplace=True), random(2, 3, 8, 8)
    once = cam.guided_backprop(net, x)
    cam.class_maps(net, x, "5")
    close(cam.guided_backprop(net, x), once, 0, 0)
    leaf = x.clone().requires_grad_()
    net.eval()(leaf)[:, 0].sum().backward()  # and the plain gradient is plain again
    fresh = small_net()
    fresh.load_state_dict(net.state_dict())
    plain = x.clone().requires_grad_()
    fresh.eval()(plain)[:, 0].sum().backward()
    close(leaf.grad, plain.grad, 0, 0)


def test_guided_backprop_on_the_classifier(b0):
    x = random(2, 3, 64, 64)
    R = cam.guided_backprop(b0, x, classes=[1])
    leaf = x.clone().requires_grad_()
    plain, = torch.autograd.grad(b0(leaf)[:, 1].sum(), leaf)
    assert R.shape == (2, 1, 3, 64, 64) and R.isfinite().all()
    cosine = F.cosine_similarity(R[:, 0].flatten(), plain.flatten(), dim=0)
    assert R.abs().max() > 0 and abs(cosine) < 0.9


def test_guided_backprop_guides_every_activation_of_the_classifier(b0, monkeypatch):
    """Against the rule written as an autograd.Function put in the place of each activation."""
    class Guide(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z, kind):
            ctx.save_for_backward(z)
            ctx.kind = kind
            return z * z.sigmoid() if kind == "silu" else torch.where(z > 0, z, z.expm1())

        @staticmethod
        def backward(ctx, R):
            z, = ctx.saved_tensors
            s = z.sigmoid()
            slope = s * (1 + z * (1 - s)) if ctx.kind == "silu" \
                else torch.where(z > 0, torch.ones_like(z), z.exp())
            return slope * (z > 0) * R.clamp(min=0), None  # act(z) > 0 where z > 0, for both

    x = random(1, 3, 64, 64)
    R = cam.guided_backprop(b0, x)
    monkeypatch.setattr(nn.SiLU, "forward", lambda self, z: Guide.apply(z, "silu"))
    monkeypatch.setattr(nn.ELU, "forward", lambda self, z: Guide.apply(z, "elu"))
    leaf = x.clone().requires_grad_()
    y = b0(leaf)
    for c in range(3):
        expected, = torch.autograd.grad(y[:, c].sum(), leaf, retain_graph=True)
        close_to_max(R[:, c], expected, 1e-9)


def test_guided_backprop_leaves_the_sigmoids_of_squeeze_excitation_plain(b0):
    """DEV-3: of the classifier b0, 49 SiLU and one ELU are guided, 16 Sigmoids are not."""
    guided = [type(m) for m in b0.modules() if isinstance(m, cam.GUIDED_TYPES)]
    assert (guided.count(nn.SiLU), guided.count(nn.ELU), len(guided)) == (49, 1, 50)
    plain = [m for m in b0.modules() if isinstance(m, (nn.Sigmoid, nn.Hardsigmoid, nn.Tanh))]
    assert len(plain) == 16 and {type(m) for m in plain} == {nn.Sigmoid}
    outputs = []
    handles = [m.register_forward_hook(lambda m, _, out: outputs.append((m, out)))
               for m in b0.modules() if isinstance(m, (*cam.GUIDED_TYPES, nn.Sigmoid))]
    cam.guided_backprop(b0, random(1, 3, 64, 64), classes=[0])
    for handle in handles:
        handle.remove()
    assert len(outputs) == 66
    assert all(bool(out._backward_hooks) != (m in plain) for m, out in outputs)


def test_guided_backprop_without_activation_modules_names_what_it_found():
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Sigmoid(), nn.Flatten(), nn.Linear(32, 2))
    with pytest.raises(ValueError, match="Conv2d, Flatten, Linear, Sigmoid"):
        cam.guided_backprop(net, torch.randn(1, 3, 4, 4))


def test_guided_backprop_with_activations_that_never_run_is_refused():
    net = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(32, 2))
    net.act = nn.ReLU()
    net.forward = lambda x: net[2](net[1](net[0](x)))
    with pytest.raises(ValueError, match="no activation module runs"):
        cam.guided_backprop(net, torch.randn(1, 3, 4, 4))


def test_guided_backprop_passes_over_activations_the_input_does_not_reach():
    class Offset(nn.Module):
        def __init__(self):
            super().__init__()
            self.offset, self.act = nn.Parameter(torch.ones(2)), nn.ReLU()
            self.last = nn.Linear(12, 2)

        def forward(self, x):
            return self.last(self.act(x.flatten(1))) + self.act(self.offset)

    net = Offset().double()
    x = random(1, 3, 2, 2)
    expected = cam.guided_backprop(net, x)
    close(cam.guided_backprop(net.requires_grad_(False), x), expected, 0, 0)


# Guided Grad-CAM


@pytest.mark.parametrize("method", METHODS)
def test_guided_grad_cam_equals_the_loops(method):
    net, x = small_net(), random(2, 3, 8, 6)
    out, logits = cam.guided_grad_cam(net, x, "5", method)
    R = cam.guided_backprop(net, x)
    for c in range(3):
        A, G = oracle_A_G(copy.deepcopy(net), "5", x, c)
        maps = LOOPS[method](A, G)
        for b in range(2):
            up = loops_upscale(maps[b], 8, 6)
            for i in range(8):
                for j in range(6):
                    RG = sum(max(R[b, c, k, i, j].item(), 0) for k in range(3)) / 3  # [P-4]
                    assert out[b, c, i, j].item() == pytest.approx(
                        up[i, j].item() * RG, rel=1e-9, abs=1e-12)  # [P-5]
    assert out.max() > 0
    close(logits, net.eval()(x))


def test_guided_grad_cam_default_method_is_grad_cam():
    net, x = small_net(), random(1, 3, 8, 8)
    close(cam.guided_grad_cam(net, x, "5")[0], cam.guided_grad_cam(net, x, "5", "gradcam")[0], 0, 0)


# Aug smooth, normalisation, upscaling


def test_aug_smooth_calls_six_views_in_order_undoes_the_mirror_and_takes_the_mean():
    x, seen, answers = random(2, 3, 4, 6), [], [random(2, 5, 2, 3) for _ in range(6)]

    def maps_of(view):
        seen.append(view.clone())
        return answers[len(seen) - 1]

    out = cam.aug_smooth(maps_of, x)
    m = torch.stack([x[..., 5 - j] for j in range(6)], dim=-1)
    for view, expected in zip(seen, [x, 1.1 * x, 0.9 * x, m, 1.1 * m, 0.9 * m], strict=True):
        close(view, expected)
    assert torch.equal(seen[0], x)
    for j in range(3):
        total = sum(answers[n][..., j] for n in range(3))
        total = total + sum(answers[n][..., 2 - j] for n in range(3, 6))
        close(out[..., j], total / 6)


def test_aug_smooth_of_the_raw_image_scales_it_before_the_normalisation():
    """DEV-6: the views of (raw - mean) / std with `shift` are those of f * raw."""
    raw = random(2, 3, 4, 6).abs()
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1)
                 for v in ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]))
    seen = []

    def maps_of(view):
        seen.append(view.clone())
        return view[:, :2]

    cam.aug_smooth(maps_of, (raw - mean) / std, mean / std)
    mirror = torch.flip(raw, [3])
    views = [raw, 1.1 * raw, 0.9 * raw, mirror, 1.1 * mirror, 0.9 * mirror]
    for view, image in zip(seen, views, strict=True):
        close(view, (image - mean) / std)


def test_aug_smooth_of_a_mirror_and_scale_invariant_map_is_that_map():
    def maps_of(x):  # (B, 2, h, w): even in the mirror, free of the scale
        maps = torch.stack((x.mean(dim=1), x[:, 0] - x[:, 2]), dim=1)
        return maps / maps.abs().amax(dim=(1, 2, 3), keepdim=True)

    x = random(2, 3, 4, 6)
    close(cam.aug_smooth(maps_of, x), maps_of(x))


def test_aug_smooth_of_class_maps_equals_the_mean_of_its_views():
    net, x = small_net(), random(2, 3, 8, 8)
    out = cam.aug_smooth(lambda v: cam.class_maps(net, v, "5")[0], x)
    total = torch.zeros(2, 3, 4, 4).double()
    for mirror in (False, True):
        for f in (1.0, 1.1, 0.9):
            view = f * (torch.flip(x, [3]) if mirror else x)
            for c in range(3):
                L = loops_grad_cam_pp(*oracle_A_G(copy.deepcopy(net), "5", view, c))
                total[:, c] += torch.flip(L, [2]) if mirror else L
    close(out, total / 6)


def test_normalize_of_numbers_by_hand():
    m = torch.tensor([[[1.0, 2.0], [3.0, 5.0]], [[-2.0, 0.0], [2.0, 6.0]]], dtype=torch.float64)
    close(cam.normalize(m), [[[0, 0.25], [0.5, 1]], [[0, 0.25], [0.5, 1]]])
    close(cam.normalize(m, "minmax"), cam.normalize(m), 0, 0)
    close(cam.normalize(m, "max"), [[[0.2, 0.4], [0.6, 1]], [[-1 / 3, 0], [1 / 3, 1]]])


@pytest.mark.parametrize("how", ["minmax", "max"])
@pytest.mark.parametrize("scale, dtype", [(1e-30, torch.float32), (1e-300, torch.float64),
                                          (1e30, torch.float32), (1e-6, torch.float16)])
def test_normalize_has_no_hidden_epsilon(how, scale, dtype):
    m = (torch.tensor([[0.0, 1.0, 2.0, 4.0]], dtype=torch.float64) * scale).to(dtype)
    out = cam.normalize(m.view(1, 1, 2, 2), how)
    assert out.dtype == dtype and out.max() == 1 and out.min() == 0
    tol = 0.05 if dtype == torch.float16 else 1e-6  # 1e-6 is subnormal in float16
    close(out.flatten(), [0.0, 0.25, 0.5, 1.0], tol, 0)


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0, 1e-30])
def test_normalize_of_constant_maps(value):
    m = torch.full((2, 3, 4, 4), value, dtype=torch.float64)
    assert torch.equal(cam.normalize(m), torch.zeros_like(m))
    expected = torch.ones_like(m) if value > 0 else torch.zeros_like(m)
    assert torch.equal(cam.normalize(m, "max"), expected)


def test_normalize_by_the_maximum_of_maps_without_a_positive_value():
    for top in (0.0, -1.0):
        m = torch.tensor([[-2.0, top], [-3.0, -4.0]], dtype=torch.float64)
        assert torch.equal(cam.normalize(m, "max"), torch.zeros_like(m))


def test_normalize_treats_each_map_alone():
    m = random(2, 3, 4, 5)
    m[0, 1] = 7.0
    for how in ("minmax", "max"):
        out = cam.normalize(m, how)
        for b in range(2):
            for c in range(3):
                close(out[b, c], cam.normalize(m[b, c], how), 0, 0)
    assert torch.equal(cam.normalize(m)[0, 1], torch.zeros(4, 5).double())
    assert torch.equal(cam.normalize(m, "max")[0, 1], torch.ones(4, 5).double())


def test_normalize_leaves_its_argument_and_refuses_other_ways():
    m = random(1, 1, 3, 3)
    before = m.clone()
    cam.normalize(m)
    assert torch.equal(m, before)
    with pytest.raises(ValueError, match="minmax or max"):
        cam.normalize(m, "sum")


def test_upscale_of_two_by_two_by_hand():
    m = torch.tensor([[0.0, 4.0], [8.0, 12.0]], dtype=torch.float64)
    rows = [[0, 1, 3, 4], [2, 3, 5, 6], [6, 7, 9, 10], [8, 9, 11, 12]]
    close(cam.upscale(m[None, None], (4, 4))[0, 0], torch.tensor(rows).double())


@pytest.mark.parametrize("size", [(8, 12), (5, 7), (3, 4), (2, 9)])
def test_upscale_equals_the_loops(size):
    m = random(2, 2, 3, 4)
    out = cam.upscale(m, torch.Size(size))
    for b in range(2):
        for c in range(2):
            close(out[b, c], loops_upscale(m[b, c], *size))


# Real networks


def assert_equal_to_plain_autograd(model, x, layers):
    """Two classes of opposite score, so that one of the two maps is never cut to nothing."""
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    with torch.no_grad():
        last.weight[1] = -last.weight[0]
    reference = copy.deepcopy(model)
    for layer in layers:
        maps, logits = cam.class_maps(model, x, layer, "gradcam")
        A, G = oracle_A_G(reference, layer, x, 0)
        signed = np.einsum("bk,bkij->bij", G.numpy().mean(axis=(2, 3)), A.numpy())
        expected = np.stack((np.maximum(signed, 0), np.maximum(-signed, 0)), axis=1)
        close_to_max(maps, torch.from_numpy(expected), 1e-6)
        close(logits, reference(x).detach())


@pytest.mark.parametrize("name, layers", [
    ("resnet18", ["layer4", "layer4.1.bn2", "layer3.0.conv1"]),
    ("mobilenet_v3_small", ["features", "features.12.1"]),
    ("convnext_tiny", ["features.7"]),
    ("densenet121", ["features", "features.denseblock4"]),  # F.relu writes into its features
    ("efficientnet_b0", ["features.8", "features.8.1", "features.6.0"])])
def test_torchvision_networks_equal_plain_autograd(name, layers):
    model = getattr(torchvision.models, name)(weights=None, num_classes=2).double().eval()
    assert_equal_to_plain_autograd(model, random(2, 3, 64, 64), layers)


def test_vgg_equals_plain_autograd():
    model = torchvision.models.vgg11(weights=None, init_weights=False, num_classes=2).eval()
    model.classifier[0] = nn.Linear(25088, 64)  # in place of 100 million weights
    model.classifier[3] = nn.Linear(64, 64)
    model.classifier[6] = nn.Linear(64, 2)
    layers = ("features", "features.18")  # the last convolution, before an inplace ReLU
    assert_equal_to_plain_autograd(model.double(), random(2, 3, 64, 64), layers)


@pytest.mark.parametrize("method", METHODS)
def test_autocast_gives_float32_maps_near_the_full_ones(method):
    net, x = small_net(inplace=True).float(), random(2, 3, 16, 16).float()
    full, _ = cam.class_maps(net, x, "5", method)
    with torch.autocast("cpu", torch.bfloat16):
        maps, logits = cam.class_maps(net, x, "5", method)
    assert maps.dtype == torch.float32 and logits.dtype == torch.bfloat16
    assert 0 < (maps - full).abs().max() < 0.1 * full.max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_maps_keep_the_dtype_of_the_network(dtype):
    net, x = small_net().to(dtype), random(1, 3, 8, 8).to(dtype)
    assert cam.class_maps(net, x, "5")[0].dtype == dtype
    assert cam.guided_backprop(net, x).dtype == dtype
