"""The map does not depend on tiles, order, workers or threads: bit for bit, with the house's own net."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toy_mapping import toy_bundle, toy_pixels, toy_scene, write_raster

from berunda.geo.raster import open_scenes
from berunda.mapping import run
from berunda.mapping.backends import local
from berunda.mapping.bundle import Bundle
from berunda.mapping.predictor import Planes, Predictor

ROWS, COLS = 170, 270


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return toy_bundle()


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return toy_scene(tmp_path_factory.mktemp("scene"), ROWS, COLS)


def outputs(folder):
    return [(folder / name).read_bytes() for name in ("map.tif", "confidence.tif", "ood.tif")]


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def reference(request, bundle, scene, tmp_path_factory):
    out = tmp_path_factory.mktemp("reference")
    run.map_scenes(bundle, [scene], out, tile_px=4096, precision=request.param)
    return request.param, outputs(out)


@pytest.mark.parametrize("tile_px", [64, 100])
@pytest.mark.parametrize("workers", [1, 2])
def test_size_of_tiles_and_workers(bundle, scene, tmp_path, reference, tile_px, workers):
    precision, expected = reference
    run.map_scenes(bundle, [scene], tmp_path, tile_px=tile_px, workers=workers, precision=precision)
    assert outputs(tmp_path) == expected


def test_order(bundle, scene, tmp_path, reference, monkeypatch):
    precision, expected = reference

    def shuffled(work, indices, workers):
        return local.make_tiles(work, np.random.default_rng(1).permutation(indices).tolist(), workers)

    monkeypatch.setattr(run, "make_tiles", shuffled)
    run.map_scenes(bundle, [scene], tmp_path, tile_px=64, workers=2, precision=precision)
    assert outputs(tmp_path) == expected


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_of_torch(bundle, scene, tmp_path, reference, threads):
    precision, expected = reference
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        run.map_scenes(bundle, [scene], tmp_path, tile_px=128, precision=precision)
    finally:
        torch.set_num_threads(before)
    assert outputs(tmp_path) == expected


def test_every_pixel_is_that_of_its_own_window(bundle, tmp_path):
    """A restatement without tiles or batches agrees (in float32 up to the order of sums)."""
    pixels = toy_pixels(90, 110)
    scene = open_scenes([write_raster(tmp_path / "s.tif", pixels)])[0]
    run.map_scenes(bundle, [scene], tmp_path / "out", precision="fp32")
    predictor = Predictor(bundle, precision="fp32")
    padded = np.pad(pixels.astype(np.float32), ((0, 0), (16, 80), (16, 80)))
    result = Planes.empty(128, 128)
    for row in range(0, 96, 32):
        for col in range(0, 128, 32):
            values = padded[:, row : row + 64, col : col + 64]
            planes = predictor.predict_window(values, (values > 0).all(0))
            for target, source in zip(result.arrays(), planes.arrays(), strict=True):
                target[row : row + 32, col : col + 32] = source
    import rasterio

    with rasterio.open(tmp_path / "out" / "map.tif") as file:
        assert (file.read(1) == result.classes[:90, :110]).mean() > 0.999
    with rasterio.open(tmp_path / "out" / "ood.tif") as file:
        np.testing.assert_allclose(file.read(1), result.distance[:90, :110], rtol=1e-4, atol=1e-3)
