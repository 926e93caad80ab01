from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from toy_rasters import NORTH_UP

from berunda.errors import GeoError, OutputError
from berunda.geo import write
from berunda.geo.grid import Grid, Shape, Window, parse_crs
from berunda.geo.labelraster import category_names
from berunda.geo.legend import rgb
from berunda.geo.raster import describe
from berunda.geo.write import create_tiled, finish_cog, replace_file, write_qml

UTM = str(parse_crs("EPSG:32633").to_wkt())
NAMES = ["nodata", "forest", "water & <ice>", "Äcker"]
COLORS: dict[int, str | tuple[int, int, int]] = {1: "#1b9e77", 2: (1, 2, 3), 3: "#FFFFFF"}


def make(path: Path, values: np.ndarray, grid: Grid, nodata: float | None, window_px: int = 512) -> Path:
    with create_tiled(path, grid, values.shape[0], str(values.dtype), nodata) as writer:
        for window in grid.tiles(window_px):
            writer.write(values[(slice(None), *window.slices)], window)
    return path


def classes(rows: int, cols: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4, (1, rows, cols)).astype(np.uint8)


@pytest.mark.parametrize(
    ("transform", "crs"),
    [
        (NORTH_UP, UTM),
        (Affine(10, 0, 5e5, 0, 10, 5e6), UTM),
        (Affine(10, 3, 5e5, 2, -10, 5e6), UTM),
        (NORTH_UP, ""),
        (Affine.identity(), ""),
    ],
)
@pytest.mark.parametrize(("rows", "cols"), [(700, 1100), (1, 1), (3, 600)])
def test_a_map_keeps_everything(tmp_path: Path, rows: int, cols: int, transform: Affine, crs: str) -> None:
    values, grid = classes(rows, cols), Grid(Shape(rows, cols), transform, crs)
    tmp = make(tmp_path / "t.tif", values, grid, 0)
    finish_cog(tmp, tmp_path / "map.tif", overview="mode", colors=COLORS, categories=NAMES, tags={"VERSION": "1"})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.tif", "map.tif.aux.xml"]
    with rasterio.open(tmp_path / "map.tif") as made:
        np.testing.assert_array_equal(made.read(), values)
        assert made.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert made.block_shapes == [(512, 512)]
        assert made.compression.value == "DEFLATE"
        assert bool(made.overviews(1)) == (max(rows, cols) > 512)
        assert made.nodata == 0
        assert made.colormap(1)[1] == (0x1B, 0x9E, 0x77, 255)
        assert made.colormap(1)[0] == (0, 0, 0, 0)
        assert made.tags()["VERSION"] == "1"
        assert made.tags()["CLASS_2"] == "water & <ice>"
    facts = describe(tmp_path / "map.tif")
    assert facts.grid.same_as(grid)
    assert category_names(tmp_path / "map.tif", {}) == dict(enumerate(NAMES))
    assert category_names(tmp_path / "map.tif", dict(facts.tags)) == dict(list(enumerate(NAMES))[1:])


def test_mode_overviews_hold_classes_only(tmp_path: Path) -> None:
    values = np.where(np.arange(1024) % 4 == 0, 1, 3).astype(np.uint8) * np.ones((1, 1024, 1), np.uint8)
    grid = Grid(Shape(1024, 1024), NORTH_UP, UTM)
    finish_cog(make(tmp_path / "t.tif", values, grid, 0), tmp_path / "m.tif", overview="mode")
    with rasterio.open(tmp_path / "m.tif") as made:
        assert set(np.unique(made.read(1, out_shape=(256, 256)))) == {3}


def test_measures_keep_nan_and_average(tmp_path: Path) -> None:
    values = np.ones((2, 1024, 1024), np.float32) * np.array([1, 2], np.float32)[:, None, None]
    values[:, ::2], values[:, :512] = 3, np.nan
    grid = Grid(Shape(1024, 1024), NORTH_UP, UTM)
    with create_tiled(tmp_path / "t.tif", grid, 2, "float32", np.nan, ("distance", "energy")) as writer:
        writer.write(values, grid.full_window)
    finish_cog(tmp_path / "t.tif", tmp_path / "c.tif", overview="average", tags={"OOD_THRESHOLD": "1.5"})
    with rasterio.open(tmp_path / "c.tif") as made:
        np.testing.assert_array_equal(made.read(), values)
        assert made.descriptions == ("distance", "energy")
        assert np.isnan(made.nodata)
        small = made.read(1, out_shape=(512, 512))
        assert np.isnan(small[:256]).all()
        assert (small[256:] == 3).all() or np.allclose(small[256:], 2)


def test_blocks_never_written_are_nodata(tmp_path: Path) -> None:
    grid = Grid(Shape(600, 600), NORTH_UP, UTM)
    with create_tiled(tmp_path / "t.tif", grid, 1, "uint8", 0) as writer:
        writer.write(np.ones((1, 88, 88), np.uint8), Window(512, 512, 88, 88))
    with rasterio.open(tmp_path / "t.tif") as made:
        assert made.read(1).sum() == 88 * 88


@pytest.mark.parametrize(
    ("window", "shape", "dtype"),
    [
        (Window(0, 0, 100, 600), (1, 100, 600), "uint8"),
        (Window(10, 0, 512, 600), (1, 512, 600), "uint8"),
        (Window(512, 512, 512, 512), (1, 512, 512), "uint8"),
        (Window(0, 0, 512, 512), (1, 512, 511), "uint8"),
        (Window(0, 0, 512, 512), (2, 512, 512), "uint8"),
        (Window(0, 0, 512, 512), (1, 512, 512), "int16"),
    ],
)
def test_unaligned_and_unfit_writes_are_refused(
    tmp_path: Path, window: Window, shape: tuple[int, ...], dtype: str
) -> None:
    writer = create_tiled(tmp_path / "t.tif", Grid(Shape(600, 600), NORTH_UP, UTM), 1, "uint8", 0)
    with pytest.raises(GeoError):
        writer.write(np.zeros(shape, dtype), window)
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        create_tiled(tmp_path / "t.tif", Grid(Shape(5, 5), NORTH_UP, UTM), 1, "uint8", 0),
    ):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_what_was_not_written_as_meant_is_noticed(tmp_path: Path) -> None:
    grid = Grid(Shape(600, 600), NORTH_UP, UTM)
    writer = create_tiled(tmp_path / "t.tif", grid, 1, "uint8", 0)
    writer.write(np.ones((1, 512, 512), np.uint8), Window(0, 0, 512, 512))
    writer._sums[Window(0, 0, 512, 512)] += 1
    with pytest.raises(OutputError, match=r"rows 0.* were read back different"):
        writer.close()
    assert list(tmp_path.iterdir()) == []


def test_a_failed_check_keeps_the_old_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Grid(Shape(600, 600), NORTH_UP, UTM)
    final = tmp_path / "map[1].tif"
    finish_cog(make(tmp_path / "t.tif", classes(600, 600), grid, 0), final, overview="mode", categories=NAMES)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    tmp = make(tmp_path / "t.tif", classes(600, 600)[:, ::-1], grid, 0)
    sums = iter(range(10))
    monkeypatch.setattr(write, "_crc", lambda *_: next(sums))
    with pytest.raises(OutputError, match="band 1 differs in rows 0"):
        finish_cog(tmp, final, overview="mode", categories=NAMES)
    tmp.unlink()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"t\.tif could not be written"):
        create_tiled(tmp_path / "file" / "t.tif", Grid(Shape(5, 5), NORTH_UP, UTM), 1, "uint8", 0)
    with pytest.raises(OutputError, match="could not be written"):
        replace_file(tmp_path / "none" / "a.qml", "x")


def test_legends_are_xml(tmp_path: Path) -> None:
    entries: list[tuple[int, str, str | tuple[int, int, int]]] = [
        (1, 'a "b" & <c>\x00', "#1b9e77"),
        (2, "Äcker", (1, 2, 3)),
    ]
    write_qml(tmp_path / "legend.qml", entries)
    root = ElementTree.fromstring((tmp_path / "legend.qml").read_text(encoding="utf-8"))
    found = [(e.get("value"), e.get("label"), e.get("color")) for e in root.iter("paletteEntry")]
    assert found == [("1", 'a "b" & <c>', "#1b9e77"), ("2", "Äcker", "#010203")]
    renderer = root.find("./pipe/rasterrenderer")
    assert renderer is not None
    assert renderer.get("type") == "paletted"


@pytest.mark.parametrize("color", ["red", "#12345", (1, 2, 300)])
def test_what_is_no_colour(color: str | tuple[int, int, int]) -> None:
    with pytest.raises(GeoError, match="no colour"):
        rgb(color)
