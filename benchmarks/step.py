"""A training step on one device: images per second, the share of the peak, and where the time goes.

    python benchmarks/step.py
    python benchmarks/step.py --device cuda --batch-size 64 --size 256 512 --out step_cuda.json

Classifier and U-Net with b0 are trained in float32 and in bfloat16 (--amp of the scripts), in
channels_last, on one batch that is already on the device. FLOP are those of convolutions and matrix
products, two for each multiplication; a backward has twice those of its forward. The peak is what
the same device reaches in a large matrix product of the same precision, on CUDA with TF32 for
float32, as cuDNN's convolutions have it. The share of the peak is the time that a matrix product of
the same FLOP would take, divided by the time of the step. On a CPU one thread works. Prints two
tables in Markdown and writes --out.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
from speed import clock_of, in_turn, machine, versions
from speed_training import step

from cam2seg import models
from cam2seg.runs.memory import keep_freed_memory

CLASSES = 4
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# What a torch operator outside the optimizer belongs to, by parts of its name.
KINDS = {"convolutions and matrix products": ("conv", "mm", "dot"), "BatchNorm": ("batch_norm",)}
REST, ADAM = "activations and other passes over the values", "optimizer"
SHARES = (*KINDS, REST, ADAM)


def seconds(work, device, rounds):
    """Median seconds of work() on the device."""
    return in_turn({"work": work}, rounds, clock_of(device))["work"]


def peak(device, dtype, rounds):
    """FLOP per second of a matrix product n x n x n."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    return 2 * n ** 3 / seconds(lambda: a @ b, device, rounds)


def forward_flops(model, x):
    """FLOP of a forward. That of a backward is not counted, because torch's counter takes the
    backward of a depthwise convolution for that of a dense one."""
    with torch.no_grad(), FlopCounterMode(display=False) as count:
        model(x)
    return count.get_total_flops()


def parts_of(work, device):
    """The share of each kind of operator in the time of work() on the device, {kind: share}."""
    with profile() as seen:
        work()
    found = dict.fromkeys(SHARES, 0.0)
    field = f"self_{'cpu' if device.type == 'cpu' else 'device'}_time_total"
    for event in seen.events():
        if event.name.startswith("aten::"):
            kind = ADAM if in_optimizer(event) else next(
                (k for k, names in KINDS.items() if any(n in event.name for n in names)), REST)
            found[kind] += getattr(event, field)
    return {kind: value / sum(found.values()) for kind, value in found.items()}


def in_optimizer(event):
    """Whether an operator runs within the step of an optimizer."""
    while event and not event.name.startswith("Optimizer.step"):
        event = event.cpu_parent
    return event is not None


def measure(args):
    """One row {column: value} for each network and precision."""
    out, device = [], args.device
    x = torch.randn(args.batch_size, 3, *args.size).to(device, memory_format=torch.channels_last)
    for title, build, shape in (("classifier", models.Classifier, ()),
                                ("U-Net", models.UNet, tuple(args.size))):
        target = torch.ones(args.batch_size, CLASSES, *shape, device=device)
        for precision, dtype in PRECISIONS.items():
            torch.manual_seed(0)
            model = build("b0", CLASSES)
            run = step(model, x, target, amp=precision == "bfloat16")
            took, best = seconds(run, device, args.rounds), peak(device, dtype, args.rounds)
            flops = 3 * forward_flops(model, x)
            out.append({"network": title, "precision": precision,
                        "images per second": args.batch_size / took, "GFLOP an image":
                        flops / args.batch_size / 1e9, "GFLOP/s": flops / took / 1e9,
                        "peak (GFLOP/s)": best / 1e9, "share of the peak": flops / took / best,
                        **parts_of(run, device)})
            print(json.dumps(out[-1]), flush=True)
    return out


def markdown(rows):
    """Two tables: the speed of a step, and the shares of its time."""
    tables = [[name for name in rows[0] if name not in SHARES], ["network", "precision", *SHARES]]
    text = []
    for columns in tables:
        lines = [columns, ["---"] * len(columns)]
        for r in rows:
            lines.append([r[c] if isinstance(r[c], str) else
                          f"{r[c]:.0%}" if c in SHARES or c.startswith("share") else
                          f"{r[c]:,.0f}" if r[c] >= 100 else f"{r[c]:.3g}" for c in columns])
        text.append("\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")
    return "\n".join(text)


def get_args(argv=None):
    p = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", type=torch.device, default="cpu", help="default: cpu")
    p.add_argument("--batch-size", type=int, default=16, help="default: 16")
    p.add_argument("--size", type=int, nargs=2, default=[128, 128], help="default: 128 128")
    p.add_argument("--rounds", type=int, default=7, help="default: 7")
    p.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/step.json")
    p.set_defaults(threads=1)  # CPU time of several threads would count each of them
    return p.parse_args(argv)


def main(args):
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    rows = measure(args)
    args.out.write_text(json.dumps({
        "machine": machine(args), "versions": versions(), "batch size": args.batch_size,
        "size": args.size, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    print("\n" + markdown(rows))


if __name__ == "__main__":
    main(get_args())
