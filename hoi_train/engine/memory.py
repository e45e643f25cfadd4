"""Settings of the C library's allocator for tensors on the CPU."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h


def keep_freed_memory() -> bool:
    """Keep freed memory for later allocations of this process; return whether the C library does.

    glibc gives a large tensor's memory back to the system as soon as it is freed, and the system fills the next one's
    with zeros, page by page: in a training step on a CPU, whose tensors are the same as those of the step before, a
    tenth of its time (``docs/speed.md``). Other C libraries are left as they are. See mallopt(3).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not Linux, or not glibc
        return False
    return all(mallopt(option, value) for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1)))
