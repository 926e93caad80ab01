"""Sums over all the ranks that compute a batch together, so that a mean is that of the whole batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from berunda.ranks import Ranks, other_ranks

__all__ = ["over_ranks"]


def over_ranks(part: Tensor) -> Tensor:
    """Return the sum of `part` over the ranks; `part` itself where there are none.

    The gradient is scaled by the number of ranks, because the loop averages the gradients of the ranks: what is
    computed from such sums alone, or is a sum of such results and of means over equal slices, has then the gradient
    that one rank would find on the whole batch.
    """
    ranks = other_ranks()
    return part if ranks is None else _Sum.apply(part, ranks)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, ranks: Ranks) -> Tensor:
        ctx.size = ranks.size
        return ranks.sum(part)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.size, None
