from __future__ import annotations

import math

import pytest
from affine import Affine

from berunda.errors import GeoError
from berunda.geo.grid import Grid, Shape, Window, crs_name, parse_crs, same_crs

UTM = str(parse_crs("EPSG:32633").to_wkt())
NORTH_UP = Grid(Shape(30, 20), Affine(10, 0, 500_000, 0, -10, 5_000_000), UTM)


def test_windows_pad_intersect_and_slice() -> None:
    window = Window(2, 3, 4, 5)
    assert window.pad(1) == Window(1, 2, 6, 7)
    assert window.pad(-2).is_empty
    assert window.intersect(Window(4, 0, 9, 4)) == Window(4, 3, 2, 1)
    assert window.intersect(Window(6, 3, 2, 2)) is None
    assert window.slices == (slice(2, 6), slice(3, 8))
    assert window.slices_in(Window(1, 1, 9, 9)) == (slice(1, 5), slice(2, 7))


def test_tiles_partition_row_by_row() -> None:
    tiles = list(NORTH_UP.tiles(16))
    assert tiles[:3] == [Window(0, 0, 16, 16), Window(0, 16, 16, 4), Window(16, 0, 14, 16)]
    assert sum(t.shape.n_pixels for t in tiles) == 600
    with pytest.raises(GeoError, match="at least 1 px"):
        next(NORTH_UP.tiles(0))


def test_bounds_and_crop() -> None:
    bounds = NORTH_UP.window_bounds(Window(1, 2, 3, 4))
    assert (bounds.left, bounds.bottom, bounds.right, bounds.top) == (500_020, 4_999_960, 500_060, 4_999_990)
    assert NORTH_UP.crop(Window(1, 2, 3, 4)).bounds == bounds
    assert NORTH_UP.crop(Window(-1, -1, 2, 2)).bounds.left == 499_990


def test_rotated_and_south_up_grids() -> None:
    turned = Grid(Shape(10, 10), Affine.translation(100, 100) * Affine.rotation(30) * Affine.scale(2, -2), UTM)
    assert turned.resolution == pytest.approx((2, 2))
    assert turned.pixel_area_m2() == pytest.approx(4)
    south_up = Grid(Shape(10, 10), Affine(2, 0, 0, 0, 2, 0), UTM)
    assert south_up.bounds.top == 20


def test_same_as_tolerates_a_thousandth_of_a_pixel() -> None:
    def moved(x: float) -> Grid:
        return Grid(NORTH_UP.shape, Affine.translation(x, 0) * NORTH_UP.transform, UTM)

    assert NORTH_UP.same_as(moved(0.005))
    assert not NORTH_UP.same_as(moved(0.5))
    assert NORTH_UP.same_as(moved(0.5), tolerance_px=0.1)
    assert not NORTH_UP.same_as(Grid(NORTH_UP.shape, NORTH_UP.transform, ""))


def test_pixel_area_needs_a_projected_crs() -> None:
    assert NORTH_UP.pixel_area_m2() == 100
    assert Grid(Shape(1, 1), NORTH_UP.transform, "").pixel_area_m2() is None
    assert Grid(Shape(1, 1), Affine(0.1, 0, 10, 0, -0.1, 50), "EPSG:4326").pixel_area_m2() is None
    feet = Grid(Shape(1, 1), Affine(1, 0, 600_000, 0, -1, 200_000), "EPSG:2263")
    assert feet.pixel_area_m2() == pytest.approx(0.3048006**2, rel=1e-4)


def test_pixel_area_corrects_web_mercator() -> None:
    y = 8_399_738.0  # 60 degrees north, where Web Mercator shows areas four times too large
    mercator = Grid(Shape(2, 2), Affine(10, 0, 0, 0, -10, y), "EPSG:3857")
    assert mercator.pixel_area_m2() == pytest.approx(25, rel=0.01)


@pytest.mark.parametrize(
    ("rows", "transform"),
    [(0, NORTH_UP.transform), (2, Affine(0, 0, 0, 0, 0, 0)), (2, Affine(1, 0, math.nan, 0, 1, 0))],
)
def test_grids_without_area_are_refused(rows: int, transform: Affine) -> None:
    with pytest.raises(GeoError):
        Grid(Shape(rows, 2), transform, "")


def test_crs_are_compared_by_meaning() -> None:
    assert same_crs(UTM, "EPSG:32633")
    assert same_crs("EPSG:4326", "OGC:CRS84")
    assert not same_crs(UTM, "EPSG:32634")
    assert not same_crs(UTM, "")
    assert crs_name(UTM) == "EPSG:32633"
    with pytest.raises(GeoError, match="cannot understand"):
        parse_crs("nonsense")
