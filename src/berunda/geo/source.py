"""What is known of an opened raster file and its bands: plain, frozen, picklable facts without a handle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from berunda.geo.grid import Grid

__all__ = ["Band", "BandSource", "Block", "RasterFile"]


@dataclass(frozen=True)
class BandSource:
    """Where a band lies: file and 1-based band number, as GDAL counts."""

    path: Path
    index: int

    def __str__(self) -> str:
        return f"{self.path} band {self.index}"


@dataclass(frozen=True)
class Band:
    """One band of a scene.

    Attributes:
        name: unique within the scene.
        source: file and band number.
        dtype: numpy name of the stored type.
        nodata: stored value that means "no data", None if there is none (NaN and Inf always mean it).
    """

    name: str
    source: BandSource
    dtype: str
    nodata: float | None


@dataclass(frozen=True)
class Block:
    """Pixels of one window.

    Attributes:
        values: (B, h, w) float32 in the units of the files, 0 where `valid` is False.
        valid: (h, w) bool, True where every band has data and no mask says otherwise.
    """

    values: np.ndarray
    valid: np.ndarray


@dataclass(frozen=True)
class RasterFile:
    """Facts about one raster file.

    Attributes:
        path: the file.
        driver: GDAL's short driver name.
        grid: shape, transform and CRS.
        dtype: numpy name of the bands' type.
        nodata: one value or None per band.
        descriptions: one text or "" per band.
        masked: per band, whether GDAL keeps a mask for it beside the values (internal mask, `.msk`).
        alpha: 1-based number of the band that is used as a mask, or None.
        tags: the dataset's tags.
        palette: value -> (red, green, blue, alpha), empty without a colour table.
    """

    path: Path
    driver: str
    grid: Grid
    dtype: str
    nodata: tuple[float | None, ...]
    descriptions: tuple[str, ...]
    masked: tuple[bool, ...]
    alpha: int | None
    tags: tuple[tuple[str, str], ...]
    palette: tuple[tuple[int, tuple[int, int, int, int]], ...]

    @property
    def n_bands(self) -> int:
        """Number of stored bands, an alpha band counted."""
        return len(self.nodata)

    @property
    def data_indexes(self) -> tuple[int, ...]:
        """1-based numbers of the bands that hold data."""
        return tuple(i for i in range(1, self.n_bands + 1) if i != self.alpha)
