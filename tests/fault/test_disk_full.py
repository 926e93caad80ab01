from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("resource")

WRITE = """
import resource, sys
from pathlib import Path
import numpy as np
from affine import Affine
from berunda.errors import OutputError
from berunda.geo.grid import Grid, Shape
from berunda.geo.write import create_tiled, finish_cog

folder = Path(sys.argv[1])
grid = Grid(Shape(1100, 1100), Affine(10, 0, 0, 0, -10, 0), "")
values = np.random.default_rng(0).integers(0, 200, (1, 1100, 1100)).astype(np.uint8)
tmp, final = folder / "t.tif", folder / "map.tif"
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

def write(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with create_tiled(tmp, grid, 1, "uint8", 0) as writer:
            for window in grid.tiles(512):
                writer.write(values[(slice(None), *window.slices)], window)
        finish_cog(tmp, final, overview="mode", categories=["", "a"])
    except OutputError as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        tmp.unlink(missing_ok=True)
    return ""

assert write(hard) == ""
size = final.stat().st_size
for path in folder.iterdir():
    path.unlink()
for step in range(20):
    line = write(max(1, size * step // 20))
    assert "could not be written (" in line and " bytes at that point)" in line and str(folder) in line, (step, line)
    assert "\\n" not in line, line
    assert list(folder.iterdir()) == [], (step, list(folder.iterdir()))
assert write(size + 1) == ""
assert final.stat().st_size == size
"""


def test_a_full_disk_at_every_20th_of_the_output_leaves_no_map(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.tif", "map.tif.aux.xml"]
