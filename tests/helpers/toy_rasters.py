"""Small rasters and polygons for the tests of geography."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from affine import Affine

UTM = "EPSG:32633"
NORTH_UP = Affine(10, 0, 500_000, 0, -10, 5_000_000)

SERVER = """
import http.server, os, sys
root = sys.argv[2] if len(sys.argv) > 2 else None
class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        with open(sys.argv[1], "a") as log:
            log.write(f"{self.command} {self.path}\\n")
        super().do_GET() if root else self.send_error(404)
    def do_HEAD(self):
        with open(sys.argv[1], "a") as log:
            log.write(f"{self.command} {self.path}\\n")
        super().do_HEAD() if root else self.send_error(404)
    def log_message(self, *args):
        pass
if root:
    os.chdir(root)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def write_tif(
    path: Path,
    values: np.ndarray,
    *,
    transform: Affine = NORTH_UP,
    crs: str | None = UTM,
    names: Sequence[str] = (),
    **profile: Any,
) -> Path:
    """Write (B, h, w) or (h, w) as a GeoTIFF (or with another driver) and return its path."""
    values = values if values.ndim == 3 else values[None]
    options = {"driver": "GTiff", "photometric": "MINISBLACK"} | profile
    if options["driver"] != "GTiff":
        options.pop("photometric")
    with rasterio.open(
        path,
        "w",
        width=values.shape[2],
        height=values.shape[1],
        count=values.shape[0],
        dtype=values.dtype,
        transform=transform,
        crs=crs,
        **options,
    ) as dataset:
        dataset.write(values)
        for i, name in enumerate(names, 1):
            dataset.set_band_description(i, name)
    return path


def ramp(n_bands: int, rows: int, cols: int, dtype: str = "uint16") -> np.ndarray:
    """Return (B, rows, cols) of values from 1 that differ everywhere, as far as the type allows."""
    return (np.arange(n_bands * rows * cols).reshape(n_bands, rows, cols) % 199 + 1).astype(dtype)


def square(row: float, col: float, size: float, transform: Affine = NORTH_UP) -> shapely.Polygon:
    """Return the square of pixels from (row, col), in map coordinates."""
    corners = [(col, row), (col + size, row), (col + size, row + size), (col, row + size)]
    return shapely.Polygon([transform * corner for corner in corners])


def write_geojson(path: Path, features: Sequence[tuple[Any, dict[str, Any]]], crs: str | None = UTM) -> Path:
    """Write (geometry, properties) pairs; `crs` None leaves the member out."""
    data: dict[str, Any] = {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "properties": properties,
                "geometry": None if geometry is None else json.loads(shapely.to_geojson(geometry)),
            }
            for geometry, properties in features
        ],
    }
    if crs is not None:
        data["crs"] = {"type": "name", "properties": {"name": crs}}
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def write_layer(
    path: Path, geometries: Sequence[Any], field: str, values: Sequence[Any], crs: str | None = UTM, **options: Any
) -> Path:
    """Write polygons as GeoPackage, shapefile or GeoJSON, by the path's suffix."""
    import warnings

    import geopandas

    frame = geopandas.GeoDataFrame({field: list(values)}, geometry=list(geometries), crs=crs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame.to_file(path, engine="pyogrio", **options)
    return path


class Canary:
    """A server on the loopback interface that writes down each request."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self._log = log

    def requests(self) -> list[str]:
        return self._log.read_text().split("\n")[:-1]


@contextmanager
def canary(folder: Path, root: Path | None = None) -> Iterator[Canary]:
    """Run a server in a process of its own (GDAL would wait for one in this process for ever)."""
    log = folder / "requests.log"
    log.write_text("")
    command = [sys.executable, "-c", SERVER, str(log), *([str(root)] if root else [])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Canary(f"http://127.0.0.1:{process.stdout.readline().strip()}", log)
        finally:
            process.kill()
