"""The command line called in this process, and small scenes and labels to call it with."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from toy_rasters import square, write_layer, write_tif

from berunda.cli.main import main

FINAL = frozenset(
    (
        *("map.tif", "map.tif.aux.xml", "confidence.tif", "ood.tif", "legend.qml"),
        *("report.html", "report.json", "run.yaml", "model"),
    )
)
"""The names that `berunda map` gives to what is finished."""

QUICK = ("--steps", "2", "--crop-px", "32", "--block-px", "32", "--method", "supervised")


@dataclass(frozen=True)
class Done:
    """What a call ended with."""

    code: int
    out: str
    err: str

    @property
    def warnings(self) -> list[str]:
        """The warnings printed."""
        return [line.removeprefix("warning: ") for line in self.out.splitlines() if line.startswith("warning: ")]


def call(*words: object) -> Done:
    """Run `berunda` with these words in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(word) for word in words])
    return Done(code, out.getvalue(), err.getvalue())


def called(*words: object) -> Done:
    """Run `berunda` and see that it worked."""
    done = call(*words)
    assert done.code == 0, done.err
    return done


def finished(out: Path) -> set[str]:
    """Return everything below `out` that stands under a final name."""
    return {str(p.relative_to(out)) for p in out.rglob("*") if p.name in FINAL} if out.is_dir() else set()


def toy_values(rows: int = 64, cols: int = 96, n_bands: int = 3, dtype: str = "uint16") -> np.ndarray:
    """Return (B, rows, cols): bright columns on the left, dark ones on the right, with noise; never 0."""
    draw = np.random.default_rng(0)
    left = (np.arange(cols) < cols // 2) * 600
    return (left + 200 + draw.integers(0, 100, (n_bands, rows, cols))).astype(dtype)


def toy_scene(path: Path, rows: int = 64, cols: int = 96, **options: Any) -> Path:
    """Write the toy scene."""
    return write_tif(path, toy_values(rows, cols), **options)


def toy_squares() -> tuple[list[Any], list[str]]:
    """Return twelve squares of 8 px, half of them bright on the left, half of them dark on the right."""
    at = [(row, col) for row in (4, 26, 48) for col in (4, 26, 58, 80)]
    return [square(row, col, 8) for row, col in at], ["bright" if col < 48 else "dark" for _, col in at]


def toy_labels(path: Path, geometries: Sequence[Any] | None = None, values: Sequence[Any] | None = None) -> Path:
    """Write the squares, or others, with the field "class"."""
    own, classes = toy_squares()
    return write_layer(path, own if geometries is None else geometries, "class", classes if values is None else values)
