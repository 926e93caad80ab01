"""Cores that are counted are those that the process may use."""

from __future__ import annotations

import os

import pytest

from berunda.api.compare import hardware
from berunda.cores import allowed_cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no process to cores")
def test_cores_are_those_of_the_affinity() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert allowed_cores() == 1
        assert ", 1 core" in hardware()
        assert ", 1 cores" not in hardware()
    finally:
        os.sched_setaffinity(0, before)
    assert allowed_cores() == len(before)


def test_cores_without_an_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert allowed_cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert allowed_cores() == 1
