"""`berunda map` on two ranks: one map, near that of one rank; nobody waits for a rank that is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import rasterio
from toy_command import FINAL, finished

from berunda.data.synthetic import Landscape, write_polygons, write_scene, write_truth

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

PATIENCE_S = 1200  # on a busy machine
STEPS = 106
"""One checkpoint (every 100 steps) lies well before the end."""
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "berunda")
ALONE = (sys.executable, "-m", "berunda")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ground")
    landscape = Landscape(seed=8, rows=192, cols=288, n_bands=4)
    write_scene(folder / "scene.tif", landscape)
    write_truth(folder / "truth.tif", landscape)
    write_polygons(folder / "polygons.gpkg", landscape, 8)
    return folder


def words(ground: Path, out: Path, *more: str) -> list[str]:
    given = [str(ground / "scene.tif"), "--labels", str(ground / "polygons.gpkg"), "--field", "class"]
    settings = ["--crop-px", "32", "--block-px", "32", "--steps", str(STEPS), "--method", "supervised"]
    return ["map", *given, *settings, *more, "--out", str(out)]


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, env=environment) as child:  # type: ignore[call-overload]
        try:
            yield child
        finally:
            child.terminate()  # the launcher ends its ranks


def to_the_end(*command: str) -> tuple[int, str, str]:
    with started(*command) as child:
        out, err = child.communicate(timeout=PATIENCE_S)
    return child.returncode, out, err


def ranks_of(launcher: subprocess.Popen[str]) -> dict[int, int]:
    """Return the process of each rank."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"\nPPid:\t{launcher.pid}\n" in (entry / "status").read_text():
                told = dict(p.split(b"=", 1) for p in (entry / "environ").read_bytes().split(b"\0") if b"=" in p)
                if b"RANK" in told:
                    found[int(told[b"RANK"])] = int(entry.name)
        except OSError:
            continue
    return found


def wait_for(ready: Callable[[], bool], child: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not ready():
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def classes(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return np.asarray(file.read(1))


def test_the_map_of_two_ranks_is_near_that_of_one(ground: Path, tmp_path: Path) -> None:
    """With every training there is: that of the map, the net it is compared with, and the refit."""
    more = ("--method", "cotrain", "--steps", "50", "--compare", "--refit", "--seed", "3")
    code, out, err = to_the_end(*TORCHRUN, *words(ground, tmp_path / "two", *more))
    assert code == 0, err
    assert out.count("report: ") == 1  # the first rank alone speaks
    assert err.count("training cotrain: 50 steps") == 1, err
    assert finished(tmp_path / "two") == FINAL
    assert {p.name for p in (tmp_path / "two").iterdir()} - {".berunda.lock"} == set(FINAL)
    code, _, err = to_the_end(*ALONE, *words(ground, tmp_path / "one", *more))
    assert code == 0, err
    maps = [classes(tmp_path / name / "map.tif") for name in ("one", "two")]
    truth = classes(ground / "truth.tif")
    right = [float((made == truth)[truth > 0].mean()) for made in maps]
    assert (maps[0] == maps[1]).mean() > 0.85
    assert abs(right[0] - right[1]) < 0.05, right
    rows = [json.loads((tmp_path / name / "report.json").read_text())["comparison"] for name in ("one", "two")]
    assert [[row["method"] for row in found] for found in rows] == [["random_forest", "supervised", "cotrain"]] * 2
    assert [row["image_passes"] for row in rows[1]] == pytest.approx([row["image_passes"] for row in rows[0]], rel=0.1)


def test_what_was_killed_goes_on(ground: Path, tmp_path: Path) -> None:
    """The launcher ends the other rank; the same command goes on from the last checkpoint."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    code, _, err = to_the_end(*TORCHRUN, *words(ground, whole))
    assert code == 0, err
    checkpoints = out / ".work" / "train" / "checkpoints"
    with started(*TORCHRUN, *words(ground, out)) as child:
        wait_for(lambda: any(checkpoints.glob("step-*")), child)
        os.kill(ranks_of(child)[1], signal.SIGKILL)
        _, err = child.communicate(timeout=PATIENCE_S)
        assert child.returncode != 0
    assert not finished(out)
    code, _, err = to_the_end(*TORCHRUN, *words(ground, out))
    assert code == 0, err
    assert f"of {STEPS} from {checkpoints}" in err
    for name in ("map.tif", "model/model.safetensors"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_a_rank_that_hangs_ends_the_other(ground: Path, tmp_path: Path) -> None:
    with started(*TORCHRUN, *words(ground, tmp_path / "out", "--steps", "2000")) as child:
        wait_for(lambda: any((tmp_path / "out").glob(".work/train/checkpoints/step-*")), child)
        processes = ranks_of(child)
        os.kill(processes[1], signal.SIGSTOP)
        struck = time.monotonic()
        wait_for(lambda: 0 not in ranks_of(child), child)
        n_waiting = os.getloadavg()[0] / (os.cpu_count() or 1)
        assert time.monotonic() - struck < 25 * max(1.0, n_waiting)
        os.kill(processes[1], signal.SIGKILL)
        _, err = child.communicate(timeout=PATIENCE_S)
    assert child.returncode != 0
    assert "rank 1 gave no sign of life for 15 s: it was killed or hangs, so rank 0 ends too; start the same" in err


def test_an_error_on_the_first_rank_is_told_and_ends_the_others(ground: Path, tmp_path: Path) -> None:
    """A folder that is in use is refused to the first rank alone, which locks it for all."""
    out = tmp_path / "out"
    with started(*ALONE, *words(ground, out, "--steps", "2000")) as other:
        wait_for(lambda: (out / ".work" / "train").is_dir(), other)
        code, _, err = to_the_end(*TORCHRUN, *words(ground, out))
    assert code != 0
    assert f"berunda: error: {out}: another run (process {other.pid} on" in err


def test_data_that_differ_between_ranks_are_refused(ground: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\n"
        "from berunda.cli.main import main\n"
        "sys.exit(main([*sys.argv[1:], '--seed', os.environ['RANK']]))\n"
    )
    code, _, err = to_the_end(*TORCHRUN[:-2], str(program), *words(ground, tmp_path / "out"))
    assert code != 0
    assert "training on 2 ranks: found settings or data that differ between them" in err
