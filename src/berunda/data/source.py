"""What the training loop draws from: images as they are stored, before any view is taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from torch import Tensor

from berunda.data.order import Randomness

__all__ = ["ListedSource", "RawImages", "Source"]


@dataclass(frozen=True)
class RawImages:
    """A batch of images on the CPU.

    Attributes:
        pixels: (N, B, H, W) float32, standardised.
        valid: (N, H, W) bool, False where there is no data.
        labels: as in `berunda.methods.contract.Images`, or None.
        index: (N,) int64 index of each sample in its stream.
    """

    pixels: Tensor
    valid: Tensor
    labels: Tensor | None
    index: Tensor


class Source(Protocol):
    """Draws batches as a pure function of the random keys it is given: no state, so any order and number of workers."""

    @property
    def has_unlabelled(self) -> bool:
        """Whether `unlabelled` can be called."""

    def labelled(self, rng: Randomness, n: int) -> RawImages:
        """Return `n` labelled images."""

    def unlabelled(self, rng: Randomness, n: int) -> RawImages:
        """Return `n` images without labels."""


@runtime_checkable
class ListedSource(Source, Protocol):
    """A source of so many images and no more, which can show every one of them."""

    def every(self, stream: Literal["labelled", "unlabelled"], n: int) -> Iterator[RawImages]:
        """Yield all images of a stream in their order, `n` at a time."""

    def twins(self) -> Tensor:
        """Return where each labelled image stands in the unlabelled stream, (k,) int64; -1 where it does not."""
