"""The split never leaks: blocks, buffers, parts; and it does what was asked of it."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial import cKDTree

from berunda.data.splits import (
    CALIBRATION,
    TEST,
    TRAIN,
    UNUSED,
    BlockSplit,
    SplitSettings,
    check_no_leak,
    parts_in_window,
    split_blocks,
)
from berunda.errors import DataError
from berunda.geo.grid import Grid, Shape, Window, xy_of
from berunda.geo.vector import Labels

GRID = Grid(Shape(256, 320), Affine(10, 0, 5000, 0, -10, 9000), "")


def squares(n: int, seed: int = 0, n_classes: int = 3, side_px: int = 12, grid: Grid = GRID) -> Labels:
    """Return `n` square polygons at random places, classes in turn."""
    rng = np.random.default_rng(seed)
    shapes = []
    for _ in range(n):
        col, row = rng.integers(grid.shape.cols - side_px), rng.integers(grid.shape.rows - side_px)
        ring = ((0, 0), (side_px, 0), (side_px, side_px), (0, side_px))
        shapes.append(shapely.Polygon([xy_of(grid.transform, col + a, row + b) for a, b in ring]))
    return Labels(
        geometries=np.array(shapes, dtype=object),
        class_ids=(np.arange(n) % n_classes + 1).astype(np.int16),
        class_names=tuple("abcdefgh"[:n_classes]),
        source="squares",
        crs="",
        fingerprints=tuple(f"{i:064x}" for i in range(n)),
    )


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(9, 60),
    per_class=st.sampled_from([None, 1, 5]),
    buffer=st.integers(0, 40),
)
def test_no_test_pixel_lies_near_a_fitted_pixel(seed: int, n: int, per_class: int | None, buffer: int) -> None:
    labels = squares(n, seed)
    try:
        split = split_blocks(labels, [GRID], SplitSettings(32, buffer, 0.4, per_class, seed=seed))
    except DataError:
        return  # a class fell into the test blocks whole; the message is tested below
    parts = parts_in_window(split, labels, 0, GRID, GRID.full_window)
    fitted = np.isin(parts.part, (TRAIN, CALIBRATION))
    tested = parts.part == TEST
    rows, cols = np.indices(tested.shape) // 32
    in_test_block = split.test_blocks[0][rows, cols]
    assert not (fitted & in_test_block).any()
    assert not (tested & ~in_test_block).any()
    if fitted.any() and tested.any():
        assert ndimage.distance_transform_edt(~fitted)[tested].min() > buffer
    trains = set(np.unique(parts.polygon[parts.part == TRAIN]))
    assert trains.isdisjoint(np.unique(parts.polygon[tested]))


@pytest.mark.parametrize("window", [Window(0, 0, 40, 50), Window(100, 33, 64, 64), Window(250, 300, 6, 20)])
def test_a_pixel_has_the_same_part_in_any_window(window: Window) -> None:
    labels = squares(60)
    split = split_blocks(labels, [GRID], SplitSettings(32, 8, 0.4))
    whole = parts_in_window(split, labels, 0, GRID, GRID.full_window)
    piece = parts_in_window(split, labels, 0, GRID, window)
    for name in ("part", "classes", "polygon"):
        np.testing.assert_array_equal(getattr(piece, name), getattr(whole, name)[window.slices])


def test_each_class_is_trained_calibrated_and_tested() -> None:
    labels = squares(90)
    split = split_blocks(labels, [GRID], SplitSettings(32, 8, 0.4, polygons_per_class=5))
    counts = split.counts(labels)
    assert all(n == 5 for n in counts["train"].values())
    assert all(0 < n <= 5 for n in counts["calibration"].values())
    assert all(n > 0 for n in counts["test"].values())
    share = sum(counts["test"].values()) / 90
    assert 0.3 < share < 0.5


def test_the_seed_decides_the_split() -> None:
    labels = squares(60)
    first, again, other = (split_blocks(labels, [GRID], SplitSettings(32, 8, 0.4, seed=s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.part, again.part)
    assert (first.part != other.part).any()


def test_nothing_is_held_out_when_nothing_is_asked() -> None:
    labels = squares(12)
    split = split_blocks(labels, [GRID], SplitSettings(32, 8, test_share=0.0, calibration_share=0.0))
    assert set(split.part) == {TRAIN}


def test_a_class_of_one_polygon_trains_and_a_warning_says_so() -> None:
    labels = squares(31)
    ids = labels.class_ids.copy()
    ids[:] = np.where(np.arange(31) == 30, 3, np.arange(31) % 2 + 1)
    labels = Labels(labels.geometries, ids, labels.class_names, "squares", "", labels.fingerprints)
    split = split_blocks(labels, [GRID], SplitSettings(32, 8, 0.3))
    assert split.part[30] == TRAIN
    assert any("'c' has no test polygon" in w for w in split.warnings)


def test_a_class_whose_polygons_share_a_block_trains_though_others_are_then_not_tested() -> None:
    """With block 0 tested a, c and d would be on both sides, but all of b is in it."""
    block_px, side_px = 32, 4

    def square(block: int, place: int) -> shapely.Polygon:
        col, row = block_px * block + 4 + 8 * place, 8
        ring = ((0, 0), (side_px, 0), (side_px, side_px), (0, side_px))
        return shapely.Polygon([xy_of(GRID.transform, col + a, row + b) for a, b in ring])

    where = {1: (0, 1, 2, 3, 4), 2: (0, 0), 3: (0, 1), 4: (0, 2)}
    shapes = [square(block, class_id - 1) for class_id, blocks in where.items() for block in blocks]
    ids = np.array([class_id for class_id, blocks in where.items() for _ in blocks], np.int16)
    names = tuple(f"{i:064x}" for i in range(len(ids)))
    labels = Labels(np.array(shapes, dtype=object), ids, ("a", "b", "c", "d"), "squares", "", names)
    for seed in range(5):
        split = split_blocks(labels, [GRID], SplitSettings(block_px, 0, 1 / 80, calibration_share=0.0, seed=seed))
        assert {1, 2, 3, 4} == set(ids[split.part == TRAIN])


def test_a_class_without_training_polygons_is_an_error_that_names_it() -> None:
    labels = squares(4, n_classes=2)
    labels = Labels(labels.geometries, np.array([1, 1, 1, 1], np.int16), ("a", "b"), "squares", "", labels.fingerprints)
    with pytest.raises(DataError, match="class 'b' has no polygon left to train on"):
        split_blocks(labels, [GRID], SplitSettings(32, 8, 0.3))


def test_polygons_off_the_scene_serve_nothing_and_none_on_it_is_an_error() -> None:
    far = Grid(Shape(64, 64), Affine(10, 0, 1e6, 0, -10, 1e6), "")
    labels = squares(12)
    with pytest.raises(DataError, match="none of its 12 polygons lies on the scene"):
        split_blocks(labels, [far], SplitSettings(32, 8))
    both = split_blocks(labels, [far, GRID], SplitSettings(32, 8, 0.0))
    assert set(both.scene) == {1}
    assert UNUSED not in both.part


def test_blocks_shrink_until_ten_hold_labels() -> None:
    small = Grid(Shape(130, 130), Affine(10, 0, 0, 0, -10, 0), "")
    labels = squares(40, side_px=4, grid=small)
    assert split_blocks(labels, [small], SplitSettings(None, 8, 0.3)).block_px == 32
    assert split_blocks(labels, [small], SplitSettings(None, 32, 0.3)).block_px == 64  # a crop has to fit in


def test_blocks_stay_at_128_px_where_ten_hold_labels() -> None:
    wide = Grid(Shape(640, 640), Affine(10, 0, 0, 0, -10, 0), "")
    labels = squares(400, side_px=4, grid=wide)
    auto, fixed = (split_blocks(labels, [wide], SplitSettings(b, 32, 0.3)) for b in (None, 128))
    assert auto.block_px == 128
    np.testing.assert_array_equal(auto.part, fixed.part)


def _pixels_in_common_ground(split: BlockSplit, labels: Labels, grids: list[Grid]) -> tuple[np.ndarray, np.ndarray]:
    """Return map coordinates (n, 2) of fitted and of test pixels over all scenes."""
    fitted, tested = [], []
    for index, grid in enumerate(grids):
        parts = parts_in_window(split, labels, index, grid, grid.full_window)
        for found, wanted in ((fitted, (TRAIN, CALIBRATION)), (tested, (TEST,))):
            rows, cols = np.nonzero(np.isin(parts.part, wanted))
            t = grid.transform
            found.append(np.stack([t.c + t.a * (cols + 0.5), t.f + t.e * (rows + 0.5)], axis=1))
    return np.concatenate(fitted), np.concatenate(tested)


@pytest.mark.parametrize("gap_px", [0, 40, -20])
@pytest.mark.parametrize("seed", range(8))
def test_the_buffer_holds_across_neighbouring_and_overlapping_scenes(seed: int, gap_px: int) -> None:
    left = Grid(Shape(160, 160), Affine(10, 0, 0, 0, -10, 1600), "")
    right = Grid(Shape(160, 160), Affine(10, 0, 10 * (160 + gap_px), 0, -10, 1600), "")
    both = Grid(Shape(160, 320 + gap_px), Affine(10, 0, 0, 0, -10, 1600), "")
    labels = squares(120, seed, grid=both)
    split = split_blocks(labels, [left, right], SplitSettings(32, 16, 0.4, seed=seed))
    fitted, tested = _pixels_in_common_ground(split, labels, [left, right])
    assert len(fitted)
    assert len(tested)
    assert cKDTree(fitted).query(tested)[0].min() > 16 * 10


@pytest.mark.slow
def test_a_thousand_splits_never_leak() -> None:
    rng = np.random.default_rng(0)
    n_checked = 0
    for case in range(1000):
        grids = [
            Grid(Shape(int(rng.integers(40, 130)), 96), Affine(10, 0, 960 * k, 0, -10, 1300), "")
            for k in range(int(rng.integers(1, 4)))
        ]
        whole = Grid(Shape(130, 96 * len(grids)), Affine(10, 0, 0, 0, -10, 1300), "")
        labels = squares(int(rng.integers(12, 60)), case, int(rng.integers(2, 5)), int(rng.integers(2, 12)), whole)
        settings_ = SplitSettings(32, int(rng.integers(0, 24)), float(rng.uniform(0.2, 0.6)), seed=case)
        try:
            split = split_blocks(labels, grids, settings_)
        except DataError:
            continue
        fitted, tested = _pixels_in_common_ground(split, labels, grids)
        if len(fitted) and len(tested):
            n_checked += 1
            assert cKDTree(fitted).query(tested)[0].min() > settings_.buffer_px * 10
    assert n_checked > 500


def test_splitting_a_very_large_scene_is_quick_and_small() -> None:
    vast = Grid(Shape(40_000, 40_000), Affine(10, 0, 0, 0, -10, 0), "")
    labels = squares(300, grid=vast)
    tracemalloc.start()
    split = split_blocks(labels, [vast], SplitSettings(128, 32, 0.3))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20
    assert set(split.part) == {TRAIN, CALIBRATION, TEST}


def test_the_check_finds_leaks_that_a_split_should_not_make() -> None:
    labels = squares(30)
    split = split_blocks(labels, [GRID], SplitSettings(32, 8, 0.4))
    near, far = np.array([[0.0, 0.0]]), np.array([[0.0, 90.0]])
    check_no_leak(split, labels, near, far, 10.0)
    check_no_leak(split, labels, near, far[:0], 10.0)
    with pytest.raises(DataError, match="lies 80 map units from a training pixel, expected more than 80"):
        check_no_leak(split, labels, near, np.array([[0.0, 80.0]]), 10.0)
    part = split.part.copy()
    part[0], part[1] = TRAIN, TEST
    twice = dataclasses.replace(labels, geometries=labels.geometries[[0, 0, *range(2, 30)]])
    with pytest.raises(DataError, match="1 polygons stand in the training and in the test part"):
        check_no_leak(dataclasses.replace(split, part=part), twice, near, far, 10.0)


def test_a_class_of_three_training_polygons_spares_one_for_calibration() -> None:
    labels = squares(9)
    counts = split_blocks(labels, [GRID], SplitSettings(32, 8, test_share=0.0)).counts(labels)
    assert counts["train"] == {"a": 2, "b": 2, "c": 2}
    assert counts["calibration"] == {"a": 1, "b": 1, "c": 1}
