"""EuroSAT in colour, from one label a class to all of them."""

from __future__ import annotations

from berunda.bench.suite import FLOORS, Suite

__all__ = ["SUITE"]

SUITE = Suite(
    name="eurosat",
    about="EuroSAT RGB at 1 to all labels per class, three seeds (about 6 hours on two cores)",
    dataset="eurosat",
    methods=(*FLOORS, "supervised", "fixmatch", "propagate"),
    labels=("1", "5", "20", "100", "all"),
)
