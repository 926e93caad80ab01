"""Maps of whole-image models: one pixel a patch, the same whatever the tiling, resumed, in their place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from toy_mapping import toy_bundle, toy_pixels
from toy_patches import scene_bundle
from toy_rasters import NORTH_UP, write_tif

from berunda.data.scaling import scale_pixels
from berunda.errors import ConfigError, DataError
from berunda.geo.raster import Scene, open_scenes
from berunda.mapping import patch_map
from berunda.mapping.assemble import LIKELIHOOD_NAME, likelihood_share
from berunda.mapping.bundle import Bundle
from berunda.mapping.patches import ScenePredictor
from berunda.mapping.run import map_scenes

NAMES = ("red", "green", "blue")
BUNDLE = scene_bundle(high=1300.0)


def made_scene(path: Path, rows: int = 150, cols: int = 203, *, holes: bool = False) -> Scene:
    pixels = toy_pixels(rows, cols, holes=False)
    if holes:
        pixels[:, 32:64, 16:48] = 0  # four whole patches
        pixels[:, 96:112, 100:112] = 0  # most of a patch
        pixels[:, 0:4, 0:4] = 0  # little of the first
    return open_scenes([write_tif(path, pixels, names=NAMES, nodata=0)])[0]


def rasters(folder: Path) -> list[np.ndarray]:
    found = []
    for name in ("map.tif", "confidence.tif", "ood.tif"):
        with rasterio.open(folder / name) as file:
            found.append(file.read())
    return found


def test_every_pixel_is_the_answer_to_its_patch(tmp_path: Path) -> None:
    scene = made_scene(tmp_path / "scene.tif")
    (result,) = map_scenes(BUNDLE, [scene], tmp_path / "out", device="cpu", precision="fp32")
    classes, confidence, ood = rasters(tmp_path / "out")
    assert classes.shape == (1, 10, 13)  # 150 x 203 px in patches of 16, the last ones reaching out
    predictor = ScenePredictor(BUNDLE, precision="fp32")
    whole = scene.read(scene.grid.full_window)
    for row, col in ((0, 0), (3, 7), (9, 12), (9, 0)):
        top, left = min(16 * row, 150 - 16), min(16 * col, 203 - 16)
        patch = whole.values[:, top : top + 16, left : left + 16]
        said = predictor.predict(scale_pixels(patch, np.ones((16, 16), bool), *predictor.scaling)[None])
        assert classes[0, row, col] == said.classes[0] + 1
        np.testing.assert_allclose(confidence[0, row, col], said.confidence[0], rtol=1e-4)
        np.testing.assert_allclose(ood[:, row, col], [said.distance[0], said.energy[0]], rtol=1e-3)
    assert sum(result.class_pixels.values()) == 130
    with rasterio.open(tmp_path / "out" / "map.tif") as made:
        assert made.transform == NORTH_UP * Affine.scale(16)
        assert made.crs.to_epsg() == 32633
        assert made.tags()["CLASS_1"] == "bright"
    assert (tmp_path / "out" / "legend.qml").is_file()


def test_tiles_and_workers_change_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_map, "BLOCK_CELLS", 4)
    scene = made_scene(tmp_path / "scene.tif", holes=True)
    settings = ({"tile_px": 2048}, {"tile_px": 64, "workers": 2}, {"tile_px": 96})
    made = []
    for number, options in enumerate(settings):
        map_scenes(BUNDLE, [scene], tmp_path / str(number), device="cpu", stride_px=8, **options)  # type: ignore[arg-type]
        made.append(rasters(tmp_path / str(number)))
    assert made[0][0].shape == (1, 19, 26)
    for other in made[1:]:
        for one, two in zip(made[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


def test_patches_with_little_data_are_nodata(tmp_path: Path) -> None:
    scene = made_scene(tmp_path / "scene.tif", holes=True)
    map_scenes(BUNDLE, [scene], tmp_path / "out", device="cpu")
    classes, confidence, ood = rasters(tmp_path / "out")
    empty = np.zeros((10, 13), bool)
    empty[2:4, 1:3] = True
    empty[6, 6] = True
    np.testing.assert_array_equal(classes[0] == 0, empty)
    for band in (confidence[0], *ood):
        np.testing.assert_array_equal(np.isnan(band), empty)


def test_a_scene_smaller_than_a_patch_gets_one_pixel(tmp_path: Path) -> None:
    scene = made_scene(tmp_path / "scene.tif", rows=15, cols=14)
    map_scenes(BUNDLE, [scene], tmp_path / "out", device="cpu")
    assert rasters(tmp_path / "out")[0].shape == (1, 1, 1)
    assert rasters(tmp_path / "out")[0].max() > 0


def test_a_stopped_map_goes_on_with_the_tiles_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_map, "BLOCK_CELLS", 2)
    scene = made_scene(tmp_path / "scene.tif")
    keep, n_kept = patch_map.PatchWork.keep, []

    def stop_later(self, index, planes):  # type: ignore[no-untyped-def]
        if index == 5:
            raise KeyboardInterrupt
        n_kept.append(index)
        return keep(self, index, planes)

    monkeypatch.setattr(patch_map.PatchWork, "keep", stop_later)
    with pytest.raises(KeyboardInterrupt):
        map_scenes(BUNDLE, [scene], tmp_path / "out", device="cpu", tile_px=32)
    assert not (tmp_path / "out" / "map.tif").exists()
    monkeypatch.setattr(patch_map.PatchWork, "keep", keep)
    (result,) = map_scenes(BUNDLE, [scene], tmp_path / "out", device="cpu", tile_px=32)
    assert result.is_complete
    assert 0 < result.n_tiles_kept < result.n_tiles
    map_scenes(BUNDLE, [scene], tmp_path / "whole", device="cpu", tile_px=32)
    for one, two in zip(rasters(tmp_path / "out"), rasters(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(one, two)


def test_radiometry_and_bands_are_checked_as_for_any_map(tmp_path: Path) -> None:
    pixels = toy_pixels(64, 64, holes=False)
    scene = open_scenes([write_tif(tmp_path / "far.tif", pixels * 20, names=NAMES)])[0]
    (result,) = map_scenes(BUNDLE, [scene], tmp_path / "out", device="cpu")
    assert any("radiometry far from the training scene in 3 of 3 bands" in text for text in result.warnings)
    other = open_scenes([write_tif(tmp_path / "other.tif", pixels)])[0]
    with pytest.raises(DataError, match="band red, green, blue not found"):
        map_scenes(BUNDLE, [other], tmp_path / "none")


def test_options_of_the_other_kind_of_model_are_refused(tmp_path: Path) -> None:
    scene = made_scene(tmp_path / "scene.tif", 64, 64)
    with pytest.raises(ConfigError, match="--stride is 17 px, expected 1 to 16"):
        map_scenes(BUNDLE, [scene], tmp_path / "out", stride_px=17)
    with pytest.raises(ConfigError, match="--dask"):
        map_scenes(BUNDLE, [scene], tmp_path / "out", dask="local:1")
    with pytest.raises(ConfigError, match="--stride: the model maps single pixels"):
        map_scenes(toy_bundle(), [scene], tmp_path / "out", stride_px=8)
    with pytest.raises(DataError, match="'multilabel': a map shows one class a pixel"):
        map_scenes(scene_bundle(task="multilabel"), [scene], tmp_path / "out")


def with_quantiles(*quantiles: float) -> Bundle:
    assert BUNDLE.manifest.ood is not None
    ood = BUNDLE.manifest.ood.model_copy(update={"energy_quantiles": quantiles})
    return Bundle(BUNDLE.manifest.model_copy(update={"ood": ood}), BUNDLE.tensors)


def test_a_share_of_validation_data_is_that_which_is_at_most_as_likely() -> None:
    energies = np.random.default_rng(0).normal(size=1000)
    quantiles = np.quantile(energies, np.linspace(0, 1, 101))
    asked = np.array([energies.min() - 1, *energies[:50], energies.max() + 1, np.nan], np.float32)
    shares = likelihood_share(asked, quantiles.tolist())
    expected = [(energies >= value).mean() for value in asked[:-1]]
    np.testing.assert_allclose(shares[:-1], expected, atol=0.01)
    assert (shares[0], shares[-2]) == (1, 0)
    assert np.isnan(shares[-1])


def test_where_the_energy_is_a_density_the_map_carries_it_within_0_to_1(tmp_path: Path) -> None:
    scene = made_scene(tmp_path / "scene.tif", holes=True)
    map_scenes(BUNDLE, [scene], tmp_path / "plain", device="cpu")
    plain, energy = rasters(tmp_path / "plain")[1], rasters(tmp_path / "plain")[2][1]
    assert len(plain) == 1
    low, middle, high = (float(x) for x in np.nanquantile(energy, [0.1, 0.3, 0.9]))
    map_scenes(with_quantiles(low, middle, high), [scene], tmp_path / "out", device="cpu")
    confidence = rasters(tmp_path / "out")[1]
    np.testing.assert_array_equal(confidence[0], plain[0])
    np.testing.assert_allclose(confidence[1], 1 - np.interp(energy, [low, middle, high], [0, 0.5, 1]), atol=1e-6)
    np.testing.assert_array_equal(np.isnan(confidence[1]), np.isnan(plain[0]))
    assert (np.nanmin(confidence[1]), np.nanmax(confidence[1])) == (0, 1)
    with rasterio.open(tmp_path / "out" / "confidence.tif") as made:
        assert made.descriptions == ("confidence", LIKELIHOOD_NAME)
