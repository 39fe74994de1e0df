"""The floors of the package: who may import whom, and that the tester notices."""

import subprocess
import sys
from pathlib import Path

import pytest
from floors import SCRIPTS, complaints

ROOT = Path(__file__).parent.parent


def test_the_floors_of_this_project():
    assert complaints(ROOT) == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_shown_without_torch(script):
    done = subprocess.run([sys.executable, "-X", "importtime", f"{script}.py", "--help"], cwd=ROOT,
                          capture_output=True, text=True)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0 and "--out" in done.stdout
    assert "argparse" in loaded and "cam2seg.runs.flags" in loaded
    assert not {name for name in loaded if name.partition(".")[0] in ("torch", "torchvision")}


# The tester


DOC = '"""Things of this kind.\n\nWhat is of another kind does not belong here.\n"""\n'
RIGHT = {
    "train_cls.py": "from cam2seg.training import fit\nfrom cam2seg.report import tables\n",
    "cam2seg/__init__.py": "class Error(ValueError):\n    pass\ndef load() -> None:\n"
                           "    from .training import fit\n",
    "cam2seg/cam.py": "import math\nimport numpy as np\nimport torch.nn.functional as F\n",
    "cam2seg/masks.py": "import numpy\n",
    "cam2seg/metrics.py": "from .masks import rle_decode\n",
    "cam2seg/models.py": "import torchvision\n",
    "cam2seg/data/__init__.py": DOC,
    "cam2seg/data/files.py": "from PIL import Image\nfrom .. import Error, masks\n"
                             "from . import errors\n",
    "cam2seg/methods/__init__.py": DOC,
    "cam2seg/methods/seam.py": "import torch\nfrom .. import cam\n",
    "cam2seg/runs/__init__.py": DOC, "cam2seg/runs/flags.py": "from ..data import files\n",
    "cam2seg/training/__init__.py": DOC,
    "cam2seg/training/fit.py": "from ..runs.flags import parser\nfrom .. import cam\n",
    "cam2seg/demo/__main__.py": "from ..runs.exits import run\n",
    "cam2seg/report/__init__.py": DOC, "cam2seg/report/tables.py": "from ..data import files\n",
    "cam2seg/demo/__init__.py": DOC, "cam2seg/demo/strips.py": "from ..report import tables\n"}


def tree(folder, changes):
    for name, text in {**RIGHT, **changes}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_a_right_tree_has_no_complaint(tmp_path):
    assert complaints(tree(tmp_path, {})) == []


def lines(n):
    return "\n".join(f"    x = {i}" for i in range(n))


@pytest.mark.parametrize("name, text, said", [
    ("cam2seg/cam.py", "import PIL\n", "top floor imports PIL"),
    ("cam2seg/cam.py", "import torchvision\n", "top floor imports torchvision"),
    ("cam2seg/cam.py", "from . import models\n", "top floor imports cam2seg.models"),
    ("cam2seg/cam.py", "def f() -> None:\n    from .data.files import a\n",
     "top floor imports cam2seg.data.files.a"),
    ("cam2seg/data/files.py", "from ..runs import flags\n", "data imports cam2seg.runs.flags"),
    ("cam2seg/data/files.py", "from .. import load\n", "data imports cam2seg.load"),
    ("cam2seg/data/files.py", "import cam2seg.report.tables\n",
     "data imports cam2seg.report.tables"),
    ("cam2seg/methods/seam.py", "from ..data import files\n", "methods imports cam2seg.data.files"),
    ("cam2seg/methods/seam.py", "from .. import Error\n", "methods imports cam2seg.Error"),
    ("cam2seg/runs/flags.py", "from ..training.fit import fit\n",
     "runs imports cam2seg.training.fit.fit"),
    ("cam2seg/runs/flags.py", "from cam2seg import demo\n", "runs imports cam2seg.demo"),
    ("cam2seg/runs/flags.py", "from ..report import tables\n", "runs imports cam2seg.report"),
    ("cam2seg/training/fit.py", "from ..report import tables\n", "training imports cam2seg.report"),
    ("cam2seg/training/fit.py", "from ..demo import strips\n", "training imports cam2seg.demo"),
    ("cam2seg/training/fit.py", "import make_masks\n", "imports the script make_masks"),
    ("cam2seg/report/tables.py", "from ..runs import flags\n", "report imports cam2seg.runs.flags"),
    ("cam2seg/demo/strips.py", "from ..training import fit\n", "demo imports cam2seg.training.fit"),
    ("cam2seg/demo/__main__.py", "import evaluate\n", "imports the script evaluate"),
    ("train_cls.py", "from evaluate import main\n", "imports the script evaluate"),
    ("cam2seg/runs/__init__.py", "", "no __init__.py with a docstring"),
    ("cam2seg/runs/__init__.py", '"""Flags."""\n', "does not say what does not belong there"),
    ("cam2seg/runs/__init__.py", '"""Formulas do not belong here."""\n',
     "does not say what belongs there"),
    ("cam2seg/other/a.py", "", "other: no __init__.py"),
    ("cam2seg/runs/flags.py", f"def f() -> None:\n{lines(50)}\n", "f has 51 lines"),
    ("train_cls.py", "class A:\n    def f():\n" + "        x = 1\n" * 50, "f has 51 lines"),
    ("train_cls.py", "def f(a, b, c, d, *e, f, g, **h):\n    pass\n", "f has 8 parameters"),
    ("cam2seg/masks.py", "def f(a: int):\n    pass\n", "f has no annotation of its return value"),
    ("cam2seg/masks.py", "def f(a, b: int, *c, d=1, **e) -> int:\n    pass\n",
     "f has no annotation of a, d, c, e"),
    ("cam2seg/data/files.py", "class A:\n    def f(self, a) -> None:\n        pass\n",
     "f has no annotation of a"),
    ("cam2seg/masks.py", "x = 1\n" * 261, "261 lines, expected 260"),
    ("train_cls.py", "x = 1\n" * 261, "261 lines, expected 260"),
    ("cam2seg/cam.py", "x = 1\n" * 331, "331 lines, expected 330")])
def test_a_wrong_tree_is_noticed(tmp_path, name, text, said):
    found = complaints(tree(tmp_path, {name: text}))
    assert len(found) == 1 and said in found[0], found


def test_private_and_inner_functions_and_scripts_need_no_annotation(tmp_path):
    text = ("class A:\n    def __init__(self, a):\n        pass\n"
            "    def _f(self, a):\n        pass\n"
            "def _f(a):\n    pass\ndef f() -> None:\n    def g(a):\n        pass\n")
    changes = {"cam2seg/masks.py": text, "train_cls.py": "def f(a):\n    pass\n"}
    assert complaints(tree(tmp_path, changes)) == []


def test_what_is_just_within_the_limits_is_let_pass(tmp_path):
    text = f"def get_args():\n{lines(60)}\ndef f(self, a, b, c, d, e, f, g):\n{lines(49)}\n"
    assert complaints(tree(tmp_path, {"train_cls.py": text})) == []
