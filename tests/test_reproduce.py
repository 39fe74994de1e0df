"""benchmarks/reproduce.py runs the commands of AUDIT.md; paper and measured stand side by side."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from conftest import SCRIPTS

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import reproduce  # noqa: E402


def test_the_commands_are_those_of_the_audit():
    text = (ROOT / "AUDIT.md").read_text(encoding="utf-8")
    named = {(script, SCRIPTS[script].get_args(shlex.split(flags)).out): vars(
        SCRIPTS[script].get_args(shlex.split(flags)))
        for script, flags in re.findall(r"`python (\w+)\.py ([^`]*)`", text)}
    run = {(script, SCRIPTS[script].get_args(flags).out): vars(SCRIPTS[script].get_args(flags))
           for script, flags in reproduce.commands("severstal", "runs")}
    assert named == run


def test_two_cores_change_size_and_length_only():
    full, small = (reproduce.commands("d", "r", s) for s in (False, True))
    for (script, a), (_, b) in zip(full, small, strict=True):
        a, b = (vars(SCRIPTS[script].get_args(flags)) for flags in (a, b))
        changed = {k for k in a if a[k] != b[k]}
        assert changed <= {"weights", "lr_encoder", "size", "epochs", "folds"}


def test_a_dry_run_counts_the_images_of_each_command(shapes, capsys, monkeypatch):
    monkeypatch.setattr(reproduce, "seconds_per_image", lambda script, *_: {
        "train_cls": 3600.0, "make_masks": 2 * 3600.0, "train_seg": 4 * 3600.0}[script])
    reproduce.main(reproduce.get_args(["--data", str(shapes), "--dry-run"]))
    out = capsys.readouterr().out
    assert "48 images, settings for two cores" in out
    costs = re.findall(r"# (\d+) images(?:, ([\d.]+) h)?", out)
    assert costs == [("144", "144.00")] * 3 + [("48", "16.00")] * 2 + [("288", "96.00")] * 4 + [
        ("96", "384.00")] * 2 + [("48", "")]
    assert "about 1616.0 h" in out
    assert not Path("runs/severstal").exists()


def test_steps_are_timed_on_each_network():
    for script in ("train_cls", "make_masks", "train_seg"):
        args = SCRIPTS["train_cls"].get_args([])
        assert 0 < reproduce.seconds_per_image(script, args, (64, 64), 2) < 60


@pytest.fixture
def made(runs, tmp_path):
    """The fixture's runs under the names of the commands."""
    for name in ("b0", "b3_hv", "b3_h"):
        shutil.copytree(runs / "cls", tmp_path / name, ignore=shutil.ignore_patterns("*.pt"))
    for n in range(1, 7):
        shutil.copytree(runs / "masks", tmp_path / f"t2_{n}")
    shutil.copytree(runs / "eval", tmp_path / "eval")
    path = tmp_path / "eval/metrics.json"
    found = json.loads(path.read_text())
    found["masks"]["unet_true"] = found["masks"]["unet"]
    path.write_text(json.dumps(found))
    return tmp_path


def test_tables_hold_paper_measured_and_every_argument(made, runs, capsys):
    listed = reproduce.commands("d", made, True)
    reproduce.write_tables(made, listed, True, ["disc", "bar"])
    kept = json.loads((made / "tables.json").read_text())
    one, two, three = kept["tables"].values()
    auc = json.loads((runs / "cls/metrics.json").read_text())["table1"]
    best = [r for r in auc if "best epoch" in r["model"]][-1]["roc_auc"]
    assert one[1] == ["b0 + HFlip: paper", 0.9938, 0.9917, 0.9886, 0.9974]
    assert one[2] == ["b0 + HFlip: measured", *best, None, None]
    scores = json.loads((runs / "masks/metrics.json").read_text())["table2"]
    assert two[1][:2] == ["nothing predicted", None]
    assert two[1][2] == pytest.approx(1 - 48 / 72)  # 48 masks on 36 images of two classes
    names = ["dice_pairs", "dice_present", "dice_dataset", "iou"]
    assert two[2] == ["Grad-CAM, b0", 0.382956, *(scores[0]["scores"][s][1] for s in names)]
    assert [r[1] for r in three[1:]] == [None, 0.465, 0.621, 0.418]
    assert set(kept["args"]) == {"b0", "b3_hv", "b3_h", "eval", *(f"t2_{n}" for n in range(1, 7))}
    assert kept["args"]["b0"]["args"]["seed"] == 0
    assert len(kept["commands"]) == 12
    text, out = (made / "tables.md").read_text(), capsys.readouterr().out
    for part in ("Not the paper's data or settings", "0.4408", "dice_present: pairs that have"):
        assert part in text and part in out
