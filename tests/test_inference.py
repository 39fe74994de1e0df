"""Networks prepared for inference compute what the trained ones do."""

import copy

import pytest
import torch
from torch import nn

from cam2seg import cam, models, segnet
from cam2seg.training import inference

CPU = torch.device("cpu")


def trained(build):
    """A network in float64 whose BatchNorms have weights and statistics other than 0 and 1."""
    torch.manual_seed(0)
    net = build().double()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            for value in (m.weight, m.running_var):
                nn.init.uniform_(value, 0.5, 2)
            for value in (m.bias, m.running_mean):
                nn.init.uniform_(value, -0.5, 0.5)
    return net.eval()


def norms(net):
    return sum(isinstance(m, nn.BatchNorm2d) for m in net.modules())


@pytest.mark.parametrize("build", [
    lambda: models.Classifier("b0", 3), lambda: models.Classifier("lite0", 3),
    lambda: models.UNet("b0", 2, (8, 8, 8, 8, 8)), lambda: segnet.SegNet(models.vgg16(), 2)])
def test_the_logits_are_the_same_without_any_batchnorm(build):
    net = trained(build)
    x = torch.randn(2, 3, 33, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = net(x)
        fast = inference.prepared(copy.deepcopy(net), CPU)
        torch.testing.assert_close(fast(x), expected, rtol=1e-9, atol=1e-9)
    assert norms(net) > 10 and norms(fast) == 0
    assert not any(m.training for m in fast.modules())  # class_maps would switch them each time


@pytest.mark.parametrize("layer", ["features.8", "features.5", "features.8.1", "features.8.0",
                                   "features.0.0"])
def test_the_maps_are_the_same_also_those_of_a_convolution(layer):
    net = trained(lambda: models.Classifier("b0", 3))
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    expected, _ = cam.class_maps(net, x, layer)
    fast, _ = cam.class_maps(inference.prepared(copy.deepcopy(net), CPU, layer), x, layer)
    assert expected.amax() > 0
    torch.testing.assert_close(fast, expected, rtol=1e-8, atol=0)


def test_maps_in_float32_differ_by_rounding_alone():
    net = trained(lambda: models.Classifier("b0", 3)).float()
    x = torch.randn(2, 3, 64, 96)
    expected, fast = (cam.normalize(cam.class_maps(n, x, "features.8")[0])
                      for n in (net, inference.prepared(copy.deepcopy(net), CPU)))
    torch.testing.assert_close(fast, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("layer, most", [("features.8", 0.01), ("features.5", 0.05)])
def test_maps_with_amp_are_within_the_tolerance_that_the_page_on_costs_states(layer, most):
    net = trained(lambda: models.Classifier("b0", 3)).float()
    x = torch.randn(4, 3, 64, 96)
    expected = cam.normalize(cam.class_maps(net, x, layer)[0], "max")
    with torch.autocast("cpu", torch.bfloat16):
        fast, logits = cam.class_maps(inference.prepared(copy.deepcopy(net), CPU, layer), x, layer)
    assert logits.dtype == torch.bfloat16
    assert 0 < (cam.normalize(fast, "max") - expected).abs().max() <= most
