"""The runs of a benchmark on images with masks: what is planned, what of it is there, and how one is made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from berunda.api.bench_common import case_folder, command_of_case, note_draws, run_missing
from berunda.api.mask_arms import arms_of, choices_of, with_weights
from berunda.api.mask_fit import MaskNet, check_unlabelled, colors_of
from berunda.api.mask_recipe import mask_config, mask_net
from berunda.api.mask_result import FOREST, MaskResult, forest_masks, mask_row, net_masks
from berunda.api.outcome import BenchOutcome
from berunda.api.scene_result import RunInfo
from berunda.bench.grids import Shown, shown_folder
from berunda.bench.rows import RowFile, refuse_other_settings
from berunda.bench.suite import MASK_FLOORS, PLAIN, REFERENCE, Arm, Suite, of_variant
from berunda.bench.tables import write_tables
from berunda.data.images import TEST, TRAIN
from berunda.data.listing import split_by_name
from berunda.data.masks.draw import DrawnMasks, Unit, draw_masks
from berunda.data.masks.images import MaskSet
from berunda.data.masks.leaks import leaks
from berunda.errors import ConfigError, DataError
from berunda.methods import make_method
from berunda.methods.contract import Method
from berunda.options.bench import BenchOptions
from berunda.progress import Progress
from berunda.train.config import TrainConfig
from berunda.train.passes import equal_settings, passes_per_step

__all__ = ["MaskBench", "MaskCase", "within_sites"]

N_SHOWN = 4
"""Test images that the figure grids show."""


@dataclass(frozen=True)
class MaskCase:
    """One run: what is compared, how many labelled images of which site ("" for all), and the seed."""

    arm: Arm
    labels: int | float | str
    unit: Unit
    seed: int
    site: str = ""

    @property
    def variant(self) -> str:
        """What differs from the method's defaults, and the site whose labels are used."""
        return ", ".join(text for text in (self.arm.variant, f"labels of {self.site}" if self.site else "") if text)

    def __str__(self) -> str:
        of = f" of {self.site}" if self.site else ""
        return f"{self.arm}, labels {self.labels} {self.unit}{of}, seed {self.seed}"


@dataclass(frozen=True)
class MaskBench:
    """A benchmark that is ready to run: every method, option and draw has been checked.

    Attributes:
        options: every option.
        suite: what they left open.
        masks: the data set.
        drawn: the images by (labels, unit, site, seed).
        net: which net all methods train, but for those whose arm says otherwise.
        base: the loop's settings of the reference method.
        cases: all runs, in order.
        rows: the file of the finished ones.
        work: folder of the checkpoints.
        notes: what the user should know of the runs, in words.
        leaks: what of the training can be seen in the test, in words.
    """

    options: BenchOptions
    suite: Suite
    masks: MaskSet
    drawn: Mapping[tuple[int | float | str, str, str, int], DrawnMasks]
    net: MaskNet
    base: TrainConfig
    cases: tuple[MaskCase, ...]
    rows: RowFile
    work: Path
    notes: tuple[str, ...] = ()
    leaks: tuple[str, ...] = ()

    @classmethod
    def planned(cls, options: BenchOptions, suite: Suite, masks: MaskSet, out: Path, work: Path) -> MaskBench:
        """Check everything and return the benchmark.

        Raises:
            ConfigError: a method does not serve segmentation, or an option of it is wrong.
            DataError: there are not that many labelled images, or, of numbers that the user named, no image is left
                without mask for a method that learns from such.
        """
        seen = () if suite.split == "within_sites" else tuple(leaks(masks))
        masks = within_sites(masks) if suite.split == "within_sites" else masks
        arms, lacking = with_weights(arms_of(options, suite), options)
        drawn: dict[tuple[int | float | str, str, str, int], DrawnMasks] = {}
        cases, left_out = [], dict[str, None]()
        for seed in range(options.seed, options.seed + (options.seeds or suite.n_seeds)):
            for labels, unit, site in choices_of(options, suite, masks):
                sites = [site] if site else None
                one = drawn[labels, unit, site, seed] = draw_masks(masks, labels, unit, seed, sites=sites)
                for case in (MaskCase(arm, labels, unit, seed, site) for arm in arms):
                    try:
                        _check_case(case, one)
                    except DataError as error:
                        if options.labels is not None:
                            raise
                        left_out[f"{case.arm} with {labels} labels is left out: {error}"] = None
                    else:
                        cases.append(case)
        return cls(
            options=options,
            suite=suite,
            masks=masks,
            drawn=drawn,
            net=mask_net(options),
            base=mask_config(options, seed=options.seed),
            cases=tuple(of_variant(cases, options.variant)),
            rows=RowFile(out / f"{suite.name}.json"),
            work=work,
            notes=(*lacking, *left_out),
            leaks=seen,
        )

    @property
    def budget(self) -> float:
        """Passes of crops of a run: those of the reference method."""
        return self.base.steps * passes_per_step(make_method(REFERENCE), self.base.n_labelled)

    def run(self, progress: Progress) -> BenchOutcome:
        """Do the missing runs, then write the tables and pictures."""
        for note in (*self.notes, *self.leaks):
            progress.note(note)
        out = self.rows.path.parent
        refuse_other_settings(self.rows, self._setting(), self.masks.name, self.net.encoder)
        missing = [case for case in self.cases if not self.rows.has(**self._key(case))]
        draws = [
            (f"{labels} {unit}{f' of {site}' if site else ''}", seed, " | ".join(self.masks.names[i] for i in d.train))
            for (labels, unit, site, seed), d in self.drawn.items()
        ]
        note_draws(out / f"{self.suite.name}_labels.json", self.masks.name, self.masks.fingerprint, draws)
        shown = Shown(shown_folder(self.rows.path, self.masks.name), self.masks.classes, tuple(colors_of(self.masks)))
        shown.begin(self.masks, self.shown)

        def make_row(case: MaskCase, folder: Path) -> dict[str, Any]:
            result = self._result(case, folder, progress)
            name = hashlib.sha256(repr(self._key(case)).encode()).hexdigest()[:16]
            shown.keep(name, result.shown)
            return {**self._row(case, result), "shown": name}

        failed = run_missing(missing, self.rows, make_row, self._place, progress)
        files = write_tables(self.rows.path, out) if self.rows.path.exists() else []
        return BenchOutcome(
            rows_path=self.rows.path,
            files=tuple(files),
            n_runs=len(self.cases),
            n_new=len(missing) - len(failed),
            failed=tuple(failed),
        )

    @property
    def shown(self) -> tuple[int, ...]:
        """Test images that the figure grids show: spread over the test images."""
        test = next(iter(self.drawn.values())).test
        places = np.linspace(0, len(test) - 1, min(N_SHOWN, len(test)))
        return tuple(int(test[round(place)]) for place in places)

    def settings_of(self, case: MaskCase) -> TrainConfig:
        """Return the loop's settings of a run: as many passes of crops as any other, see `equal_settings`."""
        method, net = self._method(case), self._net(case)
        base = replace(self.base, seed=case.seed, run_key=self._drawn(case).key(net.crop_px))
        return equal_settings(method, base, self.budget, small_batch=case.arm.small_batch)

    def _result(self, case: MaskCase, folder: Path, progress: Progress) -> MaskResult:
        drawn = self._drawn(case)
        if case.arm.method == FOREST:
            return forest_masks(drawn, case.seed, keep=self.shown, progress=progress)
        return net_masks(
            self._method(case),
            drawn,
            self._net(case),
            self.settings_of(case),
            keep=self.shown,
            options=case.arm.options,
            folder=folder,
            progress=progress,
        )

    def _method(self, case: MaskCase) -> Method:
        return make_method(case.arm.method, case.arm.options)

    def _net(self, case: MaskCase) -> MaskNet:
        decoder: Any = case.arm.decoder or self.net.decoder
        return replace(
            self.net,
            encoder=case.arm.encoder or self.net.encoder,
            decoder=decoder,
            pretrained=self.net.pretrained and not case.arm.from_scratch,
            frozen_stages=0 if case.arm.from_scratch else self.net.frozen_stages,
        )

    def _drawn(self, case: MaskCase) -> DrawnMasks:
        return self.drawn[case.labels, case.unit, case.site, case.seed]

    def _place(self, case: MaskCase) -> Path:
        return case_folder(self.work, self._key(case))

    def _key(self, case: MaskCase) -> dict[str, Any]:
        return {
            "suite": self.suite.name,
            "dataset": self.masks.name,
            "task": "segmentation",
            "method": case.arm.method,
            "variant": case.variant,
            "encoder": "" if case.arm.method == FOREST else self._net(case).encoder,
            "labels": case.labels,
            "labels_unit": case.unit,
            "seed": case.seed,
        }

    def _row(self, case: MaskCase, result: MaskResult) -> dict[str, Any]:
        info = RunInfo(
            suite=self.suite.name,
            labels=case.labels,
            labels_unit=case.unit,
            seed=case.seed,
            command=self._command(case),
            protocol=self._protocol(),
            variant=case.variant,
        )
        setting = self._setting()
        facts = {"options": dict(case.arm.options), "site": case.site}
        if case.arm.method == FOREST:
            setting = {"fingerprint": setting["fingerprint"]}
        return {**mask_row(result, self._drawn(case), info), **facts, "setting": setting}

    def _command(self, case: MaskCase) -> str:
        """Return a command that makes this run, and no other: its variant tells it from those of the same method."""
        method = case.arm.method
        chosen: dict[str, object] = {"methods": method, "variant": case.variant or PLAIN}
        chosen |= {"labels": "each_site" if case.site else case.labels}
        chosen |= {"labels_unit": case.unit} if case.labels == "all" else {}
        chosen |= {"seeds": 1, "seed": case.seed}
        given = {f"{method}.{name}": value for name, value in self.options.options_of(method).items()}
        return command_of_case(self.suite.name, self.options, chosen, given)

    def _setting(self) -> dict[str, Any]:
        """Return what all nets of a table share, for the rows."""
        return {
            "fingerprint": self.masks.fingerprint[:16],
            "decoder": self.net.decoder,
            "encoder_depth": self.net.depth,
            "image_passes": round(self.budget),
            "crop_px": self.net.crop_px,
            "frozen_stages": self.net.frozen_stages,
            "is_pretrained": self.net.pretrained,
            "learning_rate": self.base.learning_rate,
            "n_labelled": self.base.n_labelled,
        }

    def _tested(self) -> str:
        """Return which sites test, where they are few and known."""
        masks = self.masks
        tested = sorted({masks.sites[i] for i in masks.of(TEST, labelled=True)} - {""})
        trained = {masks.sites[i] for i in masks.of(TRAIN)}
        return f", by site: {', '.join(tested)} test" if 0 < len(tested) <= 8 and not trained & set(tested) else ""

    def _protocol(self) -> str:
        """Return in words how a run is trained and tested."""
        masks = self.masks
        counts = "/".join(str(len(masks.of(part))) for part in range(4))
        how = {
            "own": f"split of the data set{self._tested()}",
            "within_sites": "of every site 60/20/20% of the images train, validate, test, by the hash of their names",
        }[self.suite.split]
        return (
            f"{masks.name}, {counts} images for training/validation/test/unlabelled alone, {len(masks.bands)} bands, "
            f"{len(masks.classes)} classes; {how}; labelled images drawn by seed, nested, stratified by class; all "
            f"training images without masks; {self.budget:,.0f} passes of crops of {self.net.crop_px} px a run "
            "(forward alone counts a third), equal for all nets, spent without unlabelled images both on large "
            "batches and on small ones in more steps; last averaged model; temperature from at most as many validation "
            "images as training ones; random_forest learns on the bands of single pixels"
            + "".join(f"; {text}" for text in self.leaks)
        )


def _check_case(case: MaskCase, drawn: DrawnMasks) -> None:
    """Raise DataError where the method learns from images without mask and none is left."""
    if case.arm.method not in MASK_FLOORS:
        check_unlabelled(make_method(case.arm.method, case.arm.options), drawn)


def within_sites(masks: MaskSet) -> MaskSet:
    """Return the data set with another split: of every site 60/20/20% of its images with masks, by hash.

    Images of one site are neighbours: the figures of a site whose own images trained are optimistic, and are there to
    be compared with those of the others.

    Raises:
        ConfigError: fewer than two sites are known.
    """
    sites = np.array(masks.sites)
    usable = masks.has_mask & (sites != "")
    known = sorted(set(sites[usable].tolist()))
    if len(known) < 2:
        raise ConfigError(
            f"data set {masks.name}: {len(known)} sites with masks found, expected two or more: put the images and "
            "masks of each site into folders of its name"
        )
    parts = np.array(masks.parts)
    for site in known:
        index = np.flatnonzero(usable & (sites == site))
        drawn = split_by_name([masks.names[i] for i in index], [0] * len(index))
        parts[index] = drawn
    digest = hashlib.sha256(f"{masks.fingerprint}|within sites".encode()).hexdigest()
    return replace(masks, parts=parts, fingerprint=digest)
