"""The only module that opens rasters for reading: by policy, by content, and window by window.

A scene is a set of named bands on one grid. Its bands may lie in several files of different resolution; they
are read onto the finest grid, and a pixel's value does not depend on the window that was asked for.
"""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.session import DummySession

from berunda.errors import GeoError, SecurityError
from berunda.geo.bandnames import choose_bands, name_bands, scene_name
from berunda.geo.drivers import check_sidecars, check_whole, driver_of
from berunda.geo.facts import facts_of
from berunda.geo.fingerprint import fingerprint_files
from berunda.geo.grid import Grid, Window
from berunda.geo.grouping import finest, group_files
from berunda.geo.reading import FilePlan, MaskPlan, plan_files, plan_mask, read_bands, read_mask
from berunda.geo.resolve import gdal_name, is_remote, resolve_inputs
from berunda.geo.source import Band, BandSource, Block, RasterFile

__all__ = [
    "Band",
    "BandSource",
    "Block",
    "Handles",
    "RasterFile",
    "Scene",
    "describe",
    "open_raster",
    "open_scenes",
    "reading_errors",
]

CACHE_MB = 256
"""GDAL's block cache; its default is 5% of the machine's memory, which would grow with the machine."""

MAX_OPEN = 32
"""Datasets that a thread keeps open, at most: with 8 threads a quarter of what many systems let a process open."""

_Key = tuple[int, int, Path]

REMOTE_DRIVERS = {".jp2": "JP2OpenJPEG", ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
"""A remote file's suffix says which driver may open it, GTiff otherwise."""


@contextmanager
def environment(allow_remote: bool = False) -> Iterator[None]:
    """Set GDAL up: no network unless allowed, damaged JPEGs are errors, a block cache of fixed size."""
    options: dict[str, Any] = {"GDAL_ERROR_ON_LIBJPEG_WARNING": True, "GDAL_DISABLE_READDIR_ON_OPEN": False}
    if not allow_remote:
        options["CPL_VSIL_CURL_ALLOWED_EXTENSIONS"] = ".none"
    if "GDAL_CACHEMAX" not in os.environ:
        options["GDAL_CACHEMAX"] = CACHE_MB
    with rasterio.Env(session=DummySession(), **options):
        yield


@contextmanager
def reading_errors(path: Path, where: str) -> Iterator[None]:
    """Turn what GDAL raises into one line that names file and place."""
    try:
        yield
    except (RasterioError, CPLE_BaseError, OSError, MemoryError, ValueError, OverflowError) as error:
        reason = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
        raise GeoError(
            f"{path} cannot be read ({where}): {reason}; expected a whole raster file, copy or download it again"
        ) from error


def open_raster(path: Path, allow_remote: bool = False) -> Any:
    """Open one file with the one driver that its content asks for, and return the rasterio dataset.

    Raises:
        SecurityError: VRT and other datasets that point elsewhere, whatever their name; side files likewise.
        GeoError: the file is missing, empty, truncated, or of another format.
    """
    if is_remote(path):
        if not allow_remote:
            raise SecurityError(f"{path} is on a remote host: refused; download it first")
        driver = REMOTE_DRIVERS.get(path.suffix.lower(), "GTiff")
    else:
        driver = driver_of(path)
        check_whole(path, driver)
        check_sidecars(path)
    with environment(allow_remote), reading_errors(path, "open"), warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        dataset = rasterio.open(gdal_name(path), driver=driver)
        if "OVERVIEW_FILE" in dataset.tags(ns="OVERVIEWS"):
            dataset.close()
            raise SecurityError(
                f"{path} names another file as its overviews: refused, GDAL would follow it; expected overviews"
                f" inside or in {path.name}.ovr, rewrite it with gdal_translate -of COG"
            )
    return dataset


def describe(path: Path, allow_remote: bool = False) -> RasterFile:
    """Return the facts about one raster file; opens and closes it."""
    dataset = open_raster(path, allow_remote)
    with environment(allow_remote), dataset, reading_errors(path, "header"):
        return facts_of(dataset, path, None if is_remote(path) else path.stat().st_size)


class Handles:
    """Open datasets, one per thread and process and file: GDAL handles must not be shared between threads.

    A thread keeps at most `MAX_OPEN` datasets open, of all scenes together; the one it asked for longest ago is closed
    when another is opened, and opened anew when it is asked for again.
    """

    _recent: ClassVar[threading.local] = threading.local()

    def __init__(self, allow_remote: bool = False) -> None:
        """Open nothing yet."""
        self.allow_remote = allow_remote
        self._open: dict[_Key, Any] = {}
        self._lock = threading.Lock()

    def get(self, path: Path) -> Any:
        """Return the dataset for this thread, opened on first use."""
        key = (os.getpid(), threading.get_ident(), path)
        dataset = self._open.get(key)
        if dataset is None or dataset.closed:
            self._make_room()
            dataset = open_raster(path, self.allow_remote)
            with self._lock:
                self._open[key] = dataset
        queue = self._queue()
        queue[id(self), key] = weakref.ref(self)
        queue.move_to_end((id(self), key))
        return dataset

    @classmethod
    def _queue(cls) -> OrderedDict[tuple[int, _Key], weakref.ref[Handles]]:
        """Return which datasets this thread asked for, the last one last; they may be closed since."""
        if getattr(cls._recent, "pid", None) != os.getpid():  # those of the process that this one was forked from
            cls._recent.pid, cls._recent.queue = os.getpid(), OrderedDict()
        queue: OrderedDict[tuple[int, _Key], weakref.ref[Handles]] = cls._recent.queue
        return queue

    @classmethod
    def _make_room(cls) -> None:
        queue = cls._queue()
        while len(queue) >= MAX_OPEN:
            (_, key), of = queue.popitem(last=False)
            owner = of()
            if owner is not None:
                with owner._lock:
                    dataset = owner._open.pop(key, None)
                if dataset is not None:
                    dataset.close()

    def close(self) -> None:
        """Close the datasets of this process; using one afterwards opens it anew."""
        with self._lock:
            for (pid, _, _), dataset in self._open.items():
                if pid == os.getpid():
                    dataset.close()
            self._open.clear()

    def __reduce__(self) -> tuple[type[Handles], tuple[bool]]:
        """Handles do not travel: the copy opens its own."""
        return Handles, (self.allow_remote,)


class Scene:
    """Named bands on one grid, read by window. Threads and processes may share one: each opens its own
    handles.

    It holds no pixels; the block cache is GDAL's.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[RasterFile],
        bands: Sequence[Band],
        mask: RasterFile | None = None,
        handles: Handles | None = None,
    ) -> None:
        """Put a scene together; `open_scenes` is the usual way to get one.

        Args:
            name: for messages and output folders.
            files: the files the bands lie in, on the same ground.
            bands: in the order wanted, names unique.
            mask: a raster whose non-zero pixels are left out.
            handles: shared with another view of the same files.
        """
        used = {b.source.path for b in bands}
        self.name = name
        self.files = tuple(files)
        self.grid: Grid = finest(files)
        self.bands: tuple[Band, ...] = tuple(bands)
        self.mask = mask
        self._handles = handles or Handles()
        self._plans: tuple[FilePlan, ...] = plan_files([f for f in files if f.path in used], self.bands, self.grid)
        self._mask_plan: MaskPlan | None = plan_mask(mask, self.grid) if mask else None

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the bands, in order."""
        return tuple(b.name for b in self.bands)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that hold the scene's bands."""
        return tuple(dict.fromkeys(b.source.path for b in self.bands))

    @property
    def mask_misses(self) -> bool:
        """Whether a mask is given that covers no ground of the scene."""
        return self._mask_plan is not None and not self._mask_plan.overlaps

    def read(self, window: Window) -> Block:
        """Return the pixels of a window, which may reach outside the grid: pixels outside are invalid.

        Returns:
            values (B, h, w) float32 and valid (h, w); invalid are nodata in any band, masked, NaN, Inf or
            outside.

        Raises:
            GeoError: a file cannot be decoded there.
        """
        values = np.zeros((len(self.bands), max(window.n_rows, 0), max(window.n_cols, 0)), np.float32)
        valid = np.zeros(values.shape[1:], bool)
        inner = window.intersect(self.grid.full_window)
        if inner is None:
            return Block(values, valid)
        at = inner.slices_in(window)
        part = values[:, at[0], at[1]]
        is_valid = np.ones(part.shape[1:], bool)
        with environment(self._handles.allow_remote):
            missing: np.ndarray | None = None
            for plan in self._plans:
                with reading_errors(plan.file.path, str(inner)):
                    is_valid &= read_bands(self._handles.get(plan.file.path), plan, inner, part)
                if plan.zero_is_missing:
                    zero = (part[list(plan.positions)] == 0).all(axis=0)
                    missing = zero if missing is None else missing & zero
            if missing is not None:
                is_valid &= ~missing
            if self._mask_plan is not None:
                with reading_errors(self._mask_plan.file.path, str(inner)):
                    is_valid &= ~read_mask(self._handles.get(self._mask_plan.file.path), self._mask_plan, inner)
        part[:, ~is_valid] = 0
        valid[at] = is_valid
        return Block(values, valid)

    def select(self, names: Sequence[str]) -> Scene:
        """Return the scene with these bands in this order, on the same grid; the handles are shared."""
        return Scene(self.name, self.files, choose_bands(self.bands, names), self.mask, self._handles)

    def fingerprint(self) -> str:
        """Return a sha256 of the files' sizes and sampled contents and of the choice of bands."""
        order = [f"{self.paths.index(b.source.path)}:{b.source.index}:{b.name}" for b in self.bands]
        return fingerprint_files([*self.paths, *([self.mask.path] if self.mask else [])], order)

    def close(self) -> None:
        """Close the files; reading afterwards opens them again."""
        self._handles.close()

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Scene({self.name!r}, {self.grid}, bands {', '.join(self.band_names)})"


def open_scenes(
    paths: Sequence[str | Path],
    *,
    bands: Sequence[str] | None = None,
    mask: str | Path | None = None,
    allow_remote: bool = False,
) -> list[Scene]:
    """Open scenes: files on the same ground are the bands of one, files side by side are several.

    Args:
        paths: files or folders (see `resolve_inputs`).
        bands: names to select (in this order), or, where no name is known and the number fits, new names for
            all bands.
        mask: a raster whose non-zero pixels are left out (clouds); any resolution and CRS.
        allow_remote: whether http(s) addresses may be read.

    Raises:
        GeoError, SecurityError: the input is missing, damaged, ambiguous or refused; the message says what to
            do.
    """
    files = [describe(p, allow_remote) for p in resolve_inputs(paths, allow_remote)]
    groups = group_files(files)
    mask_file = _mask_file(mask, groups, allow_remote) if mask is not None else None
    scenes: list[Scene] = []
    for group in groups:
        name = scene_name(group)
        taken = {s.name for s in scenes}
        unique = next(n for n in (name, *(f"{name}_{i}" for i in range(2, len(groups) + 2))) if n not in taken)
        chosen_files, chosen = _choose(group, bands)
        scenes.append(Scene(unique, chosen_files, chosen, mask_file, Handles(allow_remote)))
    return scenes


def _choose(group: list[RasterFile], wanted: Sequence[str] | None) -> tuple[list[RasterFile], tuple[Band, ...]]:
    """Name the bands of one scene and select; an alpha band that is given a name becomes data."""
    named = name_bands(group)
    if wanted is None:
        return group, named
    if len(wanted) == sum(f.n_bands for f in group) > len(named):
        group = [replace(f, alpha=None) for f in group]
        named = name_bands(group)
    return group, choose_bands(named, wanted)


def _mask_file(mask: str | Path, groups: Sequence[Sequence[RasterFile]], allow_remote: bool) -> RasterFile:
    """Describe the mask raster and check that it has one band and touches a scene."""
    files = resolve_inputs([mask], allow_remote)
    if len(files) != 1:
        raise GeoError(f"--mask {mask} means {len(files)} files: expected one raster with one band")
    file = describe(files[0], allow_remote)
    if len(file.data_indexes) != 1:
        raise GeoError(
            f"--mask {file.path} has {len(file.data_indexes)} bands: expected one, non-zero where to leave out"
        )
    plans = [plan_mask(file, finest(group)) for group in groups]
    if not any(plan.overlaps for plan in plans):
        grid = finest(groups[0])
        raise GeoError(
            f"--mask {file.path} does not overlap the scene: it covers {file.grid.bounds} in {file.grid}, the scene"
            f" {grid.bounds} in {grid}; expected a mask of the same ground"
        )
    return file
