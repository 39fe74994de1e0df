"""benchmarks/segnet.py: what the encoder hands over is counted right, and the twin is SegNet but for
that."""

import json
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import segnet as cost  # noqa: E402

from cam2seg import models, segnet  # noqa: E402

POOLED = ((64, 1), (128, 2), (256, 4), (512, 8), (512, 16))  # channels and stride before each pooling


def test_places_take_half_of_the_features_that_they_replace():
    """A place has 8 bytes for each window of 2 x 2, and the four values in it have 16."""
    x, values = torch.zeros(2, 3, 32, 64), sum(K * 2 * (32 // s) * (64 // s) for K, s in POOLED)
    with torch.no_grad():
        kept = {build: cost.handed_over(build(models.vgg16().eval(), 4), x) * 2**20
                for build in (segnet.SegNet, cost.WithFeatures)}
        assert kept == {segnet.SegNet: values / 4 * 8, cost.WithFeatures: values * 4}
        skips = cost.handed_over(models.UNet("b0", 4).eval(), x) * 2**20
    assert skips == 4 * 2 * sum(K * (32 // s) * (64 // s)
                                for K, s in ((16, 2), (24, 4), (40, 8), (112, 16)))


def test_the_twin_of_segnet_differs_in_the_first_convolution_of_each_block_alone():
    mine, twin = (build(models.vgg16(), 4).eval() for build in (segnet.SegNet, cost.WithFeatures))
    shapes = [{name: w.shape for name, w in net.named_parameters()} for net in (mine, twin)]
    assert shapes[0].keys() == shapes[1].keys()
    changed = {name for name in shapes[0] if shapes[0][name] != shapes[1][name]}
    assert changed == {f"decoder.{n}.0.weight" for n in range(5)}
    with torch.no_grad():
        assert twin(torch.zeros(1, 3, 33, 50)).shape == (1, 4, 33, 50)


def test_the_page_shows_what_was_measured():
    measured = json.loads((ROOT / "benchmarks/results/segnet.json").read_text(encoding="utf-8"))
    assert cost.markdown(measured["rows"]) in (ROOT / "docs/segnet.md").read_text(encoding="utf-8")
