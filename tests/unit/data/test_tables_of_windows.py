"""Tables whose rows are windows of rasters, with rasters of classes: as `split` writes them, and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from toy_masks import write_png, write_tif

from berunda.data.images import TEST, TRAIN, UNLABELLED, open_images
from berunda.data.masks.images import open_masks
from berunda.data.site_layouts import Cutting, find_sites
from berunda.data.tables import window_of
from berunda.errors import ConfigError, DataError, SecurityError
from berunda.geo.grid import Window

HEAD = "file,label,split,site,truth,row,col,n_rows,n_cols"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path / "cache"))


def written(folder: Path, rows: list[str], head: str = HEAD) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "split.csv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return str(folder / "split.csv")


@pytest.fixture
def scene(tmp_path: Path) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(1, 255, (3, 64, 96)).astype(np.uint8)
    write_tif(tmp_path / "d" / "s.tif", pixels)
    classes = np.ones((64, 96), np.uint8)
    classes[:, 40:] = 2
    classes[:4] = 0
    write_tif(tmp_path / "d" / "t.tif", classes[None])
    write_png(tmp_path / "d" / "t.png", classes)
    return pixels


def test_windows_with_truth_are_images_with_masks(tmp_path: Path, scene: np.ndarray) -> None:
    rows = [
        "s.tif,,train,a,t.tif,0,32,32,32",
        "s.tif,,test,b,t.png,32,0,32,32",
        "s.tif,,unlabelled,b,t.tif,32,64,16,32",
    ]
    masks = open_masks(written(tmp_path / "d", rows))
    assert masks.names == ("s.tif@0,32", "s.tif@32,0", "s.tif@32,64")
    assert masks.parts.tolist() == [TRAIN, TEST, UNLABELLED]
    assert masks.sites == ("a", "b", "b")
    assert masks.has_mask.tolist() == [True, True, False]
    assert np.array_equal(masks.pixels(0), scene[:, :32, 32:64])
    assert np.array_equal(masks.pixels(2), scene[:, 32:48, 64:96])
    assert (masks.labels(0)[:4] == -1).all()
    assert (masks.labels(0)[4:, :8] == 0).all()
    assert (masks.labels(0)[4:, 8:] == 1).all()
    assert (masks.labels(1) == 0).all()


def test_another_window_of_a_file_is_another_image_to_the_cache(tmp_path: Path, scene: np.ndarray) -> None:
    first = open_masks(written(tmp_path / "d", ["s.tif,,train,a,t.tif,0,32,32,32"]))
    assert np.array_equal(first.pixels(0), scene[:, :32, 32:64])
    second = open_masks(written(tmp_path / "d", ["s.tif,,train,a,t.tif,0,33,32,32"]))
    assert np.array_equal(second.pixels(0), scene[:, :32, 33:65])


def test_whole_images_with_truth_need_no_window(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 255, (2, 16, 24, 3)).astype(np.uint8)
    for number, picture in enumerate(pictures):
        write_png(tmp_path / "d" / "x" / f"{number}.png", picture)
        write_png(tmp_path / "d" / "y" / f"m{number}.png", np.full((16, 24), 1 + number, np.uint8))
    rows = ["x/0.png,train,y/m0.png", "x/1.png,train,y/m1.png"]
    masks = open_masks(written(tmp_path / "d", rows, "path,split,truth"))
    assert masks.classes == ("class 1", "class 2")
    assert (masks.labels(1) == 1).all()
    (tmp_path / "d" / "classes.csv").write_text("value,name\n1,field\n2,town\n")
    assert open_masks(str(tmp_path / "d" / "split.csv")).classes == ("field", "town")


def test_several_rasters_are_the_bands_of_one_image(tmp_path: Path, scene: np.ndarray) -> None:
    from rasterio import open as opened

    with opened(tmp_path / "d" / "s.tif") as source:
        profile = source.profile
    for band in range(2):
        with opened(tmp_path / "d" / f"B0{band + 1}.tif", "w", **{**profile, "count": 1}) as target:
            target.write(scene[band], 1)
    masks = open_masks(written(tmp_path / "d", ["B01.tif;B02.tif,,train,a,t.tif,8,24,32,32"]))
    assert np.array_equal(masks.pixels(0), scene[:2, 8:40, 24:56])
    sites = find_sites([str(tmp_path / "d" / "split.csv")], Cutting())
    assert len(sites.scenes[0].band_names) == 2


def test_windows_with_labels_are_images_of_classes(tmp_path: Path, scene: np.ndarray) -> None:
    rows = ["s.tif,field,train,a,,0,0,32,32", "s.tif,town,train,a,,0,32,32,32", "s.tif,town,test,b,,32,64,32,32"]
    images = open_images(written(tmp_path / "d", rows))
    assert images.classes == ("field", "town")
    assert images.labels.tolist() == [0, 1, 1]
    assert np.array_equal(images.pixels[2], scene[:, 32:64, 64:96])


def test_an_analysis_looks_at_the_windows_of_the_table(tmp_path: Path, scene: np.ndarray) -> None:
    rows = ["s.tif,,train,a,t.tif,0,0,40,40", "s.tif,,test,b,t.tif,24,50,40,40"]
    sites = find_sites([written(tmp_path / "d", rows)], Cutting(block_px=16))
    assert [item.window for item in sites.items] == [Window(0, 0, 40, 40), Window(24, 50, 40, 40)]
    assert [site.role for site in sites.sites] == ["labelled", "test"]
    assert len(sites.scenes) == 1
    assert sites.items[0].truth == tmp_path / "d" / "t.tif"


@pytest.mark.parametrize("where", ["60,0,32,32", "0,90,32,32"])
def test_a_window_beyond_its_raster_is_told(tmp_path: Path, scene: np.ndarray, where: str) -> None:
    table = written(tmp_path / "d", ["s.tif,field,train,a,t.tif,0,32,32,32", f"s.tif,field,train,a,t.tif,{where}"])
    with pytest.raises(DataError, match="inside its 64 x 96 pixels"):
        open_masks(table)
    with pytest.raises(DataError, match="inside its 64x96 pixels"):
        open_images(table, task="scene")
    with pytest.raises(DataError, match="inside its 64 x 96 pixels"):
        find_sites([table], Cutting())


@pytest.mark.parametrize(
    "cells", [["0", "0", "0", "4"], ["-1", "0", "4", "4"], ["0", "", "4", "4"], ["a", "0", "4", "4"]]
)
def test_cells_that_are_no_window_are_told(cells: list[str]) -> None:
    with pytest.raises(DataError, match=r"row 7: window .* expected whole numbers in row, col, n_rows, n_cols"):
        window_of(cells, "row 7")


def test_truth_that_is_missing_or_elsewhere_is_told(tmp_path: Path, scene: np.ndarray) -> None:
    with pytest.raises(SecurityError, match=r"t\.tif' refused"):
        open_masks(written(tmp_path / "d", ["s.tif,,train,a,../t.tif,0,0,32,32"]))
    with pytest.raises(DataError, match="1 images of the labelled split have no mask"):
        open_masks(written(tmp_path / "d", ["s.tif,,train,a,t.tif,0,32,32,32", "s.tif,,train,a,,0,0,32,32"]))
    with pytest.raises(DataError, match="no raster of classes found"):
        open_masks(written(tmp_path / "d", ["s.tif,,train,a,,0,0,32,32"]))
    with pytest.raises(ConfigError, match="one class a pixel"):
        open_images(written(tmp_path / "d", ["s.tif,,train,a,t.tif,0,0,32,32"]))


def test_truth_on_another_grid_than_its_scene_is_told(tmp_path: Path, scene: np.ndarray) -> None:
    write_tif(tmp_path / "d" / "small.tif", np.ones((1, 64, 48), np.uint8) * np.arange(1, 3, dtype=np.uint8).repeat(24))
    with pytest.raises(DataError, match=r"small\.tif has 48 x 64 px, s\.tif@0,0 96 x 64"):
        open_masks(
            written(tmp_path / "d", ["s.tif,,train,a,small.tif,0,0,32,32", "s.tif,,test,a,small.tif,0,16,32,32"])
        )
