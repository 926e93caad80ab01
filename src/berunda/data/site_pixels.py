"""The pixels of sites: read image by image, brought to one ground and one side, and scaled alike for all sites."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from berunda.cores import allowed_cores
from berunda.data.listing import RASTER_SUFFIXES
from berunda.data.order import Randomness
from berunda.data.photo import Undecodable, decode_image, header_values, resampled
from berunda.data.scaling import Scaling
from berunda.data.sites import Item, SiteSet
from berunda.errors import DataError, GeoError
from berunda.geo.grid import Grid
from berunda.geo.raster import describe

__all__ = [
    "SAME_RESOLUTION",
    "Broken",
    "Ground",
    "Patch",
    "SitePixels",
    "measure_site_scaling",
    "place_of",
    "resolution_of",
]

N_SCALING = 512  # images that the radiometry is measured on, at most
_N_VALUES = 2048  # and values of each
_PERCENTILES = (1.0, 99.0)
_CHUNK = 64
SAME_RESOLUTION = 0.05
"""Share of a resolution within which another counts as the same."""
READ_AHEAD_BYTES = 256 << 20
"""Of images that are held at once, as float32; a single larger one is read all the same."""
_AHEAD = 3  # pieces that this is shared by: the one that is looked at, and two that are read meanwhile
MAX_THREADS = 8


class Patch(NamedTuple):
    """One image: `pixels` (B, h, w) float32 in the file's units, `valid` (h, w) bool, and the names of its bands."""

    pixels: np.ndarray
    valid: np.ndarray
    bands: tuple[str, ...]


class Broken(NamedTuple):
    """An image that cannot be read: its place in the set and why."""

    item: int
    reason: str


@dataclass(frozen=True)
class Ground:
    """What every image is to show when data sets are compared.

    Attributes:
        resolution_m: side of a pixel that images are averaged to, in metres; finer ones lose what others lack.
        side_m: side of the ground around their middle that is shown, in metres.
    """

    resolution_m: float
    side_m: float


class SitePixels:
    """Reads the images of a set of sites; threads read ahead.

    Args:
        sites: the images.
        bands: names of the bands wanted, in order; None for those of the first image that can be read.
        ground: bring all images to one resolution and extent; None leaves them as they are.
        names: names for all bands of images of as many bands that bear none of these names; None leaves theirs.
        source: what asks for `bands`, for messages.

    Attributes:
        renamed: bands that got `names`, as they were called before; empty where none did.
    """

    def __init__(
        self,
        sites: SiteSet,
        *,
        bands: Sequence[str] | None = None,
        ground: Ground | None = None,
        names: Sequence[str] | None = None,
        source: str = "--bands",
    ) -> None:
        self.sites = sites
        self.ground = ground
        self._bands = None if bands is None else tuple(bands)
        self._names = None if names is None else tuple(names)
        self._is_asked = bands is not None
        self._band_source = source
        self.renamed: tuple[str, ...] = ()

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands.

        Raises:
            DataError: no image can be read.
        """
        for index in range(len(self.sites)):
            if self._bands is not None:
                break
            self.read(index)
        if self._bands is None:
            raise DataError(f"data set {self.sites.name}: none of its {len(self.sites)} images can be read")
        return self._bands

    def read(self, index: int) -> Patch | Broken:
        """Return an image, or why there is none.

        Raises:
            DataError: its bands are others than those of the images before it.
        """
        item = self.sites.items[index]
        try:
            patch = self._raw(item)
        except (Undecodable, GeoError, OSError) as error:
            return Broken(index, " ".join(str(error).split()))
        patch = self._with_bands(item, patch)
        return patch if self.ground is None else self._on_ground(item, patch, self.ground)

    def every(self, index: Sequence[int] | np.ndarray) -> Iterator[list[Patch | Broken]]:
        """Yield images in the order of `index`, some at a time; three such pieces are held, of `READ_AHEAD_BYTES`.

        How many a piece holds follows from the sizes of the images alone: 64 or fewer. Files that were opened are
        closed at the end.
        """
        _ = self.bands  # settled before threads ask for them
        n_threads = min(MAX_THREADS, allowed_cores())
        pieces = self._pieces(int(i) for i in index)
        waiting: deque[list[Future[Patch | Broken]]] = deque()
        try:
            with ThreadPoolExecutor(n_threads, thread_name_prefix="read") as pool:
                for piece in pieces:
                    waiting.append([pool.submit(self.read, i) for i in piece])
                    if len(waiting) == _AHEAD:
                        yield [future.result() for future in waiting.popleft()]
                while waiting:
                    yield [future.result() for future in waiting.popleft()]
        finally:
            for scene in self.sites.scenes:
                scene.close()

    def _pieces(self, numbers: Iterable[int]) -> Iterator[list[int]]:
        piece: list[int] = []
        room = limit = READ_AHEAD_BYTES // _AHEAD
        for number in numbers:
            size = self._n_bytes(self.sites.items[number])
            if piece and (size > room or len(piece) == _CHUNK):
                yield piece
                piece, room = [], limit
            piece.append(number)
            room -= size
        if piece:
            yield piece

    def _n_bytes(self, item: Item) -> int:
        """Return the bytes of an image as float32, from its header; 0 where that cannot be read."""
        if item.row >= 0:
            return int(self.sites.arrays[item.scene].pixels[0].size) * 4
        if item.window is not None:
            return item.window.shape.n_pixels * len(self.sites.scenes[item.scene].bands) * 4
        return header_values(item.path) * 4

    def _raw(self, item: Item) -> Patch:
        if item.row >= 0:
            images = self.sites.arrays[item.scene]
            return _patch(np.asarray(images.pixels[item.row]), images.zero_is_missing, images.bands)
        if item.window is not None:
            scene = self.sites.scenes[item.scene]
            block = scene.read(item.window)
            return Patch(block.values, block.valid, scene.band_names)
        decoded = decode_image(item.path.read_bytes(), item.path.name, item.path)
        zero_is_missing = decoded.is_raster and decoded.pixels.dtype.kind != "f"
        return _patch(decoded.pixels, zero_is_missing, decoded.bands)

    def _with_bands(self, item: Item, patch: Patch) -> Patch:
        """Return an image with the bands wanted, in their order; more than them are cut where they were asked for.

        Raises:
            DataError: it has others.
        """
        if self._bands is None:
            self._bands, self._band_source = patch.bands, self._where(item)
        wanted = self._bands
        if patch.bands == wanted:
            return patch
        given = patch.bands
        if self._names is not None and len(given) == len(self._names) and not set(given) & set(self._names):
            self.renamed, given = given, self._names
        if set(wanted) == set(given) or (self._is_asked and set(wanted) <= set(given)):
            return Patch(patch.pixels[[given.index(name) for name in wanted]], patch.valid, wanted)
        raise DataError(
            f"{self._where(item)} has {len(patch.bands)} bands ({', '.join(patch.bands)}), {self._band_source} has "
            f"{len(wanted)} ({', '.join(wanted)}); expected the same bands in all sites: choose those that all have "
            "with --bands, or give with it names for all bands that no image bears yet"
        )

    def _where(self, item: Item) -> str:
        return f"site {self.sites.sites[item.site].name!r}: image {item.name!r}"

    def _on_ground(self, item: Item, patch: Patch, ground: Ground) -> Patch:
        """Return the middle of an image, `side_m` wide, averaged to the common resolution where it is finer."""
        own = resolution_of(self.sites, item)
        if own > (1 + SAME_RESOLUTION) * ground.resolution_m:
            raise DataError(
                f"{self._where(item)} has pixels of {own:g} m, expected at most the {ground.resolution_m:g} m at which "
                f"all images are shown, as what is coarser cannot be made finer; give --common-resolution {own:g}"
            )
        rows, cols = patch.valid.shape
        side = min(rows, cols, max(1, round(ground.side_m / own)))
        top, left = (rows - side) // 2, (cols - side) // 2
        pixels = np.where(patch.valid, patch.pixels, 0)[:, top : top + side, left : left + side]
        valid = patch.valid[top : top + side, left : left + side]
        n = max(1, round(side * own / ground.resolution_m))
        if n >= side:
            return Patch(pixels.astype(np.float32), valid, patch.bands)
        share = resampled(valid[None].astype(np.float32), n)
        shrunk = resampled(pixels.astype(np.float32), n) / np.maximum(share, 1e-6)
        return Patch(shrunk.astype(np.float32), share[0] > 0.5, patch.bands)


def resolution_of(sites: SiteSet, item: Item) -> float:
    """Return the side of an image's pixels in metres: as its georeference tells, else as was said of its site.

    Raises:
        DataError: it has no georeference in metres and none was given.
    """
    grid = place_of(sites, item)
    area = None if grid is None else grid.pixel_area_m2()
    said = sites.sites[item.site].resolution_m
    if area is None and said is not None:
        return said
    if area is None:
        raise DataError(
            f"image {item.name!r} of {sites.name}: no resolution in metres found, expected a georeference in a "
            "projected "
            "system; give the side of its pixels with --resolution (and --with-resolution)"
        )
    return float(np.sqrt(area))


def place_of(sites: SiteSet, item: Item) -> Grid | None:
    """Return the grid of an image; None where it is no raster, or one without a place.

    Raises:
        GeoError: its file cannot be read.
    """
    if item.row >= 0:
        return None
    if item.window is not None:
        grid = sites.scenes[item.scene].grid
        return grid.crop(item.window) if grid.is_georeferenced else None
    if item.path.suffix.lower() not in RASTER_SUFFIXES:
        return None
    grid = describe(item.path).grid
    return grid if grid.is_georeferenced else None


def measure_site_scaling(pixels: SitePixels, seed: int = 0) -> Scaling:
    """Return `low` and `high` of every band over a sample in which every site counts alike.

    Args:
        pixels: the images; those that cannot be read are passed over.
        seed: of the sample.

    Raises:
        DataError: no sampled image has a valid pixel.
    """
    sites = pixels.sites
    per_site = max(1, N_SCALING // max(1, len(sites.sites)))
    chosen = []
    for site in range(len(sites.sites)):
        mine = sites.items_of([site])
        chosen.append(Randomness(seed).numpy("site scaling", site).permutation(mine)[:per_site])
    samples = []
    for piece in pixels.every(np.sort(np.concatenate(chosen))):
        for patch in piece:
            if isinstance(patch, Patch) and patch.valid.any():
                values = patch.pixels[:, patch.valid]
                samples.append(values[:, :: max(1, values.shape[1] // _N_VALUES)])
    if not samples:
        raise DataError(
            f"data set {sites.name}: no valid pixel found in a sample of {sum(map(len, chosen))} images, expected some "
            "to measure the radiometry on; check the files and their nodata values"
        )
    low, high = np.percentile(np.concatenate(samples, axis=1), _PERCENTILES, axis=1).astype(np.float64)
    return Scaling(low, np.where(high > low, high, low + 1.0))


def _patch(pixels: np.ndarray, zero_is_missing: bool, bands: tuple[str, ...]) -> Patch:
    values = pixels.astype(np.float32)
    valid = np.asarray(np.isfinite(values).all(axis=0))
    if zero_is_missing:
        valid &= (values != 0).any(axis=0)
    if not valid.all():
        values[:, ~valid] = 0
    return Patch(values, valid, bands)
