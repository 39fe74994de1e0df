"""Which device a network runs on, and the seed of everything random."""

import os
import re

import numpy as np
import torch


def pick_device(name: str = "auto") -> torch.device:
    """torch.device of "auto" (CUDA where there is one, else the CPU), "cpu", "cuda" or "cuda:1".

    With "auto" and "cuda", each process that torchrun starts on a machine gets a GPU of its own.
    Raises ValueError for any other name and for a device that is not there.
    """
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if there else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    if not re.fullmatch(r"cpu|cuda(:[0-9]{1,4})?", name):
        raise ValueError(f"'{name}': expected auto, cpu, cuda or cuda:N")
    if name != "cpu" and int(name[5:] or 0) >= there:
        raise ValueError(f"'{name}' is not there: torch finds {there} CUDA devices")
    return torch.device(name)


def seed_torch(*parts: int) -> None:
    """Seed torch from whole numbers, such as (seed, fold, epoch)."""
    torch.manual_seed(int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1))
