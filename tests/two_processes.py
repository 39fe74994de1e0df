"""Started twice by test_processes.py: one step of both processes against the same step alone."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from cam2seg import models  # noqa: E402
from cam2seg.runs import processes  # noqa: E402
from cam2seg.training.batches import Batches, Order  # noqa: E402
from cam2seg.training.epochs import train_one_epoch  # noqa: E402
from cam2seg.training.fit import Settings  # noqa: E402


class Seven(torch.utils.data.Dataset):
    def __getitem__(self, item):
        rng = torch.Generator().manual_seed(item[0])
        return torch.randn(3, 64, 64, generator=rng), torch.rand(2, generator=rng).round()


class Frozen(models.Classifier):
    """BatchNorm, dropout and stochastic depth as in eval mode."""

    def train(self, mode=True):
        return super().train(False)


def step(alone):
    """Gradients and mean loss of one pass over one batch of seven images."""
    torch.manual_seed(0)
    model = Frozen("b0", 2)
    net = model if alone else processes.distributed_model(model, torch.device("cpu"))
    batches = Batches(Seven(), range(7), 7, undivided=alone)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    sizes = [len(b) for b in batches.order]
    settings = Settings(F.binary_cross_entropy_with_logits, lambda x: x, 1, {})
    loss, _ = train_one_epoch(net, batches, optimizer, settings, 0)
    return torch.cat([p.grad.flatten() for p in model.parameters()]), loss, sizes


def refuse():
    raise ValueError("no")


def main():
    processes.join()
    together, loss, _ = step(alone=False)
    order = Order(range(7), 7, 0, processes.rank(), 2)
    order.epoch = 0
    parts = processes.all_gather([len(b) for b in order][0])
    mine = list(range(5))[processes.rank()::2]
    layer = torch.nn.BatchNorm2d(1)
    layer.running_mean.fill_(processes.rank())
    processes.broadcast_buffers(layer)
    buffers = processes.all_gather(float(layer.running_mean))
    said = {"shared": processes.all_gather({"rank": processes.rank()}),
            "in_turn": processes.gather_in_turn(mine),
            "parts": parts, "loss": loss, "buffer": max(buffers)}
    try:
        processes.run_on_first(refuse, (ValueError, OSError))
    except ValueError as error:
        said["refused"] = processes.all_gather(str(error))[1]
    first = processes.is_first()
    processes.leave()
    if first:
        gradients, said["loss_alone"], _ = step(alone=True)
        said["difference"] = float((gradients - together).abs().max())
        said["largest"] = float(gradients.abs().max())
        Path(sys.argv[1], "said.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main()
    processes.end(0)
