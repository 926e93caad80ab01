"""Programs to kill: a server that forks a training for every line it reads, and the killing of such trainings.

The server imports everything once. Of each training it tells the process, every step, and how it ended.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from berunda.progress import Silent


class Loud(Silent):
    """Prints a line a step."""

    def advance(self, n: int = 1, **figures: float) -> None:
        """Say that a step is done."""
        if figures:
            print("step", flush=True)


def serve(main: Callable[..., None]) -> None:
    """Run `main` for every line of arguments that comes in, each in a forked process, and tell its end."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            print(os.getpid(), flush=True)
            main(*line.split())
            os._exit(0)
        print(f"ended {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}", flush=True)


@contextmanager
def program(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a program on one thread, without a GPU."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as child:
        try:
            yield child
        finally:
            child.kill()


def line_of(child: subprocess.Popen[str]) -> str:
    """Return the next line that the program prints."""
    assert child.stdout is not None
    return child.stdout.readline().strip()


def kill_at_random(server: subprocess.Popen[str], arguments: str, most_steps: int, draw: random.Random) -> None:
    """Let the server train, and kill the training at most `most_steps` and a moment after it set out."""
    assert server.stdin is not None
    print(arguments, file=server.stdin, flush=True)
    process = int(line_of(server))
    for _ in range(draw.randint(0, most_steps)):
        assert line_of(server) == "step"
    time.sleep(draw.uniform(0.0, 0.01))
    os.kill(process, signal.SIGKILL)
    while (line := line_of(server)) == "step":
        pass
    assert line == "ended -9"
