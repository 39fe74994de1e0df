"""Batches, epochs, fit and the cross-validated loop, on a toy network."""

import copy
import gc
import json
import multiprocessing
import os
import shutil
import signal

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from conftest import close, equal_states

from cam2seg.data import files as files_module
from cam2seg.runs.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from cam2seg.runs.progress import Console, silent
from cam2seg.runs.signals import Stopped
from cam2seg.training import devices
from cam2seg.training import fit as fit_module
from cam2seg.training.batches import Batches, to_input
from cam2seg.training.cross_validation import Plan, Recipe, cross_validate
from cam2seg.training.epochs import mean_loss, predict, train_one_epoch
from cam2seg.training.fit import Settings, fit

pytestmark = pytest.mark.usefixtures("fixed_seed")


# Batches


class Toy:
    """Item (index, epoch): pixels and target that tell both."""

    def __init__(self, n=10, size=4):
        rng = np.random.default_rng(5)
        self.pixels = rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8)
        self.targets = rng.random((n, 2)).round().astype(np.float32)

    def __getitem__(self, item):
        index, epoch = item
        pixels = self.pixels[index]
        return (np.flip(pixels, 1).copy() if epoch and epoch % 2 else pixels), self.targets[index]


class Names:
    def __getitem__(self, item):
        index, epoch = item
        return index, -1 if epoch is None else epoch


def order_of(batches, epoch):
    out = [(i.tolist(), set(e.tolist())) for i, e in batches(epoch)]
    assert all(e == {-1 if epoch is None else epoch} for _, e in out)
    return [i for i, _ in out]


@pytest.mark.parametrize("n, size, sizes", [
    (10, 4, [4, 4, 2]), (9, 4, [4, 5]), (8, 4, [4, 4]), (5, 4, [5]), (1, 4, [1]), (3, 4, [3]),
    (3, 1, [1, 2])])
def test_batches_of_training_cover_each_image_once_and_leave_no_rest_of_one(n, size, sizes):
    indices = np.arange(n) * 3 + 2
    batches = Batches(Names(), indices, size, seed=1)
    out = order_of(batches, 0)
    assert [len(b) for b in out] == sizes
    assert sorted(i for b in out for i in b) == indices.tolist()
    assert len(batches) == n


def test_batches_without_epoch_come_in_order_and_keep_a_rest_of_one():
    batches = Batches(Names(), [5, 3, 9, 1, 0], 2)
    assert order_of(batches, None) == [[5, 3], [9, 1], [0]]
    order_of(batches, 2)
    assert order_of(batches, None) == [[5, 3], [9, 1], [0]]


def test_order_of_batches_follows_from_seed_and_epoch_alone():
    def order(seed, epoch, before=()):
        batches = Batches(Names(), range(40), 8, seed=seed)
        for e in before:
            order_of(batches, e)
        torch.rand(3)
        np.random.rand(3)
        return order_of(batches, epoch)

    base = order(1, 2)
    assert base == order(1, 2, before=(0, 1)) == order(1, 2, before=(None, 7))
    others = [order(1, 3), order(2, 2), order(2, 1), order(0, 0)]
    assert all(o != base for o in others) and sorted(sum(base, [])) == list(range(40))
    assert sum(base, []) != list(range(40))


def test_order_and_items_are_the_same_with_workers():
    toy = Toy()
    plain = Batches(toy, range(9), 2, seed=3)
    forked = Batches(toy, range(9), 2, workers=2, seed=3)
    for epoch in (0, 1, None):
        for a, b in zip(plain(epoch), forked(epoch), strict=True):
            assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def test_workers_end_with_their_batches():
    """At once: the garbage collector would come late and wait five seconds for each of them."""
    before = set(multiprocessing.active_children())
    batches = Batches(Names(), range(4), 2, workers=2)
    order_of(batches, 0)
    assert len(set(multiprocessing.active_children()) - before) == 2
    gc.disable()
    try:
        del batches
        assert set(multiprocessing.active_children()) <= before
    finally:
        gc.enable()


def test_batches_leave_torchs_generator_alone():
    """Else the first epoch of a process would differ from a later one, and so a resumed run."""
    batches = Batches(Names(), range(4), 2)
    before = torch.get_rng_state()
    order_of(batches, 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_to_input_equals_the_numbers_by_hand():
    pixels = torch.arange(2 * 2 * 3 * 3, dtype=torch.uint8).view(2, 2, 3, 3) * 7
    before = pixels.clone()
    mean, std = (0.5, 0.25, 0.1), (0.2, 0.5, 0.4)
    x = to_input(pixels, torch.device("cpu"), mean, std)
    assert x.dtype == torch.float32 and x.shape == (2, 3, 2, 3)
    assert x.is_contiguous(memory_format=torch.channels_last)
    for b in range(2):
        for k in range(3):
            for i in range(2):
                for j in range(3):
                    v = (pixels[b, i, j, k].item() / 255 - mean[k]) / std[k]
                    assert x[b, k, i, j].item() == pytest.approx(v, rel=1e-5, abs=1e-6)
    assert torch.equal(pixels, before)


# One epoch


def prepare(pixels):
    return to_input(pixels, torch.device("cpu"), (0.5, 0.5, 0.5), (0.3, 0.3, 0.3))


def toy_net(seed=0):
    """Norm and dropout: what must see the right mode and the right random numbers."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
                         nn.Dropout(0.3), nn.Linear(16, 2))


LOSS = F.binary_cross_entropy_with_logits
META = {"kind": "toy", "note": [1, "a"]}


def settings(epochs=4, loss=LOSS, **more):
    return Settings(loss, prepare, epochs, META, **more)


def test_train_one_epoch_equals_a_loop_written_out():
    net = toy_net().eval()
    other = toy_net().eval()
    batches = Batches(Toy(), range(10), 4, seed=2)
    steps = [(p.clone(), t.clone()) for p, t in batches(3)]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net[0].weight.grad = torch.ones_like(net[0].weight)  # left behind by someone

    torch.manual_seed(8)
    loss, waited = train_one_epoch(net, batches, optimizer, settings(), 3)

    torch.manual_seed(8)
    other.train()
    velocity, total = [torch.zeros_like(p) for p in other.parameters()], 0.0
    for pixels, target in steps:
        y = other(prepare(pixels))
        mean = (F.softplus(y) - target * y).mean()  # BCE [P-7] on logits
        grads = torch.autograd.grad(mean, list(other.parameters()))
        with torch.no_grad():
            for p, v, g in zip(other.parameters(), velocity, grads, strict=True):
                v.mul_(0.9).add_(g)
                p -= 0.1 * v
        total += mean.item() * len(pixels)
    assert loss == pytest.approx(total / 10, rel=1e-6)  # over images: batches of 4, 4 and 2
    assert waited >= 0 and net.training
    for k, v in other.state_dict().items():
        close(net.state_dict()[k], v, 1e-5, 1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_train_one_epoch_names_the_first_step_whose_loss_is_not_finite(value):
    net, calls = toy_net(), []

    def loss(logits, target):
        calls.append(1)
        return LOSS(logits, target) + (value if len(calls) in (3, 4) else 0.0)

    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(FloatingPointError, match=f"loss is {value} at step 2"):
        train_one_epoch(net, Batches(Toy(), range(10), 2), optimizer, settings(loss=loss), 0)


@pytest.mark.parametrize("amp, dtype", [(False, torch.float32), (True, torch.bfloat16)])
def test_amp_runs_the_network_in_bfloat16_and_the_loss_in_float32(amp, dtype):
    net, inner, outer = toy_net(), set(), set()
    net[5].register_forward_hook(lambda m, inputs, out: inner.add(out.dtype))

    def loss(logits, target):
        outer.add(logits.dtype)
        return LOSS(logits, target)

    batches = Batches(Toy(), range(8), 4)
    train_one_epoch(net, batches, torch.optim.SGD(net.parameters(), lr=0.1),
                    settings(loss=loss, amp=amp), 0)
    outer.update(y.dtype for y, _ in predict(net, batches, prepare, amp))
    assert inner == {dtype} and outer == {torch.float32}


def test_predict_runs_in_eval_mode_in_order_without_a_graph():
    net, toy = toy_net().train(), Toy()
    indices = [7, 2, 2, 9, 0]
    before = copy.deepcopy(net.state_dict())
    out = list(predict(net, Batches(toy, indices, 2), prepare))
    assert [len(y) for y, _ in out] == [2, 2, 1] and not out[0][0].requires_grad
    equal_states(net.state_dict(), before)
    net.eval()
    with torch.no_grad():
        expected = torch.cat([net(prepare(torch.from_numpy(toy.pixels[i:i + 1])))
                              for i in indices])
    close(torch.cat([y for y, _ in out]), expected, 1e-5, 1e-6)
    assert np.array_equal(torch.cat([t for _, t in out]).numpy(), toy.targets[indices])


def test_mean_loss_is_a_mean_over_images():
    logits, target = torch.randn(9, 2), torch.rand(9, 2)
    parts = [(logits[a:b], target[a:b]) for a, b in ((0, 4), (4, 8), (8, 9))]
    whole = LOSS(logits, target).item()
    assert mean_loss(iter(parts), LOSS) == pytest.approx(whole, rel=1e-6)
    assert np.mean([LOSS(*p).item() for p in parts]) != pytest.approx(whole, rel=1e-3)


# fit


def toy_fit(out, epochs, seed=0, workers=0, lr=(0.01, 0.02), net=None, **more):
    out.mkdir(exist_ok=True)
    net = toy_net(seed) if net is None else net
    optimizer = torch.optim.Adam([{"params": net[0].parameters(), "lr": lr[0]},
                                  {"params": net[1:].parameters(), "lr": lr[1]}])
    train = Batches(Toy(), range(7), 3, workers, seed=4)
    val = Batches(Toy(), range(7, 10), 2, workers)
    return fit(net, optimizer, train, val, settings(epochs, **{"keep": 2, "seed": (4, 1), **more}),
               out)


def files(folder):
    return {p.name: p.read_bytes() for p in folder.glob("*") if p.suffix != ".jsonl"}


def rows(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def timeless(folder):
    return [{k: r[k] for k in ("epoch", "loss", "val_loss", "lr")} for r in rows(folder)]


class Script:
    """Validation losses read off a list; keeps the network's state at each of them."""

    def __init__(self, monkeypatch, losses, net):
        self.losses, self.net, self.states = iter(losses), net, []
        monkeypatch.setattr(fit_module, "mean_loss", self)

    def __call__(self, predictions, loss):
        self.states.append(copy.deepcopy(self.net.state_dict()))
        return next(self.losses)


def test_fit_halves_every_rate_after_more_than_three_epochs_without_improvement(
        tmp_path, monkeypatch):
    net = toy_net()
    losses = [1.0, 0.9, 0.95, 0.9, 0.9, 0.91,  # four epochs no better than the second
              0.9 - 1e-7, 0.95, 0.95, 0.95,  # a small gain is a gain; three more are let pass
              0.9 - 2e-7, 1, 1, 1, 1, 1]
    Script(monkeypatch, losses, net)
    toy_fit(tmp_path / "a", len(losses), net=net)
    halvings = [round(np.log2(0.01 / r["lr"][0])) for r in rows(tmp_path / "a")]
    assert halvings == [0] * 6 + [1] * 9 + [2]
    assert all(r["lr"][1] == 2 * r["lr"][0] for r in rows(tmp_path / "a"))


def test_no_more_networks_than_needed_lie_on_the_disk_at_any_epoch(tmp_path, monkeypatch):
    net, losses, seen = toy_net(), [0.5, 0.3, 0.4, 0.3, 0.2, 0.6], []
    Script(monkeypatch, losses, net)

    def report(kind, **facts):
        if kind == "epoch":
            seen.append(sorted(p.name for p in tmp_path.glob("epoch*.pt")))

    toy_fit(tmp_path, 6, keep=2, net=net, report=report)
    assert seen == [["epoch1.pt"], ["epoch1.pt", "epoch2.pt"], ["epoch2.pt", "epoch3.pt"],
                    ["epoch2.pt", "epoch4.pt"], ["epoch2.pt", "epoch5.pt"],
                    ["epoch2.pt", "epoch5.pt"]]


@pytest.mark.parametrize("keep, best", [(1, [5]), (3, [5, 2, 4]), (9, [5, 2, 4, 3, 1, 6])])
def test_fit_keeps_the_best_epochs_best_first(tmp_path, monkeypatch, keep, best):
    net, losses = toy_net(), [0.5, 0.3, 0.4, 0.3, 0.2, 0.6]
    script = Script(monkeypatch, losses, net)
    out = tmp_path / "a"
    out.mkdir()
    (out / "epoch9.pt").write_bytes(b"of an older run")
    (out / "last.pt").write_bytes(b"of an older run")
    got = toy_fit(out, 6, keep=keep, net=net)
    assert got == [{"epoch": e, "val_loss": losses[e - 1]} for e in best]
    assert set(files(out)) == {"last.pt", *(f"epoch{e}.pt" for e in best)}
    for e in best:
        saved = load_checkpoint(out / f"epoch{e}.pt", "toy")
        equal_states(saved["model"], script.states[e - 1])
        assert saved["note"] == [1, "a"]
    last = load_checkpoint(out / "last.pt", "toy")
    equal_states(last["model"], script.states[-1])
    assert last["epochs_done"] == 6 and last["best"] == got


def test_fit_saves_an_epoch_only_while_it_is_among_the_best(tmp_path, monkeypatch):
    net, saved, save = toy_net(), [], save_checkpoint
    Script(monkeypatch, [0.5, 0.6, 0.4, 0.45, 0.7, 0.3], net)
    monkeypatch.setattr(fit_module, "save_checkpoint",
                        lambda path, *rest: (saved.append(path.stem), save(path, *rest)))
    toy_fit(tmp_path / "a", 6, net=net, keep=2)
    assert [s for s in saved if s != "last"] == ["epoch1", "epoch2", "epoch3", "epoch4", "epoch6"]
    assert saved.count("last") == 6


@pytest.mark.parametrize("report, lines", [(Console(), 3), (silent, 0)])
def test_fit_writes_one_line_an_epoch(tmp_path, capsys, report, lines):
    """To the log always, to the terminal if it is told to."""
    toy_fit(tmp_path / "a", 3, report=report)
    assert [r["epoch"] for r in rows(tmp_path / "a")] == [1, 2, 3]
    for r in rows(tmp_path / "a"):
        assert set(r) == {"epoch", "loss", "val_loss", "lr", "seconds", "images_per_second",
                          "waited"}
        assert r["lr"] == [0.01, 0.02] and 0 < r["loss"] < 5 and 0 < r["val_loss"] < 5
    captured = capsys.readouterr()
    assert captured.err == "" and len(captured.out.splitlines()) == lines


def test_fit_validates_without_augmentation_and_trains_with_it(tmp_path):
    seen = []

    class Spy(Toy):
        def __getitem__(self, item):
            seen.append(item)
            return super().__getitem__(item)

    net = toy_net()
    train, val = Batches(Spy(), range(4), 2), Batches(Spy(), range(4, 8), 2)
    fit(net, torch.optim.SGD(net.parameters(), lr=0.1), train, val, settings(2), tmp_path)
    assert {(i < 4, e) for i, e in seen} == {(True, 0), (False, None), (True, 1)}
    assert len(seen) == 16


def test_fit_logs_the_losses_of_its_own_data(tmp_path):
    net = toy_net()
    toy_fit(tmp_path / "a", 1, net=net)
    net.eval()
    toy = Toy()
    with torch.no_grad():
        loss = LOSS(net(prepare(torch.from_numpy(toy.pixels[7:]))),
                    torch.from_numpy(toy.targets[7:])).item()
    assert rows(tmp_path / "a")[0]["val_loss"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_run_ends_with_the_same_bytes_as_an_unbroken_one(tmp_path, workers):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    a = toy_fit(whole, 4)
    toy_fit(broken, 2, workers=workers)
    torch.rand(5)
    b = toy_fit(broken, 4, seed=99, resume=True, workers=workers, lr=(0.5, 0.5))
    assert a == b
    assert files(whole) == files(broken)
    assert timeless(whole) == timeless(broken)


def test_a_run_stopped_within_an_epoch_goes_on_with_its_next_step(tmp_path):
    """After the first of two steps: no image twice, and the same draws, losses and bytes."""
    def stop(event, **facts):
        if facts.get("what") == "epoch 2/3":
            raise Stopped(signal.SIGTERM)

    toy_fit(tmp_path / "whole", 3)
    with pytest.raises(Stopped):
        toy_fit(tmp_path / "part", 3, report=stop)
    assert load_checkpoint(tmp_path / "part/last.pt")["partial_epoch"][0]["sizes"] == [3]
    told = []
    toy_fit(tmp_path / "part", 3, resume=True,
            report=lambda event, **facts: told.append((facts.get("what"), facts.get("done"))))
    assert [done for what, done in told if what == "epoch 2/3"] == [7]  # of 7, 3 before the stop
    assert timeless(tmp_path / "part") == timeless(tmp_path / "whole")
    assert files(tmp_path / "part") == files(tmp_path / "whole")


def test_same_seed_gives_the_same_bytes_and_epochs_differ(tmp_path):
    toy_fit(tmp_path / "a", 2)
    np.random.rand(3)
    toy_fit(tmp_path / "b", 2)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_fit_draws_its_random_numbers_from_the_epoch(tmp_path):
    draws = []

    class Draw(nn.Module):
        def forward(self, x):
            if self.training:
                draws.append(torch.rand(1).item())
            return x

    toy_fit(tmp_path / "a", 2, net=nn.Sequential(*toy_net(), Draw()))
    first = list(draws)
    toy_fit(tmp_path / "b", 2, net=nn.Sequential(*toy_net(), Draw()))
    assert draws == first * 2 and len(set(first)) == len(first)


def test_resume_of_a_finished_run_changes_nothing(tmp_path):
    best = toy_fit(tmp_path / "a", 2)
    before, log = files(tmp_path / "a"), rows(tmp_path / "a")
    assert toy_fit(tmp_path / "a", 2, seed=5, resume=True) == best
    assert files(tmp_path / "a") == before and rows(tmp_path / "a") == log


def test_resume_with_nothing_there_starts_anew(tmp_path):
    toy_fit(tmp_path / "a", 2)
    toy_fit(tmp_path / "b", 2, resume=True)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_without_resume_an_older_run_is_overwritten(tmp_path):
    toy_fit(tmp_path / "a", 2)
    toy_fit(tmp_path / "b", 4, seed=3)
    toy_fit(tmp_path / "b", 2)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert timeless(tmp_path / "a") == timeless(tmp_path / "b")


def test_resume_refuses_the_checkpoint_of_another_kind(tmp_path):
    save_checkpoint(tmp_path / "last.pt", toy_net(), {"kind": "other"})
    with pytest.raises(CheckpointError, match="a other, expected a toy"):
        toy_fit(tmp_path, 2, resume=True)


class Killed(BaseException):
    pass


def test_a_run_killed_between_any_two_files_resumes_to_the_same_bytes_and_log(
        tmp_path, monkeypatch):
    toy_fit(tmp_path / "whole", 3, keep=1)
    replace, kills = os.replace, 0
    for n in range(100):
        out, calls = tmp_path / f"killed{n}", []

        def killing(a, b, n=n, calls=calls):
            if len(calls) == n:
                raise Killed
            calls.append(1)
            replace(a, b)

        monkeypatch.setattr(files_module.os, "replace", killing)
        try:
            toy_fit(out, 3, keep=1)
        except Killed:
            kills += 1
        else:
            break
        monkeypatch.setattr(files_module.os, "replace", replace)
        toy_fit(out, 3, resume=True, keep=1)
        left = {k: v for k, v in files(out).items() if not k.endswith(".tmp")}
        assert left == files(tmp_path / "whole"), n
        assert timeless(out) == timeless(tmp_path / "whole"), n
    assert kills >= 6  # at least last.pt and the log of three epochs


def test_fit_says_where_and_at_what_rate_the_loss_broke(tmp_path):
    calls = []

    def loss(logits, target):
        calls.append(1)
        return LOSS(logits, target) * (float("nan") if len(calls) == 5 else 1.0)

    net = toy_net()
    batches = Batches(Toy(), range(4), 2)  # two steps to train, two to validate
    with pytest.raises(FloatingPointError) as error:
        fit(net, torch.optim.SGD(net.parameters(), lr=0.125), batches, batches,
            settings(3, loss), tmp_path)
    for part in (str(tmp_path), "epoch 2", "nan at step 0", "0.125"):
        assert part in str(error.value)
    assert load_checkpoint(tmp_path / "last.pt")["epochs_done"] == 1


def test_fit_reports_its_steps_and_epochs(tmp_path):
    told = []
    toy_fit(tmp_path / "a", 2, report=lambda event, **facts: told.append((event, facts)))
    steps = [(f["what"], f["done"], f["total"]) for e, f in told if e == "step"]
    assert steps == [(what, *done) for n in (1, 2) for what, done in (
        (f"epoch {n}/2", (3, 7)), (f"epoch {n}/2", (7, 7)),
        (f"epoch {n}/2, validation", (2, 3)), (f"epoch {n}/2, validation", (3, 3)))]
    assert all(f["in_epoch"] for e, f in told if e == "step")
    epochs = [f for e, f in told if e == "epoch"]
    left = [f.pop("left") for f in epochs]
    assert left[0] > left[1] == 0
    assert epochs == [{"out": tmp_path / "a", "title": "", "epochs": 2, **r}
                      for r in rows(tmp_path / "a")]
    assert len(steps) + len(epochs) == len(told)


# The cross-validated loop


class Two(nn.Module):
    """Returns a tuple, as a network with an auxiliary output does."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        y = self.body(x).relu()
        return self.head(y.mean(dim=(2, 3))), y


def cross_meta(**more):
    return {"kind": "toy", "preprocess": {"size": [4, 4], "mean": [0.5] * 3, "std": [0.3] * 3},
            **more}


def recipe(**changes):
    """One that leaves the held-out outputs of each fold in fold{k}/done.pt, and a copy of its
    last.pt in end.pt."""
    def finish_fold(trained):
        shutil.copy(trained.out / "last.pt", trained.out / "end.pt")
        trained.model.load_state_dict(
            load_checkpoint(trained.out / f"epoch{trained.best[0]['epoch']}.pt", "toy")["model"])
        outputs = [o for o, _ in predict(trained.model, trained.val, trained.settings.prepare)]
        torch.save(outputs, trained.out / "done.pt")

    return Recipe(**{"build": toy_net_of_now, "optimizer": adam, "loss": LOSS,
                     "finish_fold": finish_fold, "done": "done.pt", "meta": cross_meta(),
                     "keep": 2, **changes})


def toy_net_of_now():
    """toy_net() by the seed that the loop has set."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
                         nn.Dropout(0.3), nn.Linear(16, 2))


def adam(model):
    return torch.optim.Adam(model.parameters(), lr=0.01)


FOLD = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])


def plan(out, **changes):
    out.mkdir(exist_ok=True)
    return Plan(**{"dataset": Toy(), "fold": FOLD, "out": out, "device": torch.device("cpu"),
                   "epochs": 3, "batch_size": 3, "seed": 5, **changes})


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.pt")}


def test_every_fold_is_trained_on_the_others_and_finished_once(tmp_path):
    seen, finished = [], []

    class Spy(Toy):
        def __getitem__(self, item):
            seen.append(item)
            return super().__getitem__(item)

    def finish(trained):
        finished.append((trained.k, trained.out, len(trained.best)))
        assert trained.val.indices.tolist() == np.flatnonzero(trained.k == FOLD).tolist()
        assert trained.train.indices.tolist() == np.flatnonzero(trained.k != FOLD).tolist()
        trained_on = {i for i, epoch in seen if epoch is not None}
        assert trained_on == set(trained.train.indices.tolist())
        assert {i for i, epoch in seen if epoch is None} == set(trained.val.indices.tolist())
        seen.clear()

    cross_validate(recipe(finish_fold=finish), plan(tmp_path / "a", dataset=Spy()), [2, 0, 1])
    assert finished == [(k, tmp_path / "a" / f"fold{k}", 2) for k in (2, 0, 1)]


def test_a_finished_fold_keeps_no_state_of_its_training(tmp_path):
    """Nor does one whose run was killed before it could delete it."""
    out = tmp_path / "a"
    cross_validate(recipe(), plan(out), range(3))
    whole = tree(out)
    assert not any(name.endswith("last.pt") for name in whole)
    (out / "fold1/last.pt").write_bytes(b"left")
    cross_validate(recipe(), plan(out, resume=True), range(3))
    assert tree(out) == whole
    cross_validate(recipe(finish_fold=lambda trained: None), plan(tmp_path / "b"), [0])
    assert (tmp_path / "b/fold0/last.pt").exists()  # without its results it is not finished


def test_a_fold_is_the_same_whichever_others_are_trained(tmp_path):
    cross_validate(recipe(), plan(tmp_path / "a"), range(3))
    torch.rand(3)
    cross_validate(recipe(), plan(tmp_path / "b"), [1])
    a, b = tree(tmp_path / "a"), tree(tmp_path / "b")
    assert b and b == {name: a[name] for name in a if name.startswith("fold1/")}


def test_every_fold_begins_with_weights_of_its_own(tmp_path):
    first = []

    def build():
        net = toy_net_of_now()
        first.append(net[0].weight.detach().clone())
        return net

    cross_validate(recipe(build=build), plan(tmp_path / "a", epochs=1), range(3))
    cross_validate(recipe(build=build), plan(tmp_path / "b", epochs=1, seed=6), [0])
    assert all(not torch.equal(a, b) for i, a in enumerate(first) for b in first[:i])


def test_resume_skips_what_is_finished_and_goes_on_with_the_rest(tmp_path):
    cross_validate(recipe(), plan(tmp_path / "whole"), range(3))
    cross_validate(recipe(), plan(tmp_path / "part"), [0])
    cross_validate(recipe(finish_fold=lambda trained: None), plan(tmp_path / "part", epochs=2), [1])
    built = []

    def build():
        built.append(1)
        return toy_net_of_now()

    cross_validate(recipe(build=build), plan(tmp_path / "part", resume=True), range(3))
    assert len(built) == 2 and tree(tmp_path / "part") == tree(tmp_path / "whole")
    cross_validate(recipe(build=build), plan(tmp_path / "part"), [0])
    assert len(built) == 3  # without resume a finished fold is trained again


@pytest.mark.parametrize("fast", [True, False])
def test_a_training_with_amp_on_a_slow_cpu_is_told(tmp_path, monkeypatch, fast):
    notes = []
    monkeypatch.setattr(devices, "fast_bfloat16", lambda device: fast)
    cross_validate(recipe(), plan(tmp_path / "amp", amp=True, epochs=1, report=lambda event, **facts:
                                  notes.append(facts["text"]) if event == "note" else None), [0])
    assert [note.split(" has")[0] for note in notes] == ([] if fast else ["--amp: this CPU"])


def test_a_network_that_returns_a_tuple_plugs_in_with_its_own_loss(tmp_path):
    """The loss gets the tuple, in float32; fit equals a loop written out."""
    def loss(outputs, target):
        logits, maps = outputs
        assert type(outputs) is tuple and {o.dtype for o in outputs} == {torch.float32}
        return LOSS(logits, target) + 0.1 * maps.abs().mean()

    def sgd(model):
        return torch.optim.SGD(model.parameters(), lr=0.1)

    cross_validate(recipe(build=Two, loss=loss, optimizer=sgd), plan(tmp_path / "a"), [0])
    cross_validate(recipe(build=Two, loss=loss, optimizer=sgd), plan(tmp_path / "amp", amp=True),
                   [0])
    toy, out = Toy(), tmp_path / "a/fold0"
    train, val = np.flatnonzero(FOLD != 0), np.flatnonzero(FOLD == 0)
    fit_module.seed_torch(5, 0)
    net = Two()
    for epoch in range(3):
        for batch in np.array_split(np.random.default_rng((5, epoch)).permutation(train), 2):
            value = loss(net(prepare(*map(torch.from_numpy, [
                np.stack([toy[i, epoch][0] for i in batch])]))),
                torch.from_numpy(toy.targets[batch]))
            grads = torch.autograd.grad(value, list(net.parameters()))
            with torch.no_grad():
                for p, g in zip(net.parameters(), grads, strict=True):
                    p -= 0.1 * g
    last = load_checkpoint(out / "end.pt", "toy")["model"]
    for k, v in net.state_dict().items():
        close(last[k], v, 1e-4, 1e-6)
    with torch.no_grad():
        value = loss(net(prepare(torch.from_numpy(toy.pixels[val]))),
                     torch.from_numpy(toy.targets[val])).item()
    assert rows(out)[-1]["val_loss"] == pytest.approx(value, rel=1e-4)
    logits, maps = torch.load(out / "done.pt", weights_only=True)[0]
    assert logits.shape == (3, 2) and maps.shape == (3, 4, 2, 2)


class EverySecond(torch.optim.Optimizer):
    """Plain descent that takes every second step only, and so has a state of its own."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for p in (p for group in self.param_groups for p in group["params"]):
            self.state[p]["n"] = self.state[p].get("n", 0) + 1
            if self.state[p]["n"] % 2 == 0:
                p -= self.param_groups[0]["lr"] * p.grad


def test_a_network_plugs_in_with_an_optimizer_of_its_own(tmp_path):
    """Its state is saved with the run: stopped after an epoch of three steps, it goes on."""
    def own(model):
        return EverySecond(model.parameters(), 0.1)

    changes = {"batch_size": 2}  # three steps an epoch
    cross_validate(recipe(optimizer=own), plan(tmp_path / "whole", **changes), range(3))
    cross_validate(recipe(optimizer=own, finish_fold=lambda trained: None),
                   plan(tmp_path / "part", epochs=1, **changes), range(3))
    part = load_checkpoint(tmp_path / "part/fold0/last.pt", "toy")["optimizer"]["state"]
    assert {s["n"] for s in part.values()} == {3}
    cross_validate(recipe(optimizer=own), plan(tmp_path / "part", resume=True, **changes), range(3))
    assert tree(tmp_path / "part") == tree(tmp_path / "whole")
    last = load_checkpoint(tmp_path / "whole/fold0/end.pt", "toy")["optimizer"]["state"]
    assert {s["n"] for s in last.values()} == {9}


def test_the_cosine_schedule_is_half_a_cosine_and_resumes(tmp_path):
    """The rate of epoch e, counted from 0, is lr (1 + cos(pi e / epochs)) / 2."""
    def rates(out, stop=None, resume=False):
        torch.manual_seed(3)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        batches = [(torch.ones(2, 1, 1, 3), torch.zeros(2, 2))]

        class Twice:
            def __len__(self):
                return 2

            def __call__(self, epoch=None, skip=0):
                if epoch == stop is not None:
                    raise KeyboardInterrupt
                return iter(batches)

        settings = Settings(F.mse_loss, lambda x: x, 4, {"kind": "toy"}, resume=resume,
                            schedule="cosine")
        try:
            fit(model, optimizer, Twice(), Twice(), settings, out)
        except KeyboardInterrupt:
            pass
        return [json.loads(line)["lr"][0] for line in (out / "log.jsonl").read_text().splitlines()]

    expected = [0.1 * (1 + np.cos(np.pi * e / 4)) / 2 for e in range(4)]
    (tmp_path / "whole").mkdir()
    (tmp_path / "part").mkdir()
    assert rates(tmp_path / "whole") == pytest.approx(expected)
    assert len(rates(tmp_path / "part", stop=2)) == 2
    assert rates(tmp_path / "part", resume=True) == pytest.approx(expected)
