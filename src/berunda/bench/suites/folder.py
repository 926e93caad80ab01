"""Any data set that the options name with its folder."""

from __future__ import annotations

from berunda.bench.suite import FLOORS, Suite

__all__ = ["SUITE"]

SUITE = Suite(
    name="folder",
    about="any folder with one sub-directory a class, any CSV table, or any data set of the catalogue, by --data",
    dataset="",
    methods=(*FLOORS, "supervised", "fixmatch"),
    labels=("5", "20", "all"),
)
