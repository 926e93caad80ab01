"""`berunda train` on two ranks: one classifier, near that of one rank, written by the first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "berunda")
ALONE = (sys.executable, "-m", "berunda")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three classes, checkerboards of 2, 4 and 16 px with noise, 40 images each."""
    folder, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    place = np.arange(32)
    for side in (2, 4, 16):
        (folder / f"squares {side}").mkdir()
        for index in range(40):
            rows, cols = ((place + draw.integers(side)) // side % 2 for _ in range(2))
            pixels = draw.normal(90 + 80.0 * (rows[:, None] ^ cols), 15)[..., None].repeat(3, axis=2)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"squares {side}" / f"{index:02}.png")
    return folder


def trained(launcher: tuple[str, ...], pictures: Path, out: Path, cache: Path) -> str:
    words = ["train", str(pictures), "--method", "fixmatch", "--labels-per-class", "4", "--steps", "40"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "BERUNDA_CACHE": str(cache)}
    done = subprocess.run(
        [*launcher, *words, "--n-labelled", "8", "--out", str(out)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_ranks_train_one_classifier_near_that_of_one(pictures: Path, tmp_path: Path) -> None:
    told = trained(TORCHRUN, pictures, tmp_path / "two", tmp_path / "cache")
    assert told.count("report: ") == 1  # the first rank alone speaks
    trained(ALONE, pictures, tmp_path / "one", tmp_path / "cache")
    found = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("one", "two")]
    files = [sorted(p.name for p in (tmp_path / name).iterdir() if p.name[0] != ".") for name in ("one", "two")]
    assert files[0] == files[1]
    right = [report["metrics"]["oa"] for report in found]
    assert min(right) > 0.85
    assert abs(right[0] - right[1]) < 0.15, right
