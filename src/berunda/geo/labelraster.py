"""Label rasters: class values as an array, with what the file knows about their names."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio.windows import Window as RasterioWindow

from berunda.errors import GeoError
from berunda.geo.grid import Grid, Window
from berunda.geo.raster import RasterFile, describe, environment, open_raster, reading_errors
from berunda.geo.resample import nearest_indices

__all__ = ["LabelRaster", "category_names", "known_names", "label_grid", "read_label_raster", "read_under"]

MAX_PIXELS = 400_000_000
MAX_CLASSES = 255
DEFAULT_UNLABELLED = (0.0, 255.0)
MAX_AUX_BYTES = 1 << 20


@dataclass(frozen=True)
class LabelRaster:
    """A raster of classes.

    Attributes:
        path: the file.
        grid: of what was read.
        values: (h, w) int32, -1 where unlabelled.
        names: value -> class name, for the values that occur.
    """

    path: Path
    grid: Grid
    values: np.ndarray
    names: dict[int, str]


def label_grid(path: Path) -> Grid:
    """Return the grid of a label raster; reads its header only.

    Raises:
        GeoError: it has several bands or cannot be opened.
    """
    return _one_band(path).grid


def known_names(path: Path) -> tuple[str, ...]:
    """Return the class names that a raster's header tells, whether or not their numbers occur."""
    return tuple(category_names(path, dict(describe(path).tags)).values())


def read_label_raster(path: Path, zero_is_class: bool = False, window: Window | None = None) -> LabelRaster:
    """Read a raster of classes, whole or a window inside it.

    Unlabelled are the nodata value or, when none is declared, 0 and 255; NaN and masked pixels always.

    Args:
        path: a raster with one band of whole numbers 0..2**31.
        zero_is_class: whether 0 is a class in any case.
        window: what to read, by default everything.

    Raises:
        GeoError: several bands, fractions, negative values, or more than 255 classes.
    """
    facts = _one_band(path)
    window = window or facts.grid.full_window
    if window.shape.n_pixels > MAX_PIXELS:
        raise GeoError(
            f"label raster {path} has {window.shape.n_pixels} pixels on the scene: expected at most {MAX_PIXELS};"
            " map a part of the scene, or give the labels at a coarser resolution"
        )
    place = RasterioWindow(window.col, window.row, window.n_cols, window.n_rows)
    index = facts.data_indexes[0]
    with environment(), open_raster(path) as dataset, reading_errors(path, str(window)):
        stored = dataset.read(index, window=place)
        is_labelled = np.ones(stored.shape, bool)
        if facts.masked[index - 1]:
            is_labelled = dataset.read_masks(index, window=place) != 0
    nodata = facts.nodata[index - 1]
    for value in DEFAULT_UNLABELLED if nodata is None or np.isnan(nodata) else (nodata,):
        if not (value == 0 and zero_is_class):
            is_labelled &= stored != value
    values = _whole(stored, is_labelled, path)
    known = {int(v) for v in np.unique(values)} - {-1}
    if len(known) > MAX_CLASSES:
        raise GeoError(
            f"label raster {path} holds {len(known)} different values: expected at most {MAX_CLASSES} classes"
        )
    named = category_names(path, dict(facts.tags))
    return LabelRaster(path, facts.grid.crop(window), values, {v: named.get(v, str(v)) for v in sorted(known)})


def read_under(path: Path, own: Grid, grid: Grid, window: Window, zero_is_class: bool = False) -> LabelRaster:
    """Read the classes in which the middles of a window's pixels lie; no more of the raster is read than lies there.

    Args:
        path: a raster as for `read_label_raster`.
        own: its grid, see `label_grid`.
        grid: another one, of any system and resolution.
        window: of `grid`.
        zero_is_class: whether 0 is a class in any case.

    Returns:
        The classes on the window, -1 where it lies beside the raster.

    Raises:
        GeoError: as `read_label_raster`, or the grids cannot be compared.
    """
    rows, cols, is_inside = nearest_indices(grid, own, window)
    values = np.full(is_inside.shape, -1, np.int32)
    if not is_inside.any():
        return LabelRaster(path, grid.crop(window), values, {})
    rows, cols = rows[is_inside], cols[is_inside]
    top, left = int(rows.min()), int(cols.min())
    part = Window(top, left, int(rows.max()) - top + 1, int(cols.max()) - left + 1)
    raster = read_label_raster(path, zero_is_class, part)
    values[is_inside] = raster.values[rows - top, cols - left]
    names = {int(value): raster.names[int(value)] for value in np.unique(values) if value >= 0}
    return LabelRaster(path, grid.crop(window), values, names)


def category_names(path: Path, tags: dict[str, str]) -> dict[int, str]:
    """Return the class names in a raster's tags CLASS_<n>, else the categories in `<name>.aux.xml`."""
    found = {int(m[1]): v.strip() for k, v in tags.items() if (m := re.fullmatch(r"CLASS_(\d{1,5})", k)) and v.strip()}
    side = path.with_name(path.name + ".aux.xml")
    if found or not side.is_file() or side.stat().st_size > MAX_AUX_BYTES:
        return found
    text = side.read_bytes()
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        return {}
    try:
        names = ElementTree.fromstring(text).findall("./PAMRasterBand[@band='1']/CategoryNames/Category")
    except ElementTree.ParseError:
        return {}
    return {i: name.text.strip() for i, name in enumerate(names) if name.text and name.text.strip()}


def _one_band(path: Path) -> RasterFile:
    facts = describe(path)
    if len(facts.data_indexes) != 1:
        raise GeoError(f"label raster {path} has {len(facts.data_indexes)} bands: expected one band of class numbers")
    return facts


def _whole(stored: np.ndarray, is_labelled: np.ndarray, path: Path) -> np.ndarray:
    """Return the values as int32 with -1 where unlabelled; refuse what is no class number."""
    if stored.dtype.kind == "f":
        is_labelled = is_labelled & np.isfinite(stored)
        odd = is_labelled & (stored != np.floor(stored))
        if odd.any():
            raise GeoError(
                f"label raster {path} holds fractions ({float(stored[odd][0]):.6g} in {int(odd.sum())} pixels):"
                " expected whole class numbers; is it a scene?"
            )
    wrong = is_labelled & ((stored < 0) | (stored >= 2**31))
    if wrong.any():
        raise GeoError(
            f"label raster {path} holds {stored[wrong][0]} in {int(wrong.sum())} pixels: expected class numbers from 0;"
            " declare it as nodata with gdal_edit -a_nodata"
        )
    values = np.where(is_labelled, stored, np.zeros((), stored.dtype)).astype(np.int32)
    values[~is_labelled] = -1
    return values
