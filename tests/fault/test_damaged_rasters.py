from __future__ import annotations

import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from toy_rasters import write_tif

from berunda.errors import GeoError
from berunda.geo.raster import open_scenes

N_CUTS = 60


def speckle(rows: int = 320, cols: int = 320) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 4000, (2, rows, cols)).astype(np.uint16)


def read_all(path: Path) -> np.ndarray:
    (scene,) = open_scenes([path])
    return scene.read(scene.grid.full_window).values


TILED = {"tiled": True, "blockxsize": 64, "blockysize": 64}
KINDS: dict[str, dict[str, Any]] = {
    "deflate": {"compress": "deflate", **TILED},
    "plain": {},
    "lzw": {"compress": "lzw", "interleave": "pixel", **TILED},
    "big": {"compress": "deflate", "bigtiff": "YES", **TILED},
    "motorola": {"endianness": "BIG", **TILED},
    "cog": {"compress": "deflate", **TILED},
}


def whole_tiff(folder: Path, kind: str) -> Path:
    """Return a whole file of that kind."""
    path = write_tif(folder / f"{kind}.tif", speckle(), **KINDS[kind])
    if kind == "cog":
        path = path.rename(folder / "source.tif")
        with rasterio.open(path) as source:
            rasterio.shutil.copy(source, folder / "cog.tif", driver="COG", blocksize=128, compress="DEFLATE")
    return folder / f"{kind}.tif"


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_truncated_tiff_gets_its_verdict_on_open(tmp_path: Path, kind: str) -> None:
    whole = whole_tiff(tmp_path, kind).read_bytes()
    path = tmp_path / "cut.tif"
    path.write_bytes(whole)
    (scene,) = open_scenes([path])
    np.testing.assert_array_equal(scene.read(scene.grid.full_window).values, speckle())
    scene.close()
    rng = np.random.default_rng(1)
    end = len(whole) - (4 if kind == "cog" else 0)  # a COG ends with four bytes that GDAL does not need
    for n in [0, 1, 7, 8, 100, end - 1, *rng.integers(1, end, N_CUTS).tolist()]:
        path.write_bytes(whole[:n])
        with pytest.raises(GeoError, match=r"cut\.tif is (truncated|empty|damaged|an unknown)") as found:
            open_scenes([path])
        assert "\n" not in str(found.value)


@pytest.mark.parametrize(("driver", "suffix"), [("JP2OpenJPEG", ".jp2"), ("PNG", ".png"), ("JPEG", ".jpg")])
def test_truncated_pictures_are_refused_on_open_or_read(tmp_path: Path, driver: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    values = (speckle(200, 200)[:1] % 250).astype(np.uint8)
    write_tif(path, values, driver=driver)
    whole = path.read_bytes()
    for side in tmp_path.glob("*.aux.xml"):
        side.unlink()
    (scene,) = open_scenes([path])
    assert scene.read(scene.grid.full_window).values.std() > 10
    scene.close()
    for n in np.linspace(1, len(whole) - 3, 25).astype(int):
        path.write_bytes(whole[:n])
        with pytest.raises(GeoError) as found:
            read_all(path)
        assert str(path) in str(found.value)
        assert "\n" not in str(found.value)


def test_flipped_bits_in_compressed_tiles_mostly_raise(tmp_path: Path) -> None:
    """Not all do: libtiff stops once a tile is full and does not look at the checksum behind it (5% in trials)."""
    path = whole_tiff(tmp_path, "deflate")
    whole = bytearray(path.read_bytes())
    rng = np.random.default_rng(2)
    n_silent = 0
    for position in rng.integers(1000, len(whole) - 10_000, 40):
        changed = bytearray(whole)
        changed[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        with suppress(GeoError):
            n_silent += not np.array_equal(read_all(path), speckle())
    assert n_silent <= 8


def test_a_read_error_names_the_window(tmp_path: Path) -> None:
    path = whole_tiff(tmp_path, "deflate")
    data = bytearray(path.read_bytes())
    with rasterio.open(path) as dataset:
        start = int(dataset.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1))
    data[start : start + 400] = bytes(400)
    path.write_bytes(data)
    (scene,) = open_scenes([path])
    with pytest.raises(GeoError, match=r"deflate\.tif cannot be read \(rows 0\.\.319, columns 0\.\.319\)"):
        scene.read(scene.grid.full_window)


def sparse_bomb(path: Path) -> None:
    """Write a TIFF of about 115 KB that declares 400,000 x 400,000 bytes, without a single stored block."""
    side, block = 400_000, 4_992
    across = -(-side // block)
    n = across * across
    entries = [
        (256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1),
        (322, 4, 1, block), (323, 4, 1, block), (324, 16, n, 16 + 8 + 10 * 20 + 8), (325, 16, n, 16 + 8 + 10 * 20 + 8),
    ]  # fmt: skip
    head = b"II+\0" + struct.pack("<HHQ", 8, 0, 16) + struct.pack("<Q", len(entries))
    body = b"".join(struct.pack("<HHQQ", *entry) for entry in entries) + struct.pack("<Q", 0)
    path.write_bytes(head + body + bytes(8 * n) + bytes(64_000))


VERDICT = """
import sys, time
from berunda.errors import GeoError
from berunda.geo.raster import open_scenes
try:
    open_scenes([sys.argv[1]])
except GeoError as error:
    print(error)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(time.process_time(), int(peak.split()[1]) / 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc for the peak of its memory")
def test_a_small_file_that_declares_149_gib_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tif"
    sparse_bomb(path)
    assert 100_000 < path.stat().st_size < 130_000
    with rasterio.open(path) as dataset:
        assert dataset.width * dataset.height / 2**30 == pytest.approx(149, abs=1)
    done = subprocess.run([sys.executable, "-c", VERDICT, str(path)], capture_output=True, text=True, check=True)
    line, figures = done.stdout.strip().split("\n")
    assert "bomb.tif declares 149.0 GiB (400000 x 400000 px, 1 bands) in a file of" in line
    seconds, mib = map(float, figures.split())
    assert seconds < 2
    assert mib < 200


def test_large_but_honest_sparse_rasters_pass(tmp_path: Path) -> None:
    path = tmp_path / "sparse.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=40_000, height=40_000, count=1, dtype="uint8", tiled=True, sparse_ok=True,
        blockxsize=512, blockysize=512, nodata=0,
    ):  # fmt: skip
        pass
    (scene,) = open_scenes([path])
    assert not scene.read(next(scene.grid.tiles(64))).valid.any()


def test_blocks_that_do_not_fit_into_memory_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "strip.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=40_000, height=40_000, count=1, dtype="uint8", sparse_ok=True,
        tiled=True, blockxsize=40_000, blockysize=40_000, compress="deflate",
    ):  # fmt: skip
        pass
    with pytest.raises(GeoError, match=r"blocks of 40000 x 40000 px \(1\.5 GiB each\).*gdal_translate -of COG"):
        open_scenes([path])


def test_directories_that_lie_are_refused(tmp_path: Path) -> None:
    good = write_tif(tmp_path / "a.tif", speckle(20, 20)).read_bytes()
    path = tmp_path / "b.tif"
    for start in (0xFFFFFFF0, len(good) + 5, 3):
        path.write_bytes(good[:4] + struct.pack("<I", start) + good[8:])
        with pytest.raises(GeoError):
            open_scenes([path])
