from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_rasters import NORTH_UP, write_tif

from berunda.geo.grid import Grid, Shape, Window
from berunda.geo.raster import Scene, open_scenes

LAW = settings(deadline=None, max_examples=40)
numbers = st.integers(-40, 40)
windows = st.builds(Window, numbers, numbers, st.integers(0, 50), st.integers(0, 50))


@LAW
@given(windows, windows)
def test_intersections_are_commutative_and_inside(one: Window, two: Window) -> None:
    common = one.intersect(two)
    assert common == two.intersect(one)
    if common is not None:
        assert common.intersect(one) == common
        assert not common.is_empty


@LAW
@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 40))
def test_tiles_partition_any_grid(rows: int, cols: int, tile_px: int) -> None:
    grid = Grid(Shape(rows, cols), NORTH_UP, "")
    times = np.zeros((rows, cols), int)
    for window in grid.tiles(tile_px):
        times[window.slices] += 1
    assert (times == 1).all()


@LAW
@given(windows, st.floats(-180, 180), st.floats(0.1, 50), st.booleans())
def test_a_cropped_grid_keeps_its_pixels_in_place(window: Window, angle: float, scale: float, flip: bool) -> None:
    turn = Affine.rotation(angle) * Affine.scale(scale, scale if flip else -scale)
    grid = Grid(Shape(50, 50), Affine.translation(5e5, 5e6) * turn, "")
    inner = window.intersect(grid.full_window)
    if inner is not None:
        cropped = grid.crop(inner)
        assert np.allclose(cropped.transform * (0, 0), grid.transform * (inner.col, inner.row))
        assert np.allclose(cropped.resolution, grid.resolution)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scene, np.ndarray, np.ndarray]:
    """Return a scene of three resolutions with holes and a mask, and its pixels read at once."""
    folder = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(0)
    for name, factor in (("B02", 1), ("B05", 2), ("B01", 6)):
        values = rng.uniform(0, 5000, (1, 96 // factor, 120 // factor)).astype(np.float32)
        values[rng.uniform(size=values.shape) < 0.05] = np.nan
        write_tif(folder / f"x_{name}.tif", values, transform=NORTH_UP * Affine.scale(factor))
    cloud = (rng.uniform(size=(40, 50)) < 0.1).astype(np.uint8)
    mask = write_tif(folder.parent / f"{folder.name}_mask.tif", cloud, transform=NORTH_UP * Affine.scale(2.4))
    (scene,) = open_scenes([folder], mask=mask)
    block = scene.read(scene.grid.full_window)
    assert 0.2 < block.valid.mean() < 0.95
    return scene, block.values, block.valid


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.builds(Window, st.integers(-20, 100), st.integers(-20, 130), st.integers(1, 60), st.integers(1, 60)),
    st.permutations(["B01", "B02", "B05"]),
)
def test_a_pixel_does_not_depend_on_the_window(
    mixed: tuple[Scene, np.ndarray, np.ndarray], window: Window, names: list[str]
) -> None:
    scene, values, valid = mixed
    chosen = scene.select(names)
    block = chosen.read(window)
    inner = window.intersect(scene.grid.full_window)
    outside = np.ones(block.valid.shape, bool)
    if inner is not None:
        at, rows_cols = inner.slices_in(window), inner.slices
        order = [scene.band_names.index(n) for n in names]
        assert block.values[:, at[0], at[1]].tobytes() == values[order][:, rows_cols[0], rows_cols[1]].tobytes()
        assert block.valid[at].tobytes() == valid[rows_cols].tobytes()
        outside[at] = False
    assert not block.valid[outside].any()
    assert not block.values[:, outside].any()


def test_rows_of_pixels_read_one_by_one(mixed: tuple[Scene, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    scene, values, valid = mixed
    for window in [*scene.grid.crop(Window(0, 0, 96, 1)).tiles(1)]:
        block = scene.read(Window(window.row, 0, 1, 120))
        assert block.values.tobytes() == values[:, window.row : window.row + 1].tobytes()
        assert block.valid.tobytes() == valid[window.row : window.row + 1].tobytes()
