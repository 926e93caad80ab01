from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.warp import Resampling, reproject
from toy_rasters import NORTH_UP, ramp, write_tif

from berunda.errors import GeoError
from berunda.geo import reading
from berunda.geo.grid import Window
from berunda.geo.raster import open_scenes


def clouds(rows: int, cols: int) -> np.ndarray:
    mask = np.zeros((rows, cols), np.uint8)
    mask[rows // 4 : rows // 2, cols // 3 :] = 7
    return mask


def test_a_mask_of_the_same_grid(tmp_path: Path) -> None:
    scene = write_tif(tmp_path / "a.tif", ramp(1, 20, 30))
    mask = clouds(20, 30)
    (opened,) = open_scenes([scene], mask=write_tif(tmp_path / "m.tif", mask))
    block = opened.read(opened.grid.full_window)
    np.testing.assert_array_equal(block.valid, mask == 0)
    assert not block.values[:, ~block.valid].any()


@pytest.mark.parametrize("scale", [3, 0.5])
def test_a_mask_of_another_resolution_is_taken_nearest(tmp_path: Path, scale: float) -> None:
    rows, cols = int(24 / scale), int(36 / scale)
    mask = clouds(rows, cols)
    scene = write_tif(tmp_path / "a.tif", ramp(1, 24, 36))
    (opened,) = open_scenes([scene], mask=write_tif(tmp_path / "m.tif", mask, transform=NORTH_UP * Affine.scale(scale)))
    at = (np.arange(24)[:, None] + 0.5) / scale, (np.arange(36) + 0.5) / scale
    expected = mask[at[0].astype(int), at[1].astype(int)] == 0
    np.testing.assert_array_equal(opened.read(opened.grid.full_window).valid, expected)


def test_a_mask_covers_only_its_own_ground(tmp_path: Path) -> None:
    scene = write_tif(tmp_path / "a.tif", ramp(1, 20, 20))
    mask = write_tif(tmp_path / "m.tif", np.ones((5, 5), np.uint8), transform=NORTH_UP * Affine.translation(18, 18))
    (opened,) = open_scenes([scene], mask=mask)
    assert np.argwhere(~opened.read(Window(0, 0, 20, 20)).valid).tolist() == [[18, 18], [18, 19], [19, 18], [19, 19]]


def test_a_mask_in_another_crs_agrees_with_gdal(tmp_path: Path) -> None:
    scene = write_tif(tmp_path / "a.tif", ramp(1, 120, 120))
    rng = np.random.default_rng(0)
    mask = np.kron(rng.integers(0, 2, (20, 20)), np.ones((8, 8))).astype(np.uint8)
    transform = Affine(0.0001, 0, 14.999, 0, -0.0001, 45.155)
    mask_path = write_tif(tmp_path / "m.tif", mask, transform=transform, crs="EPSG:4326")
    (opened,) = open_scenes([scene], mask=mask_path)
    valid = opened.read(opened.grid.full_window).valid
    warped = np.zeros((120, 120), np.uint8)
    reproject(
        mask,
        warped,
        src_transform=transform,
        src_crs="EPSG:4326",
        dst_transform=NORTH_UP,
        dst_crs="EPSG:32633",
        resampling=Resampling.nearest,
        tolerance=0,
    )
    assert warped.any()
    assert ((warped == 0) == valid).mean() > 0.995  # GDAL approximates to an eighth of a pixel
    for window in opened.grid.tiles(37):
        np.testing.assert_array_equal(opened.read(window).valid, valid[window.slices])


def test_a_huge_mask_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = clouds(200, 300)
    scene = write_tif(tmp_path / "a.tif", ramp(1, 20, 30))
    path = write_tif(tmp_path / "m.tif", mask, transform=NORTH_UP * Affine.scale(0.1))
    (opened,) = open_scenes([scene], mask=path)
    whole = opened.read(opened.grid.full_window).valid
    monkeypatch.setattr(reading, "MASK_SOURCE_PX", 500)
    np.testing.assert_array_equal(opened.read(opened.grid.full_window).valid, whole)


def test_masks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    scene = write_tif(tmp_path / "a.tif", ramp(1, 20, 20))
    away = write_tif(tmp_path / "m.tif", clouds(20, 20), transform=NORTH_UP * Affine.translation(500, 0))
    with pytest.raises(GeoError, match="does not overlap the scene"):
        open_scenes([scene], mask=away)
    bare = write_tif(tmp_path / "bare.tif", clouds(19, 20), crs=None)
    with pytest.raises(GeoError, match="expected the same CRS"):
        open_scenes([scene], mask=bare)
    many = write_tif(tmp_path / "many.tif", ramp(2, 20, 20))
    with pytest.raises(GeoError, match="has 2 bands: expected one"):
        open_scenes([scene], mask=many)
    with pytest.raises(GeoError, match="does not exist"):
        open_scenes([scene], mask=tmp_path / "none.tif")


def test_a_mask_without_crs_takes_the_place_of_a_scene_of_its_shape(tmp_path: Path) -> None:
    scene = write_tif(tmp_path / "a.tif", ramp(1, 20, 20))
    mask = clouds(20, 20)
    path = tmp_path / "m.png"
    with rasterio.open(path, "w", driver="PNG", width=20, height=20, count=1, dtype="uint8") as dataset:
        dataset.write(mask, 1)
    (opened,) = open_scenes([scene], mask=path)
    np.testing.assert_array_equal(opened.read(Window(0, 0, 20, 20)).valid, mask == 0)
