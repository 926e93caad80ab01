from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from toy_rasters import ramp, write_tif

from berunda.errors import GeoError
from berunda.geo.bandnames import file_token, is_sentinel2
from berunda.geo.raster import open_scenes


@pytest.mark.parametrize(
    ("stem", "token"),
    [
        ("T33UUU_20170216T102101_B02", "B02"),
        ("T33UUU_20170216T102101_B8A_20m", "B8A"),
        ("T33UUU_20170216T102101_TCI_10m", "TCI"),
        ("LC08_L2SP_190025_20200101_20200823_02_T1_SR_B4", "SR_B4"),
        ("HLS.L30.T33UUU.2020001T100000.v2.0.B05", "B05"),
        ("s1_VV", "VV"),
        ("scene-swir1", "swir1"),
        ("my RED", "RED"),
        ("scene_B21x", None),
        ("bundle", None),
    ],
)
def test_tokens_in_file_names(stem: str, token: str | None) -> None:
    assert file_token(stem) == token


def test_sentinel2_names() -> None:
    assert is_sentinel2("T33UUU_20170216T102101_B8A")
    assert is_sentinel2("L2A_T33UUU_20170216T102101_B02_10m")
    assert not is_sentinel2("T33UUU_20170216T102101_TCI")
    assert not is_sentinel2("x_B02")


def opened(folder: Path, bands: list[str] | None = None) -> tuple[str, ...]:
    (scene,) = open_scenes([folder], bands=bands)
    return scene.band_names


def test_descriptions_come_first(tmp_path: Path) -> None:
    write_tif(tmp_path / "x_B02.tif", ramp(3, 5, 5), names=["blue", "near  infrared"])
    assert opened(tmp_path) == ("blue", "near infrared", "b3")


def test_doubled_descriptions_are_numbered(tmp_path: Path) -> None:
    write_tif(tmp_path / "a.tif", ramp(3, 5, 5), names=["Gray", "Gray", "nir"])
    assert opened(tmp_path) == ("b1", "b2", "nir")


def test_single_bands_are_told_apart_by_their_stems(tmp_path: Path) -> None:
    for name in ("site_2020_first_x", "site_2020_second_x"):
        write_tif(tmp_path / f"{name}.tif", ramp(1, 5, 5))
    assert opened(tmp_path) == ("first", "second")


def test_two_dates_of_one_band_are_two_bands(tmp_path: Path) -> None:
    for name in ("20200101_B02", "20200101_B03", "20200601_B02"):
        write_tif(tmp_path / f"{name}.tif", ramp(1, 5, 5))
    assert opened(tmp_path) == ("20200101_B02", "B03", "20200601_B02")


def test_two_files_with_the_same_descriptions(tmp_path: Path) -> None:
    for name in ("may", "june"):
        write_tif(tmp_path / f"{name}.tif", ramp(2, 5, 5), names=["red", "nir"])
    assert opened(tmp_path) == ("june_red", "june_nir", "may_red", "may_nir")


def test_bands_that_cannot_be_told_apart_are_an_error(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder / "in").mkdir(parents=True)
        write_tif(tmp_path / folder / "in" / "x_B02.tif", ramp(1, 5, 5))
    with pytest.raises(GeoError, match="two bands are both called"):
        open_scenes([tmp_path / "one" / "in", tmp_path / "two" / "in"])


def test_bands_are_selected_in_the_order_asked_for(tmp_path: Path) -> None:
    values = ramp(3, 5, 5)
    write_tif(tmp_path / "a.tif", values, names=["B02", "B03", "B8A"])
    assert opened(tmp_path, ["B8A", "b2"]) == ("B8A", "B02")
    (scene,) = open_scenes([tmp_path], bands=["b8a", "B02"])
    np.testing.assert_array_equal(scene.read(scene.grid.full_window).values, values[[2, 0]])
    chosen = scene.select(["B02"])
    assert chosen.band_names == ("B02",)
    assert chosen.grid == scene.grid


def test_as_many_new_names_as_bands_rename(tmp_path: Path) -> None:
    write_tif(tmp_path / "a.tif", ramp(3, 5, 5))
    assert opened(tmp_path, ["red", "nir", "swir"]) == ("red", "nir", "swir")


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        (["blue", "gren"], r"band 'gren' is not in .*expected one of blue, green, nir; did you mean 'green'"),
        (["x", "y"], r"band 'x' is not in .* name all 3 bands"),
        (["blue", "y", "z"], r"band 'y' is not in"),
        (["blue", "blue"], "'blue' twice"),
        (["blue", " "], "an empty name"),
        ([], "an empty name"),
    ],
)
def test_names_that_do_not_fit_are_explained(tmp_path: Path, bands: list[str], message: str) -> None:
    write_tif(tmp_path / "a.tif", ramp(3, 5, 5), names=["blue", "green", "nir"])
    with pytest.raises(GeoError, match=message) as found:
        open_scenes([tmp_path], bands=bands)
    assert "\n" not in str(found.value)
