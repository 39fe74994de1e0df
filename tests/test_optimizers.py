"""Adam and RAdam by the flag --optimizer: the rule of RAdam against its paper, and a resumed run."""

import math
import os
import signal

import pytest
import torch
from conftest import SMALL, call, results

from cam2seg.data.csv_files import write_csv
from cam2seg.runs.checkpoints import CheckpointError, load_training_state, save_checkpoint
from cam2seg.training import optimizers


def rho(t, b2):
    return 2 / (1 - b2) - 1 - 2 * t * b2 ** t / (1 - b2 ** t)


def algorithm_2(gradients, lr, b1, b2, least):
    """The steps of Alg. 2 (Liu et al., ICLR 2020) for one number; rectified where rho_t > least.

    The paper has least = 4.
    """
    m = v = 0.0
    steps = []
    for t, g in enumerate(gradients, 1):
        v = b2 * v + (1 - b2) * g ** 2
        m = b1 * m + (1 - b1) * g
        corrected, rho_inf, rho_t = m / (1 - b1 ** t), 2 / (1 - b2) - 1, rho(t, b2)
        if rho_t > least:
            adaptive = math.sqrt((1 - b2 ** t) / v)
            r = math.sqrt((rho_t - 4) * (rho_t - 2) * rho_inf
                          / ((rho_inf - 4) * (rho_inf - 2) * rho_t))
            steps.append(-lr * r * corrected * adaptive)
        else:
            steps.append(-lr * corrected)
    return steps


def steps_of(optimizer, parameter, gradients):
    found = []
    for g in gradients:
        before, parameter.grad = parameter.item(), torch.full_like(parameter, g)
        optimizer.step()
        found.append(parameter.item() - before)
    return found


@pytest.mark.parametrize("b2", [0.9, 0.99, 0.999])
def test_radam_is_algorithm_2_but_for_one_step(b2):
    """With eps = 0 the steps are equal but for those with 4 < rho_t <= 5, which is one."""
    gradients = torch.randn(12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 1
    gradients, x = gradients.tolist(), torch.zeros(1, dtype=torch.float64, requires_grad=True)
    made = optimizers.make("radam", ([x], 0.1))
    made.param_groups[0].update(eps=0, betas=(0.9, b2))
    got = steps_of(made, x, gradients)
    assert got == pytest.approx(algorithm_2(gradients, 0.1, 0.9, b2, least=5), rel=1e-9)
    paper = algorithm_2(gradients, 0.1, 0.9, b2, least=4)
    other = [t for t in range(1, 13) if got[t - 1] != pytest.approx(paper[t - 1], rel=1e-9)]
    assert other == [t for t in range(1, 13) if 4 < rho(t, b2) <= 5] and len(other) == 1


def test_when_the_rectified_steps_begin():
    """With torch's b2: at step 6, and by the paper at step 5; the first steps are larger."""
    x = torch.zeros(1, requires_grad=True)
    assert optimizers.make("radam", ([x], 0.1)).defaults["betas"] == (0.9, 0.999)
    found = [round(rho(t, 0.999), 3) for t in range(1, 7)]
    assert found == [1.0, 1.999, 2.999, 3.997, 4.996, 5.994]
    steps = steps_of(optimizers.make("radam", ([x], 0.1)), x, [1.0] * 7)
    assert steps[:5] == pytest.approx([-0.1] * 5, rel=1e-5)
    assert all(-0.01 < s < 0 for s in steps[5:])


@pytest.mark.parametrize("name, kind", [("adam", torch.optim.Adam), ("radam", torch.optim.RAdam)])
def test_each_part_has_its_own_rate(name, kind):
    x, y = torch.zeros(2, requires_grad=True), torch.zeros(3, requires_grad=True)
    made = optimizers.make(name, (iter([x]), 1e-4), ([y], 1e-3))
    assert type(made) is kind and [g["lr"] for g in made.param_groups] == [1e-4, 1e-3]
    assert [g["params"] for g in made.param_groups] == [[x], [y]]
    x.grad, y.grad = torch.ones(2), torch.ones(3)
    made.step()
    assert x.tolist() == pytest.approx([-1e-4] * 2) and y.tolist() == pytest.approx([-1e-3] * 3)


def test_moments_of_radam_of_another_form_are_refused(tmp_path):
    net = torch.nn.Linear(3, 2)
    made = optimizers.make("radam", (net.parameters(), 0.1))
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    made.step()
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(made, 4)
    state = made.state_dict()
    state["state"][0]["exp_avg"] = torch.zeros(1)
    save_checkpoint(tmp_path / "last.pt", net, {
        "kind": "toy", "optimizer": state, "scheduler": scheduler.state_dict(), "best": [],
        "epochs_done": 1})
    with pytest.raises(CheckpointError, match="exp_avg of another form"):
        load_training_state(tmp_path / "last.pt", "toy", net, made, scheduler)


def test_a_resumed_run_of_either_script_has_the_same_bytes(shapes, tmp_path, monkeypatch):
    """Stopped in the middle of the second epoch, so that the moments are read back."""
    write_csv(tmp_path / "folds.csv", ("ImageId", "fold"),
              [(f"{n:03d}.png", n % 2) for n in range(48)])
    flags = ("--data", shapes, *SMALL, "--epochs", 2, "--fold", 0)
    seg = ("--masks", shapes / "train.csv", "--folds", tmp_path / "folds.csv")
    for script, more in (("train_cls", ("--folds", 2)), ("train_seg", seg)):
        out = {name: tmp_path / f"{script}_{name}" for name in ("adam", "whole", "part")}
        assert call(script, *flags, *more, "--out", out["adam"]) == 0
        assert call(script, *flags, *more, "--optimizer", "radam", "--out", out["whole"]) == 0
        radam = (*flags, *more, "--optimizer", "radam", "--out", out["part"])
        with monkeypatch.context() as patch:
            taken, real = [], torch.optim.RAdam.step

            def step(*args, taken=taken, real=real, **kwargs):
                taken.append(1)
                if len(taken) == 5:  # the second step of epoch 2
                    os.kill(os.getpid(), signal.SIGTERM)
                return real(*args, **kwargs)

            patch.setattr(torch.optim.RAdam, "step", step)
            assert call(script, *radam) == 143
        assert (out["part"] / "fold0/last.pt").exists()
        assert call(script, *radam, "--resume") == 0
        adam, whole, part = (results(out[k]) for k in ("adam", "whole", "part"))
        assert whole == part and whole["fold0/oof.csv"] != adam["fold0/oof.csv"]
