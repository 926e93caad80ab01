"""A suite of a benchmark, and the floors that stand beside the methods in every one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from berunda.models.spec import Task

__all__ = ["FLOORS", "MASK_FLOORS", "REFERENCE", "Arm", "Suite"]

Plain = bool | int | float | str

FLOORS = ("features_logreg", "features_propagate")
"""What learns on frozen features: a logistic regression, and labels that spread over the graph of their neighbours."""

MASK_FLOORS = ("random_forest",)
"""What learns on the bands of single pixels, for images with masks."""

REFERENCE = "fixmatch"
"""The method, with its defaults, whose image passes every net of a suite gets."""


@dataclass(frozen=True)
class Arm:
    """One thing to compare: a method with some of its options, and perhaps a net of its own.

    Attributes:
        method: its name, or that of a floor.
        options: hyper-parameters that differ from its defaults.
        encoder: of the net; "" for the benchmark's.
        decoder: of the net; "" for the benchmark's, or what the method asks for.
        labels: on whole images, numbers of labels for this arm alone, as texts; empty for the suite's.
        search: on whole images, values of options among which validation images choose, each trained.
    """

    method: str
    options: Mapping[str, Plain] = field(default_factory=dict)
    encoder: str = ""
    decoder: str = ""
    labels: tuple[str, ...] = ()
    search: Mapping[str, tuple[Plain, ...]] = field(default_factory=dict)

    @property
    def variant(self) -> str:
        """What differs from the defaults, in words; "" for nothing."""
        told = [f"{name}={value}" for name, value in sorted(self.options.items())]
        told += [f"{name} searched" for name in sorted(self.search)]
        return ", ".join(told + ([f"decoder={self.decoder}"] if self.decoder else []))

    def __str__(self) -> str:
        return f"{self.method} {self.variant}".strip()


@dataclass(frozen=True)
class Suite:
    """What is compared on which data, unless the options say otherwise.

    Attributes:
        name: as `berunda bench` takes it; the name of its file.
        about: one line.
        dataset: name in the catalogue; "" for the folder or table that the options name.
        methods: to compare, floors included; empty for every method that serves the task, after the floors.
        labels: how many, as texts.
        n_seeds: runs of each.
        task: of the data; None where the data tells.
        arms: what is compared, instead of `methods`, on images with masks; on whole images where `task` says so.
        mask_labels: numbers of labelled images with masks, instead of `labels`.
        split: "own", the data set's; or "within_sites": of every site a part trains and a part tests.
    """

    name: str
    about: str
    dataset: str
    methods: tuple[str, ...]
    labels: tuple[str, ...]
    n_seeds: int = 3
    task: Task | None = "scene"
    arms: tuple[Arm, ...] = ()
    mask_labels: tuple[str, ...] = ()
    split: Literal["own", "within_sites"] = "own"
