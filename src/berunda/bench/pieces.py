"""The runs of an experiment in pieces of some minutes, where a GPU is lent for no longer and files have to be small.

A call does what no row tells of yet and stops when its time is over. The checkpoint of the run under way is then left
in small parts, from which the next call goes on and ends with the same weights as if it had never stopped.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from berunda._version import __version__
from berunda.assess.measures import measures_of
from berunda.bench.bound import Bound
from berunda.bench.diverged import DivergedRuns
from berunda.bench.experiment import Experiment, Finished, Job
from berunda.bench.parts import INDEX, join_parts, split_files
from berunda.bench.resident import Asked, resident_source
from berunda.bench.rows import RowFile, refuse_other_settings
from berunda.data.images import TEST
from berunda.data.source import Source
from berunda.data.subsets import validation_subset
from berunda.errors import ConfigError, DivergedError
from berunda.models.device import resolve_device
from berunda.train.config import TrainConfig
from berunda.train.loop import Trained, train
from berunda.train.passes import image_passes
from berunda.train.signals import alarm

__all__ = ["Call", "Pieces", "joined_data"]

RESUME_PART_BYTES = 15_000_000
MARGIN_S = 20.0
"""Kept of the time for the checkpoint and for leaving."""
_RESUME, _PICTURES = "resume", "*.png"


@dataclass(frozen=True)
class Call:
    """One call.

    Attributes:
        out: where rows, pictures and the run under way go.
        state: folder of checkpoints, and of data that was brought in parts.
        minutes: that it may take.
        before: `out` of an earlier call.
        command: as it was typed.
    """

    out: Path
    state: Path
    minutes: float
    before: Path | None = None
    command: str = ""


def joined_data(parts: Sequence[Path], state: Path) -> Path | None:
    """Return the folder with the data that came in `parts`, None without any; joined once.

    Raises:
        DataError: a part is missing or damaged.
    """
    folder = state / "data"
    if parts and not folder.is_dir():
        draft = state / "data.draft"
        shutil.rmtree(draft, ignore_errors=True)
        join_parts(parts, draft)
        draft.rename(folder)
    return folder if parts else None


class Pieces:
    """The runs of an experiment in one call.

    Args:
        experiment: all runs.
        call: where, and for how long.
    """

    def __init__(self, experiment: Experiment, call: Call) -> None:
        self.experiment, self.call = experiment, call
        self.start = time.monotonic()
        self.rows = RowFile(call.out / f"{experiment.suite}.json")
        self.diverged = DivergedRuns(call.out / f"{experiment.suite}_diverged.json")
        self.runs = call.state / "runs"
        if call.before is not None:
            self._take_over(call.before)
        shutil.rmtree(call.out / _RESUME, ignore_errors=True)

    def _take_over(self, before: Path) -> None:
        """Bring in the rows, the pictures and the run under way of an earlier call."""
        self.rows.add(RowFile(before / self.rows.path.name).rows())
        self.diverged.take_over(DivergedRuns(before / self.diverged.path.name))
        for picture in before.glob(_PICTURES):
            if not (self.call.out / picture.name).exists():
                shutil.copy(picture, self.call.out)
        if (before / _RESUME / INDEX).is_file() and not self.runs.is_dir():
            join_parts([before / _RESUME], self.runs)

    @property
    def left_s(self) -> float:
        """Seconds until the training of this call should come to its end."""
        kept = MARGIN_S + self.experiment.judging_s
        return 60 * self.call.minutes - kept - (time.monotonic() - self.start)

    def missing(self) -> list[Job]:
        """Return the runs that no row tells of yet, but for those that diverged with the same settings."""
        plan = self.experiment
        encoder, failed = plan.net.encoder, self.failed()
        return [
            job
            for job in plan.jobs()
            if not self.rows.has(suite=plan.suite, encoder=encoder, **job.key) and job.name(encoder) not in failed
        ]

    def failed(self) -> list[str]:
        """Return the names of the runs that diverged with the settings of now."""
        return self.diverged.names(self.experiment.shared())

    def run(self) -> bool:
        """Do what there is time for; return whether all is done.

        Raises:
            ConfigError: the rows there were trained otherwise, a run cannot have as many image passes as the others, or
                the time is too short to do anything.
        """
        plan = self.experiment
        if 60 * self.call.minutes <= MARGIN_S + plan.judging_s:
            least = (MARGIN_S + plan.judging_s) / 60
            raise ConfigError(
                f"--minutes {self.call.minutes:g}: expected more than {least:.1f}, kept for judging and leaving"
            )
        refuse_other_settings(self.rows, plan.shared(), plan.images.name, plan.net.encoder)
        missing = self.missing()
        for job in missing:
            plan.config(job)
        for job in missing:
            if self.left_s <= 0 or not self._ended(job):
                self._leave()
                return False
        return True

    def _ended(self, job: Job) -> bool:
        """Do a run, and return whether it came to its end; one that diverges did, is noted, and the others go on."""
        try:
            return self._run(job)
        except DivergedError as error:
            name = job.name(self.experiment.net.encoder)
            self.diverged.add(name, error, self.experiment.shared())
            shutil.rmtree(self.runs / name, ignore_errors=True)
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            return True

    def _run(self, job: Job) -> bool:
        plan, name = self.experiment, job.name(self.experiment.net.encoder)
        config = plan.config(job)
        bound = None if plan.bound is None else plan.bound(plan.method(job), plan.spec(job), config)
        start = time.perf_counter()  # the bound is no part of the run
        device = resolve_device(config.device)
        source = resident_source(plan.images, plan.labelled(job), device, plan.net.crop_px)
        training = time.perf_counter()
        trained = self._trained(job, source, config)
        if trained is None:
            return False
        earlier_s = max(0.0, trained.seconds - (time.perf_counter() - training))
        row = self._row(self._asked(job, config, trained), _speed(trained, config, bound))
        wall_s = plan.images.opening_s + time.perf_counter() - start + earlier_s
        self.rows.add([row | {"wall_s": round(wall_s, 2)}])
        shutil.rmtree(self.runs / name)
        headline = measures_of(plan.net.task).headline
        reached = f"{headline} {row['metrics'][headline]:.4f}, {wall_s:.0f} s, {row['images_per_s']:.0f} image passes/s"
        share = f", {row['metrics']['share_of_bare']:.0%} of bare" if bound else ""
        print(f"{name}: {reached}{share}", flush=True)
        return True

    def _trained(self, job: Job, source: Source, config: TrainConfig) -> Trained | None:
        """Return what the training leaves behind, or None where the time was over before its end."""
        plan, folder = self.experiment, self.runs / job.name(self.experiment.net.encoder)
        with alarm(self.left_s) as fired:
            try:
                return train(plan.method(job), plan.spec(job), source, config, folder=folder)
            except SystemExit:
                if not fired.is_set():
                    raise
                return None

    def _asked(self, job: Job, config: TrainConfig, trained: Trained) -> Finished:
        """Show the model what it is judged by."""
        plan, images = self.experiment, self.experiment.images
        asked = Asked(trained, config, images.scaling(), plan.net.crop_px)
        parts = (validation_subset(images, len(plan.labelled(job)), job.seed), images.of(TEST))
        validation, test = (asked.classified(images, index) for index in parts)
        return Finished(job, job.name(plan.net.encoder), trained, asked, validation, test)

    def _leave(self) -> None:
        """Put the checkpoint of the run under way into parts."""
        files = sorted(path for path in self.runs.rglob("*") if path.is_file() and path.suffix != ".lock")
        named = {path.relative_to(self.runs).as_posix(): path for path in files}
        if named:
            written = split_files(named, self.call.out / _RESUME, RESUME_PART_BYTES)
            size = sum(path.stat().st_size for path in written) / 1e6
            name = files[0].relative_to(self.runs).parts[0]
            print(f"time is up: {name} goes on from {len(written) - 1} parts, {size:.0f} MB")

    def _row(self, finished: Finished, speed: dict[str, float]) -> dict[str, Any]:
        """Return the row of a finished run, but for its wall time."""
        plan, job = self.experiment, finished.job
        trained, config = finished.trained, finished.asked.config
        measures, images, net = measures_of(plan.net.task), plan.images, plan.net
        figures = measures.figures(finished.validation, finished.test, class_names=images.classes)
        passes = image_passes(plan.method(job), config, plan.all_images(job))
        kind = "pretrained" if net.pretrained else "from scratch"
        return {
            "suite": plan.suite,
            "dataset": images.name,
            "task": net.task,
            "encoder": net.encoder,
            **job.key,
            "labels_unit": plan.labels_unit,
            "metrics": figures | speed | dict(plan.more(finished)),
            "validation": measures.score(finished.validation),
            "training_s": round(trained.seconds, 2),
            "images_per_s": round(passes / trained.seconds, 1),
            "image_passes": round(passes),
            "n_labelled": len(plan.labelled(job)),
            "protocol": f"{len(images.bands)} bands, {net.crop_px} px, {kind}; {plan.told}; labels drawn by seed, all "
            f"training images unlabelled; {plan.budget:,.0f} image passes a run (forward alone counts a third), equal "
            "for all methods; averaged model of the last step",
            "hardware": _hardware(config.device),
            "config": config.numerics(),
            "setting": plan.shared(),
            "options": dict(job.arm.options),
            "command": self.call.command,
            "version": __version__,
        }


def _speed(trained: Trained, config: TrainConfig, bound: Bound | None) -> dict[str, float]:
    """Return seconds of a step, images of the data set a second, and what of a step the bare net takes."""
    step_s = trained.seconds / config.steps
    found = {"step_s": step_s, "drawn_images_per_s": trained.images_seen / trained.seconds}
    if bound is None:
        return found
    bare = {"bare_step_s": bound.step_s, "bare_trained_s": bound.trained_s}
    shares = {"share_of_bare": bound.step_s / step_s, "share_of_bare_trained": bound.trained_s / step_s}
    return found | bare | shares


def _hardware(device: str) -> str:
    """Return the GPU (or that there is none) and the cores."""
    name = torch.cuda.get_device_name(0) if device != "cpu" and torch.cuda.is_available() else "CPU only"
    return f"{name}, {os.cpu_count()} cores"
