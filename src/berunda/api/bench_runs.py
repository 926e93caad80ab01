"""The runs of a benchmark: what is planned, what of it is there, and how one is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from berunda.api.bench_common import (
    case_folder,
    command_of_case,
    note_draws,
    run_missing,
)
from berunda.api.choices import check_serves
from berunda.api.drawn import Drawn, Labels, draw_images, skipped_notes
from berunda.api.floor import FrozenFeatures, floor_result
from berunda.api.outcome import BenchOutcome
from berunda.api.scene_checks import check_run
from berunda.api.scene_fit import Net
from berunda.api.scene_pipeline import floor_protocol_of, protocol_of
from berunda.api.scene_recipe import recipe_of
from berunda.api.scene_result import (
    RunInfo,
    SceneResult,
    all_images,
    net_result,
    scene_row,
)
from berunda.bench.rows import RowFile, refuse_other_settings, variant_of
from berunda.bench.suite import FLOORS, KNOWN_FLOORS, REFERENCE, Suite, refuse_idle_options
from berunda.bench.tables import write_tables
from berunda.data.images import ImageSet
from berunda.errors import ConfigError
from berunda.methods import make_method, method_names
from berunda.methods.contract import Method
from berunda.models.encoders import DEFAULT_ENCODER
from berunda.options.bench import BenchOptions, parse_labels
from berunda.progress import Progress
from berunda.train.config import TrainConfig
from berunda.train.passes import equal_settings, passes_per_step

__all__ = ["Bench", "Case"]


@dataclass(frozen=True)
class Case:
    """One run: a method, how many labels, and the seed."""

    method: str
    labels: Labels
    labels_unit: str
    seed: int

    def __str__(self) -> str:
        unit = "" if self.labels == "all" else f" {self.labels_unit.replace('_', ' ')}"
        return f"{self.method}, labels {self.labels}{unit}, seed {self.seed}"


@dataclass(frozen=True)
class Bench:
    """A benchmark that is ready to run: every method, option and draw has been checked.

    Attributes:
        options: every option.
        suite: what they left open.
        drawn: the images by (labels, unit, seed).
        net: which net all methods train.
        base: the loop's settings of the reference method.
        methods: the nets' methods by name, with their options.
        cases: all runs, in order.
        rows: the file of the finished ones.
        work: folder of the checkpoints.
    """

    options: BenchOptions
    suite: Suite
    drawn: Mapping[tuple[Labels, str, int], Drawn]
    net: Net
    base: TrainConfig
    methods: Mapping[str, Method]
    cases: tuple[Case, ...]
    rows: RowFile
    work: Path

    @classmethod
    def planned(cls, options: BenchOptions, suite: Suite, images: ImageSet, out: Path, work: Path) -> Bench:
        """Check everything and return the benchmark.

        Raises:
            ConfigError: a method does not serve the task, an option is wrong or of no net that is compared, or there is
                no such net.
            DataError: there are not that many labels, no images without labels for a method that learns from some, or
                the images are too small.
        """
        names = options.methods or suite.methods or (*FLOORS, *_serving())
        refuse_idle_options(options.method_options, names)
        methods = {name: make_method(name, options.options_of(name)) for name in names if name not in KNOWN_FLOORS}
        for method in methods.values():
            check_serves(method, "scene")
        numbers = _numbers(options.labels or suite.labels)
        has_shares = any(isinstance(labels, float) for labels in numbers)
        unit_of_all = options.labels_unit or ("fraction" if has_shares else "per_class")
        drawn: dict[tuple[Labels, str, int], Drawn] = {}
        cases = []
        for seed in range(options.seed, options.seed + (options.seeds or suite.n_seeds)):
            for labels in numbers:
                unit: Literal["per_class", "fraction"] = "fraction" if isinstance(labels, float) else "per_class"
                if labels == "all" and unit_of_all == "fraction":
                    unit = "fraction"
                drawn[labels, unit, seed] = draw_images(images, labels, unit, seed)
                cases += [Case(name, labels, unit, seed) for name in names]
        recipe = recipe_of(options)
        net = recipe.net(options, images)
        for (labels, _, _), chosen in drawn.items():
            check_run(methods.values(), chosen, net.spec(chosen), says_all=labels == "all")
        made = cls(
            options=options,
            suite=suite,
            drawn=drawn,
            net=net,
            base=recipe.train_config(options, seed=options.seed),
            methods=methods,
            cases=tuple(cases),
            rows=RowFile(out / f"{suite.name}.json"),
            work=work,
        )
        for case in made.cases:
            if case.method in methods:
                made.settings_of(case)
        return made

    @property
    def budget(self) -> float:
        """Image passes of a run: those of the reference method."""
        return self.base.steps * passes_per_step(make_method(REFERENCE), self.base.n_labelled)

    def run(self, progress: Progress) -> BenchOutcome:
        """Do the missing runs, then write the tables."""
        self._check_rows()
        if told := next(iter(self.drawn.values())).repeats_told():
            progress.note(f"warning: {told}")
        missing = [case for case in self.cases if not self.rows.has(**self._key(case))]
        features = self._features(missing)
        out = self.rows.path.parent
        self._note_labels(out / f"{self.suite.name}_labels.json")

        def make_row(case: Case, folder: Path) -> dict[str, Any]:
            return self._row(case, self._result(case, features, folder, progress))

        failed = run_missing(
            missing, self.rows, make_row, lambda case: case_folder(self.work, self._key(case)), progress
        )
        files = write_tables(self.rows.path, out) if self.rows.path.exists() else []
        return BenchOutcome(
            rows_path=self.rows.path,
            files=tuple(files),
            n_runs=len(self.cases),
            n_new=len(missing) - len(failed),
            failed=tuple(failed),
            notes=tuple(skipped_notes(next(iter(self.drawn.values())).images)),
        )

    def settings_of(self, case: Case) -> TrainConfig:
        """Return the loop's settings of a run: as many image passes as any other, see `equal_settings`.

        Raises:
            ConfigError: looking at all images would take nearly all of the passes.
        """
        drawn = self._drawn(case)
        base = replace(self.base, seed=case.seed, run_key=drawn.key(self.net.image_px))
        try:
            return equal_settings(self.methods[case.method], base, self.budget, all_images(drawn, self.net))
        except ConfigError as error:
            raise ConfigError(f"{case}: {error}") from error

    def _result(self, case: Case, features: FrozenFeatures | None, folder: Path, progress: Progress) -> SceneResult:
        drawn = self._drawn(case)
        if case.method in KNOWN_FLOORS:
            assert features is not None
            return floor_result(case.method, features, drawn, progress)
        return net_result(
            self.methods[case.method],
            drawn,
            self.net,
            self.settings_of(case),
            folder=folder,
            progress=progress,
        )

    def _drawn(self, case: Case) -> Drawn:
        return self.drawn[case.labels, case.labels_unit, case.seed]

    def _features(self, missing: list[Case]) -> FrozenFeatures | None:
        if not any(case.method in KNOWN_FLOORS for case in missing):
            return None
        images = self._drawn(missing[0]).images
        return FrozenFeatures(images, self.net.encoder, pretrained=self.net.pretrained, device=self.options.device)

    def _encoder(self, case: Case) -> str:
        return self.net.encoder if self.net.pretrained or case.method not in KNOWN_FLOORS else DEFAULT_ENCODER

    def _variant(self, case: Case) -> str:
        return variant_of(self.options.options_of(case.method))

    def _key(self, case: Case) -> dict[str, Any]:
        return {
            "suite": self.suite.name,
            "dataset": self._drawn(case).images.name,
            "task": "scene",
            "method": case.method,
            "variant": self._variant(case),
            "encoder": self._encoder(case),
            "labels": case.labels,
            "labels_unit": case.labels_unit,
            "seed": case.seed,
        }

    def _row(self, case: Case, result: SceneResult) -> dict[str, Any]:
        drawn, is_floor = self._drawn(case), case.method in KNOWN_FLOORS
        net_protocol = protocol_of(drawn, self.net, self.budget)
        info = RunInfo(
            suite=self.suite.name,
            labels=case.labels,
            labels_unit=case.labels_unit,
            seed=case.seed,
            command=self._command(case),
            protocol=floor_protocol_of(drawn, is_transductive=result.is_transductive) if is_floor else net_protocol,
            variant=self._variant(case),
        )
        row = scene_row(result, drawn, info)
        setting = self._setting()
        if is_floor:
            setting = {"fingerprint": setting["fingerprint"]}
        return {**row, "setting": setting}

    def _setting(self) -> dict[str, Any]:
        """Return what all nets of a table share, for the rows."""
        return {
            "fingerprint": next(iter(self.drawn.values())).images.fingerprint[:16],
            "image_passes": round(self.budget),
            "image_px": self.net.image_px,
            "frozen_stages": self.net.frozen_stages,
            "symmetries": self.net.symmetries,
            "is_pretrained": self.net.pretrained,
            "learning_rate": self.base.learning_rate,
            "n_labelled": self.base.n_labelled,
        }

    def _check_rows(self) -> None:
        dataset = next(iter(self.drawn.values())).images.name
        refuse_other_settings(self.rows, self._setting(), dataset, self.net.encoder)

    def _command(self, case: Case) -> str:
        chosen = {"methods": case.method, "labels": case.labels, "seeds": 1, "seed": case.seed}
        given = {f"{case.method}.{name}": value for name, value in self.options.options_of(case.method).items()}
        return command_of_case(self.suite.name, self.options, chosen, given)

    def _note_labels(self, path: Path) -> None:
        images = next(iter(self.drawn.values())).images
        draws = [
            (f"{labels} {unit}", seed, "all" if labels == "all" else " ".join(map(str, sorted(drawn.train.tolist()))))
            for (labels, unit, seed), drawn in self.drawn.items()
        ]
        note_draws(path, images.name, images.fingerprint, draws)


def _serving() -> Iterator[str]:
    """Yield the names of the methods that classify images."""
    for name in method_names():
        if "scene" in make_method(name).needs().tasks:
            yield name


def _numbers(texts: Sequence[str]) -> list[Labels]:
    """Return how many labels the texts ask for.

    Raises:
        ConfigError: images have no sites.
    """
    found: list[Labels] = []
    for text in texts:
        number = parse_labels(text)
        if number == "each_site":
            raise ConfigError("--labels: found each_site, expected it with masks alone; images have no sites")
        found.append(number)
    return found
