"""Freed memory kept for the next tensor, in processes that pass tensors all day.

    keep_freed_memory()       # once, when such a process starts

glibc hands large freed blocks back to the kernel, and takes them anew, zeroed page by page, for the next message: of a
round trip of 1 MiB that is a third. Elsewhere nothing happens.
"""

from __future__ import annotations

import ctypes
import sys

__all__ = ["keep_freed_memory"]

# From glibc's malloc.h; a block up to 32 MiB, the most that is allowed, comes from the heap.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_SETTINGS = {_TRIM_THRESHOLD: 256 << 20, _MMAP_THRESHOLD: 32 << 20, _ARENA_MAX: 2}


def keep_freed_memory() -> bool:
    """Let this process keep up to 256 MiB of what it freed; whether its allocator can be told so."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        tell = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library than glibc
        return False
    taken = [bool(tell(name, value)) for name, value in _SETTINGS.items()]
    return all(taken)
