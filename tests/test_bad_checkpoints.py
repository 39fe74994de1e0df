"""Checkpoints that are refused, unexecuted, before anything is trained or written."""

import os
import pickle
import shutil

import pytest
import torch
from conftest import SMALL, call, last_of

from cam2seg import models

CLS = ("--folds", 2, "--epochs", 6, *SMALL, "--resume")
SEG = ("--epochs", 10, "--loss", "bce+dice", *SMALL, "--batch-size", 4, "--lr-encoder", 3e-3,
       "--lr-decoder", 3e-3, "--resume")


class Code:
    """Unpickled, it makes a folder."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def changed(**parts):
    """A file whose top-level parts are replaced; None takes one out."""
    def spoil(path):
        state = torch.load(path, weights_only=True)
        state.update(parts)
        torch.save({k: v for k, v in state.items() if v is not None}, path)
    return spoil


def inside(part, **values):
    def spoil(path):
        state = torch.load(path, weights_only=True)
        state[part].update(values)
        state[part] = {k: v for k, v in state[part].items() if v is not None}
        torch.save(state, path)
    return spoil


def inside_optimizer(edit):
    """A file whose optimizer has another state of its first parameter."""
    def spoil(path):
        state = torch.load(path, weights_only=True)
        edit(next(iter(state["optimizer"]["state"].values())))
        torch.save(state, path)
    return spoil


def inside_groups(**values):
    """A file whose optimizer has other settings of its first group."""
    def spoil(path):
        state = torch.load(path, weights_only=True)
        state["optimizer"]["param_groups"][0].update(values)
        torch.save(state, path)
    return spoil


def network_of(arch="b0", classes=2):
    """Weights, model_args and classes of another network, all in agreement."""
    def spoil(path):
        kind = torch.load(path, weights_only=True)["kind"]
        build = models.Classifier if kind == "classifier" else models.UNet
        changed(model=build(arch, classes).state_dict())(path)
        inside("model_args", arch=arch, num_classes=classes)(path)
        inside("preprocess", classes=[str(c + 1) for c in range(classes)])(path)
    return spoil


def cut(path):
    path.write_bytes(path.read_bytes()[:-2000])


def with_code(save):
    def spoil(path):
        state = torch.load(path, weights_only=True)
        with open(path, "wb") as file:
            save({**state, "args": Code(path.parent / "ran")}, file)
    return spoil


def weights_alone(path):
    torch.save(torch.load(path, weights_only=True)["model"], path)


UNREADABLE = "cannot be read as a checkpoint ("
FORMAT = "expected a checkpoint of format 1"
SPOILT = {  # what is wrong: how it is done, how the message goes on after the file's name
    "another arch": (network_of(arch="b1"), "model_args {'arch': 'b1', 'num_classes': 2"),
    "another class count": (network_of(classes=3), "model_args {'arch': 'b0', 'num_classes': 3"),
    "an older format": (changed(format=0), FORMAT),
    "truncated": (cut, UNREADABLE),
    "code": (with_code(torch.save), UNREADABLE + "Weights only load failed"),
    "a tensor missing": (inside("model", **{"features.0.0.weight": None,
                                            "encoder.0.0.weight": None}),
                         "weights that do not fit model_args {'arch': 'b0', 'num_classes': 2"),
    "no model_args": (changed(model_args=None), "no model_args in it, expected a whole checkpoint"),
}
MORE = {
    "a bare pickle with code": (with_code(pickle.dump), UNREADABLE),
    "0 bytes": (lambda p: p.write_bytes(b""), UNREADABLE),
    "text": (lambda p: p.write_text("weights"), UNREADABLE),
    "no file but a folder": (lambda p: (p.unlink(), p.mkdir()), UNREADABLE),
    "no format": (changed(format=None), FORMAT),
    "a newer format": (changed(format=2), FORMAT),
    "bare weights": (weights_alone, FORMAT),
    "a list": (lambda p: torch.save([1, 2], p), FORMAT),
    "a U-Net": (changed(kind="unet"), "a unet, expected a classifier"),
    "no kind": (changed(kind=None), "a None, expected a classifier"),
    "no weights": (changed(model=None), "no model in it, expected a whole checkpoint"),
    "no preprocess": (changed(preprocess=None), "no preprocess in it, expected a whole checkpoint"),
    "another input size": (inside("preprocess", size=[32, 32]), "preprocess {'size': [32, 32]"),
    "a tensor too many": (inside("model", x=torch.ones(2)), "weights that do not fit model_args"),
    "a tensor of another shape": (inside("model", **{"head.4.bias": torch.ones(3)}),
                                  "weights that do not fit model_args"),
    "text for a tensor": (inside("model", **{"head.4.bias": "x"}),
                          "weights that do not fit model_args"),
}
FIRST = {  # in the first fold, where there is none to compare with
    "no size": (inside("preprocess", size=None), "no size in it, expected a whole checkpoint"),
    "a size of text": (inside("preprocess", size=["64", "64"]),
                       "preprocess with size '64', expected a whole number from 1 to 65536"),
    "an absurd size": (inside("preprocess", size=[10**9, 64]),
                       "preprocess with size 1000000000, expected a whole number from 1 to 65536"),
    "numbers for classes": (inside("preprocess", classes=[1, 2]),
                            "preprocess with classes 1, expected text"),
    "a deviation of 0": (inside("preprocess", std=[0.2, 0.2, 0.0]),
                         "preprocess with std 0.0, expected a finite number from 1e-09"),
    "a class too few": (inside("preprocess", classes=["1"]),
                        "preprocess with classes ['1'], expected 2 as in model_args"),
    "an unknown arch": (inside("model_args", arch="b9"), "weights that do not fit model_args"),
    "an unknown argument": (inside("model_args", depth=3), "weights that do not fit model_args"),
    "words for a number": (inside("model_args", hidden="many"),
                           "weights that do not fit model_args"),
}


def copied(run, out, *files):
    """Some of the files of a run; a fold without its results has the state of its training."""
    for path in (p for pattern in ("args.json", "folds.csv", *files) for p in run.glob(pattern)):
        target = out / path.relative_to(run)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    for fold in {path.parent for path in out.glob("fold*/epoch*.pt")}:
        if not list(fold.glob("oof*.csv")):
            (fold / "last.pt").write_bytes(last_of(run / fold.name))
    return out


@pytest.mark.parametrize("fold, spoil, said", [
    *(pytest.param(1, *case, id=what) for what, case in (SPOILT | MORE).items()),
    *(pytest.param(0, *case, id=what) for what, case in FIRST.items())])
def test_make_masks(shapes, runs, tmp_path, refused, fold, spoil, said):
    cls = copied(runs / "cls", tmp_path / "cls", "fold*/swa.pt")
    path = cls / f"fold{fold}/swa.pt"
    spoil(path)
    got = refused("make_masks", "--data", shapes, "--cls", cls, "--workers", 0, "--device", "cpu",
                  "--out", tmp_path / "out")
    assert got.startswith(f"{path}: {said}")
    assert not (path.parent / "ran").exists()


def test_the_code_would_run_if_it_were_let(runs, tmp_path):
    cls = copied(runs / "cls", tmp_path / "cls", "fold0/swa.pt")
    with_code(torch.save)(cls / "fold0/swa.pt")
    torch.load(cls / "fold0/swa.pt", weights_only=False)
    assert (cls / "fold0/ran").is_dir()


@pytest.mark.parametrize("name", ["last.pt", "epoch*.pt"])
@pytest.mark.parametrize("spoil, said", SPOILT.values(), ids=SPOILT)
def test_train_cls_resumed(shapes, runs, tmp_path, refused, name, spoil, said):
    out = copied(runs / "cls", tmp_path / "cls", "fold1/*.pt", "fold1/log.jsonl")
    path = sorted((out / "fold1").glob(name))[0]
    spoil(path)
    assert refused("train_cls", "--data", shapes, *CLS, "--out", out).startswith(f"{path}: {said}")
    assert not (path.parent / "ran").exists()


@pytest.mark.parametrize("name, more", [("last.pt", ()), ("best.pt", ("--predict",))])
@pytest.mark.parametrize("spoil, said", SPOILT.values(), ids=SPOILT)
def test_train_seg_resumed(shapes, runs, tmp_path, refused, name, more, spoil, said):
    done = () if name == "last.pt" else ("fold*/oof_masks.csv",)
    out = copied(runs / "seg", tmp_path / "seg", "fold1/*.pt", "fold1/log.jsonl", *done)
    path = out / "fold1" / name
    spoil(path)
    more = (*more, shapes / "train_images") if more else ()
    got = refused("train_seg", "--data", shapes, "--masks", shapes / "train.csv", "--folds",
                  runs / "cls/folds.csv", *SEG, *more, "--out", out)
    assert got.startswith(f"{path}: {said}")
    assert not (path.parent / "ran").exists()


@pytest.mark.parametrize("spoil, said", [
    (changed(optimizer=None), "no optimizer in it, expected a whole checkpoint"),
    (changed(scheduler=[]), "scheduler [], expected parts with names"),
    (changed(best=None), "no best in it, expected a whole checkpoint"),
    (changed(epochs_done="2"), "epochs_done '2', expected a whole number from 0 to 1000000000"),
    (changed(best=[3]), "best 3, expected parts with names"),
    (changed(best=[{"epoch": 1, "val_loss": "0"}]), "best with val_loss '0', expected a finite"),
    (changed(best=[]), "no best epoch, expected one or more"),
    (changed(epochs_done=-1), "epochs_done -1, expected a whole number from 0 to"),
    (changed(epochs_done=99), "99 epochs done, expected 0 to"),
    (changed(partial_epoch=3), "partial_epoch 3, expected 1 to 10000000 values"),
    (changed(partial_epoch=[{"losses": 3, "sizes": [1], "rng": 0}]),
     "partial_epoch with losses 3, expected a Tensor"),
    (changed(partial_epoch=[{"losses": torch.ones(1), "sizes": [10**9], "rng": torch.ones(1)}]),
     "partial_epoch with sizes 1000000000, expected a whole number from 1 to 1000000"),
    (changed(partial_epoch=[{"losses": torch.ones(2), "sizes": [1], "rng": torch.ones(1)}]),
     "partial_epoch with losses or rng of another form"),
    (changed(optimizer={"state": {}}), "no param_groups in it, expected a whole checkpoint"),
    (inside_optimizer(lambda state: state.update(exp_avg=torch.ones(3, 7))),
     "does not fit this run (optimizer with exp_avg of another form"),
    (inside_optimizer(lambda state: state.update(exp_avg="x")), "does not fit this run ("),
    (inside_groups(betas=(2.0, 3.0)), "does not fit this run (optimizer with other settings)"),
    (inside_groups(lr=-1.0), "optimizer with param_groups with lr -1.0, expected a finite number"),
    (inside("scheduler", num_bad_epochs="many"), "does not fit this run (scheduler with num_bad"),
    (inside("optimizer", param_groups=[]), "does not fit this run ("),
])
def test_what_a_resume_needs(shapes, runs, tmp_path, refused, spoil, said):
    out = copied(runs / "cls", tmp_path / "cls", "fold0/*.pt", "fold0/log.jsonl")
    spoil(out / "fold0/last.pt")
    assert refused("train_cls", "--data", shapes, *CLS, "--out", out).startswith(
        f"{out}/fold0/last.pt: {said}")


def test_a_log_that_is_no_text(shapes, runs, tmp_path, refused):
    out = copied(runs / "cls", tmp_path / "cls", "fold0/*.pt")
    (out / "fold0/log.jsonl").write_bytes(b"\xff\xfe\x00")
    assert refused("train_cls", "--data", shapes, *CLS, "--out", out).startswith(
        f"{out}/fold0/log.jsonl: cannot be read (")


def test_brackets_without_end_in_the_file_of_a_run(shapes, runs, tmp_path, refused):
    cls = copied(runs / "cls", tmp_path / "cls", "fold*/swa.pt")
    (cls / "args.json").write_text("[" * 200_000)
    assert refused("make_masks", "--data", shapes, "--cls", cls, "--out", tmp_path / "out") \
        .startswith(f"{cls}/args.json: cannot be read (")


def test_a_best_epoch_that_is_gone(shapes, runs, tmp_path, refused):
    out = copied(runs / "cls", tmp_path / "cls", "fold0/*.pt", "fold0/log.jsonl")
    path = sorted((out / "fold0").glob("epoch*.pt"))[0]
    path.unlink()
    assert refused("train_cls", "--data", shapes, *CLS, "--out", out).startswith(
        f"{path}: {UNREADABLE}[Errno 2]")


def test_weights_that_hold_code(shapes, runs, tmp_path, refused):
    path = copied(runs / "cls", tmp_path / "cls", "fold0/swa.pt") / "fold0/swa.pt"
    with_code(torch.save)(path)
    got = refused("train_cls", "--data", shapes, "--folds", 2, "--weights", path, "--out",
                  tmp_path / "out")
    assert got.startswith(f"--weights: {path}: no weights of this encoder (")
    assert not (path.parent / "ran").exists()


def test_a_folder_beside_the_folds_is_none_of_them(shapes, runs, tmp_path):
    cls = copied(runs / "cls", tmp_path / "cls", "fold*/swa.pt")
    shutil.copytree(cls / "fold0", cls / "fold0_before")
    (cls / "fold0_before/swa.pt").write_text("spoilt")
    assert call("make_masks", "--data", shapes, "--cls", cls, "--no-aug-smooth", "--workers", 0,
                "--device", "cpu", "--out", tmp_path / "out") == 0
