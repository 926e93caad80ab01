"""Batches drawn ahead of the loop by threads; the order and the content do not depend on how many."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from berunda.data.order import Randomness
from berunda.data.source import RawImages, Source

__all__ = ["LABELLED", "METHOD", "PREDICTED", "TORCH", "UNLABELLED", "VIEWS", "Counts", "Feed", "RawBatch"]

LABELLED, UNLABELLED, PREDICTED, VIEWS, METHOD, TORCH = range(6)
"""Second counter, after the step, of everything random in a step: no two of them share a draw."""


@dataclass(frozen=True)
class Counts:
    """Images a step.

    Attributes:
        labelled: with the labels given.
        unlabelled: of the unlabelled stream; 0 for none.
        predicted: unlabelled images that join the labelled stream with predicted labels.
    """

    labelled: int
    unlabelled: int = 0
    predicted: int = 0

    @property
    def total(self) -> int:
        """Images of all streams together."""
        return self.labelled + self.unlabelled + self.predicted


@dataclass(frozen=True)
class RawBatch:
    """The images of one step as the source gave them, by stream."""

    labelled: RawImages
    unlabelled: RawImages | None
    predicted: RawImages | None


class Feed:
    """Yields the raw batches of the steps from `first` to `last` - 1, in order."""

    def __init__(
        self, source: Source, rng: Randomness, counts: Counts, *, steps: range, workers: int
    ) -> None:
        self._source = source
        self._rng = rng
        self._counts = counts
        self._steps = iter(steps)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="feed") if workers else None
        self._waiting: deque[Future[RawBatch]] = deque()
        for _ in range(2 * workers):
            self._submit()

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def next(self) -> RawBatch:
        """Return the batch of the next step; an error of the source is raised here."""
        if self._pool is None:
            return self._draw(next(self._steps))
        batch = self._waiting.popleft().result()
        self._submit()
        return batch

    def _submit(self) -> None:
        step = next(self._steps, None)
        if step is not None and self._pool is not None:
            self._waiting.append(self._pool.submit(self._draw, step))

    def _draw(self, step: int) -> RawBatch:
        rng, counts, source = self._rng.at(step), self._counts, self._source
        return RawBatch(
            labelled=source.labelled(rng.at(LABELLED), counts.labelled),
            unlabelled=source.unlabelled(rng.at(UNLABELLED), counts.unlabelled)
            if counts.unlabelled
            else None,
            predicted=source.unlabelled(rng.at(PREDICTED), counts.predicted) if counts.predicted else None,
        )
