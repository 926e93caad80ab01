"""The verbs: each parses what it was given, calls the API and prints what came back.

Each imports what it needs when it is called, so that `berunda --help` needs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from berunda.cli.flags import Flag, flags_of
from berunda.cli.session import Session
from berunda.errors import ConfigError

__all__ = ["VERBS", "Verb"]


@dataclass(frozen=True)
class Verb:
    """A verb of the command line.

    Attributes:
        name: the word.
        help: one sentence.
        examples: command lines that work.
        flags: what it takes beside `--quiet` and `--debug`; called only when the verb is.
        run: does it, from the values the user gave, and returns an exit code or None for 0.
    """

    name: str
    help: str
    examples: tuple[str, ...]
    flags: Callable[[], tuple[Flag, ...]]
    run: Callable[[dict[str, Any], Session], int | None]


def _map(given: dict[str, Any], session: Session) -> int:
    from berunda.config import MapConfig, load_config

    out = Path(given.pop("out"))
    written = given.pop("config", None)
    if written is None:
        config = MapConfig.make(given, flags=True)
    else:
        config = MapConfig.make({**load_config(written).model_dump(), **given}, flags=True)
    from berunda import api

    outcome = api.map_scene(config, out, progress=session.progress)
    session.show(outcome)
    return int(not outcome.is_complete)


def _map_flags() -> tuple[Flag, ...]:
    from berunda.config import MapConfig

    own = (
        Flag("out", "Folder for the map, the report and the model.", metavar="DIR", required=True),
        Flag("config", "Repeat the run of this run.yaml; other flags change it.", metavar="FILE"),
    )
    flags = flags_of(MapConfig)
    return (flags[0], *own, *flags[1:])


def _demo(given: dict[str, Any], session: Session) -> None:
    from berunda.cli.options import DemoOptions

    options = DemoOptions.make(given, flags=True)
    from berunda import api

    outcome = api.demo(Path(options.out), seed=options.seed, synthetic=options.synthetic, progress=session.progress)
    session.show(outcome)


def _predict(given: dict[str, Any], session: Session) -> int:
    from berunda.cli.options import PredictOptions

    options = PredictOptions.make(given, flags=True)
    from berunda import api

    outcome = api.predict(
        Path(options.bundle),
        options.scenes,
        Path(options.out),
        workers=options.workers,
        tile_px=options.tile_px,
        dask=options.dask,
        device=options.device,
        stride_px=options.stride_px,
        skip_broken=options.skip_broken,
        bands=options.bands,
        mask=None if options.mask is None else Path(options.mask),
        allow_remote=options.allow_remote,
        progress=session.progress,
    )
    session.show(outcome)
    return int(not outcome.is_complete)


def _inpaint(given: dict[str, Any], session: Session) -> None:
    from berunda.cli.options import InpaintOptions

    options = InpaintOptions.make(given, flags=True)
    from berunda import api

    session.show(
        api.inpaint(
            Path(options.bundle),
            options.scene,
            mask=Path(options.mask),
            out=Path(options.out),
            bands=options.bands,
            device=options.device,
            seed=options.seed,
            progress=session.progress,
        )
    )


def _train(given: dict[str, Any], session: Session) -> None:
    from berunda.options.train import TrainOptions, is_config_file, load_train_options

    out = Path(given.pop("out"))
    if is_config_file(given["dataset"]):
        written = load_train_options(given.pop("dataset"))
        given = {**written.model_dump(), **given}
    options = TrainOptions.make(given, flags=True)
    from berunda import api

    session.show(api.train(options, out, progress=session.progress))


def _train_flags() -> tuple[Flag, ...]:
    from berunda.options.train import TrainOptions

    flags = flags_of(TrainOptions)
    own = Flag("out", "Folder for the model and the report.", metavar="DIR", required=True)
    return (flags[0], own, *flags[1:])


def _bench(given: dict[str, Any], session: Session) -> int:
    from berunda.options.bench import BenchOptions

    out = Path(given.pop("out"))
    options = BenchOptions.make(given, flags=True)
    from berunda import api

    outcome = api.bench(options, out, progress=session.progress)
    session.show(outcome)
    return int(not outcome.is_complete)


def _bench_flags() -> tuple[Flag, ...]:
    from berunda.options.bench import BenchOptions

    flags = flags_of(BenchOptions)
    own = Flag("out", "Folder for rows, tables and pictures.", metavar="DIR", required=True)
    return (flags[0], own, *flags[1:])


def _analyze(given: dict[str, Any], session: Session) -> None:
    from berunda.cli.sites import run_analyze

    run_analyze(given, session)


def _analyze_flags() -> tuple[Flag, ...]:
    from berunda.options.analyze import AnalyzeOptions

    flags = flags_of(AnalyzeOptions)
    own = Flag("out", "Folder for the report and the tables.", metavar="DIR", required=True)
    return (_inputs_first(flags), own, *(flag for flag in flags if not flag.argument))


def _split(given: dict[str, Any], session: Session) -> int:
    from berunda.cli.sites import run_split

    return run_split(given, session)


def _split_flags() -> tuple[Flag, ...]:
    from berunda.options.analyze import SplitOptions

    flags = flags_of(SplitOptions)
    own = (
        Flag("out", "The table to write, above all images.", metavar="FILE"),
        Flag("audit", "Look for leaks in the split of this table; exit code 1 if there are some.", metavar="FILE"),
    )
    return (_inputs_first(flags), *own, *(flag for flag in flags if not flag.argument))


def _inputs_first(flags: tuple[Flag, ...]) -> Flag:
    return next(flag for flag in flags if flag.argument)


def _datasets(given: dict[str, Any], session: Session) -> None:
    from berunda.cli.options import DatasetsOptions

    options = DatasetsOptions.make(given, flags=True)
    from berunda import api
    from berunda.cli.datasets import describe_dataset, list_datasets

    if options.fetch:
        if options.name is None:
            raise ConfigError("--fetch: found no data set, expected the name of one: berunda datasets eurosat --fetch")
        api.fetch_dataset(options.name, progress=session.progress)
    if options.build_from is not None or options.into is not None:
        if options.name != "tinyminifrance" or options.build_from is None or options.into is None:
            raise ConfigError(
                "--build-from, --into: expected both, for tinyminifrance: "
                "berunda datasets tinyminifrance --build-from minifrance --into tinyminifrance"
            )
        made = api.build_tiny(options.build_from, options.into, seed=options.seed, progress=session.progress)
        session.say(f"built: {made}")
        return
    found = api.datasets(options.name)
    for line in list_datasets(found) if options.name is None else describe_dataset(found[0]):
        session.say(line)


def _assess(given: dict[str, Any], session: Session) -> None:
    from berunda.cli.assessment import assessment_lines
    from berunda.cli.options import AssessOptions

    options = AssessOptions.make(given, flags=True)
    from berunda import api

    result = api.assess(
        Path(options.map_path),
        Path(options.reference),
        field=options.field or "",
        out=Path(options.out),
        design=options.design,
        classes=options.classes,
        zero_is_class=options.zero_is_class,
        seed=options.seed,
    )
    for line in assessment_lines(result):
        session.say(line)


def _generate(given: dict[str, Any], session: Session) -> None:
    from berunda.cli.options import GenerateOptions

    options = GenerateOptions.make(given, flags=True)
    from berunda import api

    outcome = api.generate(
        options.bundle,
        options.out,
        class_name=options.class_name,
        n=options.n,
        seed=options.seed,
        device=options.device,
        compare=options.compare,
        features=options.features,
        progress=session.progress,
    )
    session.show(outcome)


def _info(given: dict[str, Any], session: Session) -> None:
    from berunda.cli.options import InfoOptions

    options = InfoOptions.make(given, flags=True)
    from berunda import api

    session.table(api.info(options.path))


def _methods(given: dict[str, Any], session: Session) -> None:
    from berunda.cli.options import MethodsOptions

    options = MethodsOptions.make(given, flags=True)
    from berunda.cli.methods import describe_one, list_all

    for line in list_all() if options.name is None else describe_one(options.name):
        session.say(line)


def _doctor(given: dict[str, Any], session: Session) -> int:
    from berunda.cli.options import DoctorOptions

    DoctorOptions.make(given, flags=True)
    from berunda.doctor import examine

    findings = examine()
    session.table((f"{finding.status:<8} {finding.name}", finding.found) for finding in findings)
    wrong = [finding for finding in findings if finding.advice]
    for finding in wrong:
        session.say(f"{finding.name}: {finding.advice}")
    broken = sum(finding.status == "missing" for finding in findings)
    session.say(f"{broken} problems." if broken else "Everything that Berunda needs is there.")
    return 1 if broken else 0


def _of(model: str) -> Callable[[], tuple[Flag, ...]]:
    """Return what makes the flags of the model of that name in `berunda.cli.options`."""

    def flags() -> tuple[Flag, ...]:
        from berunda.cli import options

        return flags_of(getattr(options, model))

    return flags


VERBS = (
    Verb(
        "map",
        "Train on a scene and a few labels, map it, and report how good the map is.",
        (
            "berunda map scene.tif --labels polygons.gpkg --field class --out run",
            "berunda map --config run/run.yaml --out again",
        ),
        _map_flags,
        _map,
    ),
    Verb(
        "demo",
        "Do the main job on a real scene: fetch it (5 MB), train, map, report.",
        ("berunda demo --out demo-out", "berunda demo --synthetic --out demo-out"),
        _of("DemoOptions"),
        _demo,
    ),
    Verb(
        "predict",
        "Apply a trained model to further scenes of any size, or to images; a stopped map goes on where it was.",
        (
            "berunda predict run/model other.tif --out other",
            "berunda predict run/model other.tif --out other --dask tcp://10.0.0.1:8786",
            "berunda predict trained/model images --out classified",
        ),
        _of("PredictOptions"),
        _predict,
    ),
    Verb(
        "inpaint",
        "Fill the pixels of a scene under a mask, such as clouds, from their surroundings.",
        ("berunda inpaint trained/model scene.tif --mask clouds.tif --out filled.tif",),
        _of("InpaintOptions"),
        _inpaint,
    ),
    Verb(
        "train",
        "Train on few labels and all images of a data set, classes or masks, and report how good the model is.",
        (
            "berunda train eurosat --method fixmatch --labels-per-class 5 --out trained",
            "berunda train images --labels-per-class 20 --effort quick --out trained",
            "berunda train dubai --method fixmatch --labelled-images 4 --out trained",
            "berunda train trained/run.yaml --out again",
        ),
        _train_flags,
        _train,
    ),
    Verb(
        "assess",
        "Compare a map with reference data: accuracy and, for a probability sample, areas with intervals.",
        ("berunda assess run/map.tif --reference points.gpkg --field class --out accuracy",),
        _of("AssessOptions"),
        _assess,
    ),
    Verb(
        "analyze",
        "Show, before anything is labelled, how far sites stand for each other in appearance and classes.",
        (
            "berunda analyze sites --test north,south --out analysis",
            "berunda analyze scene.tif --labels polygons.gpkg --field class --out analysis",
            "berunda analyze eurosat --with images --resolution 10 --with-resolution 0.5 --out comparison",
        ),
        _analyze_flags,
        _analyze,
    ),
    Verb(
        "split",
        "Propose which sites to label and which to keep for the test, or audit a split for leaks.",
        (
            "berunda split sites --n-labelled 2 --out sites/split.csv",
            "berunda split --audit sites/split.csv",
        ),
        _split_flags,
        _split,
    ),
    Verb(
        "generate",
        "Draw images of a class from a model of a generative method.",
        (
            "berunda generate trained/model --class Forest -n 16 --out samples",
            "berunda generate trained/model -n 200 --compare images --features efficientnet_lite0 --out samples",
        ),
        _of("GenerateOptions"),
        _generate,
    ),
    Verb(
        "info",
        "Show what a model or a scene holds.",
        ("berunda info run/model", "berunda info scene.tif"),
        _of("InfoOptions"),
        _info,
    ),
    Verb(
        "methods",
        "List the methods of learning, or the hyper-parameters of one.",
        ("berunda methods", "berunda methods fixmatch"),
        _of("MethodsOptions"),
        _methods,
    ),
    Verb(
        "datasets",
        "List the data sets that are known by name: which are here, and where to get the others.",
        (
            "berunda datasets",
            "berunda datasets eurosat",
            "berunda datasets eurosat --fetch",
            "berunda datasets tinyminifrance --build-from minifrance --into tinyminifrance",
        ),
        _of("DatasetsOptions"),
        _datasets,
    ),
    Verb(
        "bench",
        "Compare methods on the same images, labels and image passes; a rerun does the missing runs.",
        (
            "berunda bench eurosat --methods supervised,fixmatch --labels 1,5 --seeds 3 --out results",
            "berunda bench folder --data images --labels 5 --out results",
            "berunda bench dubai --labels 1,4,16 --methods random_forest,supervised,fixmatch --out results",
        ),
        _bench_flags,
        _bench,
    ),
    Verb(
        "doctor",
        "Show what is there and what is missing on this machine.",
        ("berunda doctor",),
        _of("DoctorOptions"),
        _doctor,
    ),
)
"""All verbs, in the order of the help."""
