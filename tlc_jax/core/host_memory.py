"""The memory of a process that trains on CPUs."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # from glibc's malloc.h


def keep_freed_memory() -> bool:
    """Makes malloc keep what a step frees, for the next step; returns whether it could (glibc only).

    XLA's CPU backend allocates the hundreds of megabytes of a step's intermediate arrays again for every step. glibc
    maps such blocks from the kernel and returns them at once, so that each page is zeroed and faulted in again: a
    quarter to a third of a small model's training time. The price is that memory once used stays with the process.

    Threads keep the arena that they first allocated from, so call this before JAX starts its own.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # Large blocks must come from the heap, not from mmap; the main arena's heap alone can grow that far.
    settings = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1))
    return all(mallopt(option, value) for option, value in settings)
