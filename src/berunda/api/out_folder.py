"""Checks that no output lands on an input, or on the outputs of another kind of run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from berunda.errors import ConfigError, OutputError

__all__ = ["check_no_map", "check_no_run", "check_out"]

_RASTERS = ("map.tif", "confidence.tif", "ood.tif")
_OF_A_RUN = ("report.json", "run.yaml")


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


def check_no_run(out: Path) -> None:
    """Refuse the folder of a map run, whose maps and report belong together.

    Raises:
        OutputError: naming what shows that it is one.
    """
    found = next((out / name for name in _OF_A_RUN if (out / name).exists()), None)
    if found is not None:
        raise OutputError(
            f"--out {out} is the folder of a map run ({found} is there), whose map would be replaced; choose another "
            "folder"
        )


def check_no_map(out: Path) -> None:
    """Refuse the folder of a map, whose report and model a training would replace.

    Raises:
        OutputError: naming what shows that it is one.
    """
    found = next((out / name for name in _RASTERS if (out / name).exists()), None)
    if found is not None:
        raise OutputError(f"--out {out} holds a map ({found} is there), expected a folder of its own; choose another")
