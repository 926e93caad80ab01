"""What a script for a lent GPU compares: which methods, on which images, with which net, for how long."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from berunda.assess.classify import Classified
from berunda.bench.bound import Bound
from berunda.bench.resident import Asked
from berunda.bench.suite import REFERENCE, Arm
from berunda.bench.timm_net import with_weights
from berunda.data.images import TRAIN, ImageSet
from berunda.data.subsets import label_subset
from berunda.errors import ConfigError
from berunda.files import digest_of
from berunda.methods import make_method
from berunda.methods.contract import Method, NetSpec
from berunda.train.config import TrainConfig
from berunda.train.loop import Trained
from berunda.train.passes import AllImages, equal_settings, passes_per_step

__all__ = ["Experiment", "Finished", "Job"]

_OF_A_RUN = ("seed", "run_key", "steps")
"""Settings of the loop that runs of one table do not share; how long they are, their image passes say."""


@dataclass(frozen=True)
class Job:
    """One run: a method with its options, so many labels and a seed."""

    arm: Arm
    labels: int | float
    seed: int

    @property
    def key(self) -> dict[str, Any]:
        """What tells its row from those of other runs with the same encoder."""
        return {"method": self.arm.method, "variant": self.arm.variant, "labels": self.labels, "seed": self.seed}

    def name(self, encoder: str) -> str:
        """Return the name of its folder."""
        words = (encoder, self.arm.method, self.arm.variant, self.labels, self.seed)
        return re.sub(r"[^\w.=-]", "_", "-".join(str(word) for word in words if word != ""))


@dataclass(frozen=True)
class Finished:
    """A trained run, to be judged.

    Attributes:
        job: what was asked for.
        name: of its folder, and of files about it.
        trained: what the loop left behind.
        asked: the averaged model, to be shown images.
        validation: what it makes of the validation images.
        test: what it makes of the test images.
    """

    job: Job
    name: str
    trained: Trained
    asked: Asked
    validation: Classified
    test: Classified


def _no_more(finished: Finished) -> dict[str, Any]:
    del finished
    return {}


@dataclass(frozen=True)
class Experiment:
    """All runs of a table: every method with every number of labels and every seed, all at equal image passes.

    Attributes:
        suite: name of the file of rows.
        images: the data set.
        labels_unit: what numbers of labels count.
        arms: what is compared.
        labels: numbers of labels, in the order in which they are done.
        n_seeds: runs of each.
        net: the net; the numbers of images are filled in for each run.
        base: the loop's settings of the reference method with its defaults; seed and key are filled in for each run.
        told: how the data is split, in words.
        weights: safetensors file of a timm net that the net is to be instead, with these weights; None for none.
        bound: measures the bare cost of a step; None where the rows need none.
        more: further figures of a run.
        setting: what else all runs share, as plain JSON.
        judging_s: seconds that are kept for judging a run after its training.
    """

    suite: str
    images: ImageSet
    labels_unit: Literal["per_class", "fraction"]
    arms: tuple[Arm, ...]
    labels: tuple[int | float, ...]
    n_seeds: int
    net: NetSpec
    base: TrainConfig
    told: str
    weights: Path | None = None
    bound: Callable[[Method, NetSpec, TrainConfig], Bound] | None = None
    more: Callable[[Finished], Mapping[str, Any]] = _no_more
    setting: Mapping[str, Any] = field(default_factory=dict)
    judging_s: float = 0.0

    def jobs(self) -> Iterator[Job]:
        """Yield all runs: the numbers of labels in turn, and of each the seeds in turn."""
        for labels in self.labels:
            for seed in range(self.n_seeds):
                yield from (Job(arm, labels, seed) for arm in self.arms)

    def method(self, job: Job) -> Method:
        """Return the method with its options, and with pretrained weights where there are some."""
        method = make_method(job.arm.method, job.arm.options)
        return method if self.weights is None else with_weights(method, self.weights, self.net.encoder)

    def labelled(self, job: Job) -> np.ndarray:
        """Return the images (k,) int64 whose labels a run uses."""
        return self._subset(job.labels, job.seed)

    @cached_property
    def _subset(self) -> Callable[[int | float, int], np.ndarray]:
        return cache(lambda labels, seed: label_subset(self.images, labels, self.labels_unit, seed))

    def spec(self, job: Job) -> NetSpec:
        """Return the net of a run."""
        n_labelled, n_unlabelled = len(self.labelled(job)), len(self.images.of(TRAIN))
        return replace(self.net, n_labelled=n_labelled, n_unlabelled=n_unlabelled)

    def all_images(self, job: Job) -> AllImages:
        """Return what a method that looks at all images of a run looks at."""
        spec = self.spec(job)
        return AllImages(spec.n_labelled + spec.n_unlabelled, spec.crop_px, spec.pretrained)

    def config(self, job: Job) -> TrainConfig:
        """Return the loop's settings of a run: as many image passes as any other, see `equal_settings`.

        Raises:
            ConfigError: the run cannot have them.
        """
        key = f"{self.images.fingerprint[:16]}-{job.labels}-{self.weights_key}"
        base = replace(self.base, seed=job.seed, run_key=key)
        try:
            return equal_settings(self.method(job), base, self.budget, self.all_images(job))
        except ConfigError as error:
            raise ConfigError(f"{job.name(self.net.encoder)}: {error}") from error

    @property
    def budget(self) -> float:
        """Image passes of a run: those of the reference method."""
        return float(self.base.steps * passes_per_step(make_method(REFERENCE), self.base.n_labelled))

    @cached_property
    def weights_key(self) -> str:
        """16 hex digits of the weights, "" without."""
        return "" if self.weights is None else digest_of(self.weights.read_bytes())[:16]

    def shared(self) -> dict[str, Any]:
        """Return all that the runs of a table share, as plain JSON: rows of others are not mixed with them."""
        loop = {name: value for name, value in self.base.numerics().items() if name not in _OF_A_RUN}
        told = {
            "fingerprint": self.images.fingerprint[:16],
            "image_passes": round(self.budget),
            "image_px": self.net.crop_px,
            "encoder_depth": self.net.encoder_depth,
            "weights": self.weights_key,
            **loop,
            **self.setting,
        }
        plain: dict[str, Any] = json.loads(json.dumps(told))
        return plain
