from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from toy_rasters import NORTH_UP, ramp, write_tif

from berunda.errors import GeoError
from berunda.geo.grid import Window
from berunda.geo.raster import Scene, open_scenes

NAN = float("nan")


def only(scenes: list[Scene]) -> Scene:
    assert len(scenes) == 1
    return scenes[0]


def opened(path: Path, **options: object) -> Scene:
    return only(open_scenes([path], **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_any_real_type_is_read_as_float32(tmp_path: Path, dtype: str) -> None:
    values = ramp(3, 40, 50, dtype) % 100
    scene = opened(write_tif(tmp_path / "a.tif", values))
    block = scene.read(scene.grid.full_window)
    assert block.values.dtype == np.float32
    np.testing.assert_array_equal(block.values, values.astype(np.float32))
    assert block.valid.all()
    assert scene.band_names == ("b1", "b2", "b3")


def test_windows_may_reach_outside(tmp_path: Path) -> None:
    values = ramp(2, 20, 30)
    scene = opened(write_tif(tmp_path / "a.tif", values))
    block = scene.read(Window(-5, 25, 10, 10))
    assert block.valid.sum() == 25
    np.testing.assert_array_equal(block.values[:, 5:, :5], values[:, :5, 25:])
    assert not block.values[:, ~block.valid].any()
    away = scene.read(Window(100, 100, 3, 4))
    assert away.values.shape == (2, 3, 4)
    assert not away.valid.any()


def test_nodata_nan_inf_and_masks_are_invalid(tmp_path: Path) -> None:
    values = ramp(2, 8, 8, "float32")
    values[0, 1, 1], values[1, 2, 2], values[0, 3, 3], values[1, 4, 4] = np.nan, np.inf, -np.inf, -9999
    path = write_tif(tmp_path / "a.tif", values, nodata=-9999)
    with rasterio.open(path, "r+") as dataset:
        mask = np.full((8, 8), 255, np.uint8)
        mask[6, 6] = 0
        dataset.write_mask(mask)
    block = opened(path).read(Window(0, 0, 8, 8))
    assert sorted(map(tuple, np.argwhere(~block.valid))) == [(1, 1), (2, 2), (3, 3), (4, 4), (6, 6)]
    assert np.isfinite(block.values).all()
    assert not block.values[:, ~block.valid].any()


@pytest.mark.parametrize("nodata", [0, 255, NAN, 1e30])
def test_all_nodata_has_no_valid_pixel(tmp_path: Path, nodata: float) -> None:
    dtype = "uint8" if nodata in (0, 255) else "float32"
    scene = opened(write_tif(tmp_path / "a.tif", np.full((1, 6, 6), nodata, dtype), nodata=nodata))
    assert not scene.read(scene.grid.full_window).valid.any()


def test_nodata_that_the_type_cannot_hold_matches_nothing(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "a.tif", np.full((1, 4, 4), 241, "uint8"))
    (tmp_path / "a.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><NoDataValue>-9999</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    assert opened(path).read(Window(0, 0, 4, 4)).valid.all()


def test_float32_nodata_is_compared_in_its_own_type(tmp_path: Path) -> None:
    values = np.array([[[-3.4028234663852886e38, 1.0, 0.1]]], "float32")
    path = write_tif(tmp_path / "a.tif", values, nodata=-3.4028234663852886e38)
    assert opened(path).read(Window(0, 0, 1, 3)).valid.tolist() == [[False, True, True]]


def test_an_alpha_band_is_a_mask(tmp_path: Path) -> None:
    values = ramp(4, 16, 16, "uint8")
    values[3] = 255
    values[3, 2, 3] = 0
    path = write_tif(tmp_path / "a.tif", values, photometric="RGB", alpha="YES")
    scene = opened(path)
    assert scene.band_names == ("b1", "b2", "b3")
    assert np.argwhere(~scene.read(scene.grid.full_window).valid).tolist() == [[2, 3]]
    assert opened(path, bands=["r", "g", "b", "n"]).band_names == ("r", "g", "b", "n")


def test_a_near_infrared_band_marked_alpha_is_data(tmp_path: Path) -> None:
    values = ramp(4, 16, 16, "uint8")
    values[3, 0, 0] = 0
    path = write_tif(tmp_path / "a.tif", values, photometric="RGB", alpha="YES")
    with rasterio.open(path) as dataset:
        assert dataset.colorinterp[3] == rasterio.enums.ColorInterp.alpha
    scene = opened(path)
    assert scene.band_names == ("b1", "b2", "b3", "b4")
    assert scene.read(scene.grid.full_window).valid.all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 17), (17, 1)])
def test_tiny_rasters(tmp_path: Path, shape: tuple[int, int]) -> None:
    values = ramp(2, *shape)
    scene = opened(write_tif(tmp_path / "a.tif", values))
    np.testing.assert_array_equal(scene.read(scene.grid.full_window).values, values)
    assert scene.read(scene.grid.full_window.pad(3)).valid.sum() == values[0].size


@pytest.mark.parametrize(
    "transform",
    [
        Affine(10, 0, 500_000, 0, 10, 5_000_000),
        Affine.translation(5e5, 5e6) * Affine.rotation(25) * Affine.scale(10, -10),
        Affine(10, 3, 5e5, 2, -10, 5e6),
    ],
)
def test_south_up_rotated_and_sheared_grids_are_kept(tmp_path: Path, transform: Affine) -> None:
    values = ramp(2, 12, 9)
    scene = opened(write_tif(tmp_path / "a.tif", values, transform=transform))
    assert np.allclose(scene.grid.transform[:6], transform[:6])
    np.testing.assert_array_equal(scene.read(scene.grid.full_window).values, values)


def test_a_scene_without_crs_is_usable(tmp_path: Path) -> None:
    scene = opened(write_tif(tmp_path / "a.tif", ramp(1, 5, 5), crs=None))
    assert scene.grid.crs == ""
    assert scene.read(Window(0, 0, 5, 5)).valid.all()


def test_complex_data_is_refused(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "a.tif", np.ones((1, 4, 4), "complex64"))
    with pytest.raises(GeoError, match=r"a\.tif band 1 has the type complex64: expected .*amplitude"):
        open_scenes([path])


def test_ground_control_points_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    points = [rasterio.control.GroundControlPoint(r, c, c, -r) for r, c in ((0, 0), (0, 9), (9, 0))]
    with rasterio.open(
        path, "w", driver="GTiff", width=9, height=9, count=1, dtype="uint8", gcps=points, crs="EPSG:4326"
    ) as dataset:
        dataset.write(ramp(1, 9, 9, "uint8"))
    with pytest.raises(GeoError, match="3 ground control points only: expected a regular grid; warp it"):
        open_scenes([path])


def test_threads_and_copies_read_the_same(tmp_path: Path) -> None:
    values = ramp(3, 200, 200)
    scene = opened(write_tif(tmp_path / "a.tif", values, tiled=True, blockxsize=32, blockysize=32))
    copy = pickle.loads(pickle.dumps(scene))
    windows = list(scene.grid.tiles(23))
    with ThreadPoolExecutor(4) as pool:
        blocks = list(pool.map(scene.read, windows))
    for window, block in zip(windows, blocks, strict=True):
        rows, cols = window.slices
        np.testing.assert_array_equal(block.values, values[:, rows, cols])
    np.testing.assert_array_equal(copy.read(windows[5]).values, blocks[5].values)
    scene.close()
    np.testing.assert_array_equal(scene.read(windows[5]).values, blocks[5].values)


def test_the_fingerprint_follows_content_and_bands_only(tmp_path: Path) -> None:
    values = ramp(2, 30, 30)
    first = opened(write_tif(tmp_path / "a.tif", values))
    (tmp_path / "copy").mkdir()
    second_path = tmp_path / "copy" / "z.tif"
    second_path.write_bytes((tmp_path / "a.tif").read_bytes())
    assert opened(second_path).fingerprint() == first.fingerprint()
    assert first.select(["b2"]).fingerprint() != first.fingerprint()
    values[1, 29, 29] += 1
    assert opened(write_tif(tmp_path / "b.tif", values)).fingerprint() != first.fingerprint()


def test_bands_of_different_resolution_share_the_finest_grid(tmp_path: Path) -> None:
    fine, coarse = ramp(1, 24, 36), ramp(1, 4, 6)
    write_tif(tmp_path / "site_B02.tif", fine)
    write_tif(tmp_path / "site_B01.tif", coarse, transform=NORTH_UP * Affine.scale(6))
    scene = opened(tmp_path)
    assert scene.name == "site"
    assert scene.band_names == ("B01", "B02")
    assert scene.grid.shape.rows == 24
    block = scene.read(scene.grid.full_window)
    np.testing.assert_array_equal(block.values[1], fine[0])
    expected = _bilinear_twin(coarse[0].astype(float), 6, 24, 36)
    np.testing.assert_allclose(block.values[0], expected, rtol=1e-3, atol=0.01)
    assert block.valid.all()


def _bilinear_twin(values: np.ndarray, factor: int, rows: int, cols: int) -> np.ndarray:
    """Interpolate between pixel centres, one pixel at a time."""
    result = np.zeros((rows, cols))
    for r in range(rows):
        for c in range(cols):
            y = min(max((r + 0.5) / factor - 0.5, 0), values.shape[0] - 1)
            x = min(max((c + 0.5) / factor - 0.5, 0), values.shape[1] - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, values.shape[0] - 1), min(x0 + 1, values.shape[1] - 1)
            top = values[y0, x0] * (1 - x + x0) + values[y0, x1] * (x - x0)
            bottom = values[y1, x0] * (1 - x + x0) + values[y1, x1] * (x - x0)
            result[r, c] = top * (1 - y + y0) + bottom * (y - y0)
    return result


def test_missing_neighbours_are_left_out_of_the_interpolation(tmp_path: Path) -> None:
    coarse = np.full((1, 4, 4), 100, "int16")
    coarse[0, 1, 1] = -1
    write_tif(tmp_path / "x_B01.tif", coarse, transform=NORTH_UP * Affine.scale(2), nodata=-1)
    write_tif(tmp_path / "x_B02.tif", ramp(1, 8, 8))
    block = opened(tmp_path).read(Window(0, 0, 8, 8))
    assert np.argwhere(~block.valid).tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]
    assert set(np.unique(block.values[0][block.valid])) == {100}


def test_a_half_pixel_shift_is_resampled(tmp_path: Path) -> None:
    values = np.tile(np.arange(400, dtype="float32") * 4, (1, 300, 1))
    write_tif(tmp_path / "a_red.tif", values)
    write_tif(tmp_path / "a_nir.tif", values, transform=NORTH_UP * Affine.translation(0.5, 0))
    scene = only(open_scenes([tmp_path / "a_red.tif", tmp_path / "a_nir.tif"]))
    block = scene.read(scene.grid.full_window)
    np.testing.assert_allclose(block.values[1, :, 1:], values[0, :, 1:] - 2, atol=1e-3)


def test_flipped_files_fit_together(tmp_path: Path) -> None:
    values = ramp(1, 10, 8)
    write_tif(tmp_path / "a_red.tif", values)
    flipped = Affine(10, 0, 500_000, 0, 10, 5_000_000 - 100)
    write_tif(tmp_path / "a_nir.tif", values[:, ::-1], transform=flipped)
    block = only(open_scenes([tmp_path / "a_red.tif", tmp_path / "a_nir.tif"])).read(Window(0, 0, 10, 8))
    np.testing.assert_array_equal(block.values[0], block.values[1])


def test_files_rotated_against_each_other_are_refused(tmp_path: Path) -> None:
    write_tif(tmp_path / "a_red.tif", ramp(1, 40, 40))
    turned = NORTH_UP * Affine.translation(20, 20) * Affine.rotation(0.15) * Affine.translation(-20, -20)
    write_tif(tmp_path / "a_nir.tif", ramp(1, 40, 40), transform=turned)
    with pytest.raises(GeoError, match="rotated against the other; warp"):
        open_scenes([tmp_path])


def test_sentinel2_zeros_are_missing_where_all_bands_are_zero(tmp_path: Path) -> None:
    first, second = ramp(1, 64, 64), ramp(1, 64, 64)
    first[0, :8] = second[0, :8] = 0
    second[0, 20, 20] = 0
    for name, values in (("B02", first), ("B03", second)):
        path = tmp_path / f"T33UUU_20170216T102101_{name}.jp2"
        write_tif(path, values, driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
    scene = opened(tmp_path)
    assert scene.name == "T33UUU_20170216T102101"
    block = scene.read(scene.grid.full_window)
    np.testing.assert_array_equal(block.valid, np.arange(64)[:, None] >= np.full(64, 8))
