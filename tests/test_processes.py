"""Several processes under torchrun give what one gives, and lose nothing when one is killed."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, call, last_of, results

from cam2seg.data.csv_files import read_csv
from cam2seg.data.errors import DataError
from cam2seg.runs import processes
from cam2seg.training.batches import Order, check_batches
from cam2seg.training.fit import start_epoch

ROOT = Path(__file__).parent.parent
ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}


def torchrun(*command, **kwargs):
    return subprocess.Popen([sys.executable, "-m", "torch.distributed.run", *map(str, command)],
                            cwd=ROOT, env=ALONE, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, **kwargs)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_gradients_of_two_processes_are_those_of_one(tmp_path):
    """One step on seven images, BatchNorm frozen, float32; and what processes tell each other."""
    run = torchrun("--standalone", "--nproc-per-node", 2, ROOT / "tests/two_processes.py", tmp_path)
    out, err = run.communicate(timeout=200)
    assert run.returncode == 0, out + err
    said = json.loads((tmp_path / "said.json").read_text())
    assert said["difference"] <= 1e-6 * said["largest"] and said["largest"] > 0
    assert said["parts"] == [4, 3] and said["loss"] == pytest.approx(said["loss_alone"], rel=1e-6)
    assert said["in_turn"] == list(range(5)) and said["shared"] == [{"rank": 0}, {"rank": 1}]
    assert said["refused"] == "no" and said["buffer"] == 0.0


ENDING = """
import atexit, pathlib, sys, torch
from cam2seg.runs import exits, processes
here = pathlib.Path(sys.argv[1])

def main(args):
    processes.join()
    mine = torch.ones(3)
    processes.all_gather(mine)
    atexit.register(lambda: (here / f"finalized{processes.torchrun_world()[0]}").touch())
    print("the last words")
    return None

sys.exit(exits.run(main, dict))
"""


@pytest.mark.parametrize("count, finalized", [(1, ["finalized0"]), (2, [])])
def test_processes_that_have_talked_end_without_finalizing_python(tmp_path, count, finalized):
    """A thread of gloo that lets go of a tensor while Python finalizes would abort the process."""
    (tmp_path / "ending.py").write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{ENDING}")
    done = torchrun("--standalone", "--nproc-per-node", count, tmp_path / "ending.py", tmp_path)
    out, err = done.communicate(timeout=200)
    assert done.returncode == 0, out + err
    assert out == "the last words\n"
    assert sorted(p.name for p in tmp_path.glob("finalized*")) == finalized


@pytest.fixture(scope="module")
def two_nodes(shapes, runs, tmp_path_factory):
    """make_masks.py on two hosts: two torchrun nodes that meet on the loopback interface."""
    out, port = tmp_path_factory.mktemp("nodes"), free_port()
    nodes = [torchrun("--nnodes", 2, "--node-rank", n, "--master-addr", "127.0.0.1",
                      "--master-port", port, "--nproc-per-node", 1, "make_masks.py", "--data",
                      shapes, "--cls", runs / "cls", "--out", out / "two", "--workers", 0,
                      "--device", "cpu", "--batch-size", 5, "--search") for n in (0, 1)]
    for node in nodes:
        said = "".join(node.communicate(timeout=300))
        assert node.returncode == 0, said
    return out


def test_masks_of_two_processes_are_those_of_one_byte_for_byte(two_nodes, shapes, runs):
    done = subprocess.run([sys.executable, "make_masks.py", "--data", shapes, "--cls", runs / "cls",
                           "--out", two_nodes / "one", "--workers", "0", "--device", "cpu",
                           "--batch-size", "5", "--search"], cwd=ROOT, env=ALONE,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, two = results(two_nodes / "one"), results(two_nodes / "two")
    assert one == two and {"maps.npy", "maps.csv", "masks.csv", "masks_crossfit.csv"} <= set(one)


@pytest.mark.parametrize("script, run, made", [
    ("train_cls", "cls", ("oof.csv", "oof_best.csv")), ("train_seg", "seg", ("oof_masks.csv",))])
def test_held_out_predictions_of_two_processes_are_those_of_one(runs, shapes, tmp_path, script, run,
                                                                made):
    """Networks are trained; their predictions, and SWA's pass over the images, are made anew."""
    flags = json.loads((runs / run / "args.json").read_text())["args"]
    more = [] if run == "cls" else ["--masks", *flags["masks"], "--folds", flags["folds"], "--loss",
                                    flags["loss"], "--lr-decoder", flags["lr_decoder"]]
    more += ["--folds", 2] if run == "cls" else []
    for count in (1, 2):
        out = tmp_path / str(count)
        shutil.copytree(runs / run, out)
        for path in [p for name in made for p in out.glob(f"**/{name}")]:
            path.unlink()
        for k in (0, 1):
            (out / f"fold{k}/last.pt").write_bytes(last_of(runs / run / f"fold{k}"))
        done = torchrun("--standalone", "--nproc-per-node", count, f"{script}.py", "--data", shapes,
                        "--out", out, *SMALL, "--epochs", flags["epochs"], "--lr-encoder",
                        flags["lr_encoder"], "--batch-size", flags["batch_size"], *more, "--resume")
        said = "".join(done.communicate(timeout=200))
        assert done.returncode == 0, said
    one, two = results(tmp_path / "1"), results(tmp_path / "2")
    assert one == two and set(made) <= set(one)


def children(pid):
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(c) for c in text.split()]


def wait_for(path, process, seconds=200):
    end = time.time() + seconds
    while not path.exists():
        assert process.poll() is None and time.time() < end, process.communicate()
        time.sleep(0.05)


def test_a_killed_process_ends_the_job_and_any_number_goes_on(shapes, tmp_path):
    """Two processes, one is killed; two again, stopped by SIGTERM; then one alone."""
    flags = ["--data", shapes, "--out", tmp_path, "--folds", 2, "--epochs", 6, *SMALL]
    run = torchrun("--standalone", "--nproc-per-node", 2, "train_cls.py", *flags)
    wait_for(tmp_path / "fold0/last.pt", run)
    os.kill(children(run.pid)[-1], signal.SIGKILL)
    out, err = run.communicate(timeout=100)
    assert run.returncode != 0
    assert "lost another one" in err and "--resume goes on" in err, err
    epochs = torch.load(tmp_path / "fold0/last.pt", weights_only=True)["epochs_done"]
    assert 1 <= epochs < 6
    run = torchrun("--standalone", "--nproc-per-node", 2, "train_cls.py", *flags, "--resume",
                   "--workers", 1)
    while not any("epoch" in line for line in iter(run.stdout.readline, "")):
        assert run.poll() is None
    run.terminate()
    out, err = run.communicate(timeout=100)
    assert "stopped by SIGTERM" in err, err
    last = torch.load(tmp_path / "fold0/last.pt", weights_only=True)
    assert last["epochs_done"] > epochs or last["epochs_done"] == 6
    assert call("train_cls", *flags, "--resume") == 0
    log = [json.loads(line) for line in (tmp_path / "fold0/log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in log] == [1, 2, 3, 4, 5, 6]
    assert len(read_csv(tmp_path / "oof.csv")[1]) == 48


def test_an_epoch_goes_on_with_another_number_of_processes():
    """Losses and images of two processes, step by step, become shares of one."""
    partial = [{"losses": torch.tensor([1.0, 2.0]), "sizes": [4, 4], "rng": None,
                "cuda_rng": None},
               {"losses": torch.tensor([3.0, 5.0]), "sizes": [4, 2], "rng": None,
                "cuda_rng": None}]
    steps = start_epoch((0, 1), partial, torch.device("cpu"))
    assert [(float(loss), n) for loss, n in steps] == [(2.0, 8.0), (3.0, 6.0)]


def test_a_batch_of_one_small_image_is_refused():
    with pytest.raises(DataError, match="--batch-size 1: expected 2 or more for an input of "
                       "32 x 32, of which BatchNorm sees one cell"):
        check_batches(1, np.arange(8) % 2, (32, 32))
    check_batches(2, np.arange(8) % 2, (32, 32))
    check_batches(1, np.arange(8) % 2, (32, 33))


@pytest.mark.parametrize("size", [1, 3])
def test_a_batch_is_for_all_processes_together(monkeypatch, size):
    monkeypatch.setattr(processes, "_world", (0, 2))
    with pytest.raises(DataError, match="expected 4 or more for all 2 processes together"):
        check_batches(size, np.arange(8) % 2, (64, 64))
    check_batches(4, np.arange(8) % 2, (64, 64))
    with pytest.raises(DataError, match="3 images to train a fold on, expected 4 or more"):
        check_batches(4, np.arange(6) % 2, (64, 64))


def test_processes_share_each_training_batch_and_deal_out_the_others():
    indices = np.arange(21)
    whole = Order(indices, 6, 3)
    parts = [Order(indices, 6, 3, rank, 2) for rank in (0, 1)]
    for order in (whole, *parts):
        order.epoch = 4
    for full, a, b in list(zip(whole, *parts, strict=False))[:2]:
        assert a + b == full and len(a) == len(b) == 3
    assert [len(a) for a in parts[0]] == [3, 3, 5] and [len(b) for b in parts[1]] == [3, 3, 4]
    for order in (whole, *parts):
        order.epoch = None
    assert [list(whole)[i] for i in (0, 2)] == list(parts[0])
    assert [list(whole)[i] for i in (1, 3)] == list(parts[1])
    parts[0].epoch, parts[0].skip = 4, 6
    assert [len(a) for a in parts[0]] == [3, 5]
