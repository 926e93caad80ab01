"""What was measured about the libraries underneath: the trap is there, and what stands here does not step into it.

A trap that a later version of a library has mended makes its test skip, and say so.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from toy_rasters import ramp, write_tif

from berunda.errors import SecurityError
from berunda.geo.grid import Shape
from berunda.geo.raster import open_scenes
from berunda.mapping.predictor import Planes
from berunda.mapping.tiles import TileStore

pytest.importorskip("resource")

VRT = """<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>
<SourceFilename relativeToVRT="0">{source}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>
</VRTRasterBand></VRTDataset>"""
RAW = """<VRTDataset rasterXSize="5" rasterYSize="1">
<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">
<SourceFilename relativetoVRT="0">{source}</SourceFilename><ImageOffset>0</ImageOffset><PixelOffset>1</PixelOffset>
<LineOffset>5</LineOffset></VRTRasterBand></VRTDataset>"""


def flipped(data: bytes, n: int, first: int) -> list[bytes]:
    """Return `n` copies of `data`, each with one bit changed from byte `first` on."""
    draw = np.random.default_rng(0)
    copies = []
    for place, bit in zip(draw.integers(first, len(data), n), draw.integers(0, 8, n), strict=True):
        copy = bytearray(data)
        copy[place] ^= 1 << int(bit)
        copies.append(bytes(copy))
    return copies


def test_a_flipped_bit_in_a_foreign_uncompressed_raster_cannot_be_seen(tmp_path: Path) -> None:
    """A plain TIFF has no checksum: other pixels are read, without an error, by anyone. Only its fingerprint tells."""
    values = np.random.default_rng(0).integers(1, 4000, (1, 100, 100)).astype(np.uint16)
    path = write_tif(tmp_path / "a.tif", values)
    whole = path.read_bytes()
    (scene,) = open_scenes([path])
    known = scene.fingerprint()
    with rasterio.open(path) as dataset:
        first = int(dataset.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    for copy in flipped(whole[: first + values.nbytes], 50, first):
        path.write_bytes(copy)
        (scene,) = open_scenes([path])
        assert (scene.read(scene.grid.full_window).values != values).sum() == 1
        assert scene.fingerprint() != known


def test_every_flipped_bit_in_a_tile_is_seen(tmp_path: Path) -> None:
    """Tiles are uncompressed too, but each has its sha256 in the journal."""
    store, draw = TileStore(tmp_path), np.random.default_rng(0)
    planes = Planes(draw.integers(0, 5, (40, 50)).astype(np.uint8), *draw.random((3, 40, 50)).astype(np.float32))
    receipt = store.write(0, planes)
    path = store.path(0)
    for copy in flipped(path.read_bytes(), 200, 0):
        path.write_bytes(copy)
        assert not store.is_intact(receipt, Shape(40, 50))


KILLED = """
import sys
from pathlib import Path
import numpy as np, rasterio
from affine import Affine
from rasterio.windows import Window as Plain
from berunda.geo.grid import Grid, Shape
from berunda.geo.write import create_tiled, finish_cog

folder, plain = Path(sys.argv[1]), sys.argv[2] == "plain"
block = np.full((1, 512, 512), 7, np.uint8)
grid = Grid(Shape(4096, 4096), Affine(10, 0, 0, 0, -10, 0), "")
print("ready", flush=True)
if plain:
    with rasterio.open(folder / "map.tif", "w", driver="GTiff", width=4096, height=4096, count=1, dtype="uint8",
                       tiled=True, blockxsize=512, blockysize=512, nodata=0) as made:
        for window in grid.tiles(512):
            made.write(block, window=Plain(window.col, window.row, 512, 512))
            print(window.row, flush=True)
else:
    with create_tiled(folder / "t.tif", grid, 1, "uint8", 0) as writer:
        for window in grid.tiles(512):
            writer.write(block, window)
            print(window.row, flush=True)
    finish_cog(folder / "t.tif", folder / "map.tif", overview="mode")
"""


def kill_writing(folder: Path, kind: str, n_windows: int) -> None:
    """Kill a program after it has written `n_windows` of 64 windows."""
    command = [sys.executable, "-c", KILLED, str(folder), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _ in range(1 + n_windows):
            assert child.stdout.readline()
        child.kill()
    assert child.returncode == -signal.SIGKILL


def test_a_kill_while_windows_are_written_leaves_a_file_that_looks_whole_only_without_our_writer(
    tmp_path: Path,
) -> None:
    for kind in ("plain", "ours"):
        (tmp_path / kind).mkdir()
        kill_writing(tmp_path / kind, kind, 20)
    assert not (tmp_path / "ours" / "map.tif").exists()
    with rasterio.open(tmp_path / "plain" / "map.tif") as left:
        share = float((left.read(1) == 7).mean())
    assert share < 20.5 / 64  # it opens and reads without an error, as if the rest were nodata


FULL = """
import resource, signal, sys
import numpy as np, rasterio
from rasterio.windows import Window
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path, shift = sys.argv[1], int(sys.argv[2])
values = np.random.default_rng(0).integers(1, 255, (1, 512, 512)).astype(np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
with rasterio.open(path, "w", driver="GTiff", width=2560, height=2560, count=1, dtype="uint8", tiled=True,
                   blockxsize=512, blockysize=512, compress="deflate") as made:
    for row in range(0, 2048, 512):
        for col in range(0, 2048, 512):
            made.write(values, window=Window(col + shift, row + shift, 512, 512))
"""


def test_a_full_disk_goes_unnoticed_when_windows_are_not_aligned_to_blocks(tmp_path: Path) -> None:
    """Why `berunda.geo.write` refuses windows that are not, and reads back what it wrote."""
    codes = {}
    for shift in (0, 100):
        path = tmp_path / f"{shift}.tif"
        done = subprocess.run([sys.executable, "-c", FULL, str(path), str(shift)], capture_output=True, check=False)
        codes[shift] = done.returncode
        assert path.stat().st_size <= 1_000_000
    assert codes[0] != 0
    if codes[100] != 0:
        pytest.skip("this GDAL tells of the full disk in either case")
    with pytest.raises(rasterio.errors.RasterioError), rasterio.open(tmp_path / "100.tif") as left:
        left.read()


@pytest.mark.parametrize("name", ["a.vrt", "a.tif"])
@pytest.mark.parametrize("kind", ["simple", "raw"])
def test_a_vrt_of_any_name_shows_another_file_only_without_our_reader(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    if kind == "simple":
        path.write_text(VRT.format(source=write_tif(tmp_path / "secret.tif", ramp(1, 8, 8, "uint8"))))
    else:
        (tmp_path / "secret").write_bytes(b"root:")
        path.write_text(RAW.format(source=tmp_path / "secret"))
    for text in (path, path.read_text()):
        with pytest.raises(SecurityError, match="refused"):
            open_scenes([text])
    try:
        with rasterio.open(path) as dataset:
            shown = dataset.read(1).tobytes()
    except rasterio.errors.RasterioIOError:
        pytest.skip("this GDAL does not open it")
    assert shown.startswith(b"root:" if kind == "raw" else ramp(1, 8, 8, "uint8").tobytes())
