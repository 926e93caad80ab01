"""Crops from chunks: balanced, label-centred, a pure function of the keys, and never with labels that do not train."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from toy_rasters import square, write_layer, write_tif

from berunda.data.order import Randomness
from berunda.data.scene_source import Chunk, ChunkSettings, SceneSource, build_source
from berunda.data.splits import TRAIN, BlockSplit
from berunda.errors import DataError
from berunda.geo.raster import open_scenes
from berunda.geo.vector import read_labels


def chunk(rows: int = 80, cols: int = 96, seed: int = 0) -> Chunk:
    """Return a chunk with one large and one small polygon of class 0 and one small of class 1."""
    rng = np.random.default_rng(seed)
    labels = np.full((rows, cols), -1, np.int16)
    polygon = np.full((rows, cols), -1, np.int32)
    for number, (at, label) in enumerate([((2, 40, 2, 40), 0), ((60, 62, 80, 82), 0), ((50, 53, 10, 13), 1)]):
        where = (slice(at[0], at[1]), slice(at[2], at[3]))
        labels[where], polygon[where] = label, number
    pixels = rng.normal(size=(3, rows, cols)).astype(np.float32)
    return Chunk(pixels, np.ones((rows, cols), bool), labels, polygon)


def test_draws_are_a_pure_function_of_the_keys() -> None:
    source = SceneSource([chunk(), chunk(seed=1)], 32, 2)
    for draw in (source.labelled, source.unlabelled):
        first, again, other = (draw(Randomness(0, (step,)), 5) for step in (3, 3, 4))
        assert torch.equal(first.pixels, again.pixels)
        assert torch.equal(first.index, again.index)
        assert not torch.equal(first.pixels, other.pixels)


def test_classes_and_polygons_come_equally_often_whatever_their_size() -> None:
    source = SceneSource([chunk()], 32, 2)
    drawn = source.labelled(Randomness(0), 3000).index.numpy()
    shares = np.bincount(drawn, minlength=3) / len(drawn)
    np.testing.assert_allclose(shares, [0.25, 0.25, 0.5], atol=0.03)


def test_each_labelled_crop_holds_a_pixel_of_its_polygon() -> None:
    source = SceneSource([chunk()], 32, 2)
    images = source.labelled(Randomness(1), 200)
    assert images.labels is not None
    wanted = torch.tensor([0, 0, 1])[images.index]
    assert all(bool((y == c).any()) for y, c in zip(images.labels, wanted, strict=True))


def test_unlabelled_crops_carry_no_labels_and_avoid_empty_ground() -> None:
    holey = chunk()
    valid = holey.valid.copy()
    valid[:, 48:] = False
    source = SceneSource([Chunk(holey.pixels * valid, valid, np.where(valid, holey.labels, -1), holey.polygon)], 32, 2)
    images = source.unlabelled(Randomness(0), 200)
    assert images.labels is None
    assert (images.valid.float().mean((1, 2)) >= 0.5).float().mean() > 0.95


def test_a_scene_smaller_than_the_crop_is_padded_with_invalid_pixels() -> None:
    rows = [[0, 1, -1, -1, -1]] * 3
    small = Chunk(
        np.ones((2, 3, 5), np.float32), np.ones((3, 5), bool), np.array(rows, np.int16), np.array(rows, np.int32)
    )
    images = SceneSource([small], 16, 2).labelled(Randomness(0), 4)
    assert images.pixels.shape == (4, 2, 16, 16)
    assert images.valid.sum().item() == 4 * 15
    assert images.labels is not None
    assert (images.labels[~images.valid] == -1).all()


def test_a_class_without_pixels_is_an_error_that_names_it() -> None:
    with pytest.raises(DataError, match=r"class ids \[3\] have no valid training pixel"):
        SceneSource([chunk()], 32, 3)


@pytest.mark.parametrize("at", [0, 5, 10, 15])
def test_a_rare_class_is_read_even_when_few_windows_fit_the_memory(at: int, tmp_path: Path) -> None:
    scene = open_scenes([write_tif(tmp_path / "s.tif", np.ones((1, 256, 256), np.uint8))])[0]
    corners = [(row, col) for row in range(8, 256, 64) for col in range(8, 256, 64)]
    rare = square(corners[at][0] + 30, corners[at][1] + 30, 10)
    shapes = [*(square(row, col, 10) for row, col in corners), rare]
    path = write_layer(tmp_path / "p.gpkg", shapes, "class", [*["common"] * 16, "rare"])
    labels = read_labels(path, "class", grids=[scene.grid])
    split = BlockSplit(np.full(17, TRAIN, np.int8), np.zeros(17, np.int16), (np.zeros((2, 2), bool),), 128, 16)
    four_chunks = ChunkSettings(budget_bytes=4 * 64 * 64 * (4 + 8), chunk_px=64)
    scaling = (np.zeros(1), np.ones(1))
    source = build_source([scene], labels, split, scaling, 32, settings=four_chunks)
    assert len(source.chunks) == 4
    assert [len(polygons) > 0 for polygons in source.anchors] == [True, True]
