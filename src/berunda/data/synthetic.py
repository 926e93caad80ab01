"""Toy landscapes of any size with known truth: fields, forest, grass, water, towns, roads, clouds and shadows.

Every pixel is a pure function of the landscape's fields and its row and column: any window gives the same values,
and windows are written one by one, so a scene may be larger than the memory. `shift` is a continuous scale of spectral
change (season, site) from 0, none, over 1, another season, upwards; it changes neither classes nor clouds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from affine import Affine

from berunda.data.landscape import CLASS_NAMES, cover
from berunda.data.noise import fractal, hash01, pixel_rows_cols, smooth
from berunda.data.order import Randomness, key_of
from berunda.data.spectra import band_names, cloud_spectrum, cover_spectra, site_change
from berunda.errors import ConfigError, DataError
from berunda.geo.grid import Grid, Shape, Window, parse_crs
from berunda.geo.write import BLOCK_PX, create_tiled, finish_cog, finish_tiled

__all__ = ["CLASS_NAMES", "Landscape", "block", "write_polygons", "write_scene", "write_truth"]

SCALE = 10_000
"""Stored values are reflectances times this, as in Sentinel-2 products."""

COLORS = ("#e6c84b", "#1f6e35", "#9bcf6a", "#5b5b5b", "#c8442f", "#2f6fbf")
PIXEL_M = 10.0
SHADOW_SHIFT = (-18.0, 14.0)
"""Where the cloud that shades a pixel stands, in rows and columns."""

CLOUD_SCALE_PX = 150
MAX_BANDS = 64


@dataclass(frozen=True)
class Landscape:
    """What a toy landscape is made from.

    Attributes:
        seed: any integer.
        rows, cols: size in pixels of 10 m.
        n_bands: number of bands; six are blue, green, red, nir, swir1, swir2.
        shift: spectral change against the common base, 0 or more.
        cloud_share: share of cloudy pixels, 0..0.9 (of the whole scene).
        site: name; another site has another map and another direction of change.
    """

    seed: int
    rows: int
    cols: int
    n_bands: int = 6
    shift: float = 0.0
    cloud_share: float = 0.05
    site: str = "a"

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, value, low, high in (
            ("rows", self.rows, 1, 2**31),
            ("cols", self.cols, 1, 2**31),
            ("n_bands", self.n_bands, 1, MAX_BANDS),
            ("shift", self.shift, 0, 10),
            ("cloud_share", self.cloud_share, 0, 0.9),
        ):
            if not low <= value <= high:
                raise ConfigError(f"Landscape.{name} is {value}: expected {low} to {high}")

    @property
    def grid(self) -> Grid:
        """The grid, in UTM zone 33 north; sites lie side by side far enough not to overlap."""
        place = key_of(0, f"place {self.site}") % 50
        left = 300_000.0 + 0.5 * PIXEL_M * (place % 2)
        transform = Affine(PIXEL_M, 0.0, left, 0.0, -PIXEL_M, 5_000_000.0 + 10_000 * place)
        return Grid(Shape(self.rows, self.cols), transform, str(parse_crs("EPSG:32633").to_wkt()))

    @property
    def key(self) -> int:
        """The key of all its noise."""
        return key_of(self.seed, f"landscape {self.site}")


def block(spec: Landscape, window: Window) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pixels of a window; the same ones whatever the window.

    Returns:
        values (B, h, w) uint16, truth (h, w) uint8 1..6 in the order of `CLASS_NAMES`, cloud (h, w) bool
        (shadows excluded).
    """
    outer = window.pad(1)
    ground = cover(spec.key, outer)
    texture = _texture(spec.key, outer, ground.truth, ground.height)
    spectra = cover_spectra(spec.n_bands, spec.shift)
    variant = (ground.parcel % np.uint32(spectra.shape[1])).astype(np.intp)
    tone = (ground.parcel >> np.uint32(8) & np.uint32(255)).astype(np.float32) * np.float32(0.24 / 255) + np.float32(
        0.88
    )
    brightness = (texture * tone)[1:-1, 1:-1]
    index = ground.truth.astype(np.intp) * spectra.shape[1] + variant
    gain, offset = site_change(_site_draws(spec), spec.shift)
    haze, shade = _clouds(spec, window)
    bright = cloud_spectrum(spec.n_bands)
    rows, cols = pixel_rows_cols(window)
    values = np.empty((spec.n_bands, window.n_rows, window.n_cols), np.uint16)
    for band in range(spec.n_bands):
        land = _blurred(spectra[:, :, band].ravel()[index]) * brightness
        noise = hash01(spec.key + 900 + band, rows, cols) - np.float32(0.5)
        land = (land * gain[band] + offset[band]) * shade + noise * np.float32(0.008)
        mixed = land + (bright[band] - land) * haze
        values[band] = (np.clip(mixed, 0.0001, 1.5) * np.float32(SCALE)).astype(np.uint16)
    return values, ground.truth[1:-1, 1:-1].copy(), haze > np.float32(0.25)


def write_scene(path: str | Path, spec: Landscape, window_px: int = BLOCK_PX) -> Path:
    """Write the scene as a tiled GeoTIFF, window by window.

    Args:
        path: name of the file.
        spec: the landscape.
        window_px: side of the windows computed at once, rounded up to a multiple of 512.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    final = Path(path)
    tmp = final.with_name(f".{final.name}.part")
    step = -(-window_px // BLOCK_PX) * BLOCK_PX
    with create_tiled(tmp, spec.grid, spec.n_bands, "uint16", None, band_names(spec.n_bands)) as writer:
        for window in spec.grid.tiles(step):
            writer.write(block(spec, window)[0], window)
    finish_tiled(tmp, final)
    return final


def write_truth(path: str | Path, spec: Landscape) -> Path:
    """Write the true classes as a raster with names and colours.

    Raises:
        OutputError: the disk is full or the folder cannot be written.
    """
    final = Path(path)
    tmp = final.with_name(f".{final.name}.part")
    with create_tiled(tmp, spec.grid, 1, "uint8", 0) as writer:
        for window in spec.grid.tiles(BLOCK_PX):
            writer.write(cover(spec.key, window).truth[None], window)
    colors = dict(enumerate(COLORS, 1))
    finish_cog(tmp, final, overview="mode", colors=colors, categories=["nodata", *CLASS_NAMES])
    return final


def write_polygons(path: str | Path, spec: Landscape, per_class: int) -> Path:
    """Write polygons as somebody could have drawn them: compact, inside one class, cloud-free, not touching.

    Args:
        path: name of the GeoPackage; its layer is "polygons", its field "class".
        spec: the landscape.
        per_class: polygons of each class wanted; fewer where a class covers little.

    Raises:
        DataError: no polygon fits at all.
    """
    import pyogrio
    import shapely

    from berunda.data.draw import draw_polygons

    final = Path(path)
    geometries, classes = draw_polygons(spec, per_class)
    if not geometries:
        raise DataError(f"a landscape of {spec.rows} x {spec.cols} px has no room for polygons: expected a larger one")
    tmp = final.with_name(f".{final.stem}.part.gpkg")
    tmp.unlink(missing_ok=True)
    pyogrio.raw.write(
        tmp.absolute(),
        shapely.to_wkb(np.array(geometries, dtype=object)),
        [np.array([CLASS_NAMES[c - 1] for c in classes], dtype=object)],
        ["class"],
        layer="polygons",
        driver="GPKG",
        geometry_type="Polygon",
        crs=spec.grid.crs,
    )
    finish_tiled(tmp, final)
    return final


def _site_draws(spec: Landscape) -> np.ndarray:
    """Return the numbers that make a site's gains and offsets; they do not depend on the seed."""
    return Randomness(0).numpy(f"site {spec.site}").random((2, MAX_BANDS))[:, : spec.n_bands]


def _texture(key: int, window: Window, truth: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Return brightness factors: rough forest canopy and roofs, streaky fields, smooth water, slopes."""
    rows, cols = pixel_rows_cols(window)
    grain = hash01(key + 801, rows, cols) - np.float32(0.5)
    patch = smooth(key + 802, window, 9) - np.float32(0.5)
    rough = np.array([0.0, 0.10, 0.34, 0.12, 0.10, 0.50, 0.03], np.float32)[truth]
    patchy = np.array([0.0, 0.22, 0.22, 0.30, 0.05, 0.12, 0.10], np.float32)[truth]
    slope = (height - np.float32(0.5)) * np.float32(0.25)
    return np.float32(1) + grain * rough + patch * patchy + slope


def _blurred(image: np.ndarray) -> np.ndarray:
    """Return the image under the sensor's point spread (1 2 1 by 1 2 1), one pixel smaller on each side."""
    tall = image[:-2] * np.float32(0.25) + image[1:-1] * np.float32(0.5) + image[2:] * np.float32(0.25)
    return tall[:, :-2] * np.float32(0.25) + tall[:, 1:-1] * np.float32(0.5) + tall[:, 2:] * np.float32(0.25)


def _clouds(spec: Landscape, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Return the opacity of clouds (h, w) 0..1 and the factor of the light that shadows leave."""
    if spec.cloud_share <= 0:
        clear = np.zeros((window.n_rows, window.n_cols), np.float32)
        return clear, clear + 1
    key = spec.key + 500
    level = _cloud_level(spec)
    above = _opacity(fractal(key, window, CLOUD_SCALE_PX, 4), level)
    shading = _opacity(fractal(key, window, CLOUD_SCALE_PX, 4, SHADOW_SHIFT), level)
    return above, np.float32(1) - np.float32(0.55) * shading


def _opacity(density: np.ndarray, level: float) -> np.ndarray:
    """Return 0 below the level, rising to 1 within a thin edge."""
    thick = np.clip((density - np.float32(level)) * np.float32(14) + np.float32(0.25), 0, 1)
    return thick * thick * (np.float32(3) - np.float32(2) * thick)


@lru_cache(maxsize=64)
def _cloud_level(spec: Landscape) -> float:
    """Return the density above which the wanted share of the scene is cloudy, from a coarse sample of it."""
    step = max(1.0, max(spec.rows, spec.cols) / 512)
    window = Window(0, 0, max(1, round(spec.rows / step)), max(1, round(spec.cols / step)))
    coarse = fractal(spec.key + 500, window, CLOUD_SCALE_PX / step, 4)
    return float(np.quantile(coarse, 1 - spec.cloud_share)) - 0.0055
