"""Preparing a run: classes that are not there, conflicts, label rasters in blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from toy_rasters import NORTH_UP, square, write_layer, write_tif

from berunda.api.prepare import Prepared, prepare
from berunda.config import MapConfig
from berunda.data.splits import TEST, TRAIN
from berunda.errors import DataError
from berunda.geo.vector import rasterize

SIDE = 320
CLASSES = ("field", "forest", "water")


def scene(folder: Path) -> Path:
    """Write a scene whose first band is brighter where the third class lies."""
    values = np.random.default_rng(0).integers(100, 200, (2, SIDE, SIDE)).astype("uint16")
    values[:, :, 200:] += 1000
    return write_tif(folder / "scene.tif", values)


def drawn(folder: Path, *more: tuple[str, object]) -> Path:
    """Write twelve polygons a class, and more."""
    rows = [(name, square(26 * i + 4, 105 * c + 10, 8)) for c, name in enumerate(CLASSES) for i in range(12)]
    rows += more
    return write_layer(folder / "p.gpkg", [g for _, g in rows], "class", [n for n, _ in rows])


def prepared(folder: Path, labels: Path, **options: object) -> Prepared:
    options = {"field": "class", "block_px": 32, "crop_px": 32} | options
    return prepare(MapConfig(scenes=[str(scene(folder))], labels=str(labels), **options))  # type: ignore[arg-type]


def test_a_class_beyond_the_scene_is_named_and_not_mapped(tmp_path: Path) -> None:
    found = prepared(tmp_path, drawn(tmp_path, ("glacier", square(5000, 5000, 8))))
    assert found.labels.class_names == CLASSES
    assert "Class 'glacier' has no polygon on the scene; it is not mapped." in found.warnings


def test_a_class_that_the_rule_leaves_out_is_named_and_not_mapped(tmp_path: Path) -> None:
    found = prepared(tmp_path, drawn(tmp_path, ("town", square(100, 60, 8))), drop_labels_where="b1>1000")
    assert found.labels.class_names == ("field", "forest", "town")
    assert found.labels.counts() == {"field": 12, "forest": 12, "town": 1}
    assert len(found.split.part) == len(found.labels) == 25
    assert "Class 'water' has no polygon left by the rule b1>1000; it is not mapped." in found.warnings
    assert "12 of the 37 polygons of p.gpkg are left out by the rule b1>1000." in found.warnings


def test_a_rule_that_leaves_one_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--drop-labels-where b1<1000 leaves no polygon of class 'field', 'forest'"):
        prepared(tmp_path, drawn(tmp_path), drop_labels_where="b1<1000")


def test_pixels_in_polygons_of_two_classes_are_counted(tmp_path: Path) -> None:
    found = prepared(tmp_path, drawn(tmp_path, ("forest", square(6, 12, 4)), ("field", square(6, 12, 2))))
    assert "16 pixels lie in polygons of different classes of p.gpkg; they are not used." in found.warnings
    assert not any("different classes" in w for w in prepared(tmp_path, drawn(tmp_path)).warnings)


def test_a_dense_label_raster_is_split_by_blocks(tmp_path: Path) -> None:
    values = np.ones((SIDE, SIDE), np.uint8)
    values[:, 100:] = 2
    values[:, 210:] = 3
    labels = write_tif(tmp_path / "labels.tif", values, transform=NORTH_UP)
    found = prepared(tmp_path, labels, field=None)
    counts = found.split.counts(found.labels)
    assert all(n >= 5 for part in ("train", "test") for n in counts[part].values()), counts
    grid = found.scenes[0].grid
    part = found.split.part[rasterize(found.labels, grid, grid.full_window)]
    block = found.split.test_blocks[0].repeat(32, 0).repeat(32, 1)
    np.testing.assert_array_equal(part == TEST, block)
    assert not (block & (part == TRAIN)).any()
