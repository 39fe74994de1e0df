"""The optimisers of both training scripts, Adam and RAdam, with a learning rate for each part."""

from collections.abc import Iterable

import torch
from torch import nn

KINDS = {"adam": torch.optim.Adam, "radam": torch.optim.RAdam}  # by --optimizer


def make(name: str, *parts: tuple[Iterable[nn.Parameter], float]) -> torch.optim.Optimizer:
    """The optimiser of this name over parts (parameters, learning rate), as in [P] IV.

    radam: m and v are those of Adam, and step t is

    lr m / (1 - b1^t) r_t sqrt(1 - b2^t) / (sqrt(v) + eps),  where rho_t > 5, else lr m / (1 - b1^t)
    rho_t = rho - 2 t b2^t / (1 - b2^t),  rho = 2 / (1 - b2) - 1
    r_t^2 = (rho_t - 4) (rho_t - 2) rho / ((rho - 4) (rho - 2) rho_t)    [K-8]

    The paper of RAdam has rho_t > 4, so that its step 5 is already one of the first kind (DEV-70).
    """
    return KINDS[name]([{"params": list(parameters), "lr": rate} for parameters, rate in parts])
