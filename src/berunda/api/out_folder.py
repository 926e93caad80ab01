"""A check that no output lands on an input."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from berunda.errors import ConfigError

__all__ = ["check_out"]

_RASTERS = ("map.tif", "confidence.tif", "ood.tif")


def check_out(out: Path, inputs: Sequence[str | Path | None]) -> None:
    """Refuse a folder in which the run would write over an input, or find its own outputs among its scenes.

    Args:
        out: folder for the outputs.
        inputs: scenes, labels, mask; texts that name no local file are let be.

    Raises:
        ConfigError: naming the input and the folder.
    """
    folder = Path(os.path.realpath(out))
    for text in inputs:
        if text is None:
            continue
        path = Path(os.path.realpath(text))
        if path == folder and path.is_dir():
            raise ConfigError(
                f"--out {out} is the folder that the scenes are read from: the outputs would be taken for bands of the "
                "scene next time; choose another folder"
            )
        if path.name in _RASTERS and folder in (path.parent, path.parent.parent) and path.is_file():
            raise ConfigError(
                f"--out {out}: {path.name} there is an input and would be overwritten; choose another folder"
            )
