"""Made-up but plausible reflectances of the toy landscape's classes, and how season and site change them."""

from __future__ import annotations

import numpy as np

from berunda.data.landscape import FIELD, FOREST, GRASS, ROAD, TOWN, WATER

__all__ = ["band_names", "cloud_spectrum", "cover_spectra", "site_change"]

WAVELENGTHS = np.array([0.45, 0.56, 0.665, 0.74, 0.84, 1.61, 2.20])
"""Micrometres at which the spectra below are given."""

SIX = (("blue", 0.45), ("green", 0.56), ("red", 0.665), ("nir", 0.84), ("swir1", 1.61), ("swir2", 2.20))

VARIANTS: dict[int, tuple[tuple[float, ...], ...]] = {
    FIELD: (
        (0.040, 0.075, 0.055, 0.26, 0.38, 0.20, 0.11),
        (0.050, 0.090, 0.080, 0.22, 0.30, 0.24, 0.15),
        (0.075, 0.110, 0.130, 0.19, 0.24, 0.30, 0.22),
        (0.090, 0.130, 0.165, 0.20, 0.23, 0.34, 0.28),
        (0.055, 0.110, 0.085, 0.28, 0.34, 0.22, 0.13),
    ),
    FOREST: (
        (0.022, 0.036, 0.024, 0.13, 0.21, 0.100, 0.045),
        (0.026, 0.050, 0.030, 0.19, 0.30, 0.140, 0.065),
        (0.024, 0.042, 0.028, 0.16, 0.25, 0.120, 0.055),
    ),
    GRASS: ((0.042, 0.080, 0.060, 0.22, 0.31, 0.21, 0.12), (0.050, 0.090, 0.075, 0.21, 0.28, 0.23, 0.14)),
    ROAD: ((0.095, 0.110, 0.120, 0.135, 0.150, 0.180, 0.165),),
    TOWN: (
        (0.110, 0.125, 0.140, 0.165, 0.190, 0.220, 0.200),
        (0.085, 0.100, 0.115, 0.170, 0.210, 0.210, 0.170),
        (0.150, 0.165, 0.180, 0.200, 0.220, 0.240, 0.225),
        (0.070, 0.085, 0.085, 0.190, 0.240, 0.190, 0.130),
    ),
    WATER: ((0.050, 0.045, 0.030, 0.020, 0.014, 0.007, 0.005),),
}
"""Reflectance 0..1 of the variants (crops, kinds of trees, of roofs) of each class at full greenness."""

AUTUMN: dict[int, tuple[float, ...]] = {
    FIELD: (0.030, 0.035, 0.070, 0.000, -0.080, 0.090, 0.100),
    FOREST: (0.006, 0.008, 0.024, -0.030, -0.070, 0.030, 0.025),
    GRASS: (0.020, 0.020, 0.045, -0.020, -0.070, 0.060, 0.060),
    ROAD: (-0.010, -0.010, -0.010, -0.010, -0.010, -0.015, -0.015),
    TOWN: (-0.005, -0.005, 0.000, -0.010, -0.020, 0.000, 0.005),
    WATER: (0.020, 0.030, 0.025, 0.012, 0.006, 0.002, 0.001),
}
"""What one unit of shift adds to each class: greenness lost, soils dry, water turbid."""

CLOUD = (0.52, 0.53, 0.54, 0.55, 0.56, 0.42, 0.34)


def band_names(n_bands: int) -> tuple[str, ...]:
    """Return the bands' names: colours for six bands, else numbers."""
    return tuple(name for name, _ in SIX) if n_bands == 6 else tuple(f"b{i}" for i in range(1, n_bands + 1))


def cover_spectra(n_bands: int, shift: float) -> np.ndarray:
    """Return reflectances (class 0..6, variant, band) float32 at a shift; few variants are repeated."""
    at = _centres(n_bands)
    most = max(map(len, VARIANTS.values()))
    table = np.zeros((max(VARIANTS) + 1, most, n_bands), np.float32)
    for class_id, variants in VARIANTS.items():
        change = np.interp(at, WAVELENGTHS, AUTUMN[class_id]) * shift
        for i in range(most):
            table[class_id, i] = np.interp(at, WAVELENGTHS, variants[i % len(variants)]) + change
    return table


def cloud_spectrum(n_bands: int) -> np.ndarray:
    """Return the reflectance of thick cloud per band, float32."""
    return np.interp(_centres(n_bands), WAVELENGTHS, CLOUD).astype(np.float32)


def site_change(draws: np.ndarray, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a site's gain and offset per band at a shift: 1 and 0 at shift 0, growing in proportion to it.

    Args:
        draws: (2, B) numbers in [0, 1) that belong to the site.
        shift: the scale.
    """
    spread = draws * 2 - 1
    gain = 1 + shift * 0.12 * spread[0]
    return np.maximum(gain, 0.1).astype(np.float32), (shift * 0.015 * spread[1]).astype(np.float32)


def _centres(n_bands: int) -> np.ndarray:
    """Return the wavelengths of the bands in micrometres."""
    if n_bands == 6:
        return np.array([w for _, w in SIX])
    return np.linspace(WAVELENGTHS[0], WAVELENGTHS[-1], n_bands) if n_bands > 1 else np.array([0.84])
