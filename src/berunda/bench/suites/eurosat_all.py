"""Every method on EuroSAT in colour at five labels a class: a survey of two seeds."""

from __future__ import annotations

from berunda.bench.suite import Suite

__all__ = ["SUITE"]

SUITE = Suite(
    name="eurosat_all",
    about="every method on EuroSAT RGB at 5 labels per class, two seeds (about 2 hours on two cores)",
    dataset="eurosat",
    methods=(),
    labels=("5",),
    n_seeds=2,
    steps=550,
)
