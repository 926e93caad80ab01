"""How many processor cores this process may use."""

from __future__ import annotations

import os

__all__ = ["allowed_cores"]


def allowed_cores() -> int:
    """Return the cores that the system lets this process run on, at least 1: those of its affinity, where it has one.

    A job that a scheduler or `taskset` keeps on some cores counts those alone.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
