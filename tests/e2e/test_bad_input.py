"""What is wrong with the input is said in one line, with exit code 2, before anything stands under a final name."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from toy_command import QUICK, call, called, finished, toy_labels, toy_scene, toy_squares, toy_values
from toy_rasters import NORTH_UP, square, write_geojson, write_layer, write_tif

Words = list[object]
Case = tuple[Words, tuple[str, ...]]
VRT = """<VRTDataset rasterXSize="96" rasterYSize="64"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>
<SourceFilename relativeToVRT="0">/etc/hostname</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"""
CASES: dict[str, Callable[[Path], Case]] = {}


def case(build: Callable[[Path], Case]) -> Callable[[Path], Case]:
    """Add a case; it returns what changes in the command line, and what the error must name."""
    CASES[build.__name__] = build
    return build


def words(folder: Path, *changed: object) -> Words:
    """Return the words of a run that works, after `changed`: scenes first, then flags (the last one counts)."""
    scenes = [w for w in changed if isinstance(w, Path)] or [toy_scene(folder / "scene.tif")]
    flags = [w for w in changed if not isinstance(w, Path)]
    labels = [] if "--labels" in flags else ["--labels", str(toy_labels(folder / "polygons.gpkg"))]
    field = [] if "--field" in flags else ["--field", "class"]
    return ["map", *scenes, *labels, *field, "--out", folder / "out", *QUICK, *flags]


def assert_refused(command: Words, out: Path, expected: tuple[str, ...], code: int = 2) -> None:
    done = call(*command)
    lines = done.err.splitlines()
    assert done.code == code, done
    assert len(lines) == 1, done.err
    assert lines[0].startswith("berunda: error: ")
    assert "Traceback" not in done.err + done.out
    assert [text for text in expected if text not in lines[0]] == [], lines[0]
    assert done.out == ""
    assert finished(out) == set()


# -- scenes


@case
def truncated_tif(folder: Path) -> Case:
    path = toy_scene(folder / "scene.tif", compress="deflate")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 9 // 10])
    return [path], (str(path), "truncated", "copy or download it again")


@case
def truncated_in_the_middle_of_a_block(folder: Path) -> Case:
    path = toy_scene(folder / "scene.tif", tiled=True, blockxsize=32, blockysize=32)
    path.write_bytes(path.read_bytes()[:-7])
    return [path], (str(path), "copy or download it again")


@case
def truncated_cog(folder: Path) -> Case:
    path = toy_scene(folder / "scene.tif", driver="COG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return [path], (str(path), "copy or download it again")


@case
def truncated_jp2(folder: Path) -> Case:
    path = toy_scene(folder / "scene.jp2", driver="JP2OpenJPEG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return [path], (str(path), "copy or download it again")


@case
def damaged_block(folder: Path) -> Case:
    path = toy_scene(folder / "scene.tif", compress="deflate")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    return [path], (str(path), "copy or download it again")


@case
def vrt_renamed(folder: Path) -> Case:
    path = folder / "scene.tif"
    path.write_text(VRT)
    return [path], (str(path), "VRT", "refused", "gdal_translate")


@case
def inline_vrt(folder: Path) -> Case:
    return ["SCENE", VRT.replace("\n", "")], ("inline dataset", "refused", "GeoTIFF")


@case
def remote_scene(folder: Path) -> Case:
    return ["SCENE", "http://127.0.0.1:9/scene.tif"], ("http://127.0.0.1:9/scene.tif", "remote", "download it first")


@case
def virtual_file_system(folder: Path) -> Case:
    return ["SCENE", "/vsicurl/http://127.0.0.1:9/scene.tif"], ("/vsicurl/", "virtual file system", "local file")


@case
def remote_labels(folder: Path) -> Case:
    return ["--labels", "https://127.0.0.1:9/p.gpkg"], ("https://127.0.0.1:9/p.gpkg", "remote", "download it first")


@case
def remote_mask(folder: Path) -> Case:
    return ["--mask", "/vsizip/clouds.zip/m.tif"], ("/vsizip/clouds.zip", "virtual file system")


@case
def scene_not_there(folder: Path) -> Case:
    toy_scene(folder / "scene.tif")
    return [folder / "scen.tif"], (str(folder / "scen.tif"), "does not exist", str(folder / "scene.tif"))


@case
def empty_file(folder: Path) -> Case:
    path = folder / "scene.tif"
    path.write_bytes(b"")
    return [path], (str(path), "0 bytes", "expected a raster")


@case
def no_raster(folder: Path) -> Case:
    path = folder / "scene.tif"
    path.write_text("north,south\n1,2\n")
    return [path], (str(path), "unknown format", "GeoTIFF")


@case
def polygons_as_the_scene(folder: Path) -> Case:
    return [toy_labels(folder / "scene.gpkg")], ("scene.gpkg", "GeoPackage", "--labels")


@case
def folder_without_rasters(folder: Path) -> Case:
    (folder / "empty").mkdir()
    return [folder / "empty"], (str(folder / "empty"), "no raster", ".tif")


@case
def scene_without_crs(folder: Path) -> Case:
    expected = ("polygons.gpkg", "EPSG:32633", "the scene has no CRS", "gdal_edit")
    return [toy_scene(folder / "scene.tif", crs=None)], expected


@case
def scene_all_nodata(folder: Path) -> Case:
    path = write_tif(folder / "scene.tif", np.zeros((3, 64, 96), np.uint16), nodata=0)
    return [path], ("scene", "no valid pixel", "nodata")


@case
def scene_all_nan(folder: Path) -> Case:
    path = write_tif(folder / "scene.tif", np.full((3, 64, 96), np.nan, np.float32))
    return [path], ("scene", "no valid pixel", "nodata")


@case
def scene_of_complex_numbers(folder: Path) -> Case:
    return [write_tif(folder / "scene.tif", toy_values(dtype="complex64"))], ("scene.tif", "complex")


@case
def band_unknown(folder: Path) -> Case:
    path = toy_scene(folder / "scene.tif", names=("red", "green", "nir"))
    return [path, "--bands", "red,nri"], ("nri", "red, green, nir")


@case
def bands_more_than_there_are(folder: Path) -> Case:
    return ["--bands", "red,green,nir,swir"], ("red", "b1, b2, b3")


@case
def rule_names_a_band_that_is_not_there(folder: Path) -> Case:
    return ["--drop-labels-where", "B09>10"], ("B09", "b1, b2, b3")


@case
def scenes_overlap_by_half(folder: Path) -> Case:
    first = toy_scene(folder / "one.tif")
    second = toy_scene(folder / "two.tif", transform=NORTH_UP * Affine.translation(48, 0))
    return [first, second], ("one.tif", "two.tif", "50.0%", "at least 99%", "at most 10%", "run them apart")


@case
def same_ground_in_two_crs(folder: Path) -> Case:
    import rasterio.warp

    first = toy_scene(folder / "one.tif")
    to, cols, rows = rasterio.warp.calculate_default_transform(
        "EPSG:32633", "EPSG:3857", 96, 64, left=500_000, right=500_960, bottom=4_999_360, top=5_000_000
    )
    second = write_tif(folder / "two.tif", toy_values(rows, cols), transform=to, crs="EPSG:3857")
    return [first, second], ("one.tif", "two.tif", "EPSG:32633", "EPSG:3857", "gdalwarp")


@case
def scenes_with_different_bands(folder: Path) -> Case:
    first = toy_scene(folder / "one.tif", names=("red", "green", "nir"))
    second = toy_scene(
        folder / "two.tif", names=("red", "green", "swir"), transform=NORTH_UP * Affine.translation(96, 0)
    )
    return [first, second], ("one", "two", "nir", "swir", "--bands")


@case
def neighbours_in_two_crs(folder: Path) -> Case:
    first = toy_scene(folder / "one.tif")
    second = toy_scene(folder / "two.tif", transform=NORTH_UP * Affine.translation(960, 0), crs="EPSG:32634")
    return [first, second], ("one", "two", "EPSG:32633", "EPSG:32634", "gdalwarp")


@case
def scene_of_one_pixel(folder: Path) -> Case:
    path = toy_scene(folder / "scene.tif", 1, 1)
    labels = toy_labels(folder / "p.gpkg", [square(0, 0, 1)] * 2, ["a", "b"])
    return [path, "--labels", str(labels)], ("p.gpkg", "pixel", "'a', 'b'")


@case
def declares_149_gib(folder: Path) -> Case:
    import rasterio

    path = folder / "scene.tif"
    options: dict[str, Any] = {"tiled": True, "blockxsize": 4096, "blockysize": 4096, "SPARSE_OK": True}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=400_000,
        height=400_000,
        count=1,
        dtype="uint8",
        crs="EPSG:32633",
        transform=NORTH_UP,
        compress="deflate",
        **options,
    ):
        pass
    return [path], ("scene.tif", "GiB")


# -- masks


@case
def mask_over_everything(folder: Path) -> Case:
    mask = write_tif(folder / "clouds.tif", np.ones((64, 96), np.uint8))
    return ["--mask", str(mask)], ("scene", "no valid pixel", "--mask")


@case
def mask_over_the_polygons_of_a_class(folder: Path) -> Case:
    mask = write_tif(folder / "clouds.tif", (toy_values()[:1] < 400).astype(np.uint8))
    return ["--mask", str(mask)], ("'dark'", "polygons.gpkg", "masked", "--classes")


@case
def mask_elsewhere(folder: Path) -> Case:
    elsewhere = NORTH_UP * Affine.translation(500, 0)
    mask = write_tif(folder / "clouds.tif", np.ones((64, 96), np.uint8), transform=elsewhere)
    return ["--mask", str(mask)], ("--mask", "clouds.tif", "does not overlap", "505000")


@case
def mask_of_three_bands(folder: Path) -> Case:
    return ["--mask", str(toy_scene(folder / "clouds.tif"))], ("clouds.tif", "3 bands", "expected one")


# -- labels


@case
def labels_not_there(folder: Path) -> Case:
    return ["--labels", str(folder / "polygon.gpkg")], (str(folder / "polygon.gpkg"), "does not exist")


@case
def field_missing(folder: Path) -> Case:
    import geopandas

    geometries, classes = toy_squares()
    frame = geopandas.GeoDataFrame({"landuse": classes, "year": 2024}, geometry=geometries, crs="EPSG:32633")
    frame.to_file(folder / "p.gpkg")
    return ["--labels", str(folder / "p.gpkg"), "--field", "land"], ("'land'", "landuse", "year", "p.gpkg")


@case
def field_missing_in_geojson(folder: Path) -> Case:
    path = write_geojson(folder / "p.geojson", [(square(4, 4, 8), {"kind": "a", "year": 1})])
    return ["--labels", str(path), "--field", "class"], ("'class'", "kind", "year", "p.geojson")


@case
def field_not_given(folder: Path) -> Case:
    labels = toy_labels(folder / "p.gpkg")
    return ["--labels", str(labels), "--field", "NONE"], ("p.gpkg", "class", "--field")


@case
def all_polygons_outside(folder: Path) -> Case:
    labels = toy_labels(folder / "p.gpkg", [square(-900, -900, 8), square(-900, -800, 8)], ["a", "b"])
    return ["--labels", str(labels)], ("all 2 polygons", "p.gpkg", "491000", "500960", "EPSG:32633", "QGIS")


@case
def all_polygons_outside_in_another_crs(folder: Path) -> Case:
    path = write_geojson(folder / "p.geojson", [(shapely.box(3, 50, 3.1, 50.1), {"class": "a"})], crs=None)
    return ["--labels", str(path)], ("p.geojson", "50.1", "CRS84", "500960", "EPSG:32633")


@case
def labels_without_crs(folder: Path) -> Case:
    geometries, classes = toy_squares()
    labels = write_layer(folder / "p.shp", geometries, "class", classes, crs=None)
    return ["--labels", str(labels)], ("p.shp", "no CRS", "EPSG:32633", "QGIS")


@case
def one_class_only(folder: Path) -> Case:
    labels = toy_labels(folder / "p.gpkg", values=["forest"] * 12)
    return ["--labels", str(labels)], ("p.gpkg", "only one class", "forest", "at least two")


@case
def class_that_the_rule_leaves_out(folder: Path) -> Case:
    return ["--drop-labels-where", "b1>500"], ("polygons.gpkg", "'bright'", "--drop-labels-where", "b1>500")


@case
def class_smaller_than_a_pixel(folder: Path) -> Case:
    geometries, classes = toy_squares()
    labels = toy_labels(folder / "p.gpkg", [*geometries, square(20.1, 20.1, 0.2)], [*classes, "well"])
    return ["--labels", str(labels)], ("'well'", "p.gpkg", "pixel", "--classes well=")


@case
def classes_with_a_typo(folder: Path) -> Case:
    return ["--classes", "brihgt=light"], ("'brihgt'", "polygons.gpkg", "bright, dark", "did you mean 'bright'?")


@case
def classes_that_drop_everything(folder: Path) -> Case:
    return ["--classes", "bright=,dark="], ("polygons.gpkg", "no classes left", "--classes")


@case
def classes_that_are_no_pairs(folder: Path) -> Case:
    return ["--classes", "bright"], ("--classes", "'bright'", "old=new")


@case
def geopackage_without_features(folder: Path) -> Case:
    labels = toy_labels(folder / "p.gpkg", [], [])
    return ["--labels", str(labels)], ("p.gpkg", "expected")


@case
def empty_geopackage(folder: Path) -> Case:
    (folder / "p.gpkg").write_bytes(b"")
    return ["--labels", str(folder / "p.gpkg")], ("p.gpkg", "0 bytes")


@case
def damaged_geopackage(folder: Path) -> Case:
    labels = toy_labels(folder / "p.gpkg")
    labels.write_bytes(labels.read_bytes()[:5000])
    return ["--labels", str(labels)], ("p.gpkg",)


@case
def broken_geojson(folder: Path) -> Case:
    (folder / "p.geojson").write_text('{"type": "FeatureCollection", "features": [')
    return ["--labels", str(folder / "p.geojson")], ("p.geojson", "not valid JSON")


@case
def points_only(folder: Path) -> Case:
    labels = toy_labels(folder / "p.gpkg", [shapely.Point(500_100, 4_999_900)] * 2, ["a", "b"])
    return ["--labels", str(labels)], ("p.gpkg", "Point", "expected polygons")


@case
def lines_only(folder: Path) -> Case:
    line = shapely.LineString([(500_100, 4_999_900), (500_200, 4_999_800)])
    return ["--labels", str(toy_labels(folder / "p.gpkg", [line] * 2, ["a", "b"]))], ("LineString", "expected polygons")


@case
def null_geometries_only(folder: Path) -> Case:
    path = write_geojson(folder / "p.geojson", [(None, {"class": "a"}), (None, {"class": "b"})])
    return ["--labels", str(path)], ("p.geojson", "no polygon")


@case
def label_raster_of_fractions(folder: Path) -> Case:
    labels = write_tif(folder / "l.tif", toy_values()[:1] / 7)
    return ["--labels", str(labels)], ("l.tif", "fractions", "whole class numbers")


@case
def label_raster_of_negative_numbers(folder: Path) -> Case:
    labels = write_tif(folder / "l.tif", np.full((64, 96), -9, np.int16))
    return ["--labels", str(labels)], ("l.tif", "-9", "gdal_edit")


@case
def label_raster_without_labels(folder: Path) -> Case:
    labels = write_tif(folder / "l.tif", np.zeros((64, 96), np.uint8))
    return ["--labels", str(labels)], ("l.tif", "no labelled pixel", "--zero-is-class")


@case
def label_raster_elsewhere(folder: Path) -> Case:
    values = (toy_values()[:1] > 500).astype(np.uint8) + 1
    labels = write_tif(folder / "l.tif", values, transform=NORTH_UP * Affine.translation(500, 0))
    return ["--labels", str(labels)], ("l.tif", "outside", "505000", "500960", "EPSG:32633")


@case
def scene_as_the_label_raster(folder: Path) -> Case:
    return ["--labels", str(toy_scene(folder / "l.tif"))], ("l.tif", "3 bands", "expected one")


@case
def truncated_label_raster(folder: Path) -> Case:
    labels = write_tif(folder / "l.tif", np.ones((64, 96), np.uint8), compress="deflate")
    labels.write_bytes(labels.read_bytes()[:-20])
    return ["--labels", str(labels)], ("l.tif", "copy or download it again")


# -- options


@case
def method_unknown(folder: Path) -> Case:
    return ["--method", "fixmach"], ("'fixmach'", "fixmatch, fixmatch_jem, flexmatch", "did you mean 'fixmatch'?")


@case
def method_option_unknown(folder: Path) -> Case:
    return ["--method", "fixmatch", "--option", "treshold=0.9"], ("treshold", "threshold")


@case
def method_option_out_of_range(folder: Path) -> Case:
    return ["--method", "fixmatch", "--option", "threshold=7"], ("threshold", "7")


@case
def steps_of_zero(folder: Path) -> Case:
    return ["--steps", "0"], ("--steps", "'0'", "from 1")


@case
def effort_unknown(folder: Path) -> Case:
    return ["--effort", "fast"], ("--effort", "'fast'", "quick, standard, thorough")


@case
def blocks_smaller_than_crops(folder: Path) -> Case:
    return ["--crop-px", "64"], ("--block-px", "32", "--crop-px")


@case
def encoder_unknown(folder: Path) -> Case:
    return ["--encoder", "efficientnet_lite9"], ("efficientnet_lite9",)


@case
def config_with_an_unknown_key(folder: Path) -> Case:
    path = folder / "run.yaml"
    path.write_text("scenes: [scene.tif]\nlabels: polygons.gpkg\ncrop_pixels: 64\n")
    return ["CONFIG", str(path)], (str(path), "'crop_pixels'", "did you mean 'crop_px'?")


@case
def config_that_is_not_there(folder: Path) -> Case:
    return ["CONFIG", str(folder / "run.yaml")], (str(folder / "run.yaml"),)


@case
def config_with_a_tag(folder: Path) -> Case:
    path = folder / "run.yaml"
    path.write_text("scenes: !!python/object/apply:os.system ['true']\n")
    return ["CONFIG", str(path)], (str(path), "tag")


@case
def scene_that_would_be_overwritten(folder: Path) -> Case:
    (folder / "mine").mkdir()
    expected = ("map.tif", "--out", "another folder")
    return [toy_scene(folder / "mine" / "map.tif"), "--out", str(folder / "mine")], expected


@case
def scenes_in_the_output_folder(folder: Path) -> Case:
    (folder / "mine").mkdir()
    toy_scene(folder / "mine" / "scene.tif")
    return [folder / "mine", "--out", str(folder / "mine")], ("mine", "--out", "another folder")


@pytest.mark.parametrize("name", CASES)
def test_refused_in_one_line(name: str, tmp_path: Path) -> None:
    changed, expected = CASES[name](tmp_path)
    scene = tmp_path / "mine" / "map.tif"
    before = scene.read_bytes() if scene.exists() else None
    if changed[0] == "CONFIG":
        command: Words = ["map", "--config", changed[1], "--out", tmp_path / "out"]
    elif changed[0] == "SCENE":
        command = words(tmp_path)
        command[1] = changed[1]
    else:
        command = [w for w in words(tmp_path, *changed) if w != "NONE"]
        command = command[:-1] if command[-1] == "--field" else command
    began = time.monotonic()
    assert_refused(command, tmp_path / "out", expected)
    if name == "declares_149_gib":
        assert time.monotonic() - began < 2
    assert before is None or scene.read_bytes() == before


@pytest.mark.parametrize("flag", ["--stepps", "--crop"])
def test_an_unknown_flag_is_told_in_one_line(flag: str, tmp_path: Path) -> None:
    assert_refused([*words(tmp_path), flag, "3"], tmp_path / "out", (flag, "--help"))


def test_a_missing_out_is_told_in_one_line(tmp_path: Path) -> None:
    assert_refused(["map", toy_scene(tmp_path / "scene.tif")], tmp_path / "out", ("--out", "--help"))


def test_an_unknown_verb_is_told_in_one_line(tmp_path: Path) -> None:
    assert_refused(["mapp"], tmp_path / "out", ("mapp", "Did you mean 'map'"))


# -- folders


def test_out_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("taken")
    command = words(tmp_path, "--out", str(tmp_path / "file" / "out"))
    assert_refused(command, tmp_path / "out", (str(tmp_path / "file" / "out"), "--out"), code=1)


def test_out_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("taken")
    command = words(tmp_path, "--out", str(tmp_path / "file"))
    assert_refused(command, tmp_path, (str(tmp_path / "file"), "--out"), code=1)
    assert (tmp_path / "file").read_text() == "taken"


def test_out_that_another_run_holds(tmp_path: Path) -> None:
    code = (
        "import sys; from berunda.mapping.lock import output_lock\n"
        "with output_lock(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
    )
    out = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert_refused(words(tmp_path), out, (str(out), "another run", f"process {other.pid}", "--out"), code=1)
        assert other.stdin is not None
        other.stdin.close()
        assert other.wait(10) == 0


# -- order


def test_verdicts_come_before_torch(tmp_path: Path) -> None:
    commands = [
        [*words(tmp_path / name, *CASES[name](_made(tmp_path / name))[0])]
        for name in ("truncated_tif", "vrt_renamed", "field_missing", "all_polygons_outside", "declares_149_gib")
    ]
    code = (
        "import json, sys; from berunda.cli.main import main\n"
        "codes = [main(words) for words in json.loads(sys.argv[1])]\n"
        "print(codes, 'torch' in sys.modules)"
    )
    told = json.dumps([[str(word) for word in command] for command in commands])
    done = subprocess.run([sys.executable, "-c", code, told], capture_output=True, text=True, check=True)
    assert done.stdout == "[2, 2, 2, 2, 2] False\n", done
    assert len(done.stderr.splitlines()) == 5


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


# -- odd input that works


def test_a_crop_larger_than_the_scene_is_padded(tmp_path: Path) -> None:
    command = words(tmp_path, "--crop-px", "128", "--block-px", "128", "--steps", "1")
    called(*command)
    assert finished(tmp_path / "out") >= {"map.tif", "report.html", "model"}


def test_one_row_of_pixels_is_mapped(tmp_path: Path) -> None:
    import rasterio

    scene = toy_scene(tmp_path / "scene.tif", 1, 96)
    labels = toy_labels(tmp_path / "p.gpkg", [square(0, c, 4) for c in (4, 20, 60, 80)], ["a", "a", "b", "b"])
    called(*words(tmp_path, scene, "--labels", str(labels), "--steps", "1"))
    with rasterio.open(tmp_path / "out" / "map.tif") as made:
        assert made.shape == (1, 96)
        assert set(np.unique(made.read(1))) <= {1, 2}


def test_one_label_of_each_class_is_enough_and_said(tmp_path: Path) -> None:
    labels = toy_labels(tmp_path / "p.gpkg", [square(4, 4, 8), square(4, 80, 8)], ["a", "b"])
    done = called(*words(tmp_path, "--labels", str(labels), "--steps", "1"))
    assert "No label was held out: the accuracy of this map is not known." in done.warnings


def test_odd_polygons_are_counted_and_used(tmp_path: Path) -> None:
    bow = shapely.Polygon([NORTH_UP * p for p in ((30, 14), (38, 22), (38, 14), (30, 22))])
    squares, _ = toy_squares()
    ids = [1.0 if square.centroid.x < 500_480 else 255.0 for square in squares]
    features: list[tuple[Any, dict[str, Any]]] = [
        *((shape, {"class": value}) for shape, value in zip(squares, ids, strict=True)),
        (bow, {"class": 1.0}),
        (None, {"class": 1.0}),
        (square(40, 40, 4), {"class": None}),
        (square(-900, 0, 8), {"class": 7.0}),
    ]
    labels = write_geojson(tmp_path / "p.geojson", features)
    done = called(*words(tmp_path, "--labels", str(labels), "--steps", "1"))
    said = "\n".join(done.warnings)
    assert "1 of the 16 polygons of p.geojson cross themselves and were repaired" in said
    assert "1 of the 16 polygons of p.geojson have no geometry" in said
    assert "1 of the 16 polygons of p.geojson have no class" in said
    assert "1 of the 16 polygons of p.geojson lie outside the scene" in said
    assert "Class '7' has no polygon on the scene" in said
    assert '"255"' in (tmp_path / "out" / "model" / "model.json").read_text()
