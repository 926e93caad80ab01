"""The ranks (processes) that train together, as code below the training loop sees them.

A loss that is a mean over counted positions must divide by the count of the whole batch, not by that of this rank's
slice; a mix of two images must find the other one wherever it is. Such functions ask here who else computes.
Without ranks there is nobody else and nothing changes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Ranks", "among", "other_ranks", "started_ranks"]


class Ranks(Protocol):
    """The ranks of a training; every rank holds an equal slice of each stream of the batch, in the order of ranks."""

    @property
    def rank(self) -> int:
        """This rank, from 0."""

    @property
    def size(self) -> int:
        """Number of ranks."""

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of `x` over the ranks, the same bits on each; no gradient."""

    def gather(self, x: Tensor) -> Tensor:
        """Return `x` (N, ...) of all ranks one after the other, (size N, ...); no gradient."""


def started_ranks() -> tuple[int, int]:
    """Return this process's rank and the number of ranks that `torchrun` started; (0, 1) without it."""
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


_active: ContextVar[Ranks | None] = ContextVar("berunda_ranks", default=None)


def other_ranks() -> Ranks | None:
    """Return the ranks that compute this batch together; None when this process computes it alone."""
    return _active.get()


@contextmanager
def among(ranks: Ranks) -> Iterator[None]:
    """Within the block, what is computed is a slice of what `ranks` compute together."""
    token = _active.set(ranks)
    try:
        yield
    finally:
        _active.reset(token)
