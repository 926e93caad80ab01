"""Map runs: what they write, resume, refuse and warn about."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from toy_mapping import toy_bundle, toy_pixels, toy_scene, write_raster

from berunda.errors import ConfigError, DataError, OutputError
from berunda.geo.raster import open_scenes
from berunda.mapping.backends import local
from berunda.mapping.bundle import Bundle
from berunda.mapping.lock import output_lock
from berunda.mapping.manifest import Origin
from berunda.mapping.run import map_scenes
from berunda.mapping.tiles import TileWork
from berunda.progress import Silent

NAMES = {"map.tif", "map.tif.aux.xml", "legend.qml", "confidence.tif", "ood.tif"}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return toy_bundle()


def written(folder):
    """Return the bytes of the finished files by name."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file() and p.name in NAMES}


def read(path):
    with rasterio.open(path) as file:
        return file.read()


def test_the_files_of_one_scene(tmp_path, bundle):
    scene = toy_scene(tmp_path, 100, 140)
    (result,) = map_scenes(bundle, [scene], tmp_path / "out")
    classes, confidence, ood = (read(p) for p in (result.files.map, result.files.confidence, result.files.ood))
    valid = (toy_pixels(100, 140) > 0).all(0)
    assert (classes.dtype, confidence.dtype, ood.dtype) == (np.uint8, np.float32, np.float32)
    assert (classes.shape, confidence.shape, ood.shape) == ((1, 100, 140), (1, 100, 140), (2, 100, 140))
    np.testing.assert_array_equal(classes[0] > 0, valid)
    for plane in (*confidence, *ood):
        np.testing.assert_array_equal(np.isfinite(plane), valid)
    assert confidence[0][valid].min() > 0
    assert confidence[0][valid].max() <= 1
    assert {p.name for p in (tmp_path / "out").iterdir()} >= {
        "map.tif",
        "legend.qml",
        "confidence.tif",
        "ood.tif",
    }
    assert not (tmp_path / "out" / ".work").exists()
    with rasterio.open(result.files.map) as file, rasterio.open(scene.paths[0]) as source:
        assert (file.transform, file.crs) == (source.transform, source.crs)
        assert file.nodata == 0
        assert file.colormap(1)[1][:3] == (0x1B, 0x9E, 0x77)
        assert file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG"
    with rasterio.open(result.files.ood) as file:
        assert float(file.tags()["OOD_THRESHOLD"]) == 9.5
        assert float(file.tags()["OOD_THRESHOLD_ENERGY"]) == -0.5
        assert np.isnan(file.nodata)


def test_the_result_counts_what_the_files_hold(tmp_path, bundle):
    scene = toy_scene(tmp_path, 130, 170)
    (result,) = map_scenes(bundle, [scene], tmp_path / "out")
    classes, confidence, ood = (read(p) for p in (result.files.map, result.files.confidence, result.files.ood))
    counts = np.bincount(classes.reshape(-1), minlength=5)
    assert list(result.class_pixels.values()) == counts[1:].tolist()
    assert list(result.class_pixels) == ["field", "forest", "town", "water"]
    assert result.class_area_m2["field"] == pytest.approx(counts[1] * 100, rel=1e-2)
    assert result.nodata_share == pytest.approx(counts[0] / counts.sum())
    assert result.mean_confidence == pytest.approx(np.nanmean(confidence, dtype=np.float64))
    assert result.ood_share == pytest.approx((ood[0] > 9.5).sum() / counts[1:].sum())
    assert result.ood_energy_share == pytest.approx((ood[1] > -0.5).sum() / counts[1:].sum())
    assert result.mpx_per_s is not None
    assert json.loads(json.dumps(result.as_dict()))["rows"] == 130


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (1, 97), (83, 1), (3, 5)])
def test_tiny_scenes(tmp_path, bundle, rows, cols):
    pixels = toy_pixels(rows, cols, holes=False)
    scene = open_scenes([write_raster(tmp_path / "tiny.tif", pixels)])[0]
    (result,) = map_scenes(bundle, [scene], tmp_path / "out")
    assert (read(result.files.map) > 0).all()
    assert read(result.files.ood).shape == (2, rows, cols)


def test_a_scene_without_data_gives_a_map_without_data(tmp_path, bundle, monkeypatch):
    from berunda.mapping.predictor import Predictor

    def refuse(*args: object) -> None:
        raise AssertionError("the net was asked about nodata")

    monkeypatch.setattr(Predictor, "predict", refuse)
    scene = open_scenes([write_raster(tmp_path / "void.tif", np.zeros((3, 90, 200), np.uint16))])[0]
    (result,) = map_scenes(bundle, [scene], tmp_path / "out")
    assert (read(result.files.map) == 0).all()
    assert np.isnan(read(result.files.confidence)).all()
    assert result.nodata_share == 1
    assert result.mean_confidence is None
    assert result.ood_share is None
    assert any("no valid pixel" in w for w in result.warnings)


def test_several_scenes_get_a_folder_each(tmp_path, bundle):
    scenes = [toy_scene(tmp_path, 40, 50, name=name, seed=i) for i, name in enumerate(("model", "east", "west"))]
    results = map_scenes(bundle, scenes, tmp_path / "out")
    assert [r.folder.name for r in results] == ["model_2", "east", "west"]
    assert all(r.files.map.is_file() for r in results)
    assert not (tmp_path / "out" / "map.tif").exists()
    legends = [p.read_bytes() for p in (tmp_path / "out" / "legend.qml", *(r.files.legend for r in results))]
    assert legends == [legends[0]] * 4


def test_a_map_names_the_labels_of_its_model(tmp_path, bundle):
    origins = tuple(Origin(name="p", fingerprint=f) for f in ("ba" * 32, "ab" * 32, "ab" * 32, "not a fingerprint"))
    training = bundle.manifest.training.model_copy(update={"labels": origins})
    taught = replace(bundle, manifest=bundle.manifest.model_copy(update={"training": training}))
    scene = toy_scene(tmp_path, 20, 20)
    for name, model, tag in (("taught", taught, "ab" * 8 + " " + "ba" * 8), ("bare", bundle, None)):
        (result,) = map_scenes(model, [scene], tmp_path / name)
        with rasterio.open(result.files.map) as file:
            assert file.tags().get("BERUNDA_LABELS") == tag


def test_a_mask_that_misses_a_scene_is_said(tmp_path, bundle):
    write_raster(tmp_path / "a.tif", toy_pixels(30, 30))
    with rasterio.open(write_raster(tmp_path / "b.tif", toy_pixels(30, 30)), "r+") as file:
        file.transform = from_origin(500000, 5800000, 10, 10)
    mask = write_raster(tmp_path / "mask.tif", np.zeros((1, 30, 30), np.uint16), nodata=None)
    results = map_scenes(bundle, open_scenes([tmp_path / "a.tif", tmp_path / "b.tif"], mask=mask), tmp_path / "out")
    said = [[w for w in r.warnings if "--mask" in w] for r in results]
    assert said == [[], ["scene b: the raster given with --mask covers none of it; nothing is masked there"]]


def test_bands_are_chosen_by_name(tmp_path, bundle):
    pixels = toy_pixels(60, 60, n_bands=4)
    path = write_raster(tmp_path / "a.tif", pixels)
    other = write_raster(tmp_path / "b.tif", pixels[[2, 3, 0, 1]], names=("b3", "b4", "b1", "b2"))
    one = open_scenes([path])[0]
    two = open_scenes([other])[0]
    first, second = (map_scenes(bundle, [s], tmp_path / n)[0] for s, n in ((one, "one"), (two, "two")))
    np.testing.assert_array_equal(read(first.files.ood), read(second.files.ood))
    with pytest.raises(DataError, match="band b1, b2, b3 not found; it has r, g, n, x") as caught:
        map_scenes(bundle, [open_scenes([path], bands=["r", "g", "n", "x"])[0]], tmp_path / "three")
    assert "--bands" in str(caught.value)
    assert not (tmp_path / "three").exists()


def test_a_finished_map_is_kept_and_a_changed_scene_or_bundle_mapped_anew(tmp_path, bundle):
    scene = toy_scene(tmp_path, 60, 80)
    out = tmp_path / "out"
    (first,) = map_scenes(bundle, [scene], out)
    before = written(out)
    (again,) = map_scenes(bundle, [scene], out)
    assert (again.mpx_per_s, again.n_tiles_kept) == (None, again.n_tiles)
    assert again.class_pixels == first.class_pixels
    assert written(out) == before
    scene.close()
    changed = toy_scene(tmp_path, 60, 80, seed=9)
    (third,) = map_scenes(bundle, [changed], out)
    assert third.mpx_per_s is not None
    assert written(out)["map.tif"] != before["map.tif"]
    other = Bundle(bundle.manifest.model_copy(update={"margin_px": 8}), bundle.tensors)
    assert map_scenes(other, [changed], out)[0].mpx_per_s is not None
    assert map_scenes(other, [changed], out, resume=False)[0].n_tiles_kept == 0


def test_a_damaged_finished_file_is_made_anew(tmp_path, bundle):
    scene = toy_scene(tmp_path, 60, 80)
    out = tmp_path / "out"
    map_scenes(bundle, [scene], out)
    before = written(out)
    (out / "ood.tif").write_bytes(before["ood.tif"][:1000])
    map_scenes(bundle, [scene], out)
    assert written(out) == before


class Stop(Exception):
    """Ends a run in the middle."""


def interrupted(bundle, scene, out, monkeypatch, n_tiles):
    keep = TileWork.keep
    calls = {"n": 0}

    def failing(self, index, planes):
        calls["n"] += 1
        if calls["n"] > n_tiles:
            raise Stop
        return keep(self, index, planes)

    with monkeypatch.context() as patch:
        patch.setattr(TileWork, "keep", failing)
        with pytest.raises(Stop):
            map_scenes(bundle, [scene], out, tile_px=32)


def test_an_interrupted_run_goes_on(tmp_path, bundle, monkeypatch):
    scene = toy_scene(tmp_path, 100, 140)
    map_scenes(bundle, [scene], tmp_path / "whole", tile_px=32)
    out = tmp_path / "out"
    interrupted(bundle, scene, out, monkeypatch, 4)
    assert not NAMES & {p.name for p in out.iterdir()}
    (result,) = map_scenes(bundle, [scene], out, tile_px=32)
    assert result.n_tiles_kept == 4
    assert written(out) == written(tmp_path / "whole")


def test_a_damaged_tile_of_an_interrupted_run_is_made_anew(tmp_path, bundle, monkeypatch):
    scene = toy_scene(tmp_path, 100, 140)
    map_scenes(bundle, [scene], tmp_path / "whole", tile_px=32)
    out = tmp_path / "out"
    interrupted(bundle, scene, out, monkeypatch, 4)
    tiles = sorted((out / ".work").rglob("*.tile"))
    tiles[0].write_bytes(b"x" + tiles[0].read_bytes()[1:])
    tiles[1].unlink()
    (result,) = map_scenes(bundle, [scene], out, tile_px=32)
    assert result.n_tiles_kept == 2
    assert written(out) == written(tmp_path / "whole")


def test_what_an_interrupted_run_of_another_plan_left_is_dropped(tmp_path, bundle, monkeypatch):
    scene = toy_scene(tmp_path, 100, 140)
    out = tmp_path / "out"
    interrupted(bundle, scene, out, monkeypatch, 4)
    other = Bundle(bundle.manifest.model_copy(update={"margin_px": 8}), bundle.tensors)
    (result,) = map_scenes(other, [scene], out, tile_px=32)
    assert result.n_tiles_kept == 0
    map_scenes(other, [scene], tmp_path / "whole", tile_px=32)
    assert written(out) == written(tmp_path / "whole")


def test_a_second_run_on_the_folder_is_refused(tmp_path, bundle):
    scene = toy_scene(tmp_path, 40, 40)
    out = tmp_path / "out"
    code = (
        "import sys; from berunda.mapping.lock import output_lock\n"
        "with output_lock(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "held"
        with pytest.raises(OutputError, match=f"process {other.pid}"):
            map_scenes(bundle, [scene], out)
        assert not NAMES & {p.name for p in out.iterdir()}
    finally:
        other.kill()
        other.communicate()
    map_scenes(bundle, [scene], out)  # the lock of a killed run is stale
    assert (out / "map.tif").is_file()


def test_the_lock_nests_and_is_given_back(tmp_path):
    with output_lock(tmp_path), output_lock(tmp_path):
        pass
    with output_lock(tmp_path):
        pass


def test_warnings_name_what_is_wrong(tmp_path, bundle):
    pixels = toy_pixels(60, 60) + np.array([[[0]], [[5000]], [[0]]], np.uint16)
    scene = open_scenes([write_raster(tmp_path / "s.tif", pixels, nodata=None)])[0]
    manifest = bundle.manifest
    plain = manifest.model_copy(
        update={
            "ood": manifest.ood.model_copy(update={"threshold": None}),
            "calibration": manifest.calibration.model_copy(update={"is_fitted": False, "warning": "one polygon"}),
        }
    )
    (result,) = map_scenes(Bundle(plain, bundle.tensors), [scene], tmp_path / "out")
    told = " | ".join(result.warnings)
    assert "1 of 3 bands: b2" in told
    assert "no out-of-distribution threshold" in told
    assert "not calibrated: one polygon" in told
    strict = manifest.model_copy(update={"ood": manifest.ood.model_copy(update={"threshold": 0.0})})
    (result,) = map_scenes(Bundle(strict, bundle.tensors), [scene], tmp_path / "strict")
    assert any("100% of the pixels are unlike" in w for w in result.warnings)


def test_options_are_checked(tmp_path, bundle):
    for options in ({"tile_px": 0}, {"workers": 0}):
        with pytest.raises(ConfigError, match="at least 1"):
            map_scenes(bundle, [toy_scene(tmp_path, 5, 5)], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


class Told(Silent):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.stages: dict[str, list[int]] = {}

    def start(self, name: str, total: int) -> None:
        self.stages[name] = [total, 0]

    def advance(self, n: int = 1, **figures: float) -> None:
        list(self.stages.values())[-1][1] += n


def test_progress_adds_up(tmp_path, bundle, monkeypatch):
    scene = toy_scene(tmp_path, 100, 140)
    interrupted(bundle, scene, tmp_path / "out", monkeypatch, 4)
    told = Told()
    map_scenes(bundle, [scene], tmp_path / "out", tile_px=32, progress=told)
    assert told.stages == {"mapping scene": [14000, 14000], "writing": [14000, 14000]}


def test_the_threads_of_torch_are_given_back(tmp_path, bundle, monkeypatch):
    import torch

    before = torch.get_num_threads()
    interrupted(bundle, toy_scene(tmp_path, 60, 60), tmp_path / "out", monkeypatch, 0)
    assert torch.get_num_threads() == before
    assert local.__doc__
