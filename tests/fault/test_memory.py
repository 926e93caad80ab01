"""A raster several times larger than the memory it may take is mapped, in as much memory as a small one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.windows import Window
from toy_mapping import toy_bundle

from berunda.mapping.bundle import save_bundle

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of peak memory"),
]

LIMIT_MIB = 1280
N_BANDS, PATCH_PX = 16, 256
SMALL_PX, LARGE_PX = 1024, 9216

MAP = """
import sys
from pathlib import Path
import torch
from berunda.geo.raster import open_scenes
from berunda.mapping.bundle import load_bundle
from berunda.mapping.run import map_scenes

torch.set_num_threads(1)
model, scene, out = map(Path, sys.argv[1:])
(made,) = map_scenes(load_bundle(model), open_scenes([scene]), out, tile_px=256)
assert made.is_complete
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
print(1 - made.nodata_share, int(peak.split()[1]) / 1024)
"""


def sparse_scene(path: Path, side: int) -> Path:
    """Write a scene with data in eight patches on its diagonal; the rest is not stored."""
    place = {"crs": CRS.from_epsg(32633), "transform": from_origin(400000, 5800000, 10, 10), "nodata": 0}
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256, "interleave": "pixel", "sparse_ok": True}
    size = {"width": side, "height": side, "count": N_BANDS, "dtype": "float32"}
    draw = np.random.default_rng(0)
    with rasterio.open(path, "w", driver="GTiff", bigtiff="yes", **size, **layout, **place) as file:
        for start in np.linspace(0, side - PATCH_PX, 8).astype(int) // PATCH_PX * PATCH_PX:
            values = draw.uniform(100, 1100, (N_BANDS, PATCH_PX, PATCH_PX)).astype(np.float32)
            file.write(values, window=Window(start, start, PATCH_PX, PATCH_PX))
    return path


def mapped(folder: Path, side: int) -> tuple[float, float]:
    """Map a scene in a process of its own; return how many pixels had data, and its peak in MiB."""
    scene = sparse_scene(folder / f"scene-{side}.tif", side)
    command = [sys.executable, "-c", MAP, str(folder / "model"), str(scene), str(folder / f"out-{side}")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    share, peak = map(float, done.stdout.split())
    return share * side * side, peak


def test_a_raster_four_times_the_memory_takes_no_more_than_a_small_one(tmp_path: Path) -> None:
    save_bundle(tmp_path / "model", toy_bundle(n_bands=N_BANDS))
    assert LARGE_PX * LARGE_PX * N_BANDS * 4 >= 4 * LIMIT_MIB * 2**20
    small_px, small = mapped(tmp_path, SMALL_PX)
    large_px, large = mapped(tmp_path, LARGE_PX)
    assert round(small_px) == 4 * PATCH_PX**2  # patches of a small scene lie on each other
    assert round(large_px) == 8 * PATCH_PX**2
    assert large < LIMIT_MIB, (small, large)
    assert large < 1.15 * small, (small, large)
    with rasterio.open(tmp_path / f"out-{LARGE_PX}" / "map.tif") as file:
        assert (file.shape, file.read(1, window=Window(0, 0, 256, 256)).min()) == ((LARGE_PX, LARGE_PX), 1)
