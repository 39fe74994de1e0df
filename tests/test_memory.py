"""A lack of memory is told as such, and a checkpoint is blamed only for what is wrong with it."""

import pytest
import torch

from cam2seg.runs import checkpoints, memory, restore
from cam2seg.runs.checkpoints import CheckpointError, save_checkpoint

LACKS = ("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
         "you tried to allocate 1919961600000 bytes. Error code 12 (Cannot allocate memory)")
META = {"kind": "toy", "preprocess": {"size": [8, 8], "mean": [0.0] * 3, "std": [1.0] * 3,
                                      "classes": ["a"]}}


def toy(num_classes, hidden=2, weights="none"):
    return torch.nn.Linear(hidden, num_classes)


@pytest.fixture
def path(tmp_path):
    def save(**model_args):
        save_checkpoint(tmp_path / "a.pt", toy(1), {**META, "model_args": {"num_classes": 1,
                                                                           **model_args}})
        return tmp_path / "a.pt"
    return save


def test_what_says_that_memory_ran_out():
    for error in (MemoryError(), RuntimeError(LACKS), RuntimeError("CUDA out of memory. Tried")):
        assert memory.ran_out(error)
    assert not memory.ran_out(RuntimeError("size mismatch"))
    assert not memory.ran_out(OSError("Cannot allocate memory"))  # has a line of its own


def test_a_network_without_room_is_not_blamed_on_its_file(path, monkeypatch):
    def build(*args, **model_args):
        raise RuntimeError(LACKS)

    with pytest.raises(RuntimeError, match="can't allocate memory"):
        restore.network(build, path(), "toy")
    net = toy(1)
    adam = torch.optim.Adam(net.parameters())
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(adam)
    monkeypatch.setattr(net, "load_state_dict", build)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        checkpoints.load_training_state(path(), "toy", net, adam, plateau)
    monkeypatch.setattr(torch, "load", build)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        checkpoints.load_checkpoint(path())


@pytest.mark.parametrize("width", [-1, 2**16 + 1, 10**12])
def test_a_network_of_an_absurd_width_is_not_built(path, width):
    with pytest.raises(CheckpointError, match=f"a.pt: model_args with {width}, expected a whole"):
        restore.network(toy, path(hidden=width), "toy")


def test_weights_of_another_kind_of_number(path):
    file = path()
    state = torch.load(file, weights_only=True)
    for kind in (torch.complex64, torch.int64):
        torch.save({**state, "model": {k: v.to(kind) for k, v in state["model"].items()}}, file)
        with pytest.raises(CheckpointError, match=f"a.pt: weight with {kind}, expected torch.floa"):
            restore.network(toy, file, "toy")
