import math

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision
from conftest import RunsCode, equal_states

from cam2seg import models
from cam2seg.runs.checkpoints import save_checkpoint

pytestmark = pytest.mark.usefixtures("fixed_seed")


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def close(a, b, rtol=1e-9, atol=1e-12):
    torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


# Classifier


@pytest.mark.parametrize("training", [False, True])
def test_classifier_logits_equal_its_parts_one_by_one(training):
    model = models.Classifier("b0", 4, hidden=10, dropout=0.0).double()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):  # with the statistics of a batch, lest features fade out
            m.momentum = 1.0
    x = random(2, 3, 64, 96)
    with torch.no_grad():
        model(random(8, 3, 64, 96))
        model.train(training)
        for m in model.features.modules():
            m.training = False  # stochastic depth and batch statistics are not looked at here
        logits = model(x)
        A = model.features(x)
        B, K, h, w = A.shape
        assert (K, h, w) == (1280, 2, 3)
        v = torch.zeros(B, K).double()
        for i in range(h):
            for j in range(w):
                v += A[:, :, i, j] / (h * w)
        W1, b1 = model.head[1].weight, model.head[1].bias
        W2, b2 = model.head[4].weight, model.head[4].bias
        for b in range(B):
            z = [math.fsum((W1[n] * v[b]).tolist()) + b1[n].item() for n in range(10)]
            z = [u if u > 0 else math.exp(u) - 1 for u in z]  # ELU
            for c in range(4):
                y = sum(W2[c, n].item() * z[n] for n in range(10)) + b2[c].item()
                assert logits[b, c].item() == pytest.approx(y, rel=1e-9)


def test_classifier_gives_logits_and_not_probabilities():
    model = models.Classifier("b0", 2).eval()
    with torch.no_grad():
        model.head[-1].bias.copy_(torch.tensor([7.0, -5.0]))
        model.head[-1].weight.zero_()
        assert model(torch.randn(1, 3, 32, 32)).tolist() == [[7.0, -5.0]]


def test_classifier_head_is_the_one_of_the_paper():
    head = models.Classifier("b0", 4, hidden=33, dropout=0.3).head
    assert [type(m) for m in head] == [nn.Dropout, nn.Linear, nn.ELU, nn.Dropout, nn.Linear]
    assert [head[0].p, head[3].p, head[2].alpha] == [0.3, 0.3, 1.0]
    assert [head[1].in_features, head[1].out_features] == [1280, 33]
    assert [head[4].in_features, head[4].out_features] == [33, 4]


@pytest.mark.parametrize("arch, width, parameters", [("b0", 1280, 4007548), ("b3", 1536, 10696232)])
def test_classifier_encoder_is_that_of_efficientnet(arch, width, parameters):
    """Parameters as published for 1000 classes (5288548 and 12233232) less the last Linear."""
    model = models.Classifier(arch, 3, hidden=8)
    assert sum(p.numel() for p in model.features.parameters()) == parameters
    assert sum(p.numel() for p in model.head.parameters()) == (width + 1) * 8 + 9 * 3
    assert model.features[-1].out_channels == width


def test_classifier_target_layer_is_the_last_silu_before_pooling():
    model = models.Classifier("b0", 2).eval()
    seen = []
    layer = model.get_submodule(model.target_layer)
    layer.register_forward_hook(lambda m, inputs, out: seen.append(out.clone()))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        logits = model(x)
        close(model.head(seen[0].mean(dim=(2, 3))), logits, 0, 0)
    assert isinstance(list(layer.children())[-1], nn.SiLU)
    assert seen[0].shape == (1, 1280, 2, 2)


def test_classifier_dropout_works_in_training_mode_only():
    model = models.Classifier("b0", 2, dropout=0.5)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        model.eval()
        assert torch.equal(model(x), model(x))
        model.head.train()
        assert not torch.equal(model(x), model(x))


# U-Net


def awake(model):
    """Training mode without stochastic depth, so that no block is skipped by chance."""
    model.train()
    for m in model.modules():
        if isinstance(m, torchvision.ops.StochasticDepth):
            m.training = False
    return model


SIZES = [(33, 75), (64, 64), (47, 32), (63, 65)]


@pytest.mark.parametrize("size", SIZES)
def test_unet_gives_one_logit_per_pixel_and_class(size):
    model = awake(models.UNet("b0", 3))
    assert model(torch.randn(2, 3, *size)).shape == (2, 3, *size)


@pytest.mark.parametrize("size", SIZES[:2])
def test_unet_sees_skips_at_strides_2_4_8_16(size):
    model = awake(models.UNet("b0", 2))
    stages, blocks = [], []
    for stage in model.encoder:
        stage.register_forward_hook(lambda m, inputs, out: stages.append(out.shape[1:]))
    for block in model.decoder:
        block.register_forward_pre_hook(lambda m, inputs: blocks.append(inputs[0].shape[1:]))
    model(torch.randn(2, 3, *size))
    assert len(stages) == 8  # without the widening 1 x 1 convolution before the pooling

    def at(stride):
        return tuple(-(-side // stride) for side in size)

    channels = {2: 16, 4: 24, 8: 40, 16: 112, 32: 320}  # [EN] Table 1
    assert [stages[i] for i in (1, 2, 3, 5, 7)] == [
        (channels[s], *at(s)) for s in (2, 4, 8, 16, 32)]
    assert blocks == [(320 + 112, *at(16)), (256 + 40, *at(8)), (128 + 24, *at(4)),
                      (64 + 16, *at(2)), (32, *size)]


def nearest(x, H, W):
    h, w = x.shape[2:]
    out = torch.empty(*x.shape[:2], H, W, dtype=x.dtype)
    for i in range(H):
        for j in range(W):
            out[:, :, i, j] = x[:, :, i * h // H, j * w // W]
    return out


@pytest.mark.parametrize("size", SIZES[:2])
def test_unet_equals_a_forward_written_out(size):
    model = awake(models.UNet("b0", 2, widths=(12, 10, 8, 6, 4)).double())
    x = random(2, 3, *size)

    def conv_norm_relu(x, conv, norm):
        z = F.conv2d(x, conv.weight, padding=1)
        mean = z.mean(dim=(0, 2, 3), keepdim=True)
        var = ((z - mean)**2).mean(dim=(0, 2, 3), keepdim=True)
        z = (z - mean) / (var + norm.eps).sqrt()
        return (z * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)).clamp(min=0)

    with torch.no_grad():
        for m in model.decoder.modules():
            if isinstance(m, nn.BatchNorm2d):
                nn.init.uniform_(m.weight, 0.5, 1.5)
                nn.init.normal_(m.bias)
        s = [x]
        for stage in model.encoder:
            s.append(stage(s[-1]))
        y = s[8]
        for block, skip in zip(model.decoder, [s[6], s[4], s[3], s[2], None], strict=True):
            y = nearest(y, *(size if skip is None else skip.shape[2:]))
            if skip is not None:
                y = torch.cat([y, skip], dim=1)  # from below first
            conv1, norm1, _, conv2, norm2, _ = block
            y = conv_norm_relu(conv_norm_relu(y, conv1, norm1), conv2, norm2)
        y = F.conv2d(y, model.head.weight, model.head.bias)
        close(model(x), y)


def test_unet_every_parameter_gets_a_gradient():
    model = awake(models.UNet("b0", 2))
    model(torch.randn(2, 3, 64, 64)).square().mean().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0, name


def test_unet_parameter_count_equals_a_sum_by_hand():
    def block(into, out):  # two convolutions 3 x 3 without bias, two norms
        return into * out * 9 + 2 * out + out * out * 9 + 2 * out

    decoder = (block(320 + 112, 256) + block(256 + 40, 128) + block(128 + 24, 64)
               + block(64 + 16, 32) + block(32, 16))
    encoder = 4007548 - (320 * 1280 + 2 * 1280)  # less the last stage
    model = models.UNet("b0", 4)
    assert sum(p.numel() for p in model.decoder.parameters()) == decoder
    assert sum(p.numel() for p in model.encoder.parameters()) == encoder
    assert sum(p.numel() for p in model.head.parameters()) == 16 * 4 + 4
    assert sum(p.numel() for p in model.parameters()) == encoder + decoder + 16 * 4 + 4


def test_unet_on_b3_has_wider_stages():
    model = awake(models.UNet("b3", 2))
    assert [b[0].in_channels for b in model.decoder] == [384 + 136, 256 + 48, 128 + 32, 64 + 24, 32]
    assert model(torch.randn(2, 3, 40, 64)).shape == (2, 2, 40, 64)


def test_unet_wants_one_width_per_stage():
    with pytest.raises(ValueError):
        models.UNet("b0", 2, widths=(8, 8, 8, 8))


@pytest.mark.parametrize("build", [lambda: models.Classifier("b0", 3, hidden=8),
                                   lambda: models.UNet("b0", 3, widths=(8, 8, 8, 8, 8))])
def test_state_dict_round_trip(build, tmp_path):
    a, b = build().eval(), build().eval()
    x = torch.randn(1, 3, 40, 64)
    with torch.no_grad():
        for m in a.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_var.uniform_(0.5, 1.5)
        assert not torch.equal(a(x), b(x))
        torch.save(a.state_dict(), tmp_path / "a.pt")
        b.load_state_dict(torch.load(tmp_path / "a.pt", weights_only=True))
        assert torch.equal(a(x), b(x))
    equal_states(a.state_dict(), b.state_dict())


# Weights from files


def scrambled(model):
    """Every value its own, statistics and counters too."""
    with torch.no_grad():
        for v in model.state_dict().values():
            v.copy_(torch.randn_like(v) if v.is_floating_point() else torch.tensor(7))
    return model


def test_encoder_takes_a_state_dict_of_torchvision(tmp_path):
    source = scrambled(torchvision.models.efficientnet_b0(weights=None))
    torch.save(source.state_dict(), tmp_path / "w.pth")
    path = tmp_path / "w.pth"
    equal_states(models.encoder("b0", path).state_dict(), source.features.state_dict())
    classifier = models.Classifier("b0", 2, weights=str(path))
    equal_states(classifier.features.state_dict(), source.features.state_dict())
    unet = models.UNet("b0", 2, weights=path)
    equal_states(unet.encoder.state_dict(), source.features[:8].state_dict())


def test_encoder_takes_a_checkpoint_of_a_classifier(tmp_path):
    source = scrambled(models.Classifier("b0", 5, hidden=7))
    path = tmp_path / "best.pt"
    save_checkpoint(path, source, {"kind": "classifier", "best": []})
    equal_states(models.encoder("b0", path).state_dict(), source.features.state_dict())
    unet = models.UNet("b0", 2, weights=path)
    equal_states(unet.encoder.state_dict(), source.features[:8].state_dict())


def bad_file(kind, folder):
    path = folder / f"{kind}.pt"
    if kind == "other arch":
        torch.save(torchvision.models.efficientnet_b1(weights=None).state_dict(), path)
    elif kind == "unet checkpoint":
        save_checkpoint(path, models.UNet("b0", 2, (4, 4, 4, 4, 4)), {"kind": "unet"})
    elif kind == "part":
        state = torchvision.models.efficientnet_b0(weights=None).state_dict()
        del state["features.8.1.running_var"]
        torch.save(state, path)
    elif kind == "garbage":
        path.write_bytes(b"not weights at all" * 50)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "no dict":
        torch.save([1, 2], path)
    elif kind == "code":
        torch.save({"features.0.0.weight": RunsCode(folder / "ran")}, path)
    return path


@pytest.mark.parametrize("kind", ["other arch", "unet checkpoint", "part", "garbage", "empty",
                                  "no dict", "code", "missing"])
def test_unfit_weight_files_are_refused_in_one_line_that_names_them(kind, tmp_path):
    path = bad_file(kind, tmp_path)
    with pytest.raises(ValueError) as error:
        models.encoder("b0", path)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert not (tmp_path / "ran").exists()


def test_code_in_a_pickle_would_run_if_it_were_let(tmp_path):
    """The file of the test above is a live one."""
    torch.load(bad_file("code", tmp_path), weights_only=False)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("build", [models.encoder, lambda a: models.Classifier(a, 2),
                                   lambda a: models.UNet(a, 2)])
def test_unknown_arch_is_refused_and_the_known_ones_named(build):
    with pytest.raises(ValueError, match="'b9'.*b0, b1, b2, b3, b4, b5, b6, b7"):
        build("b9")


# Several models as one


def test_mean_probability_is_the_mean_of_the_sigmoids():
    members = [nn.Conv2d(3, 2, 1) for _ in range(3)]
    x = torch.randn(2, 3, 4, 5)
    out = models.MeanProbability(members)(x)
    with torch.no_grad():
        total = torch.zeros(2, 2, 4, 5).double()
        for m in members:
            total += 1 / (1 + torch.exp(-m(x).double()))
    close(out.detach().double(), total / 3, 1e-5, 1e-6)
    assert len(list(models.MeanProbability(members).parameters())) == 6
