from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio

from berunda.data.landscape import FIELD, FOREST, TOWN, WATER
from berunda.data.synthetic import CLASS_NAMES, Landscape, block, write_polygons, write_scene, write_truth
from berunda.errors import ConfigError
from berunda.geo.grid import Window
from berunda.geo.raster import open_scenes
from berunda.geo.vector import rasterize, read_labels

SPEC = Landscape(seed=3, rows=600, cols=700)
PINNED_TRUTH = [[2, 2, 2, 3, 1], [2, 1, 1, 1, 2], [1, 1, 1, 3, 1], [2, 1, 3, 2, 1]]
PINNED_VALUES = [291, 567, 352, 3180, 1483, 728]


@pytest.fixture(scope="module")
def whole() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return block(SPEC, SPEC.grid.full_window)


@pytest.mark.parametrize("tile_px", [37, 256])
def test_any_window_gives_the_same_pixels(whole: tuple[np.ndarray, np.ndarray, np.ndarray], tile_px: int) -> None:
    values, truth, cloud = whole
    for window in list(SPEC.grid.tiles(tile_px))[:: 5 if tile_px == 37 else 1]:
        part = block(SPEC, window)
        rows, cols = window.slices
        np.testing.assert_array_equal(part[0], values[:, rows, cols])
        np.testing.assert_array_equal(part[1], truth[rows, cols])
        np.testing.assert_array_equal(part[2], cloud[rows, cols])


def test_the_same_seed_gives_the_same_landscape(whole: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    window = Window(0, 0, 64, 64)
    np.testing.assert_array_equal(block(Landscape(3, 600, 700), window)[0], whole[0][:, :64, :64])
    for other in (Landscape(4, 600, 700), Landscape(3, 600, 700, site="b")):
        assert (block(other, window)[0] != whole[0][:, :64, :64]).mean() > 0.9


def test_pixels_are_pinned(whole: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """A change of these numbers changes every run on synthetic scenes: it belongs into the changelog."""
    values, truth, _ = whole
    assert truth[::150, ::150].tolist() == PINNED_TRUTH
    assert values[:, 300, 350].tolist() == PINNED_VALUES


def test_every_class_occurs_and_looks_like_itself(whole: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    values, truth, cloud = whole
    shares = np.bincount(truth.ravel(), minlength=7)[1:] / truth.size
    assert shares.min() > 0.003
    assert shares.max() < 0.7
    mean = {c: values[:, (truth == c) & ~cloud].mean(axis=1) for c in range(1, 7)}
    ndvi = {c: (m[3] - m[2]) / (m[3] + m[2]) for c, m in mean.items()}
    assert ndvi[FOREST] > 0.6
    assert ndvi[FIELD] > 0.3
    assert ndvi[TOWN] < 0.3
    assert mean[WATER][5] < 0.2 * mean[TOWN][5]
    assert values.min() >= 1


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3])
def test_clouds_cover_their_share_and_are_bright(share: float) -> None:
    spec = Landscape(1, 500, 500, cloud_share=share)
    values, _, cloud = block(spec, spec.grid.full_window)
    assert cloud.mean() == pytest.approx(share, abs=0.01)
    if share:
        assert np.median(values[0][cloud]) > 3 * np.median(values[0][~cloud])


def test_shift_is_a_continuous_scale_of_spectral_change_only() -> None:
    window = Window(0, 0, 200, 200)

    def at(shift: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return block(Landscape(5, 400, 400, shift=shift), window)

    base, truth, cloud = at(0)
    distances = []
    for shift in (0.0, 0.1, 0.2, 0.4, 0.8, 1.6):
        values, same_truth, same_cloud = at(shift)
        np.testing.assert_array_equal(same_truth, truth)
        np.testing.assert_array_equal(same_cloud, cloud)
        distances.append(np.abs(values.astype(float) - base)[:, ~cloud].mean())
    assert distances[0] == 0
    assert all(b > a for a, b in pairwise(distances))
    assert distances[2] / distances[1] == pytest.approx(2, rel=0.1)


def test_sites_share_their_spectra_at_shift_0_only() -> None:
    def forest(site: str, shift: float) -> np.ndarray:
        spec = Landscape(5, 400, 400, shift=shift, site=site, cloud_share=0)
        values, truth, _ = block(spec, spec.grid.full_window)
        return np.asarray(values[:, truth == FOREST].mean(axis=1))

    same = np.abs(forest("a", 0) / forest("b", 0) - 1)
    different = np.abs(forest("a", 2) / forest("b", 2) - 1)
    assert same.max() < 0.1
    assert different.max() > 0.2


@pytest.mark.parametrize("n_bands", [1, 2, 6, 13])
@pytest.mark.parametrize("size", [(1, 1), (1, 70), (65, 3)])
def test_any_size_and_number_of_bands(n_bands: int, size: tuple[int, int]) -> None:
    spec = Landscape(0, *size, n_bands=n_bands)
    values, truth, cloud = block(spec, spec.grid.full_window)
    assert values.shape == (n_bands, *size)
    assert truth.shape == cloud.shape == size


def test_files_fit_together(tmp_path: Path, whole: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    write_scene(tmp_path / "scene.tif", SPEC, window_px=300)
    write_truth(tmp_path / "truth.tif", SPEC)
    write_polygons(tmp_path / "polygons.gpkg", SPEC, per_class=6)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "polygons.gpkg",
        "scene.tif",
        "truth.tif",
        "truth.tif.aux.xml",
    ]
    (scene,) = open_scenes([tmp_path / "scene.tif"])
    assert scene.band_names == ("blue", "green", "red", "nir", "swir1", "swir2")
    np.testing.assert_array_equal(scene.read(scene.grid.full_window).values, whole[0])
    with rasterio.open(tmp_path / "truth.tif") as dataset:
        np.testing.assert_array_equal(dataset.read(1), whole[1])
        assert dataset.tags()["CLASS_2"] == "forest"
    labels = read_labels(tmp_path / "polygons.gpkg", "class", grids=[scene.grid])
    assert labels.class_names == CLASS_NAMES
    assert set(labels.counts().values()) == {6}
    index = rasterize(labels, scene.grid, scene.grid.full_window)
    at = index >= 0
    assert (labels.class_ids[index[at]] == whole[1][at]).mean() > 0.98
    assert not whole[2][at].any()
    truth = read_labels(tmp_path / "truth.tif", "", grids=[scene.grid])
    assert truth.class_names == CLASS_NAMES


def test_polygons_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    first = read_labels(write_polygons(tmp_path / "a.gpkg", SPEC, 2), "class", grids=[SPEC.grid])
    second = read_labels(write_polygons(tmp_path / "b.gpkg", SPEC, 2), "class", grids=[SPEC.grid])
    assert first.fingerprint() == second.fingerprint()


@pytest.mark.parametrize(
    "wrong", [{"rows": 0}, {"shift": -1}, {"cloud_share": 1.0}, {"n_bands": 0}, {"shift": float("nan")}]
)
def test_fields_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"Landscape\.{next(iter(wrong))} is"):
        Landscape(**({"seed": 0, "rows": 5, "cols": 5} | wrong))  # type: ignore[arg-type]


def test_it_is_fast() -> None:
    block(SPEC, Window(0, 0, 512, 512))
    started = time.process_time()
    block(SPEC, Window(0, 0, 512, 512))
    assert time.process_time() - started < 1.0
