"""Memory that does not grow with the length of a video."""

from __future__ import annotations

import ctypes
from contextlib import suppress

M_MMAP_THRESHOLD, LARGE = -3, 1 << 20  # glibc's malloc.h; bytes


def keep_flat() -> None:
    """Make glibc return freed buffers of 1 MB and more to the system at once; does nothing with other C libraries.

    Otherwise pictures and sounds of many sizes fragment its heap.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(M_MMAP_THRESHOLD, LARGE)
