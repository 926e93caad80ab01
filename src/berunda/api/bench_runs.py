"""The runs of a benchmark: what is planned, what of it is there, and how one is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from berunda.api.bench_arms import arms_of, candidates_of, labels_of_arm
from berunda.api.bench_common import (
    case_folder,
    command_of_case,
    note_draws,
    run_missing,
)
from berunda.api.bench_search import search_suite, searched_row
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
from berunda.api.scene_unlike import Beyond
from berunda.bench.diverged import DivergedRuns
from berunda.bench.rows import RowFile, refuse_other_settings
from berunda.bench.suite import KNOWN_FLOORS, PLAIN, REFERENCE, Arm, Suite, refuse_idle_options
from berunda.bench.tables import write_tables
from berunda.data.images import ImageSet
from berunda.errors import ConfigError, DivergedError
from berunda.methods import make_method
from berunda.methods.contract import Method
from berunda.models.encoders import DEFAULT_ENCODER
from berunda.options.bench import BenchOptions
from berunda.progress import Progress
from berunda.train.config import TrainConfig
from berunda.train.passes import equal_settings, passes_per_step

__all__ = ["Bench", "Case", "Lane"]


@dataclass(frozen=True)
class Case:
    """One run: a method, how many labels, and the seed."""

    arm: Arm
    labels: Labels
    labels_unit: str
    seed: int

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.arm.method

    @property
    def is_floor(self) -> bool:
        """Whether it trains no net."""
        return self.method in KNOWN_FLOORS

    @property
    def draw(self) -> tuple[Labels, str, int]:
        """What decides which images are labelled."""
        return self.labels, self.labels_unit, self.seed

    def __str__(self) -> str:
        unit = "" if self.labels == "all" else f" {self.labels_unit.replace('_', ' ')}"
        encoder = f" ({self.arm.encoder})" if self.arm.encoder else ""
        return f"{self.arm}{encoder}, labels {self.labels}{unit}, seed {self.seed}"


@dataclass(frozen=True)
class Lane:
    """The net that methods train, and the loop's settings of the reference method with it."""

    net: Net
    base: TrainConfig

    @property
    def budget(self) -> float:
        """Image passes of a run: those of the reference method."""
        return self.base.steps * passes_per_step(make_method(REFERENCE), self.base.n_labelled)


@dataclass(frozen=True)
class Bench:
    """A benchmark that is ready to run: every method, option and draw has been checked.

    Attributes:
        options: every option.
        suite: what they left open.
        drawn: the images by (labels, unit, seed).
        lanes: nets and settings by encoder.
        cases: all runs, in order.
        rows: the file of the finished ones.
        work: folder of the checkpoints.
        notes: what was left out, in words.
        beyond: what is measured of nets beside agreement and calibration.
    """

    options: BenchOptions
    suite: Suite
    drawn: Mapping[tuple[Labels, str, int], Drawn]
    lanes: Mapping[str, Lane]
    cases: tuple[Case, ...]
    rows: RowFile
    work: Path
    notes: tuple[str, ...] = ()
    beyond: Beyond = field(default_factory=Beyond)

    @classmethod
    def planned(
        cls, options: BenchOptions, suite: Suite, images: ImageSet, out: Path, work: Path, beyond: Beyond | None = None
    ) -> Bench:
        """Check everything and return the benchmark.

        Raises:
            ConfigError: a method does not serve the task, an option is wrong or of no net that is compared, or there is
                no such net.
            DataError: there are not that many labels, no images without labels for a method that learns from some, or
                the images are too small.
        """
        arms, notes = arms_of(options, suite, images.task)
        refuse_idle_options(options.method_options, [arm.method for arm in arms])
        wanted = {id(arm): labels_of_arm(options, suite, arm) for arm in arms}
        numbers = sorted({n for own in wanted.values() for n in own}, key=lambda n: (isinstance(n, str), n))
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
                cases += [Case(arm, labels, unit, seed) for arm in arms if labels in wanted[id(arm)]]
        made = cls(
            options=options,
            suite=suite,
            drawn=drawn,
            lanes={name: _lane(options, images, name) for name in {arm.encoder or options.encoder for arm in arms}},
            cases=tuple(cases),
            rows=RowFile(out / f"{suite.name}.json"),
            work=work,
            notes=tuple(notes),
            beyond=beyond or Beyond(),
        )
        made._check_cases()
        return made

    def run(self, progress: Progress) -> BenchOutcome:
        """Do the missing runs, then write the tables."""
        for note in self.notes:
            progress.note(note)
        self._check_rows()
        if told := next(iter(self.drawn.values())).repeats_told():
            progress.note(f"warning: {told}")
        missing = [case for case in self.cases if not self.rows.has(**self._key(case))]
        features = self._features(missing)
        out = self.rows.path.parent
        self._note_labels(out / f"{self.suite.name}_labels.json")

        def make_row(case: Case, folder: Path) -> dict[str, Any]:
            if case.arm.search:
                row = self._searched(case, folder, progress)
            else:
                row = self._row(case, self._result(case, features, folder, progress))
            return {**row, "title": case.arm.title} if case.arm.title else row

        failed = run_missing(
            missing,
            self.rows,
            lambda case, folder: self._noted(case, lambda: make_row(case, folder)),
            lambda case: case_folder(self.work, self._key(case)),
            progress,
        )
        files = write_tables(self.rows.path, out) if self.rows.path.exists() else []
        return BenchOutcome(
            rows_path=self.rows.path,
            files=tuple(files),
            n_runs=len(self.cases),
            n_new=len(missing) - len(failed),
            failed=tuple(failed),
            notes=tuple(skipped_notes(self._images)),
        )

    def settings_of(self, case: Case) -> TrainConfig:
        """Return the loop's settings of a run: as many image passes as any other, see `equal_settings`.

        Raises:
            ConfigError: looking at all images would take nearly all of the passes.
        """
        drawn, lane = self._drawn(case), self._lane(case)
        base = replace(lane.base, seed=case.seed, run_key=drawn.key(lane.net.image_px))
        try:
            images = all_images(drawn, lane.net)
            return equal_settings(self._method(case), base, lane.budget, images, small_batch=case.arm.small_batch)
        except ConfigError as error:
            raise ConfigError(f"{case}: {error}") from error

    def _check_cases(self) -> None:
        """Refuse images, nets and methods that do not fit each other, and runs without passes for their steps."""
        nets = [replace(case, arm=arm) for case in self.cases for arm in candidates_of(case.arm) if not case.is_floor]
        for draw, drawn in self.drawn.items():
            for lane in self.lanes.values():
                methods = [self._method(case) for case in nets if case.draw == draw and self._lane(case) is lane]
                check_run(methods, drawn, lane.net.spec(drawn), says_all=draw[0] == "all")
        for case in nets:
            self.settings_of(case)

    def _result(self, case: Case, features: FrozenFeatures | None, folder: Path, progress: Progress) -> SceneResult:
        drawn = self._drawn(case)
        if case.is_floor:
            assert features is not None
            return floor_result(case.method, features, drawn, progress)
        result = net_result(
            self._method(case),
            drawn,
            self._lane(case).net,
            self.settings_of(case),
            folder=folder,
            progress=progress,
        )
        return self.beyond.added_to(result, drawn)

    def _noted(self, case: Case, make_row: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return the row; a run that diverges is noted beside the rows until it is there, for the tables."""
        noted, name = DivergedRuns.beside(self.rows.path), f"{case}, {self._encoder(case)}"
        try:
            row = make_row()
        except DivergedError as error:
            noted.add(name, error, self._setting(self._lane(case)))
            raise
        noted.drop(name)
        return row

    def _searched(self, case: Case, folder: Path, progress: Progress) -> dict[str, Any]:
        """Return the row of the best of all values of what is searched over."""
        rows = RowFile(self.rows.path.with_name(f"{search_suite(self.suite.name)}.json"))
        refuse_other_settings(rows, self._setting(self._lane(case)), self._images.name, self._encoder(case))

        def key_of(one: Case) -> dict[str, Any]:
            return {**self._key(one), "suite": search_suite(self.suite.name)}

        def make_row(one: Case) -> dict[str, Any]:
            progress.note(f"  searching: {one}")
            return self._row(one, self._result(one, None, folder / case_folder(folder, key_of(one)).name, progress))

        candidates = [replace(case, arm=arm) for arm in candidates_of(case.arm)]
        row = searched_row(candidates, rows, key_of, make_row)
        return {**row, **self._key(case), "command": self._command(case)}

    def _drawn(self, case: Case) -> Drawn:
        return self.drawn[case.draw]

    def _method(self, case: Case) -> Method:
        return make_method(case.method, case.arm.options)

    def _lane(self, case: Case) -> Lane:
        return self.lanes[case.arm.encoder or self.options.encoder]

    @property
    def _images(self) -> ImageSet:
        return next(iter(self.drawn.values())).images

    def _features(self, missing: list[Case]) -> FrozenFeatures | None:
        floor = next((case for case in missing if case.is_floor), None)
        if floor is None:
            return None
        net = self._lane(floor).net
        return FrozenFeatures(self._images, net.encoder, pretrained=net.pretrained, device=self.options.device)

    def _encoder(self, case: Case) -> str:
        net = self._lane(case).net
        return net.encoder if net.pretrained or not case.is_floor else DEFAULT_ENCODER

    def _key(self, case: Case) -> dict[str, Any]:
        return {
            "suite": self.suite.name,
            "dataset": self._drawn(case).images.name,
            "task": self._images.task,
            "method": case.method,
            "variant": case.arm.variant,
            "encoder": self._encoder(case),
            "labels": case.labels,
            "labels_unit": case.labels_unit,
            "seed": case.seed,
        }

    def _row(self, case: Case, result: SceneResult) -> dict[str, Any]:
        drawn, lane = self._drawn(case), self._lane(case)
        info = RunInfo(
            suite=self.suite.name,
            labels=case.labels,
            labels_unit=case.labels_unit,
            seed=case.seed,
            command=self._command(case),
            protocol=self._protocol(case, result),
            variant=case.arm.variant,
        )
        row = scene_row(result, drawn, info)
        setting = self._setting(lane)
        if case.is_floor:
            setting = {"fingerprint": setting["fingerprint"]}
        return {**row, "options": dict(case.arm.options), "setting": setting}

    def _protocol(self, case: Case, result: SceneResult) -> str:
        drawn, lane = self._drawn(case), self._lane(case)
        if case.is_floor:
            return floor_protocol_of(drawn, is_transductive=result.is_transductive)
        has_searches = bool(self.options.search) or any(arm.search for arm in self.suite.arms)
        told = (protocol_of(drawn, lane.net, lane.budget, has_searches=has_searches), self.beyond.told())
        return "; ".join(text for text in told if text)

    def _setting(self, lane: Lane) -> dict[str, Any]:
        """Return what all nets of a table share, for the rows."""
        return {
            **self.beyond.setting(),
            "fingerprint": self._images.fingerprint[:16],
            "image_passes": round(lane.budget),
            "image_px": lane.net.image_px,
            "frozen_stages": lane.net.frozen_stages,
            "symmetries": lane.net.symmetries,
            "is_pretrained": lane.net.pretrained,
            "learning_rate": lane.base.learning_rate,
            "n_labelled": lane.base.n_labelled,
        }

    def _check_rows(self) -> None:
        for lane in self.lanes.values():
            refuse_other_settings(self.rows, self._setting(lane), self._images.name, lane.net.encoder)

    def _command(self, case: Case) -> str:
        chosen: dict[str, Any] = {"methods": case.method, "labels": case.labels, "seeds": 1, "seed": case.seed}
        if sum(arm.method == case.method for arm in self.suite.arms) > 1:
            chosen["variant"] = case.arm.variant or PLAIN
        if case.arm.encoder:
            chosen["encoder"] = case.arm.encoder
        given = {f"{case.method}.{name}": value for name, value in case.arm.options.items()}
        searched = {f"{case.method}.{name}": values for name, values in case.arm.search.items()}
        return command_of_case(self.suite.name, self.options, chosen, given, searched)

    def _note_labels(self, path: Path) -> None:
        images = self._images
        draws = [
            (f"{labels} {unit}", seed, "all" if labels == "all" else " ".join(map(str, sorted(drawn.train.tolist()))))
            for (labels, unit, seed), drawn in self.drawn.items()
        ]
        note_draws(path, images.name, images.fingerprint, draws)


def _lane(options: BenchOptions, images: ImageSet, encoder: str) -> Lane:
    """Return the net of an encoder with the settings that its recipe gives."""
    own = options.replaced(encoder=encoder)
    recipe = recipe_of(own)
    return Lane(recipe.net(own, images), recipe.train_config(own, seed=options.seed))
