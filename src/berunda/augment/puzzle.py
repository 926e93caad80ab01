"""Images with their patches shuffled or with a hole in them, for the tasks that an image sets by itself."""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations
from math import factorial, isqrt

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from berunda.augment.mix import draw_uniform
from berunda.errors import ConfigError

__all__ = ["GRID", "draw_holes", "draw_orders", "far_permutations", "shuffle_patches"]

GRID = 3
"""Patches a side of a jigsaw."""


@lru_cache(maxsize=8)
def far_permutations(n: int, n_patches: int = GRID**2) -> npt.NDArray[np.int64]:
    """Return `n` permutations that differ from each other in as many places as can be had, one after the other.

    The first leaves everything as it is. Each further one is, of all there are, the one whose smallest Hamming distance
    to those before is largest; of several the one with the largest mean distance, then the first in lexical order. So
    a shorter list is the beginning of a longer one, and no random number is needed.

    Args:
        n: how many, at least 1.
        n_patches: of what, at most 9 (there are 9! = 362,880 to choose from).

    Returns:
        (n, n_patches) int64; do not write into it.

    Raises:
        ConfigError: there are not that many.

    Source: Noroozi and Favaro 2016 (jigsaw puzzles), algorithm 1.
    Deviations: the smallest distance comes before the mean, which alone lets two permutations be nearly alike.

    Example:
        >>> far_permutations(3, 3).tolist()
        [[0, 1, 2], [1, 2, 0], [2, 0, 1]]
    """
    n_all = factorial(n_patches)
    if n > n_all:
        raise ConfigError(f"permutations of {n_patches} patches: found {n}, expected at most {n_all}")
    everything = np.fromiter(permutations(range(n_patches)), dtype=(np.uint8, n_patches), count=n_all)
    places = np.ascontiguousarray(everything.T)
    chosen = [0]
    least, total = np.full(n_all, n_patches, np.int64), np.zeros(n_all, np.int64)
    while len(chosen) < n:
        distance = np.zeros(n_all, np.uint8)
        for place, taken in zip(places, everything[chosen[-1]], strict=True):
            distance += place != taken
        np.minimum(least, distance, out=least)
        total += distance
        chosen.append(int(np.argmax(least * (n_patches * n + 1) + total)))
    found = everything[chosen].astype(np.int64)
    found.flags.writeable = False
    return found


def shuffle_patches(x: Tensor, order: Tensor) -> Tensor:
    """Return `x` cut into a grid of patches, patch j of the result being patch order[:, j] of `x`.

    Args:
        x: (N, H, W) or (N, C, H, W) of any type; rows and columns at the end that fill no whole patch are left out.
        order: (N, g * g) int64, a permutation for each sample.
    """
    if x.ndim == 3:
        return shuffle_patches(x[:, None], order)[:, 0]
    grid = isqrt(order.shape[1])
    n, n_channels, rows, cols = x.shape[0], x.shape[1], x.shape[2] // grid, x.shape[3] // grid
    cut = x[..., : rows * grid, : cols * grid].reshape(n, n_channels, grid, rows, grid, cols)
    patches = cut.permute(0, 2, 4, 1, 3, 5).reshape(n, grid * grid, n_channels, rows, cols)
    moved = patches[torch.arange(n, device=x.device)[:, None], order].view(n, grid, grid, n_channels, rows, cols)
    return moved.permute(0, 3, 1, 4, 2, 5).reshape(n, n_channels, rows * grid, cols * grid)


def draw_orders(n: int, n_patches: int, generator: torch.Generator) -> Tensor:
    """Return (n, n_patches) int64 on the generator's device: for each of `n` samples a random order of its patches."""
    return draw_uniform((n, n_patches), generator).argsort(1)


def draw_holes(shape: tuple[int, int, int], side_px: int, generator: torch.Generator) -> Tensor:
    """Return (N, H, W) bool: a square of `side_px` at a random place of each sample, smaller if the image is.

    Args:
        shape: samples, rows, cols.
        side_px: side of the hole, at least 1.
        generator: on the device where the images are.
    """
    n, rows, cols = shape
    side = min(side_px, rows, cols)
    uniform = draw_uniform((n, 2), generator)
    top, left = ((uniform[:, i, None] * (whole - side + 1)).long() for i, whole in enumerate((rows, cols)))
    row, col = (torch.arange(whole, device=generator.device) for whole in (rows, cols))
    in_rows, in_cols = (row >= top) & (row < top + side), (col >= left) & (col < left + side)
    return in_rows[:, :, None] & in_cols[:, None, :]
