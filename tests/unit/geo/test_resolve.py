from __future__ import annotations

from pathlib import Path

import pytest

from berunda.errors import BerundaError, GeoError, SecurityError
from berunda.geo.resolve import gdal_name, is_remote, resolve_inputs


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def names(folder: Path) -> list[str]:
    return [p.relative_to(folder).as_posix() for p in resolve_inputs([folder])]


def test_a_folder_stands_for_its_rasters(tmp_path: Path) -> None:
    touch(tmp_path, "b.TIF", "a.tif", "a.tif.aux.xml", "a.tif.ovr", "a.tif.msk", "notes.txt", ".hidden.tif")
    touch(tmp_path, "thumb.jpg", "x_preview.tif", "below/c.tif")
    assert names(tmp_path) == ["a.tif", "b.TIF"]


def test_pictures_count_when_there_is_nothing_else(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.jpg")
    assert names(tmp_path) == ["a.png", "b.jpg"]


def test_a_sentinel2_product_gives_its_finest_bands(tmp_path: Path) -> None:
    granule = "S2A.SAFE/GRANULE/L2A_T33UUU"
    stem = "T33UUU_20170216T102101"
    touch(
        tmp_path,
        f"{granule}/IMG_DATA/R10m/{stem}_B02_10m.jp2",
        f"{granule}/IMG_DATA/R10m/{stem}_TCI_10m.jp2",
        f"{granule}/IMG_DATA/R20m/{stem}_B02_20m.jp2",
        f"{granule}/IMG_DATA/R20m/{stem}_B8A_20m.jp2",
        f"{granule}/IMG_DATA/R20m/{stem}_SCL_20m.jp2",
        f"{granule}/IMG_DATA/R60m/{stem}_B8A_60m.jp2",
        f"{granule}/QI_DATA/MSK_CLDPRB_20m.jp2",
        f"{granule}/QI_DATA/{stem}_PVI.jp2",
        "S2A.SAFE/S2A-ql.jpg",
    )
    found = [p.name for p in resolve_inputs([tmp_path / "S2A.SAFE"])]
    assert found == [f"{stem}_B02_10m.jp2", f"{stem}_B8A_20m.jp2"]


def test_named_files_are_always_taken(tmp_path: Path) -> None:
    touch(tmp_path, "x_TCI.jp2")
    assert [p.name for p in resolve_inputs([tmp_path / "x_TCI.jp2"])] == ["x_TCI.jp2"]


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:9/a.tif",
        "https://example.org/a.tif",
        "HTTPS://example.org/a.tif",
        "s3://bucket/a.tif",
        "ftp://host/a.tif",
        "zip+file:///a.zip!b.tif",
        "/vsicurl/http://127.0.0.1:9/a.tif",
        "/vsizip/a.zip/b.tif",
        " /vsimem/a.tif",
        "//vsis3/bucket/a.tif",
        "/VSICURL/http://h/a.tif",
        "<VRTDataset rasterXSize='1' rasterYSize='1'></VRTDataset>",
        "  <GDAL_WMS></GDAL_WMS>",
        "GTIFF_DIR:1:a.tif",
        "NETCDF:a.nc:x",
        "SENTINEL2_L1C:a.xml:10m:EPSG_32633",
        "WMS:http://127.0.0.1:9/",
        "vrt://a.tif",
        "GeoJSON:http://127.0.0.1:9/a",
    ],
)
def test_what_is_no_local_path_is_refused(text: str) -> None:
    with pytest.raises(SecurityError, match=r"refused") as found:
        resolve_inputs([text])
    assert "\n" not in str(found.value)


def test_a_local_name_with_a_colon_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a:b.tif")
    monkeypatch.chdir(tmp_path)
    assert resolve_inputs(["a:b.tif"]) == [Path("a:b.tif")]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "scene.tif")
    with pytest.raises(GeoError, match=r"scen\.tif does not exist: did you mean .*scene\.tif"):
        resolve_inputs([tmp_path / "scen.tif"])
    with pytest.raises(GeoError, match="does not exist either"):
        resolve_inputs([tmp_path / "nowhere" / "scene.tif"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(GeoError, match="holds no raster"):
        resolve_inputs([tmp_path / "empty"])
    with pytest.raises(GeoError, match="given twice"):
        resolve_inputs([tmp_path / "scene.tif", tmp_path / "scene.tif"])
    with pytest.raises(GeoError, match="no scene"):
        resolve_inputs([])
    with pytest.raises(GeoError, match="empty"):
        resolve_inputs([""])


def test_addresses_pass_when_allowed() -> None:
    (path,) = resolve_inputs(["https://example.org/a/b.tif"], allow_remote=True)
    assert is_remote(path)
    assert gdal_name(path) == "/vsicurl/https://example.org/a/b.tif"
    with pytest.raises(SecurityError):
        resolve_inputs(["s3://bucket/a.tif"], allow_remote=True)


def test_a_folder_with_too_much_in_it_is_no_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("berunda.geo.resolve.MAX_ENTRIES", 10)
    (tmp_path / "sub").mkdir()
    for i in range(10):
        (tmp_path / "sub" / f"{i}.txt").touch()
    with pytest.raises(GeoError, match="holds over 10 entries"):
        resolve_inputs([tmp_path])


@pytest.mark.parametrize("text", ["A" * 300, "A" * 300 + ":" + "B" * 300, "A/" * 3000])
def test_names_that_are_too_long_are_told_in_one_line(text: str) -> None:
    with pytest.raises(BerundaError) as caught:
        resolve_inputs([text])
    assert "\n" not in str(caught.value)
