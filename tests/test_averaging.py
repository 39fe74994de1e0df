"""The mean of weights and the BatchNorm pass, against means written out in float64."""

import copy

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from conftest import close, equal_states

from cam2seg import averaging

pytestmark = pytest.mark.usefixtures("fixed_seed")


# Averages of weights


def test_average_states_is_the_mean_in_float64_with_whole_numbers_of_the_first():
    states = [{"w": torch.randn(50) * 10**n, "half": torch.randn(9).half(),
               "wide": torch.randn(3, dtype=torch.float64),
               "n": torch.tensor(7 + n), "on": torch.tensor([n == 0])} for n in range(3)]
    states[0]["w"][0], states[1]["w"][0], states[2]["w"][0] = 1.0, 1e8, -1e8  # 1e8 + 1 - 1e8
    before = copy.deepcopy(states)
    mean = averaging.average_states(states)
    assert list(mean) == list(states[0])
    for k in ("w", "half", "wide"):
        expected = np.stack([s[k].numpy().astype(np.float64) for s in states]).sum(axis=0) / 3
        assert mean[k].dtype == states[0][k].dtype
        close(mean[k].double(), torch.from_numpy(expected).to(mean[k].dtype).double(), 1e-15, 0)
    assert mean["w"][0].item() == pytest.approx(1 / 3, rel=1e-7)
    assert mean["n"].item() == 7 and mean["n"].dtype == torch.int64
    assert mean["on"].tolist() == [True]
    mean["n"] += 1
    mean["w"] += 1
    for s, b in zip(states, before, strict=True):
        equal_states(s, b)


def test_average_of_network_states_can_be_loaded():
    nets = [nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)) for _ in range(2)]
    for n, net in enumerate(nets):
        net[1].running_var.fill_(n + 1.0)
        net[1].num_batches_tracked.fill_(5 + n)
    nets[0].load_state_dict(averaging.average_states([net.state_dict() for net in nets]))
    assert nets[0][1].running_var.tolist() == [1.5] * 3  # statistics are averaged too (DEV-7)
    assert nets[0][1].num_batches_tracked.item() == 5


@pytest.mark.parametrize("states", [
    [], [{"a": torch.ones(1)}, {"b": torch.ones(1)}],
    [{"a": torch.ones(1)}, {"a": torch.ones(1), "b": torch.ones(1)}],
    [{"a": torch.ones(1), "b": torch.ones(1)}, {"a": torch.ones(1)}]])
def test_average_states_refuses_none_and_unlike_keys(states):
    with pytest.raises(ValueError, match="same keys"):
        averaging.average_states(states)


# BatchNorm's statistics


def norm_net():
    net = nn.Sequential(nn.BatchNorm2d(3, momentum=0.3), nn.Conv2d(3, 4, 1), nn.ReLU(),
                        nn.BatchNorm2d(4, momentum=None)).double()
    for m in (net[0], net[3]):
        m.running_mean.normal_()
        m.running_var.uniform_(1, 2)
        m.num_batches_tracked.fill_(11)
        nn.init.normal_(m.weight)
    return net


def statistics(x):
    """Mean, unbiased variance and biased variance of every channel of (B, C, h, w)."""
    values = [x[:, c].flatten().tolist() for c in range(x.shape[1])]
    means = [sum(v) / len(v) for v in values]
    squares = [sum((u - m)**2 for u in v) for v, m in zip(values, means, strict=True)]
    n = len(values[0])
    return (torch.tensor(t, dtype=torch.float64) for t in (
        means, [q / (n - 1) for q in squares], [q / n for q in squares]))


def test_update_bn_weighs_the_statistics_of_each_batch_by_its_size():
    net = norm_net()
    batches = [n + (1 + n) * torch.randn(n, 3, 3, 3, dtype=torch.float64) for n in (4, 1, 6, 2)]
    sums = [[torch.zeros(3).double(), torch.zeros(3).double()],
            [torch.zeros(4).double(), torch.zeros(4).double()]]
    for x in batches:
        with torch.no_grad():
            for total, m in zip(sums, (net[0], net[3]), strict=True):
                mean, unbiased, biased = statistics(x)
                total[0] += len(x) * mean / 13
                total[1] += len(x) * unbiased / 13
                if m is net[0]:
                    shape = (1, -1, 1, 1)
                    x = (x - mean.view(shape)) / (biased + m.eps).sqrt().view(shape)
                    x = x * m.weight.view(shape) + m.bias.view(shape)
                    x = F.relu(net[1](x))
    assert averaging.update_bn(net, iter(batches)) is None
    for total, m in zip(sums, (net[0], net[3]), strict=True):
        close(m.running_mean, total[0])
        close(m.running_var, total[1])
        assert m.num_batches_tracked.item() == 4


def test_update_bn_equals_torch_for_equal_batches():
    ours, theirs = (nn.Sequential(norm_net(), nn.Dropout(0.4), nn.Flatten(), nn.Linear(36, 3),
                                  nn.BatchNorm1d(3)).double() for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    batches = [torch.randn(5, 3, 3, 3, dtype=torch.float64) for _ in range(4)]
    torch.manual_seed(3)
    averaging.update_bn(ours, batches)
    torch.manual_seed(3)
    torch.optim.swa_utils.update_bn(batches, theirs)
    a, b = ours.state_dict(), theirs.state_dict()
    assert a.keys() == b.keys()
    for k in a:
        close(a[k], b[k])


def test_update_bn_puts_momentum_and_modes_back_and_changes_nothing_else():
    net = norm_net()
    net.append(nn.Dropout())
    net.eval()
    net[0].train()
    net[4].train()
    before = copy.deepcopy(net.state_dict())
    averaging.update_bn(net, [torch.randn(2, 3, 3, 3).double()])
    assert [m.training for m in net.modules()] == [False, True, False, False, False, True]
    assert (net[0].momentum, net[3].momentum) == (0.3, None)
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    after = net.state_dict()
    for k in before:
        assert torch.equal(before[k], after[k]) == (k.split(".")[1] not in (
            "running_mean", "running_var", "num_batches_tracked")), k
