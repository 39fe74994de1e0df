"""Speed as ratios of two things measured in turn in one run. No other program should be running.

    python benchmarks/speed.py [--images FOLDER]

1. training: train_one_epoch on image files with --workers processes, against a bare loop of the
   same network on tensors that lie in memory; and the share of its time spent waiting for data.
2. maps: class_maps of all classes (one forward, C head-only backwards), against a forward and a
   full backward for each class.
3. memory: the bare loop with keep_freed_memory, as the scripts run, against without it.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))
from cam2seg import cam, models
from cam2seg.data.dataset import ImageSet
from cam2seg.data.image_folder import list_images
from cam2seg.models import MEAN, STD
from cam2seg.runs.memory import keep_freed_memory
from cam2seg.training.batches import Batches, to_input
from cam2seg.training.epochs import train_one_epoch
from cam2seg.training.fit import Settings


def get_args():
    p = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--images", type=Path, help="folder of images (default: 200x200 noise as JPEG)")
    p.add_argument("--count", type=int, default=512, help="images an epoch (default: 512)")
    p.add_argument("--size", type=int, default=128, help="input side in pixels (default: 128)")
    p.add_argument("--workers", type=int, default=1, help="default: 1")
    p.add_argument("--rounds", type=int, default=3, help="default: 3")
    p.add_argument("--bare", choices=("keep", "default"), help="only time the bare loop")
    return p.parse_args()


def noise_images(folder, count):
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = rng.normal(128, 30, (200, 200)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).convert("RGB").save(Path(folder) / f"{i:05d}.jpg", quality=92)


def prepare(pixels):
    return to_input(pixels, "cpu", MEAN, STD)


def new_model(classes=4):
    torch.manual_seed(0)
    model = models.Classifier("b0", classes).to(memory_format=torch.channels_last)
    return model, torch.optim.Adam(model.parameters(), 1e-3)


def bare_epoch(model, optimizer, batches):
    model.train()
    for x, y in batches:
        loss = F.binary_cross_entropy_with_logits(model(x), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def training(args, folder, names):
    y = np.random.default_rng(1).integers(0, 2, (len(names), 4)).astype(np.float32)
    files = ImageSet(folder, names, (args.size, args.size), y, flips=(False, True))
    batches = Batches(files, np.arange(len(names)), 64, args.workers)
    memory = [(prepare(x), t) for x, t in Batches(files, np.arange(len(names)), 64)(0)]
    model, optimizer = new_model()
    settings = Settings(F.binary_cross_entropy_with_logits, prepare, args.rounds + 1, meta={})
    ratios, waits = [], []
    for n in range(args.rounds + 1):
        start = time.perf_counter()
        bare_epoch(model, optimizer, memory)
        middle = time.perf_counter()
        _, waited = train_one_epoch(model, batches, optimizer, settings, n)
        end = time.perf_counter()
        if n:  # the first round warms up
            ratios.append((middle - start) / (end - middle))
            waits.append(waited / (end - middle))
            print(f"round {n}: bare {len(names) / (middle - start):.1f} images/s, "
                  f"train_one_epoch {len(names) / (end - middle):.1f} images/s, "
                  f"waiting {waits[-1]:.1%}")
    print(f"training, {args.size} x {args.size}, {args.workers} worker(s): {median(ratios):.3f} of "
          f"the bare loop, {median(waits):.1%} of the time spent waiting for data")


def naive_maps(model, x, classes):
    """What a CAM library does for each class in turn: forward and backward of the whole network."""
    out = []
    for c in range(classes):
        held = {}
        handle = model.features.register_forward_hook(
            lambda m, i, o: held.update(A=o, h=o.register_hook(lambda g: held.update(G=g))))
        model(x)[:, c].sum().backward()
        handle.remove()
        out.append(cam.grad_cam_pp(held["A"].detach(), held["G"]))
        model.zero_grad(set_to_none=True)
    return torch.stack(out, dim=1)


def maps(args):
    model, _ = new_model()
    model.eval()
    x = torch.randn(16, 3, args.size, args.size).to(memory_format=torch.channels_last)
    ratios = []
    for n in range(args.rounds + 1):
        start = time.perf_counter()
        slow = naive_maps(model, x, 4)
        middle = time.perf_counter()
        fast, _ = cam.class_maps(model, x, "features")
        end = time.perf_counter()
        torch.testing.assert_close(fast, slow, rtol=1e-3, atol=1e-7)
        if n:
            ratios.append((middle - start) / (end - middle))
    print(f"maps of 4 classes, 16 images, {args.size} x {args.size}: class_maps is "
          f"{median(ratios):.1f} times as fast as a full backward for each class")


def bare_speed(args):
    """Images per second of the bare loop on noise, after a first epoch."""
    model, optimizer = new_model()
    x = torch.randn(64, 3, args.size, args.size).to(memory_format=torch.channels_last)
    batches = [(x, torch.ones(64, 4))] * 4
    bare_epoch(model, optimizer, batches)
    start = time.perf_counter()
    bare_epoch(model, optimizer, batches)
    return 4 * 64 / (time.perf_counter() - start)


def freed_memory(args):
    ratios = []
    for _ in range(args.rounds):
        keep, default = (float(subprocess.run(
            [sys.executable, __file__, "--bare", kind, "--size", str(args.size)],
            capture_output=True, text=True, check=True).stdout) for kind in ("keep", "default"))
        ratios.append(keep / default)
    print(f"keeping freed memory: the bare loop is {median(ratios):.2f} times as fast")


def main(args):
    if args.bare == "keep" or args.bare is None:
        keep_freed_memory()
    if args.bare:
        print(bare_speed(args))
        return
    with tempfile.TemporaryDirectory() as tmp:
        folder = args.images or Path(tmp)
        if args.images is None:
            noise_images(folder, args.count)
        training(args, folder, list_images(folder)[:args.count])
    maps(args)
    freed_memory(args)


if __name__ == "__main__":
    main(get_args())
