"""A small fuzzer: mutates inputs by a seed, and guards what a target does with them.

A target may only return or raise a `BerundaError` of short lines without control characters. It may not reach
for the network, start a program, touch a file outside its folder, take long or take much memory.

    python tests/helpers/fuzzing.py labels --seconds 60 --seed 3      (prints and keeps what it finds)
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import berunda
from berunda.errors import BerundaError

REACHES = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.", "os.system", "os.exec")
CHANGES = frozenset({"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.symlink", "os.link", "os.chmod"})
SOURCE = Path(berunda.__file__).parent
CORPUS = Path(__file__).resolve().parents[1] / "fuzz" / "corpus"
SECONDS, MIB = 10, 256
"""What one input may take: time of the processor, which other programs do not lengthen, and memory."""
WAITS = 12
"""So many times as long it may take by the clock: it waits for nothing."""
MAX_LINE, MAX_LINES = 4000, 40
"""How long a message may be: a line lists at most some names, and only options are told on several lines."""

WORDS = (
    *(b"0", b"-1", b"1e308", b"1e-320", b"NaN", b"Infinity", b"null", b"true", b"[]", b"{}", b'""', b"2147483648"),
    *(b"9" * 30, b"0x" + b"f" * 5000, b"1" * 5000, b"\\u0000", b"\\ud800", b"\\u001b[2J", b"\\n", b"\0", b"\r", b"\n"),
    *(b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xe2\x80\xae", b"A" * 5000, b"[" * 300, b"]" * 300, b"~x/", b"../"),
    *(
        b"/",
        b"http://127.0.0.1:9/",
        b"/vsicurl/",
        b"file://",
        b":",
        b"*",
        b"<",
        b">",
        b"=",
        b"!",
        b"&a ",
        b"*a",
        b"%",
        b"'",
    ),
)


class TooSlow(BaseException):
    """An input took longer than it may; no handler of `Exception` swallows this."""


@dataclass(frozen=True)
class Target:
    """What is fuzzed.

    Attributes:
        run: takes the input and an empty folder, which is the current one.
        words: what mutations insert besides `WORDS`.
        prepare: imports what takes long, so that it does not count.
    """

    run: Callable[[bytes, Path], None]
    words: tuple[bytes, ...] = ()
    prepare: Callable[[], object] = lambda: None


class Guard:
    """Watches, by an audit hook, what happens in its block."""

    _active: Guard | None = None
    _hooked = False

    def __init__(self, folder: Path) -> None:
        self.folder = os.path.realpath(folder)
        self.found: list[str] = []
        self._readable = tuple(
            {self.folder, *map(os.path.realpath, (SOURCE, sys.prefix, *sysconfig.get_paths().values()))}
        )

    def __enter__(self) -> Guard:
        if not Guard._hooked:
            sys.addaudithook(lambda event, arguments: Guard._active and Guard._active.see(event, arguments))
            Guard._hooked = True
        Guard._active = self
        return self

    def __exit__(self, *_: object) -> None:
        Guard._active = None

    def see(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Note an event that should not be."""
        if event.startswith(REACHES):
            self.found.append(f"{event} {arguments!r}"[:200])
        elif event == "open" and isinstance(arguments[0], str | bytes):
            path, flags = os.path.realpath(os.fsdecode(arguments[0])), arguments[2] or 0
            allowed = (self.folder,) if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else self._readable
            if not any(path == root or path.startswith(root + os.sep) for root in allowed):
                self.found.append(f"{event} {path!r}, flags {flags}"[:200])
        elif event in CHANGES and not os.path.realpath(os.fsdecode(arguments[0])).startswith(self.folder):
            self.found.append(f"{event} {arguments!r}"[:200])


@contextmanager
def limited(folder: Path) -> Iterator[None]:
    """Make `folder` the current one for the block, and end it when it takes too long."""

    def stop(*_: object) -> None:
        raise TooSlow

    before, handler = Path.cwd(), signal.signal(signal.SIGALRM, stop)
    signal.signal(signal.SIGPROF, stop)
    os.chdir(folder)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, WAITS * SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGPROF, signal.SIG_IGN)  # its default would end the process should one come late
        signal.signal(signal.SIGALRM, handler)
        os.chdir(before)


def fault_of(target: Target, data: bytes) -> str | None:
    """Run one input and return what is wrong with how it went, None when nothing is."""
    target.prepare()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as name:
        guard, problem = Guard(Path(name)), None
        try:
            with limited(Path(name)), guard:
                target.run(data, Path(name))
        except BerundaError as error:
            problem = _fault_of_message(str(error))
        except TooSlow:
            problem = f"took over {SECONDS} s"
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"[:300]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
    if grown > MIB:
        return f"took {grown:.0f} MiB"
    return problem or (f"reached outside: {guard.found[0]}" if guard.found else None)


def _fault_of_message(text: str) -> str | None:
    lines = text.split("\n")
    if len(lines) > 1 and not (" options are wrong:" in lines[0] and all(line.startswith("  ") for line in lines[1:])):
        return f"a message of {len(lines)} lines: {text[:200]!r}"
    if len(lines) > MAX_LINES or max(map(len, lines)) > MAX_LINE:
        return f"a message of {len(lines)} lines, {max(map(len, lines))} characters: {text[:200]!r}"
    odd = next((c for line in lines for c in line if not c.isprintable()), None)
    return f"a message with {odd!r}: {text[:200]!r}" if odd else None


def corpus(name: str) -> dict[str, bytes]:
    """Return the kept inputs of a target by file name."""
    return {path.name: path.read_bytes() for path in sorted((CORPUS / name).iterdir())}


def mutated(seeds: Sequence[bytes], words: Sequence[bytes], draw: random.Random) -> bytes:
    """Return one of the seeds after one to six changes."""
    data = bytearray(draw.choice(seeds))
    for _ in range(draw.randint(1, 6)):
        start = draw.randint(0, len(data))
        stop = min(len(data), start + draw.choice((1, 1, 4, 20, 200)))
        match draw.randrange(6):
            case 0 if data:
                data[min(start, len(data) - 1)] ^= 1 << draw.randrange(8)
            case 1:
                del data[start:stop]
            case 2:
                data[start:stop] = draw.choice(words)
            case 3:
                data[start:start] = draw.choice(words)
            case 4:
                data[start:start] = data[start:stop] * draw.choice((1, 2, 50))
            case _:
                other = draw.choice(seeds)
                at = draw.randint(0, len(other))
                data[start:stop] = other[at : at + draw.choice((4, 20, 200))]
    return bytes(data[: 1 << 18])


def fuzz(name: str, target: Target, seconds: float, seed: int) -> Iterator[tuple[bytes, str]]:
    """Yield the inputs that go wrong, with what is wrong, for about `seconds`."""
    draw = random.Random(f"{name} {seed}")
    seeds, words = list(corpus(name).values()), (*WORDS, *target.words)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutated(seeds, words, draw)
        fault = fault_of(target, data)
        if fault:
            yield data, fault


def main() -> None:
    """Fuzz one target and keep the first input of each kind of fault beside the corpus."""
    from fuzz_targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    kinds: dict[str, int] = {}
    for data, fault in fuzz(asked.target, TARGETS[asked.target], asked.seconds, asked.seed):
        kind = fault[:40]
        kinds[kind] = kinds.get(kind, 0) + 1
        if kinds[kind] == 1:
            path = Path(tempfile.gettempdir()) / f"fuzz-{asked.target}-{len(kinds)}"
            path.write_bytes(data)
            print(f"{path}: {fault}", flush=True)
    print(f"{sum(kinds.values())} faults of {len(kinds)} kinds")


if __name__ == "__main__":
    main()
