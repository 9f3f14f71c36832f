"""How the memory of hours of video stays that of minutes."""

from __future__ import annotations

import ctypes
from contextlib import suppress

M_MMAP_THRESHOLD, LARGE = -3, 1 << 20  # glibc's malloc.h; bytes


def keep_flat() -> None:
    """Have glibc give buffers of 1 MB and more back at once: pictures and sounds of many sizes fragment its heap. Elsewhere nothing."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(M_MMAP_THRESHOLD, LARGE)
