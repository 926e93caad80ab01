"""Labelled pixels: all of them when they are few, thinned window by window when they are many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from toy_command import toy_labels, toy_scene

from berunda.api import evaluate
from berunda.api.evaluate import PixelTable, gather_pixels
from berunda.api.prepare import Prepared, prepare
from berunda.config import MapConfig
from berunda.data.splits import UNUSED, parts_in_window


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    scene, labels = toy_scene(tmp_path / "scene.tif"), toy_labels(tmp_path / "polygons.gpkg")
    return prepare(MapConfig(scenes=[scene], labels=labels, field="class", crop_px=32, block_px=32))


def test_all_pixels_are_there_in_order(prepared: Prepared) -> None:
    table = gather_pixels(prepared)
    scene = prepared.scenes[0]
    parts = parts_in_window(prepared.split, prepared.labels, 0, scene.grid, scene.grid.full_window)
    rows, cols = np.nonzero((parts.part != UNUSED) & (parts.classes > 0))
    np.testing.assert_array_equal(table.row, rows)
    np.testing.assert_array_equal(table.col, cols)
    np.testing.assert_array_equal(table.part, parts.part[rows, cols])
    values = scene.read(scene.grid.full_window).values
    np.testing.assert_array_equal(table.values, values[:, rows, cols].T)
    assert [getattr(table, n).dtype for n in ("scene", "part", "classes", "polygon")] == ["i2", "i1", "i2", "i4"]


def test_no_window_is_held_whole_when_labels_are_many(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "_BLOCK_PX", 32)
    whole = gather_pixels(prepared)
    counts = np.bincount(whole.part, minlength=4)
    cap = int(counts.max()) // 4
    monkeypatch.setattr(evaluate, "MAX_PIXELS_PER_PART", cap)
    sizes: list[int] = []
    in_window = evaluate._in_window

    def counting(*arguments: object) -> PixelTable:
        found = in_window(*arguments)  # type: ignore[arg-type]
        sizes.append(len(found))
        return found

    monkeypatch.setattr(evaluate, "_in_window", counting)
    thinned = gather_pixels(prepared)
    assert sum(sizes) == len(thinned)
    got = np.bincount(thinned.part, minlength=4)
    for part in (1, 2, 3):
        expected = min(cap, counts[part])
        assert abs(got[part] - expected) <= 4 * np.sqrt(expected)
    at = {(r, c) for r, c in zip(whole.row, whole.col, strict=True)}
    assert {(r, c) for r, c in zip(thinned.row, thinned.col, strict=True)} <= at
    again = gather_pixels(prepared)
    np.testing.assert_array_equal(again.row, thinned.row)
