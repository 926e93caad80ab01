"""`berunda map` is killed while it trains and while it maps; run again, it ends in the map of an undisturbed run."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_command import FINAL, finished

from berunda.data.synthetic import Landscape, write_polygons, write_scene

STEPS = 106
"""One checkpoint (every 100 steps) lies well before the end."""

TIMEOUT_S = 400


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    landscape = Landscape(seed=8, rows=600, cols=900, n_bands=4)
    write_scene(tmp_path / "scene.tif", landscape)
    write_polygons(tmp_path / "polygons.gpkg", landscape, 6)
    files = [str(tmp_path / "scene.tif"), "--labels", str(tmp_path / "polygons.gpkg"), "--field", "class"]
    settings = ["--steps", str(STEPS), "--crop-px", "32", "--block-px", "64", "--tile-px", "64"]
    return [sys.executable, "-m", "berunda", "map", *files, *settings, "--method", "supervised", "--out"]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def kill_when(command: list[str], out: Path, ready: Callable[[], bool]) -> str:
    """Start the run, kill it as soon as `ready`, and return what it had said."""
    with subprocess.Popen([*command, str(out)], stderr=subprocess.PIPE, text=True, env=environment()) as process:
        give_up = time.monotonic() + TIMEOUT_S
        while not ready() and process.poll() is None and time.monotonic() < give_up:
            time.sleep(0.002)
        is_ready = process.poll() is None and ready()
        process.kill()
        assert process.stderr is not None
        told = process.stderr.read()
        assert process.wait() == -signal.SIGKILL, told
        assert is_ready, told
    return told


def run_to_the_end(command: list[str], out: Path) -> str:
    done = subprocess.run([*command, str(out)], capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def digests(out: Path) -> dict[str, str]:
    names = ("map.tif", "confidence.tif", "ood.tif", "model/model.safetensors")
    return {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in names}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_killed_in_training_and_in_mapping_ends_in_the_same_map(command: list[str], tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    run_to_the_end(command, whole)
    kill_when(command, out, lambda: any((out / ".work" / "train" / "checkpoints").glob("[!.]*")))
    assert finished(out) == set()
    told = kill_when(command, out, lambda: any((out / ".work").rglob("*.tile")))
    assert f"resuming at step 100 of {STEPS}" in told
    assert finished(out) <= {"model"}
    told = run_to_the_end(command, out)
    assert f"resuming at step {STEPS} of {STEPS}" in told  # the training was over before the second kill
    assert digests(out) == digests(whole)
    assert finished(out) == FINAL
    assert {p.name for p in out.iterdir()} - {".berunda.lock"} == set(FINAL)
