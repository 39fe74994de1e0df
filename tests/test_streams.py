"""Closed and broken streams, pipes in the place of files, and signals that come early."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import HEAD, SCRIPTS, call, good_rows

from cam2seg import models
from cam2seg.data import stored_maps
from cam2seg.data.csv_files import read_csv
from cam2seg.data.errors import DataError
from cam2seg.data.images import open_image
from cam2seg.runs.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from cam2seg.runs.folder import read_json
from cam2seg.runs.restore import network
from cam2seg.runs.streams import Unstoppable, unstoppable

ROOT = Path(__file__).parent.parent
TEXT = """
import sys
from cam2seg.runs.exits import run
from cam2seg.runs.progress import Console

def main(args):
    report = Console()
    for n in range(5000):
        report("note", text=f"line {n}")
        report("step", what="x", done=n, total=5000, rate=1.0, left=1.0)
        print("error line", file=sys.stderr)
    open(sys.argv[1], "w").write("whole")

sys.exit(run(main, lambda: None))
"""


@pytest.mark.parametrize("how, read", [
    ("", True), ("| head -1", True), ("2>&-", True), ("0>&-", True), ("2> /dev/full", True),
    (">&-", False), (">&- 2>&-", False), ("0>&- >&- 2>&-", False), ("> /dev/full", False)])
def test_output_that_nobody_reads_stops_nothing(tmp_path, how, read):
    (tmp_path / "a.py").write_text(TEXT)
    command = f"{sys.executable} {tmp_path}/a.py {tmp_path}/out {how}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0 and (tmp_path / "out").read_text() == "whole"
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert done.stdout.count("line 0\n") == read


@pytest.mark.parametrize("where", ["/dev/null", "/dev/full"])
def test_streams_closed_at_the_start_take_no_file(tmp_path, where):
    """A file that is opened later must not become standard output."""
    (tmp_path / "a.py").write_text(
        "import os, sys\nfrom cam2seg.runs.exits import run\n"
        "def main(args):\n"
        f"    file = open(r'{tmp_path}/out', 'w')\n"
        "    os.write(1, b'stray') if file.fileno() > 2 else None\n"
        "    print('stray')\n    print('stray', file=sys.stderr)\n    file.write('whole')\n"
        "sys.exit(run(main, lambda: None))\n")
    done = subprocess.run(["bash", "-c", f"{sys.executable} {tmp_path}/a.py < {where} >&- 2>&-"],
                          cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0 and (tmp_path / "out").read_text() == "whole"


class Broken(io.StringIO):
    def write(self, text):
        raise BrokenPipeError

    def flush(self):
        raise BrokenPipeError


def test_a_stream_without_a_file_is_dropped_too(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Broken())
    with unstoppable():
        print("a line", flush=True)
        print("and another", flush=True)
        assert isinstance(sys.stdout, Unstoppable)
    assert isinstance(sys.stdout, Broken)
    stream = Unstoppable(Broken())
    assert stream.write("four") == 4 and stream.write("five") == 4


@pytest.mark.parametrize("script", [*([f"{name}.py"] for name in SCRIPTS), ["-m", "cam2seg.demo"]])
def test_ctrl_c_while_the_imports_run_leaves_no_traceback(tmp_path, script):
    (tmp_path / "numpy.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = subprocess.run([sys.executable, *script, "--help"], cwd=ROOT, capture_output=True,
                          text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


@pytest.mark.parametrize("how", ["| true", ">&- 2>&-", "> /dev/full"])
def test_the_demo_is_drawn_whoever_listens(tmp_path, how):
    command = (f"{sys.executable} -m cam2seg.demo {tmp_path}/d --images 2 --size 32 128 {how}; "
               "exit ${PIPESTATUS[0]}")
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and (tmp_path / "d/train.csv").is_file()


def test_importing_a_script_leaves_the_signals_alone():
    code = ("import signal\n"
            "before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]\n"
            "import train_cls\n"
            "assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before")
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_other_processes_of_torchrun_leave_evaluate_to_the_first(photos, tmp_path, monkeypatch,
                                                                     capsys):
    (tmp_path / "a.csv").write_text(HEAD + "\n".join(good_rows()) + "\n")
    flags = ("--images", photos, "--labels", tmp_path / "a.csv", f"m={tmp_path}/a.csv", "--out",
             tmp_path / "out")
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, value)
    assert call("evaluate", *flags) == 0
    assert not (tmp_path / "out").exists() and capsys.readouterr() == ("", "")
    monkeypatch.setenv("RANK", "0")
    assert call("evaluate", *flags) == 0
    assert json.loads((tmp_path / "out/metrics.json").read_text())["images"] == 9


READERS = {  # what reads a file: its error, and the name of the file
    "a CSV": (read_csv, DataError, "a.csv"),
    "a JSON file": (read_json, DataError, "args.json"),
    "a checkpoint": (load_checkpoint, CheckpointError, "swa.pt"),
    "weights": (lambda path: models.encoder("b0", path), ValueError, "b0.pth"),
    "an image": (open_image, DataError, "a.png"),
    "maps": (lambda path: stored_maps.read(path.parent), DataError, "maps.npy"),
}


@pytest.mark.parametrize("read, error, name", READERS.values(), ids=READERS)
def test_a_pipe_or_a_device_in_the_place_of_a_file(tmp_path, read, error, name):
    (tmp_path / "maps.csv").write_text("ImageId,fold,H,W,p of 1\na.jpg,0,8,8,1\n")
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        path = tmp_path / name
        make(path)
        with pytest.raises(error, match=f"{name}: .*expected a file"):
            read(path)
        path.unlink()


def test_a_pipe_with_the_name_of_an_image_is_none(photos, tmp_path, refused):
    os.mkfifo(photos / "99.jpg")
    (tmp_path / "labels.csv").write_text("ImageId,ClassId\n99.jpg,1\n")
    assert refused("train_cls", "--images", photos, "--labels", tmp_path / "labels.csv", "--out",
                   tmp_path / "out").endswith("image '99.jpg' is not in the image folder")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(tmp_path, value):
    pre = {"size": [32, 32], "mean": [0, 0, 0], "std": [1, 1, 1], "classes": ["pit"]}
    meta = {"kind": "toy", "preprocess": pre, "model_args": {"num_classes": 1}}
    net = torch.nn.BatchNorm1d(2)  # its count of batches is a whole number

    def build(num_classes, weights):
        return torch.nn.BatchNorm1d(2)

    save_checkpoint(tmp_path / "a.pt", net, meta)
    network(build, tmp_path / "a.pt", "toy")
    net.running_var[1] = value
    save_checkpoint(tmp_path / "a.pt", net, meta)
    with pytest.raises(CheckpointError, match="a.pt: running_var is not finite, expected numbers"):
        network(build, tmp_path / "a.pt", "toy")
    features = models.encoder("b0")
    state = {f"features.{k}": v for k, v in features.state_dict().items()}
    state["features.0.0.weight"][0, 0, 0, 0] = value
    torch.save(state, tmp_path / "b0.pth")
    with pytest.raises(ValueError, match="b0.pth: .*0.0.weight is not finite"):
        models.encoder("b0", tmp_path / "b0.pth")
