"""The steps of the main job, from prepared data to the report: train, compare, map, report."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from berunda.api.compare import Result, forest_result, net_result, supervised_result
from berunda.api.evaluate import PixelTable, check_table, gather_pixels
from berunda.api.fit import (
    Fitted,
    fit,
    method_of,
    share_training,
    supervised_settings,
    train_config,
)
from berunda.api.outcome import MapOutcome
from berunda.api.phases import Phases
from berunda.api.prepare import Prepared
from berunda.api.reporting import build_report, label_counts
from berunda.assess.report import report_json, write_report
from berunda.assess.report_data import LabelCount
from berunda.config import MapConfig, dump_config
from berunda.data.scene_source import SceneSource, build_source
from berunda.data.splits import TEST, TRAIN
from berunda.mapping.bundle import save_bundle
from berunda.mapping.result import MapResult
from berunda.mapping.run import WORK_NAME, map_scenes
from berunda.methods import make_method
from berunda.methods.contract import Method
from berunda.models.encoders import DEFAULT_ENCODER
from berunda.progress import Progress
from berunda.train.config import TrainConfig
from berunda.train.passes import passes_per_step

__all__ = ["MapRun", "map_and_report", "start_run", "train_along", "train_and_compare"]


@dataclass
class MapRun(Phases):
    """What a map run has found so far; the report is made of it.

    Attributes:
        config: the options.
        prepared: scenes, labels, split.
        source: training images.
        method: what it trains with.
        settings: of the training loop.
        table: labelled pixels.
        seconds: wall time by phase, in order.
        fitted: the model that the figures are about.
        shipped: the model in the bundle; another one after a refit.
        results: of each method on the test pixels, the run's own last.
        maps: one result for each scene.
        shipped_counts: labels of the shipped model, where a refit gave it others.
        attribution: sources and licences to print.
    """

    config: MapConfig
    prepared: Prepared
    source: SceneSource
    method: Method
    settings: TrainConfig
    table: PixelTable
    seconds: dict[str, float] = field(default_factory=dict)
    fitted: Fitted | None = None
    shipped: Fitted | None = None
    results: list[Result] = field(default_factory=list)
    maps: list[MapResult] = field(default_factory=list)
    shipped_counts: tuple[LabelCount, ...] | None = None
    attribution: tuple[str, ...] = ()

    @property
    def compares_nets(self) -> bool:
        """Whether a supervised net is trained for comparison."""
        return self.config.compare and self.method.name != "supervised" and len(self.table.of(TEST)) > 0


def start_run(config: MapConfig, prepared: Prepared, attribution: Sequence[str] = ()) -> MapRun:
    """Gather the labelled pixels and return a run that has done nothing else yet."""
    method = method_of(config)
    start = time.perf_counter()
    table = gather_pixels(prepared)
    check_table(prepared, table)
    source = build_source(prepared.scenes, prepared.labels, prepared.split, prepared.scaling, config.crop_px)
    settings = train_config(config, run_key=_run_key(prepared))
    run = MapRun(config, prepared, source, method, settings, table, attribution=tuple(attribution))
    run.seconds["reading"] = time.perf_counter() - start
    return run


def map_and_report(run: MapRun, folder: Path, progress: Progress) -> MapOutcome:
    """Map with what was trained, and report, in `folder`, which the caller holds locked.

    An interrupted run goes on from its last tile when it is called again alike.
    """
    config, prepared = run.config, run.prepared
    assert run.shipped is not None
    with run.phase("mapping"):
        save_bundle(folder / "model", run.shipped.bundle)
        run.maps = map_scenes(
            run.shipped.bundle,
            prepared.scenes,
            folder,
            progress=progress,
            tile_px=config.tile_px,
            workers=config.workers,
            dask=config.dask,
            device=config.device,
        )
    with run.phase("report"):
        dump_config(config.resolved(), folder / "run.yaml")
        data = build_report(run)
        page, _ = write_report(folder, data)
    if all(made.is_complete for made in run.maps):
        shutil.rmtree(folder / WORK_NAME, ignore_errors=True)
    metrics = report_json(data)["metrics"]
    return MapOutcome(
        out=folder,
        report_path=page,
        bundle_path=folder / "model",
        results=tuple(run.maps),
        metrics=metrics if isinstance(metrics, dict) else {},
        comparison=data.comparison,
        warnings=data.warnings,
    )


def _run_key(prepared: Prepared) -> str:
    """Return 16 hex digits of the data that decide a training, beside the settings of method, net and loop.

    Options that change neither model nor map, and the folders in which files lie, are not in it: a stopped run goes on
    with others of these all the same.
    """
    digest = hashlib.sha256(prepared.labels.fingerprint().encode())
    for scene in prepared.scenes:
        digest.update(scene.fingerprint().encode())
    split = prepared.split
    for array in (split.part, split.scene, *split.test_blocks, *prepared.scaling):
        digest.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    digest.update(f"{split.block_px} {split.buffer_px}".encode())
    return digest.hexdigest()[:16]


def train_and_compare(run: MapRun, folder: Path, progress: Progress) -> None:
    """Do every training of the run and evaluate it, in `folder`, which the caller holds locked.

    An interrupted run goes on from its last checkpoint when it is called again alike.
    """
    config, prepared, source, table = run.config, run.prepared, run.source, run.table
    test = table.of(TEST)
    work = folder / WORK_NAME
    if config.pretrained and config.encoder != DEFAULT_ENCODER:
        progress.note(f"Fetching pretrained weights of {config.encoder} over the network, if they are not there yet.")
    with run.phase("training"):
        progress.note(f"training {run.method.name}: {run.settings.steps} steps")
        run.fitted = fit(
            run.method, prepared, source, table, config, run.settings, folder=work / "train", progress=progress
        )
        run.shipped = run.fitted
    if config.compare and len(test):
        with run.phase("comparison: random forest"):
            progress.note("comparing: a random forest on the same labels")
            run.results.append(forest_result(prepared, table, config.seed))
        if run.compares_nets:
            with run.phase("comparison: supervised net"):
                progress.note("comparing: the supervised net on the same labels, with as many image passes")
                run.results.append(
                    supervised_result(
                        run.method, prepared, source, table, config, run.settings, work / "supervised", progress
                    )
                )
    if len(test):
        with run.phase("evaluation"):
            passes = run.settings.steps * passes_per_step(run.method, run.settings.n_labelled)
            run.results.append(net_result(run.fitted, prepared, test, run.method.name, passes))
    if config.refit:
        with run.phase("refit"):
            progress.note("training again on all labels but those kept for calibration")
            run.shipped = _refit(run, work / "refit", progress)


def train_along(run: MapRun, folder: Path) -> None:
    """Take the part of a rank other than the first in the trainings of `train_and_compare`, in the same order."""
    config, prepared, source, work = run.config, run.prepared, run.source, folder / WORK_NAME
    share_training(run.method, prepared, source, config, run.settings, work / "train")
    if run.compares_nets:
        equal = supervised_settings(run.settings, run.method)
        share_training(make_method("supervised"), prepared, source, config, equal, work / "supervised")
    if config.refit:
        whole, source, settings = _all_labels(run)
        share_training(run.method, whole, source, config, settings, work / "refit")


def _all_labels(run: MapRun) -> tuple[Prepared, SceneSource, TrainConfig]:
    """Return data and settings of a training on training and test polygons."""
    prepared = run.prepared
    part = np.where(prepared.split.part == TEST, TRAIN, prepared.split.part).astype(np.int8)
    blocks = tuple(np.zeros_like(b) for b in prepared.split.test_blocks)
    whole = replace(prepared, split=replace(prepared.split, part=part, test_blocks=blocks))
    source = build_source(whole.scenes, whole.labels, whole.split, whole.scaling, run.config.crop_px)
    return whole, source, replace(run.settings, run_key=_run_key(whole))


def _refit(run: MapRun, folder: Path, progress: Progress) -> Fitted:
    """Train on training and test polygons; the calibration polygons stay apart, to calibrate the new model."""
    whole, source, settings = _all_labels(run)
    table = gather_pixels(whole)
    run.shipped_counts = label_counts(whole, table)
    return fit(run.method, whole, source, table, run.config, settings, folder=folder, progress=progress)
