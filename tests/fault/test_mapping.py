"""Maps under kills and full disks: whole or not there, and the same after another run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import mapping_trials
import pytest
from toy_mapping import toy_bundle, toy_pixels, write_raster

from berunda.mapping.bundle import save_bundle

N_TILES = 40


@pytest.fixture
def root(tmp_path):
    save_bundle(tmp_path / "model", toy_bundle())
    write_raster(tmp_path / "scene.tif", toy_pixels(160, 230))
    return tmp_path


def trials(kind: str, root: Path, n_trials: int) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, mapping_trials.__file__, kind, str(root), str(n_trials)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_kills(root: Path, n_trials: int) -> list[dict[str, Any]]:
    whole, *told = trials("kill", root, n_trials)
    assert whole["code"] == 0
    assert sorted(whole["whole"]) == sorted(mapping_trials.FINAL)
    assert len(told) == n_trials
    for trial in told:
        assert trial["partial"] == [], trial  # nothing half-written under a final name
        assert (trial["code"], trial["same"]) == (0, True), trial
        assert trial["left"] == [".berunda.lock"], trial
    return told


def check_redone(told: list[dict[str, Any]]) -> None:
    """The journal knows all finished tiles but one a worker at most, and what it knows is not made again."""
    for trial in told:
        assert trial["lost"] <= mapping_trials.WORKERS, trial
        assert trial["kept"] >= trial["journalled"], trial


def check_full(root: Path, n_trials: int) -> None:
    lines = trials("full", root, n_trials)
    errors = [line["error"] for line in lines if "error" in line]
    told = [line for line in lines if "limit" in line]
    assert len(told) == len(errors) == n_trials
    for trial, error in zip(told, errors, strict=True):
        assert trial["code"] == 1, trial
        assert trial["after"] == [], trial
        assert (trial["again"], trial["same"]) == (0, True), trial
        assert str(root) in str(error)
        assert "bytes" in str(error)
        assert "\n" not in str(error)
    assert any(".part.tif" in str(error) for error in errors)
    assert any(re.search(r"full\d+/(confidence|ood|map)\.tif", str(error)) for error in errors)


def test_killed_runs_end_in_the_same_map(root):
    check_kills(root, 3)


def test_a_kill_costs_at_most_a_tile_a_worker(root):
    told = check_kills(root, 5)
    check_redone(told)
    assert any(0 < trial["journalled"] < N_TILES for trial in told), told


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_killed_runs_end_in_the_same_map(root):
    check_redone(check_kills(root, 50))


def test_a_full_disk_is_told_and_leaves_nothing_half_written(root):
    check_full(root, 4)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_disk_full_at_every_twentieth_of_the_output(root):
    check_full(root, 20)
