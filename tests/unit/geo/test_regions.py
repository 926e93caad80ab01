"""Label rasters as regions: what is read, where they are cut, how a part is known again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine
from toy_rasters import NORTH_UP, write_tif

from berunda.errors import GeoError
from berunda.geo import labelraster
from berunda.geo.grid import Grid, Shape, parse_crs
from berunda.geo.vector import rasterize, read_labels

UTM = str(parse_crs("EPSG:32633").to_wkt())
GRID = Grid(Shape(96, 128), NORTH_UP, UTM)


def halves(path: Path, rows: int = 96, cols: int = 128, **options: object) -> Path:
    """Write a raster of two large regions, 1 at the left and 2 at the right."""
    values = np.ones((rows, cols), np.uint8)
    values[:, cols // 2 + 5 :] = 2
    return write_tif(path, values, **options)  # type: ignore[arg-type]


def test_no_region_crosses_a_block(tmp_path: Path) -> None:
    path = halves(tmp_path / "l.tif")
    whole = read_labels(path, "", grids=[GRID])
    cut = read_labels(path, "", grids=[GRID], cut_px=32)
    assert len(whole) == 2
    assert len(cut) == 12 + 3
    pieces, regions = (rasterize(x, GRID, GRID.full_window) for x in (cut, whole))
    np.testing.assert_array_equal(cut.class_ids[pieces], whole.class_ids[regions])
    for i in range(len(cut)):
        rows, cols = np.nonzero(pieces == i)
        assert {*(rows // 32)} == {rows[0] // 32}
        assert {*(cols // 32)} == {cols[0] // 32}
    assert shapely.is_valid(cut.geometries).all()


def test_a_part_has_the_fingerprint_of_its_region(tmp_path: Path) -> None:
    path = halves(tmp_path / "l.tif")
    whole = read_labels(path, "", grids=[GRID])
    cut = read_labels(path, "", grids=[GRID], cut_px=32)
    of_class = dict(zip(whole.class_ids.tolist(), whole.fingerprints, strict=True))
    assert [of_class[i] for i in cut.class_ids.tolist()] == list(cut.fingerprints)


def test_blocks_are_those_of_a_finer_and_shifted_scene(tmp_path: Path) -> None:
    scene = Grid(Shape(300, 300), NORTH_UP * Affine.translation(7, 3) * Affine.scale(0.25), UTM)
    cut = read_labels(halves(tmp_path / "l.tif"), "", grids=[scene], cut_px=64)
    pieces = rasterize(cut, scene, scene.full_window)
    assert (pieces >= 0).all()
    for i in range(len(cut)):
        rows, cols = np.nonzero(pieces == i)
        # a label pixel, of four pixels of the scene, goes with its centre
        assert (np.bincount(rows // 64) * 1.0).max() >= 0.9 * len(rows)
        assert (np.bincount(cols // 64) * 1.0).max() >= 0.9 * len(cols)


def test_regions_in_another_crs_are_cut_too(tmp_path: Path) -> None:
    transform = Affine(0.0001, 0, 14.998, 0, -0.0001, 45.156)
    path = write_tif(tmp_path / "l.tif", np.ones((150, 220), np.uint8), transform=transform, crs="EPSG:4326")
    cut = read_labels(path, "", grids=[GRID], cut_px=32)
    pieces = rasterize(cut, GRID, GRID.full_window)
    assert len(cut) >= 12
    assert (pieces >= 0).mean() > 0.95
    blocks = np.arange(96)[:, None] // 32 * 4 + np.arange(128) // 32
    for i in range(len(cut)):
        assert np.bincount(blocks[pieces == i]).max() >= 0.8 * (pieces == i).sum()


def test_two_scenes_cut_each_their_own(tmp_path: Path) -> None:
    right = Grid(GRID.shape, NORTH_UP * Affine.translation(120, 0), UTM)
    path = halves(tmp_path / "l.tif", 96, 300)
    cut = read_labels(path, "", grids=[GRID, right], cut_px=32)
    first, second = (rasterize(cut, g, g.full_window) for g in (GRID, right))
    assert (first >= 0).all()
    assert (second >= 0).all()
    assert not {*np.unique(first)} & {*np.unique(second[:, 8:])}
    assert cut.n_outside == 0


def test_only_the_window_of_the_scene_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labelraster, "MAX_PIXELS", 100 * 132)
    path = halves(tmp_path / "l.tif", 400, 400)
    inner = Grid(GRID.shape, NORTH_UP * Affine.translation(150, 100), UTM)
    labels = read_labels(path, "", grids=[inner])
    assert labels.class_names == ("1", "2")
    assert (rasterize(labels, inner, inner.full_window) >= 0).all()
    with pytest.raises(GeoError, match="160000 pixels on the scene: expected at most"):
        read_labels(path, "", grids=[Grid(Shape(400, 400), NORTH_UP, UTM)])


def test_a_mapping_may_name_a_class_beyond_the_scene(tmp_path: Path) -> None:
    path = halves(tmp_path / "l.tif", 96, 400)
    assert read_labels(path, "", grids=[GRID], classes={"2": "", "1": "wood"}).class_names == ("wood",)


def test_a_raster_beside_the_scene_is_an_error(tmp_path: Path) -> None:
    path = halves(tmp_path / "l.tif", transform=NORTH_UP * Affine.translation(5000, 0))
    with pytest.raises(GeoError, match=r"lies outside the scene: it covers x 550000.*EPSG:32633") as found:
        read_labels(path, "", grids=[GRID])
    assert "\n" not in str(found.value)
