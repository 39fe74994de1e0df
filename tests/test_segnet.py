"""SegNet: pooling, unpooling and the forward pass against loops, odd sizes, weights, and its way
through the scripts."""

import math

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision
from conftest import SMALL, call, interrupted, results

import cam2seg
from cam2seg import masks, models
from cam2seg.data.labels import read_labels
from cam2seg.runs.checkpoints import CheckpointError, load_checkpoint
from cam2seg.segnet import SegNet, pool, unpool
from cam2seg.training import fit, segmenters

SIZES = [(1, 1), (1, 2), (2, 3), (3, 3), (4, 6), (5, 7), (6, 5)]
VGG = torchvision.models.vgg

pytestmark = pytest.mark.usefixtures("fixed_seed")


@pytest.fixture
def narrow(monkeypatch):
    """VGG16 with an eighth of its channels, lest each checkpoint take 118 MB."""
    layers = [v if v == "M" else v // 8 for v in VGG.cfgs["D"]]
    monkeypatch.setitem(VGG.cfgs, "D", layers)
    return layers


def pooled_by_loops(x):
    """Largest values and their places i W + j, for one plane of numbers (H, W)."""
    H, W = len(x), len(x[0])
    h, w = math.ceil(H / 2), math.ceil(W / 2)
    values, places = [[-math.inf] * w for _ in range(h)], [[None] * w for _ in range(h)]
    for i in range(H):
        for j in range(W):
            if x[i][j] > values[i // 2][j // 2]:
                values[i // 2][j // 2], places[i // 2][j // 2] = x[i][j], i * W + j
    return values, places


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ties", [False, True])
def test_pool_equals_the_loops(size, ties):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    x = x.round() if ties else x
    values, places = pool(x)
    for b in range(2):
        for k in range(3):
            v, p = pooled_by_loops(x[b, k].tolist())
            assert values[b, k].tolist() == v and places[b, k].tolist() == p


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_unpool_equals_the_loops(size, order):
    x = torch.randn(2, 3, *size, dtype=torch.float64).contiguous(memory_format=order)
    values, places = pool(x)
    y = torch.randn_like(values)
    out = unpool(y, places, size)
    assert out.shape == x.shape
    for b in range(2):
        for k in range(3):
            _, p = pooled_by_loops(x[b, k].tolist())
            expected = [0.0] * (size[0] * size[1])
            for i, row in enumerate(p):
                for j, place in enumerate(row):
                    expected[place] = y[b, k, i, j].item()
            assert out[b, k].flatten().tolist() == expected


def test_unpool_puts_the_largest_values_back_where_they_were():
    x = torch.tensor([[1.0, 2, 0], [4, 3, 5], [6, 7, 8]])[None, None]
    values, places = pool(x)
    assert values.flatten().tolist() == [4, 5, 7, 8] and places.flatten().tolist() == [3, 5, 7, 8]
    assert unpool(values, places, (3, 3)).flatten().tolist() == [0, 0, 0, 4, 0, 5, 0, 7, 8]


def small(num_classes=2):
    """A SegNet of four narrow convolutions and two poolings, with awake BatchNorm."""
    model = SegNet(VGG.make_layers([4, 5, "M", 6, 7, "M"], batch_norm=True), num_classes).double()
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                nn.init.uniform_(m.weight, 0.5, 1.5)
                nn.init.normal_(m.bias)
                nn.init.normal_(m.running_mean)
                nn.init.uniform_(m.running_var, 0.5, 1.5)
    return model.eval()


def written_out(model, x):
    """The forward pass with loops for pooling and unpooling."""
    def layer(x, conv, norm):
        z = F.conv2d(x, conv.weight, conv.bias, padding=1)
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        z = (z - norm.running_mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1)
        return (z + norm.bias.view(1, -1, 1, 1)).clamp(min=0)

    def halved(x):
        parts = [[pooled_by_loops(plane.tolist()) for plane in image] for image in x]
        return (torch.tensor([[v for v, _ in image] for image in parts], dtype=x.dtype),
                [[p for _, p in image] for image in parts])

    def doubled(x, places, H, W):
        out = torch.zeros(*x.shape[:2], H * W, dtype=x.dtype)
        for b, k, i, j in np.ndindex(*x.shape):
            out[b, k, places[b][k][i][j]] = x[b, k, i, j]
        return out.view(*x.shape[:2], H, W)

    e, d = model.encoder, model.decoder
    a = layer(layer(x, e[0], e[1]), e[3], e[4])
    b, first = halved(a)
    c = layer(layer(b, e[7], e[8]), e[10], e[11])
    y, second = halved(c)
    y = doubled(y, second, *c.shape[2:])
    y = layer(layer(y, d[0][0], d[0][1]), d[0][3], d[0][4])
    y = doubled(y, first, *a.shape[2:])
    y = layer(y, d[1][0], d[1][1])
    return F.conv2d(y, model.head.weight, model.head.bias, padding=1)


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (6, 3), (1, 2)])
def test_segnet_equals_a_forward_written_out(size):
    model, x = small(), torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        out = model(x)
        assert out.shape == (2, 2, *size)
        torch.testing.assert_close(out, written_out(model, x), rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(model(x.contiguous(memory_format=torch.channels_last)), out,
                                   rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("size", [(33, 47), (32, 64), (5, 3), (1, 1)])
def test_segnet_on_vgg16_gives_one_logit_per_pixel_and_class(narrow, size):
    model = SegNet(models.vgg16(), 3).train()
    out = model(torch.randn(2, 3, *size))
    assert out.shape == (2, 3, *size)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(torch.randn(2, 3, *size)).isfinite().all()


def test_every_parameter_gets_a_gradient(narrow):
    model = SegNet(models.vgg16(), 2)
    model(torch.randn(2, 3, 64, 33)).square().mean().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name
        # A bias before BatchNorm is subtracted again: its gradient is 0 up to rounding.
        assert p.grad.abs().max() > 0 or name.endswith("bias"), name


def test_vgg16_is_that_of_torchvision():
    with torch.device("meta"):
        ours, theirs = models.vgg16(), torchvision.models.vgg16_bn(weights=None).features
    assert str(ours) == str(theirs)


def count(*parts):
    return sum(p.numel() for part in parts for p in part.parameters() if p.requires_grad)


def test_the_decoder_mirrors_the_13_convolutions():
    with torch.device("meta"):
        model = SegNet(VGG.make_layers(VGG.cfgs["D"], batch_norm=True), 7)
    down, up = ([(m.in_channels, m.out_channels) for m in part.modules()
                 if isinstance(m, nn.Conv2d)] for part in (model.encoder, model.decoder))
    up.append((model.head.in_channels, model.head.out_channels))
    assert len(down) == len(up) == 13 and down[0] == (3, 64) and up[-1] == (64, 7)
    assert [(b, a) for a, b in reversed(down[1:])] == up[:-1]
    assert [sum(isinstance(m, nn.Conv2d) for m in block) for block in model.decoder] == [
        3, 3, 3, 2, 1]


def test_parameters_and_the_29443968_of_the_document():
    """The document does not say how many classes it has or how its last layer is built. Without
    that layer we have 960 fewer than it. 3 x 3 weights with a bias, as ours, make 577 for each
    class, and 960 is no multiple of that. 960 = 15 * 64 are the 1 x 1 weights of 15 classes without
    a bias; on grey images, 2112 = 32 * 66 those of 32 classes with BatchNorm."""
    with torch.device("meta"):
        model = SegNet(VGG.make_layers(VGG.cfgs["D"], batch_norm=True), 4)
        grey = nn.Conv2d(1, 64, 3, padding=1)
        head15 = nn.Conv2d(64, 15, 1, bias=False)
        head32 = nn.Sequential(nn.Conv2d(64, 32, 1, bias=False), nn.BatchNorm2d(32))
    assert count(model.encoder) == 14723136  # torchvision's: 14714688 and 2 * 4224 of BatchNorm
    assert count(model.encoder, model.decoder) == 29443008
    assert count(model) == 29443008 + 577 * 4
    assert 29443968 - 29443008 == 960 and 960 % 577 and 960 % 579  # 579: with BatchNorm behind it
    assert count(model.encoder, model.decoder, head15) == 29443968
    rest = nn.ModuleList([*model.encoder[1:], model.decoder])
    assert count(grey, rest, head32) == 29443968


# Weights


def scrambled(features):
    with torch.no_grad():
        for v in features.state_dict().values():
            v.copy_(torch.randn_like(v) if v.is_floating_point() else torch.tensor(7))
    return {f"features.{k}": v for k, v in features.state_dict().items()}


def test_weights_come_from_a_file_of_torchvision(narrow, tmp_path):
    state = scrambled(models.vgg16())
    torch.save({**state, "classifier.0.weight": torch.zeros(1)}, tmp_path / "vgg.pth")
    loaded = models.vgg16(tmp_path / "vgg.pth").state_dict()
    assert {f"features.{k}" for k in loaded} == set(state)
    assert all(torch.equal(v, state[f"features.{k}"]) for k, v in loaded.items())
    built = segmenters.build("segnet", 2, tmp_path / "vgg.pth").encoder.state_dict()
    assert all(torch.equal(v, loaded[k]) for k, v in built.items())


def test_imagenet_weights_are_those_of_vgg16_bn(narrow, monkeypatch):
    state, asked = scrambled(models.vgg16()), []

    def downloaded(self, *args, **kwargs):
        asked.append((self, kwargs))
        return {**state, "classifier.0.weight": torch.zeros(1)}

    monkeypatch.setattr(VGG.VGG16_BN_Weights, "get_state_dict", downloaded)
    loaded = models.vgg16("imagenet").state_dict()
    assert all(torch.equal(v, state[f"features.{k}"]) for k, v in loaded.items())
    assert asked == [(VGG.VGG16_BN_Weights.DEFAULT, {"check_hash": True})]


def test_a_failed_download_and_unfit_weights_are_refused(narrow, tmp_path, monkeypatch):
    def offline(self, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(VGG.VGG16_BN_Weights, "get_state_dict", offline)
    with pytest.raises(ValueError, match="cannot be downloaded .no network.; a file of them"):
        models.vgg16("imagenet")
    with pytest.raises(ValueError, match="lite0 do not fit VGG16"):
        models.vgg16("lite0")
    torch.save(models.encoder("b0").state_dict(), tmp_path / "b0.pth")
    with pytest.raises(ValueError, match="b0.pth: no weights of this encoder"):
        models.vgg16(tmp_path / "b0.pth")


def test_random_weights_are_those_of_he():
    """Standard deviation sqrt(2 / (9 K)) for K input channels, and biases of 0."""
    model = SegNet(VGG.make_layers([64, 64, "M", 128, "M"], batch_norm=True), 2)
    features = models.vgg16()
    for conv in [m for part in (features[:14], model.decoder) for m in part.modules()
                 if isinstance(m, nn.Conv2d)]:
        std = math.sqrt(2 / (9 * conv.in_channels))
        assert conv.weight.std().item() == pytest.approx(std, rel=0.05)
        assert not conv.bias.any()


# Through the scripts


@pytest.fixture
def flags(shapes, tmp_path):
    """Flags of a short run on half of the drawn images, at an odd size, in two folds."""
    folds = tmp_path / "folds.csv"
    rows = (shapes / "train.csv").read_text().splitlines()
    (tmp_path / "some.csv").write_text("\n".join(
        [rows[0], *(r for r in rows[1:] if int(r[:3]) < 24)]) + "\n")
    folds.write_text("ImageId,fold\n" + "".join(f"{n:03d}.png,{n // 4 % 2}\n" for n in range(24)))
    return ("--images", shapes / "train_images", "--masks", tmp_path / "some.csv", "--labels",
            tmp_path / "some.csv", "--folds", folds, "--arch", "segnet", "--epochs", 2, *SMALL,
            "--size", 33, 35)


def test_segnet_goes_through_the_scripts(narrow, flags, shapes, tmp_path, capsys):
    """Training, a stop and --resume, --predict, cam2seg.load and evaluate."""
    whole, out, new = (tmp_path / name for name in ("whole", "out", "new"))
    assert call("train_seg", *flags, "--out", whole) == 0
    said = capsys.readouterr().out
    assert "SegNet on them" in said and f"segnet={whole}/oof_masks.csv" in said
    with interrupted(fit, "train_one_epoch", 2):
        assert call("train_seg", *flags, "--out", out) == 130
    assert call("train_seg", *flags, "--out", out, "--resume") == 0
    assert results(out) == results(whole)
    meta = load_checkpoint(out / "fold0/best.pt", "unet")
    assert meta["model_args"] == {"arch": "segnet", "num_classes": 2}
    assert meta["preprocess"]["mean"] == list(models.MEAN)

    new.mkdir()
    (new / "a.png").write_bytes((shapes / "train_images/003.png").read_bytes())
    assert call("train_seg", *flags, "--out", out, "--resume", "--predict", new) == 0
    predict = cam2seg.load(out, device="cpu")
    assert all(isinstance(net, SegNet) for net in predict.nets.values()) and len(predict.nets) == 2
    found = predict(new / "a.png")
    assert found.masks.shape == (2, 64, 64) and found.probabilities.std() > 0
    given = read_labels(out / "new_masks.csv", new, ["1", "2"])
    for c in range(2):
        mask = masks.rle_decode(given.rles.get(("a.png", c), ""), (64, 64))
        assert (mask != found.masks[c]).sum() <= 2
    assert call("evaluate", "--images", shapes / "train_images", "--labels", tmp_path / "some.csv",
                "--out", tmp_path / "eval", f"segnet={out}/oof_masks.csv") == 0


def test_a_segnet_starts_from_the_encoder_of_another_and_from_no_other(narrow, flags, tmp_path,
                                                                       refused, monkeypatch):
    run, one = tmp_path / "run", ("--fold", 0, "--epochs", 1)
    assert call("train_seg", *flags, *one, "--out", run) == 0
    started = []
    monkeypatch.setattr(fit, "train_one_epoch", lambda net, *_: started.append(
        {k: v.clone() for k, v in net.encoder.state_dict().items()}) or (1.0, 0.0))
    assert call("train_seg", *flags, *one, "--out", tmp_path / "next", "--init", run) == 0
    expected = load_checkpoint(run / "fold0/best.pt", "unet")["model"]
    assert all(torch.equal(v, expected[f"encoder.{k}"]) for k, v in started[0].items())
    assert "an encoder of segnet, expected b0" in refused(
        "train_seg", *flags, *one, "--arch", "b0", "--out", tmp_path / "other", "--init", run)


def test_a_segnet_of_other_widths_is_no_checkpoint(narrow, flags, tmp_path, monkeypatch):
    run = tmp_path / "run"
    assert call("train_seg", *flags, "--fold", 0, "--epochs", 1, "--out", run) == 0
    monkeypatch.setitem(VGG.cfgs, "D", [4, "M", 8, "M"])
    with pytest.raises(CheckpointError, match="weights that do not fit model_args"):
        cam2seg.load(run)


def test_weights_that_are_not_of_vgg16_stop_the_script(narrow, flags, tmp_path, refused):
    torch.save(models.encoder("b0").state_dict(), tmp_path / "b0.pth")
    for given, said in (("lite0", "lite0 do not fit VGG16"), (tmp_path / "b0.pth", "b0.pth")):
        assert said in refused("train_seg", *flags, "--out", tmp_path / "o", "--weights", given)
