"""AUDIT.md stays true: tags, functions, tests, deviations, commands and the worked example."""

import ast
import contextlib
import doctest
import io
import itertools
import json
import math
import re
import shlex
import tokenize
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import SCRIPTS, call

import make_masks
import train_cls
import train_seg
from cam2seg import cam, metrics, models
from cam2seg.data.labels import Labels
from cam2seg.training import cross_validation, segmentation_work
from cam2seg.training.held_out_maps import smoothed_maps
from cam2seg.training.work import BY_GRADIENTS

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "AUDIT.md").read_text(encoding="utf-8")
CODE = sorted([*(ROOT / "cam2seg").rglob("*.py"), *(ROOT / f"{s}.py" for s in SCRIPTS)])
TAG = re.compile(r"\[([PCHVKS]-[0-9]+|[A-Z]{2,6})\]")
DEV = re.compile(r"DEV-[0-9]+")


def tables():
    """The tables of AUDIT.md: lists of rows of cells, the header first."""
    for block in re.findall(r"(?:^\|.*\n)+", TEXT, re.M):
        rows = [[cell.strip() for cell in line.strip("|").split("|")]
                for line in block.splitlines()]
        yield [rows[0], *rows[2:]]


def rows_under(*header):
    return [row for table in tables() if table[0] == list(header) for row in table[1:]]


FORMULAS = rows_under("tag", "formula", "in the source", "code", "proof", "deviation")
DEVIATIONS = rows_under("no.", "the paper says", "we do", "why", "flag for the other reading",
                        "where", "effect")


def prose(path):
    """Comments and strings of a file: where tags are cited, unlike in code such as x[B]."""
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", None)}
    with open(path, "rb") as file:
        return "\n".join(t.string for t in tokenize.tokenize(file.readline) if t.type in kinds)


def definitions(path):
    """{name: source} of the functions, classes and methods (Class.name) of a file."""
    source, found = path.read_text(encoding="utf-8"), {}
    lines = source.splitlines()

    def visit(node, prefix):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                found[prefix + child.name] = "\n".join(lines[child.lineno - 1:child.end_lineno])
                visit(child, prefix + child.name + ".")

    visit(ast.parse(source), "")
    return found


def named(text):
    """(file, name) of each file.py::name."""
    return re.findall(r"`([\w./]+\.py)::([\w.]+)`", text)


def test_the_tables_of_the_page_are_found():
    assert len(FORMULAS) >= 30 and len(DEVIATIONS) >= 14
    assert all(len(row) == 6 for row in FORMULAS) and all(len(row) == 7 for row in DEVIATIONS)


@pytest.mark.parametrize("path", CODE, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_tag_cited_in_the_code_has_a_row(path):
    in_formulas = set(TAG.findall("\n".join(row[0] for row in FORMULAS)))
    cited = prose(path)
    assert set(TAG.findall(cited)) <= in_formulas
    assert set(DEV.findall(cited)) <= {row[0] for row in DEVIATIONS}


def test_every_formula_of_the_paper_has_a_row_and_is_cited_in_the_code():
    cited = set(TAG.findall("\n".join(map(prose, CODE))))
    first = "\n".join(row[0] for row in FORMULAS)
    for n in range(1, 8):
        assert f"[P-{n}]" in first and f"P-{n}" in cited
    for n in range(1, 43):
        assert f"[C-{n}]" in first and f"C-{n}" in cited
    for n in range(1, 7):
        assert f"[H-{n}]" in first and f"H-{n}" in cited
    for n in range(1, 10):
        assert f"[V-{n}]" in first and f"V-{n}" in cited
    for n in range(1, 9):
        assert f"[K-{n}]" in first and f"K-{n}" in cited
    for n in range(1, 11):
        assert f"[S-{n}]" in first and f"S-{n}" in cited
    for tag in ("[GC] Eq. 1", "[GC] Eq. 2", "[PP] Eq. 5", "[PP] Eq. 6", "[PP] Eq. 10",
                "[PP] Eq. 19", "[GB]", "[SWA]", "[TN]"):
        assert tag in first


def test_every_function_and_test_named_exists():
    found = {}
    assert len(named(TEXT)) > 100
    for file, name in named(TEXT):
        path = ROOT / file
        assert path.is_file(), file
        found.setdefault(file, definitions(path))
        assert name in found[file], f"{file}::{name}"
        if file.startswith("tests/"):
            assert name.rpartition(".")[2].startswith("test_"), f"{file}::{name} is no test"


def test_every_formula_names_its_code_and_a_test():
    for tag, _, source, code, proof, deviation in FORMULAS:
        assert source, tag
        assert named(code) and not any(f.startswith("tests/") for f, _ in named(code)), tag
        assert any(f.startswith("tests/") for f, _ in named(proof)), tag
        assert set(DEV.findall(deviation)) <= {row[0] for row in DEVIATIONS}, tag


def test_every_file_with_formulas_is_named_in_full():
    """`file.py::name` that the pattern above would pass over."""
    assert len(named(TEXT)) == TEXT.count(".py::")
    for file in re.findall(r"`((?:cam2seg|tests)/[\w/]+\.py)`", TEXT):
        assert (ROOT / file).is_file(), file


def test_deviations_are_numbered_without_gap_and_cited_where_their_row_says():
    assert [row[0] for row in DEVIATIONS] == [f"DEV-{n + 1}" for n in range(len(DEVIATIONS))]
    for number, paper, ours, why, _, where, effect in DEVIATIONS:
        assert paper and ours and why and effect, number
        (file, name), = named(where)
        assert re.search(rf"{number}\b", definitions(ROOT / file)[name]), \
            f"{where} does not cite {number}"
    assert set(DEV.findall(TEXT)) <= {row[0] for row in DEVIATIONS}


def test_flags_named_for_other_readings_exist():
    known = {option for script in SCRIPTS.values() for option in options(script)}
    for number, *_, flags, _, _ in DEVIATIONS:
        assert set(re.findall(r"--[\w-]+", flags)) <= known, number


def options(script):
    """Option strings of a script, from its own --help."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
        script.get_args(["--help"])
    return re.findall(r"--[\w-]+", out.getvalue())


def test_every_command_is_one_its_script_takes():
    commands = re.findall(r"`python (\w+)\.py ([^`]*)`", TEXT)
    assert len(commands) >= 11
    for script, flags in commands:
        args = SCRIPTS[script].get_args(shlex.split(flags))
        assert str(args.data) == "severstal"
    made = {str(SCRIPTS[s].get_args(shlex.split(f)).out) for s, f in commands}
    used = set(re.findall(r"\bruns/\w+", " ".join(f for _, f in commands)))
    assert made == used  # each folder that a command reads is written by another


def test_the_worked_example():
    found = doctest.testfile(str(ROOT / "AUDIT.md"), module_relative=False,
                             optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted > 30 and found.failed == 0


def test_the_papers_settings_are_the_defaults():
    cls, made, seg = train_cls.get_args([]), make_masks.get_args([]), train_seg.get_args([])
    assert (cls.arch, cls.weights) == ("b0", "imagenet")
    assert (cls.batch_size, cls.folds, cls.swa) == (64, 5, 3)
    assert (cls.lr_encoder, cls.lr_head, cls.hflip, cls.vflip) == (1e-4, 1e-3, True, False)
    assert (made.method, made.checkpoint, made.aug_smooth) == ("gradcam++", "swa", True)
    assert (made.confidence, made.min_seg_len, made.threshold) == (0.5, 0, 0.3)
    assert (seg.arch, seg.weights, seg.min_seg_len, seg.threshold) == ("b0", "imagenet", 0, 0.2)
    assert cam.SMOOTH_FACTORS == (1.0, 1.1, 0.9)


# Formulas that live in the scripts


@pytest.mark.parametrize("script, kind, head, flags", [
    ("train_cls", models.Classifier, ["head"], []),
    ("train_seg", models.UNet, ["decoder", "head"], ["--masks", "train.csv", "--folds", "f.csv"])])
def test_adam_gets_the_papers_two_rates(shapes, tmp_path, monkeypatch, script, kind, head, flags):
    """And the classifier its loss [P-7]: all as they reach the training loop."""
    seen = []

    def stop(model, optimizer, train, val, settings, out):
        seen.append((model, optimizer, settings.loss))
        raise KeyboardInterrupt

    monkeypatch.setattr(cross_validation, "fit", stop)
    (tmp_path / "f.csv").write_text("ImageId,fold\n" + "".join(
        f"{n:03d}.png,{n % 2}\n" for n in range(48)))
    flags = [{"train.csv": shapes / "train.csv", "f.csv": tmp_path / "f.csv"}.get(f, f)
             for f in flags]
    assert call(script, "--data", shapes, "--out", tmp_path / "out", *flags, "--weights", "none",
                "--size", 64, 64, "--workers", 0, "--device", "cpu") == 130
    (model, optimizer, loss), = seen
    assert isinstance(model, kind) and type(optimizer) is torch.optim.Adam
    encoder, rest = optimizer.param_groups
    assert (encoder["lr"], rest["lr"]) == (1e-4, 1e-3)
    others = [p for name in head for p in getattr(model, name).parameters()]
    assert {id(p) for p in rest["params"]} == {id(p) for p in others}
    assert {id(p) for p in encoder["params"]} == {id(p) for p in model.parameters()} - {
        id(p) for p in others}
    if script == "train_cls":
        y, target = torch.randn(5, 3), torch.rand(5, 3).round()
        literal = sum(-math.log(p if t else 1 - p) for p, t in zip(
            y.double().sigmoid().flatten().tolist(), target.flatten().tolist(), strict=True)) / 15
        assert loss(y, target).item() == pytest.approx(literal, rel=1e-5)


@pytest.mark.parametrize("ignored", [None, {("a.png", 0): "1 1"}])
def test_the_loss_of_train_seg_equals_the_loops(ignored):
    """[P-7] and soft Dice (DEV-36), with 255 in the target for a pixel that is left out."""
    torch.manual_seed(0)
    y = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    target = (torch.rand(2, 3, 4, 5) < 0.3).byte()
    target[:, 2] = 0  # a class that is nowhere
    if ignored:
        target[torch.rand(2, 3, 4, 5) < 0.2] = 255
    p, bce, soft, counted = y.sigmoid(), 0.0, 0.0, int((target != 255).sum())
    for c in range(3):
        both = total = true = 0.0
        for b, i, j in itertools.product(range(2), range(4), range(5)):
            t, q = target[b, c, i, j].item(), p[b, c, i, j].item()
            if t != 255:
                bce -= (t * math.log(q) + (1 - t) * math.log(1 - q)) / counted
                both, total, true = both + t * q, total + t + q, true + t
        soft += (1 - 2 * both / total) / 2 if true else 0.0
    given = Labels(["a.png"], ["1", "2", "3"], None, {}, {})
    work = segmentation_work.Work(given, None, ignored, None, {}, {}, None)
    for kind, expected in (("bce", bce), ("dice", soft), ("bce+dice", bce + soft)):
        args = train_seg.get_args(["--loss", kind, "--weights", "none"])
        loss = train_seg.seg_recipe(args, work, (64, 64)).loss
        assert loss(y, target).item() == pytest.approx(expected, rel=1e-6)


def test_table1_counts_all_images_and_those_with_a_defect(monkeypatch):
    y = np.array([[1, 0], [0, 1], [1, 1], [0, 0], [0, 0]])
    p = np.array([[0.9, 0.2], [0.4, 0.4], [0.3, 0.8], [0.5, 0.1], [0.1, 0.4]])
    pairs = []

    def auc(y, p):
        pairs.append((y.tolist(), p.tolist()))
        return float(len(pairs))

    monkeypatch.setattr(metrics, "roc_auc", auc)
    every, defect = train_cls.table1("b0", y, p)
    assert pairs == [(y[:, 0].tolist(), p[:, 0].tolist()), (y[:, 1].tolist(), p[:, 1].tolist()),
                     (y[:3, 0].tolist(), p[:3, 0].tolist()), (y[:3, 1].tolist(), p[:3, 1].tolist())]
    assert every == {"model": "b0, all images", "images": 5, "roc_auc": [1.0, 2.0], "mean": 1.5}
    assert defect == {"model": "b0, with a defect", "images": 3, "roc_auc": [3.0, 4.0], "mean": 3.5}


def test_the_script_offers_all_formulas():
    assert set(BY_GRADIENTS) == {*cam.FORMULAS, "guided-gradcam"}
    assert make_masks.FROM_MAPS == (*BY_GRADIENTS, "seam")


def test_the_gate_looks_at_the_plain_image():
    """DEV-15, and that the flags choose the views."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.SiLU(), torch.nn.Flatten(),
                              torch.nn.Linear(4 * 4 * 4, 2)).double().eval()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    for method, smooth in itertools.product(BY_GRADIENTS, (0, 1)):
        args = SimpleNamespace(target_layer="1", method=method, aug_smooth=bool(smooth),
                               smooth_image=False)
        maps, logits = smoothed_maps(args, net, x, preprocess)
        assert torch.allclose(logits, net(x))
        views = [x * f for f in (1.0, 1.1, 0.9)] if smooth else [x]
        total = 0
        for view, mirror in itertools.product(views, (False, True) if smooth else (False,)):
            seen = view.flip(-1) if mirror else view
            one = (cam.guided_grad_cam(net, seen, "1") if method == "guided-gradcam"
                   else cam.class_maps(net, seen, "1", method))[0]
            total = total + (one.flip(-1) if mirror else one)
        assert torch.allclose(maps, total / (6 if smooth else 1))
        assert maps.max() > 0


def test_image_maps_normalise_first_or_last():
    """DEV-5 by hand: 2 6 2 becomes 0 1 0, and its interpolated peak is 3/4; upscaled first, that
    peak is 5 and becomes 1. Of the maximum: 1/3, 1, 1/3 with a peak of 5/6; 2/5, 1."""
    m = torch.tensor([[[[2.0, 6.0, 2.0]]]], dtype=torch.float64)
    for how, after, expected in [
            ("minmax", False, [0, 1 / 4, 3 / 4]), ("minmax", True, [0, 1 / 3, 1]),
            ("max", False, [1 / 3, 1 / 2, 5 / 6]), ("max", True, [2 / 5, 3 / 5, 1])]:
        got = cam.image_maps(m, (1, 6), how, after)[0, 0, 0]
        expected = torch.tensor([*expected, *expected[::-1]], dtype=torch.float64)
        assert torch.allclose(got, expected), (how, after)
    plain = cam.image_maps(m, (1, 6))
    assert torch.equal(plain, cam.image_maps(m, (1, 6), "minmax", False))


def test_the_effect_column_is_what_make_readings_wrote():
    measured = json.loads((ROOT / "benchmarks/results/readings_demo.json").read_text())["table"]
    effects = {}
    for dev, what, pairs, present in measured:
        effects.setdefault(dev, []).append(f"{what}: {pairs:.4f} / {present:.4f}")
    assert "; ".join(effects.pop("")) in " ".join((ROOT / "AUDIT.md").read_text().split())
    column = {row[0]: row[-1] for row in DEVIATIONS}
    assert len(effects) > 15
    for dev, said in effects.items():
        assert column[dev] == "; ".join(said), dev
