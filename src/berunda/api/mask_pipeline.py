"""The steps of a training on images with masks, from opened images to the report."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from berunda.api.choices import check_serves
from berunda.api.fit import train_or_resume
from berunda.api.mask_bench import N_SHOWN
from berunda.api.mask_budget import supervised_settings
from berunda.api.mask_fit import MaskNet, check_unlabelled, mask_source
from berunda.api.mask_recipe import mask_config, mask_net
from berunda.api.mask_result import MaskResult, forest_masks, mask_row, net_masks
from berunda.api.outcome import TrainOutcome
from berunda.api.phases import Phases
from berunda.api.reporting import loss_curves_of, provenance_of, pseudo_labels_of, starved_classes, went_back
from berunda.api.scene_pipeline import command_of
from berunda.api.scene_result import RunInfo
from berunda.assess.intervals import bootstrap_interval, paired_bootstrap
from berunda.assess.metrics import score
from berunda.assess.report import report_json, write_report
from berunda.assess.report_data import CalibrationFacts, ClassInfo, ComparisonDifference, ReportData, TrainingFacts
from berunda.bench.grids import Shown, grid_picture
from berunda.config import dump_config
from berunda.data.masks.draw import DrawnMasks, draw_masks
from berunda.data.masks.images import MaskSet
from berunda.data.masks.leaks import leaks
from berunda.files import write_atomic
from berunda.mapping.bundle import save_bundle
from berunda.mapping.run import WORK_NAME
from berunda.methods import make_method
from berunda.methods.contract import Method
from berunda.options.train import TrainOptions
from berunda.progress import Progress, Silent
from berunda.train.config import TrainConfig
from berunda.train.passes import image_passes

__all__ = ["GRID_NAME", "MaskRun", "start_mask_run", "train_along_masks", "train_and_report_masks"]

GRID_NAME = "test_images.png"


@dataclass
class MaskRun(Phases):
    """What a training on images with masks has found so far.

    Attributes:
        options: every option.
        drawn: the images.
        net: which net.
        method: what it trains with.
        settings: of the training loop.
        seconds: wall time by phase, in order.
        results: of each method on the test images, the run's own last.
    """

    options: TrainOptions
    drawn: DrawnMasks
    net: MaskNet
    method: Method
    settings: TrainConfig
    seconds: dict[str, float] = field(default_factory=dict)
    results: list[MaskResult] = field(default_factory=list)

    @property
    def compares_nets(self) -> bool:
        """Whether a supervised net is trained for comparison."""
        return self.options.compare and self.method.name != "supervised"

    @property
    def equal(self) -> dict[str, TrainConfig]:
        """The settings of that net by variant, as in a benchmark: as many passes, in large and in small batches."""
        return supervised_settings(make_method("supervised"), self.settings, image_passes(self.method, self.settings))

    @property
    def shown(self) -> tuple[int, ...]:
        """Test images that the picture beside the report shows."""
        test = self.drawn.test
        return tuple(int(test[round(i)]) for i in np.linspace(0, len(test) - 1, min(N_SHOWN, len(test))))


def start_mask_run(options: TrainOptions, masks: MaskSet) -> MaskRun:
    """Draw the labelled images and return a run that has trained nothing yet.

    Raises:
        ConfigError: the method does not serve segmentation.
        DataError: there are not that many images with masks, no image is left to be used without its mask though the
            method needs some, or no test image has a mask.
    """
    method = make_method(options.method, options.method_options)
    check_serves(method, "segmentation")
    drawn = draw_masks(masks, options.labels, options.masks_unit, options.seed)
    check_unlabelled(method, drawn)
    net = mask_net(options)
    return MaskRun(options, drawn, net, method, mask_config(options, seed=options.seed, run_key=drawn.key(net.crop_px)))


def train_along_masks(run: MaskRun, folder: Path) -> TrainOutcome:
    """Take part in the trainings of the first rank, which holds `folder` locked; nothing is written here."""
    work, source = folder / WORK_NAME, mask_source(run.drawn, run.net.crop_px)
    if run.compares_nets:
        supervised = make_method("supervised")
        spec = run.net.spec(run.drawn, supervised)
        for variant, settings in run.equal.items():
            train_or_resume(supervised, spec, source, settings, _place(work, variant), Silent())
    train_or_resume(run.method, run.net.spec(run.drawn, run.method), source, run.settings, work / "train", Silent())
    return TrainOutcome(folder, folder / "report.html", folder / "model", {}, (), {}, ())


def train_and_report_masks(run: MaskRun, folder: Path, progress: Progress) -> TrainOutcome:
    """Train, test, save the bundle and report, in `folder`, which the caller holds locked."""
    _train_all(run, folder / WORK_NAME, progress)
    own = run.results[-1]
    assert own.fitted is not None
    with run.phase("report"):
        save_bundle(folder / "model", own.fitted.bundle)
        dump_config(run.options.resolved(), folder / "run.yaml", verb="train")
        _write_grid(run, folder)
        data = _report(run)
        page, _ = write_report(folder, data)
    shutil.rmtree(folder / WORK_NAME, ignore_errors=True)
    metrics = report_json(data)["metrics"]
    return TrainOutcome(
        out=folder,
        report_path=page,
        bundle_path=folder / "model",
        metrics={**own.figures, **(metrics if isinstance(metrics, dict) else {})},
        comparison=data.comparison,
        counts=dict(run.drawn.counts()),
        warnings=data.warnings,
    )


def _train_all(run: MaskRun, work: Path, progress: Progress) -> None:
    drawn, net, keep = run.drawn, run.net, run.shown
    if run.options.compare:
        with run.phase("comparison: random forest"):
            progress.note("comparing: a random forest on the pixels of the same images")
            run.results.append(forest_masks(drawn, run.options.seed, keep=keep, progress=progress))
    if run.compares_nets:
        for variant, settings in run.equal.items():
            with run.phase("comparison: supervised net"):
                crops = f"{settings.n_labelled} crops a step, {settings.steps} steps"
                progress.note(f"comparing: the supervised net on the same masks, with as many passes: {crops}")
                supervised, folder = make_method("supervised"), _place(work, variant)
                result = net_masks(supervised, drawn, net, settings, keep=keep, folder=folder, progress=progress)
                run.results.append(replace(result, variant=variant))
    with run.phase("training and test"):
        progress.note(f"training {run.method.name}: {run.settings.steps} steps")
        run.results.append(
            net_masks(
                run.method,
                drawn,
                net,
                run.settings,
                keep=keep,
                options=run.options.method_options,
                folder=work / "train",
                progress=progress,
            )
        )


def _place(work: Path, variant: str) -> Path:
    """Return the folder of the checkpoints of a supervised net."""
    return work / f"supervised {variant}".strip().replace(" ", "_")


def _write_grid(run: MaskRun, folder: Path) -> None:
    """Write the picture of a few test images beside the report."""
    own = run.results[-1]
    assert own.fitted is not None
    entries = own.fitted.bundle.manifest.classes
    kept = folder / WORK_NAME / "shown"
    shown = Shown(kept, tuple(e.name for e in entries), tuple(e.color for e in entries))
    shown.begin(run.drawn.masks, run.shown)
    runs = []
    for result in run.results:
        name = result.title.replace(" ", "_")
        shown.keep(name, result.shown)
        runs.append((result.title.replace("_", " "), name, float(result.figures["miou"])))
    write_atomic(folder / GRID_NAME, [grid_picture(kept, runs)])


def _report(run: MaskRun) -> ReportData:
    own = run.results[-1]
    assert own.fitted is not None
    matrix = own.by_image.sum(axis=0)
    return ReportData(
        title=f"Segmentation of {run.drawn.masks.name}",
        classes=tuple(ClassInfo(name=e.name, color=e.color) for e in own.fitted.bundle.manifest.classes),
        scores=score(matrix, run.drawn.classes),
        intervals=bootstrap_interval(own.by_image, unit="images"),
        confusion=matrix,
        comparison=tuple(
            mask_row(result, run.drawn, replace(_info(run), variant=result.variant)) for result in run.results
        ),
        differences=tuple(
            ComparisonDifference(own.title, other.title, paired_bootstrap(own.by_image, other.by_image, unit="images"))
            for other in run.results[:-1]
        ),
        calibration=CalibrationFacts(own.fitted.temperature, own.before, own.after, measured_on="test images"),
        training=_training_facts(run),
        timing=dict(run.seconds),
        warnings=tuple(_warnings(run)),
        provenance=provenance_of(command_of(run.options)),
    )


def _info(run: MaskRun) -> RunInfo:
    options, masks = run.options, run.drawn.masks
    passes = image_passes(run.method, run.settings)
    return RunInfo(
        suite="train",
        labels=options.labels,
        labels_unit=options.masks_unit,
        seed=options.seed,
        command=command_of(options),
        protocol=(
            f"{masks.name}; labelled images drawn by seed, nested, stratified by class; all training images without "
            f"masks; {passes:,.0f} passes of crops of {run.net.crop_px} px (forward alone counts a third), equal for "
            "all nets, of the supervised one spent both on large batches and on small ones in more steps; last "
            "averaged model; random_forest learns on the bands of single pixels"
        ),
    )


def _training_facts(run: MaskRun) -> TrainingFacts:
    own, settings, options = run.results[-1], run.settings, run.options
    assert own.fitted is not None
    manifest = own.fitted.bundle.manifest
    unit = "images" if options.masks_unit == "images" else "of the training images"
    return TrainingFacts(
        method=run.method.name,
        encoder=run.net.encoder,
        n_steps=settings.steps,
        images_seen=own.fitted.trained.images_seen,
        seed=options.seed,
        facts={
            **{f"Images: {use}": str(n) for use, n in run.drawn.counts()},
            "Labels": "all images" if options.labels == "all" else f"{options.labels} {unit}",
            "Crops": f"{run.net.crop_px} px, {settings.n_labelled} labelled ones a step",
            "Net": f"{manifest.net.decoder} on {run.net.encoder}, {manifest.net.encoder_depth} stages",
            "Image passes": f"{own.image_passes:,.0f} (forward alone counts a third)",
            "Speed": f"{own.images_per_s:,.0f} passes a second",
        },
        fingerprints=tuple(origin.fingerprint for origin in manifest.training.labels),
        curves=tuple(loss_curves_of(own.fitted.trained.log)),
        pseudo_labels=pseudo_labels_of(own.fitted.trained.log, run.drawn.classes),
        returned=own.fitted.trained.returned,
    )


def _warnings(run: MaskRun) -> Iterator[str]:
    own, drawn = run.results[-1], run.drawn
    assert own.fitted is not None
    if drawn.absent:
        yield f"No labelled image shows {', '.join(drawn.absent)}: the model cannot know this class."
    if not len(drawn.validation):
        yield "No validation image was there: confidence is not calibrated, and no pixel is flagged as unlike."
    elif own.fitted.temperature.warning:
        yield own.fitted.temperature.warning
    yield from leaks(drawn.masks)
    yield from went_back(own.fitted.trained.returned)
    yield from starved_classes(pseudo_labels_of(own.fitted.trained.log, drawn.classes), run.method)
