"""The main job from files to files: `berunda map` and the verbs that go on from its outputs."""

from __future__ import annotations

import html.parser
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from toy_command import FINAL, QUICK, Done, call, called, finished, toy_labels, toy_scene, toy_squares, toy_values
from toy_rasters import NORTH_UP, square, write_geojson, write_tif

from berunda.data.synthetic import CLASS_NAMES, Landscape, write_polygons, write_scene, write_truth
from berunda.methods import make_method, method_names

ROWS, COLS = 192, 288
RASTERS = ("map.tif", "confidence.tif", "ood.tif")


@dataclass(frozen=True)
class Ground:
    """A scene, its truth and its polygons."""

    folder: Path
    scene: Path
    truth: Path
    polygons: Path


@dataclass(frozen=True)
class Run:
    """A finished run."""

    out: Path
    done: Done

    @property
    def report(self) -> dict[str, Any]:
        """The report's figures."""
        return dict(json.loads((self.out / "report.json").read_text()))


def made_ground(folder: Path, **spec: Any) -> Ground:
    landscape = Landscape(**{"seed": 8, "rows": ROWS, "cols": COLS, "n_bands": 4, **spec})
    scene = write_scene(folder / "scene.tif", landscape)
    truth = write_truth(folder / "truth.tif", landscape)
    return Ground(folder, scene, truth, write_polygons(folder / "polygons.gpkg", landscape, 8))


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return made_ground(tmp_path_factory.mktemp("ground"))


@pytest.fixture(scope="module")
def run(ground: Ground) -> Run:
    """The default method with a comparison, calibrated."""
    out = ground.folder / "run"
    done = called(
        *("map", ground.scene, "--labels", ground.polygons, "--field", "class", "--out", out, "--compare"),
        *("--steps", "4", "--crop-px", "32", "--block-px", "32", "--polygons-per-class", "1", "--seed", "3"),
    )
    return Run(out, done)


def pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return np.asarray(file.read())


def same_grid(path: Path, scene: Path) -> bool:
    with rasterio.open(path) as made, rasterio.open(scene) as given:
        facts = [(f.shape, f.transform, f.crs) for f in (made, given)]
    return bool(facts[0] == facts[1])


def assert_nodata_exactly(out: Path, missing: np.ndarray) -> None:
    """See that all rasters have no data where `missing`, and data everywhere else."""
    assert missing.any()
    assert not missing.all()
    np.testing.assert_array_equal(pixels(out / "map.tif")[0] == 0, missing)
    for name in ("confidence.tif", "ood.tif"):
        for band in pixels(out / name):
            np.testing.assert_array_equal(np.isnan(band), missing)


# -- the outputs


def test_everything_is_there_and_nothing_else(run: Run) -> None:
    assert {p.name for p in run.out.iterdir()} - {".berunda.lock"} == set(FINAL)
    assert {p.name for p in (run.out / "model").iterdir()} == {"model.json", "model.safetensors"}
    assert str(run.out / "map.tif") in run.done.out
    assert str(run.out / "report.html") in run.done.out


def test_the_map_has_classes_names_and_colours(run: Run, ground: Ground) -> None:
    names = sorted(CLASS_NAMES)
    with rasterio.open(run.out / "map.tif") as made:
        assert (made.count, made.dtypes, made.nodata) == (1, ("uint8",), 0)
        assert [made.tags()[f"CLASS_{i}"] for i in range(1, 7)] == names
        table = made.colormap(1)
        classes = json.loads((run.out / "model" / "model.json").read_text())["classes"]
        assert [(c["id"], c["name"]) for c in classes] == list(enumerate(names, start=1))
        for entry in classes:
            assert "#{:02x}{:02x}{:02x}".format(*table[entry["id"]][:3]) == entry["color"].lower()
        assert len({table[i] for i in range(1, 7)}) == 6
        assert set(np.unique(made.read(1))) <= set(range(1, 7))
    side = ElementTree.parse(run.out / "map.tif.aux.xml").findall(".//Category")
    assert [c.text for c in side][1:] == names
    assert same_grid(run.out / "map.tif", ground.scene)


def test_the_legend_names_every_class_in_its_colour(run: Run) -> None:
    classes = json.loads((run.out / "model" / "model.json").read_text())["classes"]
    entries = ElementTree.parse(run.out / "legend.qml").findall(".//paletteEntry")
    found = {e.get("label"): (e.get("value"), str(e.get("color")).lower()) for e in entries}
    for entry in classes:
        assert found[entry["name"]] == (str(entry["id"]), entry["color"].lower())


def test_all_rasters_are_cogs_on_the_grid_of_the_scene(run: Run, ground: Ground) -> None:
    for name in RASTERS:
        with rasterio.open(run.out / name) as made:
            assert made.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert made.profile["tiled"]
            assert made.compression is not None
        assert same_grid(run.out / name, ground.scene)


def test_confidence_is_a_probability_with_nan_for_nodata(run: Run) -> None:
    with rasterio.open(run.out / "confidence.tif") as made:
        assert (made.count, made.dtypes) == (1, ("float32",))
        assert np.isnan(made.nodata)
        values = made.read(1)
    assert values.min() >= 1 / 6 - 1e-6  # the class shown is the likeliest of six
    assert values.max() <= 1


def test_the_ood_layer_flags_about_the_share_it_was_set_for(run: Run) -> None:
    with rasterio.open(run.out / "ood.tif") as made:
        assert (made.count, made.dtypes) == (2, ("float32", "float32"))
        assert np.isnan(made.nodata)
        limits = [float(made.tags()[name]) for name in ("OOD_THRESHOLD", "OOD_THRESHOLD_ENERGY")]
        distance, energy = made.read()
    assert np.isfinite([distance, energy]).all()
    manifest = json.loads((run.out / "model" / "model.json").read_text())
    assert limits == pytest.approx([manifest["ood"]["threshold"], manifest["ood"]["threshold_energy"]])
    assert run.report["ood"]["share_map"] == pytest.approx(float((distance > limits[0]).mean()), abs=1e-3)


class _References(html.parser.HTMLParser):
    """Collects what a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del tag
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "xlink:href")]


def test_the_report_is_self_contained_and_shows_the_figures(run: Run) -> None:
    text = (run.out / "report.html").read_text()
    page = _References()
    page.feed(text)
    assert [r[:60] for r in page.found if not r.startswith(("data:", "#"))] == []
    assert sum(r.startswith("data:image/png;base64,") for r in page.found) >= 4
    bare = text.replace("http://www.w3.org/", "")
    assert "http://" not in bare
    assert "https://" not in bare
    assert "@import" not in text
    assert "<script" not in text or "src=" not in text.split("<script", 1)[1].split(">", 1)[0]
    for word in (*CLASS_NAMES, "random forest", "supervised", "cotrain"):
        assert word in text.lower(), word


def test_the_figures_are_in_the_report_json(run: Run) -> None:
    report = run.report
    assert 0 <= report["metrics"]["miou"] <= report["metrics"]["oa"] <= 1
    assert f"overall accuracy {report['metrics']['oa']:.3f}" in run.done.out
    assert np.sum(report["metrics"]["confusion_truth_by_map"]) == report["metrics"]["n_pixels"] > 0
    assert report["timing"].keys() >= {"reading", "training", "evaluation", "mapping"}
    assert all(seconds >= 0 for seconds in report["timing"].values())
    assert report["transductive"] is True
    assert isinstance(report["warnings"], list)
    mapped = pixels(run.out / "map.tif")
    for entry in report["classes"]:
        assert entry["n_mapped_px"] == int((mapped == entry["id"]).sum())
        assert entry["area_ha"] == pytest.approx(entry["n_mapped_px"] / 100)


def test_the_comparison_is_on_the_same_labels_and_pixels(run: Run) -> None:
    rows = {row["method"]: row for row in run.report["comparison"]}
    assert list(rows) == ["random_forest", "supervised", "cotrain"]
    assert len({(r["n_test_px"], r["labels"], r["labels_unit"], r["seed"], r["dataset"]) for r in rows.values()}) == 1
    assert (rows["cotrain"]["labels"], rows["cotrain"]["labels_unit"]) == (1, "polygons_per_class")
    assert rows["cotrain"]["metrics"]["oa"] == pytest.approx(run.report["metrics"]["oa"])
    passes = rows["supervised"]["image_passes"]
    assert passes == pytest.approx(rows["cotrain"]["image_passes"], rel=0.15)
    assert rows["random_forest"]["metrics"]["oa"] > 0.5  # it knows these spectra; four steps of a net do not
    assert [r["is_transductive"] for r in rows.values()] == [False, False, True]
    for row in rows.values():
        assert row["metrics"].keys() >= {"oa", "miou", "macro_f1", "iou", "ece", "nll"}
        assert "berunda map scene.tif --labels polygons.gpkg" in row["command"]


def test_no_more_polygons_train_than_asked_for(run: Run, ground: Ground) -> None:
    import geopandas

    manifest = json.loads((run.out / "model" / "model.json").read_text())
    text = (run.out / "report.html").read_text()
    assert "polygons held out of training" in text
    assert manifest["calibration"]["is_fitted"] is True
    numbers = [int(o["name"].rsplit(" ", 1)[1]) for o in manifest["training"]["labels"]]
    used = geopandas.read_file(ground.polygons)["class"].iloc[numbers].value_counts()
    assert set(used.index) == set(CLASS_NAMES)
    assert used.max() == 2  # one to train and one to calibrate on


# -- going on from the outputs


def test_run_yaml_repeats_the_run(run: Run, tmp_path: Path) -> None:
    done = called("map", "--config", run.out / "run.yaml", "--out", tmp_path / "again")
    for name in RASTERS:
        np.testing.assert_array_equal(pixels(tmp_path / "again" / name), pixels(run.out / name))
    again = json.loads((tmp_path / "again" / "report.json").read_text())
    assert again["metrics"] == run.report["metrics"]
    assert done.warnings == run.done.warnings
    assert (tmp_path / "again" / "run.yaml").read_text() == (run.out / "run.yaml").read_text()


def test_predict_gives_the_pixels_of_the_map(run: Run, ground: Ground, tmp_path: Path) -> None:
    called("predict", run.out / "model", ground.scene, "--out", tmp_path, "--tile-px", "64")
    for name in RASTERS:
        np.testing.assert_array_equal(pixels(tmp_path / name), pixels(run.out / name))
    assert finished(tmp_path) == {*RASTERS, "map.tif.aux.xml", "legend.qml"}


def test_predict_on_another_site(run: Run, tmp_path: Path) -> None:
    other = made_ground(tmp_path, site="b", shift=0.3, rows=100, cols=150)
    done = called("predict", run.out / "model", other.scene, "--out", tmp_path / "maps")
    assert same_grid(tmp_path / "maps" / "map.tif", other.scene)
    assert not any("radiometry" in w for w in done.warnings)


def test_predict_warns_of_another_radiometry_and_names_the_bands(run: Run, ground: Ground, tmp_path: Path) -> None:
    with rasterio.open(ground.scene) as file:
        values, profile, names = file.read(), file.profile, file.descriptions
    values[[0, 2]] *= 4
    with rasterio.open(tmp_path / "bright.tif", "w", **profile) as file:
        file.write(values)
        file.descriptions = names
    done = called("predict", run.out / "model", tmp_path / "bright.tif", "--out", tmp_path / "maps")
    told = [w for w in done.warnings if "radiometry" in w]
    assert len(told) == 1
    assert "2 of 4 bands" in told[0]
    bands = [b["name"] for b in json.loads((run.out / "model" / "model.json").read_text())["bands"]]
    assert [f"{band} (" in told[0] for band in bands] == [True, False, True, False]


def test_predict_refuses_a_scene_without_the_bands(run: Run, tmp_path: Path) -> None:
    scene = toy_scene(tmp_path / "toy.tif", names=("x", "y", "z"))
    done = call("predict", run.out / "model", scene, "--out", tmp_path / "maps")
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert "it has x, y, z" in done.err
    assert finished(tmp_path / "maps") == set()


def test_predict_does_not_write_over_its_scene(run: Run, ground: Ground, tmp_path: Path) -> None:
    scene = tmp_path / "map.tif"
    scene.write_bytes(ground.scene.read_bytes())
    done = call("predict", run.out / "model", scene, "--out", tmp_path)
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "would be overwritten" in done.err
    assert scene.read_bytes() == ground.scene.read_bytes()


def test_assess_agrees_with_counting(run: Run, ground: Ground, tmp_path: Path) -> None:
    done = called("assess", run.out / "map.tif", "--reference", ground.truth, "--out", tmp_path)
    truth, made = pixels(ground.truth)[0], pixels(run.out / "map.tif")[0]
    in_order = np.array([0, *(1 + sorted(CLASS_NAMES).index(name) for name in CLASS_NAMES)])[truth]
    assert f"overall accuracy {(made == in_order).mean():.3f}" in done.out
    assert "not the accuracy of the map" in done.out
    assert (tmp_path / "assess.html").is_file()


def test_info_tells_what_is_there(run: Run, ground: Ground) -> None:
    for place in (run.out, run.out / "model"):
        told = called("info", place).out
        assert "cotrain" in told
        assert all(name in told for name in CLASS_NAMES)
    told = called("info", ground.scene).out
    assert f"{COLS} x {ROWS} px" in told
    assert "EPSG:32633" in told


def test_methods_and_doctor() -> None:
    told = called("methods").out
    assert all(name in told for name in ("supervised", "fixmatch", "berunda", "cotrain"))
    assert "threshold" in called("methods", "fixmatch").out
    assert "torch" in called("doctor").out


# -- one rich run on bands in several files, a mask and geographic labels


@pytest.fixture(scope="module")
def patchwork(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Bands in files of two resolutions, chosen by name; clouds masked; GeoJSON in degrees, in part outside."""
    folder = tmp_path_factory.mktemp("patchwork")
    bands = folder / "bands"
    bands.mkdir()
    values = toy_values()
    write_tif(bands / "T33_B02.tif", values[:1])
    write_tif(bands / "T33_B03.tif", values[1:2])
    coarse = values[2:, ::2, ::2]
    write_tif(bands / "T33_B8A.tif", coarse, transform=NORTH_UP * Affine.scale(2))
    clouds = np.zeros((64, 96), np.uint8)
    clouds[10:20, 60:75] = 7
    write_tif(folder / "clouds.tif", clouds)
    squares, classes = toy_squares()
    labels = write_geojson(
        folder / "labels.geojson",
        [
            *((_in_degrees(shape), {"kind": value}) for shape, value in zip(squares, classes, strict=True)),
            (_in_degrees(square(40, 90, 12)), {"kind": "dark"}),
            (_in_degrees(square(-300, 0, 12)), {"kind": "dark"}),
            (_in_degrees(square(0, 900, 12)), {"kind": "bright"}),
        ],
        crs=None,
    )
    done = called(
        *("map", bands, "--bands", "B8A,B02", "--mask", folder / "clouds.tif"),
        *("--labels", labels, "--field", "kind", "--out", folder / "out", *QUICK),
    )
    return Run(folder / "out", done)


def _in_degrees(shape: Any) -> Any:
    import pyproj
    import shapely

    to = pyproj.Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    return shapely.transform(shape, lambda xy: np.stack(to.transform(xy[:, 0], xy[:, 1]), 1))


def test_bands_in_several_files_are_one_scene_on_the_finest_grid(patchwork: Run) -> None:
    folder = patchwork.out.parent
    assert same_grid(patchwork.out / "map.tif", folder / "bands" / "T33_B02.tif")
    bands = json.loads((patchwork.out / "model" / "model.json").read_text())["bands"]
    assert [b["name"] for b in bands] == ["B8A", "B02"]


def test_masked_pixels_are_nodata_in_every_output(patchwork: Run) -> None:
    assert_nodata_exactly(patchwork.out, pixels(patchwork.out.parent / "clouds.tif")[0] != 0)


def test_polygons_outside_are_counted(patchwork: Run) -> None:
    said = "\n".join(patchwork.done.warnings)
    assert "2 of the 15 polygons of labels.geojson lie outside the scene" in said
    assert "1 of the 15 polygons of labels.geojson reach beyond the scene" in said
    assert set(patchwork.done.warnings) == set(patchwork.report["warnings"])


# -- another on a label raster, floats with holes, mapped classes and a refit


@pytest.fixture(scope="module")
def raster_labels(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Float pixels with nodata and NaN; a label raster with 255 and 0; classes renamed, merged, dropped; a refit."""
    folder = tmp_path_factory.mktemp("raster_labels")
    with rasterio.open(ground.scene) as file:
        values, transform = file.read().astype(np.float32), file.transform
    values[:, :20, :] = -9999
    values[2, 100:110, 50:90] = np.nan
    values[1, 150:160, 200:210] = np.inf
    scene = write_tif(folder / "floats.tif", values, transform=transform, nodata=-9999)
    draw = np.random.default_rng(1)
    patches = np.kron(draw.random((ROWS // 8, COLS // 8)) < 0.3, np.ones((8, 8), bool))
    labels = np.where(patches, pixels(ground.truth)[0], np.where(draw.random((ROWS, COLS)) < 0.5, 0, 255))
    label_file = write_tif(folder / "labels.tif", labels.astype(np.uint8), transform=transform)
    done = called(
        *("map", scene, "--labels", label_file, "--out", folder / "out", "--refit", *QUICK),
        *("--classes", "1=crops,3=crops,4=,5=,6=water"),
    )
    return Run(folder / "out", done)


def test_nodata_nan_and_infinite_pixels_are_nodata(raster_labels: Run) -> None:
    missing = np.zeros((ROWS, COLS), bool)
    missing[:20] = missing[100:110, 50:90] = missing[150:160, 200:210] = True
    assert_nodata_exactly(raster_labels.out, missing)


def test_classes_are_renamed_merged_and_dropped(raster_labels: Run) -> None:
    with rasterio.open(raster_labels.out / "map.tif") as made:
        names = {k: v for k, v in made.tags().items() if k.startswith("CLASS_")}
    assert names == {"CLASS_1": "2", "CLASS_2": "crops", "CLASS_3": "water"}


def test_a_refit_says_so(raster_labels: Run) -> None:
    assert any("trained again on all labels" in warning for warning in raster_labels.done.warnings)
    assert raster_labels.report["training"]["is_refit"] is True
    assert "trained again on all labels" in (raster_labels.out / "report.html").read_text()
    assert raster_labels.report["metrics"]["n_pixels"] > 0


def test_a_refit_ships_another_model_and_the_same_figures(raster_labels: Run, tmp_path: Path) -> None:
    config = (raster_labels.out / "run.yaml").read_text()
    assert "refit: true" in config
    (tmp_path / "run.yaml").write_text(config.replace("refit: true", "refit: false"))
    called("map", "--config", tmp_path / "run.yaml", "--out", tmp_path / "out")
    plain = json.loads((tmp_path / "out" / "report.json").read_text())
    assert plain["metrics"] == raster_labels.report["metrics"]
    weights = [(out / "model" / "model.safetensors").read_bytes() for out in (tmp_path / "out", raster_labels.out)]
    assert weights[0] != weights[1]
    manifests = [
        json.loads((out / "model" / "model.json").read_text()) for out in (tmp_path / "out", raster_labels.out)
    ]
    assert len(manifests[0]["training"]["labels"]) < len(manifests[1]["training"]["labels"])


# -- and one on two scenes, a rule for labels, and too few polygons


@pytest.fixture(scope="module")
def two_scenes(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("two_scenes")
    values = toy_values()
    values[:, 26:34, 26:34] = 3000  # a cloud over one polygon
    write_tif(folder / "west.tif", values[:, :, :48])
    write_tif(folder / "east.tif", values[:, :, 48:], transform=NORTH_UP * Affine.translation(48, 0))
    done = called(
        *("map", folder / "west.tif", folder / "east.tif", "--labels", toy_labels(folder / "polygons.gpkg")),
        *("--field", "class", "--out", folder / "out", *QUICK),
        *("--drop-labels-where", "b1>2000", "--polygons-per-class", "9"),
    )
    return Run(folder / "out", done)


def test_scenes_side_by_side_get_a_folder_each(two_scenes: Run) -> None:
    rasters = {*RASTERS, "map.tif.aux.xml", "legend.qml"}
    assert finished(two_scenes.out) == {f"{name}/{r}" for name in ("west", "east") for r in rasters} | (
        FINAL - rasters | {"legend.qml"}
    )
    for name in ("west", "east"):
        assert same_grid(two_scenes.out / name / "map.tif", two_scenes.out.parent / f"{name}.tif")
    assert [s["name"] for s in two_scenes.report["scenes"]] == ["west", "east"]


def test_labels_under_cloud_are_left_out_by_the_rule(two_scenes: Run) -> None:
    said = "\n".join(two_scenes.done.warnings)
    assert re.search(r"1 of the 12 polygons of polygons\.gpkg.* left out by the rule b1>2000", said)
    manifest = json.loads((two_scenes.out / "model" / "model.json").read_text())
    assert "polygon 5" not in [o["name"].split(", ")[-1] for o in manifest["training"]["labels"]]


def test_fewer_polygons_than_asked_for_is_said(two_scenes: Run) -> None:
    for name in ("bright", "dark"):
        assert any(f"'{name}' trains on" in w and "fewer than the 9 asked for" in w for w in two_scenes.done.warnings)


def test_no_warning_is_said_twice(two_scenes: Run) -> None:
    said = two_scenes.done.warnings
    assert len(set(said)) == len(said)
    assert sum("not calibrated" in warning for warning in said) == 1
    assert sum("out-of-distribution threshold" in warning for warning in said) == 1


# -- other grids


@pytest.mark.parametrize(
    "transform",
    [Affine(10, 0, 500_000, 0, 10, 4_999_360), NORTH_UP * Affine.rotation(30)],
    ids=["south_up", "rotated"],
)
def test_the_map_keeps_an_odd_grid(transform: Affine, tmp_path: Path) -> None:
    scene = toy_scene(tmp_path / "scene.tif", transform=transform)
    at = [(row, col) for row in (4, 26, 48) for col in (4, 26, 58, 80)]
    shapes = [square(row, col, 8, transform) for row, col in at]
    labels = toy_labels(tmp_path / "p.gpkg", shapes, ["bright" if col < 48 else "dark" for _, col in at])
    done = called("map", scene, "--labels", labels, "--field", "class", "--out", tmp_path / "out", *QUICK)
    assert same_grid(tmp_path / "out" / "map.tif", scene)
    assert not any("outside" in w or "beyond" in w for w in done.warnings)


def test_the_python_api_is_there_in_any_order_of_imports(run: Run, ground: Ground, tmp_path: Path) -> None:
    import berunda as bd
    import berunda.api.demo_verb
    import berunda.assess.report

    for _ in range(2):
        assert all(callable(getattr(bd, name)) for name in ("map_scene", "predict", "assess", "demo", "info"))
    outcome = bd.predict(run.out, [ground.scene], tmp_path / "maps")
    np.testing.assert_array_equal(pixels(outcome.results[0].files.map), pixels(run.out / "map.tif"))
    assessed = bd.assess(run.out / "map.tif", ground.truth, field="", out=tmp_path / "assess")
    assert assessed.scores is not None


# -- longer ones


def methods_for_maps() -> list[str]:
    return [name for name in method_names() if "segmentation" in make_method(name).needs().tasks]


def test_a_method_for_whole_images_is_refused_before_anything_is_written(ground: Ground, tmp_path: Path) -> None:
    (method, *_) = sorted(set(method_names()) - set(methods_for_maps()))
    done = call(
        *("map", ground.scene, "--labels", ground.polygons, "--field", "class", "--out", tmp_path / "out"),
        *("--crop-px", "32", "--block-px", "32", "--method", method),
    )
    assert done.code == 2
    assert f"method '{method}' serves scene, expected segmentation" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", methods_for_maps())
def test_every_method_makes_a_map(method: str, ground: Ground, tmp_path: Path) -> None:
    called(
        *("map", ground.scene, "--labels", ground.polygons, "--field", "class", "--out", tmp_path),
        *("--steps", "10", "--crop-px", "32", "--block-px", "64", "--method", method),
    )
    assert finished(tmp_path) == FINAL


@pytest.mark.slow
def test_a_trained_map_is_right(ground: Ground, tmp_path: Path) -> None:
    """On an easy scene two hundred steps are enough to be right almost everywhere."""
    called(
        *("map", ground.scene, "--labels", ground.polygons, "--field", "class", "--out", tmp_path),
        *("--steps", "200", "--crop-px", "32", "--block-px", "32", "--method", "supervised"),
    )
    truth, made = pixels(ground.truth)[0], pixels(tmp_path / "map.tif")[0]
    in_order = np.array([0, *(1 + sorted(CLASS_NAMES).index(name) for name in CLASS_NAMES)])[truth]
    assert (made == in_order).mean() > 0.7
