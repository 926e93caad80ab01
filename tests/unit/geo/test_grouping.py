from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from toy_rasters import ramp, write_tif

from berunda.errors import GeoError
from berunda.geo.raster import open_scenes


def moved(cols: float, rows: float = 0) -> Affine:
    return Affine(10, 0, 500_000 + 10 * cols, 0, -10, 5_000_000 - 10 * rows)


def pair(
    folder: Path, second: Affine, *, rows: int = 100, cols: int = 100, crs: str | None = "EPSG:32633"
) -> list[Path]:
    write_tif(folder / "a.tif", ramp(1, 100, 100))
    write_tif(folder / "b.tif", ramp(1, rows, cols), transform=second, crs=crs)
    return [folder / "a.tif", folder / "b.tif"]


@pytest.mark.parametrize(("cols", "n_scenes"), [(0, 1), (0.5, 1), (1, 1), (90, 2), (95, 2), (100, 2), (5000, 2)])
def test_same_ground_is_one_scene_and_other_ground_another(tmp_path: Path, cols: float, n_scenes: int) -> None:
    scenes = open_scenes(pair(tmp_path, moved(cols)))
    assert len(scenes) == n_scenes
    assert [s.name for s in scenes] == (["a", "b"] if n_scenes == 2 else [tmp_path.name])


@pytest.mark.parametrize(("cols", "share"), [(1.5, "98.5%"), (10, "90.0%"), (50, "50.0%"), (89, "11.0%")])
def test_what_lies_between_is_an_error(tmp_path: Path, cols: float, share: str) -> None:
    with pytest.raises(
        GeoError, match=f"a.tif and .*b.tif overlap by {share} of the larger and {share} of the smaller"
    ):
        open_scenes(pair(tmp_path, moved(cols)))


def test_a_small_raster_inside_a_large_one_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(GeoError, match=r"4\.0% of the larger and 100\.0% of the smaller"):
        open_scenes(pair(tmp_path, moved(10, 10), rows=20, cols=20))


def test_coarse_bands_may_end_within_a_coarse_pixel(tmp_path: Path) -> None:
    write_tif(tmp_path / "x_B02.tif", ramp(1, 100, 100))
    write_tif(tmp_path / "x_B01.tif", ramp(1, 17, 17), transform=Affine(60, 0, 500_000, 0, -60, 5_000_000))
    (scene,) = open_scenes([tmp_path])
    assert scene.read(scene.grid.full_window).valid.all()
    write_tif(tmp_path / "x_B01.tif", ramp(1, 16, 16), transform=Affine(60, 0, 500_000, 0, -60, 5_000_000))
    (scene,) = open_scenes([tmp_path])
    valid = scene.read(scene.grid.full_window).valid
    assert valid[:96, :96].all()
    assert not valid[96:].any()


def test_neighbours_in_other_zones_are_scenes(tmp_path: Path) -> None:
    scenes = open_scenes(pair(tmp_path, moved(30_000), crs="EPSG:32634"))
    assert len(scenes) == 2


def test_the_same_ground_in_two_crs_is_an_error(tmp_path: Path) -> None:
    write_tif(tmp_path / "a.tif", ramp(1, 100, 100), crs="EPSG:32633")
    from berunda.geo.reproject import transform_points

    x, y = transform_points(np.array([500_000.0]), np.array([5_000_000.0]), "EPSG:32633", "EPSG:25833")
    same = Affine(10, 0, float(x[0]), 0, -10, float(y[0]))
    write_tif(tmp_path / "b.tif", ramp(1, 100, 100), transform=same, crs="EPSG:25833")
    with pytest.raises(GeoError, match=r"EPSG:32633.*EPSG:25833.* cover the same ground in different CRS"):
        open_scenes([tmp_path])


def test_one_file_without_crs_among_others_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(GeoError, match=r"b\.tif has no CRS, .*a\.tif has EPSG:32633"):
        open_scenes(pair(tmp_path, moved(0), crs=None))


def test_pictures_without_georeference(tmp_path: Path) -> None:
    def picture(name: str, n_bands: int, rows: int = 20) -> Path:
        return write_tif(tmp_path / name, ramp(n_bands, rows, 20), transform=Affine.identity(), crs=None)

    photos = [picture("p.tif", 3), picture("q.tif", 3)]
    assert [s.name for s in open_scenes(photos)] == ["p", "q"]
    singles = [picture("x_red.tif", 1), picture("x_nir.tif", 1)]
    (scene,) = open_scenes(singles)
    assert scene.band_names == ("red", "nir")
    with pytest.raises(GeoError, match="no georeference, so it is unknown"):
        open_scenes([photos[0], singles[0]])
    with pytest.raises(GeoError, match="expected all or none"):
        open_scenes([photos[0], write_tif(tmp_path / "z.tif", ramp(1, 20, 20))])


def test_scenes_get_names_of_their_own(tmp_path: Path) -> None:
    for i, folder in enumerate(("one", "two")):
        (tmp_path / folder).mkdir()
        write_tif(tmp_path / folder / "scene.tif", ramp(2, 10, 10), transform=moved(50 * i))
    scenes = open_scenes([tmp_path / "one", tmp_path / "two"])
    assert [s.name for s in scenes] == ["scene", "scene_2"]
