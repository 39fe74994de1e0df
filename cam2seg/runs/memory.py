"""Memory: how to know that it ran out, and one setting of the C library that saves time."""

import ctypes
import re

# What torch says where memory ran out: on CUDA, on a CPU, and between processes.
NO_MEMORY = "DataLoader worker|out of memory|shared memory|(can't|cannot|Cannot) allocate memory"


def ran_out(error: BaseException) -> bool:
    """Whether an error says that there was not enough memory, and not that a file is wrong."""
    return isinstance(error, MemoryError) or \
        isinstance(error, RuntimeError) and bool(re.search(NO_MEMORY, str(error)))


def keep_freed_memory() -> None:
    """Let glibc keep the large blocks that torch frees.

    By default glibc gives each block back to the system, and gets it again, filled with zeros, in
    the next step. That costs time on a CPU. The price is memory: what was freed stays with the
    process, so that its peak grows a little while it meets new sizes of tensors. With another C
    library nothing is changed.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_MMAP_MAX, by their numbers in malloc.h.
        for option, value in ((-1, 2**31 - 1), (-3, 2**30), (-4, 0)):
            libc.mallopt(option, value)
    except (OSError, AttributeError):
        return
