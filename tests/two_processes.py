"""Started twice by test_processes.py: one step of both processes against the same step alone."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from cam2seg import engine, loading, models, process  # noqa: E402


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
    net = model if alone else process.wrapped(model, torch.device("cpu"))
    batches = loading.Batches(Seven(), range(7), 7, alone=alone)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    sizes = [len(b) for b in batches.order]
    loss, _ = engine.train_one_epoch(net, batches, 0, lambda x: x,
                                     F.binary_cross_entropy_with_logits, optimizer)
    return torch.cat([p.grad.flatten() for p in model.parameters()]), loss, sizes


def refuse():
    raise ValueError("no")


def main():
    process.start()
    together, loss, _ = step(alone=False)
    order = loading.Order(range(7), 7, 0, process.rank(), 2)
    order.epoch = 0
    parts = process.share([len(b) for b in order][0])
    mine = list(range(5))[process.rank()::2]
    layer = torch.nn.BatchNorm2d(1)
    layer.running_mean.fill_(process.rank())
    process.same(layer)
    buffers = process.share(float(layer.running_mean))
    said = {"shared": process.share({"rank": process.rank()}), "in_turn": process.in_turn(mine),
            "parts": parts, "loss": loss, "buffer": max(buffers)}
    try:
        process.first_does(refuse, (ValueError, OSError))
    except ValueError as error:
        said["refused"] = process.share(str(error))[1]
    first = process.first()
    process.end()
    if first:
        gradients, said["loss_alone"], _ = step(alone=True)
        said["difference"] = float((gradients - together).abs().max())
        said["largest"] = float(gradients.abs().max())
        Path(sys.argv[1], "said.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main()
