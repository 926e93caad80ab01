"""Images that are there twice: equal pixels by a hash of their content, near-equal ones by a perceptual hash.

The perceptual hash survives another size, format, brightness and contrast. What it pairs is compared picture by
picture, so that two different lakes, which have much the same hash, are no duplicates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

__all__ = ["MAX_BITS", "Pair", "content_hash", "find_duplicates", "perceptual_hash"]

MAX_BITS = 14
"""Hashes that differ in more of their 64 bits are of different images; two at random differ in 32 on average."""
_SIDE, _KEPT = 32, 8
_ROWS = 2048  # of hashes that are compared with all at once
_MAX_CELLS = 1 << 26  # and pairs, 256 MiB of them
MIN_CONTRAST = 3.0
"""Standard deviation of grey values, 0..255, under which a picture is blank: only equal pixels count then."""
MAX_DIFFERENCE = 0.3
"""Root mean square difference of two pictures, in their own standard deviations, up to which they are one image."""
_MAX_GROUP = 2000  # equal images that are paired with one another


@dataclass(frozen=True, order=True)
class Pair:
    """Two images, `first` < `second`, that show the same; `is_exact` where their pixels are equal."""

    first: int
    second: int
    is_exact: bool


def content_hash(pixels: np.ndarray) -> int:
    """Return 64 bits of the sha256 of pixels and their shape."""
    digest = hashlib.sha256(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).tobytes())
    return int.from_bytes(digest.digest()[:8], "little")


def perceptual_hash(picture: np.ndarray) -> int:
    """Return 64 bits: which of the lowest 8 x 8 frequencies of the grey picture lie above their median.

    Args:
        picture: (h, w, 3) uint8.

    Source: the common "pHash" construction: a discrete cosine transform of the picture at 32 x 32.
    Deviations: the constant term is left out of the median and its bit is 0, so brightness does not count.
    """
    grey = _small(picture.astype(np.float64).mean(axis=2))
    basis = _cosines()
    low = (basis @ grey @ basis.T).ravel()
    bits = low > np.median(low[1:])
    bits[0] = False
    return int(np.packbits(bits).view(">u8")[0])


def find_duplicates(
    hashes: np.ndarray, contents: np.ndarray, thumbs: np.ndarray, *, groups: np.ndarray | None = None
) -> list[Pair]:
    """Return the pairs of images that show the same.

    Args:
        hashes: (N,) uint64, see `perceptual_hash`.
        contents: (N,) uint64, see `content_hash`.
        thumbs: (N, h, w, 3) uint8, what near-equal hashes are checked with.
        groups: (N,) numbers; only pairs of different groups are looked for. None looks for all.

    Returns:
        Sorted, each pair once.
    """
    group = np.arange(len(hashes)) if groups is None else np.asarray(groups)
    grey = thumbs.astype(np.float32).mean(axis=3).reshape(len(thumbs), -1)
    spread = grey.std(axis=1)
    unit = (grey - grey.mean(axis=1, keepdims=True)) / np.maximum(spread, 1e-6)[:, None]
    found: dict[tuple[int, int], Pair] = {}
    for first, second in _alike(contents, group):
        found[first, second] = Pair(first, second, True)
    for first, second in _near(hashes, group, spread >= MIN_CONTRAST):
        if (first, second) in found:
            continue
        if np.sqrt(np.mean((unit[first] - unit[second]) ** 2)) <= MAX_DIFFERENCE:
            found[first, second] = Pair(first, second, False)
    return sorted(found.values())


def _alike(keys: np.ndarray, group: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield pairs of different groups with equal keys: all, or of many equal ones one for each that has such a twin."""
    order = np.argsort(keys, kind="stable")
    bounds = np.flatnonzero(np.diff(keys[order])) + 1
    for members in np.split(order, bounds):
        if len(members) > 1:
            yield from (_pairs if len(members) <= _MAX_GROUP else _twins)(np.sort(members), group)


def _pairs(members: np.ndarray, group: np.ndarray) -> Iterator[tuple[int, int]]:
    for at, first in enumerate(members):
        for second in members[at + 1 :]:
            if group[first] != group[second]:
                yield int(first), int(second)


def _twins(members: np.ndarray, group: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield each member with the first one of another group."""
    others = members[group[members] != group[members[0]]]
    if len(others):
        for member in members:
            twin = members[0] if group[member] != group[members[0]] else others[0]
            yield (int(member), int(twin)) if member < twin else (int(twin), int(member))


def _near(hashes: np.ndarray, group: np.ndarray, is_clear: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield pairs of different groups of clear pictures whose hashes differ in at most `MAX_BITS` bits, each once.

    All pairs are looked at: the scalar product of two hashes, as vectors of -1 and 1, is 64 less twice their distance.
    """
    clear = np.flatnonzero(is_clear)
    bits = np.unpackbits(hashes[clear].astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)
    signs = bits.astype(np.float32) * 2 - 1
    n_rows = max(1, min(_ROWS, _MAX_CELLS // max(1, len(clear))))
    for start in range(0, len(clear), n_rows):
        part = signs[start : start + n_rows] @ signs.T
        at_first, at_second = np.nonzero(part >= 64 - 2 * MAX_BITS)
        for i, j in zip((at_first + start).tolist(), at_second.tolist(), strict=True):
            if i < j and group[clear[i]] != group[clear[j]]:
                yield int(clear[i]), int(clear[j])


@lru_cache(maxsize=1)
def _cosines() -> np.ndarray:
    """Return the first 8 rows of the discrete cosine transform of 32 values."""
    k, n = np.arange(_KEPT)[:, None], np.arange(_SIDE)[None]
    return np.cos(np.pi * (n + 0.5) * k / _SIDE)


def _small(grey: np.ndarray) -> np.ndarray:
    from berunda.data.photo import resampled

    small: np.ndarray = resampled(grey[None].astype(np.float32), _SIDE)[0].astype(np.float64)
    return small
