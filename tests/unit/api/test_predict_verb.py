"""Predicting: where it may write, how it computes, what it leaves open."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from toy_mapping import toy_bundle, toy_pixels
from toy_rasters import write_tif

from berunda.api.predict_verb import PredictSettings, predict
from berunda.errors import ConfigError, DataError, OutputError
from berunda.geo.raster import Scene
from berunda.mapping.bundle import save_bundle


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_bundle(tmp_path / "run" / "model", toy_bundle())


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_tif(tmp_path / "other.tif", toy_pixels(40, 50), nodata=0)


def test_it_takes_few_parameters_and_plain_keywords(
    model: Path, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(inspect.signature(predict).parameters) <= 8
    assert PredictSettings().device == "auto"
    closed: list[str] = []
    close = Scene.close
    monkeypatch.setattr(Scene, "close", lambda self: (closed.append(self.name), close(self))[1])
    outcome = predict(str(model), [str(scene)], str(tmp_path / "out"), device="cpu", tile_px=64)
    assert outcome.is_complete
    assert closed == ["other"]
    with pytest.raises(TypeError, match="wokers"):
        predict(model, [scene], tmp_path / "out", wokers=2)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["report.json", "run.yaml"])
def test_the_map_of_a_run_is_not_replaced(name: str, model: Path, scene: Path) -> None:
    (model.parent / name).write_text("{}")
    with pytest.raises(OutputError, match=f"--out .*run is the folder of a map run .*{name} is there"):
        predict(model, [scene], model.parent)
    assert not (model.parent / "map.tif").exists()


def test_a_device_that_is_not_there_is_told_before_the_scene_is_read(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cuda:57"):
        predict(model, ["none.tif"], tmp_path / "out", device="cuda:57")
    assert not (tmp_path / "out").exists()


def test_a_band_that_is_missing_is_told_with_the_flag(model: Path, tmp_path: Path) -> None:
    scene = write_tif(tmp_path / "two.tif", toy_pixels(40, 50)[:2])
    with pytest.raises(DataError, match=r"band b3 not found; it has b1, b2.*--bands"):
        predict(model, [scene], tmp_path / "out")
