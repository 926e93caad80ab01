"""Applying a bundle to further scenes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from berunda.api.out_folder import check_out
from berunda.api.outcome import PredictOutcome
from berunda.errors import DataError
from berunda.geo.raster import Scene, open_scenes
from berunda.mapping.backends import require_dask
from berunda.mapping.bundle import load_bundle
from berunda.mapping.run import map_scenes
from berunda.progress import Progress

__all__ = ["predict"]


def predict(
    bundle: Path | str,
    scenes: Sequence[str | Path],
    out: Path | str,
    *,
    bands: Sequence[str] | None = None,
    mask: Path | str | None = None,
    allow_remote: bool = False,
    workers: int = 1,
    tile_px: int = 1024,
    dask: str | None = None,
    progress: Progress | None = None,
) -> PredictOutcome:
    """Map scenes of any size with a model that `map_scene` or `train` wrote.

    Args:
        bundle: the folder `model/`, or the folder of the run that holds it.
        scenes: raster files or folders; files on the same ground are the bands of one scene.
        out: folder for the maps; several scenes get a folder each in it.
        bands: names of the scene's bands, in order, where the files do not carry them.
        mask: a raster whose non-zero pixels become nodata.
        allow_remote: whether scenes may be read over the network.
        workers: how many work at a time; the map does not depend on it.
        tile_px: side of a tile; the map does not depend on it.
        dask: a cluster that maps, "tcp://host:port" or "local:N"; needs the extra `dask`, and folders that all
            workers share. In a script, call this below `if __name__ == "__main__":`.
        progress: told of the mapping.

    Returns:
        The maps. Where tiles could not be made, `is_complete` is False, and the map is named accordingly.

    Raises:
        BerundaError: the bundle or a scene is wrong, or a map could not be written; the message says what to do.
    """
    check_out(Path(out), [*scenes, mask])
    if dask is not None:
        require_dask()
    loaded = load_bundle(bundle)
    opened = open_scenes(list(scenes), bands=bands, mask=mask, allow_remote=allow_remote)
    for scene in opened:
        _check_bands(scene, loaded.manifest.band_names)
    results = map_scenes(loaded, opened, out, progress=progress, workers=workers, tile_px=tile_px, dask=dask)
    warnings = dict.fromkeys(w for r in results for w in r.warnings)
    return PredictOutcome(tuple(results), tuple(warnings))


def _check_bands(scene: Scene, wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in scene.band_names]
    if missing:
        raise DataError(
            f"scene {scene.name} lacks band {', '.join(missing)} of the model; it has {', '.join(scene.band_names)}, "
            f"expected {', '.join(wanted)}: name the scene's bands in order with --bands"
        )
