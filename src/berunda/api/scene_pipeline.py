"""The steps of a training on images, from opened images to the report."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from berunda.api.choices import check_serves
from berunda.api.drawn import Drawn, draw_images, skipped_notes
from berunda.api.fit import train_or_resume
from berunda.api.floor import FLOOR_PX, FrozenFeatures, regression_result
from berunda.api.outcome import TrainOutcome
from berunda.api.phases import Phases
from berunda.api.reporting import loss_curves_of, provenance_of, pseudo_labels_of, went_back
from berunda.api.scene_checks import check_run
from berunda.api.scene_fit import Net, source_of
from berunda.api.scene_looks import looks_of
from berunda.api.scene_recipe import recipe_of
from berunda.api.scene_result import RunInfo, SceneResult, net_result, passes_of_run, scene_row
from berunda.assess.measures import measures_of
from berunda.assess.ood import FeatureDistance
from berunda.assess.report_data import ClassInfo, OodFacts, TrainingFacts
from berunda.assess.scene_report import SceneReport, write_scene_report
from berunda.config import dump_config
from berunda.data.images import ImageSet
from berunda.mapping.bundle import save_bundle
from berunda.mapping.run import WORK_NAME
from berunda.methods import make_method
from berunda.methods.contract import Method
from berunda.options.train import TrainOptions
from berunda.progress import Progress, Silent
from berunda.train.config import TrainConfig
from berunda.train.passes import with_passes

__all__ = ["SceneRun", "command_of", "floor_protocol_of", "protocol_of", "start_run", "train_along", "train_and_report"]


@dataclass
class SceneRun(Phases):
    """What a training on images has found so far; the report is made of it.

    Attributes:
        options: every option.
        drawn: the images.
        net: which net.
        method: what it trains with.
        settings: of the training loop.
        is_given: whether the images were given in Python, and not read from a data set that has a name or a place.
        seconds: wall time by phase, in order.
        results: of each method on the test images, the run's own last.
    """

    options: TrainOptions
    drawn: Drawn
    net: Net
    method: Method
    settings: TrainConfig
    is_given: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    results: list[SceneResult] = field(default_factory=list)

    @property
    def compares_nets(self) -> bool:
        """Whether a supervised net is trained for comparison."""
        return self.options.compare and self.method.name != "supervised"

    @property
    def equal(self) -> TrainConfig:
        """The settings of that net: as many image passes."""
        per_step = passes_of_run(self.method, self.settings, self.drawn, self.net) / self.settings.steps
        return with_passes(self.settings, per_step)


def start_run(options: TrainOptions, images: ImageSet, *, is_given: bool = False) -> SceneRun:
    """Draw the labelled images and return a run that has trained nothing yet.

    Raises:
        ConfigError: the method does not serve images, or there is no such net.
        DataError: there are not that many labels, no images without labels for a method that learns from some, or the
            images are too small.
    """
    method = make_method(options.method, options.method_options)
    check_serves(method, images.task)
    recipe = recipe_of(options)
    drawn = draw_images(images, options.labels, options.labels_unit, options.seed)
    net = recipe.net(options, images)
    check_run([method], drawn, net.spec(drawn), says_all=options.says_all)
    settings = recipe.train_config(options, seed=options.seed, run_key=drawn.key(net.image_px))
    return SceneRun(options, drawn, net, method, settings, is_given)


def train_along(run: SceneRun, folder: Path) -> TrainOutcome:
    """Take part in the trainings of the first rank, which holds `folder` locked; nothing is written here."""
    work, spec = folder / WORK_NAME, run.net.spec(run.drawn)
    source = source_of(run.drawn, run.net.image_px)
    if run.compares_nets:
        train_or_resume(make_method("supervised"), spec, source, run.equal, work / "supervised", Silent())
    train_or_resume(run.method, spec, source, run.settings, work / "train", Silent())
    return TrainOutcome(folder, folder / "report.html", folder / "model", {}, (), {}, ())


def train_and_report(run: SceneRun, folder: Path, progress: Progress) -> TrainOutcome:
    """Train, test, save the bundle and report, in `folder`, which the caller holds locked."""
    _train_all(run, folder / WORK_NAME, progress)
    own = run.results[-1]
    assert own.fitted is not None
    with run.phase("report"):
        save_bundle(folder / "model", own.fitted.bundle)
        dump_config(run.options.resolved(), folder / "run.yaml", verb="train")
        report = _report(run)
        page = write_scene_report(folder, report)
    shutil.rmtree(folder / WORK_NAME, ignore_errors=True)
    return TrainOutcome(
        out=folder,
        report_path=page,
        bundle_path=folder / "model",
        metrics=own.figures,
        comparison=report.comparison,
        counts=report.counts,
        warnings=report.warnings,
    )


def protocol_of(drawn: Drawn, net: Net, image_passes: float, *, has_searches: bool = False) -> str:
    """Return in words how a net is trained and tested, and what a search costs where options are searched over."""
    shown = "" if drawn.images.size == (net.image_px, net.image_px) else f", shown at {net.image_px} px"
    averaged = f", its answers averaged over {net.symmetries} symmetries of an image" if net.symmetries > 1 else ""
    searched = ", but where options are searched over: each candidate gets as many" if has_searches else ""
    return (
        f"{_images_told(drawn)}{shown}; {_drawn_told(drawn)}; all training images without labels; {image_passes:,.0f} "
        f"image passes a run (forward alone counts a third), equal for all nets{searched}; last averaged "
        f"model{averaged}; {_scaled_told(drawn)}"
    )


def floor_protocol_of(drawn: Drawn, *, is_transductive: bool = False) -> str:
    """Return in words what a floor rests on; a transductive one saw the test images without their labels."""
    seen = "; validation and test images are in the graph, without labels" if is_transductive else ""
    return (
        f"{_images_told(drawn)}; {_drawn_told(drawn)}; features_*: frozen features of one view of each image, at "
        f"{FLOOR_PX} px, without any training of the net; {_scaled_told(drawn)}{seen}"
    )


def _drawn_told(drawn: Drawn) -> str:
    return f"labelled images drawn by seed, nested, {'by class' if drawn.images.task == 'scene' else 'stratified'}"


def _scaled_told(drawn: Drawn) -> str:
    tuned = "temperature" if drawn.images.task == "scene" else "temperature and thresholds"
    return f"{tuned} from at most as many validation labels as training labels"


def _images_told(drawn: Drawn) -> str:
    images, (rows, cols) = drawn.images, drawn.images.size
    counts = "/".join(str(len(images.of(part))) for part in range(3))
    repeats = f" ({len(images.repeats)} test images are in another part too)" if images.repeats else ""
    return (
        f"{images.name}, {counts} images for training/validation/test{repeats}, {len(images.bands)} bands, {cols} x "
        f"{rows} px"
    )


def _train_all(run: SceneRun, work: Path, progress: Progress) -> None:
    drawn, net = run.drawn, run.net
    if run.options.compare:
        with run.phase("comparison: logistic regression"):
            progress.note("comparing: a logistic regression on the frozen features of the encoder")
            features = FrozenFeatures(drawn.images, net.encoder, pretrained=net.pretrained, device=run.options.device)
            run.results.append(regression_result(features, drawn, progress))
    if run.compares_nets:
        with run.phase("comparison: supervised net"):
            progress.note("comparing: the supervised net on the same labels, with as many image passes")
            supervised = make_method("supervised")
            run.results.append(
                net_result(supervised, drawn, net, run.equal, folder=work / "supervised", progress=progress)
            )
    with run.phase("training and test"):
        progress.note(f"training {run.method.name}: {run.settings.steps} steps")
        run.results.append(net_result(run.method, drawn, net, run.settings, folder=work / "train", progress=progress))


def _report(run: SceneRun) -> SceneReport:
    drawn, own = run.drawn, run.results[-1]
    fitted = own.fitted
    assert fitted is not None
    entries = fitted.bundle.manifest.classes
    logits, labels, measures = own.test.logits, own.test.labels, measures_of(drawn.images.task)
    return SceneReport(
        title=f"Classifier of {drawn.images.name}",
        classes=tuple(ClassInfo(name=entry.name, color=entry.color) for entry in entries),
        figures=own.figures,
        interval=measures.interval(own.figures),
        temperature=fitted.temperature,
        before=measures.calibration(logits, labels),
        after=measures.calibration(logits, labels, fitted.temperature.value),
        ood=_ood_facts(own),
        training=_training_facts(run),
        counts=dict(drawn.counts()),
        comparison=tuple(scene_row(result, drawn, _info(run, result)) for result in run.results),
        looks=looks_of(fitted.bundle, fitted.predictor, drawn),
        timing=dict(run.seconds),
        warnings=tuple(_warnings(run)),
        provenance=provenance_of(_command(run)),
    )


def _info(run: SceneRun, result: SceneResult) -> RunInfo:
    options, is_floor = run.options, result.fitted is None
    passes = passes_of_run(run.method, run.settings, run.drawn, run.net)
    return RunInfo(
        suite="train",
        labels=options.labels,
        labels_unit=options.labels_unit,
        seed=options.seed,
        command=_command(run),
        protocol=floor_protocol_of(run.drawn) if is_floor else protocol_of(run.drawn, run.net, passes),
    )


def _command(run: SceneRun) -> str:
    if not run.is_given:
        return command_of(run.options)
    told = ", ".join(f"{name}={value!r}" for name, value in run.options.model_dump(exclude_defaults=True).items())
    return f'berunda.train(berunda.TrainOptions({told}), "DIR", images={run.drawn.images.name})'


def command_of(options: TrainOptions) -> str:
    """Return a command line that makes this run again in a folder DIR, local folders by name."""
    path = Path(options.dataset)
    words = ["berunda", "train", path.name if path.exists() else options.dataset]
    for key, value in options.model_dump(mode="json", exclude_defaults=True, exclude={"dataset"}).items():
        flag = "--" + key.replace("_", "-")
        if key == "method_options":
            words += [word for name, given in value.items() for word in ("--option", f"{name}={given}")]
        elif isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            words += [flag, Path(value).name if key == "data" else str(value)]
    return shlex.join([*words, "--out", "DIR"])


def _ood_facts(own: SceneResult) -> OodFacts | None:
    assert own.fitted is not None
    bundle = own.fitted.bundle
    ood = bundle.manifest.ood
    if ood is None or ood.threshold is None or own.test.features is None:
        return None
    distance = FeatureDistance.from_arrays(bundle.distance_arrays()).distance(own.test.features)
    return OodFacts(
        threshold=ood.threshold,
        threshold_energy=ood.threshold_energy,
        share_test=float((distance > ood.threshold).mean()),
        n_held_out_px=ood.n_pixels,
    )


def _training_facts(run: SceneRun) -> TrainingFacts:
    own, settings, options = run.results[-1], run.settings, run.options
    assert own.fitted is not None
    unit = "a class" if options.labels_unit == "per_class" else "of the training images"
    factor = own.fitted.trained.method.needs().rate
    rate = f"{settings.learning_rate:g}" + ("" if factor == 1 else f" x {factor:g} (of {run.method.name})")
    return TrainingFacts(
        method=run.method.name,
        encoder=run.net.encoder,
        n_steps=settings.steps,
        images_seen=own.fitted.trained.images_seen,
        seed=options.seed,
        facts={
            "Labels": "all" if options.labels == "all" else f"{options.labels} {unit}",
            "Images shown at": f"{run.net.image_px} px",
            "Labelled images a step": str(settings.n_labelled),
            "Optimizer": f"{settings.optimizer}, rate {rate}, decay {settings.weight_decay:g}",
            "Image passes": f"{own.image_passes:,.0f} (forward alone counts a third)",
            "Speed": f"{own.images_per_s:,.0f} image passes a second",
        },
        curves=tuple(loss_curves_of(own.fitted.trained.log)),
        pseudo_labels=pseudo_labels_of(own.fitted.trained.log, run.drawn.classes),
        returned=own.fitted.trained.returned,
    )


def _warnings(run: SceneRun) -> Iterator[str]:
    own, images = run.results[-1], run.drawn.images
    assert own.fitted is not None
    yield from skipped_notes(images)
    if told := run.drawn.repeats_told():
        yield told
    yield from went_back(own.fitted.trained.returned)
    if not len(run.drawn.validation):
        yield "No validation label was there: confidence is not calibrated, and no image is flagged as unlike."
    elif own.fitted.temperature.warning:
        yield own.fitted.temperature.warning
    ood = own.fitted.bundle.manifest.ood
    if ood is not None and ood.threshold is not None and ood.warning:
        yield ood.warning[0].upper() + ood.warning[1:] + "."
    if run.method.needs().unlabelled and len(run.drawn.unlabelled) <= len(run.drawn.train):
        yield "There are no images without labels: the labelled images' own pixels took their place."
