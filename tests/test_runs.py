"""What every run needs: whole files, checkpoints, progress, devices and seeds, processes."""

import argparse
import os
import re
from pathlib import Path

import pytest
import torch
import torch.nn as nn

import cam2seg
from conftest import RunsCode, Terminal, equal_states

from cam2seg.data import files as files_module
from cam2seg.data.errors import DataError
from cam2seg.data.files import whole_file
from cam2seg.runs import processes, progress, signals
from cam2seg.runs.checkpoints import FORMAT, CheckpointError, load_checkpoint, save_checkpoint
from cam2seg.runs.exits import run
from cam2seg.runs.progress import Console, Progress
from cam2seg.training.devices import (check_memory, note_slow_bfloat16, pick_device,
                                      seed_torch)

META = {"kind": "toy", "note": [1, "a"]}


def toy_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
                         nn.Dropout(0.3), nn.Linear(16, 2))


class Killed(BaseException):
    pass


# Checkpoints


def test_checkpoint_round_trip(tmp_path):
    net = toy_net()
    net[1].running_mean.normal_()
    meta = {"kind": "toy", "best": [{"epoch": 1, "val_loss": 0.5}], "size": [1, 2], "none": None}
    save_checkpoint(tmp_path / "a.pt", net, meta)
    state = load_checkpoint(tmp_path / "a.pt", "toy")
    equal_states(state.pop("model"), net.state_dict())
    assert state == {"format": FORMAT, **meta}
    assert load_checkpoint(str(tmp_path / "a.pt"))["kind"] == "toy"
    assert os.listdir(tmp_path) == ["a.pt"]


def test_an_interrupted_save_keeps_the_old_file(tmp_path, monkeypatch):
    old = toy_net(1)
    save_checkpoint(tmp_path / "a.pt", old, META)
    before = (tmp_path / "a.pt").read_bytes()

    def half(obj, file):
        file.write(before[:100])
        raise Killed

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(Killed):
        save_checkpoint(tmp_path / "a.pt", toy_net(2), META)
    assert (tmp_path / "a.pt").read_bytes() == before
    equal_states(load_checkpoint(tmp_path / "a.pt")["model"], old.state_dict())


def test_a_checkpoint_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    did, path = [], tmp_path / "a.pt"
    fsync, replace = os.fsync, os.replace

    def synced(fd):
        did.append(("fsync", os.fstat(fd).st_size))
        fsync(fd)

    def replaced(a, b):
        did.append(("replace", os.path.getsize(a)))
        assert not path.exists() and Path(b) == path
        replace(a, b)

    monkeypatch.setattr(files_module.os, "fsync", synced)
    monkeypatch.setattr(files_module.os, "replace", replaced)
    save_checkpoint(path, toy_net(), META)
    size = path.stat().st_size
    assert did == [("fsync", size), ("replace", size)]


def test_a_file_has_its_whole_text_or_that_of_before(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"

    def write(text):
        with whole_file(path, encoding="utf-8") as file:
            file.write(text)

    write("é one\n")
    assert path.read_bytes() == "é one\n".encode() and os.listdir(tmp_path) == ["a.txt"]

    def killing(a, b):
        raise Killed

    monkeypatch.setattr(files_module.os, "replace", killing)
    with pytest.raises(Killed):
        write("two\n")
    assert path.read_text(encoding="utf-8") == "é one\n"


def bad_checkpoint(kind, folder):
    path = folder / f"{kind}.pt"
    if kind == "garbage":
        path.write_bytes(b"no checkpoint " * 99)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        save_checkpoint(path, toy_net(), META)
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == "folder":
        path.mkdir()
    elif kind == "no dict":
        torch.save([1, 2], path)
    elif kind == "no format":
        torch.save({"model": {}, "kind": "toy"}, path)
    elif kind == "newer format":
        torch.save({"model": {}, "kind": "toy", "format": FORMAT + 1}, path)
    elif kind == "code":
        torch.save({"format": FORMAT, "kind": "toy", "model": RunsCode(folder / "ran")},
                   path)
    return path


@pytest.mark.parametrize("kind, reason", [
    ("missing", "cannot be read"), ("garbage", "cannot be read"), ("empty", "cannot be read"),
    ("cut", "cannot be read"), ("folder", "cannot be read"), ("code", "cannot be read"),
    ("no dict", "expected a checkpoint of format 1"),
    ("no format", "expected a checkpoint of format 1"),
    ("newer format", "expected a checkpoint of format 1")])
def test_load_checkpoint_refuses_in_one_line_that_names_the_file(kind, reason, tmp_path):
    path = bad_checkpoint(kind, tmp_path)
    with pytest.raises(CheckpointError, match=reason) as error:
        load_checkpoint(path, "toy")
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    assert isinstance(error.value, ValueError) and not (tmp_path / "ran").exists()
    assert isinstance(error.value, cam2seg.Error)


def test_code_in_a_checkpoint_would_run_if_it_were_let(tmp_path):
    """The file of the test above is a live one."""
    torch.load(bad_checkpoint("code", tmp_path), weights_only=False)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("meta, said", [({"kind": "unet"}, "a unet, expected a classifier"),
                                        ({}, "a None, expected a classifier")])
def test_load_checkpoint_refuses_another_kind(meta, said, tmp_path):
    save_checkpoint(tmp_path / "a.pt", toy_net(), meta)
    with pytest.raises(CheckpointError, match=said):
        load_checkpoint(tmp_path / "a.pt", "classifier")
    assert load_checkpoint(tmp_path / "a.pt")["format"] == FORMAT


# Progress


def test_progress_shows_done_rate_and_time_left_on_a_terminal_only(monkeypatch, capsys):
    Progress(4, "work", Console()).add(4)
    assert capsys.readouterr() == ("", "")
    times = iter([0.0, 10.0, 10.0, 20.0, 20.0])  # the bar reads the clock as well
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(times))
    monkeypatch.setattr(progress.sys, "stderr", Terminal())
    clock = Progress(40, "work", Console())
    clock.add(10)
    assert progress.sys.stderr.text == "\r\033[Kwork: 10/40 images  1 images/s  30 s left"
    clock.add(30)
    assert progress.sys.stderr.text.endswith("\r\033[Kwork: 40/40 images  2 images/s\r\033[K")


def test_the_bar_is_drawn_twice_a_second_and_at_the_end(monkeypatch):
    """The clock stands at 1.0, 1.3, 1.6 and 1.7 s after four steps of ten."""
    times = iter([0.0, 1.0, 1.0, 1.3, 1.3, 1.6, 1.6, 1.7, 1.7])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(times))
    monkeypatch.setattr(progress.sys, "stderr", Terminal())
    clock = Progress(40, "work", Console())
    for _ in range(4):
        clock.add(10)
    shown = re.findall("work: [0-9/]*", progress.sys.stderr.text)
    assert shown == ["work: 10/40", "work: 30/40", "work: 40/40"]


def test_progress_reports_facts_and_says_nothing_by_itself(monkeypatch, capsys):
    told, times = [], iter([0.0, 4.0, 5.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(times))
    clock = Progress(12, "work", lambda event, **facts: told.append((event, facts)))
    clock.add(2)
    clock.add(8)
    same = {"what": "work", "total": 12, "unit": "images", "loss": None}
    assert told == [("step", {**same, "done": 2, "rate": 0.5, "left": 20.0}),
                    ("step", {**same, "done": 10, "rate": 2.0, "left": 1.0})]
    monkeypatch.undo()
    Progress(4, "work").add(4)
    assert capsys.readouterr() == ("", "")


def test_progress_stops_where_a_signal_has_asked_for_it(monkeypatch):
    clock = Progress(4, "work")
    clock.add(1)
    monkeypatch.setattr(signals, "_asked", [15])
    with pytest.raises(signals.Stopped, match="SIGTERM"):
        clock.add(1)
    assert clock.done == 2


def test_console_prints_notes_and_epochs_in_the_first_process_only(monkeypatch, capsys):
    facts = dict(out="runs/fold0", title="fold 0 (1 of 5), ", left=750.0, epoch=3,
                 epochs=20, loss=0.21, val_loss=0.3, lr=[1e-4, 5e-4],
                 images_per_second=81.5, seconds=3.0, waited=0.1)
    Console()("epoch", **facts)
    Console()("note", text="maps of features.8")
    assert capsys.readouterr() == ("fold 0 (1 of 5), epoch 3/20: loss 0.2100  val 0.3000  "
                                   "lr 5.0e-04  81.5 images/s  12 min left\n"
                                   "maps of features.8\n", "")
    monkeypatch.setattr(processes, "_world", (1, 2))
    Console()("epoch", **facts)
    Console()("note", text="maps of features.8")
    assert capsys.readouterr() == ("", "")


def test_progress_adds_up_the_wait_for_items(monkeypatch):
    times = iter([0.0, 1.0, 1.5, 5.0, 7.0, 9.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(times))
    clock = Progress(2, "work")
    assert list(clock.timed(iter("ab"))) == ["a", "b"]
    assert clock.waited == 0.5 + 2.0


# Devices and seeds


def test_pick_device(monkeypatch):
    assert pick_device("cpu") == torch.device("cpu")
    for there, kind in ((0, "cpu"), (2, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda there=there: there)
        assert pick_device().type == kind
    assert pick_device("cuda") == torch.device("cuda")
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ValueError, match="^'cuda:2' is not there: torch finds 2 CUDA devices$"):
        pick_device("cuda:2")


@pytest.mark.parametrize("amp, fast, lines", [(True, False, 1), (True, True, 0), (False, False, 0)])
def test_amp_without_instructions_for_bfloat16_is_told(monkeypatch, amp, fast, lines):
    said = []
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8 if fast else 7, 5))
    for kind, name in (("cpu", "CPU"), ("cuda:1", "GPU")):
        note_slow_bfloat16(amp, torch.device(kind), lambda event, text: said.append(text))
        assert len(said) == lines and all(f"--amp: this {name} has no" in text for text in said)
        said.clear()


def test_a_batch_that_no_memory_holds_is_refused_before_work_begins():
    device = torch.device("cpu")
    with pytest.raises(DataError, match=r"^--size 99999 99999: a batch of 64 images needs more than "
                                        r"26[0-9]{3} GiB of memory, [0-9]+ are there; a smaller"):
        check_memory(64, (99999, 99999), device)
    check_memory(1, (64, 64), device)
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    check_memory(1, (1, there // 44), device)
    with pytest.raises(DataError):
        check_memory(1, (1, there // 44 + 1), device)


@pytest.mark.parametrize("said", [
    "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 1919961600000 bytes. Error code 12 (Cannot allocate memory)",
    "CUDA out of memory. Tried to allocate 2.00 GiB"])
def test_memory_that_ran_out_is_said_in_one_line(said, capsys):
    def main(args):
        raise RuntimeError(said)

    fewer = "; fewer --workers or a smaller --batch-size may help"
    again = "; the same command with --resume goes on from here"
    for flags, advice in (({}, ""), ({"resume": False}, again),
                          ({"resume": True, "batch_size": 8}, fewer + again)):
        assert run(main, lambda flags=flags: argparse.Namespace(**flags)) == 1
        assert capsys.readouterr().err == f"error: {said}{advice}\n"


def test_seed_torch_tells_its_parts_apart():
    def draw(*parts):
        seed_torch(*parts)
        return torch.rand(4).tolist()

    assert draw(1, 2, 3) == draw(1, 2, 3)
    draws = [draw(*p) for p in [(1, 2, 3), (3, 2, 1), (1, 2, 4), (0, 2, 3), (1, 0, 3), (6, 1)]]
    assert len({tuple(d) for d in draws}) == 6


# Processes


def test_without_torchrun_a_run_is_one_process_that_talks_to_nobody(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    model = toy_net()
    processes.join()
    assert (processes.rank(), processes.world_size(), processes.is_first()) == (0, 1, True)
    assert processes.torchrun_world() == (0, 1)
    assert processes.all_gather("a") == ["a"] and processes.gather_in_turn([1, 2]) == [1, 2]
    assert processes.all_reduce_or_stop(3) == 3 and processes.barrier() is None
    assert processes.distributed_model(model, torch.device("cpu")) is model
    before = {k: v.clone() for k, v in model.state_dict().items()}
    processes.broadcast_buffers(model)
    equal_states(model.state_dict(), before)
    processes.leave()
    assert processes.world_size() == 1


@pytest.mark.parametrize("there, world", [
    ({"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "a"}, (1, 4)),
    ({"RANK": "1", "WORLD_SIZE": "4"}, (0, 1)), ({"RANK": "x", "WORLD_SIZE": "4",
                                                 "MASTER_ADDR": "a"}, (0, 1))])
def test_torchrun_is_known_by_its_three_variables(monkeypatch, there, world):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in there.items():
        monkeypatch.setenv(name, value)
    assert processes.torchrun_world() == world


def test_the_first_process_does_a_job_for_all(monkeypatch):
    def refuse():
        raise DataError("no")

    assert processes.run_on_first(lambda: {"a": 1}, (DataError, OSError)) == {"a": 1}
    with pytest.raises(DataError, match="^no$"):
        processes.run_on_first(refuse, (OSError, DataError))
    monkeypatch.setattr(processes, "_world", (1, 2))  # the other process of two
    monkeypatch.setattr(processes, "all_gather", lambda value: [({"a": 1}, None), value])
    assert processes.run_on_first(refuse, (DataError, OSError)) == {"a": 1}
    monkeypatch.setattr(processes, "all_gather", lambda value: [(None, "no"), value])
    with pytest.raises(DataError, match="^no$"):
        processes.run_on_first(lambda: {"a": 1}, (DataError, OSError))


def test_only_a_broken_connection_means_that_a_process_is_lost():
    for said, kind in (("Connection closed by peer [127.0.0.1]", processes.Lost),
                       ("shapes (2, 3) and (4, 5)", RuntimeError)):
        with pytest.raises(RuntimeError) as error, processes.lost_if_gone():
            raise RuntimeError(said)
        assert type(error.value) is kind


def test_only_the_first_process_writes_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_world", (1, 2))
    save_checkpoint(tmp_path / "a.pt", toy_net(), META)
    assert os.listdir(tmp_path) == []
