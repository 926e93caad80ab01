"""The rasters are written while tiles are made: what happens when one of the two goes wrong."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from toy_mapping import toy_bundle, toy_pixels, write_raster

from berunda.errors import OutputError
from berunda.geo.raster import Scene, open_scenes
from berunda.mapping import assemble
from berunda.mapping.arrivals import Arrivals, NoMoreTiles
from berunda.mapping.beside import Beside
from berunda.mapping.journal import Receipt
from berunda.mapping.run import map_scenes
from berunda.progress import Silent


@pytest.fixture(scope="module")
def bundle():
    return toy_bundle()


def scene_in(folder) -> Scene:
    return open_scenes([write_raster(folder / "scene.tif", toy_pixels(160, 230))])[0]


def left_in(folder) -> list[str]:
    """Return the temporary rasters and the final files."""
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and (".part" in p.name or p.parent == folder))


def test_a_tile_is_waited_for() -> None:
    arrivals = Arrivals({0: Receipt(0, "", 0)})
    assert arrivals.wait_for(0).index == 0
    late = Beside(lambda: arrivals.wait_for(1), "late")
    time.sleep(0.05)
    assert not late.is_done
    arrivals.add(Receipt(1, "", 0))
    assert late.result().index == 1


def test_after_an_abort_not_even_known_tiles_are_given() -> None:
    arrivals = Arrivals({0: Receipt(0, "", 0)})
    late = Beside(lambda: arrivals.wait_for(1), "late")
    arrivals.abort()
    with pytest.raises(NoMoreTiles):
        late.result()
    with pytest.raises(NoMoreTiles):
        arrivals.wait_for(0)


def test_a_job_is_outlasted_whatever_is_pressed(monkeypatch: pytest.MonkeyPatch) -> None:
    go, presses, join = threading.Event(), [0], threading.Thread.join
    job = Beside(go.wait, "job")

    def interrupted(self: threading.Thread, timeout: float | None = None) -> None:
        presses[0] += 1
        if presses[0] <= 2:
            raise KeyboardInterrupt
        go.set()
        join(self, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        job.outlast()
    assert presses[0] == 3
    assert job.is_done


class Pressed(Silent):
    """Presses Ctrl-C after some tiles."""

    def __init__(self, n_tiles: int) -> None:
        self.left = n_tiles

    def advance(self, n: int = 1, **figures: float) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("n_tiles", [0, 5, 39])
def test_ctrl_c_leaves_no_thread_that_writes_and_no_half_raster(tmp_path, bundle, n_tiles) -> None:
    scene, out = scene_in(tmp_path), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        map_scenes(bundle, [scene], out, tile_px=32, progress=Pressed(n_tiles))
    assert "assemble" not in {thread.name for thread in threading.enumerate()}
    assert left_in(out) == [".berunda.lock"]
    (made,) = map_scenes(bundle, [scene], out, tile_px=32)
    assert made.n_tiles_kept >= n_tiles
    (whole,) = map_scenes(bundle, [scene], tmp_path / "whole", tile_px=32)
    for one, other in zip(made.files.rasters(), whole.files.rasters(), strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_an_error_of_the_writer_ends_the_making_of_tiles(tmp_path, bundle, monkeypatch) -> None:
    class Counted(Silent):
        n = 0

        def advance(self, n: int = 1, **figures: float) -> None:
            self.n += 1
            time.sleep(0.02)

    def full(self: assemble.Assembly) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(assemble.Assembly, "_write", full)
    told = Counted()
    with pytest.raises(OutputError, match="the disk is full"):
        map_scenes(bundle, [scene_in(tmp_path)], tmp_path / "out", tile_px=32, progress=told)
    assert told.n < 20
    assert left_in(tmp_path / "out") == [".berunda.lock"]


def test_rasters_that_cannot_be_finished_leave_the_map_before_as_it_was(tmp_path, bundle, monkeypatch) -> None:
    scene, out = scene_in(tmp_path), tmp_path / "out"
    map_scenes(bundle, [scene], out)
    before = {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()}

    def fails(*args: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr("berunda.geo.write._verify", fails)
    other = toy_bundle(n_classes=3)
    with pytest.raises(OutputError, match="no room"):
        map_scenes(other, [scene], out)
    assert {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()} == before
    with pytest.raises(OutputError, match="no room"):
        map_scenes(other, [scene], tmp_path / "fresh")
    assert left_in(tmp_path / "fresh") == [".berunda.lock"]


@pytest.mark.parametrize("decoder", ["unet", "slim", "slim4"])
@pytest.mark.parametrize(("window", "margin"), [(64, 16), (66, 13), (61, 7), (32, 0)])
def test_coarse_features_give_the_same_map_for_any_tiling(tmp_path, decoder, window, margin) -> None:
    bundle = toy_bundle(window_px=window, margin_px=margin, decoder=decoder)
    scene = open_scenes([write_raster(tmp_path / "scene.tif", toy_pixels(120, 150))])[0]
    (one,) = map_scenes(bundle, [scene], tmp_path / "one")
    (two,) = map_scenes(bundle, [scene], tmp_path / "two", tile_px=1, workers=3)
    for a, b in zip(one.files.rasters(), two.files.rasters(), strict=True):
        assert a.read_bytes() == b.read_bytes()
    import rasterio

    with rasterio.open(one.files.ood) as file:
        distance = file.read(1)
    assert np.isfinite(distance).mean() > 0.5
