"""Maps of pytorch-grad-cam, captum and torch-cam beside ours, and where these are off the formula
they are named after. Every comparison is a row of the table that `make peers` ends with.

Networks have random weights, in float64. Raw maps are compared: after the ReLU, before any scaling.
"""

import copy
import sys

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision
from conftest import peer

from cam2seg import cam, models

# The warnings are captum's, at every call.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("fixed_seed")]
TORCH_CAM = pytest.param("torch-cam", marks=pytest.mark.skipif(
    sys.version_info < (3, 11), reason="torchcam 0.5 needs Python 3.11"))
MODULES = {"pytorch-grad-cam": "pytorch_grad_cam", "captum": "captum.attr",
           "torch-cam": "torchcam.methods"}


@pytest.fixture
def name(request):
    """A peer's name. Stands first in each test: without the peer no network is built."""
    peer(MODULES[request.param])
    return request.param


def peers(*names):
    return pytest.mark.parametrize("name", names, indirect=True)


# Networks


def settled(model, x):
    """In float64 and eval mode, with BatchNorm statistics of x: with a new network's 0 and 1,
    features fade out."""
    model = model.double()
    for m in [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]:
        m.momentum = 1.0
        nn.init.uniform_(m.weight, 0.5, 1.5)
        nn.init.normal_(m.bias, 0, 0.2)
    with torch.no_grad():
        model(x)
    return model.eval()


def images(count, H, W):
    return torch.randn(count, 3, H, W, dtype=torch.float64)


@pytest.fixture
def b0():
    """The classifier as train_cls builds it, for four classes, and three images: 4 x 6 cells."""
    x = images(3, 128, 192)
    return settled(models.Classifier("b0", 4), x), x


def torchvision_net(name):
    x = images(3, 96, 96)
    if name == "vgg11_bn":
        net = torchvision.models.vgg11_bn(weights=None, init_weights=False, num_classes=3)
        net.classifier = nn.Sequential(nn.Flatten(), nn.Linear(25088, 16), nn.ReLU(inplace=True),
                                       nn.Linear(16, 3))  # in place of 100 million weights
    else:
        net = getattr(torchvision.models, name)(weights=None, num_classes=3)
    return settled(net, x), x


# Maps


def target(c):
    return peer("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget(c)


def pytorch_grad_cam(model, layer, x, classes, kind="GradCAM"):
    """The steps of its __call__ up to the min-max, on the activations and gradients it kept."""
    maps = []
    with getattr(peer("pytorch_grad_cam"), kind)(model, [model.get_submodule(layer)]) as method:
        for c in range(classes):
            targets = [target(c)] * len(x)
            method(x, targets)
            kept = method.activations_and_grads
            maps.append(np.maximum(method.get_cam_image(
                x, None, targets, kept.activations[0].numpy(), kept.gradients[0].numpy()), 0))
    return torch.from_numpy(np.stack(maps, axis=1))


def captum(model, layer, x, classes):
    method = peer("captum.attr").LayerGradCam(model, model.get_submodule(layer))
    return torch.cat([method.attribute(x, c, relu_attributions=True)
                      for c in range(classes)], dim=1).detach()


def torch_cam(model, layer, x, classes, kind="GradCAM"):
    with getattr(peer("torchcam.methods"), kind)(model, layer) as method:
        return torch.stack([method(c, model(x), normalized=False)[0] for c in range(classes)], 1)


RAW = {"pytorch-grad-cam": pytorch_grad_cam, "captum": captum, "torch-cam": torch_cam}


@peers("pytorch-grad-cam", "captum", TORCH_CAM)
@pytest.mark.parametrize("layer", ["features.8", "features.5"])  # G the same in all cells; not
def test_grad_cam_of_the_classifier(name, b0, agree, layer):
    model, x = b0
    maps, _ = cam.class_maps(model, x, layer, "gradcam")
    agree(f"Grad-CAM, classifier b0 {layer}", name, maps, RAW[name](model, layer, x, 4), 1e-9, True)


@peers("pytorch-grad-cam", "captum", TORCH_CAM)
@pytest.mark.parametrize("net, layer", [
    ("resnet18", "layer4"), ("vgg11_bn", "features.25"), ("mobilenet_v3_small", "features"),
    ("convnext_tiny", "features.7"), ("densenet121", "features.denseblock4")])
def test_grad_cam_of_torchvision_networks(name, agree, net, layer):
    model, x = torchvision_net(net)
    maps, _ = cam.class_maps(model, x, layer, "gradcam")
    agree(f"Grad-CAM, {net}", name, maps, RAW[name](model, layer, x, 3), 1e-9, True)


@peers("pytorch-grad-cam", TORCH_CAM)
def test_peers_keep_activations_that_an_inplace_relu_then_overwrites(name, disagree):
    """As the last bn2 of ResNet-18: the ReLU behind it writes into its output; captum copies it."""
    model, x = torchvision_net("resnet18")
    maps, _ = cam.class_maps(model, x, "layer4.1.bn2", "gradcam")
    disagree("Grad-CAM before an inplace ReLU, as shipped", name, maps,
             RAW[name](model, "layer4.1.bn2", x, 3), 0.1, True)


def scaled(model, factor):
    model = copy.deepcopy(model)
    with torch.no_grad():
        for p in model.get_submodule("fc" if hasattr(model, "fc") else "head.4").parameters():
            p.mul_(factor)
    return model


@peers("pytorch-grad-cam")
@pytest.mark.parametrize("net, layer", [
    ("b0", "features.8"), ("b0", "features.5"), ("resnet18", "layer4"), ("resnet18", "layer3")])
def test_grad_cam_pp_once_the_logits_dwarf_the_peers_epsilon(name, request, agree, net, layer):
    """Eq. 19 is not free of scale, so both see the same scaled network. Behind the first of each
    two layers G is the same in all cells of a channel, behind the second it is not."""
    model, x = request.getfixturevalue("b0") if net == "b0" else torchvision_net(net)
    model = scaled(model, 1e8)
    maps, logits = cam.class_maps(model, x, layer)
    theirs = pytorch_grad_cam(model, layer, x, logits.shape[1], "GradCAMPlusPlus")
    agree(f"Grad-CAM++, {net} {layer}, logits x 1e8", name, maps, theirs, 1e-6, True)


@peers("pytorch-grad-cam")
def test_grad_cam_pp_of_the_peer_as_shipped_is_another_formula(name, b0, disagree):
    """An epsilon of 1e-6 beside G^2 of about 1e-7: min-maxed maps differ, not only their scale."""
    model, x = b0
    maps, theirs = (cam.normalize(m) for m in (
        cam.class_maps(model, x, "features.8")[0],
        pytorch_grad_cam(model, "features.8", x, 4, "GradCAMPlusPlus")))
    disagree("Grad-CAM++, classifier b0, as shipped, min-max", name, maps, theirs, 0.1, True)


@peers(TORCH_CAM)
def test_grad_cam_pp_of_torch_cam_never_divides(name, b0, agree, disagree):
    """Its weights are sum_ij ReLU(G)^3: the quotient goes into a copy (`alpha[idx][mask].div_`)."""
    model, x = b0
    theirs = torch_cam(model, "features.8", x, 4, "GradCAMpp")
    A = model.features(x).detach().requires_grad_()
    y = model.head(A.mean(dim=(2, 3)))
    G = torch.stack([torch.autograd.grad(y[:, c].sum(), A, retain_graph=True)[0]
                     for c in range(4)], dim=1)
    w = F.relu(G).pow(3).sum(dim=(3, 4))  # (B, C, K)
    cubes = F.relu(torch.einsum("bck,bkij->bcij", w, A)).detach()
    agree("cubed gradients, without Eq. 19", name + " GradCAMpp", cubes, theirs, 1e-9, True)
    maps = cam.class_maps(model, x, "features.8")[0]
    disagree("Grad-CAM++, classifier b0, as shipped, min-max", name, cam.normalize(maps),
             cam.normalize(theirs), 0.1, True)


def shown(model, x, **flags):
    """(B, C, H, W) as pytorch-grad-cam's __call__ returns them, in float32."""
    with peer("pytorch_grad_cam").GradCAM(model, [model.features[8]]) as method:
        return np.stack([method(x, [target(c)] * len(x), **flags) for c in range(4)], axis=1)


@peers("pytorch-grad-cam")
def test_image_maps_and_aug_smooth(name, b0, agree, disagree):
    """They min-max the small map, upscale, min-max again, and with aug_smooth take the mean of six
    such maps; ours is the mean of six raw maps (DEV-16)."""
    model, x = b0

    def raw(view):
        return cam.class_maps(model, view, "features.8", "gradcam")[0]

    def view_map(view):
        return cam.normalize(cam.image_maps(raw(view), x.shape[-2:]))

    agree("Grad-CAM, min-max, upscaled, min-max", name, view_map(x), shown(model, x), 1e-5, True)
    smooth = shown(model, x, aug_smooth=True)
    agree("aug smooth of such maps", name, cam.aug_smooth(view_map, x), smooth, 1e-5, True)
    ours = cam.normalize(cam.image_maps(cam.aug_smooth(raw, x), x.shape[-2:]))
    disagree("aug smooth of raw maps (DEV-16), min-max", name, ours,
             cam.normalize(torch.from_numpy(smooth)), 1e-3, True)


# Guided gradients


def guided_of_captum(model, x, classes):
    method = peer("captum.attr").GuidedBackprop(model)
    return torch.stack([method.attribute(x.clone(), c) for c in range(classes)], dim=1).detach()


def guided_of_pytorch_grad_cam(model, x, classes):
    """It takes the first image of a batch only, and its ReLU modules do not come back."""
    method = peer("pytorch_grad_cam").GuidedBackpropReLUModel(copy.deepcopy(model))
    return torch.from_numpy(np.stack([
        [method(x[b:b + 1].clone(), c).transpose(2, 0, 1) for c in range(classes)]
        for b in range(len(x))]))


GUIDED = {"captum": guided_of_captum, "pytorch-grad-cam": guided_of_pytorch_grad_cam}


@peers("pytorch-grad-cam", "captum")
@pytest.mark.parametrize("net", ["resnet18", "vgg11_bn"])
def test_guided_backprop_of_relu_networks(name, agree, net):
    model, x = torchvision_net(net)
    agree(f"Guided Backprop, {net}", name, cam.guided_backprop(model, x),
          GUIDED[name](model, x, 3), 1e-9, True)


@peers("pytorch-grad-cam", "captum")
def test_guided_backprop_of_the_peers_is_the_plain_gradient_without_relu(name, b0, agree, disagree):
    model, x = b0
    leaf = x.clone().requires_grad_()
    y = model(leaf)
    plain = torch.stack([torch.autograd.grad(y[:, c].sum(), leaf, retain_graph=True)[0]
                         for c in range(4)], dim=1)
    theirs = GUIDED[name](model, x, 4)
    agree("plain gradient, classifier b0", name + " guided", plain, theirs, 1e-9, True)
    disagree("Guided Backprop, classifier b0, as shipped, max 1", name,
             *(R / R.abs().amax(dim=(-2, -1), keepdim=True)
               for R in (cam.guided_backprop(model, x), theirs)), 0.1, True)


@peers("captum")
def test_guided_grad_cam(name, agree):
    """captum keeps the channels and the sign: the mean of its positive parts is [P-4] and [P-5]."""
    model, x = torchvision_net("resnet18")
    method = peer("captum.attr").GuidedGradCam(model, model.layer4)
    theirs = torch.stack([F.relu(method.attribute(x, c, interpolate_mode="bilinear")).mean(dim=1)
                          for c in range(3)], dim=1).detach()
    agree("Guided Grad-CAM, resnet18", name, cam.guided_grad_cam(model, x, "layer4")[0], theirs,
          1e-9, True)
