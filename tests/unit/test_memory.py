"""Freed memory is kept for the next array where the C library is glibc, and left alone where it was asked to be."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

CODE = """
import resource
import numpy as np
from berunda.memory import keep_freed_memory

print(keep_freed_memory())
for _ in range(3):
    np.ones(1 << 23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(1 << 23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(**environment: str) -> tuple[bool, int]:
    """Return what the function says and the page faults of twenty arrays of 64 MiB after it."""
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    said, faults = done.stdout.split()
    return said == "True", int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library: nothing is changed there")
def test_arrays_reuse_the_pages_of_those_before() -> None:
    is_kept, faults = run(BERUNDA_KEEP_FREED_MEMORY="1")
    assert is_kept
    assert faults < 1000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library: nothing is changed there")
def test_the_switch_leaves_the_library_as_it_is() -> None:
    is_kept, faults = run(BERUNDA_KEEP_FREED_MEMORY="0")
    assert not is_kept
    assert faults > 100_000
