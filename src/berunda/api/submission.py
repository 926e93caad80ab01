"""Submissions to the 2022 data fusion contest: a class number for every pixel of the validation tiles."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from berunda.data.catalog._france import CLASSES, kind_and_stem
from berunda.data.listing import RASTER_SUFFIXES, files_of
from berunda.errors import DataError
from berunda.files import replacing
from berunda.geo.raster import open_scenes
from berunda.geo.write import create_tiled, finish_tiled
from berunda.mapping.arrays import predict_array
from berunda.mapping.bundle import Bundle, load_bundle
from berunda.mapping.lock import output_lock
from berunda.mapping.predictor import Predictor
from berunda.progress import Progress, Silent

__all__ = ["ARCHIVE_NAME", "write_dfc22_submission"]

ARCHIVE_NAME = "submission.zip"


def write_dfc22_submission(
    bundle: Path | str,
    tiles: Path | str,
    out: Path | str,
    *,
    device: str = "auto",
    progress: Progress | None = None,
) -> Path:
    """Predict the tiles of MF-DFC22's `val/` and write the archive to submit.

    Each tile gives `<conurbation>/<tile>_prediction.tif`, uint8 on the tile's own grid, with the contest's class
    numbers 1 to 14; where there is no data 0 (no information).

    Source: the form of the public baseline that was scored by the contest, isaaccorley/dfc2022-baseline, predict.py.

    Args:
        bundle: a model whose classes are those of the contest.
        tiles: folder `val/`, or the one that holds it: `<conurbation>/BDORTHO/*.tif` and, where the model has a band
            for the elevation, `RGEALTI/*_RGEALTI.tif`.
        out: folder for the predictions and `submission.zip`.
        device: "auto", "cpu", "cuda" or "cuda:N".
        progress: told of every tile.

    Returns:
        The archive.

    Raises:
        DataError: a class of the model is none of the contest's, or there is no tile, or one lacks its elevation.
        OutputError: another run writes to `out`, or a file cannot be written.
    """
    loaded, folder, told = load_bundle(bundle), Path(out).absolute(), progress or Silent()
    numbers = _numbers(loaded)
    found = _tiles(Path(tiles))
    predictor, written = Predictor(loaded, device), []
    with output_lock(folder):
        told.start("tiles", len(found))
        for (town, stem), paths in found.items():
            path = folder / town / f"{stem}_prediction.tif"
            _write(predictor, paths, numbers, path)
            written.append(path)
            told.advance()
        told.finish()
        return _archived(written, folder)


def _numbers(bundle: Bundle) -> np.ndarray:
    """Return the contest's number of each class of the map, 0 first.

    Raises:
        DataError: a class is none of the contest's.
    """
    known = {name: number for number, (name, _) in enumerate(CLASSES, start=1)}
    unknown = [name for name in bundle.manifest.class_names if name not in known]
    if unknown:
        raise DataError(
            f"the model has the class {unknown[0]!r}, expected only classes of MiniFrance-DFC22: {', '.join(known)}; "
            "train on mf_dfc22"
        )
    return np.array([0, *(known[name] for name in bundle.manifest.class_names)], np.uint8)


def _tiles(root: Path) -> dict[tuple[str, str], list[Path]]:
    """Return image and elevation of each tile, by conurbation and name."""
    below = root / "val" if (root / "val").is_dir() else root
    found: dict[tuple[str, str], dict[str, Path]] = {}
    for name, file in files_of(below, RASTER_SUFFIXES).items() if below.is_dir() else ():
        kind = kind_and_stem(name)
        if kind is not None and len(parts := name.split("/")) >= 3:
            found.setdefault((parts[-3], kind[1]), {})[kind[0]] = file.path
    tiles = {
        key: [group[kind] for kind in ("image", "elevation") if kind in group]
        for key, group in found.items()
        if "image" in group
    }
    if not tiles:
        raise DataError(f"{below}: no tile found, expected <conurbation>/BDORTHO/*.tif as in MF-DFC22's val.zip")
    return tiles


def _write(predictor: Predictor, paths: list[Path], numbers: np.ndarray, path: Path) -> None:
    manifest = predictor.manifest
    scenes = open_scenes(paths)
    if len(scenes) != 1 or len(scenes[0].band_names) != len(manifest.bands):
        n_bands = sum(len(scene.band_names) for scene in scenes)
        for scene in scenes:
            scene.close()
        raise DataError(
            f"{paths[0]}: {n_bands} bands found with {len(paths)} files, expected {len(manifest.bands)} "
            f"({', '.join(manifest.band_names)}); fetch BDORTHO and RGEALTI of the tile again"
        )
    with scenes[0] as scene:
        block = scene.read(scene.grid.full_window)
        classes = numbers[predict_array(predictor, block.values, block.valid).classes]
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with create_tiled(temporary, scene.grid, 1, "uint8", None) as writer:
            writer.write(classes[None], scene.grid.full_window)
    finish_tiled(temporary, path)


def _archived(paths: list[Path], folder: Path) -> Path:
    """Write the archive whole or not at all."""
    archive = folder / ARCHIVE_NAME
    members: Mapping[str, Path] = {path.relative_to(folder).as_posix(): path for path in paths}
    with replacing(archive) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, path in sorted(members.items()):
            opened.write(path, name)
    return archive
