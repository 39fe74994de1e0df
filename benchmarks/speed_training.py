"""Rows of benchmarks/speed.py: a step of training, and the wait for data."""

import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from speed import clock_of, in_turn, package, row

from cam2seg import models
from cam2seg.data.dataset import ImageSet
from cam2seg.models import MEAN, STD
from cam2seg.training.batches import Batches, to_input
from cam2seg.training.epochs import train_one_epoch
from cam2seg.training.fit import Settings

BATCH, SIDE, CLASSES, FILES = 16, 128, 4, 64


def step(model, x, y, amp=False):
    """One step of one and the same loop, in channels_last, on the device of x, in float32 or in
    bfloat16 as with --amp: forward, loss, backward and Adam."""
    model = model.to(x.device).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def run():
        with torch.autocast(x.device.type, torch.bfloat16, enabled=amp):
            logits = model(x)
        loss = F.binary_cross_entropy_with_logits(logits.float(), y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return run


def noise_images(folder, count):
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = rng.normal(128, 30, (200, 200)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).convert("RGB").save(Path(folder) / f"{i:05d}.jpg", quality=92)
    return [f"{i:05d}.jpg" for i in range(count)]


def waiting(args):
    """Wall seconds of an epoch from image files with one worker, and those spent waiting."""
    with tempfile.TemporaryDirectory() as folder:
        names = noise_images(folder, FILES)
        y = np.zeros((FILES, CLASSES), np.float32)
        batches = Batches(ImageSet(folder, names, (SIDE, SIDE), y, flips=(False, True)),
                          np.arange(FILES), BATCH, workers=1)
        model = models.Classifier("b0", CLASSES).to(args.device, memory_format=torch.channels_last)
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        settings = Settings(F.binary_cross_entropy_with_logits,
                            lambda x: to_input(x, args.device, MEAN, STD),
                            args.rounds + 1, meta={})
        seen = []
        for n in range(args.rounds + 1):
            start = time.perf_counter()
            _, waited = train_one_epoch(model, batches, optimizer, settings, n)
            seen.append((waited, time.perf_counter() - start))
    shares = [w / s for w, s in seen[1:]]  # round 0 starts the worker
    return seen[1 + shares.index(sorted(shares)[len(shares) // 2])]


def rows(args):
    torch.manual_seed(0)
    x = torch.randn(BATCH, 3, SIDE, SIDE).to(args.device, memory_format=torch.channels_last)
    label = torch.ones(BATCH, CLASSES, device=args.device)
    mask = torch.ones(BATCH, CLASSES, SIDE, SIDE, device=args.device)
    works = {"classifier": step(models.Classifier("b0", CLASSES), x, label),
             "unet": step(models.UNet("b0", CLASSES), x, mask)}
    timm, smp = package("timm"), package("segmentation_models_pytorch")
    if timm:
        net = timm.create_model("efficientnet_b0", num_classes=CLASSES, drop_rate=0.2,
                                drop_path_rate=0.2)  # as torchvision's network drops paths
        works["timm"] = step(net, x, label)
    if smp:
        works["smp"] = step(smp.Unet("efficientnet-b0", encoder_weights=None, classes=CLASSES), x,
                            mask)
    s = in_turn(works, args.rounds, clock_of(args.device))
    s = {name: value / BATCH for name, value in s.items()}
    what = f"b0, batch {BATCH}, {SIDE} x {SIDE}, seconds an image"
    out = []
    if timm:
        out.append(row(f"training step, classifier {what}", "the same loop with timm",
                       s["classifier"], s["timm"], 1))
    if smp:
        out.append(row(f"training step, U-Net {what}",
                       "the same loop with segmentation-models-pytorch", s["unet"], s["smp"], 1))
    out.append(row("waiting for data in training from files, one worker (wall time)", "the epoch",
                   *waiting(args), 0.05))
    return out
