"""How the C library hands memory back: training and mapping free and take the same large arrays in every step."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_ALWAYS_HEAP, _MOSTLY_HEAP, _NEVER_TRIM = 1 << 30, 32 << 20, 2**31 - 1
SWITCH = "BERUNDA_KEEP_FREED_MEMORY"
"""Environment variable; "0" leaves the C library as it is."""


@cache
def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for the next array of this process, and say whether that was possible.

    By default it returns every large array to the system at once, and the next one of that size is made of fresh
    pages, each of which the system has to clear: a training step takes a fifth longer by that, and a mapped window
    two fifths. The process keeps the memory of its peak until it ends. Elsewhere than on Linux with glibc nothing
    happens; nor where the environment variable BERUNDA_KEEP_FREED_MEMORY is 0.

    Source: mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD.
    """
    if os.environ.get(SWITCH) == "0" or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library (musl)
        return False
    is_kept = any(bool(mallopt(_M_MMAP_THRESHOLD, size)) for size in (_ALWAYS_HEAP, _MOSTLY_HEAP))  # older ones refuse
    return bool(mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM)) and is_kept
