"""Mixing of samples within a batch: CutMix pastes a box of one image into another, MixUp blends two images.

Both are values that are drawn once and then applied alike to pixels, masks, labels and pseudo-labels. Where several
ranks hold equal slices of a batch, they are drawn for the whole batch, and partners are found on any rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from berunda.ranks import other_ranks

__all__ = [
    "CutMix",
    "MixUp",
    "boxes",
    "draw_cutmix",
    "draw_mixup",
    "draw_normal",
    "draw_partners",
    "draw_uniform",
    "whole_batch",
]


@dataclass(frozen=True, eq=False)
class CutMix:
    """Which sample is pasted into which, and where.

    Attributes:
        partner: (N,) int64, the sample of the whole batch whose pixels are pasted.
        box: (N, H, W) bool, true where they are pasted.
    """

    partner: Tensor
    box: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Return `x` (N, H, W) or (N, C, H, W) of any type with the partner's values inside the box."""
        box = self.box if x.ndim == 3 else self.box[:, None]
        return torch.where(box, whole_batch(x)[self.partner], x)


@dataclass(frozen=True, eq=False)
class MixUp:
    """Which samples of several streams are blended, and how much of the own sample stays.

    Attributes:
        sizes: samples of each stream, one after the other; N in all.
        partner: (N,) int64, positions in the whole batch, where a stream's samples of all ranks stand together.
        weight: (N,) in [0.5, 1], the share of the own sample.
    """

    sizes: tuple[int, ...]
    partner: Tensor
    weight: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Return weight * x + (1 - weight) * partner for real `x` (N, ...), images or soft labels."""
        weight = self.weight.to(x.dtype).view(-1, *[1] * (x.ndim - 1))
        return torch.lerp(self._partners(x), x, weight)

    def apply_mask(self, mask: Tensor) -> Tensor:
        """Return the bool `mask` (N, ...) where both of the blended samples count."""
        return mask & self._partners(mask)

    def _partners(self, x: Tensor) -> Tensor:
        return torch.cat([whole_batch(part) for part in x.split(self.sizes)])[self.partner]


def draw_partners(n: int, generator: torch.Generator) -> Tensor:
    """Return each sample's partner (N,) int64: a random cycle through all samples of the whole batch."""
    return _own(_cycle(_n_whole(n), generator), n)


def draw_cutmix(
    shape: tuple[int, int, int],
    generator: torch.Generator,
    *,
    probability: float = 1.0,
    share: tuple[float, float] = (0.1, 0.5),
    aspect: float = 2.0,
) -> CutMix:
    """Draw partners and boxes.

    Args:
        shape: samples, rows, cols.
        generator: on the device where the images are.
        probability: that a sample is mixed at all.
        share: smallest and largest share of the image's area that the box covers.
        aspect: largest ratio of the box's sides, relative to the image's.

    Returns:
        Boxes that lie within the image.

    Source: Yun et al. 2019 (CutMix); for semi-supervised segmentation French et al. 2020.
    """
    uniform = _own(torch.rand(_n_whole(shape[0]), 5, generator=generator, device=generator.device), shape[0])
    area = share[0] + (share[1] - share[0]) * uniform[:, 0]
    box = boxes(area, uniform[:, 1:4], shape[1:], aspect)
    return CutMix(draw_partners(shape[0], generator), box & (uniform[:, 4, None, None] < probability))


def boxes(area: Tensor, uniform: Tensor, shape: tuple[int, int], aspect: float = 2.0) -> Tensor:
    """Turn an area and three uniform numbers a sample into boxes that lie within the image.

    Args:
        area: (N,) share of the image's area that the box covers, 0 to 1.
        uniform: (N, 3) in [0, 1): aspect, top, left.
        shape: rows, cols.
        aspect: largest ratio of the box's sides, relative to the image's.

    Returns:
        (N, H, W) bool, true inside the box.
    """
    n_rows, n_cols = shape
    ratio = torch.exp((uniform[:, 0] - 0.5) * math.log(aspect))
    tall, wide = (area.sqrt() * ratio).clamp(max=1), (area.sqrt() / ratio).clamp(max=1)
    top, left = (1 - tall) * uniform[:, 1], (1 - wide) * uniform[:, 2]
    rows = (torch.arange(n_rows, device=uniform.device) + 0.5) / n_rows
    cols = (torch.arange(n_cols, device=uniform.device) + 0.5) / n_cols
    in_rows = (rows >= top[:, None]) & (rows < (top + tall)[:, None])
    in_cols = (cols >= left[:, None]) & (cols < (left + wide)[:, None])
    return in_rows[:, :, None] & in_cols[:, None, :]


def draw_mixup(sizes: Sequence[int], generator: torch.Generator, alpha: float = 0.75) -> MixUp:
    """Draw partners among all streams and weights max(w, 1 - w), w ~ Beta(alpha, alpha): the own sample dominates.

    Args:
        sizes: samples of each stream at hand.
        generator: on the device where the images are.
        alpha: of the Beta distribution, above 0.

    Source: Berthelot et al. 2019 (MixMatch), eq. 8 and 9.
    """
    n = sum(_n_whole(size) for size in sizes)
    concentration = torch.full((n, 2), alpha, device=generator.device)
    weight = torch._sample_dirichlet(concentration, generator).amax(dim=1)
    partner = _cycle(n, generator)
    drawn = [x.split([_n_whole(size) for size in sizes]) for x in (partner, weight)]
    own = [torch.cat([_own(part, size) for part, size in zip(x, sizes, strict=True)]) for x in drawn]
    return MixUp(tuple(sizes), *own)


def draw_uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return numbers in [0, 1) for the samples at hand, `shape` (N, ...), whatever the slicing among ranks."""
    drawn = torch.rand(_n_whole(shape[0]), *shape[1:], generator=generator, device=generator.device)
    return _own(drawn, shape[0])


def draw_normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return standard normal numbers in the shape and type of `like` (N, ...), whatever the slicing among ranks."""
    shape = (_n_whole(like.shape[0]), *like.shape[1:])
    return _own(torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype), like.shape[0])


def whole_batch(x: Tensor) -> Tensor:
    """Return the samples (N, ...) of all ranks one after the other; `x` itself where there are none."""
    ranks = other_ranks()
    return x if ranks is None else ranks.gather(x)


def _cycle(n: int, generator: torch.Generator) -> Tensor:
    order = torch.rand(n, generator=generator, device=generator.device).argsort()
    return torch.empty_like(order).scatter_(0, order, order.roll(-1))


def _n_whole(n: int) -> int:
    """Return the samples of all ranks together, `n` being those of this one."""
    ranks = other_ranks()
    return n if ranks is None else n * ranks.size


def _own(drawn: Tensor, n: int) -> Tensor:
    """Return of what was `drawn` for the whole batch the `n` rows of this rank."""
    ranks = other_ranks()
    return drawn if ranks is None else drawn[ranks.rank * n : (ranks.rank + 1) * n]
