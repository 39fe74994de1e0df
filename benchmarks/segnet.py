"""Time and memory of U-Net, SegNet, and SegNet with features in the place of its indices.

    python benchmarks/segnet.py --size 256 512

The places of the poolings are said to save memory, because nothing else is handed from the encoder
to the decoder. The third network tests this: it is SegNet, but it hands over the features before
each pooling, and each block of its decoder gets them beside the enlarged ones. Each network runs in
processes of their own, one image at a time in inference and four in training. Prints a table and
writes --out.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from cam2seg import losses, models, segnet  # noqa: E402

HEAD = ("network", "parameters", "handed over (MiB)", "inference (s)", "inference peak (MiB)",
        "training step (s)", "training peak (MiB)")


class WithFeatures(segnet.SegNet):
    """SegNet whose decoder gets the features before each pooling, and not the places of maxima."""

    def __init__(self, encoder: nn.Sequential, num_classes: int):
        super().__init__(encoder, num_classes)
        for block in self.decoder:
            first = block[0]
            K = first.in_channels  # the enlarged features have as many channels as those before
            block[0] = nn.Conv2d(2 * K, first.out_channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = []
        for layer in self.encoder:
            if isinstance(layer, nn.MaxPool2d):
                kept.append(x)
                x = F.max_pool2d(x, 2, ceil_mode=True)
            else:
                x = layer(x)
        for block in self.decoder:
            before = kept.pop()
            x = block(torch.cat([F.interpolate(x, size=before.shape[-2:]), before], dim=1))
        return self.head(x)


NETWORKS = {"U-Net (b0)": lambda: models.UNet("b0", 4),
            "SegNet, places of maxima": lambda: segnet.SegNet(models.vgg16(), 4),
            "SegNet, features instead": lambda: WithFeatures(models.vgg16(), 4)}


def handed_over(model: nn.Module, x: torch.Tensor) -> float:
    """MiB that the encoder leaves to the decoder besides its last features, for the batch x."""
    total = 0
    for i, layer in enumerate(model.encoder):
        if isinstance(layer, nn.MaxPool2d):
            before, (x, places) = x, segnet.pool(x)
            total += (before if isinstance(model, WithFeatures) else places).nbytes
        else:
            x = layer(x)
            total += x.nbytes if i in models.SKIPS and isinstance(model, models.UNet) else 0
    return total / 2**20


def seconds_of_step(build, size, training, count=3):
    """CPU seconds of one step, the median of `count`, after one that does not count."""
    torch.manual_seed(0)
    model, x = build().train(training), torch.randn(4 if training else 1, 3, *size)
    target, seconds = torch.zeros(len(x), 4, *size), []
    for _ in range(count + 1):
        start = time.process_time()
        with torch.set_grad_enabled(training):
            out = model(x)
            if training:
                losses.segmentation_loss(out, target, "bce").backward()
        seconds.append(time.process_time() - start)
    return sorted(seconds[1:])[count // 2]


def forked(work):
    """What work() returns, and the MiB by which a process of its own grows at most."""
    there, here = multiprocessing.Pipe()

    def measured():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = work()
        here.send((found, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))

    process = multiprocessing.get_context("fork").Process(target=measured)
    process.start()
    found = there.recv()
    process.join()
    return found


def row(build, size):
    """The cells of a row after the name. The peaks include the weights and, in training, their
    gradients."""
    with torch.no_grad():
        model = build().eval()
        cells = [sum(p.numel() for p in model.parameters()),
                 handed_over(model, torch.zeros(1, 3, *size))]
    del model
    for training in (False, True):
        cells += forked(lambda training=training: seconds_of_step(build, size, training))
    return cells


def markdown(rows):
    """The table of docs/segnet.md."""
    lines = [HEAD, ["---"] * len(HEAD)]
    for name, (count, kept, *cells) in rows.items():
        lines.append([name, f"{count:,}", f"{kept:.1f}",
                      *(f"{c:.3g}" if i % 2 == 0 else f"{c:.0f}" for i, c in enumerate(cells))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def get_args(argv=None):
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--size", type=int, nargs=2, default=[256, 512], help="of the images, H W")
    p.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/segnet.json")
    return p.parse_args(argv)


def main(args):
    # The rows are measured in processes of their own, which start from this one's small memory.
    found = {name: forked(lambda build=build: row(build, args.size))[0]
             for name, build in NETWORKS.items()}
    args.out.write_text(json.dumps({"size": args.size, "head": HEAD, "rows": found}, indent=1)
                        + "\n", encoding="utf-8")
    print(markdown(found))


if __name__ == "__main__":
    main(get_args())
