"""Training is killed at random points; what resumes ends with the same weights, bit by bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import toy_training
from toy_training import SPEC, Toy, ToySource, train_in

from berunda.train.checkpoint import load_checkpoint
from berunda.train.config import TrainConfig
from berunda.train.loop import train

STEPS = 60


@contextmanager
def _program(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    program = [sys.executable, toy_training.__file__, *arguments]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as child:
        try:
            yield child
        finally:
            child.kill()


def _line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def _kill(server: subprocess.Popen[str], folder: Path, n_kills: int, draw: random.Random, kind: str) -> None:
    """Train in `folder` `n_kills` times over, each time killed some steps after it set out."""
    assert server.stdin is not None
    for _ in range(n_kills):
        print(folder, STEPS, draw.choice([0, 1, 2]), 0, kind, file=server.stdin, flush=True)
        process = int(_line(server))
        for _ in range(draw.randint(0, STEPS // n_kills - 5)):
            assert _line(server) == "step"
        time.sleep(draw.uniform(0.0, 0.01))
        os.kill(process, signal.SIGKILL)
        while (line := _line(server)) == "step":
            pass
        assert line == "ended -9"


def test_killed_training_ends_the_same(tmp_path: Path) -> None:
    with _program() as server:
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
    with _program() as server:
        for run in range(10):
            folder = tmp_path / f"run{run}"
            _kill(server, folder, 5, random.Random(run), kind)
            assert train_in(folder, STEPS, staged=staged) == whole


def test_sigterm_leaves_a_checkpoint_in_5_s(tmp_path: Path) -> None:
    with _program(str(tmp_path), str(STEPS), "1", "0.1", "plain") as child:
        assert int(_line(child)) == child.pid
        for _ in range(4):
            assert _line(child) == "step"
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
