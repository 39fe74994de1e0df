"""Batches of a data set in a fixed order, and their pixels as network input."""

import numpy as np
import torch


class Batches:
    """The batches of some images of a data set; call it with an epoch to iterate over them once.

    epoch None: in order, without augmentation. Else shuffled by (seed, epoch). A rest of one image
    joins the batch before it: BatchNorm cannot train on a single value.
    """

    def __init__(self, dataset, indices, batch_size, workers=0, seed=0):
        self.indices = np.asarray(indices)
        self.order = Order(self.indices, batch_size, seed)
        self.loader = torch.utils.data.DataLoader(
            dataset, batch_sampler=self.order, num_workers=workers,
            persistent_workers=workers > 0, pin_memory=torch.cuda.is_available(),
            generator=torch.Generator())  # its own: else it draws from torch's when workers start

    def __len__(self):
        return len(self.indices)  # images, not batches

    def __call__(self, epoch=None):
        self.order.epoch = epoch
        return iter(self.loader)


class Order:
    """The lists of (index, epoch) behind Batches; not part of it, or the two would hold each other
    and the workers live on until the garbage collector comes by. DEV-31: a rest of one image."""

    def __init__(self, indices, batch_size, seed):
        self.indices, self.batch_size, self.seed, self.epoch = indices, batch_size, seed, None

    def __iter__(self):
        order = self.indices
        if self.epoch is not None:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(order)
        starts = list(range(0, len(order), self.batch_size))
        if self.epoch is not None and len(starts) > 1 and len(order) - starts[-1] == 1:
            starts.pop()
        for a, b in zip(starts, starts[1:] + [len(order)], strict=True):
            yield [(int(i), self.epoch) for i in order[a:b]]


def to_input(pixels, device, mean, std):
    """uint8 (B, H, W, 3) -> normalised float (B, 3, H, W) in channels_last memory."""
    x = pixels.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(v, device=device).mul(255).view(1, 3, 1, 1) for v in (mean, std))
    return x.sub_(mean).div_(std)
