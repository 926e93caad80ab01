"""The runs of a benchmark: what is planned, what of it is there, and how one is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from berunda.api.bench_arms import arms_of, candidates_of, labels_of_arm
from berunda.api.bench_common import (
    case_folder,
    command_of_case,
    note_draws,
    refuse_other_settings,
    run_missing,
)
from berunda.api.bench_search import search_suite, searched_row
from berunda.api.drawn import Drawn, Labels, draw_images
from berunda.api.fit import passes_per_step, with_passes
from berunda.api.floor import FrozenFeatures, propagation_result, regression_result
from berunda.api.outcome import BenchOutcome
from berunda.api.scene_fit import Net
from berunda.api.scene_pipeline import protocol_of
from berunda.api.scene_recipe import recipe_of
from berunda.api.scene_result import (
    RunInfo,
    SceneResult,
    image_passes,
    net_result,
    scene_row,
    survey_passes,
)
from berunda.bench.rows import RowFile
from berunda.bench.suite import FLOORS, REFERENCE, Arm, Suite
from berunda.bench.tables import write_tables
from berunda.data.images import ImageSet
from berunda.errors import ConfigError
from berunda.methods import make_method
from berunda.methods.contract import Method
from berunda.models.encoders import DEFAULT_ENCODER
from berunda.options.bench import BenchOptions
from berunda.progress import Progress
from berunda.train.config import TrainConfig

__all__ = ["Bench", "Case", "Lane"]

_MANY_STEPS = 1000  # to measure a mean step by, over stages of different cost


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
    """

    options: BenchOptions
    suite: Suite
    drawn: Mapping[tuple[Labels, str, int], Drawn]
    lanes: Mapping[str, Lane]
    cases: tuple[Case, ...]
    rows: RowFile
    work: Path
    notes: tuple[str, ...] = ()

    @classmethod
    def planned(cls, options: BenchOptions, suite: Suite, images: ImageSet, out: Path, work: Path) -> Bench:
        """Check everything and return the benchmark.

        Raises:
            ConfigError: a method does not serve the task or an option of it is wrong.
            DataError: there are not that many labels.
        """
        arms, notes = arms_of(options, suite, images.task)
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
        )
        for case in made.cases:
            if case.method not in FLOORS:
                for candidate in candidates_of(case.arm):
                    made.settings_of(replace(case, arm=candidate))
        return made

    def run(self, progress: Progress) -> BenchOutcome:
        """Do the missing runs, then write the tables."""
        for note in self.notes:
            progress.note(note)
        self._check_rows()
        missing = [case for case in self.cases if not self.rows.has(**self._key(case))]
        features = self._features(missing)
        out = self.rows.path.parent
        self._note_labels(out / f"{self.suite.name}_labels.json")

        def make_row(case: Case, folder: Path) -> dict[str, Any]:
            if not case.arm.search:
                return self._row(case, self._result(case, features, folder, progress))
            return self._searched(case, folder, progress)

        failed = run_missing(
            missing, self.rows, make_row, lambda case: case_folder(self.work, self._key(case)), progress
        )
        files = write_tables(self.rows.path, out) if self.rows.path.exists() else []
        return BenchOutcome(
            rows_path=self.rows.path,
            files=tuple(files),
            n_runs=len(self.cases),
            n_new=len(missing) - len(failed),
            warnings=tuple(failed),
        )

    def settings_of(self, case: Case) -> TrainConfig:
        """Return the loop's settings of a run: as many image passes as any other.

        Without unlabelled images a step has more labelled ones; with others than the reference's there are more or
        fewer steps, after what looking at all images takes.

        Raises:
            ConfigError: looking at all images would take nearly all of the passes.
        """
        method, drawn, lane = self._method(case), self._drawn(case), self._lane(case)
        base = replace(lane.base, seed=case.seed, run_key=drawn.key(lane.net.image_px))
        if not method.needs().unlabelled:
            return with_passes(base, lane.budget / base.steps)
        looking = survey_passes(method, drawn, lane.net)
        left = lane.budget - looking
        if left < lane.budget / 10:
            raise ConfigError(
                f"{case}: looking at all images takes {looking:,.0f} image passes of the {lane.budget:,.0f} that a run "
                "has; expected most of them for steps: train for longer (--effort, --steps), or let it look less often "
                f"(`berunda methods {case.method}`)"
            )
        once = replace(base, steps=_MANY_STEPS)
        per_step = (image_passes(method, once, drawn, lane.net) - looking) / once.steps
        return replace(base, steps=max(1, round(left / per_step)))

    def _result(self, case: Case, features: FrozenFeatures | None, folder: Path, progress: Progress) -> SceneResult:
        drawn = self._drawn(case)
        if case.method in FLOORS:
            assert features is not None
            learn = regression_result if case.method == "features_logreg" else propagation_result
            return learn(features, drawn, progress)
        return net_result(
            self._method(case),
            drawn,
            self._lane(case).net,
            self.settings_of(case),
            options=case.arm.options,
            folder=folder,
            progress=progress,
        )

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
        if not any(case.method in FLOORS for case in missing):
            return None
        net = self._lane(next(case for case in missing if case.method in FLOORS)).net
        return FrozenFeatures(self._images, net.encoder, pretrained=net.pretrained, device=self.options.device)

    def _encoder(self, case: Case) -> str:
        net = self._lane(case).net
        return net.encoder if net.pretrained or case.method not in FLOORS else DEFAULT_ENCODER

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
            protocol=protocol_of(drawn, lane.net, lane.budget),
            variant=case.arm.variant,
        )
        row = scene_row(result, drawn, info)
        setting = self._setting(lane)
        if case.method in FLOORS:
            setting = {"fingerprint": setting["fingerprint"]}
        return {**row, "options": dict(case.arm.options), "setting": setting}

    def _setting(self, lane: Lane) -> dict[str, Any]:
        """Return what all nets of a table share, for the rows."""
        return {
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
        chosen = {"methods": case.method, "labels": case.labels, "seeds": 1, "seed": case.seed}
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
