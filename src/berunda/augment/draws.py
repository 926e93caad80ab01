"""Random draws for a batch, or for the slice of it that this rank holds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Draws", "Place"]


@dataclass(frozen=True, eq=False)
class Place:
    """Which samples of a larger batch are at hand.

    Attributes:
        positions: (N,) int64, where each sample stands in the whole batch.
        total: samples of the whole batch.
    """

    positions: Tensor
    total: int


@dataclass(frozen=True, eq=False)
class Draws:
    """Draws for the whole batch and keeps those of the samples at hand, so that they do not depend on the slicing.

    Attributes:
        generator: on the device of the images.
        place: the samples at hand; None for all of them.
    """

    generator: torch.Generator
    place: Place | None = None

    def total(self, n: int) -> int:
        """Return the number of samples of the whole batch, `n` of which are at hand."""
        return n if self.place is None else self.place.total

    def own(self, drawn: Tensor, axis: int = 0) -> Tensor:
        """Return of `drawn`, for the whole batch along `axis`, what belongs to the samples at hand."""
        if self.place is None:
            return drawn
        return drawn.index_select(axis, self.place.positions.to(drawn.device))
