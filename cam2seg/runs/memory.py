"""One setting of the C library that makes training on a CPU faster."""

import ctypes


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
