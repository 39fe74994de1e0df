"""What the scripts say while they work and at their end, and what --quiet leaves of it."""

import re
import shlex
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SCRIPTS, SMALL, Terminal, call, write_images
from PIL import Image

import train_cls
from cam2seg.data import copies
from cam2seg.data.labels import Labels
from cam2seg.runs import endings, inputs, next_commands, processes, progress
from cam2seg.runs.exits import run
from cam2seg.runs.folder import write_json
from cam2seg.runs.progress import Console, Progress

TINY = [*SMALL, "--epochs", 1]


def test_a_time_for_people():
    assert [progress.duration(s) for s in (0.4, 99.4, 100, 5999, 6000)] == [
        "0 s", "99 s", "2 min", "100 min", "1.7 h"]


def test_the_line_of_a_step_shows_the_loss_of_a_tensor():
    loss = torch.tensor(0.25)
    assert progress.step_line("epoch 1/2", 3, 12, rate=1.5, left=6.0, loss=loss) == (
        "epoch 1/2: 3/12 images  1.5 images/s  6 s left  loss 0.2500")
    assert progress.step_line("networks", 2, 2, "folds", 0.0123) == (
        "networks: 2/2 folds  0.0123 folds/s")


def at(monkeypatch, *times):
    clock = iter(times)
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))


def test_a_long_step_has_lines_where_there_is_no_terminal(monkeypatch, capsys):
    """One a minute and one at the end, and none where it is a part of an epoch or short."""
    report = Console()
    for in_epoch, now, done, said in (
            (False, 0.0, 1, ""), (False, 59.0, 2, ""), (False, 61.0, 3, "3/9"),
            (False, 120.0, 4, ""), (False, 122.0, 5, "5/9"), (False, 123.0, 9, "9/9")):
        at(monkeypatch, now)
        report("step", what="maps", done=done, total=9, in_epoch=in_epoch, rate=1.0, left=1.0)
        assert re.findall("[0-9]/9", capsys.readouterr().out) == [said] * bool(said)
    for what, in_epoch, end, lines in (("short", False, 4.0, 0), ("long", False, 6.0, 1),
                                       ("training", True, 600.0, 0)):
        for now, done in ((0.0, 1), (end, 9)):
            at(monkeypatch, now)
            report("step", what=what, done=done, total=9, in_epoch=in_epoch)
        assert capsys.readouterr().out.count("9/9") == lines


def test_the_bar_is_no_longer_than_a_line_and_goes_with_quiet(monkeypatch):
    monkeypatch.setattr(progress.sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "30")
    Progress(4, "a name as long as a folder's may be", Console()).add(2)
    assert progress.sys.stderr.text == "\r\033[Ka name as long as a folder's "
    Progress(4, "another", Console(quiet=True)).add(4)
    assert "another" not in progress.sys.stderr.text


def test_what_an_earlier_run_has_done_says_nothing_of_the_rate(monkeypatch):
    told = []
    at(monkeypatch, 0.0, 2.0)
    Progress(10, "work", lambda event, **facts: told.append(facts), done=5).add(1)
    assert (told[0]["done"], told[0]["rate"], told[0]["left"]) == (6, 0.5, 8.0)


def test_items_are_counted_when_they_are_done():
    clock = Progress(2, "work")
    assert [clock.done for _ in clock.over("ab")] == [0, 1] and clock.done == 2


def test_the_search_for_copies_says_how_far_it_is(monkeypatch):
    monkeypatch.setattr(copies, "BLOCK", 2)
    told = []
    copies.find_copies(torch.randint(0, 255, (5, 4, 4)).numpy(), told.append)
    assert told == [2, 2, 1]


def test_the_look_at_the_images_says_how_far_it_is(photos):
    steps = []
    inputs.scan(photos, [f"{i:02d}.jpg" for i in range(12)],
                lambda event, **facts: event == "step" and steps.append(facts))
    assert [s["done"] for s in steps] == list(range(1, 13)) and steps[0]["total"] == 12


def test_quiet_leaves_errors_warnings_and_the_result(capsys):
    def main(args):
        print("a table")
        report = Console(args.quiet)
        report("note", text="a note")
        report("warning", text="a warning")
        return endings.Ending("wrote it", ("next: more",))

    for quiet, said in ((False, "a table\na note\nwrote it\nnext: more\n"), (True, "wrote it\n")):
        assert run(main, lambda quiet=quiet: Namespace(quiet=quiet)) == 0
        assert capsys.readouterr() == (said, "a warning\n")


def test_the_other_processes_of_a_machine_say_nothing_before_they_part(monkeypatch, capsys):
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "a"),
                        ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)

    def fail(args):
        raise OSError("the disk is gone")

    with pytest.raises(SystemExit):
        run(fail, lambda: SCRIPTS["evaluate"].get_args(["--nonsense"]))
    assert run(fail, Namespace) == 2 and capsys.readouterr() == ("", "")
    monkeypatch.setenv("LOCAL_RANK", "0")  # the first process of another machine
    assert run(fail, Namespace) == 2 and capsys.readouterr().err == "error: the disk is gone\n"
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(processes, "_apart", True)
    assert run(fail, Namespace) == 2 and capsys.readouterr().err == "error: the disk is gone\n"


# The last lines


def test_a_command_is_quoted_and_names_the_script_as_the_present_one_was(monkeypatch):
    flags = {"images": Path("my photos"), "size": [64, 32], "amp": True, "resume": False,
             "fold": 0, "gate": None, "labels": "-odd.csv", "no_hflip": True}
    monkeypatch.setattr(sys, "argv", ["/opt/x y/train_cls.py"])
    assert endings.command("train_seg", flags, "a=b c") == (
        "python '/opt/x y/train_seg.py' 'a=b c' --images 'my photos' --size 64 32 --amp --fold 0 "
        "--labels=-odd.csv --no-hflip")
    monkeypatch.setattr(sys, "argv", ["-c"])
    assert endings.command("train_seg", {}) == "python train_seg.py"


@pytest.mark.parametrize("script, flags", [
    ("train_cls", ["--images", "a b", "--labels", "l.csv", "--no-hflip", "--vflip", "--classes",
                   "x", "y", "--size", "64", "32", "--fold", "1", "--overwrite"]),
    ("make_masks", ["--data", "d", "--search", "--no-aug-smooth", "--seg", "r/1", "r/2",
                    "--method", "seg", "--threshold", "0.25"]),
    ("train_seg", ["--data", "d", "--mask-cut", "0.25", "--schedule", "cosine", "--quiet"])])
def test_what_a_script_was_given_comes_back(script, flags):
    get_args = SCRIPTS[script].get_args
    args = get_args(flags)
    again = shlex.split(endings.command(script, endings.given(args, get_args([]))))
    assert get_args(again[2:]) == args


def test_only_what_was_chosen_is_told():
    args, defaults = Namespace(a=1, b=2, c=False), Namespace(a=1, b=3, c=True)
    assert endings.given(args, defaults) == {"b": 2, "no_c": True}
    assert endings.given(args, defaults, ("a", "b")) == {"b": 2}


def test_the_flags_of_a_network_go_on_to_the_next_one(tmp_path):
    assert endings.network_flags(tmp_path) == {}
    write_json(tmp_path / "args.json", {"classes": ["1"], "args": {
        "arch": "lite0", "weights": "imagenet", "size": [32, 64], "epochs": 3, "classes": ["1"]}})
    assert endings.network_flags(tmp_path) == {
        "arch": "lite0", "size": [32, 64], "classes": ["1"]}


@pytest.mark.parametrize("weights, given, handed_on", [
    ("none", 1e-4, 1e-3), ("none", 1e-3, 1e-3), ("none", 3e-3, 3e-3), ("imagenet", 1e-4, None),
    ("imagenet", 3e-4, 3e-4)])
def test_a_network_from_random_weights_gets_a_learning_rate_that_suits(tmp_path, weights, given,
                                                                       handed_on):
    write_json(tmp_path / "args.json", {"classes": ["1"], "args": {
        "weights": weights, "lr_encoder": given}})
    assert endings.network_flags(tmp_path).get("lr_encoder") == handed_on


def test_a_next_command_names_a_folder_that_holds_no_run(tmp_path):
    for name in ("seg", "seg2", "seg3"):
        assert endings.unused(tmp_path / "seg") == tmp_path / name
        (tmp_path / name).mkdir()
        (tmp_path / name / "args.json").touch()
    assert endings.unused(tmp_path / "seg") == tmp_path / "seg4"


def test_masks_of_networks_of_some_classes_lead_to_a_training_of_these(tmp_path):
    """--classes goes on, and --out is not the run that the masks come from."""
    (tmp_path / "seg").mkdir()
    write_json(tmp_path / "seg/args.json", {"classes": ["3"], "args": {"classes": ["3"]}})
    make_masks = SCRIPTS["make_masks"]
    args = make_masks.get_args(["--data", "d", "--method", "seg", "--seg", f"{tmp_path}/seg",
                                "--out", f"{tmp_path}/masks"])
    own = endings.given(args, make_masks.get_args([]))
    found = next_commands.training_flags(args, None, own)
    assert (found["classes"], found["out"]) == (["3"], tmp_path / "seg2")
    args = make_masks.get_args(["--data", "d", "--method", "contrast", "--classes", "2", "1"])
    own = endings.given(args, make_masks.get_args([]))
    assert next_commands.training_flags(args, None, own)["classes"] == ["2", "1"]


@pytest.mark.parametrize("made, folds, trains", [
    ([1, 0], "0,1", True), ([0, 0], "0,1", False), ([1, 0], "1,1", False)])
def test_no_training_follows_that_would_be_refused(tmp_path, made, folds, trains):
    (tmp_path / "folds.csv").write_text("ImageId,fold\n" + "".join(
        f"{n}.png,{k}\n" for n, k in zip("abc", [*folds.split(","), 2])))
    make_masks = SCRIPTS["make_masks"]
    args = make_masks.get_args(["--data", "d", "--method", "contrast", "--out", str(tmp_path)])
    work = Namespace(names=["a.png", "b.png", "new.png"], labels=None)
    lines = next_commands.after_make_masks(args, make_masks.get_args([]), work,
                                           {"made": made, "masks": "masks"}, False).then
    assert any("train_seg.py" in line for line in lines) == trains


def test_train_seg_warns_of_held_out_masks_that_look_wrong(tmp_path, capsys):
    """Also under --quiet; the images of folds that are not finished say nothing."""
    names = ["a.png", "b.png", "c.png"]
    (tmp_path / "photos").mkdir()
    for name in names:
        Image.new("L", (4, 4)).save(tmp_path / "photos" / name)
    (tmp_path / "fold0").mkdir()
    (tmp_path / "fold0/oof_masks.csv").write_text(
        "ImageId,ClassId,EncodedPixels\na.png,1,1 9\nb.png,1,1 16\na.png,2,\nb.png,2,\n")
    (tmp_path / "fold0/oof.csv").write_text("ImageId,1,2\na.png,1,0\nb.png,1,0\n")
    args = SCRIPTS["train_seg"].get_args(["--images", str(tmp_path / "photos"), "--out",
                                          str(tmp_path)])
    given = Labels(names, ["1", "2"], np.array([[1, 1], [1, 0], [1, 1]]), {}, {})
    work = Namespace(given=given, truth=None, sizes=dict.fromkeys(names, (4, 4)))
    SCRIPTS["train_seg"].write_results(args, work, Console(quiet=True))
    assert [line.partition("; ")[0] for line in capsys.readouterr().err.splitlines()] == [
        f"{tmp_path}/oof_masks.csv: class 2: no held-out image has a mask, where 1 of 2 have one "
        "to learn from",
        f"{tmp_path}/oof_masks.csv: class 1: the typical mask covers more than half of the image, "
        "which is rarely a defect"]


@pytest.mark.parametrize("flags, shown", [
    ([], None), (["--export", "png"], None), (["--export", "png", "overlay"], "oof_masks_overlay"),
    (["--export", "overlay", "--predict", "new"], "new_masks_overlay")])
def test_train_seg_names_its_overlays(tmp_path, flags, shown):
    get_args = SCRIPTS["train_seg"].get_args
    args = get_args(["--data", "d", "--out", str(tmp_path), *flags])
    work = Namespace(fold=np.array([0, 1]), truth=None)
    lines = next_commands.after_train_seg(args, get_args([]), work).then
    assert [line for line in lines if line.startswith("look at")] == (
        [f"look at: {tmp_path}/{shown}"] if shown else [])
    assert sum(line.startswith("next: ") for line in lines) == 1  # another fold


def test_what_was_written_is_named_with_its_folds(tmp_path):
    for name in ("fold0", "fold1"):
        (tmp_path / name).mkdir()
    for name in ("masks.csv", "notes.txt"):
        (tmp_path / name).touch()
    assert endings.wrote(tmp_path, "2 masks") == f"wrote {tmp_path}: masks.csv, fold0, fold1; 2 masks"


def following(said):
    """The commands (script, flags) that the last lines of a script name."""
    found = re.findall(r"^(?:next|or)[^:\n]*: (python .*)$", said, re.M)
    return [(Path(words[1]).stem, words[2:]) for words in map(shlex.split, found)]


def test_the_second_way_to_masks_that_train_cls_names_runs(runs, shapes, tmp_path):
    """The choice by labels, where the last layer has more than one cell."""
    args = train_cls.get_args(["--data", str(shapes), "--out", str(runs / "cls"), "--workers", "0",
                               "--device", "cpu"])
    defaults = train_cls.get_args([])
    table = [{"mean": 0.9, "model": "b0, all images", "images": 8}]
    for size, count in (((64, 64), 2), ((32, 32), 1)):
        then = "\n".join(next_commands.after_train_cls(args, defaults, np.array([0, 1]), size,
                                                      table).then)
        assert len(following(then)) == count
    then = "\n".join(next_commands.after_train_cls(args, defaults, np.array([0, 1]), (64, 64),
                                                  table).then)
    script, flags = following(then)[1]
    assert script == "make_masks" and "auto" in flags
    assert call(script, *flags, "--out", tmp_path / "auto", "--no-aug-smooth") == 0
    assert (tmp_path / "auto/masks.csv").is_file()


def test_each_script_names_a_next_command_that_runs(tmp_path, capsys, monkeypatch):
    """From the first fold to the scores, without a word of one's own but a folder of new images.

    Other runs have the folders r/masks and r/eval, and the last layer has a single cell.
    """
    write_images(tmp_path / "my data", 8)
    monkeypatch.chdir(tmp_path)
    for name in ("masks", "eval"):
        (tmp_path / "r" / name).mkdir(parents=True)
        (tmp_path / "r" / name / "args.json").touch()
    assert call("train_cls", "--data", "my data", "--out", "r/cls", "--folds", 2, "--fold", 0,
                *TINY, "--size", 32, 32) == 0
    lines, told = {}, []
    todo = following(capsys.readouterr().out)
    while todo:
        script, flags = todo.pop(0)
        flags = ["my data/train_images" if f == "FOLDER_OF_NEW_IMAGES" else f for f in flags]
        told.append(script)
        assert call(script, *flags, *(["--epochs", 1] if script == "train_seg" else [])) == 0, flags
        said = capsys.readouterr().out
        lines[script] = said.splitlines()
        todo = following(said) or todo
    assert told == ["train_cls", "make_masks", "train_seg", "evaluate", "train_seg"]
    assert (tmp_path / "r/seg/new_masks.csv").is_file()
    assert "wrote r/masks2: metrics.json, maps.csv, maps.npy, masks.csv, masks_labels.csv, " \
           "review.csv, review.png; " in "\n".join(lines["make_masks"])
    assert lines["evaluate"][-2:] == [f"look at: r/eval2/class_{c}.png" for c in (1, 2)]
    new = ("--images", "my data/train_images", "--cls", "r/cls", "--out", "r/a b", "--new-images",
           "--target-layer", "features.5", "--workers", 0, "--device", "cpu")
    assert call("make_masks", *new, "--quiet") == 0
    assert re.fullmatch("wrote r/a b: metrics.json, maps.csv, maps.npy, masks.csv; "
                        r"\d+ masks of 8 images in masks.csv\n", capsys.readouterr().out)
    assert call("make_masks", *new, "--reuse-maps") == 0
    (script, flags), = following(capsys.readouterr().out)  # no training on images without a fold
    assert script == "make_masks" and {"--reuse-maps", "--review"} <= {*flags}
