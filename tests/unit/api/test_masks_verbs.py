"""Training, predicting and comparing on images with masks: what is written, and what is refused before training."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toy_masks import NAMES, scene, write_folder, write_png, write_tif

from berunda.api import fit
from berunda.api.bench_verb import bench
from berunda.api.outcome import MaskOutcome, PredictOutcome
from berunda.api.predict_verb import predict
from berunda.api.submission import write_dfc22_submission
from berunda.api.train_verb import train
from berunda.bench.rows import REQUIRED, RowFile
from berunda.data.masks.images import open_masks
from berunda.errors import ConfigError, DataError
from berunda.mapping.bundle import load_bundle
from berunda.options.bench import BenchOptions
from berunda.options.train import TrainOptions, load_train_options

QUICK: dict[str, Any] = {"steps": 2, "n_labelled": 2, "crop_px": 32, "device": "cpu"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERUNDA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "set", n=10)


def train_options(folder: Path, **changes: Any) -> TrainOptions:
    return TrainOptions(dataset=str(folder), **{**QUICK, "method": "supervised", **changes})


def bench_options(folder: Path, **changes: Any) -> BenchOptions:
    given = {"suite": "folder", "methods": "random_forest,supervised,fixmatch", "labels": "2", "seeds": 1}
    return BenchOptions(**{**QUICK, **given, "data": str(folder), **changes})


def test_a_training_writes_a_bundle_that_masks_images_and_maps_scenes(folder: Path, tmp_path: Path) -> None:
    given = train_options(folder, method="fixmatch", labelled_images=2, steps=3, compare=True)
    outcome = train(given, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()} - {".berunda.lock"}
    assert names == {"model", "report.html", "report.json", "run.yaml", "test_images.png"}
    assert load_train_options(tmp_path / "out" / "run.yaml") == given.resolved()
    manifest = load_bundle(tmp_path / "out").manifest
    assert (manifest.task, manifest.class_names, manifest.net.crop_px) == ("segmentation", NAMES, 32)
    assert [entry.color for entry in manifest.classes] == ["#c82828", "#28a03c", "#283cc8"]
    assert outcome.counts["training, with masks"] == 2
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    methods = [(row["method"], row["variant"]) for row in told["comparison"]]
    nets = [("supervised", ""), ("supervised", "small batch"), ("fixmatch", "")]
    assert methods == [("random_forest", ""), *nets]
    rows = dict(zip(methods, told["comparison"], strict=True))
    passes = [rows[name]["image_passes"] for name in nets]
    assert passes == pytest.approx([passes[-1]] * 3, rel=0.15)
    assert [rows[name]["steps"] > 3 for name in nets] == [False, True, False]
    assert [rows[name]["labelled_a_step"] > 2 for name in nets] == [True, False, False]
    assert {d["b"] for d in told["comparison_differences"]} == {
        "random_forest",
        "supervised",
        "supervised, small batch",
    }
    forest = told["comparison"][0]["metrics"]
    assert forest["oa"] > 0.95  # the classes are three colours: a forest on pixels tells them apart

    masked = predict(tmp_path / "out", [folder / "images"], tmp_path / "masks")
    assert isinstance(masked, MaskOutcome)
    assert masked.n_images == 10
    with Image.open(tmp_path / "masks" / "part_03.png") as picture:
        assert (picture.mode, picture.size) == ("P", (48, 48))
        values = np.asarray(picture)
    assert set(np.unique(values)) <= {1, 2, 3}
    assert (tmp_path / "masks" / "classes.csv").read_text().splitlines()[2] == "1,roof,#c82828"

    raster = write_tif(tmp_path / "scene.tif", scene(48, 3)[0].transpose(2, 0, 1))
    mapped = predict(tmp_path / "out", [raster], tmp_path / "map", bands=["red", "green", "blue"])
    assert isinstance(mapped, PredictOutcome)
    from berunda.geo.raster import open_scenes

    with open_scenes([tmp_path / "map" / "map.tif"])[0] as made:
        block = made.read(made.grid.full_window)
    np.testing.assert_array_equal(block.values[0].astype(np.uint8), values)  # one machinery, one answer


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"labelled_images": 7}, DataError, "7 labelled images asked for, 6 training images with masks found"),
        ({"labels_per_class": 2}, ConfigError, "--labels-per-class: for whole images"),
        ({"method": "vat"}, ConfigError, "expected segmentation"),
        ({"method": "fixmatch"}, DataError, "the unlabelled split is empty: all 6 training images are used"),
    ],
)
def test_wrong_input_is_told_before_training(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], error: Any, told: str
) -> None:
    monkeypatch.setattr(fit, "train", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(error, match=told):
        train(train_options(folder, **changes), tmp_path / "out")


def test_a_scene_among_images_is_refused(folder: Path, tmp_path: Path) -> None:
    train(train_options(folder), tmp_path / "out")
    raster = write_tif(tmp_path / "scene.tif", scene(48, 3)[0].transpose(2, 0, 1))
    with pytest.raises(DataError, match=r"scene.tif is a scene and .*part_00.png an image"):
        predict(tmp_path / "out", [raster, folder / "images" / "part_00.png"], tmp_path / "both")


def test_a_bench_makes_rows_tables_and_grids_and_repeats_nothing(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = bench(bench_options(folder), out)
    rows = {(row["method"], row["variant"]): row for row in RowFile(out / "folder.json").rows()}
    nets = [("supervised", ""), ("supervised", "small batch"), ("fixmatch", "")]
    assert set(rows) == {("random_forest", ""), *nets}
    for row in rows.values():
        assert set(REQUIRED) <= set(row)
        assert (row["task"], row["labels_unit"], row["n_labelled"]) == ("segmentation", "images", 2)
        assert np.sum(row["metrics"]["by_image"]) == row["metrics"]["n_test_px"] == 2 * 48 * 48
    budget = rows["fixmatch", ""]["setting"]["image_passes"]
    for name in nets:
        assert rows[name]["image_passes"] == pytest.approx(budget, rel=0.2)
    told = {name: [rows[name][f] for f in ("steps", "labelled_a_step", "unlabelled_a_step")] for name in nets}
    assert told["fixmatch", ""] == [2, 2, 14]
    assert told["supervised", ""] == [2, 21, 0]
    assert told["supervised", "small batch"] == [21, 2, 0]
    page = (out / "folder.md").read_text()
    assert "| random forest |" in page
    assert "Difference in mean IoU to supervised" in page
    assert "| supervised small batch | 2 | 0 |" in page
    assert "| 21 | 2 + 0 | slim, 3 |" in page
    with Image.open(out / "folder_grid_2.png") as grid:
        assert grid.width > grid.height  # five columns, two rows
    before = (out / "folder.json").read_bytes()
    again = bench(bench_options(folder), out)
    assert (outcome.n_new, again.n_new) == (4, 0)
    assert (out / "folder.json").read_bytes() == before
    with pytest.raises(ConfigError, match="its runs were trained otherwise"):
        bench(bench_options(folder, crop_px=48), out)


def test_the_study_by_site_trains_on_all_a_tenth_and_each_site(tmp_path: Path) -> None:
    for site in ("North", "South"):
        write_folder(tmp_path / "set" / site, n=5)
    (tmp_path / "set" / "classes.csv").write_text("value,name\n#c82828,roof\n#28a03c,grass\n#283cc8,pond\n#000000,\n")
    options = bench_options(tmp_path / "set", suite="sites", methods=None, labels=None, steps=1)
    bench(options, tmp_path / "out")
    rows = RowFile(tmp_path / "out" / "sites.json").rows()
    assert sorted((str(row["labels"]), row["variant"]) for row in rows) == [
        ("0.1", ""),
        ("0.1", "small batch"),
        ("all", ""),
        ("all", "labels of North"),
        ("all", "labels of South"),
        ("all", "small batch"),
        ("all", "small batch, labels of North"),
        ("all", "small batch, labels of South"),
    ]
    assert all(set(row["metrics"]["by_site"]) == {"North", "South"} for row in rows)
    assert "Mean IoU by test site" in (tmp_path / "out" / "sites.md").read_text()


def test_a_study_of_weights_is_drawn_against_the_weight(folder: Path, tmp_path: Path) -> None:
    options = bench_options(
        folder, suite="lambdas", methods="berunda", steps=1, method_options=["berunda.aux=l1", "berunda.mu=1"]
    )
    bench(options, tmp_path / "out")
    rows = RowFile(tmp_path / "out" / "lambdas.json").rows()
    assert sorted(row["options"]["lambda_u"] for row in rows) == [0.1, 0.5, 1.0, 5.0, 10.0]
    assert (tmp_path / "out" / "lambdas_weights.png").is_file()


def test_a_submission_has_a_prediction_for_every_tile(tmp_path: Path) -> None:
    from berunda.data.catalog._france import CLASSES

    for number in range(5):
        image, classes = scene(32, number)
        write_png(tmp_path / "set" / "images" / f"{number}.png", image)
        write_png(tmp_path / "set" / "masks" / f"{number}.png", (classes + 1).astype(np.uint8))
    names = [CLASSES[value - 1][0] for value in (3, 7, 14)]
    rows = "".join(f'{value},"{name}"\n' for value, name in enumerate(names, start=1))
    (tmp_path / "set" / "classes.csv").write_text("value,name\n" + rows)
    train(train_options(tmp_path / "set"), tmp_path / "model")
    for town, stem in (("Rennes", "35-a"), ("Vannes", "56-b")):
        write_tif(tmp_path / "val" / town / "BDORTHO" / f"{stem}.tif", scene(32, 1)[0].transpose(2, 0, 1))
    archive = write_dfc22_submission(tmp_path / "model", tmp_path, tmp_path / "sub", device="cpu")
    with zipfile.ZipFile(archive) as opened:
        assert opened.namelist() == ["Rennes/35-a_prediction.tif", "Vannes/56-b_prediction.tif"]
    import rasterio

    source = tmp_path / "val" / "Rennes" / "BDORTHO" / "35-a.tif"
    with rasterio.open(tmp_path / "sub" / "Rennes" / "35-a_prediction.tif") as made, rasterio.open(source) as given:
        assert (made.dtypes, made.crs, made.transform) == (("uint8",), given.crs, given.transform)
        assert set(np.unique(made.read(1))) <= {3, 7, 14}
    train(train_options(write_folder(tmp_path / "other", n=5)), tmp_path / "other model")
    with pytest.raises(DataError, match="has the class 'roof', expected only classes of MiniFrance-DFC22"):
        write_dfc22_submission(tmp_path / "other model", tmp_path, tmp_path / "sub2")


def test_a_bench_refuses_what_masks_do_not_have(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="each_site, but 0 sites"):
        bench(bench_options(folder, labels="each_site"), tmp_path / "out")
    with pytest.raises(ConfigError, match="serves scene, expected segmentation"):
        bench(bench_options(folder, methods="vat"), tmp_path / "out")
    with pytest.raises(ConfigError, match=r"--search: found supervised.recipe, expected it with whole images alone"):
        bench(bench_options(folder, methods="supervised", search=["supervised.recipe=weak:strong"]), tmp_path / "out")
    assert open_masks(str(folder)).classes == NAMES
