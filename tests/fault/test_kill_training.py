"""Training is killed at random points; what resumes ends with the same weights, bit by bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
import toy_training
from killing import kill_at_random, line_of, program
from toy_training import SPEC, Toy, ToySource, train_in

from berunda.train.checkpoint import load_checkpoint
from berunda.train.config import TrainConfig
from berunda.train.loop import train

STEPS = 60


def _kill(server: subprocess.Popen[str], folder: Path, n_kills: int, draw: random.Random, kind: str) -> None:
    """Train in `folder` `n_kills` times over, each time killed some steps after it set out."""
    for _ in range(n_kills):
        arguments = f"{folder} {STEPS} {draw.choice([0, 1, 2])} 0 {kind}"
        kill_at_random(server, arguments, STEPS // n_kills - 5, draw)


def test_killed_training_ends_the_same(tmp_path: Path) -> None:
    with program(toy_training.__file__) as server:
        _kill(server, tmp_path, 3, random.Random(0), "plain")
    newest = load_checkpoint(tmp_path / "checkpoints")
    assert newest is not None
    assert 0 < newest.step < STEPS
    assert train_in(tmp_path, STEPS) == train_in(None, STEPS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "staged"])
def test_50_kills(tmp_path: Path, kind: str) -> None:
    staged = kind == "staged"
    whole = train_in(None, STEPS, staged=staged)
    with program(toy_training.__file__) as server:
        for run in range(10):
            folder = tmp_path / f"run{run}"
            _kill(server, folder, 5, random.Random(run), kind)
            assert train_in(folder, STEPS, staged=staged) == whole


def test_sigterm_leaves_a_checkpoint_in_5_s(tmp_path: Path) -> None:
    with program(toy_training.__file__, str(tmp_path), str(STEPS), "1", "0.1", "plain") as child:
        assert int(line_of(child)) == child.pid
        for _ in range(4):
            assert line_of(child) == "step"
        asked = time.monotonic()
        child.send_signal(signal.SIGTERM)
        child.wait(timeout=30)
        n_waiting = os.getloadavg()[0] / (os.cpu_count() or 1)  # on a busy machine everything takes longer
        assert time.monotonic() - asked < 5 * max(1.0, n_waiting)
        assert child.returncode == 143
    newest = load_checkpoint(tmp_path / "checkpoints")
    assert newest is not None
    assert newest.step in (4, 5, 6)
    assert train_in(tmp_path, STEPS) == train_in(None, STEPS)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_request_to_stop_is_honoured_after_the_step(
    tmp_path: Path, number: signal.Signals, error: type[BaseException]
) -> None:
    class Asking(ToySource):
        def labelled(self, rng, n):  # type: ignore[no-untyped-def]
            if rng.counters[0] == 7:
                os.kill(os.getpid(), number)
            return super().labelled(rng, n)

    config = TrainConfig(steps=12, n_labelled=4, workers=0, checkpoint_every=0)
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(error):
        train(Toy(), SPEC, Asking(), config, folder=tmp_path)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    newest = load_checkpoint(tmp_path / "checkpoints")
    assert newest is not None
    assert newest.step == 8
