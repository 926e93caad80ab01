"""Maps of whole-image models: one pixel a patch, the same whatever the tiling, resumed, in their place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from affine import Affine
from toy_mapping import toy_bundle, toy_pixels
from toy_patches import scene_bundle
from toy_rasters import NORTH_UP, write_tif

from berunda.data.scaling import scale_pixels
from berunda.errors import ConfigError, DataError
from berunda.geo.grid import Grid, Shape
from berunda.geo.raster import Scene, open_scenes
from berunda.mapping import patch_map
from berunda.mapping.arrivals import Arrivals
from berunda.mapping.assemble import Assembly
from berunda.mapping.bundle import Bundle
from berunda.mapping.journal import Receipt
from berunda.mapping.layers import LIKELIHOOD_NAME, likelihood_share
from berunda.mapping.patches import ScenePredictor
from berunda.mapping.plan import Lattice, Plan
from berunda.mapping.result import MapFiles
from berunda.mapping.run import map_scenes
from berunda.mapping.tiles import TileStore

NAMES = ("red", "green", "blue")
BUNDLE = scene_bundle(high=1300.0)
THRESHOLDS = (0.3, 0.55, 0.5)


def several_labels() -> Bundle:
    bundle = scene_bundle(task="multilabel", high=1300.0)
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"thresholds": THRESHOLDS}))


SEVERAL = several_labels()
EITHER = pytest.mark.parametrize("bundle", [BUNDLE, SEVERAL], ids=["one class", "several labels"])


def made_scene(path: Path, rows: int = 150, cols: int = 203, *, holes: bool = False) -> Scene:
    pixels = toy_pixels(rows, cols, holes=False)
    if holes:
        pixels[:, 32:64, 16:48] = 0  # four whole patches
        pixels[:, 96:112, 100:112] = 0  # most of a patch
        pixels[:, 0:4, 0:4] = 0  # little of the first
    return open_scenes([write_tif(path, pixels, names=NAMES, nodata=0)])[0]


def rasters(folder: Path) -> list[np.ndarray]:
    found = []
    for name in ("map.tif", "confidence.tif", "ood.tif", "probabilities.tif"):
        if (folder / name).exists():
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


def test_of_several_labels_each_has_a_band(tmp_path: Path) -> None:
    scene = made_scene(tmp_path / "scene.tif")
    (result,) = map_scenes(SEVERAL, [scene], tmp_path / "out", device="cpu", precision="fp32")
    shown, confidence, ood, shares = rasters(tmp_path / "out")
    assert shown.shape == shares.shape == (3, 10, 13)
    assert (shown.dtype, shares.dtype) == (np.uint8, np.float32)
    predictor = ScenePredictor(SEVERAL, precision="fp32")
    whole = scene.read(scene.grid.full_window)
    for row, col in ((0, 0), (3, 7), (9, 12)):
        top, left = min(16 * row, 150 - 16), min(16 * col, 203 - 16)
        patch = whole.values[:, top : top + 16, left : left + 16]
        said = predictor.predict(scale_pixels(patch, np.ones((16, 16), bool), *predictor.scaling)[None])
        np.testing.assert_allclose(shares[:, row, col], said.probabilities[0], rtol=1e-4)
        np.testing.assert_allclose(ood[:, row, col], [said.distance[0], said.energy[0]], rtol=1e-3)
    np.testing.assert_allclose(confidence[0], np.maximum(shares, 1 - shares).mean(0), rtol=1e-5)
    np.testing.assert_array_equal(shown == 2, shares >= np.array(THRESHOLDS, np.float32)[:, None, None])
    assert set(np.unique(shown)) == {1, 2}
    assert list(result.class_pixels.values()) == (shown == 2).sum((1, 2)).tolist()
    assert result.nodata_share == 0
    assert result.mean_confidence == pytest.approx(confidence.mean(), rel=1e-5)


def test_bands_of_labels_carry_their_names_thresholds_and_meaning(tmp_path: Path) -> None:
    (result,) = map_scenes(SEVERAL, [made_scene(tmp_path / "scene.tif", 64, 64)], tmp_path / "out", device="cpu")
    with rasterio.open(result.files.map) as file:
        assert (file.descriptions, file.nodata) == (("bright", "dark", "striped"), 0)
        assert (file.tags()["CLASS_1"], file.tags()["CLASS_2"]) == ("absent", "present")
    assert result.files.probabilities is not None
    with rasterio.open(result.files.probabilities) as file:
        assert file.descriptions == ("bright", "dark", "striped")
        assert [float(file.tags()[f"THRESHOLD_{i}"]) for i in (1, 2, 3)] == list(THRESHOLDS)
        assert file.transform == NORTH_UP * Affine.scale(16)
    side = ElementTree.parse(tmp_path / "out" / "map.tif.aux.xml")
    names = [[c.text for c in band.iter("Category")] for band in side.iter("PAMRasterBand")]
    assert names == [["nodata", "absent", "present"]] * 3
    entries = ElementTree.parse(result.files.legend).iter("paletteEntry")
    assert [(entry.get("value"), entry.get("label")) for entry in entries] == [("1", "absent"), ("2", "present")]


def test_a_map_of_classes_replaces_one_of_labels_whole(tmp_path: Path) -> None:
    scene = made_scene(tmp_path / "scene.tif", 64, 64)
    map_scenes(SEVERAL, [scene], tmp_path / "out", device="cpu")
    (again,) = map_scenes(SEVERAL, [scene], tmp_path / "out", device="cpu")
    assert again.mpx_per_s is None  # it stands complete, and is not made anew
    assert (tmp_path / "out" / "probabilities.tif").exists()
    map_scenes(BUNDLE, [scene], tmp_path / "out", device="cpu")
    assert not (tmp_path / "out" / "probabilities.tif").exists()


def test_maps_of_labels_are_written_block_by_block(tmp_path: Path) -> None:
    for bundle, side in ((SEVERAL, 512), (BUNDLE, 1024)):
        grid = Grid(Shape(1100, 1030), NORTH_UP, "")
        plan = Plan("s", "b", grid, Lattice(16, 0, 64), (), 1200, 1200)
        store, empty = TileStore(tmp_path, len(bundle.manifest.label_names)), Arrivals({0: Receipt(0, "", 0)})
        assembly = Assembly(plan, bundle.manifest, store, empty, tmp_path, MapFiles.under(tmp_path))
        shapes = [planes.confidence.shape for _, planes in assembly.chunks()]
        assert max(shapes) == (side, side)
        assert sum(rows * cols for rows, cols in shapes) == 1100 * 1030


@EITHER
def test_tiles_and_workers_change_no_bit(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_map, "BLOCK_CELLS", 4)
    scene = made_scene(tmp_path / "scene.tif", holes=True)
    settings = ({"tile_px": 2048}, {"tile_px": 64, "workers": 2}, {"tile_px": 96})
    made = []
    for number, options in enumerate(settings):
        map_scenes(bundle, [scene], tmp_path / str(number), device="cpu", stride_px=8, **options)  # type: ignore[arg-type]
        made.append(rasters(tmp_path / str(number)))
    assert made[0][0].shape[1:] == (19, 26)
    for other in made[1:]:
        for one, two in zip(made[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


@EITHER
def test_patches_with_little_data_are_nodata(bundle: Bundle, tmp_path: Path) -> None:
    scene = made_scene(tmp_path / "scene.tif", holes=True)
    (result,) = map_scenes(bundle, [scene], tmp_path / "out", device="cpu")
    classes, confidence, ood, *shares = rasters(tmp_path / "out")
    empty = np.zeros((10, 13), bool)
    empty[2:4, 1:3] = True
    empty[6, 6] = True
    for band in classes:
        np.testing.assert_array_equal(band == 0, empty)
    for band in (confidence[0], *ood, *(band for raster in shares for band in raster)):
        np.testing.assert_array_equal(np.isnan(band), empty)
    assert result.nodata_share == pytest.approx(5 / 130)


def test_a_scene_smaller_than_a_patch_gets_one_pixel(tmp_path: Path) -> None:
    scene = made_scene(tmp_path / "scene.tif", rows=15, cols=14)
    map_scenes(BUNDLE, [scene], tmp_path / "out", device="cpu")
    assert rasters(tmp_path / "out")[0].shape == (1, 1, 1)
    assert rasters(tmp_path / "out")[0].max() > 0


@EITHER
def test_a_stopped_map_goes_on_with_the_tiles_that_are_there(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        map_scenes(bundle, [scene], tmp_path / "out", device="cpu", tile_px=32)
    assert not (tmp_path / "out" / "map.tif").exists()
    monkeypatch.setattr(patch_map.PatchWork, "keep", keep)
    (result,) = map_scenes(bundle, [scene], tmp_path / "out", device="cpu", tile_px=32)
    assert result.is_complete
    assert 0 < result.n_tiles_kept < result.n_tiles
    map_scenes(bundle, [scene], tmp_path / "whole", device="cpu", tile_px=32)
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
