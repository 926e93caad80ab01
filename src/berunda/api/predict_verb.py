"""Applying a bundle to further scenes, or to images."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

from berunda.api.mask_predict import are_images, predict_masks
from berunda.api.out_folder import check_no_run, check_out
from berunda.api.outcome import MaskOutcome, PatchOutcome, PredictOutcome
from berunda.api.patch_predict import are_scenes, list_patches, predict_patches
from berunda.errors import ConfigError
from berunda.geo.raster import open_scenes
from berunda.mapping.backends import require_dask
from berunda.mapping.bundle import Bundle, load_bundle
from berunda.mapping.patches import ScenePredictor
from berunda.mapping.predictor import Predictor
from berunda.mapping.run import map_scenes
from berunda.models.device import resolve_device
from berunda.progress import Progress, Silent

__all__ = ["PredictOptions", "PredictSettings", "predict"]


class PredictOptions(TypedDict, total=False):
    """The keyword options of `predict`; see `PredictSettings`."""

    bands: Sequence[str] | None
    mask: Path | str | None
    allow_remote: bool
    workers: int
    tile_px: int
    dask: str | None
    device: str
    stride_px: int | None
    skip_broken: bool


@dataclass(frozen=True)
class PredictSettings:
    """How scenes are read and mapped; none of workers, tile_px and dask changes a pixel.

    Attributes:
        bands: names of the scene's bands, in order, where the files do not carry them.
        mask: a raster whose non-zero pixels become nodata.
        allow_remote: whether scenes may be read over the network.
        workers: tiles mapped at a time, by threads.
        tile_px: side of a tile.
        dask: a cluster that maps, "tcp://host:port" or "local:N"; needs the extra `dask`, and folders that all
            workers share. In a script, call `predict` below `if __name__ == "__main__":`.
        device: "auto", "cpu", "cuda" or "cuda:N".
        stride_px: maps of models for whole images only: from one patch to the next; the side of a patch where None.
        skip_broken: leave out images that cannot be read, instead of stopping at the first.
    """

    bands: Sequence[str] | None = None
    mask: Path | str | None = None
    allow_remote: bool = False
    workers: int = 1
    tile_px: int = 1024
    dask: str | None = None
    device: str = "auto"
    stride_px: int | None = None
    skip_broken: bool = False


def predict(
    bundle: Path | str,
    scenes: Sequence[str | Path],
    out: Path | str,
    *,
    progress: Progress | None = None,
    **options: Unpack[PredictOptions],
) -> PredictOutcome | PatchOutcome | MaskOutcome:
    """Map scenes of any size with a model that `map_scene` or `train` wrote, or classify or mask images.

    Args:
        bundle: the folder `model/`, or the folder of the run that holds it.
        scenes: raster files or folders; files on the same ground are the bands of one scene. With a model for whole
            images: such scenes, which get one pixel a patch (of several labels, a band each), or image files and
            folders of them. With one for maps also photographs and folders of them, which get a mask each.
        out: folder for the maps or the table, not that of a run; several scenes get a folder each in it.
        progress: told of the mapping.
        **options: fields of `PredictSettings`.

    Returns:
        The maps (where tiles could not be made, `is_complete` is False, and the map is named accordingly), or the table
        of the images, or their masks.

    Raises:
        BerundaError: the bundle or a scene is wrong, or a map could not be written; the message says what to do.
    """
    settings = PredictSettings(**options)
    check_out(Path(out), [*scenes, settings.mask])
    check_no_run(Path(out))
    if settings.dask is not None:
        require_dask()
    resolve_device(settings.device)
    loaded = load_bundle(bundle)
    if loaded.manifest.task != "segmentation" and not are_scenes(scenes, loaded.manifest.window_px):
        return _classify(loaded, scenes, Path(out), settings, progress or Silent())
    if loaded.manifest.task == "segmentation" and are_images(scenes, len(loaded.manifest.bands)):
        _refuse_for_images(settings)
        return predict_masks(
            Predictor(loaded, settings.device),
            list_patches(scenes),
            Path(out),
            bands=settings.bands,
            skip_broken=settings.skip_broken,
            progress=progress or Silent(),
        )
    if settings.skip_broken:
        raise ConfigError("--skip-broken is for images; of a scene, what cannot be read is left out and told")
    with ExitStack() as held:
        opened = open_scenes(list(scenes), bands=settings.bands, mask=settings.mask, allow_remote=settings.allow_remote)
        for scene in opened:
            held.enter_context(scene)
        results = map_scenes(
            loaded,
            opened,
            out,
            progress=progress,
            workers=settings.workers,
            tile_px=settings.tile_px,
            dask=settings.dask,
            device=settings.device,
            stride_px=settings.stride_px,
        )
    warnings = dict.fromkeys(w for r in results for w in r.warnings)
    return PredictOutcome(tuple(results), tuple(warnings))


def _classify(
    bundle: Bundle, images: Sequence[str | Path], out: Path, settings: PredictSettings, progress: Progress
) -> PatchOutcome:
    """Classify images, for which some options of scenes have no meaning."""
    _refuse_for_images(settings)
    return predict_patches(
        ScenePredictor(bundle, settings.device),
        list_patches(images),
        out,
        bands=settings.bands,
        workers=settings.workers,
        skip_broken=settings.skip_broken,
        progress=progress,
    )


def _refuse_for_images(settings: PredictSettings) -> None:
    given = {"--mask": settings.mask, "--dask": settings.dask, "--stride": settings.stride_px}
    needless = [name for name, value in given.items() if value is not None]
    if needless:
        raise ConfigError(f"{', '.join(needless)}: for scenes to map, found images to classify; leave it out")
