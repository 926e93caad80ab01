"""Writing rasters that are whole or not there: block-aligned writes, checks, and a rename as the last act.

A raster is written in two steps: `create_tiled` fills a temporary GeoTIFF in any order, `finish_cog` turns it
into a cloud-optimized GeoTIFF with overviews, compares it pixel by pixel with the temporary one, and renames
it.
"""

from __future__ import annotations

import glob
import os
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile
from rasterio.windows import Window as RasterioWindow

from berunda.errors import GeoError, OutputError
from berunda.geo.grid import Grid, Shape, Window
from berunda.geo.legend import aux_xml, qml, rgb
from berunda.geo.raster import environment, open_raster

__all__ = [
    "BLOCK_PX",
    "Cog",
    "TiledWriter",
    "create_tiled",
    "finish_cog",
    "finish_cogs",
    "finish_tiled",
    "replace_file",
    "write_qml",
]

BLOCK_PX = 512
"""Side of the square blocks; windows are written in multiples of it."""

VERIFY_PX = 2048
MIB = 2**20


class TiledWriter:
    """Fills a temporary GeoTIFF by windows, in any order, and reads all of it back when closed.

    Only windows on block borders are taken: an unaligned write waits in GDAL's cache, where a full disk can
    go unnoticed. Blocks that were never written are nodata.
    """

    def __init__(self, path: Path, dataset: Any, grid: Grid) -> None:
        """Take over an open dataset; `create_tiled` is the way to get a writer."""
        self.path = path
        self.grid = grid
        self._dataset = dataset
        self._sums: dict[Window, int] = {}

    def write(self, values: np.ndarray, window: Window) -> None:
        """Write one window.

        Args:
            values: (B, h, w) of the raster's dtype.
            window: begins on a block border, and ends on one or at the raster's edge.

        Raises:
            OutputError: the disk is full or the file cannot be written; the temporary file is removed.
            GeoError: the window is not aligned, or the values do not fit it.
        """
        self._check(values, window)
        place = RasterioWindow(window.col, window.row, window.n_cols, window.n_rows)
        with _writing(self.path, values.nbytes, self.discard):
            self._dataset.write(values, window=place)
        self._sums[window] = zlib.crc32(values.tobytes())

    def close(self) -> None:
        """Close the file, force it to the disk and compare it with what was written.

        Raises:
            OutputError: it does not hold what was written; it is removed.
        """
        if self._dataset.closed:
            return
        n_bytes = self.path.stat().st_size if self.path.exists() else 0
        with _writing(self.path, n_bytes, self.discard):
            self._dataset.close()
            sync_file(self.path)
            with environment(), open_raster(self.path) as dataset:
                for window, expected in self._sums.items():
                    if _crc(dataset, window) != expected:
                        raise OSError(f"{window} were read back different from what was written")

    def discard(self) -> None:
        """Close and remove the temporary file."""
        with suppress(RasterioError, CPLE_BaseError, OSError):
            self._dataset.close()
        _remove(self.path)

    def __enter__(self) -> TiledWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _check(self, values: np.ndarray, window: Window) -> None:
        """Refuse what GDAL would cut, convert or write late."""
        rows, cols = self.grid.shape.rows, self.grid.shape.cols
        starts = window.row % BLOCK_PX == 0 and window.col % BLOCK_PX == 0
        ends = (window.row_stop == rows or window.row_stop % BLOCK_PX == 0) and (
            window.col_stop == cols or window.col_stop % BLOCK_PX == 0
        )
        is_inside = window.intersect(self.grid.full_window) == window
        if not (starts and ends and is_inside):
            raise GeoError(
                f"{self.path}: the window {window} does not lie on blocks of {BLOCK_PX} px in {rows} x {cols} px"
            )
        expected = (self._dataset.count, window.n_rows, window.n_cols)
        if values.shape != expected or values.dtype != self._dataset.dtypes[0]:
            raise GeoError(
                f"{self.path}: found values {values.shape} of {values.dtype} for {window}, expected {expected} of"
                f" {self._dataset.dtypes[0]}"
            )


def create_tiled(
    path: Path,
    grid: Grid,
    n_bands: int,
    dtype: str,
    nodata: float | None,
    descriptions: Sequence[str] = (),
) -> TiledWriter:
    """Create a temporary tiled GeoTIFF and return its writer.

    Args:
        path: where; on the same disk as the final file.
        grid: of the raster.
        n_bands: number of bands.
        dtype: numpy name.
        nodata: value that means no data, None for none.
        descriptions: names of the bands, none or one for each.

    Raises:
        OutputError: the file cannot be created.
    """
    profile = {
        **_storage(dtype),
        "driver": "GTiff",
        "width": grid.shape.cols,
        "height": grid.shape.rows,
        "count": n_bands,
        "dtype": dtype,
        "nodata": nodata,
        "transform": grid.transform,
        "crs": grid.crs or None,
        "tiled": True,
        "blockxsize": BLOCK_PX,
        "blockysize": BLOCK_PX,
        "bigtiff": "IF_SAFER",
        "interleave": "band",
        "photometric": "MINISBLACK",
        "alpha": "NO",
    }
    with _writing(path, 0, lambda: _remove(path)), environment():
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset = rasterio.open(path.absolute(), "w", **profile)
        for index, text in enumerate(descriptions, 1):
            dataset.set_band_description(index, text)
    return TiledWriter(path, dataset, grid)


@dataclass(frozen=True)
class Cog:
    """A cloud-optimized GeoTIFF to be made of a temporary one.

    Attributes:
        tmp: closed file of `create_tiled`; it stays when the COG fails.
        final: name of the COG; an older file there is replaced at the very end.
        overview: how the overviews are made: "mode" for classes, "average" for measures.
        colors: value -> "#rrggbb" or (red, green, blue), for uint8 rasters; 0 stays transparent.
        categories: class names from value 0 on, of every band: in tags CLASS_<n> and in `<final>.aux.xml`.
        tags: further tags of the dataset.
    """

    tmp: Path
    final: Path
    overview: Literal["mode", "average", "nearest"]
    colors: Mapping[int, str | tuple[int, int, int]] | None = None
    categories: Sequence[str] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def partial(self) -> Path:
        """Name of the COG until it is verified."""
        return self.final.with_name(f".{self.final.name}.{os.getpid()}.part")

    @property
    def partial_categories(self) -> Path:
        """Name of the class names' file until then."""
        return self.partial.with_name(self.partial.name + ".categories")

    def clean(self) -> None:
        """Remove what is not finished."""
        for path in self.final.parent.glob(glob.escape(self.partial.name) + "*"):
            _remove(path)


def finish_cog(tmp: Path, final: Path, *, overview: Literal["mode", "average", "nearest"], **more: Any) -> None:
    """Turn a temporary GeoTIFF into a verified COG under its final name, and remove the temporary one.

    Args:
        tmp, final, overview: see `Cog`.
        **more: further fields of `Cog`.

    Raises:
        OutputError: the disk is full or the COG differs from what was written; nothing new stands under
            `final`.
    """
    finish_cogs([Cog(tmp, final, overview, **more)])


def finish_cogs(cogs: Sequence[Cog], *, before: Callable[[], None] | None = None) -> None:
    """Turn temporary GeoTIFFs into verified COGs, side by side; only when all are good do they get their final names.

    The names are given in the order of `cogs`. The temporary files are removed at the end.

    Args:
        cogs: what to make.
        before: called when all are verified and none has its name yet.

    Raises:
        OutputError: the disk is full or a COG differs from what was written: none stands under its final name. Or
            one could not be renamed: those before it have their names.
    """
    try:
        with ThreadPoolExecutor(len(cogs), "cog") as pool:
            for _ in pool.map(_make_cog, cogs):
                pass
        if before is not None:
            before()
        for cog in cogs:
            with _writing(cog.final, 0, cog.clean):
                _place_cog(cog)
    finally:
        for cog in cogs:
            cog.clean()
    for cog in cogs:
        _remove(cog.tmp)


def _make_cog(cog: Cog) -> None:
    """Write and verify the COG under its partial name."""
    tags = {f"CLASS_{i}": name for i, name in enumerate(cog.categories or ()) if i} | dict(cog.tags)
    with _writing(cog.final, cog.tmp.stat().st_size if cog.tmp.exists() else 0, cog.clean), environment():
        _dress(cog.tmp, cog.colors, tags, cog.overview)
        rasterio.shutil.copy(
            cog.tmp.absolute(),
            cog.partial.absolute(),
            driver="COG",
            blocksize=BLOCK_PX,
            predictor="YES",
            **_compression(cog.tmp),
            num_threads="ALL_CPUS",
            overview_resampling=cog.overview.upper(),
            bigtiff="IF_SAFER",
        )
        sync_file(cog.partial)
        _verify(cog.tmp, cog.partial, tags, bool(cog.colors))
        if cog.categories is not None:
            with open_raster(cog.tmp) as source:
                _put(cog.partial_categories, aux_xml(cog.categories, source.count))


def _place_cog(cog: Cog) -> None:
    """Give the verified COG its final name, last of all: with it, everything beside it is there."""
    side = cog.final.with_name(cog.final.name + ".aux.xml")
    if cog.categories is not None:
        os.replace(cog.partial_categories, side)
    else:
        _remove(side)
    os.replace(cog.partial, cog.final)
    sync_folder(cog.final.parent)


def _storage(dtype: str) -> dict[str, Any]:
    """Return how a temporary file stores its blocks; measures hardly shrink: only those without data are left out."""
    if np.dtype(dtype).kind == "f":
        return {"compress": "none", "sparse_ok": True}
    return {"compress": "deflate", "zlevel": 1}


def _compression(tmp: Path) -> dict[str, Any]:
    """Return how a COG is compressed: classes in what every program reads, measures fast.

    Measures hardly shrink, whatever the effort: deflate takes half as long again over them as zstd and saves nothing.
    Classes shrink to a quarter of a byte a pixel either way: level 6 takes twice as long as 1 and saves a sixth of it.
    """
    with open_raster(tmp) as source:
        if np.dtype(source.dtypes[0]).kind != "f":
            return {"compress": "DEFLATE", "level": 1}
    return {"compress": "ZSTD" if _has_zstd() else "DEFLATE", "level": 1}


@cache
def _has_zstd() -> bool:
    """Say whether this GDAL writes zstd, by trying; those in the wheels of rasterio do."""
    profile = {"driver": "GTiff", "width": 1, "height": 1, "count": 1, "dtype": "uint8", "compress": "ZSTD"}
    try:
        with environment(), MemoryFile() as memory, warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            memory.open(**profile).close()
    except (RasterioError, CPLE_BaseError):
        return False
    return True


def finish_tiled(tmp: Path, final: Path) -> None:
    """Rename a closed temporary GeoTIFF as it is, without overviews: for inputs that are made, not for maps.

    Raises:
        OutputError: it cannot be renamed.
    """
    with _writing(final, tmp.stat().st_size, lambda: _remove(tmp)):
        sync_file(tmp)
        os.replace(tmp, final)
        sync_folder(final.parent)


def write_qml(path: Path, classes: Sequence[tuple[int, str, str | tuple[int, int, int]]]) -> None:
    """Write a legend for QGIS: (value, name, colour) of each class, colours as "#rrggbb" or (red, green,
    blue).

    Raises:
        OutputError: the file cannot be written.
    """
    replace_file(path, qml(classes))


def replace_file(path: Path, text: str) -> None:
    """Write a small text file so that it is there whole or as before.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    with _writing(path, len(text), lambda: _remove(partial)):
        _put(partial, text)
        os.replace(partial, path)
        sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Force a file's content to the disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Force a folder's entries to the disk, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put(path: Path, text: str) -> None:
    """Write a text and force it to the disk."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _dress(
    path: Path, colors: Mapping[int, str | tuple[int, int, int]] | None, tags: Mapping[str, str], overview: str
) -> None:
    """Give the temporary file its overviews, colour table and tags, which the COG takes over.

    Left to the COG's driver, the overviews take four times as long: it compresses and reads them once more.
    """
    with rasterio.open(path.absolute(), "r+", driver="GTiff") as dataset:
        factors = [2**level for level in range(1, 32) if max(dataset.shape) > BLOCK_PX * 2 ** (level - 1)]
        if factors:
            dataset.build_overviews(factors, Resampling[overview])
        if colors:
            table = dict.fromkeys(range(256), (0, 0, 0, 0))
            table |= {int(value): (*rgb(color), 255) for value, color in colors.items()}
            dataset.write_colormap(1, table)
        dataset.update_tags(**tags)


def _verify(tmp: Path, partial: Path, tags: Mapping[str, str], has_colors: bool) -> None:
    """Compare the COG with the temporary file it was made from: header, layout and every pixel."""
    with open_raster(tmp) as source, open_raster(partial) as made:
        grid = Grid(Shape(made.height, made.width), made.transform, "")
        for what in ("width", "height", "count", "dtypes", "transform", "crs", "descriptions"):
            if getattr(source, what) != getattr(made, what):
                raise OSError(f"its {what} is {getattr(made, what)} instead of {getattr(source, what)}")
        if not np.array_equal(_numbers(source.nodatavals), _numbers(made.nodatavals), equal_nan=True):
            raise OSError(f"its nodata is {made.nodatavals} instead of {source.nodatavals}")
        if made.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") != "COG":
            raise OSError("it does not have the layout of a COG")
        if max(made.width, made.height) > BLOCK_PX and not made.overviews(1):
            raise OSError("it has no overviews")
        found = made.tags()
        lost = [key for key, value in tags.items() if found.get(key) != value]
        if lost or (has_colors and made.colormap(1) != source.colormap(1)):
            raise OSError(f"it lost {', '.join(lost) or 'the colour table'}")
        for window in grid.tiles(VERIFY_PX):
            for index in made.indexes:
                if _crc(source, window, index) != _crc(made, window, index):
                    raise OSError(f"band {index} differs in {window}")


def _crc(dataset: Any, window: Window, indexes: int | None = None) -> int:
    """Return the checksum of the stored pixels of a window."""
    place = RasterioWindow(window.col, window.row, window.n_cols, window.n_rows)
    return zlib.crc32(dataset.read(indexes, window=place).tobytes())


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    """Return nodata values as floats, a number that no raster uses for None."""
    return np.array([-1.23456e300 if v is None else v for v in values], float)


def _remove(path: Path) -> None:
    """Remove a file if it is there and can be removed."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


@contextmanager
def _writing(path: Path, n_bytes: int, clean: Any) -> Iterator[None]:
    """Turn failures into one line naming path, bytes and free space, after cleaning up."""
    try:
        yield
    except (RasterioError, CPLE_BaseError, OSError, GeoError, MemoryError) as error:
        clean()
        reason = (
            " ".join(str(error if isinstance(error, GeoError) else error.__cause__ or error).split())
            or type(error).__name__
        )
        with suppress(OSError):
            reason += f"; the disk has {shutil.disk_usage(path.parent).free / MIB:.1f} MiB free"
        raise OutputError(
            f"{path} could not be written ({n_bytes} bytes at that point): {reason}; expected a folder with room and"
            " the right to write, free some space or choose another --out"
        ) from error
    except BaseException:
        clean()
        raise
