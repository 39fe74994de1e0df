"""benchmarks/speed.py, growth.py and cost.py: the tables in README and docs are what was measured,
and the quick ways that they time do what the plain ways do."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import cost  # noqa: E402
import growth  # noqa: E402
import speed  # noqa: E402
import speed_maps  # noqa: E402
import speed_masks  # noqa: E402

from cam2seg import cam, masks, metrics, models  # noqa: E402

RESULTS = ROOT / "benchmarks/results"


def test_readme_shows_the_table_that_was_measured():
    parts = json.loads((RESULTS / "speed.json").read_text())["parts"]
    rows = [row for name in speed.PARTS for row in parts[name]]
    assert speed.markdown(rows) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_row_is_the_ratio_of_its_seconds():
    for part in json.loads((RESULTS / "speed.json").read_text())["parts"].values():
        for row in part:
            assert row == speed.row(row["work"], row["peer"], row["ours"], row["theirs"],
                                    row["limit"])


def test_the_page_on_costs_shows_the_growth_that_was_measured():
    found = json.loads((RESULTS / "growth.json").read_text())
    assert growth.markdown(found) in (ROOT / "docs/cost.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("flags", [[], ["--plan", "severstal"],
                                   "--images 1000000 --devices 8".split()])
def test_the_page_on_costs_shows_what_the_script_prints(flags, capsys):
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


def test_work_in_turn_warms_up_once():
    done = []
    clock = iter(range(100))
    got = speed.in_turn({"a": lambda: done.append("a"), "b": lambda: done.append("b")}, 2,
                        lambda: next(clock))
    assert done == ["a", "b"] * 3
    assert set(got) == {"a", "b"} and all(v > 0 for v in got.values())


def test_the_folded_network_gives_the_same_maps():
    torch.manual_seed(0)
    model = models.Classifier("b0", 4)
    x = torch.randn(2, 3, 64, 96)
    model(x)  # other BatchNorm statistics than 0 and 1
    model.eval()
    (maps, logits), (fast, fast_logits) = (cam.class_maps(m, x, "features.8", "gradcam")
                                           for m in (model, speed_maps.folded(model)))
    torch.testing.assert_close(fast_logits, logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(cam.normalize(fast), cam.normalize(maps), rtol=0, atol=1e-3)


def test_the_kernel_and_the_pixels_agree_with_ours():
    rng = np.random.default_rng(1)
    mask = speed_masks.blobs(rng)
    text = speed_masks.kernel_encode(mask)
    assert text == masks.rle_encode(mask)
    assert (speed_masks.kernel_decode(text, speed_masks.SIZE) == mask).all()
    other = masks.rle_encode(speed_masks.blobs(rng))
    counts = metrics.mask_counts(["a"], {("a", 0): text}, {("a", 0): other},
                                 {"a": speed_masks.SIZE}, 1)
    assert counts[:, 0, 0].tolist() == list(speed_masks.by_pixels(text, other))
