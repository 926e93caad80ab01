"""Training by each method that holds a state of its own is killed at random points, and ends the same, bit by bit.

The methods are looked up: a new one is tried as soon as it is there.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import toy_methods
from killing import kill_at_random, program
from toy_methods import tiny, train_case, with_state

from berunda.methods import method_names
from berunda.train.checkpoint import load_checkpoint

CASES = with_state()


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[str]]:
    with program(toy_methods.__file__) as child:
        yield child


def check_kills(server: subprocess.Popen[str], case: str, folder: Path, n_kills: int, steps: int) -> None:
    """Kill a training of `steps` again and again, each time some steps after it set out; then let it end."""
    draw = random.Random(case)
    for _ in range(n_kills):
        kill_at_random(server, f"{case} {steps} {folder} {draw.choice([0, 1, 2])}", steps // n_kills - 5, draw)
    newest = load_checkpoint(folder / "checkpoints")
    assert newest is None or newest.step < steps
    assert train_case(case, steps, folder) == train_case(case, steps, None)


def test_methods_with_a_state_are_found() -> None:
    """Teachers, running shares, stages: all but those that learn from the labels and the last step alone."""
    assert {"berunda", "cotrain", "fixmatch", "fixmatch-adaptive"} <= set(CASES)
    stateless = {name for name in method_names() if name not in CASES}
    assert "supervised" in stateless
    assert not any(tiny(name).needs().teacher for name in stateless)


@pytest.mark.parametrize("case", CASES)
def test_a_killed_method_ends_the_same(server: subprocess.Popen[str], case: str, tmp_path: Path) -> None:
    check_kills(server, case, tmp_path, 1, 12)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_5_kills_of_each_method(server: subprocess.Popen[str], case: str, tmp_path: Path) -> None:
    check_kills(server, case, tmp_path, 5, 40)
