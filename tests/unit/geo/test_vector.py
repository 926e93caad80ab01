from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import shapely
from affine import Affine
from toy_rasters import NORTH_UP, square, write_geojson, write_layer, write_tif

from berunda.errors import GeoError, SecurityError
from berunda.geo.grid import Grid, Shape, parse_crs
from berunda.geo.legend import aux_xml
from berunda.geo.reproject import transform_geometries
from berunda.geo.vector import Labels, rasterize, read_labels

GRID = Grid(Shape(50, 60), NORTH_UP, str(parse_crs("EPSG:32633").to_wkt()))
BARE = Grid(GRID.shape, NORTH_UP, "")
POLYGONS = [square(2, 2, 5), square(10, 20, 6), square(30, 40, 4)]


def read(path: Path, field: str = "class", grid: Grid = GRID, **options: object) -> Labels:
    return read_labels(path, field, grids=[grid], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".shp"])
@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", "EPSG:3857"])
def test_formats_and_crs(tmp_path: Path, suffix: str, crs: str) -> None:
    if suffix == ".geojson" and crs == "EPSG:3857":
        pytest.skip("GeoJSON is written in WGS 84")
    array = transform_geometries(np.array(POLYGONS, dtype=object), GRID.crs, crs)
    path = write_layer(tmp_path / f"l{suffix}", list(array), "class", ["water", "forest", "water"], crs=crs)
    labels = read(path)
    assert labels.class_names == ("forest", "water")
    assert labels.class_ids.tolist() == [2, 1, 2]
    assert labels.counts() == {"forest": 1, "water": 2}
    index = rasterize(labels, GRID, GRID.full_window)
    assert [(index == i).sum() for i in range(3)] == [25, 36, 16]
    assert (labels.n_outside, labels.n_partly_outside, labels.n_empty, labels.n_repaired) == (0, 0, 0, 0)


def test_float_ids_are_whole_numbers_and_missing_ones_are_counted(tmp_path: Path) -> None:
    path = write_layer(tmp_path / "l.gpkg", [*POLYGONS, square(20, 2, 3)], "id", [3.0, 1.0, np.nan, 10.0])
    labels = read(path, "id")
    assert labels.class_names == ("1", "10", "3")
    assert labels.n_null == 1
    texts = write_layer(tmp_path / "t.gpkg", POLYGONS, "id", ["a", None, " "])
    assert read(texts, "id").n_null == 2


def test_classes_are_mapped(tmp_path: Path) -> None:
    path = write_layer(tmp_path / "l.gpkg", POLYGONS, "class", ["meadow", "grass", "scrub"])
    labels = read(path, classes={"meadow": "green", "grass": "green", "scrub": ""})
    assert labels.class_names == ("green",)
    assert labels.n_dropped == 1
    with pytest.raises(GeoError, match="did you mean 'scrub'"):
        read(path, classes={"scrubs": ""})


def test_a_missing_field_lists_the_fields(tmp_path: Path) -> None:
    for path in (
        write_layer(tmp_path / "l.gpkg", POLYGONS, "fclass", ["a", "b", "c"]),
        write_geojson(tmp_path / "l.geojson", [(p, {"fclass": "a", "z": 1}) for p in POLYGONS]),
    ):
        with pytest.raises(GeoError, match=r"has no field 'class': expected one of fclass.*did you mean 'fclass'"):
            read(path)


def test_the_field_is_asked_for_with_the_fields_there_are(tmp_path: Path) -> None:
    for path in (
        write_layer(tmp_path / "l.gpkg", POLYGONS, "fclass", ["a", "b", "c"]),
        write_geojson(tmp_path / "l.geojson", [(p, {"fclass": "a", "z": 1}) for p in POLYGONS]),
    ):
        with pytest.raises(GeoError, match="--field is needed: the attribute that holds the class; the fields are fcl"):
            read(path, "")


def test_polygons_partly_and_wholly_outside_are_counted(tmp_path: Path) -> None:
    shapes = [square(2, 2, 5), square(-3, 5, 6), square(500, 500, 5), square(-6, 0, 6)]
    labels = read(write_layer(tmp_path / "l.gpkg", shapes, "class", ["a", "b", "c", "d"]))
    assert len(labels) == 2
    assert (labels.n_outside, labels.n_partly_outside) == (2, 1)
    assert labels.class_names == ("a", "b")
    assert labels.absent_classes == ("c", "d")
    assert labels.counts() == {"a": 1, "b": 1}


def test_all_outside_shows_both_extents_and_crs(tmp_path: Path) -> None:
    away = transform_geometries(np.array([square(5000, 0, 5)], dtype=object), GRID.crs, "EPSG:4326")
    path = write_layer(tmp_path / "l.gpkg", list(away), "class", ["a"], crs="EPSG:4326")
    with pytest.raises(GeoError) as found:
        read(path)
    text = str(found.value)
    assert "all 1 polygons" in text
    assert "x 15 to 15.0" in text
    assert "EPSG:4326" in text
    assert "x 500000 to 500600, y 4999500 to 5000000 in EPSG:32633" in text
    assert "\n" not in text


def test_labels_between_two_scenes(tmp_path: Path) -> None:
    right = Grid(GRID.shape, NORTH_UP * Affine.translation(60, 0), GRID.crs)
    path = write_layer(tmp_path / "l.gpkg", [square(5, 57, 6), square(5, 100, 6)], "class", ["a", "b"])
    labels = read_labels(path, "class", grids=[GRID, right])
    assert len(labels) == 2
    assert labels.n_partly_outside == 0
    assert (rasterize(labels, GRID, GRID.full_window) == 0).sum() == 18
    assert (rasterize(labels, right, right.full_window) == 0).sum() == 18


def test_scenes_in_two_crs_share_labels(tmp_path: Path) -> None:
    other_crs = str(parse_crs("EPSG:32634").to_wkt())
    corner = transform_geometries(np.array([shapely.Point(5e5, 5e6)], dtype=object), GRID.crs, other_crs)[0]
    other = Grid(Shape(200, 200), Affine(10, 0, corner.x - 500, 0, -10, corner.y + 500), other_crs)
    path = write_layer(tmp_path / "l.gpkg", POLYGONS, "class", ["a", "b", "c"])
    labels = read_labels(path, "class", grids=[GRID, other])
    assert (rasterize(labels, other, other.full_window) == 1).sum() == pytest.approx(36, abs=3)


def test_broken_and_empty_geometries(tmp_path: Path) -> None:
    bow = shapely.Polygon([NORTH_UP * p for p in ((0, 0), (8, 8), (8, 0), (0, 8))])
    line = shapely.Polygon([NORTH_UP * p for p in ((20, 20), (25, 25), (20, 20), (25, 25))])
    shapes = [bow, None, shapely.Polygon(), line, square(20, 2, 3)]
    labels = read(write_geojson(tmp_path / "l.geojson", [(g, {"class": "a"}) for g in shapes]))
    assert len(labels) == 2
    assert (labels.n_repaired, labels.n_empty) == (1, 3)
    assert shapely.is_valid(labels.geometries).all()
    index = rasterize(labels, GRID, GRID.full_window)
    expected = np.array([[min(r, 7 - r) > min(c, 7 - c) or c == r or c == 7 - r for c in range(8)] for r in range(8)])
    assert (index[:8, :8] >= 0).sum() == pytest.approx(expected.sum(), abs=16)


def test_a_polygon_beyond_repair_is_left_out(tmp_path: Path) -> None:
    """Its corners lie so far off that no valid polygon can be computed of it."""
    far = shapely.Polygon([(1e308, 4999700), (500160, 4999700), (-1e308, 4999760), (500100, 4999760)])
    try:
        shapely.make_valid(far)
    except shapely.GEOSException:
        pass
    else:
        pytest.skip("this version of GEOS computes one")
    bow = shapely.Polygon([NORTH_UP * p for p in ((0, 0), (8, 8), (8, 0), (0, 8))])
    shapes = [bow, far, square(20, 2, 3)]
    labels = read(write_geojson(tmp_path / "l.geojson", [(g, {"class": "a"}) for g in shapes]))
    assert (len(labels), labels.n_repaired, labels.n_empty) == (2, 1, 1)


def test_points_are_refused(tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "l.geojson", [(shapely.Point(5e5, 5e6), {"class": "a"})])
    with pytest.raises(GeoError, match="holds Point features: expected polygons; buffer them"):
        read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("{", "is not valid JSON"),
        ("[1]", "JSON of type 'list'"),
        ('{"type": "Topology"}', "JSON of type 'Topology'"),
        ('{"type": "FeatureCollection", "features": 3}', "expected a GeoJSON FeatureCollection"),
        (
            '{"type": "gdal_streamed_alg", "command_line": "gdal vector read /etc/passwd"}',
            "JSON of type 'gdal_streamed",
        ),
        ("[" * 100_000, "is not valid JSON"),
    ],
)
def test_json_that_is_no_geojson(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "l.geojson"
    path.write_text(text)
    with pytest.raises(GeoError, match=message):
        read(path)


def test_a_damaged_feature_is_named(tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "l.geojson", [(POLYGONS[0], {"class": "a"})])
    data = json.loads(path.read_text())
    data["features"].append({"type": "Feature", "properties": {"class": "b"}, "geometry": {"type": "Polygon"}})
    path.write_text(json.dumps(data))
    with pytest.raises(GeoError, match="feature 2 has a damaged geometry"):
        read(path)


@pytest.mark.parametrize("crs", ["EPSG:5703", "nonsense", "EPSG:999999"])
def test_systems_that_lead_nowhere_are_refused(tmp_path: Path, crs: str) -> None:
    path = write_geojson(tmp_path / "l.geojson", [(POLYGONS[0], {"class": "a"})], crs=crs)
    with pytest.raises(GeoError, match=r"no transformation leads|cannot understand|outside the scene") as found:
        read(path)
    assert "\n" not in str(found.value)


def test_hostile_coordinates_and_names_are_survived(tmp_path: Path) -> None:
    huge = shapely.Polygon([(-1e17, -1e17), (1e17, -1e17), (1e17, 1e17), (-1e17, 1e17)])
    path = write_geojson(
        tmp_path / "l.geojson",
        [(huge, {"class": "a\x00\nb"}), (shapely.Polygon([(0, 0), (1e300, 0), (0, 1e300)]), {"class": {"x": [1]}})],
    )
    labels = read(path)
    assert labels.class_names[0] == "a b"
    assert (rasterize(labels, GRID, GRID.full_window) == 0).any()
    with pytest.raises(GeoError) as found:
        read(write_geojson(tmp_path / "m.geojson", [(huge, {"a\nb": 1})]))
    assert "\n" not in str(found.value)


def test_other_formats_are_refused(tmp_path: Path) -> None:
    vrt = tmp_path / "l.gpkg"
    vrt.write_text("<OGRVRTDataSource><OGRVRTLayer name='a'/></OGRVRTDataSource>")
    with pytest.raises(SecurityError, match="is a VRT by its content"):
        read(vrt)
    kml = tmp_path / "l.kml"
    kml.write_text("<kml></kml>")
    with pytest.raises(GeoError, match="expected GeoPackage, GeoJSON or shapefile"):
        read(kml)
    with pytest.raises(SecurityError, match="remote host"):
        read(Path("https://example.org/l.geojson"))


def test_damaged_files(tmp_path: Path) -> None:
    whole = write_layer(tmp_path / "l.gpkg", POLYGONS, "class", ["a", "b", "c"]).read_bytes()
    cut = tmp_path / "cut.gpkg"
    for n in (100, 5000, len(whole) // 2):
        cut.write_bytes(whole[:n])
        with pytest.raises(GeoError, match=r"cut\.gpkg"):
            read(cut)
    write_layer(tmp_path / "s.shp", POLYGONS, "class", ["a", "b", "c"])
    (tmp_path / "s.shx").unlink()
    with pytest.raises(GeoError, match="cannot be read"):
        read(tmp_path / "s.shp")


def test_several_layers_need_one_with_the_field(tmp_path: Path) -> None:
    path = tmp_path / "l.gpkg"
    write_layer(path, POLYGONS, "class", ["a", "b", "c"], layer="one")
    write_layer(path, POLYGONS, "other", ["a", "b", "c"], layer="two")
    assert len(read(path)) == 3
    write_layer(path, POLYGONS, "class", ["a", "b", "c"], layer="three")
    with pytest.raises(GeoError, match=r"the field 'class' in 2 layers \(one, three\)"):
        read(path)


def test_a_side_without_crs_is_named(tmp_path: Path) -> None:
    bare = write_layer(tmp_path / "bare.shp", POLYGONS, "class", ["a", "b", "c"], crs=None)
    with pytest.raises(GeoError, match=r"bare\.shp has no CRS, the scene has EPSG:32633"):
        read(bare)
    known = write_layer(tmp_path / "known.gpkg", POLYGONS, "class", ["a", "b", "c"])
    with pytest.raises(GeoError, match="has EPSG:32633, the scene has no CRS"):
        read(known, grid=BARE)


def test_both_without_crs_share_coordinates(tmp_path: Path) -> None:
    bare = write_layer(tmp_path / "bare.shp", POLYGONS, "class", ["a", "b", "c"], crs=None)
    plain = write_geojson(tmp_path / "l.geojson", [(p, {"class": "a"}) for p in POLYGONS], crs=None)
    for path in (bare, plain):
        labels = read(path, grid=BARE)
        assert labels.crs == ""
        assert (rasterize(labels, BARE, BARE.full_window) >= 0).sum() == 77


def test_fingerprints_follow_the_outline_only(tmp_path: Path) -> None:
    turned = shapely.Polygon(np.roll(shapely.get_coordinates(POLYGONS[0])[:-1], 2, axis=0))
    first = read(write_layer(tmp_path / "a.gpkg", POLYGONS, "class", ["a", "b", "c"]))
    second = read(write_layer(tmp_path / "b.gpkg", [turned, *POLYGONS[1:]], "other", ["x", "b", "c"]), "other")
    assert first.fingerprints == second.fingerprints
    assert len(set(first.fingerprints)) == 3
    assert first.fingerprint() != second.fingerprint()


def test_subsets_and_copies(tmp_path: Path) -> None:
    labels = read(write_layer(tmp_path / "a.gpkg", POLYGONS, "class", ["a", "b", "c"]))
    rasterize(labels, GRID, GRID.full_window)
    part = labels.subset([2, 0])
    assert part.class_names == labels.class_names
    assert part.class_ids.tolist() == [3, 1]
    assert part.fingerprints == (labels.fingerprints[2], labels.fingerprints[0])
    assert (rasterize(part, GRID, GRID.full_window) == 0).sum() == 16
    assert len(labels.subset(labels.class_ids == 2)) == 1
    assert len(labels.subset([])) == 0
    copy = pickle.loads(pickle.dumps(labels))
    np.testing.assert_array_equal(rasterize(copy, GRID, GRID.full_window), rasterize(labels, GRID, GRID.full_window))


def label_raster(path: Path, dtype: str = "uint8", **options: object) -> tuple[Path, np.ndarray]:
    values = np.zeros((50, 60), dtype)
    values[5:10, 5:20] = 1
    values[20:30, 5:20] = 2
    values[20:25, 40:50] = 2
    values[22, 44] = 1
    values[40:, 50:] = 255 if dtype != "int8" else 100
    return write_tif(path, values, **options), values  # type: ignore[arg-type]


def test_label_rasters_become_regions(tmp_path: Path) -> None:
    path, values = label_raster(tmp_path / "l.tif")
    labels = read(path, "unused")
    assert labels.class_names == ("1", "2")
    assert sorted(labels.class_ids.tolist()) == [1, 1, 2, 2]
    index = rasterize(labels, GRID, GRID.full_window)
    burnt = np.where(index >= 0, labels.class_ids[index.clip(0)], 0)
    np.testing.assert_array_equal(burnt, np.where(values == 255, 0, values))


@pytest.mark.parametrize(
    ("nodata", "zero_is_class", "names"),
    [
        (None, False, ("1", "2")),
        (None, True, ("0", "1", "2")),
        (255, False, ("0", "1", "2")),
        (0, False, ("1", "2", "255")),
        (0, True, ("0", "1", "2", "255")),
        (2, False, ("0", "1", "255")),
    ],
)
def test_what_is_unlabelled(tmp_path: Path, nodata: int | None, zero_is_class: bool, names: tuple[str, ...]) -> None:
    path, _ = label_raster(tmp_path / "l.tif", nodata=nodata)
    assert read(path, zero_is_class=zero_is_class).class_names == names


def test_label_raster_names_come_from_tags_or_categories(tmp_path: Path) -> None:
    import rasterio

    path, _ = label_raster(tmp_path / "l.tif")
    path.with_name("l.tif.aux.xml").write_text(aux_xml(["none", "forest", "water & ice"]))
    assert read(path).class_names == ("forest", "water & ice")
    assert read(path, classes={"forest": "wood"}).class_names == ("water & ice", "wood")
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(CLASS_1="tree")
    assert read(path).class_names == ("2", "tree")


def test_label_rasters_of_other_grids_fit(tmp_path: Path) -> None:
    values = np.array([[1, 2], [0, 1]], "uint8")
    path = write_tif(tmp_path / "l.tif", values, transform=NORTH_UP * Affine.scale(10))
    index = rasterize(read(path), GRID, GRID.full_window)
    assert (index[:20, :20] >= 0).sum() == 300
    assert (index[20:] == -1).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((4, 4), 1.5, "float32"), "holds fractions"),
        (np.full((4, 4), -1, "int16"), "holds -1 in 16 pixels: .* declare it as nodata"),
        (np.arange(400, dtype="int16").reshape(20, 20), "398 different values: expected at most 255"),
        (np.zeros((4, 4), "uint8"), "has no labelled pixel"),
        (np.full((4, 4), np.nan, "float32"), "has no labelled pixel"),
        (np.ones((2, 4, 4), "uint8"), "has 2 bands: expected one"),
    ],
)
def test_label_rasters_that_are_none(tmp_path: Path, values: np.ndarray, message: str) -> None:
    with pytest.raises(GeoError, match=message):
        read(write_tif(tmp_path / "l.tif", values))


def test_float_label_rasters_with_whole_numbers_work(tmp_path: Path) -> None:
    values = np.full((4, 4), np.nan, "float32")
    values[1:3, 1:3] = 3
    assert read(write_tif(tmp_path / "l.tif", values)).class_names == ("3",)
