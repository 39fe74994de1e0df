"""Stopped, locked out, out of disk, spread over processes: the same bytes, or one line and nothing
lost."""

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

from cam2seg import cli, data, engine, loading, mapping, process, rundir
from conftest import SMALL, call

ROOT = Path(__file__).parent.parent
ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*"))
            if p.is_file() and p.name not in (".lock", "log.jsonl", "args.json")}


# Stopped


def raise_in(monkeypatch, owner, name, number):
    """SIGTERM to this process in the number-th call of owner.name."""
    real, left = getattr(owner, name), [number]

    def called(*args, **kwargs):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, called)


def test_a_run_stopped_in_steps_validation_and_swa_ends_with_the_same_bytes(
        runs, shapes, tmp_path, monkeypatch, capsys):
    flags = ("--data", shapes, "--out", tmp_path, "--folds", 2, "--epochs", 6, *SMALL, "--resume")
    for owner, name, number in [(torch.optim.Adam, "step", 5), (engine, "mean_loss", 2),
                                (torch.optim.Adam, "step", 7), (engine, "update_bn", 1),
                                (torch.optim.Adam, "step", 1)]:
        with monkeypatch.context() as patch:
            raise_in(patch, owner, name, number)
            assert call("train_cls", *flags) == 143
        err = capsys.readouterr().err
        assert err == ("stopped by SIGTERM; the same command with --resume goes on from here\n")
    assert call("train_cls", *flags) == 0
    assert contents(tmp_path) == contents(runs / "cls")


def test_a_stop_in_a_step_keeps_the_steps_taken(runs, shapes, tmp_path, monkeypatch):
    raise_in(monkeypatch, torch.optim.Adam, "step", 5)  # the second step of epoch 2
    assert call("train_cls", "--data", shapes, "--out", tmp_path, "--folds", 2, "--epochs", 6,
                *SMALL) == 143
    last = torch.load(tmp_path / "fold0/last.pt", weights_only=True)
    assert last["epochs_done"] == 1 and last["midway"][0]["sizes"] == [8, 8]


def test_maps_stopped_half_way_are_taken_up(runs, shapes, tmp_path, monkeypatch):
    flags = ("--data", shapes, "--cls", runs / "cls", "--workers", 0, "--device", "cpu",
             "--batch-size", 5, "--no-aug-smooth", "--search")
    assert call("make_masks", *flags, "--out", tmp_path / "whole") == 0
    seen, real = [], mapping.batch_maps

    def batch_maps(args, model, x, shift):
        seen.append(len(x))
        if len(seen) == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return real(args, model, x, shift)

    monkeypatch.setattr(mapping, "batch_maps", batch_maps)
    assert call("make_masks", *flags, "--out", tmp_path / "part") == 130
    assert not (tmp_path / "part/maps.csv").exists()
    assert call("make_masks", *flags, "--out", tmp_path / "part", "--resume") == 0
    assert seen == [5, 5, 5, 5, 4] * 2  # none of them twice
    assert call("make_masks", *flags, "--out", tmp_path / "part", "--resume") == 0
    assert len(seen) == 10
    assert contents(tmp_path / "part") == contents(tmp_path / "whole")
    flags = (*flags, "--threshold", 0.5, "--out", tmp_path / "part", "--resume")
    assert call("make_masks", *flags) == 2


def test_maps_are_not_taken_up_for_another_list_of_images(runs, shapes, tmp_path, monkeypatch,
                                                          capsys):
    shutil.copytree(shapes / "train_images", tmp_path / "photos")
    flags = ("--images", tmp_path / "photos", "--cls", runs / "cls", "--out", tmp_path / "out",
             "--workers", 0, "--device", "cpu", "--batch-size", 16, "--no-aug-smooth")
    with monkeypatch.context() as patch:
        raise_in(patch, mapping, "batch_maps", 2)
        assert call("make_masks", *flags) == 143
    shutil.copy(tmp_path / "photos/000.png", tmp_path / "photos/new.png")
    before = contents(tmp_path / "out")
    capsys.readouterr()
    assert call("make_masks", *flags, "--resume") == 2
    assert "error: the list of images changed since" in capsys.readouterr().err
    assert contents(tmp_path / "out") == before


def test_killed_runs_end_with_the_bytes_of_unbroken_ones():
    """A short form of `make crash`."""
    done = subprocess.run([sys.executable, ROOT / "tests/crash.py", "--kills", "4", "--seed", "1"],
                          env=ALONE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every file as in the unbroken run" in done.stdout


# Two runs in one folder


def test_a_folder_in_use_is_refused_until_its_process_is_gone(runs, shapes, tmp_path, capsys):
    shutil.copytree(runs / "eval", tmp_path / "eval")
    holder = subprocess.Popen([sys.executable, "-c", (
        "import sys, time; from pathlib import Path; from cam2seg import rundir\n"
        "rundir.lock(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"),
        tmp_path / "eval"], stdout=subprocess.PIPE, cwd=ROOT)
    assert holder.stdout.readline() == b"held\n"
    before = contents(tmp_path)
    flags = ("--data", shapes, "--out", tmp_path / "eval", "--overwrite", "--figures", 0,
             f"maps={runs}/masks/masks.csv")
    assert call("evaluate", *flags) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}/eval is in use by another process\n"
    assert contents(tmp_path) == before
    holder.kill()
    holder.wait()
    assert call("evaluate", *flags) == 0


def test_overwriting_leaves_files_that_are_not_of_a_run(runs, shapes, tmp_path):
    out = tmp_path / "mine"
    shutil.copytree(runs / "cls", out)
    shutil.copy(shapes / "labels.csv", out / "labels.csv")
    (out / "notes.txt").write_text("mine")
    assert call("train_seg", "--data", shapes, "--masks", shapes / "train.csv", "--folds",
                out / "folds.csv", "--out", out, "--epochs", 1, "--overwrite", *SMALL) == 0
    assert (out / "labels.csv").exists() and (out / "notes.txt").read_text() == "mine"
    assert not list(out.glob("fold*/swa.pt")) and not (out / "oof.csv").exists()


# Disks


@pytest.fixture
def small_disk(tmp_path):
    """A file system of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder],
                          capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"mounting a small tmpfs is not allowed here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("script, flags", [
    ("train_cls", ("--folds", 2, "--epochs", 1, *SMALL)),
    ("train_seg", ("--masks", "{shapes}/train.csv", "--folds", "{runs}/cls/folds.csv", "--epochs",
                   1, *SMALL)),
    ("make_masks", ("--cls", "{runs}/cls", "--method", "guided-gradcam", "--no-aug-smooth",
                    "--workers", 0, "--device", "cpu")),
    ("evaluate", ("maps={runs}/masks/masks.csv",))])
def test_a_full_disk_is_one_line_and_nothing_half_written(runs, shapes, small_disk, capsys, script,
                                                          flags):
    out = small_disk / "out"
    out.mkdir()
    (small_disk / "filler").write_bytes(bytes(1_600_000))
    (out / "notes.txt").write_text("mine")
    flags = [str(f).format(shapes=shapes, runs=runs) for f in flags]
    assert call(script, "--data", shapes, "--out", out, *flags) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert "No space left" in err or "cannot be written" in err
    assert not list(out.rglob("*.tmp")) and (out / "notes.txt").read_text() == "mine"
    assert json.loads((out / "args.json").read_text())


def test_a_folder_that_cannot_be_written_is_one_line(shapes, small_disk, capsys):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert call("train_cls", "--data", shapes, "--out", small_disk / "out", *SMALL) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and "Read-only" in err and err.count("\n") == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_vanishes_while_it_is_needed(runs, shapes, tmp_path, monkeypatch, capsys,
                                                   workers):
    shutil.copytree(shapes, tmp_path / "d")
    real = rundir.start_run

    def start_run(*args):
        real(*args)
        (tmp_path / "d/train_images/007.png").unlink()

    monkeypatch.setattr(rundir, "start_run", start_run)
    flags = ("--data", tmp_path / "d", "--out", tmp_path / "out", "--folds", 2, "--epochs", 1,
             *SMALL, "--workers", workers)
    assert call("train_cls", *flags) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "007.png" in err and err.startswith("error: ")
    assert not list((tmp_path / "out").rglob("*.tmp"))
    monkeypatch.undo()
    shutil.copy(shapes / "train_images/007.png", tmp_path / "d/train_images/007.png")
    assert call("train_cls", *flags, "--resume") == 0


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(RuntimeError), process.whole_file(path) as file:
        file.write("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"] and path.read_text() == "before"


# Several processes


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


@pytest.fixture(scope="module")
def two_nodes(shapes, runs, tmp_path_factory):
    """make_masks.py on two hosts: two torchrun nodes that meet on the loopback interface."""
    out, port = tmp_path_factory.mktemp("nodes"), free_port()
    nodes = [torchrun("--nnodes", 2, "--node-rank", n, "--master-addr", "127.0.0.1",
                      "--master-port", port, "--nproc-per-node", 1, "make_masks.py", "--data",
                      shapes, "--cls", runs / "cls", "--out", out / "two", "--workers", 0,
                      "--device", "cpu", "--batch-size", 5, "--search") for n in (0, 1)]
    for node in nodes:
        said = node.communicate(timeout=300)
        assert node.returncode == 0, said
    return out


def test_masks_of_two_processes_are_those_of_one_byte_for_byte(two_nodes, shapes, runs):
    done = subprocess.run([sys.executable, "make_masks.py", "--data", shapes, "--cls", runs / "cls",
                           "--out", two_nodes / "one", "--workers", "0", "--device", "cpu",
                           "--batch-size", "5", "--search"], cwd=ROOT, env=ALONE,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, two = contents(two_nodes / "one"), contents(two_nodes / "two")
    assert one == two and {"maps.npy", "maps.csv", "masks.csv", "masks_crossfit.csv"} <= set(one)


@pytest.mark.parametrize("script, run, made", [
    ("train_cls", "cls", ("oof.csv", "oof_best.csv")), ("train_seg", "seg", ("oof_masks.csv",))])
def test_held_out_predictions_of_two_processes_are_those_of_one(runs, shapes, tmp_path, script, run,
                                                                made):
    """Networks are trained; their predictions, and SWA's pass over the images, are made anew."""
    flags = json.loads((runs / run / "args.json").read_text())["args"]
    more = [] if run == "cls" else ["--masks", flags["masks"], "--folds", flags["folds"], "--loss",
                                    flags["loss"], "--lr-decoder", flags["lr_decoder"]]
    more += ["--folds", 2] if run == "cls" else []
    for count in (1, 2):
        out = tmp_path / str(count)
        shutil.copytree(runs / run, out)
        for path in [p for name in made for p in out.glob(f"**/{name}")]:
            path.unlink()
        done = torchrun("--standalone", "--nproc-per-node", count, f"{script}.py", "--data", shapes,
                        "--out", out, *SMALL, "--epochs", flags["epochs"], "--lr-encoder",
                        flags["lr_encoder"], "--batch-size", flags["batch_size"], *more, "--resume")
        said = done.communicate(timeout=200)
        assert done.returncode == 0, said
    one, two = contents(tmp_path / "1"), contents(tmp_path / "2")
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
    run = torchrun("--standalone", "--nproc-per-node", 2, "train_cls.py", *flags, "--resume")
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
    assert len(data.read_csv(tmp_path / "oof.csv")[1]) == 48


def test_an_epoch_goes_on_with_another_number_of_processes():
    """Losses and images of two processes, step by step, become shares of one."""
    midway = [{"losses": torch.tensor([1.0, 2.0]), "sizes": [4, 4], "rng": None, "cuda_rng": None},
              {"losses": torch.tensor([3.0, 5.0]), "sizes": [4, 2], "rng": None, "cuda_rng": None}]
    steps = engine.start_epoch((0, 1), midway, torch.device("cpu"))
    assert [(float(loss), n) for loss, n in steps] == [(2.0, 8.0), (3.0, 6.0)]


@pytest.mark.parametrize("size", [1, 3])
def test_a_batch_is_for_all_processes_together(monkeypatch, size):
    monkeypatch.setattr(process, "_world", (0, 2))
    with pytest.raises(cli.DataError, match="for all 2 processes together: expected 4 or more"):
        loading.Batches([], np.arange(8), size)


def test_processes_share_each_training_batch_and_deal_out_the_others():
    indices = np.arange(21)
    whole = loading.Order(indices, 6, 3)
    parts = [loading.Order(indices, 6, 3, rank, 2) for rank in (0, 1)]
    for order in (whole, *parts):
        order.epoch = 4
    for full, a, b in list(zip(whole, *parts, strict=False))[:2]:
        assert a + b == full and len(a) == len(b) == 3
    assert [len(a) for a in parts[0]] == [3, 3, 5] and [len(b) for b in parts[1]] == [3, 3, 4]
    for order in (whole, *parts):
        order.epoch = None
    assert [list(whole)[i] for i in (0, 2)] == list(parts[0])
    assert [list(whole)[i] for i in (1, 3)] == list(parts[1])
    parts[0].epoch, parts[0].skip = 4, 1
    assert [len(a) for a in parts[0]] == [3, 5]
