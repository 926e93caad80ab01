"""Noise as a pure function of (key, row, column): the same pixel has the same value in any window.

Only additions, multiplications, comparisons and integer hashes are applied to pixels: their results do not depend on
the length of an array or the processor.
"""

from __future__ import annotations

import numpy as np

from berunda.geo.grid import Window

__all__ = ["cell_hash", "fractal", "hash01", "hash32", "pixel_rows_cols", "smooth"]


def hash32(key: int, first: np.ndarray | int, second: np.ndarray | int) -> np.ndarray:
    """Return a well-mixed uint32 for (key, first, second); the integers broadcast and may be negative."""
    a = np.asarray(first, np.int64).astype(np.uint32)
    b = np.asarray(second, np.int64).astype(np.uint32)
    with np.errstate(over="ignore"):
        h = a * np.uint32(0x9E3779B1) ^ np.uint32(key & 0xFFFFFFFF)
        h = _mix(h ^ np.uint32((key >> 32) & 0xFFFFFFFF))
        return _mix(h + b * np.uint32(0x85EBCA77))


def hash01(key: int, first: np.ndarray | int, second: np.ndarray | int) -> np.ndarray:
    """Return float32 in [0, 1) for (key, first, second)."""
    return (hash32(key, first, second) >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


def cell_hash(key: int, row: int, col: int) -> float:
    """Return one number in [0, 1) for a cell."""
    return float(hash01(key, np.array(row), np.array(col)))


def pixel_rows_cols(window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Return rows (h, 1) and columns (1, w) of the pixel centres, int64."""
    rows = np.arange(window.row, window.row_stop)[:, None]
    return rows, np.arange(window.col, window.col_stop)[None, :]


def smooth(key: int, window: Window, scale_px: float, shift: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Return value noise (h, w) float32 in [0, 1]: random values on a lattice, smoothly interpolated.

    Args:
        key: which noise.
        window: the pixels wanted.
        scale_px: distance of the lattice's nodes in pixels.
        shift: (rows, columns) by which the pattern is moved.
    """
    row, row_weight = _lattice(window.row, window.n_rows, scale_px, shift[0])
    col, col_weight = _lattice(window.col, window.n_cols, scale_px, shift[1])
    top, left = int(row[0]), int(col[0])
    nodes = hash01(key, np.arange(top, int(row[-1]) + 2)[:, None], np.arange(left, int(col[-1]) + 2)[None, :])
    weight = row_weight[:, None]
    lines = nodes[row - top] * (np.float32(1) - weight) + nodes[row - top + 1] * weight
    at = col - left
    return lines[:, at] * (np.float32(1) - col_weight) + lines[:, at + 1] * col_weight


def fractal(
    key: int, window: Window, scale_px: float, n_octaves: int, shift: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """Return the weighted mean of value noise at halved scales, (h, w) float32 in [0, 1]."""
    total = np.zeros((window.n_rows, window.n_cols), np.float32)
    weight = 0.0
    for octave in range(n_octaves):
        share = 0.5**octave
        total += smooth(key + 7919 * octave, window, scale_px * share, shift) * np.float32(share)
        weight += share
    return total * np.float32(1 / weight)


def _lattice(start: int, n: int, scale_px: float, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the lattice node before each pixel (n,) int64 and the smoothed weight of the next."""
    position = (np.arange(start, start + n) + 0.5 + shift) / scale_px
    node = np.floor(position)
    part = position - node
    return node.astype(np.int64), (part * part * (3 - 2 * part)).astype(np.float32)


def _mix(h: np.ndarray) -> np.ndarray:
    """Spread the bits of a uint32 (the finaliser of MurmurHash3)."""
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return h ^ (h >> np.uint32(16))
