"""Flags, folds.csv, checkpoints and maps that are refused before anything is written."""

import pytest
import torch
from conftest import SCRIPTS, SMALL

NO_CUDA = not torch.cuda.is_available()


@pytest.mark.parametrize("name, said", [
    ("nonsense", "--device: 'nonsense': expected auto, cpu, cuda or cuda:N"),
    ("cpu:1", "--device: 'cpu:1': expected auto, cpu, cuda or cuda:N"),
    ("cuda:x", "--device: 'cuda:x': expected auto, cpu, cuda or cuda:N"),
    ("", "--device: '': expected auto, cpu, cuda or cuda:N"),
    ("cuda:99", "--device: 'cuda:99' is not there: torch finds "),
    pytest.param("cuda", "--device: 'cuda' is not there: torch finds 0 CUDA devices",
                 marks=pytest.mark.skipif(not NO_CUDA, reason="there is a CUDA device")),
])
@pytest.mark.parametrize("script", ["train_cls", "make_masks", "train_seg"])
def test_device(shapes, runs, tmp_path, refused, script, name, said):
    none = ("--weights", "none")
    flags = {"train_cls": ("--folds", 2, *none), "make_masks": ("--cls", runs / "cls"),
             "train_seg": ("--masks", shapes / "train.csv", "--folds", runs / "cls/folds.csv",
                           *none)}
    assert refused(script, "--data", shapes, *flags[script], "--device", name, "--out",
                   tmp_path / "out").startswith(said)


@pytest.mark.parametrize("script, flag, value, said", [
    ("train_cls", "--epochs", "0", "0: expected 1 or more"),
    ("train_cls", "--epochs", "ten", "invalid positive value: 'ten'"),
    ("train_cls", "--dropout", "nan", "nan: expected a number from 0 to 1"),
    ("train_cls", "--lr-encoder", "nan", "nan: expected a number from 0 up"),
    ("train_cls", "--lr-head", "-1", "-1: expected a number from 0 up"),
    ("train_seg", "--lr-decoder", "inf", "inf: expected a number from 0 up"),
    ("train_seg", "--batch-size", "1.5", "invalid positive value: '1.5'"),
    ("make_masks", "--threshold", "30", "30: expected a number from 0 to 1"),
    ("make_masks", "--method", "cam", "invalid choice: 'cam'"),
    ("evaluate", "--figures", "-1", "-1: expected 0 or more"),
])
def test_flag(capsys, script, flag, value, said):
    with pytest.raises(SystemExit) as stop:
        SCRIPTS[script].get_args([flag, value])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1
    assert error.startswith(f"error: argument {flag}: {said}")
    assert error.endswith("; --help shows the flags\n")
