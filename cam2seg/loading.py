"""Batches of a data set in a fixed order, and their pixels as network input."""

import signal

import numpy as np
import torch

from . import process
from .tables import DataError


class Batches:
    """The batches of some images of a data set; call it with an epoch to iterate over them once.

    epoch None: in order, without augmentation. Else shuffled by (seed, epoch), and a second
    argument is the number of images to pass over. A rest of one image joins the batch before it:
    BatchNorm cannot train on a single value.

    Where several processes run, each gets its part of every training batch, and every so many-th
    batch where epoch is None; `alone` gives it all. batch_size is that of all together in training.
    """

    def __init__(self, dataset, indices, batch_size, workers=0, seed=0, alone=False):
        self.indices = np.asarray(indices)
        world = (0, 1) if alone else (process.rank(), process.count())
        self.order = Order(self.indices, batch_size, seed, *world)
        self.loader = torch.utils.data.DataLoader(
            dataset, batch_sampler=self.order, num_workers=workers,
            persistent_workers=workers > 0, worker_init_fn=leave_signals,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator())  # its own: else it draws from torch's when workers start

    def __len__(self):
        return len(self.indices)  # images, not batches

    def __call__(self, epoch=None, skip=0):
        self.order.epoch, self.order.skip = epoch, skip
        return iter(self.loader)

    def spare(self):
        """How many batches this process has less than the first, where epoch is None."""
        count = -(-len(self.indices) // self.order.batch_size)
        return -(-count // self.order.count) - len(range(self.order.rank, count, self.order.count))

    def rows(self):
        """The indices that this process gets where epoch is None, in their order."""
        self.order.epoch, self.order.skip = None, 0
        return [i for batch in self.order for i, _ in batch]


def check_batches(batch_size, fold, size):
    """Raise DataError where a training batch leaves a process a single value to normalise, or less
    than two images where several processes run. fold (N,), size (H, W) of the network's input."""
    count, least = process.count(), 2 * process.count()
    if count == 1 and max(size) > 32:
        return
    images = min(int((fold != k).sum()) for k in set(fold.tolist()))
    if batch_size < least:
        raise DataError(f"--batch-size {batch_size} is for all {count} processes together: "
                        f"expected {least} or more")
    if images < least:
        raise DataError(f"{images} images to train a fold on, expected {least} or more for {count} "
                        "processes")


def leave_signals(worker):
    """A signal can reach all processes of a group; what is to be done, the main one decides.
    Workers end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class Order:
    """The lists of (index, epoch) behind Batches; not part of it, or the two would hold each other
    and the workers live on until the garbage collector comes by. DEV-31: a rest of one image."""

    def __init__(self, indices, batch_size, seed, rank=0, count=1):
        self.indices, self.batch_size, self.seed = indices, batch_size, seed
        self.rank, self.count, self.epoch, self.skip = rank, count, None, 0

    def __iter__(self):
        order = self.indices
        if self.epoch is not None:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(order)[self.skip:]
        starts = list(range(0, len(order), self.batch_size))
        if self.epoch is not None and len(starts) > 1 and len(order) - starts[-1] < 2 * self.count:
            starts.pop()
        ends = [*starts[1:], len(order)]
        batches = [order[a:b] for a, b in zip(starts, ends, strict=False)]  # none if none is left
        if self.epoch is None:
            batches = batches[self.rank::self.count]
        else:
            batches = [np.array_split(b, self.count)[self.rank] for b in batches]
        for batch in batches:
            yield [(int(i), self.epoch) for i in batch]


def to_input(pixels, device, mean, std):
    """uint8 (B, H, W, 3) -> normalised float (B, 3, H, W) in channels_last memory."""
    x = pixels.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(v, device=device).mul(255).view(1, 3, 1, 1) for v in (mean, std))
    return x.sub_(mean).div_(std)
