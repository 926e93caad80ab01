"""Map scenes with a bundle: streamed, resumable, verified.

Plan -> tiles -> journal -> assembly -> verify -> rename. What is not finished lies in OUT/.work, and the same
command goes on from there. A scene, a bundle or settings that changed make a fresh plan.

A tile that cannot be made is set aside after three tries, and the rest is mapped. Such a map never gets its final
names: it is written as `map.incomplete.tif` and so on, with nodata in the tile's place, and the same command tries
the missing tiles only. When not a single tile can be made, that is an error, and nothing is written.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np

from berunda.config import DASK_ADDRESS
from berunda.data.scaling import Scaling, measure_scaling, radiometry_warnings
from berunda.errors import ConfigError, DataError, GeoError
from berunda.files import failed_write, write_atomic
from berunda.geo.raster import Scene
from berunda.mapping.arrivals import Arrivals
from berunda.mapping.assemble import Assembly, find_finished, write_legend
from berunda.mapping.backends import MakeTiles, SetAside, require_dask
from berunda.mapping.backends.local import make_tiles
from berunda.mapping.beside import Beside
from berunda.mapping.bundle import Bundle
from berunda.mapping.journal import Journal, Receipt
from berunda.mapping.lock import output_lock
from berunda.mapping.manifest import Manifest
from berunda.mapping.patch_map import PatchWork, make_patch_plan
from berunda.mapping.patches import ScenePredictor
from berunda.mapping.plan import Plan, make_plan
from berunda.mapping.predictor import Precision, Predictor
from berunda.mapping.result import MapFiles, MapResult, MissingTile, Summary
from berunda.mapping.tiles import TileStore, TileWork
from berunda.memory import keep_freed_memory
from berunda.progress import Progress, Silent

__all__ = ["WORK_NAME", "MapOptions", "MapSettings", "map_scenes", "radiometry_of", "with_bands"]

WORK_NAME = ".work"
HIGH_OOD_SHARE = 0.25
MAX_TOLD = 5
"""So many missing tiles are named in a warning; `MapResult.missing` holds all."""


class MapOptions(TypedDict, total=False):
    """The keyword options of `map_scenes`; see `MapSettings`."""

    tile_px: int
    workers: int
    resume: bool
    device: str
    precision: Precision
    dask: str | None
    stride_px: int | None


@dataclass(frozen=True)
class MapSettings:
    """How a map is made; none of tile_px, workers, resume and dask changes a pixel.

    Attributes:
        tile_px: side of a tile at least; it is rounded up to whole batches of inference windows.
        workers: forward passes at a time; a Dask cluster has its own number.
        resume: go on with what an interrupted run of the same plan left.
        device: "auto", "cpu", "cuda", "cuda:N".
        precision: "auto", "fp32", "bf16"; see `Predictor`.
        dask: where tiles are made if not in this process, see `berunda.mapping.backends.dask`; needs the extra
            `dask`, and a file system that all workers share.
        stride_px: of models for whole images only, from one patch to the next; the side of a patch where None.
    """

    tile_px: int = 1024
    workers: int = 1
    resume: bool = True
    device: str = "auto"
    precision: Precision = "auto"
    dask: str | None = None
    stride_px: int | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("tile_px", "workers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.dask is not None:
            if not re.match(DASK_ADDRESS, self.dask):
                raise ConfigError(f"dask is {self.dask!r}, expected tcp://HOST:PORT, tls://HOST:PORT, local or local:N")
            require_dask()


def map_scenes(
    bundle: Bundle,
    scenes: Sequence[Scene],
    out: Path | str,
    *,
    progress: Progress | None = None,
    **options: Unpack[MapOptions],
) -> list[MapResult]:
    """Map every scene with the bundle; a model for whole images gives a map with one pixel a patch.

    With a model of several labels, `map.tif` and `probabilities.tif` have one band a label, see `mapping.layers`.

    Args:
        bundle: the model.
        scenes: scenes that have its bands, by name, in any order, and possibly others.
        out: output folder; several scenes get a folder each in it, named like the scene, and a legend for all.
        progress: is told how far it is.
        **options: fields of `MapSettings`.

    Returns:
        One result for each scene; `is_complete` says whether its map stands under its final names.

    Raises:
        ConfigError: an option is wrong, the extra for Dask is missing, or no scheduler answers.
        DataError: a scene lacks a band of the bundle.
        GeoError: a scene cannot be read anywhere.
        OutputError: another run writes to `out`, the disk is full, or a file did not verify.
    """
    settings = MapSettings(**options)
    _check_fit(settings, bundle)
    keep_freed_memory()
    chosen = [with_bands(scene, bundle.manifest) for scene in scenes]
    folder = Path(out).absolute()
    with output_lock(folder):
        kind = Predictor if bundle.manifest.task == "segmentation" else ScenePredictor
        predictor = kind(bundle, settings.device, precision=settings.precision)
        with _backend(settings, bundle, folder) as make:
            run = _Run(bundle, predictor, settings, make, progress or Silent(), folder)
            results = [run.map(scene, name) for scene, name in zip(chosen, _folder_names(chosen), strict=True)]
        if len(results) > 1:
            write_legend(MapFiles.under(folder).legend, bundle.manifest)
        if all(result.is_complete for result in results):
            shutil.rmtree(folder / WORK_NAME, ignore_errors=True)
    return results


def _check_fit(settings: MapSettings, bundle: Bundle) -> None:
    """Refuse options that go with the other kind of model."""
    if bundle.manifest.task == "segmentation":
        if settings.stride_px is not None:
            raise ConfigError("--stride: the model maps single pixels, expected one for whole images; leave it out")
        return
    if settings.dask is not None:
        raise ConfigError("--dask: the model is for whole images, whose maps are made in one process; leave it out")


@contextmanager
def _backend(settings: MapSettings, bundle: Bundle, folder: Path) -> Iterator[MakeTiles]:
    """Give what makes tiles, within the block; Dask is imported only where it is asked for."""
    if settings.dask is None:
        yield lambda work, indices: make_tiles(work, indices, settings.workers)
        return
    from berunda.mapping.backends.dask import dask_tiles

    with dask_tiles(settings.dask, bundle, folder / WORK_NAME) as make:
        yield make


@dataclass(frozen=True)
class _Run:
    bundle: Bundle
    predictor: Predictor | ScenePredictor
    settings: MapSettings
    make_tiles: MakeTiles
    progress: Progress
    out: Path

    def map(self, scene: Scene, name: str) -> MapResult:
        """Map one scene into `out` / name."""
        start = time.perf_counter()
        plan = self._plan(scene)
        files = MapFiles.under(self.out / name, several=bool(self.bundle.manifest.label_names))
        summary = find_finished(files, plan.identity) if self.settings.resume else None
        is_new, n_kept = summary is None, plan.n_tiles
        missing: tuple[MissingTile, ...] = ()
        unlike = Beside(lambda: radiometry_of(scene, self.bundle.manifest), "radiometry")
        if summary is None:
            files.map.parent.mkdir(parents=True, exist_ok=True)
            work = self.out / WORK_NAME / "maps" / (name or "map")
            summary, n_kept, missing = self._make(plan, scene, files, work)
            if missing:
                files = files.incomplete()
            else:
                shutil.rmtree(work, ignore_errors=True)
        else:
            _sweep(files)
        seconds = time.perf_counter() - start
        told = _warnings(scene, self.bundle.manifest, summary, unlike.result())
        warnings = (*_missing_warnings(scene, files, missing, plan), *told)
        story = (seconds, is_new, n_kept, warnings, plan, missing)
        return _result(scene, files, self.bundle.manifest, summary, story)

    def _plan(self, scene: Scene) -> Plan:
        if isinstance(self.predictor, ScenePredictor):
            settings = self.settings
            return make_patch_plan(self.bundle, scene, self.predictor, settings.tile_px, settings.stride_px)
        return make_plan(self.bundle, scene, self.predictor, self.settings.tile_px)

    def _work(self, plan: Plan, scene: Scene, store: TileStore) -> TileWork | PatchWork:
        if isinstance(self.predictor, ScenePredictor):
            stride = self.settings.stride_px or plan.lattice.stride_px
            return PatchWork(plan, scene, self.predictor, store, stride)
        return TileWork(plan, scene, self.predictor, store)

    def _make(
        self, plan: Plan, scene: Scene, files: MapFiles, work: Path
    ) -> tuple[Summary, int, tuple[MissingTile, ...]]:
        """Make what is missing of the tiles and assemble them; return counts, tiles kept and tiles set aside."""
        store = _prepare(work, plan, files, len(self.bundle.manifest.label_names), resume=self.settings.resume)
        with Journal(work / "journal.jsonl", plan.digest) as journal:
            kept = store.kept(plan, journal.receipts)
            todo = [index for index in range(plan.n_tiles) if index not in kept]
            self.progress.start(f"mapping {scene.name}", plan.grid.shape.n_pixels)
            self.progress.advance(sum(plan.tile(i).shape.n_pixels for i in kept))
            arrivals = Arrivals({i: journal.receipts[i] for i in kept})
            assembly = Assembly(plan, self.bundle.manifest, store, arrivals, work, files)
            writer = Beside(assembly.write, "assemble")
            try:
                aside = self._record(self._work(plan, scene, store), todo, journal, arrivals, writer)
                self.progress.finish()
                if len(aside) == plan.n_tiles:
                    raise aside[0].error
                missing = tuple(MissingTile(plan.tile(a.index), a.n_tries, str(a.error)) for a in aside)
                summary = writer.result()
                self.progress.start("writing", plan.grid.shape.n_pixels)
                assembly.finish(summary, missing)
            except BaseException:
                arrivals.abort()
                writer.outlast()  # it must not write on when the folder is free for others
                assembly.clean()
                raise
            self.progress.advance(plan.grid.shape.n_pixels)
            self.progress.finish()
            return summary, len(kept), missing

    def _record(
        self,
        tiles: TileWork | PatchWork,
        todo: Sequence[int],
        journal: Journal,
        arrivals: Arrivals,
        writer: Beside[Summary],
    ) -> list[SetAside]:
        """Make tiles, write those that were made into the journal, announce all, and return the others, in order."""
        start, done = time.perf_counter(), 0
        aside: list[SetAside] = []
        for outcome in self.make_tiles(tiles, todo) if todo else ():
            if isinstance(outcome, SetAside):
                aside.append(outcome)
                arrivals.add(Receipt(outcome.index, "", 0))
            else:
                journal.record(outcome)
                arrivals.add(outcome)
            if writer.is_done:
                writer.result()  # an error of the writer need not wait for the last tile
            n_pixels = tiles.plan.tile(outcome.index).shape.n_pixels
            done += n_pixels
            self.progress.advance(n_pixels, mpx_per_s=done / 1e6 / (time.perf_counter() - start))
        return sorted(aside, key=lambda a: a.index)


def _prepare(work: Path, plan: Plan, files: MapFiles, n_labels: int, *, resume: bool) -> TileStore:
    """Return the store of tiles in `work`; what another plan or a kill left is removed.

    The store's name is the plan's own: a worker that outlived its run cannot write into that of another plan.
    """
    store, told = TileStore(work / f"tiles-{plan.digest[:12]}", n_labels), work / "plan.json"
    try:
        same = resume and told.is_file() and told.read_text() == plan.as_json()
        if not same and work.exists():
            shutil.rmtree(work)
        store.folder.mkdir(parents=True, exist_ok=True)
        for left in (*store.folder.glob(".*.tmp"), *work.glob("*.part.tif*")):
            left.unlink(missing_ok=True)
        _sweep(files)
    except OSError as error:
        raise failed_write(work, 0, error) from error
    if not same:
        write_atomic(told, [plan.as_json().encode()])
    return store


def _sweep(files: MapFiles) -> None:
    """Remove what runs that were killed left beside the final names."""
    for left in (*files.leftovers(), *files.incomplete().leftovers()):
        left.unlink(missing_ok=True)


def with_bands(scene: Scene, manifest: Manifest) -> Scene:
    """Return the scene with the bundle's bands in the bundle's order."""
    missing = [name for name in manifest.band_names if name not in scene.band_names]
    if missing:
        raise DataError(
            f"scene {scene.name}: band {', '.join(missing)} not found; it has {', '.join(scene.band_names)}, "
            f"the model needs {', '.join(manifest.band_names)}: name the scene's bands in order with --bands"
        )
    return scene.select(manifest.band_names)


def _folder_names(scenes: Sequence[Scene]) -> list[str]:
    """Return the folder of each scene below the output folder: none for a single scene, else its name."""
    if len(scenes) == 1:
        return [""]
    names = ["".join(c if c.isalnum() or c in "-_." else "_" for c in s.name).lstrip(".") for s in scenes]
    taken: set[str] = {"model"}
    unique = []
    for name in names:
        tries = (name or "scene", *(f"{name or 'scene'}_{i}" for i in range(2, len(names) + 3)))
        unique.append(next(n for n in tries if n.lower() not in taken))
        taken.add(unique[-1].lower())
    return unique


def _missing_warnings(scene: Scene, files: MapFiles, missing: tuple[MissingTile, ...], plan: Plan) -> tuple[str, ...]:
    """Say which tiles were set aside, why, and what to do."""
    if not missing:
        return ()
    told = [
        f"scene {scene.name}: {len(missing)} of {plan.n_tiles} tiles could not be made and are nodata; the map is "
        f"incomplete and lies in {files.map}, not under its final name; mend the cause and run the same command "
        "again: only the missing tiles are tried"
    ]
    told += [f"scene {scene.name}: tile {m.window}, tried {m.n_tries} times: {m.cause}" for m in missing[:MAX_TOLD]]
    if len(missing) > MAX_TOLD:
        told.append(f"scene {scene.name}: and {len(missing) - MAX_TOLD} more tiles")
    return tuple(told)


def _warnings(scene: Scene, manifest: Manifest, summary: Summary, unlike: list[str]) -> tuple[str, ...]:
    if not summary.n_valid:
        return (f"scene {scene.name} has no valid pixel: its map is nodata everywhere",)
    told = [f"scene {scene.name}: {text}" for text in unlike]
    if scene.mask_misses:
        told.append(f"scene {scene.name}: the raster given with --mask covers none of it; nothing is masked there")
    if summary.n_above is None:
        told.append("no out-of-distribution threshold: the model was trained without held-out labels to set one")
    elif summary.n_above > HIGH_OOD_SHARE * summary.n_valid:
        told.append(
            f"scene {scene.name}: {summary.n_above / summary.n_valid:.0%} of the pixels are unlike the "
            "labelled training data (about 5% expected): do not trust the map there; see ood.tif"
        )
    if manifest.calibration.warning or not manifest.calibration.is_fitted:
        reason = manifest.calibration.warning or "too few held-out labels"
        told.append(f"the confidence is not calibrated: {reason.removeprefix('confidence is not calibrated: ')}")
    return tuple(told)


def radiometry_of(scene: Scene, manifest: Manifest) -> list[str]:
    """Return warnings of bands whose values, where the scene is not masked, are far from those of the training."""
    bands = manifest.bands
    trained = Scaling(np.array([b.low for b in bands]), np.array([b.high for b in bands]))
    try:
        return list(radiometry_warnings(manifest.band_names, trained, measure_scaling(scene)))
    except DataError:  # no valid pixel, which is told of by itself
        return []
    except GeoError as error:  # of an incomplete map; it must not take the rest with it
        return [f"the range of its pixels could not be compared with the training's: {error}"]


def _result(
    scene: Scene,
    files: MapFiles,
    manifest: Manifest,
    summary: Summary,
    story: tuple[float, bool, int, tuple[str, ...], Plan, tuple[MissingTile, ...]],
) -> MapResult:
    seconds, is_new, n_kept, warnings, plan, missing = story
    pixels = dict(zip(manifest.class_names, summary.class_pixels, strict=True))
    area, n_valid = plan.grid.pixel_area_m2(), summary.n_valid

    def share(count: int | None) -> float | None:
        return None if count is None or not n_valid else count / n_valid

    return MapResult(
        name=scene.name,
        folder=files.map.parent,
        files=files,
        grid=plan.grid,
        class_pixels=pixels,
        class_area_m2={name: None if area is None else n * area for name, n in pixels.items()},
        nodata_share=1 - n_valid / summary.n_pixels,
        ood_share=share(summary.n_above),
        ood_energy_share=share(summary.n_above_energy),
        mean_confidence=summary.confidence_sum / n_valid if n_valid else None,
        seconds=seconds,
        mpx_per_s=scene.grid.shape.n_pixels / 1e6 / seconds if is_new else None,
        n_tiles=plan.n_tiles,
        n_tiles_kept=n_kept,
        warnings=warnings,
        missing=missing,
    )
