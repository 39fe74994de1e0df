"""benchmarks/speed.py: the table in README is what was measured, and what is timed beside ours does
the same work."""

import json
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import speed  # noqa: E402
import speed_maps  # noqa: E402
import speed_masks  # noqa: E402
import speed_search  # noqa: E402

from cam2seg import cam, masks, metrics  # noqa: E402
from cam2seg.training import inference, map_masks  # noqa: E402

RESULTS = ROOT / "benchmarks/results"
CPU = torch.device("cpu")
ARGS = Namespace(device=CPU, threads=1)


def test_readme_shows_the_table_that_was_measured():
    parts = json.loads((RESULTS / "speed.json").read_text())["parts"]
    rows = [row for name in speed.PARTS for row in parts.get(name, [])]
    assert speed.markdown(rows) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_row_is_the_ratio_of_its_seconds():
    for part in json.loads((RESULTS / "speed.json").read_text())["parts"].values():
        for row in part:
            assert row == speed.row(row["work"], row["peer"], row["ours"], row["theirs"],
                                    row["limit"])


def test_work_in_turn_warms_up_once_and_each_round_begins_with_another():
    done = []
    clock = iter(range(100))
    got = speed.in_turn({"a": lambda: done.append("a"), "b": lambda: done.append("b")}, 2,
                        lambda: next(clock))
    assert done == ["a", "b", "b", "a", "a", "b"]
    assert set(got) == {"a", "b"} and all(v > 0 for v in got.values())


def test_the_clock_of_cuda_waits_for_the_work_that_is_under_way(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    device = torch.device("cuda")
    assert speed.clock_of(device)() > 0 and waited == [device]
    assert speed.clock_of(CPU) is speed.time.process_time


def slow_and_quick(device):
    """Works for a process of their own."""
    return {"slow": lambda: [sum(range(10 ** 6)) for _ in range(20)], "quick": lambda: None}


def test_work_of_another_process_is_timed_there():
    with speed.process_of_their_own(slow_and_quick, ARGS) as works:
        got = speed.in_turn(works, 2)
    assert got["slow"] > 0.05 > got["quick"] >= 0


def test_our_row_of_maps_runs_the_network_of_the_peers():
    """The weights are the same, and folding changes no logit."""
    x = speed_maps.image_batch(CPU)[:1, :, :64, :64]
    fast = inference.prepared(speed_maps.classifier(CPU), CPU)
    with torch.no_grad():
        torch.testing.assert_close(fast(x), speed_maps.classifier(CPU)(x), rtol=1e-4, atol=1e-5)


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


def test_the_counts_of_many_images_are_those_of_each_in_order():
    """They come from several threads."""
    work = speed_search.drawn(np.random.default_rng(2), 12)
    got = map_masks.counts_at_thresholds(speed_search.FLAGS, work, [0.2, 0.6],
                                         lambda *a, **k: None)
    for i, name in enumerate(work.names):
        true = masks.decode_all(work.labels.rles, name, (256, 1600), 4)
        full = cam.numpy_maps(work.maps[i], (256, 1600))
        for n, t in enumerate((0.2, 0.6)):
            inter, pred = speed_search.plain(full, true, t)
            assert got[0][i, :, n].tolist() == inter.tolist()
            assert got[1][i, :, n].tolist() == pred.tolist()
        assert got[2][i].tolist() == true.sum(axis=(1, 2)).tolist()
