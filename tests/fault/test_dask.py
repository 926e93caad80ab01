"""Maps made by a Dask cluster: the same map, through killed workers and tiles that cannot be made."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from toy_command import call, finished
from toy_mapping import toy_bundle, toy_pixels, toy_scene, write_raster

from berunda.errors import ConfigError, GeoError, OutputError
from berunda.geo.grid import Window
from berunda.geo.raster import open_scenes
from berunda.mapping.bundle import Bundle, save_bundle
from berunda.mapping.plan import make_plan
from berunda.mapping.predictor import Predictor
from berunda.mapping.run import map_scenes
from berunda.mapping.tiles import TileStore, TileWork
from berunda.progress import Silent

distributed = pytest.importorskip("distributed", reason="needs the extra 'dask': pip install 'berunda[dask]'")

pytestmark = pytest.mark.timeout(600)
NAMES = ("map.tif", "map.tif.aux.xml", "confidence.tif", "ood.tif", "legend.qml")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return toy_bundle()


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Two worker processes of one core that a client reaches by address."""
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "memory_limit": 0}
    own = {"dashboard_address": None, "silence_logs": 50, "scheduler_kwargs": {"allowed_failures": 0}}
    with distributed.LocalCluster(**options, **own) as made:
        yield made.scheduler_address


def outputs(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in NAMES}


class Watch(Silent):
    """Acts after some tiles, and looks at the tiles' files then and when all are made."""

    def __init__(self, out: Path, act: Callable[[], object], n_tiles: int) -> None:
        self.out, self.act, self.n_tiles = out, act, n_tiles
        self.n_calls = -1  # the first call counts the tiles kept
        self.then: dict[str, int] = {}
        self.end: dict[str, int] = {}

    def start(self, name: str, total: int) -> None:
        if name == "writing":
            self.end = self.times()

    def advance(self, n: int = 1, **figures: float) -> None:
        self.n_calls += 1
        if self.n_calls == self.n_tiles:
            self.then = self.times()
            self.act()

    def times(self) -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in (self.out / ".work").rglob("*.tile")}


def test_the_map_is_that_of_one_process(tmp_path, bundle, cluster):
    scene = toy_scene(tmp_path, 160, 230)
    map_scenes(bundle, [scene], tmp_path / "one", tile_px=64)
    (made,) = map_scenes(bundle, [scene], tmp_path / "two", tile_px=32, dask=cluster)
    assert outputs(tmp_path / "two") == outputs(tmp_path / "one")
    assert (made.is_complete, made.n_tiles) == (True, 40)
    assert not (tmp_path / "two" / ".work").exists()


def test_a_killed_worker_costs_only_its_tile(tmp_path, bundle, cluster):
    scene = toy_scene(tmp_path, 160, 230)
    map_scenes(bundle, [scene], tmp_path / "whole")

    def kill() -> None:
        with distributed.Client(cluster, set_as_default=False) as client:
            os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)

    watch = Watch(tmp_path / "out", kill, 8)
    (made,) = map_scenes(bundle, [scene], tmp_path / "out", tile_px=32, dask=cluster, progress=watch)
    assert made.is_complete
    assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")
    assert len(watch.then) >= 4
    redone = [name for name, time in watch.then.items() if watch.end[name] != time]
    assert len(redone) <= 1  # written, but the worker died before it could say so


def test_a_stopped_run_goes_on_with_another_backend(tmp_path, bundle, cluster):
    scene = toy_scene(tmp_path, 160, 230)
    map_scenes(bundle, [scene], tmp_path / "whole")

    def stop() -> None:
        raise KeyboardInterrupt

    watch = Watch(tmp_path / "out", stop, 5)
    with pytest.raises(KeyboardInterrupt):
        map_scenes(bundle, [scene], tmp_path / "out", tile_px=32, dask=cluster, progress=watch)
    assert not any((tmp_path / "out" / name).exists() for name in NAMES)
    (made,) = map_scenes(bundle, [scene], tmp_path / "out", tile_px=32)
    assert made.n_tiles_kept >= 4
    assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raster over 16 MiB, so that its fingerprint rests on samples; with data in a patch of each tile only."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(1, 65535, (3, 1900, 1900), np.uint16)
    pixels[0] = 0
    for row in range(0, 1900, 640):
        for col in range(0, 1900, 640):
            patch = np.s_[:, row + 200 : row + 250, col + 200 : col + 280]
            pixels[patch] = draw.integers(100, 1100, pixels[patch].shape, np.uint16)
    return write_raster(tmp_path_factory.mktemp("large") / "scene.tif", pixels)


def damage(path: Path) -> Callable[[], None]:
    """Overwrite some bytes of a block in the middle of tile 4 of 9, unseen by the fingerprint; return how to mend."""
    with open_scenes([path])[0] as scene:
        before = scene.fingerprint()
    with rasterio.open(path) as file:
        starts = [int(file.get_tag_item(f"BLOCK_OFFSET_{6 + dx}_{6 + dy}", "TIFF", bidx=1)) for dx, dy in BLOCKS]
    for start in starts:  # a block's header: libtiff reads over changes farther in, as long as they decode
        with path.open("r+b") as file:
            file.seek(start)
            kept = file.read(64)
            file.seek(start)
            file.write(bytes(64))

        def mend(start: int = start, kept: bytes = kept) -> None:
            with path.open("r+b") as file:
                file.seek(start)
                file.write(kept)

        with open_scenes([path])[0] as scene:
            if scene.fingerprint() == before:
                return mend
        mend()
    raise AssertionError("every block is sampled")


BLOCKS = [(dx, dy) for dy in range(3) for dx in range(2)]
"""Blocks of 128 px wholly inside tile 4 (rows and columns 640..1279), counted from its second one."""


@pytest.fixture
def poisoned(large: Path, bundle: Bundle, tmp_path: Path) -> Iterator[Callable[[], None]]:
    save_bundle(tmp_path / "model", bundle)
    mend = damage(large)
    yield mend
    mend()


@pytest.mark.parametrize("is_dask", [True, False])
def test_a_poisoned_tile_is_set_aside_and_made_once_it_is_mended(
    tmp_path: Path, large: Path, cluster: str, poisoned: Callable[[], None], is_dask: bool
) -> None:
    out = tmp_path / "out"
    words = ["predict", tmp_path / "model", large, "--out", out, "--tile-px", 640]
    words += ["--dask", cluster] if is_dask else []
    done = call(*words)
    assert done.code == 1, done.err
    assert not finished(out)
    assert len(done.warnings) >= 2
    assert "1 of 9 tiles could not be made" in done.warnings[0]
    assert str(out / "map.incomplete.tif") in done.warnings[0]
    assert "rows 640..1279, columns 640..1279, tried 3 times" in done.warnings[1]
    assert "scene.tif cannot be read" in done.warnings[1]
    assert "Traceback" not in done.err
    with rasterio.open(out / "map.incomplete.tif") as file:
        classes = file.read(1)
        assert "rows 640..1279" in file.tags()["BERUNDA_MISSING"]
    assert [(classes[r : r + 640, c : c + 640] > 0).sum() for r in (0, 640) for c in (0, 640)] == [4000, 4000, 4000, 0]

    again = call(*words)  # the poisoned tile only, and in vain
    assert again.code == 1
    poisoned()
    times = {p.name: p.stat().st_mtime_ns for p in (out / ".work").rglob("*.tile")}
    assert len(times) == 8
    watch = Watch(out, lambda: None, 0)
    options = {"dask": cluster} if is_dask else {}
    (made,) = map_scenes(load(tmp_path), open_scenes([large]), out, tile_px=640, progress=watch, **options)
    assert (made.is_complete, made.n_tiles_kept) == (True, 8)
    assert {name: time for name, time in watch.end.items() if name in times} == times
    assert sorted(p.name for p in out.iterdir() if not p.name.startswith(".")) == sorted(NAMES)
    map_scenes(load(tmp_path), open_scenes([large]), tmp_path / "whole")
    assert outputs(out) == outputs(tmp_path / "whole")


def load(folder: Path) -> Bundle:
    from berunda.mapping.bundle import load_bundle

    return load_bundle(folder / "model")


def test_a_renamed_incomplete_map_is_not_taken_for_a_finished_one(tmp_path, large, bundle, poisoned):
    scenes = open_scenes([large])
    (made,) = map_scenes(bundle, scenes, tmp_path, tile_px=640)
    (tile,) = made.missing
    assert (tile.window, tile.n_tries) == (Window(640, 640, 640, 640), 3)
    assert made.as_dict()["missing"][0]["window"]["row"] == 640
    for path in tmp_path.glob("*.incomplete*"):
        path.rename(tmp_path / path.name.replace(".incomplete", ""))
    (again,) = map_scenes(bundle, scenes, tmp_path, tile_px=640)
    assert not again.is_complete


def test_a_scene_that_cannot_be_read_at_all_is_an_error(tmp_path, large, bundle, poisoned):
    with pytest.raises(GeoError, match=r"scene\.tif cannot be read"):
        map_scenes(bundle, open_scenes([large]), tmp_path / "out", tile_px=2048)
    assert not any("tif" in path.name for path in (tmp_path / "out").iterdir())


@pytest.mark.slow
def test_a_tile_that_kills_its_workers_is_set_aside(tmp_path, bundle, cluster):
    scene = toy_scene(tmp_path, 160, 230, holes=False)

    class Killer(distributed.WorkerPlugin):
        """Makes every worker die over tile 7."""

        name = "killer"

        def setup(self, worker: object) -> None:
            import os
            import signal

            from berunda.mapping.tiles import TileWork

            load = TileWork.load

            def dying(self, index):  # type: ignore[no-untyped-def]
                if index == 7:
                    os.kill(os.getpid(), signal.SIGKILL)
                return load(self, index)

            TileWork.load = dying  # type: ignore[method-assign]
            self.undo = lambda: setattr(TileWork, "load", load)

        def teardown(self, worker: object) -> None:
            self.undo()

    with distributed.Client(cluster, set_as_default=False) as client:
        client.register_plugin(Killer())
        try:
            (made,) = map_scenes(bundle, [scene], tmp_path / "out", tile_px=32, dask=cluster)
        finally:
            client.unregister_worker_plugin("killer")
    (tile,) = made.missing
    assert (tile.window, tile.n_tries) == (Window(0, 224, 32, 6), 3)
    assert "the worker died over it" in tile.cause
    (made,) = map_scenes(bundle, [scene], tmp_path / "out", tile_px=32, dask=cluster)
    assert (made.is_complete, made.n_tiles_kept) == (True, 39)
    map_scenes(bundle, [scene], tmp_path / "whole")
    assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")


def test_a_worker_that_sees_other_files_makes_no_tile(tmp_path, bundle):
    from berunda.mapping.backends.dask import _Job

    scene = toy_scene(tmp_path, 60, 60)
    predictor = Predictor(bundle)
    (tmp_path / "tiles").mkdir()
    work = TileWork(make_plan(bundle, scene, predictor, 64), scene, predictor, TileStore(tmp_path / "tiles"))
    save_bundle(tmp_path / "bundle", bundle)
    job = _Job.of(work, tmp_path / "bundle")
    assert job.opened().plan is work.plan
    with pytest.raises(OutputError, match=r"does not see .*file system shared"):
        replace(job, store=tmp_path / "elsewhere").opened()
    numerics = tuple((name, "0.1" if name == "torch" else value) for name, value in work.plan.numerics)
    with pytest.raises(OutputError, match=r"would compute with \{'torch': .*'torch': '0.1'"):
        replace(job, plan=replace(work.plan, numerics=numerics)).opened()
    write_raster(tmp_path / "scene.tif", toy_pixels(60, 60, seed=5))
    with pytest.raises(OutputError, match="another scene"):
        job.opened()
    (tmp_path / "scene.tif").unlink()
    with pytest.raises(OutputError, match=r"does not see .*scene\.tif.*file system shared"):
        job.opened()


def test_no_scheduler_and_wrong_addresses(tmp_path, bundle, monkeypatch):
    from berunda.mapping.backends import dask

    monkeypatch.setattr(dask, "CONNECT_S", 1)
    scene = toy_scene(tmp_path, 40, 40)
    with pytest.raises(ConfigError, match=r"no scheduler answers at tcp://127\.0\.0\.1:9 .*dask scheduler"):
        map_scenes(bundle, [scene], tmp_path / "out", dask="tcp://127.0.0.1:9")
    for address in ("local:0", "http://a:1", "tcp://a", "local:2 x", ""):
        with pytest.raises(ConfigError, match=r"dask is .* expected tcp://HOST:PORT"):
            map_scenes(bundle, [scene], tmp_path / "out", dask=address)
    done = call("predict", "model", "scene.tif", "--out", "o", "--dask", "elsewhere")
    assert (done.code, "--dask" in done.err, "local:N" in done.err) == (2, True, True)


def test_without_the_extra_the_error_says_how_to_get_it(monkeypatch):
    found = importlib.util.find_spec
    hidden = ("dask", "distributed")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in hidden else found(name, *a))
    done = call("predict", "model", "scene.tif", "--out", "o", "--dask", "local:2")
    assert done.code == 2
    assert "pip install 'berunda[dask]'" in done.err


def test_dask_is_not_imported_unless_it_is_asked_for():
    code = "import sys, berunda.mapping.run, berunda.api; print({'dask', 'distributed'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
