"""Small bundles and scenes for the tests of mapping."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.crs import CRS
from rasterio.transform import from_origin

from berunda.assess.ood import FeatureDistance
from berunda.geo.raster import Scene, open_scenes
from berunda.mapping.bundle import Bundle, current_versions, make_tensors
from berunda.mapping.manifest import BandScale, Calibration, ClassEntry, Manifest, NetSettings, Ood, Training
from berunda.methods import make_method
from berunda.models.build import build_net
from berunda.models.spec import Decoder, NetSpec

COLORS = ("#1b9e77", "#d95f02", "#7570b3", "#e7298a")
NAMES = ("field", "forest", "town", "water")


def toy_bundle(
    *, n_bands: int = 3, n_classes: int = 4, window_px: int = 64, margin_px: int = 16, decoder: Decoder = "slim"
) -> Bundle:
    """Return a bundle of the house's net with random weights, encoder depth 2, and a distance layer."""
    spec = NetSpec(
        "segmentation", n_bands, n_classes, encoder_depth=2, pretrained=False, pixel_path=True, decoder=decoder
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        net = build_net(spec)
        net.train()
        for _ in range(3):
            net(torch.randn(2, n_bands, 64, 64))  # running statistics other than the initial ones
    net.eval()
    draw = np.random.default_rng(3)
    features = draw.normal(size=(400, net.feature_dim)) * draw.uniform(0.5, 2, net.feature_dim)
    labels = draw.integers(0, n_classes, 400)
    distance = FeatureDistance.fit(features + labels[:, None], labels)
    manifest = Manifest(
        method="supervised",
        encoder=spec.encoder,
        net=NetSettings(encoder_depth=2, crop_px=64, pixel_path=True, decoder=decoder),
        bands=tuple(BandScale(name=f"b{i + 1}", low=100.0, high=1100.0) for i in range(n_bands)),
        classes=tuple(ClassEntry(id=i + 1, name=NAMES[i], color=COLORS[i]) for i in range(n_classes)),
        window_px=window_px,
        margin_px=margin_px,
        calibration=Calibration(temperature=1.5, is_fitted=True, n_pixels=400, n_groups=8),
        ood=Ood(kind="mahalanobis", threshold=9.5, threshold_energy=-0.5, n_pixels=400),
        training=Training(seed=0, steps=3),
        versions=current_versions(),
    )
    return Bundle(manifest, make_tensors(make_method("supervised", {}), net, torch.nn.Module(), distance.as_arrays()))


def toy_pixels(rows: int, cols: int, *, n_bands: int = 3, seed: int = 0, holes: bool = True) -> np.ndarray:
    """Return uint16 (B, rows, cols) of 1 to 1300; 0 in a stripe and some spots when `holes`."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(100, 1100, (n_bands, -(-rows // 8), -(-cols // 8)))
    pixels = np.kron(coarse, np.ones((1, 8, 8)))[:, :rows, :cols] + draw.integers(0, 200, (n_bands, rows, cols))
    if holes:
        pixels[:, rows // 3 : rows // 2, : cols // 2] = 0
        pixels[:, draw.random((rows, cols)) < 0.01] = 0
    return pixels.astype(np.uint16)


def write_raster(path: Path, pixels: np.ndarray, *, nodata: float | None = 0, names: tuple[str, ...] = ()) -> Path:
    """Write (B, rows, cols) as a tiled GeoTIFF of 10 m pixels in EPSG:32633."""
    n_bands, rows, cols = pixels.shape
    profile = {
        "driver": "GTiff",
        "count": n_bands,
        "height": rows,
        "width": cols,
        "dtype": pixels.dtype.name,
        "nodata": nodata,
        "crs": CRS.from_epsg(32633),
        "transform": from_origin(400000, 5800000, 10, 10),
        "tiled": True,
        "blockxsize": 128,
        "blockysize": 128,
        "compress": "deflate",
    }
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels)
        if names:
            file.descriptions = names
    return path


def toy_scene(folder: Path, rows: int, cols: int, *, name: str = "scene", **options: object) -> Scene:
    """Write a scene and open it."""
    path = write_raster(folder / f"{name}.tif", toy_pixels(rows, cols, **options))  # type: ignore[arg-type]
    return open_scenes([path])[0]
