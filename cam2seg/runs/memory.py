"""One setting of the C library that makes training on a CPU faster."""

import ctypes


def keep_freed_memory():
    """Let glibc keep the large blocks that torch frees.

    By default it unmaps each of them and gets it back zeroed in the next step, which costs time on
    a CPU (`make bench` measures it). With another C library nothing is changed.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        for option, value in ((-1, 2**31 - 1), (-3, 2**30), (-4, 0)):  # trim, mmap from, mmaps
            libc.mallopt(option, value)
    except (OSError, AttributeError):
        return
