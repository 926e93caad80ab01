"""Signs of life that ranks leave in the store of their launcher, so that none waits for one that is gone."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from torch.distributed import Store

__all__ = ["Pulse", "end_process"]

_RUNNING, _LEFT = "running", "left"


class Pulse:
    """A thread that beats for this rank and listens to the others.

    It notices a process that is gone or does not run (killed, stopped, its machine lost), even while this rank waits
    for it in a collective operation, which nothing else could end. A process that runs but never gets to the next
    step is not noticed here but by the timeout of the collective operations.

    Args:
        store: the launcher's, by a connection of its own, so that no other waiting holds up a beat; keys of this
            training alone.
        rank: this rank.
        size: number of ranks.
        silence_s: after so many seconds without a beat a rank is given up.
        give_up: called in the thread with what is wrong.
    """

    def __init__(self, store: Store, rank: int, size: int, silence_s: float, give_up: Callable[[str], None]) -> None:
        self._store = store
        self._rank, self._size, self._silence_s, self._give_up = rank, size, silence_s, give_up
        self._every_s = min(0.5, silence_s / 8)
        self._beats: dict[int, tuple[bytes, float]] = {}
        self._ends: dict[int, str] = {}
        self._left: set[int] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
        self._store.set(f"state/{rank}", _RUNNING)
        self._store.set(f"beat/{rank}", "0")

    def start(self) -> None:
        """Begin; every rank has been made by now."""
        self._thread.start()

    def stop(self, last_words: str = "") -> None:
        """End, and tell the others that this rank left in good order, or its `last_words`."""
        self._stopping.set()
        self._thread.join(2 * self._every_s + 1)
        if not self._thread.is_alive():
            try:
                self._store.set(f"state/{self._rank}", last_words or _LEFT)
            except RuntimeError:
                return  # the launcher is gone, nobody is left to tell

    def ended(self) -> str:
        """Return which rank is known to have ended, and how; "" for none."""
        if self._ends:
            rank, words = min(self._ends.items())
            return f"rank {rank} ended with {words}"
        return f"rank {min(self._left)} has ended" if self._left else ""

    def blame(self, wait_s: float) -> str:
        """Return which rank ended or is silent, waiting up to `wait_s` for that to show; "" if none is found."""
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            if self._ends:
                return self.ended()
            for rank, (_, seen) in list(self._beats.items()):
                if time.monotonic() - seen > 4 * self._every_s:
                    return f"rank {rank} gives no sign of life"
            time.sleep(0.05)
        return ""

    def _run(self) -> None:
        others = [rank for rank in range(self._size) if rank != self._rank]
        count, woke = 0, time.monotonic()
        while not self._stopping.wait(self._every_s):
            count += 1
            try:
                self._store.set(f"beat/{self._rank}", str(count))
                states = self._store.multi_get([f"state/{rank}" for rank in others])
                beats = self._store.multi_get([f"beat/{rank}" for rank in others])
            except RuntimeError:
                if not self._stopping.is_set():
                    self._give_up("the launcher (torchrun) that started the ranks is gone")
                return
            now = time.monotonic()
            was_away, woke = now - woke > self._silence_s / 2, now  # stopped itself: the others are not to blame
            for rank, state, beat in zip(others, states, beats, strict=True):
                self._note(rank, state.decode(), beat, now, was_away=was_away)

    def _note(self, rank: int, state: str, beat: bytes, now: float, *, was_away: bool) -> None:
        if state != _RUNNING:
            self._beats.pop(rank, None)
            if state == _LEFT:
                self._left.add(rank)
            else:
                self._ends[rank] = state
            return
        last = self._beats.get(rank)
        if last is None or last[0] != beat or was_away:
            self._beats[rank] = (beat, now)
        elif now - last[1] > self._silence_s:
            self._give_up(f"rank {rank} gave no sign of life for {self._silence_s:g} s: it was killed or hangs")


def end_process(text: str) -> None:
    """Write `text` and end the process at once: its main thread waits where nothing reaches it."""
    os.write(2, f"berunda: error: {text}\n".encode())
    os._exit(1)
