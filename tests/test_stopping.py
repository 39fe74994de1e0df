"""Stopped, killed, locked out, out of disk: the same bytes in the end, or one line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import SMALL, call, contents, raise_in, results

from cam2seg import averaging, metrics
from cam2seg.data.files import whole_file
from cam2seg.runs import folder
from cam2seg.training import fit as fit_module
from cam2seg.training import held_out_maps

ROOT = Path(__file__).parent.parent
ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}


# Stopped


def test_a_run_stopped_in_steps_validation_and_swa_ends_with_the_same_bytes(
        runs, shapes, tmp_path, monkeypatch, capsys):
    flags = ("--data", shapes, "--out", tmp_path, "--folds", 2, "--epochs", 6, *SMALL, "--resume")
    for owner, name, number in [(torch.optim.Adam, "step", 5), (fit_module, "mean_loss", 2),
                                (torch.optim.Adam, "step", 7), (averaging, "update_bn", 1),
                                (torch.optim.Adam, "step", 1)]:
        with monkeypatch.context() as patch:
            raise_in(patch, owner, name, number)
            assert call("train_cls", *flags) == 143
        err = capsys.readouterr().err
        assert err == ("stopped by SIGTERM; the same command with --resume goes on from here\n")
    assert call("train_cls", *flags) == 0
    assert results(tmp_path) == results(runs / "cls")


def test_a_stop_in_a_step_keeps_the_steps_taken(runs, shapes, tmp_path, monkeypatch):
    raise_in(monkeypatch, torch.optim.Adam, "step", 5)  # the second step of epoch 2
    assert call("train_cls", "--data", shapes, "--out", tmp_path, "--folds", 2, "--epochs", 6,
                *SMALL) == 143
    last = torch.load(tmp_path / "fold0/last.pt", weights_only=True)
    assert last["epochs_done"] == 1 and last["partial_epoch"][0]["sizes"] == [8, 8]


def test_maps_stopped_half_way_are_taken_up(runs, shapes, tmp_path, monkeypatch):
    flags = ("--data", shapes, "--cls", runs / "cls", "--workers", 0, "--device", "cpu",
             "--batch-size", 5, "--no-aug-smooth", "--search")
    assert call("make_masks", *flags, "--out", tmp_path / "whole") == 0
    seen, real = [], held_out_maps.smoothed_maps

    def smoothed_maps(args, model, x, preprocess):
        seen.append(len(x))
        if len(seen) == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return real(args, model, x, preprocess)

    monkeypatch.setattr(held_out_maps, "smoothed_maps", smoothed_maps)
    assert call("make_masks", *flags, "--out", tmp_path / "part") == 130
    assert not (tmp_path / "part/maps.csv").exists()
    assert call("make_masks", *flags, "--out", tmp_path / "part", "--resume") == 0
    assert seen == [5, 5, 5, 5, 4] * 2  # none of them twice
    assert call("make_masks", *flags, "--out", tmp_path / "part", "--resume") == 0
    assert len(seen) == 10
    assert results(tmp_path / "part") == results(tmp_path / "whole")
    flags = (*flags, "--threshold", 0.5, "--out", tmp_path / "part", "--resume")
    assert call("make_masks", *flags) == 2


def test_maps_are_not_taken_up_for_another_list_of_images(runs, shapes, tmp_path, monkeypatch,
                                                          capsys):
    shutil.copytree(shapes / "train_images", tmp_path / "photos")
    flags = ("--images", tmp_path / "photos", "--cls", runs / "cls", "--out", tmp_path / "out",
             "--workers", 0, "--device", "cpu", "--batch-size", 16, "--no-aug-smooth")
    with monkeypatch.context() as patch:
        raise_in(patch, held_out_maps, "smoothed_maps", 2)
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


@pytest.mark.parametrize("more", [(), ("--resume",)])
def test_a_signal_to_the_whole_group_is_one_signal(shapes, tmp_path, more):
    """With a worker, and sent twice as launchers do: the epoch is saved, no process is left."""
    flags = [str(f) for f in ("--data", shapes, "--out", tmp_path, "--folds", 2, "--epochs", 40,
                              *SMALL, "--workers", 1)]
    run = subprocess.Popen([sys.executable, "train_cls.py", *flags, *more], cwd=ROOT, env=ALONE,
                           stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (tmp_path / "fold0/last.pt").exists():
        assert run.poll() is None
        time.sleep(0.05)
    for _ in range(2):
        os.killpg(run.pid, signal.SIGTERM)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 143 and err.startswith("stopped by SIGTERM"), err
    last = torch.load(tmp_path / "fold0/last.pt", weights_only=True)
    assert "partial_epoch" in last or last["epochs_done"] >= 1
    with pytest.raises(ProcessLookupError):
        time.sleep(1)
        os.killpg(run.pid, 0)


HOLDS_ITS_WORKERS = """
import gc, multiprocessing, os, signal, subprocess, sys
from cam2seg.training.batches import Batches
class Items:
    def __len__(self):
        return 9
    def __getitem__(self, item):
        return item[0]
gc.disable()
batches = Batches(Items(), range(9), 2, workers=2)
steps = batches()
batches.itself = batches, steps  # as a traceback can hold them until the garbage collector runs
next(steps)
for worker in multiprocessing.active_children():
    for name in ("INT", "TERM"):
        subprocess.run(["kill", f"-{name}", str(worker.pid)], check=True)
print(sum(len(step) for step in steps), len(multiprocessing.active_children()), flush=True)
"""


def test_workers_end_with_the_main_process_and_by_no_signal_of_another():
    """The garbage collector has not run when Python ends, so that it ends the workers itself."""
    done = subprocess.run([sys.executable, "-c", HOLDS_ITS_WORKERS], cwd=ROOT, env=ALONE,
                          capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "7 2\n", "")


# Two runs in one folder


def test_a_folder_in_use_is_refused_until_its_process_is_gone(runs, shapes, tmp_path, capsys):
    shutil.copytree(runs / "eval", tmp_path / "eval")
    holder = subprocess.Popen([sys.executable, "-c", (
        "import sys, time; from pathlib import Path; from cam2seg.runs import locks\n"
        "locks.lock(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"),
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
                runs / "cls/folds.csv", "--out", out, "--epochs", 1, "--overwrite", *SMALL) == 0
    assert (out / "labels.csv").exists() and (out / "notes.txt").read_text() == "mine"
    assert not list(out.glob("fold*/swa.pt")) and not (out / "oof_best.csv").exists()


def test_files_of_no_run_are_not_replaced_unasked(runs, shapes, tmp_path, capsys):
    shutil.copytree(runs / "cls", tmp_path / "cls")
    (tmp_path / "cls/args.json").unlink()
    before = contents(tmp_path)
    for more in ((), ("--resume",)):
        assert call("train_cls", "--data", shapes, "--out", tmp_path / "cls", "--folds", 2, *SMALL,
                    *more) == 2
        assert "no args.json of a run: add --overwrite" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_an_overwrite_killed_half_way_goes_on_with_its_own_folds(runs, shapes, tmp_path,
                                                                monkeypatch):
    shutil.copytree(runs / "cls", tmp_path / "one")
    flags = ("--data", shapes, "--folds", 2, "--epochs", 1, "--seed", 5, *SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(folder, "write_csv", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        pid = os.fork()
        if not pid:
            call("train_cls", *flags, "--out", tmp_path / "one", "--overwrite")
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert call("train_cls", *flags, "--out", tmp_path / "one", "--resume") == 0
    assert call("train_cls", *flags, "--out", tmp_path / "two") == 0
    assert results(tmp_path / "one") == results(tmp_path / "two")


def test_links_do_not_lead_out_of_the_folder(shapes, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out/fold0").symlink_to(tmp_path / "elsewhere")
    assert call("train_cls", "--data", shapes, "--out", tmp_path / "out", "--folds", 2, *SMALL) == 2
    assert "fold0 is a link" in capsys.readouterr().err
    (tmp_path / "out/a.csv.tmp").symlink_to(tmp_path / "elsewhere/b")
    with whole_file(tmp_path / "out/a.csv") as file:
        file.write("a")
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("relative", [False, True])
def test_overwriting_what_is_read_is_refused(runs, shapes, tmp_path, capsys, monkeypatch, relative):
    shutil.copytree(runs / "masks", tmp_path / "masks")
    monkeypatch.chdir(tmp_path)
    out, csv = (Path("masks") if r else tmp_path / "masks" for r in (relative, not relative))
    before = contents(tmp_path)
    assert call("evaluate", "--data", shapes, "--out", out, f"m={csv}/masks.csv",
                "--overwrite") == 2
    assert "which this run reads: name another --out" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_maps_of_networks_that_were_trained_again_are_not_taken_up(runs, shapes, tmp_path, capsys):
    for name in ("cls", "masks"):
        shutil.copytree(runs / name, tmp_path / name)
    flags = ("--data", shapes, "--cls", tmp_path / "cls", "--out", tmp_path / "masks",
             "--target-layer", "features.5", "--workers", 0, "--device", "cpu")
    assert call("make_masks", *flags, "--overwrite") == 0
    shutil.copy(tmp_path / "cls/fold0/best.pt", tmp_path / "cls/fold0/swa.pt")
    before = contents(tmp_path)
    capsys.readouterr()
    assert call("make_masks", *flags, "--resume") == 2
    assert "fold0/swa.pt changed since" in capsys.readouterr().err
    assert call("make_masks", *flags, "--reuse-maps") == 2
    assert "were not made with" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_evaluation_stops_when_asked(runs, shapes, tmp_path, monkeypatch, capsys):
    raise_in(monkeypatch, metrics, "counts_with_background", 1)
    flags = ("--data", shapes, "--out", tmp_path, "--figures", 0, f"m={runs}/masks/masks.csv")
    assert call("evaluate", *flags) == 143
    monkeypatch.undo()
    assert call("evaluate", *flags, "--resume") == 0


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
    real = folder.start_run

    def start_run(*args):
        real(*args)
        (tmp_path / "d/train_images/007.png").unlink()

    monkeypatch.setattr(folder, "start_run", start_run)
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
    with pytest.raises(RuntimeError), whole_file(path) as file:
        file.write("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"] and path.read_text() == "before"
