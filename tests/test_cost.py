"""benchmarks/growth.py and cost.py: docs/cost.md shows what they have measured and computed."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import cost  # noqa: E402
import growth  # noqa: E402
import step  # noqa: E402

from cam2seg import models  # noqa: E402

RESULTS = ROOT / "benchmarks/results"
CPU = torch.device("cpu")


def test_the_page_on_costs_shows_the_growth_that_was_measured():
    for name in ("growth.json", "growth_methods.json"):
        found = json.loads((RESULTS / name).read_text())
        assert growth.markdown(found) in (ROOT / "docs/cost.md").read_text(encoding="utf-8")


def test_the_page_on_costs_shows_the_steps_that_were_measured():
    found = json.loads((RESULTS / "step.json").read_text())
    text = (ROOT / "docs/cost.md").read_text(encoding="utf-8")
    for table in step.markdown(found["rows"]).split("\n\n"):
        assert table in text


def test_flop_of_a_forward_and_shares_of_a_step():
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 1), torch.nn.SiLU(), torch.nn.BatchNorm2d(4),
                              torch.nn.Conv2d(4, 4, 3, padding=1, groups=4))
    x, y = torch.randn(5, 2, 8, 8), torch.ones(5, 4, 8, 8)
    assert step.forward_flops(net, x) == 2 * 5 * 8 * 8 * (4 * 2 + 4 * 9)  # depthwise: 9, not 36
    shares = step.parts_of(step.step(net, x, y), CPU)
    assert set(shares) == set(step.SHARES) and min(shares.values()) > 0
    adam = torch.optim.Adam(net.parameters())
    assert step.parts_of(adam.step, CPU)[step.ADAM] == 1
    assert step.parts_of(lambda: torch.zeros(9, 9).mm(torch.ones(9, 9)), CPU)[step.ADAM] == 0


@pytest.mark.parametrize("flags", [["--plan", "severstal"], [],
                                   ["--images", "1000000", "--devices", "8"]])
def test_the_page_on_costs_shows_what_the_script_prints(capsys, flags):
    cost.main(cost.get_args(flags))
    assert capsys.readouterr().out in (ROOT / "docs/cost.md").read_text(encoding="utf-8")


def test_hours_of_round_rates():
    """36 images, 2 folds and 10 epochs at rates of one image in 100 seconds and their multiples."""
    rates = cost.Rates(train_cls=0.01, train_seg=0.005, forward=0.04, search=0.1, check=1.0)
    found = cost.hours(rates, cost.Plan(), 36, 2, 10, 1)
    assert found == pytest.approx({
        "checking the images": 0.03, "train_cls": 10 + 2.5, "make_masks": 1.875, "--search": 0.1,
        "train_seg": 20 + 5})
    many = cost.hours(rates, cost.Plan(), 36, 2, 10, 4)
    assert many["train_cls"] == pytest.approx(12.5 / 4)
    assert many["--search"] == found["--search"]  # it runs on the CPU of the first process


def test_a_forward_of_b3_multiplies_as_often_as_the_plan_says():
    count = []
    for arch in ("b0", "b3"):
        with torch.device("meta"), FlopCounterMode(display=False) as mode:
            models.Classifier(arch, 4).eval()(torch.empty(1, 3, 256, 1600))
        count.append(mode.get_total_flops())
    assert count[1] / count[0] == pytest.approx(cost.B3, abs=0.01)
