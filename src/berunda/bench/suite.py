"""A suite of a benchmark, and the floors that stand beside the methods in every one."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FLOORS", "REFERENCE", "Suite"]

FLOORS = ("features_logreg", "features_propagate")
"""What learns on frozen features: a logistic regression, and labels that spread over the graph of their neighbours."""

REFERENCE = "fixmatch"
"""The method, with its defaults, whose image passes every net of a suite gets."""


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
    """

    name: str
    about: str
    dataset: str
    methods: tuple[str, ...]
    labels: tuple[str, ...]
    n_seeds: int = 3
