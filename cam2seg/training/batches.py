"""Batches of a data set in a fixed order, and their pixels as the input of a network."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..data.dataset import ImageSet
from ..data.errors import DataError
from ..runs import processes
from ..runs.signals import leave_to_the_main_process


class Batches:
    """The batches of some images of a data set; call it with an epoch to iterate over them once.

    With epoch None the batches come in order and without augmentation. In an epoch they are
    shuffled by (seed, epoch), and the call's second argument is the number of images to skip. A
    last batch with fewer than two images for each process is joined to the batch before it, because
    BatchNorm cannot train on a single value (DEV-31).

    Where several processes run, batch_size counts the images of all of them together. Each process
    gets its part of every training batch, and with epoch None every world_size-th batch. With
    `undivided` each process gets all images.
    """

    def __init__(self, dataset: ImageSet, indices: Sequence[int] | np.ndarray, batch_size: int,
                 workers: int = 0, seed: int = 0, undivided: bool = False):
        self.indices = np.asarray(indices)
        world = (0, 1) if undivided else (processes.rank(), processes.world_size())
        self.order = Order(self.indices, batch_size, seed, *world)
        self.loader = torch.utils.data.DataLoader(
            dataset, batch_sampler=self.order, num_workers=workers,
            persistent_workers=workers > 0, worker_init_fn=leave_to_the_main_process,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator())  # else it would draw from torch's global one at each start

    def __len__(self):
        return len(self.indices)  # images, not batches

    def __call__(self, epoch: int | None = None, skip: int = 0) -> Iterator:
        self.order.epoch, self.order.skip = epoch, skip
        return iter(self.loader)

    def missing_batches(self) -> int:
        """How many fewer batches this process has than the first one, with epoch None."""
        count = -(-len(self.indices) // self.order.batch_size)
        return -(-count // self.order.count) - len(range(self.order.rank, count, self.order.count))

    def rows(self) -> list[int]:
        """Indices of the images that this process gets with epoch None, in their order."""
        self.order.epoch, self.order.skip = None, 0
        return [i for batch in self.order for i, _ in batch]


class Order:
    """The lists of (index, epoch) behind Batches.

    It is an object of its own because the DataLoader holds it: if it were part of Batches, the two
    would hold each other, and the workers would live on until the garbage collector ran.
    """

    def __init__(self, indices: np.ndarray, batch_size: int, seed: int, rank: int = 0,
                 count: int = 1):
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
        # Without any image left, `ends` is longer than `starts` and there is no batch.
        batches = [order[a:b] for a, b in zip(starts, ends, strict=False)]
        if self.epoch is None:
            batches = batches[self.rank::self.count]
        else:
            batches = [np.array_split(b, self.count)[self.rank] for b in batches]
        for batch in batches:
            yield [(int(i), self.epoch) for i in batch]


def check_batches(batch_size: int, fold: np.ndarray, size: Sequence[int]) -> None:
    """Raise DataError where a training batch is too small for BatchNorm.

    One process needs more than one value to normalise: two images, or a map of more than one cell.
    Several processes need two images each. fold: int (N,); size: (H, W) of the network's input.
    """
    count, least = processes.world_size(), 2 * processes.world_size()
    if count == 1 and max(size) > 32:
        return
    images = min(int((fold != k).sum()) for k in set(fold.tolist()))
    if batch_size < least:
        why = f"for all {count} processes together" if count > 1 else \
            f"for an input of {size[0]} x {size[1]}, of which BatchNorm sees one cell"
        raise DataError(f"--batch-size {batch_size}: expected {least} or more {why}")
    if images < least:
        raise DataError(f"{images} images to train a fold on, expected {least} or more for {count} "
                        "processes")


def to_input(pixels: Tensor, device: torch.device, mean: Sequence[float],
             std: Sequence[float]) -> Tensor:
    """Normalise uint8 (B, H, W, 3) to float (B, 3, H, W) in channels_last memory.

    mean, std: three numbers each, for pixels from 0 to 1.
    """
    x = pixels.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(v, device=device).mul(255).view(1, 3, 1, 1) for v in (mean, std))
    return x.sub_(mean).div_(std)
