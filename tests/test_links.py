"""Links that someone has planted in --out never lead a file out of it."""

import ast
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import HEAD, call, good_rows

from cam2seg.data import stored_maps
from cam2seg.data.files import whole_file
from cam2seg.runs.checkpoints import save_checkpoint
from cam2seg.runs.folder import OUTPUT_FILES
from cam2seg.training.fit import append_log

ROOT = Path(__file__).parent.parent
NAMES = [name.replace("[0-9]*", "1") for name in (*OUTPUT_FILES, "args.json") if "/" not in name]
# Every call in the package that opens a file of a run for writing: nothing else may.
WRITERS = {"data/files.py": ["open"], "runs/locks.py": ["open"], "runs/folder.py": ["touch"],
           "data/stored_maps.py": ["save", "open_memmap", "open"],
           "report/pictures.py": ["save"],  # into the open file of whole_file
           "report/panels.py": ["save"],  # into memory
           # Into a new folder of exports.put, which test_mask_forms.py tests.
           "data/exports.py": ["save", "write_text", "write_text", "write_text"],
           "report/exports.py": ["save", "save"]}


def plant(out, outside, names):
    """Half of the links lead to a file and half to none; returns what is outside."""
    outside.mkdir(exist_ok=True)
    for n, name in enumerate(names):
        target = outside / f"{n}"
        if n % 2:
            target.write_text("mine")
            os.utime(target, (1, 1))
        (out / name).unlink(missing_ok=True)
        (out / name).symlink_to(target)
    return look(outside)


def look(outside):
    return {p.name: (p.read_bytes(), p.stat().st_mtime) for p in outside.iterdir()}


@pytest.mark.parametrize("ending", ["", ".tmp"])
@pytest.mark.parametrize("script, flags", [
    ("make_masks", ("--method", "contrast", "--review", 2)), ("evaluate", ("m={}/a.csv",))])
def test_a_run_leaves_what_links_in_its_folder_lead_to(photos, tmp_path, script, flags, ending):
    (tmp_path / "a.csv").write_text(HEAD + "\n".join(good_rows("1 40")) + "\n")
    out, outside = tmp_path / "out", tmp_path / "outside"
    flags = [str(f).format(tmp_path) for f in flags]
    flags += ["--images", photos, "--labels", tmp_path / "a.csv", "--out", out]
    flags += ["--cls", tmp_path / "none"] if script == "make_masks" else []
    assert call(script, *flags) == 0
    for again in ("--overwrite", "--resume"):
        whole = ["args.json"] if again == "--resume" and not ending else []  # the run itself
        before = plant(out, outside, [n + ending for n in NAMES if n not in whole])
        assert call(script, *flags, again) == 0
        assert look(outside) == before
        made = {"make_masks": ["masks.csv", "review.png"], "evaluate": ["metrics.json"]}[script]
        assert all((out / n).is_file() and not (out / n).is_symlink() for n in made)


def test_what_a_training_writes_stays_where_it_is(tmp_path):
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    names = ["last.pt", "last.pt.tmp", "log.jsonl.tmp", "a.csv", "a.csv.tmp"]
    before = plant(out, outside, names)
    save_checkpoint(out / "last.pt", torch.nn.Linear(1, 1), {"kind": "toy"})
    append_log(out / "log.jsonl", {"epoch": 1})
    with whole_file(out / "a.csv") as file:
        file.write("b")
    assert look(outside) == before and not any(p.is_symlink() for p in out.iterdir())


def test_a_link_planted_just_before_a_file_is_opened_is_not_followed(tmp_path, monkeypatch):
    real = Path.unlink

    def unlink_and_plant(path, **how):
        real(path, **how)
        path.symlink_to(tmp_path / "outside")

    monkeypatch.setattr(Path, "unlink", unlink_and_plant)
    with pytest.raises(FileExistsError), whole_file(tmp_path / "a.csv") as file:
        file.write("b")
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("planted", ["maps.npy.tmp", "maps.npy", stored_maps.PROBS])
def test_half_made_maps_that_are_links_are_made_anew(tmp_path, planted):
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.mkdir()
    np.save(outside / "maps", np.ones((2, 1, 2, 2), np.float16))
    np.save(outside / "probs", np.full((2, 1), np.nan))
    for name in ("maps.npy", stored_maps.PROBS):
        source = outside / ("probs.npy" if name == stored_maps.PROBS else "maps.npy")
        (out / name).write_bytes(source.read_bytes())
    (out / planted).unlink(missing_ok=True)
    (out / planted).symlink_to(outside / ("probs.npy" if planted == stored_maps.PROBS
                                          else "maps.npy"))
    before = look(outside)
    store = stored_maps.MapStore(out, 2, 1)
    store.add([0, 1], np.zeros((2, 1, 2, 2), np.float16), np.zeros((2, 1)))
    store.finish(["a", "b"], np.zeros(2, int), {"a": (4, 4), "b": (4, 4)}, ["pit"])
    assert look(outside) == before and not (out / "maps.npy").is_symlink()


def test_the_file_of_new_maps_does_not_take_the_place_of_its_second_name(tmp_path):
    """A copy by hard links, or a link that comes after the look at half-made maps."""
    np.save(tmp_path / "kept.npy", np.ones(3))
    before = (tmp_path / "kept.npy").read_bytes()
    half = tmp_path / "maps.npy.tmp"
    for plant_one in (half.hardlink_to, half.symlink_to):
        store = stored_maps.MapStore(tmp_path, 1, 1)
        half.unlink(missing_ok=True)
        plant_one(tmp_path / "kept.npy")
        store.add([0], np.zeros((1, 1, 2, 2), np.float16), np.zeros((1, 1)))
        assert (tmp_path / "kept.npy").read_bytes() == before and not half.is_symlink()
        (tmp_path / stored_maps.PROBS).unlink()


def writes(node):
    """Name of the function of a call that may open a file for writing; None for another call."""
    function = node.func
    name = getattr(function, "attr", getattr(function, "id", None))
    if name in ("write_text", "write_bytes", "touch", "open_memmap", "save", "savez", "tofile"):
        return name if not isinstance(getattr(function, "value", None), ast.Name) \
            or function.value.id != "torch" else None  # torch.save into memory, see below
    if name == "open":
        modes = [*node.args[1:2], *(k.value for k in node.keywords if k.arg == "mode")]
        plain = all(set(a.value) <= set("rbt") for a in modes if isinstance(a, ast.Constant))
        flags = any(isinstance(a, (ast.BinOp, ast.Call, ast.Name)) for a in node.args[1:])
        return None if plain and not flags else name
    return None


def test_nothing_else_in_the_package_opens_a_file_for_writing():
    """A new place that does must be added to WRITERS, and to the tests above."""
    found = {}
    for path in sorted((ROOT / "cam2seg").rglob("*.py")):
        where = path.relative_to(ROOT / "cam2seg").as_posix()
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        names = [writes(n) for n in calls if "devnull" not in ast.unparse(n)]
        if any(names) and not where.startswith("demo/"):  # the demo writes into a new folder only
            found[where] = [n for n in names if n]
    assert {k: sorted(v) for k, v in found.items()} == {k: sorted(v) for k, v in WRITERS.items()}
    for path in (ROOT / "cam2seg").rglob("*.py"):
        for line in path.read_text().splitlines():
            assert "torch.save(" not in line or line.strip().endswith((", memory)", ", file)"))
