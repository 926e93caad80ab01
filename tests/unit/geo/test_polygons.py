from __future__ import annotations

import time

import numpy as np
import shapely
from affine import Affine
from rasterio.features import rasterize as gdal_rasterize
from toy_rasters import NORTH_UP, square

from berunda.geo.grid import Grid, Shape, Window
from berunda.geo.labels import Labels, count_conflicts, rasterize
from berunda.geo.polygons import fill, to_pixels

GRID = Grid(Shape(60, 80), NORTH_UP, "EPSG:32633")


def labels(geometries: list[object], classes: list[int]) -> Labels:
    array = np.empty(len(geometries), dtype=object)
    array[:] = geometries
    names = tuple("abcdef"[: max(classes)])
    prints = tuple(str(i) for i in range(len(classes)))
    return Labels(array, np.array(classes, np.int16), names, "test", GRID.crs, prints)


def star(rng: np.random.Generator, n: int, row: float, col: float, size: float) -> shapely.Polygon:
    """Return a jagged polygon without self-intersections."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, n))
    radius = rng.uniform(0.3, 1, n) * size
    points = [NORTH_UP * (col + r * np.cos(a), row + r * np.sin(a)) for a, r in zip(angles, radius, strict=True)]
    return shapely.Polygon(points)


def test_pixels_agree_with_gdal() -> None:
    rng = np.random.default_rng(0)
    for n in (3, 7, 40):
        outer = star(rng, n, 30, 40, 28)
        shape = outer.difference(star(rng, 9, 28, 41, 9)).buffer(0)
        expected = gdal_rasterize([shape], out_shape=(60, 80), transform=NORTH_UP).astype(bool)
        (polygon,) = to_pixels(np.array([shape], dtype=object), GRID)
        np.testing.assert_array_equal(fill(polygon, GRID.full_window), expected)


def test_any_window_gives_the_same_pixels() -> None:
    rng = np.random.default_rng(1)
    many = labels([star(rng, 12, *rng.uniform(0, 60, 2), 15) for _ in range(40)], [1 + i % 3 for i in range(40)])
    whole = rasterize(many, GRID, GRID.full_window)
    assert (whole >= 0).any()
    assert count_conflicts(many, GRID, GRID.full_window) > 0
    for tile in (1, 7, 33):
        for window in list(GRID.tiles(tile))[:200]:
            np.testing.assert_array_equal(rasterize(many, GRID, window), whole[window.slices])
    outside = rasterize(many, GRID, Window(-5, -5, 70, 90))
    np.testing.assert_array_equal(outside[5:65, 5:85], whole)


def test_neighbours_share_no_pixel_and_leave_none_out() -> None:
    corners = np.random.default_rng(2).uniform(5, 55, (60, 2))
    triangles = shapely.get_parts(shapely.delaunay_triangles(shapely.multipoints(corners)))
    moved = shapely.transform(triangles, lambda p: np.array([NORTH_UP * tuple(xy) for xy in p]))
    polygons = to_pixels(np.array(moved, dtype=object), GRID)
    times = sum(fill(p, GRID.full_window).astype(int) for p in polygons)
    hull = shapely.transform(
        shapely.convex_hull(shapely.multipoints(corners)), lambda p: np.array([NORTH_UP * tuple(xy) for xy in p])
    )
    (whole,) = to_pixels(np.array([hull], dtype=object), GRID)
    np.testing.assert_array_equal(times, fill(whole, GRID.full_window).astype(int))


def test_edges_on_pixel_centres_are_taken_once() -> None:
    left, right = square(0.5, 0.5, 5), square(0.5, 5.5, 5)
    first, second = to_pixels(np.array([left, right], dtype=object), GRID)
    both = fill(first, GRID.full_window).astype(int) + fill(second, GRID.full_window)
    assert both.max() == 1
    assert both.sum() == 50


def test_later_polygons_win_and_classes_in_conflict_lose() -> None:
    same = labels([square(0, 0, 4), square(2, 2, 4)], [1, 1])
    index = rasterize(same, GRID, Window(0, 0, 6, 6))
    assert index[3, 3] == 1
    assert index[0, 0] == 0
    assert count_conflicts(same, GRID, GRID.full_window) == 0
    mixed = labels([square(0, 0, 4), square(2, 2, 4), square(0, 0, 4)], [1, 2, 1])
    index = rasterize(mixed, GRID, Window(0, 0, 6, 6))
    assert (index[2:4, 2:4] == -1).all()
    assert index[0, 0] == 2
    assert count_conflicts(mixed, GRID, GRID.full_window) == 4


def test_rotated_and_south_up_grids() -> None:
    for transform in (
        Affine.translation(5e5, 5e6) * Affine.rotation(30) * Affine.scale(10, -10),
        Affine(10, 0, 5e5, 0, 10, 5e6),
    ):
        grid = Grid(Shape(40, 40), transform, GRID.crs)
        shape = square(3, 4, 8, transform)
        index = rasterize(labels([shape], [1]), grid, grid.full_window)
        assert (index >= 0).sum() == 64
        assert (index[3:11, 4:12] == 0).all()


def test_a_million_vertices() -> None:
    angles = np.linspace(0, 2 * np.pi, 1_000_001)[:-1]
    radius = 25 * (1 + 0.02 * np.sin(40 * angles))
    points = np.column_stack([5e5 + 10 * (40 + radius * np.cos(angles)), 5e6 - 10 * (30 + radius * np.sin(angles))])
    big = labels([shapely.Polygon(points)], [1])
    start = time.process_time()
    index = rasterize(big, GRID, GRID.full_window)
    for window in GRID.tiles(32):
        np.testing.assert_array_equal(rasterize(big, GRID, window), index[window.slices])
    assert time.process_time() - start < 20
    assert abs((index >= 0).sum() - np.pi * 625) < 30
