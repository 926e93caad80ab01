"""A map run that stopped: it goes on where it was, or starts anew when it is another run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from toy_command import toy_labels, toy_scene

from berunda.api import pipeline
from berunda.api.map_verb import map_scene
from berunda.config import MapConfig
from berunda.errors import ConfigError, OutputError
from berunda.geo import raster
from berunda.mapping.lock import output_lock


class Notes:
    """Progress that keeps what it was told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def start(self, name: str, total: int) -> None: ...

    def advance(self, n: int = 1, **figures: float) -> None: ...

    def finish(self) -> None: ...

    def note(self, text: str) -> None:
        self.texts.append(text)


def config(folder: Path, **options: Any) -> MapConfig:
    scene = folder / "scene.tif"
    if not scene.exists():
        toy_scene(scene)
        toy_labels(folder / "polygons.gpkg")
    given = {"steps": 2, "crop_px": 32, "block_px": 32, "method": "supervised", "field": "class", "pretrained": False}
    return MapConfig(**{"scenes": [str(scene)], "labels": str(folder / "polygons.gpkg"), **given, **options})


class Stopped(Exception):
    """Stands for a kill between training and map."""


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Runs stop after the training, until the patch is undone."""

    def stop(*_: object, **__: object) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "map_scenes", stop)
        yield patch


def stop_after_training(out: Path, given: MapConfig) -> list[str]:
    notes = Notes()
    with pytest.raises(Stopped):
        map_scene(given, out, progress=notes)
    return notes.texts


def test_a_rerun_with_options_that_decide_no_weight_goes_on(
    tmp_path: Path, stopped: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    stop_after_training(out, config(tmp_path))
    meta = next((out / ".work" / "train" / "checkpoints").glob("step-*/state.json"))
    assert len(json.loads(meta.read_text())["identity"]["config"]["run_key"]) == 16
    monkeypatch.chdir(tmp_path)
    again = config(tmp_path, scenes=["scene.tif"], labels="polygons.gpkg", tile_px=64, workers=2, device="cpu")
    assert any("resuming at step 2 of 2" in text for text in stop_after_training(out, again))
    compared = stop_after_training(out, again.replaced(compare=True))
    assert any("resuming at step 2 of 2" in text for text in compared)


@pytest.mark.parametrize("other", [{"seed": 1}, {"test_share": 0.5}])
def test_checkpoints_of_another_run_are_discarded_with_a_note(
    other: dict[str, Any], tmp_path: Path, stopped: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    stop_after_training(out, config(tmp_path))
    told = [text for text in stop_after_training(out, config(tmp_path, **other)) if "anew" in text]
    assert len(told) == 1
    assert "belongs to another run" in told[0]
    assert len(told[0]) < 500


def test_damaged_checkpoints_are_discarded_with_a_note(tmp_path: Path, stopped: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    stop_after_training(out, config(tmp_path))
    for file in (out / ".work").rglob("state.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    told = [text for text in stop_after_training(out, config(tmp_path)) if "anew" in text]
    assert len(told) == 1
    assert "does not match its sha256" in told[0]


def test_an_interrupted_comparison_and_refit_go_on(tmp_path: Path, stopped: pytest.MonkeyPatch) -> None:
    out, given = tmp_path / "out", config(tmp_path, method="fixmatch", compare=True, refit=True)
    stop_after_training(out, given)
    assert {path.name for path in (out / ".work").iterdir()} >= {"train", "supervised", "refit"}
    resumed = [text for text in stop_after_training(out, given) if "resuming at step 2 of 2" in text]
    assert [name for name in ("train", "supervised", "refit") if any(f"/{name}/" in t for t in resumed)] == [
        "train",
        "supervised",
        "refit",
    ]


def test_a_refit_is_reported_as_what_it_is(tmp_path: Path) -> None:
    map_scene(config(tmp_path, refit=True), tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    manifest = json.loads((tmp_path / "out" / "model" / "model.json").read_text())
    counts = report["training"]["label_counts"]
    seen = sum(c["n_polygons"] for c in counts if c["part"] in ("train", "calibration"))
    assert seen == len(manifest["training"]["labels"]) == 12
    assert sum(c["n_polygons"] for c in counts if c["part"] == "test") == 0
    assert report["calibration"]["temperature"]["value"] == manifest["calibration"]["temperature"]
    assert "by the model before the refit" in report["calibration"]["measured_on"]
    assert report["training"]["facts"]["Figures"].startswith("those of the model before the refit, trained on ")
    assert [row["method"] for row in report["comparison"]] == ["supervised"]
    assert "How do the methods compare" not in (tmp_path / "out" / "report.html").read_text()


def test_the_run_asks_the_net_about_its_test_pixels_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from berunda.api import compare, evaluate, fit

    asked: list[tuple[str, bool]] = []

    def counting(place: str) -> Any:
        def ask(*arguments: Any, features: bool = True) -> evaluate.Answers:
            asked.append((place, features))
            return evaluate.ask_net(*arguments, features=features)

        return ask

    monkeypatch.setattr(compare, "ask_net", counting("compare"))
    monkeypatch.setattr(fit, "ask_net", counting("fit"))
    map_scene(config(tmp_path, method="fixmatch", compare=True, polygons_per_class=1), tmp_path / "out")
    assert asked == [
        *(("fit", True), ("fit", True)),  # calibration and training pixels of the own net
        *(("fit", False), ("compare", False)),  # the supervised net has no distance layer
        ("compare", True),
    ]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert 0 <= report["ood"]["share_test"] <= 1


# -- what is wrong with the options comes first


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"method": "fixmach"}, "did you mean 'fixmatch'"),
        ({"method_options": {"treshold": 1}}, "'treshold' is unknown"),
        ({"encoder": "efficientnet_lite9"}, "efficientnet_lite9"),
        ({"device": "cuda:57"}, "cuda:57"),
    ],
)
@pytest.mark.parametrize("synthetic", [False, True])
def test_options_are_checked_before_anything_is_read_or_written(
    synthetic: bool, wrong: dict[str, Any], told: str, tmp_path: Path
) -> None:
    source = {"synthetic": True} if synthetic else {"scenes": ["none.tif"], "labels": "none.gpkg"}
    with pytest.raises(ConfigError, match=told):
        map_scene(MapConfig.make({**source, **wrong}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_toy_landscape_is_written_under_the_lock(tmp_path: Path) -> None:
    import threading

    failed: list[Exception] = []

    def run() -> None:
        try:
            map_scene(MapConfig(synthetic=True), tmp_path)
        except OutputError as error:
            failed.append(error)

    with output_lock(tmp_path):
        other = threading.Thread(target=run)
        other.start()
        other.join()
    assert len(failed) == 1
    assert "another run" in str(failed[0])
    assert not (tmp_path / "synthetic").exists()


def test_it_is_said_before_weights_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise Stopped

    monkeypatch.setattr(pipeline, "fit", stop)
    given = config(tmp_path, encoder="resnet18", pretrained=True)
    told = stop_after_training(tmp_path / "out", given)
    assert any("Fetching pretrained weights of resnet18" in text for text in told)
    told = stop_after_training(tmp_path / "out", given.replaced(pretrained=False))
    assert not any("Fetching" in text for text in told)


def test_scenes_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []
    close = raster.Scene.close

    def counting(scene: raster.Scene) -> None:
        closed.append(scene.name)
        close(scene)

    monkeypatch.setattr(raster.Scene, "close", counting)
    monkeypatch.setattr(pipeline, "gather_pixels", lambda prepared: (_ for _ in ()).throw(Stopped))
    stop_after_training(tmp_path / "out", config(tmp_path))
    assert closed == ["scene"]
