"""What an opened dataset says about itself, checked: types, sizes, georeference, masks. Opens nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window as RasterioWindow

from berunda.errors import GeoError
from berunda.geo.grid import Grid, Shape
from berunda.geo.source import RasterFile

__all__ = ["facts_of"]

GIB = 2**30
BOMB_BYTES = 4 * GIB
BOMB_RATIO = 20_000
"""Declaring more than 4 GiB and 20,000 times the file's size is refused: deflate reaches about 1,000."""

BLOCK_BYTES = GIB
"""The largest block (tile or strip) that a window may have to decode."""

REAL_TYPES = frozenset(
    {
        "uint8",
        "int8",
        "uint16",
        "int16",
        "uint32",
        "int32",
        "uint64",
        "int64",
        "float16",
        "float32",
        "float64",
    }
)
ALPHA_SAMPLE_PX = 128
ALPHA_SHARE = 0.01


def facts_of(dataset: Any, path: Path, n_bytes: int | None) -> RasterFile:
    """Return the facts about an open dataset.

    Args:
        dataset: an open rasterio dataset.
        path: where it lies, for messages and for opening it again.
        n_bytes: size of the file, None for a remote one.

    Raises:
        GeoError: the dataset is complex, a bomb, stored in blocks too large to read, or has no usable
            georeference.
    """
    if not dataset.count:
        raise GeoError(
            f"{path} holds no bands (subdatasets only): expected a raster with bands; extract one subdataset"
        )
    dtype = _common_type(dataset, path)
    _check_size(dataset, path, dtype, n_bytes)
    return RasterFile(
        path=path,
        driver=dataset.driver,
        grid=_grid(dataset, path),
        dtype=dtype,
        nodata=tuple(None if v is None else float(v) for v in dataset.nodatavals),
        descriptions=tuple(d or "" for d in dataset.descriptions),
        masked=tuple(_has_mask(flags) for flags in dataset.mask_flag_enums),
        alpha=_alpha_band(dataset),
        tags=tuple(sorted((str(k), str(v)) for k, v in dataset.tags().items())),
        palette=_palette(dataset),
    )


def _common_type(dataset: Any, path: Path) -> str:
    """Return the dtype of the bands, refusing what has no order."""
    wrong = [(i, t) for i, t in enumerate(dataset.dtypes, 1) if t not in REAL_TYPES]
    if wrong:
        index, found = wrong[0]
        raise GeoError(
            f"{path} band {index} has the type {found}: expected 8- to 64-bit integers or floats;"
            " complex data must be turned into amplitude or intensity first"
        )
    return str(np.result_type(*(np.dtype(t) for t in dataset.dtypes)))


def _check_size(dataset: Any, path: Path, dtype: str, n_bytes: int | None) -> None:
    """Refuse what declares far more than it holds, and blocks that do not fit into memory."""
    item = np.dtype(dtype).itemsize
    declared = dataset.width * dataset.height * dataset.count * item
    if n_bytes is not None and declared > BOMB_BYTES and declared > BOMB_RATIO * max(n_bytes, 1):
        raise GeoError(
            f"{path} declares {declared / GIB:.1f} GiB ({dataset.height} x {dataset.width} px, {dataset.count} bands)"
            f" in a file of {n_bytes} bytes: expected at most {BOMB_RATIO} times the file's size; crop it to the area"
            " that holds data"
        )
    rows, cols = max(dataset.block_shapes, key=lambda s: s[0] * s[1])
    is_pixel = dataset.profile.get("interleave") == "pixel"
    block = rows * cols * item * (dataset.count if is_pixel else 1)
    if block > BLOCK_BYTES:
        raise GeoError(
            f"{path} is stored in blocks of {rows} x {cols} px ({block / GIB:.1f} GiB each): expected at most"
            f" {BLOCK_BYTES // GIB} GiB; rewrite it in tiles with gdal_translate -of COG"
        )


def _grid(dataset: Any, path: Path) -> Grid:
    """Return the grid, refusing georeferences that are not an affine transform."""
    t = dataset.transform
    transform = Affine(*(float(v) for v in (t.a, t.b, t.c, t.d, t.e, t.f)))
    crs = dataset.crs.to_wkt() if dataset.crs else ""
    if transform == Affine.identity() and not crs:
        points, _ = dataset.gcps
        if points or dataset.rpcs:
            kind = f"{len(points)} ground control points" if points else "rational polynomial coefficients"
            raise GeoError(
                f"{path} is georeferenced by {kind} only: expected a regular grid; warp it with gdalwarp first"
            )
    try:
        return Grid(Shape(dataset.height, dataset.width), transform, crs)
    except GeoError as error:
        raise GeoError(f"{path}: {error}; repair it with gdal_edit -a_ullr") from error


def _has_mask(flags: list[MaskFlags]) -> bool:
    """Whether GDAL keeps a mask besides nodata values and alpha bands."""
    if MaskFlags.alpha in flags:
        return False
    return not flags or MaskFlags.per_dataset in flags


def _alpha_band(dataset: Any) -> int | None:
    """Return the band that is a mask.

    GDAL marks the fourth of four 8-bit bands as alpha when nobody says otherwise, so near-infrared bands
    carry that mark too. Such a band is a mask only if it has no other name and (almost) all sampled values
    are 0 or the maximum.
    """
    found = [i for i, c in enumerate(dataset.colorinterp, 1) if c == ColorInterp.alpha]
    if not found or dataset.count == 1:
        return None
    index = found[-1]
    if (dataset.descriptions[index - 1] or "alpha").strip().lower() not in {"alpha", "mask"}:
        return None
    return index if _partial_share(dataset, index) <= ALPHA_SHARE else None


def _partial_share(dataset: Any, index: int) -> float:
    """Return the share of values that are neither 0 nor the type's maximum, in five small windows."""
    dtype = np.dtype(dataset.dtypes[index - 1])
    top = np.iinfo(dtype).max if dtype.kind in "iu" else 1.0
    n_partial = n_all = 0
    for down, across in ((0.5, 0.5), (0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)):
        row = max(0, int(dataset.height * down) - ALPHA_SAMPLE_PX // 2)
        col = max(0, int(dataset.width * across) - ALPHA_SAMPLE_PX // 2)
        n_rows, n_cols = min(ALPHA_SAMPLE_PX, dataset.height - row), min(ALPHA_SAMPLE_PX, dataset.width - col)
        values = dataset.read(index, window=RasterioWindow(col, row, n_cols, n_rows))
        n_partial += int(((values != 0) & (values != top)).sum())
        n_all += values.size
    return n_partial / n_all


def _palette(dataset: Any) -> tuple[tuple[int, tuple[int, int, int, int]], ...]:
    """Return the colour table of the first band."""
    if dataset.colorinterp[0] != ColorInterp.palette:
        return ()
    return tuple(sorted((int(k), (int(v[0]), int(v[1]), int(v[2]), int(v[3]))) for k, v in dataset.colormap(1).items()))
