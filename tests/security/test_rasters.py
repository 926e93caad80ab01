from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from toy_rasters import Canary, canary, ramp, square, write_layer, write_tif

from berunda.errors import BerundaError, GeoError, SecurityError
from berunda.geo.grid import Grid, Shape
from berunda.geo.raster import open_scenes
from berunda.geo.vector import read_labels

SECRET = b"root:x:0:0:secret of another file"
VRT = """<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>
<SourceFilename relativeToVRT="0">{source}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>
</VRTRasterBand></VRTDataset>"""
RAW = """<VRTDataset rasterXSize="4" rasterYSize="4">
<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">
<SourceFilename relativetoVRT="0">{source}</SourceFilename><ImageOffset>0</ImageOffset><PixelOffset>1</PixelOffset>
<LineOffset>4</LineOffset></VRTRasterBand></VRTDataset>"""
WMS = "<GDAL_WMS><Service name='TMS'><ServerUrl>{source}</ServerUrl></Service></GDAL_WMS>"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Canary]:
    (tmp_path / "log").mkdir()
    with canary(tmp_path / "log") as running:
        yield running


def use(path: Path | str, mask: Path | None = None) -> None:
    """Do all that is done with a scene."""
    (scene,) = open_scenes([path], mask=mask)
    scene.read(scene.grid.full_window)
    scene.fingerprint()


def test_the_canary_sings(tmp_path: Path, server: Canary) -> None:
    with pytest.raises(rasterio.errors.RasterioIOError):
        rasterio.open(f"{server.url}/a.tif")
    assert server.requests()


@pytest.mark.parametrize("name", ["a.vrt", "a.tif", "a.jp2", "a", "a.tif.png"])
@pytest.mark.parametrize("text", [VRT, RAW, WMS, "\n\t " + VRT, "\ufeff" + VRT])
def test_datasets_that_point_elsewhere_are_refused_by_content(
    tmp_path: Path, server: Canary, name: str, text: str
) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    for source in (str(tmp_path / "secret"), f"/vsicurl/{server.url}/x.tif", f"{server.url}/x.tif"):
        path = tmp_path / name
        path.write_text(text.format(source=source), encoding="utf-8")
        with pytest.raises(SecurityError, match="VRT or another XML dataset by its content: refused"):
            use(path)
        with pytest.raises(BerundaError):
            use(write_tif(tmp_path / "good.tif", ramp(1, 8, 8)), mask=path)
    assert server.requests() == []


def test_addresses_and_virtual_paths_reach_nobody(tmp_path: Path, server: Canary) -> None:
    good = write_tif(tmp_path / "good.tif", ramp(1, 8, 8))
    grid = Grid(Shape(8, 8), rasterio.Affine(10, 0, 0, 0, -10, 0), "")
    host = server.url.removeprefix("http://")
    for text in (
        f"{server.url}/a.tif",
        f"/vsicurl/{server.url}/a.tif",
        f"/vsicurl_streaming/{server.url}/a.tif",
        f"/vsizip//vsicurl/{server.url}/a.zip",
        f"/vsitar/vsicurl/{server.url}/a.tar",
        f"WMS:{server.url}/?layers=a",
        f"WCS:{server.url}/",
        f"vrt://{server.url}/a.tif",
        f"zip+http://{host}/a.zip!a.tif",
        VRT.format(source=f"{server.url}/a.tif"),
        f"<GDAL_WMS><Service name='TMS'><ServerUrl>{server.url}</ServerUrl></Service></GDAL_WMS>",
        f"GTI:{server.url}/a.gti",
        f"PG:host={host}",
    ):
        with pytest.raises(SecurityError):
            use(text)
        with pytest.raises(SecurityError):
            open_scenes([good], mask=text)
        with pytest.raises(SecurityError):
            read_labels(text, "class", grids=[grid])
    assert server.requests() == []


def test_overviews_that_point_elsewhere_are_refused(tmp_path: Path, server: Canary) -> None:
    inside = write_tif(tmp_path / "inside.tif", ramp(1, 64, 64))
    with rasterio.open(inside, "r+") as dataset:
        dataset.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=f"{server.url}/a.tif")
    beside = write_tif(tmp_path / "beside.tif", ramp(1, 64, 64))
    (tmp_path / "beside.tif.aux.xml").write_text(
        f'<PAMDataset><Metadata domain="OVER&#86;IEWS"><MDI key="OVERVIEW_FILE">{server.url}/b.tif</MDI></Metadata>'
        "</PAMDataset>"
    )
    for path in (inside, beside):
        with pytest.raises(SecurityError, match="names another file as its overviews"):
            use(path)
    assert server.requests() == []


@pytest.mark.parametrize("suffix", [".msk", ".ovr", ".MSK", ".ovr.msk"])
def test_side_files_that_are_no_tiff_are_refused(tmp_path: Path, server: Canary, suffix: str) -> None:
    path = write_tif(tmp_path / "a.tif", ramp(1, 8, 8))
    (tmp_path / f"a.tif{suffix}").write_text(VRT.format(source=f"/vsicurl/{server.url}/m.tif"))
    with pytest.raises(SecurityError, match="is not a TIFF by its content"):
        use(path)
    assert server.requests() == []


def test_honest_side_files_pass(tmp_path: Path) -> None:
    path = write_tif(tmp_path / "a.tif", ramp(1, 600, 600))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False, TIFF_USE_OVR=True), rasterio.open(path, "r+") as dataset:
        mask = np.full((600, 600), 255, np.uint8)
        mask[0, 0] = 0
        dataset.write_mask(mask)
        dataset.build_overviews([2])
    assert (tmp_path / "a.tif.msk").exists()
    (scene,) = open_scenes([path])
    assert (~scene.read(scene.grid.full_window).valid).sum() == 1


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 or netCDF file"),
        (b"PK\x03\x04" + bytes(64), "a zip archive"),
        (b"\x80\x04\x95pickle", "an unknown format"),
        (b'{"type": "stac"}', "a JSON file"),
        (b"SQLite format 3\0" + bytes(100), "a GeoPackage"),
        (b"<html>not found</html>", "an unknown format"),
        (bytes(600), "an unknown format"),
    ],
)
def test_other_formats_are_refused_by_content(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    with pytest.raises(GeoError, match=f"is {kind}"):
        use(path)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    address = str(tmp_path / "socket.tif")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        with pytest.raises(GeoError, match="not a regular file"):
            use(address)
    with pytest.raises(GeoError, match="not a regular file"):
        use("/dev/zero")


def test_labels_cannot_point_elsewhere(tmp_path: Path, server: Canary) -> None:
    grid = Grid(Shape(50, 50), rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000), "EPSG:32633")
    layer = f"<OGRVRTLayer name='x'><SrcDataSource>{server.url}</SrcDataSource></OGRVRTLayer>"
    texts = {
        "a.gpkg": f"<OGRVRTDataSource>{layer}</OGRVRTDataSource>",
        "b.geojson": json.dumps(
            {"type": "FeatureCollection", "features": [], "crs": {"properties": {"name": server.url}}}
        ),
        "c.geojson": f'{{"type": "gdal_streamed_alg", "command_line": "gdal vector read {server.url}/x.json"}}',
        "d.tif": VRT.format(source=f"/vsicurl/{server.url}/m.tif"),
        "e.geojson": json.dumps({"type": "link", "links": [{"rel": "next", "href": server.url}]}),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(BerundaError):
            read_labels(tmp_path / name, "class", grids=[grid])
    write_layer(tmp_path / "s.shp", [square(1, 1, 5)], "class", ["a"])
    (tmp_path / "s.prj").write_text(f"{server.url}/srs")
    with pytest.raises(BerundaError):
        read_labels(tmp_path / "s.shp", "class", grids=[grid])
    assert server.requests() == []


def test_a_host_that_the_user_asked_for_is_read(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "root").mkdir()
    values = ramp(2, 40, 40)
    write_tif(tmp_path / "root" / "a.tif", values)
    with canary(tmp_path / "log", root=tmp_path / "root") as server:
        (scene,) = open_scenes([f"{server.url}/a.tif"], allow_remote=True)
        np.testing.assert_array_equal(scene.read(scene.grid.full_window).values, values)
        assert server.requests()
        n = len(server.requests())
        with pytest.raises(SecurityError):
            open_scenes([f"{server.url}/a.tif"])
        assert len(server.requests()) == n
