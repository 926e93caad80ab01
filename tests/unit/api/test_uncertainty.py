"""What a model is asked about images of sites, when, and what becomes of its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toy_mapping import toy_bundle
from toy_masks import write_png, write_tif
from toy_patches import scene_bundle
from toy_sites import picture, write_sites

from berunda.api.analyze_verb import analyze
from berunda.api.uncertainty import measure_uncertainty
from berunda.assess import description
from berunda.assess.next_labels import rank_next
from berunda.data.site_layouts import Cutting, find_sites
from berunda.data.site_pixels import Patch, SitePixels
from berunda.data.sites import SiteSet
from berunda.errors import BerundaError, DataError
from berunda.mapping.arrays import predict_array, predict_arrays
from berunda.mapping.bundle import save_bundle
from berunda.mapping.patches import ScenePredictor
from berunda.mapping.predictor import Predictor
from berunda.options.analyze import AnalyzeOptions
from berunda.progress import Silent


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path / "cache"))


def rasters(folder: Path) -> SiteSet:
    """Return two sites of three rasters: of 40 and 70 px, and one without data."""
    draw = np.random.default_rng(0)
    for site in ("a", "b"):
        for name, side in (("0", 40), ("1", 70), ("2", 40)):
            values = draw.integers(100, 1100, (3, side, side)).astype(np.uint16)
            write_tif(folder / site / f"{name}.tif", values * (name != "2"), nodata=0)
    return find_sites([str(folder)], Cutting(block_px=64))


def test_of_maps_it_is_the_mean_of_all_valid_pixels_and_unknown_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites, bundle = rasters(tmp_path), toy_bundle()
    sizes: list[int] = []
    whole = Predictor.predict

    def counted(self: Predictor, pixels: Any, valid: Any) -> Any:
        sizes.append(len(pixels))
        return whole(self, pixels, valid)

    monkeypatch.setattr(Predictor, "predict", counted)
    monkeypatch.setattr("berunda.mapping.predictor.BATCH", 3)  # as on an accelerator
    found = measure_uncertainty(bundle, sites, np.array([1, 2, 4]), device="cpu", progress=Silent())
    assert np.isnan(found).tolist() == [True, False, True, True, False, True]
    assert sizes[:-1] == [3] * (len(sizes) - 1)
    predictor = Predictor(bundle, "cpu")
    for index in (1, 4):
        patch = SitePixels(sites).read(index)
        assert isinstance(patch, Patch)
        mean = float(predict_array(predictor, patch.pixels, patch.valid).confidence.mean())
        assert found[index] == pytest.approx((1 - mean) / 0.75, abs=1e-4)
        assert 0 < found[index] < 1


def test_windows_of_several_images_in_one_batch_give_the_answers_of_each(tmp_path: Path) -> None:
    predictor = Predictor(toy_bundle(), "cpu")
    draw = np.random.default_rng(1)
    images = [(draw.uniform(100, 1100, (3, n, n + 9)).astype(np.float32), np.ones((n, n + 9), bool)) for n in (20, 75)]
    together = predict_arrays(predictor, images, 3)
    for (values, valid), planes in zip(images, together, strict=True):
        alone = predict_array(predictor, values, valid)
        assert planes.confidence.shape == valid.shape
        assert np.allclose(planes.confidence, alone.confidence, atol=1e-4)
        assert (planes.classes == alone.classes).mean() > 0.999


@pytest.mark.parametrize("task", ["scene", "multilabel"])
def test_of_whole_images_of_any_size(tmp_path: Path, task: str) -> None:
    for k, side in enumerate((16, 24, 16, 24, 16)):
        write_png(tmp_path / f"s{k % 2}" / f"{k}.png", picture(k, side=side))
    sites, bundle = find_sites([str(tmp_path)], Cutting()), scene_bundle(task=task)
    found = measure_uncertainty(bundle, sites, np.arange(5), device="cpu", progress=Silent())
    predictor = ScenePredictor(bundle, "cpu")
    for index, item in enumerate(sites.items):
        given = np.asarray(Image.open(item.path)).transpose(2, 0, 1) / np.float32(255) * 2 - 1
        sure = predictor.predict(given[None].astype(np.float32)).probabilities[0]
        of_scene, of_several = (1 - sure.max()) / (1 - 1 / len(sure)), (1 - np.maximum(sure, 1 - sure).mean()) / 0.5
        expected = of_scene if task == "scene" else of_several
        assert found[index] == pytest.approx(expected, abs=1e-4)


def options(root: Path, bundle: Path, **more: Any) -> AnalyzeOptions:
    given = {"inputs": [str(root)], "image_px": 32, "bundle": str(bundle), "device": "cpu", "label_next": 3}
    return AnalyzeOptions.make({**given, **more})


def test_an_analysis_asks_about_candidates_alone(tmp_path: Path) -> None:
    root = write_sites(tmp_path / "sites", 6)
    save_bundle(tmp_path / "m", scene_bundle())
    outcome = analyze(options(root, tmp_path / "m", labelled=("east",), test=("west",)), tmp_path / "out")
    found, sites = outcome.analysis.uncertainty, outcome.analysis.sites
    assert found is not None
    open_ = sites.items_of(sites.of_role("unlabelled"))
    assert sorted(np.flatnonzero(np.isfinite(found))) == sorted(open_)
    assert "uncertainty" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_model_that_does_not_fit_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_sites(tmp_path / "sites", 4)
    save_bundle(tmp_path / "m", scene_bundle(bands=("nir", "red", "green")))

    def never(*_: object, **__: object) -> None:
        raise AssertionError("described before the model was looked at")

    monkeypatch.setattr(description, "_cache_path", never)
    with pytest.raises(DataError, match=r"red, green, blue\), the model of --bundle has 3 \(nir, red, green\)"):
        analyze(options(root, tmp_path / "m"), tmp_path / "out")
    with pytest.raises(BerundaError, match="nowhere"):
        analyze(options(root, tmp_path / "nowhere"), tmp_path / "out")


def test_the_model_knows_bands_by_the_names_that_were_given(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for site in ("a", "b"):
        for k in range(4):
            write_tif(tmp_path / "d" / site / f"{k}.tif", draw.integers(1, 255, (3, 40, 40)).astype(np.uint16))
    save_bundle(tmp_path / "m", scene_bundle(bands=("blue", "red", "green")))
    given = options(tmp_path / "d", tmp_path / "m", bands=("red", "green", "blue"))
    found = analyze(given, tmp_path / "out").analysis.uncertainty
    assert found is not None
    assert np.isfinite(found).all()


def test_images_of_which_nothing_is_known_are_ranked_last() -> None:
    points = np.array([[0.0], [9.0], [1.0], [2.0], [5.0]])
    unsure = np.array([0.0, np.nan, 1.0, 0.0, np.nan])
    found = rank_next(points, np.array([0]), np.array([1, 2, 3, 4]), 4, uncertainty=unsure)
    assert found.index.tolist() == [2, 3, 1, 4]
    assert np.isfinite(found.score).all()
    first = rank_next(points, np.zeros(0, int), np.array([1, 2, 4]), 3, uncertainty=unsure)
    assert first.index.tolist()[0] == 2
