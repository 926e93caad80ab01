"""Batches drawn ahead of the loop by threads; the order and the content do not depend on how many.

Every rank draws the images of the whole batch, which are crops of arrays in memory, and keeps its slice.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from berunda.augment.draws import Place
from berunda.data.order import Randomness
from berunda.data.source import RawImages, Source

__all__ = ["LABELLED", "METHOD", "PREDICTED", "TORCH", "UNLABELLED", "VIEWS", "Counts", "Feed", "RawBatch", "Slice"]

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
    """The images of one step as the source gave them, by stream; of several ranks, those of this one.

    Attributes:
        labelled: with the labels given.
        unlabelled: of the unlabelled stream.
        predicted: those that join the labelled stream with predicted labels.
        samples: sample indices of the whole batch by stream, for messages.
        places: where the images of a stream ("labelled" with those that join it, "unlabelled") stand in the whole
            batch; nothing where they are the whole batch.
    """

    labelled: RawImages
    unlabelled: RawImages | None
    predicted: RawImages | None
    samples: dict[str, Tensor] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)


@dataclass(frozen=True)
class Slice:
    """The part of every stream that one of `size` ranks holds; the streams divide evenly."""

    rank: int = 0
    size: int = 1

    def positions(self, n: int) -> range:
        """Return the positions of this rank's images among `n`."""
        share = n // self.size
        return range(self.rank * share, (self.rank + 1) * share)

    def of(self, images: RawImages | None) -> RawImages | None:
        """Return this rank's images."""
        return None if images is None else self.cut(images)

    def cut(self, images: RawImages) -> RawImages:
        """Return this rank's images."""
        mine = self.positions(images.pixels.shape[0])
        at = slice(mine.start, mine.stop)
        labels = None if images.labels is None else images.labels[at]
        return RawImages(images.pixels[at], images.valid[at], labels, images.index[at])

    def places(self, counts: Counts) -> dict[str, Place]:
        """Return where this rank's images stand in the whole batch."""
        joined = [counts.labelled + position for position in self.positions(counts.predicted)]
        labelled = torch.tensor([*self.positions(counts.labelled), *joined])
        places = {"labelled": Place(labelled, counts.labelled + counts.predicted)}
        if counts.unlabelled:
            places["unlabelled"] = Place(torch.tensor([*self.positions(counts.unlabelled)]), counts.unlabelled)
        return places


class Feed:
    """Yields this rank's raw batches of `steps`, in order."""

    def __init__(
        self, source: Source, rng: Randomness, counts: Counts, *, steps: range, workers: int, part: Slice | None = None
    ) -> None:
        self._part = part or Slice()
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
        labelled = source.labelled(rng.at(LABELLED), counts.labelled)
        unlabelled = source.unlabelled(rng.at(UNLABELLED), counts.unlabelled) if counts.unlabelled else None
        predicted = source.unlabelled(rng.at(PREDICTED), counts.predicted) if counts.predicted else None
        samples = {"labelled": labelled.index}
        if unlabelled is not None:
            samples["unlabelled"] = unlabelled.index
        part = self._part
        if part.size == 1:
            return RawBatch(labelled, unlabelled, predicted, samples)
        return RawBatch(part.cut(labelled), part.of(unlabelled), part.of(predicted), samples, part.places(counts))
