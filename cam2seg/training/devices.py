"""Which device a network runs on, and the seed of everything random."""

import os
import re
from collections.abc import Callable, Sequence

import numpy as np
import torch

from ..data.errors import DataError


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


def fast_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16: a GPU from Ampere on, a CPU with AVX512-BF16.
    Without them bfloat16 is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return torch.cpu._is_avx512_bf16_supported()


def note_slow_bfloat16(amp: bool, device: torch.device, report: Callable) -> None:
    """Report a line where --amp is set and the device has no instructions for bfloat16."""
    if amp and not fast_bfloat16(device):
        name = "GPU" if device.type == "cuda" else "CPU"
        report("note", text=f"--amp: this {name} has no instructions for bfloat16, so that the run "
               "takes longer than without --amp")


# float32 values that a network cannot do without for each pixel of its input: the pixel itself (3),
# and 32 channels of the first layer at half the size.
LEAST_VALUES = 3 + 32 // 4


def check_memory(batch_size: int, size: Sequence[int], device: torch.device,
                 more: int = 0) -> None:
    """Raise DataError where one batch cannot fit into the memory of a device, whatever the network.

    size: (H, W) of the network's input; more: bytes that the network needs for each image beside
    those of its first layer. The bound is low: a batch that passes may still be too
    large. On a system that does not tell its memory nothing is checked.
    """
    needed = batch_size * (size[0] * size[1] * LEAST_VALUES * 4 + more)
    if device.type == "cuda":
        there = torch.cuda.get_device_properties(device).total_memory
    elif "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    else:
        return
    if needed > there:
        raise DataError(f"--size {size[0]} {size[1]}: a batch of {batch_size} images needs more "
                        f"than {needed / 2**30:.0f} GiB of memory, {there / 2**30:.0f} are there; "
                        "a smaller --size or --batch-size helps")


def seed_torch(*parts: int) -> None:
    """Seed torch from whole numbers, such as (seed, fold, epoch)."""
    torch.manual_seed(int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1))
