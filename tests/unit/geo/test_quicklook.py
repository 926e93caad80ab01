"""Pictures of scenes show masked ground as no data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from toy_rasters import NORTH_UP, ramp, write_tif

from berunda.geo.grid import Shape
from berunda.geo.quicklook import scene_quicklook
from berunda.geo.raster import open_scenes

SMALL = Shape(10, 15)


def hidden(rows: int = 20, cols: int = 30) -> np.ndarray:
    mask = np.zeros((rows, cols), bool)
    mask[: rows // 2, : cols // 3] = True
    return mask


def test_the_mask_raster_is_applied(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "a.tif", ramp(2, 20, 30))
    coarse = hidden(10, 15).astype("uint8")
    for name, mask, transform in (
        ("same", hidden().astype("uint8"), NORTH_UP),
        ("coarse", coarse, NORTH_UP * Affine.scale(2)),
    ):
        (scene,) = open_scenes([path], mask=write_tif(tmp_path / f"{name}.tif", mask, transform=transform))
        found = scene_quicklook(scene, ["b1", "b2"], SMALL)
        np.testing.assert_array_equal(np.isnan(found), np.stack([coarse != 0] * 2))


def test_a_mask_without_crs_takes_the_place_of_the_scene(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "a.tif", ramp(1, 20, 30))
    (scene,) = open_scenes([path], mask=write_tif(tmp_path / "m.tif", hidden().astype("uint8"), crs=None))
    np.testing.assert_array_equal(np.isnan(scene_quicklook(scene, ["b1"], SMALL)[0]), hidden(10, 15))


@pytest.mark.parametrize("internal", [True, False])
def test_the_masks_of_a_file_are_applied(tmp_path: Path, internal: bool) -> None:
    path = write_tif(tmp_path / "a.tif", ramp(1, 20, 30))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(np.where(hidden(), 0, 255).astype("uint8"))
    assert (tmp_path / "a.tif.msk").exists() is not internal
    (scene,) = open_scenes([path])
    np.testing.assert_array_equal(np.isnan(scene_quicklook(scene, ["b1"], SMALL)[0]), hidden(10, 15))


def test_an_alpha_band_is_applied(tmp_path: Path) -> None:
    values = np.concatenate([ramp(3, 20, 30, "uint8"), np.where(hidden(), 0, 255).astype("uint8")[None]])
    path = write_tif(tmp_path / "a.tif", values, photometric="RGB", alpha="YES")
    (scene,) = open_scenes([path])
    assert len(scene.bands) == 3
    found = scene_quicklook(scene, scene.band_names, SMALL)
    np.testing.assert_array_equal(np.isnan(found), np.stack([hidden(10, 15)] * 3))
