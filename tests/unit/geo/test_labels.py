"""Labels as a value: which polygons a window meets, and classes that are left out."""

from __future__ import annotations

import time

import numpy as np
import shapely
from toy_rasters import NORTH_UP, square

from berunda.geo.grid import Grid, Shape, Window
from berunda.geo.labels import Labels, rasterize

GRID = Grid(Shape(60, 80), NORTH_UP, "")


def labels(shapes: list[shapely.Polygon], class_ids: list[int], names: str = "abc") -> Labels:
    array = np.empty(len(shapes), dtype=object)
    array[:] = shapes
    prints = tuple(f"{i:064x}" for i in range(len(shapes)))
    return Labels(array, np.array(class_ids, np.int16), tuple(names), "l.gpkg", "", prints)


def test_touching_equals_asking_every_box() -> None:
    draw = np.random.default_rng(1)
    shapes = [square(r, c, s) for r, c, s in draw.uniform((-10, -10, 0.1), (70, 90, 12), (200, 3))]
    some = labels(shapes, [1] * 200)
    for window in (*GRID.tiles(17), GRID.full_window, Window(-5, -5, 3, 3), Window(3, 3, 0, 5)):
        asked = [i for i, p in enumerate(some.pixels(GRID)) if p.box.intersect(window) is not None]
        assert some.touching(GRID, window).tolist() == asked
    assert labels([], []).touching(GRID, GRID.full_window).tolist() == []


def test_a_window_asks_only_the_polygons_that_it_meets() -> None:
    n = 10_000
    rows, cols = np.divmod(np.arange(n), 100)
    many = labels([square(20 * r, 20 * c, 8) for r, c in zip(rows, cols, strict=True)], [1] * n)
    grid = Grid(Shape(2000, 2000), NORTH_UP, "")
    many.pixels(grid)
    start = time.process_time()
    for window in list(grid.tiles(20))[:500]:
        assert (rasterize(many, grid, window) >= 0).sum() == 64
    assert time.process_time() - start < 2.5  # asking every polygon takes ten seconds


def test_classes_without_polygons_are_left_out() -> None:
    some = labels([square(i, i, 2) for i in range(4)], [1, 3, 3, 4], "abcd")
    left = some.without_empty_classes()
    assert left.class_names == ("a", "c", "d")
    assert left.class_ids.tolist() == [1, 2, 2, 3]
    assert left.class_ids.dtype == np.int16
    assert left.absent_classes == ("b",)
    assert left.fingerprints == some.fingerprints
    assert left.counts() == {"a": 1, "c": 2, "d": 1}
    assert left.without_empty_classes() is left


def test_polygons_go_with_a_class_that_counts_for_nothing() -> None:
    some = labels([square(i, i, 2) for i in range(4)], [1, 2, 2, 3])
    left = some.without_empty_classes(np.array([True, True, False, False]))
    assert left.class_names == ("a", "b")
    assert left.class_ids.tolist() == [1, 2, 2]
    assert left.absent_classes == ("c",)
    assert left.fingerprints == some.fingerprints[:3]
