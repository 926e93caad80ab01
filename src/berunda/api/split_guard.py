"""Checks that a split writes over no input, and over nothing that no earlier split wrote."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from berunda.data.sites import SiteSet
from berunda.errors import ConfigError
from berunda.geo.resolve import RASTER_SUFFIXES
from berunda.options.analyze import SplitOptions

__all__ = ["check_table", "check_truths"]


def check_table(path: Path, options: SplitOptions) -> None:
    """Refuse to write the table or its outlines over an input, or over outlines that no earlier split wrote.

    Raises:
        ConfigError: naming the file.
    """
    outlines = path.with_suffix(".gpkg")
    _refuse_inputs(path, [path, outlines], [text for text in (*options.inputs, options.labels) if text is not None])
    _refuse_foreign(path, [outlines], "outlines")


def check_truths(path: Path, options: SplitOptions, sites: SiteSet) -> None:
    """Refuse to write rasters of classes over an input or over what no earlier split wrote, or into a scene.

    Args:
        path: the table.
        options: with the inputs and labels.
        sites: what the inputs mean.

    Raises:
        ConfigError: naming the file or the folder.
    """
    from berunda.api.split_truth import truth_paths

    if options.labels is None:
        return
    folder = Path(os.path.realpath(path.parent))
    for text in options.inputs:
        if Path(os.path.realpath(text)) == folder and _holds_rasters(folder):
            raise ConfigError(
                f"--out {path}: {text} is the folder that the scenes are read from, and the rasters of classes beside "
                f"the table would be taken for scenes next time; write it to {folder.parent / path.name}"
            )
    truths = truth_paths(path, len(sites.scenes))
    of_scenes = (file.path for scene in sites.scenes for file in scene.files)
    of_images = {file for item in sites.items for file in (item.path, item.truth) if file is not None}
    _refuse_inputs(path, truths, [options.labels, *of_scenes, *of_images])
    _refuse_foreign(path, truths, "rasters of classes")


def _holds_rasters(folder: Path) -> bool:
    return any(entry.suffix.lower() in RASTER_SUFFIXES for entry in folder.iterdir())


def _refuse_inputs(path: Path, written: Sequence[Path], inputs: Iterable[str | Path]) -> None:
    real = {os.path.realpath(text) for text in inputs}
    for file in written:
        if os.path.realpath(file) in real:
            raise ConfigError(f"--out {path}: {file.name} is an input and would be overwritten; choose another name")


def _refuse_foreign(path: Path, written: Sequence[Path], what: str) -> None:
    there = next((file for file in written if file.exists()), None)
    if there is not None and not path.exists():
        raise ConfigError(
            f"--out {path}: {there.name} is there and would be overwritten by the {what} of the split; choose another "
            "name"
        )
