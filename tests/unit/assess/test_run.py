"""Assessing maps: agreement, design-based estimates, refusals, files written."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from shapely.geometry import Point, box

from berunda.assess.run import assess_map
from berunda.errors import DataError
from berunda.geo.raster import open_scenes
from berunda.geo.vector import read_labels

CRS = "EPSG:32633"
SIZE = 60
NAMES = ("farm", "forest", "water")


def truth_codes() -> np.ndarray:
    codes = np.ones((SIZE, SIZE), np.uint8)
    codes[:, 20:40], codes[:, 40:] = 2, 3
    return codes


def write_map(path: Path, codes: np.ndarray, names: tuple[str, ...] = NAMES, crs: str | None = CRS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "height": SIZE, "width": SIZE, "count": 1, "dtype": "uint8", "nodata": 0}
    with rasterio.open(path, "w", crs=crs, transform=from_origin(500_000, 5_800_000, 10, 10), **profile) as file:
        file.write(codes, 1)
        file.update_tags(**{f"CLASS_{i}": name for i, name in enumerate(names, 1)})
        file.write_colormap(1, {1: (242, 207, 91), 2: (31, 122, 61), 3: (47, 127, 193)})
    return path


def square(row: int, col: int, size: int = 6) -> object:
    left, top = 500_000 + 10 * col, 5_800_000 - 10 * row
    return box(left, top - 10 * size, left + 10 * size, top)


def write_polygons(path: Path, names: tuple[str, ...] = NAMES, crs: str = CRS) -> Path:
    rows = [(square(r, 20 * c + 5), names[c]) for c in range(3) for r in (2, 22, 42)]
    frame = gpd.GeoDataFrame({"kind": [n for _, n in rows]}, geometry=[g for g, _ in rows], crs=CRS)
    frame.to_crs(crs).to_file(path, driver="GPKG")
    return path


def write_points(path: Path, rows: np.ndarray, cols: np.ndarray, names: list[str]) -> Path:
    places = [Point(500_005 + 10 * c, 5_799_995 - 10 * r) for r, c in zip(rows, cols, strict=True)]
    gpd.GeoDataFrame({"kind": names}, geometry=places, crs=CRS).to_file(path, driver="GPKG")
    return path


def test_agreement_with_polygons(tmp_path: Path) -> None:
    codes = truth_codes()
    codes[2:8, 5:11] = 2
    map_path = write_map(tmp_path / "map.tif", codes)
    found = assess_map(map_path, write_polygons(tmp_path / "ref.gpkg"), field="kind", out=tmp_path / "out")
    assert found.scores is not None
    assert found.scores.n_pixels == 9 * 36
    assert found.scores.oa == pytest.approx(8 / 9)
    assert found.scores.recall == pytest.approx((2 / 3, 1, 1))
    assert found.scores.precision == pytest.approx((1, 3 / 4, 1))
    assert found.intervals is not None
    assert (found.intervals.n_groups, found.intervals.unit) == (9, "polygons")
    assert "not the accuracy of the map" in found.statement
    values = json.loads(found.values.read_text())
    assert values["metrics"]["oa"] == pytest.approx(8 / 9)
    assert values["area"] is None
    page = found.page.read_text()
    assert "not the accuracy of the map" in page
    assert "Overall agreement" in page


def test_polygons_in_another_crs_give_nearly_the_same(tmp_path: Path) -> None:
    map_path = write_map(tmp_path / "map.tif", truth_codes())
    polygons = write_polygons(tmp_path / "ref.gpkg", crs="EPSG:4326")
    found = assess_map(map_path, polygons, field="kind", out=tmp_path)
    assert found.scores is not None
    assert found.scores.oa == 1
    assert abs(found.scores.n_pixels - 9 * 36) <= 9


def test_raster_reference_and_nodata_in_the_map(tmp_path: Path) -> None:
    codes = truth_codes()
    reference = write_map(tmp_path / "reference.tif", codes)
    mapped = codes.copy()
    mapped[:10] = 0
    mapped[50:, :20] = 3
    found = assess_map(write_map(tmp_path / "m" / "map.tif", mapped), reference, field="", out=tmp_path)
    assert found.scores is not None
    assert found.scores.n_pixels == 50 * 60
    assert found.scores.oa == pytest.approx(1 - 200 / 3000)
    assert any("600 reference pixels" in w for w in found.warnings)


def test_class_mapping_and_extra_class(tmp_path: Path) -> None:
    map_path = write_map(tmp_path / "map.tif", truth_codes())
    polygons = write_polygons(tmp_path / "ref.gpkg", ("arable", "forest", "moorland"))
    found = assess_map(map_path, polygons, field="kind", out=tmp_path, classes={"arable": "farm"})
    assert found.class_names == ("farm", "forest", "water", "moorland")
    assert found.scores is not None
    assert found.scores.oa == pytest.approx(2 / 3)
    assert found.scores.absent == ("water",)
    assert any("'moorland' of the reference is not a class of the map" in w for w in found.warnings)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a", "b", "c"), "none in common"),
        (("farm", "forrest", "water"), "if it means 'forest' use --classes forrest=forest"),
    ],
)
def test_wrong_class_names_are_explained(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    map_path = write_map(tmp_path / "map.tif", truth_codes())
    with pytest.raises(DataError, match=message):
        assess_map(map_path, write_polygons(tmp_path / "r.gpkg", names), field="kind", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("record", ["model/model.json", "report.json", "../model/model.json"])
def test_polygons_that_trained_the_model_are_refused(tmp_path: Path, record: str) -> None:
    map_path = write_map(tmp_path / "run" / "scene" / "map.tif", truth_codes())
    polygons = write_polygons(tmp_path / "ref.gpkg")
    with open_scenes([map_path])[0] as scene:
        prints = read_labels(polygons, "kind", grids=[scene.grid]).fingerprints
    place = map_path.parent / record
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps({"training": {"labels": {"fingerprints": list(prints[:4])}}}))
    with pytest.raises(DataError, match="4 of the 9 reference polygons trained the model"):
        assess_map(map_path, polygons, field="kind", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["polygons", "raster"])
def test_the_tag_of_a_map_alone_tells_what_trained_its_model(tmp_path: Path, kind: str) -> None:
    map_path = write_map(tmp_path / "map.tif", truth_codes())
    if kind == "raster":
        reference, field = write_map(tmp_path / "r" / "map.tif", truth_codes()), ""
    else:
        reference, field = write_polygons(tmp_path / "r.gpkg"), "kind"
    with open_scenes([map_path])[0] as scene:
        used = read_labels(reference, field, grids=[scene.grid], cut_px=32)
    with rasterio.open(map_path, "r+") as file:
        file.update_tags(BERUNDA_LABELS=" ".join(sorted({f[:16] for f in used.fingerprints[:3]})))
    with pytest.raises(DataError, match=r"\d of the \d reference polygons trained .*tag BERUNDA_LABELS of"):
        assess_map(map_path, reference, field=field, out=tmp_path / "out")
    with rasterio.open(map_path, "r+") as file:
        file.update_tags(BERUNDA_LABELS="0123456789abcdef")
    assert assess_map(map_path, reference, field=field, out=tmp_path / "out").scores is not None


def test_zero_can_be_a_class_of_a_reference_raster(tmp_path: Path) -> None:
    reference = truth_codes()
    reference[:30] = 0
    path = write_map(tmp_path / "r" / "map.tif", reference)
    map_path = write_map(tmp_path / "map.tif", truth_codes())
    found = [
        assess_map(map_path, path, field="", out=tmp_path / "out", zero_is_class=zero).scores for zero in (False, True)
    ]
    assert [scores.n_pixels for scores in found if scores] == [1800, 3600]


def test_the_seed_is_that_of_the_intervals(tmp_path: Path) -> None:
    codes = truth_codes()
    codes[2:8, 5:11] = codes[22:25, 25:31] = 3
    map_path, polygons = write_map(tmp_path / "map.tif", codes), write_polygons(tmp_path / "ref.gpkg")
    found = [assess_map(map_path, polygons, field="kind", out=tmp_path, seed=seed) for seed in (0, 0, 1)]
    one, two, other = (r.intervals.as_dict() for r in found if r.intervals)
    assert one == two
    assert one != other


def test_other_polygons_and_a_damaged_record(tmp_path: Path) -> None:
    map_path = write_map(tmp_path / "map.tif", truth_codes())
    polygons = write_polygons(tmp_path / "ref.gpkg")
    (tmp_path / "report.json").write_text(json.dumps({"training": {"fingerprints": ["ab" * 32]}}))
    assert assess_map(map_path, polygons, field="kind", out=tmp_path / "out").scores is not None
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(DataError, match=r"report\.json cannot be read"):
        assess_map(map_path, polygons, field="kind", out=tmp_path / "out")


def sample(design: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a map with errors and the rows and columns of a sample."""
    rng = np.random.default_rng(1)
    codes = truth_codes()
    wrong = rng.random(codes.shape) < 0.2
    codes[wrong] = rng.integers(1, 4, int(wrong.sum()))
    codes[0, :5] = 0
    if design == "random":
        chosen = rng.choice(SIZE * SIZE, 300, replace=False)
    else:
        chosen = np.concatenate([rng.choice(np.flatnonzero(codes == c), 100, replace=False) for c in (1, 2, 3)])
    return codes, chosen // SIZE, chosen % SIZE


@pytest.mark.parametrize("design", ["random", "stratified"])
def test_design_gives_areas_with_intervals(tmp_path: Path, design: str) -> None:
    codes, rows, cols = sample(design)
    names = [NAMES[c - 1] for c in truth_codes()[rows, cols]]
    points = write_points(tmp_path / "points.gpkg", rows, cols, names)
    map_path = write_map(tmp_path / "map.tif", codes)
    found = assess_map(map_path, points, field="kind", out=tmp_path, design=design)  # type: ignore[arg-type]
    assert found.scores is None
    assert found.area is not None
    assert found.area_unit == "ha"
    assert sum(found.area.mapped_ha) == pytest.approx((SIZE * SIZE - 5) / 100)
    truth = (truth_codes()[codes > 0] == 2).sum() / (codes > 0).sum() * (SIZE * SIZE - 5) / 100
    estimate = found.area.area_ha[1]
    assert abs(estimate.value - truth) < 2 * estimate.half_width
    assert 0 < estimate.half_width < 3
    page = found.page.read_text()
    assert "Olofsson" in page
    assert json.loads(found.values.read_text())["area"]["unit"] == "ha"
    if design == "random":
        plain = assess_map(map_path, points, field="kind", out=tmp_path / "plain")
        assert plain.area is None
        assert plain.scores is not None
        assert plain.intervals is not None
        assert plain.intervals.unit == "points"


def test_points_outside_and_on_nodata_are_counted(tmp_path: Path) -> None:
    codes, rows, cols = sample("stratified")
    names = [NAMES[c - 1] for c in truth_codes()[rows, cols]]
    rows, cols = np.append(rows, [0, -5, 70]), np.append(cols, [0, 3, 3])
    points = write_points(tmp_path / "p.gpkg", rows, cols, [*names, "farm", "farm", "farm"])
    map_path = write_map(tmp_path / "map.tif", codes)
    found = assess_map(map_path, points, field="kind", out=tmp_path, design="stratified")
    assert found.area is not None
    assert found.area.n_points == 300
    assert found.warnings == (
        "2 reference points lie outside the map and were left out.",
        "1 reference points lie where the map has no data and were left out.",
    )


def test_design_needs_points(tmp_path: Path) -> None:
    map_path = write_map(tmp_path / "map.tif", truth_codes())
    with pytest.raises(DataError, match="holds no points: expected a random sample of points for --design random"):
        assess_map(map_path, write_polygons(tmp_path / "r.gpkg"), field="kind", out=tmp_path, design="random")


def test_map_without_projection_counts_pixels(tmp_path: Path) -> None:
    codes, rows, cols = sample("stratified")
    map_path = tmp_path / "map.tif"
    profile = {"driver": "GTiff", "height": SIZE, "width": SIZE, "count": 1, "dtype": "uint8", "nodata": 0}
    transform = from_origin(14, 52, 1e-4, 1e-4)
    with rasterio.open(map_path, "w", crs="EPSG:4326", transform=transform, **profile) as file:
        file.write(codes, 1)
        file.update_tags(CLASS_1="farm", CLASS_2="forest", CLASS_3="water")
    places = [Point(14 + 1e-4 * (c + 0.5), 52 - 1e-4 * (r + 0.5)) for r, c in zip(rows, cols, strict=True)]
    names = [NAMES[c - 1] for c in truth_codes()[rows, cols]]
    points = tmp_path / "p.geojson"
    gpd.GeoDataFrame({"kind": names}, geometry=places, crs="EPSG:4326").to_file(points, driver="GeoJSON")
    found = assess_map(map_path, points, field="kind", out=tmp_path, design="stratified")
    assert found.area_unit == "px"
    assert found.area is not None
    assert sum(found.area.mapped_ha) == SIZE * SIZE - 5


def test_maps_that_are_none_are_refused(tmp_path: Path) -> None:
    polygons = write_polygons(tmp_path / "r.gpkg")
    empty = write_map(tmp_path / "empty.tif", np.zeros((SIZE, SIZE), np.uint8))
    with pytest.raises(DataError, match="no mapped pixel"):
        assess_map(empty, polygons, field="kind", out=tmp_path)
    fractions = tmp_path / "confidence.tif"
    profile = {"driver": "GTiff", "height": SIZE, "width": SIZE, "dtype": "float32", "crs": CRS}
    transform = from_origin(500_000, 5_800_000, 10, 10)
    with rasterio.open(fractions, "w", count=1, transform=transform, **profile) as file:
        file.write(np.full((1, SIZE, SIZE), 0.5, np.float32))
    with pytest.raises(DataError, match=r"holds the value 0\.5, expected whole class codes"):
        assess_map(fractions, polygons, field="kind", out=tmp_path)
    with rasterio.open(tmp_path / "two.tif", "w", count=2, transform=transform, **profile) as file:
        file.write(np.ones((2, SIZE, SIZE), np.float32))
    with pytest.raises(DataError, match="2 bands, expected one class map"):
        assess_map(tmp_path / "two.tif", polygons, field="kind", out=tmp_path)
